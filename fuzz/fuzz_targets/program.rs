//! Programs of random instructions, the fuzzer's bytes being the seed.
#![no_main]

#[allow(dead_code, reason = "shared with tests/fuzz.rs")]
#[path = "../../tests/fuzz/soup.rs"]
mod soup;

use rand::SeedableRng;

libfuzzer_sys::fuzz_target!(|bytes: [u8; 32]| {
    let text = soup::program(&mut rand_pcg::Pcg64::from_seed(bytes));
    soup::run(&text);
});
