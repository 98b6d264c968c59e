//! `ldmatrix` and `stmatrix`.

use crate::device::emulator::memory;
use crate::device::emulator::program::{Extra, Mem};
use crate::device::emulator::regs::Row;
use crate::device::emulator::trap::Fault;
use crate::device::emulator::warp::{Context, Warp};
use crate::device::emulator::warpwide::transpose;

impl Warp {
    /// Loads 1, 2 or 4 matrices of 8 rows of 16 bytes; lanes 0 to 7 have the rows of the first.
    ///
    /// # Errors
    /// A row outside of shared memory or misaligned, or one that nothing has written, that is in
    /// flight, or whose last write nothing orders before it.
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
                    row.copy_from_slice(&cx.shared.words()[*at as usize..][..4]);
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
                words[row * 4..row * 4 + 4].copy_from_slice(&cx.shared.words()[at / 4..at / 4 + 4]);
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

    /// Stores matrices, with addresses as of [`Warp::ldmatrix`].
    ///
    /// # Errors
    /// A row outside of shared memory, misaligned or in flight, or one with an access that nothing
    /// orders before it.
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
                let to = cx.shared.change(at / 4..at / 4 + 4).0;
                to.copy_from_slice(&words[row * 4..row * 4 + 4]);
            }
            cycles += memory::conflict_degree(&address[m * 8..m * 8 + 8], 0xff, 4, 8);
        }
        cx.count_shared(pc, (cycles, cycles - u64::from(mem.n)));
        Ok(())
    }
}
