//! Element types and their exact roundings.

use std::fmt;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// An element type, of a tensor in memory or of the operands of a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    Bf16,
    Fp16,
    /// fp32 in memory, rounded to 10 mantissa bits as a matrix operand.
    Tf32,
    Fp32,
    /// Indices such as the starts of packed sequences; no precision of a problem.
    I32,
}

impl DType {
    /// The floating-point types.
    pub const ALL: [DType; 4] = [DType::Bf16, DType::Fp16, DType::Tf32, DType::Fp32];

    pub fn name(self) -> &'static str {
        match self {
            DType::Bf16 => "bf16",
            DType::Fp16 => "fp16",
            DType::Tf32 => "tf32",
            DType::Fp32 => "fp32",
            DType::I32 => "i32",
        }
    }

    /// The floating-point type of that name, or `None`.
    pub fn parse(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// Bytes an element takes in memory.
    pub fn bytes(self) -> usize {
        match self {
            DType::Bf16 | DType::Fp16 => 2,
            DType::Tf32 | DType::Fp32 | DType::I32 => 4,
        }
    }

    /// The type a tensor of this precision has in memory: tf32 lives as fp32.
    pub fn storage(self) -> DType {
        if self == DType::Tf32 { DType::Fp32 } else { self }
    }

    /// `x` rounded to this type (nearest, ties to even), as fp64. tf32 rounds the mantissa to
    /// 10 bits, which is the rounding floor its results are held against.
    pub fn round(self, x: f64) -> f64 {
        match self {
            DType::Bf16 => bf16::from_f64(x).to_f64(),
            DType::Fp16 => f16::from_f64(x).to_f64(),
            DType::Fp32 => f64::from(x as f32),
            DType::I32 => x.round_ties_even(),
            DType::Tf32 => {
                let bits = (x as f32).to_bits();
                if (bits >> 23) & 0xff == 0xff {
                    return x;
                }
                let rounded = bits.wrapping_add(0xfff + ((bits >> 13) & 1)) & !0x1fff;
                f64::from(f32::from_bits(rounded))
            }
        }
    }

    /// Appends `x`, rounded to the storage type, little-endian.
    pub fn push(self, x: f64, out: &mut Vec<u8>) {
        match self {
            DType::Bf16 => out.extend(bf16::from_f64(x).to_le_bytes()),
            DType::Fp16 => out.extend(f16::from_f64(x).to_le_bytes()),
            DType::Tf32 | DType::Fp32 => out.extend((x as f32).to_le_bytes()),
            DType::I32 => out.extend((x.round_ties_even() as i32).to_le_bytes()),
        }
    }

    /// Element `i` of little-endian `bytes`.
    pub fn get(self, bytes: &[u8], i: usize) -> f64 {
        match self {
            DType::Bf16 => bf16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f64(),
            DType::Fp16 => f16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]).to_f64(),
            DType::Tf32 | DType::Fp32 => {
                let b: [u8; 4] = bytes[4 * i..4 * i + 4].try_into().expect("four bytes");
                f64::from(f32::from_le_bytes(b))
            }
            DType::I32 => {
                let b: [u8; 4] = bytes[4 * i..4 * i + 4].try_into().expect("four bytes");
                f64::from(i32::from_le_bytes(b))
            }
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tf32_rounds_to_nearest_even() {
        let ulp = 2f64.powi(-10);
        assert_eq!(DType::Tf32.round(1.0 + ulp / 2.0), 1.0);
        assert_eq!(DType::Tf32.round(1.0 + 1.5 * ulp), 1.0 + 2.0 * ulp);
        assert_eq!(DType::Tf32.round(-1.0 - 0.75 * ulp), -1.0 - ulp);
        assert!(DType::Tf32.round(f64::NAN).is_nan());
    }

    #[test]
    fn storage_round_trips() {
        for dtype in DType::ALL {
            let mut bytes = Vec::new();
            for x in [0.0, -1.5, 3.25, 1e-3] {
                dtype.push(x, &mut bytes);
            }
            for (i, x) in [0.0, -1.5, 3.25, 1e-3].into_iter().enumerate() {
                assert_eq!(dtype.get(&bytes, i), dtype.storage().round(x));
            }
        }
    }
}
