//! The measured loop: warm up until the clock is settled, then sample until the median is known
//! well enough, noise gives no more, or time is up.
//!
//! A GPU lets a heavy kernel run for some 20 to 100 ms above its power limit before it slows the
//! clock: times from less than that are those of a sprint. So the warm-up compares spans of time,
//! and the samples span at least one.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::stats::{median, median_ci, relative_half_width};
use crate::device::{DeviceError, Regime, Sample, Sampler};

/// When sampling ends.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// Time for all samples of a case, flushes included, on the host's clock.
    pub time: Duration,
    /// Half width of the median's 95% interval, relative to the median, that is good enough.
    pub precision: f64,
    /// The least time that the samples span, flushes included, on the host's clock.
    pub span: Duration,
    pub min_samples: usize,
    pub max_samples: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        let time = Duration::from_secs(2);
        let span = Duration::from_millis(100);
        Limits { time, precision: 0.005, span, min_samples: 10, max_samples: 10_000 }
    }
}

/// Why sampling ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The interval is as narrow as asked.
    Precise,
    /// Four times the samples narrowed the interval by less than a fifth.
    Plateau,
    /// The time is up.
    Time,
    /// The most samples allowed are taken.
    Count,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Precise => "precise",
            Stop::Plateau => "plateau",
            Stop::Time => "time",
            Stop::Count => "count",
        })
    }
}

/// What was sampled: everything after the warm-up, nothing thrown away.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    pub samples: Vec<Sample>,
    pub median_ns: f64,
    pub ci_ns: (f64, f64),
    pub stopped: Stop,
    /// Whether the clock settled before the first sample.
    pub settled: bool,
}

impl Series {
    /// Half width of the median's interval, relative to the median.
    pub fn half_width(&self) -> f64 {
        (self.ci_ns.1 - self.ci_ns.0) / 2.0 / self.median_ns
    }
}

/// The clock is settled when its medians over two consecutive spans of `SPAN`, of at least `LEAST`
/// samples each, differ by at most `AGREE`, relatively. An idle GPU is below `LOW_CLOCK` of its
/// maximum clock.
const SPAN: Duration = Duration::from_millis(50);
const LEAST: usize = 3;
const AGREE: f64 = 0.01;
pub const LOW_CLOCK: f64 = 0.75;
const LONGEST_WARM_UP: Duration = Duration::from_secs(1);

/// Samples a loaded job. `elapsed` is the time since some fixed moment; `max_mhz` the clock's
/// maximum, if known.
///
/// # Errors
/// The device's, at the first sample that fails.
pub fn series(
    sampler: &mut dyn Sampler,
    regime: Regime,
    limits: &Limits,
    max_mhz: Option<f64>,
    elapsed: &mut dyn FnMut() -> Duration,
) -> Result<Series, DeviceError> {
    let settled = warm_up(sampler, regime, limits, max_mhz, elapsed)?;
    let span = limits.span.min(limits.time);
    let start = elapsed();
    let mut samples: Vec<Sample> = Vec::new();
    let mut sorted: Vec<f64> = Vec::new();
    let mut widths = Vec::new();
    let stopped = loop {
        let sample = sampler.sample(regime)?;
        samples.push(sample);
        sorted.insert(sorted.partition_point(|x| *x <= sample.ns), sample.ns);
        let n = samples.len();
        if n < limits.min_samples {
            continue;
        }
        let width = relative_half_width(&sorted);
        if width < limits.precision && elapsed() - start >= span {
            break Stop::Precise;
        }
        if n.is_power_of_two() {
            widths.push(width);
            // Halving is what four times the samples should do.
            if let [.., before, _, now] = widths[..]
                && n >= 64
                && now > 0.8 * before
                && elapsed() - start >= span
            {
                break Stop::Plateau;
            }
        }
        if n >= limits.max_samples {
            break Stop::Count;
        }
        if elapsed() - start >= limits.time {
            break Stop::Time;
        }
    };
    let (median_ns, ci_ns) = (median(&sorted), median_ci(&sorted));
    Ok(Series { samples, median_ns, ci_ns, stopped, settled })
}

/// Runs until two spans of time agree at a clock that is no idle one. Whether they came to.
pub(super) fn warm_up(
    sampler: &mut dyn Sampler,
    regime: Regime,
    limits: &Limits,
    max_mhz: Option<f64>,
    elapsed: &mut dyn FnMut() -> Duration,
) -> Result<bool, DeviceError> {
    let start = elapsed();
    let longest = LONGEST_WARM_UP.min(limits.time);
    let mut recent: VecDeque<Ended> = VecDeque::new();
    let mut looked = Duration::ZERO;
    loop {
        let sample = sampler.sample(regime)?;
        let now = elapsed() - start;
        recent.push_back((now, sample));
        while recent.len() > 2 * LEAST + 1 && recent[0].0 + 3 * SPAN < now {
            recent.pop_front();
        }
        // Not after each: the GPU would cool while the host sorts.
        if now < looked + SPAN / 10 {
            continue;
        }
        looked = now;
        let steady = spans(recent.make_contiguous(), now).is_some_and(|(a, b)| agree(a, b));
        let awake = match (sample.sm_mhz, max_mhz) {
            (Some(mhz), Some(max)) => mhz >= LOW_CLOCK * max,
            _ => true,
        };
        if steady && awake {
            return Ok(true);
        }
        if now >= longest {
            return Ok(false);
        }
    }
}

/// A sample behind the time at which it ended.
type Ended = (Duration, Sample);

/// The samples of the span that ends `now`, and before them those of the span before it; `None`
/// while there are too few. Long samples make longer spans.
fn spans(recent: &[Ended], now: Duration) -> Option<(&[Ended], &[Ended])> {
    let behind = |samples: &[Ended], end: Duration| {
        let by_time = samples.partition_point(|(t, _)| *t + SPAN <= end);
        by_time.min(samples.len().saturating_sub(LEAST))
    };
    let (before, last) = recent.split_at(behind(recent, now));
    let end = before.last()?.0;
    let first = behind(before, end);
    // The span has begun only once something lies before it.
    let whole = first > 0 && before.len() - first >= LEAST && last.len() >= LEAST;
    whole.then_some((&before[first..], last))
}

/// By their median clocks, or times where there is no clock.
fn agree(a: &[Ended], b: &[Ended]) -> bool {
    let clocked = a.iter().chain(b).all(|(_, s)| s.sm_mhz.is_some());
    let middle = |samples: &[Ended]| {
        let of = |s: &Sample| s.sm_mhz.filter(|_| clocked).unwrap_or(s.ns);
        let mut values: Vec<f64> = samples.iter().map(|(_, s)| of(s)).collect();
        values.sort_by(f64::total_cmp);
        median(&values)
    };
    let (a, b) = (middle(a), middle(b));
    (a - b).abs() <= AGREE * a.max(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays samples from a function of the sample's number, each taking a millisecond.
    struct Player<F>(F, usize);

    impl<F: FnMut(usize) -> (f64, f64)> Sampler for Player<F> {
        fn sample(&mut self, _: Regime) -> Result<Sample, DeviceError> {
            self.1 += 1;
            let (ns, mhz) = (self.0)(self.1 - 1);
            Ok(Sample { ns, sm_mhz: Some(mhz) })
        }
    }

    fn play(f: impl FnMut(usize) -> (f64, f64), limits: &Limits) -> (Series, usize) {
        let mut player = Player(f, 0);
        let mut ticks = 0;
        let mut elapsed = || {
            ticks += 1;
            Duration::from_millis(ticks)
        };
        let series = series(&mut player, Regime::Cold, limits, Some(1980.0), &mut elapsed).unwrap();
        (series, player.1)
    }

    /// Pseudo-random in 0..1.
    fn noise(i: usize) -> f64 {
        (i as f64 * 12.9898).sin().mul_add(43_758.545, 0.0).rem_euclid(1.0)
    }

    #[test]
    fn a_steady_kernel_is_sampled_for_a_span() {
        let (s, all) = play(|_| (5e4, 1900.0), &Limits::default());
        assert_eq!((s.stopped, s.settled), (Stop::Precise, true));
        assert!((50..=100).contains(&s.samples.len()), "{}", s.samples.len());
        assert_eq!((s.median_ns, s.ci_ns), (5e4, (5e4, 5e4)));
        // Two spans of warm-up are not among the samples.
        assert!(all >= s.samples.len() + 100, "{all}");
    }

    #[test]
    fn a_sprint_is_not_the_time() {
        // 1900 MHz until the power limit is noticed, down to 1500 over 40 ms, then steady.
        let clock = |i: usize| (1900.0 - 10.0 * i.saturating_sub(60) as f64).max(1500.0);
        let (s, _) = play(|i| (1e8 / clock(i), clock(i)), &Limits::default());
        assert!(s.settled && s.samples.iter().all(|x| x.sm_mhz.unwrap() < 1520.0), "{s:?}");
    }

    #[test]
    fn long_samples_make_longer_spans() {
        let mut player = Player(|_| (1e8, 1500.0), 0);
        let mut ticks = 0;
        let mut elapsed = || {
            ticks += 100;
            Duration::from_millis(ticks)
        };
        let s = series(&mut player, Regime::Cold, &Limits::default(), None, &mut elapsed).unwrap();
        assert!(s.settled && s.samples.len() == 10, "{s:?}");
        assert!(player.1 <= 10 + 2 * LEAST + 2, "{}", player.1);
    }

    #[test]
    fn warm_up_waits_for_the_clock() {
        // Idle at 345 MHz for 40 samples, then a ramp, then 1900 MHz.
        let clock = |i: usize| (345.0 + 50.0 * i.saturating_sub(40) as f64).min(1900.0);
        let (s, _) = play(|i| (1e8 / clock(i), clock(i)), &Limits::default());
        assert!(s.settled && s.samples.iter().all(|x| x.sm_mhz == Some(1900.0)));
        // One that never leaves idle is sampled all the same, and said to be so.
        let (s, _) = play(|_| (1e5, 345.0), &Limits::default());
        assert!(!s.settled && s.stopped == Stop::Precise);
    }

    #[test]
    fn noise_is_sampled_until_precise() {
        let (s, _) = play(|i| (1e5 * (1.0 + 0.05 * noise(i)), 1900.0), &Limits::default());
        assert_eq!(s.stopped, Stop::Precise);
        assert!(s.samples.len() > 20 && s.half_width() < 0.005, "{}", s.samples.len());
        assert!((s.median_ns / 1.025e5 - 1.0).abs() < 0.01, "{}", s.median_ns);
        assert!(s.ci_ns.0 <= s.median_ns && s.median_ns <= s.ci_ns.1);
    }

    #[test]
    fn two_modes_end_on_a_plateau() {
        let (s, _) = play(|i| (if i % 2 == 0 { 1e5 } else { 2e5 }, 1900.0), &Limits::default());
        assert_eq!(s.stopped, Stop::Plateau);
        assert!([64, 128].contains(&s.samples.len()), "{}", s.samples.len());
    }

    #[test]
    fn time_and_count_end_it() {
        let wild = |i| (1e5 * (1.0 + 9.0 * noise(i)), 1900.0);
        let limits = Limits { time: Duration::from_millis(30), ..Limits::default() };
        let (s, _) = play(wild, &limits);
        assert_eq!(s.stopped, Stop::Time);
        let limits = Limits { max_samples: 12, ..Limits::default() };
        let (s, _) = play(wild, &limits);
        assert_eq!((s.stopped, s.samples.len()), (Stop::Count, 12));
    }
}
