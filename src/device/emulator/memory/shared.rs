//! The shared memory of a CTA.

use super::aligned;
use crate::device::emulator::hopper::Mbarriers;
use crate::device::emulator::trap::{Fault, FaultKind};

/// A CTA's shared memory.
pub struct Shared {
    pub words: Vec<u32>,
    /// Of each word: low four bits, bytes that may be read; high four, bytes that may not be written,
    /// because a copy in flight writes or reads them or they are an mbarrier's.
    pub shadow: Vec<u8>,
    pub bytes: u32,
    pub mbarriers: Mbarriers,
    /// Its CTA has come to its end.
    pub exited: bool,
}

pub const WRITTEN: u8 = 0x0f;
/// Being written by a copy, or an mbarrier.
pub const BUSY: u8 = 0xf0;
/// Written, and being read by a copy.
pub const LENT: u8 = 0xff;

impl Shared {
    pub fn new(bytes: u32) -> Shared {
        let n = bytes.div_ceil(4) as usize;
        Shared {
            words: vec![0; n],
            shadow: vec![0; n],
            bytes,
            mbarriers: Mbarriers::default(),
            exited: false,
        }
    }

    pub fn reset(&mut self) {
        self.shadow.fill(0);
        self.mbarriers.clear();
        self.exited = false;
    }

    /// Checks bounds and alignment of one lane's access.
    #[inline(always)]
    pub fn locate(&self, at: u64, bytes: u32, lane: u32, what: &str) -> Result<usize, Box<Fault>> {
        let inside = at < self.bytes.into() && at + u64::from(bytes) <= self.bytes.into();
        if inside && aligned(at, bytes.into()) {
            return Ok(at as usize);
        }
        Err(self.refuse(at, bytes, lane, what))
    }

    #[cold]
    fn refuse(&self, at: u64, bytes: u32, lane: u32, what: &str) -> Box<Fault> {
        if !at.is_multiple_of(bytes.into()) {
            let message =
                format!("{what} of {bytes} bytes at shared address {at}, no multiple of {bytes}");
            return Fault::new(FaultKind::Misaligned, lane, message);
        }
        let message = format!(
            "{what} of {bytes} bytes at shared address {at} out of bounds: the CTA has {} bytes",
            self.bytes
        );
        Fault::new(FaultKind::OutOfBounds, lane, message)
    }

    /// Refuses to read what is unwritten or in flight.
    #[inline(always)]
    pub fn check_read(
        &self,
        at: usize,
        bytes: u32,
        lane: u32,
        what: &str,
    ) -> Result<(), Box<Fault>> {
        let ok = if bytes < 4 {
            let want = ((1u8 << bytes) - 1) << (at % 4);
            self.shadow[at / 4] & want == want
        } else {
            let n = bytes as usize / 4;
            self.shadow[at / 4..at / 4 + n].iter().fold(WRITTEN, |all, s| all & s) == WRITTEN
        };
        if ok { Ok(()) } else { Err(self.refuse_read(at, bytes, lane, what)) }
    }

    /// As [`Shared::locate`], of a span whose alignment is its user's to check.
    pub fn locate_span(
        &self,
        at: u64,
        bytes: u32,
        lane: u32,
        what: &str,
    ) -> Result<usize, Box<Fault>> {
        if at < self.bytes.into() && at + u64::from(bytes) <= self.bytes.into() {
            return Ok(at as usize);
        }
        let message = format!(
            "{what} of {bytes} bytes at shared address {at} out of bounds: the CTA has {} bytes",
            self.bytes
        );
        Err(Fault::new(FaultKind::OutOfBounds, lane, message))
    }

    /// The fault of touching bytes of a live mbarrier, if they are.
    fn refuse_mbarrier(&self, at: usize, bytes: u32, lane: u32, what: &str) -> Option<Box<Fault>> {
        let there = self.mbarriers.within(at as u32, bytes)?;
        let message = format!(
            "{what} of {bytes} bytes at shared address {at}: the mbarrier at {there} is live, and \
             only mbarrier instructions may touch it"
        );
        Some(Fault::new(FaultKind::Mbarrier, lane, message))
    }

    #[cold]
    fn refuse_read(&self, at: usize, bytes: u32, lane: u32, what: &str) -> Box<Fault> {
        if let Some(fault) = self.refuse_mbarrier(at, bytes, lane, what) {
            return fault;
        }
        let words = at / 4..(at + bytes as usize).div_ceil(4);
        if self.shadow[words.clone()].iter().any(|s| s >> 4 != 0) {
            let message = format!(
                "{what} of {bytes} bytes at shared address {at}: an asynchronous copy into it has \
                 not been waited for"
            );
            return Fault::new(FaultKind::InFlight, lane, message);
        }
        let message =
            format!("{what} of {bytes} bytes at shared address {at}, which was never written");
        Fault::new(FaultKind::Uninitialised, lane, message)
    }

    /// Refuses to write what is in flight, and notes the bytes as written.
    #[inline(always)]
    pub fn note_write(
        &mut self,
        at: usize,
        bytes: u32,
        lane: u32,
        what: &str,
    ) -> Result<(), Box<Fault>> {
        if bytes < 4 {
            let bits = ((1u8 << bytes) - 1) << (at % 4);
            if self.shadow[at / 4] >> 4 & bits != 0 {
                return Err(self.refuse_write(at, bytes, lane, what));
            }
            self.shadow[at / 4] |= bits;
            return Ok(());
        }
        let n = bytes as usize / 4;
        let mut before = 0;
        for s in &mut self.shadow[at / 4..at / 4 + n] {
            before |= *s;
            *s = WRITTEN;
        }
        if before >> 4 != 0 {
            return Err(self.refuse_write(at, bytes, lane, what));
        }
        Ok(())
    }

    #[cold]
    pub fn refuse_write(&self, at: usize, bytes: u32, lane: u32, what: &str) -> Box<Fault> {
        if let Some(fault) = self.refuse_mbarrier(at, bytes, lane, what) {
            return fault;
        }
        let message = format!(
            "{what} of {bytes} bytes at shared address {at}: an asynchronous copy into it, or out of \
             it, has not been waited for"
        );
        Fault::new(FaultKind::InFlight, lane, message)
    }

    /// Marks bytes (whole words) as being written by a copy.
    #[inline(always)]
    pub fn depart(&mut self, at: usize, bytes: u32) {
        let n = bytes as usize / 4;
        self.shadow[at / 4..at / 4 + n].fill(BUSY);
    }

    /// Refuses that a copy writes what another reads, or an mbarrier.
    #[inline(always)]
    pub fn check_depart(
        &self,
        at: usize,
        bytes: u32,
        lane: u32,
        what: &str,
    ) -> Result<(), Box<Fault>> {
        let n = bytes as usize / 4;
        let any = self.shadow[at / 4..at / 4 + n].iter().fold(0, |all, s| all | s);
        let lent = any >> 4 != 0
            && (self.shadow[at / 4..at / 4 + n].contains(&LENT)
                || self.mbarriers.within(at as u32, bytes).is_some());
        if lent { Err(self.refuse_write(at, bytes, lane, what)) } else { Ok(()) }
    }

    /// The copy has arrived.
    #[inline(always)]
    pub fn land(&mut self, at: usize, data: &[u32]) {
        self.words[at / 4..at / 4 + data.len()].copy_from_slice(data);
        self.shadow[at / 4..at / 4 + data.len()].fill(WRITTEN);
    }

    #[inline(always)]
    pub fn load(&self, at: usize, size: u32) -> u64 {
        let w = self.words[at / 4];
        match size {
            4 => w.into(),
            8 => u64::from(w) | u64::from(self.words[at / 4 + 1]) << 32,
            _ => u64::from(w >> (8 * (at % 4))) & ((1 << (8 * size)) - 1),
        }
    }

    #[inline(always)]
    pub fn store(&mut self, at: usize, size: u32, v: u64) {
        match size {
            4 => self.words[at / 4] = v as u32,
            8 => {
                self.words[at / 4] = v as u32;
                self.words[at / 4 + 1] = (v >> 32) as u32;
            }
            _ => {
                let shift = 8 * (at % 4);
                let field = ((1u32 << (8 * size)) - 1) << shift;
                let w = &mut self.words[at / 4];
                *w = *w & !field | (v as u32) << shift & field;
            }
        }
    }
}
