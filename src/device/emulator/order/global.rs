//! Who last wrote and read each word of global memory in this launch.
//!
//! Only buffers that a kernel may write are watched. Threads of several CTAs run at once, so that
//! entries are atomics; pages exist once touched.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Words of a page.
const PAGE: usize = 1 << 12;

/// CTA (over all launches of a session, from 1) 28, warp 5, lane 5, clock 24, strong 1, atomic 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touch(pub u64);

/// CTAs that a session can tell apart; then its shadows begin anew.
pub const MAX_CTA: u64 = (1 << 28) - 1;

impl Touch {
    pub fn new(cta: u64, warp: u32, clock: u32, strong: bool) -> Touch {
        Touch(cta << 36 | u64::from(warp) << 31 | u64::from(clock) << 2 | u64::from(strong))
    }

    #[inline(always)]
    pub fn at(self, lane: u32) -> Touch {
        Touch(self.0 | u64::from(lane) << 26)
    }

    #[inline(always)]
    pub fn cta(self) -> u64 {
        self.0 >> 36
    }

    pub fn warp(self) -> u32 {
        (self.0 >> 31) as u32 & 31
    }

    pub fn lane(self) -> u32 {
        (self.0 >> 26) as u32 & 31
    }

    pub fn clock(self) -> u32 {
        (self.0 >> 2) as u32 & 0xff_ffff
    }

    pub fn strong(self) -> bool {
        self.0 & 1 != 0
    }

    /// CTA and warp.
    #[inline(always)]
    pub fn actor(self) -> u64 {
        self.0 >> 31
    }
}

/// The last access of a kind to each word of a page.
struct Last {
    who: Vec<AtomicU64>,
    /// Instruction, and the touched bytes in the lowest four bits.
    what: Vec<AtomicU32>,
}

impl Last {
    fn new() -> Last {
        Last {
            who: (0..PAGE).map(|_| AtomicU64::new(0)).collect(),
            what: (0..PAGE).map(|_| AtomicU32::new(0)).collect(),
        }
    }

    #[inline(always)]
    fn get(&self, i: usize) -> Touch {
        Touch(self.who[i].load(Relaxed))
    }

    #[inline(always)]
    fn set(&self, i: usize, t: Touch, what: u32) {
        self.who[i].store(t.0, Relaxed);
        self.what[i].store(what, Relaxed);
    }
}

struct Page {
    writes: Last,
    reads: OnceLock<Last>,
}

/// Shadow of one buffer.
#[derive(Default)]
pub struct GlobalShadow {
    pages: Vec<OnceLock<Page>>,
}

/// An earlier access that nothing orders with the one at hand.
#[derive(Debug, Clone, Copy)]
pub struct Meeting {
    pub before: Touch,
    pub pc: usize,
    pub wrote: bool,
}

/// What decides whether an earlier access happened before.
pub trait Knows {
    /// Of this launch, and by another warp.
    fn knows(&self, t: Touch) -> bool;
}

impl GlobalShadow {
    pub fn new(bytes: u64) -> GlobalShadow {
        let pages = bytes.div_ceil(4 * PAGE as u64) as usize;
        GlobalShadow { pages: (0..pages).map(|_| OnceLock::new()).collect() }
    }

    pub fn clear(&mut self) {
        self.pages.iter_mut().for_each(|p| *p = OnceLock::new());
    }

    /// An access by `me` (lane included) to the word at byte `at`; `bytes` is the mask of those
    /// touched. `oldest` is the first CTA of this launch: all before it happened before.
    /// Gives the last write of the word, unless it is of an earlier launch, and an access that is not ordered.
    #[inline(always)]
    pub fn touch(
        &self,
        (me, pc): (Touch, usize),
        (at, bytes): (u64, u64),
        write: bool,
        oldest: u64,
        order: &impl Knows,
    ) -> Option<Meeting> {
        let (page, i) = ((at / 4) as usize / PAGE, (at / 4) as usize % PAGE);
        let slot = self.pages.get(page)?;
        let page = match slot.get() {
            Some(page) => page,
            None => slot.get_or_init(|| Page { writes: Last::new(), reads: OnceLock::new() }),
        };
        let what = (pc as u32) << 4 | bytes as u32;
        let against = |last: &Last, wrote: bool| {
            let before = last.get(i);
            if before.cta() < oldest || before.actor() == me.actor() {
                return None;
            }
            if before.strong() && me.strong() || order.knows(before) {
                return None;
            }
            let what = last.what[i].load(Relaxed);
            (u64::from(what) & 0xf & bytes != 0).then_some(Meeting {
                before,
                pc: (what >> 4) as usize,
                wrote,
            })
        };
        if write {
            // The entry first: of two CTAs that write and read at once, one sees the other.
            let met = against(&page.writes, true);
            page.writes.set(i, me, what);
            met.or_else(|| page.reads.get().and_then(|reads| against(reads, false)))
        } else {
            let reads = page.reads.get_or_init(Last::new);
            // An unordered reader stays, so that a writer meets it.
            if against(reads, false).is_none() {
                reads.set(i, me, what);
            }
            against(&page.writes, true)
        }
    }
}
