//! From a sweep and the kernels at hand to cases, each with an id, in a fixed order.

use std::collections::{HashMap, HashSet};

use minijinja::value::Value;
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::expand::{Combination, MAX_CASES, axes_of, product, settings_of};
use super::{
    Axis, Group, Setting, Shard, Skip, Sweep, SweepError, TileChoice, VARIABLES, Variable,
};
use crate::device::{Facts, Regime};
use crate::kernel::expr::{Context, Evaluator, environment, value};
use crate::kernel::{Kernel, Registry, Tile};
use crate::op::{Family, Op, Phase, Problem};

type Result<T> = std::result::Result<T, SweepError>;

/// One thing to measure: a kernel variant on a problem with inputs of a family and seed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Case {
    pub problem: Problem,
    pub phase: Phase,
    pub family: Family,
    pub seed: u64,
    pub kernel: String,
    pub tile: Tile,
    pub regime: Regime,
}

impl Case {
    /// Names the case on a device within a sweep, for good: a hash of all that makes it.
    pub fn id(&self, sweep: &str, device: &str) -> String {
        let text = serde_json::to_string(&(sweep, device, self)).expect("a case is plain data");
        Sha256::digest(text.as_bytes()).iter().take(8).map(|b| format!("{b:02x}")).collect()
    }
}

#[derive(Debug, Clone)]
pub struct Planned {
    pub case: Case,
    /// Why the case is left out, if it is.
    pub skip: Option<String>,
    /// What shards divide by. It does not depend on the device.
    index: usize,
}

/// The cases of a sweep in the order in which they run: by length of the sequence, so that an
/// interrupted run has every operator up to some length.
#[derive(Debug, Clone)]
pub struct Plan {
    pub sweep: String,
    pub cases: Vec<Planned>,
    /// Skips that depend on the device, and no device was given.
    pub undecided: Vec<Skip>,
}

impl Plan {
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
        let mut planned: Vec<(Planned, &Group)> = Vec::new();
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
                    let combination = Combination::new(points, *op);
                    let problem = combination.problem(&self.source, scope.group, *op)?;
                    let case = |kernel: &Kernel, tile: Tile| Case {
                        problem: problem.clone(),
                        phase: scope.group.phase,
                        family: combination.family(*op),
                        seed: seed.or(combination.seed()).unwrap_or(self.seed),
                        kernel: kernel.name.clone(),
                        tile,
                        regime: self.regime,
                    };
                    for kernel in kernels {
                        let (tiles, why) =
                            tiles(kernel, &problem, combination.settings.get("tile"));
                        for tile in tiles {
                            let case = case(kernel, tile);
                            if !seen.insert(case.id("", "")) {
                                continue;
                            }
                            if planned.len() >= MAX_CASES {
                                return Err(too_many());
                            }
                            let skip = match &why {
                                Some(why) => Some(why.clone()),
                                None => skips.of(&case, scope.group, None)?,
                            };
                            planned.push((Planned { case, skip, index: 0 }, scope.group));
                        }
                    }
                }
            }
        }
        planned.sort_by_key(|(p, _)| p.case.problem.tokens());
        // Numbered apart, so that every shard gets its share of the work.
        let (mut run, mut left_out) = (0, 0);
        for (p, _) in &mut planned {
            let next = if p.skip.is_none() { &mut run } else { &mut left_out };
            p.index = *next;
            *next += 1;
        }
        if let Some(facts) = device {
            let kernels: HashMap<_, _> =
                registry.kernels().iter().map(|k| (k.name.as_str(), k)).collect();
            for (p, group) in planned.iter_mut().filter(|(p, _)| p.skip.is_none()) {
                p.skip = match unfit(kernels[p.case.kernel.as_str()], &p.case, facts) {
                    Some(why) => Some(why),
                    None => skips.of(&p.case, group, Some(facts))?,
                };
            }
        }
        let undecided = match device {
            Some(_) => Vec::new(),
            None => skips.for_devices(),
        };
        let cases = planned.into_iter().map(|(p, _)| p).collect();
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
        let in_scope =
            |k: &Kernel| found.iter().any(|f| f.name == k.name) && k.manifest.phase == group.phase;
        let ops_wanted: Vec<Op> = match group.ops.is_empty() {
            true => Op::ALL.to_vec(),
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

    /// Every value of every axis must be one that some kernel takes.
    fn check_axes(&self, scopes: &[Scope]) -> Result<()> {
        let all: Vec<_> = scopes.iter().flat_map(|s| &s.ops).collect();
        self.axes.iter().try_for_each(|axis| self.check_axis(axis, &all))?;
        for scope in scopes {
            let own: Vec<_> = scope.ops.iter().collect();
            scope.group.axes.iter().try_for_each(|axis| self.check_axis(axis, &own))?;
        }
        Ok(())
    }

    fn check_axis(&self, axis: &Axis, scope: &[&(Op, Vec<&Kernel>)]) -> Result<()> {
        for point in &axis.points {
            for (name, setting) in &point.settings {
                let takers: Vec<&Kernel> = scope
                    .iter()
                    .filter(|(op, _)| settings_of(point, *op).any(|(n, _)| n == *name))
                    .flat_map(|(_, kernels)| kernels.iter().copied())
                    .collect();
                if takers.is_empty() {
                    let ops: Vec<_> = scope
                        .iter()
                        .map(|(op, _)| format!("{op} has {}", Variable::names(Some(*op))))
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
        Setting::Count(n) => {
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

/// The tiles to run, or one tile and why it cannot be run.
fn tiles(
    kernel: &Kernel,
    problem: &Problem,
    choice: Option<&Setting>,
) -> (Vec<Tile>, Option<String>) {
    let none = |why: String| (vec![Tile::default()], Some(why));
    if let Err(e) = kernel.supports(problem) {
        return none(e.0);
    }
    match choice {
        Some(Setting::Tile(TileChoice::This(tile))) => {
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
        Some(Setting::Tile(TileChoice::All)) => match kernel.tiles(problem) {
            Ok(tiles) if tiles.is_empty() => none(format!("{} has no legal tile", kernel.name)),
            Ok(tiles) => (tiles, None),
            Err(e) => none(e.0),
        },
        _ => match kernel.default_tile(problem) {
            Ok(tile) => (vec![tile], None),
            Err(e) => none(e.0),
        },
    }
}

/// Why the device cannot run the case, if it cannot.
fn unfit(kernel: &Kernel, case: &Case, facts: &Facts) -> Option<String> {
    if let Some(why) = kernel.unfit(facts) {
        return Some(why);
    }
    match kernel.shared_bytes(&case.problem, &case.tile, facts.multiprocessors) {
        Err(e) => return Some(e.0),
        Ok(bytes) if bytes > facts.shared_bytes_per_cta => {
            return Some(format!(
                "{} with {} needs {bytes} bytes of shared memory; a CTA on {} has {}",
                kernel.name, case.tile, facts.name, facts.shared_bytes_per_cta
            ));
        }
        Ok(_) => {}
    }
    let (bytes, memory) = (case.problem.min_bytes(), facts.memory_bytes as f64);
    (bytes > memory).then(|| {
        format!(
            "its tensors take more than the {:.0} GB of device memory of {}",
            memory / 1e9,
            facts.name
        )
    })
}

/// The skips of a sweep with what their expressions name.
struct Skips<'a> {
    sweep: &'a Sweep,
    eval: Evaluator,
    names: HashMap<*const Skip, HashSet<String>>,
}

/// Names that only a device gives a value.
const OF_DEVICE: [&str; 5] = ["device", "device_name", "emulated", "capability", "multiprocessors"];
/// Names of a case besides its operator's variables and tile axes.
const OF_CASE: [&str; 9] =
    ["T", "op", "phase", "kernel", "inputs", "gate", "seed", "dtype", "gflop"];

impl<'a> Skips<'a> {
    /// # Errors
    /// An expression that does not parse or names what no case has.
    fn new(sweep: &'a Sweep, registry: &Registry) -> Result<Skips<'a>> {
        let env = environment();
        let tile_axes = registry.kernels().iter().flat_map(|k| k.manifest.tile.keys());
        let known: HashSet<&str> = VARIABLES
            .iter()
            .map(|v| v.name)
            .filter(|name| *name != "tile")
            .chain(tile_axes.map(String::as_str))
            .chain(OF_CASE)
            .chain(OF_DEVICE)
            .collect();
        let mut names = HashMap::new();
        for skip in sweep.skips.iter().chain(sweep.groups.iter().flat_map(|g| &g.skips)) {
            let expression = env.compile_expression(&skip.when).map_err(|e| {
                sweep.source.error(&skip.span, format!("`when` is no expression: {e}"))
            })?;
            let functions = ["min", "max", "ceil_div", "log2", "range", "dict", "true", "false"];
            let used: HashSet<String> = expression
                .undeclared_variables(false)
                .into_iter()
                .filter(|name| !functions.contains(&name.as_str()))
                .collect();
            if let Some(name) = used.iter().filter(|n| !known.contains(n.as_str())).min() {
                let mut known: Vec<_> = known.into_iter().collect();
                known.sort_unstable();
                let why = format!(
                    "`when` names `{name}`, which no case has: there are {}",
                    known.join(", ")
                );
                return Err(sweep.source.error(&skip.span, why));
            }
            names.insert(std::ptr::from_ref(skip), used);
        }
        Ok(Skips { sweep, eval: Evaluator::default(), names })
    }

    fn on_device(&self, skip: &Skip) -> bool {
        self.names[&std::ptr::from_ref(skip)].iter().any(|n| OF_DEVICE.contains(&n.as_str()))
    }

    fn for_devices(&self) -> Vec<Skip> {
        let groups = self.sweep.groups.iter().flat_map(|g| &g.skips);
        self.sweep.skips.iter().chain(groups).filter(|s| self.on_device(s)).cloned().collect()
    }

    /// Why the case is skipped, if it is: by the skips that depend on the device if one is
    /// given, else by the others.
    fn of(&self, case: &Case, group: &Group, device: Option<&Facts>) -> Result<Option<String>> {
        let mut context = Context::new();
        for skip in self.sweep.skips.iter().chain(&group.skips) {
            if self.on_device(skip) != device.is_some() {
                continue;
            }
            if context.is_empty() {
                context = case_context(case, device);
            }
            match self.eval.holds(&skip.when, &context) {
                Ok(true) => return Ok(Some(skip.why.clone())),
                Ok(false) => {}
                Err(e) => {
                    // A condition on a variable that the case lacks does not hold for it.
                    let names = &self.names[&std::ptr::from_ref(skip)];
                    if names.iter().all(|n| context.contains_key(n)) {
                        return Err(self.sweep.source.error(&skip.span, format!("`when`: {e}")));
                    }
                }
            }
        }
        Ok(None)
    }
}

fn case_context(case: &Case, device: Option<&Facts>) -> Context {
    let mut context = Context::new();
    let mut set = |name: &str, value: Value| {
        context.insert(name.to_string(), value);
    };
    case.tile.0.iter().for_each(|(axis, x)| set(axis, Value::from(*x)));
    case.problem.vars().into_iter().for_each(|(name, scalar)| set(name, value(scalar)));
    set("T", Value::from(case.problem.tokens()));
    set("op", Value::from(case.problem.op().name()));
    set("phase", Value::from(case.phase.name()));
    set("kernel", Value::from(case.kernel.as_str()));
    set("inputs", Value::from(case.family.to_string()));
    let family = case.family.to_string();
    let gate = family.split(' ').find_map(|part| part.strip_prefix("gate="));
    set("gate", Value::from(gate.unwrap_or("mid")));
    set("seed", Value::from(case.seed));
    set("dtype", Value::from(case.problem.dtype().name()));
    set("gflop", Value::from(case.problem.flops() / 1e9));
    if let Some(facts) = device {
        let (major, minor) = facts.compute_capability;
        set("device", Value::from(facts.id.split(':').next().unwrap_or_default()));
        set("device_name", Value::from(facts.name.as_str()));
        set("emulated", Value::from(facts.emulated));
        set("capability", Value::from(10 * major + minor));
        set("multiprocessors", Value::from(facts.multiprocessors));
    }
    context
}
