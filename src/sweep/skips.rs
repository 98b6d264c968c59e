//! Skips: which cases a sweep leaves out on purpose.

use std::collections::{HashMap, HashSet};

use minijinja::value::Value;

use super::plan::Case;
use super::{Group, Skip, Sweep, SweepError, Variable};
use crate::device::Facts;
use crate::kernel::Registry;
use crate::kernel::expr::{Context, Evaluator, environment, value};
use crate::op::PhaseName;

type Result<T> = std::result::Result<T, SweepError>;

/// The skips of a sweep with what their expressions name.
pub struct Skips<'a> {
    sweep: &'a Sweep,
    eval: Evaluator,
    names: HashMap<*const Skip, HashSet<String>>,
}

/// Names that only a device gives a value.
const OF_DEVICE: [&str; 5] = ["device", "device_name", "emulated", "capability", "multiprocessors"];
/// Names of a case besides its operator's variables and tile axes.
const OF_CASE: [&str; 10] =
    ["T", "op", "phase", "kernel", "inputs", "gate", "slope", "seed", "dtype", "gflop"];

impl<'a> Skips<'a> {
    /// # Errors
    /// An expression that does not parse or names what no case has.
    pub fn new(sweep: &'a Sweep, registry: &Registry) -> Result<Skips<'a>> {
        let env = environment();
        let tile_axes = registry.kernels().iter().flat_map(|k| k.manifest.tile.keys());
        let known: HashSet<&str> = Variable::all()
            .into_iter()
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

    /// Whether the skip depends on the device.
    fn on_device(&self, skip: &Skip) -> bool {
        self.names[&std::ptr::from_ref(skip)].iter().any(|n| OF_DEVICE.contains(&n.as_str()))
    }

    /// The skips that depend on the device.
    pub fn for_devices(&self) -> Vec<Skip> {
        let groups = self.sweep.groups.iter().flat_map(|g| &g.skips);
        self.sweep.skips.iter().chain(groups).filter(|s| self.on_device(s)).cloned().collect()
    }

    /// Why the case is skipped, if it is: by the skips that depend on the device if one is
    /// given, else by the others.
    ///
    /// # Errors
    /// A condition does not evaluate to true or false though the case has all that it names.
    pub fn of(&self, case: &Case, group: &Group, device: Option<&Facts>) -> Result<Option<String>> {
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
    if case.problem.phase() != PhaseName::Prefill {
        set(case.problem.phase_row().length, Value::from(case.problem.length()));
    }
    set("op", Value::from(case.problem.op().name()));
    set("phase", Value::from(case.problem.phase().name()));
    set("kernel", Value::from(case.kernel.as_str()));
    set("inputs", Value::from(case.family.to_string()));
    let family = case.family.to_string();
    let part = |name: &str| family.split(' ').find_map(|part| part.strip_prefix(name));
    set("gate", Value::from(part("gate=").unwrap_or("mid")));
    set("slope", Value::from(part("slope=").unwrap_or("first")));
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
