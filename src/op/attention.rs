//! Softmax attention: `o = softmax(scale * q k^T) v`, with grouped key/value heads.

use indexmap::{IndexMap, indexmap};
use ndarray::{Array3, Array4, s};
use serde::{Deserialize, Serialize};

use super::inputs::{Family, Keys, Logits, fill_normal, normal_tensor};
use super::{DType, Scalar, Tensor, TensorSpec};

/// A prefill problem. A causal mask is aligned to the bottom right, as in FlashAttention: query
/// row `i` sees keys `j <= i + Tkv - Tq`. A row that sees no key gives `o = 0`, `lse = -inf`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub dtype: DType,
    pub b: usize,
    pub tq: usize,
    pub tkv: usize,
    pub hq: usize,
    pub hkv: usize,
    pub d: usize,
    pub causal: bool,
    pub scale: f64,
}

impl Shape {
    pub fn vars(&self) -> IndexMap<&'static str, Scalar> {
        let int = |x: usize| Scalar::Int(x as i64);
        indexmap! {
            "B" => int(self.b), "Tq" => int(self.tq), "Tkv" => int(self.tkv),
            "Hq" => int(self.hq), "Hkv" => int(self.hkv), "D" => int(self.d),
            "causal" => Scalar::Bool(self.causal), "scale" => Scalar::Float(self.scale),
        }
    }

    /// q `[B,Tq,Hq,D]`, k and v `[B,Tkv,Hkv,D]`; o as q, lse `[B,Hq,Tq]` fp32, natural log.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let q = [self.b, self.tq, self.hq, self.d];
        let kv = [self.b, self.tkv, self.hkv, self.d];
        vec![
            TensorSpec::input("q", self.dtype, "B Tq Hq D", &q),
            TensorSpec::input("k", self.dtype, "B Tkv Hkv D", &kv),
            TensorSpec::input("v", self.dtype, "B Tkv Hkv D", &kv),
            TensorSpec::output("o", self.dtype, "B Tq Hq D", &q),
            TensorSpec::output("lse", DType::Fp32, "B Hq Tq", &[self.b, self.hq, self.tq]),
        ]
    }

    /// Two products of `2 D` a visible query-key pair; the causal mask counts at half of
    /// `Tq * Tkv`, as every published figure does.
    pub fn flops(&self) -> f64 {
        let pairs = self.b as f64 * self.hq as f64 * self.tq as f64 * self.tkv as f64;
        4.0 * self.d as f64 * pairs * if self.causal { 0.5 } else { 1.0 }
    }

    pub fn flops_formula(&self) -> &'static str {
        if self.causal { "4*B*Hq*Tq*Tkv*D / 2" } else { "4*B*Hq*Tq*Tkv*D" }
    }

    /// One sequence, one key/value head with its query heads.
    pub fn one_head_group(&self) -> (Shape, usize) {
        let small = Shape { b: 1, hq: self.hq / self.hkv, hkv: 1, ..self.clone() };
        (small, self.b * self.hkv)
    }
}

/// q, k, v of the family, rounded to their storage type.
pub fn inputs(s: &Shape, family: &Family, seed: u64) -> Vec<Tensor> {
    let specs = s.tensors();
    let q_scale = match family.logits {
        Logits::Normal | Logits::Sink => 1.0,
        Logits::Huge => 16.0,
    };
    let q = normal_tensor(&specs[0], seed, 0, q_scale);
    let mut k = vec![0f32; specs[1].elements()];
    fill_normal(&mut k, seed, 1);
    let row = s.hkv * s.d;
    for (token, row) in k.chunks_mut(row).enumerate().map(|(i, r)| (i % s.tkv, r)) {
        match family.keys {
            Keys::Normal => {}
            // Every key of a head is the same vector: uniform softmax.
            Keys::Identical => row.iter_mut().enumerate().for_each(|(i, x)| *x = fixed(i % s.d)),
            Keys::Correlated => {
                row.iter_mut().enumerate().for_each(|(i, x)| *x = 0.9 * fixed(i % s.d) + 0.436 * *x)
            }
        }
        // A sink: the first key points along a direction with a large norm.
        if family.logits == Logits::Sink && token == 0 {
            row.iter_mut().enumerate().for_each(|(i, x)| *x = 6.0 * fixed(i % s.d));
        }
    }
    let k = Tensor::from_f64(s.dtype, &specs[1].shape, k.into_iter().map(f64::from));
    vec![q, k, normal_tensor(&specs[2], seed, 2, 1.0)]
}

/// A fixed vector with entries of about unit size.
fn fixed(i: usize) -> f32 {
    ((i as f32) * 12.9898 + 0.5).sin() * std::f32::consts::SQRT_2
}

/// Plain softmax in fp64: o, then lse. Heads and blocks of rows are independent of each other.
///
/// Cost: `4 B Hq Tq Tkv D` operations (half when causal); crop the problem first where one head
/// or a few rows are enough.
pub fn reference(shape: &Shape, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let [q, k, v] = [0, 1, 2].map(|i| {
        let dims: [usize; 4] = inputs[i].shape.clone().try_into().expect("four dimensions");
        Array4::from_shape_vec(dims, inputs[i].to_f64()).expect("a full tensor")
    });
    let mut o = Array4::<f64>::zeros((shape.b, shape.tq, shape.hq, shape.d));
    let mut lse = Array3::<f64>::from_elem((shape.b, shape.hq, shape.tq), f64::NEG_INFINITY);
    for (b, hq) in (0..shape.b).flat_map(|b| (0..shape.hq).map(move |hq| (b, hq))) {
        let hkv = hq / (shape.hq / shape.hkv);
        for i0 in (0..shape.tq).step_by(ROWS) {
            let i1 = (i0 + ROWS).min(shape.tq);
            let seen = shape.visible(i1 - 1);
            let (k, v) = (k.slice(s![b, ..seen, hkv, ..]), v.slice(s![b, ..seen, hkv, ..]));
            let mut p = q.slice(s![b, i0..i1, hq, ..]).dot(&k.t()) * shape.scale;
            for (i, mut p) in (i0..i1).zip(p.rows_mut()) {
                let seen = shape.visible(i);
                p.slice_mut(s![seen..]).fill(0.0);
                if seen == 0 {
                    continue;
                }
                let mut p = p.slice_mut(s![..seen]);
                let max = p.fold(f64::NEG_INFINITY, |m, &x| m.max(x));
                p.mapv_inplace(|x| (x - max).exp());
                let sum = p.sum();
                p /= sum;
                lse[[b, hq, i]] = max + sum.ln();
            }
            o.slice_mut(s![b, i0..i1, hq, ..]).assign(&p.dot(&v));
        }
    }
    vec![o.into_raw_vec_and_offset().0, lse.into_raw_vec_and_offset().0]
}

/// Query rows the reference takes at once.
const ROWS: usize = 64;

impl Shape {
    /// How many keys query row `i` sees.
    pub fn visible(&self, i: usize) -> usize {
        if self.causal {
            (i + 1 + self.tkv).saturating_sub(self.tq).min(self.tkv)
        } else {
            self.tkv
        }
    }
}
