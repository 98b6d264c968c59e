//! Tensor cores: fragments spread over a warp, and how their products add up.
//!
//! Lane l of a warp is row group g = l / 4 and column t = l % 4. Accumulators of 16 rows and 8
//! columns are four registers: number 2 r + i of lane l is row g + 8 r, column 2 t + i.

mod element;
mod lanes;
pub mod rule;
mod sum;
mod sync;
pub mod whole;

pub use element::{Bf16, E4m3, E5m2, Element, F16, Tf32};
pub use sum::{Accumulators, Columns, Rows, Sum};
pub use sync::{MmaFn, Shape, shape, work};

use super::num;
use super::regs::Row;

/// Room for operands on their way to the sums.
#[derive(Default)]
pub struct Scratch {
    pub a: Rows,
    pub b: Columns,
}

impl Scratch {
    /// Takes over register `j` of an A fragment: elements k = 4 P (j / 2) + P t + s of row
    /// g + 8 (j % 2), P to a register. `flip` is xored to the values' bits.
    #[inline(always)]
    pub fn fragment<E: Element>(&mut self, j: usize, words: &Row<u32>, flip: u32) {
        let r = j % 2;
        for s in 0..E::PACK {
            let (mut value, mut exponent) = ([0f32; 32], [0i16; 32]);
            for i in 0..32 {
                let w = words[i] >> (32 / E::PACK * s);
                value[i] = f32::from_bits(E::value(w).to_bits() ^ flip);
                exponent[i] = E::exponent(w) + 127;
            }
            for t in 0..4 {
                let k = E::PACK * (4 * (j / 2) + t) + s;
                let to = &mut self.a.value[r][k];
                for i in 0..32 {
                    to[i] = value[i & !3 | t];
                }
                let to = &mut self.a.exponent[r][k];
                for i in 0..32 {
                    to[i] = exponent[i & !3 | t];
                }
            }
        }
    }
}

/// Two fp16 accumulators of a register as fp32.
#[inline(always)]
fn unpack(pair: &Row<u32>) -> [Row<u32>; 2] {
    [0, 16].map(|shift| Row(pair.map(|w| num::f16_to_f32(w >> shift & 0xffff).to_bits())))
}

#[inline(always)]
fn pack([low, high]: &[Row<u32>; 2]) -> Row<u32> {
    let half = |w: u32| num::f32_to_f16(f32::from_bits(w));
    Row(std::array::from_fn(|i| half(low[i]) | half(high[i]) << 16))
}
