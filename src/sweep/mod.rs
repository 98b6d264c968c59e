//! Sweep files: a question in prose, and the cases that answer it as products of axes.
//! docs/sweeps.md describes the format.

mod expand;
mod parse;
mod plan;
mod shard;
mod skips;
mod source;

use std::path::Path;

use include_dir::{Dir, include_dir};
use indexmap::IndexMap;

pub use plan::{Case, Plan, Planned};
pub use shard::Shard;
pub use source::{Source, Span, SweepError};

use crate::device::{Regime, ShareRule};
use crate::kernel::Tile;
use crate::op::{self, DType, Family, Op, PhaseName, Value};

static CURATED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/sweeps");

/// A sweep file, read and checked as far as it can be without kernels.
#[derive(Debug, Clone)]
pub struct Sweep {
    pub name: String,
    /// What it asks; Markdown of paragraphs and `code`.
    pub question: String,
    /// How to read the results; as `question`.
    pub analysis: String,
    /// The device, unless `--device` names another.
    pub device: Option<String>,
    pub seed: u64,
    pub regime: Regime,
    /// Which CTAs the emulator executes, unless the command line says otherwise.
    pub sample_ctas: Option<ShareRule>,
    /// Whether the energy of each case is measured, on a GPU.
    pub energy: bool,
    /// Axes of every group, for the operators that have their variables.
    pub axes: Vec<Axis>,
    pub groups: Vec<Group>,
    pub skips: Vec<Skip>,
    pub source: Source,
}

/// Cases that share operators, kernels and axes.
#[derive(Debug, Clone)]
pub struct Group {
    /// Where the group stands in the file.
    pub span: Span,
    /// Empty stands for every operator that a kernel is found for.
    pub ops: Vec<(Op, Span)>,
    pub phase: PhaseName,
    /// Globs over kernel names. Empty stands for every kernel.
    pub kernels: Vec<(String, Span)>,
    pub axes: Vec<Axis>,
    pub skips: Vec<Skip>,
}

/// One dimension of the product. A point of a tied axis sets several variables at once.
#[derive(Debug, Clone)]
pub struct Axis {
    pub name: String,
    pub span: Span,
    pub points: Vec<Point>,
}

/// One value of an axis.
#[derive(Debug, Clone)]
pub struct Point {
    pub span: Span,
    pub settings: Settings,
}

/// Values of variables, by name.
pub type Settings = IndexMap<&'static str, Setting>;

/// What a point says of one variable.
#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    /// The value of an operator's variable.
    Value(Value),
    DType(DType),
    Inputs(Family),
    Tile(TileChoice),
    Seed(u64),
}

/// Which tiles of a kernel are planned.
#[derive(Debug, Clone, PartialEq)]
pub enum TileChoice {
    /// The manifest's default for the problem.
    Default,
    /// Every legal tile.
    All,
    This(Tile),
}

/// Cases that are left out, and why.
#[derive(Debug, Clone)]
pub struct Skip {
    pub span: Span,
    /// An expression over the case, and the device where it names one.
    pub when: String,
    /// For people: plan, records and report have it.
    pub why: String,
}

/// Something that an axis may set: a variable of operators, a phase's length, or what every case
/// has.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Variable {
    pub name: &'static str,
    pub kind: Kind,
}

/// How the value of an axis is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// A variable of the operators that have it.
    Of(op::Kind),
    DType,
    Inputs,
    Tile,
    Seed,
}

/// What every case has.
const COMMON: [Variable; 4] = [
    Variable { name: "dtype", kind: Kind::DType },
    Variable { name: "inputs", kind: Kind::Inputs },
    Variable { name: "tile", kind: Kind::Tile },
    Variable { name: "seed", kind: Kind::Seed },
];

impl Variable {
    /// Every variable of every operator and phase, each name once, then what every case has.
    pub fn all() -> Vec<Variable> {
        let mut all: Vec<Variable> = Vec::new();
        let mut add = |v: Variable| {
            if all.iter().all(|known| known.name != v.name) {
                all.push(v);
            }
        };
        for op in Op::all() {
            for phase in op.phases() {
                for name in op.giveable_names(phase.name) {
                    let kind = op.variable(name).map_or(op::Kind::Count, |v| v.kind);
                    add(Variable { name, kind: Kind::Of(kind) });
                }
            }
        }
        COMMON.into_iter().for_each(add);
        all
    }

    /// The variable of that name, if there is one.
    pub fn named(name: &str) -> Option<Variable> {
        Variable::all().into_iter().find(|v| v.name == name)
    }

    /// Whether cases of an operator's phase have it.
    pub fn of(self, op: Op, phase: PhaseName) -> bool {
        COMMON.contains(&self) || op.giveable(phase, self.name).is_some()
    }

    /// Every name, for messages.
    pub fn names() -> String {
        let names: Vec<_> = Variable::all().into_iter().map(|v| v.name).collect();
        names.join(", ")
    }

    /// The names that cases of an operator's phase have.
    pub fn names_of(op: Op, phase: PhaseName) -> String {
        let own = op.giveable_names(phase);
        own.into_iter().chain(COMMON.map(|v| v.name)).collect::<Vec<_>>().join(", ")
    }
}

impl Sweep {
    /// A sweep by path, or by the name of one that comes with the program (`quickstart`).
    ///
    /// # Errors
    /// No such file, or a file that is no sweep.
    pub fn load(path: &Path) -> Result<Sweep, SweepError> {
        let name = path.display().to_string();
        match crate::disk::read_text(path) {
            Ok(text) => Sweep::parse(Source::new(name, text)),
            Err(e) => match curated(path) {
                Some((name, text)) if e.kind() == std::io::ErrorKind::NotFound => {
                    Sweep::parse(Source::new(name, text))
                }
                _ => {
                    let known = curated_names().join(", ");
                    Err(SweepError(format!(
                        "{name}: cannot read the sweep: {e}; give the path of a sweep file, or the name of one that comes with the program: {known}"
                    )))
                }
            },
        }
    }

    /// Reads a sweep. Any text gives a sweep or an error with its place, never a panic.
    ///
    /// # Errors
    /// Text that is no TOML, keys or values that a sweep does not have, or a part that is missing.
    pub fn parse(source: Source) -> Result<Sweep, SweepError> {
        parse::sweep(source)
    }
}

/// Names of the sweeps that come with the program.
pub fn curated_names() -> Vec<&'static str> {
    let mut names: Vec<_> =
        CURATED.files().filter_map(|f| f.path().file_stem()?.to_str()).collect();
    names.sort_unstable();
    names
}

fn curated(path: &Path) -> Option<(String, &'static str)> {
    // Both `quickstart` and `sweeps/quickstart.toml`, so that documented commands run anywhere.
    let bare = path.components().count() == 1 && path.extension().is_none();
    let name =
        if bare { path.with_extension("toml") } else { path.strip_prefix("sweeps").ok()?.into() };
    let text = CURATED.get_file(&name)?.contents_utf8()?;
    Some((format!("sweeps/{}", name.display()), text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Registry;

    #[test]
    fn curated_sweeps_plan() {
        let registry = Registry::embedded().unwrap();
        for name in curated_names() {
            let sweep = Sweep::load(Path::new(name)).unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(sweep.name, name);
            assert!(!sweep.question.is_empty() && !sweep.analysis.is_empty(), "{name}");
            let plan = sweep.plan(&registry, None, None).unwrap_or_else(|e| panic!("{e}"));
            assert!(plan.runnable().count() > 0, "{name}");
        }
        let e = Sweep::load(Path::new("no-such")).unwrap_err().to_string();
        assert!(e.contains("no-such") && e.contains("quickstart"), "{e}");
    }
}
