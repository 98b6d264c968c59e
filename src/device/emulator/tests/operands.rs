//! Operands of products that change between one product and the next: what was taken in before must
//! not be used again.

use half::bf16;

use super::super::{RawArg, run_raw};

/// Two of the same number.
fn pair(x: f32) -> u32 {
    u32::from(bf16::from_f32(x).to_bits()) * 0x1_0001
}

/// How the 256 bytes of the operand, or one of them, come to hold pairs `w`.
const WAYS: [&str; 11] = [
    "@on st.shared.b32 [at], w;",
    "@row st.shared.v4.b32 [r], {w, w, w, w};",
    "mov.b32 {h, h1}, w; @on st.shared.b16 [at], h; @on st.shared.b16 [at+2], h1;",
    "@warp stmatrix.sync.aligned.m8n8.x2.shared.b16 [r], {w, w};",
    "@on atom.shared.exch.b32 x, [at], w;",
    "@row cp.async.cg.shared.global [r], [from], 16; cp.async.wait_all;",
    "@one mbarrier.arrive.expect_tx.shared.b64 _, [m], 256;
     @one cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [s], [in], 256, [m];
     again: mbarrier.try_wait.parity.shared.b64 done, [m], 0; @!done bra again;",
    "mapa.shared::cluster.u32 peer, at, 0; @on st.shared::cluster.b32 [peer], w;",
    "@one mbarrier.arrive.expect_tx.shared.b64 _, [m], 256;
     @on st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.b32 [peer], w, [m];
     more: mbarrier.try_wait.parity.shared.b64 done, [m], 1; @!done bra more;",
    // Nothing changes.
    "",
    // The high byte of one number, which becomes nearly zero.
    "@one st.shared.u8 [s+1], 0;",
];

/// The operand as B, and as A with B from elsewhere.
#[test]
fn changed_operands_are_taken_in_again() {
    for (what, a, b) in [("B", "{a0, a0, a0, a0}", "d"), ("A", "d", "e")] {
        let transposes = if what == "A" { ", 0, 0" } else { ", 0" };
        let values = [1., 2., 3., 4., 5., 6., 7., 8., 9., 9., 9.];
        let steps: String = WAYS
            .iter()
            .zip(values)
            .enumerate()
            .map(|(i, (way, x))| {
                format!(
                    "mov.b32 w, {}; {way}
                 fence.proxy.async; bar.sync 0; wgmma.fence.sync.aligned;
                 wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16
                     {{d0, d1, d2, d3}}, {a}, {b}, no, 1, 1{transposes};
                 wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;
                 @one st.global.b32 [out+{}], d0; bar.sync 0;\n",
                    pair(x),
                    4 * i
                )
            })
            .collect();
        let text = format!(
            ".version 8.4\n.target sm_90a\n.address_size 64
             .extern .shared .align 1024 .b8 smem[];
             .visible .entry k(.param .u64 pin, .param .u64 pout) {{
             .reg .b32 d<4>, a0, at, m, peer, r, s, t, w, x; .reg .b16 h, h1;
             .reg .b64 d, e, from, in, o, out; .reg .pred done, no, on, one, row, warp;
             ld.param.u64 in, [pin]; ld.param.u64 out, [pout];
             mov.u32 t, %tid.x; mov.u32 s, smem; mad.lo.u32 at, t, 4, s; mad.lo.u32 r, t, 16, s;
             mul.wide.u32 o, t, 16; add.u64 from, in, 256; add.u64 from, from, o; add.u32 m, s, 4096;
             setp.lt.u32 on, t, 64; setp.lt.u32 row, t, 16; setp.eq.u32 one, t, 0;
             setp.lt.u32 warp, t, 32; setp.ne.u32 no, 0, 0;
             mov.b32 a0, {one}; st.shared.v4.b32 [r], {{a0, a0, a0, a0}};
             st.shared.v4.b32 [r+2048], {{a0, a0, a0, a0}};
             @one mbarrier.init.shared.b64 [m], 1; @one fence.mbarrier_init.release.cluster;
             shr.u32 x, s, 4; cvt.u64.u32 d, x; or.b64 d, d, {layout}; add.u64 e, d, {far};
             bar.sync 0;
             {steps} ret; }}",
            one = pair(1.),
            layout = (128u64 / 16) << 16 | (256u64 / 16) << 32,
            far = 2048 / 16,
        );
        let input = [pair(7.), pair(6.)].map(|w| std::iter::repeat_n(w, 64));
        let input = RawArg::words(input.into_iter().flatten());
        let args = [input, RawArg::Out(4 * WAYS.len())];
        let out = run_raw(&text, "k", [1; 3], [128, 1, 1], 4096 + 8, &args).expect(what);
        let want: Vec<f32> = (0..WAYS.len())
            .map(|i| if i == 10 { 15. * values[i] } else { 16. * values[i] })
            .collect();
        assert_eq!(out.floats(0), want, "{what}");
    }
}
