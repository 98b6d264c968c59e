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
    pub fn new(at: Vec<u32>) -> Pieces {
        let start = at.iter().copied().min().unwrap_or(0);
        let end = at.iter().map(|at| at.saturating_add(16)).max().unwrap_or(0);
        let aligned = at.iter().all(|at| at % 16 == 0);
        Pieces { at, span: start..end, aligned }
    }

    /// All lie in a shared memory, at places where pieces may.
    fn inside(&self, shared: &Shared) -> bool {
        self.aligned && self.span.end <= shared.bytes && self.span.end < u32::MAX
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

/// An operand B as its pieces were, and what they were taken in as: the other warps of the
/// warpgroup meet the same.
#[derive(Default)]
pub struct Taken {
    /// Columns, sign bits, and how.
    from: Option<(u32, u32, LoadB)>,
    words: Vec<u32>,
    pub columns: Columns,
}

impl Taken {
    /// These are the columns of what the pieces hold now.
    fn holds(&self, w: &Wgmma, pieces: &Pieces, shared: &Shared) -> bool {
        let same = self.from.is_some_and(|(n, flip, load)| {
            n == w.n && flip == w.flip[1] && std::ptr::fn_addr_eq(load, w.load_b)
        });
        let words = self.words.as_chunks::<4>().0;
        if !same || words.len() != pieces.at.len() || !pieces.inside(shared) {
            return false;
        }
        let (now, shadow) = (shared.words.as_chunks::<4>().0, shared.shadow.as_chunks::<4>().0);
        let (mut other, mut missing) = ([0; 4], 0);
        for (&at, words) in pieces.at.iter().zip(words) {
            let at = at as usize / 16;
            // Word by word: a sum over each piece would cost more than all the rest.
            other = std::array::from_fn(|k| other[k] | now[at][k] ^ words[k]);
            missing |= !u32::from_ne_bytes(shadow[at]) & ALL_WRITTEN;
        }
        other == [0; 4] && missing == 0
    }

    /// Makes them so.
    ///
    /// # Errors
    /// As [`gather`].
    pub fn take(
        &mut self,
        cx: &mut Context<'_>,
        w: &Wgmma,
        pieces: &Pieces,
        (bits, who): (u64, Who),
    ) -> Result<(), Box<Fault>> {
        if self.holds(w, pieces, cx.shared) {
            return Ok(());
        }
        self.from = None;
        gather(cx, pieces, &mut self.words, ("B", bits), who)?;
        (w.load_b)(cx.arch, &mut self.columns, &self.words, w.n as usize, w.flip[1]);
        self.from = Some((w.n, w.flip[1], w.load_b));
        Ok(())
    }
}

/// Reads pieces into `words`.
///
/// # Errors
/// Pieces outside of shared memory, or in it that nothing has written or something is writing.
pub fn gather(
    cx: &mut Context<'_>,
    pieces: &Pieces,
    words: &mut Vec<u32>,
    (what, bits): (&str, u64),
    who: Who,
) -> Result<(), Box<Fault>> {
    words.resize(4 * pieces.at.len(), 0);
    let shared = &*cx.shared;
    let mut unwritten = None;
    for (&at, to) in pieces.at.iter().zip(words.as_chunks_mut::<4>().0) {
        let read = shared
            .locate(at.into(), 16, 0, "a product's read")
            .and_then(|at| shared.check_read(at, 16, 0, "a product's read").map(|()| at));
        match read {
            Ok(at) => to.copy_from_slice(&shared.words[at / 4..at / 4 + 4]),
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
        Some(fault) => cx.excuse(fault, who),
        None => Ok(()),
    }
}
