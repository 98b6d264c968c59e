//! Products of axes, and the problem that each point of a product means.

use super::{Axis, Group, Point, Setting, Settings, Source, SweepError, Variable};
use crate::op::{DType, Family, Op, Problem, attention, delta};

/// Most cases a sweep may have.
pub const MAX_CASES: usize = 100_000;
/// Most elements of one tensor.
const MAX_ELEMENTS: f64 = (1u64 << 40) as f64;

/// The axes that cases of `op` vary along: the sweep's, less those that the group has one of the
/// same name for, then the group's.
pub fn axes_of<'a>(shared: &'a [Axis], group: &'a Group, op: Op) -> Vec<&'a Axis> {
    let used = |axis: &&Axis| axis.points.iter().any(|p| settings_of(p, op).next().is_some());
    let replaced = |axis: &&Axis| group.axes.iter().any(|own| own.name == axis.name);
    shared.iter().filter(|axis| !replaced(axis)).chain(&group.axes).filter(used).collect()
}

/// What a point sets of the variables that `op` has.
pub fn settings_of(point: &Point, op: Op) -> impl Iterator<Item = (&'static str, &Setting)> {
    let has = move |name: &str| Variable::named(name).is_some_and(|v| v.of(op));
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
    pub settings: Settings,
    points: Vec<&'a Point>,
}

impl<'a> Combination<'a> {
    pub fn new(points: Vec<&'a Point>, op: Op) -> Combination<'a> {
        let mut settings = Settings::new();
        for point in &points {
            settings.extend(settings_of(point, op).map(|(name, s)| (name, s.clone())));
        }
        Combination { settings, points }
    }

    /// An error at the point that set `name`, or at the group where none did.
    fn fault(&self, source: &Source, group: &Group, name: &str, why: String) -> SweepError {
        let place = self.points.iter().rev().find(|p| p.settings.contains_key(name));
        source.error(place.map_or(&group.span, |p| &p.span), why)
    }

    fn count(&self, name: &str) -> Option<usize> {
        match self.settings.get(name)? {
            Setting::Count(n) => Some(*n),
            _ => None,
        }
    }

    fn flag(&self, name: &str) -> Option<bool> {
        match self.settings.get(name)? {
            Setting::Flag(flag) => Some(*flag),
            _ => None,
        }
    }

    /// The problem, with the defaults of docs/sweeps.md for what is not set.
    pub fn problem(&self, source: &Source, group: &Group, op: Op) -> Result<Problem, SweepError> {
        let fault = |name: &str, why: String| Err(self.fault(source, group, name, why));
        let missing = |name: &str, example: &str| {
            let why = format!(
                "this group's {op} cases have no `{name}`: set it here or in [axes], as in {name} = {example}"
            );
            source.error(&group.span, why)
        };
        let groups_of = |many: (&str, usize), few: (&str, usize)| match many.1 % few.1 {
            0 => Ok(()),
            _ => fault(
                few.0,
                format!(
                    "{} = {} is no multiple of {} = {}; tie head counts that belong together, as in heads = [{{ {} = 32, {} = 8 }}]",
                    many.0, many.1, few.0, few.1, many.0, few.0
                ),
            ),
        };
        let dtype = match self.settings.get("dtype") {
            Some(Setting::DType(dtype)) => *dtype,
            _ => DType::Bf16,
        };
        let scale = match self.settings.get("scale") {
            Some(Setting::Number(x)) => Some(*x),
            _ => None,
        };
        let b = self.count("B").unwrap_or(1);
        let t = self.count("T");
        let problem = if op == Op::Attention {
            let hq = self.count("Hq").ok_or_else(|| missing("Hq", "32"))?;
            let hkv = self.count("Hkv").unwrap_or(hq);
            groups_of(("Hq", hq), ("Hkv", hkv))?;
            let d = self.count("D").unwrap_or(128);
            let has = |name: &str| self.settings.contains_key(name);
            // Packed lengths take the place of T.
            let t = t.or(has("lens").then_some(1));
            let mut shape = attention::Shape {
                dtype,
                b,
                tq: self.count("Tq").or(t).ok_or_else(|| missing("T", "[1024, 4096]"))?,
                tkv: self.count("Tkv").or(t).ok_or_else(|| missing("T", "[1024, 4096]"))?,
                hq,
                hkv,
                d,
                causal: self.flag("causal").ok_or_else(|| missing("causal", "true"))?,
                scale: scale.unwrap_or((d as f64).powf(-0.5)),
                extras: attention::Extras {
                    dv: self.count("Dv").filter(|dv| *dv != d),
                    window: self.count("window"),
                    softcap: match self.settings.get("softcap") {
                        Some(Setting::Number(cap)) => Some(*cap),
                        _ => None,
                    },
                    lens: vec![],
                },
            };
            if let Some(Setting::Lens(lens)) = self.settings.get("lens") {
                if let Some(name) = ["B", "T", "Tq", "Tkv"].into_iter().find(|n| has(n)) {
                    let why = format!("{name} beside lens: the lengths already say it");
                    return Err(self.fault(source, group, name, why));
                }
                shape.pack(lens.clone());
            }
            if let Some(why) = shape.fault() {
                return Err(self.fault(source, group, "window", why));
            }
            Problem::Attention(shape)
        } else {
            let hv = self.count("HV").ok_or_else(|| missing("HV", "32"))?;
            let h = self.count("H").unwrap_or(hv);
            groups_of(("HV", hv), ("H", h))?;
            let k = self.count("K").unwrap_or(128);
            let shape = delta::Shape {
                dtype,
                b,
                t: t.ok_or_else(|| missing("T", "[1024, 4096]"))?,
                h,
                hv,
                k,
                v: self.count("V").unwrap_or(128),
                initial_state: self.flag("initial_state").unwrap_or(false),
                final_state: self.flag("final_state").unwrap_or(true),
                scale: scale.unwrap_or((k as f64).powf(-0.5)),
            };
            match op {
                Op::Kda => Problem::Kda(shape),
                _ => Problem::GatedDeltaRule(shape),
            }
        };
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
        let plain = Family::default();
        match op {
            Op::Attention => Family { gate: plain.gate, beta: plain.beta, ..*family },
            Op::GatedDeltaRule | Op::Kda => Family { logits: plain.logits, ..*family },
        }
    }

    pub fn seed(&self) -> Option<u64> {
        match self.settings.get("seed")? {
            Setting::Seed(seed) => Some(*seed),
            _ => None,
        }
    }
}
