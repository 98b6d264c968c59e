//! Ranks kernel variants over the cases that several of them ran: same problem, same inputs.

use crate::op::Op;
use crate::record::{Record, Status, Timing};

use super::group::{family_of, has_time};

/// How one variant stands among the variants of its operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Rank {
    /// A kernel's name and tile: `<op>/prefill.sm80 BM=128 BN=64`
    pub variant: String,
    /// Cases with a time, and all it was tried on; failures are the difference.
    pub timed: usize,
    pub tried: usize,
    /// Cases in which it was the fastest.
    pub won: usize,
    /// Geometric mean over the timed cases of its time over the best time; 1 is best.
    pub ratio: f64,
    /// Mean of 1/rank over the cases tried; a failed case counts 0; 1 is best.
    pub reciprocal: f64,
}

/// Variants of one operator, best first by the geometric mean.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    pub op: Op,
    /// Cases that two variants or more ran; only these count.
    pub cases: usize,
    pub ranks: Vec<Rank>,
}

/// Name and tile of the record's kernel.
pub fn variant(r: &Record) -> String {
    let tile: Vec<_> = r.kernel.tile.iter().map(|(k, v)| format!("{k}={v}")).collect();
    if tile.is_empty() {
        r.kernel.name.clone()
    } else {
        format!("{} {}", r.kernel.name, tile.join(" "))
    }
}

/// exp of the mean logarithm; NaN of nothing.
pub fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|x| x.ln()).sum::<f64>() / values.len() as f64).exp()
}

/// Rankings of the operators that have cases run by several variants.
pub fn rankings(records: &[&Record]) -> Vec<Ranking> {
    Op::all().filter_map(|op| ranking(op, records)).collect()
}

/// One variant's best time in one case; `None` if it failed.
type Entry = (String, Option<f64>);

fn ranking(op: Op, records: &[&Record]) -> Option<Ranking> {
    // Problems hold floats and have no hash: their text is the key.
    let mut cases: indexmap::IndexMap<String, Vec<Entry>> = indexmap::IndexMap::new();
    for r in records.iter().filter(|r| r.problem.op() == op) {
        if matches!(r.status, Status::Skipped | Status::Invalid) {
            continue;
        }
        let key = format!("{:?} {}", r.problem, family_of(op, &r.family));
        let ns = has_time(r).then(|| r.timing.as_ref().map_or(f64::NAN, Timing::ns));
        let entries = cases.entry(key).or_default();
        let name = variant(r);
        match entries.iter_mut().find(|e| e.0 == name) {
            // Several seeds: the best time.
            Some(e) => e.1 = e.1.into_iter().chain(ns).reduce(f64::min),
            None => entries.push((name, ns)),
        }
    }
    let contested = |e: &&Vec<Entry>| e.len() > 1 && e.iter().any(|x| x.1.is_some());
    let cases: Vec<_> = cases.values().filter(contested).collect();
    if cases.is_empty() {
        return None;
    }
    let mut found: indexmap::IndexMap<&str, (Vec<f64>, Vec<f64>, usize)> = Default::default();
    for entries in &cases {
        let times = entries.iter().filter_map(|e| e.1);
        let best = times.clone().fold(f64::INFINITY, f64::min);
        for (name, ns) in entries.iter() {
            let (ratios, reciprocals, won) = found.entry(name).or_default();
            let Some(ns) = *ns else {
                reciprocals.push(0.0);
                continue;
            };
            let rank = 1 + times.clone().filter(|t| *t < ns).count();
            ratios.push(ns / best);
            reciprocals.push(1.0 / rank as f64);
            *won += usize::from(rank == 1);
        }
    }
    let rank = |(name, (ratios, reciprocals, won)): (&str, (Vec<f64>, Vec<f64>, usize))| Rank {
        variant: name.to_string(),
        timed: ratios.len(),
        tried: reciprocals.len(),
        won,
        ratio: geometric_mean(&ratios),
        reciprocal: reciprocals.iter().sum::<f64>() / reciprocals.len() as f64,
    };
    let mut ranks: Vec<_> = found.into_iter().map(rank).collect();
    // A variant without any time has a NaN ratio, and stands last.
    ranks.sort_by(|a, b| {
        let key = |r: &Rank| if r.ratio.is_nan() { f64::INFINITY } else { r.ratio };
        key(a).total_cmp(&key(b)).then(b.reciprocal.total_cmp(&a.reciprocal))
    });
    Some(Ranking { op, cases: cases.len(), ranks })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::Made;

    fn tiled(bm: i64, t: usize, ns: f64) -> Record {
        let mut case = Made::new(examples::full(), t, ns);
        case.tile.insert("BM".into(), bm);
        case.record()
    }

    #[test]
    fn geometric_mean_of_ratios() {
        assert!((geometric_mean(&[2.0, 8.0]) - 4.0).abs() < 1e-12);
        assert!((geometric_mean(&[1.0, 10.0, 100.0]) - 10.0).abs() < 1e-12);
        assert!(geometric_mean(&[]).is_nan());
    }

    #[test]
    fn ranks_follow_ratios_and_reciprocal_ranks() {
        // 64 wins at 256 by 2x, 128 wins at 512 by 8x, 32 is second and third.
        let mut records = vec![tiled(64, 256, 10.0), tiled(128, 256, 20.0), tiled(32, 256, 20.0)];
        records.extend([tiled(64, 512, 80.0), tiled(128, 512, 10.0), tiled(32, 512, 90.0)]);
        // Alone in its case: nothing to rank.
        records.push(tiled(256, 1024, 1.0));
        let records: Vec<&Record> = records.iter().collect();
        let [r] = &rankings(&records)[..] else { panic!() };
        assert_eq!((r.op, r.cases, r.ranks.len()), (examples::full(), 2, 3));
        let names: Vec<_> = r.ranks.iter().map(|r| r.variant.rsplit('=').next().unwrap()).collect();
        assert_eq!(names, ["128", "64", "32"]);
        assert!((r.ranks[0].ratio - 2f64.sqrt()).abs() < 1e-12);
        assert!((r.ranks[1].ratio - 8f64.sqrt()).abs() < 1e-12);
        assert!((r.ranks[2].ratio - 18f64.sqrt()).abs() < 1e-12);
        // A tie shares the better rank: 128 is 2nd then 1st, 64 1st then 2nd, 32 2nd then 3rd.
        assert_eq!(r.ranks[0].reciprocal, 0.75);
        assert_eq!(r.ranks[1].reciprocal, 0.75);
        assert_eq!(r.ranks[2].reciprocal, (0.5 + 1.0 / 3.0) / 2.0);
        assert_eq!(r.ranks.iter().map(|r| r.won).collect::<Vec<_>>(), [1, 1, 0]);
    }

    #[test]
    fn a_failure_counts_against_and_a_skip_does_not() {
        let mut failed = tiled(64, 256, 10.0);
        (failed.status, failed.timing) = (Status::Wrong, None);
        let mut skipped = tiled(32, 256, 10.0);
        (skipped.status, skipped.timing) = (Status::Skipped, None);
        let all = [failed, skipped, tiled(128, 256, 20.0)];
        let [r] = &rankings(&all.iter().collect::<Vec<_>>())[..] else { panic!() };
        assert_eq!(r.ranks.len(), 2);
        assert_eq!((r.ranks[0].ratio, r.ranks[0].reciprocal), (1.0, 1.0));
        assert_eq!((r.ranks[1].timed, r.ranks[1].tried, r.ranks[1].reciprocal), (0, 1, 0.0));
    }
}
