//! Products of axes, and the problem that each point of a product means.

use super::{Axis, Group, Point, Setting, Settings, Source, SweepError, Variable};
use crate::op::{DType, Family, FaultKind, Given, Needed, Op, PhaseName, Problem};

/// Most cases a sweep may have.
pub const MAX_CASES: usize = 100_000;
/// Most elements of one tensor.
const MAX_ELEMENTS: f64 = (1u64 << 40) as f64;

/// The axes that cases of `op` vary along: the sweep's, less those that the group has one of the
/// same name for, then the group's.
pub fn axes_of<'a>(shared: &'a [Axis], group: &'a Group, op: Op) -> Vec<&'a Axis> {
    let used =
        |axis: &&Axis| axis.points.iter().any(|p| settings_of(p, op, group.phase).next().is_some());
    let replaced = |axis: &&Axis| group.axes.iter().any(|own| own.name == axis.name);
    shared.iter().filter(|axis| !replaced(axis)).chain(&group.axes).filter(used).collect()
}

/// What a point sets of the variables that `op` has in a phase.
pub fn settings_of(
    point: &Point,
    op: Op,
    phase: PhaseName,
) -> impl Iterator<Item = (&'static str, &Setting)> {
    let has = move |name: &str| Variable::named(name).is_some_and(|v| v.of(op, phase));
    point.settings.iter().map(|(name, s)| (*name, s)).filter(move |(name, _)| has(name))
}

/// Every choice of one point an axis, the first axis slowest.
pub fn product<'a>(axes: &[&'a Axis]) -> Option<impl Iterator<Item = Vec<&'a Point>>> {
    let counts: Vec<usize> = axes.iter().map(|a| a.points.len()).collect();
    let all = counts.iter().try_fold(1usize, |n, c| n.checked_mul(*c))?;
    if all > MAX_CASES {
        return None;
    }
    let axes: Vec<&Axis> = axes.to_vec();
    Some((0..all).map(move |mut i| {
        let mut points = Vec::with_capacity(axes.len());
        for axis in axes.iter().rev() {
            points.push(&axis.points[i % axis.points.len()]);
            i /= axis.points.len();
        }
        points.reverse();
        points
    }))
}

/// One combination: the group's settings override the sweep's.
pub struct Combination<'a> {
    /// What its points set.
    pub settings: Settings,
    points: Vec<&'a Point>,
}

impl<'a> Combination<'a> {
    /// What the points set of the variables that `op` has; a later point overrides an earlier one.
    pub fn new(points: Vec<&'a Point>, op: Op, phase: PhaseName) -> Combination<'a> {
        let mut settings = Settings::new();
        for point in &points {
            settings.extend(settings_of(point, op, phase).map(|(name, s)| (name, s.clone())));
        }
        Combination { settings, points }
    }

    /// An error at the point that set `name`, or at the group where none did.
    fn fault(&self, source: &Source, group: &Group, name: &str, why: String) -> SweepError {
        let place = self.points.iter().rev().find(|p| p.settings.contains_key(name));
        source.error(place.map_or(&group.span, |p| &p.span), why)
    }

    /// The problem, with the defaults of its rows for what is not set.
    ///
    /// # Errors
    /// At its place in the file: a variable that is missing or wrong, heads that do not divide, or
    /// a tensor of more than 2^40 elements.
    pub fn problem(&self, source: &Source, group: &Group, op: Op) -> Result<Problem, SweepError> {
        let dtype = match self.settings.get("dtype") {
            Some(Setting::DType(dtype)) => *dtype,
            _ => DType::Bf16,
        };
        let mut given = Given::new();
        for (name, setting) in &self.settings {
            if let Setting::Value(value) = setting {
                given.insert(name, value.clone());
            }
        }
        let problem = Problem::new(op, group.phase, dtype, &given, Needed::Given);
        let problem = problem.map_err(|fault| match fault.kind {
            FaultKind::Wrong => self.fault(source, group, fault.variable, fault.text),
            FaultKind::Missing(example) => {
                let name = fault.variable;
                let why = format!(
                    "this group's {op} cases have no `{name}`: set it here or in [axes], as in {name} = {example}"
                );
                source.error(&group.span, why)
            }
            FaultKind::Indivisible { many } => {
                let why = format!(
                    "{}; tie head counts that belong together, as in heads = [{{ {many} = 32, {} = 8 }}]",
                    fault.text, fault.variable
                );
                self.fault(source, group, fault.variable, why)
            }
        })?;
        for tensor in problem.tensors() {
            let elements: f64 = tensor.shape.iter().map(|n| *n as f64).product();
            if elements > MAX_ELEMENTS {
                let why =
                    format!("{problem}: {} has {elements:.1e} elements, too many", tensor.name);
                return Err(source.error(&group.span, why));
            }
        }
        Ok(problem)
    }

    /// The family less the parts that `op` has no use for, so that equal inputs have one name.
    pub fn family(&self, op: Op) -> Family {
        let Some(Setting::Inputs(family)) = self.settings.get("inputs") else {
            return Family::default();
        };
        family.only(op.parts())
    }

    /// The seed, where an axis sets it.
    pub fn seed(&self) -> Option<u64> {
        match self.settings.get("seed")? {
            Setting::Seed(seed) => Some(*seed),
            _ => None,
        }
    }
}
