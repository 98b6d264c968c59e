//! The tests of the whole program, one binary: `cargo test --release kda` runs what has `kda` in its path.

mod assemble;
mod attention_plan;
mod attention_schedule;
mod bounds;
mod broken;
mod cases;
mod common;
mod conformance;
mod cuda_gpu;
mod cuda_stub;
mod endless;
mod exec;
mod fuzz;
mod gemm;
mod model_error;
mod named;
mod operators;
mod profile;
mod run;
mod sampling;
mod suite;
mod sweeps;
mod timing;
mod verify;
