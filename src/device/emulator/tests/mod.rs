//! The emulator against values computed by hand.

mod alu;
mod basic;
mod bulk;
mod carry;
mod cluster;
mod directed;
mod forms;
mod hopper;
mod maps;
mod memory;
mod needs;
mod operands;
mod parser;
mod ragged;
mod special;
mod tensor;
mod traps;
mod warpwide;
mod wgmma;

use super::{RawArg, RawOutcome, run_raw};
use crate::device::{FaultKind, Trap};

/// A module with one entry `k` of the given parameters and body.
pub fn module(params: &str, body: &str) -> String {
    format!(
        ".version 8.3\n.target sm_90\n.address_size 64\n\
         .visible .entry k({params})\n{{\n{body}\n}}\n"
    )
}

/// Runs `body` in one CTA of `threads`, with `shared` bytes of dynamic shared memory, known to
/// it as `smem`.
pub fn run(
    params: &str,
    body: &str,
    threads: u32,
    shared: u32,
    args: &[RawArg],
) -> Result<RawOutcome, Box<Trap>> {
    let body = format!(".extern .shared .align 16 .b8 smem[];\n{body}");
    run_raw(&module(params, &body), "k", [1; 3], [threads, 1, 1], shared, args)
}

/// Runs `body` over one warp that finds a, b, c (`.b32`) and wa, wb, wc (`.b64`) loaded and
/// leaves d (`.b32`), or wd (`.b64`), to be stored. `lanes` gives each lane's inputs.
pub fn lanes(body: &str, lanes: &[[u64; 3]; 32]) -> (Vec<u32>, Vec<u64>) {
    let text = format!(
        ".reg .b32 a, b, c, d, t, u, v; .reg .b64 wa, wb, wc, wd, p, q, off;
         .reg .f32 f0, f1; .reg .b16 h0, h1, h2; .reg .pred p0, p1, p2;
         ld.param.u64 p, [in]; ld.param.u64 q, [out];
         mov.u32 t, %tid.x; mul.wide.u32 off, t, 24; add.u64 p, p, off;
         mul.wide.u32 off, t, 16; add.u64 q, q, off;
         ld.global.b64 wa, [p]; ld.global.b64 wb, [p+8]; ld.global.b64 wc, [p+16];
         cvt.u32.u64 a, wa; cvt.u32.u64 b, wb; cvt.u32.u64 c, wc; mov.b32 d, 0; mov.b64 wd, 0;
         mov.u32 u, 0; mov.u32 v, 0;
         {{ {body} }}
         st.global.b32 [q], d; st.global.b64 [q+8], wd; ret;"
    );
    let input = lanes.iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
    let out = run(
        ".param .u64 in, .param .u64 out",
        &text,
        32,
        0,
        &[RawArg::In(input), RawArg::Out(512)],
    )
    .unwrap_or_else(|t| panic!("{body}: {t}"));
    let bytes = &out.outputs[0];
    let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let d = (0..32).map(|i| word(16 * i)).collect();
    let wd =
        (0..32).map(|i| u64::from(word(16 * i + 8)) | u64::from(word(16 * i + 12)) << 32).collect();
    (d, wd)
}

/// The same inputs in every lane; d.
pub fn one(body: &str, a: u32, b: u32, c: u32) -> u32 {
    lanes(body, &[[a.into(), b.into(), c.into()]; 32]).0[0]
}

/// The same inputs in every lane; wd.
pub fn one64(body: &str, a: u64, b: u64, c: u64) -> u64 {
    lanes(body, &[[a, b, c]; 32]).1[0]
}
