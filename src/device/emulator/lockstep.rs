//! Warps of a warpgroup that must make the same steps, each at its own pace.

use std::collections::VecDeque;

/// Steps that a warp may be ahead of another: more than sound programs come to, and all that is kept.
pub const LEAD: usize = 1 << 16;

/// The steps that not all warps of a warpgroup have made yet.
#[derive(Debug, Clone)]
pub struct Lockstep<T> {
    steps: VecDeque<T>,
    /// Number of the first of them.
    base: u64,
    /// Steps that each warp has made.
    at: [u64; 4],
    /// Warps of the warpgroup, at most four.
    warps: usize,
}

impl<T: Copy> Lockstep<T> {
    pub fn new(warps: usize) -> Lockstep<T> {
        Lockstep { steps: VecDeque::new(), base: 0, at: [0; 4], warps: warps.min(4) }
    }

    /// The step that warp `w` of the warpgroup has to make next, if another has made it.
    pub fn next(&self, w: usize) -> Option<T> {
        self.steps.get((self.at[w] - self.base) as usize).copied()
    }

    /// A warp has made the step that [`Lockstep::next`] gave, or `step` as the first.
    pub fn advance(&mut self, w: usize, step: T) {
        if (self.at[w] - self.base) as usize == self.steps.len() {
            self.steps.push_back(step);
        }
        self.at[w] += 1;
        while self.at[..self.warps].iter().all(|&n| n > self.base) {
            self.steps.pop_front();
            self.base += 1;
        }
    }

    /// No warp may make a new step before another has caught up.
    pub fn is_full(&self) -> bool {
        self.steps.len() >= LEAD
    }

    /// A warp that is ahead of warp `w`.
    pub fn ahead(&self, w: usize) -> Option<usize> {
        (0..self.warps).find(|&o| self.at[o] > self.at[w])
    }

    /// The warp furthest behind, and the step that it has not made, if others have.
    pub fn behind(&self) -> Option<(usize, T)> {
        let w = (0..self.warps).min_by_key(|&w| self.at[w])?;
        Some((w, self.next(w)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_all_have_passed_is_forgotten() {
        let mut l = Lockstep::new(3);
        for step in 0..1000 {
            for w in 0..3 {
                assert_eq!(l.next(w), (w > 0).then_some(step));
                l.advance(w, step);
            }
        }
        assert!(l.steps.is_empty() && l.behind().is_none());
        l.advance(0, 7);
        l.advance(0, 8);
        l.advance(2, 7);
        assert_eq!((l.next(2), l.next(1), l.next(0)), (Some(8), Some(7), None));
        assert_eq!((l.behind(), l.ahead(1), l.ahead(0)), (Some((1, 7)), Some(0), None));
        (0..LEAD).for_each(|_| l.advance(0, 9));
        assert!(l.is_full());
    }
}
