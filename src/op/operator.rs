//! What an operator is: one value that says everything the rest of the program needs of it.
//!
//! Whatever is the same for all operators follows from the rows: texts, sweep axes, defaults,
//! divisibility, crops, the report's grouping, shapes from a file ([`super::problem`],
//! [`super::text`], [`super::crop`]). An operator's own file has its rows, its maths in fp64, its
//! inputs, its limits with their why, its suite and its face.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::family::Part;
use super::value::{Kind, Scalar, Value};
use super::{Family, Problem, Tensor, TensorSpec};

/// One operator. Shapes, layouts and letters are flash-linear-attention's.
pub trait Operator: Sync {
    /// How it is named and drawn.
    fn face(&self) -> Face;

    /// Its variables, in the order of texts and records.
    fn variables(&self) -> &'static [Variable];

    /// The phases it has, the first by default.
    fn phases(&self) -> &'static [Phase];

    /// The parts of an input family that it has a use for.
    fn parts(&self) -> &'static [Part];

    /// Why the values do not fit together, beyond what the rows say.
    fn fault(&self, _: &Problem) -> Option<Fault> {
        None
    }

    /// What manifests may name beside the variables.
    fn derived(&self, _: &Problem) -> Vec<(&'static str, Scalar)> {
        Vec::new()
    }

    /// Inputs then outputs; those that the problem goes without are listed as absent.
    fn tensors(&self, p: &Problem) -> Vec<TensorSpec>;

    fn work(&self, p: &Problem) -> Work;

    /// Seeded inputs in the order of the problem's tensors, rounded to their storage types.
    fn inputs(&self, p: &Problem, family: &Family, seed: u64) -> Vec<Tensor>;

    /// The outputs in fp64, in the order of the problem's tensors, from the rounded inputs.
    fn reference(&self, p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>>;

    /// What rows of the output need, if rows can be computed apart. `None` where each row depends
    /// on all rows before it: then a crop keeps them all.
    fn cut(&self, _: &Problem, _rows: &Range<usize>) -> Option<Cut> {
        None
    }

    /// The largest E/F that passes, for that output and inputs of that family.
    fn limit(&self, p: &Problem, family: &Family, output: &str) -> f64;

    /// Whether a row of the output sees the past alone.
    fn is_causal(&self, _: &Problem) -> bool {
        true
    }

    /// Whether outputs of early tokens cannot depend on later ones.
    fn has_prefix_property(&self, p: &Problem) -> bool;

    /// What the regression suite of its kernels varies in that phase.
    fn suite(&self, phase: PhaseName) -> Suite;

    /// Heads and dimensions of a layer for people: `Hq 16, Hkv 4, D 128, causal`.
    fn layer(&self, p: &Problem) -> String;

    /// What is odd about an input that a user brings, if anything.
    fn doubt(&self, _name: &str, _tensor: &Tensor) -> Option<&'static str> {
        None
    }
}

/// How an operator is named and drawn.
#[derive(Debug, Clone, Copy)]
pub struct Face {
    /// In kernel folders, sweeps, records and sentences.
    pub name: &'static str,
    /// What it is, in a few words.
    pub summary: &'static str,
    /// The class of its marks in drawings.
    pub class: &'static str,
    /// Colours on light and on dark paper.
    pub light: &'static str,
    pub dark: &'static str,
    pub mark: Mark,
    pub side: Side,
}

/// The shape of an operator's points in plots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    Circle,
    Square,
    Triangle,
    Diamond,
}

/// Which side of a crossover an operator stands on: any full one is held against any linear one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Work grows with the square of the length; a cache grows with it.
    Full,
    /// Work grows with the length; a state of fixed size.
    Linear,
}

/// A variable of an operator, as a row.
#[derive(Debug, Clone)]
pub struct Variable {
    /// As people and manifests write it: `Hkv`.
    pub name: &'static str,
    /// As records do: `hkv`.
    pub key: &'static str,
    pub kind: Kind,
    pub default: Default,
    pub role: Role,
    /// For people, with its unit.
    pub doc: &'static str,
}

impl Variable {
    /// A row, in the order of the fields.
    pub(super) const fn row(
        name: &'static str,
        key: &'static str,
        kind: Kind,
        default: Default,
        role: Role,
        doc: &'static str,
    ) -> Variable {
        Variable { name, key, kind, default, role, doc }
    }

    /// Whether a value is the default, where that is a value of its own.
    pub fn is_default(&self, value: &Value) -> bool {
        match &self.default {
            Default::Is(usual) => value == usual,
            Default::Nothing => *value == Value::None,
            Default::As(_) | Default::InverseRoot(_) | Default::Need { .. } => false,
        }
    }
}

/// The value of a variable that is not given.
#[derive(Debug, Clone)]
pub enum Default {
    Is(Value),
    /// That of another variable. Records and texts leave it out where it is.
    As(&'static str),
    /// One over the square root of another variable.
    InverseRoot(&'static str),
    /// Sweeps must give it, as in the example; elsewhere it is small.
    Need {
        example: &'static str,
        small: Value,
    },
    /// The problem goes without.
    Nothing,
}

/// What a variable stands for. Dimensions of tensors have the role of the variable of their letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sequences. `N` in layouts.
    Sequence,
    /// Tokens that the outputs have a row of.
    Token,
    /// Tokens looked back on: keys.
    Past,
    /// Tokens seen before, on which no tensor depends: the state stands for them.
    Context,
    /// Heads of the output.
    Heads,
    /// Heads that each serve as many heads of the output: a divisor of that variable.
    Shared {
        of: &'static str,
    },
    /// Dimension of a key.
    Key,
    /// Dimension of a value.
    Channel,
    /// Lengths of packed sequences, in place of sequences and tokens.
    Lengths,
    /// A factor that changes no shape and no work.
    Scale,
    /// The number format of these tensors, where it is not the problem's.
    Format {
        of: &'static [&'static str],
    },
    Option,
}

/// The phases of a model's run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseName {
    /// A whole sequence at once.
    Prefill,
    /// One new token a sequence against a cache or state.
    Decode,
    /// 2 to 16 new tokens a sequence against a cache or state: drafts to be verified.
    Verify,
}

impl PhaseName {
    pub const ALL: [PhaseName; 3] = [PhaseName::Prefill, PhaseName::Decode, PhaseName::Verify];

    pub fn name(self) -> &'static str {
        match self {
            PhaseName::Prefill => "prefill",
            PhaseName::Decode => "decode",
            PhaseName::Verify => "verify",
        }
    }

    /// The phase of that name, or `None`.
    pub fn parse(name: &str) -> Option<PhaseName> {
        PhaseName::ALL.into_iter().find(|p| p.name() == name)
    }

    /// All names, for messages.
    pub fn names() -> String {
        PhaseName::ALL.map(PhaseName::name).join(", ")
    }
}

impl fmt::Display for PhaseName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A phase of an operator, as a row.
#[derive(Debug)]
pub struct Phase {
    pub name: PhaseName,
    /// What the length is called that cases of the phase are drawn over: `T`, `context`. Given as
    /// a variable it sets all of [`Phase::lengths`].
    pub length: &'static str,
    /// The variables that are the length: one, or several that are equal in plain problems.
    pub lengths: &'static [&'static str],
    /// Defaults in place of the rows'.
    pub defaults: &'static [(&'static str, Value)],
    /// The least and the most that variables may be.
    pub ranges: &'static [(&'static str, usize, usize)],
}

/// New tokens a sequence that a step of verification may have.
pub const DRAFTS: (usize, usize) = (2, 16);

/// Why values do not fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The variable that is wrong or missing, or the length's name.
    pub variable: &'static str,
    /// A sentence that names it.
    pub text: String,
    pub kind: FaultKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    Wrong,
    /// Nothing gives it; how to, for example.
    Missing(&'static str),
    /// A number of heads that is no multiple of another.
    Indivisible {
        many: &'static str,
    },
}

impl Fault {
    pub fn wrong(variable: &'static str, text: impl Into<String>) -> Fault {
        Fault { variable, text: text.into(), kind: FaultKind::Wrong }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// How much there is to do.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Floating-point operations of the problem's phase.
    pub flops: f64,
    /// Where they come from, for people.
    pub formula: &'static str,
    /// What the fp64 reference takes, in operations of a matrix product.
    pub reference_flops: f64,
}

/// What rows of an output need.
pub struct Cut {
    /// Tokens of the past.
    pub past: Range<usize>,
    /// Lengths of the packed sequences that are left, if any are packed.
    pub lens: Vec<[usize; 2]>,
}

/// What the regression suite varies beside tiles, precisions, dimensions, lengths, heads and
/// batches.
pub struct Suite {
    /// Families of inputs.
    pub families: &'static [&'static str],
    /// Axes of the operator's own.
    pub own: &'static [Own],
    /// The problem with something more, in turns.
    pub extras: fn(&Problem, usize) -> Problem,
    /// The problem as units of work are the most uneven.
    pub uneven: fn(Problem) -> Problem,
}

/// An axis of a suite: so many values, and the problem with one of them.
pub struct Own {
    pub values: usize,
    pub set: fn(Problem, usize) -> Problem,
}

impl Suite {
    /// No extras, and work that is even whatever the problem.
    pub const fn plain(families: &'static [&'static str], own: &'static [Own]) -> Suite {
        Suite { families, own, extras: |p, _| p.clone(), uneven: |p| p }
    }
}

impl Own {
    /// A flag, off and on.
    pub const fn flag(set: fn(Problem, usize) -> Problem) -> Own {
        Own { values: 2, set }
    }
}
