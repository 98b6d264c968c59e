//! Loads, stores, atomics and asynchronous copies of a warp.

mod atomic;
mod copies;
mod local;
mod matrix;

use std::sync::atomic::Ordering::Relaxed;

pub use atomic::{combine, combine_in_l2};
pub use copies::Batch;

use super::memory::{self, Global, Region, RegionKind, wavefronts};
use super::program::{Base, Mem};
use super::ptx::ast::Space;
use super::regs::El;
use super::stream::Way;
use super::survey::{Survey, global_runs, survey};
use super::trap::{Fault, FaultKind};
use super::warp::{Context, Warp};

/// The lanes of a mask, ascending.
#[inline(always)]
pub fn lanes(mask: u32) -> impl Iterator<Item = u32> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        if rest == 0 {
            return None;
        }
        let lane = rest.trailing_zeros();
        rest &= rest - 1;
        Some(lane)
    })
}

impl Warp {
    /// The address that each lane names, active or not.
    #[inline(always)]
    pub fn addresses(&self, base: Base, offset: i64) -> [u64; 32] {
        match base {
            Base::None => [offset as u64; 32],
            Base::R32(r) => {
                let row = &self.regs.r32[usize::from(r)];
                std::array::from_fn(|i| u64::from(row[i]).wrapping_add_signed(offset))
            }
            Base::R64(r) => {
                let row = &self.regs.r64[usize::from(r)];
                std::array::from_fn(|i| row[i].wrapping_add_signed(offset))
            }
        }
    }

    /// Splits a generic access: lanes in own shared, other shared, local, parameter and global
    /// memory.
    fn split(address: &mut [u64; 32], mask: u32) -> [(Space, u32); 5] {
        let (mut shared, mut cluster, mut local, mut param) = (0, 0, 0, 0);
        for lane in lanes(mask) {
            let a = &mut address[lane as usize];
            match memory::window(*a) {
                Some((Space::Shared, at)) => {
                    (*a, shared) = (at, shared | 1 << lane);
                }
                Some((Space::Cluster, at)) => {
                    (*a, cluster) = (at, cluster | 1 << lane);
                }
                Some((Space::Param, at)) => {
                    (*a, param) = (at, param | 1 << lane);
                }
                Some((_, at)) => {
                    (*a, local) = (at, local | 1 << lane);
                }
                None => {}
            }
        }
        let global = mask & !shared & !cluster & !local & !param;
        [
            (Space::Shared, shared),
            (Space::Cluster, cluster),
            (Space::Local, local),
            (Space::Param, param),
            (Space::Global, global),
        ]
    }

    /// Executes `ld` for the lanes of `mask`.
    ///
    /// # Errors
    /// An address outside of its memory or misaligned; a byte that nothing has written or that is
    /// in flight; a write that nothing orders before it.
    pub fn load(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        if cx.ordered() && mem.space != Space::Generic {
            let address = self.addresses(mem.base, mem.offset);
            self.order_load(cx, mem, mem.space, &address, pc, mask)?;
        }
        if mem.space == Space::Shared && self.load_row(cx, mem, pc, mask) {
            return Ok(());
        }
        let mut address = self.addresses(mem.base, mem.offset);
        if mem.space != Space::Generic {
            self.load_from(cx, mem, mem.space, &address, pc, mask)?;
            if mem.strength.strong && mem.space == Space::Global && cx.ordered() {
                self.order_loaded(cx, mem, &address, pc, mask);
            }
            return Ok(());
        }
        for (space, mask) in Self::split(&mut address, mask) {
            if mask != 0 {
                if cx.ordered() {
                    self.order_load(cx, mem, space, &address, pc, mask)?;
                }
                self.load_from(cx, mem, space, &address, pc, mask)?;
            }
        }
        Ok(())
    }

    /// Sets element `k` of a lane's registers of an access, extended as the access says.
    #[inline(always)]
    pub fn put(&mut self, mem: &Mem, k: u32, lane: u32, v: u64) {
        let reg = usize::from(mem.regs[k as usize]);
        let v = if mem.signed {
            let shift = 64 - 8 * mem.size;
            ((v << shift) as i64 >> shift) as u64
        } else {
            v
        };
        if mem.wide {
            self.regs.r64[reg][lane as usize] = v;
        } else {
            self.regs.r32[reg][lane as usize] = v as u32;
        }
    }

    /// Element `k` of a lane's registers of an access.
    #[inline(always)]
    pub fn get(&self, mem: &Mem, k: u32, lane: u32) -> u64 {
        let reg = usize::from(mem.regs[k as usize]);
        if mem.wide {
            self.regs.r64[reg][lane as usize]
        } else {
            self.regs.r32[reg][lane as usize].into()
        }
    }

    fn load_from(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        space: Space,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let (size, n) = (mem.size, mem.n);
        let bytes = size * n;
        match space {
            Space::Global | Space::Const => {
                if space == Space::Global && self.load_runs(cx.global, mem, address, mask) {
                    cx.count_global(pc, address, mask, Way::Read);
                    return Ok(());
                }
                for lane in lanes(mask) {
                    let (r, at) = cx.global.locate(
                        address[lane as usize],
                        bytes.into(),
                        lane,
                        "global load",
                    )?;
                    if let Err(f) = r.note_read(at, bytes.into(), lane, "global load") {
                        cx.excuse(f, cx.who(self.id, mask, pc))?;
                    }
                    if size == 4 && !mem.wide {
                        for k in 0..n {
                            let v = r.word(at + u64::from(4 * k)).load(Relaxed);
                            self.regs.r32[usize::from(mem.regs[k as usize])][lane as usize] = v;
                        }
                    } else {
                        for k in 0..n {
                            self.put(mem, k, lane, r.load(at + u64::from(size * k), size));
                        }
                    }
                }
                if space == Space::Global {
                    cx.count_global(pc, address, mask, Way::Read);
                }
            }
            Space::Shared => {
                for lane in lanes(mask) {
                    let at =
                        cx.shared.locate(address[lane as usize], bytes, lane, "shared load")?;
                    if let Err(f) = cx.shared.check_read(at, bytes, lane, "shared load") {
                        cx.excuse(f, cx.who(self.id, mask, pc))?;
                    }
                    if size == 4 && !mem.wide {
                        for k in 0..n as usize {
                            self.regs.r32[usize::from(mem.regs[k])][lane as usize] =
                                cx.shared.words()[at / 4 + k];
                        }
                    } else {
                        for k in 0..n {
                            self.put(mem, k, lane, cx.shared.load(at + (size * k) as usize, size));
                        }
                    }
                }
                cx.count_shared(pc, wavefronts(address, mask, bytes));
            }
            Space::Cluster => self.load_cluster(cx, mem, address, pc, mask)?,
            Space::Local => {
                for lane in lanes(mask) {
                    let at = self.local(address[lane as usize], bytes, lane, "local load")?;
                    for k in 0..n {
                        let v = self.local_load(at + (size * k) as usize, size, lane)?;
                        self.put(mem, k, lane, v);
                    }
                }
            }
            Space::Param | Space::Generic => {
                for lane in lanes(mask) {
                    let at = address[lane as usize];
                    let end = cx.params.len() as u64;
                    let inside = at < end && at + u64::from(bytes) <= end;
                    if !inside || !at.is_multiple_of(bytes.into()) {
                        return Err(Fault::new(
                            FaultKind::OutOfBounds,
                            lane,
                            format!(
                                "load of {bytes} bytes at {at} of the parameters, which take {} \
                                 bytes, or misaligned",
                                cx.params.len()
                            ),
                        ));
                    }
                    for k in 0..n {
                        let from = (at as usize) + (size * k) as usize;
                        let mut b = [0; 8];
                        b[..size as usize].copy_from_slice(&cx.params[from..from + size as usize]);
                        self.put(mem, k, lane, u64::from_le_bytes(b));
                    }
                }
            }
        }
        Ok(())
    }

    /// The survey of an access to shared memory, `bytes` a lane.
    #[inline(always)]
    fn look(&self, cx: &Context<'_>, mem: &Mem, bytes: u32, mask: u32) -> Option<Survey> {
        let Base::R32(base) = mem.base else { return None };
        let base = &self.regs.r32[usize::from(base)];
        survey(cx.arch, cx.shared, base, mem.offset, mask, bytes)
    }

    /// Loads words of all lanes at once, if nothing is wrong with any of them.
    #[inline(never)]
    fn load_row(&mut self, cx: &mut Context<'_>, mem: &Mem, pc: usize, mask: u32) -> bool {
        if mem.size != 4 || mem.wide {
            return false;
        }
        let n = mem.n as usize;
        let Some(s) = self.look(cx, mem, 4 * mem.n, mask) else { return false };
        if !s.written(cx.shared, n) {
            return false;
        }
        for k in 0..n {
            u32::write(&mut self.regs, mem.regs[k], mask, &s.gather(cx.shared, n, k));
        }
        cx.count_shared(pc, s.cycles);
        true
    }

    /// Stores words of all lanes at once, if nothing is wrong with any of them.
    #[inline(never)]
    fn store_row(&self, cx: &mut Context<'_>, mem: &Mem, pc: usize, mask: u32) -> bool {
        if mem.size != 4 || mem.wide {
            return false;
        }
        let n = mem.n as usize;
        let Some(s) = self.look(cx, mem, 4 * mem.n, mask) else { return false };
        if !s.settled(cx.shared, n) {
            return false;
        }
        let value = |i: usize, k: usize| self.regs.r32[usize::from(mem.regs[k])][i];
        s.write(cx.shared, mask, n, value);
        cx.count_shared(pc, s.cycles);
        true
    }

    /// Loads words from global memory by runs of lanes, if nothing is wrong with any of them.
    #[inline(never)]
    fn load_runs(&mut self, global: &Global, mem: &Mem, address: &[u64; 32], mask: u32) -> bool {
        if mem.size != 4 || mem.wide {
            return false;
        }
        let n = mem.n as usize;
        global_runs(global, address, mask, 4 * mem.n, |region, at, first, lanes| {
            if !region.note_range(at, (4 * n * lanes) as u64) {
                return false;
            }
            for (i, words) in region.words(at, n * lanes).chunks_exact(n).enumerate() {
                for (word, reg) in words.iter().zip(&mem.regs) {
                    self.regs.r32[usize::from(*reg)][(first + i) & 31] = word.load(Relaxed);
                }
            }
            true
        })
    }

    /// Stores words to global memory by runs of lanes, if nothing is wrong with any of them.
    #[inline(never)]
    fn store_runs(&self, global: &Global, mem: &Mem, address: &[u64; 32], mask: u32) -> bool {
        if mem.size != 4 || mem.wide {
            return false;
        }
        let n = mem.n as usize;
        // All are looked at before any is stored.
        let sound = |r: &Region, _, _, _| r.kind != RegionKind::Constant;
        global_runs(global, address, mask, 4 * mem.n, sound)
            && global_runs(global, address, mask, 4 * mem.n, |region, at, first, lanes| {
                region.note_written(at, (4 * n * lanes) as u64);
                for (i, words) in region.words(at, n * lanes).chunks_exact(n).enumerate() {
                    for (word, reg) in words.iter().zip(&mem.regs) {
                        let v = self.regs.r32[usize::from(*reg)][(first + i) & 31];
                        word.store(v, Relaxed);
                    }
                }
                true
            })
    }

    /// Executes `st` for the lanes of `mask`.
    ///
    /// # Errors
    /// An address outside of its memory, misaligned or of constant memory; bytes in flight; an
    /// access that nothing orders before it; lanes that write different values to one byte.
    pub fn store(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        if cx.ordered() && mem.space != Space::Generic {
            let address = self.addresses(mem.base, mem.offset);
            self.order_store(cx, mem, mem.space, &address, pc, mask)?;
        }
        if mem.space == Space::Shared && self.store_row(cx, mem, pc, mask) {
            return Ok(());
        }
        let mut address = self.addresses(mem.base, mem.offset);
        if mem.space != Space::Generic {
            return self.store_to(cx, mem, mem.space, &address, pc, mask);
        }
        for (space, mask) in Self::split(&mut address, mask) {
            if mask != 0 {
                if cx.ordered() {
                    self.order_store(cx, mem, space, &address, pc, mask)?;
                }
                self.store_to(cx, mem, space, &address, pc, mask)?;
            }
        }
        Ok(())
    }

    fn store_to(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        space: Space,
        address: &[u64; 32],
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let (size, n) = (mem.size, mem.n);
        let bytes = size * n;
        match space {
            Space::Shared => {
                for lane in lanes(mask) {
                    let at =
                        cx.shared.locate(address[lane as usize], bytes, lane, "shared store")?;
                    cx.shared.note_write(at, bytes, lane, "shared store")?;
                    for k in 0..n {
                        let v = self.get(mem, k, lane);
                        cx.shared.store(at + (size * k) as usize, size, v);
                    }
                }
                cx.count_shared(pc, wavefronts(address, mask, bytes));
            }
            Space::Cluster => self.store_cluster(cx, mem, address, pc, mask)?,
            Space::Param => {
                let message = "store into a parameter of the entry".to_owned();
                return Err(Fault::new(FaultKind::OutOfBounds, mask.trailing_zeros(), message));
            }
            Space::Local => {
                for lane in lanes(mask) {
                    let at = self.local(address[lane as usize], bytes, lane, "local store")?;
                    for k in 0..n {
                        let v = self.get(mem, k, lane);
                        self.local_store(at + (size * k) as usize, size, lane, v);
                    }
                }
            }
            _ => {
                if self.store_runs(cx.global, mem, address, mask) {
                    cx.count_global(pc, address, mask, Way::Write);
                    return Ok(());
                }
                for lane in lanes(mask) {
                    let (r, at) = cx.global.locate(
                        address[lane as usize],
                        bytes.into(),
                        lane,
                        "global store",
                    )?;
                    if r.kind == memory::RegionKind::Constant {
                        return Err(Fault::new(
                            FaultKind::OutOfBounds,
                            lane,
                            format!("store into constant `{}`", r.name),
                        ));
                    }
                    r.note_write(at, bytes.into());
                    for k in 0..n {
                        r.store(at + u64::from(size * k), size, self.get(mem, k, lane));
                    }
                }
                cx.count_global(pc, address, mask, Way::Write);
            }
        }
        Ok(())
    }
}
