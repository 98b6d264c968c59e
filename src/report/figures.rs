//! What is plotted: time, memory traffic and drift, one figure a precision.

use std::collections::BTreeMap;

use crate::device::Counts;
use crate::op::{DType, Family};
use crate::record::{Record, Timing, Traffic};

use super::crossover::comparisons;
use super::format::{integer, plural};
use super::group::{Curve, Panel, Section, Source};
use super::modelled;
use super::plot::{self, Line, Mark};
use super::setting::length;
use super::span::Span;
use super::svg::{Ink, Svg};

/// A plot with its words.
pub struct Figure {
    /// File name without `.svg`; unique in a report.
    pub slug: String,
    pub title: String,
    pub caption: String,
    pub svg: Svg,
}

/// Figures of a section: time, memory (bytes, rate), drift (over T, along T), for each precision.
pub fn figures(section: &Section) -> Vec<Figure> {
    let mut dtypes: Vec<DType> = section.panels.iter().map(|p| p.dtype).collect();
    dtypes.sort();
    dtypes.dedup();
    let against = |what: &str| format!("{what} against {}", section.length());
    let mut all = Vec::new();
    // Times alone are modelled; counts and errors are exact.
    let (timed, exact) = (format!(" ({})", section.source.word()), String::new());
    for (title, name, caption, word, panels) in [
        (
            against("Time"),
            "time",
            time_caption(section),
            &timed,
            time as fn(&Section, &Panel) -> Vec<plot::Panel>,
        ),
        ("Memory traffic per token".into(), "memory", memory_caption(section), &exact, memory),
        ("Memory rate".into(), "rate", rate_caption(section), &timed, rate),
        (against("Drift"), "drift", DRIFT.to_string(), &exact, drift),
        ("Drift along T".into(), "blocks", BLOCKS.to_string(), &exact, blocks),
    ] {
        for dtype in &dtypes {
            let of = section.panels.iter().filter(|p| p.dtype == *dtype);
            let mut panels: Vec<plot::Panel> = of.flat_map(|p| panels(section, p)).collect();
            // A single point is no curve; tables have it.
            panels.retain(|p| p.lines.iter().any(|l| l.points.len() > 1));
            panels.sort_by_key(|p| p.order);
            let title = format!("{title}, {dtype}{word}");
            if let Some(svg) = plot::draw(&title, &panels) {
                let slug = format!("{name}-{dtype}-{}", section.slug);
                all.push(Figure { slug, title, caption: caption.clone(), svg });
            }
        }
    }
    all
}

/// `T, tokens`
fn axis(section: &Section) -> String {
    format!("{}, tokens", section.length())
}

fn name_of(panel: &Panel) -> String {
    let sweep = panel.sweep.map_or(String::new(), |sweep| format!("{sweep}: "));
    format!("{sweep}{}, B = {}", panel.dtype, panel.b)
}

/// Labels of a panel's curves: the operator, and what else tells a curve from its siblings.
fn label(panel: &Panel, curve: &Curve) -> String {
    let same_op = || panel.curves.iter().filter(|c| c.setting.op == curve.setting.op);
    let mut label = curve.setting.op.name().to_string();
    if same_op().any(|c| c.kernel != curve.kernel) {
        let name = curve.kernel.split_once('/').map_or(curve.kernel, |(_, rest)| rest);
        label = format!("{label} {name}");
    }
    if same_op().any(|c| c.family != curve.family) {
        label = format!("{label} {}", curve.family);
    }
    if same_op().any(|c| c.setting != curve.setting) {
        label = format!("{label} {}", curve.setting.heads_text());
    }
    label
}

/// What tells a curve from others of its operator, counted over the whole section: one family
/// has one dash in every panel.
fn dash(section: &Section, curve: &Curve) -> usize {
    let kind = |c: &Curve| (c.kernel.to_string(), c.family.clone());
    let curves = section.panels.iter().flat_map(|p| &p.curves);
    let mut kinds: Vec<_> = curves.filter(|c| c.setting.op == curve.setting.op).map(kind).collect();
    kinds.sort();
    kinds.dedup();
    // The default family is drawn solid.
    let usual = Family::default().text_of(curve.setting.op.parts());
    kinds.sort_by_key(|(_, family)| *family != usual && family != "random");
    kinds.iter().position(|k| *k == kind(curve)).unwrap_or(0)
}

/// One line a curve, of a value of its fastest records.
fn lines(section: &Section, panel: &Panel, value: impl Fn(&Record) -> Option<f64>) -> Vec<Line> {
    let line = |c: &Curve| Line {
        label: label(panel, c),
        ink: Ink::Op(c.setting.op),
        dash: dash(section, c),
        marker: Some(c.setting.op.face().mark),
        points: (c.best.iter())
            .filter_map(|(t, r)| value(r).map(|y| (*t as f64, y)))
            .filter(|p| p.1.is_finite() && p.1 > 0.0)
            .collect(),
        spread: vec![],
    };
    panel.curves.iter().map(line).filter(|l| !l.points.is_empty()).collect()
}

/// Lines of one operator that nowhere differ by more than `tolerance` (a logarithm) become one,
/// named after what they share.
fn merge(panel: &Panel, lines: Vec<Line>, tolerance: f64) -> Vec<Line> {
    let mut kept: Vec<(Line, Vec<String>)> = Vec::new();
    for line in lines {
        let alike = |other: &Line| {
            let near = |(a, b): (&(f64, f64), &(f64, f64))| {
                a.0 == b.0 && (a.1 / b.1).ln().abs() <= tolerance
            };
            other.ink == line.ink
                && other.points.len() == line.points.len()
                && other.points.iter().zip(&line.points).all(near)
        };
        match kept.iter_mut().find(|(other, _)| alike(other)) {
            Some((other, labels)) => {
                other.dash = other.dash.min(line.dash);
                labels.push(line.label);
            }
            None => kept.push((line.clone(), vec![line.label])),
        }
    }
    let total = |ink: Ink| panel.curves.iter().filter(|c| Ink::Op(c.setting.op) == ink).count();
    let name = |(mut line, labels): (Line, Vec<String>)| {
        let op = labels[0].split(' ').next().unwrap_or_default().to_string();
        if labels.len() > 1 {
            line.label = if labels.len() == total(line.ink) { op } else { joined(&labels) };
        }
        line
    };
    kept.into_iter().map(name).collect()
}

/// `kda gate=strong, mid` of `kda gate=strong` and `kda gate=mid`: what all begin with is said
/// once.
fn joined(labels: &[String]) -> String {
    let first = &labels[0];
    let shared = |n: &usize| labels.iter().all(|l| l.get(..*n) == first.get(..*n));
    let start = (0..=first.len()).rev().filter(|n| first.is_char_boundary(*n)).find(shared);
    let start = first[..start.unwrap_or(0)].rfind([' ', '=']).map_or(0, |i| i + 1);
    let rest: Vec<_> = labels.iter().map(|l| &l[start..]).collect();
    format!("{}{}", &first[..start], rest.join(", "))
}

fn time_caption(section: &Section) -> String {
    let what = match section.source {
        Source::Measured(_) => {
            "Median of the samples of the fastest tile; bands and whiskers reach from the 5th to \
             the 95th percentile of the samples, mostly within the markers."
                .to_string()
        }
        Source::Modelled => format!(
            "Modelled, not measured: the time of the fastest tile by a simulation of one \
             multiprocessor and exact counts; bands are the model's error. {}",
            modelled::errors(section)
        ),
    };
    format!(
        "{what} Rings mark where the lead changes between lengths at which it can be told. Input \
         families of one operator whose times agree within 3% are drawn as one line."
    )
}

fn time(section: &Section, panel: &Panel) -> Vec<plot::Panel> {
    let mut lines = lines(section, panel, |r| r.timing.as_ref().map(|t| t.ns() / 1e6));
    for line in &mut lines {
        let curve = panel.curves.iter().find(|c| label(panel, c) == line.label);
        line.spread = curve.map_or_else(Vec::new, spread);
    }
    let lines = merge(panel, lines, 0.03);
    let unit = format!("time, ms ({})", section.source.word());
    let mut plot =
        plot::Panel::new(name_of(panel), panel.heads(), &axis(section), &unit, lines, vec![]);
    let mut marks: Vec<Mark> = Vec::new();
    for c in comparisons(panel) {
        for x in &c.crossings {
            let place = match section.length() {
                "T" => format!("T ≈ {}", integer(x.t)),
                _ => format!("≈ {}", integer(x.t)),
            };
            let label = match x.is_wide() {
                true => format!("{place}, {} to {}", integer(x.range.0), integer(x.range.1)),
                false => place,
            };
            let mark = Mark { at: (x.t, x.ns / 1e6), label, ink: Ink::Op(c.linear.op) };
            // Families that agree cross at one place.
            let near = |m: &Mark| m.ink == mark.ink && (m.at.0 / x.t).ln().abs() < 0.05;
            if !marks.iter().any(near) {
                marks.push(mark);
            }
        }
    }
    plot.marks = marks;
    vec![plot]
}

/// 5th and 95th percentile of each record's samples, or the range of its modelled time; ms.
fn spread(curve: &Curve) -> Vec<(f64, f64, f64)> {
    let of = |(t, r): (&usize, &&Record)| {
        let Some(Timing::Measured { samples, .. }) = &r.timing else {
            let (span, _) = Span::of(r)?;
            return Some((*t as f64, span.low / 1e6, span.high / 1e6));
        };
        let mut ns: Vec<f64> = samples.iter().map(|s| s.ns).filter(|x| x.is_finite()).collect();
        ns.sort_by(f64::total_cmp);
        let at = |q: f64| ns.get(((ns.len() as f64 - 1.0) * q).round() as usize).copied();
        Some((*t as f64, at(0.05)? / 1e6, at(0.95)? / 1e6))
    };
    let drawn = |s: &(f64, f64, f64)| s.1 > 0.0 && s.2.is_finite();
    curve.best.iter().filter_map(of).filter(drawn).collect()
}

/// The tokens that a record's outputs have rows of.
fn tokens(r: &Record) -> f64 {
    (r.problem.sequences() * r.problem.tokens()) as f64
}

fn memory_caption(section: &Section) -> String {
    let counted = match section.source {
        Source::Measured(_) => String::new(),
        Source::Modelled => " Requested counts every 32-byte sector that a request touches, \
                             distinct each sector once."
            .to_string(),
    };
    format!("Minimum reads each input once and writes each output once.{counted}")
}

fn memory(section: &Section, panel: &Panel) -> Vec<plot::Panel> {
    type Value = fn(&Traffic) -> Option<f64>;
    let per_token = |value: Value| {
        lines(section, panel, |r| {
            r.traffic.as_ref().and_then(value).map(|x| x / tokens(r) / 1024.0)
        })
    };
    let kinds: [(&str, usize, Value); 3] = [
        ("minimum", 0, |t| Some(t.min_bytes)),
        // Sampled CTAs give an upper bound alone.
        ("distinct", 1, |t| {
            let exact = |c: &&Counts| c.executed_ctas.is_none();
            t.counts.as_ref().filter(exact).map(|c| c.unique_bytes() as f64)
        }),
        ("requested", 2, |t| {
            let requested = |c: &Counts| c.global_read_sectors + c.global_write_sectors;
            t.counts.as_ref().map(|c| (requested(c) * Counts::SECTOR_BYTES) as f64)
        }),
    ];
    let found: Vec<_> = kinds.map(|(name, dash, value)| (name, dash, per_token(value))).into();
    let counted = found.iter().any(|(_, dash, lines)| *dash > 0 && !lines.is_empty());
    let mut all = Vec::new();
    for (name, dash, lines) in found {
        for mut line in merge(panel, lines, 1e-9) {
            if counted {
                line.label = format!("{} {name}", line.label);
                line.dash = dash;
            }
            all.push(line);
        }
    }
    let unit = if counted { "traffic, KiB per token" } else { "minimum traffic, KiB per token" };
    vec![plot::Panel::new(name_of(panel), panel.heads(), &axis(section), unit, all, vec![])]
}

fn rate_caption(section: &Section) -> String {
    let peak = section.device.peak.memory_gbps;
    let mut text = format!("Minimum bytes over the {} time.", section.source.word());
    if peak > 0.0 {
        text += &format!(" The dashed rule is the device's memory bandwidth, {peak} GB/s.");
        let above = |r: &&&Record| gbps(r).is_some_and(|x| x > peak);
        let n = section.records.iter().filter(above).count();
        if n > 0 {
            text += &format!(
                " {} above it: more than the device has, see the warnings.",
                plural(n, "case")
            );
        }
    }
    text
}

/// Minimum bytes over the time.
fn gbps(r: &Record) -> Option<f64> {
    Some(r.traffic.as_ref()?.min_bytes / r.timing.as_ref()?.ns())
}

fn rate(section: &Section, panel: &Panel) -> Vec<plot::Panel> {
    let lines = merge(panel, lines(section, panel, gbps), 0.03);
    let peak = section.device.peak.memory_gbps;
    let rules = if peak > 0.0 { vec![(peak, format!("peak {peak} GB/s"))] } else { vec![] };
    vec![plot::Panel::new(
        name_of(panel),
        panel.heads(),
        &axis(section),
        "GB/s (minimum bytes over time)",
        lines,
        rules,
    )]
}

const DRIFT: &str = "E is the relative Frobenius error against fp64, F that of the fp64 result \
    rounded to the output's precision: 1 is as good as the precision allows. The worst over tiles \
    and seeds.";

/// Outputs of the panel's records with their places among those of the section.
fn outputs(section: &Section, panel: &Panel) -> Vec<(usize, String)> {
    let of = |panel: &Panel| -> Vec<String> {
        let all = panel.curves.iter().flat_map(|c| &c.all).filter_map(|r| r.verification.as_ref());
        all.flat_map(|v| v.outputs.iter().map(|o| o.name.clone())).collect()
    };
    let names: indexmap::IndexSet<String> = section.panels.iter().flat_map(of).collect();
    let here = of(panel);
    names.into_iter().enumerate().filter(|(_, name)| here.contains(name)).collect()
}

fn drift(section: &Section, panel: &Panel) -> Vec<plot::Panel> {
    let of = |(order, name): (usize, String)| {
        let line = |c: &Curve| {
            let mut worst: BTreeMap<usize, f64> = BTreeMap::new();
            for r in &c.all {
                let outputs = r.verification.iter().flat_map(|v| &v.outputs);
                for o in outputs.filter(|o| o.name == name) {
                    let at = worst.entry(length(r)).or_insert(o.ratio());
                    *at = at.max(o.ratio());
                }
            }
            let finite = |(t, y): (usize, f64)| (y.is_finite() && y > 0.0).then_some((t as f64, y));
            Line {
                label: label(panel, c),
                ink: Ink::Op(c.setting.op),
                dash: dash(section, c),
                marker: Some(c.setting.op.face().mark),
                points: worst.into_iter().filter_map(finite).collect(),
                spread: vec![],
            }
        };
        let lines = panel.curves.iter().map(line).filter(|l| !l.points.is_empty()).collect();
        let title = format!("{}, output {name}", name_of(panel));
        let floor = vec![(1.0, "rounding floor, E = F".to_string())];
        let unit = "E/F, error over rounding floor";
        let mut plot = plot::Panel::new(title, panel.heads(), &axis(section), unit, lines, floor);
        plot.order = order;
        plot
    };
    outputs(section, panel).into_iter().map(of).collect()
}

const BLOCKS: &str = "Error E of each block of 64 tokens along the longest case of each line; a \
    line that rises tells of an error that grows with the tokens gone by.";

/// Errors by block of the record's first output.
fn first_blocks(r: &Record) -> &[f64] {
    let output = r.verification.as_ref().and_then(|v| v.outputs.first());
    output.map_or(&[], |o| &o.blocks)
}

fn blocks(section: &Section, panel: &Panel) -> Vec<plot::Panel> {
    let line = |c: &Curve| {
        let longest = c.all.iter().filter(|r| first_blocks(r).len() > 1);
        let blocks = longest.max_by_key(|r| length(r)).map_or(&[][..], |r| first_blocks(r));
        let points = blocks.iter().enumerate();
        Line {
            label: label(panel, c),
            ink: Ink::Op(c.setting.op),
            dash: dash(section, c),
            marker: None,
            points: points
                .map(|(i, e)| (64.0 * (i as f64 + 1.0), *e))
                .filter(|p| p.1.is_finite() && p.1 > 0.0)
                .collect(),
            spread: vec![],
        }
    };
    let lines: Vec<_> = panel.curves.iter().map(line).filter(|l| !l.points.is_empty()).collect();
    let x = "token at the end of the block";
    vec![plot::Panel::new(
        name_of(panel),
        panel.heads(),
        x,
        "E of the block, first output",
        lines,
        vec![],
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merged_labels_say_what_is_shared_once() {
        let of =
            |labels: &[&str]| joined(&labels.iter().map(|l| l.to_string()).collect::<Vec<_>>());
        assert_eq!(of(&["op gate=strong", "op gate=slow"]), "op gate=strong, slow");
        assert_eq!(of(&["op gate=mid", "op prefill.sm80"]), "op gate=mid, prefill.sm80");
        assert_eq!(of(&["op", "op gate=mid"]), "op, op gate=mid");
    }
}
