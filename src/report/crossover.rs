//! At which length a linear operator overtakes a full one.

use std::collections::BTreeMap;

use crate::op::{Op, Side};
use crate::record::{Record, Timing};

use super::format::{factor, integer, list};
use super::group::{Panel, Section, Setting};

/// A change of the faster operator between two neighbouring lengths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Crossing {
    /// Where both would take as long, by straight lines between neighbours in log-log.
    pub t: f64,
    /// Time there, ns.
    pub ns: f64,
    /// Neighbouring lengths with times of both.
    pub between: (usize, usize),
    /// Whether the linear operator is the faster one beyond.
    pub overtakes: bool,
}

/// Times over T of two operators, in ns, at the lengths that both have.
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    /// `(t, full, linear)`, ascending in t.
    pub points: Vec<(usize, f64, f64)>,
}

impl Race {
    /// The two over the lengths that both have.
    pub fn new(full: &BTreeMap<usize, &Record>, linear: &BTreeMap<usize, &Record>) -> Race {
        let ns = |r: &Record| r.timing.as_ref().map_or(f64::NAN, Timing::ns);
        let both = |(t, a): (&usize, &&Record)| linear.get(t).map(|l| (*t, ns(a), ns(l)));
        Race { points: full.iter().filter_map(both).collect() }
    }

    /// Every change of the lead, in the order of T.
    pub fn crossings(&self) -> Vec<Crossing> {
        // log(full / linear): positive where the linear operator is faster.
        let lead: Vec<_> = self.points.iter().map(|&(t, a, l)| (t, (a / l).ln(), l)).collect();
        let mut found = Vec::new();
        // Last point with a leader: a tie is no change until the other one leads.
        let mut last: Option<usize> = None;
        for i in 0..lead.len() {
            if lead[i].1 == 0.0 {
                continue;
            }
            if let Some(j) = last.filter(|&j| (lead[j].1 > 0.0) != (lead[i].1 > 0.0)) {
                let ((t0, d0, l0), (t1, d1, l1)) = (lead[j], lead[i]);
                let tie = lead[j + 1..i].first();
                let (ln0, ln1) = ((t0 as f64).ln(), (t1 as f64).ln());
                let part = d0 / (d0 - d1);
                let (t, ns) = match tie {
                    Some(&(t, _, l)) => (t as f64, l),
                    None => (
                        (ln0 + part * (ln1 - ln0)).exp(),
                        (l0.ln() + part * (l1.ln() - l0.ln())).exp(),
                    ),
                };
                found.push(Crossing { t, ns, between: (t0, t1), overtakes: d1 > 0.0 });
            }
            last = Some(i);
        }
        found
    }
}

/// What one comparison of a panel came to.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub full: Setting,
    pub linear: Setting,
    /// The linear operator's inputs.
    pub family: String,
    pub race: Race,
    pub crossings: Vec<Crossing>,
}

/// Every linear operator of the panel against its full one, once for each input family.
pub fn comparisons(panel: &Panel) -> Vec<Comparison> {
    let Some(full) = panel.settings.iter().find(|s| s.op.side() == Side::Full) else {
        return vec![];
    };
    let mut all = Vec::new();
    for linear in panel.settings.iter().filter(|s| s.op.side() == Side::Linear) {
        for family in panel.families(linear) {
            let against = full_times(panel, full, family);
            let race = Race::new(&against, &panel.best(linear, family));
            let crossings = race.crossings();
            let (full, linear, family) = (full.clone(), linear.clone(), family.to_string());
            all.push(Comparison { full, linear, family, race, crossings });
        }
    }
    all
}

/// The full operator's times on the inputs closest to a linear one's family: the same keys, else
/// any.
fn full_times<'a>(panel: &Panel<'a>, full: &Setting, family: &str) -> BTreeMap<usize, &'a Record> {
    let keys = |f: &str| {
        f.split_whitespace().find(|p| p.starts_with("keys=")).unwrap_or_default().to_string()
    };
    let families = panel.families(full);
    let alike = families.iter().find(|f| keys(f) == keys(family));
    alike.or(families.first()).map_or_else(BTreeMap::new, |f| panel.best(full, f))
}

/// Where a crossing lies: `T ≈ 1000 to 1200`, `a context of about 1000 tokens`.
fn place(section: &Section, low: f64, high: f64) -> String {
    let range = match (integer(low), integer(high)) {
        (low, high) if low == high => low,
        (low, high) => format!("{low} to {high}"),
    };
    match section.length() {
        "T" => format!("T ≈ {range}"),
        length => format!("a {length} of about {range} tokens"),
    }
}

/// Sentences for people, one a comparison; families that agree share one.
pub fn sentences(section: &Section, panel: &Panel) -> Vec<String> {
    let all = comparisons(panel);
    let mut said = Vec::new();
    let mut done = vec![false; all.len()];
    for i in 0..all.len() {
        if done[i] {
            continue;
        }
        let alike: Vec<usize> = (i..all.len())
            .filter(|&j| {
                !done[j] && all[j].linear == all[i].linear && outcome(&all[j]) == outcome(&all[i])
            })
            .collect();
        alike.iter().for_each(|&j| done[j] = true);
        let group: Vec<&Comparison> = alike.iter().map(|&j| &all[j]).collect();
        said.extend(sentence(section, &group));
    }
    said
}

/// What two comparisons must share to be told in one sentence.
#[derive(PartialEq)]
struct Outcome {
    crossings: Vec<((usize, usize), bool)>,
    /// Without a crossing: first and last length, and whether the linear operator is faster.
    throughout: Option<(usize, usize, bool)>,
    empty: bool,
}

fn outcome(c: &Comparison) -> Outcome {
    let points = &c.race.points;
    let range = points.first().zip(points.last()).filter(|_| c.crossings.is_empty());
    Outcome {
        crossings: c.crossings.iter().map(|x| (x.between, x.overtakes)).collect(),
        throughout: range.map(|(first, last)| (first.0, last.0, last.2 < last.1)),
        empty: points.is_empty(),
    }
}

/// One sentence for comparisons that agree on who leads where.
fn sentence(section: &Section, group: &[&Comparison]) -> Vec<String> {
    let c = group[0];
    let families: Vec<&str> = group.iter().map(|c| c.family.as_str()).collect();
    let (op, full, dtype) = (c.linear.op.name(), c.full.op.name(), c.linear.dtype);
    let setting = format!(
        "{dtype}, B={}; {full} {}; {op} {}; {}; {}",
        c.linear.b,
        c.full.heads_text(),
        c.linear.heads_text(),
        list(&families),
        section.provenance(),
    );
    let how = section.source.word();
    let Some((first, last)) = c.race.points.first().zip(c.race.points.last()) else {
        return vec![format!("no comparison of {op} with {full}: no length has both ({setting})")];
    };
    if c.crossings.is_empty() {
        let ratios = group.iter().flat_map(|c| c.race.points.iter().map(|(_, a, l)| a / l));
        let (low, high) = extent(ratios);
        let (winner, low, high) =
            if high > 1.0 { (op, low, high) } else { (full, 1.0 / high, 1.0 / low) };
        let by = match (factor(low), factor(high)) {
            (low, high) if low == high => low,
            (low, high) => format!("{low} to {high}"),
        };
        let range = match (first.0, last.0) {
            (a, b) if a == b => format!("at {a}"),
            (a, b) => format!("between {a} and {b}"),
        };
        let what = format!("no crossover {range}: {winner} is faster than ");
        let other = if winner == op { full } else { op };
        return vec![format!("{what}{other} throughout, {by} ({setting})")];
    }
    let mut said = Vec::new();
    for i in 0..c.crossings.len() {
        let (low, high) = extent(group.iter().map(|c| c.crossings[i].t));
        let at = place(section, low, high);
        let verb = if c.crossings[i].overtakes { "overtakes" } else { "falls behind" };
        let (a, b) = c.crossings[i].between;
        said.push(format!("{op} {verb} {full} at {at}, between {how} {a} and {b} ({setting})"));
    }
    said
}

fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), x| (lo.min(x), hi.max(x)))
}

/// One line an operator and section over all its settings: where many sentences are too many.
pub fn headlines(section: &Section) -> Vec<String> {
    let all: Vec<_> = section.panels.iter().flat_map(comparisons).collect();
    let mut said = Vec::new();
    for op in Op::all().filter(|op| op.side() == Side::Linear) {
        let of: Vec<_> =
            all.iter().filter(|c| c.linear.op == op && !c.race.points.is_empty()).collect();
        let Some(full) = of.first().map(|c| c.full.op) else { continue };
        let first = |c: &&Comparison| c.crossings.iter().find(|x| x.overtakes).map(|x| x.t);
        let crossed: Vec<f64> = of.iter().copied().filter_map(|c| first(&c)).collect();
        let never = of.iter().filter(|c| c.race.points.iter().all(|(_, a, l)| a <= l)).count();
        let always = of.iter().filter(|c| c.race.points.iter().all(|(_, a, l)| l < a)).count();
        let share = |n: usize| match of.len() {
            1 => String::new(),
            all => format!(" in {n} of {all} comparisons"),
        };
        let mut parts = Vec::new();
        if !crossed.is_empty() {
            let (low, high) = extent(crossed.iter().copied());
            let at = place(section, low, high);
            parts.push(format!("{op} overtakes {full} at {at}{}", share(crossed.len())));
        }
        if always > 0 {
            parts.push(format!("{op} is faster at every length{}", share(always)));
        }
        if never > 0 {
            let than = if parts.is_empty() { format!(" than {op}") } else { String::new() };
            parts.push(format!("{full} is faster{than} at every length{}", share(never)));
        }
        if parts.is_empty() {
            parts.push(format!("{op} only falls behind {full} as {} grows", section.length()));
        }
        said.push(format!("{} ({})", parts.join("; "), section.provenance()));
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::{self, Made};
    use crate::report::group::sections;

    fn race(points: impl IntoIterator<Item = usize>, a: fn(f64) -> f64, l: fn(f64) -> f64) -> Race {
        let at = |t: usize| (t, a(t as f64), l(t as f64));
        Race { points: points.into_iter().map(at).collect() }
    }

    #[test]
    fn power_laws_cross_exactly() {
        // 3 t^2 = 6000 t at t = 2000, wherever the lengths lie.
        for lengths in [vec![256, 1024, 4096], vec![1999, 2001], vec![1, 1 << 20]] {
            let r = race(lengths.clone(), |t| 3.0 * t * t, |t| 6000.0 * t);
            let [x] = r.crossings()[..] else { panic!("{lengths:?}: {:?}", r.crossings()) };
            assert!((x.t - 2000.0).abs() < 1e-6, "{lengths:?}: {x:?}");
            assert!((x.ns / 12e6 - 1.0).abs() < 1e-9, "{x:?}");
            assert!(x.overtakes);
            assert!(x.between.0 < 2000 && 2000 < x.between.1);
        }
    }

    #[test]
    fn no_crossing_and_several() {
        assert!(race([64, 128, 256], |t| t, |t| 2.0 * t).crossings().is_empty());
        assert!(race([64], |t| t, |t| 2.0 * t).crossings().is_empty());
        assert!(race([], |t| t, |t| t).crossings().is_empty());
        let points = vec![(1, 1.0, 2.0), (2, 2.0, 1.0), (4, 1.0, 2.0)];
        let both = Race { points }.crossings();
        assert_eq!(both.iter().map(|x| x.overtakes).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn a_tie_is_the_crossing_only_where_the_lead_changes() {
        let points = vec![(1, 1.0, 2.0), (2, 3.0, 3.0), (4, 5.0, 4.0)];
        let [x] = Race { points }.crossings()[..] else { panic!() };
        assert_eq!((x.t, x.ns, x.between), (2.0, 3.0, (1, 4)));
        let points = vec![(1, 1.0, 2.0), (2, 3.0, 3.0), (4, 4.0, 5.0)];
        assert!(Race { points }.crossings().is_empty());
    }

    #[test]
    fn a_sentence_names_lengths_setting_and_source() {
        let records = made_up::sweep();
        let sections = sections(&records);
        let said = sentences(&sections[0], &sections[0].panels[0]);
        let (full, linear) = (examples::full(), examples::linear());
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[0].starts_with(&format!("{} overtakes {} at T ≈ ", linear, full)), "{said:?}");
        let setting = format!("between measured 4096 and 8192 (bf16, B=1; {full} Hq 16");
        assert!(said[0].contains(&setting), "{said:?}");
        assert!(said[0].ends_with("gate=mid; measured on NVIDIA H200)"), "{said:?}");
    }

    #[test]
    fn modelled_is_said_and_families_that_agree_share_a_sentence() {
        let mut records = Vec::new();
        for t in [256, 512] {
            let case = |op, ns| Made { measured: false, ..Made::new(op, t, ns) };
            records.push(case(examples::full(), 1000.0).record());
            for (family, ns) in [("gate=slow", 2500.0), ("gate=strong", 2000.0)] {
                records.push(Made { family, ..case(examples::other(), ns) }.record());
            }
        }
        let sections = sections(&records);
        let said = sentences(&sections[0], &sections[0].panels[0]);
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(
            said[0].starts_with(&format!(
                "no crossover between 256 and 512: {} is faster than {} throughout, 2.0x to 2.5x",
                examples::full(),
                examples::other()
            )),
            "{said:?}"
        );
        assert!(said[0].contains("gate=slow and gate=strong; modelled for NVIDIA H200)"));
    }
}
