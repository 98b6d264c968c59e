//! Whose turn it is.

use std::cmp::{Ordering, Reverse};

/// A warp may go on.
#[derive(Clone, Copy, PartialEq)]
pub struct Turn {
    pub at: f64,
    /// Since when it queues for a special function or for what pipes share beside products; `at` if
    /// it does not. Whoever waits longest goes first there, so that warps share them evenly: an
    /// estimate.
    pub since: f64,
    /// Else the youngest, as schedulers of recent GPUs do.
    pub warp: Reverse<u32>,
}

impl Eq for Turn {}

impl PartialOrd for Turn {
    fn partial_cmp(&self, o: &Turn) -> Option<Ordering> {
        Some(self.cmp(o))
    }
}

impl Ord for Turn {
    fn cmp(&self, o: &Turn) -> Ordering {
        let at = self.at.total_cmp(&o.at);
        at.then(self.since.total_cmp(&o.since)).then(self.warp.cmp(&o.warp))
    }
}
