//! Two jobs in turns on one device until it is sure which is the faster one.
//!
//! Samples come in blocks A B B A B A A B or the mirror image, by a coin: what drifts steadily cancels
//! within a block, and so does what depends on a sample's place among two or four (on an H200 neighbours
//! differ by 2% in one pattern for seconds, whichever kernel they are of: half such a block, by a coin,
//! has two modes and a median between them that no number of samples settles).
//! A block gives one number, the mean of B's logarithms less A's. The interval of their median is that of
//! the sign test, free of any distribution. It is looked at after 16, 24, 36, .. blocks, and look k may be
//! wrong with a probability of 5% times 6/(pi k)^2: over all looks, however many, in less than 5%.

use std::time::Duration;

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde::Serialize;

use super::sampling::warm_up;
use super::stats::median;
use super::{Limits, Verdict};
use crate::device::{DeviceError, Regime, Sample, Sampler};

/// When a comparison ends.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    /// As a part of one.
    pub threshold: f64,
    /// Time for samples, on the host's clock.
    pub budget: Duration,
    /// The least time that samples span.
    pub span: Duration,
    /// Of the coin.
    pub seed: u64,
}

/// What came of it. Times are in the order taken.
#[derive(Debug, Clone, Serialize)]
pub struct Live {
    pub verdict: Verdict,
    /// The time of B over that of A.
    pub ratio: f64,
    /// At 95%, whenever one stops to look.
    pub interval: (f64, f64),
    pub blocks: usize,
    pub seconds: f64,
    /// Medians, ns.
    pub a_ns: f64,
    pub b_ns: f64,
    /// Whether the clock settled before the first sample.
    pub settled: bool,
    /// `ABBABAABBAABABBA..`
    pub order: String,
    pub ns: Vec<f64>,
    pub sm_mhz: Vec<Option<f64>>,
}

const FIRST_LOOK: usize = 16;
const GROWTH: f64 = 1.5;
const ERROR: f64 = 0.05;

/// Both in turns, for warming up.
struct Turns<'a, 'b>([&'a mut (dyn Sampler + 'b); 2], usize);

impl Sampler for Turns<'_, '_> {
    fn sample(&mut self, regime: Regime) -> Result<Sample, DeviceError> {
        self.1 ^= 1;
        self.0[self.1].sample(regime)
    }
}

/// Samples A and B until a verdict is sure or the budget is spent; then it is ambiguous. `elapsed` is the
/// time since some fixed moment, `max_mhz` the clock's maximum, if known.
///
/// # Errors
/// The device's, at the first sample that fails.
pub fn interleaved<'b>(
    [a, b]: [&mut (dyn Sampler + 'b); 2],
    regime: Regime,
    until: &Until,
    max_mhz: Option<f64>,
    elapsed: &mut dyn FnMut() -> Duration,
) -> Result<Live, DeviceError> {
    let mut turns = Turns([a, b], 1);
    let limits = Limits { time: until.budget, ..Limits::default() };
    let settled = warm_up(&mut turns, regime, &limits, max_mhz, elapsed)?;
    let sides = turns.0;
    let start = elapsed();
    let mut coin = Pcg64Mcg::seed_from_u64(until.seed);
    let mut blocks: Vec<f64> = Vec::new();
    let (mut order, mut ns, mut sm_mhz) = (String::new(), Vec::new(), Vec::new());
    let mut times = [Vec::new(), Vec::new()];
    let (mut look, mut next) = (0, FIRST_LOOK);
    let mut interval = (0.0, f64::INFINITY);
    let verdict = loop {
        let first = usize::from(coin.random::<bool>());
        let mut logs = 0.0;
        for turn in [0, 1, 1, 0, 1, 0, 0, 1] {
            let side = first ^ turn;
            let sample = sides[side].sample(regime)?;
            order.push(['A', 'B'][side]);
            ns.push(sample.ns);
            sm_mhz.push(sample.sm_mhz);
            times[side].push(sample.ns);
            logs += sample.ns.ln() * [-0.25, 0.25][side];
        }
        blocks.push(logs);
        let spent = elapsed() - start;
        if blocks.len() >= next {
            look += 1;
            next = (next as f64 * GROWTH).ceil() as usize;
            interval = at_look(&blocks, look);
            let verdict = Verdict::of(interval, until.threshold);
            if verdict != Verdict::Ambiguous && spent >= until.span {
                break verdict;
            }
        }
        if spent >= until.budget {
            break Verdict::of(interval, until.threshold);
        }
    };
    let middle = |values: &[f64]| {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        median(&sorted)
    };
    Ok(Live {
        verdict,
        ratio: middle(&blocks).exp(),
        interval,
        blocks: blocks.len(),
        seconds: (elapsed() - start).as_secs_f64(),
        a_ns: middle(&times[0]),
        b_ns: middle(&times[1]),
        settled,
        order,
        ns,
        sm_mhz,
    })
}

/// The interval of the ratio by blocks of log ratios, at the k-th look from 1.
fn at_look(blocks: &[f64], look: usize) -> (f64, f64) {
    let mut sorted = blocks.to_vec();
    sorted.sort_by(f64::total_cmp);
    let error = ERROR * 6.0 / (std::f64::consts::PI * look as f64).powi(2);
    match rank(independent(blocks), error) {
        None => (0.0, f64::INFINITY),
        Some((rank, of)) => {
            // Ranks of fewer, independent blocks, as parts of all.
            let at = (rank as f64 / of as f64 * blocks.len() as f64).floor() as usize;
            (sorted[at].exp(), sorted[blocks.len() - 1 - at].exp())
        }
    }
}

/// As how many independent ones blocks count whose neighbours lie on one side of the median together.
fn independent(blocks: &[f64]) -> usize {
    let mut sorted = blocks.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (middle, n) = (median(&sorted), blocks.len() as f64);
    let sign = |x: f64| if x == middle { 0.0 } else { (x - middle).signum() };
    let tied = blocks.windows(2).map(|w| sign(w[0]) * sign(w[1])).sum::<f64>() / n;
    // Chance alone makes some.
    match tied > 2.0 / n.sqrt() {
        true => (n * (1.0 - tied) / (1.0 + tied)) as usize,
        false => blocks.len(),
    }
}

/// The largest rank r from 0 such that at most r heads in n throws have a probability of at most half the
/// error, with n; `None` where n is too few.
fn rank(n: usize, error: f64) -> Option<(usize, usize)> {
    let log_half = -std::f64::consts::LN_2 * n as f64;
    let (mut log_term, mut below, mut found) = (log_half, 0.0, None);
    for r in 0..n / 2 {
        below += log_term.exp();
        if below > error / 2.0 {
            break;
        }
        found = Some((r, n));
        log_term += ((n - r) as f64 / (r + 1) as f64).ln();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_distr::{Distribution, Normal};

    /// A side whose samples spread by 2% around its level, on a clock that drifts.
    struct Noisy<'c> {
        level: f64,
        rng: Pcg64Mcg,
        taken: &'c std::cell::Cell<f64>,
    }

    impl Sampler for Noisy<'_> {
        fn sample(&mut self, _: Regime) -> Result<Sample, DeviceError> {
            let n = self.taken.get();
            self.taken.set(n + 1.0);
            let drift = 1.0 + 1e-5 * n + 0.01 * (n / 700.0).sin();
            let noise = Normal::new(0.0, 0.02).unwrap().sample(&mut self.rng);
            Ok(Sample { ns: self.level * drift * (1.0 + noise), sm_mhz: Some(1500.0) })
        }
    }

    /// A side whose time depends on the sample's place among four.
    struct Placed<'c>(&'c std::cell::Cell<usize>, Pcg64Mcg);

    impl Sampler for Placed<'_> {
        fn sample(&mut self, _: Regime) -> Result<Sample, DeviceError> {
            let place = self.0.replace(self.0.get() + 1) % 4;
            let noise = Normal::new(0.0, 0.001).unwrap().sample(&mut self.1);
            let ns = [29_536.0, 30_336.0, 29_376.0, 29_312.0][place] * (1.0 + noise);
            Ok(Sample { ns, sm_mhz: Some(1980.0) })
        }
    }

    #[test]
    fn a_pattern_in_time_is_no_difference() {
        for seed in 0..50u64 {
            let place = std::cell::Cell::new(0);
            let mut a = Placed(&place, Pcg64Mcg::seed_from_u64(seed));
            let mut b = Placed(&place, Pcg64Mcg::seed_from_u64(1000 + seed));
            let mut ticks = 0;
            let mut elapsed = || {
                ticks += 1;
                Duration::from_micros(100 * ticks)
            };
            let (budget, span) = (Duration::from_secs(2), Duration::from_millis(10));
            let until = Until { threshold: 0.01, budget, span, seed };
            let sides: [&mut dyn Sampler; 2] = [&mut a, &mut b];
            let live = interleaved(sides, Regime::Cold, &until, None, &mut elapsed).unwrap();
            assert_eq!(live.verdict, Verdict::Same);
            assert!(live.interval.0 > 0.999 && live.interval.1 < 1.001, "{:?}", live.interval);
        }
    }

    /// Slower, faster, same, ambiguous in 100 comparisons of B at `level` times A.
    fn verdicts(level: f64, budget_ms: u64) -> [usize; 4] {
        let mut counts = [0; 4];
        for seed in 0..100u64 {
            let taken = std::cell::Cell::new(0.0);
            let rng = |n| Pcg64Mcg::seed_from_u64(1000 * seed + n);
            let mut a = Noisy { level: 1e5, rng: rng(1), taken: &taken };
            let mut b = Noisy { level: 1e5 * level, rng: rng(2), taken: &taken };
            let mut ticks = 0;
            let mut elapsed = || {
                ticks += 1;
                Duration::from_micros(400 * ticks)
            };
            let until = Until {
                threshold: 0.01,
                budget: Duration::from_millis(budget_ms),
                span: Duration::from_millis(10),
                seed,
            };
            let sides: [&mut dyn Sampler; 2] = [&mut a, &mut b];
            let live = interleaved(sides, Regime::Cold, &until, None, &mut elapsed).unwrap();
            assert_eq!(live.order.len(), 8 * live.blocks);
            counts[Verdict::ALL.iter().position(|v| *v == live.verdict).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn one_against_itself_is_the_same() {
        let [slower, faster, same, ambiguous] = verdicts(1.0, 5000);
        assert!(slower + faster <= 1 && ambiguous <= 10, "{slower} {faster} {same} {ambiguous}");
    }

    #[test]
    fn planted_slowdowns_are_found() {
        let [slower, faster, ..] = verdicts(1.02, 5000);
        assert!(slower >= 95 && faster == 0, "{slower} {faster}");
        assert_eq!(verdicts(1.01, 5000)[1], 0);
        let [slower, faster, ..] = verdicts(0.97, 5000);
        assert!(faster >= 95 && slower == 0, "{slower} {faster}");
    }

    #[test]
    fn too_little_time_is_ambiguous() {
        assert_eq!(verdicts(1.02, 3)[3], 100);
    }

    #[test]
    fn intervals_hold_over_all_looks() {
        let mut rng = Pcg64Mcg::seed_from_u64(3);
        let normal = Normal::new(0.0, 1.0).unwrap();
        let missed = (0..400)
            .filter(|_| {
                let (mut all, mut next, mut look) = (Vec::<f64>::new(), FIRST_LOOK, 0);
                (0..2000).any(|_| {
                    all.push(normal.sample(&mut rng));
                    if all.len() < next {
                        return false;
                    }
                    look += 1;
                    next = (next as f64 * GROWTH).ceil() as usize;
                    let (low, high) = at_look(&all, look);
                    low > 1.0 || high < 1.0
                })
            })
            .count();
        assert!(missed <= 20, "{missed} of 400");
        assert_eq!(rank(5, 0.05), None);
        assert_eq!(rank(6, 0.05), Some((0, 6)));
    }
}
