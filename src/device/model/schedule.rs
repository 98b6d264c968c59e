//! CTAs over multiprocessors, in time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// CTAs that are simulated one by one; more are thinned out.
const MOST: u64 = 1 << 18;

/// A grid on a device.
pub struct Grid<'a> {
    /// The work of each CTA in order of launch, in units of their mean; all alike if empty.
    pub weights: &'a [f64],
    /// CTAs, where `weights` is empty.
    pub ctas: u64,
    /// Copies of each CTA, one after the other.
    pub times: u64,
    pub multiprocessors: u64,
    /// CTAs that a multiprocessor holds at once.
    pub resident: u64,
}

impl Grid<'_> {
    /// Cycles until the last CTA ends. CTAs of weight 1 take `pace(n)` cycles where `n` share a
    /// multiprocessor. A CTA starts where another has ended, as hardware does it.
    pub fn makespan(&self, pace: impl Fn(usize) -> f64) -> f64 {
        let base = if self.weights.is_empty() { self.ctas } else { self.weights.len() as u64 };
        let total = base.saturating_mul(self.times);
        if total == 0 || pace(1) <= 0.0 {
            return 0.0;
        }
        let stride = total.div_ceil(MOST);
        let weight = |i: u64| match self.weights.get((i / self.times) as usize) {
            Some(w) => w * stride as f64,
            None => stride as f64,
        };
        let mut next = (0..total).step_by(stride as usize).map(weight);
        let sms = self.multiprocessors.min(total).max(1) as usize;
        let mut all: Vec<Multiprocessor> = Vec::new();
        all.resize_with(sms, Multiprocessor::default);
        // Breadth first, until all are full.
        'full: for _ in 0..self.resident.max(1) {
            for sm in &mut all {
                match next.next() {
                    Some(w) => sm.left.push(w),
                    None => break 'full,
                }
            }
        }
        let mut events: BinaryHeap<Reverse<(Time, usize)>> = BinaryHeap::new();
        for (i, sm) in all.iter().enumerate() {
            events.extend(sm.ends(&pace).map(|t| Reverse((Time(t), i))));
        }
        let mut now = 0.0;
        while let Some(Reverse((Time(t), i))) = events.pop() {
            now = t;
            let sm = &mut all[i];
            for _ in 0..sm.advance(t) {
                sm.left.extend(next.next());
            }
            events.extend(sm.ends(&pace).map(|t| Reverse((Time(t), i))));
        }
        now
    }
}

#[derive(Default)]
struct Multiprocessor {
    /// What is left to do of each CTA here.
    left: Vec<f64>,
    now: f64,
}

impl Multiprocessor {
    fn least(&self) -> Option<f64> {
        self.left.iter().copied().min_by(f64::total_cmp)
    }

    /// When the next CTA ends.
    fn ends(&self, pace: &impl Fn(usize) -> f64) -> Option<f64> {
        self.least().map(|w| self.now + w * pace(self.left.len()))
    }

    /// Goes on to `t`, when the next CTA ends; returns how many end.
    fn advance(&mut self, t: f64) -> usize {
        let done = self.least().unwrap_or(0.0);
        let before = self.left.len();
        self.left.retain_mut(|w| {
            *w -= done;
            *w > 1e-9
        });
        self.now = t;
        before - self.left.len()
    }
}

#[derive(PartialEq)]
struct Time(f64);

impl Eq for Time {}

impl PartialOrd for Time {
    fn partial_cmp(&self, o: &Time) -> Option<std::cmp::Ordering> {
        Some(self.cmp(o))
    }
}

impl Ord for Time {
    fn cmp(&self, o: &Time) -> std::cmp::Ordering {
        self.0.total_cmp(&o.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(weights: &[f64], ctas: u64, resident: u64) -> Grid<'_> {
        Grid { weights, ctas, times: 1, multiprocessors: 10, resident }
    }

    /// So long if nobody is in the way, and so much of the multiprocessor.
    fn of(chain: f64, busy: f64) -> impl Fn(usize) -> f64 {
        move |n| chain.max(busy * n as f64)
    }

    #[test]
    fn waves_of_chains() {
        assert_eq!(grid(&[], 10, 1).makespan(of(100.0, 1.0)), 100.0);
        assert_eq!(grid(&[], 11, 1).makespan(of(100.0, 1.0)), 200.0);
        assert_eq!(grid(&[], 20, 2).makespan(of(100.0, 1.0)), 100.0);
        assert_eq!(grid(&[], 0, 2).makespan(of(100.0, 1.0)), 0.0);
    }

    #[test]
    fn neighbours_share_a_multiprocessor() {
        assert_eq!(grid(&[], 10, 2).makespan(of(10.0, 100.0)), 100.0);
        assert_eq!(grid(&[], 20, 2).makespan(of(10.0, 100.0)), 200.0);
        // One is left alone, and then goes at its own pace.
        let g = Grid { weights: &[1.0, 3.0], ctas: 2, times: 1, multiprocessors: 1, resident: 2 };
        assert_eq!(g.makespan(of(60.0, 50.0)), 100.0 + 2.0 * 60.0);
    }

    #[test]
    fn order_matters_where_ctas_differ() {
        let mut weights = vec![1.0; 20];
        weights[0] = 4.0;
        assert_eq!(grid(&weights, 20, 1).makespan(of(1.0, 0.0)), 4.0);
        weights.reverse();
        assert_eq!(grid(&weights, 20, 1).makespan(of(1.0, 0.0)), 5.0);
    }

    #[test]
    fn copies_follow_each_other_and_many_are_thinned_out() {
        let g =
            |times| Grid { weights: &[2.0, 1.0], ctas: 2, times, multiprocessors: 10, resident: 1 };
        assert_eq!(g(10).makespan(of(1.0, 0.0)), 3.0);
        let many = g(1_000_000).makespan(of(1.0, 0.0));
        assert!((many - 300_000.0).abs() < 100.0, "{many}");
    }
}
