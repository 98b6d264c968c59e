//! `cp.async`: copies of a warp between their beginning and their wait.

use std::sync::atomic::Ordering::Relaxed;

use super::lanes;
use crate::device::emulator::events::Who;
use crate::device::emulator::hopper::too_many;
use crate::device::emulator::memory::{Global, Shared, wavefronts};
use crate::device::emulator::order::Order;
use crate::device::emulator::program::{Extra, Mem};
use crate::device::emulator::stream::Way;
use crate::device::emulator::survey::global_runs;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Warp};

/// Asynchronous copies that one instruction of a warp began.
pub struct Batch {
    pc: usize,
    /// Lanes whose copy is still in flight.
    mask: u32,
    words: usize,
    to: [u32; 32],
    /// The group that each lane's copy belongs to.
    group: [u32; 32],
    /// Its number among its warp's copies.
    number: u64,
    data: [[u32; 4]; 32],
}

/// Instructions of a warp whose copies may be in flight at once.
const MOST: usize = 1 << 14;

impl Warp {
    /// Lanes that have copies in flight.
    pub fn copying(&self) -> u32 {
        self.copies.iter().fold(0, |all, b| all | b.mask)
    }

    /// Begins copies: the source is read now, the destination holds nothing until the wait.
    ///
    /// # Errors
    /// Too many copies without a wait; an address outside of its buffer or misaligned; a source
    /// size above that of the copy; a source that nothing has written; a destination that a copy
    /// still reads or that holds an mbarrier; an access that nothing orders before it.
    pub fn cp_async(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let Extra::CpAsync { from, offset, bytes, ignore } = mem.extra else { return Ok(()) };
        if self.copies.len() >= MOST {
            let bytes =
                self.copies.iter().map(|b| 4 * b.words * b.mask.count_ones() as usize).sum();
            return Err(too_many(MOST, bytes, mask.trailing_zeros()));
        }
        let source = self.addresses(from, offset);
        let size = mem.size;
        let skip = ignore.map_or(0, |p| {
            let v = self.regs.p[usize::from(p >> 1)];
            if p & 1 != 0 { !v } else { v }
        });
        let mut batch = self.spare.pop().unwrap_or_else(|| {
            Box::new(Batch {
                pc: 0,
                mask: 0,
                words: 0,
                to: [0; 32],
                group: [0; 32],
                number: 0,
                data: [[0; 4]; 32],
            })
        });
        batch.mask = mask;
        batch.words = size as usize / 4;
        batch.pc = pc;
        batch.group = self.committed;
        batch.number = self.copies_begun;
        self.copies_begun += 1;
        let whole = skip & mask == 0
            && bytes.is_none_or(|r| {
                let wanted = &self.regs.r32[usize::from(r)];
                lanes(mask).all(|lane| wanted[lane as usize] == size)
            });
        if cx.ordered() {
            let to = self.addresses(mem.base, mem.offset);
            let reading = if whole { mask } else { 0 };
            self.order_copies(cx, mem, (&to, &source), pc, (mask, reading))?;
        }
        if whole
            && let Some(s) = self.look(cx, mem, size, mask)
            && s.settled(cx.shared, batch.words)
            && fetch(cx.global, &source, mask, size, &mut batch.data)
        {
            for lane in lanes(mask) {
                let at = s.at[lane as usize] * 4;
                cx.shared.depart(at as usize, size);
                batch.to[lane as usize] = at;
            }
            cx.count_global(pc, &source, mask, Way::Read);
            cx.count_shared(pc, s.cycles);
            self.copies.push(batch);
            return Ok(());
        }
        let to = self.addresses(mem.base, mem.offset);
        let mut reading = 0;
        for lane in lanes(mask) {
            let i = lane as usize;
            let at = cx.shared.locate(to[i], size, lane, "cp.async into shared memory")?;
            let take = if skip >> lane & 1 != 0 {
                0
            } else {
                match bytes {
                    Some(r) => self.regs.r32[usize::from(r)][i],
                    None => size,
                }
            };
            if take > size {
                let message = format!("cp.async of {size} bytes with a source size of {take}");
                return Err(Fault::new(FaultKind::Operand, lane, message));
            }
            let data = &mut batch.data[i];
            if take == size {
                reading |= 1 << lane;
                let what = "cp.async from global memory";
                let (r, g) = cx.global.locate(source[i], size.into(), lane, what)?;
                r.note_read(g, size.into(), lane, what)?;
                for (k, word) in data[..batch.words].iter_mut().enumerate() {
                    *word = r.word(g + 4 * k as u64).load(Relaxed);
                }
            } else {
                *data = [0; 4];
                if take > 0 {
                    reading |= 1 << lane;
                    partial(cx, source[i], size, take, lane, data)?;
                }
            }
            cx.shared.check_depart(at, size, lane, "cp.async into shared memory")?;
            cx.shared.depart(at, size);
            batch.to[i] = at as u32;
        }
        cx.count_global(pc, &source, reading, Way::Read);
        cx.count_shared(pc, wavefronts(&to, mask, size));
        self.copies.push(batch);
        Ok(())
    }

    /// `cp.async.commit_group` by the lanes of `mask`.
    pub fn commit_group(&mut self, mask: u32) {
        for lane in lanes(mask) {
            self.committed[lane as usize] += 1;
        }
    }

    /// Lands what belongs to groups before the latest `keep`; with `None`, everything.
    pub fn wait_group(&mut self, cx: &mut Context<'_>, keep: Option<u32>, mask: u32) {
        let (rank, order) = (cx.rank, &mut cx.events.order);
        self.land_where(cx.shared, (rank, order), mask, |group, committed, _| match keep {
            None => true,
            Some(n) => u64::from(group) + u64::from(n) < u64::from(committed),
        });
    }

    /// Lands the copies of `mask` that began before copy `before` of the warp.
    pub fn land_copies(
        &mut self,
        shared: &mut Shared,
        order: (u32, &mut Order),
        before: u64,
        mask: u32,
    ) {
        self.land_where(shared, order, mask, |_, _, number| number < before);
    }

    /// Lands the copies that `lands` names, by group, groups committed, and number. The CTA's rank
    /// stands beside the order of its cluster.
    fn land_where(
        &mut self,
        shared: &mut Shared,
        (rank, order): (u32, &mut Order),
        mask: u32,
        lands: impl Fn(u32, u32, u64) -> bool,
    ) {
        let mut at = 0;
        while at < self.copies.len() {
            let b = &mut self.copies[at];
            for lane in lanes(mask & b.mask) {
                let i = lane as usize;
                if lands(b.group[i], self.committed[i], b.number) {
                    b.mask &= !(1 << lane);
                    shared.land(b.to[i] as usize, &b.data[i][..b.words]);
                    let who = Who { cta: rank, warp: self.id, lanes: mask, pc: b.pc };
                    order.copied(who, lane, b.to[i], b.words);
                }
            }
            if b.mask == 0 {
                // Order matters where two copies write one place.
                let done = self.copies.remove(at);
                self.spare.push(done);
            } else {
                at += 1;
            }
        }
    }
}

/// Reads `size` bytes for each lane, if nothing is wrong with any of them.
#[inline(always)]
fn fetch(
    global: &Global,
    source: &[u64; 32],
    mask: u32,
    size: u32,
    data: &mut [[u32; 4]; 32],
) -> bool {
    let n = size as usize / 4;
    global_runs(global, source, mask, size, |region, at, first, lanes| {
        if !region.note_range(at, (4 * n * lanes) as u64) {
            return false;
        }
        let words = region.words(at, n * lanes).chunks_exact(n);
        for (to, from) in data[first..first + lanes].iter_mut().zip(words) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from.load(Relaxed));
        }
        true
    })
}

#[cold]
fn partial(
    cx: &Context<'_>,
    source: u64,
    size: u32,
    take: u32,
    lane: u32,
    data: &mut [u32; 4],
) -> Result<(), Box<Fault>> {
    let what = "cp.async from global memory";
    if !source.is_multiple_of(size.into()) {
        cx.global.locate(source, size.into(), lane, what)?;
    }
    for b in 0..take {
        let (r, at) = cx.global.locate(source + u64::from(b), 1, lane, what)?;
        r.note_read(at, 1, lane, what)?;
        data[b as usize / 4] |= (r.load(at, 1) as u32) << (8 * (b % 4));
    }
    Ok(())
}
