//! A bounded hunt for panics: any text to the parser, any PTX to the emulator.
//!
//! The texts come from a seeded generator, so that a failure repeats. `CROSSOVER_FUZZ=20` takes
//! twenty times as many; `fuzz/` has the same for cargo-fuzz, without a bound.

mod changed;
mod soup;

use std::panic::{AssertUnwindSafe, catch_unwind};

use rand::SeedableRng;
use rand_pcg::Pcg64;

/// Runs `f` and says which text it panicked on.
fn survive(what: &str, seed: u64, text: &str, f: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(f)).is_err() {
        panic!("{what}, seed {seed}, panics on:\n{text}");
    }
}

/// Seeds of a hunt: `n`, or so many times more as the environment says.
fn seeds(n: u64) -> std::ops::Range<u64> {
    let times = std::env::var("CROSSOVER_FUZZ").ok().and_then(|t| t.parse().ok());
    0..n * times.unwrap_or(1)
}

#[test]
fn any_text_is_read_or_refused() {
    for seed in seeds(4000) {
        let text = soup::text(&mut Pcg64::seed_from_u64(seed));
        survive("text", seed, &text, || {
            soup::run(&text);
        });
    }
}

/// Sizes that a text only names must not be set aside.
#[test]
fn great_sizes_are_refused() {
    let module = |above: &str, inside: &str| {
        format!(
            ".version 8.0\n.target sm_90a\n.address_size 64\n{above}\n\
             .visible .entry k(.param .u64 in, .param .u64 out) {{ {inside} ret; }}\n"
        )
    };
    let big = 1u64 << 40;
    for text in [
        module(&format!(".global .align 4 .b8 big[{big}];"), ""),
        module(&format!(".const .align 4 .b8 big[{big}];"), ""),
        module(
            &(0..40)
                .map(|i| format!(".global .align 4 .b8 a{i}[200000000];\n"))
                .collect::<String>(),
            "",
        ),
        module(".global .b32 big[4294967295][4294967295];", ""),
        module("", &format!(".shared .align 4 .b8 big[{big}];")),
        module("", &format!(".local .align 4 .b8 big[{big}];")),
        module("", ".reg .b32 r<4000000000>;"),
        module("", ".shared .align 4294967296 .b8 big[4];"),
        module("", &"{".repeat(200_000)),
    ] {
        assert!(!soup::run(&text), "runs: {}", &text[..text.len().min(300)]);
    }
}

#[test]
fn any_program_runs_or_is_refused() {
    let mut ran = 0;
    for seed in seeds(3000) {
        let text = soup::program(&mut Pcg64::seed_from_u64(seed));
        survive("program", seed, &text, || ran += usize::from(soup::run(&text)));
    }
    // Otherwise this hunts in the parser alone.
    assert!(ran > 150, "only {ran} programs began to run");
}

/// The kernels of the program with some lines lost, doubled, exchanged or changed.
#[test]
fn changed_kernels_run_or_are_refused() {
    let kernels = changed::Kernels::new(5_000);
    for seed in seeds(240) {
        let rng = &mut Pcg64::seed_from_u64(seed);
        kernels.change(seed as usize, rng, |text, run| survive("kernel", seed, text, run));
    }
}
