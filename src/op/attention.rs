//! Softmax attention: `o = softmax(scale * q k^T) v`, with grouped key/value heads.

use std::fmt;
use std::ops::Range;

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
    #[serde(default, flatten)]
    pub extras: Extras,
}

/// What plain attention goes without.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Extras {
    /// Head dimension of v and o, where it is not D.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dv: Option<usize>,
    /// Sliding window, of causal attention alone: query row `i` sees no key
    /// `j <= i + Tkv - Tq - window`, so at most `window` keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<usize>,
    /// Scores are `softcap * tanh(scale * q k / softcap)`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub softcap: Option<f64>,
    /// Sequences of unequal lengths, packed one after another: tokens of q and of k and v. Then
    /// `B = 1`, and Tq and Tkv are the sums.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lens: Vec<[usize; 2]>,
}

/// [`Extras`] small enough to copy and to order by: packed lengths as their number and a hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Variation {
    pub dv: usize,
    window: Option<usize>,
    softcap_bits: Option<u64>,
    lens: Option<(usize, u64)>,
}

/// `, window 4096, softcap 50`; nothing for plain attention. Dv is left to the caller.
impl fmt::Display for Variation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(n) = self.window {
            write!(f, ", window {n}")?;
        }
        if let Some(bits) = self.softcap_bits {
            write!(f, ", softcap {}", f64::from_bits(bits))?;
        }
        if let Some((n, _)) = self.lens {
            write!(f, ", {n} packed sequences")?;
        }
        Ok(())
    }
}

/// Where one of the packed sequences lies, in tokens of q and of k.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    pub q: Range<usize>,
    pub k: Range<usize>,
}

impl Shape {
    /// Head dimension of v and o.
    pub fn dv(&self) -> usize {
        self.extras.dv.unwrap_or(self.d)
    }

    /// Packed lengths as settings name them: `1000+3x64`, and `5:1000` where q and k differ.
    pub fn lens_text(&self) -> Option<String> {
        let lens = &self.extras.lens;
        let runs = lens.chunk_by(|a, b| a == b).map(|run| {
            let [q, k] = run[0];
            let one = if q == k { q.to_string() } else { format!("{q}:{k}") };
            if run.len() > 1 { format!("{}x{one}", run.len()) } else { one }
        });
        (!lens.is_empty()).then(|| runs.collect::<Vec<_>>().join("+"))
    }

    /// Packs sequences of these lengths of q and of k, or with an empty list is one of Tq, Tkv.
    pub fn pack(&mut self, lens: Vec<[usize; 2]>) {
        if !lens.is_empty() {
            self.b = 1;
            [self.tq, self.tkv] = [0, 1].map(|i| lens.iter().map(|l| l[i]).sum());
        }
        self.extras.lens = lens;
    }

    /// What tells this problem from plain attention of the same sizes.
    pub fn variation(&self) -> Variation {
        let Extras { window, softcap, lens, .. } = &self.extras;
        let hash = lens
            .iter()
            .flatten()
            .fold(0xcbf2_9ce4_8422_2325u64, |h, &n| (h ^ n as u64).wrapping_mul(0x0100_0000_01b3));
        Variation {
            dv: self.dv(),
            window: *window,
            softcap_bits: softcap.map(f64::to_bits),
            lens: (!lens.is_empty()).then_some((lens.len(), hash)),
        }
    }

    /// Why the parts do not fit together, if they do not.
    pub fn fault(&self) -> Option<String> {
        let Extras { window, softcap, lens, .. } = &self.extras;
        if window.is_some() && !self.causal {
            return Some("window: a sliding window needs causal = true".into());
        }
        if let Some(cap) = softcap.filter(|c| !(c.is_finite() && *c > 0.0)) {
            return Some(format!("softcap = {cap}: expected a number above 0"));
        }
        let sums = [0, 1].map(|i| lens.iter().map(|l| l[i]).sum::<usize>());
        if !lens.is_empty() && (self.b, [self.tq, self.tkv]) != (1, sums) {
            return Some(format!(
                "lens: packed sequences have B = 1 and Tq, Tkv = {}, {}, the sums of their lengths; leave B, T, Tq and Tkv out",
                sums[0], sums[1]
            ));
        }
        None
    }

    /// What manifests may name. Where there is none, `Dv = D`, `window = 0`, `softcap = 0`,
    /// `packed = false`; `N` sequences, the longest of `Tmax` keys.
    pub fn vars(&self) -> IndexMap<&'static str, Scalar> {
        let int = |x: usize| Scalar::Int(x as i64);
        let lens = &self.extras.lens;
        let packed = !lens.is_empty();
        indexmap! {
            "B" => int(self.b), "Tq" => int(self.tq), "Tkv" => int(self.tkv),
            "Hq" => int(self.hq), "Hkv" => int(self.hkv), "D" => int(self.d),
            "causal" => Scalar::Bool(self.causal), "scale" => Scalar::Float(self.scale),
            "Dv" => int(self.dv()), "window" => int(self.extras.window.unwrap_or(0)),
            "softcap" => Scalar::Float(self.extras.softcap.unwrap_or(0.0)),
            "packed" => Scalar::Bool(packed), "N" => int(if packed { lens.len() } else { self.b }),
            "Tmax" => int(lens.iter().map(|l| l[1]).max().unwrap_or(self.tkv)),
        }
    }

    /// [`Shape::vars`] less those that plain attention has no use for or that follow from
    /// [`Shape::lens_text`].
    pub fn shown(&self) -> IndexMap<&'static str, Scalar> {
        let Extras { window, softcap, lens, .. } = &self.extras;
        let mut vars = self.vars();
        vars.retain(|name, _| match *name {
            "Dv" => self.dv() != self.d,
            "window" => window.is_some(),
            "softcap" => softcap.is_some(),
            "packed" | "N" | "Tmax" => false,
            "B" | "Tq" | "Tkv" => lens.is_empty(),
            _ => true,
        });
        vars
    }

    /// q `[B,Tq,Hq,D]`, k `[B,Tkv,Hkv,D]`, v `[B,Tkv,Hkv,Dv]`; o `[B,Tq,Hq,Dv]`, lse `[B,Hq,Tq]`
    /// fp32, natural log. Packed sequences have `cu_seqlens_q` and `cu_seqlens_kv` `[N+1]` i32
    /// besides, where each begins and the last ends.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        let (d, dv) = (self.d, self.dv());
        let q = |d| [self.b, self.tq, self.hq, d];
        let kv = |d| [self.b, self.tkv, self.hkv, d];
        let (o_dims, v_dims) = match dv == d {
            true => ("B Tq Hq D", "B Tkv Hkv D"),
            false => ("B Tq Hq Dv", "B Tkv Hkv Dv"),
        };
        let mut all = vec![
            TensorSpec::input("q", self.dtype, "B Tq Hq D", &q(d)),
            TensorSpec::input("k", self.dtype, "B Tkv Hkv D", &kv(d)),
            TensorSpec::input("v", self.dtype, v_dims, &kv(dv)),
        ];
        if !self.extras.lens.is_empty() {
            let n = [self.extras.lens.len() + 1];
            all.push(TensorSpec::input("cu_seqlens_q", DType::I32, "N+1", &n));
            all.push(TensorSpec::input("cu_seqlens_kv", DType::I32, "N+1", &n));
        }
        all.push(TensorSpec::output("o", self.dtype, o_dims, &q(dv)));
        all.push(TensorSpec::output("lse", DType::Fp32, "B Hq Tq", &[self.b, self.hq, self.tq]));
        all
    }

    /// `cu_seqlens_q` and `cu_seqlens_kv`; none where nothing is packed.
    pub fn cu_seqlens(&self) -> Vec<Tensor> {
        let lens = &self.extras.lens;
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
        vec![starts(0), starts(1)]
    }

    /// The packed sequences; one of Tq and Tkv tokens where nothing is packed.
    pub fn sequences(&self) -> Vec<Sequence> {
        let whole = [[self.tq, self.tkv]];
        let lens = if self.extras.lens.is_empty() { &whole } else { &self.extras.lens[..] };
        let (mut q, mut k) = (0, 0);
        lens.iter()
            .map(|&[tq, tkv]| {
                (q, k) = (q + tq, k + tkv);
                Sequence { q: q - tq..q, k: k - tkv..k }
            })
            .collect()
    }

    /// Keys that query row `i` of a sequence of `tq` and `tkv` tokens sees.
    fn keys(&self, i: usize, tq: usize, tkv: usize) -> Range<usize> {
        if !self.causal {
            return 0..tkv;
        }
        let end = (i + 1 + tkv).saturating_sub(tq).min(tkv);
        let start = self.extras.window.map_or(0, |w| (i + 1 + tkv).saturating_sub(tq + w));
        start.min(end)..end
    }

    /// Two products, of `2 D` and `2 Dv`, a visible query-key pair. Without a window the causal
    /// mask counts at half of `Tq * Tkv`, as every published figure does.
    pub fn flops(&self) -> f64 {
        let pairs = |s: &Sequence| match self.extras.window {
            Some(_) => (0..s.q.len())
                .map(|i| self.keys(i, s.q.len(), s.k.len()).len())
                .sum::<usize>() as f64,
            None => s.q.len() as f64 * s.k.len() as f64 * if self.causal { 0.5 } else { 1.0 },
        };
        let pairs: f64 = self.sequences().iter().map(pairs).sum();
        2.0 * (self.d + self.dv()) as f64 * (self.b * self.hq) as f64 * pairs
    }

    pub fn flops_formula(&self) -> &'static str {
        let square = self.dv() == self.d;
        match (self.extras.window, !self.extras.lens.is_empty(), self.causal) {
            (Some(_), ..) => "2*B*Hq*(visible pairs)*(D+Dv)",
            (None, true, true) => "2*Hq*sum(Tq*Tkv)*(D+Dv) / 2",
            (None, true, false) => "2*Hq*sum(Tq*Tkv)*(D+Dv)",
            (None, false, true) if square => "4*B*Hq*Tq*Tkv*D / 2",
            (None, false, false) if square => "4*B*Hq*Tq*Tkv*D",
            (None, false, true) => "2*B*Hq*Tq*Tkv*(D+Dv) / 2",
            (None, false, false) => "2*B*Hq*Tq*Tkv*(D+Dv)",
        }
    }

    /// One sequence (or one pack), one key/value head with its query heads.
    pub fn one_head_group(&self) -> (Shape, usize) {
        let small = Shape { b: 1, hq: self.hq / self.hkv, hkv: 1, ..self.clone() };
        (small, self.b * self.hkv)
    }

    /// The keys that rows of q need, and the problem they make with one head: a block of keys
    /// and rows of each sequence that `rows` meets, bottom right corners together.
    pub fn crop_rows(&self, rows: &Range<usize>) -> (Range<usize>, Shape) {
        let mut lens = Vec::new();
        let mut keys: Option<Range<usize>> = None;
        for s in self.sequences() {
            let (start, end) = (rows.start.max(s.q.start), rows.end.min(s.q.end));
            if start >= end {
                continue;
            }
            // Only the last sequence met is cut at its end, so the keys stay in one piece.
            let seen = self.keys(end - 1 - s.q.start, s.q.len(), s.k.len()).end;
            let tkv = if end < s.q.end { seen } else { s.k.len() };
            let first = keys.map_or(s.k.start, |k| k.start);
            keys = Some(first..s.k.start + tkv);
            lens.push([end - start, tkv]);
        }
        let keys = keys.unwrap_or(0..0);
        let mut small =
            Shape { b: 1, hq: 1, hkv: 1, tq: rows.len(), tkv: keys.len(), ..self.clone() };
        if !self.extras.lens.is_empty() {
            small.pack(lens);
        }
        (keys, small)
    }
}

/// Lengths as [`Shape::lens_text`] writes them.
///
/// # Errors
/// Naming the part that is no length.
pub fn parse_lens(text: &str) -> Result<Vec<[usize; 2]>, String> {
    let mut lens = Vec::new();
    for part in text.split('+') {
        let fault = || {
            format!(
                "lens={text}: `{part}` is no length: write lengths of at least 1 as in 1000+4097, 16x512 for a number of equal ones, 5:1000 for 5 queries of 1000 keys"
            )
        };
        let count = |text: &str| match text.trim().parse::<usize>() {
            Ok(n) if n > 0 && n <= 1 << 30 => Ok(n),
            _ => Err(fault()),
        };
        let (times, one) = part.split_once('x').map_or((Ok(1), part), |(n, one)| (count(n), one));
        let (q, k) = one.split_once(':').unwrap_or((one, one));
        let (times, one) = (times?, [count(q)?, count(k)?]);
        if times > 1 << 20 || one[0].max(one[1]).saturating_mul(times) > 1 << 30 {
            return Err(fault());
        }
        lens.extend(std::iter::repeat_n(one, times));
    }
    Ok(lens)
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
    let starts: Vec<usize> = s.sequences().into_iter().map(|s| s.k.start).collect();
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
    let k = Tensor::from_f64(s.dtype, &specs[1].shape, k.into_iter().map(f64::from));
    let mut all = vec![q, k, normal_tensor(&specs[2], seed, 2, 1.0)];
    all.extend(s.cu_seqlens());
    all
}

/// A fixed vector with entries of about unit size.
fn fixed(i: usize) -> f32 {
    ((i as f32) * 12.9898 + 0.5).sin() * std::f32::consts::SQRT_2
}

/// Plain softmax in fp64: o, then lse. Heads and blocks of rows are independent of each other.
///
/// Cost: `2 B Hq Tq Tkv (D + Dv)` operations (half when causal); crop the problem first where one
/// head or a few rows are enough.
pub fn reference(shape: &Shape, inputs: &[Tensor]) -> Vec<Vec<f64>> {
    let [q, k, v] = [0, 1, 2].map(|i| {
        let dims: [usize; 4] = inputs[i].shape.clone().try_into().expect("four dimensions");
        Array4::from_shape_vec(dims, inputs[i].to_f64()).expect("a full tensor")
    });
    let mut o = Array4::<f64>::zeros((shape.b, shape.tq, shape.hq, shape.dv()));
    let mut lse = Array3::<f64>::from_elem((shape.b, shape.hq, shape.tq), f64::NEG_INFINITY);
    let sequences = shape.sequences();
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
            if let Some(cap) = shape.extras.softcap {
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
                let max = p.fold(f64::NEG_INFINITY, |m, &x| m.max(x));
                p.mapv_inplace(|x| (x - max).exp());
                let sum = p.sum();
                p /= sum;
                lse[[b, hq, s.q.start + i]] = max + sum.ln();
            }
            o.slice_mut(s![b, rows, hq, ..]).assign(&p.dot(&v));
        }
    }
    vec![o.into_raw_vec_and_offset().0, lse.into_raw_vec_and_offset().0]
}

/// Query rows the reference takes at once.
const ROWS: usize = 64;

impl Shape {
    /// How many keys query row `i` sees, counted along Tq through all packed sequences.
    pub fn visible(&self, i: usize) -> usize {
        if self.extras.lens.is_empty() {
            return self.keys(i, self.tq, self.tkv).len();
        }
        let all = self.sequences();
        let s = &all[all.partition_point(|s| s.q.end <= i)];
        self.keys(i - s.q.start, s.q.len(), s.k.len()).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(tq: usize, tkv: usize, causal: bool) -> Shape {
        Shape {
            dtype: DType::Bf16,
            b: 1,
            tq,
            tkv,
            hq: 2,
            hkv: 1,
            d: 8,
            causal,
            scale: 0.3,
            extras: Extras::default(),
        }
    }

    /// Packed sequences give what each gives on its own.
    #[test]
    fn packing_is_a_loop_over_sequences() {
        for (causal, window) in [(false, None), (true, None), (true, Some(40))] {
            let mut packed = shape(1, 1, causal);
            packed.extras = Extras { dv: Some(4), window, softcap: Some(2.0), lens: vec![] };
            packed.pack(vec![[70, 70], [1, 130], [150, 90]]);
            assert_eq!(packed.fault(), None);
            let inputs = inputs(&packed, &Family::default(), 5);
            let got = reference(&packed, &inputs);
            let mut flops = 0.0;
            for s in packed.sequences() {
                let mut one = packed.clone();
                one.pack(vec![]);
                (one.tq, one.tkv) = (s.q.len(), s.k.len());
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
                for h in 0..2 {
                    let t = packed.tq;
                    let got = &got[1][h * t + s.q.start..h * t + s.q.end];
                    assert_eq!(got, &want[1][h * one.tq..(h + 1) * one.tq]);
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
        let mut s = plain.clone();
        s.extras.window = Some(120);
        assert_eq!(reference(&s, &inputs), want);
        s.extras.window = Some(1);
        // One key alone: o is its value, lse its score.
        let one = reference(&s, &inputs);
        let v = |i: usize| inputs[2].get(i);
        assert!((0..8).all(|c| (one[0][c] - v((30) * 8 + c)).abs() < 1e-12));
        assert!(one[1].iter().zip(&want[1]).all(|(a, b)| a < b));
        s.extras = Extras { softcap: Some(1e6), ..Extras::default() };
        let capped = reference(&s, &inputs);
        assert!(capped[0].iter().zip(&want[0]).all(|(a, b)| (a - b).abs() < 1e-6));
        s.extras.softcap = Some(0.01);
        // Nearly uniform: lse is ln of the number of keys.
        let flat = reference(&s, &inputs);
        assert!((flat[1][0] - 31f64.ln()).abs() < 0.011);
    }

    #[test]
    fn lengths_round_trip() {
        for text in ["1000", "3x64+1000", "5:1000+2x7:8+7"] {
            let mut s = shape(1, 1, true);
            s.pack(parse_lens(text).unwrap());
            assert_eq!(s.lens_text().as_deref(), Some(text));
        }
        for text in ["", "0", "1+", "2x", "x3", "1:0", "99999999999", "1048576x1048576"] {
            assert!(parse_lens(text).unwrap_err().contains("lens="), "{text}");
        }
    }

    #[test]
    fn plain_problems_are_stored_as_ever() {
        let mut s = shape(3, 4, true);
        let json = serde_json::to_string(&s).unwrap();
        assert!(json.ends_with("\"scale\":0.3}"), "{json}");
        s.extras = Extras { dv: Some(4), window: Some(2), softcap: Some(30.0), lens: vec![] };
        s.pack(vec![[1, 2], [2, 2]]);
        let json = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<Shape>(&json).unwrap(), s);
    }
}
