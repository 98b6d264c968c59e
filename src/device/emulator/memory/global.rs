//! Global memory: buffers, each with a shadow of what has been written.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use super::{aligned, window};
use crate::device::emulator::order::{GlobalShadow, Published};
use crate::device::emulator::trap::{Fault, FaultKind};

/// Each buffer has this much address space to itself, so that none is reached by accident.
const REGION_BITS: u32 = 36;
/// Where a buffer starts within its region: offsets computed in 32 bits overflow and are caught.
const REGION_START: u64 = 0xffff_f000;

/// What a region of global memory holds and what a kernel may do with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RegionKind {
    /// Initialised; a write is remembered as damage.
    Input,
    /// Poisoned until written.
    Output,
    Workspace,
    /// Initialised and writable.
    Zeroed,
    /// `.global` of the module.
    Module,
    /// `.const` of the module.
    Constant,
}

/// A buffer in global memory.
pub struct Region {
    pub name: String,
    pub kind: RegionKind,
    pub base: u64,
    pub bytes: u64,
    words: Vec<AtomicU32>,
    /// One bit a byte; a word stands for one sector. Absent where all is initialised.
    init: Option<Vec<AtomicU32>>,
    /// One bit a sector, of this launch.
    read: Vec<AtomicU32>,
    written: Vec<AtomicU32>,
    /// Who touched what in this launch. Absent where nothing may be written.
    pub order: Option<GlobalShadow>,
    /// What nothing has written may be read.
    pub lenient: bool,
    /// Something was stored here.
    pub dirty: AtomicBool,
}

/// Zeros whose pages take memory once they are written.
fn zeros(n: usize) -> Vec<AtomicU32> {
    bytemuck::zeroed_vec(n)
}

/// A mask of the bytes of a word that were written, from the bits of its sector.
fn bytes_written(init: u32, word: usize) -> u32 {
    let bits = init >> (4 * (word % 8));
    (0..4).filter(|byte| bits >> byte & 1 != 0).map(|byte| 0xff << (8 * byte)).sum()
}

impl Region {
    /// `index` is the buffer's place; module variables bring their own base.
    pub fn new(name: &str, kind: RegionKind, base: u64, bytes: u64) -> Region {
        let sectors = bytes.div_ceil(32) as usize;
        let init =
            matches!(kind, RegionKind::Output | RegionKind::Workspace).then(|| zeros(sectors));
        Region {
            name: name.into(),
            kind,
            base,
            bytes,
            words: zeros(bytes.div_ceil(4) as usize),
            init,
            read: zeros(sectors.div_ceil(32)),
            written: zeros(sectors.div_ceil(32)),
            order: None,
            lenient: false,
            dirty: AtomicBool::new(false),
        }
    }

    /// Watches the order of accesses, unless the kernel may only read here.
    pub fn watch(&mut self) {
        if !matches!(self.kind, RegionKind::Input | RegionKind::Constant) {
            self.order = Some(GlobalShadow::new(self.bytes));
        }
    }

    /// Address of the first byte of buffer `index`.
    pub fn base_of(index: usize) -> u64 {
        ((index as u64 + 1) << REGION_BITS) + REGION_START
    }

    /// Makes a region that nothing initialises ready for a run: zeroed, or unwritten.
    pub fn reset(&mut self) {
        match &mut self.init {
            // What the words still hold cannot be read: poison stands for it. Where unwritten words
            // may be read, the poison is put there.
            Some(init) => {
                *init = zeros(init.len());
                if self.lenient {
                    self.words.iter_mut().for_each(|w| *w.get_mut() = u32::MAX);
                }
            }
            None if *self.dirty.get_mut() => self.words = zeros(self.words.len()),
            None => {}
        }
        *self.dirty.get_mut() = false;
    }

    /// Fills an initialised region before a run: `bytes`, then poison.
    pub fn fill(&mut self, bytes: &[u8]) {
        for (i, w) in self.words.iter_mut().enumerate() {
            let mut b = [0xff; 4];
            let from = (4 * i).min(bytes.len());
            let part = &bytes[from..(4 * i + 4).min(bytes.len())];
            b[..part.len()].copy_from_slice(part);
            *w.get_mut() = u32::from_le_bytes(b);
        }
        *self.dirty.get_mut() = false;
    }

    /// The contents, with poison where nothing was written.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![0xff; 4 * self.words.len()];
        for (sector, words) in self.words.chunks(8).enumerate() {
            let have = self.init.as_ref().map_or(u32::MAX, |init| init[sector].load(Relaxed));
            if have == 0 {
                continue;
            }
            let to = out[32 * sector..].as_chunks_mut::<4>().0;
            for (i, (to, word)) in to.iter_mut().zip(words).enumerate() {
                let written = if have == u32::MAX { have } else { bytes_written(have, i) };
                *to = (word.load(Relaxed) | !written).to_le_bytes();
            }
        }
        out.truncate(self.bytes as usize);
        out
    }

    /// Adds the sectors read and written since the last call to `read` and `written`; returns how
    /// many they were.
    pub fn take_sectors(&mut self, read: &mut [u32], written: &mut [u32]) -> (u64, u64) {
        let take = |bits: &mut [AtomicU32], into: &mut [u32]| {
            let mut n = 0;
            for (b, i) in bits.iter_mut().zip(into) {
                let b = b.get_mut();
                // Most are zero, and pages of zeros that nothing writes take no memory.
                if *b != 0 {
                    n += u64::from(b.count_ones());
                    *i |= std::mem::take(b);
                }
            }
            n
        };
        (take(&mut self.read, read), take(&mut self.written, written))
    }

    /// For each element of `size` bytes, whether all of it was written since the last fill; true
    /// where that is not kept.
    pub fn written(&self, size: usize) -> Vec<bool> {
        let elements = self.bytes as usize / size;
        let Some(init) = &self.init else { return vec![true; elements] };
        let byte = |at: usize| init[at / 32].load(Relaxed) >> (at % 32) & 1 != 0;
        (0..elements).map(|i| (i * size..(i + 1) * size).all(byte)).collect()
    }

    /// Sectors of 32 bytes, the last one perhaps in part.
    pub fn sectors(&self) -> u64 {
        self.bytes.div_ceil(32)
    }

    /// Words of 32 bits that hold a bit for each sector.
    pub fn sector_words(&self) -> usize {
        self.read.len()
    }
}

/// Sets bits that are mostly set already.
#[inline(always)]
fn mark(w: &AtomicU32, bits: u32) {
    if w.load(Relaxed) & bits != bits {
        w.fetch_or(bits, Relaxed);
    }
}

/// All of global memory.
#[derive(Default)]
pub struct Global {
    pub regions: Vec<Region>,
    /// Module variables, behind the buffers.
    pub modules: Vec<Region>,
    /// What CTAs tell each other through atomics in this launch.
    pub published: Published,
    /// Held by atomics of 64 bits and more.
    wide: Mutex<()>,
}

impl Global {
    /// The region of an address, and the offset in it (which may lie outside).
    #[inline(always)]
    pub fn region(&self, address: u64) -> Option<(&Region, u64)> {
        let index = (address >> REGION_BITS) as usize;
        let region = if index < 0x7000 {
            // The end of a region's address space belongs to it as well.
            self.regions.get(index.wrapping_sub(1))
        } else {
            self.modules.get(index - 0x7000)
        };
        region.map(|r| (r, address.wrapping_sub(r.base)))
    }

    /// Checks an access of one lane and gives its place.
    ///
    /// # Errors
    /// An address outside of every buffer, or one that is no multiple of `bytes`.
    #[inline(always)]
    pub fn locate(
        &self,
        address: u64,
        bytes: u64,
        lane: u32,
        what: &str,
    ) -> Result<(&Region, u64), Box<Fault>> {
        if let Some((r, at)) = self.region(address)
            && at < r.bytes
            && at + bytes <= r.bytes
            && aligned(address, bytes)
        {
            return Ok((r, at));
        }
        Err(self.refuse(address, bytes, lane, what))
    }

    #[cold]
    fn refuse(&self, address: u64, bytes: u64, lane: u32, what: &str) -> Box<Fault> {
        if !address.is_multiple_of(bytes) {
            return Fault::new(
                FaultKind::Misaligned,
                lane,
                format!(
                    "{what} of {bytes} bytes at {}: the address is no multiple of {bytes}",
                    self.describe(address)
                ),
            );
        }
        Fault::new(
            FaultKind::OutOfBounds,
            lane,
            format!("{what} of {bytes} bytes out of bounds: {}", self.describe(address)),
        )
    }

    /// As [`Global::locate`], of a span whose address must be a multiple of `align`.
    ///
    /// # Errors
    /// An address that is no multiple of `align`, or a span that is not inside one buffer.
    pub fn locate_span(
        &self,
        address: u64,
        bytes: u64,
        align: u64,
        lane: u32,
        what: &str,
    ) -> Result<(&Region, u64), Box<Fault>> {
        if !address.is_multiple_of(align) {
            let message = format!(
                "{what} of {bytes} bytes at {}: the address is no multiple of {align}",
                self.describe(address)
            );
            return Err(Fault::new(FaultKind::Misaligned, lane, message));
        }
        match self.region(address) {
            Some((r, at)) if at < r.bytes && at + bytes <= r.bytes => Ok((r, at)),
            _ => Err(self.refuse(address, 1, lane, what)),
        }
    }

    /// An address for people: relative to the buffer it is nearest to.
    pub fn describe(&self, address: u64) -> String {
        if address < 1 << 32 {
            return format!("0x{address:x}, which is no global address");
        }
        if let Some((space, offset)) = window(address) {
            return format!("0x{address:x}, which is {} address 0x{offset:x}", space.name());
        }
        let near = self
            .regions
            .iter()
            .chain(&self.modules)
            .min_by_key(|r| address.abs_diff(r.base).min(address.abs_diff(r.base + r.bytes)));
        let Some(r) = near else { return format!("0x{address:x}; there are no buffers") };
        let end = r.base + r.bytes;
        if address < r.base {
            format!(
                "0x{address:x}, {} bytes before `{}` ({} bytes)",
                r.base - address,
                r.name,
                r.bytes
            )
        } else if address >= end {
            format!(
                "0x{address:x}, {} bytes behind the end of `{}` ({} bytes)",
                address - end,
                r.name,
                r.bytes
            )
        } else {
            format!("0x{address:x}, byte {} of `{}` ({} bytes)", address - r.base, r.name, r.bytes)
        }
    }
}

impl Region {
    /// Refuses a read of bytes that nothing has written, and notes the sector.
    ///
    /// # Errors
    /// The first such byte.
    #[inline(always)]
    pub fn note_read(&self, at: u64, bytes: u64, lane: u32, what: &str) -> Result<(), Box<Fault>> {
        if self.readable(at, bytes) {
            return Ok(());
        }
        let have = self.init.as_ref().map_or(0, |init| init[(at / 32) as usize].load(Relaxed));
        let first = at - at % 32 + u64::from((span(at, bytes) & !have).trailing_zeros());
        Err(Fault::new(
            FaultKind::Uninitialised,
            lane,
            format!("{what} of {bytes} bytes: byte {first} of `{}` was never written", self.name),
        ))
    }

    /// Notes a read within one sector; false if some of its bytes were never written.
    #[inline(always)]
    pub fn readable(&self, at: u64, bytes: u64) -> bool {
        let sector = (at / 32) as usize;
        if let Some(init) = &self.init {
            let wanted = span(at, bytes);
            if init[sector].load(Relaxed) & wanted != wanted && !self.lenient {
                return false;
            }
        }
        mark(&self.read[sector / 32], 1 << (sector % 32));
        true
    }

    /// Notes a write within one sector.
    #[inline(always)]
    pub fn note_write(&self, at: u64, bytes: u64) {
        let sector = (at / 32) as usize;
        if let Some(init) = &self.init {
            mark(&init[sector], span(at, bytes));
        } else if !self.dirty.load(Relaxed) {
            self.dirty.store(true, Relaxed);
        }
        mark(&self.written[sector / 32], 1 << (sector % 32));
    }

    /// The words of a range that is in bounds and aligned.
    #[inline(always)]
    pub fn words(&self, at: u64, n: usize) -> &[AtomicU32] {
        &self.words[(at / 4) as usize..][..n]
    }

    /// The word that byte `at` lies in.
    #[inline(always)]
    pub fn word(&self, at: u64) -> &AtomicU32 {
        &self.words[(at / 4) as usize]
    }

    /// An element of at most 8 bytes.
    #[inline(always)]
    pub fn load(&self, at: u64, size: u32) -> u64 {
        let w = self.word(at).load(Relaxed);
        match size {
            4 => w.into(),
            8 => u64::from(w) | u64::from(self.word(at + 4).load(Relaxed)) << 32,
            _ => u64::from(w >> (8 * (at % 4))) & ((1 << (8 * size)) - 1),
        }
    }

    /// Stores an element of `size` bytes: 1, 2, 4 or 8.
    #[inline(always)]
    pub fn store(&self, at: u64, size: u32, v: u64) {
        match size {
            4 => self.word(at).store(v as u32, Relaxed),
            8 => {
                self.word(at).store(v as u32, Relaxed);
                self.word(at + 4).store((v >> 32) as u32, Relaxed);
            }
            _ => {
                // Neighbours in the word may be stored by other CTAs at the same time.
                let shift = 8 * (at % 4) as u32;
                let field = ((1u32 << (8 * size)) - 1) << shift;
                let bits = (v as u32) << shift & field;
                let swap = |w: u32| Some(w & !field | bits);
                let _ = self.word(at).fetch_update(Relaxed, Relaxed, swap);
            }
        }
    }
}

/// Bits of bytes within a sector.
#[inline(always)]
fn span(at: u64, bytes: u64) -> u32 {
    let ones = if bytes >= 32 { u32::MAX } else { (1 << bytes) - 1 };
    ones << (at % 32)
}

impl Global {
    /// An atomic read, change and write; returns the old value.
    pub fn update(&self, r: &Region, at: u64, size: u32, new: impl Fn(u64) -> u64) -> u64 {
        if size == 2 {
            let shift = 8 * (at % 4) as u32;
            let mut old = 0;
            let _ = r.word(at).fetch_update(Relaxed, Relaxed, |w| {
                old = w >> shift & 0xffff;
                Some(w & !(0xffff << shift) | (new(old.into()) as u32 & 0xffff) << shift)
            });
            return old.into();
        }
        if size == 4 {
            let mut old = 0;
            let _ = r.word(at).fetch_update(Relaxed, Relaxed, |w| {
                old = w;
                Some(new(w.into()) as u32)
            });
            return old.into();
        }
        // Two words have no common atomic: 64-bit updates take turns.
        let _turn = self.wide.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = r.load(at, size);
        r.store(at, size, new(old));
        old
    }

    /// As [`Global::update`], of 128 bits.
    pub fn update_pair(
        &self,
        r: &Region,
        at: u64,
        new: impl FnOnce([u64; 2]) -> [u64; 2],
    ) -> [u64; 2] {
        let _turn = self.wide.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let old = [r.load(at, 8), r.load(at + 8, 8)];
        let [low, high] = new(old);
        r.store(at, 8, low);
        r.store(at + 8, 8, high);
        old
    }
}
