//! Loads, stores, asynchronous copies, atomics, and what is counted for them.

use super::*;

const IO: &str = ".param .u64 in, .param .u64 out";

/// Loads and stores around `body`: s is the shared base, p and q are the input and output.
fn io(body: &str) -> String {
    format!(
        ".reg .b32 t, s, x, y, z, w; .reg .b64 p, q, o; .reg .pred p0; .reg .b16 h; .reg .b64 w0, w1;
         ld.param.u64 p, [in]; ld.param.u64 q, [out]; mov.u32 t, %tid.x; mov.u32 s, smem;
         {body}"
    )
}

#[test]
fn every_width_of_load_and_store() {
    let input: Vec<u8> = (0..64).map(|i| 0xf0u8.wrapping_add(i)).collect();
    let body = io("setp.ne.u32 p0, t, 0; @p0 exit;
        ld.global.u8 x, [p+1]; st.global.u8 [q], x;
        ld.global.s8 x, [p+1]; st.global.b32 [q+4], x;
        ld.global.u16 h, [p+2]; st.global.b16 [q+8], h;
        ld.global.s16 x, [p+2]; st.global.b32 [q+12], x;
        ld.global.v4.b32 {x, y, z, w}, [p+16]; st.global.v2.b32 [q+16], {z, w};
        ld.global.v2.b64 {w0, w1}, [p+32]; st.global.b64 [q+24], w1;
        st.local.b32 [loc+4], x; ld.local.u8 y, [loc+5]; st.global.b32 [q+32], y;
        st.shared.v4.b32 [s], {x, y, z, w}; ld.shared.b64 w0, [s+8]; st.global.b64 [q+40], w0;
        ld.global.b32 w0, [p]; st.global.b64 [q+48], w0;");
    let body = format!(".local .align 8 .b8 loc[16];\n{body}");
    let out = run(IO, &body, 32, 64, &[RawArg::In(input), RawArg::Out(56)]).unwrap();
    let b = &out.outputs[0];
    assert_eq!(b[0], 0xf1);
    assert_eq!(b[1..4], [0xff; 3]);
    assert_eq!(b[4..8], 0xffff_fff1u32.to_le_bytes());
    assert_eq!(b[8..10], [0xf2, 0xf3]);
    assert_eq!(b[12..16], 0xffff_f3f2u32.to_le_bytes());
    assert_eq!(b[16..24], [8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(b[24..32], (0x18..0x20).collect::<Vec<u8>>());
    assert_eq!(b[32..36], [1, 0, 0, 0]);
    assert_eq!(b[40..48], [8, 9, 10, 11, 12, 13, 14, 15]);
    assert_eq!(b[48..56], [0xf0, 0xf1, 0xf2, 0xf3, 0, 0, 0, 0]);
}

#[test]
fn generic_addresses_reach_every_space() {
    let body = io("setp.ne.u32 p0, t, 0; @p0 exit;
        ld.b32 x, [p]; cvt.u64.u32 o, s; cvta.shared.u64 o, o; st.b32 [o+4], x;
        ld.shared.b32 y, [s+4]; st.b32 [q], y;
        isspacep.shared p0, o; selp.b32 x, 1, 0, p0; st.global.b32 [q+4], x;
        isspacep.global p0, o; selp.b32 x, 1, 0, p0; st.global.b32 [q+8], x;
        cvta.to.shared.u64 o, o; cvt.u32.u64 x, o; sub.u32 x, x, s; st.global.b32 [q+12], x;");
    let out = run(IO, &body, 32, 64, &[RawArg::words([77]), RawArg::Out(16)]).unwrap();
    assert_eq!(out.words(0), [77, 1, 0, 0]);
}

#[test]
fn module_variables_are_initialised() {
    let text = "
.version 8.0
.target sm_80
.address_size 64
.const .align 4 .f32 half = 0.5;
.global .align 4 .u32 table[4] = {1, 2, 0x30, -1};
.visible .entry k(.param .u64 out)
{
    .reg .b32 x; .reg .b64 q, a;
    ld.param.u64 q, [out];
    ld.const.b32 x, [half]; st.global.b32 [q], x;
    ld.global.b32 x, [table+8]; st.global.b32 [q+4], x;
    mov.u64 a, table; ld.global.b32 x, [a+12]; st.global.b32 [q+8], x;
}";
    let out = run_raw(text, "k", [1; 3], [1, 1, 1], 0, &[RawArg::Out(12)]).unwrap();
    assert_eq!(out.words(0), [0.5f32.to_bits(), 0x30, u32::MAX]);
}

#[test]
fn asynchronous_copies_land_at_the_wait() {
    // Three groups; the first must be there while two are in flight, and a short source is
    // filled up with zeros.
    let input: Vec<u8> = (0..96).map(|i| i as u8 + 1).collect();
    let body = io("setp.ne.u32 p0, t, 0; @p0 exit;
        cp.async.cg.shared.global [s], [p], 16; cp.async.commit_group;
        mov.u32 x, 8; cp.async.cg.shared.global.L2::128B [s+16], [p+16], 16, x;
        cp.async.commit_group;
        mov.u32 x, 0; cp.async.ca.shared.global [s+32], [p+999], 4, x; cp.async.commit_group;
        cp.async.wait_group 2; ld.shared.b32 x, [s]; st.global.b32 [q], x;
        cp.async.wait_group 1; ld.shared.v2.b32 {x, y}, [s+16]; st.global.v2.b32 [q+8], {x, y};
        ld.shared.v2.b32 {x, y}, [s+24]; st.global.v2.b32 [q+16], {x, y};
        cp.async.wait_all; ld.shared.b32 x, [s+32]; st.global.b32 [q+4], x;");
    let out = run(IO, &body, 32, 64, &[RawArg::In(input.clone()), RawArg::Out(24)]).unwrap();
    let b = &out.outputs[0];
    assert_eq!(b[..4], input[..4]);
    assert_eq!(b[4..8], [0; 4]);
    assert_eq!(b[8..16], input[16..24]);
    assert_eq!(b[16..24], [0; 8]);
    // What is not read is not counted: two copies of one sector each.
    assert_eq!(out.counts.global_read_sectors, 2);
    let ignored = io("setp.eq.u32 p0, t, t;
        cp.async.ca.shared.global [s], [p+999], 4, p0; cp.async.wait_all;
        ld.shared.b32 x, [s]; st.global.b32 [q], x;");
    let out = run(IO, &ignored, 1, 64, &[RawArg::In(input), RawArg::Out(4)]).unwrap();
    assert_eq!(out.words(0), [0]);
}

#[test]
fn atomics() {
    let body = io("atom.global.add.u32 x, [q], 1; atom.global.max.s32 x, [q+4], t;
        red.global.add.f32 [q+8], 0f3F000000; atom.global.cas.b32 x, [q+12], 0, 7;
        atom.global.inc.u32 x, [q+16], 9; atom.global.or.b32 x, [q+20], t;
        mul.wide.u32 o, t, 1; atom.global.add.u64 o, [q+24], o;
        setp.eq.u32 p0, t, 0; @p0 st.shared.b32 [s], 0; bar.sync 0;
        atom.shared.add.u32 x, [s], 2; bar.sync 0; ld.shared.b32 x, [s];
        @p0 st.global.b32 [q+32], x;");
    let out = run(IO, &body, 64, 16, &[RawArg::words([0]), RawArg::InOut(36)]).unwrap();
    assert_eq!(out.words(0), [64, 63, 32f32.to_bits(), 7, 4, 63, 2016, 0, 128]);
}

fn shared_counts(threads: u32, address: &str, access: &str) -> (u64, u64) {
    let body = io(&format!(
        "mov.u32 x, 0; mov.u32 y, 0; mov.u32 z, 0; mov.u32 w, 0; {address} add.u32 s, s, t; {access}"
    ));
    let out = run(IO, &body, threads, 32768, &[RawArg::words([0]), RawArg::Out(4)]).unwrap();
    (out.counts.shared_wavefronts, out.counts.bank_conflicts)
}

#[test]
fn bank_conflicts_are_exact() {
    for (address, access, want) in [
        ("shl.b32 t, t, 2;", "st.shared.b32 [s], x;", (1, 0)),
        ("shl.b32 t, t, 3;", "st.shared.b32 [s], x;", (2, 1)),
        ("shl.b32 t, t, 7;", "st.shared.b32 [s], x;", (32, 31)),
        // One word for all is broadcast.
        ("mov.u32 t, 0;", "st.shared.b32 [s], x;", (1, 0)),
        ("shl.b32 t, t, 3;", "st.shared.v2.b32 [s], {x, y};", (2, 0)),
        ("shl.b32 t, t, 4;", "st.shared.v4.b32 [s], {x, y, z, w};", (4, 0)),
        ("shl.b32 t, t, 5;", "st.shared.v4.b32 [s], {x, y, z, w};", (8, 4)),
        ("shl.b32 t, t, 7;", "st.shared.v4.b32 [s], {x, y, z, w};", (32, 28)),
    ] {
        assert_eq!(shared_counts(32, address, access), want, "{address} {access}");
    }
    assert_eq!(shared_counts(8, "shl.b32 t, t, 4;", "st.shared.v4.b32 [s], {x, y, z, w};"), (1, 0));
}

#[test]
fn sectors_are_exact() {
    for (address, access, want) in [
        ("mul.wide.u32 o, t, 4;", "ld.global.b32 x, [p];", (4, 4)),
        ("mul.wide.u32 o, t, 32;", "ld.global.b32 x, [p];", (32, 32)),
        ("mul.wide.u32 o, t, 16;", "ld.global.v4.b32 {x, y, z, w}, [p];", (16, 16)),
        ("mov.u64 o, 4;", "ld.global.b32 x, [p]; ld.global.b32 x, [p];", (2, 1)),
        // Lanes in reverse touch the same four.
        ("sub.u32 t, 31, t; mul.wide.u32 o, t, 4;", "ld.global.b32 x, [p];", (4, 4)),
        ("xor.b32 t, t, 9; mul.wide.u32 o, t, 4;", "ld.global.b32 x, [p];", (4, 4)),
    ] {
        let body = io(&format!("{address} add.u64 p, p, o; {access}"));
        let out = run(IO, &body, 32, 0, &[RawArg::In(vec![0; 1024]), RawArg::Out(4)]).unwrap();
        let c = out.counts;
        assert_eq!((c.global_read_sectors, c.unique_read_sectors), want, "{address}");
    }
}

#[test]
fn counts_go_by_class_and_line() {
    let body = "add.f32 f, f, f;\nex2.approx.f32 f, f;\nex2.approx.f16x2 r, r;\nbar.sync 0;";
    let text = format!(".reg .f32 f; .reg .b32 r; mov.f32 f, 0.0; mov.b32 r, 0;\n{body}");
    let out = run("", &text, 64, 0, &[]).unwrap();
    let c = &out.counts;
    assert_eq!(c.instructions["fma"], 2);
    assert_eq!(c.instructions["special"], 4);
    assert_eq!(c.instructions["barrier"], 2);
    assert_eq!(c.instructions["move"], 4);
    assert_eq!(c.special_ops, 64 + 2 * 64);
    // The module has four lines before the body, and the harness one.
    let lines = &out.profile.lines;
    assert_eq!(lines[&7].executions, 4);
    assert_eq!(lines[&8].executions, 2);
    assert_eq!(lines[&9].lanes, 64);
    assert_eq!(out.registers, 2);
}

#[test]
fn warps_meet_at_barriers() {
    // Two halves of the CTA exchange through shared memory over named barriers.
    let body = io("shl.b32 x, t, 2; add.u32 x, x, s; setp.ge.u32 p0, t, 32; @p0 bra $consumer;
        st.shared.b32 [x], t; bar.arrive 3, 64; bra $end;
        $consumer: bar.sync 3, 64; ld.shared.b32 y, [x-128]; mul.wide.u32 o, y, 4;
        add.u64 q, q, o; st.global.b32 [q], y;
        $end: barrier.sync.aligned 0; setp.lt.u32 p0, t, 10; bar.red.popc.u32 y, 1, p0;
        setp.eq.u32 p0, t, 40; @p0 st.global.b32 [q+128], y;");
    let out = run(IO, &body, 64, 256, &[RawArg::words([0]), RawArg::Out(256)]).unwrap();
    let w = out.words(0);
    assert_eq!(w[..32], (0..32).collect::<Vec<_>>());
    assert_eq!(w[8 + 32], 10);
}
