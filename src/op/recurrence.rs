//! What linear operators share: a state of fixed size that each token decays, changes and reads.
//!
//! The two delta rules are here whole and differ in their gate ([`Gate`]): one number a head and
//! token in the gated delta rule, one a key channel as well in Kimi Delta Attention.
//!
//! ```text
//! S = diag(exp g_t) S;  e = v_t - S^T k_t;  S += beta_t k_t e^T;  o_t = scale * S^T q_t
//! ```

use ndarray::{Array2, ArrayView1};
use rayon::prelude::*;

use super::draw::{fill_normal, normal_tensor, sigmoid, uniform};
use super::family::{Beta, Decay, Keys, Part};
use super::operator::{
    DRAFTS, Default, Face, Operator, Own, Phase, PhaseName, Role, Suite, Variable, Work,
};
use super::packed::{self, both, ragged};
use super::value::{Kind, Scalar, Value};
use super::{DType, Family, Problem, Tensor, TensorSpec};

// Rows that every linear operator has.

/// The flag of a state that is read.
pub const fn initial_state() -> Variable {
    let off = Default::Is(Value::Flag(false));
    let doc = "start from a given state instead of zero";
    Variable::row("initial_state", "initial_state", Kind::Flag, off, Role::Option, doc)
}

/// The flag of a state that is written.
pub const fn final_state() -> Variable {
    let on = Default::Is(Value::Flag(true));
    let doc = "write the state after the last token";
    Variable::row("final_state", "final_state", Kind::Flag, on, Role::Option, doc)
}

/// The number format of both states.
pub const fn state() -> Variable {
    let fp32 = Default::Is(Value::Word("fp32"));
    let words = Kind::Word(&["fp32", "bf16", "fp16"]);
    let role = Role::Format { of: &["initial_state", "final_state"] };
    Variable::row("state", "state", words, fp32, role, "number format of the state in memory")
}

/// The tokens that the state stands for, in decode and verify.
pub const fn context() -> Variable {
    let need = Default::Need { example: "[1024, 4096]", small: Value::Count(256) };
    let doc = "tokens before, which the state stands for; no tensor and no work depends on it";
    Variable::row("context", "context", Kind::Count, need, Role::Context, doc)
}

/// Tokens a sequence.
pub const fn tokens() -> Variable {
    let need = Default::Need { example: "[1024, 4096]", small: Value::Count(256) };
    Variable::row("T", "t", Kind::Count, need, Role::Token, "tokens a sequence")
}

/// Sequences.
pub const fn sequences() -> Variable {
    let one = Default::Is(Value::Count(1));
    Variable::row("B", "b", Kind::Count, one, Role::Sequence, "sequences")
}

/// Prefill is drawn over T; decode and verify, with the state in and out, over the context.
pub static PHASES: [Phase; 3] = [
    Phase { name: PhaseName::Prefill, length: "T", lengths: &["T"], defaults: &[], ranges: &[] },
    Phase {
        name: PhaseName::Decode,
        length: "context",
        lengths: &["context"],
        defaults: &[
            ("T", Value::Count(1)),
            ("initial_state", Value::Flag(true)),
            ("final_state", Value::Flag(true)),
        ],
        ranges: &[("T", 1, 1)],
    },
    Phase {
        name: PhaseName::Verify,
        length: "context",
        lengths: &["context"],
        defaults: &[
            ("T", Value::Count(4)),
            ("initial_state", Value::Flag(true)),
            ("final_state", Value::Flag(true)),
        ],
        ranges: &[("T", DRAFTS.0, DRAFTS.1)],
    },
];

/// What the suites of linear operators vary of their own: states on and off, in verify new tokens.
pub fn own_axes(phase: PhaseName) -> &'static [Own] {
    const INITIAL: Own = Own::flag(|p, i| p.with("initial_state", i == 1));
    const FINAL: Own = Own::flag(|p, i| p.with("final_state", i == 1));
    const DRAFT: Own = Own { values: 4, set: |p, i| p.with("T", [2, 3, 8, 16][i]) };
    match phase {
        PhaseName::Prefill | PhaseName::Decode => &[INITIAL, FINAL],
        PhaseName::Verify => &[INITIAL, FINAL, DRAFT],
    }
}

/// In turns the problem as it is and with packed lengths; in decode and verify with its state in
/// fp32, bf16 and fp16 too.
pub fn extras(p: &Problem, turn: usize) -> Problem {
    // Every third case is looked at for more: extras take other turns.
    match (p.phase(), (turn + turn / 3) % 3) {
        (PhaseName::Prefill, 2) => p.pack(ragged(p.tokens(), turn / 2)),
        (PhaseName::Prefill, _) => p.clone(),
        (PhaseName::Decode, _) if turn % 5 == 4 => p.pack(vec![[1, 1]; 3]),
        (PhaseName::Verify, _) if turn % 5 == 4 => p.pack([p.tokens(), 2, 16, 3].map(both).into()),
        (_, 0) => p.clone(),
        (_, 1) => p.with("state", Value::Word("bf16")),
        _ => p.with("state", Value::Word("fp16")),
    }
}

/// `H 16, HV 32, K = V = 128, state in and out`: `heads`, then what all linear operators say.
pub fn layer(p: &Problem, heads: String) -> String {
    let (k, v) = (p.count("K"), p.count("V"));
    let dims = if k == v { format!("K = V = {k}") } else { format!("K {k}, V {v}") };
    let state = match (p.flag("initial_state"), p.flag("final_state")) {
        (false, _) => "",
        (true, false) => ", state in",
        (true, true) => ", state in and out",
    };
    let mut text = format!("{heads}, {dims}{state}");
    if *p.value("state") != Value::Word("fp32") {
        text += &format!(", state {}", p.value("state"));
    }
    if p.phase() == PhaseName::Verify {
        text += &format!(", {} new tokens", p.tokens());
    }
    match p.lens() {
        [] => text,
        lens => format!("{text}, {}", super::lens::words(lens)),
    }
}

/// Whether the decay is one number a head and token, or one a key channel as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// g `[B,T,HV]`
    Scalar,
    /// g `[B,T,HV,K]`
    PerChannel,
}

/// A delta rule: what differs between them is their face and their gate.
pub struct DeltaRule {
    pub face: Face,
    pub gate: Gate,
}

impl Operator for DeltaRule {
    fn face(&self) -> Face {
        self.face
    }

    fn variables(&self) -> &'static [Variable] {
        &VARIABLES
    }

    fn phases(&self) -> &'static [Phase] {
        &PHASES
    }

    fn parts(&self) -> &'static [Part] {
        &[Part::Gate, Part::Keys, Part::Beta]
    }

    fn derived(&self, p: &Problem) -> Vec<(&'static str, Scalar)> {
        packed::derived(p)
    }

    fn tensors(&self, p: &Problem) -> Vec<TensorSpec> {
        tensors(p, self.gate)
    }

    fn work(&self, p: &Problem) -> Work {
        work(p)
    }

    fn inputs(&self, p: &Problem, family: &Family, seed: u64) -> Vec<Tensor> {
        inputs(p, self.gate, family, seed)
    }

    fn reference(&self, p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>> {
        reference(p, self.gate, inputs)
    }

    fn limit(&self, _: &Problem, family: &Family, output: &str) -> f64 {
        limit(family, output)
    }

    fn has_prefix_property(&self, p: &Problem) -> bool {
        p.tokens() > 1
    }

    fn suite(&self, phase: PhaseName) -> Suite {
        Suite { extras, ..Suite::plain(FAMILIES, own_axes(phase)) }
    }

    fn layer(&self, p: &Problem) -> String {
        layer(p, format!("H {}, HV {}", p.count("H"), p.count("HV")))
    }

    fn doubt(&self, name: &str, tensor: &Tensor) -> Option<&'static str> {
        let grows = name == "g" && (0..tensor.len()).any(|i| tensor.get(i) > 0.0);
        grows.then_some("values above 0 are no decay: g is a natural logarithm")
    }
}

/// Rows of the delta rules. The query/key head of value head `hv` is `hv / (HV/H)`.
pub static VARIABLES: [Variable; 12] = [
    sequences(),
    tokens(),
    Variable::row(
        "H",
        "h",
        Kind::Count,
        Default::As("HV"),
        Role::Shared { of: "HV" },
        "query/key heads",
    ),
    Variable::row(
        "HV",
        "hv",
        Kind::Count,
        Default::Need { example: "32", small: Value::Count(1) },
        Role::Heads,
        "value heads",
    ),
    Variable::row("K", "k", Kind::Count, DIM, Role::Key, "key dimension of a head"),
    Variable::row("V", "v", Kind::Count, DIM, Role::Channel, "value dimension of a head"),
    initial_state(),
    final_state(),
    Variable::row(
        "scale",
        "scale",
        Kind::Number,
        Default::InverseRoot("K"),
        Role::Scale,
        "factor of the queries",
    ),
    state(),
    context(),
    packed::lens(),
];
/// A head's usual width.
pub const DIM: Default = Default::Is(Value::Count(128));

/// The variables, read.
struct Shape {
    b: usize,
    t: usize,
    h: usize,
    hv: usize,
    k: usize,
    v: usize,
}

impl Shape {
    fn of(p: &Problem) -> Shape {
        let [b, t, h, hv, k, v] = ["B", "T", "H", "HV", "K", "V"].map(|name| p.count(name));
        Shape { b, t, h, hv, k, v }
    }
}

/// q and k `[B,T,H,K]`, v `[B,T,HV,V]`, g `[B,T,HV]` or `[B,T,HV,K]` fp32, beta `[B,T,HV]`
/// fp32, initial_state `[N,HV,K,V]` if given; o as v, final_state `[N,HV,K,V]` if asked for. N = B;
/// states are fp32 unless their format says otherwise. N packed sequences have B = 1 and an input
/// more, cu_seqlens `[N+1]` i32: where each begins and the last ends. A sequence without tokens
/// leaves its state as it was, 0 if none is given.
fn tensors(p: &Problem, gate: Gate) -> Vec<TensorSpec> {
    let (dtype, state) = (p.dtype(), p.format("state"));
    let g = if gate == Gate::Scalar { "B T HV" } else { "B T HV K" };
    vec![
        p.input("q", dtype, "B T H K"),
        p.input("k", dtype, "B T H K"),
        p.input("v", dtype, "B T HV V"),
        p.input("g", DType::Fp32, g),
        p.input("beta", DType::Fp32, "B T HV"),
        p.input("initial_state", state, "N HV K V").only_if(p.flag("initial_state")),
        p.input("cu_seqlens", DType::I32, "N+1").only_if(!p.lens().is_empty()),
        p.output("o", dtype, "B T HV V"),
        p.output("final_state", state, "N HV K V").only_if(p.flag("final_state")),
    ]
}

/// Chunk length in the FLOP count; the kernels' own chunks may differ.
const C: f64 = 64.0;

/// Prefill counts the fused chunked form. Decode and verify count the steps of the recurrence, K V
/// a token for the decay and 2 K V each for `S^T k`, the update and `S^T q`. The reference takes
/// those steps in every phase, at about a quarter of the rate of a matrix product.
fn work(p: &Problem) -> Work {
    let s = Shape::of(p);
    let (k, v, tokens) = (s.k as f64, s.v as f64, (s.b * s.t * s.hv) as f64);
    let (each, formula) = match p.phase() {
        PhaseName::Prefill => {
            (6.0 * k * v + 4.0 * C * (k + v), "B*T*HV*(6*K*V + 4*C*(K+V)), C = 64")
        }
        PhaseName::Decode | PhaseName::Verify => (7.0 * k * v, "B*T*HV*7*K*V"),
    };
    Work { flops: tokens * each, formula, reference_flops: 4.0 * 7.0 * tokens * k * v }
}

/// Inputs of the family: q and k normalised to unit length, as the models do.
fn inputs(p: &Problem, gate: Gate, family: &Family, seed: u64) -> Vec<Tensor> {
    let (s, specs) = (Shape::of(p), p.tensors());
    let mut q = vec![0f32; specs[0].elements()];
    fill_normal(&mut q, seed, 0);
    let mut k = keys(&specs[1], s.h * s.k, family, seed);
    for x in [&mut q, &mut k] {
        x.par_chunks_mut(s.k).for_each(|row| {
            let norm = (row.iter().map(|x| x * x).sum::<f32>() + 1e-6).sqrt();
            row.iter_mut().for_each(|x| *x /= norm);
        });
    }
    let channels = if gate == Gate::Scalar { 1 } else { s.k };
    let g = gates(specs[3].elements(), s.hv, channels, family, gate, seed);
    let beta = betas(specs[4].elements(), family, seed);
    let tensor = |i: usize, x: Vec<f32>| Tensor::from_f32(specs[i].dtype, &specs[i].shape, &x);
    let mut all = vec![
        tensor(0, q),
        tensor(1, k),
        normal_tensor(&specs[2], seed, 2, 1.0),
        tensor(3, g),
        tensor(4, beta),
    ];
    if p.flag("initial_state") {
        all.push(normal_tensor(&specs[5], seed, 5, 0.5));
    }
    all.extend(p.cu_seqlens().into_iter().map(|(_, starts)| starts));
    all
}

/// Keys of the family: normal, or as near as it says to one token's keys, `row` values long.
pub fn keys(spec: &TensorSpec, row: usize, family: &Family, seed: u64) -> Vec<f32> {
    let mut k = vec![0f32; spec.elements()];
    fill_normal(&mut k, seed, 1);
    if family.keys != Keys::Normal {
        let mut base = vec![0f32; row];
        fill_normal(&mut base, seed, 7);
        let (rho, rest) = if family.keys == Keys::Identical { (1.0, 0.0) } else { (0.9, 0.436) };
        for row in k.chunks_mut(base.len()) {
            row.iter_mut().zip(&base).for_each(|(x, b)| *x = rho * b + rest * *x);
        }
    }
    k
}

/// g of every token, head and channel, `channels` contiguous.
fn gates(
    n: usize,
    heads: usize,
    channels: usize,
    family: &Family,
    kind: Gate,
    seed: u64,
) -> Vec<f32> {
    let mut g = vec![0f32; n];
    fill_normal(&mut g, seed, 3);
    g.par_chunks_mut(channels).enumerate().for_each(|(i, row)| {
        let gate = match family.gate {
            Decay::Mixed => [Decay::Strong, Decay::Mid, Decay::Slow][i % heads % 3],
            gate => gate,
        };
        for x in row {
            *x = match gate {
                Decay::Strong if kind == Gate::PerChannel => -5.0 * sigmoid(*x),
                Decay::Strong => -2.0 * uniform(*x),
                Decay::Mid | Decay::Mixed => -0.1 * uniform(*x),
                Decay::Slow => -0.001 * uniform(*x),
                Decay::Zero => 0.0,
                Decay::Saturated => -5.0,
                Decay::Unbounded => -16.0 * x.exp().ln_1p(),
                Decay::Mean(m) => 2.0 * m as f32 * uniform(*x),
            };
        }
    });
    g
}

/// beta of every token and head.
fn betas(n: usize, family: &Family, seed: u64) -> Vec<f32> {
    let mut beta = vec![0f32; n];
    fill_normal(&mut beta, seed, 4);
    for x in &mut beta {
        *x = match family.beta {
            Beta::Random => sigmoid(*x),
            Beta::Zero => 0.0,
            Beta::One => 1.0,
        };
    }
    beta
}

/// The recurrence in fp64, token by token of each sequence: o, then the final state if asked for.
fn reference(p: &Problem, gate: Gate, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let (s, scale) = (Shape::of(p), p.number("scale").unwrap_or(1.0));
    let [q, k, v, g, beta] = [0, 1, 2, 3, 4].map(|i| inputs[i].to_f64());
    let start = p.flag("initial_state").then(|| inputs[5].to_f64());
    let mut o = vec![0.0; v.len()];
    let sequences = packed::sequences_of(p);
    let mut last = vec![0.0; sequences.len() * s.hv * s.k * s.v];
    for (n, hv) in (0..sequences.len()).flat_map(|n| (0..s.hv).map(move |hv| (n, hv))) {
        let h = hv / (s.hv / s.h);
        let state = (n * s.hv + hv) * s.k * s.v..(n * s.hv + hv + 1) * s.k * s.v;
        let mut m = match &start {
            Some(x) => Array2::from_shape_vec((s.k, s.v), x[state.clone()].to_vec()),
            None => Ok(Array2::zeros((s.k, s.v))),
        }
        .expect("a full state");
        let mut e = vec![0.0; s.v];
        for t in sequences[n].clone() {
            let (qk, hvt) = ((t * s.h + h) * s.k, t * s.hv + hv);
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
            let out = q.dot(&m) * scale;
            o[hvt * s.v..(hvt + 1) * s.v].copy_from_slice(out.as_slice().expect("contiguous"));
        }
        last[state].copy_from_slice(m.as_slice().expect("contiguous"));
    }
    if p.flag("final_state") { vec![o, last] } else { vec![o] }
}

/// The largest E/F that passes: twice what the recurrence itself loses when it carries its state in
/// fp32 and rounds what it multiplies (S, k, q and beta e) to the operands' precision, as any kernel on
/// tensor cores must.
///
/// | inputs | o | final_state | the recurrence's o, final_state |
/// |---|---|---|---|
/// | strong, saturated or unbounded gate | 3.5 | 2.2 | 1.7 to 1.8, 0.9 to 1.2 |
/// | other gates | 3.8 | 2.7 | 1.7 to 2.0, 0.9 to 1.4 |
/// | other gates, beta = 1 | 4.4 | 3.4 | 1.8 to 2.2, 1.1 to 1.8 |
///
/// In bf16 and fp16 alike, with one gate a head or one a channel, from 64 tokens to 8192. How keys
/// relate is in no row, as it is in no error of the recurrence: identical keys are as well conditioned as
/// any. A chunked kernel may lose more on them, since its pseudo-values U are differences of neighbours
/// that cancel where keys repeat, while their roundings stay; that is the kernel's own error, and its
/// manifest says so.
fn limit(family: &Family, output: &str) -> f64 {
    let forgets = match family.gate {
        Decay::Strong | Decay::Saturated | Decay::Unbounded => true,
        Decay::Mean(m) => m <= -1.0,
        Decay::Mid | Decay::Slow | Decay::Mixed | Decay::Zero => false,
    };
    let [o, state] = match family.beta {
        _ if forgets => [3.5, 2.2],
        Beta::Random | Beta::Zero => [3.8, 2.7],
        Beta::One => [4.4, 3.4],
    };
    if output == "final_state" { state } else { o }
}

/// Every gate meets every relation of keys.
const FAMILIES: &[&str] = &[
    "random",
    "gate=strong",
    "gate=slow",
    "gate=mixed",
    "gate=zero",
    "gate=saturated",
    "gate=unbounded",
    "keys=correlated",
    "gate=strong keys=correlated",
    "gate=slow keys=correlated beta=1",
    "gate=mixed keys=correlated",
    "gate=zero keys=correlated",
    "gate=saturated keys=correlated",
    "gate=unbounded keys=correlated",
    "keys=identical",
    "gate=strong keys=identical",
    "gate=slow keys=identical",
    "gate=mixed keys=identical",
    "gate=zero keys=identical beta=1",
    "gate=saturated keys=identical",
    "gate=unbounded keys=identical",
    "beta=0",
    "beta=1",
    "gate=zero beta=1",
];

#[cfg(test)]
#[path = "recurrence_tests.rs"]
mod tests;
