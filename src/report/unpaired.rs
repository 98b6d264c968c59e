//! What a section compares with nothing, and the true reason.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexSet;

use crate::op::Side;

use super::crossover::{Comparison, comparisons};
use super::format::list;
use super::group::{Panel, Section, by_sweep};
use super::pairing::{self, Pairing};
use super::setting::{Setting, length, settings};

/// A sentence each. Where the section compares nothing at all there is at least one.
pub fn sentences(section: &Section, pairing: Pairing) -> Vec<String> {
    let mut said: IndexSet<String> = IndexSet::new();
    let sweeps = by_sweep(&section.records, pairing);
    let compares =
        section.panels.iter().any(|p| comparisons(p).iter().any(|c| !c.race.points.is_empty()));
    let start = if compares { "" } else { "no crossover to tell: " };
    for (sweep, records) in &sweeps {
        let several = section.panels.iter().any(|p| p.sweep.is_some());
        let where_ = section.provenance(sweep.filter(|_| several));
        let mut say = |text: String, setting: &str| {
            let setting = if setting.is_empty() { String::new() } else { format!("{setting}; ") };
            said.insert(format!("{start}{text} ({setting}{where_})"));
        };
        let all = settings(records);
        if let Some(text) = one_side(&all) {
            say(text, "");
            continue;
        }
        for (text, setting) in pairing::unpaired(&all, pairing) {
            say(text, &setting);
        }
        let of_sweep = |p: &&Panel| p.sweep.is_none() || p.sweep == *sweep;
        let panels: Vec<&Panel> = section.panels.iter().filter(of_sweep).collect();
        for (text, setting) in no_length(section, &panels) {
            say(text, &setting);
        }
    }
    said.into_iter().collect()
}

/// That a side is missing, and what there is.
fn one_side(all: &[Setting]) -> Option<String> {
    let missing = [(Side::Full, "full"), (Side::Linear, "linear")]
        .into_iter()
        .find(|(side, _)| !all.iter().any(|s| s.is(*side)))?;
    let mut ops: Vec<&str> = all.iter().map(|s| s.op.name()).collect();
    ops.sort_unstable();
    ops.dedup();
    Some(format!("no {} operator was run, only {}", missing.1, list(&ops)))
}

/// Linear settings that have partners and no length with times of both.
fn no_length(section: &Section, panels: &[&Panel]) -> Vec<(String, String)> {
    let mut by_linear: BTreeMap<Setting, Vec<(&Panel, Comparison)>> = BTreeMap::new();
    for panel in panels {
        for c in comparisons(panel) {
            by_linear.entry(c.linear.clone()).or_default().push((panel, c));
        }
    }
    let mut said: IndexSet<(String, String)> = IndexSet::new();
    for (linear, all) in &by_linear {
        if all.iter().any(|(_, c)| !c.race.points.is_empty()) {
            continue;
        }
        let runs = |s: &Setting, timed: bool| -> Vec<usize> {
            let mut all: Vec<usize> = panels
                .iter()
                .flat_map(|p| p.curves.iter().filter(|c| c.setting == *s))
                .flat_map(|c| match timed {
                    true => c.spans.keys().copied().collect::<Vec<_>>(),
                    false => c.all.iter().map(|r| length(r)).collect(),
                })
                .collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let full: BTreeSet<&Setting> = all.iter().map(|(_, c)| &c.full).collect();
        let union = |timed: bool| -> Vec<usize> {
            let mut all: Vec<usize> = full.iter().flat_map(|s| runs(s, timed)).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        let names: IndexSet<&str> = full.iter().map(|s| s.op.name()).collect();
        let others = list(&names.into_iter().collect::<Vec<_>>());
        let (name, what) = (linear.op.name(), section.length());
        let (mine, theirs) = (runs(linear, false), union(false));
        let text = match mine.iter().any(|t| theirs.contains(t)) {
            true => {
                let untimed = |name: &str, times: Vec<usize>| match times.is_empty() {
                    true => format!("no case of {name} has a time"),
                    false => format!("{name} has times at {}", numbers(&times)),
                };
                format!(
                    "{name} has nothing to be held against: {}, {}",
                    untimed(name, runs(linear, true)),
                    untimed(&others, union(true))
                )
            }
            false => format!(
                "{name} has nothing to be held against, as no {what} was run with both: {name} at {}, \
                 {others} at {}",
                numbers(&mine),
                numbers(&theirs)
            ),
        };
        said.insert((text, format!("{}, B={}, {}", linear.dtype, linear.b, linear.heads_text())));
    }
    said.into_iter().collect()
}

/// `256, 512 and 1024`, or `256 to 32768` of many.
fn numbers(all: &[usize]) -> String {
    match all {
        [first, .., last] if all.len() > 4 => format!("{first} to {last}"),
        _ => list(&all.iter().map(ToString::to_string).collect::<Vec<_>>()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{DType, examples};
    use crate::record::made_up::{Made, law};
    use crate::record::{Record, Status};
    use crate::report::crossover;
    use crate::report::group::sections;

    fn said(records: &[Record]) -> Vec<String> {
        sections(records, Pairing::Alike)
            .iter()
            .flat_map(|s| sentences(s, Pairing::Alike))
            .collect()
    }

    fn told(records: &[Record], pairing: Pairing) -> usize {
        let sections = sections(records, pairing);
        let of = |p| crossover::sentences(&sections[0], p).len();
        sections[0].panels.iter().map(of).sum()
    }

    fn full() -> Made {
        Made::new(examples::full(), 512, law(examples::full(), 512))
    }

    fn linear() -> Made {
        Made::new(examples::linear(), 512, law(examples::linear(), 512))
    }

    #[test]
    fn the_reason_is_the_true_one() {
        let (f, l) = (examples::full(), examples::linear());
        let bare = |made: Made, settings: &str| {
            let mut r = made.record();
            r.problem = examples::problem(made.op, settings);
            r
        };
        let two = [(1024, 1), (2048, 1), (2048, 8)]
            .map(|(tkv, b)| bare(full(), &format!("dtype=bf16,B={b},Tq=1,Tkv={tkv},Hq=16,Hkv=4")));
        let step = bare(linear(), "dtype=bf16,B=1,T=1,HV=16");
        let mut failed = linear().record();
        (failed.status, failed.timing) = (Status::Wrong, None);
        for (records, wanted) in [
            (
                vec![linear().record(), Made::new(examples::other(), 512, 1e4).record()],
                format!("no full operator was run, only {l} and {}", examples::other()),
            ),
            (vec![full().record()], format!("no linear operator was run, only {f}")),
            (
                [&two[..], &[step]].concat(),
                format!(
                    "as {f} was run with Tkv 1024 unlike Tq and Tkv 2048 unlike Tq, which is no one length"
                ),
            ),
            (
                vec![full().record(), Made { dtype: DType::Fp16, ..linear() }.record()],
                format!("{l} in fp16 has nothing to be held against, as {f} was run in bf16"),
            ),
            (
                vec![full().record(), Made { b: 8, ..linear() }.record()],
                format!(
                    "{l} with B=8 has nothing to be held against, as {f} was run with B=1 (bf16;"
                ),
            ),
            (
                vec![full().record(), Made { heads: 8, ..linear() }.record()],
                format!(
                    "{l} with 8 heads of 128 has nothing to be held against, as {f} was run with 16 \
                     heads of 128 (bf16, B=1;"
                ),
            ),
            (
                vec![full().record(), Made { t: 1024, ..linear() }.record()],
                format!("as no T was run with both: {l} at 1024, {f} at 512 (bf16, B=1"),
            ),
            (
                vec![full().record(), failed],
                format!("no case of {l} has a time, {f} has times at 512"),
            ),
        ] {
            let said = said(&records);
            // The one sweep of two batches has a reason for each.
            let batches: std::collections::BTreeSet<_> =
                records.iter().map(|r| r.problem.sequences()).collect();
            assert!(said.len() <= batches.len(), "{said:#?}");
            assert!(said[0].starts_with("no crossover to tell: "), "{said:?}");
            assert!(said[0].contains(&wanted), "no {wanted} in {said:?}");
            assert_eq!(told(&records, Pairing::Alike), 0);
        }
    }

    #[test]
    fn only_what_is_left_over_is_named() {
        let both = [full().record(), linear().record()];
        assert_eq!(said(&both), Vec::<String>::new());
        let more = Made { dtype: DType::Tf32, ..full() }.record();
        let said = said(&[&both[..], &[more]].concat());
        assert_eq!(said.len(), 1, "{said:#?}");
        let begin = format!("{} in tf32 has nothing to be held against", examples::full());
        assert!(said[0].starts_with(&begin), "{said:?}");
    }

    #[test]
    fn a_full_operator_that_another_stands_before_is_named() {
        let f = examples::full();
        let mut open = full().record();
        open.problem = examples::problem(f, "dtype=bf16,B=1,T=512,Hq=16,Hkv=4,causal=false");
        let records = [full().record(), linear().record(), open];
        let said = said(&records);
        assert_eq!((said.len(), told(&records, Pairing::Alike)), (1, 1), "{said:#?}");
        let wanted = format!(
            "{f} Hq 16, Hkv 4, D 128, full has nothing to be held against, as {} is held against {f} Hq 16, \
             Hkv 4, D 128, causal (bf16, B=1;",
            examples::linear()
        );
        assert!(said[0].starts_with(&wanted), "{said:?}");
    }

    #[test]
    fn sweeps_and_widths_are_mixed_when_asked_alone() {
        let mut another = linear().record();
        another.sweep = "another".into();
        let narrow = Made { heads: 8, ..linear() }.record();
        for other in [another, narrow] {
            let records = [full().record(), other];
            assert_eq!(told(&records, Pairing::Alike), 0);
            assert_eq!(told(&records, Pairing::All), 1);
        }
    }
}
