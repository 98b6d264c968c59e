//! Who last wrote and read each word of global memory in this launch.
//!
//! Only buffers that a kernel may write are watched. Threads of several CTAs run at once, so that
//! entries are atomics; pages exist once touched.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::shared::byte_mask;

/// Words of a page.
const PAGE: usize = 1 << 12;

/// Agents below this one are warps of the CTA; the others are engines of the cluster whose first
/// CTA is named.
pub const FIRST_ENGINE: u32 = 32;
/// Engines that are told apart; the accesses of more go unseen.
pub const ENGINES: u32 = (1 << 9) - FIRST_ENGINE;

/// CTA (over all launches of a session, from 1) 26, agent 9, clock 24, rank of the CTA that asked
/// an engine 4, strong 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Touch(pub u64);

/// CTAs that a session can tell apart; then its shadows begin anew.
pub const MAX_CTA: u64 = (1 << 26) - 1;

impl Touch {
    /// An access by a warp of a CTA.
    pub fn warp(cta: u64, warp: u32, clock: u32, strong: bool) -> Touch {
        Touch(cta << 38 | u64::from(warp) << 29 | u64::from(clock) << 5 | u64::from(strong))
    }

    /// An access by engine number `engine` of a cluster, asked by the CTA of that rank.
    pub fn engine(cluster: u64, engine: u32, clock: u32, rank: u32, strong: bool) -> Touch {
        let t = Touch::warp(cluster, FIRST_ENGINE + engine, clock, strong);
        Touch(t.0 | u64::from(rank & 15) << 1)
    }

    /// The CTA, or the first CTA of the engine's cluster, over all launches of the session.
    #[inline(always)]
    pub fn cta(self) -> u64 {
        self.0 >> 38
    }

    /// The warp, or from [`FIRST_ENGINE`] on the engine.
    #[inline(always)]
    pub fn agent(self) -> u32 {
        (self.0 >> 29) as u32 & 511
    }

    /// By an engine.
    #[inline(always)]
    pub fn by_engine(self) -> bool {
        self.agent() >= FIRST_ENGINE
    }

    pub fn clock(self) -> u32 {
        (self.0 >> 5) as u32 & 0xff_ffff
    }

    /// Rank of the CTA that asked an engine.
    pub fn rank(self) -> u32 {
        (self.0 >> 1) as u32 & 15
    }

    pub fn strong(self) -> bool {
        self.0 & 1 != 0
    }

    /// CTA and agent.
    #[inline(always)]
    pub fn actor(self) -> u64 {
        self.0 >> 29
    }
}

/// Where an access stands: instruction 18, warp 5, lane 5, touched bytes 4.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct What(u32);

impl What {
    /// Instructions from this one on are not named.
    const PC_UNKNOWN: usize = (1 << 18) - 1;

    #[inline(always)]
    pub fn new(pc: usize, warp: u32, lane: u32) -> What {
        What((pc.min(What::PC_UNKNOWN) as u32) << 14 | warp << 9 | lane << 4)
    }

    /// Its instruction, where that is known.
    pub fn pc(self) -> Option<usize> {
        let pc = (self.0 >> 14) as usize;
        (pc != What::PC_UNKNOWN).then_some(pc)
    }

    pub fn warp(self) -> u32 {
        self.0 >> 9 & 31
    }

    pub fn lane(self) -> u32 {
        self.0 >> 4 & 31
    }
}

/// The last access of a kind to each word of a page.
struct Last {
    who: Vec<AtomicU64>,
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

/// An earlier access that nothing orders with the one at hand, or across proxies without a fence.
#[derive(Debug, Clone, Copy)]
pub struct Meeting {
    pub before: Touch,
    pub what: What,
    pub wrote: bool,
    /// Ordered, but no proxy fence stands between.
    pub unfenced: bool,
}

/// What decides whether an earlier access happened before.
pub trait Knows {
    /// Whether an access of this launch, by another actor, happened before.
    fn knows(&self, t: Touch) -> bool;
    /// Whether a proxy fence stands behind a thread's write that is known.
    fn fenced(&self, t: Touch) -> bool;
}

impl GlobalShadow {
    /// The shadow of a buffer of so many bytes that nothing has touched.
    pub fn new(bytes: u64) -> GlobalShadow {
        let pages = bytes.div_ceil(4 * PAGE as u64) as usize;
        GlobalShadow { pages: (0..pages).map(|_| OnceLock::new()).collect() }
    }

    /// Forgets all accesses.
    pub fn clear(&mut self) {
        self.pages.iter_mut().for_each(|p| *p = OnceLock::new());
    }

    #[inline(always)]
    fn page(&self, at: u64) -> Option<(&Page, usize)> {
        let (page, i) = ((at / 4) as usize / PAGE, (at / 4) as usize % PAGE);
        let slot = self.pages.get(page)?;
        let page = match slot.get() {
            Some(page) => page,
            None => slot.get_or_init(|| Page { writes: Last::new(), reads: OnceLock::new() }),
        };
        Some((page, i))
    }

    /// Notes an access by `me` to the word at byte `at`, and gives an access of this launch that is
    /// not ordered before it. `bytes` is the mask of the bytes touched. `oldest` is the first CTA
    /// of this launch: all that earlier CTAs did happened before. `ENGINE`: `me` is an engine,
    /// through the async proxy.
    #[inline(always)]
    pub fn touch<const ENGINE: bool>(
        &self,
        (me, what): (Touch, What),
        (at, bytes): (u64, u64),
        write: bool,
        oldest: u64,
        order: &impl Knows,
    ) -> Option<Meeting> {
        let (page, i) = self.page(at)?;
        let mine = what.0 | bytes as u32;
        let against = |last: &Last, wrote: bool| {
            let before = last.get(i);
            if before.cta() < oldest {
                return None;
            }
            // A warp's own accesses are in order; an engine's writes are not.
            if before.actor() == me.actor() && !(ENGINE && wrote) {
                return None;
            }
            if before.strong() && me.strong() {
                return None;
            }
            let unfenced = if !order.knows(before) {
                false
            } else if ENGINE && wrote && !before.by_engine() && !order.fenced(before) {
                true
            } else {
                return None;
            };
            let what = What(last.what[i].load(Relaxed));
            let meets = u64::from(what.0) & 0xf & bytes != 0;
            meets.then_some(Meeting { before, what, wrote, unfenced })
        };
        if write {
            // The entry first: of two CTAs that write and read at once, one sees the other.
            let met = against(&page.writes, true);
            // An atomic does not hide the plain write before it from other warps' atomics.
            let before = page.writes.get(i);
            let hidden = me.strong() && me.0 & !31 == before.0 & !31 && !before.strong();
            if !hidden {
                page.writes.set(i, me, mine);
            }
            met.or_else(|| page.reads.get().and_then(|reads| against(reads, false)))
        } else {
            let reads = page.reads.get_or_init(Last::new);
            // An unordered reader stays, so that a writer meets it.
            if against(reads, false).is_none() {
                reads.set(i, me, mine);
            }
            against(&page.writes, true)
        }
    }

    /// As [`GlobalShadow::touch`] by an engine, of all words of a span.
    pub fn run(
        &self,
        me: (Touch, What),
        (at, bytes): (u64, u64),
        write: bool,
        oldest: u64,
        order: &impl Knows,
    ) -> Option<Meeting> {
        let (mut at, end) = (at, at + bytes);
        while at < end {
            let n = (4 - at % 4).min(end - at) as u32;
            let mask = byte_mask(at, n);
            if let Some(met) = self.touch::<true>(me, (at & !3, mask), write, oldest, order) {
                return Some(met);
            }
            at += u64::from(n);
        }
        None
    }
}
