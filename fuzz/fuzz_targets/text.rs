//! Any bytes as PTX: parsed, decoded and run.
#![no_main]

#[allow(dead_code, reason = "shared with tests/it/fuzz")]
#[path = "../../tests/it/fuzz/soup.rs"]
mod soup;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    soup::run(&String::from_utf8_lossy(bytes));
});
