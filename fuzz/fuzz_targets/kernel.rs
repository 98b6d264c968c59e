//! The kernels of the program with lines changed as the fuzzer's bytes say.
#![no_main]

#[allow(dead_code, reason = "shared with tests/it/fuzz")]
#[path = "../../tests/it/fuzz/changed.rs"]
mod changed;
#[path = "../choices.rs"]
mod choices;
#[allow(dead_code, reason = "shared with tests/it/fuzz")]
#[path = "../../tests/it/fuzz/soup.rs"]
mod soup;

use std::sync::LazyLock;

static KERNELS: LazyLock<changed::Kernels> = LazyLock::new(|| changed::Kernels::new(2_000));

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((&kernel, rest)) = bytes.split_first() else { return };
    KERNELS.change(kernel.into(), &mut choices::Choices(rest), |_, run| run());
});
