//! mbarriers: arrivals, transaction bytes, phases, and who waits for them.

use std::collections::{BTreeMap, BTreeSet};

use pulp::Arch;

use super::flight::{Flight, Load};
use super::{Addr, Engine, Flow};
use crate::device::emulator::access::lanes;
use crate::device::emulator::decode::SINK;
use crate::device::emulator::events::{Object, Ordering, Who};
use crate::device::emulator::memory::Shared;
use crate::device::emulator::regs::{El, Regs, Row, Slots, put};
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Wait, Warp};

/// Most arrivals and, either way, bytes that a phase can await.
pub const MOST: u32 = (1 << 20) - 1;

/// What an instruction does to an mbarrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MbarOp {
    Init,
    Inval,
    Arrive {
        /// The value is bytes to expect, and one arrives; else it is the number of arrivals.
        expect: bool,
        /// Also for all later phases.
        drop: bool,
        /// The phase must not complete by it.
        no_complete: bool,
    },
    Expect,
    Complete,
}

impl MbarOp {
    fn name(self) -> &'static str {
        match self {
            MbarOp::Init => "mbarrier.init",
            MbarOp::Inval => "mbarrier.inval",
            MbarOp::Arrive { drop: true, .. } => "mbarrier.arrive_drop",
            MbarOp::Arrive { .. } => "mbarrier.arrive",
            MbarOp::Expect => "mbarrier.expect_tx",
            MbarOp::Complete => "mbarrier.complete_tx",
        }
    }
}

/// A decoded `mbarrier` instruction other than a wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mbar {
    pub op: MbarOp,
    pub at: Addr,
    /// 32-bit slot of the count or bytes; `None` for one arrival.
    pub value: Option<u16>,
    /// 64-bit slot of the state.
    pub state: u16,
    pub order: Ordering,
}

/// The phase that a wait names, by slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Parity(u16),
    State(u16),
}

/// CTAs of a cluster, at most.
const CTAS: usize = 16;

/// A live mbarrier.
#[derive(Debug, Clone)]
pub struct Mbarrier {
    /// Number of the phase that is not yet complete, from 0.
    pub phase: u64,
    expected: u32,
    pub pending: u32,
    /// Bytes still to come; negative while more have come than were announced.
    pub tx: i64,
    /// Bytes that do not agree are a fault.
    strict: bool,
    init: Who,
    /// The latest arrival, announcement of bytes and copy, and who ended the phase before this.
    pub last: Option<Who>,
    expects: Option<(Who, i64)>,
    brought: Option<Who>,
    pub ended: Option<Who>,
    /// Warps of each CTA, one bit each, that have arrived in this phase, and in the one before.
    here: [u32; CTAS],
    before: [u32; CTAS],
}

/// What is wrong at an mbarrier, and who else has a part in it.
pub struct Trouble {
    kind: FaultKind,
    why: String,
    other: Option<(Who, String)>,
}

impl Trouble {
    /// `place` says what was done where.
    pub fn fault(self, lane: u32, place: &str) -> Box<Fault> {
        Fault::new(self.kind, lane, format!("{place}: {}", self.why)).against(self.other)
    }
}

impl Mbarrier {
    fn new(expected: u32, init: Who, strict: bool) -> Mbarrier {
        Mbarrier {
            phase: 0,
            expected,
            pending: expected,
            tx: 0,
            strict,
            init,
            last: None,
            expects: None,
            brought: None,
            ended: None,
            here: [0; CTAS],
            before: [0; CTAS],
        }
    }

    fn state(&self) -> u64 {
        self.phase << 20 | u64::from(self.pending)
    }

    /// Who announced bytes last.
    pub fn announced(&self) -> Option<(Who, String)> {
        self.expects.map(|(who, bytes)| (who, format!("announced {bytes} bytes, the last to")))
    }

    /// Who arrived last in this phase, or who said how many are to.
    fn arrived(&self) -> (Who, String) {
        match self.last {
            Some(who) if self.pending < self.expected => (who, "arrived there last".into()),
            _ => (self.init, format!("initialised it for {} arrivals", self.expected)),
        }
    }

    /// Warps that have not arrived yet, by CTA, and true if these arrived in the phase before. With
    /// false, any of them might come.
    pub fn late(&self) -> ([u32; CTAS], bool) {
        let again = std::array::from_fn(|c| self.before[c] & !self.here[c]);
        match again == [0; CTAS] {
            false => (again, true),
            true => (self.here.map(|h| !h), false),
        }
    }

    /// `who` arrived, announced or brought bytes: ends the phase if nothing is awaited any longer.
    fn settle(&mut self, who: Who) -> Result<bool, Trouble> {
        if self.pending > 0 || self.tx > 0 || self.tx < 0 && !self.strict {
            return Ok(false);
        }
        if self.tx < 0 {
            let other = match self.brought {
                Some(copy) if copy != who => Some((copy, "brought bytes, the last to".into())),
                _ => self.announced().or(Some(self.arrived())),
            };
            let why = format!(
                "all have arrived for phase {}, but copies have brought {} bytes more than expect_tx \
                 announced",
                self.phase, -self.tx
            );
            return Err(Trouble { kind: FaultKind::Transaction, why, other });
        }
        self.phase += 1;
        self.pending = self.expected;
        self.ended = Some(who);
        self.before = std::mem::take(&mut self.here);
        Ok(true)
    }

    fn arrive(
        &mut self,
        who: Who,
        count: u32,
        drop: bool,
        no_complete: bool,
    ) -> Result<bool, Trouble> {
        let refuse = |b: &Mbarrier, why| {
            Err(Trouble { kind: FaultKind::Arrivals, why, other: Some(b.arrived()) })
        };
        if count > self.pending {
            let why = format!(
                "{count} arrivals, but phase {} awaits {} more of {}",
                self.phase, self.pending, self.expected
            );
            return refuse(self, why);
        }
        if no_complete && count == self.pending {
            let why = format!(
                "these arrivals are the last of phase {}, which .noComplete forbids",
                self.phase
            );
            return refuse(self, why);
        }
        self.last = Some(who);
        self.here[who.cta as usize % CTAS] |= 1 << (who.warp % 32);
        self.pending -= count;
        if drop {
            self.expected -= count;
        }
        self.settle(who)
    }

    fn expect(&mut self, who: Who, bytes: i64) -> Result<(), Trouble> {
        self.tx += bytes;
        if self.tx.abs() > MOST.into() && self.strict {
            let why = format!(
                "{} bytes are expected in phase {}; an mbarrier counts to {MOST}",
                self.tx, self.phase
            );
            let other = self.announced().unwrap_or_else(|| self.arrived());
            return Err(Trouble { kind: FaultKind::Transaction, why, other: Some(other) });
        }
        if bytes > 0 {
            self.expects = Some((who, bytes));
        }
        Ok(())
    }

    /// A copy has brought `bytes`. True if the phase ends with it.
    ///
    /// # Errors
    /// More bytes than were announced once all have arrived, or than an mbarrier counts.
    pub fn complete(&mut self, who: Who, bytes: u32) -> Result<bool, Trouble> {
        self.expect(who, -i64::from(bytes))?;
        self.brought = Some(who);
        self.settle(who)
    }

    /// A lane's `cp.async` have landed, and it arrives.
    ///
    /// # Errors
    /// More arrivals than are awaited, or more bytes than were announced once all have arrived.
    pub fn copies_arrived(&mut self, who: Who) -> Result<bool, Trouble> {
        self.arrive(who, 1, false, false)
    }

    /// `phase 3, 1 of 4 arrivals and 8192 bytes missing`
    pub fn describe(&self) -> String {
        let mut text = format!(
            "phase {} (parity {}), {} of {} arrivals",
            self.phase,
            self.phase & 1,
            self.pending,
            self.expected
        );
        if self.tx != 0 {
            text += &format!(" and {} bytes", self.tx);
        }
        text + " missing"
    }
}

/// The mbarriers of one CTA, by shared address.
#[derive(Debug, Clone, Default)]
pub struct Mbarriers {
    live: BTreeMap<u32, Mbarrier>,
    /// Where one was invalidated.
    gone: BTreeSet<u32>,
}

impl Mbarriers {
    /// Forgets all, those that were invalidated included.
    pub fn clear(&mut self) {
        self.live.clear();
        self.gone.clear();
    }

    /// The live mbarrier that starts at a shared address.
    pub fn get(&self, at: u32) -> Option<&Mbarrier> {
        self.live.get(&at)
    }

    /// As [`Mbarriers::get`], to change it.
    pub fn get_mut(&mut self, at: u32) -> Option<&mut Mbarrier> {
        self.live.get_mut(&at)
    }

    /// The live one that shares bytes with a span.
    pub fn within(&self, at: u32, bytes: u32) -> Option<u32> {
        self.live.range(at.saturating_sub(7)..at + bytes).next().map(|(&at, _)| at)
    }

    fn missing(&self, at: u32, lane: u32, what: &str) -> Box<Fault> {
        let why = if self.gone.contains(&at) {
            "the mbarrier there was invalidated".to_owned()
        } else if let Some(near) = self.within(at, 8) {
            format!("no mbarrier starts there; there is one at {near}")
        } else {
            "no mbarrier was initialised there".to_owned()
        };
        Fault::new(FaultKind::Mbarrier, lane, format!("{what} at shared address {at}: {why}"))
    }
}

/// `in CTA 2 of the cluster`, for another CTA.
fn whose(rank: u32, own: u32) -> String {
    if rank == own { String::new() } else { format!(" of CTA {rank} of the cluster") }
}

impl Shared {
    /// Offset of the live mbarrier at an address.
    ///
    /// # Errors
    /// An address outside of shared memory, misaligned, or without a live mbarrier.
    pub fn mbarrier(&self, at: u64, lane: u32, what: &str) -> Result<u32, Box<Fault>> {
        let at = self.locate(at, 8, lane, what)? as u32;
        match self.mbarriers.get(at) {
            Some(_) => Ok(at),
            None => Err(self.mbarriers.missing(at, lane, what)),
        }
    }
}

impl Engine {
    /// Refuses that a phase ends while copies that began in it are still in flight.
    ///
    /// # Errors
    /// The bytes still to come, and who began their first copy.
    pub fn leftover(&self, rank: u32, at: u32, phase: u64) -> Result<(), Trouble> {
        if !self.checks.transactions {
            return Ok(());
        }
        let began = |f: &&Flight| f.signal == (rank, at) && f.phase == phase && f.bytes > 0;
        let left: u64 = self.flights.iter().filter(began).map(|f| u64::from(f.bytes)).sum();
        let Some(copy) = self.flights.iter().find(began) else { return Ok(()) };
        Err(Trouble {
            kind: FaultKind::Transaction,
            why: format!(
                "phase {phase} ends while {left} bytes of copies that began in it are still to \
                 come: expect_tx announced too few"
            ),
            other: Some((copy.who, format!("began a copy of {} bytes of them", copy.bytes))),
        })
    }
}

impl Warp {
    /// Executes an `mbarrier` instruction other than a wait for the lanes of `exec`.
    ///
    /// # Errors
    /// An address without a live mbarrier (for `init`, outside of shared memory or in use), or a
    /// count out of range; more arrivals or bytes than the phase awaits; copies that still complete
    /// on what is invalidated or on a phase that ends; an initialisation that nothing orders before
    /// its use.
    pub fn mbarrier(
        &mut self,
        cx: &mut Context<'_>,
        m: &Mbar,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        let address = self.addresses(m.at.base, m.at.offset);
        let what = m.op.name();
        cx.engine.progress += 1;
        for lane in lanes(exec) {
            let (rank, at) = cx.place(m.at.space, address[lane as usize], lane, what)?;
            let value = m.value.map(|s| self.regs.r32[usize::from(s)][lane as usize]);
            let own = cx.rank;
            match m.op {
                MbarOp::Init => {
                    let who = self.who(own, 1 << lane, pc);
                    init(cx.shared_of(rank), at, value.unwrap_or(0), who)?;
                    cx.events.order.init_mbarrier(who, rank, at as u32)?;
                }
                MbarOp::Inval => {
                    let shared = cx.shared_of(rank);
                    let at = shared.mbarrier(at, lane, what)?;
                    let busy = cx.engine.flights.iter().find(|f| f.signal == (rank, at));
                    if let Some(copy) = busy {
                        let message = format!(
                            "{what} at shared address {at}: copies in flight will still complete \
                             on this mbarrier"
                        );
                        let other = Some((copy.who, "began one of them"));
                        return Err(Fault::new(FaultKind::Mbarrier, lane, message).against(other));
                    }
                    let shared = cx.shared_of(rank);
                    let fresh = shared.fresh();
                    shared.mbarriers.live.remove(&at);
                    shared.mbarriers.gone.insert(at);
                    shared.change(at as usize / 4..at as usize / 4 + 2).1.fill(fresh);
                }
                op => {
                    let who = self.who(own, 1 << lane, pc);
                    let shared = cx.shared_of(rank);
                    let at = shared.mbarrier(at, lane, what)?;
                    cx.events.order.use_mbarrier(who, rank, at)?;
                    let shared = cx.shared_of(rank);
                    let Some(b) = shared.mbarriers.get_mut(at) else { continue };
                    let state = b.state();
                    let phase = b.phase;
                    let done = match op {
                        MbarOp::Expect => b.expect(who, value.unwrap_or(0).into()).map(|()| false),
                        MbarOp::Complete => b.complete(who, value.unwrap_or(0)),
                        MbarOp::Arrive { expect, drop, no_complete } => {
                            let (bytes, count) = match value {
                                Some(v) if expect => (v, 1),
                                v => (0, v.unwrap_or(1)),
                            };
                            if !(1..=MOST).contains(&count) {
                                let message =
                                    format!("{what} of {count} arrivals; 1 to {MOST} are possible");
                                return Err(Fault::new(FaultKind::Operand, lane, message));
                            }
                            b.expect(who, bytes.into())
                                .and_then(|()| b.arrive(who, count, drop, no_complete))
                        }
                        _ => Ok(false),
                    };
                    if matches!(op, MbarOp::Arrive { .. }) {
                        let object = Object::Mbarrier { cta: rank, at };
                        cx.events.arrive(who, object, phase, m.order);
                        if m.state != 0 {
                            self.regs.r64[usize::from(m.state)][lane as usize] = state;
                        }
                    }
                    done.and_then(
                        |done| {
                            if done { cx.engine.leftover(rank, at, phase) } else { Ok(()) }
                        },
                    )
                    .map_err(|t| {
                        t.fault(lane, &format!("{what} at shared address {at}{}", whose(rank, own)))
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Waits for a phase, or says that it is not complete where nothing can complete it now.
    ///
    /// # Errors
    /// An address without a live mbarrier, or whose initialisation nothing orders before the wait;
    /// a parity above 1; a state that the mbarrier has not given; a phase that the mbarrier has
    /// passed by two or more.
    pub fn mbarrier_wait(
        &mut self,
        cx: &mut Context<'_>,
        (to, phase, done, order): (Addr, Phase, u16, Ordering),
        pc: usize,
        exec: u32,
    ) -> Result<Flow, Box<Fault>> {
        let what = "a wait for an mbarrier";
        let strict = cx.events.order.checks.phases;
        let unread = done == SINK;
        let forced = self.forced == Some(pc);
        if forced {
            self.forced = None;
        }
        let address = self.addresses(to.base, to.offset);
        let mut yes = 0;
        let mut wait = None;
        // Lanes mostly wait for the same: their last answer is kept.
        let mut before: Option<(u64, u64, bool)> = None;
        let mut seen: Option<(u32, u32, u64, u32)> = None;
        for lane in lanes(exec) {
            let i = lane as usize;
            let operand = match phase {
                Phase::Parity(s) => u64::from(self.regs.r32[usize::from(s)][i]),
                Phase::State(s) => self.regs.r64[usize::from(s)][i],
            };
            if let Some((a, o, complete)) = before
                && (a, o) == (address[i], operand)
            {
                yes |= u32::from(complete) << lane;
                if let (true, Some(s)) = (complete, &mut seen) {
                    s.3 |= 1 << lane;
                }
                continue;
            }
            let (rank, at) = cx.place(to.space, address[i], lane, what)?;
            let shared = cx.shared_of(rank);
            let at = shared.mbarrier(at, lane, what)?;
            let Some(b) = shared.mbarriers.get(at) else { continue };
            let (now, ended) = (b.phase, b.ended);
            let who = self.who(cx.rank, 1 << lane, pc);
            cx.events.order.use_mbarrier(who, rank, at)?;
            let complete = match phase {
                Phase::Parity(_) if operand > 1 => {
                    let message = format!("{what} with parity {operand}; 0 or 1 is wanted");
                    return Err(Fault::new(FaultKind::Operand, lane, message));
                }
                Phase::Parity(_) => now & 1 != operand,
                Phase::State(_) => {
                    let of = operand >> 20;
                    if of > now {
                        let message = format!(
                            "{what} at shared address {at} with a state that this mbarrier has \
                             not given"
                        );
                        return Err(Fault::new(FaultKind::Operand, lane, message));
                    }
                    if of + 2 <= now && strict {
                        return Err(reused(at, of, (now, ended), lane));
                    }
                    // An mbarrier knows no more of a phase than its parity.
                    of & 1 != now & 1
                }
            };
            if let Some(k) = self.parked.iter().position(|p| (p.0, p.1) == (pc, (rank, at))) {
                let (.., of) = self.parked.swap_remove(k);
                if now >= of + 2 && strict {
                    return Err(reused(at, of, (now, ended), lane));
                }
            }
            before = Some((address[i], operand, complete));
            if complete {
                yes |= 1 << lane;
                if let Some((r, a, p, mask)) = seen.replace((rank, at, now, 1 << lane))
                    && !unread
                {
                    self.observed(cx, (r, a, p), mask, order, pc);
                }
            } else {
                wait.get_or_insert(Wait::Mbarrier { cta: rank, at, phase: now });
            }
        }
        if let Some(wait @ Wait::Mbarrier { cta, at, phase }) = wait
            && !forced
            && !unread
        {
            self.parked.push((pc, (cta, at), phase));
            return Ok(Flow::Again(wait));
        }
        if let Some((r, a, p, mask)) = seen
            && !unread
        {
            self.observed(cx, (r, a, p), mask, order, pc);
        }
        put(&mut self.regs.p[usize::from(done)], exec, yes);
        Ok(Flow::Next)
    }

    /// Lanes have learnt that the phase before `phase` is complete.
    fn observed(
        &mut self,
        cx: &mut Context<'_>,
        (rank, at, phase): (u32, u32, u64),
        mask: u32,
        order: Ordering,
        pc: usize,
    ) {
        match self.seen.iter_mut().find(|s| s.0 == (rank, at)) {
            Some(s) => s.1 = phase,
            None => self.seen.push(((rank, at), phase)),
        }
        if let Some(last) = phase.checked_sub(1) {
            let who = self.who(cx.rank, mask, pc);
            cx.events.observe(who, Object::Mbarrier { cta: rank, at }, last, order);
        }
    }

    /// `cp.async.mbarrier.arrive`: each lane arrives once its copies so far have landed.
    ///
    /// # Errors
    /// An address without a live mbarrier; more arrivals than an mbarrier counts or awaits; a phase
    /// that ends with bytes still to come; too many copies without a wait.
    pub fn copies_arrive(
        &mut self,
        cx: &mut Context<'_>,
        to: Addr,
        noinc: bool,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        let what = "cp.async.mbarrier.arrive";
        let address = self.addresses(to.base, to.offset);
        let copying = self.copying();
        for lane in lanes(exec) {
            let (rank, at) = cx.place(to.space, address[lane as usize], lane, what)?;
            let who = self.who(cx.rank, 1 << lane, pc);
            let shared = cx.shared_of(rank);
            let at = shared.mbarrier(at, lane, what)?;
            let Some(b) = shared.mbarriers.get_mut(at) else { continue };
            if !noinc {
                if b.pending == MOST {
                    let message = format!("{what}: more than {MOST} arrivals are pending");
                    let other = Some(b.arrived());
                    return Err(Fault::new(FaultKind::Arrivals, lane, message).against(other));
                }
                b.pending += 1;
            }
            let phase = b.phase;
            if copying >> lane & 1 == 0 {
                // Nothing is to be waited for.
                let done = b.copies_arrived(who);
                cx.engine.progress += 1;
                let object = Object::Mbarrier { cta: rank, at };
                cx.events.arrive(who, object, phase, Ordering::Cta);
                let left = |done| if done { cx.engine.leftover(rank, at, phase) } else { Ok(()) };
                done.and_then(left).map_err(|t| {
                    t.fault(lane, &format!("{what} at shared address {at}{}", whose(rank, cx.rank)))
                })?;
                continue;
            }
            let load = Load::Copies { before: self.copies_begun };
            let signal = (rank, at);
            cx.engine.begin_flight(Flight { who, load, signal, phase, bytes: 0, copy: 0 })?;
        }
        Ok(())
    }
}

#[cold]
fn reused(at: u32, of: u64, (now, ended): (u64, Option<Who>), lane: u32) -> Box<Fault> {
    let message = format!(
        "a wait for phase {of} of the mbarrier at shared address {at}, which is in phase {now}: \
         the waiter was left behind, and could take one phase for another of the same parity"
    );
    let other = ended.map(|who| (who, format!("ended phase {}", now - 1)));
    Fault::new(FaultKind::PhaseReuse, lane, message).against(other)
}

fn init(shared: &mut Shared, at: u64, count: u32, who: Who) -> Result<(), Box<Fault>> {
    let what = "mbarrier.init";
    let lane = who.lanes.trailing_zeros();
    if !(1..=MOST).contains(&count) {
        let message = format!("{what} for {count} arrivals; 1 to {MOST} are possible");
        return Err(Fault::new(FaultKind::Operand, lane, message));
    }
    let offset = shared.locate(at, 8, lane, what)?;
    if let Some(there) = shared.mbarriers.within(offset as u32, 8) {
        let first = shared.mbarriers.get(there).map(|b| (b.init, "initialised that one"));
        let message = format!(
            "{what} at shared address {offset}: the mbarrier at {there} is live; mbarrier.inval \
             ends it first"
        );
        return Err(Fault::new(FaultKind::Mbarrier, lane, message).against(first));
    }
    shared.note_write(offset, 8, lane, what)?;
    shared.change(offset / 4..offset / 4 + 2).1.fill(super::super::memory::BUSY);
    let b = Mbarrier::new(count, who, shared.checks.transactions);
    shared.mbarriers.live.insert(offset as u32, b);
    shared.mbarriers.gone.remove(&(offset as u32));
    Ok(())
}

/// `mbarrier.pending_count`: `o = [d, state]`.
pub fn pending_count(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let state = &r.r64[usize::from(s.o[1])];
    let count = Row(std::array::from_fn(|i| state[i] as u32 & MOST));
    u32::write(r, s.o[0], mask, &count);
}
