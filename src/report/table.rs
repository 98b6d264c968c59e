//! Tables of results, failures, rankings, and speed against full operators.

use std::collections::BTreeMap;

use crate::op::Side;
use crate::record::{Energy, Record, Status, Timing};

use super::crossover::comparisons;
use super::format::{factor, list, percent, plural, three, tokens};
use super::group::{Panel, Section, has_time};
use super::race::{Lead, Point};
use super::rank;
use super::setting::{family_of, length};
use super::span::{Ground, Span};

/// Rows of text; HTML and Markdown render the same tables.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Table {
    pub title: String,
    pub head: Vec<String>,
    /// Columns from this one on hold numbers, set flush right.
    pub numbers_from: usize,
    pub rows: Vec<Vec<Cell>>,
}

/// One entry of a table.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    pub text: String,
    pub mood: Mood,
}

/// What a cell says beyond its text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mood {
    #[default]
    Plain,
    Good,
    Bad,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, mood: Mood::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Cell {
        text.to_string().into()
    }
}

const NONE: &str = "–";

/// Every record of the panel with a time, by length, operator and time.
pub fn results(section: &Section, panel: &Panel) -> Option<Table> {
    let mut timed: Vec<&Record> = panel
        .curves
        .iter()
        .flat_map(|c| &c.all)
        .filter(|r| r.status == Status::Ok)
        .copied()
        .collect();
    if timed.is_empty() {
        return None;
    }
    let ns = |r: &Record| r.timing.as_ref().map_or(f64::INFINITY, Timing::ns);
    timed.sort_by(|a, b| {
        let key = |r: &Record| (length(r), r.problem.op(), r.family.to_string());
        key(a).cmp(&key(b)).then(ns(a).total_cmp(&ns(b)))
    });
    let name = timed[0].problem.phase_row().length;
    let range: &[&str] = match section.source.is_measured() {
        true => &["95% CI"],
        false => &["model error", "bound by"],
    };
    let with_energy = timed.iter().any(|r| r.energy.is_some());
    let row = |r: &&Record| -> Vec<Cell> {
        let ns = has_time(r).then(|| r.timing.as_ref().map(Timing::ns)).flatten();
        let rate = |amount: f64, unit: f64| ns.map_or(NONE.into(), |ns| three(amount / ns / unit));
        let bytes = r.traffic.as_ref().map_or(f64::NAN, |t| t.min_bytes);
        let mut inputs = family_of(r.problem.op(), &r.family);
        if timed.iter().any(|o| o.seed != r.seed) {
            inputs += &format!(" seed {}", r.seed);
        }
        let mut row = vec![
            length(r).to_string().into(),
            r.kernel.name.clone().into(),
            tile(r).into(),
            inputs.into(),
            ns.map_or(NONE.into(), |ns| three(ns / 1e6)).into(),
            interval(r).into(),
        ];
        if !section.source.is_measured() {
            row.push(bound(r).into());
        }
        row.extend([
            rate(r.flops, 1e3).into(),
            rate(bytes, 1.0).into(),
            of_limit(r),
            errors(r).into(),
        ]);
        if with_energy {
            row.extend(energy(r));
        }
        row
    };
    let head = [&[name, "kernel", "tile", "inputs", "ms"], range];
    let more: &[&str] = if with_energy { &["mJ a launch", "less idle", "tokens/J"] } else { &[] };
    let head = head.concat().into_iter().chain(["TFLOP/s", "GB/s", "of limit", "E/F"]);
    let head = head.chain(more.iter().copied());
    Some(Table {
        title: panel.title(),
        head: head.map(String::from).collect(),
        numbers_from: 4,
        rows: timed.iter().map(row).collect(),
    })
}

/// Energy of the whole GPU a launch, that less what an idle one takes, and tokens for the former.
fn energy(r: &Record) -> [Cell; 3] {
    match &r.energy {
        Some(Energy::Measured { joules, net_joules, .. }) => {
            let tokens = (r.problem.sequences() * r.problem.tokens()) as f64;
            [three(joules * 1e3), three(net_joules * 1e3), three(tokens / joules)].map(Cell::from)
        }
        _ => [NONE, NONE, NONE].map(Cell::from),
    }
}

/// The share of what the device can do at best; more than all of it stands out.
fn of_limit(r: &Record) -> Cell {
    match r.share_of_limit() {
        None => NONE.into(),
        Some(share) if share > 1.0 => {
            Cell { text: format!("{} (!)", percent(share)), mood: Mood::Bad }
        }
        Some(share) => percent(share).into(),
    }
}

fn tile(r: &Record) -> String {
    let parts: Vec<_> = r.kernel.tile.iter().map(|(k, v)| format!("{k}={v}")).collect();
    if parts.is_empty() { NONE.to_string() } else { parts.join(" ") }
}

/// The range of the time relative to it, from the median's interval or the model's error.
fn interval(r: &Record) -> String {
    match Span::of(r) {
        Some((span, Some(Ground::Assumed))) => format!("{} (assumed)", span.text()),
        Some((span, Some(_))) => span.text(),
        _ => NONE.to_string(),
    }
}

/// What binds a modelled time.
fn bound(r: &Record) -> String {
    match &r.timing {
        Some(Timing::Modelled(m)) => m.bound.clone(),
        _ => NONE.to_string(),
    }
}

/// `o 1.4 · final_state 1.2`
fn errors(r: &Record) -> String {
    let Some(v) = &r.verification else { return NONE.to_string() };
    let one = |o: &crate::record::OutputError| {
        let ratio =
            if o.ratio().is_finite() { format!("{:.2}", o.ratio()) } else { three(o.error) };
        let broken = match o.nonfinite {
            0 => String::new(),
            n => format!(" ({n} not finite)"),
        };
        format!("{} {ratio}{broken}", o.name)
    };
    v.outputs.iter().map(one).collect::<Vec<_>>().join(" · ")
}

/// Cases that ended badly, each with its status and reason.
pub fn failures(section: &Section) -> Option<Table> {
    let failed: Vec<_> = section
        .records
        .iter()
        .filter(|r| !matches!(r.status, Status::Ok | Status::Skipped))
        .collect();
    let row = |r: &&&Record| -> Vec<Cell> {
        let status = Cell { text: status_word(r.status).to_string(), mood: Mood::Bad };
        let bad = r.verification.iter().flat_map(|v| &v.outputs).find_map(|o| o.first_bad.clone());
        let damage = r.verification.iter().flat_map(|v| v.damage.iter().cloned());
        let mut why: Vec<String> = r.reason.iter().cloned().collect();
        for more in bad.into_iter().chain(damage) {
            // Most reasons have it already.
            if !why.iter().any(|w| w.contains(&more)) {
                why.push(more);
            }
        }
        vec![
            status,
            rank::variant(r).into(),
            r.problem.to_string().into(),
            family_of(r.problem.op(), &r.family).into(),
            errors(r).into(),
            if why.is_empty() { "no reason recorded".into() } else { why.join("; ").into() },
        ]
    };
    (!failed.is_empty()).then(|| Table {
        title: format!("{} without a time", plural(failed.len(), "case")),
        head: ["status", "kernel", "problem", "inputs", "E/F", "reason"].map(String::from).to_vec(),
        numbers_from: usize::MAX,
        rows: failed.iter().map(row).collect(),
    })
}

/// A status for people.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Skipped => "skipped",
        Status::Invalid => "invalid",
        Status::BuildFailed => "build failed",
        Status::LaunchFailed => "launch failed",
        Status::Wrong => "wrong",
        Status::Timeout => "timeout",
    }
}

/// Skipped cases counted by reason.
pub fn skipped(section: &Section) -> Option<Table> {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for r in section.records.iter().filter(|r| r.status == Status::Skipped) {
        *reasons.entry(r.reason.as_deref().unwrap_or("no reason recorded")).or_default() += 1;
    }
    let total = reasons.values().sum();
    (total > 0).then(|| Table {
        title: format!("{} skipped", plural(total, "case")),
        head: ["reason", "cases"].map(String::from).to_vec(),
        numbers_from: 1,
        rows: reasons.iter().map(|(why, n)| vec![(*why).into(), n.to_string().into()]).collect(),
    })
}

/// The full operator's time over the linear one's, over the length: above one, the linear one wins.
pub fn speed(section: &Section) -> Option<Table> {
    let all: Vec<_> = section
        .panels
        .iter()
        .flat_map(|p| comparisons(p).into_iter().map(move |c| (p, c)))
        .collect();
    let mut lengths: Vec<usize> =
        all.iter().flat_map(|(_, c)| c.race.points.iter().map(|p| p.t)).collect();
    lengths.sort_unstable();
    lengths.dedup();
    // Settings whose families agree to the digits shown share a row.
    let mut rows: Vec<(Vec<Cell>, Vec<String>, Vec<Cell>)> = Vec::new();
    for (panel, c) in all.iter().filter(|(_, c)| !c.race.points.is_empty()) {
        let cell = |t: &usize| match c.race.points.iter().find(|p| p.t == *t) {
            Some(p) => speed_cell(p),
            None => NONE.into(),
        };
        let numbers: Vec<Cell> = lengths.iter().map(cell).collect();
        let mut start: Vec<Cell> = panel.sweep.iter().map(|sweep| (*sweep).into()).collect();
        start.extend([
            c.linear.op.name().into(),
            panel.dtype.name().into(),
            panel.b.to_string().into(),
            format!("{} against {}", c.linear.heads_text(), c.full.heads_text()).into(),
        ]);
        match rows.iter_mut().find(|(s, _, n)| *s == start && *n == numbers) {
            Some((_, families, _)) => families.push(c.family.clone()),
            None => rows.push((start, vec![c.family.clone()], numbers)),
        }
    }
    let mut against: Vec<&str> = all.iter().map(|(_, c)| c.full.op.name()).collect();
    against.sort_unstable();
    against.dedup();
    let sweep = section.panels.iter().any(|p| p.sweep.is_some()).then_some("sweep");
    let names = sweep.into_iter().chain(["operator", "dtype", "B", "heads", "inputs"]);
    let names: Vec<String> = names.map(String::from).collect();
    let numbers_from = names.len();
    (!rows.is_empty()).then(|| Table {
        title: format!("Speed against {} at each {}", list(&against), section.length()),
        head: names.into_iter().chain(lengths.iter().map(|t| tokens(*t as f64))).collect(),
        numbers_from,
        rows: rows
            .into_iter()
            .map(|(mut row, families, numbers)| {
                row.push(list(&families).into());
                row.extend(numbers);
                row
            })
            .collect(),
    })
}

/// The ratio of the times, and whether it can be told from 1.
fn speed_cell(p: &Point) -> Cell {
    let text = factor(p.ratio());
    match p.lead() {
        Lead::Of(Side::Linear) => Cell { text, mood: Mood::Good },
        Lead::Of(Side::Full) => text.into(),
        Lead::Level => format!("≈ {text}").into(),
        Lead::Unknown => format!("? {text}").into(),
    }
}

/// One table an operator whose variants met.
pub fn ranking(section: &Section) -> Vec<Table> {
    let table = |r: rank::Ranking| Table {
        title: format!("{}: {}", r.op, plural(r.cases, "contested case")),
        head: [
            "variant",
            "place",
            "slower than best",
            "mean reciprocal rank",
            "first or level",
            "timed",
        ]
        .map(String::from)
        .to_vec(),
        numbers_from: 1,
        rows: (r.ranks.iter())
            .map(|k| {
                let ratio =
                    if k.ratio.is_finite() { format!("{:.3}x", k.ratio) } else { NONE.into() };
                let timed = Cell {
                    text: format!("{}/{}", k.timed, k.tried),
                    mood: if k.timed < k.tried { Mood::Bad } else { Mood::Plain },
                };
                vec![
                    k.variant.clone().into(),
                    k.place.map_or(NONE.into(), |place| place.to_string().into()),
                    ratio.into(),
                    format!("{:.3}", k.reciprocal).into(),
                    k.won.to_string().into(),
                    timed,
                ]
            })
            .collect(),
    };
    rank::rankings(&section.records).into_iter().map(table).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::{self, Made};
    use crate::report::group::sections;
    use crate::report::pairing::Pairing;

    #[test]
    fn results_hold_rates_and_errors() {
        let mut r = Made::new(examples::linear(), 512, 1e6).record();
        r.flops = 2e9;
        r.traffic.as_mut().unwrap().min_bytes = 3e6;
        let records = [r];
        let sections = sections(&records, Pairing::Alike);
        let table = results(&sections[0], &sections[0].panels[0]).unwrap();
        let row: Vec<_> = table.rows[0].iter().map(|c| c.text.as_str()).collect();
        let kernel = format!("{}/prefill.sm80", examples::linear());
        assert_eq!(row[..4], ["512", kernel.as_str(), "BV=64", "gate=mid"]);
        assert_eq!(row[4..8], ["1.00", "−1.0% +1.0%", "2.00", "3.00"]);
        assert!(row[9].starts_with("o 1.") && row[9].contains("final_state 1."), "{row:?}");
    }

    #[test]
    fn failures_are_rows_and_skips_are_counted() {
        let mut records = made_up::sweep();
        for (r, status) in records.iter_mut().zip([Status::Wrong, Status::Skipped, Status::Skipped])
        {
            (r.status, r.timing, r.reason) = (status, None, Some(format!("because {status:?}")));
        }
        let sections = sections(&records, Pairing::Alike);
        let failed = failures(&sections[0]).unwrap();
        assert_eq!((failed.rows.len(), failed.rows[0][0].text.as_str()), (1, "wrong"));
        assert!(failed.rows[0][5].text.contains("because Wrong"));
        let skips = skipped(&sections[0]).unwrap();
        assert_eq!(skips.rows[0][1].text, "2");
    }

    #[test]
    fn every_timed_record_is_a_row() {
        let records = made_up::sweep();
        let sections = sections(&records, Pairing::Alike);
        let rows: usize = sections[0]
            .panels
            .iter()
            .filter_map(|p| results(&sections[0], p))
            .map(|t| t.rows.len())
            .sum();
        assert_eq!(rows, records.len());
        let speed = speed(&sections[0]).unwrap();
        assert_eq!((speed.rows.len(), speed.head.len()), (2, 5 + 7));
    }
}
