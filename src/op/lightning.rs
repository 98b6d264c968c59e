//! Lightning attention (MiniMax-Text-01): linear attention with a fixed decay a head.
//!
//! ```text
//! S = exp(-s_h) S + k_t v_t^T;  o_t = scale * S^T q_t
//! ```
//!
//! The scale is 1 unless given: the checkpoints have no `K^-0.5`. Their slopes, for head `h` of `H`
//! in layer `l` of `L`, are `s_h = 2^(-8(h+1)/H) (1 - l/(L-1) + 1e-5)`.

use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;

use super::draw::{fill_normal, normal_tensor, sigmoid};
use super::family::{Part, Slope};
use super::operator::{
    Default, Face, Mark, Operator, Phase, PhaseName, Role, Side, Suite, Variable, Work,
};
use super::packed;
use super::recurrence::{self, DIM};
use super::value::{Kind, Scalar, Value};
use super::{DType, Family, Problem, Tensor, TensorSpec};

/// Lightning attention.
pub struct Lightning;

static VARIABLES: [Variable; 11] = [
    recurrence::sequences(),
    recurrence::tokens(),
    Variable::row(
        "H",
        "h",
        Kind::Count,
        Default::Need { example: "64", small: Value::Count(1) },
        Role::Heads,
        "heads",
    ),
    Variable::row("K", "k", Kind::Count, DIM, Role::Key, "key dimension of a head"),
    Variable::row("V", "v", Kind::Count, DIM, Role::Channel, "value dimension of a head"),
    recurrence::initial_state(),
    recurrence::final_state(),
    Variable::row(
        "scale",
        "scale",
        Kind::Number,
        Default::Is(Value::Number(1.0)),
        Role::Scale,
        "factor of the queries",
    ),
    recurrence::state(),
    recurrence::context(),
    packed::lens(),
];

/// Chunk length in the FLOP count; the kernels' own chunks may differ.
const C: f64 = 64.0;

impl Operator for Lightning {
    fn face(&self) -> Face {
        Face {
            name: "lightning",
            summary: "linear attention with a fixed decay a head",
            class: "lightning",
            // Okabe and Ito's reddish purple.
            light: "#a34b7e",
            dark: "#e08fc0",
            mark: Mark::Diamond,
            side: Side::Linear,
        }
    }

    fn variables(&self) -> &'static [Variable] {
        &VARIABLES
    }

    fn phases(&self) -> &'static [Phase] {
        &recurrence::PHASES
    }

    fn parts(&self) -> &'static [Part] {
        &[Part::Keys, Part::Slope]
    }

    fn derived(&self, p: &Problem) -> Vec<(&'static str, Scalar)> {
        packed::derived(p)
    }

    /// q and k `[B,T,H,K]`, v `[B,T,H,V]`, s `[H]` fp32, initial_state `[N,H,K,V]` if given; o as
    /// v, final_state `[N,H,K,V]` if asked for. N = B; states are fp32 unless their format says
    /// otherwise. N packed sequences have B = 1 and cu_seqlens `[N+1]` i32, as the delta rules.
    fn tensors(&self, p: &Problem) -> Vec<TensorSpec> {
        let (dtype, state) = (p.dtype(), p.format("state"));
        vec![
            p.input("q", dtype, "B T H K"),
            p.input("k", dtype, "B T H K"),
            p.input("v", dtype, "B T H V"),
            p.input("s", DType::Fp32, "H"),
            p.input("initial_state", state, "N H K V").only_if(p.flag("initial_state")),
            p.input("cu_seqlens", DType::I32, "N+1").only_if(!p.lens().is_empty()),
            p.output("o", dtype, "B T H V"),
            p.output("final_state", state, "N H K V").only_if(p.flag("final_state")),
        ]
    }

    /// Prefill counts the chunked form: two products with the state and two inside the chunk.
    /// Decode and verify count the steps of the recurrence, K V a token for the decay and 2 K V
    /// each for the update and `S^T q`. The reference takes those steps in every phase, at about a
    /// quarter of the rate of a matrix product.
    fn work(&self, p: &Problem) -> Work {
        let [b, t, h, k, v] = ["B", "T", "H", "K", "V"].map(|name| p.count(name) as f64);
        let (each, formula) = match p.phase() {
            PhaseName::Prefill => {
                (4.0 * k * v + 2.0 * C * (k + v), "B*T*H*(4*K*V + 2*C*(K+V)), C = 64")
            }
            PhaseName::Decode | PhaseName::Verify => (5.0 * k * v, "B*T*H*5*K*V"),
        };
        let tokens = b * t * h;
        Work { flops: tokens * each, formula, reference_flops: 4.0 * 5.0 * tokens * k * v }
    }

    /// q, k and v pass through SiLU, as in the model. q and k are multiplied by `K^(-1/4)`, which
    /// keeps scores near unit size.
    fn inputs(&self, p: &Problem, family: &Family, seed: u64) -> Vec<Tensor> {
        let (specs, k) = (p.tensors(), p.count("K"));
        let silu = |spec: &TensorSpec, mut x: Vec<f32>, factor: f32| {
            x.par_iter_mut().for_each(|x| *x *= sigmoid(*x) * factor);
            Tensor::from_f32(spec.dtype, &spec.shape, &x)
        };
        let normal = |spec: &TensorSpec, stream| {
            let mut x = vec![0f32; spec.elements()];
            fill_normal(&mut x, seed, stream);
            x
        };
        let unit = (k as f32).powf(-0.25);
        let keys = recurrence::keys(&specs[1], p.count("H") * k, family, seed);
        let mut all = vec![
            silu(&specs[0], normal(&specs[0], 0), unit),
            silu(&specs[1], keys, unit),
            silu(&specs[2], normal(&specs[2], 2), 1.0),
            Tensor::from_f64(DType::Fp32, &specs[3].shape, slopes(p.count("H"), family.slope)),
        ];
        if p.flag("initial_state") {
            all.push(normal_tensor(&specs[4], seed, 5, 0.5));
        }
        all.extend(p.cu_seqlens().into_iter().map(|(_, starts)| starts));
        all
    }

    fn reference(&self, p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>> {
        reference(p, inputs)
    }

    /// The largest E/F that passes: 3.5 for o, 2 for final_state.
    ///
    /// A chunked kernel rounds decayed scores, keys and the state to the operand type, each once
    /// beside the output, and nothing cancels as in the delta rules: sound kernels stand at 1 to 1.6
    /// floors over lengths and slopes, at 3.3 on a few hundred elements of one token, and those that
    /// round nothing at 1. A state is a sum of rounded products in fp32, 0.9 floors; one kept in 16
    /// bits is rounded once, 1.
    fn limit(&self, _: &Problem, _: &Family, output: &str) -> f64 {
        if output == "o" { 3.5 } else { 2.0 }
    }

    fn has_prefix_property(&self, p: &Problem) -> bool {
        p.tokens() > 1
    }

    fn suite(&self, phase: PhaseName) -> Suite {
        const FAMILIES: &[&str] = &[
            "random",
            "slope=middle",
            "slope=last",
            "slope=zero",
            "slope=steep",
            "keys=identical",
            "keys=correlated",
            "keys=identical slope=zero",
            "keys=identical slope=steep",
        ];
        let plain = Suite::plain(FAMILIES, recurrence::own_axes(phase));
        Suite { extras: recurrence::extras, ..plain }
    }

    fn layer(&self, p: &Problem) -> String {
        recurrence::layer(p, format!("H {}", p.count("H")))
    }

    fn doubt(&self, name: &str, tensor: &Tensor) -> Option<&'static str> {
        let grows = name == "s" && (0..tensor.len()).any(|i| tensor.get(i) < 0.0);
        grows.then_some("values below 0 are no decay: the state is multiplied by exp(-s)")
    }
}

/// The s of each head.
fn slopes(heads: usize, slope: Slope) -> Vec<f64> {
    let place = match slope {
        Slope::First => 0.0,
        Slope::Middle => 0.5,
        Slope::Last => 1.0,
        Slope::At(x) => x,
        Slope::Zero => return vec![0.0; heads],
        Slope::Steep => return vec![5.0; heads],
    };
    let slope = |h: usize| 2f64.powf(-8.0 * (h + 1) as f64 / heads as f64) * (1.0 - place + 1e-5);
    (0..heads).map(slope).collect()
}

/// The recurrence in fp64, token by token of each sequence: o, then the final state if asked for.
fn reference(p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let [h, k, v] = ["H", "K", "V"].map(|name| p.count(name));
    let scale = p.number("scale").unwrap_or(1.0);
    let [qs, ks, vs, s] = [0, 1, 2, 3].map(|i| inputs[i].to_f64());
    let start = p.flag("initial_state").then(|| inputs[4].to_f64());
    let mut o = vec![0.0; vs.len()];
    let sequences = packed::sequences_of(p);
    let mut last = vec![0.0; sequences.len() * h * k * v];
    for (n, h, at) in (0..sequences.len()).flat_map(|n| (0..h).map(move |i| (n, i, n * h + i))) {
        let state = at * k * v..(at + 1) * k * v;
        let mut m = match &start {
            Some(x) => Array2::from_shape_vec((k, v), x[state.clone()].to_vec()),
            None => Ok(Array2::zeros((k, v))),
        }
        .expect("a full state");
        let (heads, decay) = (s.len(), (-s[h]).exp());
        for t in sequences[n].clone() {
            let row = t * heads + h;
            let value = &vs[row * v..(row + 1) * v];
            // S = exp(-s) S + k v^T
            for (key, mut state) in ks[row * k..(row + 1) * k].iter().zip(m.rows_mut()) {
                state.iter_mut().zip(value).for_each(|(x, v)| *x = decay * *x + key * v);
            }
            // o = scale S^T q
            let out = ArrayView1::from(&qs[row * k..(row + 1) * k]).dot(&m) * scale;
            o[row * v..(row + 1) * v].copy_from_slice(out.as_slice().expect("contiguous"));
        }
        last[state].copy_from_slice(m.as_slice().expect("contiguous"));
    }
    if p.flag("final_state") { vec![o, last] } else { vec![o] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Op;

    fn problem(phase: PhaseName, settings: &str) -> Problem {
        Problem::parse(Op::parse("lightning").unwrap(), phase, settings).unwrap()
    }

    #[test]
    fn slopes_are_the_checkpoints() {
        // MiniMax-Text-01: 64 heads, 80 layers.
        let first = slopes(64, Slope::First);
        assert!((first[0] - 2f64.powf(-0.125) * 1.00001).abs() < 1e-12);
        assert!((first[63] - 2f64.powi(-8) * 1.00001).abs() < 1e-12);
        assert!(slopes(64, Slope::Last).iter().all(|s| *s < 1e-5 && *s > 0.0));
        assert_eq!(slopes(2, Slope::At(0.5)), slopes(2, Slope::Middle));
        assert_eq!((slopes(2, Slope::Zero), slopes(1, Slope::Steep)), (vec![0.0; 2], vec![5.0]));
    }

    /// Against the sum over all earlier tokens, which has no state.
    #[test]
    fn the_recurrence_is_a_decayed_sum_over_the_past() {
        let p = problem(PhaseName::Prefill, "T=23,H=2,K=8,V=4,scale=0.7,final_state=false");
        for family in ["random", "slope=steep", "slope=zero keys=identical"] {
            let inputs = p.inputs(&family.parse().unwrap(), 3);
            let o = &p.reference(&inputs)[0];
            let at = |i: usize, row: usize, n: usize, c: usize| inputs[i].get(row * n + c);
            for (t, h, c) in [(0, 0, 0), (5, 1, 3), (22, 0, 1), (22, 1, 2)] {
                let mut want = 0.0;
                for past in 0..=t {
                    let (q, k) = (t * 2 + h, past * 2 + h);
                    let score: f64 = (0..8).map(|i| at(0, q, 8, i) * at(1, k, 8, i)).sum();
                    let decay = (-inputs[3].get(h) * (t - past) as f64).exp();
                    want += 0.7 * decay * score * at(2, k, 4, c);
                }
                assert!((o[(t * 2 + h) * 4 + c] - want).abs() < 1e-12, "{family} {t} {h} {c}");
            }
        }
    }

    /// The state after a prefill, and one more token: what the prefill of both gives.
    #[test]
    fn a_step_of_decode_goes_on_where_prefill_ended() {
        let whole = problem(PhaseName::Prefill, "T=7,H=2,K=8,V=4");
        let inputs = whole.inputs(&Family::default(), 3);
        let want = whole.reference(&inputs);
        let cut = |i: usize, tokens: std::ops::Range<usize>| {
            let row = inputs[i].shape[2] * inputs[i].shape[3];
            let x = (tokens.start * row..tokens.end * row).map(|j| inputs[i].get(j));
            Tensor::from_f64(inputs[i].dtype, &[1, tokens.len(), 2, row / 2], x)
        };
        let of = |tokens: std::ops::Range<usize>| {
            let mut all: Vec<_> = (0..3).map(|i| cut(i, tokens.clone())).collect();
            all.push(inputs[3].clone());
            all
        };
        let before = whole.with("T", 6).reference(&of(0..6));
        let step = problem(PhaseName::Decode, "H=2,K=8,V=4,context=6");
        let mut last = of(6..7);
        last.push(Tensor::from_f64(DType::Fp32, &[1, 2, 8, 4], before[1].iter().copied()));
        let got = step.reference(&last);
        let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6);
        assert!(near(&got[0], &want[0][6 * 8..]) && near(&got[1], &want[1]));
        assert_eq!(step.flops(), 2.0 * 5.0 * 8.0 * 4.0);
    }
}
