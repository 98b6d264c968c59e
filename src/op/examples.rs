//! Operators and problems for the tests of other modules, which name no operator themselves.

use super::{Op, PhaseName, Problem};

/// Softmax attention.
pub fn full() -> Op {
    Op::parse("attention").expect("an operator")
}

/// The gated delta rule.
pub fn linear() -> Op {
    Op::parse("gated_delta_rule").expect("an operator")
}

/// Another linear operator.
pub fn other() -> Op {
    Op::parse("kda").expect("an operator")
}

/// A prefill problem of settings.
pub fn problem(op: Op, settings: &str) -> Problem {
    Problem::parse(op, PhaseName::Prefill, settings).unwrap_or_else(|e| panic!("{e}"))
}
