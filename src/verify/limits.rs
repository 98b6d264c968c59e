//! The largest E/F that passes, for every output, operator, precision and input family.
//!
//! | output | bf16 | fp16 | tf32 |
//! |---|---|---|---|
//! | attention o | 1.6 | 1.6 | 3 |
//! | attention o, huge or sink logits | 2.5 | 2.5 | 20, 10 |
//! | attention lse | 0.05 | 0.05 | 8; 24 on huge or sink logits |
//! | delta rules o, final_state | 4.5 | 4.5 | |
//! | the same, correlated keys | 10 | 10 | |
//! | the same, identical keys | 20 | 20 | |
//! | the same, identical keys, beta = 1, slow or no decay | 48 | 48 | |
//!
//! Why these. *Attention, 16 bits*: P is rounded once beside the output, so a sound kernel
//! stands at about sqrt(2) floors where one key dominates and lower where P's errors average
//! out. Long logits make softmax one-hot and turn fp32 noise of the logit into relative error.
//! *tf32*: q, k, v arrive in fp32 and are rounded to 10 bits as operands, so a logit of size s
//! is off by about sqrt(2) s floors, and P by as much; sink logits reach 6 and huge ones 16 times
//! the usual size. *lse* is a sum in fp32 of products that are exact in fp32: its error is three
//! orders below 16-bit rounding. In tf32 it is as far off as a logit is; with few keys logits
//! cancel in it, so that E is large where lse happens to be small.
//! *Delta rules*: a chunked kernel rounds its operands (keys, U, state, decayed scores) several
//! times to the operand type: sound kernels stand at 2 to 3.4 floors over lengths, heads and
//! gates, in bf16 and in fp16 alike, and peers at 2.2 to 3. Where keys repeat, each token's
//! U = v - S^T k is a difference of neighbours and the state a sum of them that telescopes: the
//! roundings of all 64 tokens of a chunk stay while the values cancel, sqrt(2 * 64) = 11 floors
//! without decay and with beta = 1, more where the inverse is rounded too; sound kernels reach
//! 14 to 40 there, 11 with random beta, and 6 on keys that are correlated at 0.9.
//!
//! Outputs of fewer than 4096 elements get some more ([`for_elements`]).

use crate::op::inputs::{Beta, Gate, Keys, Logits};
use crate::op::{DType, Family, Problem};

/// The limit on E/F of that output.
pub fn limit(problem: &Problem, family: &Family, output: &str) -> f64 {
    let dtype = problem.dtype();
    match (problem, output) {
        (Problem::Attention(_), "lse") => match (dtype, family.logits) {
            (DType::Tf32, Logits::Normal) => 8.0,
            (DType::Tf32, Logits::Huge | Logits::Sink) => 24.0,
            _ => 0.05,
        },
        (Problem::Attention(_), _) => match (family.logits, dtype) {
            (Logits::Normal, DType::Tf32) => 3.0,
            (Logits::Normal, _) => 1.6,
            (Logits::Huge, DType::Tf32) => 20.0,
            (Logits::Sink, DType::Tf32) => 10.0,
            (Logits::Huge | Logits::Sink, _) => 2.5,
        },
        (Problem::GatedDeltaRule(_) | Problem::Kda(_), _) => {
            let forgets = !matches!(family.gate, Gate::Zero | Gate::Slow);
            match family.keys {
                Keys::Normal => 4.5,
                Keys::Correlated => 10.0,
                Keys::Identical if family.beta == Beta::One && !forgets => 48.0,
                Keys::Identical => 20.0,
            }
        }
    }
}

/// The limit for an output of `n` elements: E of a few hundred roundings spreads, by about one
/// over the square root of their number.
pub fn for_elements(limit: f64, n: usize) -> f64 {
    if n >= 4096 {
        return limit;
    }
    let wider = limit * (1.0 + 3.0 / (n.max(1) as f64).sqrt());
    (wider * 1000.0).round() / 1000.0
}

/// How many floors a single element may be off, times the limit: far outside the spread of
/// rounding errors, well inside what a misplaced or missing term does.
pub const GROSS: f64 = 16.0;

/// The most that a single element may be off, relative to its surroundings, whatever the limit.
pub const GROSS_CAP: f64 = 0.5;

/// F of normally distributed values. [`crate::record::OutputError::floor`] is at least half of it:
/// results that happen to be representable have no rounding error at all.
pub fn usual_floor(dtype: DType) -> f64 {
    dtype.format().usual_floor
}
