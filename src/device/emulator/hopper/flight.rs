//! Copies between their beginning and their end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::{Engine, Map, peer_exited};
use crate::device::Swizzle;
use crate::device::emulator::access::{combine, combine_in_l2};
use crate::device::emulator::cta::Cta;
use crate::device::emulator::events::{CopyId, Events, Object, Ordering, Span, Who};
use crate::device::emulator::memory::{Global, Region, Shared, WRITTEN};
use crate::device::emulator::program::{AtomOp, AtomTy};
use crate::device::emulator::stream::Way;
use crate::device::emulator::trap::{Fault, FaultKind};

/// Bytes in the shared memory of one CTA, in the order that a swizzle gives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub cta: u32,
    pub at: u32,
    pub bytes: u32,
    pub swizzle: Swizzle,
}

impl Block {
    /// Bytes without a swizzle.
    pub fn plain(cta: u32, at: u32, bytes: u32) -> Block {
        Block { cta, at, bytes, swizzle: Swizzle::None }
    }

    /// Start and length of each contiguous piece, in the order of the bytes.
    pub fn pieces(self) -> impl Iterator<Item = (usize, usize)> {
        // Rows of 128 bytes: which of their bits move the 16-byte pieces.
        let (shift, mask) = match self.swizzle {
            Swizzle::None => (0, 0),
            Swizzle::B32 => (3, 0x10),
            Swizzle::B64 => (3, 0x30),
            Swizzle::B128 => (3, 0x70),
        };
        let step = if mask == 0 { self.bytes.max(1) } else { 16 };
        (0..self.bytes).step_by(step as usize).map(move |k| {
            let at = self.at + k;
            ((at ^ (at >> shift & mask)) as usize, step.min(self.bytes - k) as usize)
        })
    }

    /// The span that the block lies in.
    pub fn span(self) -> Span {
        Span { cta: self.cta, at: self.at, bytes: self.bytes }
    }
}

/// What lands.
pub enum Load {
    Bytes {
        to: Block,
        data: Arc<Vec<u8>>,
        /// Shared memory that is read until then.
        from: Option<Block>,
    },
    Reduce {
        to: Block,
        data: Arc<Vec<u8>>,
        from: Option<Block>,
        op: AtomOp,
        ty: AtomTy,
    },
    /// A lane's `cp.async` with numbers below `before`; once they have landed, the lane arrives.
    Copies {
        before: u64,
    },
}

impl Load {
    /// Bytes that are kept until it lands.
    pub fn carries(&self) -> usize {
        match self {
            Load::Bytes { data, .. } | Load::Reduce { data, .. } => data.len(),
            Load::Copies { .. } => 0,
        }
    }
}

/// A copy that completes on an mbarrier.
pub struct Flight {
    pub who: Who,
    pub load: Load,
    /// CTA and shared address of its mbarrier.
    pub signal: (u32, u32),
    /// The mbarrier's phase when it began.
    pub phase: u64,
    /// Bytes that it completes.
    pub bytes: u32,
    pub copy: CopyId,
}

/// Where a store goes.
pub enum Target {
    Global(u64),
    /// The map, and the box's place.
    Tensor(Box<Map>, [i32; 5]),
}

/// A copy of a bulk group.
pub struct Store {
    /// One lane.
    pub who: Who,
    /// How many groups its lane had committed before.
    pub group: u32,
    pub from: Block,
    /// For all that its thread knows, its source has not been read yet.
    pub reading: bool,
    pub data: Arc<Vec<u8>>,
    pub target: Target,
    pub reduce: Option<(AtomOp, AtomTy)>,
    /// A reduction of fp32 takes subnormals for zeros.
    pub ftz: bool,
    pub copy: CopyId,
}

impl Shared {
    /// Whole words that a copy will write: nobody may touch them until it lands.
    ///
    /// # Errors
    /// Another copy is still reading or writing them, or they hold an mbarrier.
    pub fn begin_write(&mut self, block: Block, lane: u32, what: &str) -> Result<(), Box<Fault>> {
        let busy = self.busy();
        for (at, bytes) in block.pieces() {
            let words = at / 4..(at + bytes) / 4;
            if self.shadow()[words.clone()].iter().any(|s| s >> 4 != 0) {
                return Err(self.refuse_write(at, bytes as u32, lane, what));
            }
            self.change(words).1.fill(busy);
        }
        Ok(())
    }

    /// Whole words that a copy reads: nobody may write them until [`Shared::end_read`].
    ///
    /// # Errors
    /// Bytes that nothing has written or that are in flight.
    pub fn begin_read(
        &mut self,
        block: Block,
        lane: u32,
        what: &str,
    ) -> Result<Vec<u8>, Box<Fault>> {
        let mut data = Vec::with_capacity(block.bytes as usize);
        for (at, bytes) in block.pieces() {
            self.check_read(at, bytes as u32, lane, what)?;
            let words = at / 4..(at + bytes) / 4;
            self.lend(words.clone());
            data.extend(self.words()[words].iter().flat_map(|w| w.to_le_bytes()));
        }
        Ok(data)
    }

    /// A copy has read the block: it may be written again.
    pub fn end_read(&mut self, block: Block) {
        for (at, bytes) in block.pieces() {
            self.give_back(at / 4..(at + bytes) / 4);
        }
    }

    fn land_bytes(&mut self, block: Block, data: &[u8]) {
        let mut rest = data;
        for (at, bytes) in block.pieces() {
            let (now, later) = rest.split_at(bytes);
            rest = later;
            let (words, shadow) = self.change(at / 4..(at + bytes) / 4);
            for (w, b) in words.iter_mut().zip(now.as_chunks::<4>().0) {
                *w = u32::from_le_bytes(*b);
            }
            shadow.fill(WRITTEN);
        }
    }
}

/// Bytes of an element: 2, 4 or 8.
pub fn element_bytes(ty: AtomTy) -> u32 {
    match ty {
        AtomTy::F16 | AtomTy::Bf16 => 2,
        AtomTy::U64 | AtomTy::S64 | AtomTy::F64 => 8,
        _ => 4,
    }
}

/// The elements of `data`, each with its offset.
fn elements(data: &[u8], ty: AtomTy) -> impl Iterator<Item = (u64, u64)> {
    let n = element_bytes(ty) as usize;
    data.chunks_exact(n).enumerate().map(move |(i, c)| {
        let mut b = [0; 8];
        b[..n].copy_from_slice(c);
        ((i * n) as u64, u64::from_le_bytes(b))
    })
}

/// Why something could not be, and who did it.
pub type Failed = (Box<Fault>, Who);

impl Load {
    fn to(&self) -> Option<Block> {
        match self {
            Load::Bytes { to, .. } | Load::Reduce { to, .. } => Some(*to),
            Load::Copies { .. } => None,
        }
    }

    /// Shared memory that is read until it lands.
    pub fn from(&self) -> Option<Block> {
        match self {
            Load::Bytes { from, .. } | Load::Reduce { from, .. } => *from,
            Load::Copies { .. } => None,
        }
    }
}

impl Engine {
    /// Who began a copy in flight that uses some of these bytes, and how.
    fn user_of(&self, block: Block) -> Option<(Who, &'static str)> {
        let meets = |b: Option<Block>| {
            b.is_some_and(|b| {
                let touch = |(at, n): (usize, usize)| {
                    block.pieces().any(|(start, m)| at < start + m && start < at + n)
                };
                b.cta == block.cta && b.pieces().any(touch)
            })
        };
        let writes = "began a copy that writes it and has not been waited for";
        let reads = "began a copy that reads it and has not been waited for";
        self.flights
            .iter()
            .find_map(|f| match () {
                () if meets(f.load.to()) => Some((f.who, writes)),
                () if meets(f.load.from()) => Some((f.who, reads)),
                () => None,
            })
            .or_else(|| {
                let store = self.stores.iter().find(|s| s.reading && meets(Some(s.from)))?;
                Some((store.who, reads))
            })
    }

    /// Says who uses what a memory refuses.
    pub fn explain(&self, fault: Box<Fault>, block: Block) -> Box<Fault> {
        match fault.kind {
            FaultKind::InFlight => fault.against(self.user_of(block)),
            _ => fault,
        }
    }

    /// Marks again what other copies still read, once one has given it back.
    fn relend(&self, shared: &mut Shared, given: Block) {
        let overlaps = |b: &Block| {
            // Swizzling stays within 1024 bytes.
            let (from, to) = (b.at & !1023, (b.at + b.bytes).next_multiple_of(1024));
            b.cta == given.cta
                && from < (given.at + given.bytes).next_multiple_of(1024)
                && (given.at & !1023) < to
        };
        let of_stores = self.stores.iter().filter(|s| s.reading).map(|s| s.from);
        let of_flights = self.flights.iter().filter_map(|f| f.load.from());
        for b in of_stores.chain(of_flights).filter(overlaps) {
            for (at, bytes) in b.pieces() {
                shared.lend(at / 4..(at + bytes) / 4);
            }
        }
    }

    /// The source of store `i` has been read.
    pub fn give_back(&mut self, i: usize, shared: &mut Shared) {
        let from = self.stores[i].from;
        if std::mem::take(&mut self.stores[i].reading) {
            shared.end_read(from);
            self.relend(shared, from);
        }
    }

    /// Performs the copy at place `i` of the flights. True if a phase ended with it.
    ///
    /// # Errors
    /// The CTA it goes to has exited; its mbarrier was invalidated, or has had more arrivals or
    /// bytes than it awaits; the phase ends with bytes of it still to come; a reduction adds to
    /// bytes that nothing has written.
    pub fn land(
        &mut self,
        i: usize,
        shared: &mut [Shared],
        ctas: &mut [Cta],
        events: &mut Events,
    ) -> Result<bool, Failed> {
        let f = self.end_flight(i);
        let (rank, at) = f.signal;
        let lane = f.who.lanes.trailing_zeros();
        let what = "an asynchronous copy";
        let fail = |kind, why: String| (Fault::new(kind, lane, format!("{what}: {why}")), f.who);
        let owner = &shared[rank as usize];
        if let (Some(exit), true) = (owner.exited, owner.checks.exits) {
            return Err((peer_exited(rank, exit, lane, what), f.who));
        }
        let mut from_block = None;
        let mut arrives = false;
        match &f.load {
            Load::Bytes { to, data, from } => {
                shared[to.cta as usize].land_bytes(*to, data);
                from_block = *from;
            }
            Load::Reduce { to, data, from, op, ty } => {
                from_block = *from;
                let shared = &mut shared[to.cta as usize];
                let n = element_bytes(*ty);
                for (k, v) in elements(data, *ty) {
                    let at = to.at as usize + k as usize;
                    shared.check_read(at, n, lane, what).map_err(|e| (e, f.who))?;
                    let old = shared.load(at, n);
                    shared.store(at, n, combine(*op, *ty, old, v, 0));
                }
            }
            Load::Copies { before } => {
                let warp = &mut ctas[f.who.cta as usize].warps[f.who.warp as usize];
                let order = (f.who.cta, &mut events.order);
                warp.land_copies(&mut shared[f.who.cta as usize], order, *before, f.who.lanes);
                arrives = true;
            }
        }
        if let Some(from) = from_block {
            let owner = &mut shared[from.cta as usize];
            owner.end_read(from);
            self.relend(owner, from);
        }
        self.progress += 1;
        let Some(b) = shared[rank as usize].mbarriers.get_mut(at) else {
            let why = format!("its mbarrier at shared address {at} was invalidated");
            return Err(fail(FaultKind::Mbarrier, why));
        };
        let phase = b.phase;
        let object = Object::Mbarrier { cta: rank, at };
        if arrives {
            events.arrive(f.who, object, phase, Ordering::Cta);
        }
        events.engine_done(f.copy, object, phase);
        let done = if arrives { b.copies_arrived(f.who) } else { b.complete(f.who, f.bytes) };
        done.and_then(|done| {
            if done {
                self.leftover(rank, at, phase)?;
            }
            Ok(done)
        })
        .map_err(|t| {
            (t.fault(lane, &format!("{what} to the mbarrier at shared address {at}")), f.who)
        })
    }
}

impl Store {
    /// Writes what it carries to global memory.
    pub fn perform(&self, global: &Global) {
        match &self.target {
            Target::Global(address) => {
                if let Some((r, at)) = global.region(*address) {
                    self.write(global, r, at, &self.data);
                }
            }
            Target::Tensor(map, coords) => {
                // The box lies inside: that was checked when the copy began.
                let Some((r, start)) = global.region(map.address) else { return };
                map.walk(coords, Way::Write, |offset, at, bytes| {
                    self.write(global, r, start + at, &self.data[offset..offset + bytes]);
                });
            }
        }
    }

    fn write(&self, global: &Global, r: &Region, at: u64, data: &[u8]) {
        match self.reduce {
            None => r.write_run(at, data),
            Some((op, ty)) => {
                let n = element_bytes(ty);
                for (k, v) in elements(data, ty) {
                    r.note_write(at + k, n.into());
                    global.update(r, at + k, n, |old| combine_in_l2((op, ty, self.ftz), old, v, 0));
                }
            }
        }
    }
}

impl Region {
    /// Bytes from `at` on, which lie inside, into `out`.
    ///
    /// # Errors
    /// Bytes that nothing has written; they are read all the same.
    pub fn read_run(
        &self,
        at: u64,
        out: &mut [u8],
        lane: u32,
        what: &str,
    ) -> Result<(), Box<Fault>> {
        let end = at + out.len() as u64;
        let mut from = at;
        let mut known = Ok(());
        while from < end {
            let to = (from / 32 * 32 + 32).min(end);
            known = known.and(self.note_read(from, to - from, lane, what));
            from = to;
        }
        if at.is_multiple_of(4) {
            let (words, rest) = out.as_chunks_mut::<4>();
            for (k, w) in words.iter_mut().enumerate() {
                *w = self.word(at + 4 * k as u64).load(Relaxed).to_le_bytes();
            }
            let last = at + 4 * words.len() as u64;
            for (k, b) in rest.iter_mut().enumerate() {
                *b = self.load(last + k as u64, 1) as u8;
            }
        } else {
            for (k, b) in out.iter_mut().enumerate() {
                *b = self.load(at + k as u64, 1) as u8;
            }
        }
        known
    }

    /// Writes bytes from `at` on, which lie inside.
    pub fn write_run(&self, at: u64, data: &[u8]) {
        let end = at + data.len() as u64;
        let mut from = at;
        while from < end {
            let to = (from / 32 * 32 + 32).min(end);
            self.note_write(from, to - from);
            from = to;
        }
        let mut k = 0;
        while k < data.len() {
            let here = at + k as u64;
            if here.is_multiple_of(4) && data.len() - k >= 4 {
                let word = [data[k], data[k + 1], data[k + 2], data[k + 3]];
                self.word(here).store(u32::from_le_bytes(word), Relaxed);
                k += 4;
            } else {
                self.store(here, 1, data[k].into());
                k += 1;
            }
        }
    }
}
