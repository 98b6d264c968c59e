//! Who last wrote and read each word of a CTA's shared memory.

use super::super::access::lanes;
use super::Checks;
use super::entry::{ATOMIC, ENGINE, Entry, IN_FLIGHT, STRONG};
use super::products::Products;
use super::view::View;

/// Readers that a shadow tells apart; accesses of more than these go unseen.
const READERS: usize = 64;

/// Shadow of the shared memory of one CTA.
#[derive(Debug, Default)]
pub struct Shadow {
    pub(super) writes: Vec<Entry>,
    /// For each word, a bit for each slot whose reader has read it since the last whole write.
    pub(super) readers: Vec<u64>,
    /// For each slot, the last read of each word. Only reads that `readers` names mean anything.
    pub(super) reads: Vec<Vec<Entry>>,
    /// Actor of each slot.
    slots: Vec<u32>,
    /// For each slot, a clock that none of its reads is later than.
    pub(super) latest: Vec<u32>,
    pub(super) products: Products,
}

/// Two accesses that nothing orders, at a byte address.
#[derive(Debug, Clone, Copy)]
pub struct Clash {
    pub at: u64,
    /// Lane of the access at hand.
    pub lane: u32,
    pub before: Entry,
    /// The earlier one wrote.
    pub wrote: bool,
    pub why: Why,
}

/// Why two accesses clash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Nothing orders the actors.
    Unordered,
    /// Lanes of one warp, without a warp-wide synchronisation.
    Lanes,
    /// Ordered, but no proxy fence stands between.
    Proxy,
}

/// Who accesses, and what it knows.
pub struct Actor<'a> {
    pub actor: u32,
    /// Clock, actor, pc and flags.
    pub entry: Entry,
    pub view: &'a View,
    /// Own accesses before this clock are ordered with those of the warp's other lanes.
    pub lane_sync: u32,
    pub races: bool,
    pub lanes: bool,
    pub proxies: bool,
}

impl<'a> Actor<'a> {
    /// An engine, with the view of the warp that asked it.
    pub fn engine(entry: Entry, view: &'a View, checks: Checks) -> Actor<'a> {
        Actor {
            actor: u32::MAX,
            entry,
            view,
            lane_sync: 0,
            races: checks.races,
            lanes: false,
            proxies: checks.proxies,
        }
    }

    /// Whether an access of `bytes` by `lane` is ordered behind `before`.
    #[inline(always)]
    pub(super) fn behind(&self, before: Entry, lane: u32, bytes: u64, wrote: bool) -> Option<Why> {
        if before.actor() == self.actor && before.clock() != IN_FLIGHT {
            let apart = before.lane() != lane && before.clock() >= self.lane_sync;
            let clash = self.lanes && apart && before.bytes() & bytes != 0;
            let clash = clash && !before.both_strong(self.entry.0);
            if !clash {
                return self.unfenced(before, bytes, wrote);
            }
            return Some(Why::Lanes);
        }
        if before.clock() <= self.view.knows(before.actor()) {
            return self.unfenced(before, bytes, wrote);
        }
        let clash = self.races && before.bytes() & bytes != 0;
        (clash && !before.both_strong(self.entry.0)).then_some(Why::Unordered)
    }

    /// Whether a lane may access what `before` wrote; `fine` becomes the epoch of `before` where
    /// the whole epoch may be accessed.
    #[inline(always)]
    fn may_touch(&self, before: Entry, lane: u32, bytes: u64, fine: &mut u64) -> Result<(), Why> {
        let own = before.actor() == self.actor;
        // What the warp wrote before its lanes last met, and what others did that it knows of.
        let known =
            if own { self.lane_sync.saturating_sub(1) } else { self.view.knows(before.actor()) };
        if before.clock() <= known && !(own && self.entry.is(ENGINE)) {
            *fine = before.epoch();
            return Ok(());
        }
        self.behind(before, lane, bytes, true).map_or(Ok(()), Err)
    }

    pub(super) fn clash(&self, word: usize, lane: u32, before: Entry, why: Why) -> Clash {
        Clash { at: 4 * word as u64, lane, before, wrote: true, why }
    }

    /// An engine's access to what threads wrote needs a proxy fence.
    #[inline(always)]
    fn unfenced(&self, before: Entry, bytes: u64, wrote: bool) -> Option<Why> {
        let across = self.proxies && self.entry.is(ENGINE) && wrote && !before.is(ENGINE);
        let clash = across && before.bytes() & bytes != 0 && before.0 != 0;
        (clash && before.clock() > self.view.proxied(before.actor())).then_some(Why::Proxy)
    }
}

/// Bit of each byte of the word that an access of `bytes` at `at` touches.
#[inline(always)]
pub fn byte_mask(at: u64, bytes: u32) -> u64 {
    if bytes >= 4 { 0xf } else { ((1 << bytes) - 1) << (at % 4) }
}

impl Shadow {
    /// For a new CTA with `bytes` of shared memory.
    pub fn reset(&mut self, bytes: u32) {
        let words = bytes.div_ceil(4) as usize;
        self.writes.clear();
        self.writes.resize(words, Entry::default());
        self.readers.clear();
        self.readers.resize(words, 0);
        self.slots.clear();
        self.latest.clear();
        self.products.reset(words);
        self.reads.iter_mut().filter(|r| r.len() != words).for_each(Vec::clear);
    }

    pub(super) fn slot(&mut self, actor: u32) -> Option<usize> {
        let found = self.slots.iter().position(|&a| a == actor);
        let slot = match found {
            Some(slot) => slot,
            None if self.slots.len() == READERS => return None,
            None => {
                self.slots.push(actor);
                self.latest.push(0);
                self.slots.len() - 1
            }
        };
        if self.reads.len() <= slot {
            self.reads.push(Vec::new());
        }
        if self.reads[slot].is_empty() {
            self.reads[slot] = vec![Entry::default(); self.writes.len()];
        }
        Some(slot)
    }

    /// Reads by the lanes of `mask`, each of `bytes` at its address. What lies outside is somebody
    /// else's to refuse.
    ///
    /// # Errors
    /// A write that the actor is not behind.
    pub fn read(
        &mut self,
        a: &Actor<'_>,
        address: &[u64; 32],
        mask: u32,
        bytes: u32,
    ) -> Result<(), Clash> {
        match bytes {
            16 => self.read_words::<4>(a, address, mask, bytes),
            8 => self.read_words::<2>(a, address, mask, bytes),
            _ => self.read_words::<1>(a, address, mask, bytes),
        }
    }

    fn read_words<const N: usize>(
        &mut self,
        a: &Actor<'_>,
        address: &[u64; 32],
        mask: u32,
        bytes: u32,
    ) -> Result<(), Clash> {
        let slot = self.slot(a.actor);
        if let Some(slot) = slot {
            self.latest[slot] = self.latest[slot].max(a.entry.clock());
        }
        let writes = &self.writes[..];
        // Readers beyond those told apart leave no trace.
        let (mut sink, mut none) = ([], []);
        let (bit, readers, reads) = match slot {
            Some(slot) => (1 << slot, &mut self.readers[..], &mut self.reads[slot][..]),
            None => (0, &mut none[..], &mut sink[..]),
        };
        // An epoch already found to be ordered.
        let mut fine = 0;
        let step = 4 * N as u64;
        let first = (address[0] / 4) as usize;
        let apart = |i: usize| address[i] ^ address[0].wrapping_add(i as u64 * step);
        if mask == u32::MAX
            && bytes == 4 * N as u32
            && (0..32).fold(0, |all, i| all | apart(i)) == 0
            && let Some(words) = writes.get(first..first + 32 * N)
        {
            // The lanes' words lie one behind the other.
            for (i, &before) in words.iter().enumerate() {
                if before.epoch() != fine {
                    a.may_touch(before, (i / N) as u32, 0xf, &mut fine)
                        .map_err(|why| a.clash(first + i, (i / N) as u32, before, why))?;
                }
            }
            if let Some(reads) = reads.get_mut(first..first + 32 * N) {
                readers[first..first + 32 * N].iter_mut().for_each(|r| *r |= bit);
                let entry = a.entry.at(0, 0xf);
                for (lane, reads) in reads.as_chunks_mut::<N>().0.iter_mut().enumerate() {
                    *reads = [entry.at(lane as u32, 0); N];
                }
            }
            return Ok(());
        }
        let one =
            mask == u32::MAX && (0..32).fold(0, |all, i| all | (address[i] ^ address[0])) == 0;
        for lane in lanes(mask) {
            let at = address[lane as usize];
            let touched = byte_mask(at, bytes);
            let first = (at / 4) as usize;
            let Some(words) = writes[first.min(writes.len())..].first_chunk::<N>() else {
                continue;
            };
            for (i, &before) in words.iter().enumerate() {
                if before.epoch() != fine {
                    a.may_touch(before, lane, touched, &mut fine)
                        .map_err(|why| a.clash(first + i, lane, before, why))?;
                }
            }
            // Where all read one place, the last one's read stays.
            if bit != 0 && (lane == 31 || !one) {
                readers[first..first + N].iter_mut().for_each(|r| *r |= bit);
                reads[first..first + N].fill(a.entry.at(lane, touched));
            }
        }
        Ok(())
    }

    /// Writes by the lanes of `mask`. True if two lanes of this instruction write one byte. `idle`
    /// says of a lane that it writes what is there already, which harms no other write.
    ///
    /// # Errors
    /// A read or write that the actor is not behind.
    pub fn write(
        &mut self,
        a: &Actor<'_>,
        address: &[u64; 32],
        mask: u32,
        bytes: u32,
        idle: &dyn Fn(u32) -> bool,
    ) -> Result<bool, Clash> {
        self.settle(0..u32::MAX);
        match bytes {
            32 => self.write_words::<8>(a, address, mask, bytes, idle),
            16 => self.write_words::<4>(a, address, mask, bytes, idle),
            8 => self.write_words::<2>(a, address, mask, bytes, idle),
            _ => self.write_words::<1>(a, address, mask, bytes, idle),
        }
    }

    /// Slots whose reads are all ordered before what `a` does: its own, and those that it knows of.
    fn harmless(&self, a: &Actor<'_>) -> u64 {
        let fine = |(&slot, &latest): (&u32, &u32)| slot == a.actor || latest <= a.view.knows(slot);
        let slots = self.slots.iter().zip(&self.latest).enumerate();
        slots.fold(0, |all, (i, slot)| all | u64::from(fine(slot)) << i)
    }

    fn write_words<const N: usize>(
        &mut self,
        a: &Actor<'_>,
        address: &[u64; 32],
        mask: u32,
        bytes: u32,
        idle: &dyn Fn(u32) -> bool,
    ) -> Result<bool, Clash> {
        let harmless = self.harmless(a);
        let plain = !a.entry.is(ATOMIC | STRONG);
        if plain && mask == u32::MAX && self.write_row::<N>(a, address, bytes, harmless) {
            return Ok(false);
        }
        let (mut fine, mut overlap) = (0, false);
        let (writes, readers) = (&mut self.writes[..], &mut self.readers[..]);
        for lane in lanes(mask) {
            let address = address[lane as usize];
            let touched = byte_mask(address, bytes);
            let mut entry = a.entry.at(lane, touched);
            let first = (address / 4) as usize;
            let from = first.min(writes.len());
            let Some(writes) = writes[from..].first_chunk_mut::<N>() else { continue };
            let Some(readers) = readers[from..].first_chunk_mut::<N>() else { continue };
            self.products.changed(first, N);
            for (i, (write, readers)) in writes.iter_mut().zip(readers).enumerate() {
                let before = *write;
                if before.epoch() == fine || touched == 0xf && before.same_lane(entry) {
                    // Nothing is wrong, nor would it be with another lane's bytes.
                } else if before.same_instruction(entry) {
                    // The same instruction, most often this very execution of it.
                    overlap |= before.bytes() & touched != 0 && before.lane() != lane;
                    entry = entry.at(0, before.bytes());
                } else if let Err(why) = a.may_touch(before, lane, touched, &mut fine)
                    && (before.clock() == IN_FLIGHT || !idle(lane))
                {
                    return Err(a.clash(first + i, lane, before, why));
                }
                let mut others = *readers & !harmless;
                while others != 0 {
                    let slot = others.trailing_zeros() as usize;
                    others &= others - 1;
                    let before = self.reads[slot][first + i];
                    if before.clock() > a.view.knows(before.actor())
                        && let Some(why) = a.behind(before, lane, touched, false)
                    {
                        return Err(Clash {
                            wrote: false,
                            ..a.clash(first + i, lane, before, why)
                        });
                    }
                }
                if touched == 0xf {
                    *readers = 0;
                }
                // An atomic does not hide the plain write before it from other warps' atomics.
                if plain || before.epoch() != entry.epoch() || before.is(ATOMIC | STRONG) {
                    *write = entry;
                }
            }
        }
        Ok(overlap)
    }

    /// Writes by all lanes of words that lie one behind the other, if nothing is wrong with any.
    #[inline(always)]
    fn write_row<const N: usize>(
        &mut self,
        a: &Actor<'_>,
        address: &[u64; 32],
        bytes: u32,
        harmless: u64,
    ) -> bool {
        let step = 4 * N as u64;
        let apart = |i: usize| address[i] ^ address[0].wrapping_add(i as u64 * step);
        if bytes != 4 * N as u32 || (0..32).fold(0, |all, i| all | apart(i)) != 0 {
            return false;
        }
        let first = (address[0] / 4) as usize;
        let words = first..first + 32 * N;
        let Some(readers) = self.readers.get_mut(words.clone()) else { return false };
        let Some(writes) = self.writes.get_mut(words) else { return false };
        if readers.iter().fold(0, |all, r| all | r) & !harmless != 0 {
            return false;
        }
        let entry = a.entry.at(0, 0xf);
        let mut fine = 0;
        for (lane, words) in writes.as_chunks::<N>().0.iter().enumerate() {
            let mine = entry.at(lane as u32, 0);
            for &before in words {
                let well = before.epoch() == fine || before.same_lane(mine);
                if !well
                    && (before.same_instruction(mine)
                        || a.may_touch(before, lane as u32, 0xf, &mut fine).is_err())
                {
                    return false;
                }
            }
        }
        for (lane, words) in writes.as_chunks_mut::<N>().0.iter_mut().enumerate() {
            *words = [entry.at(lane as u32, 0); N];
        }
        readers.fill(0);
        self.products.changed(first, 32 * N);
        true
    }

    /// A span of whole words that an engine will write (`write`) or read; whoever touches it before
    /// [`Shadow::landed`] is not ordered behind the engine.
    ///
    /// # Errors
    /// A write, or for a write a read, that the actor is not behind.
    pub fn engine(&mut self, a: &Actor<'_>, at: u32, bytes: u32, write: bool) -> Result<(), Clash> {
        let slot = if write { None } else { self.slot(a.entry.actor()) };
        if let Some(slot) = slot {
            self.latest[slot] = IN_FLIGHT;
        }
        let range = at as usize / 4..(at + bytes).div_ceil(4) as usize;
        let end = range.end.min(self.writes.len());
        let entry = a.entry.with_clock(IN_FLIGHT).at(0, 0xf);
        if write {
            self.settle(at..at.saturating_add(bytes));
            self.products.changed(range.start.min(end), end - range.start.min(end));
        }
        for i in range.start.min(end)..end {
            let (at, lane) = (4 * i as u64, 0);
            let before = self.writes[i];
            let fellow = before.is(ATOMIC) && a.entry.is(ATOMIC);
            if !fellow && let Some(why) = a.behind(before, lane, 0xf, true) {
                return Err(Clash { at, lane, before, wrote: true, why });
            }
            if !write {
                if let Some(slot) = slot {
                    self.readers[i] |= 1 << slot;
                    self.reads[slot][i] = entry;
                }
                continue;
            }
            let mut readers = self.readers[i];
            while readers != 0 {
                let slot = readers.trailing_zeros() as usize;
                readers &= readers - 1;
                let before = self.reads[slot][i];
                if let Some(why) = a.behind(before, lane, 0xf, false) {
                    return Err(Clash { at, lane, before, wrote: false, why });
                }
            }
            self.readers[i] = 0;
            self.writes[i] = entry;
        }
        Ok(())
    }

    /// An engine's access has ended; those who know its actor up to `clock` are ordered behind it.
    pub fn landed(&mut self, actor: u32, at: u32, bytes: u32, write: bool, clock: u32) {
        let range = at as usize / 4..((at + bytes).div_ceil(4) as usize).min(self.writes.len());
        self.settle(at..at.saturating_add(bytes));
        if write {
            self.products.changed(range.start, range.len());
        }
        let done = |e: &mut Entry| {
            if e.actor() == actor && (e.clock() == IN_FLIGHT || e.clock() < clock) {
                *e = e.with_clock(clock);
            }
        };
        if write {
            self.writes[range].iter_mut().for_each(done);
        } else if let Some(slot) = self.slots.iter().position(|&a| a == actor) {
            self.latest[slot] = self.latest[slot].max(clock);
            self.reads[slot][range].iter_mut().for_each(done);
        }
    }

    /// Copies of the lanes of `mask` have begun, [`Shadow::write`] having let them pass.
    pub fn departed(&mut self, entry: Entry, address: &[u64; 32], mask: u32, bytes: u32) {
        let entry = entry.with_clock(IN_FLIGHT);
        for lane in lanes(mask) {
            let first = (address[lane as usize] / 4) as usize;
            if let Some(words) = self.writes.get_mut(first..first + bytes as usize / 4) {
                words.fill(entry.at(lane, 0xf));
                self.products.changed(first, bytes as usize / 4);
            }
        }
    }

    /// A copy of one lane has landed: from now on it counts as that lane's write.
    #[inline(always)]
    pub fn copied(&mut self, entry: Entry, lane: u32, at: u32, words: usize) {
        let first = at as usize / 4;
        self.writes[first..first + words].fill(entry.at(lane, 0xf));
        self.products.changed(first, words);
    }
}

#[cfg(test)]
mod tests {
    use rand::Rng;

    use super::*;

    /// Accesses of rows are looked at as the same by some lanes and then the others are.
    #[test]
    fn rows_are_as_their_lanes() {
        const ACTORS: usize = 4;
        const WORDS: usize = 512;
        let mut rng = rand_pcg::Pcg64Mcg::new(7);
        let (mut sound, mut clashes) = (0, 0);
        for _ in 0..400 {
            let (mut whole, mut parts) = (Shadow::default(), Shadow::default());
            whole.reset(4 * WORDS as u32);
            parts.reset(4 * WORDS as u32);
            let mut views = vec![View::default(); ACTORS];
            let (mut clocks, mut lane_sync) = ([1; ACTORS], [1; ACTORS]);
            for _ in 0..40 {
                let me = rng.random_range(0..ACTORS);
                if rng.random_bool(0.4) {
                    // Learns something, most often all there is, as at a barrier.
                    for (other, clock) in clocks.iter_mut().enumerate() {
                        if rng.random_bool(0.97) {
                            super::super::raise(&mut views[me].known, other, *clock);
                            *clock += 1;
                        }
                    }
                    lane_sync[me] = clocks[me];
                }
                let flags = if rng.random_bool(0.1) { STRONG } else { 0 };
                let a = Actor {
                    actor: me as u32,
                    entry: Entry::new(clocks[me], me as u32, rng.random_range(0..3), flags),
                    view: &views[me],
                    lane_sync: lane_sync[me],
                    races: true,
                    lanes: rng.random_bool(0.9),
                    proxies: true,
                };
                let bytes = 4 << rng.random_range(0..3);
                let step = u64::from(bytes);
                let first = rng.random_range(0..6) * 64;
                let address = std::array::from_fn(|i| first + i as u64 * step);
                let write = rng.random_bool(0.6);
                let look = |shadow: &mut Shadow, mask: u32| match write {
                    true => shadow.write(&a, &address, mask, bytes, &|_| false),
                    false => shadow.read(&a, &address, mask, bytes).map(|()| false),
                };
                let split = rng.random_range(1..31);
                let row = look(&mut whole, u32::MAX);
                let lanes = look(&mut parts, (1 << split) - 1).and_then(|overlap| {
                    look(&mut parts, u32::MAX << split).map(|more| overlap | more)
                });
                let say = |r: &Result<bool, Clash>| format!("{r:?}");
                assert_eq!(say(&row), say(&lanes));
                if row.is_err() {
                    clashes += 1;
                    break;
                }
                sound += 1;
                assert_eq!((&whole.writes, &whole.readers), (&parts.writes, &parts.readers));
            }
        }
        assert!(sound > 500 && clashes > 100, "{sound} sound accesses, {clashes} clashes");
    }
}
