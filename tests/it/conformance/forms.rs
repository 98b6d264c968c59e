//! The forms of instructions that a PTX text uses: opcodes with their suffixes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crossover::op::{PhaseName, Problem, Role};
use crossover::sweep::Case;
use rayon::prelude::*;

use crate::common::registry;
use crate::suite::suite_cases;

/// Opcodes with suffixes, each with its first line.
pub fn forms(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    let code: String =
        text.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    for statement in code.split(';') {
        let mut s = statement.trim();
        // Braces, labels and guards in front of the instruction.
        loop {
            let label = s.split_once(':').filter(|(l, rest)| {
                !rest.starts_with(':')
                    && !l.is_empty()
                    && l.chars().all(|c| c.is_alphanumeric() || "_$%".contains(c))
            });
            s = if let Some(rest) = s.strip_prefix(['{', '}']) {
                rest.trim_start()
            } else if let Some((_, rest)) = label {
                rest.trim_start()
            } else if s.starts_with('@') {
                s.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start())
            } else {
                break;
            };
        }
        let form = s.split(|c: char| c.is_whitespace() || c == '{').next().unwrap_or("");
        if form.starts_with(|c: char| c.is_ascii_lowercase()) {
            all.entry(form.to_owned()).or_insert_with(|| s.to_owned());
        }
    }
    all
}

/// Whether a comparison that joins a predicate, such as `setp.gt.or.f32`, is made of parts that are
/// known: the comparison on its own, and the join behind another comparison.
pub fn joined_of(form: &str, known: &BTreeSet<String>) -> bool {
    let parts: Vec<&str> = form.split('.').collect();
    let ["setp", compare, join @ ("and" | "or" | "xor"), ty] = parts[..] else { return false };
    let joins = |f: &String| f.starts_with("setp.") && f.split('.').nth(2) == Some(join);
    known.contains(&format!("setp.{compare}.{ty}")) && known.iter().any(joins)
}

/// The forms of all kernels over the problems and tiles of their suites, each with a kernel that
/// has it.
pub fn of_kernels() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for kernel in registry().kernels() {
        let mut seen = HashSet::new();
        let of = |case: &Case| Case { problem: alike(&case.problem), ..case.clone() };
        let mut cases: Vec<Case> = suite_cases(kernel).iter().map(|s| of(&s.case)).collect();
        cases.retain(|case| seen.insert(format!("{} {}", case.tile, case.problem)));
        assert!(!cases.is_empty(), "{} has no variant", kernel.name);
        let found = cases.par_iter().map(|case| {
            let ptx = kernel.render(&case.problem, &case.tile).expect("a legal tile renders");
            let name = format!("{} {}", kernel.name, case.tile);
            forms(&ptx.text).into_keys().map(|form| (form, name.clone())).collect::<Vec<_>>()
        });
        for (form, name) in found.collect::<Vec<_>>().into_iter().flatten() {
            all.entry(form).or_insert(name);
        }
    }
    all
}

/// Lengths and heads for which templates are not specialised, made the same.
fn alike(problem: &Problem) -> Problem {
    let packed = !problem.lens().is_empty();
    let mut alike = problem.pack(vec![]);
    for v in problem.op().variables() {
        alike = match v.role {
            Role::Sequence | Role::Heads | Role::Shared { .. } => alike.with(v.name, 1),
            Role::Token | Role::Past if problem.phase() == PhaseName::Prefill => {
                alike.with(v.name, 256)
            }
            _ => alike,
        };
    }
    if problem.get("window").is_some() {
        alike = alike.with("window", 100);
    }
    if packed { alike.pack(vec![[5, 5], [100, 100]]) } else { alike }
}

#[test]
fn forms_are_found_behind_braces_labels_and_guards() {
    let text = "
.reg .b32 x;
// add.s32 comment;
$a: { @!p mul.lo.u32 x, x, 1; } $b: cp.async.bulk.tensor.4d.global.shared::cta.bulk_group [m, {x}], [x];
{ .reg .pred p; setp.eq.u32 p, x, 0; @p bra $a; }
ret;
}";
    let got: Vec<_> = forms(text).into_keys().collect();
    assert_eq!(
        got,
        [
            "bra",
            "cp.async.bulk.tensor.4d.global.shared::cta.bulk_group",
            "mul.lo.u32",
            "ret",
            "setp.eq.u32"
        ]
    );
}
