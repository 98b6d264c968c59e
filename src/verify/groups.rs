//! Failures that belong together: of one kind and place, and what their cases have in common.

use std::collections::BTreeMap;

use indexmap::{IndexMap, IndexSet};
use serde::Serialize;

use super::trial::{Check, Ending, Fault, Subject, Trial};
use crate::op::{Op, Role};

/// Failures of one kernel that look the same.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Group {
    pub kernel: String,
    /// What is wrong, and where: the first line of what the first of them said.
    pub what: String,
    /// How many they are.
    pub cases: usize,
    /// Conditions that hold for all of them and for few of the cases that pass, the most telling
    /// first; empty where nothing sets them apart.
    pub in_common: Vec<String>,
    /// Cases that pass, and those of them for which all of `in_common` holds.
    pub passed: usize,
    pub passed_alike: usize,
    /// Index of the first of them, in the order in which they ended.
    #[serde(skip)]
    pub first: usize,
}

/// What is kept of cases that have ended, to tell failures that belong together.
#[derive(Default)]
pub struct Groups {
    /// By kernel, the facts of each case that passed.
    passed: IndexMap<String, Vec<Facts>>,
    /// By kernel and kind: what the first of them said, its index, and the facts of all.
    failed: IndexMap<(String, String), (String, usize, Vec<Facts>)>,
}

/// What a case is, by the names of its axes.
type Facts = BTreeMap<String, String>;

impl Groups {
    /// Takes note of a case that has ended. Whether it is the first of its group: false for one like
    /// an earlier one, and for one that has not failed.
    pub fn add(&mut self, index: usize, subject: &Subject, trial: &Trial) -> bool {
        let kernel = subject.case.kernel.clone();
        match trial.ending {
            Ending::Skipped => false,
            Ending::Passed => {
                self.passed.entry(kernel).or_default().push(facts(subject));
                false
            }
            Ending::Failed => {
                let new = || (what(&trial.faults), index, Vec::new());
                let group = self.failed.entry((kernel, kind(&trial.faults))).or_insert_with(new);
                group.2.push(facts(subject));
                group.2.len() == 1
            }
        }
    }

    /// The groups of a kernel, the largest first.
    pub fn of(&self, kernel: &str, op: Op) -> Vec<Group> {
        let none = Vec::new();
        let passed = self.passed.get(kernel).unwrap_or(&none);
        let of_kernel = self.failed.iter().filter(|((name, _), _)| name == kernel);
        let mut all: Vec<Group> = of_kernel
            .map(|(_, (what, first, failed))| {
                let common = in_common(op, failed, passed);
                let alike = passed.iter().filter(|p| common.iter().all(|c| c.holds(p)));
                Group {
                    kernel: kernel.into(),
                    what: what.clone(),
                    cases: failed.len(),
                    passed: passed.len(),
                    passed_alike: alike.count(),
                    in_common: common.iter().map(Condition::text).collect(),
                    first: *first,
                }
            })
            .collect();
        all.sort_by_key(|g| std::cmp::Reverse(g.cases));
        all
    }
}

/// What a failure is grouped by: the first check that found it, and its place: of a trap the line of
/// the template, of a wrong result the output, else the message without its numbers. What further
/// checks find follows from that.
fn kind(faults: &[Fault]) -> String {
    faults.first().map(kind_of).unwrap_or_default()
}

fn kind_of(fault: &Fault) -> String {
    let name = fault.check.name();
    if let Some(trap) = &fault.trap {
        let place = match &trap.at.origin {
            Some((file, line)) if *line > 0 => format!("{file}:{line}"),
            _ => trap.at.source.clone(),
        };
        return format!("{name} {:?} {} {place}", trap.kind, trap.entry);
    }
    match fault.check {
        Check::Accuracy | Check::Nonfinite | Check::Agreement => {
            let output = fault.message.split(':').next().unwrap_or_default();
            format!("{name} {output}")
        }
        Check::Determinism | Check::Prefix => name.into(),
        Check::Build | Check::Trap | Check::Timeout | Check::Damage => {
            let first = fault.message.lines().next().unwrap_or_default();
            format!("{name} {}", without_numbers(first))
        }
    }
}

/// Numbers as `#`, but for those of lines of files, `x.ptx:12`.
fn without_numbers(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut keep = false;
    let mut last = ' ';
    for c in text.chars() {
        match c {
            '0'..='9' if keep => out.push(c),
            '0'..='9' if last.is_ascii_digit() => {}
            '0'..='9' => out.push('#'),
            _ => {
                keep = c == ':' && (out.ends_with(".ptx") || out.ends_with(".toml"));
                out.push(c);
            }
        }
        last = c;
    }
    out
}

/// The first line of each fault that has a kind of its own, with the place of a trap.
fn what(faults: &[Fault]) -> String {
    let mut seen = IndexSet::new();
    let new = faults.iter().filter(|f| seen.insert(kind_of(f)));
    let line = |f: &Fault| {
        let first = f.message.lines().next().unwrap_or_default().trim_end();
        let place = f.trap.as_ref().and_then(|t| t.at.origin.as_ref()).filter(|at| at.1 > 0);
        let place = place.map_or_else(String::new, |(file, line)| format!(", at {file}:{line}"));
        format!("{}: {first}{place}", f.check.name())
    };
    new.map(line).collect::<Vec<_>>().join("; ")
}

fn facts(subject: &Subject) -> Facts {
    let case = &subject.case;
    let mut facts = Facts::new();
    facts.insert("phase".into(), case.problem.phase().name().into());
    let settings = case.problem.settings();
    for (name, value) in settings.split(',').filter_map(|part| part.split_once('=')) {
        facts.insert(name.into(), value.into());
    }
    for (axis, x) in &case.tile.0 {
        facts.insert(axis.clone(), x.to_string());
    }
    let family = case.family.to_string();
    for part in family.split(' ') {
        let (part, value) = part.split_once('=').unwrap_or(("family", part));
        facts.insert(part.into(), value.into());
    }
    if let Some(n) = subject.multiprocessors {
        facts.insert("sms".into(), n.to_string());
    }
    facts
}

/// What may hold for a case.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    Is(String, String),
    /// It has one, whatever it is: a window.
    Has(String),
    Lacks(String),
    /// One number beside another, and how they compare.
    Beside(String, std::cmp::Ordering, String),
    /// Whether the first is a multiple of the second.
    Multiple(String, Divisor, bool),
    AtLeast(String, i64),
    AtMost(String, i64),
    IsNot(String, String),
}

#[derive(Debug, Clone, PartialEq)]
enum Divisor {
    Axis(String),
    Number(i64),
}

fn number(facts: &Facts, name: &str) -> Option<i64> {
    facts.get(name)?.parse().ok()
}

impl Condition {
    fn holds(&self, facts: &Facts) -> bool {
        match self {
            Condition::Is(name, value) => facts.get(name) == Some(value),
            Condition::IsNot(name, value) => facts.get(name).is_some_and(|v| v != value),
            Condition::Has(name) => facts.contains_key(name),
            Condition::Lacks(name) => !facts.contains_key(name),
            Condition::Beside(a, order, b) => {
                let both = number(facts, a).zip(number(facts, b));
                both.is_some_and(|(a, b)| a.cmp(&b) == *order)
            }
            Condition::Multiple(name, divisor, is) => {
                let by = match divisor {
                    Divisor::Axis(axis) => number(facts, axis),
                    Divisor::Number(n) => Some(*n),
                };
                let both = number(facts, name).zip(by.filter(|n| *n > 0));
                both.is_some_and(|(x, n)| (x % n == 0) == *is)
            }
            Condition::AtLeast(name, least) => number(facts, name).is_some_and(|x| x >= *least),
            Condition::AtMost(name, most) => number(facts, name).is_some_and(|x| x <= *most),
        }
    }

    /// How far it is from plain, in percent of cases that a plainer one may leave more.
    fn oddity(&self) -> usize {
        match self {
            Condition::Is(..) | Condition::Has(_) | Condition::Lacks(_) => 0,
            Condition::Beside(..) | Condition::Multiple(..) => 5,
            Condition::AtLeast(..) | Condition::AtMost(..) => 10,
            Condition::IsNot(..) => 20,
        }
    }

    fn text(&self) -> String {
        use std::cmp::Ordering;
        match self {
            Condition::Is(name, value) => format!("{name}={value}"),
            Condition::IsNot(name, value) => format!("{name} other than {value}"),
            Condition::Has(name) => format!("with {name}"),
            Condition::Lacks(name) => format!("without {name}"),
            Condition::Beside(a, Ordering::Less, b) => format!("{a} < {b}"),
            Condition::Beside(a, Ordering::Equal, b) => format!("{a} = {b}"),
            Condition::Beside(a, Ordering::Greater, b) => format!("{a} > {b}"),
            Condition::Multiple(name, by, is) => {
                let by = match by {
                    Divisor::Axis(axis) => axis.clone(),
                    Divisor::Number(n) => n.to_string(),
                };
                format!("{name} {} multiple of {by}", if *is { "a" } else { "no" })
            }
            Condition::AtLeast(name, least) => format!("{name} >= {least}"),
            Condition::AtMost(name, most) => format!("{name} <= {most}"),
        }
    }
}

/// Conditions beyond the first few tell a person nothing.
const MOST: usize = 3;
/// Of fewer cases that failed, or that passed, numbers are too easily alike by chance: only plain
/// conditions are told.
const FEW: (usize, usize) = (3, 6);

/// The conditions that hold for all cases that failed and set them apart from those that passed: each
/// the one that leaves the fewest of those, as long as it takes at least half of what is left away. A
/// plain one is preferred unless another is better by a good part of all that passed.
fn in_common(op: Op, failed: &[Facts], passed: &[Facts]) -> Vec<Condition> {
    if failed.len() < 2 || passed.is_empty() {
        return Vec::new();
    }
    let few = failed.len() < FEW.0 || passed.len() < FEW.1;
    let candidates: Vec<Condition> = candidates(op, failed, passed)
        .into_iter()
        .filter(|c| !(few && c.oddity() > 0))
        .filter(|c| failed.iter().all(|f| c.holds(f)))
        .collect();
    let mut left: Vec<&Facts> = passed.iter().collect();
    let mut chosen: Vec<Condition> = Vec::new();
    while chosen.len() < MOST && !left.is_empty() {
        let count = |c: &Condition| left.iter().filter(|p| c.holds(p)).count();
        let worth = |c: &Condition| 100 * count(c) + c.oddity() * left.len();
        // The first of equals: the plainest.
        let best =
            candidates.iter().filter(|c| 2 * count(c) <= left.len()).min_by_key(|c| worth(c));
        let Some(best) = best else { break };
        left.retain(|p| best.holds(p));
        chosen.push(best.clone());
    }
    chosen
}

/// All that may hold, the plainest first.
fn candidates(op: Op, failed: &[Facts], passed: &[Facts]) -> Vec<Condition> {
    use std::cmp::Ordering;
    let all = || failed.iter().chain(passed);
    let names: IndexSet<&String> = all().flat_map(|f| f.keys()).collect();
    let role = |name: &str| op.variable(name).map(|v| v.role);
    let with = |wanted: fn(Role) -> bool| {
        names.iter().filter(move |n| role(n).is_some_and(wanted)).collect::<Vec<_>>()
    };
    let lengths = with(|r| matches!(r, Role::Token | Role::Past | Role::Context));
    let heads = with(|r| matches!(r, Role::Heads | Role::Shared { .. }));
    let dims = with(|r| matches!(r, Role::Key | Role::Channel));
    let axes: Vec<_> = names.iter().filter(|n| role(n).is_none() && **n != "sms").collect();

    let mut found = Vec::new();
    for name in &names {
        let values: IndexSet<&String> = failed.iter().filter_map(|f| f.get(*name)).collect();
        if let (1, Some(value)) = (values.len(), values.first()) {
            found.push(Condition::Is(name.to_string(), value.to_string()));
        }
    }
    found.extend(names.iter().map(|name| Condition::Has(name.to_string())));
    found.extend(names.iter().map(|name| Condition::Lacks(name.to_string())));
    for group in [&lengths, &heads, &dims] {
        for (i, a) in group.iter().enumerate() {
            for b in &group[i + 1..] {
                for order in [Ordering::Less, Ordering::Equal, Ordering::Greater] {
                    found.push(Condition::Beside(a.to_string(), order, b.to_string()));
                }
            }
        }
    }
    for name in &lengths {
        let by = axes.iter().map(|axis| Divisor::Axis(axis.to_string()));
        for divisor in by.chain([64, 16, 8].map(Divisor::Number)) {
            for is in [false, true] {
                found.push(Condition::Multiple(name.to_string(), divisor.clone(), is));
            }
        }
    }
    for name in &names {
        let numbers: Vec<i64> = failed.iter().filter_map(|f| number(f, name)).collect();
        if let (Some(least), Some(most)) = (numbers.iter().min(), numbers.iter().max()) {
            found.push(Condition::AtLeast(name.to_string(), *least));
            found.push(Condition::AtMost(name.to_string(), *most));
        }
    }
    for name in &names {
        let values: IndexSet<&String> = passed.iter().filter_map(|f| f.get(*name)).collect();
        let unlike = |v: &&String| failed.iter().all(|f| f.get(*name) != Some(*v));
        let unlike = values.into_iter().filter(unlike);
        found.extend(unlike.map(|v| Condition::IsNot(name.to_string(), v.to_string())));
    }
    found
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
