//! Small broken programs, each caught by its own check.

use super::*;

const IO: &str = ".param .u64 in, .param .u64 out";

/// The trap of `body` in a CTA of 64 threads with 256 bytes of shared memory, an input and an
/// output of 256 bytes.
fn trap(body: &str) -> Box<Trap> {
    let text = format!(
        ".reg .b32 t, s, x, y, z, w; .reg .b64 p, q, o; .reg .pred p0; .reg .b32 never;
         ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
         mov.u32 x, 0; mov.u32 y, 0;
{body}"
    );
    let args = [RawArg::words(0..64), RawArg::Out(256)];
    match run(IO, &text, 64, 256, &args) {
        Ok(_) => panic!("no trap: {body}"),
        Err(t) => t,
    }
}

#[track_caller]
fn expect(body: &str, kind: FaultKind, thread: Option<u32>, words: &[&str]) {
    let t = trap(body);
    let text = t.to_string();
    assert_eq!(t.kind, kind, "{text}");
    assert_eq!(t.at.thread.map(|t| t[0]), thread, "{text}");
    assert!(words.iter().all(|w| text.contains(w)), "{text}");
}

#[test]
fn out_of_bounds() {
    use FaultKind::OutOfBounds;
    let at = "mul.wide.u32 o, t, 4; add.u64 p, p, o;";
    expect(
        &format!("{at}\nld.global.b32 x, [p+16];"),
        OutOfBounds,
        Some(60),
        &[
            "global load of 4 bytes",
            "0 bytes behind the end of `arg0` (256 bytes)",
            "thread (60, 0, 0)",
            "ld.global.b32 x, [p+16];",
            "PTX line 11",
        ],
    );
    expect("st.global.b32 [q-4], x;", OutOfBounds, Some(0), &["4 bytes before `arg1`"]);
    expect("mov.u64 o, 64; ld.global.b32 x, [o];", OutOfBounds, Some(0), &["no global address"]);
    // An address cut to 32 bits.
    expect(
        "cvt.u32.u64 x, p; cvt.u64.u32 p, x; ld.global.b32 x, [p];",
        OutOfBounds,
        Some(0),
        &["no global address"],
    );
    expect("st.shared.b32 [s+256], x;", OutOfBounds, Some(0), &["shared", "the CTA has 256 bytes"]);
    expect("st.shared.b32 [s-4], x;", OutOfBounds, Some(0), &["shared"]);
    expect("ld.local.b32 x, [0-4];", OutOfBounds, Some(0), &["local"]);
    expect("ld.param.b32 x, [0-4];", OutOfBounds, Some(0), &["parameters"]);
    expect("ld.shared.v4.b32 {x, y, z, w}, [s+256];", OutOfBounds, Some(0), &["16 bytes"]);
    expect(
        "cp.async.cg.shared.global [s], [p+256], 16;",
        OutOfBounds,
        Some(0),
        &["cp.async", "arg0"],
    );
}

#[test]
fn misaligned() {
    use FaultKind::Misaligned;
    expect("ld.global.b32 x, [p+2];", Misaligned, Some(0), &["byte 2 of `arg0`"]);
    expect("ld.global.v4.b32 {x, y, z, w}, [p+8];", Misaligned, Some(0), &["multiple of 16"]);
    expect("st.shared.v2.b32 [s+4], {x, y};", Misaligned, Some(0), &["shared address 4"]);
    expect("cp.async.cg.shared.global [s+8], [p], 16;", Misaligned, Some(0), &["cp.async"]);
}

#[test]
fn uninitialised() {
    use FaultKind::{InFlight, Uninitialised};
    expect("add.u32 x, never, 1;", Uninitialised, Some(0), &["register `never`"]);
    // Written for some lanes only.
    expect(
        "setp.lt.u32 p0, t, 5; @p0 mov.u32 never, 1; add.u32 x, never, 1;",
        Uninitialised,
        Some(5),
        &["register `never`"],
    );
    expect("@p0 mov.u32 x, 1;", Uninitialised, Some(0), &["register `p0`"]);
    expect(
        "ld.shared.b32 x, [s+12];",
        Uninitialised,
        Some(0),
        &["shared address 12", "never written"],
    );
    expect(
        "setp.ne.u32 p0, t, 0; @p0 exit; st.shared.u8 [s], x; ld.shared.b32 x, [s];",
        Uninitialised,
        Some(0),
        &["shared address 0"],
    );
    expect(
        "ld.global.b32 x, [q+8];",
        Uninitialised,
        Some(0),
        &["byte 8 of `arg1` was never written"],
    );
    expect(
        "mul.wide.u32 o, t, 4; add.u64 o, o, p; shl.b32 x, t, 2; add.u32 s, s, x;
         cp.async.ca.shared.global [s], [o], 4; cp.async.commit_group; ld.shared.b32 x, [s];",
        InFlight,
        Some(0),
        &["has not been waited for"],
    );
    // One group too few is waited for.
    expect(
        "setp.ne.u32 p0, t, 0; @p0 exit;
         cp.async.ca.shared.global [s], [p], 4; cp.async.commit_group;
         cp.async.ca.shared.global [s+4], [p], 4; cp.async.commit_group;
         cp.async.wait_group 1; ld.shared.b32 x, [s]; ld.shared.b32 x, [s+4];",
        InFlight,
        Some(0),
        &["shared address 4"],
    );
    expect(
        "setp.ne.u32 p0, t, 0; @p0 exit;
         cp.async.ca.shared.global [s], [p], 4; st.shared.b32 [s], x;",
        InFlight,
        Some(0),
        &["writes it"],
    );
}

#[test]
fn divergence_and_deadlock() {
    use FaultKind::{Deadlock, Divergence};
    expect(
        "setp.lt.u32 p0, t, 32; @p0 bra $low; bar.sync 0; bra $end; $low: bar.sync 1; $end:",
        Deadlock,
        None,
        &["barrier 0, 32 of 64 threads arrived", "barrier 1, 32 of 64", "warp 0", "warp 1"],
    );
    // Half of a warp does not come to the barrier.
    expect(
        "setp.lt.u32 p0, t, 16; @p0 bra $end; bar.sync 0; bra $stop; $end: bar.sync 1; $stop:",
        Divergence,
        None,
        &["0000ffff", "a barrier of the whole warp"],
    );
    expect(
        "setp.lt.u32 p0, t, 16; @p0 bar.sync 0;",
        Divergence,
        Some(16),
        &["its predicate is false"],
    );
    expect(
        "setp.lt.u32 p0, t, 4; @p0 shfl.sync.bfly.b32 x, t, 1, 0x1f, 0xffffffff;",
        Divergence,
        Some(4),
        &["lane 4"],
    );
    expect(
        "shfl.sync.bfly.b32 x, t, 1, 0x1f, 0xf;",
        Divergence,
        Some(4),
        &["member mask 0000000f"],
    );
    expect("bar.sync 0, 96;", Deadlock, None, &["64 of 96"]);
    expect("bar.sync 0, 40;", FaultKind::Operand, Some(0), &["multiple of 32"]);
    expect(
        "setp.lt.u32 p0, t, 32; @p0 bra $low; bar.sync 0, 64; bra $end;
         $low: bar.sync 0, 128; $end:",
        Divergence,
        Some(32),
        &["128", "64"],
    );
}

#[test]
fn steps_and_traps() {
    expect("$l: bra $l;", FaultKind::StepLimit, None, &["limit"]);
    expect("setp.eq.u32 p0, t, 33; @p0 trap;", FaultKind::Trap, Some(33), &["trap"]);
    expect(
        "setp.lt.u32 p0, t, 2; @!p0 bra $end; mov.u32 y, 5; \
         shfl.sync.idx.b32 x, t, y, 0x1f, 3; $end:",
        FaultKind::Operand,
        Some(0),
        &["reads lane 5"],
    );
}

#[test]
fn the_first_cta_is_named_whatever_the_order() {
    let text = module(
        ".param .u64 out",
        ".reg .b64 q, o; .reg .b32 x; ld.param.u64 q, [out]; mov.u32 x, %ctaid.x;
         mul.wide.u32 o, x, 4; add.u64 q, q, o; st.global.b32 [q], x;",
    );
    for _ in 0..4 {
        let t = run_raw(&text, "k", [10, 7, 1], [32, 1, 1], 0, &[RawArg::Out(12)]).unwrap_err();
        assert_eq!(t.at.cta, [3, 0, 0]);
    }
}
