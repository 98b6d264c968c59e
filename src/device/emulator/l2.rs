//! A model of L2: the requests of concurrent CTAs, interleaved, through a set-associative cache.
//!
//! CTAs take slots in their order, as many at a time as the device holds, and those with a slot have
//! turns of a few requests each; a CTA that has come to its end leaves its slot to the next. That is
//! a model of the order of requests, not a fact: real CTAs drift apart. What follows from it is the
//! traffic to device memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::stream::{Request, Stream, Way};
use crate::device::L2Counts;

/// Lines of a set.
const WAYS: usize = 16;
/// Bytes of a line.
const LINE: u64 = 128;
/// Requests of a CTA's turn.
const TURN: usize = 4;

/// Lines by least recent use, sectors filled one by one.
pub struct Cache {
    /// For each set its lines, the latest first: address (56 bits), dirty (4), valid (4); 0 is none.
    sets: Vec<[u64; WAYS]>,
    pub counts: L2Counts,
}

impl Cache {
    /// An empty cache of about that size.
    pub fn new(bytes: u64) -> Cache {
        let sets = (bytes / (LINE * WAYS as u64)).max(1);
        Cache { sets: vec![[0; WAYS]; sets as usize], counts: L2Counts::default() }
    }

    /// One request to a line; returns the sectors that had to be fetched.
    pub fn request(&mut self, line: u64, way: Way, sectors: u8) -> u64 {
        // Real sets are chosen by a hash as well, so that strides do not fall on few of them.
        let hash = line.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        let n = self.sets.len() as u64;
        let set = &mut self.sets[((hash * n) >> 32) as usize];
        let wanted = u64::from(sectors & 15);
        // An address is stored one up, so that 0 is no line.
        let tag = line + 1;
        let at = set.iter().position(|e| e >> 8 == tag).unwrap_or(WAYS - 1);
        let mut entry = set[at];
        if entry >> 8 != tag {
            self.counts.dram_write_bytes += u64::from((entry >> 4 & 15).count_ones()) * 32;
            entry = tag << 8;
        }
        let missing = match way {
            Way::Read => {
                let missing = u64::from((wanted & !entry).count_ones());
                self.counts.read_miss_sectors += missing;
                self.counts.read_hit_sectors += u64::from(wanted.count_ones()) - missing;
                self.counts.dram_read_bytes += missing * 32;
                missing
            }
            // Whole sectors are taken to be written: nothing is fetched for them.
            Way::Write => {
                entry |= wanted << 4;
                0
            }
        };
        entry |= wanted;
        set.copy_within(0..at, 1);
        set[0] = entry;
        missing
    }

    /// What has happened since `before`.
    pub fn since(&self, before: &L2Counts) -> L2Counts {
        let now = &self.counts;
        L2Counts {
            read_hit_sectors: now.read_hit_sectors - before.read_hit_sectors,
            read_miss_sectors: now.read_miss_sectors - before.read_miss_sectors,
            dram_read_bytes: now.dram_read_bytes - before.dram_read_bytes,
            dram_write_bytes: now.dram_write_bytes - before.dram_write_bytes,
            left_dirty_bytes: self.dirty_bytes(),
        }
    }

    /// Bytes that are written and not yet in device memory.
    pub fn dirty_bytes(&self) -> u64 {
        let lines = self.sets.iter().flatten();
        lines.map(|e| u64::from((e >> 4 & 15).count_ones()) * 32).sum()
    }
}

/// One launch's CTAs on their way through a cache. They may be handed in in any order.
pub struct Replay<'a> {
    cache: &'a mut Cache,
    /// CTAs that run at a time.
    slots: usize,
    /// Disjoint copies of each CTA, one after the other in the order of CTAs.
    copies: u64,
    running: Vec<Running>,
    next: (u64, u64),
    waiting: BTreeMap<u64, Arc<Stream>>,
    /// Fetched sectors by instruction.
    pub misses: Vec<u64>,
}

struct Running {
    stream: Arc<Stream>,
    at: usize,
    copy: u64,
}

impl<'a> Replay<'a> {
    /// The program has `instructions`; [`Replay::misses`] has one entry more, for those beyond 15
    /// bits.
    pub fn new(cache: &'a mut Cache, slots: u64, copies: u64, instructions: usize) -> Replay<'a> {
        Replay {
            cache,
            slots: slots.clamp(1, 1 << 20) as usize,
            copies: copies.max(1),
            running: Vec::new(),
            next: (0, 0),
            waiting: BTreeMap::new(),
            misses: vec![0; instructions.max(Stream::LAST + 1)],
        }
    }

    /// Takes the requests of CTA `i`, and replays what can be.
    pub fn hand_in(&mut self, i: u64, stream: Stream) {
        self.waiting.insert(i, Arc::new(stream));
        while self.fill() {
            self.turn();
        }
    }

    /// Replays what is left, all CTAs having been handed in.
    pub fn finish(mut self) -> Vec<u64> {
        while self.fill() || !self.running.is_empty() {
            self.turn();
        }
        self.misses
    }

    /// Gives free slots to the next CTAs; true if none is left free.
    fn fill(&mut self) -> bool {
        while self.running.len() < self.slots {
            let Some(stream) = self.waiting.get(&self.next.0) else { return false };
            let running = Running { stream: stream.clone(), at: 0, copy: self.next.1 };
            self.next.1 += 1;
            if self.next.1 == self.copies {
                self.waiting.remove(&self.next.0);
                self.next = (self.next.0 + 1, 0);
            }
            self.running.push(running);
        }
        true
    }

    /// A turn of every running CTA.
    fn turn(&mut self) {
        let mut slot = 0;
        while let Some(r) = self.running.get_mut(slot) {
            for _ in 0..TURN {
                let Some(Request { pc, line, way, sectors }) = r.stream.get(r.at) else { break };
                r.at += 1;
                // Copies lie beside each other in an address space of their own.
                let missed = self.cache.request(line ^ r.copy << 44, way, sectors);
                self.misses[pc] += missed;
            }
            if r.at < r.stream.len() {
                slot += 1;
            } else {
                self.running.swap_remove(slot);
                // The last CTA has moved here and has its turn now.
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(lines: impl IntoIterator<Item = u64>) -> Stream {
        let mut s = Stream::default();
        for line in lines {
            s.range(3, line * LINE, LINE, Way::Read);
        }
        s
    }

    #[test]
    fn what_fits_is_fetched_once() {
        let mut cache = Cache::new(1 << 20);
        for _ in 0..3 {
            (0..4096).for_each(|line| {
                cache.request(line, Way::Read, 0b0110);
            });
        }
        assert_eq!(cache.counts.dram_read_bytes, 4096 * 64);
        assert_eq!(cache.counts.read_hit_sectors, 2 * 4096 * 2);
        // The other half of each line was never fetched.
        assert_eq!(cache.request(0, Way::Read, 0b1111), 2);
    }

    #[test]
    fn what_does_not_fit_is_fetched_again_and_written_back() {
        let mut cache = Cache::new(1 << 20);
        for _ in 0..2 {
            (0..32768).for_each(|line| {
                cache.request(line, Way::Read, 15);
            });
        }
        assert!(cache.counts.read_hit_sectors < 32768 * 4 / 100, "{:?}", cache.counts);
        let before = cache.counts;
        (0..32768).for_each(|line| {
            cache.request(1 << 30 | line, Way::Write, 15);
        });
        assert_eq!(cache.counts.dram_read_bytes, before.dram_read_bytes);
        let written = cache.counts.dram_write_bytes + cache.dirty_bytes();
        assert_eq!(written, 32768 * LINE);
        assert!(cache.dirty_bytes() >= 7 << 17 && cache.dirty_bytes() <= 1 << 20);
    }

    #[test]
    fn order_of_handing_in_does_not_matter() {
        let streams: Vec<Stream> =
            (0..40).map(|i| reads((0..200).map(|k| i / 4 * 300 + k))).collect();
        let run = |order: &[u64]| {
            let mut cache = Cache::new(1 << 17);
            let mut replay = Replay::new(&mut cache, 8, 2, 10);
            order.iter().for_each(|&i| replay.hand_in(i, streams[i as usize].clone()));
            let misses = replay.finish();
            (misses[3], cache.counts)
        };
        let forward: Vec<u64> = (0..40).collect();
        let mixed: Vec<u64> = (0..40).map(|i| i * 7 % 40).collect();
        let (misses, counts) = run(&forward);
        assert_eq!((misses, counts), run(&mixed));
        assert_eq!(misses * 32, counts.dram_read_bytes);
        // Four neighbours read the same: their copies share slots, so each line is fetched about
        // twice instead of eight times.
        let distinct = 10 * 200 * 4;
        assert!((2 * distinct..=3 * distinct).contains(&misses), "{misses} {distinct}");
    }

    #[test]
    fn copies_are_disjoint() {
        let mut cache = Cache::new(1 << 20);
        let mut replay = Replay::new(&mut cache, 4, 5, 10);
        replay.hand_in(0, reads(0..10));
        replay.finish();
        assert_eq!(cache.counts.dram_read_bytes, 5 * 10 * LINE);
    }
}
