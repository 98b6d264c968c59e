//! Programs of random instructions, the fuzzer's bytes being the random numbers.
#![no_main]

#[path = "../choices.rs"]
mod choices;
#[allow(dead_code, reason = "shared with tests/it/fuzz")]
#[path = "../../tests/it/fuzz/soup.rs"]
mod soup;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = soup::program(&mut choices::Choices(bytes));
    soup::run(&text);
});
