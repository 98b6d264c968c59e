//! What barriers and the asynchronous engines report to whoever keeps the order of events.
//!
//! Each event has one method. They are called whether or not anybody listens, on paths that are
//! rare beside plain instructions: arrivals, waits that succeed, bulk copies, fences.

use super::trap::Fault;

/// Who did it: lanes of one warp, at one instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Who {
    /// Rank of the CTA in its cluster; 0 without clusters.
    pub cta: u32,
    /// Warp of that CTA.
    pub warp: u32,
    /// Lanes, one bit each.
    pub lanes: u32,
    /// Index of the instruction.
    pub pc: usize,
}

/// What threads meet at, or wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Object {
    /// Named barrier `id` of a CTA.
    Bar { cta: u32, id: u32 },
    /// The mbarrier at a shared address of a CTA.
    Mbarrier { cta: u32, at: u32 },
    /// The barrier of the whole cluster.
    Cluster,
    /// A bulk group of one thread. A wait shows the groups numbered below its phase.
    BulkGroup { cta: u32, warp: u32, lane: u32 },
}

/// How far an arrival or a wait orders other accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// `.relaxed`: only the barrier itself.
    Relaxed,
    /// Release or acquire among the threads of the CTA.
    Cta,
    /// Release or acquire among the threads of the cluster.
    Cluster,
}

/// Which side of a proxy fence is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// `fence.proxy.async`, of all spaces; or of shared or global memory alone.
    Async { shared: bool, global: bool },
    /// `fence.proxy.alias`, `fence.proxy.tensormap` and the like.
    OtherProxy,
    /// `fence.mbarrier_init`
    MbarrierInit,
    /// `fence.acq_rel`, `fence.sc`, `membar`; true from cluster scope on.
    Thread { wide: bool },
}

/// A span of a CTA's shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Rank of the CTA that owns it.
    pub cta: u32,
    pub at: u32,
    pub bytes: u32,
}

/// Names a copy between its beginning and its end.
pub type CopyId = u64;

/// One a cluster. Empty until somebody keeps order.
#[derive(Debug, Default)]
pub struct Events {
    next: CopyId,
}

impl Events {
    /// Before a cluster's first instruction: `ctas` of `warps` each.
    pub fn reset(&mut self, _ctas: u32, _warps: u32) {
        self.next = 0;
    }

    /// `who` arrives at `object`, in its phase (generation) of that number.
    pub fn arrive(&mut self, _who: Who, _object: Object, _phase: u64, _order: Ordering) {}

    /// `who` has learnt that `phase` of `object` is complete.
    pub fn observe(&mut self, _who: Who, _object: Object, _phase: u64, _order: Ordering) {}

    /// An engine will write `to`, asked by `who`; `object` (an mbarrier or a bulk group) learns of
    /// the end. Called once for each CTA that a multicast reaches.
    ///
    /// # Errors
    /// An access that is not ordered before the engine's.
    pub fn engine_writes(
        &mut self,
        _who: Who,
        _to: Span,
        _object: Object,
    ) -> Result<CopyId, Box<Fault>> {
        self.next += 1;
        Ok(self.next)
    }

    /// An engine will read `from`, asked by `who`; `object` learns of the end.
    ///
    /// # Errors
    /// An access that is not ordered before the engine's.
    pub fn engine_reads(
        &mut self,
        _who: Who,
        _from: Span,
        _object: Object,
    ) -> Result<CopyId, Box<Fault>> {
        self.next += 1;
        Ok(self.next)
    }

    /// The copy has been performed and counts towards `phase` of its object: whoever observes that
    /// phase may touch its bytes.
    pub fn engine_done(&mut self, _copy: CopyId, _object: Object, _phase: u64) {}

    pub fn fence(&mut self, _who: Who, _fence: Fence) {}
}
