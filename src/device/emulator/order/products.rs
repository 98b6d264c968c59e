//! Reads of shared memory by products of warpgroups, which are many, large, and mostly alike: the
//! warps of a warpgroup read the same operands, and loops read them again.
//!
//! What a product found at its pieces is kept as long as nobody writes there. Its reads are noted
//! word by word only when somebody is about to ask for them.

use std::ops::Range;
use std::sync::Arc;

use super::super::wgmma::Pieces;
use super::entry::Entry;
use super::shared::{Actor, Clash, Shadow};

/// Words whose changes are told together.
const CHUNK: usize = 256;
/// Operands that are kept.
const KEPT: usize = 64;
/// Writers of an operand that are kept.
const WRITERS: usize = 16;

/// What is known of operands in one shared memory.
#[derive(Debug, Default)]
pub struct Products {
    /// Counts changes.
    now: u64,
    /// When each chunk last changed.
    changed: Vec<u64>,
    seen: Vec<Seen>,
    /// Which of `seen` gives way next.
    next: usize,
    /// Reads to be noted, in their order.
    marks: Vec<Mark>,
}

/// The writers of an operand's words.
#[derive(Debug)]
struct Seen {
    pieces: Arc<Pieces>,
    at: u64,
    /// One entry for each epoch: an engine's access to whole words is ordered behind all accesses
    /// of an epoch or behind none.
    writers: Vec<Entry>,
}

#[derive(Debug)]
struct Mark {
    pieces: Arc<Pieces>,
    slot: usize,
    entry: Entry,
}

impl Products {
    /// For a new CTA with so many words of shared memory.
    pub fn reset(&mut self, words: usize) {
        self.now = 0;
        self.changed.clear();
        self.changed.resize(words.div_ceil(CHUNK), 0);
        self.seen.clear();
        self.next = 0;
        self.marks.clear();
    }

    /// The writers of `words` words from `first` on are others from now on.
    #[inline(always)]
    pub fn changed(&mut self, first: usize, words: usize) {
        if words == 0 || self.seen.is_empty() {
            return;
        }
        self.now += 1;
        let chunks = first / CHUNK..=(first + words - 1) / CHUNK;
        if let Some(chunks) = self.changed.get_mut(chunks) {
            chunks.fill(self.now);
        }
    }

    /// When the words of an operand last changed.
    fn last_change(&self, span: &Range<u32>) -> u64 {
        let chunk = |at: u32| (at as usize / (4 * CHUNK)).min(self.changed.len());
        let end = (chunk(span.end) + 1).min(self.changed.len());
        self.changed[chunk(span.start)..end].iter().copied().max().unwrap_or(0)
    }

    /// The writers of an operand's words, if they are known.
    fn writers(&self, pieces: &Arc<Pieces>) -> Option<&[Entry]> {
        let seen = self.seen.iter().find(|s| Arc::ptr_eq(&s.pieces, pieces))?;
        (self.last_change(&pieces.span) <= seen.at).then_some(&seen.writers)
    }

    fn keep(&mut self, pieces: &Arc<Pieces>, writers: Vec<Entry>) {
        let seen = Seen { pieces: pieces.clone(), at: self.now, writers };
        if let Some(old) = self.seen.iter_mut().find(|s| Arc::ptr_eq(&s.pieces, pieces)) {
            *old = seen;
        } else if self.seen.len() < KEPT {
            self.seen.push(seen);
        } else {
            self.seen[self.next] = seen;
            self.next = (self.next + 1) % KEPT;
        }
    }
}

impl Shadow {
    /// A product reads pieces of 16 bytes; `a.entry` has the clock of its group. Whoever does not
    /// know that clock has not waited for the product.
    ///
    /// # Errors
    /// A write that nothing, or no proxy fence, orders before it.
    pub fn product(&mut self, a: &Actor<'_>, pieces: &Arc<Pieces>) -> Result<(), Clash> {
        let known = self.products.writers(pieces).is_some_and(|writers| {
            writers.iter().all(|&before| a.behind(before, 0, 0xf, true).is_none())
        });
        if !known {
            self.look(a, pieces)?;
        }
        let Some(slot) = self.slot(a.entry.actor()) else { return Ok(()) };
        let marks = &mut self.products.marks;
        let same = |m: &Mark| m.slot == slot && Arc::ptr_eq(&m.pieces, pieces);
        let entry = a.entry.at(0, 0xf);
        if let Some(i) = marks.iter().rposition(same) {
            // It is the latest again.
            marks[i].entry = entry;
            marks[i..].rotate_left(1);
            return Ok(());
        }
        if marks.len() == KEPT {
            self.settle(0..u32::MAX);
        }
        self.products.marks.push(Mark { pieces: pieces.clone(), slot, entry });
        Ok(())
    }

    /// Goes through the words of an operand.
    fn look(&mut self, a: &Actor<'_>, pieces: &Arc<Pieces>) -> Result<(), Clash> {
        let mut writers: Vec<Entry> = Vec::new();
        let (mut fine, mut few) = (0, true);
        for &piece in &pieces.at {
            let first = piece as usize / 4;
            let Some(words) = self.writes.get(first..first + 4) else { continue };
            for (i, &before) in words.iter().enumerate() {
                if before.epoch() == fine {
                    continue;
                }
                if let Some(why) = a.behind(before, 0, 0xf, true) {
                    return Err(a.clash(first + i, 0, before, why));
                }
                fine = before.epoch();
                if writers.iter().all(|w| w.epoch() != fine) {
                    few &= writers.len() < WRITERS;
                    if few {
                        writers.push(before);
                    }
                }
            }
        }
        if few {
            self.products.keep(pieces, writers);
        }
        Ok(())
    }

    /// Notes the reads of products so far, before somebody asks for those of `bytes`.
    #[inline(always)]
    pub(super) fn settle(&mut self, bytes: Range<u32>) {
        if !self.products.marks.is_empty() {
            self.note(&bytes);
        }
    }

    fn note(&mut self, bytes: &Range<u32>) {
        let marks = &mut self.products.marks;
        let meets = |m: &Mark| m.pieces.span.start < bytes.end && bytes.start < m.pieces.span.end;
        // In their order, so that the last of one warpgroup's reads of a word stays.
        let Some(last) = marks.iter().rposition(meets) else { return };
        for Mark { pieces, slot, entry } in marks.drain(..=last) {
            self.latest[slot] = self.latest[slot].max(entry.clock());
            let reads = &mut self.reads[slot][..];
            for &piece in &pieces.at {
                let first = piece as usize / 4;
                if let Some(reads) = reads.get_mut(first..first + 4) {
                    reads.fill(entry);
                    self.readers[first..first + 4].iter_mut().for_each(|r| *r |= 1 << slot);
                }
            }
        }
    }
}
