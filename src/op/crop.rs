//! Cuts one head out of a problem and, where rows can be computed apart, a block of rows. What is
//! left is a problem again, so that the reference of a large one can be computed in part.

use std::ops::Range;

use super::operator::Role;
use super::{DType, Flow, Problem, Tensor, TensorSpec};

/// One sequence, one output head, a range of output rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crop {
    /// The sequence.
    pub b: usize,
    /// The head of the output.
    pub head: usize,
    /// Rows along the output's tokens, counted through all packed sequences. Where each row depends
    /// on all before it, all of them.
    pub rows: Range<usize>,
}

impl Problem {
    /// Whether rows of the outputs can be computed apart.
    pub fn has_rows_apart(&self) -> bool {
        self.op().cut(self, &(0..self.tokens())).is_some()
    }

    /// The problem that is left of this one.
    pub fn crop(&self, crop: &Crop) -> Problem {
        let small = self.one_head();
        match self.op().cut(self, &crop.rows) {
            None => small,
            Some(cut) if cut.lens.is_empty() => {
                let rows = small.with_role(Role::Token, crop.rows.len());
                rows.with_role(Role::Past, cut.past.len())
            }
            Some(cut) => small.pack(cut.lens),
        }
    }

    /// The tensors of that flow, cut to `crop`, in the order of [`Problem::tensors`].
    ///
    /// # Panics
    /// If `tensors` are not this problem's tensors of that flow.
    pub fn crop_tensors(&self, flow: Flow, tensors: &[Tensor], crop: &Crop) -> Vec<Tensor> {
        let (_, heads) = self.output_heads();
        let specs = self.tensors_of(flow);
        assert_eq!(specs.len(), tensors.len(), "tensors of {self}");
        let cut = self.op().cut(self, &crop.rows);
        let past = cut.as_ref().map_or(0..0, |cut| cut.past.clone());
        let starts = cut.map(|cut| self.one_head().pack(cut.lens).cu_seqlens());
        let one = |(spec, tensor): (&TensorSpec, &Tensor)| {
            if let Some(starts) = starts.iter().flatten().find(|(name, _)| *name == spec.name) {
                return starts.1.clone();
            }
            let range = |(role, size): (&Option<Role>, &usize)| match role {
                Some(Role::Sequence) => crop.b..crop.b + 1,
                Some(Role::Token) => crop.rows.clone(),
                Some(Role::Past) => past.clone(),
                Some(Role::Heads | Role::Shared { .. }) => {
                    let head = crop.head / (heads / size);
                    head..head + 1
                }
                _ => 0..*size,
            };
            let ranges: Vec<_> = spec.roles.iter().zip(&spec.shape).map(range).collect();
            gather(tensor, &ranges)
        };
        specs.iter().zip(tensors).map(one).collect()
    }

    /// Where each packed sequence begins and the last ends: `cu_seqlens_q` and `cu_seqlens_kv`, or
    /// `cu_seqlens` of an operator that looks back on no keys. Empty where nothing is packed.
    pub fn cu_seqlens(&self) -> Vec<(&'static str, Tensor)> {
        let lens = self.lens();
        if lens.is_empty() {
            return vec![];
        }
        let starts = |i: usize| {
            let ends = lens.iter().scan(0, move |sum, l| {
                *sum += l[i];
                Some(*sum as f64)
            });
            Tensor::from_f64(DType::I32, &[lens.len() + 1], std::iter::once(0.0).chain(ends))
        };
        match self.op().with_role(Role::Past) {
            Some(_) => vec![("cu_seqlens_q", starts(0)), ("cu_seqlens_kv", starts(1))],
            None => vec![("cu_seqlens", starts(0))],
        }
    }
}

/// The block of `tensor` inside `ranges`, one a dimension.
fn gather(tensor: &Tensor, ranges: &[Range<usize>]) -> Tensor {
    let size = tensor.dtype.bytes();
    let shape: Vec<usize> = ranges.iter().map(|r| r.len()).collect();
    let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size);
    let (inner, outer) = ranges.split_last().expect("at least one dimension");
    let width = tensor.shape[ranges.len() - 1];
    // An odometer over the outer dimensions; the range of the last one is copied at once.
    let mut at: Vec<usize> = outer.iter().map(|r| r.start).collect();
    if shape.contains(&0) {
        return Tensor { dtype: tensor.dtype, shape, bytes };
    }
    loop {
        let row = at.iter().zip(&tensor.shape).fold(0, |acc, (i, n)| acc * n + i) * width;
        bytes.extend(&tensor.bytes[(row + inner.start) * size..(row + inner.end) * size]);
        let Some(d) = (0..at.len()).rev().find(|&d| at[d] + 1 < outer[d].end) else {
            return Tensor { dtype: tensor.dtype, shape, bytes };
        };
        at[d] += 1;
        (d + 1..at.len()).for_each(|d| at[d] = outer[d].start);
    }
}
