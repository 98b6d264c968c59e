//! A warp's accesses looked at together, so that what is nearly always right is checked once.

use pulp::{Arch, Simd, WithSimd};

use super::memory::{Global, Region, Shared, WRITTEN, conflict_degree};
use super::regs::{Row, dispatch};

/// Accesses of one size to shared memory by the lanes of a warp, all aligned and in bounds.
pub struct Survey {
    /// First word of each lane's access. A lane that takes no part has the place of one that does.
    pub at: Row<u32>,
    pub shape: Shape,
    /// Cycles of the shared-memory pipe, and how many of them are bank conflicts.
    pub cycles: (u64, u64),
}

/// How the lanes' accesses lie to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// One behind the other, all 32 lanes.
    Row,
    /// All at one place.
    One,
    Mixed,
}

/// `bytes` a lane from `base` plus `offset`: a power of two from 4 to 16. `None` if a lane is out
/// of bounds or misaligned, or might be.
#[inline]
pub fn survey(
    arch: Arch,
    shared: &Shared,
    base: &Row<u32>,
    offset: i64,
    mask: u32,
    bytes: u32,
) -> Option<Survey> {
    let offset = i32::try_from(offset).ok().filter(|o| o.unsigned_abs() < 1 << 30)?;
    if mask == 0 || bytes > shared.bytes || !matches!(bytes, 4 | 8 | 16) {
        return None;
    }
    let look = Look { base, offset: offset as u32, mask, bytes, last: shared.bytes - bytes };
    let seen = dispatch(arch, look)?;
    // Phases of lanes that together ask for at most 128 bytes.
    let lanes = (128 / bytes) as usize;
    let (mut total, mut ideal) = (0, 0);
    for phase in (0..32).step_by(lanes) {
        let active = mask >> phase & (u32::MAX >> (32 - lanes));
        if active == 0 {
            continue;
        }
        ideal += 1;
        let banks = seen.banks[phase / 8..(phase + lanes) / 8].iter().fold(0, |all, b| all | b);
        if seen.shape == Shape::One || banks.count_ones() == active.count_ones() {
            total += 1;
            continue;
        }
        total += degree(&seen.at[phase..phase + lanes], active, bytes / 4, lanes as u32);
    }
    Some(Survey { at: seen.at, shape: seen.shape, cycles: (total, total - ideal) })
}

/// Most distinct units of `words` that fall on one of `banks`; `at` in words.
fn degree(at: &[u32], active: u32, words: u32, banks: u32) -> u64 {
    let mut address = [0u64; 32];
    for (a, w) in address.iter_mut().zip(at) {
        *a = u64::from(*w);
    }
    conflict_degree(&address[..at.len()], active, words.trailing_zeros(), banks)
}

struct Look<'a> {
    base: &'a Row<u32>,
    offset: u32,
    mask: u32,
    bytes: u32,
    /// The last place where an access fits.
    last: u32,
}

struct Seen {
    at: Row<u32>,
    shape: Shape,
    /// Bank groups that each eight lanes reach, one bit each.
    banks: [u32; 4],
}

impl WithSimd for Look<'_> {
    type Output = Option<Seen>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Option<Seen> {
        let Look { base, offset, mask, bytes, last } = self;
        let any = base[mask.trailing_zeros() as usize & 31];
        let first = any.wrapping_add(offset);
        let (mut high, mut low, mut far, mut row, mut one) = (0, 0, 0, 0, 0);
        let mut at = Row([0; 32]);
        let mut bank = Row([0; 32]);
        let (unit, groups) = (bytes.trailing_zeros(), 128 / bytes - 1);
        for i in 0..32 {
            let on = (mask >> i & 1).wrapping_neg();
            let b = base[i] & on | any & !on;
            let a = b.wrapping_add(offset);
            far |= b;
            high = high.max(a);
            low |= a;
            row |= a ^ first.wrapping_add(i as u32 * bytes);
            one |= a ^ first;
            at[i] = a >> 2;
            bank[i] = (1u32 << (a >> unit & groups)) & on;
        }
        // A sum that wrapped around may look right.
        if far >> 31 != 0 || high > last || low & (bytes - 1) != 0 {
            return None;
        }
        let shape = match (one, row) {
            (0, _) => Shape::One,
            (_, 0) if mask == u32::MAX => Shape::Row,
            _ => Shape::Mixed,
        };
        let mut banks = [0; 4];
        for (all, eight) in banks.iter_mut().zip(bank.as_chunks::<8>().0) {
            *all = eight.iter().fold(0, |a, b| a | b);
        }
        Some(Seen { at, shape, banks })
    }
}

impl Survey {
    /// Whether all words, `n` a lane, hold what was written and nothing is in flight to them.
    #[inline(always)]
    pub fn written(&self, shared: &Shared, n: usize) -> bool {
        self.shadows(shared, n, WRITTEN, |a, b| a & b) == WRITTEN
    }

    /// Whether nothing is in flight to any of the words, `n` a lane.
    #[inline(always)]
    pub fn settled(&self, shared: &Shared, n: usize) -> bool {
        self.shadows(shared, n, 0, |a, b| a | b) >> 4 == 0
    }

    #[inline(always)]
    fn shadows(&self, shared: &Shared, n: usize, none: u8, join: impl Fn(u8, u8) -> u8) -> u8 {
        let from = |i: u32, n: usize| &shared.shadow()[i as usize..i as usize + n];
        let all = |all: u8, s: &[u8]| s.iter().fold(all, |a, b| join(a, *b));
        match self.shape {
            Shape::Row => all(none, from(self.at[0], 32 * n)),
            Shape::One => all(none, from(self.at[0], n)),
            Shape::Mixed => self.at.iter().fold(none, |a, i| all(a, from(*i, n))),
        }
    }

    /// Word `k` of each lane's `n`.
    #[inline(always)]
    pub fn gather(&self, shared: &Shared, n: usize, k: usize) -> Row<u32> {
        let at = self.at[0] as usize;
        match (self.shape, n) {
            (Shape::One, _) => Row::splat(shared.words()[at + k]),
            (Shape::Row, 1) => row::<1>(&shared.words()[at..], k),
            (Shape::Row, 2) => row::<2>(&shared.words()[at..], k),
            (Shape::Row, 4) => row::<4>(&shared.words()[at..], k),
            _ => Row(std::array::from_fn(|i| shared.words()[self.at[i] as usize + k])),
        }
    }

    /// Marks all words, `n` for each lane of `mask`, as written.
    #[inline(always)]
    pub fn write(
        &self,
        shared: &mut Shared,
        mask: u32,
        n: usize,
        value: impl Fn(usize, usize) -> u32,
    ) {
        for (i, at) in self.at.iter().enumerate() {
            if mask >> i & 1 != 0 {
                let at = *at as usize;
                let (words, shadow) = shared.change(at..at + n);
                shadow.fill(WRITTEN);
                for (k, word) in words.iter_mut().enumerate() {
                    *word = value(i, k);
                }
            }
        }
    }
}

/// Every `N`-th word from word `k` on.
#[inline(always)]
fn row<const N: usize>(words: &[u32], k: usize) -> Row<u32> {
    let words = &words[..32 * N].as_chunks::<N>().0[..32];
    Row(std::array::from_fn(|i| words[i][k]))
}

/// Lanes of `mask` in runs whose accesses of `bytes` lie one behind the other: first lane and how
/// many.
#[inline(always)]
pub fn runs(address: &[u64; 32], mask: u32, bytes: u64) -> impl Iterator<Item = (usize, usize)> {
    let mut next = 0;
    std::iter::from_fn(move || {
        let rest = mask.checked_shr(next as u32).unwrap_or(0);
        if rest == 0 {
            return None;
        }
        let first = next + rest.trailing_zeros() as usize;
        let mut end = first + 1;
        while end < 32
            && mask >> end & 1 != 0
            && address[end] == address[end - 1].wrapping_add(bytes)
        {
            end += 1;
        }
        next = end;
        Some((first, end - first))
    })
}

/// Calls `act` with buffer, place, first lane and number of lanes for each run of a warp's accesses
/// to global memory, `bytes` a lane. Ends with false at a run that is misaligned or not within one
/// buffer, or where `act` says so; what was noted until then does no harm.
#[inline(always)]
pub fn global_runs<'g>(
    global: &'g Global,
    address: &[u64; 32],
    mask: u32,
    bytes: u32,
    mut act: impl FnMut(&'g Region, u64, usize, usize) -> bool,
) -> bool {
    runs(address, mask, bytes.into()).all(|(first, lanes)| {
        let start = address[first];
        let Some((region, at)) = global.region(start) else { return false };
        let inside = at < region.bytes && at + lanes as u64 * u64::from(bytes) <= region.bytes;
        inside && start & u64::from(bytes - 1) == 0 && act(region, at, first, lanes)
    })
}

impl Region {
    /// Notes a write of `bytes` at `at`, all in bounds.
    #[inline(always)]
    pub fn note_written(&self, at: u64, bytes: u64) {
        let mut from = at;
        let end = at + bytes;
        while from < end {
            let n = (32 - from % 32).min(end - from);
            self.note_write(from, n);
            from += n;
        }
    }

    /// Notes a read of `bytes` at `at`, all in bounds; false if some of them were never written.
    #[inline(always)]
    pub fn note_range(&self, at: u64, bytes: u64) -> bool {
        let mut from = at;
        let end = at + bytes;
        while from < end {
            let n = (32 - from % 32).min(end - from);
            if !self.readable(from, n) {
                return false;
            }
            from += n;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::emulator::memory::wavefronts;

    fn looked(bytes: u32, offset: i64, mask: u32, f: impl Fn(u32) -> u32) -> Option<Survey> {
        let base = Row(std::array::from_fn(|i| f(i as u32)));
        survey(Arch::new(), &Shared::new(8192), &base, offset, mask, bytes)
    }

    #[test]
    fn agrees_with_one_lane_after_the_other() {
        let patterns: [&dyn Fn(u32) -> u32; 7] = [
            &|i| 16 * i,
            &|_| 48,
            &|i| 128 * i,
            &|i| 16 * (i ^ 5),
            &|i| 256 * (i % 8) + 16 * (i / 8),
            &|i| 64 * i % 512,
            &|i| 16 * (i * i % 37),
        ];
        for f in patterns {
            for bytes in [4, 8, 16] {
                for mask in [u32::MAX, 0xff, 0x8000_0001, 0x0f0f_3333, 1 << 17] {
                    let address = std::array::from_fn(|i| u64::from(f(i as u32)) + 32);
                    let s = looked(bytes, 32, mask, f).expect("in bounds");
                    assert_eq!(s.cycles, wavefronts(&address, mask, bytes), "{bytes} {mask:x}");
                    for i in (0..32).filter(|i| mask >> i & 1 != 0) {
                        assert_eq!(u64::from(s.at[i]) * 4, address[i]);
                    }
                }
            }
        }
    }

    #[test]
    fn shapes() {
        let shape = |mask, f: &dyn Fn(u32) -> u32| looked(4, 0, mask, f).unwrap().shape;
        assert_eq!(shape(u32::MAX, &|i| 4 * i), Shape::Row);
        assert_eq!(shape(u32::MAX >> 1, &|i| 4 * i), Shape::Mixed);
        assert_eq!(shape(1 << 9, &|i| 4 * i), Shape::One);
        assert_eq!(shape(u32::MAX, &|_| 64), Shape::One);
    }

    #[test]
    fn doubtful_accesses_are_left_to_others() {
        assert!(looked(4, 0, u32::MAX, |i| 8192 - 128 + 4 * i).is_some());
        assert!(looked(4, 0, u32::MAX, |i| 8192 - 124 + 4 * i).is_none());
        assert!(looked(8, 0, u32::MAX, |i| 8 * i + 4).is_none());
        assert!(looked(4, -8, u32::MAX, |i| 4 * i).is_none());
        // 32-bit sums wrap, addresses do not.
        assert!(looked(4, 64, u32::MAX, |i| 4 * i - 64).is_none());
        // Lanes that take no part may point anywhere.
        assert!(looked(4, 0, !1, |i| if i == 0 { 3 } else { 4 * i }).is_some());
    }

    #[test]
    fn runs_of_lanes() {
        let address = std::array::from_fn(|i| 1000 * (i as u64 / 8) + 16 * i as u64);
        let all: Vec<_> = runs(&address, 0xffff_0ff7, 16).collect();
        assert_eq!(all, [(0, 3), (4, 4), (8, 4), (16, 8), (24, 8)]);
        assert_eq!(runs(&address, 1 << 31, 16).collect::<Vec<_>>(), [(31, 1)]);
    }
}
