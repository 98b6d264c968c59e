//! At which length a linear operator overtakes a full one, in sentences.

use std::collections::BTreeMap;

use crate::op::Side;

use super::format::{factor, integer, list};
use super::group::{Panel, Section};
use super::race::{Crossing, Lead, Point, Race, Run};
use super::setting::Setting;
use super::span::Span;

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
    let Some(full) = panel.settings.iter().find(|s| s.is(Side::Full)) else {
        return vec![];
    };
    let mut all = Vec::new();
    for linear in panel.settings.iter().filter(|s| s.is(Side::Linear)) {
        for family in panel.families(linear) {
            let against = full_times(panel, full, family);
            let race = Race::new(&against, &panel.times(linear, family));
            let crossings = race.crossings();
            let (full, linear, family) = (full.clone(), linear.clone(), family.to_string());
            all.push(Comparison { full, linear, family, race, crossings });
        }
    }
    all
}

/// The full operator's times on the inputs closest to a linear one's family: of those with the same
/// keys where there are any, the usual ones, else the first by name.
fn full_times(panel: &Panel, full: &Setting, family: &str) -> BTreeMap<usize, Span> {
    let keys = |f: &str| {
        f.split_whitespace().find(|p| p.starts_with("keys=")).unwrap_or_default().to_string()
    };
    let mut families = panel.families(full);
    families.sort_by_key(|f| keys(f) != keys(family));
    families.first().map_or_else(BTreeMap::new, |f| panel.times(full, f))
}

/// Where a crossing lies: `T ≈ 1000 to 1200`, `a context of about 1000 tokens`.
pub fn place(section: &Section, low: f64, high: f64) -> String {
    let range = from_to(low, high);
    match section.length() {
        "T" => format!("T ≈ {range}"),
        length => format!("a {length} of about {range} tokens"),
    }
}

/// Two lengths as they are written, or one where they look alike.
fn from_to(low: f64, high: f64) -> String {
    match (integer(low), integer(high)) {
        (low, high) if low == high => low,
        (low, high) => format!("{low} to {high}"),
    }
}

/// Least and largest.
pub fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(lo, hi), x| (lo.min(x), hi.max(x)))
}

/// Sentences for people, one a comparison; families that agree share one.
pub fn sentences(section: &Section, panel: &Panel) -> Vec<String> {
    let all = comparisons(panel);
    let mut groups: Vec<(Vec<Run>, Vec<&Comparison>)> = Vec::new();
    for c in all.iter().filter(|c| !c.race.points.is_empty()) {
        let runs = c.race.runs();
        match groups.iter_mut().find(|(r, g)| *r == runs && g[0].linear == c.linear) {
            Some((_, group)) => group.push(c),
            None => groups.push((runs, vec![c])),
        }
    }
    let told = groups.iter().flat_map(|(runs, group)| {
        let setting = setting(section, panel, group);
        told(section, runs, group).into_iter().map(move |what| format!("{what} ({setting})"))
    });
    told.collect()
}

/// Both settings, the families, and where the times come from.
fn setting(section: &Section, panel: &Panel, group: &[&Comparison]) -> String {
    let c = group[0];
    let families: Vec<&str> = group.iter().map(|c| c.family.as_str()).collect();
    format!(
        "{}, B={}; {} {}; {} {}; {}; {}",
        c.linear.dtype,
        c.linear.b,
        c.full.op,
        c.full.heads_text(),
        c.linear.op,
        c.linear.heads_text(),
        list(&families),
        section.provenance(panel.sweep),
    )
}

/// What comparisons came to that agree on who leads where: a sentence a crossing, else one.
fn told(section: &Section, runs: &[Run], group: &[&Comparison]) -> Vec<String> {
    let c = group[0];
    let (op, full) = (c.linear.op.name(), c.full.op.name());
    if !c.crossings.is_empty() {
        return (0..c.crossings.len()).map(|i| crossed(section, group, i)).collect();
    }
    let winner = |side: Side| match side {
        Side::Full => (full, op),
        Side::Linear => (op, full),
    };
    // The loser's time over the winner's, over some lengths.
    let by = |side: Side, at: &dyn Fn(&Point) -> bool| {
        let points = group.iter().flat_map(|c| c.race.known()).filter(|p| at(p));
        let (low, high) = extent(points.map(|p| match side {
            Side::Full => 1.0 / p.ratio(),
            Side::Linear => p.ratio(),
        }));
        factors(low, high)
    };
    let within = |at: &dyn Fn(&Point) -> bool| {
        let points = || group.iter().flat_map(|c| c.race.known()).filter(|p| at(p));
        let low = extent(points().map(|p| p.ratios().0)).0;
        let high = extent(points().map(|p| p.ratios().1)).1;
        format!("the ratio of their times is {} by {}", factors(low, high), section.ranges())
    };
    let known: Vec<usize> = runs.iter().flat_map(|r| r.lengths.clone()).collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else {
        return vec![format!(
            "no crossover can be told: the times of {op} and {full} have no interval"
        )];
    };
    if first == last {
        let at = section.at(*first);
        return vec![match runs[0].lead {
            Lead::Of(side) => {
                let (winner, loser) = winner(side);
                format!(
                    "at {at} alone {winner} is faster than {loser}, {}: one length tells of no \
                     crossover",
                    by(side, &|_| true)
                )
            }
            _ => format!("at {at} alone {op} and {full} are level: {}", within(&|_| true)),
        }];
    }
    let range = format!("between {first} and {last}");
    if let [run] = runs {
        return vec![match run.lead {
            Lead::Of(side) => {
                let (winner, loser) = winner(side);
                format!(
                    "no crossover {range}: {winner} is faster than {loser} throughout, {}",
                    by(side, &|_| true)
                )
            }
            _ => format!(
                "no crossover can be told {range}: {op} and {full} are level at every length, {}",
                within(&|_| true)
            ),
        }];
    }
    // One leader, and lengths at which both are level.
    let lead = runs.iter().find_map(|r| match r.lead {
        Lead::Of(side) => Some(side),
        _ => None,
    });
    let side = lead.expect("level runs alone are one run");
    let (winner, loser) = winner(side);
    let of = |lead: Lead| {
        let runs = runs.iter().filter(|r| r.lead == lead).map(run_text);
        list(&runs.collect::<Vec<_>>())
    };
    vec![format!(
        "no crossover can be told {range}: {winner} is faster than {loser} at {}, {}, and level with \
         it at {}",
        of(Lead::Of(side)),
        by(side, &|p| p.lead() == Lead::Of(side)),
        of(Lead::Level)
    )]
}

/// `512`, `512 to 4096`
fn run_text(run: &Run) -> String {
    match run.lengths[..] {
        [one] => one.to_string(),
        [first, .., last] => format!("{first} to {last}"),
        [] => String::new(),
    }
}

/// `2.0x`, `2.0x to 2.5x`
fn factors(low: f64, high: f64) -> String {
    match (factor(low), factor(high)) {
        (low, high) if low == high => low,
        (low, high) => format!("{low} to {high}"),
    }
}

/// One crossing that all comparisons have.
fn crossed(section: &Section, group: &[&Comparison], i: usize) -> String {
    let c = group[0];
    let of = || group.iter().map(|c| &c.crossings[i]);
    let (low, high) = extent(of().map(|x| x.t));
    let (soonest, latest) = (extent(of().map(|x| x.range.0)).0, extent(of().map(|x| x.range.1)).1);
    let verb = if c.crossings[i].overtakes { "overtakes" } else { "falls behind" };
    let range = match from_to(soonest, latest) {
        range if range == from_to(low, high) => String::new(),
        range => format!(", {range} within {}", section.ranges()),
    };
    let level: Vec<String> = c.crossings[i].level.iter().map(ToString::to_string).collect();
    let level = match level.is_empty() {
        true => String::new(),
        false => format!(", level at {}", list(&level)),
    };
    let (a, b) = c.crossings[i].between;
    format!(
        "{} {verb} {} at {}{range}, between {} {a} and {b}{level}",
        c.linear.op,
        c.full.op,
        place(section, low, high),
        section.source.word()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::{self, Made};
    use crate::record::{Record, Timing};
    use crate::report::group::sections;
    use crate::report::pairing::Pairing;

    fn said(records: &[Record]) -> Vec<String> {
        let sections = sections(records, Pairing::Alike);
        sections[0].panels.iter().flat_map(|p| sentences(&sections[0], p)).collect()
    }

    #[test]
    fn a_sentence_names_lengths_setting_and_source() {
        let said = said(&made_up::sweep());
        let (full, linear) = (examples::full(), examples::linear());
        assert_eq!(said.len(), 2, "{said:#?}");
        assert!(said[0].starts_with(&format!("{} overtakes {} at T ≈ ", linear, full)), "{said:?}");
        assert!(said[0].contains(" within the intervals, between measured "), "{said:?}");
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
        let said = said(&records);
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

    /// Records at these lengths with times of both.
    fn pairs(points: &[(usize, f64, f64)], measured: bool) -> Vec<Record> {
        let of = |&(t, a, l): &(usize, f64, f64)| {
            [(examples::full(), a), (examples::linear(), l)]
                .map(|(op, ns)| Made { measured, ..Made::new(op, t, ns) }.record())
        };
        points.iter().flat_map(of).collect()
    }

    #[test]
    fn what_is_level_is_level() {
        let (full, linear) = (examples::full(), examples::linear());
        let one = |points: &[(usize, f64, f64)], measured| {
            let said = said(&pairs(points, measured));
            assert_eq!(said.len(), 1, "{said:?}");
            said[0].split(" (").next().unwrap().to_string()
        };
        assert_eq!(
            one(&[(64, 1000.0, 1001.0), (128, 2000.0, 1998.0)], true),
            format!(
                "no crossover can be told between 64 and 128: {linear} and {full} are level at every \
                 length, the ratio of their times is 0.98x to 1.02x by the intervals"
            )
        );
        assert_eq!(
            one(&[(64, 1000.0, 2000.0), (128, 2000.0, 1998.0)], true),
            format!(
                "no crossover can be told between 64 and 128: {full} is faster than {linear} at 64, \
                 2.0x, and level with it at 128"
            )
        );
        assert_eq!(
            one(&[(64, 1000.0, 2000.0)], true),
            format!(
                "at T = 64 alone {full} is faster than {linear}, 2.0x: one length tells of no \
                 crossover"
            )
        );
        assert!(one(&[(64, 1000.0, 1000.0)], true).contains("are level: the ratio"));
        // What the intervals would tell, the model's error does not.
        let near = [(512, 208.0, 207.0), (1024, 300.0, 207.0)];
        assert!(one(&near, false).starts_with("no crossover can be told between 512 and 1024"));
        // Told on both sides, with a level length between.
        let wide = [(512, 1e3, 1e4), (1024, 2e3, 2e3), (2048, 1e4, 1e3)];
        let told = one(&wide, false);
        assert!(
            told.ends_with(
                "within the model's error, between modelled 512 and 2048, level at 1024"
            )
        );
    }

    #[test]
    fn times_without_intervals_tell_nothing() {
        let mut records = pairs(&[(64, 1e3, 1e4), (128, 1e4, 1e3)], true);
        for r in &mut records {
            if let Some(Timing::Measured { ci_ns, samples, .. }) = &mut r.timing {
                *ci_ns = (f64::NAN, f64::NAN);
                samples.truncate(3);
            }
        }
        let said = said(&records);
        assert!(said[0].contains("no crossover can be told: the times of"), "{said:?}");
    }

    #[test]
    fn the_order_of_records_changes_no_verdict() {
        use rand::seq::SliceRandom;
        use rand::{Rng, SeedableRng};
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(7);
        for _ in 0..30 {
            let mut records = Vec::new();
            for t in (8..13).map(|e| 1usize << e) {
                for op in made_up::ops() {
                    for bm in [32, 64, 128] {
                        // Few values, so that there are ties with unlike intervals.
                        let ns = 1000.0 * f64::from(rng.random_range(1..4u8));
                        let mut case = Made::new(op, t, ns);
                        case.tile.insert("BM".into(), bm);
                        let mut record = case.record();
                        if let Some(Timing::Measured { ci_ns, .. }) = &mut record.timing {
                            let part = rng.random_range(0.0..0.6);
                            *ci_ns = (ns * (1.0 - part), ns * (1.0 + part));
                        }
                        records.push(record);
                    }
                }
            }
            let before = said(&records);
            records.shuffle(&mut rng);
            assert_eq!(said(&records), before);
        }
    }
}
