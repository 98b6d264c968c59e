//! Which heads and rows of a large problem are held against the reference.

// A list of row ranges may well have one range.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;

use rayon::prelude::*;

use crate::device::Computed;
use crate::op::{Crop, DType, Problem, Role, Tensor};

/// Query rows one task of the reference takes.
const TASK_ROWS: usize = 512;
/// Rows of one sampled block, and the fewest heads worth sampling rows for.
const BLOCK_ROWS: usize = 64;
const HEADS: usize = 4;

/// Heads and rows that the reference is computed for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Sequence and output head, ascending.
    pub heads: Vec<(usize, usize)>,
    /// Rows along T, ascending, disjoint; the same for each head. All of T for the delta rules,
    /// whose rows each depend on all rows before.
    pub rows: Vec<Range<usize>>,
    /// In place of heads and rows, where a part of the outputs was computed: what is held of it.
    pub pieces: Option<Vec<Crop>>,
    /// What is held, for people; `None` if everything is.
    pub sentence: Option<String>,
}

impl Subset {
    /// Everything.
    pub fn whole(problem: &Problem) -> Subset {
        Subset::plan(problem, f64::INFINITY)
    }

    /// As much as the reference does in `budget_flops`, and at least one head: whole heads
    /// spread evenly from the first to the last; where not even four fit, attention takes four
    /// with blocks of 64 rows spread from the first row to the last.
    pub fn plan(problem: &Problem, budget_flops: f64) -> Subset {
        let (b, per_sequence) = problem.output_heads();
        let (all, tokens) = (b * per_sequence, problem.tokens());
        let head = reference_flops(problem) / all as f64;
        let fitting = (budget_flops / head) as usize;
        let by_rows = matches!(problem, Problem::Attention(_)) && tokens > BLOCK_ROWS;
        if fitting >= all {
            let heads = spread(all, all).map(|i| (i / per_sequence, i % per_sequence)).collect();
            return Subset { heads, rows: vec![0..tokens], pieces: None, sentence: None };
        }
        let fewest = if by_rows { HEADS.min(all) } else { 1 };
        let n = fitting.max(fewest);
        let heads = spread(all, n).map(|i| (i / per_sequence, i % per_sequence)).collect();
        let mut sentence = format!("{n} of {all} heads");
        let mut rows = vec![0..tokens];
        if by_rows && fitting < fewest {
            let blocks = tokens.div_ceil(BLOCK_ROWS);
            let block = head / blocks as f64;
            let wanted = ((budget_flops / n as f64 / block) as usize).clamp(2, blocks);
            rows.clear();
            for i in spread(blocks, wanted) {
                let new = i * BLOCK_ROWS..((i + 1) * BLOCK_ROWS).min(tokens);
                match rows.last_mut() {
                    Some(last) if last.end == new.start => last.end = new.end,
                    _ => rows.push(new),
                }
            }
            if rows != [0..tokens] {
                let text: Vec<_> = rows.iter().map(|r| format!("{}..{}", r.start, r.end)).collect();
                sentence += &format!(", rows {}", text.join(", "));
            }
        }
        Subset { heads, rows, pieces: None, sentence: Some(sentence) }
    }

    /// As [`Subset::plan`], where a part of the outputs was computed: whole heads of it, or for
    /// attention at least four blocks of 64 rows, spread evenly over those that have a computed
    /// element. `masks` are [`masks`].
    pub fn of_computed(problem: &Problem, budget_flops: f64, masks: &[Tensor]) -> Subset {
        let (b, per_sequence) = problem.output_heads();
        let (all, tokens) = (b * per_sequence, problem.tokens());
        let by_rows = matches!(problem, Problem::Attention(_));
        let step = if by_rows { BLOCK_ROWS } else { tokens.max(1) };
        let found: Vec<Crop> = (0..all)
            .into_par_iter()
            .flat_map_iter(|i| {
                let crop = move |start| Crop {
                    b: i / per_sequence,
                    head: i % per_sequence,
                    rows: start..(start + step).min(tokens),
                };
                (0..tokens).step_by(step).map(crop).filter(|crop| {
                    let cut = problem.crop_tensors(Role::Output, masks, crop);
                    cut.iter().any(|mask| mask.bytes.contains(&1))
                })
            })
            .collect();
        let blocks = tokens.div_ceil(step).max(1);
        let cost = reference_flops(problem) / (all * blocks).max(1) as f64;
        let fewest = if by_rows { HEADS } else { 1 };
        let n = ((budget_flops / cost) as usize).max(fewest).min(found.len());
        let what = if by_rows { format!("blocks of {BLOCK_ROWS} rows") } else { "heads".into() };
        let sentence = format!("{n} of {} {what} with results of executed CTAs", found.len());
        let pieces = spread(found.len(), n).map(|i| found[i].clone()).collect();
        let (heads, rows) = (Vec::new(), Vec::new());
        Subset { heads, rows, pieces: Some(pieces), sentence: Some(sentence) }
    }

    /// The pieces that the reference computes, each on its own.
    pub fn crops(&self, problem: &Problem) -> Vec<Crop> {
        if let Some(pieces) = &self.pieces {
            return pieces.clone();
        }
        let step = if matches!(problem, Problem::Attention(_)) { TASK_ROWS } else { usize::MAX };
        let mut crops = Vec::new();
        for &(b, head) in &self.heads {
            for rows in &self.rows {
                let mut start = rows.start;
                while start < rows.end {
                    let end = rows.end.min(start.saturating_add(step));
                    crops.push(Crop { b, head, rows: start..end });
                    start = end;
                }
            }
        }
        crops
    }
}

/// What was computed of each output, as tensors of its shape with 1 where it was, so that they are
/// cut like the outputs.
pub fn masks(computed: &[Computed], outputs: &[Tensor]) -> Vec<Tensor> {
    let mask = |(c, o): (&Computed, &Tensor)| {
        // The smallest storage there is; a byte of each element is 1.
        let bytes = c.0.iter().flat_map(|&w| [u8::from(w), 0]).collect();
        Tensor { dtype: DType::Bf16, shape: o.shape.clone(), bytes }
    };
    computed.iter().zip(outputs).map(mask).collect()
}

/// Operations of the fp64 reference: for attention the FLOP model, for the delta rules the plain
/// recurrence, which runs at about a quarter of the rate of a matrix product.
fn reference_flops(problem: &Problem) -> f64 {
    match problem {
        Problem::Attention(s) => {
            let pairs = (0..s.tq).step_by(64).map(|i| s.visible(i) * 64.min(s.tq - i));
            4.0 * (s.b * s.hq * s.d) as f64 * pairs.sum::<usize>().max(1) as f64
        }
        Problem::GatedDeltaRule(s) | Problem::Kda(s) => {
            4.0 * 7.0 * (s.b * s.t * s.hv * s.k * s.v) as f64
        }
    }
}

/// `n` of `0..all`, evenly, with the first and the last.
fn spread(all: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| if n == 1 { 0 } else { i * (all - 1) / (n - 1) })
}
