#!/usr/bin/env python3
"""Cycles of a Hopper multiprocessor that the emulator's model of time needs (`wgmma`, `tma`, `cluster`, `mbarrier`,
`barrier` in devices/*.toml), and how exponentials and the other instructions of a softmax share its pipes.

Run on an H200 or H100 (python3 and libcuda.so.1 alone, no toolkit, no torch; about 20 s, 40 s at most):

    python3 probe.py > out.json

out.json: "constants" (each with its value and what it is), "raw" (each case with its cycles), "errors" (cases that
failed, with the call and CUDA's number). Exit code 0 if every constant came out. A case that fails costs only itself:
cases run in child processes, and one that loses its context is replaced. `--ptx DIR` writes the PTX instead, each with
`// threads N` for checking with ptxas; `--seconds N` changes the limit.
"""
import concurrent.futures, ctypes, json, os, subprocess, sys, time

HEAD = ".version 8.0\n.target sm_90a\n.address_size 64\n.extern .shared .align 1024 .b8 sh[];\n"
REGS = """.reg .u32 tid, lane, i, smem, t0, t1, n, wg, bar, par, at, cta, peer, r<10>;
.reg .u64 out, buf, o, src, da, db, map;
.reg .f32 f<40>, d<100>; .reg .b32 a<4>, h<16>; .reg .pred p, q, first, yes, mine;
"""
def kernel(body, threads, cluster=1):
    """A kernel of at most `threads` threads, which bounds its registers too."""
    c = f".reqnctapercluster {cluster}, 1, 1\n" if cluster > 1 else ""
    return HEAD + f".visible .entry k(.param .u64 po, .param .u64 pb, .param .u32 pn, .param .align 64 .b8 pm[128])\n.maxntid {threads}, 1, 1\n{c}{{\n{REGS}" + """
ld.param.u64 out, [po]; ld.param.u64 buf, [pb]; ld.param.u32 n, [pn]; mov.b64 map, pm; cvta.param.u64 map, map;
cvta.to.global.u64 out, out; cvta.to.global.u64 buf, buf;
mov.u32 tid, %tid.x; and.b32 lane, tid, 31; shr.u32 wg, tid, 7; mov.u32 smem, sh; mov.u32 cta, %ctaid.x;
setp.eq.u32 first, tid, 0; setp.eq.u32 yes, 0, 0;
""" + body + "\nret;\n}\n"
STORE = "mov.u32 r7, %ntid.x; mad.lo.u32 i, cta, r7, tid; mul.wide.u32 o, i, 8; add.u64 o, out, o; st.global.v2.u32 [o], {t0, t1};\n"
INIT = "".join(f"cvt.rn.f32.u32 f{i}, tid; mul.f32 f{i}, f{i}, 0f{0x3a000000 + i * 65536:08x};\n" for i in range(40)) \
     + "".join(f"mov.b32 h{i}, tid;\n" for i in range(16))
KEEP = "".join(f"st.shared.f32 [smem+{4 * (i % 8)}], f{i};\n" for i in range(40)) + "".join(f"st.shared.b32 [smem], h{i};\n" for i in range(16))
CASES = []
def case(name, ptx, threads, n, grid=1, param=0, box=0, view="span"):
    CASES.append(dict(name=name, ptx=ptx, threads=threads, n=n, grid=grid, param=param, box=box, view=view))

# --- instructions: latency of a chain, and cycles each for 1 to 3 warps of each sub-core, alone and beside products ---
def timed(ops, threads, pre=INIT, keep=KEEP):
    return kernel(pre + "bar.sync 0;\nmov.u32 t0, %clock;\n" + ops + "mov.u32 t1, %clock;\n" + keep + STORE, threads)
def chain(name, op, n=128):
    case(f"chain_{name}", timed(op * n, 32), 32, n)
chain("ex2", "ex2.approx.ftz.f32 f0, f0;\n")
chain("fma", "fma.rn.f32 f0, f0, f1, f2;\n")
chain("max", "max.f32 f0, f0, f1;\n add.f32 f0, f0, f2;\n")
chain("cvt_add", "cvt.rn.bf16x2.f32 h0, f0, f1; mov.b32 f0, h0;\n add.f32 f0, f0, f1;\n")
chain("shfl", "shfl.sync.bfly.b32 f0, f0, 1, 31, -1;\n")
chain("max_shfl", "shfl.sync.bfly.b32 f1, f0, 1, 31, -1;\n max.f32 f0, f0, f1;\n")
for t in (128, 256):
    case(f"bar_{t}", timed(f"bar.sync 1, {t};\n" * 64, t, "", ""), t, 64)
def streams():
    """Bodies of 16 independent instructions, or of a mix; with how many instructions."""
    R = range(16)
    ex2 = lambda i: f"ex2.approx.ftz.f32 f{i}, f{i};\n"
    yield "ex2", "".join(ex2(i) for i in R), 16
    yield "fma", "".join(f"fma.rn.f32 f{i}, f{i}, f32, f33;\n" for i in R), 16
    yield "fma3", "".join(f"fma.rn.f32 f{i}, f{i}, f{16 + i}, f{16 + (i + 5) % 16};\n" for i in R), 16
    yield "add", "".join(f"add.f32 f{i}, f{i}, f{16 + i};\n" for i in R), 16
    yield "mul", "".join(f"mul.f32 f{i}, f{i}, f32;\n" for i in R), 16
    yield "max", "".join(f"max.f32 f{i}, f{i}, f{16 + i};\n" for i in R), 16
    cvt = lambda i: f"cvt.rn.bf16x2.f32 h0, f{i}, f{16 + i}; mov.b32 f{i}, h0;\n"
    yield "cvt", "".join(cvt(i) for i in R), 16
    # of two scores: 2 maxima, 2 fma, 2 ex2, 2 adds, 1 conversion
    soft = "".join(
        f"max.f32 f{32 + i % 4}, f{32 + i % 4}, f{16 + i}; fma.rn.f32 f{i}, f{16 + i}, f36, f{32 + (i + 1) % 4}; ex2.approx.ftz.f32 f{i}, f{i};\n"
        f"add.f32 f{38 + i % 2}, f{38 + i % 2}, f{i};\n" + (f"cvt.rn.bf16x2.f32 h0, f{i - 1}, f{i}; mov.b32 f{15 + i}, h0;\n" if i % 2 else "") for i in R)
    yield "softmax", soft, 72
    yield "ex2_cvt", "".join(ex2(i) + (f"cvt.rn.bf16x2.f32 h0, f{16 + i}, f{15 + i}; mov.b32 f{16 + i}, h0;\n" if i % 2 else "") for i in R), 24
    yield "ex2_add", "".join(ex2(i) + f"add.f32 f{38 + i % 2}, f{38 + i % 2}, f{i};\n" for i in R), 32
    yield "ex2_fma", "".join(ex2(i) + f"fma.rn.f32 f{16 + i}, f{16 + i}, f32, f33;\n" * 1 for i in R), 32
    yield "ex2_fma6", "".join(ex2(i) + "".join(f"fma.rn.f32 f{16 + (6 * i + k) % 16}, f{16 + (6 * i + k) % 16}, f32, f33;\n" for k in range(6)) for i in R), 112
    yield "ex2_max2", "".join(ex2(i) + "".join(f"max.f32 f{16 + (2 * i + k) % 16}, f{16 + (2 * i + k) % 16}, f32;\n" for k in range(2)) for i in R), 48
DESC = """
shr.u32 r0, smem, 4; and.b32 r0, r0, 0x3fff; mov.b64 da, {r0, 0x40000040};
add.u32 r1, smem, 32768; shr.u32 r1, r1, 4; and.b32 r1, r1, 0x3fff; mov.b64 db, {r1, 0x40000040};
mov.u32 i, tid; $z: shl.b32 r2, i, 2; add.u32 r2, r2, smem; mov.u32 r3, 0; st.shared.u32 [r2], r3; mov.u32 r7, %ntid.x; add.u32 i, i, r7; setp.lt.u32 p, i, 24576; @p bra $z;
fence.proxy.async.shared::cta;
bar.sync 0;
ld.shared.v4.b32 {a0, a1, a2, a3}, [smem+65536];
"""
def product(n, a, k):
    d = "{" + ", ".join(f"d{i}" for i in range(n // 2)) + "}"
    x, t = ("da", ", 0, 0") if a == "ss" else ("{a0, a1, a2, a3}", ", 0")
    return f"wgmma.mma_async.sync.aligned.m64n{n}k16.f32.bf16.bf16 {d}, {x}, db, yes, 1, 1{t};\n" * k
def zeros(n): return "".join(f"mov.f32 d{i}, 0f00000000;\n" for i in range(n // 2))
def keep_d(n): return "".join(f"st.shared.f32 [smem+{4 * (i % 8)}], d{i};\n" for i in range(n // 2))
FENCE, COMMIT, WAIT0 = "wgmma.fence.sync.aligned;\n", "wgmma.commit_group.sync.aligned;\n", "wgmma.wait_group.sync.aligned 0;\n"
for name, body, count in streams():
    loop = "mov.u32 r6, 0; $more:\n" + body * 4 + "add.u32 r6, r6, 1; setp.lt.u32 p, r6, 4; @p bra $more;\n"
    alone = timed(loop, 384)
    for warps in (1, 2, 3):
        case(f"rate_{name}_{warps}w", alone, 128 * warps, count * 16)
    for a in ("rs", "ss"):
        if a == "ss" and name not in ("ex2", "fma", "max", "softmax"): continue
        # warpgroup 0 multiplies, 256 products of n = 96 in 12,300 cycles; the others compute meanwhile
        k = DESC + "setp.ne.u32 mine, wg, 0;\nbar.sync 0;\n@mine bra $other;\n" + zeros(96) + "mov.u32 t0, %clock;\n"
        k += (FENCE + product(96, a, 32) + COMMIT + WAIT0) * 8 + "mov.u32 t1, %clock;\n" + keep_d(96) + "bra $end;\n$other:\n" + INIT
        k += "mov.u32 r8, 0; $warm: add.u32 r8, r8, 1; mov.u32 r9, %clock; setp.lt.u32 p, r8, 12; @p bra $warm;\n"
        k += "mov.u32 t0, %clock;\n" + loop + "mov.u32 t1, %clock;\n" + KEEP + "$end:\n" + STORE
        k = kernel(k, 512)
        for warps in (1, 2, 3):
            case(f"beside_{a}_{name}_{warps}w", k, 128 * (warps + 1), count * 16, view="beside")

# --- products: k of m64nNk16 in one group, waited for; 1 to 3 warpgroups at once ---
def products(n, k, a, threads):
    s = "bar.sync 0;\nmov.u32 t0, %clock;\n" + FENCE + product(n, a, k) + COMMIT + WAIT0 + "mov.u32 t1, %clock;\n"
    return kernel(DESC + zeros(n) + s + keep_d(n) + STORE, threads)
for n in (48, 64, 96, 128, 192):
    for k in (1, 4, 16):
        for a in ("ss", "rs"):
            ptx = products(n, k, a, 384)
            for g in (1, 2, 3):
                case(f"wgmma_n{n}_k{k}_{a}_{g}wg", ptx, 128 * g, k, view="groups")
# cycles that issuing takes: until the commit, no wait
for n, k in ((64, 8), (128, 4), (128, 8)):
    for a in ("ss", "rs"):
        s = "bar.sync 0;\nmov.u32 t0, %clock;\n" + FENCE + product(n, a, k) + COMMIT + "mov.u32 t1, %clock;\n" + WAIT0
        case(f"issue_n{n}_k{k}_{a}", kernel(DESC + zeros(n) + s + keep_d(n) + STORE, 384), 128, k, view="groups")

# a block of attention with D 64: 4 products into one set of registers, then 4 or 8 with A from registers and B transposed into
# another; when the first are issued, the second are, the first are waited for, the second are
for n, k in ((64, 4), (128, 8)):
    for trans in (0, 1):
        second = product(64, "rs", 1).replace(", 1, 1, 0;", f", 1, 1, {trans};")
        for i in range(31, -1, -1): second = second.replace(f"d{i},", f"e{i},").replace(f"d{i}}}", f"e{i}}}")
        for at in range(4):
            t = ["" if i != at else "mov.u32 t1, %clock;\n" for i in range(4)]
            s = ".reg .f32 e<32>;\n" + "".join(f"mov.f32 e{i}, 0f00000000;\n" for i in range(32)) + "bar.sync 0;\nmov.u32 t0, %clock;\n"
            s += FENCE + product(n, "ss", 4) + COMMIT + t[0] + FENCE + second * k + COMMIT + t[1] + "wgmma.wait_group.sync.aligned 1;\n" + t[2] + WAIT0 + t[3]
            ptx = kernel(DESC + zeros(n) + s + keep_d(n) + keep_d(64).replace(" d", " e") + STORE, 384)
            for g in (1, 2, 3): case(f"block_n{n}_{'nt'[trans]}_{['issue1', 'issue2', 'wait1', 'wait2'][at]}_{g}wg", ptx, 128 * g, 1, view="groups")

# --- barriers and copies ---
MB = """
@first mbarrier.init.shared::cta.b64 [smem], 1;
@first mbarrier.init.shared::cta.b64 [smem+8], 1;
@first fence.mbarrier_init.release.cluster;
mov.u32 par, 0; mov.u32 bar, smem;
bar.sync 0;
"""
WAIT = "{ $w: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], par; @p bra $t; bra $w; $t: xor.b32 par, par, 1; }\n"
case("mbarrier_own", timed(("@first mbarrier.arrive.shared::cta.b64 _, [bar];\n" + WAIT) * 64, 32, MB, ""), 32, 64)
# two warps, of which each waits for the other: a round trip is two arrivals and two waits
def pingpong(sync, tell, n=64):
    one, two = "", ""
    for _ in range(n):
        one += tell(8) + WAIT
        two += WAIT + tell(0)
    return sync + "mov.u32 t0, %clock;\n@mine bra $other;\n" + one + "bra $end;\n$other:\n" + two + "$end:\nmov.u32 t1, %clock;\n"
local = "setp.ge.u32 mine, tid, 32; setp.eq.u32 q, lane, 0;\n" + MB + "@mine add.u32 bar, bar, 8;\n"
case("mbarrier_pingpong", kernel(pingpong(local, lambda o: f"@q mbarrier.arrive.shared::cta.b64 _, [smem+{o}];\n") + STORE, 64), 64, 64)
far = MB + """mov.u32 r4, %cluster_ctarank; xor.b32 r5, r4, 1; mapa.shared::cluster.u32 peer, smem, r5;
setp.ne.u32 mine, r4, 0; barrier.cluster.arrive; barrier.cluster.wait;
"""
remote = lambda o: "@first mbarrier.arrive.shared::cluster.b64 _, [peer];\n"
case("mbarrier_cluster_pingpong", kernel(pingpong(far, remote) + "barrier.cluster.arrive; barrier.cluster.wait;\n" + STORE, 32, 2), 32, 64, grid=2)
case("barrier_pingpong", kernel("setp.ge.u32 mine, tid, 32;\nbar.sync 0;\nmov.u32 t0, %clock;\n@mine bra $other;\n" + "bar.arrive 1, 64;\nbar.sync 2, 64;\n" * 64
     + "bra $end;\n$other:\n" + "bar.sync 1, 64;\nbar.arrive 2, 64;\n" * 64 + "$end:\nmov.u32 t1, %clock;\n" + STORE, 64), 64, 64)
def bulk(b):
    return f"@first mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {b};\n@first cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [at], [src], {b}, [bar];\n" + WAIT
for b in (256, 4096, 16384, 32768):
    pre = MB + "add.u32 at, smem, 1024; mov.u64 src, buf;\n" + bulk(b)      # the first brings it to L2
    case(f"bulk_{b}", timed(bulk(b) * 16, 32, pre, ""), 32, 16)
def tensor(rows):
    b = rows * 128
    return f"@first mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], {b};\n@first cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [at], [map, {{0, 0}}], [bar];\n".replace("{0, 0}", "{r0, r0}") + WAIT
for rows in (8, 32, 64, 128, 256):
    pre = MB + "add.u32 at, smem, 1024; mov.u32 r0, 0;\n" + tensor(rows)
    case(f"tensor_{rows * 128}", timed(tensor(rows) * 16, 32, pre, ""), 32, 16, box=rows)
# 4 stages of 16 KB over 16 MB that all share; 512 copies each, one multiprocessor and all of them
RATE = """
@!first bra $end;
mov.u32 i, 0; $init: shl.b32 r0, i, 3; add.u32 r0, r0, smem; mbarrier.init.shared::cta.b64 [r0], 1; add.u32 i, i, 1; setp.lt.u32 p, i, 4; @p bra $init;
fence.mbarrier_init.release.cluster;
mov.u32 i, 0;
mov.u32 t0, %clock;
$loop:
and.b32 r0, i, 3; shl.b32 bar, r0, 3; add.u32 bar, bar, smem; shl.b32 r1, r0, 14; add.u32 at, smem, 1024; add.u32 at, at, r1;
setp.lt.u32 p, i, 4; @p bra $issue;
shr.u32 par, i, 2; sub.u32 par, par, 1; and.b32 par, par, 1;
$wait: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], par; @!p bra $wait;
$issue:
mul.lo.u32 r3, cta, 37; add.u32 r3, r3, i; and.b32 r3, r3, 1023; mul.wide.u32 src, r3, 16384; add.u64 src, src, buf;
mbarrier.arrive.expect_tx.shared::cta.b64 _, [bar], 16384;
cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [at], [src], 16384, [bar];
add.u32 i, i, 1; setp.lt.u32 p, i, n; @p bra $loop;
mov.u32 r4, 0;
$drain:
sub.u32 r5, n, 4; add.u32 r5, r5, r4; and.b32 r0, r5, 3; shl.b32 bar, r0, 3; add.u32 bar, bar, smem; shr.u32 par, r5, 2; and.b32 par, par, 1;
$wd: mbarrier.try_wait.parity.shared::cta.b64 p, [bar], par; @!p bra $wd;
add.u32 r4, r4, 1; setp.lt.u32 p, r4, 4; @p bra $drain;
mov.u32 t1, %clock;
""" + STORE + "$end:"
case("l2_rate_1sm", kernel(RATE, 32), 32, 512, param=512)
case("l2_rate_all", kernel(RATE, 32), 32, 512, grid=132, param=512, view="rate")

# where CTAs go: the multiprocessor of each, two to one; and where the next of a longer grid go
SMID = "mov.u32 t0, %smid; mov.u32 r0, %clock; $spin: mov.u32 r1, %clock; sub.u32 r1, r1, r0; setp.lt.u32 p, r1, 60000; @p bra $spin; mov.u32 t1, t0;\n" + STORE
for g in (132, 264, 396):
    case(f"place_{g}", kernel(SMID, 384), 384, 1, grid=g, view="place")

SHARED = 110000
def child(start):
    """Runs the cases from `start` on, a line of JSON each."""
    cu = ctypes.CDLL("libcuda.so.1")
    V, U32, U64 = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_uint64
    class Bad(Exception): pass
    def ck(r, what):
        if r: raise Bad(f"{what}: CUDA error {r}")
    ck(cu.cuInit(0), "cuInit"); dev = ctypes.c_int(); ck(cu.cuDeviceGet(ctypes.byref(dev), 0), "cuDeviceGet")
    ctx = V(); ck(cu.cuDevicePrimaryCtxRetain(ctypes.byref(ctx), dev), "context"); ck(cu.cuCtxSetCurrent(ctx), "context")
    mem, outd = U64(), U64()
    ck(cu.cuMemAlloc_v2(ctypes.byref(mem), ctypes.c_size_t(1 << 25)), "alloc"); ck(cu.cuMemAlloc_v2(ctypes.byref(outd), ctypes.c_size_t(1 << 22)), "alloc")
    ck(cu.cuMemsetD8_v2(mem, ctypes.c_ubyte(0), ctypes.c_size_t(1 << 25)), "memset")
    raw = (ctypes.c_uint8 * 256)()
    tmap = ctypes.addressof(raw) + (-ctypes.addressof(raw)) % 64
    def load(ptx):
        cu.cuCtxSetCurrent(ctx)
        mod, fn = V(), V()
        ck(cu.cuModuleLoadData(ctypes.byref(mod), ptx.encode() + b"\0"), "cuModuleLoadData")
        ck(cu.cuModuleGetFunction(ctypes.byref(fn), mod, b"k"), "cuModuleGetFunction")
        ck(cu.cuFuncSetAttribute(fn, 8, SHARED), "shared memory")
        return fn
    pool = concurrent.futures.ThreadPoolExecutor(8)                                     # compiling takes longest
    ptx_of = dict.fromkeys(c["ptx"] for c in CASES[start:])
    loaded = {p: pool.submit(load, p) for p in ptx_of}
    concurrent.futures.wait(loaded.values())
    for at in range(start, len(CASES)):
        c = CASES[at]; res = {"at": at}
        print(json.dumps({"begin": at}), flush=True)
        try:
            fn = loaded[c["ptx"]].result()
            if c["box"]:
                dims, strides = (U64 * 2)(64, 256), (U64 * 1)(128)
                box, el = (U32 * 2)(64, c["box"]), (U32 * 2)(1, 1)
                # bf16, no interleave, 128-byte swizzle, promotion to 256 bytes, zeros outside
                ck(cu.cuTensorMapEncodeTiled(V(tmap), 9, 2, mem, dims, strides, box, el, 0, 3, 3, 0), "cuTensorMapEncodeTiled")
            n_arg = U32(c["param"])
            pa = (V * 4)(ctypes.addressof(outd), ctypes.addressof(mem), ctypes.addressof(n_arg), tmap)
            T, G = c["threads"], c["grid"]
            h, best = (U32 * (2 * T * G))(), None
            for rep in range(5):
                ck(cu.cuLaunchKernel(fn, G, 1, 1, T, 1, 1, SHARED, None, pa, None), "cuLaunchKernel")
                ck(cu.cuCtxSynchronize(), "run")
                ck(cu.cuMemcpyDtoH_v2(h, outd, ctypes.c_size_t(8 * T * G)), "copy back")
                start_, end_ = h[0::2], h[1::2]
                d = [(e - s) & 0xffffffff for s, e in zip(start_, end_)]
                if c["view"] == "place": v = {"cycles": -rep, "sm": start_[::T]}
                elif c["view"] == "rate": v = {"cycles": max(d[i * T] for i in range(G))}
                elif c["view"] == "beside":                                         # one clock for the threads of a multiprocessor
                    s, e = start_[128:], end_[128:]
                    v = {"cycles": max(e) - min(s), "products": d[0], "covered": max(e) <= end_[0], "ends": [x - min(s) for x in e[::32]]}
                else:
                    v = {"cycles": max(end_[:T]) - min(start_[:T])}
                    if T > 64: v["ends"] = [x - min(start_[:T]) for x in end_[:T:32]]       # of each warp: do they share fairly?
                    if c["view"] == "groups": v["each_group"] = [max(d[i:i + 128]) for i in range(0, T, 128)]
                if rep and (best is None or v["cycles"] < best["cycles"]): best = v     # the first fetches instructions
            best["each"] = round(best["cycles"] / c["n"], 2)
            res.update(best)
        except Bad as e:
            res["error"] = str(e)
            print(json.dumps(res), flush=True)
            if cu.cuCtxSynchronize(): return                                            # lost: a new process goes on
            continue
        print(json.dumps(res), flush=True)

def constants(raw):
    def c(name): return raw[name]["cycles"]
    def fit(points):
        """Slope and intercept of a line by least squares."""
        n = len(points); mx = sum(x for x, _ in points) / n; my = sum(y for _, y in points) / n
        s = sum((x - mx) * (y - my) for x, y in points) / sum((x - mx) ** 2 for x, _ in points)
        return s, my - s * mx
    out, failed = {}, []
    def constant(name, of, what):
        try: v = of()
        except KeyError as e: failed.append(f"{name}: no case {e}"); return
        except ZeroDivisionError: failed.append(f"{name}: all sizes took equally long"); return
        out[name] = {"value": [x and round(x, 2) for x in v] if isinstance(v, list) else round(v, 2), "what": what}
    for n in (48, 64, 96, 128, 192):
        for a in ("ss", "rs"):
            constant(f"wgmma_n{n}_{a}", lambda: list(fit([(k, c(f"wgmma_n{n}_k{k}_{a}_1wg")) for k in (1, 4, 16)])),
                     f"[cycles a product m64n{n}k16 of one warpgroup takes behind another, cycles beside them from the first's issue until wait_group returns]")
    constant("wgmma", lambda: fit([(k, c(f"wgmma_n128_k{k}_ss_1wg")) for k in (1, 4, 16)])[1],
             "devices/*.toml wgmma: cycles that a group of products (n 128, A shared) takes beside those of its products at full rate")
    constant("tma", lambda: fit([(b, c(f"tensor_{b}") / 16) for b in (8192, 16384, 32768)])[1],
             "devices/*.toml tma: cycles from issuing a tensor copy that hits L2 to the end of the wait for it, without its bytes' time")
    constant("tma_bytes_a_cycle", lambda: 1 / fit([(b, c(f"tensor_{b}") / 16) for b in (8192, 16384, 32768)])[0], "bytes a cycle of one such copy at a time")
    constant("bulk", lambda: fit([(b, c(f"bulk_{b}") / 16) for b in (4096, 16384, 32768)])[1], "the same of a bulk copy without a tensor map")
    constant("l2_bytes_a_cycle_1sm", lambda: 512 * 16384 / c("l2_rate_1sm"), "bytes a cycle that one multiprocessor alone takes from L2 by 4 bulk copies of 16 KB in flight")
    constant("l2_bytes_a_cycle_all", lambda: 512 * 16384 / c("l2_rate_all"), "the same of each, 132 at once")
    constant("mbarrier", lambda: c("mbarrier_pingpong") / 128, "cycles from a warp's arrival at an mbarrier to its next instruction of a warp that waits (half a round trip of two warps)")
    constant("cluster", lambda: c("mbarrier_cluster_pingpong") / 128 - c("mbarrier_pingpong") / 128,
             "devices/*.toml cluster: what that takes longer to an mbarrier of the other multiprocessor of a cluster")
    constant("barrier", lambda: c("barrier_pingpong") / 128, "cycles from bar.arrive to the next instruction of a warp at bar.sync")
    for a in ("rate", "beside_rs", "beside_ss"):
        for name in sorted({k[len(a) + 1:-3] for k in raw if k.startswith(a + "_")}):
            constant(f"{a}_{name}", lambda: [raw[c]["cycles"] / (case_n[c] * w) if (c := f"{a}_{name}_{w}w") in raw else None for w in (1, 2, 3)],
                     "cycles of a sub-core a warp instruction of this stream, with 1, 2, 3 warps there" + (" beside products of one more warpgroup" if a != "rate" else ""))
    return out, failed
case_n = {c["name"]: c["n"] for c in CASES}

def main():
    limit = 40.0
    args = sys.argv[1:]
    if args[:1] == ["--ptx"]:
        os.makedirs(args[1], exist_ok=True)
        most = {}
        for c in CASES:
            name, t = most.get(c["ptx"], (c["name"], 0)); most[c["ptx"]] = name, max(t, c["threads"])
        for ptx, (name, t) in most.items(): open(f"{args[1]}/{name}.ptx", "w").write(f"// threads {t}\n{ptx}")
        return 0
    if args[:1] == ["--child"]: child(int(args[1])); return 0
    if args[:1] == ["--seconds"]: limit = float(args[1])
    end, at, raw, errors = time.time() + limit, 0, {}, {}
    while at < len(CASES) and time.time() < end:
        p = subprocess.Popen([sys.executable, os.path.abspath(__file__), "--child", str(at)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try: text, err = p.communicate(timeout=max(1.0, end - time.time()))
        except subprocess.TimeoutExpired:
            p.kill(); text, err = p.communicate()
        begun, before = at, at
        for line in text.splitlines():
            try: r = json.loads(line)
            except ValueError: continue
            if "begin" in r: begun = r["begin"]; continue
            name = CASES[r.pop("at")]["name"]
            if "error" in r: errors[name] = r["error"]
            else: raw[name] = r
            at = begun + 1
        if at <= begun < len(CASES) and at < len(CASES):       # died within a case, or before the first
            name = CASES[begun]["name"]
            errors[name] = "timed out or died: " + err.strip()[-300:]
            at = begun + 1
            if not text.strip() and begun == before: break    # no device
    found, failed = constants(raw)
    missing = [c["name"] for c in CASES if c["name"] not in raw and c["name"] not in errors]
    print(json.dumps({"constants": found, "no_constant": failed, "errors": errors, "not_run": missing, "raw": raw}, indent=0))
    return 1 if failed else 0
sys.exit(main())
