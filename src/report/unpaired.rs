//! What a section compares with nothing, and the true reason.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexSet;

use crate::op::Side;

use super::crossover::{Comparison, comparisons};
use super::format::list;
use super::group::{Panel, Section, Setting, by_sweep, length, settings};
use super::pairing::{self, Pairing};

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
