//! crossover: benchmarks attention kernels written by hand in PTX; autotuning is to come.
//!
//! Data flows one way:
//!
//! ```text
//! sweep (TOML) -> plan (cases) -> kernel variant -> device (cuda | emulator)
//!    -> verify (fp64 reference, canaries) -> measure -> record (JSON Lines) -> report
//! ```
//!
//! The modules stand in the order of what they know, which is another: each imports from those above
//! it alone. `device` says what a job is, and `kernel` makes jobs; `record` says what is written of a
//! case, and `verify` and `measure` fill it in.

#![deny(unsafe_code)]

// Blank lines keep the order.

// What all that write, or ask processes, share.
mod child;
mod disk;
#[cfg(test)]
mod mutate;

// What is computed, and where.
pub mod op;

pub mod device;

// What is run of it: variants, and the cases of a sweep.
pub mod kernel;

pub mod sweep;

// What came of it.
pub mod record;

pub mod verify;

pub mod measure;

pub mod report;

pub mod compare;

pub mod cli;
