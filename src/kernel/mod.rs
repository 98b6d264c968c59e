//! How it is computed: PTX, plain or templates, with their manifests, the legal tiles of each,
//! rendering, and the launches of a variant on a problem.

pub mod expr;
pub mod job;
mod macros;
pub mod manifest;
pub mod named;
mod params;
mod pieces;
pub mod registry;
pub mod render;
pub mod tile;

pub use manifest::{Loss, Manifest};
pub use named::Named;
pub use registry::{Kernel, Registry};
pub use tile::Tile;

/// What is wrong with a kernel, its manifest or the use made of it. The message names the file
/// and the field.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct KernelError(pub String);

impl KernelError {
    pub fn new(text: impl Into<String>) -> KernelError {
        KernelError(text.into())
    }
}
