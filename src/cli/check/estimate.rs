//! How long a check takes: a guess before, a better one with each case that has ended.

use std::time::{Duration, Instant};

use crate::device::Facts;
use crate::kernel::Kernel;
use crate::verify::trial::Subject;

/// Seconds of one core for a case whatever its size, and FLOPs of the problem in a second: of the
/// emulator with all checks, and of a GPU, where the driver's compiler takes nearly all of it.
const EMULATED: (f64, f64) = (0.1, 2.5e7);
const COMPILED: (f64, f64) = (0.4, 1e11);

/// The time that cases take.
pub struct Estimate {
    start: Instant,
    /// Seconds of one worker, guessed, by case.
    costs: Vec<f64>,
    workers: f64,
    /// Guessed and true seconds of the cases that have ended.
    guessed: f64,
    took: f64,
}

impl Estimate {
    pub fn new(work: &[(&Kernel, Subject)], facts: &Facts, workers: usize) -> Estimate {
        let (least, rate) = if facts.emulated { EMULATED } else { COMPILED };
        let cost = |(kernel, subject): &(&Kernel, Subject)| {
            if kernel.unfit(facts).is_some() {
                return 0.0;
            }
            let runs = if subject.prefix { 3.0 } else { 2.0 };
            least + runs * subject.case.problem.flops() / rate
        };
        let costs = work.iter().map(cost).collect();
        let workers = workers.max(1) as f64;
        Estimate { start: Instant::now(), costs, workers, guessed: 0.0, took: 0.0 }
    }

    /// A case has ended, after so many seconds of its worker.
    pub fn ended(&mut self, i: usize, seconds: f64) {
        if self.costs[i] > 0.0 {
            self.guessed += self.costs[i];
            self.took += seconds;
        }
    }

    /// Seconds that are left.
    pub fn left(&self) -> f64 {
        // The guess counts as much as ten seconds' experience.
        let rate = (self.took + 10.0) / (self.guessed + 10.0);
        let left = self.costs.iter().sum::<f64>() - self.guessed;
        rate * left.max(0.0) / self.workers
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }
}

/// `40 s`, `3 min`, `1.5 h`.
pub fn words(seconds: f64) -> String {
    match seconds {
        s if s < 1.0 => "less than a second".into(),
        s if s < 100.0 => format!("{s:.0} s"),
        s if s < 100.0 * 60.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ended_corrects_the_guess() {
        let start = Instant::now();
        let costs = vec![10.0; 100];
        let mut e = Estimate { start, costs, workers: 2.0, guessed: 0.0, took: 0.0 };
        assert_eq!(e.left(), 500.0);
        (0..50).for_each(|i| e.ended(i, 20.0));
        assert!((e.left() - 495.0).abs() < 10.0, "{}", e.left());
        (50..100).for_each(|i| e.ended(i, 20.0));
        assert_eq!(e.left(), 0.0);
    }

    #[test]
    fn times_are_words() {
        let said = [0.2, 42.0, 150.0, 7200.0].map(words);
        assert_eq!(said, ["less than a second", "42 s", "2 min", "2.0 h"]);
    }
}
