//! Tensor maps that kernels write, and registers of 128 bits.

use super::hopper::{IO, go, init, wait};
use super::*;
use crate::device::{Swizzle, TensorMap};
use crate::op::DType;

const MAP_IO: &str = ".param .align 64 .b8 map[128], .param .u64 in, .param .u64 out";

/// 16 rows of 16 words, in boxes of 16 by 2.
fn map() -> TensorMap {
    TensorMap {
        buffer: 0,
        dtype: DType::I32,
        dims: vec![16, 16],
        strides_bytes: vec![64],
        tile: vec![16, 2],
        swizzle: Swizzle::None,
        nan_fill: false,
    }
}

/// Brings the map of the parameters to shared memory at [s + 4096], one word a thread of warp 0.
const FETCH: &str = "mov.b64 o, map; cvta.param.u64 o, o; setp.ge.u32 p1, t, 32;
    shl.b32 x, t, 2; cvt.u64.u32 st, x; add.u64 o, o, st; add.u32 y, s, x;
    @!p1 ld.b32 z, [o]; @!p1 st.shared.b32 [y+4096], z; bar.sync 0;";
/// Warp 0 sends it to the output's second half, in which it is a map from now on.
const SEND: &str = "bar.sync 0; setp.ge.u32 p1, t, 32; @p1 bra $sent;
    tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned \
    [q+512], [s+4096], 128; $sent:";
const ACQUIRE: &str = "@p0 fence.proxy.tensormap::generic.acquire.gpu [q+512], 128;";

fn load(bytes: u32) -> String {
    format!(
        "add.u64 o, q, 512; @p0 mbarrier.arrive.expect_tx.shared.b64 _, [s], {bytes};
         @p0 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes \
         [s+1024], [o, {{0, 0}}], [s]; {} shl.b32 x, t, 2; add.u32 y, s, x;
         setp.ge.u32 p1, t, {words}; @!p1 ld.shared.b32 w, [y+1024];
         cvt.u64.u32 o, x; add.u64 o, o, q; @!p1 st.global.b32 [o], w;",
        wait(0, 0),
        words = bytes / 4,
    )
}

fn run(body: &str) -> Result<Vec<u32>, Box<Trap>> {
    let args = [RawArg::TensorMap(map()), RawArg::words(0..256), RawArg::InOut(1024)];
    go(MAP_IO, body, 64, &args).map(|o| o.words(0))
}

/// The box at (0, 0) through a map with some fields replaced.
fn replaced(edit: &str, bytes: u32) -> Result<Vec<u32>, Box<Trap>> {
    run(&format!("{} {FETCH} {edit} {SEND} {ACQUIRE} {} ret;", init(1), load(bytes)))
}

fn replace(field: &str, ty: &str, value: &str) -> String {
    format!("@p0 tensormap.replace.tile.{field}.shared::cta.b1024.{ty} [s+4096], {value};")
}

#[test]
fn fields_of_a_map_are_replaced() {
    let plain = replaced("", 128).unwrap_or_else(|t| panic!("{t}"));
    assert_eq!(plain[..32], (0..32).collect::<Vec<_>>()[..]);
    let rows = |edit: &str, bytes: u32| {
        replaced(edit, bytes).unwrap_or_else(|t| panic!("{edit}: {t}"))[..bytes as usize / 4]
            .to_vec()
    };
    let moved = format!("add.u64 o, p, 192; {}", replace("global_address", "b64", "o"));
    assert_eq!(rows(&moved, 128), (48..80).collect::<Vec<_>>());
    let apart = replace("global_stride", "b64", "0, 128");
    assert_eq!(rows(&apart, 128), (0..16).chain(32..48).collect::<Vec<_>>());
    let narrow = replace("global_dim", "b32", "0, 3");
    let want: Vec<u32> = (0..32).map(|i| if i % 16 < 3 { i } else { 0 }).collect();
    assert_eq!(rows(&narrow, 128), want);
    let short = replace("global_dim", "b32", "1, 1");
    assert_eq!(rows(&short, 128), (0..32).map(|i| if i < 16 { i } else { 0 }).collect::<Vec<_>>());
    let tall = replace("box_dim", "b32", "1, 4");
    assert_eq!(rows(&tall, 256), (0..64).collect::<Vec<_>>());
    let flat = replace("box_dim", "b32", "0, 4");
    assert_eq!(rows(&flat, 32), [0, 1, 2, 3, 16, 17, 18, 19]);
    // Halves instead of words: rows of 16 of them, the same bytes from row to row.
    let halves = replace("elemtype", "b32", "6");
    assert_eq!(rows(&halves, 64), (0..8).chain(16..24).collect::<Vec<_>>());
    let nan = format!(
        "{} {} {}",
        replace("elemtype", "b32", "7"),
        replace("fill_mode", "b32", "1"),
        replace("global_dim", "b32", "0, 1")
    );
    assert_eq!(rows(&nan, 128)[..3], [0, 0x7ff7_7ff7, 0x7ff7_7ff7]);
    // Pieces of 16 bytes change places by row; those of rows 0 and 1 of 64 bytes stay.
    let swizzled = replace("swizzle_mode", "b32", "2");
    assert_eq!(rows(&swizzled, 128), (0..32).collect::<Vec<_>>());
}

/// A map from nothing but zeros, without one of its fields.
fn scratch(without: &str) -> Result<Vec<u32>, Box<Trap>> {
    let fields = [
        ("global_address", "b64", "p"),
        ("rank", "b32", "1"),
        ("box_dim", "b32", "0, 16"),
        ("box_dim", "b32", "1, 2"),
        ("global_dim", "b32", "0, 16"),
        ("global_dim", "b32", "1, 16"),
        ("global_stride", "b64", "0, 64"),
        ("element_stride", "b32", "0, 1"),
        ("element_stride", "b32", "1, 1"),
        ("elemtype", "b32", "2"),
        ("interleave_layout", "b32", "0"),
        ("swizzle_mode", "b32", "0"),
        ("fill_mode", "b32", "0"),
    ];
    let kept = fields.iter().filter(|(field, ..)| *field != without);
    let edit: String = kept.map(|(field, ty, value)| replace(field, ty, value)).collect();
    let zeros = "shl.b32 x, t, 2; add.u32 y, s, x; setp.ge.u32 p1, t, 32;
                 @!p1 st.shared.b32 [y+4096], 0; bar.sync 0;";
    run(&format!("{} {zeros} {edit} {SEND} {ACQUIRE} {} ret;", init(1), load(128)))
}

#[test]
fn maps_are_built_from_zeros() {
    let w = scratch("").unwrap_or_else(|t| panic!("{t}"));
    assert_eq!(w[..32], (0..32).collect::<Vec<_>>()[..]);
}

#[test]
fn maps_in_global_memory_are_replaced_in_place() {
    let body = format!(
        "{} {FETCH} {SEND} bar.sync 0; add.u64 o, p, 64;
         @p0 tensormap.replace.tile.global_address.global.b1024.b64 [q+512], o;
         add.u64 st, q, 512; @p0 tensormap.replace.tile.rank.b1024.b32 [st], 1;
         @p0 fence.proxy.tensormap::generic.release.gpu; {ACQUIRE} {} ret;",
        init(1),
        load(128)
    );
    let w = run(&body).unwrap_or_else(|t| panic!("{t}"));
    assert_eq!(w[..32], (16..48).collect::<Vec<_>>()[..]);
}

#[test]
fn maps_without_their_fences_are_told() {
    let fault = |body: String| {
        let t = run(&body).unwrap_err();
        (t.kind, t.to_string())
    };
    let (start, load) = (format!("{} {FETCH}", init(1)), load(128));
    let (kind, text) = fault(format!("{start} {SEND} {load} ret;"));
    assert!(kind == FaultKind::Proxy && text.contains("tensormap::generic.acquire"), "{text}");
    // Another map's fence is none.
    let other = "@p0 fence.proxy.tensormap::generic.acquire.gpu [q+640], 128;";
    let twice = SEND.replace("512", "640").replace("$sent", "$sent2");
    let (kind, text) = fault(format!("{start} {SEND} {twice} {other} {load} ret;"));
    assert!(kind == FaultKind::Proxy && text.contains("a tensor map"), "{text}");
    // Written in place and not released.
    let edit = "@p0 tensormap.replace.tile.global_dim.global.b1024.b32 [q+512], 0, 8;";
    let (kind, text) = fault(format!("{start} {SEND} bar.sync 0; {edit} {ACQUIRE} {load} ret;"));
    assert!(kind == FaultKind::Proxy && text.contains("tensormap.replace"), "{text}");
    // Rewritten while a copy may still read it.
    let begun = load.split("{ .reg").next().expect("the copy's beginning");
    let (kind, text) = fault(format!("{start} {SEND} {ACQUIRE} {begun} {edit} ret;"));
    assert!(kind == FaultKind::Race && text.contains("wait first for the mbarrier"), "{text}");
}

#[test]
fn maps_that_break_the_rules_are_refused() {
    let refused = |edit: String, words: &str| {
        let t = replaced(&edit, 128).unwrap_err();
        assert!(t.kind == FaultKind::Operand && t.message.contains(words), "{t}");
    };
    refused(replace("box_dim", "b32", "0, 257"), "box_dim[0] is 257");
    refused(replace("box_dim", "b32", "0, 3"), "box_dim[0] is 3");
    refused(replace("box_dim", "b32", "1, 100000"), "box_dim[1] is 65535");
    refused(replace("global_dim", "b32", "1, 0"), "global_dim[1] is 0");
    refused(replace("global_stride", "b64", "0, 40"), "global_stride[0] is 40");
    refused(replace("element_stride", "b32", "1, 2"), "element_stride[1] is 2");
    refused(replace("rank", "b32", "6"), "rank is 6");
    refused(replace("rank", "b32", "2"), "2 coordinates for a tensor map of 3");
    refused(replace("elemtype", "b32", "13"), "elemtype is 13");
    refused(replace("swizzle_mode", "b32", "4"), "swizzle_mode is 4");
    refused(replace("swizzle_mode", "b32", "1"), "box_dim[0] is 16");
    refused(replace("fill_mode", "b32", "1"), "fill_mode is 1");
    refused(replace("interleave_layout", "b32", "1"), "interleave_layout is 1");
    refused(
        format!("add.u64 o, p, 8; {}", replace("global_address", "b64", "o")),
        "multiple of 16",
    );
    let past = format!("add.u64 o, p, 960; {}", replace("global_address", "b64", "o"));
    let t = replaced(&past, 128).unwrap_err();
    assert!(t.kind == FaultKind::OutOfBounds && t.message.contains("`arg1`"), "{t}");
    let large =
        format!("{} {}", replace("box_dim", "b32", "0, 256"), replace("box_dim", "b32", "1, 256"));
    let t = replaced(&large, 128).unwrap_err();
    assert!(t.kind == FaultKind::OutOfBounds && t.message.contains("262144 bytes"), "{t}");
    // What is no map cannot be made one.
    let none = run("shl.b32 x, t, 2; add.u32 x, x, s; st.shared.b32 [x+4096], t; bar.sync 0;
                    @p0 tensormap.replace.tile.rank.shared::cta.b1024.b32 [s+4096], 1; ret;");
    let t = none.unwrap_err();
    assert!(t.kind == FaultKind::Operand && t.message.contains("neither a tensor map"), "{t}");
    let t = scratch("rank").unwrap_err();
    assert!(t.message.contains("1 coordinates") || t.message.contains("2 coordinates"), "{t}");
    let t = scratch("element_stride").unwrap_err();
    assert!(t.message.contains("element_stride[0] is 0"), "{t}");
}

/// Over 64 threads, with 256 words of input and output.
fn words(body: &str) -> Vec<u32> {
    let body = format!(".reg .b128 a, b, c; .reg .b64 u, v; {body}");
    let text = super::hopper::text(IO, &body);
    let args = [RawArg::words(0..256), RawArg::InOut(1024)];
    let out = run_raw(&text, "k", [1; 3], [64, 1, 1], 32768, &args);
    out.unwrap_or_else(|t| panic!("{body}: {t}")).words(0)
}

#[test]
fn registers_of_128_bits() {
    let at = "shl.b32 x, t, 4; cvt.u64.u32 o, x; add.u64 p, p, o; add.u64 st, q, o;
              add.u32 y, s, x;";
    let copy = format!(
        "{at} ld.global.b128 a, [p]; st.shared.b128 [y], a;
                        ld.shared.b128 b, [y]; mov.b128 c, b; st.global.b128 [st], c; ret;"
    );
    assert_eq!(words(&copy), (0..256).collect::<Vec<_>>());
    let swap = format!(
        "{at} ld.b128 a, [p]; mov.b128 {{u, v}}, a; mov.b128 b, {{v, u}};
                        st.b128 [st], b; ret;"
    );
    let want: Vec<u32> = (0..64).flat_map(|i| [4 * i + 2, 4 * i + 3, 4 * i, 4 * i + 1]).collect();
    assert_eq!(words(&swap), want);
    // A thread at a time puts its number in front of the one before.
    let exchange = format!(
        "{at} cvt.u64.u32 u, t; mov.b128 a, {{u, 7}}; atom.global.exch.b128 b, [q], a;
         mov.b128 {{u, v}}, b; bar.sync 0; setp.eq.u32 p1, t, 0; @p1 bra $end;
         st.global.b64 [st], u; st.global.b64 [st+8], v; $end: ret;"
    );
    let w = words(&exchange);
    assert_eq!((w[0], w[2]), (63, 7));
    assert_eq!(w[4..12], [0, 0, 7, 0, 1, 0, 7, 0]);
    // Of all threads that compare with zero, one changes it; a half that differs is enough.
    for (held, wins) in [("0", true), ("5", false)] {
        let cas = format!(
            "mov.b128 a, {{0, {held}}}; cvt.u64.u32 u, t; mov.b128 c, {{u, 9}};
             @p0 mov.b128 b, {{0, 0}}; @p0 st.shared.b128 [s], b; bar.sync 0;
             atom.shared.cas.b128 b, [s], a, c; mov.b128 {{u, v}}, b; cvt.u32.u64 x, v;
             cvt.u64.u32 o, t; shl.b64 o, o, 2; add.u64 o, o, q; st.global.b32 [o], x; bar.sync 0;
             @p0 ld.shared.b128 b, [s]; @p0 st.global.b128 [q+512], b; ret;"
        );
        let w = words(&cas);
        assert!(w[128] < 64 && w[129] == 0 && w[131] == 0, "{w:?}");
        assert_eq!(w[130], if wins { 9 } else { 0 });
        let kept = w[..64].iter().filter(|x| **x == 0).count();
        assert_eq!(kept, if wins { 1 } else { 64 });
    }
    for (form, why) in [
        ("add.u64 u, a, a;", "128 bits"),
        ("ld.global.b64 a, [p];", "128 bits"),
        ("ld.global.v2.b128 {a, b}, [p];", "form of `ld`"),
        ("atom.global.add.b128 a, [p], b;", "form of `atom`"),
        ("xor.b128 a, a, b;", ""),
        ("mov.b128 u, a;", "has 64 bits"),
        ("selp.b128 a, a, b, p0;", "128 bits"),
    ] {
        let text = super::hopper::text(IO, &format!(".reg .b128 a, b; .reg .b64 u; {form} ret;"));
        let args = [RawArg::words(0..256), RawArg::InOut(1024)];
        let t = run_raw(&text, "k", [1; 3], [64, 1, 1], 32768, &args).unwrap_err();
        assert!(t.message.contains(why) && t.message.contains("line"), "{form}: {t}");
    }
}
