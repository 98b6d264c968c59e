//! Cutting one head, and for attention a block of rows, out of a problem. What is left is a
//! plain problem again, so the reference of a large problem can be computed where it is wanted.

use std::ops::Range;

use super::{Problem, Role, Tensor, delta};

/// One sequence, one output head (Hq or HV), a range of output rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crop {
    pub b: usize,
    pub head: usize,
    /// Rows along Tq, through all packed sequences. For the delta rules always all of T: each row depends on all before it.
    pub rows: Range<usize>,
}

impl Problem {
    /// Sequences and output heads.
    pub fn output_heads(&self) -> (usize, usize) {
        match self {
            Problem::Attention(s) => (s.b, s.hq),
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => (s.b, s.hv),
        }
    }

    /// The problem that is left of this one.
    pub fn crop(&self, crop: &Crop) -> Problem {
        match self {
            Problem::Attention(s) => Problem::Attention(s.crop_rows(&crop.rows).1),
            Problem::GatedDeltaRule(s) => Problem::GatedDeltaRule(cropped(s)),
            Problem::Kda(s) => Problem::Kda(cropped(s)),
        }
    }

    /// The tensors of that role, cut to `crop`, in the order of [`Problem::tensors`].
    ///
    /// # Panics
    /// If `tensors` are not this problem's tensors of that role.
    pub fn crop_tensors(&self, role: Role, tensors: &[Tensor], crop: &Crop) -> Vec<Tensor> {
        let (_, heads) = self.output_heads();
        let specs: Vec<_> = self.tensors().into_iter().filter(|t| t.role == role).collect();
        assert_eq!(specs.len(), tensors.len(), "tensors of {self}");
        let (keys, packed) = match self {
            Problem::Attention(s) => {
                let (keys, small) = s.crop_rows(&crop.rows);
                (keys, small.cu_seqlens())
            }
            _ => (0..0, vec![]),
        };
        let cut = |(spec, tensor): (&super::TensorSpec, &Tensor)| {
            match spec.name {
                "cu_seqlens_q" => return packed[0].clone(),
                "cu_seqlens_kv" => return packed[1].clone(),
                _ => {}
            }
            let range = |(letter, size): (&str, usize)| match letter {
                "B" | "N" => crop.b..crop.b + 1,
                "T" | "Tq" => crop.rows.clone(),
                "Tkv" => keys.clone(),
                "H" | "HV" | "Hq" | "Hkv" => {
                    let head = crop.head / (heads / size);
                    head..head + 1
                }
                _ => 0..size,
            };
            let dims = spec.dims.split(' ').zip(spec.shape.iter().copied());
            gather(tensor, &dims.map(range).collect::<Vec<_>>())
        };
        specs.iter().zip(tensors).map(cut).collect()
    }
}

fn cropped(s: &delta::Shape) -> delta::Shape {
    delta::Shape { b: 1, h: 1, hv: 1, ..s.clone() }
}

/// The block of `tensor` inside `ranges`, one a dimension.
fn gather(tensor: &Tensor, ranges: &[Range<usize>]) -> Tensor {
    let size = tensor.dtype.bytes();
    let shape: Vec<usize> = ranges.iter().map(|r| r.len()).collect();
    let mut bytes = Vec::with_capacity(shape.iter().product::<usize>() * size);
    let (inner, outer) = ranges.split_last().expect("at least one dimension");
    let width = tensor.shape[ranges.len() - 1];
    // An odometer over the outer dimensions; the last one is copied whole.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{DType, Family, attention};

    /// A cropped problem's reference is the crop of the whole problem's reference.
    fn crop_commutes(problem: &Problem, crop: &Crop) {
        let inputs = problem.inputs(&Family::default(), 3);
        let specs: Vec<_> =
            problem.tensors().into_iter().filter(|t| t.role == Role::Output).collect();
        let whole: Vec<Tensor> = problem
            .reference(&inputs)
            .into_iter()
            .zip(&specs)
            .map(|(x, t)| Tensor::from_f64(DType::Fp32, &t.shape, x))
            .collect();
        let cut = problem.crop_tensors(Role::Output, &whole, crop);
        let small = problem.crop(crop);
        let got = small.reference(&problem.crop_tensors(Role::Input, &inputs, crop));
        for (cut, got) in cut.iter().zip(&got) {
            assert_eq!(cut.len(), got.len());
            for (i, x) in got.iter().enumerate() {
                let want = cut.get(i);
                assert!(
                    (want - x).abs() <= 1e-6 * (1.0 + x.abs()) || want == *x,
                    "{i}: {want} {x}"
                );
            }
        }
    }

    #[test]
    fn attention_rows_and_heads() {
        for (tq, tkv, causal) in
            [(150, 150, true), (70, 150, true), (150, 70, true), (70, 150, false)]
        {
            let shape = attention::Shape {
                dtype: DType::Bf16,
                b: 2,
                tq,
                tkv,
                hq: 4,
                hkv: 2,
                d: 8,
                causal,
                scale: 0.3,
                extras: attention::Extras { dv: Some(4), ..Default::default() },
            };
            for rows in [0..tq, 10..61, tq - 1..tq] {
                crop_commutes(&Problem::Attention(shape.clone()), &Crop { b: 1, head: 3, rows });
            }
        }
    }

    #[test]
    fn packed_rows() {
        for window in [None, Some(30)] {
            let mut shape = attention::Shape {
                dtype: DType::Bf16,
                b: 1,
                tq: 0,
                tkv: 0,
                hq: 4,
                hkv: 2,
                d: 8,
                causal: true,
                scale: 0.3,
                extras: attention::Extras { window, ..Default::default() },
            };
            shape.pack(vec![[70, 70], [60, 100], [5, 3], [90, 90]]);
            for causal in [true, window.is_some()] {
                shape.causal = causal;
                for rows in [0..225, 0..10, 65..75, 60..140, 131..132, 200..225] {
                    crop_commutes(
                        &Problem::Attention(shape.clone()),
                        &Crop { b: 0, head: 3, rows },
                    );
                }
            }
        }
    }

    #[test]
    fn delta_heads() {
        let shape = delta::Shape {
            dtype: DType::Bf16,
            b: 2,
            t: 20,
            h: 2,
            hv: 4,
            k: 8,
            v: 16,
            initial_state: true,
            final_state: true,
            scale: 0.3,
        };
        let crop = Crop { b: 1, head: 2, rows: 0..20 };
        crop_commutes(&Problem::GatedDeltaRule(shape.clone()), &crop);
        crop_commutes(&Problem::Kda(shape), &crop);
    }
}
