//! crossover: benchmarks attention kernels written by hand in PTX; autotuning is to come.
//!
//! The modules stand in the order in which data flows through them:
//!
//! ```text
//! sweep (TOML) -> plan (cases) -> kernel variant -> device (cuda | emulator)
//!    -> verify (fp64 reference, canaries) -> measure -> record (JSON Lines) -> report
//! ```
//!
//! A later stage knows the types of earlier ones, never the other way round.

#![deny(unsafe_code)]

// In flow order; blank lines keep it so.
pub mod op;

pub mod kernel;

pub mod device;

pub mod sweep;

pub mod verify;

pub mod measure;

pub mod record;

pub mod report;

pub mod cli;
