//! What an actor knows of the others: vector clocks.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Clocks up to which the warps of other CTAs are known, by the CTA's number over all launches.
pub type Foreign = BTreeMap<u64, Vec<u32>>;

/// Everything that happened before a point.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// By actor: its accesses up to this clock happened before. Absent means 0, nothing.
    pub known: Vec<u32>,
    /// Those of them with a `fence.proxy.async` in between.
    pub proxied: Vec<u32>,
    /// Those with a fence of device scope in between: what a relaxed atomic may publish.
    pub released: Vec<u32>,
    /// Of CTAs outside of this cluster.
    pub foreign: Option<Arc<Foreign>>,
}

fn join(a: &mut Vec<u32>, b: &[u32]) {
    if a.len() < b.len() {
        a.resize(b.len(), 0);
    }
    for (a, b) in a.iter_mut().zip(b) {
        *a = (*a).max(*b);
    }
}

/// Sets `list[i]` to at least `clock`.
pub fn raise(list: &mut Vec<u32>, i: usize, clock: u32) {
    if list.len() <= i {
        list.resize(i + 1, 0);
    }
    list[i] = list[i].max(clock);
}

impl View {
    pub fn join(&mut self, other: &View) {
        join(&mut self.known, &other.known);
        join(&mut self.proxied, &other.proxied);
        join(&mut self.released, &other.released);
        self.join_foreign(other.foreign.as_ref());
    }

    pub fn join_foreign(&mut self, other: Option<&Arc<Foreign>>) {
        let Some(other) = other else { return };
        match &mut self.foreign {
            Some(mine) if Arc::ptr_eq(mine, other) => {}
            Some(mine) => join_foreign(Arc::make_mut(mine), other),
            none => *none = Some(other.clone()),
        }
    }

    pub fn clear(&mut self) {
        self.known.clear();
        self.proxied.clear();
        self.released.clear();
        self.foreign = None;
    }

    #[inline(always)]
    pub fn knows(&self, actor: u32) -> u32 {
        self.known.get(actor as usize).copied().unwrap_or(0)
    }

    pub fn proxied(&self, actor: u32) -> u32 {
        self.proxied.get(actor as usize).copied().unwrap_or(0)
    }
}

pub fn join_foreign(a: &mut Foreign, b: &Foreign) {
    for (&cta, clocks) in b {
        join(a.entry(cta).or_default(), clocks);
    }
}
