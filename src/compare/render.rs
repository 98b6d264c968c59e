//! A comparison as text, Markdown, CSV and JSON.

use std::fmt::Write as _;

use serde_json::json;

use super::bootstrap::{GPU_ALLOWANCE, PROCESS_ALLOWANCE};
use super::{Comparison, Pair, Verdict};
use crate::report::format::{plural, three};

/// A time in the unit that suits it.
pub fn time(ns: f64) -> String {
    match ns {
        x if x < 1e3 => format!("{} ns", three(x)),
        x if x < 1e6 => format!("{} us", three(x / 1e3)),
        x => format!("{} ms", three(x / 1e6)),
    }
}

fn kind(p: &Pair) -> &'static str {
    if p.measured { "measured" } else { "modelled" }
}

/// The interval, or what modelled times have in its place.
fn interval(p: &Pair) -> String {
    match (p.measured, &p.model_error) {
        (true, _) => format!("{:.4}..{:.4}", p.interval.0, p.interval.1),
        (false, Some(e)) => format!("modelled, {e}"),
        (false, None) => "modelled".into(),
    }
}

fn row(p: &Pair) -> [String; 6] {
    let ptx = if p.ptx_changed { " (other PTX)" } else { "" };
    let gpu = if p.other_gpu { " (another GPU)" } else { "" };
    [
        p.verdict.to_string(),
        format!("{:.4}", p.ratio),
        interval(p),
        time(p.old_ns),
        time(p.new_ns),
        format!("{}{ptx}{gpu}", p.case),
    ]
}

const HEAD: [&str; 6] = ["verdict", "new/old", "95% interval", "old", "new", "case"];

fn columns(rows: &[[String; 6]]) -> String {
    let head = HEAD.map(String::from);
    let all: Vec<_> = std::iter::once(&head).chain(rows).collect();
    let wide = |i: usize| all.iter().map(|r| r[i].chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for r in &all {
        let cells: Vec<_> = (0..5).map(|i| format!("{:w$}", r[i], w = wide(i))).collect();
        let _ = writeln!(out, "{}  {}", cells.join("  "), r[5]);
    }
    out
}

/// What all renderings for people end with.
fn notes(c: &Comparison) -> Vec<String> {
    let mut notes = Vec::new();
    if c.count(Verdict::Ambiguous) > 0 {
        notes.push(
            "ambiguous: the interval is too wide for a verdict. Measure both sides again by more processes \
             (`run --repeat-process 5`) or for longer (`run --time 10`), or the kernels against each other \
             (`compare --live`)."
                .into(),
        );
    }
    if c.pairs.iter().any(|p| p.measured && (p.processes.0 == 1 || p.processes.1 == 1)) {
        notes.push(format!(
            "One process measured a side: {:.1}% is allowed for what processes differ by; \
             `run --repeat-process N` measures it.",
            100.0 * PROCESS_ALLOWANCE
        ));
    }
    if c.pairs.iter().any(|p| p.other_gpu) {
        notes.push(format!(
            "Old and new are of different GPUs: {:.0}% is allowed for what GPUs of one model differ by; \
             `compare --live` takes both on one GPU.",
            100.0 * GPU_ALLOWANCE
        ));
    }
    if c.pairs.iter().any(|p| !p.measured) {
        notes.push(
            "Modelled times are compared exactly; how far measured ones lie from them stands in place of an \
             interval."
                .into(),
        );
    }
    notes
}

/// The counts in one line.
pub fn counts(c: &Comparison) -> String {
    let parts: Vec<_> = Verdict::ALL.iter().map(|v| format!("{} {v}", c.count(*v))).collect();
    let lost = c.left.iter().filter(|l| l.regression).count();
    format!(
        "{}: {}; {} without a time on both sides, {lost} of them right before and not now",
        plural(c.pairs.len(), "case"),
        parts.join(", "),
        c.left.len()
    )
}

pub fn text(c: &Comparison) -> String {
    let mut out = format!("new over old, threshold {}%\n\n", 100.0 * c.threshold);
    out += &columns(&c.pairs.iter().map(row).collect::<Vec<_>>());
    for l in &c.left {
        let _ =
            writeln!(out, "{}  {}: {}", if l.regression { "FAILED" } else { "-" }, l.case, l.why);
    }
    out += "\n";
    for (kernel, measured, n, mean) in c.kernels() {
        let kind = if measured { "measured" } else { "modelled" };
        let _ = writeln!(out, "{kernel}: {} {kind}, geometric mean {mean:.4}", plural(n, "case"));
    }
    let _ = writeln!(out, "{}", counts(c));
    notes(c).iter().fold(out, |out, note| out + note + "\n")
}

pub fn markdown(c: &Comparison) -> String {
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let mut out = format!("New over old, threshold {}%.\n\n", 100.0 * c.threshold);
    out += &line(&HEAD.map(String::from));
    out += &line(&["---", "---:", "---", "---:", "---:", "---"].map(String::from));
    for p in &c.pairs {
        out += &line(&row(p).map(|text| cell(&text)));
    }
    if !c.left.is_empty() {
        out += "\n| case without a ratio | why |\n| --- | --- |\n";
        c.left.iter().for_each(|l| out += &line(&[cell(&l.case), cell(&l.why)]));
    }
    out += "\n| kernel | times | cases | geometric mean |\n| --- | --- | ---: | ---: |\n";
    for (kernel, measured, n, mean) in c.kernels() {
        let kind = if measured { "measured" } else { "modelled" };
        out += &line(&[format!("`{kernel}`"), kind.into(), n.to_string(), format!("{mean:.4}")]);
    }
    let _ = writeln!(out, "\n{}", counts(c));
    notes(c).iter().fold(out, |out, note| out + "\n" + note + "\n")
}

pub fn csv(c: &Comparison) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let mut out = String::from(
        "verdict,ratio,low,high,old_ns,new_ns,kind,old_processes,new_processes,device,kernel,case,why\n",
    );
    for p in &c.pairs {
        let _ = writeln!(
            out,
            "{},{},{},{},{},{},{},{},{},{},{},{},",
            p.verdict,
            p.ratio,
            p.interval.0,
            p.interval.1,
            p.old_ns,
            p.new_ns,
            kind(p),
            p.processes.0,
            p.processes.1,
            quoted(&p.device),
            quoted(&p.kernel),
            quoted(&p.case)
        );
    }
    for l in &c.left {
        let verdict = if l.regression { "failed" } else { "" };
        let _ = writeln!(out, "{verdict},,,,,,,,,,,{},{}", quoted(&l.case), quoted(&l.why));
    }
    out
}

pub fn json(c: &Comparison) -> String {
    let verdicts: serde_json::Map<_, _> =
        Verdict::ALL.iter().map(|v| (v.word().into(), json!(c.count(*v)))).collect();
    let kernels: Vec<_> = c
        .kernels()
        .into_iter()
        .map(|(kernel, measured, cases, mean)| {
            json!({"kernel": kernel, "measured": measured, "cases": cases, "geometric_mean": mean})
        })
        .collect();
    json!({"threshold": c.threshold, "verdicts": verdicts, "regressions": c.regressions(),
        "kernels": kernels, "pairs": c.pairs, "left": c.left})
    .to_string()
        + "\n"
}
