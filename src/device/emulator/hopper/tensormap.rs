//! Tensor maps as the copy engine sees them: 128 bytes in memory.
//!
//! The layout of the bytes is the emulator's own: kernels must not rely on it, nor on a GPU's.

use std::sync::atomic::Ordering::Relaxed;

use crate::device::emulator::program::AtomTy;
use crate::device::emulator::ptx::ast::Space;
use crate::device::emulator::stream::Way;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::Context;
use crate::device::emulator::{memory, num};
use crate::device::{Swizzle, TensorMap};

/// Bytes of a map.
pub const MAP_BYTES: usize = 128;
/// What the first bytes of a map in memory say.
const MAGIC: u64 = 0x7061_6d72_6f73_6e65;

/// The 128 bytes of a map, field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image(pub [u8; MAP_BYTES]);

/// A field that `tensormap.replace` can write: where its first value lies, the bytes of a value,
/// and how many values follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    pub name: &'static str,
    at: usize,
    bytes: usize,
    pub count: usize,
    /// The instruction's value has 64 bits.
    pub wide: bool,
}

const fn field(name: &'static str, at: usize, bytes: usize, count: usize, wide: bool) -> Field {
    Field { name, at, bytes, count, wide }
}

pub const ADDRESS: Field = field("global_address", 8, 8, 1, true);
pub const DIMS: Field = field("global_dim", 16, 8, 5, false);
pub const STRIDES: Field = field("global_stride", 56, 8, 4, true);
pub const TILE: Field = field("box_dim", 88, 2, 5, false);
pub const STEPS: Field = field("element_stride", 98, 1, 5, false);
/// One less than the dimensions.
pub const RANK: Field = field("rank", 103, 1, 1, false);
pub const ELEMENT: Field = field("elemtype", 104, 1, 1, false);
pub const INTERLEAVE: Field = field("interleave_layout", 105, 1, 1, false);
pub const SWIZZLE: Field = field("swizzle_mode", 106, 1, 1, false);
pub const FILL: Field = field("fill_mode", 107, 1, 1, false);

/// All fields.
pub const FIELDS: [Field; 10] =
    [ADDRESS, DIMS, STRIDES, TILE, STEPS, RANK, ELEMENT, INTERLEAVE, SWIZZLE, FILL];

/// Element types by the number that `tensormap.replace` writes: name, bytes, how it is reduced, and
/// whether it is a float. A reduction takes subnormals for zeros where the name says so, unlike one
/// without a map.
const ELEMENTS: [(&str, u32, Option<AtomTy>, bool); 13] = [
    ("u8", 1, None, false),
    ("u16", 2, None, false),
    ("u32", 4, Some(AtomTy::U32), false),
    ("s32", 4, Some(AtomTy::S32), false),
    ("u64", 8, Some(AtomTy::U64), false),
    ("s64", 8, Some(AtomTy::S64), false),
    ("f16", 2, Some(AtomTy::F16), true),
    ("f32", 4, Some(AtomTy::F32), true),
    ("f32.ftz", 4, Some(AtomTy::F32), true),
    ("f64", 8, Some(AtomTy::F64), true),
    ("bf16", 2, Some(AtomTy::Bf16), true),
    ("tf32", 4, Some(AtomTy::F32), true),
    ("tf32.ftz", 4, Some(AtomTy::F32), true),
];

impl Image {
    /// Value `i` of a field.
    pub fn get(&self, f: Field, i: usize) -> u64 {
        let mut b = [0; 8];
        let at = f.at + i * f.bytes;
        b[..f.bytes].copy_from_slice(&self.0[at..at + f.bytes]);
        u64::from_le_bytes(b)
    }

    /// Sets value `i` of a field. A value too large for the field becomes the largest that fits,
    /// which no rule allows.
    pub fn set(&mut self, f: Field, i: usize, value: u64) {
        let most = u64::MAX >> (64 - 8 * f.bytes);
        let at = f.at + i * f.bytes;
        let b = value.min(most).to_le_bytes();
        self.0[at..at + f.bytes].copy_from_slice(&b[..f.bytes]);
    }

    /// The image of a description that [`crate::device::tensormap::validate`] accepts, over a
    /// buffer at `address`.
    pub fn new(map: &TensorMap, address: u64) -> Image {
        let mut m = Image([0; MAP_BYTES]);
        m.0[..8].copy_from_slice(&MAGIC.to_le_bytes());
        m.set(ADDRESS, 0, address);
        let rank = map.dims.len();
        for i in 0..5 {
            m.set(DIMS, i, map.dims.get(i).copied().unwrap_or(1));
            m.set(TILE, i, map.tile.get(i).copied().unwrap_or(1).into());
            m.set(STEPS, i, 1);
        }
        for (i, &stride) in map.strides_bytes.iter().enumerate() {
            m.set(STRIDES, i, stride);
        }
        m.set(RANK, 0, rank as u64 - 1);
        m.set(ELEMENT, 0, map.dtype.format().map as u64);
        let swizzle = match map.swizzle {
            Swizzle::None => 0,
            Swizzle::B32 => 1,
            Swizzle::B64 => 2,
            Swizzle::B128 => 3,
        };
        m.set(SWIZZLE, 0, swizzle);
        m.set(FILL, 0, map.nan_fill.into());
        m
    }

    fn is_map(&self) -> bool {
        self.0[..8] == MAGIC.to_le_bytes()
    }

    /// Takes bytes that are all zero for a map without fields yet, as compilers build maps from
    /// nothing. False if they are neither that nor a map.
    pub fn adopt(&mut self) -> bool {
        if self.0 == [0; MAP_BYTES] {
            self.0[..8].copy_from_slice(&MAGIC.to_le_bytes());
        }
        self.is_map()
    }

    /// What the copy engine makes of it.
    ///
    /// # Errors
    /// The field that breaks a rule, or that the emulator cannot follow.
    fn read(&self) -> Result<Map, String> {
        if !self.is_map() {
            return Err("there is no tensor map at this address".into());
        }
        let rule = |f: Field, i: usize, why: &str| {
            let which = if f.count > 1 { format!("[{i}]") } else { String::new() };
            Err(format!("the tensor map's {}{which} is {}; {why}", f.name, self.get(f, i)))
        };
        let rank = self.get(RANK, 0) as usize + 1;
        if rank > 5 {
            return rule(RANK, 0, "0 to 4 stand for 1 to 5 dimensions");
        }
        let Some(&(name, element, ty, float)) = ELEMENTS.get(self.get(ELEMENT, 0) as usize) else {
            return rule(ELEMENT, 0, "0 to 12 are known");
        };
        let swizzle = match self.get(SWIZZLE, 0) {
            0 => Swizzle::None,
            1 => Swizzle::B32,
            2 => Swizzle::B64,
            3 => Swizzle::B128,
            _ => return rule(SWIZZLE, 0, "0 to 3 are possible on sm_90"),
        };
        if self.get(INTERLEAVE, 0) != 0 {
            return rule(INTERLEAVE, 0, "the emulator knows 0, none");
        }
        let fill = match (self.get(FILL, 0), element) {
            (0, _) => [0; 4],
            (1, _) if !float => return rule(FILL, 0, "NaN is for floats"),
            (1, _) => (num::OOB_NAN16 * 0x1_0001).to_le_bytes(),
            _ => return rule(FILL, 0, "0 or 1 is wanted"),
        };
        let mut m = Map {
            address: self.get(ADDRESS, 0),
            element,
            ty,
            ftz: name.ends_with("ftz"),
            rank,
            dims: [1; 5],
            strides: [element.into(), 0, 0, 0, 0],
            tile: [1; 5],
            swizzle,
            fill,
        };
        if !m.address.is_multiple_of(16) {
            return rule(ADDRESS, 0, "a multiple of 16 is wanted");
        }
        for i in 0..rank {
            (m.dims[i], m.tile[i]) = (self.get(DIMS, i), self.get(TILE, i) as u32);
            if !(1..=1 << 32).contains(&m.dims[i]) {
                return rule(DIMS, i, "1 to 2^32 are possible");
            }
            if !(1..=256).contains(&m.tile[i]) {
                return rule(TILE, i, "1 to 256 are possible");
            }
            if self.get(STEPS, i) != 1 {
                return rule(STEPS, i, "the emulator knows 1");
            }
        }
        for i in 1..rank {
            m.strides[i] = self.get(STRIDES, i - 1);
            if !m.strides[i].is_multiple_of(16) || m.strides[i] >= 1 << 40 {
                return rule(STRIDES, i - 1, "a multiple of 16 below 2^40 is wanted");
            }
        }
        let inner = m.tile[0] * element;
        let span = match swizzle {
            Swizzle::None => u32::MAX,
            Swizzle::B32 => 32,
            Swizzle::B64 => 64,
            Swizzle::B128 => 128,
        };
        if !inner.is_multiple_of(16) || inner > span {
            let why = format!(
                "{inner} bytes, where a multiple of 16 of at most its swizzle's span is wanted"
            );
            return rule(TILE, 0, &why);
        }
        Ok(m)
    }
}

/// A map; dimensions from the innermost.
#[derive(Debug, Clone)]
pub struct Map {
    /// Address of the first element in global memory.
    pub address: u64,
    pub element: u32,
    /// How its elements are reduced, if they can be.
    pub ty: Option<AtomTy>,
    /// Reductions take subnormals for zeros.
    pub ftz: bool,
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
    /// Bytes of a box, which a hostile map may make larger than any memory.
    pub fn box_bytes(&self) -> u64 {
        self.tile.iter().map(|&t| u64::from(t)).product::<u64>() * u64::from(self.element)
    }

    /// A box of what lies out of bounds.
    pub fn filled(&self) -> Vec<u8> {
        self.fill.repeat(self.box_bytes() as usize / 4)
    }

    /// Rows end within a piece of 16 bytes.
    pub fn is_ragged(&self) -> bool {
        !(self.dims[0] * u64::from(self.element)).is_multiple_of(16)
    }

    /// Calls `f` with each contiguous run of the box at `coords` that is read or written: its
    /// offset in the box, its offset from the map's address, and its bytes.
    ///
    /// Reads end with the tensor's rows. Stores and reductions write whole pieces of 16 bytes: a
    /// piece that a row ends in is written as far as the box goes, behind the row's end too. The
    /// PTX text says nothing of it: it was measured on an H200 with driver 580.159
    /// (`tests/ragged.txt`).
    pub fn walk(&self, coords: &[i32; 5], way: Way, mut f: impl FnMut(usize, u64, usize)) {
        let [c0, outer @ ..] = coords.map(i64::from);
        let width = match way {
            Way::Read => self.dims[0],
            Way::Write => self.dims[0].next_multiple_of(u64::from(16 / self.element)),
        };
        let low = (-c0).clamp(0, self.tile[0].into());
        let high = (width as i64 - c0).clamp(low, self.tile[0].into());
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
                            sum = sum.filter(|_| inside).and_then(|s| {
                                s.checked_add((c as u64).checked_mul(self.strides[k + 1])?)
                            });
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
    /// The map at an address.
    ///
    /// # Errors
    /// An address where no map lies, or misaligned; a map that breaks the rules of its fields.
    pub fn tensor_map(
        &mut self,
        space: Space,
        address: u64,
        lane: u32,
        what: &str,
    ) -> Result<Map, Box<Fault>> {
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
        let mut image = Image([0; MAP_BYTES]);
        match param {
            Some(at) => {
                let range = at as usize..(at as usize).saturating_add(MAP_BYTES);
                let Some(from) = self.params.get(range) else {
                    return refuse("there is no tensor map at this address".into());
                };
                image.0.copy_from_slice(from);
            }
            None => {
                let (r, at) = self.global.locate_span(address, 128, 64, lane, what)?;
                for k in (0..128).step_by(32) {
                    r.note_read(at + k, 32, lane, what)?;
                }
                for (k, b) in image.0.as_chunks_mut::<4>().0.iter_mut().enumerate() {
                    *b = r.word(at + 4 * k as u64).load(Relaxed).to_le_bytes();
                }
            }
        }
        image.read().or_else(refuse)
    }
}
