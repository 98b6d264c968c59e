//! The emulator against values computed by hand.

mod basic;

use super::{RawArg, RawOutcome, Trap, run_raw};

/// A module with one entry `k` of the given parameters and body.
pub fn module(params: &str, body: &str) -> String {
    format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry k({params})\n{{\n{body}\n}}\n"
    )
}

/// Runs `body` in one CTA of `threads`.
pub fn run(
    params: &str,
    body: &str,
    threads: u32,
    args: &[RawArg],
) -> Result<RawOutcome, Box<Trap>> {
    run_raw(&module(params, body), "k", [1; 3], [threads, 1, 1], 0, args)
}
