//! Seeded inputs: random, and the pathological families that break kernels.

use std::fmt;
use std::str::FromStr;

use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Tensor, TensorSpec, delta};

/// How strongly a delta rule forgets: the natural-log decay g of each token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Gate {
    /// GDN `-2u`, KDA `-5 sigmoid(n)`; u uniform in (0,1), n normal.
    Strong,
    /// `-0.1u`
    #[default]
    Mid,
    /// `-0.001u`
    Slow,
    /// Heads in turn strong, mid, slow.
    Mixed,
    /// `g = 0`: nothing is ever forgotten.
    Zero,
    /// `g = -5` at every token.
    Saturated,
    /// `-16 softplus(n)`: the unbounded gate at its largest released rate.
    Unbounded,
    /// `2 m u`, of mean `m < 0`.
    Mean(f64),
}

/// How the keys of a sequence relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    #[default]
    Normal,
    /// Every token of a head has the same key.
    Identical,
    /// Correlation 0.9 between any two keys of a head.
    Correlated,
}

/// The write strength of the delta rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beta {
    /// sigmoid of a normal
    #[default]
    Random,
    Zero,
    One,
}

/// The size of attention's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Logits {
    #[default]
    Normal,
    /// Queries 16 times as long: softmax nearly one-hot.
    Huge,
    /// The first key is long: some rows put almost all weight on it.
    Sink,
}

/// A family of inputs. Written as `gate=slow keys=identical`; parts not named are the default,
/// and the default family is `random`. Parts that an operator has no use for are ignored by it.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Family {
    pub gate: Gate,
    pub keys: Keys,
    pub beta: Beta,
    pub logits: Logits,
}

const GATES: [(&str, Gate); 7] = [
    ("strong", Gate::Strong),
    ("mid", Gate::Mid),
    ("slow", Gate::Slow),
    ("mixed", Gate::Mixed),
    ("zero", Gate::Zero),
    ("saturated", Gate::Saturated),
    ("unbounded", Gate::Unbounded),
];
const KEYS: [(&str, Keys); 3] =
    [("normal", Keys::Normal), ("identical", Keys::Identical), ("correlated", Keys::Correlated)];
const BETAS: [(&str, Beta); 3] = [("random", Beta::Random), ("0", Beta::Zero), ("1", Beta::One)];
const LOGITS: [(&str, Logits); 3] =
    [("normal", Logits::Normal), ("huge", Logits::Huge), ("sink", Logits::Sink)];

fn look_up<T: Copy>(table: &[(&str, T)], part: &str, value: &str) -> Result<T, String> {
    table.iter().find(|(name, _)| *name == value).map(|(_, x)| *x).ok_or_else(|| {
        let known: Vec<_> = table.iter().map(|(name, _)| *name).collect();
        format!("unknown {part} `{value}`: expected one of {}", known.join(", "))
    })
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, x)| x == value).map_or("?", |(name, _)| name)
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Family, String> {
        let mut family = Family::default();
        for part in text.split_whitespace().filter(|p| *p != "random") {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!(
                    "`{part}` is no part of an input family: write `random` or parts such as gate=slow, keys=identical, beta=1, logits=huge"
                ));
            };
            match name {
                "gate" => {
                    family.gate = match value.parse::<f64>() {
                        Ok(m) if m < 0.0 && m.is_finite() => Gate::Mean(m),
                        Ok(m) => return Err(format!("gate={m}: a mean log decay is negative")),
                        Err(_) => look_up(&GATES, "gate", value)?,
                    }
                }
                "keys" => family.keys = look_up(&KEYS, "keys", value)?,
                "beta" => family.beta = look_up(&BETAS, "beta", value)?,
                "logits" => family.logits = look_up(&LOGITS, "logits", value)?,
                _ => {
                    return Err(format!(
                        "unknown part `{name}` of an input family: expected gate, keys, beta or logits"
                    ));
                }
            }
        }
        Ok(family)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.gate {
            Gate::Mid => {}
            Gate::Mean(m) => parts.push(format!("gate={m}")),
            gate => parts.push(format!("gate={}", name_of(&GATES, &gate))),
        }
        if self.keys != Keys::Normal {
            parts.push(format!("keys={}", name_of(&KEYS, &self.keys)));
        }
        if self.beta != Beta::Random {
            parts.push(format!("beta={}", name_of(&BETAS, &self.beta)));
        }
        if self.logits != Logits::Normal {
            parts.push(format!("logits={}", name_of(&LOGITS, &self.logits)));
        }
        f.write_str(if parts.is_empty() { "random" } else { "" })?;
        f.write_str(&parts.join(" "))
    }
}

impl TryFrom<String> for Family {
    type Error = String;
    fn try_from(text: String) -> Result<Family, String> {
        text.parse()
    }
}

impl From<Family> for String {
    fn from(family: Family) -> String {
        family.to_string()
    }
}

/// Elements drawn from one generator; a block's values depend on seed, stream and place alone.
const BLOCK: usize = 1 << 14;

fn generator(seed: u64, stream: u64, block: usize) -> Pcg64Mcg {
    let mix = (stream << 40) ^ block as u64;
    Pcg64Mcg::seed_from_u64(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix.wrapping_mul(0xd1b5_4a32_d192_ed03),
    )
}

/// Fills `out` with standard normals of that seed and stream.
pub fn fill_normal(out: &mut [f32], seed: u64, stream: u64) {
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, chunk)| {
        let mut rng = generator(seed, stream, i);
        chunk.iter_mut().for_each(|x| *x = StandardNormal.sample(&mut rng));
    });
}

/// A tensor of normals times `scale`.
pub fn normal_tensor(spec: &TensorSpec, seed: u64, stream: u64, scale: f32) -> Tensor {
    let mut x = vec![0f32; spec.elements()];
    fill_normal(&mut x, seed, stream);
    if scale != 1.0 {
        x.par_iter_mut().for_each(|x| *x *= scale);
    }
    Tensor::from_f32(spec.dtype, &spec.shape, &x)
}

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Uniform in (0,1) from a normal, by a logistic approximation of its distribution.
fn uniform(n: f32) -> f32 {
    sigmoid(1.702 * n)
}

/// g of every token, head and channel, `channels` contiguous.
pub fn gates(
    n: usize,
    heads: usize,
    channels: usize,
    family: &Family,
    kind: delta::Gate,
    seed: u64,
) -> Vec<f32> {
    let mut g = vec![0f32; n];
    fill_normal(&mut g, seed, 3);
    g.par_chunks_mut(channels).enumerate().for_each(|(i, row)| {
        let gate = match family.gate {
            Gate::Mixed => [Gate::Strong, Gate::Mid, Gate::Slow][i % heads % 3],
            gate => gate,
        };
        for x in row {
            *x = match gate {
                Gate::Strong if kind == delta::Gate::PerChannel => -5.0 * sigmoid(*x),
                Gate::Strong => -2.0 * uniform(*x),
                Gate::Mid | Gate::Mixed => -0.1 * uniform(*x),
                Gate::Slow => -0.001 * uniform(*x),
                Gate::Zero => 0.0,
                Gate::Saturated => -5.0,
                Gate::Unbounded => -16.0 * x.exp().ln_1p(),
                Gate::Mean(m) => 2.0 * m as f32 * uniform(*x),
            };
        }
    });
    g
}

/// beta of every token and head.
pub fn betas(n: usize, family: &Family, seed: u64) -> Vec<f32> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_round_trip() {
        for text in ["random", "gate=slow", "gate=-0.03 keys=identical beta=1", "logits=huge"] {
            assert_eq!(text.parse::<Family>().unwrap().to_string(), text);
        }
        assert!("gate=fast".parse::<Family>().unwrap_err().contains("strong, mid"));
        assert!("gate=0.5".parse::<Family>().is_err());
    }

    #[test]
    fn draws_depend_on_seed_and_stream() {
        let draw = |seed, stream| {
            let mut x = vec![0f32; 3 * BLOCK / 2];
            fill_normal(&mut x, seed, stream);
            x
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        let x = draw(7, 0);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let var = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
    }
}
