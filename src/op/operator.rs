//! What an operator is: one value that says everything the rest of the program needs of it.
//!
//! Its variables and phases are rows of tables ([`Variable`], [`Phase`]). Whatever is the same for
//! all operators follows from the rows: texts, sweep axes, defaults, divisibility, crops, the
//! report's grouping, shapes from a file ([`super::problem`], [`super::text`], [`super::crop`]). An
//! operator's own file has its rows, its maths in fp64, its inputs, its limits with their why, its
//! suite and its face.

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

    /// The parts of an input family that its inputs depend on.
    fn parts(&self) -> &'static [Part];

    /// Why the values do not fit together, beyond what the rows say: a window needs a mask.
    fn fault(&self, _: &Problem) -> Option<Fault> {
        None
    }

    /// What manifests may name beside the variables, such as `Tmax`, the longest packed sequence.
    fn derived(&self, _: &Problem) -> Vec<(&'static str, Scalar)> {
        Vec::new()
    }

    /// Inputs then outputs. Those that the problem goes without are listed as absent
    /// ([`TensorSpec::there`]).
    fn tensors(&self, p: &Problem) -> Vec<TensorSpec>;

    /// Operations of the problem and of its reference.
    fn work(&self, p: &Problem) -> Work;

    /// The rows of the inputs that some output depends on; `None` where all are.
    fn seen(&self, _: &Problem) -> Option<Seen> {
        None
    }

    /// Seeded inputs in the order of the problem's tensors, rounded to their storage types.
    fn inputs(&self, p: &Problem, family: &Family, seed: u64) -> Vec<Tensor>;

    /// The outputs in fp64, in the order of the problem's tensors, from the rounded inputs.
    fn reference(&self, p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>>;

    /// What these rows of the outputs need, if rows can be computed apart: keys, in attention.
    /// `None` where each row depends on all rows before it: then a crop keeps them all.
    fn cut(&self, _: &Problem, _rows: &Range<usize>) -> Option<Cut> {
        None
    }

    /// The largest E/F ([`crate::verify`]) that passes, for that output and inputs of that family.
    fn limit(&self, p: &Problem, family: &Family, output: &str) -> f64;

    /// Whether a row of the output sees the past alone.
    fn is_causal(&self, _: &Problem) -> bool {
        true
    }

    /// Whether other inputs after some token must leave the outputs before it as they are. The
    /// suite tries it then.
    fn has_prefix_property(&self, p: &Problem) -> bool;

    /// What the regression suite of its kernels varies in that phase.
    fn suite(&self, phase: PhaseName) -> Suite;

    /// What makes the layer, for people: `Hq 16, Hkv 4, D 128, causal`.
    fn layer(&self, p: &Problem) -> String;

    /// What conditions of manifests may name of the inputs beside the variables, such as
    /// `score_bound`, above which no score lies.
    fn measures(&self, _: &Problem, _inputs: &[Tensor]) -> Vec<(&'static str, f64)> {
        Vec::new()
    }

    /// The family whose limits count for inputs that nobody drew, in place of `family`: one of large
    /// logits where theirs are.
    fn family_of(&self, _: &Problem, _inputs: &[Tensor], family: &Family) -> Family {
        *family
    }

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
    /// Which values it takes.
    pub kind: Kind,
    /// Its value where none is given.
    pub default: Default,
    /// What it stands for. Code for all operators asks for roles, never for names.
    pub role: Role,
    /// For people: what it counts or chooses.
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

    /// Whether a value is the row's default. Defaults that other variables decide, and variables
    /// that must be given, have none.
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
    /// This one.
    Is(Value),
    /// That of another variable: `Hkv` is `Hq`.
    As(&'static str),
    /// One over the square root of another variable.
    InverseRoot(&'static str),
    /// Sweeps and records must give it, and a sweep's error quotes the example. Elsewhere it is
    /// `small`.
    Need { example: &'static str, small: Value },
    /// The problem goes without.
    Nothing,
}

/// What a variable stands for. A dimension of a tensor has the role of the variable that its letter
/// names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sequences. `N` in layouts.
    Sequence,
    /// Tokens that the outputs have a row for each of.
    Token,
    /// Tokens that are looked back on: keys.
    Past,
    /// Tokens seen before, on which no tensor depends: the state stands for them.
    Context,
    /// Heads of the output.
    Heads,
    /// Heads that each serve several heads of the output. Their number divides that of `of`: `Hkv`
    /// divides `Hq`.
    Shared { of: &'static str },
    /// Dimension of a key.
    Key,
    /// Dimension of a value.
    Channel,
    /// Lengths of packed sequences, in place of sequences and tokens.
    Lengths,
    /// A factor that changes no shape and no work.
    Scale,
    /// The number format of these tensors.
    Format { of: &'static [&'static str] },
    /// Whatever else may be chosen: a mask, a window, whether a state is given.
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
    /// Every phase, prefill first.
    pub const ALL: [PhaseName; 3] = [PhaseName::Prefill, PhaseName::Decode, PhaseName::Verify];

    /// The name used in kernel files, sweeps and records.
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
    /// Variables with the least and the most that they may be; packed sequences are not held to it.
    pub ranges: &'static [(&'static str, usize, usize)],
}

/// New tokens a sequence that a step of verification may have.
pub const DRAFTS: (usize, usize) = (2, 16);

/// Why values do not fit together.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// The variable that is wrong or missing, or the length's name, or `phase`.
    pub variable: &'static str,
    /// A sentence that names it.
    pub text: String,
    pub kind: FaultKind,
}

/// What is wrong with a variable, so that sweeps, files and prompts each say the way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// Its value is not allowed.
    Wrong,
    /// Nothing gives it; an example of a value that would.
    Missing(&'static str),
    /// A number of heads that is no multiple of another.
    Indivisible { many: &'static str },
}

impl Fault {
    /// A variable whose value is not allowed.
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
    /// How they are counted, for people: `B*T*HV*7*K*V`.
    pub formula: &'static str,
    /// What the fp64 reference takes, in operations at the rate of a matrix product.
    pub reference_flops: f64,
}

/// Rows of the inputs that some output depends on, in each sequence or in all packed ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Tokens that look at something.
    pub tokens: usize,
    /// Tokens looked back on that some token looks at.
    pub past: usize,
}

/// What a block of an output's rows needs.
pub struct Cut {
    /// The tokens looked back on, counted through all packed sequences.
    pub past: Range<usize>,
    /// Lengths, of q and of k, that are left of the packed sequences; empty where none are packed.
    pub lens: Vec<[usize; 2]>,
}

/// What the regression suite varies beside tiles, precisions, dimensions, lengths, heads and
/// batches.
pub struct Suite {
    /// Families of inputs, as sweeps write them.
    pub families: &'static [&'static str],
    /// Axes of the operator's own.
    pub own: &'static [Own],
    /// The problem of that turn, with something more than the axes vary: a window, packed lengths.
    pub extras: fn(&Problem, usize) -> Problem,
    /// The problem with its units of work as unequal as they can be.
    pub uneven: fn(Problem) -> Problem,
}

/// An axis of a suite.
pub struct Own {
    /// How many values it has.
    pub values: usize,
    /// The problem with the value of that index.
    pub set: fn(Problem, usize) -> Problem,
}

impl Suite {
    /// No extras, and units of work that are always equal.
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
