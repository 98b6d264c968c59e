//! One access in 64 bits, as shadows keep it beside each word of memory.

/// From the highest bit: clock 24, actor 12, pc 16, lane 5, bytes 4, flags 3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Entry(pub u64);

/// The clock of an access that has not ended: nobody knows of it.
pub const IN_FLIGHT: u32 = (1 << 24) - 1;
/// Clocks beyond this are not told apart, and checking ends.
pub const LAST_CLOCK: u32 = IN_FLIGHT - 1;
pub const MAX_ACTORS: usize = 1 << 12;
/// Instructions from this one on are not named.
const PC_UNKNOWN: usize = (1 << 16) - 1;

/// Atomic read-modify-write.
pub const ATOMIC: u64 = 1;
/// By an engine: a bulk copy or a matrix multiplication, through the async proxy.
pub const ENGINE: u64 = 2;
/// `.relaxed`, `.acquire`, `.release`, `.volatile`.
pub const STRONG: u64 = 4;

impl Entry {
    /// Lane and bytes are zero.
    #[inline(always)]
    pub fn new(clock: u32, actor: u32, pc: usize, flags: u64) -> Entry {
        let pc = pc.min(PC_UNKNOWN) as u64;
        Entry(u64::from(clock) << 40 | u64::from(actor) << 28 | pc << 12 | flags)
    }

    /// `bytes`: one bit for each byte of the word.
    #[inline(always)]
    pub fn at(self, lane: u32, bytes: u64) -> Entry {
        Entry(self.0 | u64::from(lane) << 7 | bytes << 3)
    }

    #[inline(always)]
    pub fn clock(self) -> u32 {
        (self.0 >> 40) as u32
    }

    #[inline(always)]
    pub fn actor(self) -> u32 {
        (self.0 >> 28) as u32 & 0xfff
    }

    /// Clock and actor in one.
    #[inline(always)]
    pub fn epoch(self) -> u64 {
        self.0 >> 28
    }

    /// Its instruction, where that is known.
    pub fn pc(self) -> Option<usize> {
        let pc = (self.0 >> 12) as usize & PC_UNKNOWN;
        (pc != PC_UNKNOWN).then_some(pc)
    }

    #[inline(always)]
    pub fn lane(self) -> u32 {
        (self.0 >> 7) as u32 & 31
    }

    /// The bytes of the word that it touched, one bit each.
    #[inline(always)]
    pub fn bytes(self) -> u64 {
        self.0 >> 3 & 0xf
    }

    /// Whether it has one of these flags.
    pub fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    /// Both are of one instruction, executed by one warp between the same two synchronisations.
    #[inline(always)]
    pub fn same_instruction(self, other: Entry) -> bool {
        self.0 >> 12 == other.0 >> 12
    }

    /// Both are by one lane of one warp, between the same two synchronisations.
    #[inline(always)]
    pub fn same_lane(self, other: Entry) -> bool {
        (self.0 ^ other.0) & (u64::MAX << 28 | 31 << 7) == 0
    }

    pub fn with_clock(self, clock: u32) -> Entry {
        Entry(self.0 & ((1 << 40) - 1) | u64::from(clock) << 40)
    }

    /// Both are atomic or strong: such accesses do not race with each other.
    pub fn both_strong(self, flags: u64) -> bool {
        self.0 & (ATOMIC | STRONG) != 0 && flags & (ATOMIC | STRONG) != 0
    }
}
