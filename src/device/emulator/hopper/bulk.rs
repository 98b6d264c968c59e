//! Bulk copies: `cp.async.bulk`, its tensor forms, reductions, prefetches and groups.

use std::sync::Arc;

use super::flight::{Block, Flight, Load, Store, Target, element_bytes};
use super::{Addr, Map};
use crate::device::emulator::access::lanes;
use crate::device::emulator::events::{Object, Ordering};
use crate::device::emulator::memory::{Global, Region, RegionKind};
use crate::device::emulator::order::BulkDoes;
use crate::device::emulator::program::{AtomOp, AtomTy};
use crate::device::emulator::stream::Way;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Warp};

/// One end of a bulk copy.
#[derive(Debug, Clone, PartialEq)]
pub enum Side {
    Global(Addr),
    Shared(Addr),
    /// The map's address, and the slots of the coordinates.
    Tensor(Addr, Vec<u16>),
}

/// A decoded bulk copy.
#[derive(Debug, Clone, PartialEq)]
pub struct Bulk {
    /// Absent for prefetches.
    pub to: Option<Side>,
    pub from: Side,
    /// 32-bit slot of the bytes; tensor copies move their map's box.
    pub size: Option<u16>,
    /// The mbarrier that it completes on, else it belongs to a bulk group.
    pub mbar: Option<Addr>,
    /// Slot of the mask of ranks that a multicast reaches.
    pub ranks: Option<u16>,
    /// `None` for the type: the tensor's.
    pub reduce: Option<(AtomOp, Option<AtomTy>)>,
}

impl Bulk {
    /// It adds to, or otherwise combines with, what global memory holds.
    pub fn reduces_globally(&self) -> bool {
        self.reduce.is_some() && matches!(self.to, Some(Side::Global(_) | Side::Tensor(..)))
    }
}

const WHAT: &str = "cp.async.bulk";

/// A contiguous run of a copy: its offset in the box, its offset in the buffer, and its bytes.
pub type Run = (usize, u64, u64);

fn operand(lane: u32, message: String) -> Box<Fault> {
    Fault::new(FaultKind::Operand, lane, message)
}

fn aligned(address: u64, to: u64, lane: u32, what: &str) -> Result<(), Box<Fault>> {
    if address.is_multiple_of(to) {
        return Ok(());
    }
    let message = format!("{WHAT}: {what} 0x{address:x} is no multiple of {to}");
    Err(Fault::new(FaultKind::Misaligned, lane, message))
}

impl Warp {
    /// Begins the bulk copies of the lanes of `exec`, one a lane.
    ///
    /// # Errors
    /// A size or address that is no multiple of 16 bytes (of 128, in shared memory, for tensors); a
    /// span outside of its memory; a map, coordinates or reduction that a GPU refuses; no mbarrier
    /// where one is named; a CTA that the cluster does not have or that has exited; bytes that
    /// nothing has written or that are in flight; an access that nothing orders before it; too many
    /// copies without a wait.
    pub fn bulk(
        &mut self,
        cx: &mut Context<'_>,
        b: &Bulk,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        for lane in lanes(exec) {
            self.bulk_one(cx, b, pc, lane)?;
        }
        Ok(())
    }

    fn at(&self, a: Addr, lane: u32) -> u64 {
        self.addresses(a.base, a.offset)[lane as usize]
    }

    /// The coordinates of a box that is read or written.
    ///
    /// # Errors
    /// Too many or too few of them; an innermost one that is no multiple of 16 bytes; in a store or
    /// reduction, one below zero. The PTX text does not forbid the last, but an H200 (driver
    /// 580.159) stopped with an illegal instruction at each that was tried: -16 bytes along the
    /// innermost dimension, -1 and a whole box along the outer of two. Prefetches are taken to be
    /// like loads.
    fn coords(
        &self,
        slots: &[u16],
        map: &Map,
        way: Way,
        lane: u32,
    ) -> Result<[i32; 5], Box<Fault>> {
        if slots.len() != map.rank {
            let message = format!(
                "{WHAT}: {} coordinates for a tensor map of {} dimensions",
                slots.len(),
                map.rank
            );
            return Err(operand(lane, message));
        }
        let mut out = [0; 5];
        for (c, &s) in out.iter_mut().zip(slots) {
            *c = self.regs.r32[usize::from(s)][lane as usize] as i32;
        }
        let why = if i64::from(out[0]) * i64::from(map.element) % 16 != 0 {
            format!(
                "the box's innermost coordinate is {}, of elements of {} bytes: no multiple of 16 \
                 bytes",
                out[0], map.element
            )
        } else if way == Way::Write
            && let Some(k) = out.iter().position(|&c| c < 0)
        {
            let which =
                if k == 0 { "innermost coordinate".into() } else { format!("coordinate {k}") };
            format!("the box's {which} is {}: below zero, which loads alone may be", out[k])
        } else {
            return Ok(out);
        };
        Err(operand(lane, format!("{WHAT}: {why} (a GPU stops with an illegal instruction)")))
    }

    fn bulk_one(
        &mut self,
        cx: &mut Context<'_>,
        b: &Bulk,
        pc: usize,
        lane: u32,
    ) -> Result<(), Box<Fault>> {
        let size = b.size.map(|s| self.regs.r32[usize::from(s)][lane as usize]);
        if let Some(n) = size
            && !n.is_multiple_of(16)
        {
            return Err(operand(lane, format!("{WHAT} of {n} bytes, no multiple of 16")));
        }
        match (&b.from, &b.to) {
            (Side::Shared(from), Some(to)) if b.mbar.is_none() => {
                self.bulk_store(cx, b, (*from, to, size.unwrap_or(0)), pc, lane)
            }
            (from, Some(Side::Shared(to))) => {
                self.bulk_load(cx, b, (from, *to, size.unwrap_or(0)), pc, lane)
            }
            (from, _) => self.bulk_prefetch(cx, from, size.unwrap_or(0), pc, lane),
        }
    }

    /// Global or shared memory to shared memory, completing on an mbarrier.
    fn bulk_load(
        &mut self,
        cx: &mut Context<'_>,
        b: &Bulk,
        (from, to, size): (&Side, Addr, u32),
        pc: usize,
        lane: u32,
    ) -> Result<(), Box<Fault>> {
        let who = self.who(cx.rank, 1 << lane, pc);
        let (to_rank, to_at) = cx.place(to.space, self.at(to, lane), lane, WHAT)?;
        let Some(mbar) = b.mbar else { return Ok(()) };
        let (bar_rank, bar_at) = cx.place(mbar.space, self.at(mbar, lane), lane, WHAT)?;
        if bar_rank != to_rank {
            return Err(operand(
                lane,
                format!(
                    "{WHAT} into CTA {to_rank} of the cluster with an mbarrier in CTA {bar_rank}: \
                     they must be in one"
                ),
            ));
        }
        let mut source = None;
        let (mut region, mut runs) = (None, Vec::new());
        let mut block = Block::plain(to_rank, to_at as u32, size);
        let data = match from {
            Side::Tensor(map, coords) => {
                let map = cx.tensor_map(map.space, self.at(*map, lane), lane, WHAT)?;
                let coords = self.coords(coords, &map, Way::Read, lane)?;
                aligned(to_at, 128, lane, "the shared address")?;
                block.bytes = boxed(&map, cx, lane)?;
                block.swizzle = map.swizzle;
                let mut data = map.filled();
                let r = tensor_runs(cx.global, (&map, &coords, Way::Read), &mut runs, lane)?;
                let mut trouble = Ok(());
                for &(offset, at, bytes) in &runs {
                    let to = &mut data[offset..offset + bytes as usize];
                    let read = r.read_run(at, to, lane, WHAT);
                    if trouble.is_ok() {
                        trouble = read;
                    }
                }
                trouble.or_else(|f| cx.excuse(f, who))?;
                region = Some(r);
                data
            }
            Side::Global(from) => {
                let address = self.at(*from, lane);
                aligned(to_at, 16, lane, "the shared address")?;
                let (r, at) = cx.global.locate_span(address, size.into(), 16, lane, WHAT)?;
                let mut data = vec![0; size as usize];
                r.read_run(at, &mut data, lane, WHAT).or_else(|f| cx.excuse(f, who))?;
                runs.push((0, at, size.into()));
                region = Some(r);
                data
            }
            Side::Shared(from) => {
                let (rank, at) = cx.place(from.space, self.at(*from, lane), lane, WHAT)?;
                aligned(to_at, 16, lane, "the destination")?;
                aligned(at, 16, lane, "the source")?;
                let shared = cx.shared_of(rank);
                shared.locate_span(at, size, lane, WHAT)?;
                let from = Block::plain(rank, at as u32, size);
                source = Some(from);
                let data = shared.begin_read(from, lane, WHAT);
                let data = data.map_err(|f| cx.engine.explain(f, from))?;
                let object = Object::Mbarrier { cta: bar_rank, at: bar_at as u32 };
                cx.events.engine_reads(who, from.span(), object)?;
                data
            }
        };
        let data = Arc::new(data);
        let ranks = match b.ranks {
            None => 1u32 << to_rank,
            Some(s) => self.regs.r32[usize::from(s)][lane as usize] & 0xffff,
        };
        if ranks == 0 || ranks >> cx.peers.count() != 0 {
            let message = format!(
                "{WHAT} to the CTAs of mask 0x{ranks:x} of a cluster of {}",
                cx.peers.count()
            );
            return Err(operand(lane, message));
        }
        if let Some(r) = region {
            for &(_, at, bytes) in &runs {
                cx.count_bulk(pc, r.base + at, bytes, Way::Read);
            }
            // A multicast counts with the end that is nearest to its thread.
            let near = if ranks >> cx.rank & 1 != 0 { cx.rank } else { ranks.trailing_zeros() };
            let at = cx.shared_of(near).mbarrier(bar_at, lane, WHAT)?;
            let phase = cx.shared_of(near).mbarriers.get(at).map_or(0, |b| b.phase);
            let end = (Object::Mbarrier { cta: near, at }, phase);
            if let Side::Tensor(map, _) = from {
                cx.note_map(who, self.at(*map, lane), end)?;
            }
            cx.note_bulk(who, r, &runs, BulkDoes::Read, end)?;
        }
        for rank in lanes(ranks) {
            let to = Block { cta: rank, ..block };
            if rank != cx.rank {
                cx.still_there(rank, lane, WHAT)?;
            }
            let shared = cx.shared_of(rank);
            shared.locate_span(to_at, block.bytes, lane, WHAT)?;
            let at = shared.mbarrier(bar_at, lane, WHAT)?;
            let phase = shared.mbarriers.get(at).map_or(0, |b| b.phase);
            let load = match b.reduce {
                None => {
                    let begun = shared.begin_write(to, lane, WHAT);
                    begun.map_err(|f| cx.engine.explain(f, to))?;
                    Load::Bytes { to, data: data.clone(), from: source }
                }
                Some((op, ty)) => Load::Reduce {
                    to,
                    data: data.clone(),
                    from: source,
                    op,
                    ty: ty.unwrap_or(AtomTy::U32),
                },
            };
            let copy =
                cx.events.engine_writes(who, to.span(), Object::Mbarrier { cta: rank, at })?;
            cx.count_shared(pc, (u64::from(block.bytes).div_ceil(128), 0));
            let signal = (rank, at);
            let bytes = block.bytes;
            cx.engine.begin_flight(Flight { who, load, signal, phase, bytes, copy })?;
        }
        Ok(())
    }

    /// Shared to global memory, in a bulk group.
    fn bulk_store(
        &mut self,
        cx: &mut Context<'_>,
        b: &Bulk,
        (from, to, size): (Addr, &Side, u32),
        pc: usize,
        lane: u32,
    ) -> Result<(), Box<Fault>> {
        let who = self.who(cx.rank, 1 << lane, pc);
        let (rank, at) = cx.place(from.space, self.at(from, lane), lane, WHAT)?;
        let mut block = Block::plain(rank, at as u32, size);
        let mut runs = Vec::new();
        let (target, region, ty, ftz) = match to {
            Side::Tensor(map, coords) => {
                let map = cx.tensor_map(map.space, self.at(*map, lane), lane, WHAT)?;
                let coords = self.coords(coords, &map, Way::Write, lane)?;
                aligned(at, 128, lane, "the shared address")?;
                block.bytes = boxed(&map, cx, lane)?;
                block.swizzle = map.swizzle;
                let r = tensor_runs(cx.global, (&map, &coords, Way::Write), &mut runs, lane)?;
                let (ty, ftz) = (map.ty, map.ftz);
                (Target::Tensor(Box::new(map), coords), r, ty, ftz)
            }
            Side::Global(to) => {
                let address = self.at(*to, lane);
                aligned(at, 16, lane, "the shared address")?;
                let (r, at) = cx.global.locate_span(address, size.into(), 16, lane, WHAT)?;
                runs.push((0, at, size.into()));
                (Target::Global(address), r, Some(AtomTy::U32), true)
            }
            Side::Shared(_) => return Ok(()),
        };
        if region.kind == RegionKind::Constant {
            let message = format!("{WHAT} into constant `{}`", region.name);
            return Err(Fault::new(FaultKind::OutOfBounds, lane, message));
        }
        let mut reduce = None;
        if let Some((op, given)) = b.reduce {
            let Some(ty) = given.or(ty).filter(|ty| reducible(op, *ty)) else {
                let message = format!("{WHAT}: {op:?} is no reduction of elements of {ty:?}");
                return Err(operand(lane, message));
            };
            reduce = Some((op, ty));
            // What a reduction adds to must have been written.
            let n = u64::from(element_bytes(ty));
            for &(_, at, bytes) in &runs {
                for k in (0..bytes).step_by(n as usize) {
                    let read = region.note_read(at + k, n, lane, WHAT);
                    read.or_else(|f| cx.excuse(f, who))?;
                }
            }
        }
        let does = if reduce.is_some() { BulkDoes::Reduce } else { BulkDoes::Write };
        let writes = Object::BulkWrites { cta: cx.rank, warp: self.id, lane };
        let group = self.bulk_committed[lane as usize];
        let end = (writes, group.into());
        if let Side::Tensor(map, _) = to {
            cx.note_map(who, self.at(*map, lane), end)?;
        }
        cx.note_bulk(who, region, &runs, does, end)?;
        let base = region.base;
        for (_, at, bytes) in runs {
            cx.count_bulk(pc, base + at, bytes, Way::Write);
        }
        let shared = cx.shared_of(rank);
        shared.locate_span(at, block.bytes, lane, WHAT)?;
        let data = shared.begin_read(block, lane, WHAT);
        let data = Arc::new(data.map_err(|f| cx.engine.explain(f, block))?);
        let object = Object::BulkGroup { cta: cx.rank, warp: self.id, lane };
        let copy = cx.events.engine_reads(who, block.span(), object)?;
        cx.count_shared(pc, (u64::from(block.bytes).div_ceil(128), 0));
        cx.engine.begin_store(Store {
            who,
            group: self.bulk_committed[lane as usize],
            from: block,
            reading: true,
            data,
            target,
            reduce,
            ftz,
            copy,
        })
    }

    fn bulk_prefetch(
        &mut self,
        cx: &mut Context<'_>,
        from: &Side,
        size: u32,
        pc: usize,
        lane: u32,
    ) -> Result<(), Box<Fault>> {
        let _ = pc;
        match from {
            Side::Tensor(map, coords) => {
                let map = cx.tensor_map(map.space, self.at(*map, lane), lane, WHAT)?;
                self.coords(coords, &map, Way::Read, lane)?;
            }
            Side::Global(from) => {
                let address = self.at(*from, lane);
                cx.global.locate_span(address, size.into(), 16, lane, WHAT)?;
            }
            Side::Shared(_) => {}
        }
        Ok(())
    }

    /// Until all but the latest `groups` are complete, or with `read` have been read.
    ///
    /// # Errors
    /// Never: whatever could fail did so as the copies began.
    pub fn bulk_wait(
        &mut self,
        cx: &mut Context<'_>,
        groups: u32,
        read: bool,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        let rank = cx.rank;
        let warp = self.id;
        let mut i = 0;
        while i < cx.engine.stores.len() {
            let s = &cx.engine.stores[i];
            let (who, lane) = (s.who, s.who.lanes.trailing_zeros());
            let mine = (who.cta, who.warp) == (rank, warp) && who.lanes & exec != 0;
            let committed = u64::from(self.bulk_committed[lane as usize]);
            if !mine || u64::from(s.group) + u64::from(groups) >= committed {
                i += 1;
                continue;
            }
            let from = s.from.cta;
            let object = Object::BulkGroup { cta: rank, warp, lane };
            if s.reading {
                cx.events.engine_done(s.copy, object, s.group.into());
                let shared = if from == rank { &mut *cx.shared } else { cx.peers.get(from) };
                cx.engine.give_back(i, shared);
            }
            if read {
                i += 1;
            } else {
                cx.engine.end_store(i).perform(cx.global);
            }
        }
        for lane in lanes(exec) {
            let committed = self.bulk_committed[lane as usize];
            if committed > groups {
                let object = Object::BulkGroup { cta: rank, warp, lane };
                let who = self.who(rank, 1 << lane, pc);
                let below = u64::from(committed - groups);
                cx.events.observe(who, object, below, Ordering::Cta);
                if !read {
                    let writes = Object::BulkWrites { cta: rank, warp: self.id, lane };
                    cx.events.observe(who, writes, below, Ordering::Cta);
                }
            }
        }
        Ok(())
    }
}

/// Bytes of a map's box, which shared memory must hold.
fn boxed(map: &Map, cx: &Context<'_>, lane: u32) -> Result<u32, Box<Fault>> {
    let bytes = map.box_bytes();
    if bytes <= cx.shared.bytes.into() {
        return Ok(bytes as u32);
    }
    let message = format!(
        "{WHAT}: a box of {bytes} bytes, but the CTA has {} of shared memory",
        cx.shared.bytes
    );
    Err(Fault::new(FaultKind::OutOfBounds, lane, message))
}

/// The runs of a box that are read or written (see [`Map::walk`]), and the buffer that holds all
/// of them.
fn tensor_runs<'a>(
    global: &'a Global,
    (map, coords, way): (&Map, &[i32; 5], Way),
    runs: &mut Vec<Run>,
    lane: u32,
) -> Result<&'a Region, Box<Fault>> {
    let (r, start) = global.locate_span(map.address, 1, 16, lane, WHAT)?;
    let mut past = None;
    map.walk(coords, way, |offset, at, bytes| {
        let end = at.checked_add(start + bytes as u64);
        match end.filter(|end| *end <= r.bytes) {
            Some(_) => runs.push((offset, start + at, bytes as u64)),
            None => past = past.or(Some(at)),
        }
    });
    match past {
        None => Ok(r),
        Some(at) => {
            let pieces = if way == Way::Write && map.is_ragged() {
                "; a store writes to the end of the 16-byte piece that a row ends in"
            } else {
                ""
            };
            let message = format!(
                "{WHAT}: the tensor map reaches past `{}` ({} bytes): a row of the box lies at byte \
                 {at} behind the map's address, byte {start} of it{pieces}",
                r.name, r.bytes
            );
            Err(Fault::new(FaultKind::OutOfBounds, lane, message))
        }
    }
}

/// Whether the copy engine reduces elements of that type so.
pub fn reducible(op: AtomOp, ty: AtomTy) -> bool {
    use AtomOp::{Add, And, Dec, Inc, Max, Min, Or, Xor};
    match ty {
        AtomTy::F16 | AtomTy::Bf16 => matches!(op, Add | Min | Max),
        AtomTy::F32 | AtomTy::F64 => op == Add,
        AtomTy::U32 => matches!(op, Add | Min | Max | Inc | Dec | And | Or | Xor),
        AtomTy::S32 => matches!(op, Add | Min | Max | And | Or | Xor),
        AtomTy::U64 => matches!(op, Add | Min | Max | And | Or | Xor),
        AtomTy::S64 => matches!(op, Add | Min | Max),
        AtomTy::F16x2 | AtomTy::Bf16x2 => false,
    }
}
