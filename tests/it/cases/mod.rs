//! Inputs that once failed, each a module of its name: what a user ran, and what is right. Their
//! files are in tests/cases.

mod crossover_in_noise;
mod flops_causal_rectangular;
mod huge_scores;
mod min_bytes_window;
mod out_over_input;
mod packed_empty_sequence;
mod records_null_and_nul;
mod template_double_hash;
mod two_runs_one_folder;
mod verify_nan_behind_the_mask;
