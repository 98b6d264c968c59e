//! Plans a sweep over the kernels at hand: cases, each with an id, in a fixed order.

use std::collections::HashSet;

use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};

use super::expand::{Combination, MAX_CASES, axes_of, product, settings_of};
use super::skips::Skips;
use super::{Axis, Group, Setting, Shard, Skip, Sweep, SweepError, TileChoice, Variable};
use crate::device::{Facts, Regime};
use crate::kernel::{Kernel, Registry, Tile};
use crate::op::{Family, Op, PhaseName, Problem, Role, Value};

type Result<T> = std::result::Result<T, SweepError>;

/// One thing to measure: a kernel variant on a problem with inputs of a family and seed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Case {
    pub problem: Problem,
    pub family: Family,
    pub seed: u64,
    /// Its name, with target.
    pub kernel: String,
    pub tile: Tile,
    pub regime: Regime,
}

/// The problem's phase stands beside it, as in records.
impl Serialize for Case {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields<'a> {
            problem: &'a Problem,
            phase: PhaseName,
            family: Family,
            seed: u64,
            kernel: &'a str,
            tile: &'a Tile,
            regime: Regime,
        }
        let Case { problem, family, seed, kernel, tile, regime } = self;
        let (phase, family, seed, regime) = (problem.phase(), *family, *seed, *regime);
        Fields { problem, phase, family, seed, kernel, tile, regime }.serialize(serializer)
    }
}

impl Case {
    /// The name of the case on a device within a sweep, the same for good: a hash of all that makes
    /// it.
    pub fn id(&self, sweep: &str, device: &str) -> String {
        let text = serde_json::to_string(&(sweep, device, self)).expect("a case is plain data");
        Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

/// A case, and whether it is run.
#[derive(Debug, Clone)]
pub struct Planned {
    pub case: Case,
    /// Why the case is left out, if it is.
    pub skip: Option<String>,
    /// What shards divide by. It does not depend on the device.
    index: usize,
}

/// The cases of a sweep in the order in which they run: by the phase's length, so that an
/// interrupted run has every operator up to some length.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The name of the sweep.
    pub sweep: String,
    pub cases: Vec<Planned>,
    /// Skips that a device decides, where none was given.
    pub undecided: Vec<Skip>,
}

impl Plan {
    /// The cases that are not skipped.
    pub fn runnable(&self) -> impl Iterator<Item = &Case> {
        self.cases.iter().filter(|p| p.skip.is_none()).map(|p| &p.case)
    }

    /// Skipped cases counted by reason, in order of appearance.
    pub fn reasons(&self) -> indexmap::IndexMap<&str, usize> {
        let mut reasons = indexmap::IndexMap::new();
        for reason in self.cases.iter().filter_map(|p| p.skip.as_deref()) {
            *reasons.entry(reason).or_default() += 1;
        }
        reasons
    }

    /// What is left for one shard. Shards are disjoint and together the whole plan.
    pub fn shard(mut self, shard: Shard) -> Plan {
        self.cases.retain(|p| shard.has(p.index));
        self
    }
}

impl Sweep {
    /// Plans the sweep over the kernels of `registry`. Without a device nothing is skipped for
    /// the device's sake. `seed` overrides the sweep's.
    ///
    /// # Errors
    /// Whatever in the sweep means nothing here: a kernel that does not exist, a value that no
    /// kernel takes, an expression that does not evaluate, a variable that is missing.
    pub fn plan(
        &self,
        registry: &Registry,
        device: Option<&Facts>,
        seed: Option<u64>,
    ) -> Result<Plan> {
        let scopes =
            self.groups.iter().map(|g| self.scope(g, registry)).collect::<Result<Vec<_>>>()?;
        self.check_axes(&scopes)?;
        let skips = Skips::new(self, registry)?;
        let mut drafts: Vec<Draft> = Vec::new();
        let mut seen = HashSet::new();
        for scope in &scopes {
            for (op, kernels) in &scope.ops {
                let axes = axes_of(&self.axes, scope.group, *op);
                let too_many = || {
                    let why =
                        format!("more than {MAX_CASES} cases: use fewer values or split the sweep");
                    self.source.error(&scope.group.span, why)
                };
                for points in product(&axes).ok_or_else(too_many)? {
                    let combination = Combination::new(points, *op, scope.group.phase);
                    let problem = combination.problem(&self.source, scope.group, *op)?;
                    let case = |kernel: &Kernel, tile: Tile| Case {
                        problem: problem.clone(),
                        family: combination.family(*op),
                        seed: seed.or(combination.seed()).unwrap_or(self.seed),
                        kernel: kernel.name.clone(),
                        tile,
                        regime: self.regime,
                    };
                    for kernel in kernels {
                        let choice = match combination.settings.get("tile") {
                            Some(Setting::Tile(choice)) => choice,
                            _ => &TileChoice::Default,
                        };
                        let (tiles, why) = tiles(kernel, &problem, choice);
                        for tile in tiles {
                            let case = case(kernel, tile);
                            if !seen.insert(case.id("", "")) {
                                continue;
                            }
                            if drafts.len() >= MAX_CASES {
                                return Err(too_many());
                            }
                            let skip = match &why {
                                Some(why) => Some(why.clone()),
                                None => skips.of(&case, scope.group, None)?,
                            };
                            let planned = Planned { case, skip, index: 0 };
                            let by_default = *choice == TileChoice::Default;
                            drafts.push(Draft { planned, group: scope.group, kernel, by_default });
                        }
                    }
                }
            }
        }
        drafts.sort_by_key(|d| d.planned.case.problem.length());
        // Numbered apart, so that every shard gets its share of the work.
        let (mut run, mut left_out) = (0, 0);
        for Draft { planned, .. } in &mut drafts {
            let next = if planned.skip.is_none() { &mut run } else { &mut left_out };
            planned.index = *next;
            *next += 1;
        }
        if let Some(facts) = device {
            for draft in drafts.iter_mut().filter(|d| d.planned.skip.is_none()) {
                let case = &mut draft.planned.case;
                draft.planned.skip = match fit(draft.kernel, case, facts, draft.by_default) {
                    Err(why) => Some(why),
                    Ok(tile) => {
                        case.tile = tile;
                        skips.of(case, draft.group, Some(facts))?
                    }
                };
            }
            // A tile that stands in for the default may be planned already.
            let mut seen = HashSet::new();
            drafts.retain(|d| seen.insert(d.planned.case.id("", "")));
        }
        let undecided = match device {
            Some(_) => Vec::new(),
            None => skips.for_devices(),
        };
        let cases = drafts.into_iter().map(|d| d.planned).collect();
        Ok(Plan { sweep: self.name.clone(), cases, undecided })
    }

    /// The operators of a group with the kernels that run each.
    fn scope<'a>(&self, group: &'a Group, registry: &'a Registry) -> Result<Scope<'a>> {
        let mut found: Vec<&Kernel> = Vec::new();
        for (glob, span) in &group.kernels {
            let matching = registry.matching(glob).map_err(|e| self.source.error(span, e))?;
            found.extend(matching);
        }
        if group.kernels.is_empty() {
            found.extend(registry.kernels());
        }
        let in_scope = |k: &Kernel| {
            found.iter().any(|f| f.name == k.name) && k.manifest.phases.contains(&group.phase)
        };
        let ops_wanted: Vec<Op> = match group.ops.is_empty() {
            // All that the group gives heads: an operator that joins breaks no sweep without it.
            true => {
                let any = Op::all().any(|op| self.gives_heads(group, op));
                Op::all().filter(|op| !any || self.gives_heads(group, *op)).collect()
            }
            false => group.ops.iter().map(|(op, _)| *op).collect(),
        };
        let mut ops: Vec<(Op, Vec<&Kernel>)> = Vec::new();
        for op in ops_wanted {
            let kernels: Vec<_> =
                registry.kernels().iter().filter(|k| k.manifest.op == op && in_scope(k)).collect();
            if !kernels.is_empty() && ops.iter().all(|(o, _)| *o != op) {
                ops.push((op, kernels));
            } else if let Some((_, span)) = group.ops.iter().find(|(o, _)| *o == op)
                && kernels.is_empty()
            {
                let known: Vec<_> = registry.of(op, group.phase).map(|k| k.name.as_str()).collect();
                let why = match known.is_empty() {
                    true => format!("no kernel does {op} {}", group.phase),
                    false => format!(
                        "no kernel of this group does {op} {}: there are {}",
                        group.phase,
                        known.join(", ")
                    ),
                };
                return Err(self.source.error(span, why));
            }
        }
        if ops.is_empty() {
            let span = group.kernels.first().map_or(&group.span, |(_, span)| span);
            let why = format!("no kernel here does any operator's {}", group.phase);
            return Err(self.source.error(span, why));
        }
        Ok(Scope { group, ops })
    }

    /// Whether an axis that the group takes says how many heads an operator has.
    fn gives_heads(&self, group: &Group, op: Op) -> bool {
        let heads = |v: &crate::op::Variable| matches!(v.role, Role::Heads | Role::Shared { .. });
        let names: Vec<_> = op.variables().iter().filter(|v| heads(v)).map(|v| v.name).collect();
        axes_of(&self.axes, group, op).iter().any(|axis| {
            axis.points.iter().any(|p| p.settings.keys().any(|name| names.contains(name)))
        })
    }

    /// Every value of every axis must be one that some kernel takes.
    fn check_axes<'a>(&self, scopes: &[Scope<'a>]) -> Result<()> {
        let ops = |s: &Scope<'a>| {
            let phase = s.group.phase;
            s.ops.iter().map(move |(op, kernels)| (*op, kernels.clone(), phase)).collect::<Vec<_>>()
        };
        let all: Vec<_> = scopes.iter().flat_map(ops).collect();
        self.axes.iter().try_for_each(|axis| self.check_axis(axis, &all))?;
        for scope in scopes {
            let own = ops(scope);
            scope.group.axes.iter().try_for_each(|axis| self.check_axis(axis, &own))?;
        }
        Ok(())
    }

    fn check_axis(&self, axis: &Axis, scope: &[(Op, Vec<&Kernel>, PhaseName)]) -> Result<()> {
        for point in &axis.points {
            for (name, setting) in &point.settings {
                let takers: Vec<&Kernel> = scope
                    .iter()
                    .filter(|(op, _, phase)| {
                        settings_of(point, *op, *phase).any(|(n, _)| n == *name)
                    })
                    .flat_map(|(_, kernels, _)| kernels.iter().copied())
                    .collect();
                if takers.is_empty() {
                    let ops: Vec<_> = scope
                        .iter()
                        .map(|(op, _, phase)| {
                            format!("{op} has {}", Variable::names_of(*op, *phase))
                        })
                        .collect();
                    let why = format!("nothing here has a variable `{name}`: {}", ops.join("; "));
                    return Err(self.source.error(&point.span, why));
                }
                let refusals: Vec<_> =
                    takers.iter().filter_map(|k| refusal(k, name, setting)).collect();
                if refusals.len() == takers.len() {
                    let why = format!("no kernel takes it: {}", refusals.join("; "));
                    return Err(self.source.error(&point.span, why));
                }
            }
        }
        Ok(())
    }
}

/// A case with where it came from.
struct Draft<'a> {
    planned: Planned,
    group: &'a Group,
    kernel: &'a Kernel,
    /// Whether the tile is the manifest's choice.
    by_default: bool,
}

/// A group with what it runs.
struct Scope<'a> {
    group: &'a Group,
    ops: Vec<(Op, Vec<&'a Kernel>)>,
}

/// Why a kernel's manifest rules out one value whatever the others are, if it does.
fn refusal(kernel: &Kernel, name: &str, setting: &Setting) -> Option<String> {
    let m = &kernel.manifest;
    match setting {
        Setting::DType(dtype) if !m.dtypes.contains(dtype) => {
            let known: Vec<_> = m.dtypes.iter().map(|d| d.name()).collect();
            Some(format!("{} has no dtype {dtype}, only {}", kernel.name, known.join(", ")))
        }
        Setting::Value(given) if m.op.variable(name).is_some_and(is_format) => {
            let known = m.formats.get(name).map_or("the usual one".into(), |f| f.join(", "));
            let why = || format!("{} takes {name} of {known}, not {given}", kernel.name);
            (!kernel.takes(name, given)).then(why)
        }
        Setting::Value(Value::Count(n)) => {
            let allowed = m.shapes.get(name)?;
            let fits = allowed.contains(&(*n as i64));
            (!fits).then(|| format!("{} takes {name} of {allowed:?}, not {n}", kernel.name))
        }
        Setting::Tile(TileChoice::This(tile)) => {
            let odd = |(axis, x): (&String, &i64)| match m.tile.get(axis) {
                None => {
                    let known: Vec<_> = m.tile.keys().map(String::as_str).collect();
                    Some(format!(
                        "{} has no tile axis `{axis}`, only {}",
                        kernel.name,
                        known.join(", ")
                    ))
                }
                Some(values) if !values.contains(x) => {
                    Some(format!("{} takes {axis} of {values:?}, not {x}", kernel.name))
                }
                Some(_) => None,
            };
            tile.0.iter().find_map(odd)
        }
        _ => None,
    }
}

fn is_format(variable: &crate::op::Variable) -> bool {
    matches!(variable.role, Role::Format { .. })
}

/// The tiles to run, or one tile and why it cannot be run.
fn tiles(kernel: &Kernel, problem: &Problem, choice: &TileChoice) -> (Vec<Tile>, Option<String>) {
    let none = |why: String| (vec![Tile::default()], Some(why));
    if let Err(e) = kernel.supports(problem) {
        return none(e.0);
    }
    match choice {
        TileChoice::This(tile) => {
            // Axes in the manifest's order, so that one tile has one id.
            let mut ordered = Tile::default();
            for axis in kernel.manifest.tile.keys().chain(tile.0.keys()) {
                if let Some(x) = tile.0.get(axis) {
                    ordered.0.insert(axis.clone(), *x);
                }
            }
            let why = kernel.check_tile(problem, &ordered).err().map(|e| e.0);
            (vec![ordered], why)
        }
        TileChoice::All => match kernel.tiles(problem) {
            Ok(tiles) if tiles.is_empty() => none(format!("{} has no legal tile", kernel.name)),
            Ok(tiles) => (tiles, None),
            Err(e) => none(e.0),
        },
        TileChoice::Default => match kernel.default_tile(problem) {
            Ok(tile) => (vec![tile], None),
            Err(e) => none(e.0),
        },
    }
}

/// The tile to run on the device: the case's, or where that is a default too large for the
/// device, the largest legal one that fits. An error says why there is none.
fn fit(
    kernel: &Kernel,
    case: &Case,
    facts: &Facts,
    by_default: bool,
) -> std::result::Result<Tile, String> {
    if let Some(why) = kernel.unfit(facts) {
        return Err(why);
    }
    let (bytes, memory) = (case.problem.min_bytes(), facts.memory_bytes as f64);
    if bytes > memory {
        return Err(format!(
            "its tensors take more than the {:.0} GB of device memory of {}",
            memory / 1e9,
            facts.name
        ));
    }
    let limit = facts.shared_bytes_per_cta;
    let needs = |tile: &Tile| {
        kernel.shared_bytes(&case.problem, tile, facts.multiprocessors).map_err(|e| e.0)
    };
    if needs(&case.tile)? <= limit {
        return Ok(case.tile.clone());
    }
    let mut best = None;
    if by_default {
        for tile in kernel.tiles(&case.problem).map_err(|e| e.0)? {
            let bytes = needs(&tile)?;
            if bytes <= limit && best.as_ref().is_none_or(|(most, _)| bytes > *most) {
                best = Some((bytes, tile));
            }
        }
    }
    best.map(|(_, tile)| tile).ok_or_else(|| {
        let which = if by_default { "every legal tile" } else { "the tile" };
        format!(
            "{}: {which} needs more than the {limit} bytes of shared memory of a CTA on {}",
            kernel.name, facts.name
        )
    })
}
