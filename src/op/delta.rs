//! The delta rules: GDN (one decay a head and token) and KDA (one a head, token and channel).
//!
//! ```text
//! S = diag(exp g_t) S;  e = v_t - S^T k_t;  S += beta_t k_t e^T;  o_t = scale * S^T q_t
//! ```
//!
//! One recurrence serves both: GDN's decay is the same for every channel.

use indexmap::{IndexMap, indexmap};
use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::inputs::{self, Family, Keys};
use super::{DType, Scalar, Tensor, TensorSpec};

/// Whether the decay is one number a head and token, or one a key channel as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// g `[B,T,HV]`
    Scalar,
    /// g `[B,T,HV,K]`
    PerChannel,
}

/// A prefill problem. The query/key head of value head `hv` is `hv / (HV/H)`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Shape {
    pub dtype: DType,
    pub b: usize,
    pub t: usize,
    pub h: usize,
    pub hv: usize,
    pub k: usize,
    pub v: usize,
    /// Start from a given state instead of zero.
    pub initial_state: bool,
    /// Write the state after the last token.
    pub final_state: bool,
    pub scale: f64,
}

/// Chunk length in the FLOP count; the kernels' own chunks may differ.
const C: f64 = 64.0;
pub const FLOPS_FORMULA: &str = "B*T*HV*(6*K*V + 4*C*(K+V)), C = 64";

impl Shape {
    pub fn vars(&self) -> IndexMap<&'static str, Scalar> {
        let int = |x: usize| Scalar::Int(x as i64);
        indexmap! {
            "B" => int(self.b), "T" => int(self.t), "H" => int(self.h), "HV" => int(self.hv),
            "K" => int(self.k), "V" => int(self.v),
            "initial_state" => Scalar::Bool(self.initial_state),
            "final_state" => Scalar::Bool(self.final_state),
            "scale" => Scalar::Float(self.scale),
        }
    }

    /// q and k `[B,T,H,K]`, v `[B,T,HV,V]`, g `[B,T,HV]` or `[B,T,HV,K]` fp32, beta `[B,T,HV]`
    /// fp32, initial_state `[N,HV,K,V]` fp32 if given; o as v, final_state `[N,HV,K,V]` fp32 if
    /// asked for. N = B.
    pub fn tensors(&self, gate: Gate) -> Vec<TensorSpec> {
        let Shape { dtype, b, t, h, hv, k, v, .. } = *self;
        let mut all = vec![
            TensorSpec::input("q", dtype, "B T H K", &[b, t, h, k]),
            TensorSpec::input("k", dtype, "B T H K", &[b, t, h, k]),
            TensorSpec::input("v", dtype, "B T HV V", &[b, t, hv, v]),
            match gate {
                Gate::Scalar => TensorSpec::input("g", DType::Fp32, "B T HV", &[b, t, hv]),
                Gate::PerChannel => TensorSpec::input("g", DType::Fp32, "B T HV K", &[b, t, hv, k]),
            },
            TensorSpec::input("beta", DType::Fp32, "B T HV", &[b, t, hv]),
        ];
        if self.initial_state {
            all.push(TensorSpec::input("initial_state", DType::Fp32, "N HV K V", &[b, hv, k, v]));
        }
        all.push(TensorSpec::output("o", dtype, "B T HV V", &[b, t, hv, v]));
        if self.final_state {
            all.push(TensorSpec::output("final_state", DType::Fp32, "N HV K V", &[b, hv, k, v]));
        }
        all
    }

    /// By [`FLOPS_FORMULA`]: the fused chunked form.
    pub fn flops(&self) -> f64 {
        let (k, v) = (self.k as f64, self.v as f64);
        (self.b * self.t * self.hv) as f64 * (6.0 * k * v + 4.0 * C * (k + v))
    }

    /// One sequence, one query/key head with its value heads.
    pub fn one_head_group(&self) -> (Shape, usize) {
        let small = Shape { b: 1, h: 1, hv: self.hv / self.h, ..self.clone() };
        (small, self.b * self.h)
    }
}

/// Inputs of the family in the order of [`Shape::tensors`]: q and k normalised to unit length,
/// as the models do.
pub fn inputs(s: &Shape, gate: Gate, family: &Family, seed: u64) -> Vec<Tensor> {
    let specs = s.tensors(gate);
    let mut q = vec![0f32; specs[0].elements()];
    let mut k = vec![0f32; specs[1].elements()];
    inputs::fill_normal(&mut q, seed, 0);
    inputs::fill_normal(&mut k, seed, 1);
    if family.keys != Keys::Normal {
        let mut base = vec![0f32; s.h * s.k];
        inputs::fill_normal(&mut base, seed, 7);
        let (rho, rest) = if family.keys == Keys::Identical { (1.0, 0.0) } else { (0.9, 0.436) };
        for row in k.chunks_mut(base.len()) {
            row.iter_mut().zip(&base).for_each(|(x, b)| *x = rho * b + rest * *x);
        }
    }
    for x in [&mut q, &mut k] {
        x.par_chunks_mut(s.k).for_each(|row| {
            let norm = (row.iter().map(|x| x * x).sum::<f32>() + 1e-6).sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        });
    }
    let channels = if gate == Gate::Scalar { 1 } else { s.k };
    let g = inputs::gates(specs[3].elements(), s.hv, channels, family, gate, seed);
    let beta = inputs::betas(specs[4].elements(), family, seed);
    let tensor = |i: usize, x: Vec<f32>| Tensor::from_f32(specs[i].dtype, &specs[i].shape, &x);
    let mut all = vec![
        tensor(0, q),
        tensor(1, k),
        inputs::normal_tensor(&specs[2], seed, 2, 1.0),
        tensor(3, g),
        tensor(4, beta),
    ];
    if s.initial_state {
        all.push(inputs::normal_tensor(&specs[5], seed, 5, 0.5));
    }
    all
}

/// The recurrence in fp64, token by token: o, then the final state if asked for.
pub fn reference(s: &Shape, gate: Gate, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let [q, k, v, g, beta] = [0, 1, 2, 3, 4].map(|i| inputs[i].to_f64());
    let start = s.initial_state.then(|| inputs[5].to_f64());
    let mut o = vec![0.0; v.len()];
    let mut last = vec![0.0; s.b * s.hv * s.k * s.v];
    for (b, hv) in (0..s.b).flat_map(|b| (0..s.hv).map(move |hv| (b, hv))) {
        let h = hv / (s.hv / s.h);
        let state = (b * s.hv + hv) * s.k * s.v..(b * s.hv + hv + 1) * s.k * s.v;
        let mut m = match &start {
            Some(x) => Array2::from_shape_vec((s.k, s.v), x[state.clone()].to_vec()),
            None => Ok(Array2::zeros((s.k, s.v))),
        }
        .expect("a full state");
        let mut e = vec![0.0; s.v];
        for t in 0..s.t {
            let (qk, hvt) = (((b * s.t + t) * s.h + h) * s.k, (b * s.t + t) * s.hv + hv);
            let (q, k) = (ArrayView1::from(&q[qk..qk + s.k]), &k[qk..qk + s.k]);
            let decay = |c: usize| match gate {
                Gate::Scalar => g[hvt].exp(),
                Gate::PerChannel => g[hvt * s.k + c].exp(),
            };
            // S = diag(exp g) S;  e = v - S^T k
            e.copy_from_slice(&v[hvt * s.v..(hvt + 1) * s.v]);
            for (c, mut row) in m.rows_mut().into_iter().enumerate() {
                row *= decay(c);
                e.iter_mut().zip(&row).for_each(|(e, s)| *e -= s * k[c]);
            }
            // S += beta k e^T
            for (c, mut row) in m.rows_mut().into_iter().enumerate() {
                let bk = beta[hvt] * k[c];
                row.iter_mut().zip(&e).for_each(|(s, e)| *s += bk * e);
            }
            // o = scale S^T q
            let out = q.dot(&m) * s.scale;
            o[hvt * s.v..(hvt + 1) * s.v].copy_from_slice(out.as_slice().expect("contiguous"));
        }
        last[state].copy_from_slice(m.as_slice().expect("contiguous"));
    }
    if s.final_state { vec![o, last] } else { vec![o] }
}
