//! What is not PTX, or not known, is answered with a line and a reason; never with a panic.

use super::*;
use crate::device::emulator::ptx::parse;
use proptest::prelude::*;

/// The message for `body`, whose first line is line 5 of the text.
fn refusal(body: &str) -> String {
    let text = module(".param .u64 out", body);
    let result = run_raw(&text, "k", [1; 3], [32, 1, 1], 0, &[RawArg::Out(4)]);
    result.err().map(|t| t.message).unwrap_or_default()
}

#[test]
fn refusals_name_line_and_reason() {
    for (body, words) in [
        (".reg .b32 x;\nfrobnicate.b32 x, x;", &["line 7", "`frobnicate.b32`"][..]),
        (".reg .b32 x;\nadd.u32 x, x;", &["line 7", "3 operands, not 2"]),
        (".reg .b32 x;\nadd.rz.s7 x, x, x;", &["line 7", "wants a type"]),
        (".reg .f64 x;\nadd.rz.f64 x, x, x;", &["line 7", "`.rz`"]),
        ("add.u32 y, y, 1;", &["line 6", "`y`"]),
        (".reg .b64 x;\nadd.u32 x, x, 1;", &["`x` has 64 bits", "32"]),
        (".reg .f32 x;\nmov.f32 x, 1;", &["float constant"]),
        (".reg .b32 x;\nmov.u32 x, 1.5;", &["whole number"]),
        ("bra $nowhere;", &["line 6", "`$nowhere`"]),
        ("$a:\n$a:", &["line 7", "`$a` stands twice"]),
        (".reg .b32 x, x;", &["declared twice"]),
        (".reg .b32 x<70000>;", &["at most 60000"]),
        ("{ { ", &["the end of the text"]),
        ("ret", &["an operand is expected, not `}`"]),
        (".reg .b32 x;\nmov.u32 x, %foo.x;", &["%foo.x"]),
        (".reg .b32 x;\nld.shared.b32 x, [out];", &["lives in .param"]),
        (".reg .b32 x;\nld.global.b32 x, [x];", &["32 bits", "wants 64"]),
        (".reg .b32 x;\nld.b128 x, [0];", &["`x` has 32 bits, but 128 are wanted"]),
        ("tcgen05.commit.cta_group::1;", &["tcgen05.commit.cta_group::1"]),
    ] {
        let message = refusal(body);
        assert!(words.iter().all(|w| message.contains(w)), "{body}: {message}");
    }
}

#[test]
fn whole_texts_are_refused() {
    let whole = |text: &str| parse(text).map(|_| ()).unwrap_err().to_string();
    assert!(whole("").contains(".version"));
    assert!(whole(".version 8.0\n").contains(".target"));
    assert!(whole(".version 8.0 .target sm_80 .func f() {}").contains(".func"));
    assert!(whole(".version 8.0\n.target sm_80\n.entry k( {").contains("line 3"));
    let deep = format!(".version 8.0 .target sm_80 .entry k() {}", "{".repeat(100_000));
    assert!(whole(&deep).contains("deep"));
    let deep =
        format!(".version 8.0 .target sm_80 .entry k() {{ mov.u32 a, {}1; }}", "(".repeat(100_000));
    assert!(whole(&deep).contains("deep"));
    let ok = ".version 8.0\n.target sm_90a\n.address_size 64\n.visible .entry k() { ret; }";
    let t = run_raw(&ok.replace("90a", "100"), "k", [1; 3], [1; 3], 0, &[]).unwrap_err();
    assert!(t.message.contains("sm_100"), "{t}");
    assert!(run_raw(ok, "k", [1; 3], [1; 3], 0, &[]).is_ok());
    let t = run_raw(ok, "q", [1; 3], [1; 3], 0, &[]).unwrap_err();
    assert!(t.message.contains("no entry `q`; the PTX has k"), "{t}");
    let t = run_raw(ok, "k", [1; 3], [1; 3], 0, &[RawArg::U32(1)]).unwrap_err();
    assert!(t.message.contains("0 parameters"), "{t}");
    let t = run_raw(ok, "k", [1; 3], [1025, 1, 1], 0, &[]).unwrap_err();
    assert!(t.message.contains("1024"), "{t}");
    let t = run_raw(ok, "k", [1; 3], [32, 1, 1], 1 << 20, &[]).unwrap_err();
    assert!(t.message.contains("shared memory"), "{t}");
}

#[test]
fn scopes_constants_and_layout() {
    let body = "
    .reg .b32 r<3>; .reg .b64 q;
    .loc 1 2 3
    .pragma \"nounroll\";
    ld.param.u64 q, [out];
    mov.u32 r0, (1 << 4) | 0x3 - 1 * 2; // 17
    { .reg .b32 r1; mov.u32 r1, 5; add.u32 r0, r0, r1; $x: bra.uni $y; $y: }
    { .reg .b32 r1; mov.u32 r1, -7; add.u32 r0, r0, r1; bra $x; $x: }
    st.global.b32 [0+q + 4 - 2*2], r0;";
    let text = module(".param .align 8 .u64 .ptr .global .align 16 out", body);
    let out = run_raw(&text, "k", [1; 3], [1; 3], 0, &[RawArg::Out(4)]).unwrap();
    assert_eq!(out.words(0), [17 + 5 - 7]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_panics(text in ".{0,200}") {
        let _ = parse(&text);
        let _ = refusal(&text);
    }

    /// Words of PTX in any order come further into the decoder.
    #[test]
    fn no_words_panic(words in prop::collection::vec(prop::sample::select(vec![
        "mov", ".b32", ".u64", ".f32", "x", "y", "p", "{", "}", "[", "]", ",", ";", "@", "!", "|",
        "1", "0f3F800000", "-", "+", "smem", ".reg", ".pred", "<4>", "ld", ".global", ".shared",
        "st", "cvt", ".rn", "mma", ".sync", ".aligned", ".m16n8k16", ".row", ".col", ".bf16",
        "bra", "$l:", "$l", "bar", "cp", ".async", ".cg", "16", "shfl", ".bfly", "ret", ".v4",
        "atom", ".add", "setp", ".lt", "(", ")", "*", "<<", "1.5", ".x2", "ldmatrix", ".m8n8",
    ]), 0..60)) {
        let _ = refusal(&format!(".reg .b32 x, y; .reg .pred p;\n{}", words.join(" ")));
    }
}
