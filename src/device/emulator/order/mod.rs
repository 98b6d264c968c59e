//! Which accesses happened before which: vector clocks over the warps and engines of a cluster.
//!
//! An actor is a warp, or an engine as one barrier or group knows it: the bulk copies that complete
//! on one mbarrier, the bulk groups of one thread, the wgmma groups of one warpgroup. Each has a
//! clock; a warp's ticks whenever it releases something. A [`View`] says up to which clock an actor
//! knows each of the others. Barriers of all kinds pass views on; an access must know the last
//! write of its words, and a write also every read since.
//!
//! The order is that of the synchronisation, not of the emulator's schedule: a race is found in any
//! schedule in which both accesses happen.

mod bulk;
mod checks;
mod context;
mod engine;
mod entry;
mod global;
mod products;
mod publish;
mod report;
mod shared;
mod view;
mod warp;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub use bulk::{BulkDoes, BulkSide};
pub use checks::Checks;
pub use context::{ascending, collide};
pub use entry::{ATOMIC, STRONG};
pub use global::{GlobalShadow, MAX_CTA};
pub use publish::{Place, Published};

use super::events::{CopyId, Fence, Object, Ordering, Span, Who};
use super::trap::{Fault, FaultKind, Party};
use bulk::MapFence;
use entry::{Entry, LAST_CLOCK, MAX_ACTORS};
use shared::{Actor, Clash, Shadow};
use view::{View, clock, join, raise};

/// What arrivals leave at an object in each of its latest phases: a view that all who wait take,
/// and a view for each CTA that only its own threads take (an arrival with `.cta` leaves no other).
#[derive(Debug, Default)]
struct Phases(VecDeque<(u64, View, Vec<View>)>);

/// Phases of an object that are kept: a thread may be late to see the end of one.
const KEPT_PHASES: usize = 4;

impl Phases {
    fn at(&mut self, phase: u64) -> (&mut View, &mut Vec<View>) {
        let found = self.0.iter().position(|(p, ..)| *p == phase);
        let i = found.unwrap_or_else(|| {
            if self.0.len() == KEPT_PHASES {
                self.0.pop_front();
            }
            self.0.push_back((phase, View::default(), Vec::new()));
            self.0.len() - 1
        });
        let (_, all, own) = &mut self.0[i];
        (all, own)
    }
}

/// An engine's access between beginning and end, kept a while for reports.
#[derive(Debug, Clone, Copy)]
struct Copy {
    id: CopyId,
    who: Who,
    span: Span,
    object: Object,
    engine: u32,
    write: bool,
}

/// Who initialised an mbarrier, and whether it has fenced that for the async proxy.
#[derive(Debug, Clone, Copy)]
struct Init {
    entry: Entry,
    fenced: bool,
}

/// Copies that are remembered.
const KEPT_COPIES: usize = 512;

/// A warp's side of a release or acquire that is still to be completed by a fence.
#[derive(Debug, Default)]
struct Pending {
    local: View,
    any: bool,
}

/// One a cluster, reused from cluster to cluster.
#[derive(Default)]
pub struct Order {
    pub checks: Checks,
    on: bool,
    /// Clocks have run out: nothing is checked until the next cluster.
    exhausted: bool,
    ctas: u32,
    warps: u32,
    /// Numbers of the cluster's first CTA and of the launch's, over all launches of the session.
    number: u64,
    oldest: u64,
    /// By warp actor.
    views: Vec<View>,
    clocks: Vec<u32>,
    lane_sync: Vec<u32>,
    pending: Vec<Pending>,
    objects: HashMap<Object, Phases>,
    /// What was published in shared memory, by CTA and address.
    words: HashMap<(u32, u64), View>,
    engines: HashMap<Object, u32>,
    /// The engine that was asked for last: products ask for theirs over and over.
    latest_engine: Option<(Object, u32)>,
    memories: Vec<Shadow>,
    inits: HashMap<(u32, u32), Init>,
    copies: VecDeque<Copy>,
    map_fences: VecDeque<MapFence>,
    next: CopyId,
    /// A read of unwritten shared memory: perhaps its writer comes later, and it is a race.
    deferred: Option<(Box<Fault>, Who)>,
}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").field("clocks", &self.clocks).finish_non_exhaustive()
    }
}

impl Order {
    pub fn new(checks: Checks) -> Order {
        Order { checks, ..Order::default() }
    }

    /// Before a cluster's first instruction: `ctas` of `warps` each, with `shared` bytes.
    pub fn reset(&mut self, ctas: u32, warps: u32, shared: u32) {
        self.next = 0;
        self.on = self.checks.ordered();
        self.exhausted = false;
        (self.ctas, self.warps) = (ctas, warps);
        self.deferred = None;
        if !self.on {
            return;
        }
        let n = (ctas * warps) as usize;
        self.views.resize_with(n, View::default);
        for view in &mut self.views {
            view.clear();
            view.known.resize(n, 0);
        }
        // Clock 0 stands for what was there before.
        self.clocks.clear();
        self.clocks.resize(n, 1);
        self.lane_sync.clear();
        self.lane_sync.resize(n, 1);
        self.pending.clear();
        self.pending.resize_with(n, Pending::default);
        self.objects.clear();
        self.words.clear();
        self.engines.clear();
        self.latest_engine = None;
        self.inits.clear();
        self.copies.clear();
        self.map_fences.clear();
        self.memories.resize_with(ctas as usize, Shadow::default);
        self.memories.iter_mut().for_each(|m| m.reset(shared));
    }

    /// The cluster's first CTA, and the launch's, over all launches.
    pub fn place(&mut self, number: u64, oldest: u64) {
        (self.number, self.oldest) = (number.min(MAX_CTA), oldest.min(MAX_CTA));
    }

    /// Whether the order of accesses is checked.
    #[inline(always)]
    pub fn on(&self) -> bool {
        self.on
    }

    #[inline(always)]
    fn actor(&self, who: Who) -> usize {
        (who.cta * self.warps + who.warp) as usize
    }

    /// From now on, what `a` does can be told from what it did before.
    fn tick(&mut self, a: usize) {
        self.clocks[a] += 1;
        if self.clocks[a] >= LAST_CLOCK {
            (self.exhausted, self.on) = (true, false);
        }
    }

    fn engine(&mut self, object: Object) -> u32 {
        if let Some((latest, engine)) = self.latest_engine
            && latest == object
        {
            return engine;
        }
        let next = (self.ctas * self.warps) as usize + self.engines.len();
        let engine = *self.engines.entry(object).or_insert(next.min(MAX_ACTORS - 1) as u32);
        self.latest_engine = Some((object, engine));
        engine
    }

    /// `who` arrives at `object` in `phase` and leaves there what it knows, as far as `order` goes.
    pub fn arrive(&mut self, who: Who, object: Object, phase: u64, order: Ordering) {
        if !self.on {
            return;
        }
        let a = self.actor(who);
        let (all, own) = self.objects.entry(object).or_default().at(phase);
        if order == Ordering::Relaxed {
            // What a fence stands behind goes along all the same.
            all.join(&self.views[a].behind_fence());
            return;
        }
        let pass = |view: &mut View| {
            view.join(&self.views[a]);
            raise(&mut view.known, a, self.clocks[a]);
        };
        if order != Ordering::Cta {
            pass(all);
        }
        // Among CTAs it matters how far an arrival or a wait reaches.
        if self.ctas > 1 || order == Ordering::Cta {
            own.resize_with(own.len().max(who.cta as usize + 1), View::default);
            pass(&mut own[who.cta as usize]);
        }
        self.tick(a);
    }

    /// `who` has seen the end of `phase` and learns what was left there, as far as `order` goes.
    pub fn observe(&mut self, who: Who, object: Object, phase: u64, order: Ordering) {
        if !self.on {
            return;
        }
        let a = self.actor(who);
        if let Some(phases) = self.objects.get(&object)
            && let Some((_, all, own)) = phases.0.iter().find(|(p, ..)| *p == phase)
        {
            let own = own.get(who.cta as usize);
            let all = (order != Ordering::Cta || self.ctas == 1).then_some(all);
            for view in all.into_iter().chain(own) {
                if order == Ordering::Relaxed {
                    self.pending[a].local.join(view);
                    self.pending[a].any = true;
                    join(&mut self.views[a].begun, &view.begun);
                } else {
                    self.views[a].join(view);
                }
            }
        }
        if order == Ordering::Relaxed {
            return;
        }
        if let Some(&engine) = self.engines.get(&object) {
            let clock = match object {
                Object::BulkGroup { .. } | Object::BulkWrites { .. } | Object::Products { .. } => {
                    phase
                }
                _ => phase + 1,
            };
            let clock = clock.min(LAST_CLOCK.into()) as u32;
            raise(&mut self.views[a].known, engine as usize, clock);
        }
        self.lane_sync[a] = self.clocks[a];
    }

    /// `bar.warp.sync`: the lanes of a warp have met.
    pub fn warp_sync(&mut self, who: Who) {
        if self.on {
            let a = self.actor(who);
            self.tick(a);
            self.lane_sync[a] = self.clocks[a];
        }
    }

    /// `who` executes a fence: what it knows so far lies behind it.
    pub fn fence(&mut self, who: Who, fence: Fence) {
        if !self.on {
            return;
        }
        let a = self.actor(who);
        let clock = self.clocks[a];
        let view = &mut self.views[a];
        if matches!(fence, Fence::Async { shared: true, .. } | Fence::MbarrierInit) {
            let mine = self.inits.values_mut().filter(|i| i.entry.actor() as usize == a);
            mine.for_each(|i| i.fenced = true);
        }
        match fence {
            Fence::MbarrierInit => {
                raise(&mut view.begun, a, clock);
                self.tick(a);
            }
            Fence::Async { shared, global } => {
                if shared {
                    view.proxied.clone_from(&view.known);
                    raise(&mut view.proxied, a, clock);
                }
                if global {
                    view.fenced.clone_from(&view.known);
                    raise(&mut view.fenced, a, clock);
                    if let Some(foreign) = &mut view.foreign {
                        let all = Arc::make_mut(foreign).values_mut();
                        all.for_each(|c| c.fenced.clone_from(&c.warps));
                    }
                }
                self.tick(a);
            }
            Fence::MapRelease => {
                view.mapped.clone_from(&view.known);
                raise(&mut view.mapped, a, clock);
                if let Some(foreign) = &mut view.foreign {
                    let all = Arc::make_mut(foreign).values_mut();
                    all.for_each(|c| c.mapped.clone_from(&c.warps));
                }
                self.tick(a);
            }
            Fence::Thread { .. } => {
                let pending = std::mem::take(&mut self.pending[a]);
                if pending.any {
                    view.join(&pending.local);
                }
                view.released.clone_from(&view.known);
                raise(&mut view.released, a, clock);
                self.tick(a);
            }
            Fence::OtherProxy => {}
        }
    }

    fn with<T: Default>(
        &mut self,
        who: Who,
        flags: u64,
        cta: u32,
        f: impl FnOnce(&mut Shadow, &Actor<'_>) -> Result<T, Clash>,
    ) -> Result<T, Box<Fault>> {
        let a = self.actor(who);
        let Some(memory) = self.memories.get_mut(cta as usize) else {
            return Err(report::lost(who));
        };
        let actor = Actor {
            actor: a as u32,
            entry: Entry::new(self.clocks[a], a as u32, who.pc, flags),
            view: &self.views[a],
            lane_sync: self.lane_sync[a],
            races: self.checks.races,
            lanes: self.checks.lanes,
            proxies: self.checks.proxies,
        };
        f(memory, &actor).or_else(|clash| self.let_pass(self.clash(who, cta, flags, &clash)))
    }

    /// What is still in flight may be used where that is not checked.
    fn let_pass<T: Default>(&self, fault: Box<Fault>) -> Result<T, Box<Fault>> {
        match fault.kind {
            FaultKind::InFlight if !self.checks.in_flight => Ok(T::default()),
            _ => Err(fault),
        }
    }

    /// Names the other party to a fault, with the number of its CTA.
    pub fn name(&self, fault: &mut Fault) {
        if let Some((who, does)) = fault.against.take() {
            fault.other.get_or_insert(Party {
                does,
                cta: self.number - self.oldest + u64::from(who.cta),
                warp: who.warp,
                lane: (who.lanes.count_ones() == 1).then(|| who.lanes.trailing_zeros()),
                pc: Some(who.pc),
            });
        }
    }

    /// Lanes read `bytes` each of the shared memory of CTA `cta`, inside of it.
    ///
    /// # Errors
    /// A write that nothing orders before them.
    pub fn shared_read(
        &mut self,
        who: Who,
        cta: u32,
        address: &[u64; 32],
        bytes: u32,
        flags: u64,
    ) -> Result<(), Box<Fault>> {
        if !self.on {
            return Ok(());
        }
        self.with(who, flags, cta, |m, a| m.read(a, address, who.lanes, bytes))
            .map_err(report::now_reads)
    }

    /// As [`Order::shared_read`], of writes and atomics. True if two lanes write one byte.
    ///
    /// # Errors
    /// An access that nothing orders before them.
    pub fn shared_write(
        &mut self,
        who: Who,
        cta: u32,
        address: &[u64; 32],
        bytes: u32,
        flags: u64,
        idle: &dyn Fn(u32) -> bool,
    ) -> Result<bool, Box<Fault>> {
        if !self.on {
            return Ok(false);
        }
        self.with(who, flags, cta, |m, a| m.write(a, address, who.lanes, bytes, idle))
    }

    /// Copies of the lanes of a warp begin; they write `bytes` each and are waited for by group.
    ///
    /// # Errors
    /// An access that nothing orders before them.
    pub fn depart(&mut self, who: Who, to: &[u64; 32], bytes: u32) -> Result<(), Box<Fault>> {
        if !self.on {
            return Ok(());
        }
        self.with(who, 0, who.cta, |m, a| {
            m.write(a, to, who.lanes, bytes, &|_| false)?;
            m.departed(a.entry, to, who.lanes, bytes);
            Ok(())
        })
        .map_err(report::now_copies)
    }

    /// The copy that `lane` of a warp began at instruction `who.pc` has landed.
    #[inline(always)]
    pub fn copied(&mut self, who: Who, lane: u32, at: u32, words: usize) {
        if self.on {
            let a = self.actor(who);
            let entry = Entry::new(self.clocks[a], a as u32, who.pc, 0);
            self.memories[who.cta as usize].copied(entry, lane, at, words);
        }
    }

    /// A lane initialises the mbarrier at an address of a CTA.
    ///
    /// # Errors
    /// An access that nothing orders before it.
    pub fn init_mbarrier(&mut self, who: Who, cta: u32, at: u32) -> Result<(), Box<Fault>> {
        if !self.on {
            return Ok(());
        }
        let a = self.actor(who);
        let lane = who.lanes.trailing_zeros() & 31;
        let entry = Entry::new(self.clocks[a], a as u32, who.pc, 0).at(lane, 0xf);
        self.inits.insert((cta, at), Init { entry, fenced: false });
        self.shared_write(who, cta, &[at.into(); 32], 8, 0, &|_| false).map(|_| ())
    }

    /// A lane arrives at or asks the mbarrier at an address of a CTA.
    ///
    /// # Errors
    /// An initialisation that nothing orders before it.
    pub fn use_mbarrier(&mut self, who: Who, cta: u32, at: u32) -> Result<(), Box<Fault>> {
        let a = self.actor(who);
        if self.on
            && let Some(init) = self.inits.get(&(cta, at))
            && init.entry.clock() <= clock(&self.views[a].begun, init.entry.actor())
        {
            return Ok(());
        }
        self.shared_read(who, cta, &[at.into(); 32], 8, STRONG).map_err(report::now_arrives)
    }

    /// A read of shared memory that nothing has written yet. It is a fault once the CTA has ended
    /// without a race that explains it.
    pub fn defer(&mut self, fault: Box<Fault>, who: Who) {
        self.deferred.get_or_insert((fault, who));
    }

    /// Whether a fault waits for a race that explains it.
    pub fn is_deferred(&self) -> bool {
        self.deferred.is_some()
    }

    /// Takes out the fault that waits, with who did it.
    pub fn take_deferred(&mut self) -> Option<(Box<Fault>, Who)> {
        self.deferred.take()
    }
}
