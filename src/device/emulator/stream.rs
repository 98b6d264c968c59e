//! A CTA's requests to global memory in order, written down for a model of the cache.

/// Whether memory is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Read,
    Write,
}

/// Lines of 128 bytes that requests touched, with the sectors of each.
///
/// One word a line and request: instruction (15 bits), line address (44), write (1), sectors (4).
#[derive(Debug, Clone, Default)]
pub struct Stream {
    requests: Vec<u64>,
}

/// One request to a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// Instruction; [`Stream::LAST`] stands for itself and all after it.
    pub pc: usize,
    /// Address over 128.
    pub line: u64,
    pub way: Way,
    /// One bit a sector of 32 bytes.
    pub sectors: u8,
}

impl Stream {
    pub const LAST: usize = (1 << 15) - 1;
    const LINE_BITS: u32 = 44;

    fn push(&mut self, pc: usize, line: u64, way: Way, sectors: u64) {
        let write = u64::from(way == Way::Write);
        let line = line & ((1 << Self::LINE_BITS) - 1);
        let pc = pc.min(Self::LAST) as u64;
        self.requests.push(pc << (Self::LINE_BITS + 5) | line << 5 | write << 4 | sectors);
    }

    /// The accesses of a warp's lanes, none of which leaves its sector.
    pub fn lanes(&mut self, pc: usize, address: &[u64; 32], mask: u32, way: Way) {
        // Lanes of neighbouring addresses share a line; each line once a request.
        let start = self.requests.len();
        for lane in super::access::lanes(mask) {
            let a = address[lane as usize];
            let (line, sector) = (a >> 7, 1u64 << (a >> 5 & 3));
            let same = |r: &&mut u64| **r >> 5 & ((1 << Self::LINE_BITS) - 1) == line;
            match self.requests[start..].iter_mut().rev().find(same) {
                Some(r) => *r |= sector,
                None => self.push(pc, line, way, sector),
            }
        }
    }

    /// A contiguous range of at least one byte.
    pub fn range(&mut self, pc: usize, address: u64, bytes: u64, way: Way) {
        let (first, last) = (address >> 5, (address + bytes - 1) >> 5);
        for line in first >> 2..=last >> 2 {
            let from = first.max(line << 2) & 3;
            let to = last.min(line << 2 | 3) & 3;
            let sectors = (1u64 << (to + 1)) - (1 << from);
            self.push(pc, line, way, sectors);
        }
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    /// Request `i` in order.
    pub fn get(&self, i: usize) -> Option<Request> {
        let r = *self.requests.get(i)?;
        Some(Request {
            pc: (r >> (Self::LINE_BITS + 5)) as usize,
            line: r >> 5 & ((1 << Self::LINE_BITS) - 1),
            way: if r & 16 != 0 { Way::Write } else { Way::Read },
            sectors: (r & 15) as u8,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(s: &Stream) -> Vec<(usize, u64, Way, u8)> {
        (0..s.len()).filter_map(|i| s.get(i)).map(|r| (r.pc, r.line, r.way, r.sectors)).collect()
    }

    #[test]
    fn lanes_of_a_line_are_one_request() {
        let mut s = Stream::default();
        let wide = std::array::from_fn(|i| 0x1000 + 4 * i as u64);
        s.lanes(7, &wide, u32::MAX, Way::Read);
        s.lanes(8, &wide, 1 << 31 | 1, Way::Write);
        let apart = std::array::from_fn(|i| 4096 * (i as u64 % 2));
        s.lanes(1 << 20, &apart, u32::MAX, Way::Read);
        assert_eq!(
            all(&s),
            [
                (7, 32, Way::Read, 15),
                (8, 32, Way::Write, 0b1001),
                (Stream::LAST, 0, Way::Read, 1),
                (Stream::LAST, 32, Way::Read, 1),
            ]
        );
    }

    #[test]
    fn ranges_split_into_lines() {
        let mut s = Stream::default();
        s.range(0, 96, 160, Way::Read);
        s.range(1, 40, 8, Way::Write);
        assert_eq!(
            all(&s),
            [(0, 0, Way::Read, 0b1000), (0, 1, Way::Read, 0b1111), (1, 0, Way::Write, 0b0010),]
        );
    }
}
