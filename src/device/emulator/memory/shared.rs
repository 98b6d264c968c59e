//! The shared memory of a CTA.

use std::ops::Range;

use super::aligned;
use crate::device::emulator::events::Who;
use crate::device::emulator::hopper::Mbarriers;
use crate::device::emulator::order::Checks;
use crate::device::emulator::trap::{Fault, FaultKind};

/// A CTA's shared memory.
pub struct Shared {
    words: Vec<u32>,
    /// One byte a word. Its low four bits are the bytes that may be read; its high four those that
    /// may not be written, because a copy in flight writes or reads them or they are an mbarrier's.
    shadow: Vec<u8>,
    changes: Changes,
    pub bytes: u32,
    pub mbarriers: Mbarriers,
    /// The last exit of a warp of its CTA, once that has ended.
    pub exited: Option<Who>,
    pub checks: Checks,
}

/// Words whose changes are told together.
const CHUNK: usize = 256;

/// When words, or whether they may be read, last changed. Nothing is counted before somebody asks.
#[derive(Default)]
struct Changes {
    asked: bool,
    now: u64,
    chunks: Vec<u64>,
}

pub const WRITTEN: u8 = 0x0f;
/// Being written by a copy, or an mbarrier.
pub const BUSY: u8 = 0xf0;
/// Written, and being read by a copy.
pub const LENT: u8 = 0xff;

impl Shared {
    #[cfg(test)]
    pub fn new(bytes: u32) -> Shared {
        Shared::checked(bytes, Checks::ALL)
    }

    /// Shared memory of `bytes`, with those of the checks that concern it.
    pub fn checked(bytes: u32, checks: Checks) -> Shared {
        let n = bytes.div_ceil(4) as usize;
        Shared {
            words: vec![0; n],
            shadow: vec![0; n],
            changes: Changes { chunks: vec![0; n.div_ceil(CHUNK)], ..Changes::default() },
            bytes,
            mbarriers: Mbarriers::default(),
            exited: None,
            checks,
        }
    }

    /// Ready for a new CTA: nothing is written, and there is no mbarrier.
    pub fn reset(&mut self) {
        let (all, fresh, lenient) = (self.words.len(), self.fresh(), !self.checks.uninitialised);
        let (words, shadow) = self.change(0..all);
        shadow.fill(fresh);
        if lenient {
            // The same in each CTA, for want of something better.
            words.fill(0);
        }
        self.mbarriers.clear();
        self.exited = None;
    }

    /// The shadow of what nothing has written.
    pub fn fresh(&self) -> u8 {
        if self.checks.uninitialised { 0 } else { WRITTEN }
    }

    /// The shadow of what a copy in flight will write.
    #[inline(always)]
    pub fn busy(&self) -> u8 {
        if self.checks.in_flight { BUSY } else { WRITTEN }
    }

    /// The contents, as words of 32 bits.
    #[inline(always)]
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// What may be done with each word: [`WRITTEN`], [`BUSY`], [`LENT`], or a part of their bits.
    #[inline(always)]
    pub fn shadow(&self) -> &[u8] {
        &self.shadow
    }

    /// Words to be written, and their shadows: the one way to change what a read would find.
    #[inline(always)]
    pub fn change(&mut self, words: Range<usize>) -> (&mut [u32], &mut [u8]) {
        if self.changes.asked {
            self.changes.note(&words);
        }
        (&mut self.words[words.clone()], &mut self.shadow[words])
    }

    /// Marks words that may be read as being read by a copy.
    pub fn lend(&mut self, words: Range<usize>) {
        if self.checks.in_flight {
            self.shadow[words].fill(LENT);
        }
    }

    /// Undoes [`Shared::lend`].
    pub fn give_back(&mut self, words: Range<usize>) {
        if self.checks.in_flight {
            self.shadow[words].iter_mut().for_each(|s| *s &= WRITTEN);
        }
    }

    /// A time for [`Shared::changed_since`].
    pub fn now(&mut self) -> u64 {
        self.changes.asked = true;
        self.changes.now
    }

    /// Whether anything near these bytes has changed since [`Shared::now`] told that time.
    #[inline(always)]
    pub fn changed_since(&self, time: u64, bytes: &Range<u32>) -> bool {
        let chunks =
            bytes.start as usize / (4 * CHUNK)..bytes.end.div_ceil(4 * CHUNK as u32) as usize;
        self.changes.chunks.get(chunks).is_none_or(|c| c.iter().any(|&last| last > time))
    }

    /// Checks bounds and alignment of one lane's access.
    ///
    /// # Errors
    /// An access that is not inside the CTA's shared memory, or whose address is no multiple of
    /// `bytes`.
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
    ///
    /// # Errors
    /// Bytes that nothing has written, that a copy in flight writes, or of an mbarrier.
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
    ///
    /// # Errors
    /// A span that is not inside the CTA's shared memory.
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
    ///
    /// # Errors
    /// Bytes that a copy in flight reads or writes, or of an mbarrier.
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
            self.change(at / 4..at / 4 + 1).1[0] |= bits;
            return Ok(());
        }
        let n = bytes as usize / 4;
        let mut before = 0;
        for s in self.change(at / 4..at / 4 + n).1 {
            before |= *s;
            *s = WRITTEN;
        }
        if before >> 4 != 0 {
            return Err(self.refuse_write(at, bytes, lane, what));
        }
        Ok(())
    }

    /// The fault of writing bytes that a copy in flight uses or that are an mbarrier's.
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
        let busy = self.busy();
        self.change(at / 4..at / 4 + n).1.fill(busy);
    }

    /// Refuses that a copy writes what another reads, or an mbarrier.
    ///
    /// # Errors
    /// Bytes that a copy in flight reads, or of an mbarrier.
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
        let (words, shadow) = self.change(at / 4..at / 4 + data.len());
        words.copy_from_slice(data);
        shadow.fill(WRITTEN);
    }

    /// An element of `size` bytes at `at`: 1, 2, 4 or 8.
    #[inline(always)]
    pub fn load(&self, at: usize, size: u32) -> u64 {
        let w = self.words[at / 4];
        match size {
            4 => w.into(),
            8 => u64::from(w) | u64::from(self.words[at / 4 + 1]) << 32,
            _ => u64::from(w >> (8 * (at % 4))) & ((1 << (8 * size)) - 1),
        }
    }

    /// Stores an element of `size` bytes at `at`: 1, 2, 4 or 8. Its shadow stays.
    #[inline(always)]
    pub fn store(&mut self, at: usize, size: u32, v: u64) {
        let n = if size == 8 { 2 } else { 1 };
        let (words, _) = self.change(at / 4..at / 4 + n);
        match size {
            4 => words[0] = v as u32,
            8 => (words[0], words[1]) = (v as u32, (v >> 32) as u32),
            _ => {
                let shift = 8 * (at % 4);
                let field = ((1u32 << (8 * size)) - 1) << shift;
                words[0] = words[0] & !field | (v as u32) << shift & field;
            }
        }
    }
}

impl Changes {
    #[inline(always)]
    fn note(&mut self, words: &Range<usize>) {
        self.now += 1;
        let chunks = words.start / CHUNK..words.end.div_ceil(CHUNK);
        if let Some(chunks) = self.chunks.get_mut(chunks) {
            chunks.fill(self.now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_to_whoever_asked() {
        let mut s = Shared::new(4 * 4 * CHUNK as u32);
        s.land(0, &[1; 8]);
        let chunk = 4 * CHUNK as u32;
        let (first, second) = (0..chunk, chunk..2 * chunk);
        let both = 16..chunk + 16;
        let mut check = |what: &str, seen: [bool; 2], f: &dyn Fn(&mut Shared)| {
            let before = s.now();
            f(&mut s);
            let changed = [&first, &second].map(|span| s.changed_since(before, span));
            assert_eq!(changed, seen, "{what}");
            assert_eq!(s.changed_since(before, &both), seen[0] || seen[1], "{what}");
        };
        let (at, of) = (chunk as usize, CHUNK);
        check("nothing", [false; 2], &|_| {});
        check("a copy's landing", [true, false], &|s| s.land(at - 4, &[2]));
        check("a landing across", [true; 2], &|s| s.land(at - 4, &[2; 2]));
        check("a copy's departure", [false, true], &|s| s.depart(at, 16));
        check("a store", [true, false], &|s| s.store(4, 4, 5));
        check("a store of two words", [true; 2], &|s| s.store(at - 4, 8, 5));
        check("a store of a byte", [false, true], &|s| s.store(at + 3, 1, 5));
        check("a byte that is written", [true, false], &|s| s.note_write(5, 1, 0, "").unwrap());
        check("words that are", [true; 2], &|s| drop(s.note_write(at - 8, 16, 0, "")));
        check("a copy that reads", [false; 2], &|s| s.lend(0..8));
        check("and has read", [false; 2], &|s| s.give_back(0..8));
        check("far away", [false; 2], &|s| s.land(4 * 3 * of, &[0; 4]));
        check("the next CTA", [true; 2], &|s| s.reset());
        // Beyond the memory nothing is known.
        assert!(s.changed_since(u64::MAX, &(0..16 * chunk)));
    }
}
