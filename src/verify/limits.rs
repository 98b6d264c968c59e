//! The largest E/F that passes, for every output, operator, precision and input family.
//!
//! | output | bf16 | fp16 | tf32 |
//! |---|---|---|---|
//! | attention o | 1.6 | 1.6 | 3 |
//! | attention o, huge or sink logits | 2.5 | 2.5 | 60, 16 |
//! | attention lse | 0.05 | 0.05 | 3 |
//! | delta rules o, final_state | 3 | 8 | |
//! | the same, hard keys or strong gates | 6 | 16 | |
//!
//! Why these. *Attention, 16 bits*: P is rounded once beside the output, so a sound kernel
//! stands at about sqrt(2) floors where one key dominates and lower where P's errors average
//! out. Long logits make softmax one-hot and turn fp32 noise of the logit into relative error.
//! *tf32*: q, k, v arrive in fp32 and are rounded to 10 bits as operands, so a logit of size s
//! is off by about sqrt(2) s floors, and P by as much; sink logits reach 6 and huge ones 16 times
//! the usual size. *lse* is a sum in fp32 of products that are exact in fp32: its error is three
//! orders below 16-bit rounding, save for tf32, whose operands are rounded.
//! *Delta rules*: a chunked kernel rounds its operands (keys, U, state, decayed scores) several
//! times to the operand type; peers stand at 2.2 to 3 floors in bf16. fp16's floor is 8 times
//! lower, but decays and scores that were rounded to fp16, and the inverse, do not all shrink
//! with it. Identical or correlated keys make the triangular system ill-conditioned, and beta = 1
//! without decay leaves its inverse nothing to damp it with.

use crate::op::inputs::{Beta, Gate, Keys, Logits};
use crate::op::{DType, Family, Problem};

/// The limit on E/F of that output.
pub fn limit(problem: &Problem, family: &Family, output: &str) -> f64 {
    let dtype = problem.dtype();
    match (problem, output) {
        (Problem::Attention(_), "lse") => match dtype {
            DType::Tf32 => 3.0,
            _ => 0.05,
        },
        (Problem::Attention(_), _) => match (family.logits, dtype) {
            (Logits::Normal, DType::Tf32) => 3.0,
            (Logits::Normal, _) => 1.6,
            (Logits::Huge, DType::Tf32) => 60.0,
            (Logits::Sink, DType::Tf32) => 16.0,
            (Logits::Huge | Logits::Sink, _) => 2.5,
        },
        (Problem::GatedDeltaRule(_) | Problem::Kda(_), _) => {
            let hard = family.keys != Keys::Normal
                || family.beta == Beta::One
                || matches!(family.gate, Gate::Saturated | Gate::Unbounded | Gate::Strong);
            match (dtype, hard) {
                (DType::Fp16, false) => 8.0,
                (DType::Fp16, true) => 16.0,
                (_, false) => 3.0,
                (_, true) => 6.0,
            }
        }
    }
}

/// How many floors a single element may be off, times the limit: far outside the spread of
/// rounding errors, well inside what a misplaced or missing term does.
pub const GROSS: f64 = 16.0;

/// F of normally distributed values. [`crate::record::OutputError::floor`] is at least half of it:
/// results that happen to be representable have no rounding error at all.
pub fn usual_floor(dtype: DType) -> f64 {
    match dtype {
        DType::Bf16 => 1.66e-3,
        DType::Fp16 | DType::Tf32 => 2.08e-4,
        DType::Fp32 => 2.5e-8,
    }
}
