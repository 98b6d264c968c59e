//! Operands of products in shared memory: where their pieces lie, and what they hold.

use std::ops::Range;
use std::sync::Arc;

use super::descriptor::Descriptor;
use super::{LoadB, Wgmma};
use crate::device::emulator::events::Who;
use crate::device::emulator::memory::{Shared, WRITTEN};
use crate::device::emulator::tensor::Columns;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::Context;

/// The shadow of a piece that may be read, among other bits.
const ALL_WRITTEN: u32 = u32::from_ne_bytes([WRITTEN; 4]);

/// Pieces of 16 bytes of an operand, in its order.
#[derive(Debug)]
pub struct Pieces {
    /// Addresses.
    pub at: Vec<u32>,
    /// From the first byte to the last one's end.
    pub span: Range<u32>,
    aligned: bool,
}

impl Pieces {
    /// Pieces at these addresses.
    pub fn new(at: Vec<u32>) -> Pieces {
        let start = at.iter().copied().min().unwrap_or(0);
        let end = at.iter().map(|at| at.saturating_add(16)).max().unwrap_or(0);
        let aligned = at.iter().all(|at| at % 16 == 0);
        Pieces { at, span: start..end, aligned }
    }

    /// Whether all lie in shared memory, at places where pieces may.
    fn inside(&self, shared: &Shared) -> bool {
        self.aligned && self.span.end <= shared.bytes && self.span.end < u32::MAX
    }

    /// What each of them holds, if nothing is wrong with any.
    #[inline(always)]
    fn whole<'a>(&'a self, shared: &'a Shared) -> Option<impl Iterator<Item = &'a [u32; 4]>> {
        if !self.inside(shared) {
            return None;
        }
        let (words, shadow) = (shared.words().as_chunks().0, shared.shadow().as_chunks().0);
        let missing = |&at: &u32| !u32::from_ne_bytes(shadow[at as usize / 16]) & ALL_WRITTEN;
        let missing = self.at.iter().fold(0, |all, at| all | missing(at));
        (missing == 0).then(|| self.at.iter().map(|&at| &words[at as usize / 16]))
    }
}

/// What names an operand: descriptor, blocks of eight rows, and whether it is MN-major.
pub type Key = (u64, u32, u32, bool);

/// Pieces of operands that have been met; each has one place.
#[derive(Default)]
pub struct Met(Vec<Option<(Key, Arc<Pieces>)>>);

impl Met {
    /// A power of two: more than the operands of a kernel's loop.
    const PLACES: usize = 512;

    /// The pieces that a descriptor names, kept for the next that asks.
    ///
    /// # Errors
    /// Bits that are no descriptor.
    pub fn pieces(&mut self, key: Key) -> Result<Arc<Pieces>, Box<Fault>> {
        let (bits, start, end, mn_major) = key;
        self.0.resize(Met::PLACES, None);
        let mixed = (bits ^ u64::from(start) << 40 ^ u64::from(end) << 48)
            .wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let place = &mut self.0[(mixed >> 55) as usize % Met::PLACES];
        if let Some((known, pieces)) = place
            && *known == key
        {
            return Ok(pieces.clone());
        }
        let d = Descriptor::new(bits).map_err(|m| Fault::new(FaultKind::Operand, None, m))?;
        let pieces = Arc::new(Pieces::new(d.pieces(start..end, mn_major)));
        *place = Some((key, pieces.clone()));
        Ok(pieces)
    }
}

/// The words of an operand B and the columns they were taken in as: the other warps of the
/// warpgroup meet the same.
#[derive(Default)]
pub struct Taken {
    /// Columns, sign bits, and how.
    from: Option<(u32, u32, LoadB)>,
    words: Vec<u32>,
    /// Pieces that held these words, all of them written, and when.
    seen: Option<(Arc<Pieces>, u64)>,
    pub columns: Columns,
}

impl Taken {
    /// Whether these are the columns of what the pieces hold now.
    fn holds(&mut self, w: &Wgmma, pieces: &Arc<Pieces>, shared: &mut Shared) -> bool {
        let same = self.from.is_some_and(|(n, flip, load)| {
            n == w.n && flip == w.flip[1] && std::ptr::fn_addr_eq(load, w.load_b)
        });
        if !same {
            return false;
        }
        if let Some((seen, at)) = &self.seen
            && Arc::ptr_eq(seen, pieces)
            && !shared.changed_since(*at, &pieces.span)
        {
            return true;
        }
        let words = self.words.as_chunks::<4>().0;
        let Some(now) = pieces.whole(shared).filter(|_| words.len() == pieces.at.len()) else {
            return false;
        };
        // Word by word: a sum over each piece would cost more than all the rest.
        let other = now.zip(words).fold([0; 4], |other: [u32; 4], (now, words)| {
            std::array::from_fn(|k| other[k] | now[k] ^ words[k])
        });
        if other != [0; 4] {
            return false;
        }
        self.seen = Some((pieces.clone(), shared.now()));
        true
    }

    /// Makes these the columns of what the pieces hold now.
    ///
    /// # Errors
    /// As [`gather`].
    pub fn take(
        &mut self,
        cx: &mut Context<'_>,
        w: &Wgmma,
        pieces: &Arc<Pieces>,
        (bits, who): (u64, Who),
    ) -> Result<(), Box<Fault>> {
        if self.holds(w, pieces, cx.shared) {
            return Ok(());
        }
        (self.from, self.seen) = (None, None);
        let whole = gather(cx, pieces, &mut self.words, ("B", bits), who)?;
        (w.load_b)(cx.arch, &mut self.columns, &self.words, w.n as usize, w.flip[1]);
        self.from = Some((w.n, w.flip[1], w.load_b));
        self.seen = whole.then(|| (pieces.clone(), cx.shared.now()));
        Ok(())
    }
}

/// Reads pieces into `words`. True if something had written them all.
///
/// # Errors
/// Pieces outside of shared memory, or in it that nothing has written or something is writing.
pub fn gather(
    cx: &mut Context<'_>,
    pieces: &Pieces,
    words: &mut Vec<u32>,
    (what, bits): (&str, u64),
    who: Who,
) -> Result<bool, Box<Fault>> {
    words.resize(4 * pieces.at.len(), 0);
    if let Some(all) = pieces.whole(cx.shared) {
        words.as_chunks_mut().0.iter_mut().zip(all).for_each(|(to, piece)| *to = *piece);
        return Ok(true);
    }
    let shared = &*cx.shared;
    let mut unwritten = None;
    for (&at, to) in pieces.at.iter().zip(words.as_chunks_mut::<4>().0) {
        let read = shared
            .locate(at.into(), 16, 0, "a product's read")
            .and_then(|at| shared.check_read(at, 16, 0, "a product's read").map(|()| at));
        match read {
            Ok(at) => to.copy_from_slice(&shared.words()[at / 4..at / 4 + 4]),
            Err(mut f) => {
                f.lane = None;
                f.message = format!("{what} by descriptor {bits:#018x}: {}", f.message);
                if f.kind != FaultKind::Uninitialised {
                    return Err(f);
                }
                unwritten.get_or_insert(f);
                to.fill(0);
            }
        }
    }
    match unwritten {
        Some(fault) => cx.excuse(fault, who).map(|()| false),
        None => Ok(true),
    }
}
