//! What is computed: problem shapes, seeded inputs, FLOP and byte models, and beside each
//! operator its reference in fp64.
//!
//! Letters, layouts and the natural-log decay are flash-linear-attention's.

pub mod attention;
pub mod crop;
pub mod delta;
pub mod dtype;
pub mod inputs;
pub mod tensor;

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use crop::Crop;
pub use dtype::DType;
pub use inputs::Family;
pub use tensor::{Role, Tensor, TensorSpec};

/// The operators the toolkit knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Softmax attention, with grouped key/value heads.
    Attention,
    /// Gated delta rule (GDN): one decay a head and token.
    GatedDeltaRule,
    /// Kimi Delta Attention: one decay a head, token and key channel.
    Kda,
}

impl Op {
    pub const ALL: [Op; 3] = [Op::Attention, Op::GatedDeltaRule, Op::Kda];

    /// The name used in kernel folders, sweep files and records.
    pub fn name(self) -> &'static str {
        match self {
            Op::Attention => "attention",
            Op::GatedDeltaRule => "gated_delta_rule",
            Op::Kda => "kda",
        }
    }

    /// The operator of that name, or `None`.
    pub fn parse(name: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.name() == name)
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whole sequence at once, or one token against a cache or state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Prefill,
    Decode,
}

impl Phase {
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prefill => "prefill",
            Phase::Decode => "decode",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A scalar that manifests and templates can name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Bool(b) => write!(f, "{b}"),
            Scalar::Int(i) => write!(f, "{i}"),
            Scalar::Float(x) => write!(f, "{x}"),
        }
    }
}

/// One problem: an operator at a shape and precision. Everything that fixes the result but the
/// input values themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Problem {
    Attention(attention::Shape),
    GatedDeltaRule(delta::Shape),
    Kda(delta::Shape),
}

impl Problem {
    pub fn op(&self) -> Op {
        match self {
            Problem::Attention(_) => Op::Attention,
            Problem::GatedDeltaRule(_) => Op::GatedDeltaRule,
            Problem::Kda(_) => Op::Kda,
        }
    }

    /// The precision of the operands of the matrix products.
    pub fn dtype(&self) -> DType {
        match self {
            Problem::Attention(s) => s.dtype,
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => s.dtype,
        }
    }

    /// Query tokens a sequence.
    pub fn tokens(&self) -> usize {
        match self {
            Problem::Attention(s) => s.tq,
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => s.t,
        }
    }

    /// Every variable that a manifest's expressions may name, in a fixed order.
    ///
    /// attention: `B Tq Tkv Hq Hkv D causal scale Dv window softcap packed N Tmax`; delta rules:
    /// `B T H HV K V initial_state final_state scale`.
    pub fn vars(&self) -> IndexMap<&'static str, Scalar> {
        match self {
            Problem::Attention(s) => s.vars(),
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => s.vars(),
        }
    }

    /// The variables that say something about this problem, for texts: those of [`Problem::vars`]
    /// less what plain problems have no use for; and packed lengths, where there are any.
    pub fn shown(&self) -> (IndexMap<&'static str, Scalar>, Option<String>) {
        match self {
            Problem::Attention(s) => (s.shown(), s.lens_text()),
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => (s.vars(), None),
        }
    }

    /// Inputs then outputs, with layouts, in the order of the operator's documentation.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        match self {
            Problem::Attention(s) => s.tensors(),
            Problem::GatedDeltaRule(s) => s.tensors(delta::Gate::Scalar),
            Problem::Kda(s) => s.tensors(delta::Gate::PerChannel),
        }
    }

    /// Floating-point operations, by the formula of [`Problem::flops_formula`].
    pub fn flops(&self) -> f64 {
        match self {
            Problem::Attention(s) => s.flops(),
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => s.flops(),
        }
    }

    /// The formula behind [`Problem::flops`], for people.
    pub fn flops_formula(&self) -> &'static str {
        match self {
            Problem::Attention(s) => s.flops_formula(),
            Problem::GatedDeltaRule(_) | Problem::Kda(_) => delta::FLOPS_FORMULA,
        }
    }

    /// Fewest bytes through device memory: each input read once, each output written once.
    pub fn min_bytes(&self) -> f64 {
        self.tensors().iter().map(|t| t.bytes() as f64).sum()
    }

    /// Seeded inputs in the order of [`Problem::tensors`], already rounded to their storage type.
    pub fn inputs(&self, family: &Family, seed: u64) -> Vec<Tensor> {
        match self {
            Problem::Attention(s) => attention::inputs(s, family, seed),
            Problem::GatedDeltaRule(s) => delta::inputs(s, delta::Gate::Scalar, family, seed),
            Problem::Kda(s) => delta::inputs(s, delta::Gate::PerChannel, family, seed),
        }
    }

    /// The outputs in fp64, in the order of [`Problem::tensors`], from the rounded inputs.
    pub fn reference(&self, inputs: &[Tensor]) -> Vec<Vec<f64>> {
        match self {
            Problem::Attention(s) => attention::reference(s, inputs),
            Problem::GatedDeltaRule(s) => delta::reference(s, delta::Gate::Scalar, inputs),
            Problem::Kda(s) => delta::reference(s, delta::Gate::PerChannel, inputs),
        }
    }

    /// The same problem with one sequence and as few heads as keep the head ratio, and how many
    /// of it make up the whole. Work does not depend on the data, so its counts multiply.
    pub fn one_head_group(&self) -> (Problem, usize) {
        match self {
            Problem::Attention(s) => {
                let (small, n) = s.one_head_group();
                (Problem::Attention(small), n)
            }
            Problem::GatedDeltaRule(s) => {
                let (small, n) = s.one_head_group();
                (Problem::GatedDeltaRule(small), n)
            }
            Problem::Kda(s) => {
                let (small, n) = s.one_head_group();
                (Problem::Kda(small), n)
            }
        }
    }
}

/// A short line for people: `attention bf16 B=1 Tq=512 ...`.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op(), self.dtype())?;
        let (vars, lens) = self.shown();
        for (name, value) in vars {
            match value {
                Scalar::Bool(true) => write!(f, " {name}")?,
                Scalar::Bool(false) => {}
                Scalar::Int(i) => write!(f, " {name}={i}")?,
                Scalar::Float(_) if name == "scale" => {}
                Scalar::Float(x) => write!(f, " {name}={x}")?,
            }
        }
        lens.map_or(Ok(()), |lens| write!(f, " lens={lens}"))
    }
}
