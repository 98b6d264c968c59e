//! Whose turn it is.

use std::cmp::{Ordering, Reverse};

/// A warp may go on.
#[derive(Clone, Copy, PartialEq)]
pub struct Turn {
    pub at: f64,
    /// When it first might have issued what it wants to: who has waited longest goes first, so that
    /// warps share a busy pipe evenly.
    pub since: f64,
    /// Then the youngest.
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
