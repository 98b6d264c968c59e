//! What is computed: operators, problems, seeded inputs, FLOP and byte models, fp64 references.
//!
//! An operator is one value ([`Operator`]): one file here, one word in [`ALL`], one folder in
//! kernels/. Nothing outside this folder names one. Letters, layouts and the natural-log decay are
//! flash-linear-attention's. `operator.rs` says what an operator is made of, `problem.rs` and
//! `text.rs` what follows from that for all of them, `lightning.rs` is the shortest example.

mod attention;
mod crop;
mod draw;
pub mod dtype;
#[cfg(test)]
pub(crate) mod examples;
mod family;
mod gated_delta_rule;
mod kda;
mod lens;
mod lightning;
mod operator;
mod packed;
mod problem;
mod recurrence;
mod tensor;
mod text;
mod value;

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use crop::Crop;
pub use dtype::DType;
pub use family::{Family, Part};
pub use lens::Sequence;
pub use operator::{
    Default, Face, Fault, FaultKind, Mark, Operator, Own, Phase, PhaseName, Role, Side, Suite,
    Variable, Work,
};
pub use problem::{Given, Needed, Problem};
pub use tensor::{Flow, Tensor, TensorSpec};
pub use text::setting;
pub use value::{Kind, MAX_COUNT, Scalar, Value};

/// Every operator that the toolkit knows, in the order of sweeps and reports.
pub static ALL: [&dyn Operator; 4] =
    [&attention::Attention, &gated_delta_rule::OPERATOR, &kda::OPERATOR, &lightning::Lightning];

/// An operator of [`ALL`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(u8);

impl Op {
    /// Every operator, in the order of [`ALL`].
    pub fn all() -> impl Iterator<Item = Op> + Clone {
        (0..ALL.len() as u8).map(Op)
    }

    /// The name used in kernel folders, sweep files and records.
    pub fn name(self) -> &'static str {
        self.face().name
    }

    /// The operator of that name, or `None`.
    pub fn parse(name: &str) -> Option<Op> {
        Op::all().find(|op| op.name() == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        let names: Vec<_> = Op::all().map(Op::name).collect();
        names.join(", ")
    }

    /// The side of a crossover that it stands on.
    pub fn side(self) -> Side {
        self.face().side
    }
}

impl Deref for Op {
    type Target = dyn Operator;

    fn deref(&self) -> &Self::Target {
        ALL[usize::from(self.0)]
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Op {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Op, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || format!("unknown operator `{name}`: expected one of {}", Op::names());
        Op::parse(&name).ok_or_else(|| serde::de::Error::custom(unknown()))
    }
}
