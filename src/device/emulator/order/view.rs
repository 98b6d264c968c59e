//! What an actor knows of the others: vector clocks.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What is known of other CTAs, by the CTA's number over all launches.
pub type Foreign = BTreeMap<u64, Clocks>;

/// Clocks up to which accesses of one CTA are known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Clocks {
    pub warps: Vec<u32>,
    /// As `warps`, for the engines of the cluster whose first CTA this is.
    pub engines: Vec<u32>,
    /// As `warps`, for what a proxy fence for global memory stands behind.
    pub fenced: Vec<u32>,
    /// Likewise for tensor maps.
    pub mapped: Vec<u32>,
}

impl Clocks {
    fn join(&mut self, other: &Clocks) {
        join(&mut self.warps, &other.warps);
        join(&mut self.engines, &other.engines);
        join(&mut self.fenced, &other.fenced);
        join(&mut self.mapped, &other.mapped);
    }
}

/// Everything that happened before a point.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// By actor: its accesses up to this clock happened before. Absent means 0, nothing.
    pub known: Vec<u32>,
    /// Those of them with a `fence.proxy.async` for shared memory in between.
    pub proxied: Vec<u32>,
    /// Those with one for global memory.
    pub fenced: Vec<u32>,
    /// Those with a releasing `fence.proxy.tensormap`.
    pub mapped: Vec<u32>,
    /// Those whose mbarriers are known to be initialised, by `fence.mbarrier_init`.
    pub begun: Vec<u32>,
    /// Those with a fence of device scope in between: what a relaxed atomic may publish.
    pub released: Vec<u32>,
    /// What is known of CTAs outside of this cluster.
    pub foreign: Option<Arc<Foreign>>,
}

/// Raises each clock of `a` to that of `b`.
pub fn join(a: &mut Vec<u32>, b: &[u32]) {
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
    /// Learns all that `other` knows.
    pub fn join(&mut self, other: &View) {
        join(&mut self.known, &other.known);
        join(&mut self.proxied, &other.proxied);
        join(&mut self.fenced, &other.fenced);
        join(&mut self.mapped, &other.mapped);
        join(&mut self.begun, &other.begun);
        join(&mut self.released, &other.released);
        self.join_foreign(other.foreign.as_ref());
    }

    /// Learns what `other` knows of CTAs outside of the cluster.
    pub fn join_foreign(&mut self, other: Option<&Arc<Foreign>>) {
        let Some(other) = other else { return };
        match &mut self.foreign {
            Some(mine) if Arc::ptr_eq(mine, other) => {}
            Some(mine) => join_foreign(Arc::make_mut(mine), other),
            none => *none = Some(other.clone()),
        }
    }

    /// Knows nothing from now on.
    pub fn clear(&mut self) {
        self.known.clear();
        self.proxied.clear();
        self.fenced.clear();
        self.mapped.clear();
        self.begun.clear();
        self.released.clear();
        self.foreign = None;
    }

    /// The clock up to which accesses of `actor` happened before.
    #[inline(always)]
    pub fn knows(&self, actor: u32) -> u32 {
        clock(&self.known, actor)
    }

    /// As [`View::knows`], with a `fence.proxy.async` for shared memory in between.
    pub fn proxied(&self, actor: u32) -> u32 {
        clock(&self.proxied, actor)
    }

    /// What may be passed on without a release: what a fence stands behind.
    pub fn behind_fence(&self) -> View {
        View {
            known: self.released.clone(),
            proxied: both(&self.proxied, &self.released),
            fenced: both(&self.fenced, &self.released),
            mapped: both(&self.mapped, &self.released),
            released: self.released.clone(),
            begun: self.begun.clone(),
            foreign: self.foreign.clone(),
        }
    }
}

/// Raises the clocks of each CTA in `a` to those in `b`.
pub fn join_foreign(a: &mut Foreign, b: &Foreign) {
    for (&cta, clocks) in b {
        a.entry(cta).or_default().join(clocks);
    }
}

/// Clocks of `a` that are in `b` as well.
pub fn both(a: &[u32], b: &[u32]) -> Vec<u32> {
    a.iter().zip(b).map(|(a, b)| *a.min(b)).collect()
}

/// The clock of an actor in a list where absent means 0.
#[inline(always)]
pub fn clock(list: &[u32], actor: u32) -> u32 {
    list.get(actor as usize).copied().unwrap_or(0)
}
