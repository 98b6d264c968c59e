//! How well a time is known: the range that comparisons use.

use crate::measure::stats::median_ci;
use crate::record::{ModelError, Record, Timing};

/// Measured over modelled time, either way, where nothing like the kernel was measured: nine in ten
/// of the variants in reports/h200-model-check lie within it.
pub const ASSUMED: f64 = 1.2;

/// The same for tiles of one kernel on one problem, which share most of the model's error: where
/// modelled times lie further apart than twice this, their order is right in nine pairs of ten.
pub const AMONG_TILES: f64 = 1.05;

/// Samples from which the median's interval has the confidence that it is named after.
const SAMPLES: usize = 6;

/// A time, and the range that the true one is taken to lie in; ns.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    pub low: f64,
    pub ns: f64,
    pub high: f64,
}

/// What a range rests on.
#[derive(Debug, Clone, PartialEq)]
pub enum Ground {
    /// The median's 95% interval.
    Interval,
    /// The model's error in measured records like it.
    Model(ModelError),
    /// The model's error, where there are no such records.
    Assumed,
}

impl Span {
    /// The time of a record and its range. Where the record has no usable interval, that of its
    /// samples stands for it; with neither nothing is known of the time, and the range is all.
    pub fn of(record: &Record) -> Option<(Span, Option<Ground>)> {
        let timing = record.timing.as_ref()?;
        let ns = timing.ns();
        if !(ns > 0.0 && ns.is_finite()) {
            return None;
        }
        let around = |(low, high): (f64, f64)| {
            (low > 0.0 && low <= ns && ns <= high && high.is_finite())
                .then_some((Span { low, ns, high }, Some(Ground::Interval)))
        };
        Some(match timing {
            Timing::Measured { ci_ns, samples, .. } => {
                let mut all: Vec<f64> =
                    samples.iter().map(|s| s.ns).filter(|x| x.is_finite()).collect();
                all.sort_by(f64::total_cmp);
                let again = (all.len() >= SAMPLES).then(|| median_ci(&all));
                around(*ci_ns)
                    .or_else(|| again.and_then(around))
                    .unwrap_or((Span { low: 0.0, ns, high: f64::INFINITY }, None))
            }
            Timing::Modelled(_) => {
                let error = record.model_error().filter(|e| {
                    e.low > 0.0
                        && e.low <= e.high
                        && (ns * e.low) > 0.0
                        && (ns * e.high).is_finite()
                });
                match error {
                    Some(e) => (Span::within(ns, e.low, e.high), Some(Ground::Model(e))),
                    None => (Span::within(ns, 1.0 / ASSUMED, ASSUMED), Some(Ground::Assumed)),
                }
            }
        })
    }

    /// Of times of one variant with several inputs (seeds): the middle one, in a range that holds all of
    /// theirs. `None` of none.
    pub fn middle(mut spans: Vec<Span>) -> Option<Span> {
        spans.sort_by(|a, b| a.ns.total_cmp(&b.ns));
        let low = spans.iter().map(|s| s.low).fold(f64::INFINITY, f64::min);
        let high = spans.iter().map(|s| s.high).fold(0.0, f64::max);
        Some(Span { low, ns: spans.get(spans.len().checked_sub(1)? / 2)?.ns, high })
    }

    fn within(ns: f64, low: f64, high: f64) -> Span {
        Span { low: ns * low, ns, high: ns * high }
    }

    /// A modelled time as held against that of another tile of its kernel.
    pub fn among_tiles(self) -> Span {
        Span::within(self.ns, 1.0 / AMONG_TILES, AMONG_TILES)
    }

    /// Whether anything is known of the true time.
    pub fn is_known(&self) -> bool {
        self.high.is_finite()
    }

    /// Whether the true time is taken to be the lesser one: the ranges do not meet.
    pub fn is_below(&self, other: &Span) -> bool {
        self.high < other.low
    }

    /// The middle of the range for curves: the time, or the end of the range that is next to it,
    /// where a model is known to err to one side.
    pub fn mid(&self) -> f64 {
        self.ns.clamp(self.low, self.high)
    }

    /// The lesser of two times of one thing done in two ways.
    pub fn fastest(self, other: Span) -> Span {
        match (self.is_known(), other.is_known()) {
            (false, true) => other.fastest(self),
            // Where the other one is the faster by its median, it may be.
            (true, false) => {
                Span { low: self.low.min(other.ns), ns: self.ns.min(other.ns), high: self.high }
            }
            _ => Span {
                low: self.low.min(other.low),
                ns: self.ns.min(other.ns),
                high: self.high.min(other.high),
            },
        }
    }

    /// The range relative to the time: `−1.0% +1.2%`.
    pub fn text(&self) -> String {
        let of = |x: f64| format!("{:+.1}%", (x / self.ns - 1.0) * 100.0);
        format!("{} {}", of(self.low), of(self.high)).replace('-', "−")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::Made;

    fn measured(ci: (f64, f64), samples: &[f64]) -> Record {
        let mut r = Made::new(examples::full(), 512, 100.0).record();
        if let Some(Timing::Measured { ci_ns, samples: all, .. }) = &mut r.timing {
            *ci_ns = ci;
            let mut sample = all[0];
            *all = (samples.iter())
                .map(|ns| {
                    sample.ns = *ns;
                    sample
                })
                .collect();
        }
        r
    }

    #[test]
    fn the_interval_is_the_records_else_that_of_its_samples_else_unknown() {
        let nan = f64::NAN;
        let many = [97.0, 98.0, 99.0, 100.0, 100.0, 101.0, 102.0, 103.0, nan];
        let of = |ci, samples: &[f64]| Span::of(&measured(ci, samples)).unwrap().0;
        assert_eq!(of((99.0, 102.0), &many), Span { low: 99.0, ns: 100.0, high: 102.0 });
        // Missing, upside down, beside the median, not positive, without end.
        for ci in [(nan, nan), (99.0, nan), (102.0, 99.0), (101.0, 102.0), (-1.0, 102.0)] {
            assert_eq!(of(ci, &many), Span { low: 97.0, ns: 100.0, high: 103.0 }, "{ci:?}");
            assert!(!of(ci, &many[..5]).is_known(), "{ci:?}");
            assert!(!of(ci, &[]).is_known(), "{ci:?}");
        }
        // Samples that are not those of the median tell nothing of it.
        assert!(!of((nan, nan), &[1.0; 8]).is_known());
        for ns in [0.0, -1.0, nan, f64::INFINITY] {
            assert_eq!(Span::of(&Made::new(examples::full(), 512, ns).record()), None, "{ns}");
        }
    }

    #[test]
    fn ranges_that_meet_tell_nothing() {
        let span = |low, high| Span { low, ns: (low + high) / 2.0, high };
        assert!(span(1.0, 2.0).is_below(&span(2.5, 3.0)));
        assert!(!span(1.0, 2.0).is_below(&span(2.0, 3.0)));
        assert!(!span(1.0, 1.0).is_below(&span(1.0, 1.0)));
        let unknown = Span { low: 0.0, ns: 1.0, high: f64::INFINITY };
        assert!(!unknown.is_below(&span(5.0, 6.0)) && !span(5.0, 6.0).is_below(&unknown));
    }

    #[test]
    fn the_fastest_of_two_is_as_uncertain_as_both() {
        let (a, b) =
            (Span { low: 9.0, ns: 10.0, high: 13.0 }, Span { low: 8.0, ns: 11.0, high: 12.0 });
        let wanted = Span { low: 8.0, ns: 10.0, high: 12.0 };
        assert_eq!((a.fastest(b), b.fastest(a)), (wanted, wanted));
    }

    #[test]
    fn a_modelled_time_has_the_assumed_range_where_nothing_was_measured() {
        let mut made = Made::new(examples::full(), 512, 100.0);
        made.measured = false;
        let (span, ground) = Span::of(&made.record()).unwrap();
        match ground {
            Some(Ground::Assumed) => assert_eq!(span.text(), "−16.7% +20.0%"),
            Some(Ground::Model(e)) => {
                assert_eq!((span.low, span.high), (100.0 * e.low, 100.0 * e.high));
            }
            other => panic!("{other:?}"),
        }
    }
}
