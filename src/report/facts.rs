//! How the cases of a section were run: what a reader needs to trust or repeat them.

use indexmap::{IndexMap, IndexSet};

use crate::device::Health;
use crate::record::{Record, Timing};

use super::format::{list, percent, plural, three};
use super::group::{Section, Source, regime_word};
use super::modelled;

/// Name and value of each fact, and warnings with how many cases have them.
pub struct Facts {
    pub facts: Vec<(String, String)>,
    pub warnings: Vec<String>,
}

/// The facts of a section.
pub fn of(section: &Section) -> Facts {
    let (d, records) = (section.device, &section.records);
    let mut facts: Vec<(String, String)> = Vec::new();
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            facts.push((name.to_string(), value));
        }
    };
    let described = if d.emulated { ", described, not present" } else { "" };
    fact("device", format!("{} ({}{described})", d.name, d.id));
    let (major, minor) = d.compute_capability;
    fact(
        "chip",
        format!(
            "compute capability {major}.{minor}, {} multiprocessors, {} MiB L2, {} GiB memory, {} \
             KiB shared memory a CTA",
            d.multiprocessors,
            d.l2_bytes >> 20,
            d.memory_bytes >> 30,
            d.shared_bytes_per_cta >> 10
        ),
    );
    fact(
        "peak rates",
        format!(
            "{} TFLOP/s bf16 and fp16, {} TFLOP/s tf32, {} GB/s",
            rate(d.peak.bf16_tflops),
            rate(d.peak.tf32_tflops),
            rate(d.peak.memory_gbps)
        ),
    );
    fact("driver", d.driver.clone());
    for (name, value) in &d.more {
        fact(name, value.clone());
    }
    match section.source {
        Source::Measured(regime) => {
            fact("regime", format!("{} L2 before each sample", regime_word(regime)));
            for (name, pick) in [("before", false), ("after", true)] {
                let health = records.iter().filter_map(|r| health(r, pick));
                fact(&format!("state {name} the samples"), states(&health.collect::<Vec<_>>()));
            }
            fact("samples", samples(records));
        }
        Source::Modelled => {
            fact("time", "modelled from counts, never measured".to_string());
            fact("model error", modelled::errors(section));
        }
    }
    fact("cases", cases(records));
    fact("seeds", list(&distinct(records, |r| r.seed.to_string())));
    fact("commands", distinct(records, |r| r.command.clone()).join("\n"));
    fact("crossover", list(&distinct(records, |r| r.version.clone())));
    let times = records.iter().map(|r| r.time.as_str());
    if let (Some(first), Some(last)) = (times.clone().min(), times.max()) {
        fact("run", if first == last { first.to_string() } else { format!("{first} to {last}") });
    }
    fact("sampled", sampled(records));
    fact("sampled CTAs", sampled_ctas(records));
    fact("verified", subsets(records));
    for formula in distinct(records, |r| format!("{}: {}", r.problem.op(), r.flops_formula)) {
        fact("FLOPs of", formula);
    }
    fact("GB/s", "bytes of all inputs and outputs, each once, over the time".to_string());
    fact(
        "of limit",
        "max(FLOPs / peak FLOP/s, minimum bytes / peak bandwidth) over the time".to_string(),
    );
    Facts { facts, warnings: warnings(records) }
}

/// A peak rate, to one place; 0 is not known.
fn rate(peak: f64) -> String {
    if peak > 0.0 { format!("{}", (peak * 10.0).round() / 10.0) } else { "unknown".to_string() }
}

/// Values that differ, in the order met.
fn distinct(records: &[&Record], value: impl Fn(&Record) -> String) -> Vec<String> {
    let mut all: indexmap::IndexSet<String> = indexmap::IndexSet::new();
    all.extend(records.iter().map(|r| value(r)));
    all.into_iter().collect()
}

fn health(r: &Record, after_samples: bool) -> Option<&Health> {
    match &r.timing {
        Some(Timing::Measured { before, after, .. }) => {
            if after_samples {
                after.as_ref()
            } else {
                before.as_ref()
            }
        }
        _ => None,
    }
}

/// `SM clock 1830 to 1980 of 1980 MHz, memory 3201 MHz, 412 W, 48 °C, no throttling`
fn states(all: &[&Health]) -> String {
    let range = |values: Vec<f64>, unit: &str| {
        let (lo, hi) = values
            .iter()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), x| (lo.min(*x), hi.max(*x)));
        match (lo, hi) {
            _ if values.is_empty() => None,
            (lo, hi) if lo.round() == hi.round() => Some(format!("{lo:.0} {unit}")),
            (lo, hi) => Some(format!("{lo:.0} to {hi:.0} {unit}")),
        }
    };
    if all.is_empty() {
        return String::new();
    }
    let pick = |f: fn(&Health) -> Option<f64>| all.iter().filter_map(|h| f(h)).collect::<Vec<_>>();
    let mut parts = Vec::new();
    if let Some(clock) = range(pick(|h| h.sm_mhz.map(f64::from)), "MHz") {
        let max = range(pick(|h| h.max_sm_mhz.map(f64::from)), "MHz");
        parts.push(format!(
            "SM clock {clock}{}",
            max.map_or(String::new(), |m| format!(" (at most {m})"))
        ));
    }
    parts
        .extend(range(pick(|h| h.memory_mhz.map(f64::from)), "MHz").map(|x| format!("memory {x}")));
    parts.extend(range(pick(|h| h.power_w), "W"));
    parts.extend(range(pick(|h| h.temperature_c.map(f64::from)), "°C"));
    let mut reasons: IndexMap<&str, usize> = IndexMap::new();
    all.iter().flat_map(|h| &h.throttle).for_each(|t| *reasons.entry(t).or_default() += 1);
    let reasons: Vec<_> =
        reasons.iter().map(|(why, n)| format!("{why} in {}", plural(*n, "case"))).collect();
    parts.push(match reasons.is_empty() {
        true => "no throttling".to_string(),
        false => format!("throttled: {}", list(&reasons)),
    });
    parts.join(", ")
}

/// `21 a case, medians to ±0.4% at worst`
fn samples(records: &[&Record]) -> String {
    let (mut least, mut most, mut widest) = (usize::MAX, 0, 0f64);
    let mut stops: IndexMap<&str, usize> = IndexMap::new();
    for r in records {
        if let Some(Timing::Measured { samples, median_ns, ci_ns, stopped, .. }) = &r.timing {
            (least, most) = (least.min(samples.len()), most.max(samples.len()));
            // One without an interval is none the narrower.
            let half = (ci_ns.1 - ci_ns.0) / 2.0 / median_ns;
            widest = widest.max(if half.is_finite() { half } else { f64::INFINITY });
            *stops.entry(stopped).or_default() += 1;
        }
    }
    if most == 0 {
        return String::new();
    }
    let count = if least == most { format!("{most}") } else { format!("{least} to {most}") };
    let stops: Vec<_> = stops.iter().map(|(why, n)| format!("{why} ({n})")).collect();
    format!(
        "{count} a case; half width of the 95% interval of the median at most {}; stopped by {}",
        percent(widest),
        list(&stops)
    )
}

fn cases(records: &[&Record]) -> String {
    let mut all: IndexMap<&str, usize> = IndexMap::new();
    for r in records {
        *all.entry(super::table::status_word(r.status)).or_default() += 1;
    }
    let parts: Vec<_> = all.iter().map(|(status, n)| format!("{n} {status}")).collect();
    list(&parts)
}

fn sampled(records: &[&Record]) -> String {
    let of = records.iter().filter_map(|r| r.traffic.as_ref()?.sampled.as_ref());
    let times: Vec<f64> = of.map(|s| s.times as f64).filter(|n| *n > 1.0).collect();
    if times.is_empty() {
        return String::new();
    }
    let (lo, hi) = times.iter().fold((f64::MAX, 0f64), |(lo, hi), x| (lo.min(*x), hi.max(*x)));
    let by = if lo == hi { three(lo) } else { format!("{} to {}", three(lo), three(hi)) };
    format!(
        "{} executed a subset of the heads, and their counts were multiplied by {by}: the work \
         does not depend on the data",
        plural(times.len(), "case")
    )
}

fn sampled_ctas(records: &[&Record]) -> String {
    let of = records.iter().filter_map(|r| r.traffic.as_ref()?.sampled.as_ref()?.ctas.as_ref());
    let parts: Vec<_> = of.filter(|c| c.is_part()).collect();
    if parts.is_empty() {
        return String::new();
    }
    let some: Vec<_> =
        parts.iter().take(3).map(|c| format!("{} of {}", c.executed, c.of)).collect();
    format!(
        "{} executed a part of the CTAs, and their counts, hence their times, are extrapolated: {}{}; \
         outputs are verified where they were computed",
        plural(parts.len(), "case"),
        list(&some),
        if parts.len() > some.len() { ", ..." } else { "" }
    )
}

fn subsets(records: &[&Record]) -> String {
    let of = records.iter().filter_map(|r| r.verification.as_ref()?.subset.clone());
    let mut all: IndexMap<String, usize> = IndexMap::new();
    of.for_each(|s| *all.entry(s).or_default() += 1);
    if all.is_empty() {
        return String::new();
    }
    // Shapes differ and so do their subsets; a few tell how it was done.
    let total: usize = all.values().sum();
    let some: Vec<_> = all.keys().take(3).cloned().collect();
    format!(
        "{} in part: {}{}",
        plural(total, "case"),
        some.join("; "),
        if all.len() > 3 { "; …" } else { "" }
    )
}

/// Warnings of timings and builds, each with its number of cases. Those that differ in numbers
/// alone are one: the first stands for all.
fn warnings(records: &[&Record]) -> Vec<String> {
    let mut all: IndexMap<String, (String, usize)> = IndexMap::new();
    for r in records {
        let mut of: IndexSet<String> = IndexSet::new();
        if let Some(Timing::Measured { warnings, .. }) = &r.timing {
            of.extend(warnings.iter().cloned());
        }
        // Records of times that were taken before the limit was looked at do not have it.
        of.extend(r.doubt());
        for w in r.build.iter().flat_map(|b| &b.warnings) {
            of.insert(format!("{}: {w}", r.kernel.name));
        }
        let v = r.verification.as_ref();
        if v.and_then(|v| v.deterministic) == Some(false) {
            of.insert(format!("{}: a second run gave other bits", r.kernel.name));
        }
        for text in of {
            let kind: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
            all.entry(kind).or_insert((text, 0)).1 += 1;
        }
    }
    let many = records.len();
    all.into_values()
        .map(|(w, n)| match n {
            1 => format!("{w} (1 of {})", plural(many, "case")),
            _ => format!("{w} ({n} of {}, the first given)", plural(many, "case")),
        })
        .collect()
}
