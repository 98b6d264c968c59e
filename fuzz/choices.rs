//! The fuzzer's bytes as random numbers.

use rand::RngCore;
use rand::rand_core::impls;

/// Bytes one after the other, then zeros: what changes a byte changes one choice, not all of them.
pub struct Choices<'a>(pub &'a [u8]);

impl RngCore for Choices<'_> {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, to: &mut [u8]) {
        let (now, later) = self.0.split_at(to.len().min(self.0.len()));
        to.fill(0);
        to[..now.len()].copy_from_slice(now);
        self.0 = later;
    }
}
