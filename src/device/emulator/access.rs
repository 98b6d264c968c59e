//! Loads, stores, atomics and asynchronous copies of a warp.

use std::sync::atomic::Ordering::Relaxed;

use half::{bf16, f16};

use super::events::Who;
use super::memory::{self, Global, Region, RegionKind, Shared, wavefronts};
use super::order::Order;
use super::program::{AtomOp, AtomTy, Base, Extra, Mem};
use super::ptx::ast::Space;
use super::regs::{El, Row};
use super::stream::Way;
use super::survey::{Survey, global_runs, survey};
use super::trap::{Fault, FaultKind};
use super::warp::{Context, Warp};
use super::warpwide::transpose;

/// Asynchronous copies that one instruction of a warp began.
pub struct Batch {
    pc: usize,
    /// Lanes whose copy is still in flight.
    mask: u32,
    words: usize,
    to: [u32; 32],
    /// The group that each lane's copy belongs to.
    group: [u32; 32],
    /// Which of its warp's copies it is.
    number: u64,
    data: [[u32; 4]; 32],
}

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
                                cx.shared.words[at / 4 + k];
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

    fn local(&self, at: u64, bytes: u32, lane: u32, what: &str) -> Result<usize, Box<Fault>> {
        let limit = self.local.len() as u64 * 4;
        if at >= limit || at + u64::from(bytes) > limit {
            let message = format!(
                "{what} of {bytes} bytes at local address {at}: a thread has {limit} bytes"
            );
            return Err(Fault::new(FaultKind::OutOfBounds, lane, message));
        }
        if !at.is_multiple_of(bytes.into()) {
            let message =
                format!("{what} of {bytes} bytes at local address {at}, no multiple of {bytes}");
            return Err(Fault::new(FaultKind::Misaligned, lane, message));
        }
        Ok(at as usize)
    }

    fn local_load(&self, at: usize, size: u32, lane: u32) -> Result<u64, Box<Fault>> {
        let l = lane as usize;
        let want = if size < 4 { ((1u8 << size) - 1) << (at % 4) } else { 0xf };
        let mut v = 0;
        for k in 0..(size as usize).div_ceil(4) {
            if self.local_shadow[at / 4 + k][l] & want != want {
                let message = format!("local load at address {at}, which was never written");
                return Err(Fault::new(FaultKind::Uninitialised, lane, message));
            }
            v |= u64::from(self.local[at / 4 + k][l]) << (32 * k);
        }
        if size < 4 {
            v = v >> (8 * (at % 4)) & ((1 << (8 * size)) - 1);
        }
        Ok(v)
    }

    fn local_store(&mut self, at: usize, size: u32, lane: u32, v: u64) {
        let l = lane as usize;
        if size < 4 {
            let shift = 8 * (at % 4);
            let field = ((1u32 << (8 * size)) - 1) << shift;
            let w = &mut self.local[at / 4][l];
            *w = *w & !field | (v as u32) << shift & field;
            self.local_shadow[at / 4][l] |= ((1 << size) - 1) << (at % 4);
            return;
        }
        for k in 0..size as usize / 4 {
            self.local[at / 4 + k][l] = (v >> (32 * k)) as u32;
            self.local_shadow[at / 4 + k][l] = 0xf;
        }
    }

    pub fn ldmatrix(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
    ) -> Result<(), Box<Fault>> {
        let rows = u32::MAX >> (32 - 8 * mem.n);
        if cx.ordered() {
            let address = self.addresses(mem.base, mem.offset);
            cx.note_shared_load(cx.who(self.id, rows, pc), mem, &address, 16)?;
        }
        let whole = self.look(cx, mem, 16, rows);
        if let Some(s) = whole.filter(|s| s.written(cx.shared, 4)) {
            for m in 0..mem.n as usize {
                let mut words = Row([0u32; 32]);
                for (at, row) in s.at[8 * m..].iter().zip(words.as_chunks_mut::<4>().0) {
                    row.copy_from_slice(&cx.shared.words[*at as usize..][..4]);
                }
                if mem.extra == (Extra::Matrix { transposed: true }) {
                    words = transpose(&words);
                }
                self.regs.r32[usize::from(mem.regs[m])] = words;
            }
            cx.count_shared(pc, s.cycles);
            return Ok(());
        }
        let address = self.addresses(mem.base, mem.offset);
        let mut cycles = 0;
        for m in 0..mem.n as usize {
            let mut words = Row([0u32; 32]);
            for row in 0..8 {
                let lane = (m * 8 + row) as u32;
                let at = cx.shared.locate(address[lane as usize], 16, lane, "ldmatrix")?;
                if let Err(f) = cx.shared.check_read(at, 16, lane, "ldmatrix") {
                    cx.excuse(f, cx.who(self.id, rows, pc))?;
                }
                words[row * 4..row * 4 + 4].copy_from_slice(&cx.shared.words[at / 4..at / 4 + 4]);
            }
            cycles += memory::conflict_degree(&address[m * 8..m * 8 + 8], 0xff, 4, 8);
            if mem.extra == (Extra::Matrix { transposed: true }) {
                words = transpose(&words);
            }
            self.regs.r32[usize::from(mem.regs[m])] = words;
        }
        cx.count_shared(pc, (cycles, cycles - u64::from(mem.n)));
        Ok(())
    }

    pub fn stmatrix(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
    ) -> Result<(), Box<Fault>> {
        let address = self.addresses(mem.base, mem.offset);
        if cx.ordered() {
            let who = cx.who(self.id, u32::MAX >> (32 - 8 * mem.n), pc);
            cx.note_shared_store(who, mem, &address, 16, &|_, _| false)?;
        }
        let mut cycles = 0;
        for m in 0..mem.n as usize {
            let mut words = self.regs.r32[usize::from(mem.regs[m])];
            if mem.extra == (Extra::Matrix { transposed: true }) {
                words = transpose(&words);
            }
            for row in 0..8 {
                let lane = (m * 8 + row) as u32;
                let at = cx.shared.locate(address[lane as usize], 16, lane, "stmatrix")?;
                cx.shared.note_write(at, 16, lane, "stmatrix")?;
                cx.shared.words[at / 4..at / 4 + 4].copy_from_slice(&words[row * 4..row * 4 + 4]);
            }
            cycles += memory::conflict_degree(&address[m * 8..m * 8 + 8], 0xff, 4, 8);
        }
        cx.count_shared(pc, (cycles, cycles - u64::from(mem.n)));
        Ok(())
    }

    /// Begins copies: the source is read now, the destination holds nothing until the wait.
    pub fn cp_async(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let Extra::CpAsync { from, offset, bytes, ignore } = mem.extra else { return Ok(()) };
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

    /// Lands copies by their group, the groups committed, and their number. `order` is that of the
    /// cluster, with the CTA's rank.
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

    pub fn atomic(
        &mut self,
        cx: &mut Context<'_>,
        mem: &Mem,
        pc: usize,
        mask: u32,
    ) -> Result<(), Box<Fault>> {
        let mut address = self.addresses(mem.base, mem.offset);
        let split = match mem.space {
            Space::Generic => Self::split(&mut address, mask),
            space => {
                let none = (Space::Shared, 0);
                [(space, mask), none, none, none, none]
            }
        };
        let Extra::Atom { op, ty, returns } = mem.extra else { return Ok(()) };
        for (space, mask) in split {
            if mask == 0 {
                continue;
            }
            if cx.ordered() {
                self.order_atomic(cx, mem, space, &address, pc, mask)?;
            }
            for lane in lanes(mask) {
                let i = lane as usize;
                for k in 0..mem.n {
                    let b = self.get(mem, if returns { mem.n + k } else { 1 + k }, lane);
                    let c = if op == AtomOp::Cas { self.get(mem, 2, lane) } else { 0 };
                    let at = address[i] + u64::from(k * mem.size);
                    let new = |old: u64| combine(op, ty, old, b, c);
                    let old = match space {
                        Space::Shared => {
                            let at = cx.shared.locate(at, mem.size, lane, "shared atomic")?;
                            let read = cx.shared.check_read(at, mem.size, lane, "shared atomic");
                            if let Err(f) = read {
                                cx.excuse(f, cx.who(self.id, mask, pc))?;
                            }
                            let old = cx.shared.load(at, mem.size);
                            cx.shared.store(at, mem.size, new(old));
                            old
                        }
                        Space::Cluster => {
                            let what = "shared::cluster atomic";
                            let (rank, at) = cx.place(space, at, lane, what)?;
                            let shared = cx.shared_of(rank);
                            let at = shared.locate(at, mem.size, lane, what)?;
                            shared.check_read(at, mem.size, lane, what)?;
                            let old = shared.load(at, mem.size);
                            shared.store(at, mem.size, new(old));
                            old
                        }
                        Space::Global => {
                            let what = "global atomic";
                            let (r, at) = cx.global.locate(at, mem.size.into(), lane, what)?;
                            r.note_read(at, mem.size.into(), lane, what)?;
                            r.note_write(at, mem.size.into());
                            cx.global.update(r, at, mem.size, new)
                        }
                        _ => {
                            let message = format!("atomic on {} memory", space.name());
                            return Err(Fault::new(FaultKind::Operand, lane, message));
                        }
                    };
                    if returns {
                        self.put(mem, k, lane, old);
                    }
                }
            }
            if space == Space::Global {
                if returns && cx.ordered() {
                    self.order_loaded(cx, mem, &address, pc, mask);
                }
                cx.count_global(pc, &address, mask, Way::Write);
            } else {
                cx.count_shared(pc, wavefronts(&address, mask, mem.size * mem.n));
            }
        }
        Ok(())
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

/// What an atomic operation makes of `old`.
pub fn combine(op: AtomOp, ty: AtomTy, old: u64, b: u64, c: u64) -> u64 {
    let (o32, b32) = (old as u32, b as u32);
    let pair = |f: &dyn Fn(u16, u16) -> u16| {
        let low = f(o32 as u16, b32 as u16);
        let high = f((o32 >> 16) as u16, (b32 >> 16) as u16);
        u64::from(low) | u64::from(high) << 16
    };
    match (op, ty) {
        (AtomOp::Add, AtomTy::F32) => (f32::from_bits(o32) + f32::from_bits(b32)).to_bits().into(),
        (AtomOp::Add, AtomTy::F64) => (f64::from_bits(old) + f64::from_bits(b)).to_bits(),
        (AtomOp::Add, AtomTy::F16) => {
            (f16::from_bits(o32 as u16) + f16::from_bits(b32 as u16)).to_bits().into()
        }
        (AtomOp::Add, AtomTy::Bf16) => {
            (bf16::from_bits(o32 as u16) + bf16::from_bits(b32 as u16)).to_bits().into()
        }
        (AtomOp::Min | AtomOp::Max, AtomTy::F16) => {
            half_extreme(op, o32 as u16, b32 as u16, f16_value)
        }
        (AtomOp::Min | AtomOp::Max, AtomTy::Bf16) => {
            half_extreme(op, o32 as u16, b32 as u16, bf16_value)
        }
        (AtomOp::Min | AtomOp::Max, AtomTy::F16x2) => {
            pair(&|x, y| half_extreme(op, x, y, f16_value) as u16)
        }
        (AtomOp::Min | AtomOp::Max, AtomTy::Bf16x2) => {
            pair(&|x, y| half_extreme(op, x, y, bf16_value) as u16)
        }
        (AtomOp::Add, AtomTy::F16x2) => {
            pair(&|x, y| (f16::from_bits(x) + f16::from_bits(y)).to_bits())
        }
        (AtomOp::Add, AtomTy::Bf16x2) => {
            pair(&|x, y| (bf16::from_bits(x) + bf16::from_bits(y)).to_bits())
        }
        (AtomOp::Add, AtomTy::U64 | AtomTy::S64) => old.wrapping_add(b),
        (AtomOp::Add, _) => o32.wrapping_add(b32).into(),
        (AtomOp::Min, AtomTy::S32) => ((o32 as i32).min(b32 as i32) as u32).into(),
        (AtomOp::Max, AtomTy::S32) => ((o32 as i32).max(b32 as i32) as u32).into(),
        (AtomOp::Min, AtomTy::S64) => (old as i64).min(b as i64) as u64,
        (AtomOp::Max, AtomTy::S64) => (old as i64).max(b as i64) as u64,
        (AtomOp::Min, _) => old.min(b),
        (AtomOp::Max, _) => old.max(b),
        (AtomOp::And, _) => old & b,
        (AtomOp::Or, _) => old | b,
        (AtomOp::Xor, _) => old ^ b,
        (AtomOp::Exch, _) => b,
        (AtomOp::Cas, _) => {
            if old == b {
                c
            } else {
                old
            }
        }
        (AtomOp::Inc, _) => {
            if o32 >= b32 {
                0
            } else {
                u64::from(o32) + 1
            }
        }
        (AtomOp::Dec, _) => {
            if o32 == 0 || o32 > b32 {
                b
            } else {
                u64::from(o32) - 1
            }
        }
    }
}

fn f16_value(x: u16) -> f32 {
    f16::from_bits(x).to_f32()
}

fn bf16_value(x: u16) -> f32 {
    bf16::from_bits(x).to_f32()
}

/// The smaller or larger of two halves; of a number and NaN, the number; -0 is below 0.
fn half_extreme(op: AtomOp, x: u16, y: u16, value: fn(u16) -> f32) -> u64 {
    let (a, b) = (value(x), value(y));
    let less = match (a.is_nan(), b.is_nan()) {
        (true, true) => return 0x7fff,
        (true, false) => return y.into(),
        (false, true) => return x.into(),
        _ => a.total_cmp(&b).is_lt(),
    };
    if less == (op == AtomOp::Min) { x.into() } else { y.into() }
}
