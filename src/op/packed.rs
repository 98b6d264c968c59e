//! Packed sequences of linear operators: they lie one after another, and each has a state of its own.
//! One without tokens leaves its state as it was.

use std::ops::Range;

use super::Problem;
use super::operator::{Default, Role, Variable};
use super::value::{Kind, Scalar};

/// Lengths of packed sequences, one a sequence.
pub const fn lens() -> Variable {
    let doc =
        "packed sequences of unequal lengths, in place of B and T: 1000+16x512, 0 for an empty one";
    Variable::row("lens", "lens", Kind::Lens, Default::Nothing, Role::Lengths, doc)
}

/// Lengths around `t`, of which some are 1, some shorter than a chunk and some 0: in turns in the
/// middle, first and last.
pub fn ragged(t: usize, turn: usize) -> Vec<[usize; 2]> {
    let third = t.div_ceil(3);
    let lens = match turn % 3 {
        0 => [t, 0, third, 0, 65],
        1 => [0, third, t, 1, 7],
        _ => [1, 63, t, 0, 0],
    };
    lens.map(both).into()
}

/// A length as packed lengths have it: of q and of k.
pub fn both(n: usize) -> [usize; 2] {
    [n, n]
}

/// What manifests may name of the sequences: `N` of them, the longest of `Tmax` tokens; `packed`
/// where they lie one after another.
pub fn derived(p: &Problem) -> Vec<(&'static str, Scalar)> {
    let lens = p.lens();
    let packed = !lens.is_empty();
    let n = if packed { lens.len() } else { p.sequences() };
    let longest = lens.iter().map(|l| l[0]).max().unwrap_or(p.tokens());
    vec![
        ("packed", Scalar::Bool(packed)),
        ("N", Scalar::Int(n as i64)),
        ("Tmax", Scalar::Int(longest as i64)),
    ]
}

/// The tokens of each sequence, counted through all of them.
pub fn sequences_of(p: &Problem) -> Vec<Range<usize>> {
    let t = p.tokens();
    match p.lens() {
        [] => (0..p.sequences()).map(|b| b * t..(b + 1) * t).collect(),
        _ => p.places().into_iter().map(|one| one.q).collect(),
    }
}
