//! Manifests: everything a launcher must know of a template. docs/adding-a-kernel.md is the
//! tour; each field is described here.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer};

use crate::device::Swizzle;
use crate::op::{DType, Kind, Op, PhaseName, Role};

/// `<phase>.<arch>.toml`, beside the template of the same stem.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// One line for `crossover kernels`.
    pub summary: String,
    /// The operator.
    pub op: Op,
    /// The phases it does; the file's name carries the first. `phase = "prefill"` is the same as
    /// `phases = ["prefill"]`.
    #[serde(alias = "phase", deserialize_with = "one_or_more")]
    pub phases: Vec<PhaseName>,
    /// `.target` of the PTX: `sm_80` runs on 8.0 and later, `sm_90a` on 9.0 alone.
    pub target: String,
    /// Precisions of a problem that the template can be rendered for.
    pub dtypes: Vec<DType>,
    /// Problem variables with the only values they may take, such as `D = [64, 128]`.
    #[serde(default)]
    pub shapes: IndexMap<String, Vec<i64>>,
    /// Variables that are number formats with the words they may be, such as
    /// `state = ["fp32", "bf16"]`. One that is not listed is as usual.
    #[serde(default)]
    pub formats: IndexMap<String, Vec<String>>,
    /// Further conditions on a problem's variables and its `phase`.
    #[serde(default)]
    pub supports: Vec<Condition>,
    /// Conditions on the inputs, by the operator's measures of them, such as `score_bound`, beside
    /// what `supports` names.
    #[serde(default)]
    pub inputs: Vec<Condition>,
    /// Problem variables that become constants of the template.
    #[serde(default)]
    pub specialise: Vec<String>,
    /// Tile axes: constants of the template that a tuner may choose.
    #[serde(default)]
    pub tile: IndexMap<String, Vec<i64>>,
    /// Further constants of the template, in order, from tile axes, specialised variables,
    /// `dtype` and earlier constants.
    #[serde(default)]
    pub constants: IndexMap<String, Expr>,
    /// Which combinations of tile values are legal.
    #[serde(default)]
    pub constraints: Vec<Condition>,
    /// Default tiles: the first whose `when` holds. `when` sees problem variables and `dtype`.
    pub default: Vec<Default>,
    /// Values for grids, workspaces and parameters, in order, from all of the above and every
    /// problem variable.
    #[serde(default)]
    pub derived: IndexMap<String, Expr>,
    /// Device memory beside the tensors of the problem.
    #[serde(default)]
    pub workspace: Vec<Workspace>,
    /// Entries in launch order.
    pub entry: Vec<Entry>,
}

/// An expression, or a plain number.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Expr {
    Int(i64),
    Float(f64),
    Text(String),
}

/// An expression that must hold, and what to say when it does not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub expr: String,
    pub why: String,
}

/// A tile, and the problems that it is the default for; without `when`, all.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Default {
    pub when: Option<String>,
    pub tile: IndexMap<String, i64>,
}

/// Device memory that launches share and nobody reads afterwards.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workspace {
    pub name: String,
    pub dtype: DType,
    /// Elements along each dimension.
    pub shape: Vec<Expr>,
    /// Each run finds it zeroed; the zeroing is part of the timed run.
    #[serde(default)]
    pub zeroed: bool,
    /// There only where this holds; elsewhere parameters that name it are a null address.
    pub when: Option<String>,
}

/// One launch: an `.entry` of the PTX with its grid and parameters.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The name of the `.entry`.
    pub name: String,
    /// CTAs along x, y, z; missing ones are 1.
    pub grid: Vec<Expr>,
    /// Threads along x, y, z; missing ones are 1.
    pub block: Vec<Expr>,
    /// CTAs of a cluster along x, y, z; missing ones are 1.
    #[serde(default)]
    pub cluster: Vec<Expr>,
    /// Bytes of dynamic shared memory.
    #[serde(default = "zero")]
    pub shared: Expr,
    /// Launch only where this holds.
    pub when: Option<String>,
    /// In the order of the `.param` list.
    pub params: Vec<Param>,
}

/// One phase, or a list of at least one.
fn one_or_more<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PhaseName>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Form {
        One(String),
        Many(Vec<String>),
    }
    let names = match Form::deserialize(from)? {
        Form::One(name) => vec![name],
        Form::Many(names) => names,
    };
    let known = || PhaseName::names();
    if names.is_empty() {
        let why = format!("no phase: name at least one of {}", known());
        return Err(serde::de::Error::custom(why));
    }
    let parse = |name: &String| {
        let why = || format!("unknown phase `{name}`: expected one of {}", known());
        PhaseName::parse(name).ok_or_else(|| serde::de::Error::custom(why()))
    };
    let phases: Vec<PhaseName> = names.iter().map(parse).collect::<Result<_, _>>()?;
    match (1..phases.len()).find(|i| phases[..*i].contains(&phases[*i])) {
        Some(i) => Err(serde::de::Error::custom(format!("phase `{}` twice", phases[i]))),
        None => Ok(phases),
    }
}

impl Manifest {
    /// What is wrong with precisions and formats, if anything.
    pub fn fault(&self) -> Option<String> {
        if let Some(dtype) = self.dtypes.iter().find(|d| !DType::PRECISIONS.contains(d)) {
            let known = DType::precision_names();
            return Some(format!("dtypes: {dtype} is no precision: expected {known}"));
        }
        for (name, words) in &self.formats {
            let row = self.op.variable(name).filter(|v| matches!(v.role, Role::Format { .. }));
            let Some(Kind::Word(known)) = row.map(|v| v.kind) else {
                let all =
                    self.op.variables().iter().filter(|v| matches!(v.role, Role::Format { .. }));
                let all: Vec<_> = all.map(|v| v.name).collect();
                let all = all.join(", ");
                return Some(format!(
                    "formats: `{name}` is no format of {}: it has {all}",
                    self.op
                ));
            };
            let odd = words.iter().find(|w| !known.contains(&w.as_str()));
            if let Some(word) = odd {
                let known = known.join(", ");
                return Some(format!("formats.{name}: unknown format `{word}`: expected {known}"));
            }
            if words.is_empty() {
                return Some(format!("formats.{name} is empty: leave it out for the usual one"));
            }
        }
        None
    }
}

fn zero() -> Expr {
    Expr::Int(0)
}

/// One kernel parameter: `{ name = "q", buffer = "q" }`, `{ name = "Tq", u32 = "Tq" }`.
#[derive(Debug, Clone, Deserialize)]
pub struct Param {
    pub name: String,
    #[serde(flatten)]
    pub kind: ParamKind,
    /// The entry has it only where this holds.
    pub when: Option<String>,
}

/// The type of a parameter, and its value.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// `.u64`: the address of a tensor of the problem or of a workspace, by name. A tensor that
    /// the problem does not have (no initial state, say) gives a null address.
    Buffer(String),
    U32(Expr),
    U64(Expr),
    F32(Expr),
    /// `.align 64 .b8[128]`
    TensorMap(TensorMapSpec),
}

/// A tensor map over a tensor or workspace; dimensions innermost first.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorMapSpec {
    /// A tensor of the problem or a workspace, by name.
    pub buffer: String,
    /// Elements along each dimension.
    pub dims: Vec<Expr>,
    /// Elements from one index to the next, of each dimension but the innermost.
    pub strides: Vec<Expr>,
    /// Elements of the box along each dimension.
    pub tile: Vec<Expr>,
    #[serde(default)]
    pub swizzle: Swizzle,
    /// Read NaN instead of zero out of bounds.
    #[serde(default)]
    pub nan_fill: bool,
}
