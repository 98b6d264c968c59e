//! What barriers and the asynchronous engines report to whoever keeps the order of events.
//!
//! Each event has one method. They are called whether or not anybody listens, on paths that are
//! rare beside plain instructions: arrivals, waits that succeed, bulk copies, fences. Accesses of
//! threads go to [`Order`] itself.

use super::order::{Checks, Order};
use super::timing::Trace;
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
    /// What the bulk groups of one thread write to global memory: `.read` does not wait for it.
    BulkWrites { cta: u32, warp: u32, lane: u32 },
    /// The wgmma groups of a warpgroup, by its first warp. A wait shows as with bulk groups.
    Products { cta: u32, warp: u32 },
}

/// How far an arrival or a wait orders other accesses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ordering {
    /// `.relaxed`: only the barrier itself.
    Relaxed,
    /// `.cta`: among the threads of the CTA alone.
    Cta,
    /// Among the threads of the cluster.
    Cluster,
}

/// Which side of a proxy fence is ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    /// `fence.proxy.async`, of all spaces; or of shared or global memory alone.
    Async { shared: bool, global: bool },
    /// `fence.proxy.tensormap::generic.release`
    MapRelease,
    /// `fence.proxy.alias` and the like.
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

/// One a cluster, kept over the clusters that a worker runs.
#[derive(Debug, Default)]
pub struct Events {
    pub order: Order,
    /// Where all of it is written down for a model of time, if it is.
    pub trace: Option<Box<Trace>>,
}

impl Events {
    /// With these checks of order.
    pub fn new(checks: Checks) -> Events {
        Events { order: Order::new(checks), trace: None }
    }

    /// Before a cluster's first instruction: it has `ctas` CTAs of `warps` warps, with `shared`
    /// bytes of shared memory each. `number` is the cluster's first CTA and `oldest` the launch's
    /// first, counted over all launches of the session.
    pub fn reset(&mut self, (ctas, warps): (u32, u32), shared: u32, number: u64, oldest: u64) {
        self.order.reset(ctas, warps, shared);
        self.order.place(number, oldest);
    }

    /// `who` arrives at `object`, in its phase (generation) of that number.
    pub fn arrive(&mut self, who: Who, object: Object, phase: u64, order: Ordering) {
        if let Some(trace) = &mut self.trace {
            trace.arrive(who.cta, who.warp, object, phase);
        }
        self.order.arrive(who, object, phase, order);
    }

    /// `who` has learnt that `phase` of `object` is complete.
    pub fn observe(&mut self, who: Who, object: Object, phase: u64, order: Ordering) {
        if let Some(trace) = &mut self.trace {
            trace.wait(who.cta, who.warp, object, phase);
        }
        self.order.observe(who, object, phase, order);
    }

    /// An engine will write `to`, asked by `who`; `object` (an mbarrier or a bulk group) learns of
    /// the end. Called once for each CTA that a multicast reaches.
    ///
    /// # Errors
    /// An access that is not ordered before the engine's.
    pub fn engine_writes(
        &mut self,
        who: Who,
        to: Span,
        object: Object,
    ) -> Result<CopyId, Box<Fault>> {
        let copy = self.order.engine_writes(who, to, object)?;
        if let Some(trace) = &mut self.trace {
            trace.write(who.cta, who.warp, to, copy);
        }
        Ok(copy)
    }

    /// An engine will read `from`, asked by `who`; `object` learns of the end.
    ///
    /// # Errors
    /// An access that is not ordered before the engine's.
    pub fn engine_reads(
        &mut self,
        who: Who,
        from: Span,
        object: Object,
    ) -> Result<CopyId, Box<Fault>> {
        let copy = self.order.engine_reads(who, from, object)?;
        if let Some(trace) = &mut self.trace {
            trace.read(who.cta, who.warp, from.bytes, copy);
        }
        Ok(copy)
    }

    /// The copy has been performed and counts towards `phase` of its object: whoever observes that
    /// phase may touch its bytes.
    pub fn engine_done(&mut self, copy: CopyId, object: Object, phase: u64) {
        if let Some(trace) = &mut self.trace {
            trace.copied(copy, object, phase);
        }
        self.order.engine_done(copy, object, phase);
    }

    /// `who` executes a fence.
    pub fn fence(&mut self, who: Who, fence: Fence) {
        self.order.fence(who, fence);
    }
}
