//! Which function an instruction is, by operation and type.

use super::super::alu_float::{self as fl, Bf16, F16};
use super::super::alu_int::*;
use super::super::alu_narrow::FlushedHalf;
use super::super::ptx::ast::Ty;
use super::super::regs::{AluFn, alu, setp};

/// Whole numbers that fit as they are, or grow to 64 bits.
pub fn whole_fn(from: Ty, to: Ty) -> Option<AluFn> {
    Some(match (from, to) {
        (Ty::U32, Ty::U64 | Ty::S64) => alu::<Widen>,
        (Ty::S32, Ty::S64 | Ty::U64) => alu::<WidenS>,
        (Ty::U64 | Ty::S64, Ty::U32 | Ty::S32) => alu::<Low32>,
        (Ty::S16, Ty::S32 | Ty::U32) => alu::<SignExtend16>,
        (Ty::S8, Ty::S32 | Ty::U32) => alu::<SignExtend8>,
        _ => return None,
    })
}

/// A conversion between whole numbers of at most 32 bits that keeps the low bits, with their mask.
pub fn keep_fn(from: Ty, to: Ty, sat: bool) -> Option<(AluFn, u32)> {
    let small = |t: Ty| t.is_int() && t.bits() <= 32;
    if sat || !small(from) || !small(to) || from.is_signed() && from.bits() < to.bits() {
        return None;
    }
    if to == Ty::S8 {
        return None;
    }
    Some((alu::<Keep>, u32::MAX >> (32 - from.bits().min(to.bits()))))
}

/// Arithmetic on whole numbers.
pub fn int_fn(op: &str, ty: Ty, width: Option<char>) -> Option<AluFn> {
    let s = ty.is_signed();
    Some(match (op, ty.bits(), width) {
        ("add", 16, None) => alu::<Add16>,
        ("add", 32, None) => alu::<Add32>,
        ("add", 64, None) => alu::<Add64>,
        ("sub", 16, None) => alu::<Sub16>,
        ("sub", 32, None) => alu::<Sub32>,
        ("sub", 64, None) => alu::<Sub64>,
        ("mul", 16, Some('l')) => alu::<MulLo16>,
        ("mul", 16, Some('h')) if s => alu::<MulHiS16>,
        ("mul", 16, Some('h')) => alu::<MulHiU16>,
        ("mul", 16, Some('w')) if s => alu::<MulWideS16>,
        ("mul", 16, Some('w')) => alu::<MulWideU16>,
        ("mul", 32, Some('l')) => alu::<MulLo32>,
        ("mul", 32, Some('h')) if s => alu::<MulHiS32>,
        ("mul", 32, Some('h')) => alu::<MulHiU32>,
        ("mul", 32, Some('w')) if s => alu::<MulWideS32>,
        ("mul", 32, Some('w')) => alu::<MulWideU32>,
        ("mul", 64, Some('l')) => alu::<MulLo64>,
        ("mul", 64, Some('h')) if s => alu::<MulHiS64>,
        ("mul", 64, Some('h')) => alu::<MulHiU64>,
        ("mul24", 32, Some('l')) if s => alu::<Mul24S>,
        ("mul24", 32, Some('l')) => alu::<Mul24U>,
        ("mad", 16, Some('l')) => alu::<MadLo16>,
        ("mad", 16, Some('w')) if s => alu::<MadWideS16>,
        ("mad", 16, Some('w')) => alu::<MadWideU16>,
        ("mad", 32, Some('l')) => alu::<MadLo32>,
        ("mad", 32, Some('h')) if s => alu::<MadHiS32>,
        ("mad", 32, Some('h')) => alu::<MadHiU32>,
        ("mad", 32, Some('w')) if s => alu::<MadWideS32>,
        ("mad", 32, Some('w')) => alu::<MadWideU32>,
        ("mad", 64, Some('l')) => alu::<MadLo64>,
        ("sad", 32, None) if s => alu::<SadS32>,
        ("sad", 32, None) => alu::<SadU32>,
        ("min", 16, None) if s => alu::<MinS16>,
        ("max", 16, None) if s => alu::<MaxS16>,
        ("min", 32, None) if s => alu::<MinS32>,
        ("max", 32, None) if s => alu::<MaxS32>,
        ("min", 16 | 32, None) => alu::<MinU32>,
        ("max", 16 | 32, None) => alu::<MaxU32>,
        ("min", 64, None) if s => alu::<MinS64>,
        ("max", 64, None) if s => alu::<MaxS64>,
        ("min", 64, None) => alu::<MinU64>,
        ("max", 64, None) => alu::<MaxU64>,
        ("div", 16, None) if s => alu::<DivS16>,
        ("div", 16, None) => alu::<DivU16>,
        ("rem", 16, None) if s => alu::<RemS16>,
        ("div", 32, None) if s => alu::<DivS32>,
        ("div", 32, None) => alu::<DivU32>,
        ("rem", 32, None) if s => alu::<RemS32>,
        ("rem", 16 | 32, None) => alu::<RemU32>,
        ("div", 64, None) if s => alu::<DivS64>,
        ("div", 64, None) => alu::<DivU64>,
        ("rem", 64, None) if s => alu::<RemS64>,
        ("rem", 64, None) => alu::<RemU64>,
        ("neg", 16, None) => alu::<NegS16>,
        ("neg", 32, None) => alu::<NegS32>,
        ("neg", 64, None) => alu::<NegS64>,
        ("abs", 16, None) if s => alu::<AbsS16>,
        ("abs", 32, None) if s => alu::<AbsS32>,
        ("abs", 64, None) if s => alu::<AbsS64>,
        _ => return None,
    })
}

/// Suffixes of comparisons, and the comparison each is for the types it goes with.
pub const COMPARISONS: &[(&str, &str)] = &[
    ("eq", "eq"),
    ("ne", "ne"),
    ("lt", "lt"),
    ("le", "le"),
    ("gt", "gt"),
    ("ge", "ge"),
    ("lo", "lt"),
    ("ls", "le"),
    ("hi", "gt"),
    ("hs", "ge"),
    ("equ", "equ"),
    ("neu", "neu"),
    ("ltu", "ltu"),
    ("leu", "leu"),
    ("gtu", "gtu"),
    ("geu", "geu"),
    ("num", "num"),
    ("nan", "nan"),
];

/// The function of `setp` or, with `set`, of `set`.
pub fn compare_fn(op: &str, ty: Ty, ftz: bool, set: bool) -> Option<AluFn> {
    macro_rules! f {
        ($c:ty) => {
            Some(if set { alu::<fl::Set<$c>> as AluFn } else { setp::<$c> as AluFn })
        };
    }
    macro_rules! float {
        ($c:ident) => {
            match (ty, ftz) {
                (Ty::F32, false) => f!(fl::$c),
                (Ty::F32, true) => f!(fl::Flushed<fl::$c>),
                (Ty::F16, false) => f!(fl::Halved<F16, fl::$c>),
                (Ty::F16, true) => f!(FlushedHalf<fl::Halved<F16, fl::$c>>),
                (Ty::Bf16, false) => f!(fl::Halved<Bf16, fl::$c>),
                _ => None,
            }
        };
    }
    if matches!(ty, Ty::F32 | Ty::F16 | Ty::Bf16) {
        return match op {
            "eq" => float!(EqF),
            "ne" => float!(NeF),
            "lt" => float!(LtF),
            "le" => float!(LeF),
            "gt" => float!(GtF),
            "ge" => float!(GeF),
            "equ" => float!(EquF),
            "neu" => float!(NeuF),
            "ltu" => float!(LtuF),
            "leu" => float!(LeuF),
            "gtu" => float!(GtuF),
            "geu" => float!(GeuF),
            "num" => float!(NumF),
            "nan" => float!(NanF),
            _ => None,
        };
    }
    if ftz {
        return None;
    }
    match (op, ty) {
        ("eq", Ty::F64) => f!(fl::EqD),
        ("ne", Ty::F64) => f!(fl::NeD),
        ("lt", Ty::F64) => f!(fl::LtD),
        ("le", Ty::F64) => f!(fl::LeD),
        ("gt", Ty::F64) => f!(fl::GtD),
        ("ge", Ty::F64) => f!(fl::GeD),
        ("neu", Ty::F64) => f!(fl::NeuD),
        ("nan", Ty::F64) => f!(fl::NanD),
        ("num", Ty::F64) => f!(fl::NumD),
        ("eq", Ty::B16 | Ty::U16 | Ty::S16 | Ty::B32 | Ty::U32 | Ty::S32) => f!(EqU32),
        ("ne", Ty::B16 | Ty::U16 | Ty::S16 | Ty::B32 | Ty::U32 | Ty::S32) => f!(NeU32),
        ("eq", Ty::B64 | Ty::U64 | Ty::S64) => f!(EqU64),
        ("ne", Ty::B64 | Ty::U64 | Ty::S64) => f!(NeU64),
        ("lt", Ty::U16 | Ty::U32) => f!(LtU32),
        ("le", Ty::U16 | Ty::U32) => f!(LeU32),
        ("gt", Ty::U16 | Ty::U32) => f!(GtU32),
        ("ge", Ty::U16 | Ty::U32) => f!(GeU32),
        ("lt", Ty::S16) => f!(LtS16),
        ("le", Ty::S16) => f!(LeS16),
        ("gt", Ty::S16) => f!(GtS16),
        ("ge", Ty::S16) => f!(GeS16),
        ("lt", Ty::S32) => f!(LtS32),
        ("le", Ty::S32) => f!(LeS32),
        ("gt", Ty::S32) => f!(GtS32),
        ("ge", Ty::S32) => f!(GeS32),
        ("lt", Ty::U64) => f!(LtU64),
        ("le", Ty::U64) => f!(LeU64),
        ("gt", Ty::U64) => f!(GtU64),
        ("ge", Ty::U64) => f!(GeU64),
        ("lt", Ty::S64) => f!(LtS64),
        ("le", Ty::S64) => f!(LeS64),
        ("gt", Ty::S64) => f!(GtS64),
        ("ge", Ty::S64) => f!(GeS64),
        _ => None,
    }
}
