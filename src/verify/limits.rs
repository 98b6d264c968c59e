//! The largest E/F that passes. Each operator has its limits, with their why, in its own file
//! ([`crate::op::Operator::limit`]); here is what holds for all of them.
//!
//! Outputs of fewer than 4096 elements get some more ([`for_elements`]).

use crate::op::DType;

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
