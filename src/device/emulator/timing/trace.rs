//! What the warps of a cluster did, in order, written down for a model of time.
//!
//! Instructions are straight runs of them. What passes between warps and engines stands between
//! the runs as contributions to, and waits for, events: the end of one phase of a barrier, or of one
//! bulk group.

use std::collections::HashMap;

use crate::device::emulator::events::{CopyId, Object, Span};

/// No event: a copy that nobody waits for.
pub const NOBODY: u32 = u32::MAX;

/// Steps of a cluster that are kept; beyond them its trace is given up.
const MOST: usize = 1 << 22;

/// One step of a warp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The instructions from the first up to the second.
    Run(u32, u32),
    /// Arrives for an event.
    Arrive(u32),
    /// Waits until an event is complete.
    Wait(u32),
    /// An engine begins to write so many bytes of shared memory, and contributes to an event. A
    /// multicast's writes in further CTAs come with the first one, and have no bytes.
    Load { event: u32, bytes: u32 },
    /// An engine begins to read so many bytes of shared memory.
    Store { event: u32, bytes: u32 },
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Arrivals and copies that it takes.
    pub needs: u32,
    /// It is an mbarrier's, which a waiter asks again and again.
    pub polled: bool,
    /// The CTA whose shared memory it is in.
    pub cta: Option<u32>,
}

/// The trace of one cluster.
#[derive(Debug, Default)]
pub struct Trace {
    /// The steps of each warp, CTA by CTA.
    pub warps: Vec<Vec<Step>>,
    pub warps_per_cta: u32,
    pub events: Vec<Event>,
    ids: HashMap<(Object, u64), u32>,
    /// Copies under way: warp and step.
    copies: HashMap<CopyId, (usize, usize)>,
    /// The latest copy that writes: its warp and step, and where it goes.
    written: Option<(usize, usize, Span)>,
    steps: usize,
}

impl Trace {
    /// An empty trace of `ctas` CTAs with `warps` warps each.
    pub fn new(ctas: u32, warps: u32) -> Trace {
        let mut all = Vec::new();
        all.resize_with((ctas * warps) as usize, Vec::new);
        Trace { warps: all, warps_per_cta: warps, ..Trace::default() }
    }

    /// Everything is in it; once it is not, it is empty.
    pub fn whole(&self) -> bool {
        self.steps < MOST
    }

    fn warp(&self, cta: u32, warp: u32) -> usize {
        (cta * self.warps_per_cta + warp) as usize
    }

    fn push(&mut self, at: usize, step: Step) {
        self.steps += 1;
        if self.whole() {
            self.warps[at].push(step);
        } else {
            *self = Trace { steps: MOST, ..Trace::new(0, 0) };
        }
    }

    fn event(&mut self, object: Object, phase: u64) -> u32 {
        let next = self.events.len() as u32;
        let id = *self.ids.entry((object, phase)).or_insert(next);
        if id == next {
            let cta = match object {
                Object::Mbarrier { cta, .. } => Some(cta),
                _ => None,
            };
            self.events.push(Event { needs: 0, polled: cta.is_some(), cta });
        }
        id
    }

    /// A warp issues instruction `pc`.
    #[inline]
    pub fn issue(&mut self, cta: u32, warp: u32, pc: usize) {
        if !self.whole() {
            return;
        }
        let at = self.warp(cta, warp);
        let pc = pc as u32;
        match self.warps[at].last_mut() {
            Some(Step::Run(_, to)) if *to == pc => *to += 1,
            _ => self.push(at, Step::Run(pc, pc + 1)),
        }
    }

    /// It has to issue its latest instruction again.
    pub fn take_back(&mut self, cta: u32, warp: u32) {
        if !self.whole() {
            return;
        }
        let at = self.warp(cta, warp);
        if let Some(Step::Run(from, to)) = self.warps[at].last_mut() {
            *to -= 1;
            if from == to {
                self.warps[at].pop();
            }
        }
    }

    /// A warp arrives at `object`, for the end of `phase`.
    pub fn arrive(&mut self, cta: u32, warp: u32, object: Object, phase: u64) {
        if !self.whole() {
            return;
        }
        let event = self.event(object, phase);
        self.events[event as usize].needs += 1;
        self.push(self.warp(cta, warp), Step::Arrive(event));
    }

    /// A warp has waited for the end of `phase` of `object`.
    pub fn wait(&mut self, cta: u32, warp: u32, object: Object, phase: u64) {
        if !self.whole() {
            return;
        }
        // Products and their waits are instructions.
        let last = match object {
            Object::Products { .. } => return,
            Object::BulkGroup { .. } => match phase.checked_sub(1) {
                Some(last) => last,
                None => return,
            },
            _ => phase,
        };
        let event = self.event(object, last);
        self.push(self.warp(cta, warp), Step::Wait(event));
    }

    /// A copy to `to` begins; [`Trace::copied`] says what it counts towards. Called for each CTA that
    /// a multicast reaches.
    pub fn write(&mut self, cta: u32, warp: u32, to: Span, copy: CopyId) {
        if !self.whole() {
            return;
        }
        let warp = self.warp(cta, warp);
        let place = self.warps[warp].len();
        // Behind a copy to the same place of another CTA, with no instruction in between.
        let multicast = self.written.is_some_and(|(w, before, first)| {
            (w, before + 1) == (warp, place)
                && (first.at, first.bytes) == (to.at, to.bytes)
                && first.cta != to.cta
        });
        self.written = Some((warp, place, to));
        let bytes = if multicast { 0 } else { to.bytes };
        self.copy(warp, Step::Load { event: NOBODY, bytes }, copy);
    }

    /// A copy of so many bytes from shared memory begins.
    pub fn read(&mut self, cta: u32, warp: u32, bytes: u32, copy: CopyId) {
        if !self.whole() {
            return;
        }
        self.copy(self.warp(cta, warp), Step::Store { event: NOBODY, bytes }, copy);
    }

    fn copy(&mut self, warp: usize, step: Step, copy: CopyId) {
        self.copies.insert(copy, (warp, self.warps[warp].len()));
        self.push(warp, step);
    }

    /// A copy counts towards `phase` of `object`.
    pub fn copied(&mut self, copy: CopyId, object: Object, phase: u64) {
        let Some((warp, at)) = self.copies.remove(&copy) else { return };
        let id = self.event(object, phase);
        if let Some(Step::Load { event, .. } | Step::Store { event, .. }) =
            self.warps[warp].get_mut(at)
        {
            *event = id;
            self.events[id as usize].needs += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn straight_instructions_are_one_run() {
        let mut t = Trace::new(1, 1);
        (4..7).for_each(|pc| t.issue(0, 0, pc));
        t.take_back(0, 0);
        t.issue(0, 0, 6);
        t.issue(0, 0, 2);
        t.take_back(0, 0);
        assert_eq!(t.warps[0], [Step::Run(4, 7)]);
    }

    #[test]
    fn events_count_arrivals_and_copies() {
        let mut t = Trace::new(1, 2);
        let bar = Object::Mbarrier { cta: 0, at: 64 };
        t.write(0, 0, Span { cta: 0, at: 1024, bytes: 4096 }, 7);
        t.arrive(0, 0, bar, 0);
        t.copied(7, bar, 0);
        t.wait(0, 1, bar, 0);
        t.wait(0, 1, Object::Products { cta: 0, warp: 0 }, 3);
        t.wait(0, 1, Object::BulkGroup { cta: 0, warp: 1, lane: 0 }, 0);
        assert_eq!(t.events, [Event { needs: 2, polled: true, cta: Some(0) }]);
        assert_eq!(t.warps[0], [Step::Load { event: 0, bytes: 4096 }, Step::Arrive(0)]);
        assert_eq!(t.warps[1], [Step::Wait(0)]);
    }

    /// Endless waiting leaves nothing behind.
    #[test]
    fn a_trace_that_grows_too_long_is_given_up() {
        let mut t = Trace::new(1, 2);
        let bar = Object::Mbarrier { cta: 0, at: 64 };
        for phase in 0..MOST as u64 {
            t.issue(0, 0, 3);
            t.arrive(0, 0, bar, phase);
            t.wait(0, 1, bar, phase);
            t.write(0, 1, Span { cta: 0, at: 1024, bytes: 16 }, phase);
            t.copied(phase, bar, phase);
            t.take_back(0, 0);
        }
        assert!(!t.whole());
        let kept = (t.warps.len(), t.events.capacity(), t.ids.capacity(), t.copies.capacity());
        assert_eq!(kept, (0, 0, 0, 0));
    }

    #[test]
    fn a_multicast_is_read_once() {
        let mut t = Trace::new(2, 1);
        let to = |cta, at| Span { cta, at, bytes: 4096 };
        t.write(0, 0, to(0, 1024), 1);
        t.write(0, 0, to(1, 1024), 2);
        t.write(0, 0, to(0, 5120), 3);
        let load = |bytes| Step::Load { event: NOBODY, bytes };
        assert_eq!(t.warps[0], [load(4096), load(0), load(4096)]);
    }
}
