//! Tensor copies of rows that end within 16 bytes, and of boxes that start anywhere, against what
//! an H200 made of them.

use super::hopper::*;
use super::*;
use crate::device::{Swizzle, TensorMap};
use crate::op::DType;

/// A case a line; its head says what stands in it.
const MEASURED: &str = include_str!("ragged.txt");

const MAP_IO: &str = ".param .align 64 .b8 map[128], .param .u64 in, .param .u64 out";
const MAP: &str = "mov.b64 o, map; cvta.param.u64 o, o;";

/// A box, of 64 bytes by 4 rows.
const BOX: usize = 256;
/// Bytes from one row of the tensor to the next, and of all of it.
const PITCH: usize = 256;
const TENSOR: usize = 4 * PITCH;

/// 4 rows of so many elements.
fn map(buffer: usize, dtype: DType, columns: u64) -> TensorMap {
    TensorMap {
        buffer,
        dtype,
        dims: vec![columns, 4],
        strides_bytes: vec![PITCH as u64],
        tile: vec![64 / dtype.bytes() as u32, 4],
        swizzle: Swizzle::None,
        nan_fill: false,
    }
}

/// Fills the box at [s+1024]: the word at byte x of it is 0x3f813f80 + x (2^17 + 1).
const FILL: &str = "shl.b32 x, t, 2; add.u32 y, s, x; mul.lo.u32 w, x, 0x00020001;
    add.u32 w, w, 0x3f813f80; st.shared.b32 [y+1024], w; fence.proxy.async; bar.sync 0;";

const STORE: &str = "cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group";
const REDUCE: &str = "cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group";
const WAIT: &str = "cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;";

/// No buffer has elements of one byte: turns the map of the parameters into one of so many, at the
/// address of the input.
fn of_bytes(columns: u64) -> String {
    let replace = |field: &str, value: &str| {
        format!("@p0 tensormap.replace.tile.{field}.shared::cta.b1024.b32 [s+4096], {value};")
    };
    format!(
        "{MAP} setp.ge.u32 p1, t, 32; shl.b32 x, t, 2; cvt.u64.u32 st, x; add.u64 o, o, st;
         add.u32 y, s, x; @!p1 ld.b32 z, [o]; @!p1 st.shared.b32 [y+4096], z; bar.sync 0;
         {} {} {} bar.sync 0; @p1 bra $sent;
         tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned \
         [p], [s+4096], 128;
         $sent: @p0 fence.proxy.tensormap::generic.acquire.gpu [p], 128; mov.b64 o, p;",
        replace("elemtype", "0"),
        replace("global_dim", &format!("0, {columns}")),
        replace("box_dim", "0, 64"),
    )
}

/// The buffer behind a store or reduction, or the box of a load.
fn measured(what: &str, ty: &str, columns: u64, c: i32) -> Result<Vec<u8>, Box<Trap>> {
    let dtype = if ty == "f32" { DType::Fp32 } else { DType::Bf16 };
    if what == "load" {
        let body = format!(
            "{} {MAP} @p0 mbarrier.arrive.expect_tx.shared::cta.b64 _, [s], {BOX};
             @p0 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
             [s+1024], [o, {{{c}, 0}}], [s]; {} {STORE_WORD} ret;",
            init(1),
            wait(0, 0)
        );
        let input = (0..TENSOR).map(|i| i as u8).collect();
        let args = [RawArg::TensorMap(map(0, dtype, columns)), RawArg::In(input), RawArg::Out(BOX)];
        return go(MAP_IO, &body, 64, &args).map(|o| o.outputs[0].clone());
    }
    let (map, place) = match ty {
        "u8" => (map(1, dtype, 8), of_bytes(columns)),
        _ => (map(1, dtype, columns), MAP.to_owned()),
    };
    let (copy, to) = match what {
        // Poison is 0xff, as the buffer was on the GPU.
        "store" => (STORE, RawArg::Out(TENSOR)),
        _ => (REDUCE, RawArg::InOut(TENSOR)),
    };
    let body = format!(
        "{place} {FILL} @!p0 bra $end; {copy} [o, {{{c}, 0}}], [s+1024]; {WAIT} $end: ret;"
    );
    let args = [RawArg::TensorMap(map), RawArg::InOut(128), to];
    go(MAP_IO, &body, 64, &args).map(|o| o.outputs[1].clone())
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|c| c.to_digit(16).unwrap()).collect();
    digits.chunks(2).map(|d| (d[0] << 4 | d[1]) as u8).collect()
}

#[test]
fn an_h200_agrees() {
    let cases: Vec<_> = MEASURED.lines().filter(|l| !l.starts_with('#')).collect();
    assert_eq!(cases.len(), 41);
    for case in cases {
        let words: Vec<_> = case.split(' ').collect();
        let [what, ty, columns, c, first, second] = words[..] else { panic!("{case}") };
        let got = measured(what, ty, columns.parse().unwrap(), c.parse().unwrap());
        if first == "illegal" {
            let t = got.expect_err(case);
            assert!(t.kind == FaultKind::Operand && t.message.contains("innermost"), "{case}: {t}");
            continue;
        }
        let got = got.unwrap_or_else(|t| panic!("{case}: {t}"));
        let rows = [bytes(first), bytes(second)];
        let pitch = if what == "load" { 64 } else { PITCH };
        for (got, want) in got.chunks(pitch).zip(&rows) {
            assert_eq!(&got[..64], want, "{case}");
            // Behind the box nothing is written.
            assert!(got[64..].iter().all(|b| *b == want[63]), "{case}");
        }
    }
}

/// Coordinates of boxes of a tensor of 20 by 4 that an H200 (driver 580.159) stores and adds, or stops at.
#[test]
fn no_coordinate_of_a_store_is_below_zero() {
    let boxes = [
        ("0, 0", true),
        ("0, 3", true),
        ("0, 4", true),
        ("0, 100", true),
        ("128, 0", true),
        ("0, -1", false),
        ("0, -4", false),
        ("32, -1", false),
    ];
    for copy in [STORE, REDUCE] {
        for (at, takes) in boxes {
            let body = format!(
                "{MAP} {FILL} @!p0 bra $end; {copy} [o, {{{at}}}], [s+1024]; {WAIT} $end: ret;"
            );
            let map = map(1, DType::Bf16, 20);
            let args = [RawArg::TensorMap(map), RawArg::words(0..4), RawArg::InOut(TENSOR)];
            match go(MAP_IO, &body, 64, &args) {
                Ok(_) => assert!(takes, "{copy} {at}"),
                Err(t) => {
                    assert!(!takes && t.kind == FaultKind::Operand, "{copy} {at}: {t}");
                    assert!(t.message.contains("coordinate 1"), "{t}");
                }
            }
        }
    }
}

/// A store or reduction of rows of 40 bytes, of which 48 are written, to a buffer; `around` it
/// stand what all threads do before and what comes after.
fn around(copy: &str, before: &str, after: &str, to: RawArg) -> Result<RawOutcome, Box<Trap>> {
    let body = format!(
        "{MAP} {FILL} {before} @!p0 bra $after; {copy} [o, {{0, 0}}], [s+1024]; {WAIT}
         $after: {after} ret;"
    );
    let args = [RawArg::TensorMap(map(1, DType::Bf16, 20)), RawArg::words(0..4), to];
    go(MAP_IO, &body, 64, &args)
}

#[test]
fn bytes_behind_a_row_count_as_written() {
    let out = || RawArg::Out(TENSOR);
    let c = around(STORE, "", "", out()).unwrap_or_else(|t| panic!("{t}")).counts;
    assert_eq!((c.bulk_write_bytes, c.global_write_sectors), (4 * 48, 4 * 2));
    let read = |at: u32| format!("@p0 ld.global.b32 x, [q+{at}]; bar.sync 0;");
    around(STORE, "", &read(44), out()).unwrap_or_else(|t| panic!("{t}"));
    let t = around(STORE, "", &read(48), out()).unwrap_err();
    assert_eq!(t.kind, FaultKind::Uninitialised, "{t}");
    // A reduction adds to what must be there, behind the row as well.
    let zero = |bytes: u32| {
        format!(
            "and.b32 x, t, 15; shr.u32 y, t, 4; mad.lo.u32 y, y, 64, x; shl.b32 y, y, 2;
             cvt.u64.u32 st, y; add.u64 st, st, q; setp.lt.u32 p1, x, {};
             @p1 st.global.b32 [st], 0; fence.proxy.async; bar.sync 0;",
            bytes / 4
        )
    };
    around(REDUCE, &zero(48), "", out()).unwrap_or_else(|t| panic!("{t}"));
    let t = around(REDUCE, &zero(44), "", out()).unwrap_err();
    assert_eq!(t.kind, FaultKind::Uninitialised, "{t}");
}

#[test]
fn bytes_behind_a_row_race() {
    // The other warp writes beside the copy.
    let write = |at: u32| format!("setp.eq.u32 p1, t, 32; @p1 st.global.b32 [q+{at}], t;");
    for (copy, to) in [(STORE, RawArg::Out(TENSOR)), (REDUCE, RawArg::InOut(TENSOR))] {
        let run = |at| around(copy, "", &write(at), to.clone());
        run(48).unwrap_or_else(|t| panic!("{t}"));
        assert_eq!(run(44).unwrap_err().kind, FaultKind::Race);
        assert_eq!(run(36).unwrap_err().kind, FaultKind::Race);
    }
}

#[test]
fn bytes_behind_a_buffer_are_refused() {
    let last = 3 * PITCH + 40;
    for copy in [STORE, REDUCE] {
        let t = around(copy, "", "", RawArg::InOut(last)).unwrap_err();
        assert_eq!(t.kind, FaultKind::OutOfBounds, "{t}");
        assert!(t.message.contains("the 16-byte piece that a row ends in"), "{t}");
        around(copy, "", "", RawArg::InOut(last + 8)).unwrap_or_else(|t| panic!("{t}"));
    }
}
