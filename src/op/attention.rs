//! Softmax attention: `o = softmax(scale * q k^T) v`, with grouped key/value heads.
//!
//! A causal mask is aligned to the bottom right, as in FlashAttention: query row `i` sees keys
//! `j <= i + Tkv - Tq`. A row that sees no key gives `o = 0`, `lse = -inf`. With a window, row `i`
//! sees no key `j <= i + Tkv - Tq - window` either, so at most `window` keys. With a soft cap,
//! scores are `softcap * tanh(scale * q k / softcap)`. Packed sequences lie one after another and
//! see none but their own keys.

use std::ops::Range;

use ndarray::{Array3, Array4, s};
use rayon::prelude::*;

use super::draw::{fill_normal, normal_tensor};
use super::family::{Keys, Logits, Part};
use super::operator::{
    Cut, DRAFTS, Default, Face, Fault, Mark, Operator, Own, Phase, PhaseName, Role, Seen, Side,
    Suite, Variable, Work,
};
use super::value::{Kind, Scalar, Value};
use super::{DType, Family, Problem, Tensor, TensorSpec};

/// Softmax attention.
pub struct Attention;

static VARIABLES: [Variable; 13] = [
    Variable::row("B", "b", Kind::Count, Default::Is(Value::Count(1)), Role::Sequence, "sequences"),
    Variable::row("Tq", "tq", Kind::Count, LENGTH, Role::Token, "query rows a sequence"),
    Variable::row("Tkv", "tkv", Kind::Count, LENGTH, Role::Past, "keys a sequence"),
    Variable::row("Hq", "hq", Kind::Count, HEADS, Role::Heads, "query heads"),
    Variable::row("Hkv", "hkv", Kind::Count, Default::As("Hq"), SHARED, "key/value heads"),
    Variable::row(
        "D",
        "d",
        Kind::Count,
        Default::Is(Value::Count(128)),
        Role::Key,
        "head dimension",
    ),
    Variable::row(
        "causal",
        "causal",
        Kind::Flag,
        CAUSAL,
        Role::Option,
        "bottom-right aligned mask",
    ),
    Variable::row(
        "scale",
        "scale",
        Kind::Number,
        Default::InverseRoot("D"),
        Role::Scale,
        "factor of the queries",
    ),
    Variable::row(
        "Dv",
        "dv",
        Kind::Count,
        Default::As("D"),
        Role::Channel,
        "head dimension of values",
    ),
    Variable::row(
        "window",
        "window",
        Kind::Count,
        Default::Nothing,
        Role::Option,
        "most keys a query row sees, the last ones; needs causal",
    ),
    Variable::row(
        "softcap",
        "softcap",
        Kind::Number,
        Default::Nothing,
        Role::Option,
        "scores become softcap * tanh(score / softcap)",
    ),
    Variable::row(
        "kv",
        "kv",
        Kind::Word(&["e4m3", "e5m2"]),
        Default::Nothing,
        Role::Format { of: &["k", "v"] },
        "number format of k and v, where it is not the precision's",
    ),
    Variable::row(
        "lens",
        "lens",
        Kind::Lens,
        Default::Nothing,
        Role::Lengths,
        "packed sequences of unequal lengths, in place of B and T: 1000+16x512, 5:1000 for 5 queries of 1000 keys, 0 for an empty one",
    ),
];
const LENGTH: Default = Default::Need { example: "[1024, 4096]", small: Value::Count(256) };
const HEADS: Default = Default::Need { example: "32", small: Value::Count(1) };
const CAUSAL: Default = Default::Need { example: "true", small: Value::Flag(false) };
const SHARED: Role = Role::Shared { of: "Hq" };

static PHASES: [Phase; 3] = [
    Phase {
        name: PhaseName::Prefill,
        length: "T",
        lengths: &["Tq", "Tkv"],
        defaults: &[],
        ranges: &[],
    },
    Phase {
        name: PhaseName::Decode,
        length: "context",
        lengths: &["Tkv"],
        defaults: &[("Tq", Value::Count(1)), ("causal", Value::Flag(true))],
        ranges: &[("Tq", 1, 1)],
    },
    Phase {
        name: PhaseName::Verify,
        length: "context",
        lengths: &["Tkv"],
        defaults: &[("Tq", Value::Count(4)), ("causal", Value::Flag(true))],
        ranges: &[("Tq", DRAFTS.0, DRAFTS.1)],
    },
];

/// The variables, read.
struct Shape {
    b: usize,
    tq: usize,
    tkv: usize,
    hq: usize,
    hkv: usize,
    d: usize,
    dv: usize,
    causal: bool,
    scale: f64,
    window: Option<usize>,
    softcap: Option<f64>,
}

impl Shape {
    fn of(p: &Problem) -> Shape {
        Shape {
            b: p.count("B"),
            tq: p.count("Tq"),
            tkv: p.count("Tkv"),
            hq: p.count("Hq"),
            hkv: p.count("Hkv"),
            d: p.count("D"),
            dv: p.count("Dv"),
            causal: p.flag("causal"),
            scale: p.number("scale").unwrap_or(1.0),
            window: p.get("window"),
            softcap: p.number("softcap"),
        }
    }

    /// Keys that query row `i` of a sequence of `tq` and `tkv` tokens sees.
    fn keys(&self, i: usize, tq: usize, tkv: usize) -> Range<usize> {
        if !self.causal {
            return 0..tkv;
        }
        let end = (i + 1 + tkv).saturating_sub(tq).min(tkv);
        let start = self.window.map_or(0, |w| (i + 1 + tkv).saturating_sub(tq + w));
        start.min(end)..end
    }

    /// Query-key pairs that the mask lets through in one head of a sequence of `tq` and `tkv`
    /// tokens. Exact up to 2^53.
    fn visible(&self, tq: usize, tkv: usize) -> f64 {
        let (q, k) = (tq as f64, tkv as f64);
        if !self.causal {
            return q * k;
        }
        // Rows see max(0, i + 1 + Tkv - Tq) keys: consecutive numbers up to Tkv, at most a window's.
        let sum = |n: f64| n * (n + 1.0) / 2.0;
        let least = (tkv as i64 - tq as i64).max(0) as f64;
        match self.window.map(|w| w as f64) {
            Some(w) if w < k => {
                let narrow = if least < w { sum(w) - sum(least) } else { 0.0 };
                narrow + w * (k - least.max(w))
            }
            _ => sum(k) - sum(least),
        }
    }
}

/// Query-key pairs that the mask lets through in one head: of one sequence, or of all packed ones.
fn visible_pairs(p: &Problem) -> f64 {
    let s = Shape::of(p);
    p.places().iter().map(|one| s.visible(one.q.len(), one.k.len())).sum()
}

impl Operator for Attention {
    fn face(&self) -> Face {
        Face {
            name: "attention",
            summary: "softmax attention with grouped key/value heads",
            class: "attention",
            // Okabe and Ito's vermilion, darkened or lightened to stand on paper.
            light: "#c2410c",
            dark: "#fb8c5a",
            mark: Mark::Circle,
            side: Side::Full,
        }
    }

    fn variables(&self) -> &'static [Variable] {
        &VARIABLES
    }

    fn phases(&self) -> &'static [Phase] {
        &PHASES
    }

    fn parts(&self) -> &'static [Part] {
        &[Part::Keys, Part::Logits]
    }

    fn fault(&self, p: &Problem) -> Option<Fault> {
        let s = Shape::of(p);
        if s.window.is_some() && !s.causal {
            return Some(Fault::wrong("window", "window: a sliding window needs causal = true"));
        }
        if let Some(cap) = s.softcap.filter(|c| *c <= 0.0) {
            let text = format!("softcap = {cap}: expected a number above 0");
            return Some(Fault::wrong("softcap", text));
        }
        // New tokens' own keys are in the cache. A sequence without any is padding.
        let short = |[q, k]: &[usize; 2]| (1..*q).contains(k);
        let own = [[s.tq, s.tkv]];
        let all = if p.lens().is_empty() { &own[..] } else { p.lens() };
        if p.phase() == PhaseName::Verify
            && let Some([q, k]) = all.iter().find(|l| short(l))
        {
            let text = format!(
                "Tkv = {k}: the keys of a sequence's Tq = {q} new tokens are among its Tkv: expected at least {q}"
            );
            return Some(Fault::wrong("Tkv", text));
        }
        None
    }

    /// `N` sequences, the longest of `Tmax` keys; `packed` where they lie one after another.
    fn derived(&self, p: &Problem) -> Vec<(&'static str, Scalar)> {
        let (s, lens) = (Shape::of(p), p.lens());
        let packed = !lens.is_empty();
        let n = if packed { lens.len() } else { s.b };
        let longest = lens.iter().map(|l| l[1]).max().unwrap_or(s.tkv);
        vec![
            ("packed", Scalar::Bool(packed)),
            ("N", Scalar::Int(n as i64)),
            ("Tmax", Scalar::Int(longest as i64)),
        ]
    }

    /// q `[B,Tq,Hq,D]`, k `[B,Tkv,Hkv,D]`, v `[B,Tkv,Hkv,Dv]`; o `[B,Tq,Hq,Dv]`, lse `[B,Hq,Tq]`
    /// fp32, natural log. Packed sequences have two inputs more, `cu_seqlens_q` and `cu_seqlens_kv`
    /// `[N+1]` i32: where each begins and the last ends.
    fn tensors(&self, p: &Problem) -> Vec<TensorSpec> {
        let (dtype, kv, packed) = (p.dtype(), p.format("kv"), !p.lens().is_empty());
        vec![
            p.input("q", dtype, "B Tq Hq D"),
            p.input("k", kv, "B Tkv Hkv D"),
            p.input("v", kv, "B Tkv Hkv Dv"),
            p.input("cu_seqlens_q", DType::I32, "N+1").only_if(packed),
            p.input("cu_seqlens_kv", DType::I32, "N+1").only_if(packed),
            p.output("o", dtype, "B Tq Hq Dv"),
            p.output("lse", DType::Fp32, "B Hq Tq"),
        ]
    }

    /// Each query-key pair that the mask lets through costs `2 D` operations for its score and `2
    /// Dv` for its value. A causal square has `T (T + 1) / 2` pairs; other projects count `T^2 /
    /// 2`, 1/T less.
    fn work(&self, p: &Problem) -> Work {
        let s = Shape::of(p);
        let pairs = visible_pairs(p) * (s.b * s.hq) as f64;
        Work {
            flops: 2.0 * (s.d + s.dv) as f64 * pairs,
            formula: "2*B*Hq*(visible pairs)*(D+Dv)",
            reference_flops: 4.0 * s.d as f64 * pairs.max((s.b * s.hq) as f64),
        }
    }

    /// Queries that see a key, keys that a query sees.
    fn seen(&self, p: &Problem) -> Option<Seen> {
        let shape = Shape::of(p);
        let seen = p.places().iter().fold((0, 0), |(tokens, past), one| {
            let (tq, tkv) = (one.q.len(), one.k.len());
            // Rows that see a key are the last ones, and what they see lies in one piece.
            let first = if shape.causal { tq.saturating_sub(tkv) } else { 0 };
            if first == tq || tkv == 0 {
                return (tokens, past);
            }
            (tokens + tq - first, past + tkv - shape.keys(first, tq, tkv).start)
        });
        Some(Seen { tokens: seen.0, past: seen.1 })
    }

    fn inputs(&self, p: &Problem, family: &Family, seed: u64) -> Vec<Tensor> {
        inputs(p, family, seed)
    }

    fn reference(&self, p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>> {
        reference(p, inputs)
    }

    /// A block of keys and rows of each sequence that `rows` meets. The mask is aligned to the
    /// bottom right, so a sequence that is cut behind a row loses the keys that no row before it
    /// sees.
    fn cut(&self, p: &Problem, rows: &Range<usize>) -> Option<Cut> {
        let s = Shape::of(p);
        let (mut lens, mut between) = (Vec::new(), Vec::new());
        let mut keys: Option<Range<usize>> = None;
        for one in p.places() {
            let (start, end) = (rows.start.max(one.q.start), rows.end.min(one.q.end));
            if start >= end {
                // The keys of a sequence without rows stay, where they lie between those of others.
                between.extend(keys.is_some().then_some([0, one.k.len()]));
                continue;
            }
            lens.append(&mut between);
            // Only the last sequence met is cut at its end, so the keys stay in one piece.
            let seen = s.keys(end - 1 - one.q.start, one.q.len(), one.k.len()).end;
            let tkv = if end < one.q.end { seen } else { one.k.len() };
            let first = keys.map_or(one.k.start, |k| k.start);
            keys = Some(first..one.k.start + tkv);
            lens.push([end - start, tkv]);
        }
        if p.lens().is_empty() {
            lens.clear();
        }
        Some(Cut { past: keys.unwrap_or(0..0), lens })
    }

    /// The largest E/F that passes.
    ///
    /// | output | bf16 | fp16 | tf32 |
    /// |---|---|---|---|
    /// | o | 1.6 | 1.6 | 3 |
    /// | o, huge or sink logits | 2.5 | 2.5 | 20, 10 |
    /// | lse | 0.05 | 0.05 | 8; 24 on huge or sink logits |
    ///
    /// *16 bits*: P is rounded once beside the output, so a sound kernel stands at about sqrt(2)
    /// floors where one key dominates and lower where P's errors average out. Long logits make
    /// softmax one-hot and turn fp32 noise of the logit into relative error. *tf32*: q, k, v arrive
    /// in fp32 and are rounded to 10 bits as operands, so a logit of size s is off by about
    /// sqrt(2) s floors, and P by as much; sink logits reach 6 and huge ones 16 times the usual
    /// size. *lse* is a sum in fp32 of products that are exact in fp32: its error is three orders
    /// below 16-bit rounding. In tf32 it is as far off as a logit is; with few keys logits cancel in
    /// it, so that E is large where lse happens to be small.
    fn limit(&self, p: &Problem, family: &Family, output: &str) -> f64 {
        match (output, p.dtype(), family.logits) {
            ("lse", DType::Tf32, Logits::Normal) => 8.0,
            ("lse", DType::Tf32, Logits::Huge | Logits::Sink) => 24.0,
            ("lse", ..) => 0.05,
            (_, DType::Tf32, Logits::Normal) => 3.0,
            (_, _, Logits::Normal) => 1.6,
            (_, DType::Tf32, Logits::Huge) => 20.0,
            (_, DType::Tf32, Logits::Sink) => 10.0,
            (_, _, Logits::Huge | Logits::Sink) => 2.5,
        }
    }

    fn is_causal(&self, p: &Problem) -> bool {
        p.flag("causal")
    }

    fn has_prefix_property(&self, p: &Problem) -> bool {
        let s = Shape::of(p);
        s.causal && s.tq > 1
    }

    fn measures(&self, p: &Problem, inputs: &[Tensor]) -> Vec<(&'static str, f64)> {
        measures(p, inputs)
    }

    /// From a size of 2^12 on, a score times log2(e) in fp32 is so coarse that the largest weight of a
    /// row is not 1 to 16 bits: it is rounded in P, as no weight of 1 is, and not in the sum.
    fn family_of(&self, p: &Problem, inputs: &[Tensor], family: &Family) -> Family {
        let is_large = measures(p, inputs).iter().any(|(name, x)| *name == SCORE && *x > 4096.0);
        match family.logits {
            Logits::Normal if is_large => Family { logits: Logits::Huge, ..*family },
            _ => *family,
        }
    }

    fn suite(&self, phase: PhaseName) -> Suite {
        const FAMILIES: &[&str] =
            &["random", "keys=identical", "keys=correlated", "logits=huge", "logits=sink"];
        const MASK: Own = Own::flag(|p, i| p.with("causal", i == 1));
        /// Tq beside Tkv: equal, less, more, 1.
        const CROSS: Own = Own {
            values: 4,
            set: |p, i| {
                let t = p.count("Tkv");
                p.with("Tq", [t, (t - t / 3).max(1), t + 37, 1][i])
            },
        };
        /// New tokens.
        const DRAFT: Own = Own { values: 4, set: |p, i| p.with("Tq", [2, 3, 8, 16][i]) };
        let own: &[Own] = match phase {
            PhaseName::Prefill => &[MASK, CROSS],
            PhaseName::Decode => &[MASK],
            PhaseName::Verify => &[MASK, DRAFT],
        };
        Suite { families: FAMILIES, own, extras, uneven: |p| p.with("causal", true) }
    }

    fn layer(&self, p: &Problem) -> String {
        let s = Shape::of(p);
        let mut text = format!("Hq {}, Hkv {}, D {}", s.hq, s.hkv, s.d);
        if s.dv != s.d {
            text += &format!(", Dv {}", s.dv);
        }
        // One row sees every key, causal or not.
        if p.phase() != PhaseName::Decode {
            text += if s.causal { ", causal" } else { ", full" };
        }
        if p.phase() == PhaseName::Verify {
            text += &format!(", {} new tokens", s.tq);
        }
        if let Some(n) = p.get("Tkv") {
            text += &format!(", Tkv {n}");
        }
        if let Some(n) = s.window {
            text += &format!(", window {n}");
        }
        if let Some(cap) = s.softcap {
            text += &format!(", softcap {cap}");
        }
        if let Value::Word(kv) = p.value("kv") {
            text += &format!(", kv {kv}");
        }
        match p.lens() {
            [] => text,
            lens => format!("{text}, {}", super::lens::words(lens)),
        }
    }
}

/// In turns the problem as it is, with a window if causal, with a soft cap, with packed lengths in
/// prefill, and with all of them. Packed sequences are empty of queries, of keys and of both, first,
/// last and between others.
fn extras(p: &Problem, turn: usize) -> Problem {
    let (mut p, turn) = (p.clone(), turn % 5);
    let (q, k) = (p.count("Tq"), p.count("Tkv"));
    if matches!(turn, 1 | 4) && p.flag("causal") {
        p = p.with("window", k / 3 + 1);
    }
    if matches!(turn, 2 | 4) {
        p = p.with("softcap", 20.0);
    }
    if matches!(turn, 3 | 4) && p.phase() == PhaseName::Prefill {
        let third = [q.div_ceil(3), k.div_ceil(3)];
        p = p.pack(vec![[0, 7], third, [0, 0], [0, 0], [q, k], [1, k], [9, 0], [65, 63], [0, 0]]);
    }
    p
}

/// q, k, v of the family, rounded to their storage type.
fn inputs(p: &Problem, family: &Family, seed: u64) -> Vec<Tensor> {
    let (s, specs) = (Shape::of(p), p.tensors());
    let q_scale = match family.logits {
        Logits::Normal | Logits::Sink => 1.0,
        Logits::Huge => 16.0,
    };
    let q = normal_tensor(&specs[0], seed, 0, q_scale);
    let mut k = vec![0f32; specs[1].elements()];
    fill_normal(&mut k, seed, 1);
    let row = s.hkv * s.d;
    let starts: Vec<usize> = p.places().into_iter().map(|one| one.k.start).collect();
    for (token, row) in k.chunks_mut(row).enumerate().map(|(i, r)| (i % s.tkv, r)) {
        match family.keys {
            Keys::Normal => {}
            // Every key of a head is the same vector: uniform softmax.
            Keys::Identical => row.iter_mut().enumerate().for_each(|(i, x)| *x = fixed(i % s.d)),
            Keys::Correlated => {
                row.iter_mut().enumerate().for_each(|(i, x)| *x = 0.9 * fixed(i % s.d) + 0.436 * *x)
            }
        }
        // A sink: a sequence's first key points along a direction with a large norm.
        if family.logits == Logits::Sink && starts.binary_search(&token).is_ok() {
            row.iter_mut().enumerate().for_each(|(i, x)| *x = 6.0 * fixed(i % s.d));
        }
    }
    let k = Tensor::from_f64(specs[1].dtype, &specs[1].shape, k.into_iter().map(f64::from));
    let mut all = vec![q, k, normal_tensor(&specs[2], seed, 2, 1.0)];
    all.extend(p.cu_seqlens().into_iter().map(|(_, starts)| starts));
    all
}

/// A fixed vector with entries of about unit size.
fn fixed(i: usize) -> f32 {
    ((i as f32) * 12.9898 + 0.5).sin() * std::f32::consts::SQRT_2
}

const SCORE: &str = "score_bound";

/// What bounds the scores of these inputs, over the rows that see a key and the keys that a row sees:
/// `product_bound` is the largest norm of a query times the largest of a key of its head, which no
/// sum of their products exceeds at any point; `score_bound` that times the scale, or the soft cap
/// where it is less. Vectors that are not finite have no part: their scores are not either.
fn measures(p: &Problem, inputs: &[Tensor]) -> Vec<(&'static str, f64)> {
    let s = Shape::of(p);
    let largest = |t: &Tensor, heads: usize, rows: Range<usize>, h: usize| {
        let norm = |row: usize| {
            let start = (row * heads + h) * s.d;
            (start..start + s.d).map(|i| t.get(i).powi(2)).sum::<f64>().sqrt()
        };
        rows.into_par_iter().map(norm).filter(|x| x.is_finite()).reduce(|| 0.0, f64::max)
    };
    let mut most = 0f64;
    for (b, one) in (0..s.b).flat_map(|b| p.places().into_iter().map(move |one| (b, one))) {
        let (tq, tkv) = (one.q.len(), one.k.len());
        let sees = |i: &usize| !s.keys(*i, tq, tkv).is_empty();
        let Some(first) = (0..tq).find(sees) else { continue };
        let seen = s.keys(first, tq, tkv).start..s.keys(tq - 1, tq, tkv).end;
        let rows = b * s.tq + one.q.start + first..b * s.tq + one.q.end;
        let start = b * s.tkv + one.k.start;
        let keys: Vec<f64> = (0..s.hkv)
            .map(|h| largest(&inputs[1], s.hkv, start + seen.start..start + seen.end, h))
            .collect();
        for h in 0..s.hq {
            most = most.max(largest(&inputs[0], s.hq, rows.clone(), h) * keys[h / (s.hq / s.hkv)]);
        }
    }
    let score = most * s.scale.abs();
    vec![("product_bound", most), (SCORE, s.softcap.map_or(score, |cap| cap.min(score)))]
}

/// Plain softmax in fp64: o, then lse. Heads and blocks of rows are independent of each other. What a
/// row does not see has no part in it, be it NaN. A row whose scores are all -infinity is as one that
/// sees no key.
///
/// It costs `2 (D + Dv)` operations for each head and visible pair: crop the problem first where
/// one head or a few rows are enough.
fn reference(p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let shape = Shape::of(p);
    let [q, k, v] = [0, 1, 2].map(|i| {
        let dims: [usize; 4] = inputs[i].shape.clone().try_into().expect("four dimensions");
        Array4::from_shape_vec(dims, inputs[i].to_f64()).expect("a full tensor")
    });
    let mut o = Array4::<f64>::zeros((shape.b, shape.tq, shape.hq, shape.dv));
    let mut lse = Array3::<f64>::from_elem((shape.b, shape.hq, shape.tq), f64::NEG_INFINITY);
    let sequences = p.places();
    let is_finite = v.iter().all(|x| x.is_finite());
    for (b, hq) in (0..shape.b).flat_map(|b| (0..shape.hq).map(move |hq| (b, hq))) {
        let hkv = hq / (shape.hq / shape.hkv);
        for (s, i0) in
            sequences.iter().flat_map(|s| (0..s.q.len()).step_by(ROWS).map(move |i| (s, i)))
        {
            let (tq, tkv) = (s.q.len(), s.k.len());
            let i1 = (i0 + ROWS).min(tq);
            let rows = s.q.start + i0..s.q.start + i1;
            let (first, end) = (shape.keys(i0, tq, tkv).start, shape.keys(i1 - 1, tq, tkv).end);
            let keys = s.k.start + first..s.k.start + end.max(first);
            let k = k.slice(s![b, keys.clone(), hkv, ..]);
            let v = v.slice(s![b, keys, hkv, ..]);
            let mut p = q.slice(s![b, rows.clone(), hq, ..]).dot(&k.t()) * shape.scale;
            if let Some(cap) = shape.softcap {
                p.mapv_inplace(|x| cap * (x / cap).tanh());
            }
            for (i, mut p) in (i0..i1).zip(p.rows_mut()) {
                let seen = shape.keys(i, tq, tkv);
                if seen.is_empty() {
                    p.fill(0.0);
                    continue;
                }
                let seen = seen.start - first..seen.end - first;
                p.slice_mut(s![..seen.start]).fill(0.0);
                p.slice_mut(s![seen.end..]).fill(0.0);
                let mut p = p.slice_mut(s![seen]);
                if p.iter().all(|x| *x == f64::NEG_INFINITY) {
                    p.fill(0.0);
                    continue;
                }
                let max = p.fold(f64::NEG_INFINITY, |m, &x| m.max(x));
                p.mapv_inplace(|x| (x - max).exp());
                let sum = p.sum();
                p /= sum;
                lse[[b, hq, s.q.start + i]] = max + sum.ln();
            }
            let mut o = o.slice_mut(s![b, rows, hq, ..]);
            if is_finite {
                o.assign(&p.dot(&v));
                continue;
            }
            // A weight of 0 makes NaN of what is not finite: that goes to the rows alone that see it.
            o.assign(&p.dot(&v.mapv(|x| if x.is_finite() { x } else { 0.0 })));
            for ((j, c), x) in v.indexed_iter().filter(|(_, x)| !x.is_finite()) {
                let sees = |i: &usize| shape.keys(*i, tq, tkv).contains(&(first + j));
                for i in (i0..i1).filter(sees) {
                    o[[i - i0, c]] += p[[i - i0, j]] * x;
                }
            }
        }
    }
    vec![o.into_raw_vec_and_offset().0, lse.into_raw_vec_and_offset().0]
}

/// Query rows the reference takes at once.
const ROWS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Flow, Op, Role};

    fn problem(settings: &str) -> Problem {
        let op = Op::parse("attention").unwrap();
        Problem::parse(op, PhaseName::Prefill, settings).unwrap()
    }

    fn shape(tq: usize, tkv: usize, causal: bool) -> Problem {
        problem(&format!("Tq={tq},Tkv={tkv},Hq=2,Hkv=1,D=8,causal={causal},scale=0.3"))
    }

    /// Packed sequences give what each gives on its own.
    #[test]
    fn packing_is_a_loop_over_sequences() {
        for (causal, window) in [(false, 0), (true, 0), (true, 40)] {
            let packed = problem(&format!(
                "Hq=2,Hkv=1,D=8,Dv=4,causal={causal},window={window},softcap=2,scale=0.3,\
                 lens=70+1:130+150:90"
            ));
            let inputs = inputs(&packed, &Family::default(), 5);
            let got = reference(&packed, &inputs);
            let mut flops = 0.0;
            for s in packed.places() {
                let one = packed.pack(vec![]).with("Tq", s.q.len()).with("Tkv", s.k.len());
                flops += one.flops();
                let cut = |t: &Tensor, r: &Range<usize>| {
                    let row = t.shape[2] * t.shape[3];
                    let shape = [1, r.len(), t.shape[2], t.shape[3]];
                    let x = (r.start * row..r.end * row).map(|i| t.get(i));
                    Tensor::from_f64(t.dtype, &shape, x)
                };
                let alone = [cut(&inputs[0], &s.q), cut(&inputs[1], &s.k), cut(&inputs[2], &s.k)];
                let want = reference(&one, &alone);
                assert_eq!(got[0][s.q.start * 8..s.q.end * 8], want[0]);
                let (t, tq) = (packed.tokens(), one.tokens());
                for h in 0..2 {
                    let got = &got[1][h * t + s.q.start..h * t + s.q.end];
                    assert_eq!(got, &want[1][h * tq..(h + 1) * tq]);
                }
            }
            assert_eq!(packed.flops(), flops);
        }
    }

    #[test]
    fn a_wide_window_and_a_high_cap_change_nothing() {
        let plain = shape(90, 120, true);
        let inputs = inputs(&plain, &Family::default(), 5);
        let want = reference(&plain, &inputs);
        assert_eq!(reference(&plain.with("window", 120), &inputs), want);
        // One key alone: o is its value, lse its score.
        let one = reference(&plain.with("window", 1), &inputs);
        let v = |i: usize| inputs[2].get(i);
        assert!((0..8).all(|c| (one[0][c] - v((30) * 8 + c)).abs() < 1e-12));
        assert!(one[1].iter().zip(&want[1]).all(|(a, b)| a < b));
        let capped = reference(&plain.with("softcap", 1e6), &inputs);
        assert!(capped[0].iter().zip(&want[0]).all(|(a, b)| (a - b).abs() < 1e-6));
        // Nearly uniform: lse is ln of the number of keys.
        let flat = reference(&plain.with("softcap", 0.01), &inputs);
        assert!((flat[1][0] - 31f64.ln()).abs() < 0.011);
    }

    /// NaN of a key or value reaches the rows that see it, wherever a block of rows begins.
    #[test]
    fn rows_have_no_part_in_what_they_do_not_see() {
        let nan =
            |t: &mut Tensor, i: usize| t.bytes[2 * i..2 * i + 2].copy_from_slice(&[0xc0, 0x7f]);
        for (window, tq) in [(0, 150), (0, 90), (0, 170), (40, 150)] {
            let p = shape(tq, 150, true)
                .with("window", if window > 0 { window.into() } else { Value::None });
            let clean = inputs(&p, &Family::default(), 5);
            let want = reference(&p, &clean);
            for (j, tensor) in [(0, 1), (70, 1), (149, 1), (0, 2), (70, 2), (149, 2)] {
                let mut inputs = clean.clone();
                nan(&mut inputs[tensor], j * 8 + 3);
                let got = reference(&p, &inputs);
                let s = Shape::of(&p);
                for (i, h) in (0..tq).flat_map(|i| (0..2).map(move |h| (i, h))) {
                    let sees = s.keys(i, tq, 150).contains(&j);
                    for c in 0..8 {
                        let at = (i * 2 + h) * 8 + c;
                        let bad = sees && (tensor == 1 || c == 3);
                        assert!(if bad { got[0][at].is_nan() } else { got[0][at] == want[0][at] });
                    }
                    let (got, want) = (got[1][h * tq + i], want[1][h * tq + i]);
                    assert!(if sees && tensor == 1 { got.is_nan() } else { got == want });
                }
            }
        }
    }

    #[test]
    fn scores_of_minus_infinity_are_as_no_key() {
        let p = shape(2, 3, false).with("Hq", 1);
        let mut inputs = inputs(&p, &Family::default(), 5);
        inputs[0] = Tensor::from_f64(DType::Bf16, &[1, 2, 1, 8], [1.0; 16]);
        let set = |k: [f64; 3]| {
            let k = k.into_iter().flat_map(|x| [x; 8]);
            Tensor::from_f64(DType::Bf16, &[1, 3, 1, 8], k)
        };
        let low = f64::NEG_INFINITY;
        inputs[1] = set([low; 3]);
        let got = reference(&p, &inputs);
        assert!(got[0].iter().all(|x| *x == 0.0) && got[1] == [low; 2]);
        inputs[1] = set([low, 0.5, low]);
        let got = reference(&p, &inputs);
        assert!((0..8).all(|c| got[0][c] == inputs[2].get(8 + c)) && got[1][0] == 8.0 * 0.5 * 0.3);
        inputs[1] = set([-low, 0.5, 0.5]);
        let got = reference(&p, &inputs);
        assert!(got.iter().flatten().all(|x| x.is_nan()));
    }

    /// The bounds hold of every score that a row has, and are those of the vectors that are met alone.
    #[test]
    fn scores_are_bounded_by_norms() {
        let p = problem("Hq=2,Hkv=1,D=8,causal=true,scale=0.3,lens=3:5+0:4+2+6:3");
        let mut inputs = inputs(&p, &Family::default(), 5);
        let of = |p: &Problem, inputs: &[Tensor]| {
            let all = measures(p, inputs);
            assert_eq!((all[0].0, all[1].0), ("product_bound", "score_bound"));
            (all[0].1, all[1].1)
        };
        let (product, score) = of(&p, &inputs);
        assert!((score - 0.3 * product).abs() < 1e-12 && product > 1.0);
        // Keys of a sequence without queries, queries that see no key, vectors that are not finite.
        let put = |t: &mut Tensor, row: usize, x: u16| {
            (row * 8..row * 8 + 8)
                .for_each(|i| t.bytes[2 * i..2 * i + 2].copy_from_slice(&x.to_le_bytes()));
        };
        put(&mut inputs[1], 6, 0x7000);
        put(&mut inputs[0], 2 * 6, 0x7000);
        put(&mut inputs[1], 0, 0x7fc0);
        let less = of(&p, &inputs).0;
        assert!(less <= product && less > 0.0);
        put(&mut inputs[1], 1, 0x4e80); // 2^30
        let (product, score) = of(&p, &inputs);
        assert!(product > 1e9 && score > 3e8);
        assert_eq!(of(&p.with("softcap", 20.0), &inputs).1, 20.0);
    }

    /// Against a count of every pair, over shapes and windows of every kind.
    #[test]
    fn visible_pairs_are_those_that_the_mask_lets_through() {
        let mut state = 1u64;
        let mut draw = |n: usize| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) as usize % n
        };
        for i in 0..10_000 {
            let causal = i % 4 > 0;
            let sequences = 1 + draw(3);
            let least = usize::from(sequences == 1);
            let lens: Vec<_> = (0..sequences).map(|_| [0, 0].map(|_| least + draw(40))).collect();
            let [tq, tkv] = lens[0].map(|n| n.max(1));
            let mut p = shape(tq, tkv, causal).with_role(Role::Sequence, 1);
            if causal && i % 2 == 0 {
                p = p.with("window", 1 + draw(50));
            }
            if sequences > 1 {
                p = p.pack(lens.clone());
            }
            let window = p.get("window").unwrap_or(usize::MAX);
            let sees = |[tq, tkv]: [usize; 2], i: usize, j: usize| {
                let last = i as i64 + tkv as i64 - tq as i64;
                !causal || (j as i64 <= last && last - (j as i64) < window.min(1 << 40) as i64)
            };
            let count = |l: &[usize; 2]| {
                let pairs = (0..l[0]).flat_map(|i| (0..l[1]).map(move |j| (i, j)));
                pairs.filter(|(i, j)| sees(*l, *i, *j)).count()
            };
            let want: usize =
                if sequences > 1 { lens.iter().map(count).sum() } else { count(&lens[0]) };
            assert_eq!(visible_pairs(&p), want as f64, "{p}");
            let all = if sequences > 1 { &lens[..] } else { &lens[..1] };
            let rows =
                |l: &[usize; 2]| (0..l[0]).filter(|i| (0..l[1]).any(|j| sees(*l, *i, j))).count();
            let keys =
                |l: &[usize; 2]| (0..l[1]).filter(|j| (0..l[0]).any(|i| sees(*l, i, *j))).count();
            let seen =
                Seen { tokens: all.iter().map(rows).sum(), past: all.iter().map(keys).sum() };
            assert_eq!(Attention.seen(&p), Some(seen), "{p}");
            let outputs = p.tensors_of(Flow::Output).iter().map(|t| t.bytes()).sum::<usize>();
            let starts = if sequences > 1 { 2 * 4 * (sequences + 1) } else { 0 };
            let inputs = 2 * 2 * 8 * seen.tokens + 2 * 2 * 8 * seen.past + starts;
            assert_eq!(p.min_bytes(), (inputs + outputs) as f64, "{p}");
            assert_eq!(p.flops(), 2.0 * 2.0 * 16.0 * want as f64, "{p}");
        }
    }

    #[test]
    fn plain_problems_are_stored_as_ever() {
        let s = shape(3, 4, true);
        let json = serde_json::to_string(&s).unwrap();
        assert_eq!(
            json,
            "{\"op\":\"attention\",\"dtype\":\"bf16\",\"b\":1,\"tq\":3,\"tkv\":4,\"hq\":2,\"hkv\":1,\
             \"d\":8,\"causal\":true,\"scale\":0.3}"
        );
        let s = problem("Hq=2,causal=true,Dv=4,window=2,softcap=30,lens=1:2+2");
        let json = serde_json::to_string(&s).unwrap();
        assert!(
            json.ends_with("\"dv\":4,\"window\":2,\"softcap\":30.0,\"lens\":[[1,2],[2,2]]}"),
            "{json}"
        );
        assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), s);
    }
}
