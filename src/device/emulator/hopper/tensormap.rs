//! Tensor maps as the copy engine sees them.

use std::sync::atomic::Ordering::Relaxed;

use crate::device::emulator::memory;
use crate::device::emulator::program::AtomTy;
use crate::device::emulator::ptx::ast::Space;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::Context;
use crate::device::{Swizzle, TensorMap};
use crate::op::DType;

/// What the first bytes of a map in memory say; its number follows.
const MAGIC: u64 = 0x7061_6d72_6f73_6e65;

/// The 128 bytes that stand for map `index` of a launch.
pub fn handle(index: usize) -> [u8; 128] {
    let mut out = [0; 128];
    out[..8].copy_from_slice(&MAGIC.to_le_bytes());
    out[8..16].copy_from_slice(&(index as u64).to_le_bytes());
    out
}

/// A map over a buffer of the launch; dimensions from the innermost.
#[derive(Debug, Clone)]
pub struct Map {
    /// Index of the buffer.
    pub region: usize,
    pub element: u32,
    pub ty: AtomTy,
    pub rank: usize,
    dims: [u64; 5],
    /// Bytes from one index to the next.
    strides: [u64; 5],
    tile: [u32; 5],
    pub swizzle: Swizzle,
    /// What a byte pair or quadruple out of bounds reads as.
    fill: [u8; 4],
}

impl Map {
    /// Of a description that [`crate::device::tensormap::validate`] accepts.
    pub fn new(map: &TensorMap) -> Map {
        let element = map.dtype.bytes() as u32;
        let mut m = Map {
            region: map.buffer,
            element,
            ty: match map.dtype {
                DType::Bf16 => AtomTy::Bf16,
                DType::Fp16 => AtomTy::F16,
                DType::Tf32 | DType::Fp32 => AtomTy::F32,
                DType::I32 => AtomTy::S32,
            },
            rank: map.dims.len(),
            dims: [1; 5],
            strides: [0; 5],
            tile: [1; 5],
            swizzle: map.swizzle,
            fill: match (map.nan_fill, element) {
                (false, _) => [0; 4],
                (true, 2) => [0xff, 0x7f, 0xff, 0x7f],
                (true, _) => [0xff, 0xff, 0xff, 0x7f],
            },
        };
        m.dims[..m.rank].copy_from_slice(&map.dims);
        m.tile[..m.rank].copy_from_slice(&map.tile);
        m.strides[0] = element.into();
        m.strides[1..m.rank].copy_from_slice(&map.strides_bytes);
        m
    }

    pub fn box_bytes(&self) -> u32 {
        self.tile.iter().product::<u32>() * self.element
    }

    /// A box of what lies out of bounds.
    pub fn filled(&self) -> Vec<u8> {
        self.fill.repeat(self.box_bytes() as usize / 4)
    }

    /// Calls `f` with each contiguous run of the box at `coords` that lies in the tensor: its
    /// offset in the box, its offset in the buffer, and its bytes.
    pub fn walk(&self, coords: &[i32; 5], mut f: impl FnMut(usize, u64, usize)) {
        let [c0, outer @ ..] = coords.map(i64::from);
        let low = (-c0).clamp(0, self.tile[0].into());
        let high = (self.dims[0] as i64 - c0).clamp(low, self.tile[0].into());
        if low == high {
            return;
        }
        let element = u64::from(self.element);
        let run = (high - low) as usize * element as usize;
        let row_bytes = self.tile[0] as usize * element as usize;
        let start = (c0 + low) as u64 * element;
        let mut row = 0;
        let [_, t1, t2, t3, t4] = self.tile.map(i64::from);
        for i4 in 0..t4 {
            for i3 in 0..t3 {
                for i2 in 0..t2 {
                    for i1 in 0..t1 {
                        let at = [i1, i2, i3, i4];
                        let offset = row * row_bytes + low as usize * element as usize;
                        row += 1;
                        let mut sum = Some(start);
                        for k in 0..4 {
                            let c = outer[k] + at[k];
                            let inside = (0..self.dims[k + 1] as i64).contains(&c);
                            sum =
                                sum.filter(|_| inside).map(|s| s + c as u64 * self.strides[k + 1]);
                        }
                        if let Some(at) = sum {
                            f(offset, at, run);
                        }
                    }
                }
            }
        }
    }
}

impl Context<'_> {
    /// Number of the map at an address.
    ///
    /// # Errors
    /// An address where no map lies, or misaligned.
    pub fn tensor_map(
        &self,
        space: Space,
        address: u64,
        lane: u32,
        what: &str,
    ) -> Result<usize, Box<Fault>> {
        let refuse =
            |why: String| Err(Fault::new(FaultKind::Operand, lane, format!("{what}: {why}")));
        if !address.is_multiple_of(64) {
            let message = format!("{what} at address 0x{address:x}, no multiple of 64");
            return Err(Fault::new(FaultKind::Misaligned, lane, message));
        }
        let param = match (space, memory::window(address)) {
            (Space::Param, _) => Some(address),
            (_, Some((Space::Param, at))) => Some(at),
            _ => None,
        };
        let mut bytes = [0u8; 16];
        match param {
            Some(at) => {
                let range = at as usize..(at as usize).saturating_add(16);
                let Some(from) = self.params.get(range) else {
                    return refuse(format!("parameter address {at} is outside of the parameters"));
                };
                bytes.copy_from_slice(from);
            }
            None => {
                let (r, at) = self.global.locate_span(address, 128, 64, lane, what)?;
                r.note_read(at, 16, lane, what)?;
                for (k, b) in bytes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *b = r.word(at + 4 * k as u64).load(Relaxed).to_le_bytes();
                }
            }
        }
        let [magic, index] =
            [0, 8].map(|k| u64::from_le_bytes(std::array::from_fn(|i| bytes[k + i])));
        if magic != MAGIC || index >= self.maps.len() as u64 {
            return refuse("there is no tensor map at this address".into());
        }
        Ok(index as usize)
    }
}
