//! Programs of instructions of one lane or of a warp: each thread has operands of its own.

use rand::Rng;

use super::operands::{declared, operand};
use super::programs::{HEAD, Program, generator, program};

/// Instructions of one lane: form, `result = sources`, and operands where they are not `d, a, b, c`
/// in turn. Result `d`, sources `a`, `b`, `c`, a scratch predicate `z`.
const LANES: &[(&str, &str, &[&str])] = &[
    ("add.f32", "f32 = f32 f32", &[]),
    ("sub.f32", "f32 = f32 f32", &[]),
    ("mul.f32", "f32 = f32 f32", &[]),
    ("fma.rn.f32", "f32 = f32 f32 f32", &[]),
    ("min.f32", "f32 = f32 f32", &[]),
    ("max.f32", "f32 = f32 f32", &[]),
    ("neg.f32", "f32 = f32", &[]),
    ("add.s32", "s32 = s32 s32", &[]),
    ("add.u32", "u32 = u32 u32", &[]),
    ("add.u64", "u64 = u64 u64", &[]),
    ("sub.s32", "s32 = s32 s32", &[]),
    ("sub.u32", "u32 = u32 u32", &[]),
    ("sub.u64", "u64 = u64 u64", &[]),
    ("mul.lo.u32", "u32 = u32 u32", &[]),
    ("mul.lo.u64", "u64 = u64 u64", &[]),
    ("mul.wide.u32", "u64 = u32 u32", &[]),
    ("mad.lo.s32", "s32 = s32 s32 s32", &[]),
    ("mad.lo.u32", "u32 = u32 u32 u32", &[]),
    ("mad.lo.u64", "u64 = u64 u64 u64", &[]),
    ("mad.wide.u32", "u64 = u32 u32 u64", &[]),
    // The result of a division by zero is anything.
    ("div.s32", "s32 = s32 pos", &[]),
    ("div.u32", "u32 = u32 pos", &[]),
    ("rem.u32", "u32 = u32 pos", &[]),
    ("min.s32", "s32 = s32 s32", &[]),
    ("max.s32", "s32 = s32 s32", &[]),
    ("min.u32", "u32 = u32 u32", &[]),
    ("max.u32", "u32 = u32 u32", &[]),
    ("and.b32", "b32 = b32 b32", &[]),
    ("or.b32", "b32 = b32 b32", &[]),
    ("xor.b32", "b32 = b32 b32", &[]),
    ("not.b32", "b32 = b32", &[]),
    ("not.pred", "pred = pred", &[]),
    ("and.pred", "pred = pred pred", &[]),
    ("or.pred", "pred = pred pred", &[]),
    ("shl.b32", "b32 = b32 few", &[]),
    ("shl.b64", "b64 = b64 few", &[]),
    ("shr.u32", "u32 = u32 few", &[]),
    ("shr.s32", "s32 = s32 few", &[]),
    ("bfe.u32", "u32 = u32 few few", &[]),
    ("selp.b32", "b32 = b32 b32 pred", &[]),
    ("selp.f32", "f32 = f32 f32 pred", &[]),
    ("mov.b32", "b32 = b32", &[]),
    ("mov.f32", "f32 = f32", &[]),
    ("mov.s32", "s32 = s32", &[]),
    ("mov.u32", "u32 = u32", &[]),
    ("mov.b64", "b64 = b64", &["d, a", "d, {a, w}"]),
    ("mov.u64", "u64 = u64", &[]),
    ("cvt.u64.u32", "u64 = u32", &[]),
    ("cvt.u32.u64", "u32 = u64", &[]),
    ("cvt.f32.f16", "f32 = b16", &[]),
    ("cvt.f32.bf16", "f32 = b16", &[]),
    ("cvt.rn.f32.s32", "f32 = s32", &[]),
    ("cvt.rn.bf16x2.f32", "b32 = f32 f32", &[]),
    ("cvt.rn.f16x2.f32", "b32 = f32 f32", &[]),
    ("cvt.rna.tf32.f32", "b32 = f32", &[]),
    ("setp.eq.f32", "pred = f32 f32", &[]),
    ("setp.gt.f32", "pred = f32 f32", &[]),
    ("setp.lt.f32", "pred = f32 f32", &[]),
    ("setp.eq.s32", "pred = s32 s32", &[]),
    ("setp.eq.u32", "pred = u32 u32", &[]),
    ("setp.eq.u64", "pred = u64 u64", &[]),
    ("setp.ge.s32", "pred = s32 s32", &[]),
    ("setp.ge.u32", "pred = u32 u32", &[]),
    ("setp.gt.s32", "pred = s32 s32", &[]),
    ("setp.gt.u32", "pred = u32 u32", &[]),
    ("setp.le.s32", "pred = s32 s32", &[]),
    ("setp.le.u32", "pred = u32 u32", &[]),
    ("setp.lt.s32", "pred = s32 s32", &[]),
    ("setp.lt.u32", "pred = u32 u32", &[]),
    ("setp.ne.s32", "pred = s32 s32", &[]),
    ("setp.ne.u32", "pred = u32 u32", &[]),
    ("setp.ne.u64", "pred = u64 u64", &[]),
    ("setp.eq.and.u32", "pred = u32 u32 pred", &[]),
    ("setp.gt.or.u32", "pred = u32 u32 pred", &[]),
    ("setp.ge.or.s32", "pred = s32 s32 pred", &[]),
    ("setp.le.and.s32", "pred = s32 s32 pred", &[]),
    ("setp.lt.and.u32", "pred = u32 u32 pred", &[]),
    (
        "shfl.sync.bfly.b32",
        "b32 = b32",
        &["d, a, 1, 0x1f, 0xffffffff", "d, a, 2, 0x1f, 0xffffffff", "d, a, 16, 0x0f, 0xffffffff"],
    ),
    (
        "shfl.sync.idx.b32",
        "b32 = b32 few",
        &["d, a, 0, 0x1f, 0xffffffff", "d, a, b, 0x181f, 0xffffffff"],
    ),
    ("shfl.sync.up.b32", "b32 = b32 few", &["d, a, 1, 0, 0xffffffff", "d, a, 9, 0, 0xffffffff"]),
    ("shfl.sync.down.b32", "b32 = b32 few", &["d, a, 3, 0x1f, 0xffffffff"]),
    ("vote.sync.all.pred", "pred = most", &["d, a, 0xffffffff", "d, !a, 0xffffffff"]),
    ("vote.sync.any.pred", "pred = most", &["d, a, 0xffffffff", "d, !a, 0xffffffff"]),
    ("vote.sync.ballot.b32", "b32 = pred", &["d, a, 0xffffffff"]),
    ("movmatrix.sync.aligned.m8n8.trans.b16", "b32 = b32", &[]),
];

/// Forms that differ in suffixes: braces stand for each of their parts in turn, and `t` in a
/// signature for the last suffix, `u` for the one before it. Results are `d` and `e`.
const MORE: &[(&str, &str, &[&str])] = &[
    // Halves.
    ("{add,sub,mul}.{f16,f16x2,bf16,bf16x2}", "t = t t", &[]),
    ("{add,sub,mul}.{ftz,sat,ftz.sat}.{f16,f16x2}", "t = t t", &[]),
    ("fma.rn.{f16,f16x2,bf16,bf16x2}", "t = t t t", &[]),
    ("fma.rn.{relu,oob,oob.relu}.{f16,f16x2,bf16,bf16x2}", "t = t t t", &[]),
    ("fma.rn.{ftz,sat,ftz.sat,ftz.relu}.{f16,f16x2}", "t = t t t", &[]),
    ("{min,max}.{f16,f16x2,bf16,bf16x2}", "t = t t", &[]),
    ("{min,max}.{NaN,xorsign.abs,NaN.xorsign.abs}.{f16,f16x2,bf16,bf16x2}", "t = t t", &[]),
    ("{min,max}.{ftz,ftz.NaN,ftz.NaN.xorsign.abs}.{f16,f16x2}", "t = t t", &[]),
    ("{neg,abs}.{f16,f16x2,bf16,bf16x2}", "t = t", &[]),
    ("{neg,abs}.ftz.{f16,f16x2}", "t = t", &[]),
    (
        "setp.{eq,ne,lt,le,gt,ge,equ,neu,ltu,leu,gtu,geu,num,nan}.{f16x2,bf16x2}",
        "pred pred = t t",
        &["d|e, a, b"],
    ),
    ("setp.{gt,neu,nan}.{f16,bf16}", "pred = t t", &[]),
    ("setp.{lt,neu}.ftz.{f16x2}", "pred pred = t t", &["d|e, a, b"]),
    ("set.{lt,neu,nan}.{u32,s32}.{f16,bf16}", "b32 = t t", &[]),
    ("set.{lt,neu,nan}.{u32,s32}.{f16x2,bf16x2}", "b32 = t t", &[]),
    ("set.{lt,geu}.{f16.f16,bf16.bf16,f16x2.f16x2,bf16x2.bf16x2}", "t = t t", &[]),
    (
        "set.lt.{and,or,xor}.u32.{f32,s32,f16x2,bf16x2}",
        "b32 = t t pred",
        &["d, a, b, c", "d, a, b, !c"],
    ),
    ("set.gtu.and.{bf16x2.bf16x2,f16x2.f16x2}", "t = t t pred", &[]),
    ("ex2.approx.{f16,f16x2}", "t = t", &[]),
    ("ex2.approx.ftz.{bf16,bf16x2}", "t = t", &[]),
    ("tanh.approx.{f16,f16x2,bf16,bf16x2}", "t = t", &[]),
    // fp32 and fp64.
    ("{add,sub,mul}.{rz,rm,rp,ftz,sat,rz.ftz,rp.sat}.f32", "t = t t", &[]),
    ("fma.{rz,rm,rp,rn.ftz,rn.sat,rn.ftz.sat}.f32", "t = t t t", &[]),
    ("{min,max}.{ftz,NaN,xorsign.abs,NaN.xorsign.abs,ftz.NaN,ftz.xorsign.abs}.f32", "t = t t", &[]),
    ("{abs,neg}.ftz.f32", "t = t", &[]),
    ("abs.f32", "t = t", &[]),
    ("div.{rn,rn.ftz,full,full.ftz,approx,approx.ftz}.f32", "t = t t", &[]),
    ("{rcp,sqrt}.{rn,rn.ftz,approx}.f32", "t = t", &[]),
    ("sqrt.approx.ftz.f32", "t = t", &[]),
    ("{rsqrt,ex2,lg2,sin,cos}.approx.f32", "t = t", &[]),
    ("{sin,cos}.approx.ftz.f32", "t = t", &[]),
    ("copysign.{f32,f64}", "t = t t", &[]),
    ("testp.{finite,infinite,number,notanumber,normal,subnormal}.{f32,f64}", "pred = t", &[]),
    ("setp.{ne,le,ge,equ,neu,ltu,leu,gtu,geu,num,nan}.f32", "pred = f32 f32", &[]),
    ("setp.{lt,neu}.ftz.f32", "pred = f32 f32", &[]),
    ("setp.{eq,ne,lt,le,gt,ge,neu,num,nan}.f64", "pred = f64 f64", &[]),
    ("set.{lt,gtu}.{u32,f32}.f32", "b32 = f32 f32", &[]),
    ("slct.f32.f32", "f32 = f32 f32 f32", &[]),
    ("slct.ftz.f32.f32", "f32 = f32 f32 f32", &[]),
    ("slct.u32.s32", "u32 = u32 u32 s32", &[]),
    ("slct.b64.s32", "b64 = b64 b64 s32", &[]),
    ("{add,sub,mul,min,max}.f64", "t = t t", &[]),
    ("fma.rn.f64", "t = t t t", &[]),
    ("div.rn.f64", "t = t t", &[]),
    ("{rcp,sqrt}.rn.f64", "t = t", &[]),
    ("{neg,abs}.f64", "t = t", &[]),
    ("{rcp,rsqrt}.approx.ftz.f64", "t = t", &[]),
    ("rsqrt.approx.f64", "t = t", &[]),
    // Conversions.
    ("cvt.{rn,rz,rn.relu,rz.relu}.{f16,bf16}.f32", "b16 = f32", &[]),
    ("cvt.{rn.relu,rz,rz.relu}.{f16x2,bf16x2}.f32", "b32 = f32 f32", &[]),
    ("cvt.{rn,rz,rn.relu,rz.relu,rna.satfinite}.tf32.f32", "b32 = f32", &[]),
    ("cvt.rn.{satfinite,satfinite.relu}.{e4m3x2,e5m2x2}.f32", "b16 = f32 f32", &[]),
    ("cvt.rn.{satfinite,satfinite.relu}.{e4m3x2,e5m2x2}.f16x2", "b16 = f16x2", &[]),
    ("cvt.{rn,rn.relu}.f16x2.{e4m3x2,e5m2x2}", "b32 = fp8", &[]),
    ("cvt.{rni,rzi,rmi,rpi}.{s32,u32,s64,u64}.{f32,f64}", "u = t", &[]),
    ("cvt.{rni,rzi}.{s32,u32,s16,u16}.{f16,bf16}", "u = t", &[]),
    ("cvt.rzi.{s8,u8}.f32", "b32 = f32", &[]),
    ("cvt.{rz,rm,rp}.f32.{s32,u32}", "f32 = t", &[]),
    ("cvt.{rn,rz}.f32.{s64,u64}", "f32 = t", &[]),
    ("cvt.rn.f32.u32", "f32 = t", &[]),
    ("cvt.rn.{f16,bf16}.{s32,u32,s64,s16}", "b16 = t", &[]),
    ("cvt.rn.f64.{s32,u32,s64,u64}", "f64 = t", &[]),
    ("cvt.{rn,rz,rm,rp}.f32.f64", "f32 = f64", &[]),
    ("cvt.rn.{f16,bf16}.f64", "b16 = f64", &[]),
    ("cvt.f64.{f32,f16,bf16}", "f64 = t", &[]),
    ("cvt.{rni,rzi,rmi,rpi}.{f32.f32,f64.f64,f16.f16}", "t = t", &[]),
    ("cvt.{sat,ftz,rni.ftz,ftz.sat}.f32.f32", "t = t", &[]),
    ("cvt.rn.sat.f16.f32", "b16 = f32", &[]),
    ("cvt.sat.{u8,s8,u16,s16}.{s32,u32}", "b32 = t", &[]),
    ("cvt.sat.s32.{u32,s64,u64}", "s32 = t", &[]),
    ("cvt.sat.u32.{s32,s64}", "u32 = t", &[]),
    ("cvt.s64.s32", "s64 = s32", &[]),
    ("cvt.{s32.s8,s32.u8,u32.s8,s32.s16,s64.s8}", "u = u32", &[]),
    ("cvt.pack.sat.{u16,s16}.s32", "b32 = tiny tiny", &[]),
    ("cvt.pack.sat.{u8,s8,u4,s4,u2,s2}.s32.b32", "b32 = tiny tiny b32", &[]),
    // Whole numbers.
    ("{add,sub}.sat.s32", "t = t t", &[]),
    ("{add,sub}.{u16,s16}", "t = t t", &[]),
    ("mul.lo.{s32,u16,s64}", "t = t t", &[]),
    ("mul.hi.{u32,s32,u64,s64,u16,s16}", "t = t t", &[]),
    ("mul.wide.s32", "s64 = s32 s32", &[]),
    ("mul.wide.{u16,s16}", "u32 = t t", &[]),
    ("mad.hi.{u32,s32,sat.s32,u64,s64}", "t = t t t", &[]),
    ("mad.lo.{u16,s64}", "t = t t t", &[]),
    ("mad.wide.s32", "s64 = s32 s32 s64", &[]),
    ("mul24.{lo,hi}.{u32,s32}", "t = t t", &[]),
    ("mad24.{lo,hi}.{u32,s32}", "t = t t t", &[]),
    ("mad24.hi.sat.s32", "t = t t t", &[]),
    ("sad.{u16,s16,u32,s32,u64,s64}", "t = t t t", &[]),
    ("{div,rem}.{u64,s64}", "t = t pos64", &[]),
    ("{div,rem}.{u16,s16}", "t = t pos16", &[]),
    ("rem.s32", "s32 = s32 pos", &[]),
    ("{min,max}.{u16,s16,u64,s64}", "t = t t", &[]),
    ("{abs,neg}.{s16,s32,s64}", "t = t", &[]),
    ("{popc,clz}.{b32,b64}", "u32 = t", &[]),
    ("bfind.{u32,s32,u64,s64}", "u32 = t", &[]),
    ("bfind.shiftamt.{u32,s32,u64,s64}", "u32 = t", &[]),
    ("brev.{b32,b64}", "t = t", &[]),
    ("fns.b32", "b32 = b32 base offset", &[]),
    ("bfe.{s32,u64,s64}", "t = t few64 few64", &[]),
    ("bfi.{b32,b64}", "t = t t few64 few64", &["d, a, b, c, g"]),
    (
        "lop3.b32",
        "b32 = b32 b32 b32",
        &["d, a, b, c, 0x96", "d, a, b, c, 0xe8", "d, a, b, c, 0x1b", "d, a, b, c, 0xd8"],
    ),
    ("lop3.{or,and}.b32", "b32 pred = b32 b32 b32 pred", &["d|e, a, b, c, 0x80, g"]),
    ("prmt.{b32,b32.f4e,b32.b4e,b32.rc8,b32.ecl,b32.ecr,b32.rc16}", "b32 = b32 b32 b32", &[]),
    ("shf.{l,r}.{wrap,clamp}.b32", "b32 = b32 b32 few", &[]),
    ("dp4a.{u32,s32}.{u32,s32}", "b32 = b32 b32 b32", &[]),
    ("dp2a.{lo,hi}.{u32,s32}.{u32,s32}", "b32 = b32 b32 b32", &[]),
    ("bmsk.{clamp,wrap}.b32", "b32 = few few", &[]),
    ("szext.{clamp,wrap}.{u32,s32}", "t = t few", &[]),
    ("cnot.{b16,b32,b64}", "t = t", &[]),
    ("not.{b16,b64}", "t = t", &[]),
    ("{and,or,xor}.{b16,b64}", "t = t t", &[]),
    ("xor.pred", "pred = pred pred", &[]),
    ("shl.b16", "b16 = b16 few", &[]),
    ("shr.{u16,s16,u64,s64}", "t = t few64", &[]),
    ("selp.{b16,b64,f64}", "t = t t pred", &[]),
    ("{add,min,max}.{u16x2,s16x2}", "b32 = b32 b32", &[]),
    ("{min,max}.relu.{s16x2,s32}", "b32 = b32 b32", &[]),
    ("setp.{lo,ls,hi,hs}.u32", "pred = u32 u32", &[]),
    ("setp.{lt,ge}.{s64,u64,s16,u16}", "pred = t t", &[]),
    ("setp.ne.xor.s32", "pred pred = s32 s32 pred", &["d|e, a, b, c", "d|e, a, b, !c"]),
    ("add.cc.u32", "u32 = u32 u32 u32", &["w, a, b; addc.u32 d, c, w"]),
    ("sub.cc.u32", "u32 = u32 u32 u32", &["w, a, b; subc.u32 d, c, w"]),
    ("mad.lo.cc.u32", "u32 = u32 u32 u32", &["w, a, b, c; madc.hi.u32 d, a, b, w"]),
    ("mad.hi.cc.s32", "s32 = s32 s32 s32", &["w, a, b, c; addc.s32 d, w, c"]),
    ("add.cc.u64", "u64 = u64 u64 u64", &["d, a, b; addc.u64 d, d, c"]),
    // Of a warp.
    ("redux.sync.{add,min,max}.{u32,s32}", "t = t", &["d, a, 0xffffffff"]),
    ("redux.sync.{and,xor}.b32", "t = t", &["d, a, 0xffffffff"]),
    ("redux.sync.or.b32", "t = few", &["d, a, 0xffffffff"]),
    ("match.any.sync.b32", "b32 = some", &["d, a, 0xffffffff"]),
    ("match.any.sync.b64", "b32 = some64", &["d, a, 0xffffffff"]),
    ("match.all.sync.b32", "b32 pred = even", &["d|e, a, 0xffffffff"]),
    ("vote.sync.uni.pred", "pred = most", &["d, a, 0xffffffff", "d, !a, 0xffffffff"]),
    (
        "shfl.sync.{up,down,bfly,idx}.b32",
        "b32 pred = b32 few",
        &[
            "d|e, a, b, 0x1f, 0xffffffff",
            "d|e, a, b, 0x1803, 0xffffffff",
            "d|e, a, b, 0, 0xffffffff",
        ],
    ),
];

/// A pattern's forms.
fn expand(pattern: &str) -> Vec<String> {
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (choices, after) = rest.split_once('}').expect("a closing brace");
    let tails = expand(after);
    let of = |c: &str| tails.iter().map(move |t| format!("{before}{c}{t}")).collect::<Vec<_>>();
    choices.split(',').flat_map(of).collect()
}

/// Approximate functions, which the emulator computes as the special-function unit does.
const APPROXIMATE: &[&str] = &[
    "ex2.approx.ftz.f32",
    "lg2.approx.ftz.f32",
    "rcp.approx.ftz.f32",
    "rsqrt.approx.ftz.f32",
    "tanh.approx.f32",
];

/// Threads of a lane program, in CTAs of 128: of older ones, which write two words each, and of the
/// others.
const CASES: [u32; 2] = [512, 256];

const SOURCES: [&str; 4] = ["a", "b", "c", "g"];

fn lane(form: &str, signature: &str, operands: &str, turn: usize, compact: bool) -> Program {
    let (to, from) = signature.split_once(" = ").expect("a signature");
    let from: Vec<&str> = from.split_whitespace().collect();
    let (mut regs, mut loads) = (String::new(), String::new());
    for (i, ty) in from.iter().enumerate() {
        let name = SOURCES[i];
        let ty = declared(ty);
        regs += &format!(".reg .{ty} {name}; ");
        loads += &match ty {
            "pred" => format!("ld.global.b32 w, [p+{}]; setp.ne.u32 {name}, w, 0; ", 8 * i),
            "u64" | "b64" | "s64" | "f64" => format!("ld.global.b64 {name}, [p+{}]; ", 8 * i),
            "b16" | "u16" | "s16" => format!("ld.global.b16 {name}, [p+{}]; ", 8 * i),
            _ => format!("ld.global.b32 {name}, [p+{}]; ", 8 * i),
        };
    }
    let (mut stores, mut written) = (String::new(), 0);
    for (ty, name) in to.split_whitespace().map(declared).zip(["d", "e"]) {
        regs += &format!(".reg .{ty} {name}; ");
        stores += &match ty {
            "pred" => format!("selp.b32 w, 1, 0, {name}; st.global.b32 [q+{written}], w; "),
            "b16" | "u16" | "s16" => {
                format!("mov.b32 w, {{{name}, {name}}}; st.global.b32 [q+{written}], w; ")
            }
            "u64" | "b64" | "s64" | "f64" => {
                written += 4;
                format!("st.global.b64 [q], {name}; ")
            }
            _ => format!("st.global.b32 [q+{written}], {name}; "),
        };
        written += 4;
    }
    if !compact && written == 4 {
        stores += "mov.b32 w, 0; st.global.b32 [q+4], w;";
        written = 8;
    }
    let plain = ["d, a", "d, a, b", "d, a, b, c"];
    let operands = if operands.is_empty() { plain[from.len() - 1] } else { operands };
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 in, .param .u64 out)\n{{
    .reg .b32 i, w; .reg .u64 p, q, off; {regs}
    ld.param.u64 p, [in]; ld.param.u64 q, [out];
    mov.u32 i, %ctaid.x; mov.u32 w, %tid.x; mad.lo.u32 i, i, 128, w;
    mul.wide.u32 off, i, {stride}; add.u64 p, p, off;
    mul.wide.u32 off, i, {written}; add.u64 q, q, off;
    {loads}
    {form} {operands};
    {stores}
    ret;\n}}\n",
        stride = 8 * from.len(),
    );
    let form_named = if to.contains(' ') { format!("{form} {to}") } else { form.to_owned() };
    let name = if turn == 0 { form_named } else { format!("{form_named}#{turn}") };
    let mut r = generator(&name);
    let cases = CASES[usize::from(compact)];
    let mut words = Vec::new();
    for case in 0..cases {
        let mut last = ("", 0);
        for ty in &from {
            // Every eighth operand is the one before it, which comparisons look for.
            let same = compact && last.0 == *ty && r.random_range(0..8) == 0;
            let x = if same { last.1 } else { operand(ty, case, &mut r) };
            last = (ty, x);
            words.extend([x as u32, (x >> 32) as u32]);
        }
    }
    let output = cases as usize * written / 4;
    program(&name, text, (cases / 128, 128, 0), vec![words], output, Vec::new())
}

/// What a function of 16 bits makes of all 65536 inputs, sixteen of them to a word.
fn everywhere(form: &str) -> Program {
    let (before, result, after) = match form.starts_with("cvt") {
        true => ("{ .reg .b16 n; ", "n", " mov.b32 d, {n, n}; }"),
        false => ("", "d", ""),
    };
    let each: String = (0..16)
        .step_by(2)
        .map(|k| {
            format!(
                "mad.lo.u32 w, i, 16, {k}; mad.lo.u32 w, w, 65537, 65536;
    {before}{form} {result}, w;{after} mad.lo.u32 h, h, 31, d;\n"
            )
        })
        .collect();
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 in, .param .u64 out)\n{{
    .reg .b32 i, w, d, h; .reg .u64 q, off;
    ld.param.u64 q, [out];
    mov.u32 i, %ctaid.x; mov.u32 w, %tid.x; mad.lo.u32 i, i, 128, w; mov.u32 h, 0;
    mul.wide.u32 off, i, 4; add.u64 q, q, off;
    {each}
    st.global.b32 [q], h;
    ret;\n}}\n"
    );
    program(&format!("{form} everywhere"), text, (32, 128, 0), vec![vec![0; 4]], 4096, Vec::new())
}

/// `fma.oob` with each 16-bit pattern in each place: of 64 patterns, the results folded, and the last
/// pattern with which a result is not that of a plain `fma`, above a bit that says that there is one.
fn out_of_bounds(ty: &str) -> Program {
    let each: String = ["x, y, z", "y, x, z", "y, z, x"]
        .iter()
        .map(|o| {
            format!(
                "fma.rn.{ty} d, {o}; fma.rn.oob.{ty} e, {o}; mov.b32 w, {{e, d}};
    mad.lo.u32 h, h, 31, w; setp.ne.b16 p, d, e; @p mov.u32 last, found;
    fma.rn.oob.relu.{ty} e, {o}; mov.b32 w, {{e, e}}; mad.lo.u32 h, h, 31, w;\n"
            )
        })
        .collect();
    let text = format!(
        "{HEAD}.visible .entry k(.param .u64 in, .param .u64 out)\n{{
    .reg .b32 i, n, w, h, last, found; .reg .b16 x, y, z, d, e; .reg .u64 q, off; .reg .pred p;
    ld.param.u64 q, [out];
    mov.u32 i, %ctaid.x; mov.u32 w, %tid.x; mad.lo.u32 i, i, 128, w;
    mul.wide.u32 off, i, 8; add.u64 q, q, off; mul.lo.u32 i, i, 64; add.u32 n, i, 64;
    mov.u32 h, 0; mov.u32 last, 0; mov.b16 y, 0xc000; mov.b16 z, 0x4040;
$next:
    cvt.u16.u32 x, i; mad.lo.u32 found, i, 2, 1;
    {each}
    add.u32 i, i, 1; setp.lt.u32 p, i, n; @p bra $next;
    st.global.b32 [q], h; st.global.b32 [q+4], last;
    ret;\n}}\n"
    );
    let name = format!("fma.rn.oob.{ty} everywhere");
    program(&name, text, (8, 128, 0), vec![vec![0; 4]], 2048, Vec::new())
}

pub fn all() -> Vec<Program> {
    let mut all = Vec::new();
    for (form, signature, operands) in LANES {
        if operands.is_empty() {
            all.push(lane(form, signature, "", 0, false));
        }
        // A pair moves two of 32 bits.
        for (turn, o) in operands.iter().enumerate() {
            let signature = if o.contains("{a, w}") { "b64 = b32" } else { signature };
            all.push(lane(form, signature, o, turn, false));
        }
    }
    all.extend(APPROXIMATE.iter().map(|form| lane(form, "f32 = f32", "", 0, false)));
    for (pattern, signature, operands) in MORE {
        for form in expand(pattern) {
            let suffixes: Vec<&str> = form.split('.').rev().collect();
            let signature: Vec<&str> = signature
                .split(' ')
                .map(|ty| match ty {
                    "t" => suffixes[0],
                    "u" => suffixes[1],
                    other => other,
                })
                .collect();
            let signature = signature.join(" ");
            let list = if operands.is_empty() { &[""] } else { *operands };
            for (turn, o) in list.iter().enumerate() {
                all.push(lane(&form, &signature, o, turn, true));
            }
        }
    }
    let whole =
        ["ex2.approx.f16x2", "ex2.approx.ftz.bf16x2", "tanh.approx.f16x2", "tanh.approx.bf16x2"];
    all.extend(whole.map(everywhere));
    all.extend(["f16", "bf16"].map(out_of_bounds));
    let narrow = ["e4m3x2", "e5m2x2"].map(|ty| format!("cvt.rn.satfinite.{ty}.f16x2"));
    all.extend(narrow.iter().map(|form| everywhere(form)));
    all
}
