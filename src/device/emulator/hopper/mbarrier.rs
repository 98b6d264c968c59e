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

#[derive(Debug, Clone, Copy)]
pub struct Mbarrier {
    /// Number of the phase that is not yet complete, from 0.
    pub phase: u64,
    expected: u32,
    pub pending: u32,
    /// Bytes still to come; negative while more have come than were announced.
    pub tx: i64,
    /// The latest arrival.
    pub last: Option<Who>,
}

type Trouble = (FaultKind, String);

impl Mbarrier {
    fn state(&self) -> u64 {
        self.phase << 20 | u64::from(self.pending)
    }

    /// Ends the phase if nothing is awaited any longer.
    fn settle(&mut self) -> Result<bool, Trouble> {
        if self.pending > 0 || self.tx > 0 {
            return Ok(false);
        }
        if self.tx < 0 {
            return Err((
                FaultKind::Transaction,
                format!(
                    "all have arrived for phase {}, but copies have brought {} bytes more than \
                     expect_tx announced",
                    self.phase, -self.tx
                ),
            ));
        }
        self.phase += 1;
        self.pending = self.expected;
        Ok(true)
    }

    fn arrive(&mut self, count: u32, drop: bool, no_complete: bool) -> Result<bool, Trouble> {
        if count > self.pending {
            return Err((
                FaultKind::Arrivals,
                format!(
                    "{count} arrivals, but phase {} awaits {} more of {}",
                    self.phase, self.pending, self.expected
                ),
            ));
        }
        if no_complete && count == self.pending {
            return Err((
                FaultKind::Arrivals,
                format!(
                    "these arrivals are the last of phase {}, which .noComplete forbids",
                    self.phase
                ),
            ));
        }
        self.pending -= count;
        if drop {
            self.expected -= count;
        }
        self.settle()
    }

    fn expect(&mut self, bytes: i64) -> Result<(), Trouble> {
        self.tx += bytes;
        if self.tx.abs() > MOST.into() {
            return Err((
                FaultKind::Transaction,
                format!(
                    "{} bytes are expected in phase {}; an mbarrier counts to {MOST}",
                    self.tx, self.phase
                ),
            ));
        }
        Ok(())
    }

    pub fn complete(&mut self, bytes: u32) -> Result<bool, Trouble> {
        self.expect(-i64::from(bytes))?;
        self.settle()
    }

    /// A lane's `cp.async` have landed, and it arrives.
    pub fn copies_arrived(&mut self, who: Who) -> Result<bool, Trouble> {
        self.last = Some(who);
        self.arrive(1, false, false)
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
    pub fn clear(&mut self) {
        self.live.clear();
        self.gone.clear();
    }

    pub fn get(&self, at: u32) -> Option<&Mbarrier> {
        self.live.get(&at)
    }

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
    pub fn leftover(&self, rank: u32, at: u32, phase: u64) -> Result<(), Trouble> {
        let left: u64 = self
            .flights
            .iter()
            .filter(|f| f.signal == (rank, at) && f.phase == phase)
            .map(|f| u64::from(f.bytes))
            .sum();
        if left == 0 {
            return Ok(());
        }
        Err((
            FaultKind::Transaction,
            format!(
                "phase {phase} ends while {left} bytes of copies that began in it are still to \
                 come: expect_tx announced too few"
            ),
        ))
    }
}

impl Warp {
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
                    init(cx.shared_of(rank), at, value.unwrap_or(0), lane)?;
                    let who = self.who(own, 1 << lane, pc);
                    cx.events.order.init_mbarrier(who, rank, at as u32)?;
                }
                MbarOp::Inval => {
                    let shared = cx.shared_of(rank);
                    let at = shared.mbarrier(at, lane, what)?;
                    let busy = cx.engine.flights.iter().any(|f| f.signal == (rank, at));
                    let shared = cx.shared_of(rank);
                    if busy {
                        let message = format!(
                            "{what} at shared address {at}: copies in flight will still complete \
                             on this mbarrier"
                        );
                        return Err(Fault::new(FaultKind::Mbarrier, lane, message));
                    }
                    shared.mbarriers.live.remove(&at);
                    shared.mbarriers.gone.insert(at);
                    shared.change(at as usize / 4..at as usize / 4 + 2).1.fill(0);
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
                        MbarOp::Expect => b.expect(value.unwrap_or(0).into()).map(|()| false),
                        MbarOp::Complete => b.complete(value.unwrap_or(0)),
                        MbarOp::Arrive { expect, drop, no_complete } => {
                            b.last = Some(who);
                            let (bytes, count) = match value {
                                Some(v) if expect => (v, 1),
                                v => (0, v.unwrap_or(1)),
                            };
                            if !(1..=MOST).contains(&count) {
                                let message =
                                    format!("{what} of {count} arrivals; 1 to {MOST} are possible");
                                return Err(Fault::new(FaultKind::Operand, lane, message));
                            }
                            b.expect(bytes.into()).and_then(|()| b.arrive(count, drop, no_complete))
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
                    .map_err(|(kind, why)| {
                        let place = whose(rank, own);
                        let message = format!("{what} at shared address {at}{place}: {why}");
                        Fault::new(kind, lane, message)
                    })?;
                }
            }
        }
        Ok(())
    }

    /// Waits for a phase, or says that it is not complete where nothing can complete it now.
    pub fn mbarrier_wait(
        &mut self,
        cx: &mut Context<'_>,
        (to, phase, done, order): (Addr, Phase, u16, Ordering),
        pc: usize,
        exec: u32,
    ) -> Result<Flow, Box<Fault>> {
        let what = "a wait for an mbarrier";
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
            let Some(&b) = shared.mbarriers.get(at) else { continue };
            let who = self.who(cx.rank, 1 << lane, pc);
            cx.events.order.use_mbarrier(who, rank, at)?;
            let complete = match phase {
                Phase::Parity(_) if operand > 1 => {
                    let message = format!("{what} with parity {operand}; 0 or 1 is wanted");
                    return Err(Fault::new(FaultKind::Operand, lane, message));
                }
                Phase::Parity(_) => b.phase & 1 != operand,
                Phase::State(_) => {
                    let of = operand >> 20;
                    if of > b.phase {
                        let message = format!(
                            "{what} at shared address {at} with a state that this mbarrier has \
                             not given"
                        );
                        return Err(Fault::new(FaultKind::Operand, lane, message));
                    }
                    if of + 2 <= b.phase {
                        return Err(reused(at, of, b.phase, lane));
                    }
                    of < b.phase
                }
            };
            if let Some(k) = self.parked.iter().position(|p| (p.0, p.1) == (pc, (rank, at))) {
                let (.., of) = self.parked.swap_remove(k);
                if b.phase >= of + 2 {
                    return Err(reused(at, of, b.phase, lane));
                }
            }
            before = Some((address[i], operand, complete));
            if complete {
                yes |= 1 << lane;
                if let Some((r, a, p, mask)) = seen.replace((rank, at, b.phase, 1 << lane))
                    && !unread
                {
                    self.observed(cx, (r, a, p), mask, order, pc);
                }
            } else {
                wait.get_or_insert(Wait::Mbarrier { cta: rank, at, phase: b.phase });
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
                    return Err(Fault::new(FaultKind::Arrivals, lane, message));
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
                done.and_then(left).map_err(|(kind, why)| {
                    let place = whose(rank, cx.rank);
                    Fault::new(kind, lane, format!("{what} at shared address {at}{place}: {why}"))
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
fn reused(at: u32, of: u64, now: u64, lane: u32) -> Box<Fault> {
    let message = format!(
        "a wait for phase {of} of the mbarrier at shared address {at}, which is in phase {now}: \
         the waiter was left behind, and could take one phase for another of the same parity"
    );
    Fault::new(FaultKind::PhaseReuse, lane, message)
}

fn init(shared: &mut Shared, at: u64, count: u32, lane: u32) -> Result<(), Box<Fault>> {
    let what = "mbarrier.init";
    if !(1..=MOST).contains(&count) {
        let message = format!("{what} for {count} arrivals; 1 to {MOST} are possible");
        return Err(Fault::new(FaultKind::Operand, lane, message));
    }
    let offset = shared.locate(at, 8, lane, what)?;
    if let Some(there) = shared.mbarriers.within(offset as u32, 8) {
        let message = format!(
            "{what} at shared address {offset}: the mbarrier at {there} is live; mbarrier.inval \
             ends it first"
        );
        return Err(Fault::new(FaultKind::Mbarrier, lane, message));
    }
    shared.note_write(offset, 8, lane, what)?;
    shared.change(offset / 4..offset / 4 + 2).1.fill(super::super::memory::BUSY);
    let b = Mbarrier { phase: 0, expected: count, pending: count, tx: 0, last: None };
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
