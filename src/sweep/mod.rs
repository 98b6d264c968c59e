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
use crate::op::{DType, Family, Op, Phase};

static CURATED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/sweeps");

/// A sweep file, read and checked as far as it can be without kernels.
#[derive(Debug, Clone)]
pub struct Sweep {
    pub name: String,
    pub question: String,
    pub analysis: String,
    /// What `--device` is by default.
    pub device: Option<String>,
    pub seed: u64,
    pub regime: Regime,
    /// Which CTAs the emulator executes, unless the command line says otherwise.
    pub sample_ctas: Option<ShareRule>,
    /// Axes that every group takes, as far as its operators have their variables.
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
    /// Empty for every operator that a kernel is found for.
    pub ops: Vec<(Op, Span)>,
    pub phase: Phase,
    /// Globs over kernel names; empty for every kernel.
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

#[derive(Debug, Clone)]
pub struct Point {
    pub span: Span,
    pub settings: Settings,
}

/// Values of variables, by name.
pub type Settings = IndexMap<&'static str, Setting>;

#[derive(Debug, Clone, PartialEq)]
pub enum Setting {
    Count(usize),
    Flag(bool),
    Number(f64),
    /// Lengths of packed sequences: tokens of q and of k.
    Lens(Vec<[usize; 2]>),
    DType(DType),
    Inputs(Family),
    Tile(TileChoice),
    Seed(u64),
}

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
    pub when: String,
    pub why: String,
}

/// A variable that an axis may set.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Variable {
    pub name: &'static str,
    pub kind: Kind,
    ops: &'static [Op],
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Count,
    Flag,
    Number,
    Lens,
    DType,
    Inputs,
    Tile,
    Seed,
}

const ATTENTION: &[Op] = &[Op::Attention];
const DELTA: &[Op] = &[Op::GatedDeltaRule, Op::Kda];
const EVERY: &[Op] = &Op::ALL;

pub(crate) const VARIABLES: [Variable; 22] = {
    const fn v(name: &'static str, kind: Kind, ops: &'static [Op]) -> Variable {
        Variable { name, kind, ops }
    }
    [
        v("B", Kind::Count, EVERY),
        v("T", Kind::Count, EVERY),
        v("Tq", Kind::Count, ATTENTION),
        v("Tkv", Kind::Count, ATTENTION),
        v("Hq", Kind::Count, ATTENTION),
        v("Hkv", Kind::Count, ATTENTION),
        v("D", Kind::Count, ATTENTION),
        v("Dv", Kind::Count, ATTENTION),
        v("causal", Kind::Flag, ATTENTION),
        v("window", Kind::Count, ATTENTION),
        v("softcap", Kind::Number, ATTENTION),
        v("lens", Kind::Lens, ATTENTION),
        v("H", Kind::Count, DELTA),
        v("HV", Kind::Count, DELTA),
        v("K", Kind::Count, DELTA),
        v("V", Kind::Count, DELTA),
        v("initial_state", Kind::Flag, DELTA),
        v("final_state", Kind::Flag, DELTA),
        v("scale", Kind::Number, EVERY),
        v("dtype", Kind::DType, EVERY),
        v("inputs", Kind::Inputs, EVERY),
        v("tile", Kind::Tile, EVERY),
    ]
};
/// Not in [`VARIABLES`]' columns: every operator's cases have a seed.
pub(crate) const SEED: Variable = Variable { name: "seed", kind: Kind::Seed, ops: EVERY };

impl Variable {
    pub fn named(name: &str) -> Option<Variable> {
        VARIABLES.into_iter().chain([SEED]).find(|v| v.name == name)
    }

    pub fn of(self, op: Op) -> bool {
        self.ops.contains(&op)
    }

    /// The names an operator has, for messages.
    pub fn names(op: Option<Op>) -> String {
        let all = VARIABLES.into_iter().chain([SEED]);
        let names: Vec<_> = all.filter(|v| op.is_none_or(|op| v.of(op))).map(|v| v.name).collect();
        names.join(", ")
    }
}

impl Sweep {
    /// A sweep by path, or by the name of one that comes with the program (`quickstart`).
    ///
    /// # Errors
    /// No such file, or a file that is no sweep.
    pub fn load(path: &Path) -> Result<Sweep, SweepError> {
        let name = path.display().to_string();
        match std::fs::read_to_string(path) {
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

    /// Reads a sweep. Any text is survived: it gives a sweep or an error with its place.
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
