//! Texts that may be PTX, from random numbers.

use crossover::device::emulator::{RawArg, RawOptions, run_raw_checked};
use crossover::device::{Swizzle, TensorMap};
use crossover::op::DType;
use rand::Rng;
use rand::seq::IndexedRandom;

/// Operations with what may stand behind them: `d` a 32-bit register, `D` one of 64 bits, `p` a
/// predicate, `a` an address in shared memory, `g` a global one, `i` a number, `v` four registers.
const FORMS: &[&str] = &[
    "add.u32 d, d, d",
    "add.u64 D, D, D",
    "mul.lo.s32 d, d, i",
    "mul.wide.u32 D, d, i",
    "mad.lo.u32 d, d, d, d",
    "div.u32 d, d, d",
    "rem.s32 d, d, i",
    "shl.b32 d, d, i",
    "shr.s64 D, D, d",
    "bfe.u32 d, d, d, d",
    "bfi.b32 d, d, d, d, d",
    "prmt.b32 d, d, d, i",
    "setp.lt.s32 p, d, d",
    "setp.eq.u64 p, D, D",
    "selp.b32 d, d, d, p",
    "cvt.u64.u32 D, d",
    "cvt.u32.u64 d, D",
    "mov.u32 d, i",
    "mov.u32 d, %laneid",
    "ex2.approx.ftz.f32 d, d",
    "ld.shared.b32 d, [a]",
    "ld.shared.v4.b32 v, [a]",
    "st.shared.b32 [a], d",
    "st.shared.v4.b32 [a], v",
    "st.shared.u8 [a], d",
    "ld.global.b32 d, [g]",
    "st.global.b32 [g], d",
    "ld.b32 d, [g]",
    "st.volatile.global.b32 [g], d",
    "ld.acquire.gpu.global.b32 d, [g]",
    "atom.shared.add.u32 d, [a], d",
    "atom.global.acq_rel.gpu.cas.b32 d, [g], d, d",
    "red.global.add.u32 [g], d",
    "cp.async.ca.shared.global [a], [g], 4",
    "cp.async.cg.shared.global [a], [g], 16, d",
    "cp.async.commit_group",
    "cp.async.wait_group i",
    "cp.async.wait_all",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 v, [a]",
    "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [a], v",
    "shfl.sync.bfly.b32 d, d, d, i, i",
    "shfl.sync.idx.b32 d, d, d, 31, 0xffffffff",
    "vote.sync.ballot.b32 d, p, 0xffffffff",
    "match.any.sync.b32 d, d, i",
    "redux.sync.add.u32 d, d, 0xffffffff",
    "elect.sync d|p, i",
    "bar.sync i",
    "bar.sync d, i",
    "bar.arrive i, i",
    "bar.red.popc.u32 d, i, p",
    "barrier.sync d",
    "bar.warp.sync i",
    "barrier.cluster.arrive.aligned",
    "barrier.cluster.wait.aligned",
    "mapa.shared::cluster.u32 d, a, i",
    "ld.shared::cluster.b32 d, [a]",
    "st.release.cluster.shared::cluster.b32 [a], d",
    "atom.shared::cluster.add.u32 d, [a], d",
    "ld.shared.b128 W, [a]",
    "st.global.b128 [g], W",
    "atom.global.cas.b128 W, [g], W, W",
    "mov.b128 W, {D, D}",
    "fence.proxy.async.global",
    "fence.proxy.tensormap::generic.release.gpu",
    "fence.proxy.tensormap::generic.acquire.gpu [g], 128",
    "tensormap.replace.tile.box_dim.shared::cta.b1024.b32 [a], i, d",
    "tensormap.replace.tile.global_address.global.b1024.b64 [g], D",
    "tensormap.cp_fenceproxy.global.shared::cta.tensormap::generic.release.gpu.sync.aligned [g], [a], 128",
    "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [a], [M, {d, d}], [a]",
    "cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [M, {d, d}], [a]",
    "fence.acq_rel.gpu",
    "fence.proxy.async",
    "fence.mbarrier_init.release.cluster",
    "membar.gl",
    "mbarrier.init.shared.b64 [a], i",
    "mbarrier.inval.shared.b64 [a]",
    "mbarrier.arrive.shared.b64 D, [a]",
    "mbarrier.arrive.expect_tx.shared.b64 _, [a], i",
    "mbarrier.arrive_drop.shared.b64 _, [a]",
    "mbarrier.expect_tx.relaxed.cta.shared.b64 [a], i",
    "mbarrier.complete_tx.relaxed.cta.shared.b64 [a], i",
    "mbarrier.try_wait.parity.shared.b64 p, [a], i",
    "mbarrier.test_wait.shared.b64 p, [a], D",
    "cp.async.mbarrier.arrive.noinc.shared.b64 [a]",
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [a], [g], i, [a]",
    "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [a], [a], d, [a]",
    "cp.async.bulk.global.shared::cta.bulk_group [g], [a], i",
    "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.u32 [g], [a], i",
    "cp.async.bulk.commit_group",
    "cp.async.bulk.wait_group.read i",
    "cp.async.bulk.wait_group i",
    "st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [a], d, [a]",
    "setmaxnreg.dec.sync.aligned.u32 i",
    "setmaxnreg.inc.sync.aligned.u32 i",
    "wgmma.fence.sync.aligned",
    "wgmma.commit_group.sync.aligned",
    "wgmma.wait_group.sync.aligned i",
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 v, v, D, p, 1, 1, 0",
    "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 v, D, D, p, 1, 1, 0, 0",
    "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 v, v, {d, d}, v",
    "clock64 D",
    "bra $back",
    "bra $over",
    "exit",
    "trap",
    "nanosleep.u32 i",
];

const NUMBERS: &[&str] = &[
    "0",
    "1",
    "2",
    "3",
    "4",
    "7",
    "8",
    "15",
    "16",
    "17",
    "24",
    "31",
    "32",
    "33",
    "63",
    "64",
    "96",
    "128",
    "255",
    "256",
    "1024",
    "4096",
    "65535",
    "0xffff",
    "0x7fffffff",
    "0x80000000",
    "-1",
    "4294967295",
    "0xffffffffffffffff",
    "1048576",
    "9223372036854775807",
];

/// Tokens of the language and some that are none.
const WORDS: &[&str] = &[
    ".version",
    "8.0",
    ".target",
    "sm_80",
    "sm_90a",
    ".address_size",
    "64",
    ".visible",
    ".entry",
    "k",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "<",
    ">",
    ";",
    ",",
    ":",
    ".",
    ".param",
    ".u64",
    ".b32",
    ".reg",
    ".pred",
    ".shared",
    ".extern",
    ".align",
    ".b8",
    ".global",
    ".const",
    ".local",
    "x",
    "%tid.x",
    "$l",
    "@p",
    "@!p",
    "!",
    "-",
    "+",
    "|",
    "=",
    "/*",
    "*/",
    "//",
    "\n",
    "\"",
    "0f3F800000",
    "0d0",
    "1e400",
    "0x",
    "0b2",
    ".maxntid",
    ".reqntid",
    ".pragma",
    ".loc",
    ".file",
    "\u{e9}",
    "\0",
    "mov.u32",
    "ret",
    "bra",
    "ld.global.b32",
    "_",
    "x<65537>",
    "a[1000000000000]",
    "1.5",
    "?",
];

/// Words that texts consist of, for a fuzzer's dictionary.
#[allow(dead_code, reason = "for fuzz/seeds.rs")]
pub fn words() -> impl Iterator<Item = &'static str> {
    let operations = FORMS.iter().filter_map(|form| form.split(' ').next());
    let words = WORDS.iter().filter(|w| w.is_ascii() && w.bytes().all(|b| b.is_ascii_graphic()));
    operations.chain(words.copied()).chain(NUMBERS.iter().copied())
}

pub fn number(rng: &mut impl Rng) -> String {
    match rng.random_range(0..6) {
        0 => rng.random::<u32>().to_string(),
        1 => rng.random_range(0..70).to_string(),
        _ => (*NUMBERS.choose(rng).unwrap_or(&"0")).to_owned(),
    }
}

/// Tokens or characters in any order.
pub fn text(rng: &mut impl Rng) -> String {
    let mut out = String::new();
    if rng.random_bool(0.5) {
        out += ".version 8.0\n.target sm_90a\n.address_size 64\n";
    }
    if rng.random_bool(0.3) {
        out += ".visible .entry k(.param .u64 in) {\n";
    }
    let tokens = rng.random_range(0..60);
    for _ in 0..tokens {
        match rng.random_range(0..12) {
            0 => out += &number(rng),
            1 => out.extend(char::from_u32(rng.random_range(0..0x500))),
            _ => out += WORDS.choose(rng).copied().unwrap_or(""),
        }
        if rng.random_bool(0.7) {
            out.push(' ');
        }
    }
    out
}

fn instruction(rng: &mut impl Rng) -> String {
    let form = FORMS.choose(rng).copied().unwrap_or("ret");
    let (op, operands) = form.split_once(' ').unwrap_or((form, ""));
    let mut out = op.to_owned() + " ";
    let r = |rng: &mut dyn rand::RngCore| rng.next_u32() % 8;
    for c in operands.chars() {
        match c {
            'd' => out += &format!("d{}", r(rng)),
            'D' => out += &format!("D{}", r(rng)),
            'W' => out += &format!("W{}", r(rng) % 2),
            'M' => out += if rng.random_bool(0.9) { "m" } else { "g1" },
            'p' => out += &format!("p{}", r(rng) % 4),
            'a' if operands.contains("[a]") && rng.random_bool(0.7) => {
                out += &format!("s+{}", 16 * (r(rng) * r(rng)));
            }
            'a' => out += &format!("d{}+{}", r(rng), number(rng)),
            'g' if rng.random_bool(0.8) => out += &format!("g{}+{}", r(rng) % 2, 16 * r(rng)),
            'g' => out += &format!("D{}", r(rng)),
            'i' => out += &number(rng),
            'v' => {
                let list: Vec<_> = (0..4).map(|_| format!("d{}", r(rng))).collect();
                out += &format!("{{{}}}", list.join(", "));
            }
            c => out.push(c),
        }
    }
    // Labels and special registers are spelled with letters that stand for operands.
    let out = if operands.starts_with('$') || operands.contains('%') || op.contains("mma_async") {
        match operands {
            "$back" | "$over" => format!("{op} {operands}"),
            _ if operands.contains('%') => "mov.u32 d1, %laneid".into(),
            _ => out,
        }
    } else {
        out
    };
    let guard = match rng.random_range(0..5) {
        0 => format!("@p{} ", r(rng) % 4),
        1 => format!("@!p{} ", r(rng) % 4),
        _ => String::new(),
    };
    format!("    {guard}{out};\n")
}

/// A module whose entry `k` has random instructions.
pub fn program(rng: &mut impl Rng) -> String {
    let mut out = String::from(
        ".version 8.6\n.target sm_90a\n.address_size 64\n\
         .extern .shared .align 1024 .b8 smem[];\n\
         .visible .entry k(.param .u64 in, .param .u64 out, .param .align 64 .b8 map[128])\n\
         .maxntid 256 .minnctapersm 1\n{\n\
         .reg .b32 d<8>, s; .reg .b64 D<8>, g<2>, m; .reg .b128 W<2>; .reg .pred p<4>;\n\
         mov.b64 m, map; cvta.param.u64 m, m; mov.b128 W0, {m, m}; mov.b128 W1, W0;\n\
         ld.param.u64 g0, [in]; ld.param.u64 g1, [out]; mov.u32 s, smem; mov.u32 d0, %tid.x;\n",
    );
    for i in 1..8 {
        out += &format!("mov.u32 d{i}, {}; mov.u64 D{i}, {};\n", number(rng), number(rng));
    }
    out += "mov.u64 D0, g1;\n";
    for i in 0..4 {
        out += &format!("setp.lt.u32 p{i}, d0, {};\n", number(rng));
    }
    if rng.random_bool(0.5) {
        // Memory that has been written, so that fewer programs end at once.
        out += "mov.u32 d1, 0; mad.lo.u32 d1, d0, 16, s; st.shared.v4.b32 [d1], {d0, d0, d0, d0};\n\
                bar.sync 0;\n";
    }
    let n = rng.random_range(1..16);
    let (back, over) = (rng.random_range(0..n), rng.random_range(0..n));
    for i in 0..n {
        if i == back {
            out += "$back:\n";
        }
        if i == over {
            out += "$over:\n";
        }
        out += &instruction(rng);
    }
    out + "}\n"
}

/// The input as 8 rows of 8 words, in boxes of 8 by 2.
fn map() -> TensorMap {
    TensorMap {
        buffer: 0,
        dtype: DType::I32,
        dims: vec![8, 8],
        strides_bytes: vec![32],
        tile: vec![8, 2],
        swizzle: Swizzle::B32,
        nan_fill: false,
    }
}

/// Runs entry `k`, if it can be; true if it began to.
pub fn run(text: &str) -> bool {
    let mut args = vec![RawArg::words(0..64), RawArg::InOut(256)];
    if text.contains(".b8 map[128]") {
        args.push(RawArg::TensorMap(map()));
    }
    let shape = [[2, 1, 1], [64, 1, 1], [if text.len().is_multiple_of(3) { 2 } else { 1 }, 1, 1]];
    let options = RawOptions { steps: 2_000, ..RawOptions::default() };
    match run_raw_checked(text, "k", shape, 4096, &args, options) {
        Ok(_) => true,
        Err(trap) => trap.at.line > 0,
    }
}

/// One line or token of a text lost, doubled, exchanged or changed.
pub fn change(text: &str, rng: &mut impl Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    if lines.is_empty() {
        return text.into();
    }
    let at = rng.random_range(0..lines.len());
    let other = rng.random_range(0..lines.len());
    match rng.random_range(0..6) {
        0 => {
            lines.remove(at);
        }
        1 => {
            let line = lines[at].clone();
            lines.insert(other, line);
        }
        2 => lines.swap(at, other),
        3 => {
            // Another number.
            let line = &mut lines[at];
            if let Some(from) = line.find(|c: char| c.is_ascii_digit()) {
                let len = line[from..].chars().take_while(char::is_ascii_digit).count();
                line.replace_range(from..from + len, &number(rng));
            }
        }
        4 => {
            // A character lost.
            let line = &mut lines[at];
            if !line.is_empty() {
                let i = rng.random_range(0..line.len());
                if line.is_char_boundary(i) && line.is_char_boundary(i + 1) {
                    line.remove(i);
                }
            }
        }
        _ => {
            // A word of another line.
            let words: Vec<String> = lines[other].split(' ').map(str::to_owned).collect();
            let word = words.choose(rng).cloned().unwrap_or_default();
            let line: Vec<&str> = lines[at].split(' ').collect();
            let i = rng.random_range(0..line.len().max(1));
            let mut line: Vec<String> = line.into_iter().map(str::to_owned).collect();
            if let Some(w) = line.get_mut(i) {
                *w = word;
            }
            lines[at] = line.join(" ");
        }
    }
    lines.join("\n") + "\n"
}
