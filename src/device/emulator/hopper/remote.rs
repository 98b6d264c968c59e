//! The shared memory of other CTAs: addresses, `st.async`, `red.async`, and plain accesses.

use std::sync::Arc;

use pulp::Arch;

use super::flight::{Block, Flight, Load};
use super::{Addr, RANK_SHIFT};
use crate::device::emulator::access::lanes;
use crate::device::emulator::events::Object;
use crate::device::emulator::order::{ascending, collide};
use crate::device::emulator::program::{AtomOp, AtomTy, Mem};
use crate::device::emulator::ptx::ast::Space;
use crate::device::emulator::regs::{El, Regs, Row, Slots};
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Warp};

/// `st.async`, or with a reduction `red.async`.
#[derive(Debug, Clone, PartialEq)]
pub struct Remote {
    pub to: Addr,
    /// Slots of the elements.
    pub values: Vec<u16>,
    pub wide: bool,
    pub mbar: Addr,
    pub reduce: Option<(AtomOp, AtomTy)>,
}

impl Warp {
    /// Begins `st.async` or `red.async` of the lanes of `exec`.
    ///
    /// # Errors
    /// Data and mbarrier in different CTAs; a span outside of shared memory, misaligned or in
    /// flight; no live mbarrier; a CTA that the cluster does not have or that has exited; an access
    /// that nothing orders before it; too many copies without a wait.
    pub fn remote(
        &mut self,
        cx: &mut Context<'_>,
        r: &Remote,
        pc: usize,
        exec: u32,
    ) -> Result<(), Box<Fault>> {
        let what = if r.reduce.is_some() { "red.async" } else { "st.async" };
        let to = self.addresses(r.to.base, r.to.offset);
        let bar = self.addresses(r.mbar.base, r.mbar.offset);
        for lane in lanes(exec) {
            let i = lane as usize;
            let mut data = Vec::with_capacity(16);
            for &v in &r.values {
                if r.wide {
                    data.extend(self.regs.r64[usize::from(v)][i].to_le_bytes());
                } else {
                    data.extend(self.regs.r32[usize::from(v)][i].to_le_bytes());
                }
            }
            let (rank, at) = cx.place(r.to.space, to[i], lane, what)?;
            let (bar_rank, bar_at) = cx.place(r.mbar.space, bar[i], lane, what)?;
            if rank != bar_rank {
                let message = format!(
                    "{what} into CTA {rank} of the cluster with an mbarrier in CTA {bar_rank}: \
                     they must be in one"
                );
                return Err(Fault::new(FaultKind::Operand, lane, message));
            }
            let who = self.who(cx.rank, 1 << lane, pc);
            let bytes = data.len() as u32;
            let shared = cx.shared_of(rank);
            let at = shared.locate(at, bytes, lane, what)? as u32;
            let bar_at = shared.mbarrier(bar_at, lane, what)?;
            let phase = shared.mbarriers.get(bar_at).map_or(0, |b| b.phase);
            let to = Block::plain(rank, at, bytes);
            let data = Arc::new(data);
            let load = match r.reduce {
                None => {
                    let begun = shared.begin_write(to, lane, what);
                    begun.map_err(|f| cx.engine.explain(f, to))?;
                    Load::Bytes { to, data, from: None }
                }
                Some((op, ty)) => Load::Reduce { to, data, from: None, op, ty },
            };
            let object = Object::Mbarrier { cta: rank, at: bar_at };
            let atomic = r.reduce.is_some();
            let copy = cx.events.order.remote_writes(who, to.span(), object, atomic)?;
            cx.count_shared(pc, (1, 0));
            let signal = (rank, bar_at);
            cx.engine.begin_flight(Flight { who, load, signal, phase, bytes, copy })?;
        }
        Ok(())
    }

    /// A load from shared memory of the cluster, lane by lane.
    ///
    /// # Errors
    /// An address outside of shared memory or misaligned, or of a CTA that has exited; bytes that
    /// nothing has written or that are in flight; a write that nothing orders before it.
    pub fn load_cluster(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let (what, bytes) = ("shared::cluster load", mem.size * mem.n);
        for lane in lanes(mask) {
            let (rank, at) = cx.place(Space::Cluster, address[lane as usize], lane, what)?;
            let shared = cx.shared_of(rank);
            let at = shared.locate(at, bytes, lane, what)?;
            let who = cx.who(self.id, 1 << lane, pc);
            cx.note_peer_load(who, mem, (rank, at as u64), bytes)?;
            let read = cx.shared_of(rank).check_read(at, bytes, lane, what);
            if let Err(f) = read {
                cx.excuse(f, who)?;
            }
            for k in 0..mem.n {
                let v = cx.shared_of(rank).load(at + (mem.size * k) as usize, mem.size);
                self.put(mem, k, lane, v);
            }
        }
        cx.count_shared(pc, (mask.count_ones().into(), 0));
        Ok(())
    }

    /// A store to shared memory of the cluster, lane by lane.
    ///
    /// # Errors
    /// An address outside of shared memory or misaligned, or of a CTA that has exited; bytes in
    /// flight; an access that nothing orders before it; lanes that write different values to one
    /// byte.
    pub fn store_cluster(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let (what, bytes) = ("shared::cluster store", mem.size * mem.n);
        let value = |k, lane| self.get(mem, k, lane) & (u64::MAX >> (64 - 8 * mem.size));
        if cx.ordered() && cx.events.order.checks.races && !ascending(address, mask, bytes) {
            collide("shared::cluster", mem, address, mask, value, &|at| format!("0x{at:x}"))?;
        }
        for lane in lanes(mask) {
            let (rank, at) = cx.place(Space::Cluster, address[lane as usize], lane, what)?;
            let shared = cx.shared_of(rank);
            let at = shared.locate(at, bytes, lane, what)?;
            let who = cx.who(self.id, 1 << lane, pc);
            let shared = cx.shared_of(rank);
            let same = |k| shared.load(at + (mem.size * k) as usize, mem.size) == value(k, lane);
            let idle = (0..mem.n).all(same);
            cx.note_peer_store(who, mem, (rank, at as u64), bytes, idle)?;
            cx.shared_of(rank).note_write(at, bytes, lane, what)?;
            for k in 0..mem.n {
                let v = self.get(mem, k, lane);
                cx.shared_of(rank).store(at + (mem.size * k) as usize, mem.size, v);
            }
        }
        cx.count_shared(pc, (mask.count_ones().into(), 0));
        Ok(())
    }
}

const OFFSET: u64 = (1 << RANK_SHIFT) - 1;

/// `o = [d, address, rank]`; `imm`: 1 for 64 bits.
pub fn mapa(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let rank = r.r32[usize::from(s.o[2])];
    let map = |a: u64, i: usize| {
        // Ranks beyond any cluster stay beyond it.
        let rank = u64::from(rank[i].min(0xfe)) + 1;
        a & !0xffff_ffff | rank << RANK_SHIFT | a & OFFSET
    };
    if s.imm == 1 {
        let a = r.r64[usize::from(s.o[1])];
        let out = Row(std::array::from_fn(|i| map(a[i], i)));
        u64::write(r, s.o[0], mask, &out);
    } else {
        let a = r.r32[usize::from(s.o[1])];
        let out = Row(std::array::from_fn(|i| map(a[i].into(), i) as u32));
        u32::write(r, s.o[0], mask, &out);
    }
}

/// `o = [d, address, own rank]`; `imm`: 1 for addresses of 64 bits.
pub fn getctarank(_: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    let out = Row(std::array::from_fn(|i| {
        let a = if s.imm == 1 {
            r.r64[usize::from(s.o[1])][i] as u32
        } else {
            r.r32[usize::from(s.o[1])][i]
        };
        match a >> RANK_SHIFT {
            0 => r.r32[usize::from(s.o[2])][i],
            rank => rank - 1,
        }
    }));
    u32::write(r, s.o[0], mask, &out);
}
