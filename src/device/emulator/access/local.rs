//! Local memory: a word of each lane beside the next.

use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::Warp;

impl Warp {
    pub(super) fn local(
        &self,
        at: u64,
        bytes: u32,
        lane: u32,
        what: &str,
    ) -> Result<usize, Box<Fault>> {
        let limit = self.local.len() as u64 * 4;
        if at >= limit || at + u64::from(bytes) > limit {
            let message = format!(
                "{what} of {bytes} bytes at local address {at}: a thread has {limit} bytes"
            );
            return Err(Fault::new(FaultKind::OutOfBounds, lane, message));
        }
        if !at.is_multiple_of(bytes.into()) {
            let message =
                format!("{what} of {bytes} bytes at local address {at}, no multiple of {bytes}");
            return Err(Fault::new(FaultKind::Misaligned, lane, message));
        }
        Ok(at as usize)
    }

    pub(super) fn local_load(&self, at: usize, size: u32, lane: u32) -> Result<u64, Box<Fault>> {
        let l = lane as usize;
        let want = if size < 4 { ((1u8 << size) - 1) << (at % 4) } else { 0xf };
        let mut v = 0;
        for k in 0..(size as usize).div_ceil(4) {
            if self.local_shadow[at / 4 + k][l] & want != want {
                let message = format!("local load at address {at}, which was never written");
                return Err(Fault::new(FaultKind::Uninitialised, lane, message));
            }
            v |= u64::from(self.local[at / 4 + k][l]) << (32 * k);
        }
        if size < 4 {
            v = v >> (8 * (at % 4)) & ((1 << (8 * size)) - 1);
        }
        Ok(v)
    }

    pub(super) fn local_store(&mut self, at: usize, size: u32, lane: u32, v: u64) {
        let l = lane as usize;
        if size < 4 {
            let shift = 8 * (at % 4);
            let field = ((1u32 << (8 * size)) - 1) << shift;
            let w = &mut self.local[at / 4][l];
            *w = *w & !field | (v as u32) << shift & field;
            self.local_shadow[at / 4][l] |= ((1 << size) - 1) << (at % 4);
            return;
        }
        for k in 0..size as usize / 4 {
            self.local[at / 4 + k][l] = (v >> (32 * k)) as u32;
            self.local_shadow[at / 4 + k][l] = 0xf;
        }
    }
}
