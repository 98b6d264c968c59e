//! Records held against earlier ones, case by case. Nothing here touches a device, and measured and
//! modelled times never meet.

pub mod bootstrap;
pub mod history;
pub mod render;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::Serialize;

use crate::device::Regime;
use crate::record::{Record, Status, Timing};

pub use crate::measure::Verdict;

/// One case, with a time on both sides.
#[derive(Debug, Clone, Serialize)]
pub struct Pair {
    pub kernel: String,
    /// Kernel, tile, problem and inputs, for people.
    pub case: String,
    pub device: String,
    pub measured: bool,
    pub old_ns: f64,
    pub new_ns: f64,
    /// New over old.
    pub ratio: f64,
    /// Its 95% interval; of modelled times the ratio twice.
    pub interval: (f64, f64),
    pub verdict: Verdict,
    /// Processes that measured it: old, new.
    pub processes: (usize, usize),
    /// Modelled: where measured times lie, as parts of the modelled one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_error: Option<String>,
    /// Whether another GPU of the model measured it.
    pub other_gpu: bool,
    /// Whether the rendered PTX is another.
    pub ptx_changed: bool,
}

/// A case without a ratio, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Left {
    pub case: String,
    pub why: String,
    /// It was right before and is not now.
    pub regression: bool,
}

/// What came of two sets of records.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// As a part of one.
    pub threshold: f64,
    /// Slowest first.
    pub pairs: Vec<Pair>,
    pub left: Vec<Left>,
}

/// How records are held against each other.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// As a part of one: 0.01.
    pub threshold: f64,
    /// Whether cases of unlike devices are held against each other.
    pub across_devices: bool,
}

/// What records of one case share. The sweep is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    text: String,
    emulated: bool,
    device: String,
}

impl Key {
    fn of(r: &Record, across: bool) -> Key {
        let device = if across { String::new() } else { r.device.name.clone() };
        Key { text: case(r), emulated: r.device.emulated, device }
    }
}

/// Kernel, tile, problem and inputs.
fn case(r: &Record) -> String {
    let mut tile: Vec<_> = r.kernel.tile.iter().map(|(k, v)| format!("{k}={v}")).collect();
    tile.sort();
    let family = r.family.only(r.problem.op().parts());
    let (name, tile, words) = (&r.kernel.name, tile.join(","), r.problem.short());
    // Factors that `short` leaves out.
    let scale = match r.problem.has_usual_scale() {
        true => String::new(),
        false => format!(" scale={}", r.problem.value("scale")),
    };
    format!("{name} {tile} {words}{scale}, {family}, seed {}", r.seed)
}

/// Records of a case by their regime; those without a time have none.
type Side<'r> = IndexMap<Key, Vec<&'r Record>>;

fn side(records: &[Record], across: bool) -> Side<'_> {
    let mut all = Side::new();
    // What was left out was never tried.
    for r in records.iter().filter(|r| r.status != Status::Skipped) {
        all.entry(Key::of(r, across)).or_default().push(r);
    }
    all
}

fn regime(r: &Record) -> Option<&'static str> {
    match r.timing.as_ref()? {
        Timing::Measured { regime: Regime::Cold, .. } => Some("cold"),
        Timing::Measured { regime: Regime::Hot, .. } => Some("hot"),
        Timing::Modelled(_) => Some("modelled"),
    }
}

/// Holds the new records against the old ones.
///
/// # Errors
/// No case is on both sides, and why: nothing is there, other devices, measured against modelled.
pub fn compare(old: &[Record], new: &[Record], rule: Rule) -> Result<Comparison, String> {
    let (before, after) = (side(old, rule.across_devices), side(new, rule.across_devices));
    for (name, side) in [("OLD", &before), ("NEW", &after)] {
        if side.is_empty() {
            return Err(format!("{name} has no record of a case that was run"));
        }
    }
    if !before.keys().any(|key| after.contains_key(key)) {
        return Err(nothing_in_common(&before, &after));
    }
    let (mut pairs, mut left) = (Vec::new(), Vec::new());
    let keys: indexmap::IndexSet<&Key> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let case = key.text.clone();
        let gone = |why: &str| Left { case: case.clone(), why: why.into(), regression: false };
        match (before.get(key), after.get(key)) {
            (Some(_), None) => left.push(gone("only in OLD")),
            (None, Some(_)) => left.push(gone("only in NEW")),
            (Some(a), Some(b)) => both(&case, a, b, rule, &mut pairs, &mut left),
            (None, None) => {}
        }
    }
    pairs.sort_by(|a, b| b.ratio.total_cmp(&a.ratio));
    left.sort_by_key(|l| !l.regression);
    Ok(Comparison { threshold: rule.threshold, pairs, left })
}

/// One case that both sides have records of.
fn both(
    case: &str,
    old: &[&Record],
    new: &[&Record],
    rule: Rule,
    pairs: &mut Vec<Pair>,
    left: &mut Vec<Left>,
) {
    let failure = |records: &[&Record]| {
        let bad = records.iter().find(|r| r.status != Status::Ok)?;
        let status = serde_json::to_value(bad.status).ok()?;
        let why = bad.reason.as_deref().unwrap_or_default();
        let why = why.lines().next().unwrap_or_default();
        Some(format!("{}: {why}", status.as_str().unwrap_or_default()))
    };
    let regimes: indexmap::IndexSet<&str> =
        old.iter().chain(new).filter_map(|r| regime(r)).collect();
    let mut put = |why: String, regression| left.push(Left { case: case.into(), why, regression });
    // One process that fails is a failure, whatever others came to.
    match (failure(old), failure(new)) {
        (None, Some(now)) => return put(format!("ok in OLD, now {now}"), true),
        (Some(was), None) => return put(format!("ok in NEW, was {was}"), false),
        (Some(_), Some(now)) => return put(format!("failed on both sides, now {now}"), false),
        (None, None) => {}
    }
    for name in regimes {
        let of = |records: &[&Record]| -> Vec<Record> {
            records.iter().filter(|r| regime(r) == Some(name)).map(|r| (*r).clone()).collect()
        };
        let (a, b) = (of(old), of(new));
        match (a.is_empty(), b.is_empty()) {
            (true, _) => put(format!("{name} only in NEW"), false),
            (_, true) => put(format!("{name} only in OLD"), false),
            _ => match pair(case, name, &a, &b, rule) {
                Ok(found) => pairs.push(found),
                Err(why) => put(why, false),
            },
        }
    }
}

/// The GPUs that measured.
fn gpus(records: &[Record]) -> BTreeSet<&str> {
    records.iter().filter_map(|r| r.device.more.get("uuid")).map(String::as_str).collect()
}

fn pair(case: &str, regime: &str, a: &[Record], b: &[Record], rule: Rule) -> Result<Pair, String> {
    let samples = |records: &[Record]| -> Vec<Vec<f64>> {
        let of = |r: &Record| match &r.timing {
            Some(Timing::Measured { samples, .. }) => samples.iter().map(|s| s.ns).collect(),
            Some(Timing::Modelled(m)) => vec![m.ns],
            None => Vec::new(),
        };
        records.iter().map(of).collect()
    };
    let measured = regime != "modelled";
    let other_gpu = measured && gpus(a) != gpus(b);
    let (old, new) = (samples(a), samples(b));
    let found = match measured {
        true => bootstrap::ratio(&old, &new, other_gpu),
        false => exact(a, b)?,
    };
    let found = found.ok_or_else(|| format!("{regime}: a time that is no positive number"))?;
    let ns = |records: &[Record]| {
        let mut all: Vec<f64> =
            records.iter().filter_map(|r| r.timing.as_ref()).map(Timing::ns).collect();
        all.sort_by(f64::total_cmp);
        crate::measure::stats::median(&all)
    };
    let known: BTreeSet<_> = a.iter().map(|r| &r.kernel.ptx_sha256).collect();
    Ok(Pair {
        kernel: b[0].kernel.name.clone(),
        case: if regime == "hot" { format!("{case}, hot") } else { case.into() },
        device: b[0].device.name.clone(),
        measured,
        old_ns: ns(a),
        new_ns: ns(b),
        ratio: found.ratio,
        interval: found.interval,
        verdict: Verdict::of(found.interval, rule.threshold),
        processes: (a.len(), b.len()),
        model_error: b[0].model_error().map(|e| e.percent()),
        other_gpu,
        ptx_changed: b.iter().any(|r| !known.contains(&r.kernel.ptx_sha256)),
    })
}

/// Modelled times have no noise: their ratio is what it is. The newest of each side counts.
fn exact(a: &[Record], b: &[Record]) -> Result<Option<bootstrap::Ratio>, String> {
    let newest = |side: &[Record]| side.iter().max_by(|x, y| x.time.cmp(&y.time)).cloned();
    let (Some(a), Some(b)) = (newest(a), newest(b)) else { return Ok(None) };
    if a.sample_ctas.is_some() && b.sample_ctas.is_some() && a.sample_ctas != b.sample_ctas {
        return Err(
            "CTAs were sampled by another rule: run one side again with its --sample-ctas".into()
        );
    }
    let ns = |r: &Record| r.timing.as_ref().map_or(f64::NAN, Timing::ns);
    let ratio = ns(&b) / ns(&a);
    let good = ratio.is_finite() && ratio > 0.0;
    Ok(good.then_some(bootstrap::Ratio { ratio, interval: (ratio, ratio) }))
}

fn nothing_in_common(before: &Side, after: &Side) -> String {
    let emulated = |s: &Side| s.keys().map(|k| k.emulated).collect::<BTreeSet<_>>();
    let devices = |s: &Side| {
        s.keys().map(|k| k.device.clone()).collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    let texts: BTreeSet<_> = before.keys().map(|k| &k.text).collect();
    if !after.keys().any(|k| texts.contains(&k.text)) {
        let first = |s: &Side| s.keys().next().map(|k| k.text.clone()).unwrap_or_default();
        return format!(
            "no case is on both sides: {} in OLD, such as {}; {} in NEW, such as {}",
            super::report::format::plural(before.len(), "case"),
            first(before),
            super::report::format::plural(after.len(), "case"),
            first(after)
        );
    }
    if emulated(before).is_disjoint(&emulated(after)) {
        return "one side is measured and the other modelled: such times are never compared; \
                `crossover model-check` holds the model against measured records"
            .into();
    }
    format!(
        "no case is on both sides on one kind of device: OLD is of {}, NEW of {}; \
         --across-devices compares them all the same",
        devices(before).join(", "),
        devices(after).join(", ")
    )
}

impl Comparison {
    /// How many pairs have the verdict.
    pub fn count(&self, verdict: Verdict) -> usize {
        self.pairs.iter().filter(|p| p.verdict == verdict).count()
    }

    /// Cases that are slower, or were right and are not any more.
    pub fn regressions(&self) -> usize {
        self.count(Verdict::Slower) + self.left.iter().filter(|l| l.regression).count()
    }

    /// By kernel and kind of time: how many cases, and the geometric mean of new over old.
    pub fn kernels(&self) -> Vec<(String, bool, usize, f64)> {
        let mut all: IndexMap<(&str, bool), Vec<f64>> = IndexMap::new();
        for p in &self.pairs {
            all.entry((&p.kernel, p.measured)).or_default().push(p.ratio.ln());
        }
        let mean = |logs: &[f64]| (logs.iter().sum::<f64>() / logs.len() as f64).exp();
        all.into_iter().map(|(k, logs)| (k.0.into(), k.1, logs.len(), mean(&logs))).collect()
    }
}
