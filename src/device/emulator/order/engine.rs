//! What engines do to shared memory: bulk copies, `st.async`, products.

use std::sync::Arc;

use super::super::events::{CopyId, Object, Span, Who};
use super::super::trap::Fault;
use super::super::wgmma::Pieces;
use super::entry::{ATOMIC, ENGINE, Entry, IN_FLIGHT, LAST_CLOCK, STRONG};
use super::shared::Actor;
use super::view::{View, raise};
use super::{Checks, Copy, KEPT_COPIES, Order, report};

impl Order {
    /// A bulk copy that ends at `object` will write `to`.
    ///
    /// # Errors
    /// An access that nothing, or no proxy fence, orders before it; an mbarrier `object` whose
    /// initialisation no fence makes known to copies.
    pub fn engine_writes(
        &mut self,
        who: Who,
        to: Span,
        object: Object,
    ) -> Result<CopyId, Box<Fault>> {
        self.engine_access(who, to, object, true, ENGINE)
    }

    /// A bulk copy that ends at `object` will read `from`.
    ///
    /// # Errors
    /// As of [`Order::engine_writes`], but for reads of `from`.
    pub fn engine_reads(
        &mut self,
        who: Who,
        from: Span,
        object: Object,
    ) -> Result<CopyId, Box<Fault>> {
        self.engine_access(who, from, object, false, ENGINE)
    }

    /// `st.async`, or with `atomic` `red.async`: through the generic proxy, yet asynchronous.
    ///
    /// # Errors
    /// An access that nothing orders before it.
    pub fn remote_writes(
        &mut self,
        who: Who,
        to: Span,
        object: Object,
        atomic: bool,
    ) -> Result<CopyId, Box<Fault>> {
        self.engine_access(who, to, object, true, if atomic { ATOMIC } else { STRONG })
    }

    fn engine_access(
        &mut self,
        who: Who,
        span: Span,
        object: Object,
        write: bool,
        flags: u64,
    ) -> Result<CopyId, Box<Fault>> {
        self.next += 1;
        let id = self.next;
        if !self.on {
            return Ok(id);
        }
        let engine = self.engine(object);
        if self.copies.len() == KEPT_COPIES {
            self.copies.pop_front();
        }
        self.copies.push_back(Copy { id, who, span, object, engine, write });
        let view = self.asking(who);
        let checks = Checks { proxies: self.checks.proxies && flags == ENGINE, ..self.checks };
        if let Object::Mbarrier { cta, at } = object
            && checks.proxies
            && let Some(init) = self.inits.get(&(cta, at))
            && !init.fenced
            && init.entry.clock() > view.proxied(init.entry.actor())
        {
            return Err(self.unfenced_init(who, at, init.entry));
        }
        let entry = Entry::new(IN_FLIGHT, engine, who.pc, flags | ENGINE);
        let actor = Actor::engine(entry, &view, checks);
        let Some(memory) = self.memories.get_mut(span.cta as usize) else {
            return Err(report::lost(who));
        };
        match memory.engine(&actor, span.at, span.bytes, write) {
            Ok(()) => Ok(id),
            Err(clash) => {
                let fault = self.clash(who, span.cta, ENGINE, &clash);
                let fault = if write { fault } else { report::now_reads(fault) };
                self.let_pass::<()>(fault).map(|()| id)
            }
        }
    }

    /// What a warp knows as it hands something to an engine: its own accesses so far included.
    pub(super) fn asking(&self, who: Who) -> View {
        let a = self.actor(who);
        let view = &self.views[a];
        let mut known = view.known.clone();
        raise(&mut known, a, self.clocks[a]);
        View {
            known,
            proxied: view.proxied.clone(),
            fenced: view.fenced.clone(),
            mapped: view.mapped.clone(),
            foreign: view.foreign.clone(),
            ..View::default()
        }
    }

    /// A warp's part of a product of group number `group` reads pieces of 16 bytes of its CTA's
    /// shared memory.
    ///
    /// # Errors
    /// A write that nothing, or no proxy fence, orders before it.
    pub fn product(
        &mut self,
        who: Who,
        group: u64,
        pieces: &Arc<Pieces>,
    ) -> Result<(), Box<Fault>> {
        if !self.on {
            return Ok(());
        }
        let object = Object::Products { cta: who.cta, warp: who.warp / 4 * 4 };
        let engine = self.engine(object);
        let clock = (group + 1).min(LAST_CLOCK.into()) as u32;
        let entry = Entry::new(clock, engine, who.pc, ENGINE);
        let a = self.actor(who);
        let Some(memory) = self.memories.get_mut(who.cta as usize) else {
            return Err(report::lost(who));
        };
        // As [`Order::asking`], for as long as it takes.
        let known = std::mem::replace(&mut self.views[a].known[a], self.clocks[a]);
        let seen = memory.product(&Actor::engine(entry, &self.views[a], self.checks), pieces);
        self.views[a].known[a] = known;
        seen.or_else(|clash| {
            self.let_pass(report::now_multiplies(self.clash(who, who.cta, ENGINE, &clash)))
        })
    }

    /// The copy has been performed: whoever knows `phase` of its object is ordered behind it.
    pub fn engine_done(&mut self, copy: CopyId, object: Object, phase: u64) {
        if !self.on {
            return;
        }
        let Some(&c) = self.copies.iter().rev().find(|c| c.id == copy) else { return };
        let engine = self.engine(object);
        if engine != c.engine {
            return;
        }
        let clock = (phase + 1).min(LAST_CLOCK.into()) as u32;
        if let Some(memory) = self.memories.get_mut(c.span.cta as usize) {
            memory.landed(engine, c.span.at, c.span.bytes, c.write, clock);
        }
    }
}
