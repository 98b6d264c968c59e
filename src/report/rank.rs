//! Ranks kernel variants over the cases that several of them ran: same problem, same inputs.

use crate::op::Op;
use crate::record::{Record, Status};

use super::group::has_time;
use super::setting::family_of;
use super::span::Span;

/// How one variant stands among the variants of its operator.
#[derive(Debug, Clone, PartialEq)]
pub struct Rank {
    /// A kernel's name and tile: `<op>/prefill.sm80 BM=128 BN=64`
    pub variant: String,
    /// One more than the variants that are ahead of it over the cases both have times of, beyond what
    /// the ranges of the times leave open; none without a time. Variants of one place were not told
    /// apart.
    pub place: Option<usize>,
    /// Cases with a time, and all it was tried on; failures are the difference.
    pub timed: usize,
    pub tried: usize,
    /// Cases in which none was ahead of it: the fastest, or level with the fastest.
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
#[derive(Debug, Clone)]
struct Entry<'r> {
    variant: String,
    kernel: &'r str,
    modelled: bool,
    time: Option<Span>,
}

impl Entry<'_> {
    /// Both times, as well as they are known beside each other.
    fn spans(&self, other: &Entry) -> Option<(Span, Span)> {
        let (a, b) = (self.time?, other.time?);
        Some(match self.modelled && other.modelled && self.kernel == other.kernel {
            true => (a.among_tiles(), b.among_tiles()),
            false => (a, b),
        })
    }

    fn is_ahead_of(&self, other: &Entry) -> bool {
        self.spans(other).is_some_and(|(a, b)| a.is_below(&b))
    }
}

/// Entries of the cases that several variants ran, by case: one problem and family in one sweep.
fn contested<'r>(op: Op, records: &[&'r Record]) -> Vec<Vec<Entry<'r>>> {
    // Problems hold floats and have no hash: their text is the key.
    let mut cases: indexmap::IndexMap<String, Vec<Entry>> = indexmap::IndexMap::new();
    for r in records.iter().filter(|r| r.problem.op() == op) {
        if matches!(r.status, Status::Skipped | Status::Invalid) {
            continue;
        }
        let key = format!("{} {:?} {}", r.sweep, r.problem, family_of(op, &r.family));
        let time = has_time(r).then(|| Span::of(r).map(|(span, _)| span)).flatten();
        let entries = cases.entry(key).or_default();
        let variant = variant(r);
        match entries.iter_mut().find(|e| e.variant == variant) {
            // Several seeds: the best time.
            Some(e) => e.time = e.time.into_iter().chain(time).reduce(Span::fastest),
            None => entries.push(Entry {
                variant,
                kernel: &r.kernel.name,
                modelled: r.timing.as_ref().is_some_and(|t| !t.is_measured()),
                time,
            }),
        }
    }
    let met = |e: &Vec<Entry>| e.len() > 1 && e.iter().any(|x| x.time.is_some());
    cases.into_values().filter(met).collect()
}

/// What a variant gathers over its cases.
#[derive(Debug, Default)]
struct Tally {
    ratios: Vec<f64>,
    reciprocals: Vec<f64>,
    won: usize,
}

fn ranking(op: Op, records: &[&Record]) -> Option<Ranking> {
    let cases = contested(op, records);
    if cases.is_empty() {
        return None;
    }
    let mut found: indexmap::IndexMap<&str, Tally> = Default::default();
    for entries in &cases {
        let best =
            entries.iter().filter_map(|e| e.time).map(|t| t.ns).fold(f64::INFINITY, f64::min);
        for entry in entries {
            let tally = found.entry(&entry.variant).or_default();
            let Some(time) = entry.time else {
                tally.reciprocals.push(0.0);
                continue;
            };
            let rank = 1 + entries.iter().filter(|other| other.is_ahead_of(entry)).count();
            tally.ratios.push(time.ns / best);
            tally.reciprocals.push(1.0 / rank as f64);
            tally.won += usize::from(rank == 1);
        }
    }
    let names: Vec<&str> = found.keys().copied().collect();
    let rank = |(name, tally): (&str, Tally)| Rank {
        variant: name.to_string(),
        place: (!tally.ratios.is_empty())
            .then(|| 1 + names.iter().filter(|other| leads(&cases, other, name)).count()),
        timed: tally.ratios.len(),
        tried: tally.reciprocals.len(),
        won: tally.won,
        ratio: geometric_mean(&tally.ratios),
        reciprocal: tally.reciprocals.iter().sum::<f64>() / tally.reciprocals.len() as f64,
    };
    let mut ranks: Vec<_> = found.into_iter().map(rank).collect();
    // A variant without any time has a NaN ratio, and stands last.
    ranks.sort_by(|a, b| {
        let key = |r: &Rank| if r.ratio.is_nan() { f64::INFINITY } else { r.ratio };
        key(a)
            .total_cmp(&key(b))
            .then(b.reciprocal.total_cmp(&a.reciprocal))
            .then_with(|| a.variant.cmp(&b.variant))
    });
    Some(Ranking { op, cases: cases.len(), ranks })
}

/// Whether `a` is ahead of `b` over the cases that both have times of: in the geometric mean even if
/// all of `a`'s times are at the upper ends of their ranges, and all of `b`'s at the lower.
fn leads(cases: &[Vec<Entry>], a: &str, b: &str) -> bool {
    let of = |entries: &Vec<Entry>| {
        let one = |name: &str| entries.iter().find(|e| e.variant == name);
        let (a, b) = one(a)?.spans(one(b)?)?;
        Some(a.high.ln() - b.low.ln())
    };
    let apart: Vec<f64> = cases.iter().filter_map(of).collect();
    !apart.is_empty() && apart.iter().sum::<f64>() < 0.0
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
        let places: Vec<_> = r.ranks.iter().map(|r| r.place).collect();
        assert_eq!(places, [Some(1), Some(2), Some(3)]);
    }

    #[test]
    fn variants_within_the_noise_are_level() {
        // 1% intervals: 64 and 128 take turns within them, 32 is behind both.
        let times = [(64, 100.0, 201.0), (128, 101.0, 200.0), (32, 104.0, 208.0)];
        let of = |(bm, a, b): (i64, f64, f64)| [tiled(bm, 256, a), tiled(bm, 512, b)];
        let records: Vec<Record> = times.into_iter().flat_map(of).collect();
        let [r] = &rankings(&records.iter().collect::<Vec<_>>())[..] else { panic!() };
        let by = |name: &str| r.ranks.iter().find(|k| k.variant.ends_with(name)).unwrap();
        for name in ["BM=64", "BM=128"] {
            let k = by(name);
            assert_eq!((k.place, k.won, k.reciprocal), (Some(1), 2, 1.0), "{k:?}");
        }
        assert_eq!((by("BM=32").place, by("BM=32").won), (Some(3), 0));
    }

    #[test]
    fn modelled_tiles_share_the_models_error_and_kernels_do_not() {
        let modelled = |bm: i64, kernel: &str, ns: f64| {
            let mut case = Made { measured: false, ..Made::new(examples::full(), 256, ns) };
            case.tile.insert("BM".into(), bm);
            let mut r = case.record();
            r.kernel.name = kernel.into();
            r
        };
        for (ns, same_kernel, places) in [
            (106.0, true, [Some(1), Some(1)]),
            (115.0, true, [Some(1), Some(2)]),
            (115.0, false, [Some(1), Some(1)]),
            (500.0, false, [Some(1), Some(2)]),
        ] {
            let other = if same_kernel { "x/a" } else { "x/b" };
            let records = [modelled(64, "x/a", 100.0), modelled(128, other, ns)];
            let [r] = &rankings(&records.iter().collect::<Vec<_>>())[..] else { panic!() };
            assert_eq!(r.ranks.iter().map(|k| k.place).collect::<Vec<_>>(), places, "{ns}");
        }
    }

    #[test]
    fn variants_of_two_sweeps_do_not_meet() {
        let (a, mut b) = (tiled(64, 256, 10.0), tiled(128, 256, 20.0));
        b.sweep = "other".into();
        assert_eq!(rankings(&[&a, &b]), []);
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
