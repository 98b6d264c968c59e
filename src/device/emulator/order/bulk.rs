//! Order in global memory: accesses of threads and, through the async proxy, of bulk copies.

use super::super::events::{Object, Who};
use super::super::trap::Fault;
use super::Order;
use super::entry::LAST_CLOCK;
use super::global::{ENGINES, FIRST_ENGINE, GlobalShadow, Knows, Touch, What};
use super::shared::byte_mask;
use super::view::{Clocks, View, clock};

/// One end of a bulk copy in a watched buffer.
pub struct BulkSide<'a> {
    pub shadow: &'a GlobalShadow,
    /// Offsets in the box and in the buffer, and bytes.
    pub runs: &'a [(usize, u64, u64)],
    pub does: BulkDoes,
    /// Whoever waits for this object in this phase (group) knows that the copy has ended.
    pub object: Object,
    pub phase: u64,
}

/// What a bulk copy does to global memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BulkDoes {
    Read,
    Write,
    Reduce,
    /// Reads the tensor map at this address, through the tensor-map proxy.
    ReadMap(u64),
}

/// `fence.proxy.tensormap::generic.acquire` of one map: by whom, when, and what it stood behind.
#[derive(Debug)]
pub struct MapFence {
    address: u64,
    actor: u32,
    clock: u32,
    view: View,
}

/// Such fences that are remembered.
const KEPT_FENCES: usize = 64;

impl Order {
    /// A lane touches a span of a buffer. `idle` says that it writes what is there already, which
    /// harms no other write.
    ///
    /// # Errors
    /// An access that nothing orders before them.
    #[inline(always)]
    pub fn global(
        &self,
        (who, lane): (Who, u32),
        shadow: &GlobalShadow,
        span: (u64, u32),
        write: bool,
        flags: u64,
        idle: &dyn Fn() -> bool,
    ) -> Result<(), Box<Fault>> {
        let a = self.actor(who);
        let number = self.number + u64::from(who.cta);
        let me = Touch::warp(number, who.warp, self.clocks[a], flags != 0);
        let me = (me, What::new(who.pc, who.warp, lane));
        let (at, bytes) = span;
        for k in 0..u64::from(bytes.div_ceil(4)) {
            let at = at + 4 * k;
            let touched = byte_mask(at, bytes);
            let knows = Horizon { order: self, view: &self.views[a], map: None };
            let met = shadow.touch::<false>(me, (at, touched), write, self.oldest, &knows);
            if let Some(met) = met
                && !(write && met.wrote && !met.before.by_engine() && idle())
            {
                let does = if write { "writes it" } else { "reads it" };
                return Err(self.meeting(who, lane, does, &met));
            }
        }
        Ok(())
    }

    /// A bulk copy that the lane of `who` asks for begins.
    ///
    /// # Errors
    /// An access that nothing, or no proxy fence, orders before it.
    pub fn bulk(&mut self, who: Who, side: &BulkSide<'_>) -> Result<(), Box<Fault>> {
        if !self.on || !self.checks.races {
            return Ok(());
        }
        let warps = self.ctas * self.warps;
        let engine = self.engine(side.object) - warps;
        if engine >= ENGINES {
            return Ok(());
        }
        let view = self.asking(who);
        let clock = (side.phase + 1).min(LAST_CLOCK.into()) as u32;
        let lane = who.lanes.trailing_zeros() & 31;
        let strong = side.does == BulkDoes::Reduce;
        let me = Touch::engine(self.number, engine, clock, who.cta, strong);
        let me = (me, What::new(who.pc, who.warp, lane));
        let map = match side.does {
            BulkDoes::ReadMap(address) => Some(address),
            _ => None,
        };
        let write = matches!(side.does, BulkDoes::Write | BulkDoes::Reduce);
        let knows = Horizon { order: self, view: &view, map };
        for &(_, at, bytes) in side.runs {
            if let Some(met) = side.shadow.run(me, (at, bytes), write, self.oldest, &knows) {
                let does = match side.does {
                    BulkDoes::Read => "begins a bulk copy that reads it",
                    BulkDoes::Write => "begins a bulk copy that writes it",
                    BulkDoes::Reduce => "begins a bulk reduction into it",
                    BulkDoes::ReadMap(_) => "begins a bulk copy by the tensor map there",
                };
                return Err(self.meeting(who, lane, does, &met));
            }
        }
        Ok(())
    }

    /// `fence.proxy.tensormap::generic.acquire` of the map at an address.
    pub fn map_acquired(&mut self, who: Who, address: u64) {
        if !self.on {
            return;
        }
        let a = self.actor(who);
        if self.map_fences.len() == KEPT_FENCES {
            self.map_fences.pop_front();
        }
        let (view, clock) = (self.asking(who), self.clocks[a]);
        self.map_fences.push_back(MapFence { address, actor: a as u32, clock, view });
        self.tick(a);
    }
}

/// What somebody knows of accesses to global memory.
struct Horizon<'a> {
    order: &'a Order,
    view: &'a View,
    /// The tensor map that is read.
    map: Option<u64>,
}

/// Whether a touch lies within clocks: those of the actors of one's own cluster, or of another CTA.
fn within(
    o: &Order,
    view: &View,
    t: Touch,
    near: impl Fn(&View) -> &[u32],
    far: impl Fn(&Clocks) -> &[u32],
) -> bool {
    let rank = t.cta().wrapping_sub(o.number);
    let agent = t.agent();
    let index = if t.by_engine() { agent - FIRST_ENGINE } else { agent };
    if rank < u64::from(o.ctas) {
        let first = if t.by_engine() { o.ctas } else { rank as u32 } * o.warps;
        return t.clock() <= clock(near(view), first + index);
    }
    let clocks = view.foreign.as_ref().and_then(|f| f.get(&t.cta()));
    clocks.is_some_and(|c| t.clock() <= clock(far(c), index))
}

impl Knows for Horizon<'_> {
    #[inline(never)]
    fn knows(&self, t: Touch) -> bool {
        if t.by_engine() {
            within(self.order, self.view, t, |v| &v.known, |c| &c.engines)
        } else {
            within(self.order, self.view, t, |v| &v.known, |c| &c.warps)
        }
    }

    fn fenced(&self, t: Touch) -> bool {
        let o = self.order;
        if !o.checks.proxies {
            return true;
        }
        match self.map {
            None => within(o, self.view, t, |v| &v.fenced, |c| &c.fenced),
            Some(address) => o.map_fences.iter().any(|f| {
                f.address == address
                    && f.clock <= self.view.knows(f.actor)
                    && within(o, &f.view, t, |v| &v.mapped, |c| &c.mapped)
            }),
        }
    }
}
