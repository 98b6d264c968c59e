//! Matrix descriptors: where in shared memory an operand of `wgmma` lies.
//!
//! A core matrix is eight pieces of 16 bytes. K-major, a piece is 16 bytes of one row of A (one
//! column of B) and a core matrix eight rows; MN-major, a piece is eight rows of one k and a core
//! matrix eight k. With a swizzle of 16 W bytes, W pieces stand side by side and lines follow each
//! other every 16 W bytes; bits 7 and up of an address, as many as W has, are xored to its bits 4
//! and up.
//!
//! | | unswizzled | swizzled |
//! |---|---|---|
//! | K-major | pieces of a row: leading offset; eight rows: stride offset | pieces side by side; eight rows: stride offset |
//! | MN-major | eight rows: stride offset; eight k: leading offset | W pieces side by side, then leading offset; eight k: stride offset |

/// A decoded descriptor; offsets are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Descriptor {
    start: u32,
    lead: u32,
    stride: u32,
    /// Where in the swizzle's pattern `start` is taken to stand, in lines of 128 bytes.
    base: u32,
    /// Pieces of 16 bytes that are swizzled together: 1, 2, 4 or 8.
    width: u32,
}

/// Bits that have no meaning.
const RESERVED: u64 = !(0x3fff | 0x3fff << 16 | 0x3fff << 32 | 7 << 49 | 3 << 62);

impl Descriptor {
    /// # Errors
    /// Why `bits` are no descriptor, in words.
    pub fn new(bits: u64) -> Result<Descriptor, String> {
        if bits & RESERVED != 0 {
            return Err(format!(
                "{bits:#018x} is no matrix descriptor: bits {:#x} must be 0 (addresses and \
                 offsets are in units of 16 bytes and have 14 bits)",
                bits & RESERVED
            ));
        }
        let field = |at: u32| (bits >> at & 0x3fff) as u32 * 16;
        let width = [1, 8, 4, 2][(bits >> 62) as usize];
        let base = (bits >> 49 & 7) as u32;
        if width == 1 && base != 0 {
            return Err(format!(
                "{bits:#018x} is no matrix descriptor: a base offset ({base}) without a swizzle"
            ));
        }
        Ok(Descriptor { start: field(0), lead: field(16), stride: field(32), base, width })
    }

    /// Addresses of the pieces of `blocks` of eight rows, over all k of an instruction. K-major,
    /// each row has two; with `mn_major`, each block has one for each of 16 k.
    pub fn pieces(self, blocks: std::ops::Range<u32>, mn_major: bool) -> Vec<u32> {
        let mut out = Vec::new();
        let w = self.width;
        let mut push = |offset: u32| {
            let at = self.start + offset;
            let line = (at >> 7).wrapping_sub(self.base);
            out.push(at ^ (line & (w - 1)) << 4);
        };
        if mn_major {
            for k in 0..16 {
                for block in blocks.clone() {
                    push(if w == 1 {
                        block * self.stride + k % 8 * 16 + k / 8 * self.lead
                    } else {
                        block % w * 16
                            + block / w * self.lead
                            + k % 8 * 16 * w
                            + k / 8 * self.stride
                    });
                }
            }
        } else {
            let next = if w == 1 { self.lead } else { 16 };
            for block in blocks {
                for row in 0..8 {
                    let at = block * self.stride + row * 16 * w;
                    push(at);
                    push(at + next);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(bits: u64, blocks: u32, mn_major: bool) -> Vec<u32> {
        Descriptor::new(bits).unwrap().pieces(0..blocks, mn_major)
    }

    /// Start, leading and stride offsets in bytes; swizzle's code.
    fn bits(start: u64, lead: u64, stride: u64, swizzle: u64) -> u64 {
        start >> 4 | lead >> 4 << 16 | stride >> 4 << 32 | swizzle << 62
    }

    #[test]
    fn unswizzled_core_matrices_lie_apart() {
        let at = pieces(bits(64, 128, 1024, 0), 2, false);
        assert_eq!(at[..4], [64, 64 + 128, 64 + 16, 64 + 16 + 128]);
        assert_eq!(at[16..18], [64 + 1024, 64 + 1024 + 128]);
        let at = pieces(bits(64, 128, 1024, 0), 2, true);
        assert_eq!(at[..4], [64, 64 + 1024, 64 + 16, 64 + 16 + 1024]);
        assert_eq!(at[16..18], [64 + 128, 64 + 128 + 1024]);
    }

    #[test]
    fn swizzles_xor_the_line_into_the_piece() {
        // Rows of 128 bytes: row 3's first piece is its fourth place.
        let at = pieces(bits(1024, 0, 1024, 1), 2, false);
        assert_eq!(at[6..8], [1024 + 3 * 128 + 3 * 16, 1024 + 3 * 128 + 2 * 16]);
        assert_eq!(at[16], 2048);
        // The second step along k.
        let at = pieces(bits(1024 + 32, 0, 1024, 1), 1, false);
        assert_eq!(at[6..8], [1024 + 3 * 128 + 16, 1024 + 3 * 128]);
        // 64 bytes: lines 0 and 1 together, then xored by 1.
        let at = pieces(bits(0, 0, 512, 2), 1, false);
        assert_eq!(at[..8], [0, 16, 64, 80, 128 + 16, 128, 192 + 16, 192]);
        // 32 bytes, MN-major: two blocks side by side, then the leading offset.
        let at = pieces(bits(0, 2048, 256, 3), 4, true);
        assert_eq!(at[..8], [0, 16, 2048, 2064, 32, 48, 2080, 2096]);
        assert_eq!(at[8 * 4..9 * 4], [256, 272, 2304, 2320]);
    }

    #[test]
    fn what_is_no_descriptor_is_refused() {
        assert!(Descriptor::new(1 << 14).unwrap_err().contains("0x4000"));
        assert!(Descriptor::new(1 << 49).unwrap_err().contains("without a swizzle"));
        assert!(Descriptor::new(1 << 49 | 1 << 62).is_ok());
    }
}
