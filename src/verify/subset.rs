//! Which heads and rows of a large problem are held against the reference.

// A list of row ranges may well have one range.
#![allow(clippy::single_range_in_vec_init)]

use std::ops::Range;

use rayon::prelude::*;

use crate::device::Computed;
use crate::op::{Crop, DType, Flow, Problem, Tensor};

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
    /// Rows along the output's tokens, ascending, disjoint; the same for each head. All of them
    /// where each row depends on all rows before.
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
    /// spread evenly from the first to the last; where not even four fit and rows can be computed
    /// apart, four with blocks of 64 rows spread from the first row to the last.
    pub fn plan(problem: &Problem, budget_flops: f64) -> Subset {
        let (b, per_sequence) = problem.output_heads();
        let (all, tokens) = (b * per_sequence, problem.tokens());
        let head = problem.reference_flops() / all as f64;
        let fitting = (budget_flops / head) as usize;
        let by_rows = problem.has_rows_apart() && tokens > BLOCK_ROWS;
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

    /// As [`Subset::plan`], where a part of the outputs was computed: whole heads of it, or where
    /// rows can be computed apart at least four blocks of 64, spread evenly over those that have a computed
    /// element. `masks` are what `masks()` makes.
    pub fn of_computed(problem: &Problem, budget_flops: f64, masks: &[Tensor]) -> Subset {
        let (b, per_sequence) = problem.output_heads();
        let (all, tokens) = (b * per_sequence, problem.tokens());
        let by_rows = problem.has_rows_apart();
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
                    let cut = problem.crop_tensors(Flow::Output, masks, crop);
                    cut.iter().any(|mask| mask.bytes.contains(&1))
                })
            })
            .collect();
        let blocks = tokens.div_ceil(step).max(1);
        let cost = problem.reference_flops() / (all * blocks).max(1) as f64;
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
        let step = if problem.has_rows_apart() { TASK_ROWS } else { usize::MAX };
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

/// `n` of `0..all`, evenly, with the first and the last.
fn spread(all: usize, n: usize) -> impl Iterator<Item = usize> {
    (0..n).map(move |i| if n == 1 { 0 } else { i * (all - 1) / (n - 1) })
}
