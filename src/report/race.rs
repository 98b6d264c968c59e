//! Two operators over the lengths: who leads where, and where the lead changes.

use std::collections::BTreeMap;

use crate::op::Side;

use super::span::Span;

/// Who is faster at a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lead {
    /// That side: the ranges of both times do not meet.
    Of(Side),
    /// The ranges meet: no difference can be told.
    Level,
    /// One of the times has no range.
    Unknown,
}

/// Both times at one length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    pub t: usize,
    pub full: Span,
    pub linear: Span,
}

impl Point {
    /// Who is faster here.
    pub fn lead(&self) -> Lead {
        if !self.full.is_known() || !self.linear.is_known() {
            Lead::Unknown
        } else if self.full.is_below(&self.linear) {
            Lead::Of(Side::Full)
        } else if self.linear.is_below(&self.full) {
            Lead::Of(Side::Linear)
        } else {
            Lead::Level
        }
    }

    /// The full operator's time over the linear one's.
    pub fn ratio(&self) -> f64 {
        self.full.ns / self.linear.ns
    }

    /// The least and the largest that [`Point::ratio`] may truly be.
    pub fn ratios(&self) -> (f64, f64) {
        (self.full.low / self.linear.high, self.full.high / self.linear.low)
    }
}

/// A change of the faster operator between two lengths at which it is told.
#[derive(Debug, Clone, PartialEq)]
pub struct Crossing {
    /// Where both would take as long, by straight lines between neighbours in log-log.
    pub t: f64,
    /// Time there, ns.
    pub ns: f64,
    /// The same by the ends of the ranges that bring it nearest and furthest.
    pub range: (f64, f64),
    /// The last length with the one lead and the first with the other.
    pub between: (usize, usize),
    /// Lengths between these at which both are level.
    pub level: Vec<usize>,
    /// Whether the linear operator is the faster one beyond.
    pub overtakes: bool,
}

/// A crossing's range is told beside it where an end is further from it than this part.
pub const WIDE: f64 = 0.025;

impl Crossing {
    /// Whether the range says more than the place.
    pub fn is_wide(&self) -> bool {
        self.range.0 < self.t * (1.0 - WIDE) || self.range.1 > self.t * (1.0 + WIDE)
    }
}

/// Neighbouring lengths with one lead.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub lead: Lead,
    pub lengths: Vec<usize>,
}

/// Times over T of two operators, at the lengths that both have.
#[derive(Debug, Clone, PartialEq)]
pub struct Race {
    /// Ascending in t.
    pub points: Vec<Point>,
}

impl Race {
    /// The two over the lengths that both have.
    pub fn new(full: &BTreeMap<usize, Span>, linear: &BTreeMap<usize, Span>) -> Race {
        let both =
            |(t, a): (&usize, &Span)| linear.get(t).map(|l| Point { t: *t, full: *a, linear: *l });
        Race { points: full.iter().filter_map(both).collect() }
    }

    /// Points of which something is known.
    pub fn known(&self) -> impl Iterator<Item = &Point> {
        self.points.iter().filter(|p| p.lead() != Lead::Unknown)
    }

    /// Who leads along the lengths; those of which nothing is known are left out.
    pub fn runs(&self) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        for p in self.known() {
            match runs.last_mut().filter(|run| run.lead == p.lead()) {
                Some(run) => run.lengths.push(p.t),
                None => runs.push(Run { lead: p.lead(), lengths: vec![p.t] }),
            }
        }
        runs
    }

    /// Every change of the lead, in the order of T. Where both are level there is no lead to change:
    /// a crossing lies between two lengths at which the ranges part, to either side.
    pub fn crossings(&self) -> Vec<Crossing> {
        let known: Vec<&Point> = self.known().collect();
        let mut found = Vec::new();
        let mut last: Option<(usize, Side)> = None;
        for (i, p) in known.iter().enumerate() {
            let Lead::Of(side) = p.lead() else { continue };
            if let Some((j, _)) = last.filter(|(_, before)| *before != side) {
                found.push(crossing(&known[j..=i], side));
            }
            last = Some((i, side));
        }
        found
    }
}

/// The change of the lead to `side` from the first of the points to the last.
fn crossing(points: &[&Point], side: Side) -> Crossing {
    let (first, last) = (points[0], points[points.len() - 1]);
    let t = |p: &&Point| (p.t as f64).ln();
    // How far the new leader is ahead, a logarithm, of times picked from both ranges: negative at
    // first, positive at last.
    let ahead = |pick: fn(&Span) -> f64, against: fn(&Span) -> f64| -> Vec<(f64, f64)> {
        let of = |p: &&Point| match side {
            Side::Linear => against(&p.full).ln() - pick(&p.linear).ln(),
            Side::Full => against(&p.linear).ln() - pick(&p.full).ln(),
        };
        points.iter().map(|p| (t(p), of(p))).collect()
    };
    let (low, high) = (|s: &Span| s.low, |s: &Span| s.high);
    let mids = zeros(&ahead(Span::mid, Span::mid));
    // Within the noise the lead may change back and forth: the middle change stands for all.
    let at = mids[mids.len() / 2];
    let soonest = zeros(&ahead(low, high))[0];
    let latest = *zeros(&ahead(high, low)).last().expect("a change");
    let times: Vec<_> = points.iter().map(|p| (t(p), p.linear.mid().ln())).collect();
    Crossing {
        t: at.exp(),
        ns: along(&times, at).exp(),
        range: (soonest.exp(), latest.exp()),
        between: (first.t, last.t),
        level: points[1..points.len() - 1].iter().map(|p| p.t).collect(),
        overtakes: side == Side::Linear,
    }
}

/// Where straight lines through points, ascending in x, change their sign; the first point is below
/// zero and the last one above, so there is at least one place. A point on zero is the place if the
/// sign differs before and after.
fn zeros(points: &[(f64, f64)]) -> Vec<f64> {
    let mut found = Vec::new();
    let mut last = 0;
    for i in 1..points.len() {
        let ((x0, y0), (x1, y1)) = (points[last], points[i]);
        if y1 == 0.0 {
            continue;
        }
        if (y0 > 0.0) != (y1 > 0.0) {
            found.push(match points[last + 1..i].first() {
                Some((x, _)) => *x,
                None => x0 + y0 / (y0 - y1) * (x1 - x0),
            });
        }
        last = i;
    }
    found
}

/// The value at `x` of straight lines through points.
fn along(points: &[(f64, f64)], x: f64) -> f64 {
    let next = points.iter().position(|p| p.0 >= x).unwrap_or(points.len() - 1).max(1);
    let ((x0, y0), (x1, y1)) = (points[next - 1], points[next]);
    y0 + (x - x0) / (x1 - x0) * (y1 - y0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A time known to `part` of itself.
    fn span(ns: f64, part: f64) -> Span {
        Span { low: ns * (1.0 - part), ns, high: ns * (1.0 + part) }
    }

    fn race(points: impl IntoIterator<Item = (usize, f64, f64)>, part: f64) -> Race {
        let of = |(t, a, l)| Point { t, full: span(a, part), linear: span(l, part) };
        Race { points: points.into_iter().map(of).collect() }
    }

    fn law(lengths: &[usize], a: fn(f64) -> f64, l: fn(f64) -> f64, part: f64) -> Race {
        race(lengths.iter().map(|t| (*t, a(*t as f64), l(*t as f64))), part)
    }

    #[test]
    fn power_laws_cross_exactly() {
        // 3 t^2 = 6000 t at t = 2000, wherever the lengths lie; in 3% the times move the place by as
        // much as their ratio.
        for lengths in [vec![256, 1024, 4096], vec![1900, 2100], vec![1, 1 << 20]] {
            for part in [0.0, 0.01, 0.02] {
                let r = law(&lengths, |t| 3.0 * t * t, |t| 6000.0 * t, part);
                let [x] = &r.crossings()[..] else { panic!("{lengths:?}: {:?}", r.crossings()) };
                assert!((x.t - 2000.0).abs() < 1e-6, "{lengths:?}: {x:?}");
                assert!((x.ns / 12e6 - 1.0).abs() < 1e-9, "{x:?}");
                assert!(x.overtakes && x.level.is_empty());
                assert!(x.between.0 < 2000 && 2000 < x.between.1);
                let apart = (1.0 + part) / (1.0 - part);
                let wanted = (2000.0 / apart, 2000.0 * apart);
                assert!((x.range.0 - wanted.0).abs() < 1e-6, "{x:?}, not {wanted:?}");
                assert!((x.range.1 - wanted.1).abs() < 1e-6, "{x:?}, not {wanted:?}");
            }
        }
    }

    #[test]
    fn a_level_length_widens_the_crossing() {
        let r = law(&[512, 1024, 2048, 4096, 8192], |t| 3.0 * t * t, |t| 6000.0 * t, 0.1);
        let [x] = &r.crossings()[..] else { panic!("{:?}", r.crossings()) };
        assert_eq!((x.between, &x.level[..]), ((1024, 4096), &[2048][..]));
        assert!((x.t - 2000.0).abs() < 1e-6 && x.range.0 < 1700.0 && x.range.1 > 2400.0, "{x:?}");
    }

    #[test]
    fn no_crossing_without_a_lead_on_both_sides() {
        for (r, runs) in [
            // Equal to the bit; within the noise; parted on one side alone; one length; none.
            (law(&[64, 128, 256], |t| t, |t| t, 0.0), vec![Lead::Level]),
            (law(&[64, 128, 256], |t| t, |t| 1.001 * t, 0.025), vec![Lead::Level]),
            (
                race([(64, 1.0, 2.0), (128, 2.0, 2.01), (256, 2.02, 2.0)], 0.02),
                vec![Lead::Of(Side::Full), Lead::Level],
            ),
            (
                race([(64, 1.01, 1.0), (128, 2.0, 2.01), (256, 4.0, 2.0)], 0.02),
                vec![Lead::Level, Lead::Of(Side::Linear)],
            ),
            (
                race([(64, 1.0, 2.0), (128, 2.0, 2.0), (256, 2.0, 4.0)], 0.02),
                vec![Lead::Of(Side::Full), Lead::Level, Lead::Of(Side::Full)],
            ),
            (law(&[64], |t| t, |t| 2.0 * t, 0.01), vec![Lead::Of(Side::Full)]),
            (race([], 0.0), vec![]),
        ] {
            assert_eq!(r.crossings(), [], "{r:?}");
            assert_eq!(r.runs().iter().map(|r| r.lead).collect::<Vec<_>>(), runs, "{r:?}");
        }
    }

    #[test]
    fn a_time_without_a_range_is_no_evidence() {
        let mut r = law(&[1000, 2000, 4000], |t| t * t, |t| 1900.0 * t, 0.01);
        let unknown = |s: &mut Span| (s.low, s.high) = (0.0, f64::INFINITY);
        unknown(&mut r.points[1].full);
        let [x] = &r.crossings()[..] else { panic!() };
        assert_eq!(x.between, (1000, 4000));
        unknown(&mut r.points[2].linear);
        assert_eq!((r.crossings(), r.runs().len()), (vec![], 1));
    }

    #[test]
    fn several_crossings_and_ties() {
        let both = race([(1, 1.0, 2.0), (2, 2.0, 1.0), (4, 1.0, 2.0)], 0.01).crossings();
        assert_eq!(both.iter().map(|x| x.overtakes).collect::<Vec<_>>(), [true, false]);
        let [x] = &race([(1, 1.0, 2.0), (2, 3.0, 3.0), (4, 5.0, 4.0)], 0.01).crossings()[..] else {
            panic!()
        };
        assert!((x.t - 2.0).abs() < 1e-12 && (x.ns - 3.0).abs() < 1e-12, "{x:?}");
        assert_eq!((x.between, &x.level[..]), ((1, 4), &[2][..]));
        // Within the noise the medians change places three times: the middle one is told.
        let points = [(1, 1.0, 2.0), (2, 1.01, 1.0), (4, 1.0, 1.01), (8, 2.0, 1.0)];
        let [x] = &race(points, 0.05).crossings()[..] else { panic!() };
        assert!((x.t - 8f64.sqrt()).abs() < 1e-9, "{x:?}");
        assert!(x.range.0 < 2.0 && x.range.1 > 4.0);
    }

    #[test]
    fn a_model_known_to_err_to_one_side_is_put_right() {
        let point = |t, ns: f64| Point {
            t,
            full: Span { low: 1.3 * ns, ns, high: 1.5 * ns },
            linear: span(1.1 * 1024.0, 0.05),
        };
        let r = Race { points: vec![point(512, 512.0), point(1024, 1024.0), point(2048, 2048.0)] };
        let [x] = &r.crossings()[..] else { panic!("{:?}", r.runs()) };
        assert!(x.range.0 <= x.t && x.t <= x.range.1 && x.between == (512, 1024), "{x:?}");
    }

    proptest::proptest! {
        #[test]
        fn a_crossing_lies_in_its_range_and_a_scale_changes_no_verdict(
            times in proptest::collection::vec((1e2f64..1e6, 1e2f64..1e6), 2..12),
            part in 0.0f64..0.4,
            power in -8i32..8,
        ) {
            let scaled = |by: f64| race(
                times.iter().enumerate().map(|(i, (a, l))| (64 << i, a * by, l * by)),
                part,
            );
            let (one, other) = (scaled(1.0), scaled(2f64.powi(power)));
            proptest::prop_assert_eq!(one.runs(), other.runs());
            let (one, other) = (one.crossings(), other.crossings());
            proptest::prop_assert_eq!(one.len(), other.len());
            for (a, b) in one.iter().zip(&other) {
                proptest::prop_assert_eq!(a.between, b.between);
                proptest::prop_assert!((a.t / b.t - 1.0).abs() < 1e-9);
                let (low, high) = a.range;
                let slack = 1.0 + 1e-9;
                proptest::prop_assert!(low <= a.t * slack && a.t <= high * slack);
                let (from, to) = a.between;
                proptest::prop_assert!(from as f64 <= low * slack && high <= to as f64 * slack);
            }
        }
    }
}
