//! PTX text to a syntax tree.

pub mod ast;
mod constant;
mod lex;
mod parse;

pub use parse::{MAX_REGISTERS, parse};

/// Why a text is not PTX that the emulator reads, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {message}")]
pub struct PtxError {
    /// From 1.
    pub line: u32,
    pub message: String,
}

impl PtxError {
    pub fn new(line: u32, message: impl Into<String>) -> PtxError {
        PtxError { line, message: message.into() }
    }
}

pub type Result<T> = std::result::Result<T, PtxError>;
