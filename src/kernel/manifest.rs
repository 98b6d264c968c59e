//! Manifests: everything a launcher must know of a template. docs/adding-a-kernel.md is the
//! tour; each field is described here.

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer};

use super::Tile;
use crate::device::Swizzle;
use crate::op::{self, DType, Family, Kind, Op, PhaseName, Problem, Role, Variable};

/// `<phase>.<arch>.toml`, beside the PTX of the same stem, template or plain.
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
    /// Whether the PTX is a template; if missing, the text tells
    /// ([`Kernel::is_template`](super::Kernel::is_template)).
    pub template: Option<bool>,
    /// Precisions of a problem that the kernel does.
    pub dtypes: Vec<DType>,
    /// Problem variables with the only values they may take, such as `D = [64, 128]`.
    #[serde(default)]
    pub shapes: IndexMap<String, Vec<i64>>,
    /// Variables that are number formats with the words they may be, such as
    /// `state = ["fp32", "bf16"]`. One that is not listed is as usual.
    #[serde(default)]
    pub formats: IndexMap<String, Vec<String>>,
    /// Options beyond the operator's plain form that the kernel takes, such as `window`. One that
    /// nothing else in the manifest names either is refused.
    #[serde(default)]
    pub options: Vec<String>,
    /// Further conditions on a problem's variables and its `phase`.
    #[serde(default)]
    pub supports: Vec<Condition>,
    /// Conditions on the inputs, by the operator's measures of them, such as `score_bound`, beside
    /// what `supports` names.
    #[serde(default)]
    pub inputs: Vec<Condition>,
    /// Inputs on which the kernel loses more than the operator's limits allow. They fail all the same;
    /// that they do is known.
    #[serde(default)]
    pub loses: Vec<Loss>,
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
    /// Default tiles: the first whose `when` holds. `when` sees problem variables and `dtype`; the last
    /// has none. Where each axis has one value, or there are none, this may be missing.
    #[serde(default)]
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

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expr::Int(i) => write!(f, "{i}"),
            Expr::Float(x) => write!(f, "{x}"),
            Expr::Text(text) => write!(f, "`{text}`"),
        }
    }
}

/// An expression that must hold, and what to say when it does not.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    pub expr: String,
    pub why: String,
}

/// Inputs on which a kernel is less exact than it should be, and how much at most.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Loss {
    /// What a family has of it: `keys=identical` alone, or `gate=slow keys=correlated` together.
    pub family: String,
    /// The largest E/F of an output there. More is a failure that is not known.
    pub most: f64,
    pub why: String,
}

impl Loss {
    /// Whether inputs of that family are meant.
    pub fn covers(&self, family: &Family) -> bool {
        let family = family.to_string();
        let has = |part: &str| family.split(' ').any(|own| own == part);
        self.family.split_whitespace().all(has)
    }
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

impl Expr {
    /// The variable that it is and nothing more, if it is one.
    pub fn variable(&self) -> Option<&str> {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        match self {
            Expr::Text(text) => {
                let text = text.trim();
                let name = text.starts_with(|c: char| c.is_alphabetic() || c == '_');
                (name && text.chars().all(is_name)).then_some(text)
            }
            Expr::Int(_) | Expr::Float(_) => None,
        }
    }
}

impl Manifest {
    /// What is wrong with it beyond its form, if anything: precisions, formats, options, default
    /// tiles, parameters that are called after something else than they pass.
    pub fn fault(&self) -> Option<String> {
        let faults = [
            Manifest::formats_fault,
            Manifest::options_fault,
            Manifest::defaults_fault,
            Manifest::params_fault,
            Manifest::losses_fault,
        ];
        faults.iter().find_map(|fault| fault(self))
    }

    /// What is known of the kernel's failing on inputs of that family.
    pub fn loss(&self, family: &Family) -> Option<&Loss> {
        self.loses.iter().find(|loss| loss.covers(family))
    }

    /// Losses of no family, of all families, or of no size.
    fn losses_fault(&self) -> Option<String> {
        self.loses.iter().enumerate().find_map(|(i, loss)| {
            let place = format!("loses {} (family = \"{}\")", i + 1, loss.family);
            match loss.family.parse::<Family>() {
                Err(e) => Some(format!("{place}: {e}")),
                Ok(family) if !loss.covers(&family) || family == Family::default() => Some(format!(
                    "{place}: name parts that differ from the usual ones, such as keys=identical"
                )),
                Ok(_) if !(loss.most.is_finite() && loss.most > 0.0) => {
                    Some(format!("{place}: most = {}: expected an E/F above 0", loss.most))
                }
                Ok(_) => None,
            }
        })
    }

    fn options_fault(&self) -> Option<String> {
        let odd = self
            .options
            .iter()
            .find(|name| !self.op.variable(name).is_some_and(|v| is_beyond_plain(self.op, v)))?;
        let all = self.op.variables().iter().filter(|v| is_beyond_plain(self.op, v));
        let all: Vec<_> = all.map(|v| v.name).collect();
        let all = if all.is_empty() { "none".into() } else { all.join(", ") };
        Some(format!("options: `{odd}` is no option of {}: it has {all}", self.op))
    }

    /// Default tiles that name an axis or value that there is not, lack one, or are never reached, and
    /// problems that none is for.
    fn defaults_fault(&self) -> Option<String> {
        for (i, default) in self.default.iter().enumerate() {
            let place = format!("default {} ({})", i + 1, Tile(default.tile.clone()));
            if let Some(axis) = default.tile.keys().find(|axis| !self.tile.contains_key(*axis)) {
                let known: Vec<_> = self.tile.keys().map(String::as_str).collect();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Some(format!("{place}: no tile axis `{axis}`: there are {known}"));
            }
            for (axis, values) in &self.tile {
                match default.tile.get(axis) {
                    None => return Some(format!("{place}: tile axis `{axis}` is missing")),
                    Some(x) if !values.contains(x) => {
                        return Some(format!(
                            "{place}: tile axis {axis} takes {values:?}, not {x}"
                        ));
                    }
                    Some(_) => {}
                }
            }
            let last = i + 1 == self.default.len();
            match (&default.when, last) {
                (Some(when), true) => {
                    return Some(format!(
                        "{place} is the last and has `when = \"{when}\"`: problems for which it does \
                         not hold have no default tile; leave its `when` out or add one without"
                    ));
                }
                (None, false) => {
                    return Some(format!(
                        "{place} has no `when`, so those behind it are never reached: put it last"
                    ));
                }
                _ => {}
            }
        }
        if let Some((axis, _)) = self.tile.iter().find(|(_, values)| values.is_empty()) {
            return Some(format!("tile: axis {axis} has no value"));
        }
        let one = self.tile.values().all(|values| values.len() == 1);
        let why = "default: none, and tile axes have several values: say which is the default";
        (self.default.is_empty() && !one).then(|| why.into())
    }

    /// A parameter that has the name of one tensor or variable and passes another.
    fn params_fault(&self) -> Option<String> {
        let op = self.op;
        let plain = Problem::plain(op, op.phases()[0].name, DType::Bf16, (64, 64), 64);
        let tensors: Vec<&str> = op.tensors(&plain).iter().map(|t| t.name).collect();
        let is_buffer =
            |name: &str| tensors.contains(&name) || self.workspace.iter().any(|w| w.name == name);
        for entry in &self.entry {
            for param in &entry.params {
                let name = param.name.as_str();
                let (of, other) = match &param.kind {
                    ParamKind::Buffer(of) => ("buffer", is_buffer(name).then_some(of.as_str())),
                    ParamKind::TensorMap(spec) => {
                        ("tensor_map of", is_buffer(name).then_some(spec.buffer.as_str()))
                    }
                    ParamKind::U32(e) | ParamKind::U64(e) | ParamKind::F32(e) => {
                        let value = e.variable().filter(|v| op.variable(v).is_some());
                        ("value", value.filter(|_| op.variable(name).is_some()))
                    }
                };
                if let Some(other) = other.filter(|other| *other != name) {
                    return Some(format!(
                        "entry {}: param `{name}` passes the {of} `{other}`: pass `{name}`, or call it \
                         after what it passes",
                        entry.name
                    ));
                }
            }
        }
        None
    }

    /// Whether the manifest names a variable anywhere: in `options`, `specialise`, `shapes`, a
    /// condition, an expression or a buffer.
    pub fn names(&self, name: &str) -> bool {
        let is_name = |c: char| c.is_alphanumeric() || c == '_';
        let in_text = |text: &String| text.split(|c| !is_name(c)).any(|word| word == name);
        let is = |e: &Expr| matches!(e, Expr::Text(text) if in_text(text));
        let any = |all: &[Expr]| all.iter().any(is);
        let when = |when: &Option<String>| when.as_ref().is_some_and(in_text);
        let param = |p: &Param| {
            when(&p.when)
                || match &p.kind {
                    ParamKind::Buffer(buffer) => buffer == name,
                    ParamKind::U32(e) | ParamKind::U64(e) | ParamKind::F32(e) => is(e),
                    ParamKind::TensorMap(map) => {
                        map.buffer == name || any(&map.dims) || any(&map.strides) || any(&map.tile)
                    }
                }
        };
        let entry = |e: &Entry| {
            any(&e.grid)
                || any(&e.block)
                || any(&e.cluster)
                || is(&e.shared)
                || when(&e.when)
                || e.params.iter().any(param)
        };
        self.options.iter().chain(&self.specialise).any(|n| n == name)
            || self.shapes.contains_key(name)
            || self.formats.contains_key(name)
            || self.supports.iter().chain(&self.constraints).any(|c| in_text(&c.expr))
            || self.constants.values().chain(self.derived.values()).any(is)
            || self.default.iter().any(|d| when(&d.when))
            || self.workspace.iter().any(|w| any(&w.shape) || when(&w.when))
            || self.entry.iter().any(entry)
    }

    fn formats_fault(&self) -> Option<String> {
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

/// Whether a variable is an option beyond the operator's plain form, which a kernel has to ask for: one
/// that problems go without unless it is given, packed lengths, or a value dimension that is the
/// keys' unless it is given. Number formats are asked for by [`Manifest::formats`].
pub fn is_beyond_plain(op: Op, v: &Variable) -> bool {
    let follows = |of: &str| op.variable(of).is_some_and(|v| v.role == Role::Key);
    match (v.role, &v.default) {
        (Role::Option | Role::Lengths, op::Default::Nothing) => true,
        (Role::Channel, op::Default::As(of)) => follows(of),
        _ => false,
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
