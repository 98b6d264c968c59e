//! Bulk copies of every kind, against what a plain loop gives.

use super::hopper::*;
use super::*;
use crate::device::{Swizzle, TensorMap};
use crate::op::DType;

const MAP_IO: &str = ".param .align 64 .b8 map[128], .param .u64 in, .param .u64 out";

fn map(dims: &[u64], tile: &[u32], swizzle: Swizzle, dtype: DType) -> TensorMap {
    let mut strides = Vec::new();
    let mut stride = dims[0] * dtype.bytes() as u64;
    for d in &dims[1..] {
        strides.push(stride);
        stride *= d;
    }
    TensorMap {
        buffer: 0,
        dtype,
        dims: dims.to_vec(),
        strides_bytes: strides,
        tile: tile.to_vec(),
        swizzle,
        nan_fill: false,
    }
}

fn coords(c: &[i32]) -> String {
    let c: Vec<String> = c.iter().map(i32::to_string).collect();
    format!("{{{}}}", c.join(", "))
}

const MAP: &str = "mov.b64 o, map; cvta.param.u64 o, o; prefetch.tensormap [o];";
const COPY_OUT: &str = "mov.u32 x, t; $copy: setp.ge.u32 p1, x, n; @p1 bra $copied;
    shl.b32 y, x, 2; add.u32 z, s, y;
    ld.shared.b32 w, [z+1024]; cvt.u64.u32 st, y; add.u64 st, st, q; st.global.b32 [st], w;
    add.u32 x, x, 64; bra $copy; $copied:";

/// A tensor load at `at`, its box as it stands in shared memory.
fn tensor_load(m: &TensorMap, at: &[i32], input: &[u32]) -> Vec<u32> {
    let bytes = m.tile.iter().product::<u32>() * m.dtype.bytes() as u32;
    let body = format!(
        "{} {MAP} mov.u32 n, {};
         @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], {bytes};
         @p0 cp.async.bulk.tensor.{}d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
         [s+1024], [o, {}], [s]; {} {COPY_OUT} ret;",
        init(1),
        bytes / 4,
        at.len(),
        coords(at),
        wait(0, 0)
    );
    let args = [
        RawArg::TensorMap(m.clone()),
        RawArg::words(input.iter().copied()),
        RawArg::Out(bytes as usize),
    ];
    go(MAP_IO, &body, 64, &args).unwrap_or_else(|t| panic!("{t}")).words(0)
}

/// The box of a tensor of words, out of bounds filled, dimension 0 first.
fn boxed(m: &TensorMap, at: &[i32], input: &[u32], fill: u32) -> Vec<u32> {
    let n = m.tile.iter().product::<u32>();
    (0..n)
        .map(|i| {
            let (mut rest, mut index, mut stride) = (i, 0, 1);
            for (d, start) in at.iter().enumerate() {
                let c = i64::from(*start) + i64::from(rest % m.tile[d]);
                rest /= m.tile[d];
                if c < 0 || c >= m.dims[d] as i64 {
                    return fill;
                }
                index += c as u64 * stride;
                stride *= m.dims[d];
            }
            input[index as usize]
        })
        .collect()
}

#[test]
fn tensor_loads_of_every_rank() {
    let input: Vec<u32> = (0..4096).map(|i| 0x4000_0000 + i).collect();
    let cases: [(&[u64], &[u32], &[i32]); 7] = [
        (&[64], &[32], &[8]),
        (&[64], &[32], &[-4]),
        (&[16, 20], &[8, 6], &[12, 17]),
        (&[16, 20], &[8, 6], &[4, -3]),
        (&[8, 10, 5], &[4, 3, 2], &[4, 9, 3]),
        (&[8, 4, 5, 6], &[8, 2, 3, 2], &[0, 3, -1, 5]),
        (&[4, 3, 4, 3, 5], &[4, 2, 2, 2, 2], &[0, 2, 1, -1, 4]),
    ];
    for (dims, tile, at) in cases {
        let mut m = map(dims, tile, Swizzle::None, DType::Fp32);
        assert_eq!(tensor_load(&m, at, &input), boxed(&m, at, &input, 0), "{dims:?} {at:?}");
        m.nan_fill = true;
        let got = tensor_load(&m, at, &input);
        let want = boxed(&m, at, &input, 0x7ff7_7ff7);
        assert_eq!(got, want, "{dims:?} {at:?}");
        assert!(f32::from_bits(0x7ff7_7ff7).is_nan());
    }
    // Halves, whose box ends behind the tensor.
    let m = map(&[64, 4], &[16, 2], Swizzle::None, DType::Bf16);
    let halves = |w: &[u32]| -> Vec<u32> { w.iter().flat_map(|w| [w & 0xffff, w >> 16]).collect() };
    let input: Vec<u32> = (0..128).map(|i| (2 * i) | ((2 * i + 1) << 16)).collect();
    let got = halves(&tensor_load(&m, &[56, 1], &input));
    let want = boxed(&m, &[56, 1], &halves(&input), 0);
    assert_eq!(got, want);
}

#[test]
fn swizzles_move_sixteen_bytes() {
    let input: Vec<u32> = (0..4096).collect();
    for (swizzle, span, bits) in
        [(Swizzle::B32, 32, 1usize), (Swizzle::B64, 64, 3), (Swizzle::B128, 128, 7)]
    {
        let m = map(&[64, 64], &[span / 4, 24], swizzle, DType::Fp32);
        let got = tensor_load(&m, &[4, 2], &input);
        let plain = boxed(&m, &[4, 2], &input, 0);
        for (i, want) in plain.iter().enumerate() {
            // Piece of 16 bytes, changed by the number of the line of 128 bytes.
            let (piece, line) = (i / 4, i / 32);
            let at = (piece ^ (line & bits)) * 4 + i % 4;
            assert_eq!(got[at], *want, "{swizzle:?} word {i}");
        }
    }
}

/// Fills 1024 bytes of [s+1024] with words n, n + 1, .. and orders them before the engines.
const FILL: &str = "mov.u32 x, t; $fill: shl.b32 y, x, 2; add.u32 z, s, y; add.u32 w, x, n;
    st.shared.b32 [z+1024], w; add.u32 x, x, 64; setp.lt.u32 p1, x, 256; @p1 bra $fill;
    fence.proxy.async.shared::cta; bar.sync 0;";

#[test]
fn stores_and_their_swizzle() {
    // What a load with a swizzle brought, a store with the same takes back, within the tensor.
    let m = map(&[16, 12], &[8, 6], Swizzle::B32, DType::Fp32);
    let body = format!(
        "{} {MAP} @!p0 bra $end;
         mbarrier.arrive.expect_tx.shared.b64 _, [s], 192;
         cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [s+1024], \
         [o, {{4, 1}}], [s]; {}
         cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [o, {{12, 8}}], [s+1024];
         cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
         $end: ret;",
        init(1),
        wait(0, 0)
    );
    let mut m2 = m.clone();
    m2.buffer = 0;
    // A zeroed buffer is both read and written: its first words are set before.
    let body = format!(
        "@!p0 bra $set; mov.u32 x, 0; $word: mul.wide.u32 o, x, 4; add.u64 o, o, q;
         st.global.b32 [o], x; add.u32 x, x, 1; setp.lt.u32 p1, x, 192; @p1 bra $word; \
         fence.proxy.async.global; $set: bar.sync 0; {body}"
    );
    let args =
        [RawArg::TensorMap(TensorMap { buffer: 1, ..m2 }), RawArg::words(0..4), RawArg::InOut(768)];
    let got = go(MAP_IO, &body, 64, &args).unwrap_or_else(|t| panic!("{t}")).words(0);
    let mut want: Vec<u32> = (0..192).collect();
    for r in 0..4 {
        for c in 0..4 {
            want[(8 + r) * 16 + 12 + c] = ((1 + r) * 16 + 4 + c) as u32;
        }
    }
    assert_eq!(got, want);
}

#[test]
fn plain_stores_and_reductions() {
    let store = |what: &str| {
        words(&format!(
            "mov.u32 n, 100; {FILL} @!p0 bra $end; {what}
             cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; $end: ret;"
        ))
    };
    let w = store("cp.async.bulk.global.shared::cta.bulk_group [q+16], [s+1024], 64;");
    assert_eq!(w[..4], [0; 4]);
    assert_eq!(w[4..20], (100..116).collect::<Vec<_>>()[..]);
    assert_eq!(w[20], 0);
    let add = "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [q], [s+1024], 32;";
    assert_eq!(store(&format!("{add} {add}"))[..9], [200, 202, 204, 206, 208, 210, 212, 214, 0]);
    let max = "cp.reduce.async.bulk.global.shared::cta.bulk_group.max.s32 [q], [s+1028], 16;";
    let t = go(
        IO,
        &format!("mov.u32 n, 0; {FILL} @p0 {max} ret;"),
        64,
        &[RawArg::words(0..4), RawArg::InOut(64)],
    );
    assert_eq!(t.unwrap_err().kind, FaultKind::Misaligned);
    // Pairs of halves: 1 + 1 in one half, 0 + 0 in the other.
    let half = "mov.u32 x, 0x3c00; st.shared.b32 [s], x; st.shared.b32 [s+4], x;
        st.shared.b32 [s+8], x; st.shared.b32 [s+12], x; fence.proxy.async;
        cp.reduce.async.bulk.global.shared::cta.bulk_group.add.noftz.f16 [q], [s], 16;
        cp.reduce.async.bulk.global.shared::cta.bulk_group.add.noftz.f16 [q], [s], 16;";
    assert_eq!(store(half)[..5], [0x4000, 0x4000, 0x4000, 0x4000, 0]);
    let add = "mov.u32 x, 0x3f800000; st.shared.b32 [s], x; st.shared.b32 [s+4], x;
        st.shared.b32 [s+8], x; st.shared.b32 [s+12], x; fence.proxy.async;
        cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [q], [s], 16;";
    assert_eq!(store(add)[..5], [0x3f80_0000, 0x3f80_0000, 0x3f80_0000, 0x3f80_0000, 0]);
}

#[test]
fn tensor_reductions_stay_in_bounds() {
    let m = TensorMap { buffer: 1, ..map(&[16, 4], &[8, 2], Swizzle::None, DType::I32) };
    let body = format!(
        "mov.u32 n, 1; {FILL} {MAP} @!p0 bra $end;
         cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.bulk_group [o, {{12, 3}}], [s+1024];
         cp.reduce.async.bulk.tensor.2d.global.shared::cta.max.bulk_group [o, {{4, 0}}], [s+1024];
         cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; $end: ret;"
    );
    let args = [RawArg::TensorMap(m), RawArg::words(0..4), RawArg::InOut(256)];
    let got = go(MAP_IO, &body, 64, &args).unwrap_or_else(|t| panic!("{t}")).words(0);
    let mut want = vec![0; 64];
    want[48 + 12..].copy_from_slice(&[1, 2, 3, 4]);
    want[4..12].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
    want[20..28].copy_from_slice(&[9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!(got, want);
}

#[test]
fn sources_of_stores_are_in_use() {
    let begin = format!(
        "mov.u32 n, 1; {FILL} @!p0 bra $end;
         cp.async.bulk.global.shared::cta.bulk_group [q], [s+1024], 64; cp.async.bulk.commit_group;"
    );
    let write = "st.shared.b32 [s+1024], x;";
    use FaultKind::InFlight;
    expect(
        &format!("{begin} {write} $end: ret;"),
        InFlight,
        &["writes it", "reads it and has not been waited"],
    );
    expect(&format!("{begin} $end: ret;"), InFlight, &["wait_group.read"]);
    expect(
        &format!("{begin} cp.async.bulk.wait_group.read 1; {write} $end: ret;"),
        InFlight,
        &["writes it"],
    );
    // Read, but not yet written; the old bytes count, and the CTA's end completes them.
    let ok = words(&format!(
        "{begin} ld.shared.b32 y, [s+1024]; cp.async.bulk.wait_group.read 0; {write}
         $end: ret;"
    ));
    assert_eq!(ok[..16], (1..17).collect::<Vec<_>>()[..]);
    // Two stores from one place: given back by the second only.
    let two = format!(
        "{begin} cp.async.bulk.global.shared::cta.bulk_group [q+64], [s+1056], 64;
         cp.async.bulk.commit_group; cp.async.bulk.wait_group.read 1;"
    );
    expect(&format!("{two} st.shared.b32 [s+1056], x; $end: ret;"), InFlight, &["1056"]);
    let w = words(&format!("{two} {write} cp.async.bulk.wait_group 0; $end: ret;"));
    assert_eq!(
        w[..33],
        [&(1..17).collect::<Vec<_>>()[..], &(9..25).collect::<Vec<_>>(), &[0]].concat()
    );
}

#[test]
fn operands_of_copies_are_checked() {
    use FaultKind::{Misaligned, Operand, OutOfBounds, Uninitialised};
    let copy = |to: &str, from: &str, bytes: u32| {
        format!(
            "{} @p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [{to}], \
             [{from}], {bytes}, [s]; ret;",
            init(1)
        )
    };
    expect(&copy("s+1024", "p", 24), Operand, &["24 bytes, no multiple of 16"]);
    expect(&copy("s+1032", "p", 16), Misaligned, &["multiple of 16"]);
    expect(&copy("s+1024", "p+4", 16), Misaligned, &["multiple of 16"]);
    expect(&copy("s+1024", "p", 2048), OutOfBounds, &["`arg0`"]);
    expect(&copy("s+32752", "p", 32), OutOfBounds, &["the CTA has 32768 bytes"]);
    expect(&copy("s", "p", 16), FaultKind::Mbarrier, &["the mbarrier at 0 is live"]);
    expect(
        "@p0 cp.async.bulk.global.shared::cta.bulk_group [q], [s+1024], 16; ret;",
        Uninitialised,
        &["never written"],
    );
    let fault = |body: &str| {
        let m = map(&[16, 4], &[8, 2], Swizzle::None, DType::I32);
        let args = [RawArg::TensorMap(m), RawArg::words(0..64), RawArg::Out(64)];
        *go(MAP_IO, &format!("{} {MAP} {body} ret;", init(1)), 64, &args).unwrap_err()
    };
    let tensor = "@p0 cp.async.bulk.tensor";
    let load = "shared::cluster.global.mbarrier::complete_tx::bytes";
    let t = fault(&format!("{tensor}.2d.{load} [s+1040], [o, {{0, 0}}], [s];"));
    assert!(t.kind == Misaligned && t.message.contains("128"), "{t}");
    let t = fault(&format!("{tensor}.3d.{load} [s+1024], [o, {{0, 0, 0}}], [s];"));
    assert!(t.kind == Operand && t.message.contains("3 coordinates"), "{t}");
    let t = fault(&format!("{tensor}.2d.{load} [s+1024], [p, {{0, 0}}], [s];"));
    assert!(t.message.contains("no tensor map") || t.kind == Misaligned, "{t}");
    let t = fault(&format!("{tensor}.2d.{load} [s+1024], [o+64, {{0, 0}}], [s];"));
    assert!(t.kind == Operand && t.message.contains("no tensor map"), "{t}");
    let t = fault(&format!("{tensor}.2d.{load} [s+1024], [o, {{0, 0}}], [s+8];"));
    assert!(t.kind == FaultKind::Mbarrier, "{t}");
    // A map that breaks the rules is refused before anything runs.
    let m = map(&[16, 4], &[7, 2], Swizzle::None, DType::I32);
    let t = go(MAP_IO, "ret;", 64, &[RawArg::TensorMap(m), RawArg::words(0..64), RawArg::Out(64)]);
    let t = t.unwrap_err();
    assert!(t.message.contains("tile[0] is 28 bytes wide"), "{t}");
}

#[test]
fn copies_between_shared_memory_and_cp_async_arrivals() {
    let w = words(&format!(
        "mov.u32 n, 50; {} {FILL} @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], 128;
         @p0 cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [s+2048], \
         [s+1024], 128, [s]; {}
         setp.ge.u32 p2, t, 32; @p2 bra $end;
         shl.b32 x, t, 2; add.u32 y, s, x; ld.shared.b32 y, [y+2048];
         cvt.u64.u32 o, x; add.u64 o, o, q; st.global.b32 [o], y; $end: ret;",
        init(1),
        wait(0, 0)
    ));
    assert_eq!(w[..32], (50..82).collect::<Vec<_>>()[..]);
    // 64 threads copy 16 bytes each and arrive when those are there; nobody waits for a group.
    for (n, arrive) in [
        (64, "cp.async.mbarrier.arrive.noinc.shared.b64 [s];"),
        (64, "cp.async.mbarrier.arrive.shared.b64 [s]; mbarrier.arrive.shared.b64 _, [s];"),
    ] {
        let body = |waits: &str| {
            format!(
                "{} shl.b32 x, t, 4; cvt.u64.u32 o, x; add.u64 o, o, p; add.u32 y, s, x;
                 cp.async.ca.shared.global [y+1024], [o], 16; {arrive} {waits} {STORE_WORD} ret;",
                init(n)
            )
        };
        assert_eq!(words(&body(&wait(0, 0)))[..64], (0..64).collect::<Vec<_>>()[..]);
        expect(&body("bar.sync 0;"), FaultKind::InFlight, &["reads it"]);
    }
}
