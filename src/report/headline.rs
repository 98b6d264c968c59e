//! One line an operator and precision over all its settings, by batch and heads: where many
//! sentences are too many.

use std::collections::BTreeMap;

use crate::op::{DType, Op, Side};

use super::crossover::{Comparison, comparisons, extent, place};
use super::format::{integer, list, plural};
use super::group::Section;
use super::race::{Lead, Run, WIDE};
use super::setting::Setting;

/// What a comparison comes to, but for where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Overtakes,
    FallsBehind,
    /// That side at every length, of two at least.
    Throughout(Side),
    /// That side at some lengths, level at the others.
    Partly(Side),
    Level,
    /// One length has both.
    Alone(Lead, usize),
    Unknown,
}

fn kind(c: &Comparison) -> Kind {
    let runs: Vec<Run> = c.race.runs();
    let side = |r: &Run| match r.lead {
        Lead::Of(side) => Some(side),
        _ => None,
    };
    let leader = runs.iter().find_map(side);
    if c.crossings.iter().any(|x| x.overtakes) {
        return Kind::Overtakes;
    }
    if !c.crossings.is_empty() {
        return Kind::FallsBehind;
    }
    match (&runs[..], leader) {
        ([], _) => Kind::Unknown,
        ([run], _) if run.lengths.len() == 1 => Kind::Alone(run.lead, run.lengths[0]),
        ([_], Some(side)) => Kind::Throughout(side),
        (_, Some(side)) => Kind::Partly(side),
        (_, None) => Kind::Level,
    }
}

/// The lines of a section.
pub fn headlines(section: &Section) -> Vec<String> {
    type Key<'a> = (Option<&'a str>, Op, DType, Op);
    let mut groups: BTreeMap<Key, Vec<Comparison>> = BTreeMap::new();
    for panel in &section.panels {
        for c in comparisons(panel).into_iter().filter(|c| !c.race.points.is_empty()) {
            let key = (panel.sweep, c.linear.op, c.linear.dtype, c.full.op);
            groups.entry(key).or_default().push(c);
        }
    }
    let line = |((sweep, op, dtype, full), all): (&Key, &Vec<Comparison>)| {
        let parts = parts(section, (*op, *full), all);
        format!("{} ({dtype}; {})", parts.join("; "), section.provenance(*sweep))
    };
    groups.iter().map(line).collect()
}

/// Comparisons of one setting that come to the same.
struct Entry<'c> {
    kind: Kind,
    label: String,
    of: Vec<&'c Comparison>,
}

/// One part a kind of outcome.
fn parts(section: &Section, (op, full): (Op, Op), all: &[Comparison]) -> Vec<String> {
    // By outcome and setting: families that agree are one entry.
    let mut entries: Vec<Entry> = Vec::new();
    for c in all {
        let mut label = label(c, all);
        let same = |o: &&Comparison| o.linear == c.linear && o.full == c.full;
        if all.iter().filter(same).any(|o| kind(o) != kind(c)) {
            label = format!("{label}, {}", c.family);
        }
        match entries.iter_mut().find(|e| e.kind == kind(c) && e.label == label) {
            Some(e) => e.of.push(c),
            None => entries.push(Entry { kind: kind(c), label, of: vec![c] }),
        }
    }
    let mut kinds: Vec<Kind> = entries.iter().map(|e| e.kind).collect();
    kinds.sort();
    kinds.dedup();
    let part = |kind: &Kind| {
        let of: Vec<&Entry> = entries.iter().filter(|e| e.kind == *kind).collect();
        let labels = || of.iter().map(|e| e.label.as_str()).collect::<Vec<_>>().join("; ");
        let name = |side: &Side| if *side == Side::Full { (full, op) } else { (op, full) };
        match kind {
            Kind::Overtakes | Kind::FallsBehind => {
                let overtakes = *kind == Kind::Overtakes;
                let at = |(i, e): (usize, &&Entry)| place_of(section, i == 0, overtakes, e);
                let places: Vec<_> = of.iter().enumerate().map(at).collect();
                let verb = if overtakes { "overtakes" } else { "falls behind" };
                format!("{op} {verb} {full} at {}", list(&places))
            }
            Kind::Throughout(side) => {
                let (winner, loser) = name(side);
                format!("{winner} is faster than {loser} at every length ({})", labels())
            }
            Kind::Partly(side) => {
                let (winner, loser) = name(side);
                format!(
                    "{winner} is faster than {loser} at some lengths and level at the others ({})",
                    labels()
                )
            }
            Kind::Level => format!("{op} and {full} are level at every length ({})", labels()),
            Kind::Alone(Lead::Of(side), t) => {
                let (winner, loser) = name(side);
                format!(
                    "{winner} is faster than {loser} at {}, the one length with both ({})",
                    section.at(*t),
                    labels()
                )
            }
            Kind::Alone(_, t) => format!(
                "{op} and {full} are level at {}, the one length with both ({})",
                section.at(*t),
                labels()
            ),
            Kind::Unknown => format!(
                "{op} and {full} cannot be compared, as their times have no interval ({})",
                labels()
            ),
        }
    };
    kinds.iter().map(part).collect()
}

/// `T ≈ 2420 (B=1, 32 heads)`, and `1580 (B=8, 32 heads)` after it.
fn place_of(section: &Section, first: bool, overtakes: bool, entry: &Entry) -> String {
    let of =
        || entry.of.iter().filter_map(|c| c.crossings.iter().find(|x| x.overtakes == overtakes));
    let (low, high) = extent(of().map(|x| x.t));
    let (soonest, latest) = (extent(of().map(|x| x.range.0)).0, extent(of().map(|x| x.range.1)).1);
    let at = match (first, integer(low) == integer(high)) {
        (true, _) => place(section, low, high),
        (false, true) => integer(low),
        (false, false) => format!("{} to {}", integer(low), integer(high)),
    };
    let wide = soonest < low * (1.0 - WIDE) || latest > high * (1.0 + WIDE);
    let range = match wide {
        true => {
            format!("{} to {} within {}; ", integer(soonest), integer(latest), section.ranges())
        }
        false => String::new(),
    };
    format!("{at} ({range}{})", entry.label)
}

/// Batch and heads of a comparison, and what else tells it from the others.
fn label(c: &Comparison, all: &[Comparison]) -> String {
    let key = |s: &Setting| (s.b, s.out().0);
    let short = format!("B={}, {}", c.linear.b, plural(c.linear.out().0, "head"));
    let same = || all.iter().filter(|o| key(&o.linear) == key(&c.linear));
    let mut label = short;
    if same().any(|o| o.linear != c.linear) {
        label = format!("B={}, {}", c.linear.b, c.linear.heads_text());
    }
    if same().any(|o| o.full != c.full) {
        label = format!("{label} against {}", c.full.heads_text());
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::Record;
    use crate::record::made_up::{Made, law};
    use crate::report::group::sections;
    use crate::report::pairing::Pairing;

    fn lines(records: &[Record]) -> Vec<String> {
        let sections = sections(records, Pairing::Alike);
        sections.iter().flat_map(headlines).collect()
    }

    #[test]
    fn a_headline_tells_batches_and_heads_apart() {
        let (full, linear) = (examples::full(), examples::linear());
        let mut records = Vec::new();
        for (b, heads, scale) in [(1, 16, 1.0), (8, 16, 2.0), (1, 32, 1000.0), (2, 16, 0.001)] {
            for t in (8..15).map(|e| 1usize << e) {
                for (op, ns) in [(full, law(full, t) * scale), (linear, law(linear, t))] {
                    records.push(Made { b, heads, ..Made::new(op, t, ns) }.record());
                }
            }
        }
        let said = lines(&records);
        assert_eq!(said.len(), 1, "{said:#?}");
        let begin = format!("{linear} overtakes {full} at T ≈ ");
        assert!(said[0].starts_with(&begin), "{said:?}");
        for part in [
            "T ≈ 4190 (B=1, 16 heads)",
            "and 1500 (1440 to 1560 within the intervals; B=8, 16 heads)",
            &format!("{linear} is faster than {full} at every length (B=1, 32 heads)"),
            &format!("{full} is faster than {linear} at every length (B=2, 16 heads)"),
        ] {
            assert!(said[0].contains(part), "no {part} in {said:?}");
        }
        assert!(said[0].ends_with(" (bf16; measured on NVIDIA H200)"), "{said:?}");
    }

    #[test]
    fn one_length_and_level_ones_are_called_so() {
        let (full, linear) = (examples::full(), examples::linear());
        let pair = |t, a, l| [(full, a), (linear, l)].map(|(op, ns)| Made::new(op, t, ns).record());
        let said = lines(&pair(512, 1e4, 2e4));
        assert_eq!(
            said,
            [format!(
                "{full} is faster than {linear} at T = 512, the one length with both (B=1, 16 \
                 heads) (bf16; measured on NVIDIA H200)"
            )]
        );
        let level = [pair(512, 1e4, 1e4), pair(1024, 2e4, 2.01e4)].concat();
        assert!(lines(&level)[0].contains("are level at every length (B=1, 16 heads)"));
        let partly = [pair(512, 1e4, 1e4), pair(1024, 2e4, 3e4)].concat();
        assert!(lines(&partly)[0].contains("at some lengths and level at the others"));
    }
}
