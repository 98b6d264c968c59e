//! One output against its reference: norms, blocks along T, bad elements.

use super::limits::{GROSS, GROSS_CAP, usual_floor};
use super::map;
use crate::op::{Crop, DType, Problem, Role, Tensor, TensorSpec};
use crate::record::OutputError;

/// Tokens of a block along T.
pub const BLOCK: usize = 64;

/// The part of an output that lies in one crop: `rows` x `cols`, row-major.
pub struct Part<'a> {
    pub crop: &'a Crop,
    /// The reference in fp64.
    pub want: &'a [f64],
    /// What the kernel wrote.
    pub got: &'a Tensor,
    /// Of the same shape, 1 where an element was computed; all were if absent.
    pub mask: Option<&'a Tensor>,
}

impl Part<'_> {
    /// Whether element `i` was computed, and so is held.
    fn has(&self, i: usize) -> bool {
        self.mask.is_none_or(|mask| mask.bytes[2 * i] == 1)
    }

    /// Elements that are held.
    pub fn held(&self) -> usize {
        match self.mask {
            None => self.want.len(),
            Some(_) => (0..self.want.len()).filter(|i| self.has(*i)).count(),
        }
    }
}

/// Sums over some elements; those whose reference is not finite have no part in them.
#[derive(Default, Clone, Copy)]
struct Sums {
    error: f64,
    reference: f64,
    rounding: f64,
    n: u64,
}

impl Sums {
    fn add(&mut self, o: &Sums) {
        self.error += o.error;
        self.reference += o.reference;
        self.rounding += o.rounding;
        self.n += o.n;
    }

    fn rms(&self) -> f64 {
        (self.reference / self.n.max(1) as f64).sqrt()
    }
}

/// Whether a result is what a reference wants that is not finite, or not so once it is `stored`: NaN
/// for NaN, infinity for the same infinity.
fn is_alike(got: f64, want: f64, stored: f64) -> bool {
    (got.is_nan() && want.is_nan()) || got == want || got == stored
}

/// A value rounded to the digits of a precision. Where it lies beyond that precision's range, as the
/// fp32 output of an fp16 problem may, it has as many digits there.
fn rounded(precision: DType, x: f64) -> f64 {
    let near = precision.round(x);
    if near.is_finite() || !x.is_finite() {
        return near;
    }
    let size = 2f64.powi(x.abs().log2() as i32);
    precision.round(x / size) * size
}

/// Rows and columns of an output inside one crop, and whether its rows are tokens.
fn matrix(spec: &TensorSpec, len: usize) -> (usize, usize, bool) {
    let (axis, last) = (spec.token_axis(), spec.shape.len() - 1);
    let cols = if axis == Some(last) { 1 } else { spec.shape[last] };
    (len / cols, cols, axis.is_some())
}

/// Judges one output over its parts; with a map of the bad tiles if it is wrong.
pub fn judge(
    problem: &Problem,
    spec: &TensorSpec,
    parts: &[Part],
    limit: f64,
) -> (OutputError, Option<String>) {
    // fp32 outputs of a computation in lower precision are held against that precision, outputs of a
    // coarser format of their own against that.
    let precision = match spec.dtype.format().mantissa < problem.dtype().format().mantissa {
        true => spec.dtype,
        false => problem.dtype(),
    };
    let blocks = spec.token_axis().map_or(0, |axis| spec.shape[axis].div_ceil(BLOCK));
    let mut total = Sums::default();
    let mut by_block = vec![Sums::default(); blocks];
    let mut by_part = Vec::new();
    let mut nonfinite = 0;
    for part in parts {
        let (rows, cols, tokens) = matrix(spec, part.want.len());
        let first = if tokens { part.crop.rows.start } else { 0 };
        // Sums by block of rows of this part, the scale that its elements are judged by.
        let mut local = vec![Sums::default(); (first + rows).div_ceil(BLOCK) - first / BLOCK];
        for (i, &want) in part.want.iter().enumerate().filter(|(i, _)| part.has(*i)) {
            let got = part.got.get(i);
            let (stored, rounded) = (spec.dtype.round(want), rounded(precision, want));
            let mut one = Sums { n: 1, reference: want * want, ..Sums::default() };
            if !stored.is_finite() {
                nonfinite += u64::from(!is_alike(got, want, stored));
                continue;
            }
            // A missing value counts as zero, so that E stays a number.
            let error = if got.is_finite() { got - want } else { want };
            nonfinite += u64::from(!got.is_finite());
            one.error = error * error;
            one.rounding = (rounded - want) * (rounded - want);
            local[(first + i / cols) / BLOCK - first / BLOCK].add(&one);
        }
        for (i, sums) in local.iter().enumerate() {
            total.add(sums);
            if tokens {
                by_block[first / BLOCK + i].add(sums);
            }
        }
        by_part.push(local);
    }

    let usual = usual_floor(precision);
    let rms = total.rms();
    // Where the reference is all zero, E is the plain root mean square and F the usual floor:
    // an absolute test at the scale of inputs of unit size.
    let (error, floor) = if total.reference > 0.0 {
        let norm = total.reference.sqrt();
        (total.error.sqrt() / norm, (total.rounding.sqrt() / norm).max(usual / 2.0))
    } else {
        ((total.error / total.n.max(1) as f64).sqrt(), usual)
    };
    let relative = |s: &Sums| {
        let least = (rms * 1e-6).powi(2) * s.n as f64;
        let norm = s.reference.max(least);
        if norm > 0.0 { (s.error / norm).sqrt() } else { s.error.sqrt() }
    };
    // Rows that were left out would leave holes, so a subset of rows has no blocks.
    let whole = by_block.iter().all(|s| s.n > 0) && parts.iter().all(|p| p.mask.is_none());
    let blocks: Vec<f64> = if whole { by_block.iter().map(relative).collect() } else { Vec::new() };

    let mut max_ulp = 0f64;
    let mut bad = map::BadTiles::default();
    let mut first_bad = None;
    let mut worst: (f64, Option<String>) = (0.0, None);
    for (part, local) in parts.iter().zip(&by_part) {
        let (rows, cols, tokens) = matrix(spec, part.want.len());
        let first = if tokens { part.crop.rows.start } else { 0 };
        bad.start(part.crop, first, rows, cols);
        for (i, &want) in part.want.iter().enumerate().filter(|(i, _)| part.has(*i)) {
            let (got, row) = (part.got.get(i), first + i / cols);
            let off = (got - want).abs();
            if want.abs() > rms * 1e-3 && off.is_finite() {
                max_ulp = max_ulp.max(off / precision.ulp(want));
            }
            let block = local[row / BLOCK - first / BLOCK].rms();
            let scale = if rms > 0.0 { want.abs().max(block).max(rms * 1e-3) } else { 1.0 };
            let tolerance = (GROSS * limit * floor).min(GROSS_CAP) * scale;
            let stored = spec.dtype.round(want);
            let right =
                if stored.is_finite() { off <= tolerance } else { is_alike(got, want, stored) };
            let say = |what: &str| {
                let at = place(spec, part.crop, row, i % cols);
                format!("{what} {}{at} got {got:.6e} wanted {want:.6e}", spec.name)
            };
            if !right {
                bad.add(i / cols, i % cols, got.is_nan());
                first_bad.get_or_insert_with(|| say("first bad"));
            } else if off / tolerance > worst.0 {
                worst = (off / tolerance, Some(say("no element grossly off; worst")));
            }
        }
    }
    let passes = error <= limit * floor; // false for NaN
    if !passes && first_bad.is_none() {
        first_bad = worst.1;
    }
    let judged = OutputError {
        name: spec.name.to_string(),
        error,
        floor,
        limit,
        nonfinite,
        slope: slope(&blocks),
        blocks,
        max_ulp,
        first_bad,
        share: None,
    };
    (judged, bad.draw())
}

/// An index by the letters of the layout, such as `[B=0 Tq=63 Hq=1 D=5]`.
fn place(spec: &TensorSpec, crop: &Crop, row: usize, col: usize) -> String {
    let letters: Vec<&str> = spec.dims.split(' ').collect();
    let last = letters.len() - 1;
    let mut parts = Vec::new();
    // Rows are counted through all dimensions that are not the crop's, the last of them fastest.
    let mut left = row;
    for (i, role) in spec.roles.iter().enumerate().rev() {
        let x = match role {
            Some(Role::Sequence) => crop.b,
            Some(Role::Token) => row,
            Some(Role::Heads | Role::Shared { .. }) => crop.head,
            _ if i == last => col,
            _ => {
                let x = left % spec.shape[i];
                left /= spec.shape[i];
                x
            }
        };
        parts.push(format!("{}={x}", letters[i]));
    }
    parts.reverse();
    format!("[{}]", parts.join(" "))
}

/// Least-squares slope of log E over log T at the blocks' last tokens; `None` below three blocks
/// or where some block has no error.
fn slope(blocks: &[f64]) -> Option<f64> {
    if blocks.len() < 3 || !blocks.iter().all(|&e| e > 0.0) {
        return None;
    }
    let points: Vec<(f64, f64)> = blocks
        .iter()
        .enumerate()
        .map(|(i, e)| (((i + 1) as f64 * BLOCK as f64).ln(), e.ln()))
        .collect();
    let n = points.len() as f64;
    let (mx, my) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0 / n, y + p.1 / n));
    let xy: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    let xx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    Some(xy / xx)
}
