//! How far the outputs of two devices agree.

use serde::{Deserialize, Serialize};

use crate::op::{Flow, Problem, Tensor};

/// Two devices' versions of one output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// The output's name.
    pub name: String,
    /// Share of elements within one unit in the last place, in 0..=1.
    pub within_one_ulp: f64,
    /// The largest distance, in such units; at most 2^53.
    pub worst_ulp: f64,
    /// Where it is, row-major.
    pub worst_at: usize,
}

/// The share of elements that must agree within one unit in the last place.
pub const LEAST_AGREEMENT: f64 = 0.99;

impl Agreement {
    /// Whether at least `LEAST_AGREEMENT` of the elements agree.
    pub fn passes(&self) -> bool {
        self.within_one_ulp >= LEAST_AGREEMENT
    }
}

/// Compares outputs of the same problem and inputs. A unit in the last place is that of the
/// problem's precision, for its fp32 outputs too: what a state or a log-sum-exp is worth is
/// limited by the 16-bit operands behind it.
pub fn agreement(problem: &Problem, a: &[Tensor], b: &[Tensor]) -> Vec<Agreement> {
    let specs = problem.tensors_of(Flow::Output).into_iter();
    specs
        .zip(a.iter().zip(b))
        .map(|(spec, (a, b))| {
            let (mut near, mut worst) = (0usize, (0f64, 0));
            for i in 0..a.len() {
                let (x, y) = (a.get(i), b.get(i));
                let far = if x == y || (x.is_nan() && y.is_nan()) {
                    0.0
                } else {
                    let d = (x - y).abs() / problem.dtype().ulp(x.abs().max(y.abs()));
                    // NaN or infinity on one side only.
                    if d.is_finite() { d } else { 2f64.powi(53) }
                };
                near += usize::from(far <= 1.0);
                if far > worst.0 {
                    worst = (far, i);
                }
            }
            Agreement {
                name: spec.name.to_string(),
                within_one_ulp: near as f64 / a.len().max(1) as f64,
                worst_ulp: worst.0,
                worst_at: worst.1,
            }
        })
        .collect()
}
