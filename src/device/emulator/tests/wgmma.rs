//! Warpgroup products: shapes, layouts, and the rules of their registers.

use half::{bf16, f16};

use super::super::{RawArg, RawOutcome, run_raw};
use crate::device::{FaultKind, Trap};

/// Where the operand's bytes are in shared memory, and how a descriptor says so.
#[derive(Debug, Clone, Copy)]
struct Layout {
    /// Pieces of 16 bytes that are swizzled together.
    width: usize,
    mn_major: bool,
}

impl Layout {
    /// Byte of element (row, k) of `rows` by `16 w` bytes of k (K-major) or 16 k (MN-major), as a
    /// tensor copy of boxes of 16 `width` bytes would place it.
    fn place(self, rows: usize, row: usize, k: usize, bytes: usize) -> usize {
        let line = 16 * self.width;
        let (box_at, line_at, byte) = if self.mn_major {
            let per = line / bytes;
            (row / per * 16, k, row % per * bytes)
        } else {
            let per = line / bytes;
            (k / per * rows, row, k % per * bytes)
        };
        let at = (box_at + line_at) * line + byte;
        at ^ (at >> 7 & (self.width - 1)) << 4
    }

    /// Swizzle's code, leading and stride offsets.
    fn bits(self, rows: usize) -> u64 {
        let line = 16 * self.width as u64;
        let code = match self.width {
            1 => 0,
            8 => 1,
            4 => 2,
            _ => 3u64,
        };
        let (lead, stride) = match (self.mn_major, self.width) {
            (false, 1) => (16 * rows as u64, 128),
            (false, _) => (0, 8 * line),
            // Eight k of eight rows; the next eight rows a box further.
            (true, 1) => (128, 256),
            (true, _) => (16 * line, 8 * line),
        };
        lead >> 4 << 16 | stride >> 4 << 32 | code << 62
    }
}

#[derive(Debug, Clone, Copy)]
struct Form {
    a: &'static str,
    b: &'static str,
    cd: &'static str,
    n: usize,
    from_registers: bool,
    la: Layout,
    lb: Layout,
    accumulate: bool,
    scales: [i32; 2],
}

const PLAIN: Layout = Layout { width: 1, mn_major: false };

fn bytes_of(ty: &str) -> usize {
    match ty {
        "tf32" => 4,
        "e4m3" | "e5m2" => 1,
        _ => 2,
    }
}

/// Small whole numbers are exact in all types.
fn encode(ty: &str, x: i32) -> Vec<u8> {
    let f = x as f32;
    match ty {
        "bf16" => bf16::from_f32(f).to_le_bytes().into(),
        "f16" => f16::from_f32(f).to_le_bytes().into(),
        "tf32" => f.to_le_bytes().into(),
        _ => {
            let (mantissa, bias) = if ty == "e4m3" { (3, 7) } else { (2, 15) };
            let b = f.abs().to_bits();
            let e = (b >> 23) as i32 - 127 + bias;
            let m = b >> (23 - mantissa) & ((1 << mantissa) - 1);
            let v = if x == 0 { 0 } else { (e as u32) << mantissa | m };
            vec![v as u8 | u8::from(x < 0) << 7]
        }
    }
}

fn a_value(m: usize, k: usize) -> i32 {
    ((m * 7 + k * 3) % 7) as i32 - 3
}

fn b_value(n: usize, k: usize) -> i32 {
    ((n * 5 + k * 11) % 9) as i32 - 4
}

fn c_value(m: usize, n: usize) -> i32 {
    ((m * 3 + n) % 17) as i32 - 8
}

fn regs(name: &str, n: usize) -> String {
    let list: Vec<_> = (0..n).map(|i| format!("{name}{i}")).collect();
    format!("{{{}}}", list.join(", "))
}

fn text(f: Form, k: usize) -> String {
    let half = f.cd == "f16";
    let nd = f.n / if half { 4 } else { 2 };
    let each = |n: usize, g: &dyn Fn(usize) -> String| (0..n).map(g).collect::<String>();
    let short = bytes_of(f.a) == 2;
    let trans =
        |l: Layout| if short { format!(", {}", i32::from(l.mn_major)) } else { String::new() };
    let (a, trans) = if f.from_registers {
        (regs("a", 4), trans(f.lb))
    } else {
        ("da".into(), trans(f.la) + &trans(f.lb))
    };
    format!(
        ".version 8.4\n.target sm_90a\n.address_size 64
         .extern .shared .align 1024 .b8 smem[];
         .visible .entry k(.param .u64 image, .param .u32 words, .param .u64 fragments, .param .u64 cin,
             .param .u64 out, .param .u64 adesc, .param .u64 bdesc) {{
         .reg .b32 d<{nd}>, a<4>, i, w, x, s, t; .reg .b64 pi, pf, pc, po, off, da, db, start;
         .reg .pred p, add;
         mov.u32 t, %tid.x; ld.param.u64 pi, [image]; ld.param.u32 w, [words];
         mov.u32 s, smem; mov.u32 i, t;
         $copy: setp.ge.u32 p, i, w; @p bra $done;
         mul.wide.u32 off, i, 4; add.u64 off, pi, off; ld.global.b32 x, [off];
         mad.lo.u32 a0, i, 4, s; st.shared.b32 [a0], x; add.u32 i, i, 128; bra $copy;
         $done:
         fence.proxy.async; bar.sync 0;
         ld.param.u64 pf, [fragments]; mul.wide.u32 off, t, 16; add.u64 pf, pf, off;
         {la}
         ld.param.u64 pc, [cin]; ld.param.u64 po, [out]; mul.wide.u32 off, t, {stride};
         add.u64 pc, pc, off; add.u64 po, po, off; {lc}
         ld.param.u64 da, [adesc]; ld.param.u64 db, [bdesc];
         shr.u32 s, s, 4; cvt.u64.u32 start, s; add.u64 da, da, start; add.u64 db, db, start;
         setp.eq.u32 add, 0, {no};
         wgmma.fence.sync.aligned;
         wgmma.mma_async.sync.aligned.m64n{n}k{k}.{cd}.{ta}.{tb} {d}, {a}, db, add, {sa}, {sb}{trans};
         wgmma.commit_group.sync.aligned;
         wgmma.wait_group.sync.aligned 0;
         {sd} ret; }}",
        la = each(4, &|i| format!("ld.global.b32 a{i}, [pf+{}];", 4 * i)),
        lc = each(nd, &|i| format!("ld.global.b32 d{i}, [pc+{}];", 4 * i)),
        sd = each(nd, &|i| format!("st.global.b32 [po+{}], d{i};", 4 * i)),
        stride = 4 * nd,
        no = i32::from(!f.accumulate),
        n = f.n,
        cd = f.cd,
        ta = f.a,
        tb = f.b,
        d = regs("d", nd),
        sa = f.scales[0],
        sb = f.scales[1],
    )
}

/// Runs a form over whole numbers and compares every element.
fn run(f: Form) {
    let bytes = bytes_of(f.a);
    let k = 32 / bytes;
    let half = f.cd == "f16";
    let nd = f.n / if half { 4 } else { 2 };
    // A first, B at the next multiple of 1024.
    let mut image = Vec::new();
    let mut lay = |l: Layout, ty: &str, rows: usize, value: fn(usize, usize) -> i32| {
        let start = image.len();
        for row in 0..rows {
            for kk in 0..k {
                let at = start + l.place(rows, row, kk, bytes);
                let v = encode(ty, value(row, kk));
                if image.len() < at + bytes {
                    image.resize((at + bytes).next_multiple_of(1024), 0);
                }
                image[at..at + bytes].copy_from_slice(&v);
            }
        }
        l.bits(rows) | start as u64 >> 4
    };
    let da = lay(f.la, f.a, 64, a_value);
    let db = lay(f.lb, f.b, f.n, b_value);
    let per = 4 / bytes;
    let mut fragments = Vec::new();
    let mut cin = Vec::new();
    for t in 0..128 {
        let (w, g, l) = (t / 32, t % 32 / 4, t % 4);
        for j in 0..4 {
            for s in 0..per {
                let (row, kk) = (16 * w + g + 8 * (j % 2), 4 * per * (j / 2) + per * l + s);
                fragments.extend(encode(f.a, a_value(row, kk)));
            }
        }
        for i in 0..2 * nd / if half { 1 } else { 2 } {
            let (block, r, c) = (i / 4, i / 2 % 2, i % 2);
            let v = c_value(16 * w + g + 8 * r, 8 * block + 2 * l + c);
            cin.extend(encode(if half { "f16" } else { "tf32" }, v));
        }
    }
    let args = [
        RawArg::In(image.clone()),
        RawArg::U32(image.len() as u32 / 4),
        RawArg::In(fragments),
        RawArg::In(cin),
        RawArg::Out(128 * nd * 4),
        RawArg::U64(da),
        RawArg::U64(db),
    ];
    let out = run_raw(&text(f, k), "k", [1; 3], [128, 1, 1], image.len() as u32, &args)
        .unwrap_or_else(|t| panic!("{f:?}: {t}"));
    let got = &out.outputs[0];
    let size = if half { 2 } else { 4 };
    for t in 0..128 {
        for i in 0..nd * 4 / size {
            let (w, g, l) = (t / 32, t % 32 / 4, t % 4);
            let (m, n) = (16 * w + g + 8 * (i / 2 % 2), 8 * (i / 4) + 2 * l + i % 2);
            let sum: i32 = (0..k).map(|k| a_value(m, k) * b_value(n, k)).sum();
            let start = if f.accumulate { c_value(m, n) } else { 0 };
            let want = (start + f.scales[0] * f.scales[1] * sum) as f32;
            let at = t * nd * 4 + i * size;
            let x = if half {
                f16::from_le_bytes([got[at], got[at + 1]]).to_f32()
            } else {
                f32::from_le_bytes(got[at..at + 4].try_into().unwrap())
            };
            assert_eq!(x, want, "{f:?}: row {m}, column {n}");
        }
    }
    assert_eq!(out.counts.instructions["wgmma"], 4);
    assert_eq!(out.counts.tensor_flops.values().sum::<u64>(), (2 * 64 * f.n * k) as u64);
}

const BASE: Form = Form {
    a: "bf16",
    b: "bf16",
    cd: "f32",
    n: 64,
    from_registers: false,
    la: PLAIN,
    lb: PLAIN,
    accumulate: true,
    scales: [1, 1],
};

#[test]
fn every_width() {
    for n in (8..=256).step_by(8) {
        run(Form { n, lb: Layout { width: 8, mn_major: false }, ..BASE });
    }
}

#[test]
fn every_layout() {
    for width in [1, 2, 4, 8] {
        for mn_major in [false, true] {
            let l = Layout { width, mn_major };
            run(Form { la: l, ..BASE });
            run(Form { lb: l, n: 192, ..BASE });
            run(Form { lb: l, n: 128, from_registers: true, ..BASE });
        }
    }
}

#[test]
fn every_type() {
    for (a, b) in [
        ("bf16", "bf16"),
        ("f16", "f16"),
        ("tf32", "tf32"),
        ("e4m3", "e4m3"),
        ("e4m3", "e5m2"),
        ("e5m2", "e4m3"),
        ("e5m2", "e5m2"),
    ] {
        for from_registers in [false, true] {
            for width in [1, 2, 4, 8] {
                let l = Layout { width, mn_major: false };
                run(Form { a, b, from_registers, la: l, lb: l, ..BASE });
            }
            if a != "bf16" && a != "tf32" {
                run(Form { a, b, cd: "f16", from_registers, ..BASE });
            }
        }
    }
}

#[test]
fn scales() {
    for scales in [[-1, 1], [1, -1], [-1, -1]] {
        run(Form { scales, ..BASE });
        run(Form { scales, accumulate: false, from_registers: true, ..BASE });
        run(Form { scales, accumulate: false, a: "e4m3", b: "e4m3", cd: "f16", ..BASE });
    }
}

/// A warpgroup with `smem` of 4 KiB written, `d0` to `d3` and `a0` to `a3` set, and descriptor `b`
/// of a plain tile.
fn group(body: &str) -> Result<RawOutcome, Box<Trap>> {
    group_of(128, body)
}

fn group_of(threads: u32, body: &str) -> Result<RawOutcome, Box<Trap>> {
    let text = format!(
        ".version 8.4\n.target sm_90a\n.address_size 64
         .extern .shared .align 1024 .b8 smem[];
         .visible .entry k(.param .u64 out) {{
         .reg .b32 d<4>, a<4>, x, s, t, warp; .reg .b64 b, b2, po; .reg .pred p, q, yes, no;
         ld.param.u64 po, [out];
         mov.u32 t, %tid.x; shr.u32 warp, t, 5; mov.u32 s, smem; mad.lo.u32 s, t, 32, s;
         mov.u32 d0, 0; mov.u32 d1, 0; mov.u32 d2, 0; mov.u32 d3, 0;
         mov.u32 a0, 0; mov.u32 a1, 0; mov.u32 a2, 0; mov.u32 a3, 0;
         st.shared.v4.b32 [s], {{d0, d1, d2, d3}}; st.shared.v4.b32 [s+16], {{d0, d1, d2, d3}};
         mov.u32 s, smem; shr.u32 s, s, 4; cvt.u64.u32 b, s; or.b64 b, b, {desc};
         mov.b64 b2, b;
         setp.eq.u32 yes, 0, 0; setp.ne.u32 no, 0, 0;
         fence.proxy.async; bar.sync 0;
         {body}
         ret; }}",
        desc = (128u64 / 16) << 16 | (256u64 / 16) << 32,
    )
    .replace(
        "PRODUCT",
        "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {d0, d1, d2, d3}, {a0, a1, a2, a3}, b, yes, 1, 1, 0;",
    )
    .replace("FENCE", "wgmma.fence.sync.aligned;")
    .replace("COMMIT", "wgmma.commit_group.sync.aligned;")
    .replace("WAIT", "wgmma.wait_group.sync.aligned");
    run_raw(&text, "k", [1; 3], [threads, 1, 1], 4096, &[RawArg::Out(4)])
}

fn refused(body: &str, kind: FaultKind, words: &[&str]) {
    let t = group(body).expect_err(body);
    assert_eq!(t.kind, kind, "{body}: {t}");
    for w in words {
        assert!(t.to_string().contains(w), "{body}: {t} lacks {w:?}");
    }
}

#[test]
fn right_use_is_no_fault() {
    for body in [
        "FENCE PRODUCT PRODUCT COMMIT PRODUCT COMMIT WAIT 1; WAIT 0; mov.b32 x, d0; mov.b32 a0, x;
         FENCE PRODUCT COMMIT WAIT 0; st.global.b32 [po], d0;",
        // The A fragment may be read in flight; other registers may be anything.
        "FENCE PRODUCT COMMIT mov.b32 x, a0; add.u32 x, x, 1; WAIT 0;",
        // A wait for an older group frees its registers.
        "FENCE PRODUCT COMMIT WAIT 0; mov.b32 d0, 0; FENCE PRODUCT COMMIT WAIT 0;",
    ] {
        group(body).unwrap_or_else(|t| panic!("{body}: {t}"));
    }
}

#[test]
fn registers_in_flight_are_not_touched() {
    let kind = FaultKind::RegistersInFlight;
    refused(
        "FENCE PRODUCT COMMIT mov.b32 x, d1;",
        kind,
        &["`d0` and others", "warp 3 began that product"],
    );
    refused("FENCE PRODUCT COMMIT @yes mov.b32 d1, 0;", kind, &["no wgmma.wait_group"]);
    refused("FENCE PRODUCT COMMIT mov.b32 a2, 0;", kind, &["`a0` and others"]);
    // A wait covers only what has been committed, and all but the latest groups.
    refused("FENCE PRODUCT WAIT 0; mov.b32 x, d0;", kind, &["began that product"]);
    refused("FENCE PRODUCT COMMIT WAIT 1; mov.b32 x, d0;", kind, &["began that product"]);
    // Accumulators as another product's fragment.
    refused(
        "FENCE PRODUCT wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
             {a0, a1, a2, a3}, {d0, d1, d2, d3}, b, yes, 1, 1, 0;",
        kind,
        &["by a product", "began that product"],
    );
    // Accumulators of another shape.
    refused(
        "FENCE PRODUCT wgmma.mma_async.sync.aligned.m64n8k8.f32.tf32.tf32
             {d0, d1, d2, d3}, {a0, a1, a2, a3}, b, yes, 1, 1;",
        kind,
        &["same shape"],
    );
}

#[test]
fn products_want_a_fence() {
    let kind = FaultKind::MissingFence;
    refused("PRODUCT", kind, &["none has been executed"]);
    refused("FENCE mov.b32 d0, 0; PRODUCT", kind, &["`d0` and others"]);
    refused("FENCE mov.b32 a3, 0; PRODUCT", kind, &["`a0` and others"]);
    refused("FENCE PRODUCT COMMIT WAIT 0; mov.b32 x, d0; PRODUCT", kind, &["`d0`"]);
}

#[test]
fn all_four_warps_execute_it() {
    let kind = FaultKind::Divergence;
    let only = "setp.eq.u32 p, warp, 2; @p bra $skip;";
    refused(&format!("{only} FENCE PRODUCT COMMIT WAIT 0; $skip:"), kind, &["exit"]);
    refused(
        &format!("FENCE {only} PRODUCT COMMIT WAIT 0; $skip: PRODUCT"),
        kind,
        &["same wgmma instructions"],
    );
    refused("setp.eq.u32 p, t, 5; @p bra $skip; FENCE $skip:", kind, &[]);
    let t = group_of(96, "FENCE PRODUCT").unwrap_err();
    assert!(t.kind == kind && t.message.contains("only 3"), "{t}");
    refused(
        "FENCE setp.eq.u32 p, warp, 1; @p add.u64 b, b, 1; PRODUCT",
        kind,
        &["must be the same in the four warps"],
    );
}

#[test]
fn operands_are_checked() {
    let kind = FaultKind::Operand;
    refused("FENCE or.b64 b, b, 0x4000; PRODUCT", kind, &["no matrix descriptor"]);
    refused("FENCE setp.eq.u32 p, t, 3; @p add.u64 b, b, 1; PRODUCT", kind, &["lane 3"]);
    refused("FENCE setp.eq.u32 yes, t, 3; PRODUCT", kind, &["scale-d"]);
    refused("FENCE add.u64 b, b, 0xff; PRODUCT", FaultKind::OutOfBounds, &["B by descriptor"]);
    let t = group_of(128, "FENCE or.b64 b, b, 0; PRODUCT COMMIT WAIT 0;");
    assert!(t.is_ok(), "{t:?}");
}

#[test]
fn unwritten_memory_and_accumulators_are_not_read() {
    let text = |init: &str, add: &str| {
        format!(
            ".version 8.4\n.target sm_90a\n.address_size 64
             .extern .shared .align 1024 .b8 smem[];
             .visible .entry k(.param .u64 out) {{
             .reg .b32 d<4>, a<4>, s; .reg .b64 b, po; .reg .pred add;
             ld.param.u64 po, [out];
             mov.u32 a0, 0; mov.u32 a1, 0; mov.u32 a2, 0; mov.u32 a3, 0; mov.u32 s, smem; {init}
             shr.u32 s, s, 4; cvt.u64.u32 b, s; or.b64 b, b, {desc};
             setp.eq.u32 add, 0, {add};
             fence.proxy.async; bar.sync 0; wgmma.fence.sync.aligned;
             wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
                 {{d0, d1, d2, d3}}, {{a0, a1, a2, a3}}, b, add, 1, 1, 0;
             wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
             st.global.b32 [po], d0; ret; }}",
            desc = (128u64 / 16) << 16 | (256u64 / 16) << 32,
        )
    };
    let run = |text: &str| run_raw(text, "k", [1; 3], [128, 1, 1], 4096, &[RawArg::Out(4)]);
    let init = "{ .reg .b32 t; mov.u32 t, %tid.x; mad.lo.u32 t, t, 4, s; st.shared.b32 [t], a0; }";
    assert!(run(&text(init, "1")).is_ok());
    let t = run(&text("", "1")).unwrap_err();
    assert!(t.kind == FaultKind::Uninitialised && t.message.contains("shared address 0"), "{t}");
    let t = run(&text(init, "0")).unwrap_err();
    assert!(t.kind == FaultKind::Uninitialised && t.message.contains("`d0`"), "{t}");
}

#[test]
fn forms_that_do_not_exist_are_refused() {
    let form = |f: &str| {
        let t = group(&format!(
            "wgmma.mma_async.sync.aligned.{f} {{d0, d1, d2, d3}}, {{a0, a1, a2, a3}}, b, yes, 1, 1, 0;"
        ));
        t.unwrap_err().message
    };
    for f in ["m64n12k16.f32.bf16.bf16", "m64n8k8.f32.bf16.bf16", "m64n8k16.f16.bf16.bf16"] {
        assert!(form(f).contains("does not know this form"), "{f}");
    }
    assert!(form("m64n16k16.f32.bf16.bf16").contains("has 8 registers, not 4"));
}
