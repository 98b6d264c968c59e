//! Whole small kernels.

use super::*;

#[test]
fn adds_vectors() {
    let text = "
.version 7.8
.target sm_80
.address_size 64
// c = a + b
.visible .entry add(.param .u64 a, .param .u64 b, .param .u64 c, .param .u32 n)
.maxntid 128
{
    .reg .pred p;
    .reg .b32 i, t, count;
    .reg .b64 pa, pb, pc, off;
    .reg .f32 x<3>;
    mov.u32 i, %ctaid.x;
    mov.u32 t, %ntid.x;
    mad.lo.u32 i, i, t, 0;
    mov.u32 t, %tid.x;
    add.u32 i, i, t;
    ld.param.u32 count, [n];
    setp.ge.u32 p, i, count;
    @p bra $end;
    ld.param.u64 pa, [a];
    ld.param.u64 pb, [b];
    ld.param.u64 pc, [c];
    mul.wide.u32 off, i, 4;
    add.u64 pa, pa, off;
    add.u64 pb, pb, off;
    add.u64 pc, pc, off;
    ld.global.nc.f32 x0, [pa];
    ld.global.f32 x1, [pb];
    add.f32 x2, x0, x1;
    st.global.f32 [pc], x2;
$end:
    ret;
}
";
    let n = 1000;
    let a: Vec<f32> = (0..n).map(|i| i as f32).collect();
    let b: Vec<f32> = (0..n).map(|i| 0.5 * i as f32).collect();
    let out = run_raw(
        text,
        "add",
        [8, 1, 1],
        [128, 1, 1],
        0,
        &[RawArg::floats(a), RawArg::floats(b), RawArg::Out(4 * n), RawArg::U32(n as u32)],
    )
    .unwrap();
    assert_eq!(out.floats(0), (0..n).map(|i| 1.5 * i as f32).collect::<Vec<_>>());
    let c = out.counts;
    assert_eq!(c.ctas, 8);
    assert_eq!(c.unique_read_sectors, 2 * 125);
    assert_eq!(c.unique_write_sectors, 125);
    assert_eq!(c.global_read_sectors, 250);
    assert_eq!(c.instructions["load_global"], 64);
    assert_eq!(c.instructions["fma"], 32);
}

/// One 16x8 tile of A [16, 32] by B [8, 32] transposed, in bf16, as one warp.
pub const TILE: &str = "
.version 7.8
.target sm_80
.address_size 64
.extern .shared .align 16 .b8 smem[];
.visible .entry tile(.param .u64 a, .param .u64 b, .param .u64 c)
{
    .reg .b32 t, s, r, base, ra<4>, rb<2>, row, col;
    .reg .b64 pa, pb, pc, off;
    .reg .f32 acc<4>;
    ld.param.u64 pa, [a];
    ld.param.u64 pb, [b];
    ld.param.u64 pc, [c];
    mov.u32 base, smem;
    mov.u32 t, %tid.x;
    // A: 64 chunks of 16 bytes, two a lane; rows of 64 bytes, chunks swizzled by row / 2.
    mul.wide.u32 off, t, 16;
    add.u64 pa, pa, off;
    add.u64 pb, pb, off;
    shr.u32 row, t, 2;
    and.b32 col, t, 3;
    shr.u32 s, row, 1;
    and.b32 s, s, 3;
    xor.b32 col, col, s;
    shl.b32 s, row, 6;
    shl.b32 r, col, 4;
    add.u32 s, s, r;
    add.u32 s, s, base;
    cp.async.cg.shared.global [s], [pa], 16;
    cp.async.cg.shared.global [s+512], [pa+512], 16;
    cp.async.cg.shared.global [s+1024], [pb], 16;
    cp.async.commit_group;
    cp.async.wait_group 0;
    bar.warp.sync 0xffffffff;
    mov.f32 acc0, 0f00000000;
    mov.f32 acc1, 0.0;
    mov.f32 acc2, 0.0;
    mov.f32 acc3, 0.0;
    // ldmatrix rows: lanes 0-15 rows of A, 16-31 the same rows, 8 columns on.
    .reg .b32 sa, sb, x;
    and.b32 row, t, 15;
    shr.u32 col, t, 4;
    shr.u32 x, row, 1;
    and.b32 x, x, 3;
    shl.b32 sa, row, 6;
    add.u32 sa, sa, base;
    {
        .reg .b32 c0, c1, a0;
        xor.b32 c0, col, x;
        shl.b32 c0, c0, 4;
        add.u32 a0, sa, c0;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {ra0, ra1, ra2, ra3}, [a0];
        and.b32 row, t, 7;
        shr.u32 x, row, 1;
        and.b32 x, x, 3;
        shr.u32 c1, t, 3;
        and.b32 c1, c1, 1;
        xor.b32 c1, c1, x;
        shl.b32 c1, c1, 4;
        shl.b32 sb, row, 6;
        add.u32 sb, sb, base;
        add.u32 c1, c1, sb;
        ldmatrix.sync.aligned.m8n8.x2.shared::cta.b16 {rb0, rb1}, [c1 + 1024];
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
            {acc0, acc1, acc2, acc3}, {ra0, ra1, ra2, ra3}, {rb0, rb1}, {acc0, acc1, acc2, acc3};
        // Second half of k: two chunks on.
        xor.b32 a0, a0, 32;
        xor.b32 c1, c1, 32;
        ldmatrix.sync.aligned.m8n8.x4.shared.b16 {ra0, ra1, ra2, ra3}, [a0];
        ldmatrix.sync.aligned.m8n8.x2.shared.b16 {rb0, rb1}, [c1 + 1024];
        mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32
            {acc0, acc1, acc2, acc3}, {ra0, ra1, ra2, ra3}, {rb0, rb1}, {acc0, acc1, acc2, acc3};
    }
    shr.u32 row, t, 2;
    and.b32 col, t, 3;
    shl.b32 row, row, 5;
    shl.b32 col, col, 3;
    add.u32 row, row, col;
    cvt.u64.u32 off, row;
    add.u64 pc, pc, off;
    st.global.v2.f32 [pc], {acc0, acc1};
    st.global.v2.f32 [pc+256], {acc2, acc3};
    ret;
}
";

#[test]
fn multiplies_a_tile() {
    use half::bf16;
    let a: Vec<f32> = (0..16 * 32).map(|i| ((i * 7) % 23) as f32 - 11.0).collect();
    let b: Vec<f32> = (0..8 * 32).map(|i| ((i * 5) % 19) as f32 - 9.0).collect();
    let bytes =
        |v: &[f32]| RawArg::In(v.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect());
    let args = [bytes(&a), bytes(&b), RawArg::Out(16 * 8 * 4)];
    let out = run_raw(TILE, "tile", [1; 3], [32, 1, 1], 1536, &args).unwrap();
    let mut want = vec![0f32; 128];
    for m in 0..16 {
        for n in 0..8 {
            want[m * 8 + n] = (0..32).map(|k| a[m * 32 + k] * b[n * 32 + k]).sum();
        }
    }
    assert_eq!(out.floats(0), want);
    let c = out.counts;
    assert_eq!(c.tensor_flops["bf16"], 2 * 16 * 8 * 32);
    assert_eq!(c.instructions["mma"], 2);
    assert_eq!(c.instructions["cp_async"], 5);
    assert_eq!(c.global_read_sectors, 48);
    assert_eq!(c.unique_write_sectors, 16);
    // The swizzle is free of conflicts: 3 copies of 4, 2 x 4 and 2 x 2 for the fragments.
    assert_eq!(c.bank_conflicts, 0);
    assert_eq!(c.shared_wavefronts, 12 + 8 + 4);
}
