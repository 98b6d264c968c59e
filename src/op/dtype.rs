//! Number formats as rows: what each is called, holds and rounds to.
//!
//! A format is one variant of [`DType`] and one row of [`FORMATS`]; rounding, storing, reading
//! and the unit in the last place are written once over the rows. fp8 is that of the OCP 8-bit
//! Floating Point Specification 1.0, converted as PTX ISA's `cvt.rn.satfinite` does.

use std::fmt;

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
    /// OCP FP8 with 4 exponent bits, the form without infinities: NaN is 0x7f and 0xff.
    E4m3,
    /// OCP FP8 with 5 exponent bits.
    E5m2,
    /// Whole numbers from -127 to 127, times a scale that is kept beside them ([`Scaled`]).
    Int8,
}

/// How the bits of a format are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Sign, exponent, mantissa, with subnormals.
    Float,
    /// Two's complement.
    Integer,
}

/// The element type of a tensor map, by its number in PTX ISA's `tensormap.replace.elemtype`.
/// Bytes of any meaning travel as `U8`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapType {
    U8 = 0,
    S32 = 3,
    F16 = 6,
    F32 = 7,
    Bf16 = 10,
}

impl MapType {
    /// Whether a copy can fill with NaN what lies outside the tensor.
    pub fn is_float(self) -> bool {
        !matches!(self, MapType::U8 | MapType::S32)
    }
}

/// Which of a device's peak rates counts for matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rate {
    /// That of operands of 16 bits.
    Bits16,
    Tf32,
    /// That of operands of 8 bits.
    Bits8,
}

/// A format's row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Format {
    pub dtype: DType,
    /// The name in sweeps, manifests and records.
    pub name: &'static str,
    /// PTX's name of the operand type.
    pub ptx: &'static str,
    /// The code in safetensors files, of what is stored.
    pub file: &'static str,
    /// The type that tensor maps give it: tf32 travels as fp32, bits as they are.
    pub map: MapType,
    /// The type it has in memory: tf32 lives as fp32.
    pub storage: DType,
    /// Bytes an element takes in memory.
    pub bytes: usize,
    pub class: Class,
    /// Explicit bits of the mantissa; 0 of integers.
    pub mantissa: u32,
    /// The exponent of the least normal number, a power of two; 0 of integers.
    pub least_exponent: i32,
    /// The largest finite value.
    pub max: f64,
    /// Whether there are codes of infinities.
    pub infinite: bool,
    /// Whether a conversion turns what lies beyond `max`, infinities too, into `max`.
    pub saturates: bool,
    /// Whether tensors of it carry scales ([`Scaled`]).
    pub scaled: bool,
    pub rate: Rate,
    /// The root mean square error of rounding normally distributed values, over their root mean
    /// square. Scaled formats round blocks of 128 values.
    pub usual_floor: f64,
}

/// The row of bf16, which other floating-point rows differ from.
const BF16: Format = Format {
    dtype: DType::Bf16,
    name: "bf16",
    ptx: "bf16",
    file: "BF16",
    map: MapType::Bf16,
    storage: DType::Bf16,
    bytes: 2,
    class: Class::Float,
    mantissa: 7,
    least_exponent: -126,
    max: f32::from_bits(0x7f7f_0000) as f64,
    infinite: true,
    saturates: false,
    scaled: false,
    rate: Rate::Bits16,
    usual_floor: 1.66e-3,
};

const FP32: Format = Format {
    dtype: DType::Fp32,
    name: "fp32",
    ptx: "f32",
    file: "F32",
    map: MapType::F32,
    storage: DType::Fp32,
    bytes: 4,
    mantissa: 23,
    max: f32::MAX as f64,
    rate: Rate::Tf32,
    usual_floor: 2.5e-8,
    ..BF16
};

const I32: Format = Format {
    dtype: DType::I32,
    name: "i32",
    ptx: "s32",
    file: "I32",
    map: MapType::S32,
    storage: DType::I32,
    bytes: 4,
    class: Class::Integer,
    mantissa: 0,
    least_exponent: 0,
    max: i32::MAX as f64,
    infinite: false,
    saturates: true,
    scaled: false,
    rate: Rate::Tf32,
    usual_floor: 0.0,
};

const E5M2: Format = Format {
    dtype: DType::E5m2,
    name: "e5m2",
    ptx: "e5m2",
    file: "F8_E5M2",
    map: MapType::U8,
    storage: DType::E5m2,
    bytes: 1,
    mantissa: 2,
    least_exponent: -14,
    max: 57344.0,
    saturates: true,
    rate: Rate::Bits8,
    usual_floor: 5.31e-2,
    ..BF16
};

/// The rows, in the order of [`DType`]'s variants.
pub static FORMATS: [Format; 8] = [
    BF16,
    Format {
        dtype: DType::Fp16,
        name: "fp16",
        ptx: "f16",
        file: "F16",
        map: MapType::F16,
        storage: DType::Fp16,
        mantissa: 10,
        least_exponent: -14,
        max: 65504.0,
        usual_floor: 2.08e-4,
        ..BF16
    },
    Format {
        dtype: DType::Tf32,
        name: "tf32",
        ptx: "tf32",
        mantissa: 10,
        max: f32::from_bits(0x7f7f_e000) as f64,
        usual_floor: 2.08e-4,
        ..FP32
    },
    FP32,
    I32,
    Format {
        dtype: DType::E4m3,
        name: "e4m3",
        ptx: "e4m3",
        file: "F8_E4M3",
        storage: DType::E4m3,
        mantissa: 3,
        least_exponent: -6,
        max: 448.0,
        infinite: false,
        usual_floor: 2.66e-2,
        ..E5M2
    },
    E5M2,
    Format {
        dtype: DType::Int8,
        name: "int8",
        ptx: "s8",
        file: "I8",
        map: MapType::U8,
        storage: DType::Int8,
        bytes: 1,
        max: 127.0,
        scaled: true,
        rate: Rate::Bits8,
        usual_floor: 6.47e-3,
        ..I32
    },
];

impl Format {
    /// The code of a float's largest finite value, without its sign.
    const fn most(&self) -> u32 {
        let bits = self.max.to_bits();
        let field = (bits >> 52) as i32 - 1023 - self.least_exponent + 1;
        ((field as u32) << self.mantissa) | ((bits << 12) >> (64 - self.mantissa)) as u32
    }

    /// Where a float's code has its sign: its bias is 2^(n-1) - 1 of n exponent bits.
    const fn sign_at(&self) -> u32 {
        self.mantissa + (2 - self.least_exponent).ilog2() + 1
    }

    /// The code of `x`, of a float: to nearest, ties to even. Beyond the largest finite value lies
    /// infinity, or that value if the format saturates. A NaN keeps its sign and the upper bits of
    /// its payload; in a format that saturates it is 0x7f, as PTX ISA's `cvt` makes it.
    #[inline]
    fn nearest(&self, x: f32) -> u32 {
        let (m, most) = (self.mantissa, self.most());
        let bits = x.to_bits();
        let sign = (bits >> 31) << self.sign_at();
        if x.is_nan() {
            if self.saturates {
                return (1 << self.sign_at()) - 1;
            }
            return sign | (most + 1) | 1 << (m - 1) | (bits & 0x7f_ffff) >> (23 - m);
        }
        if self.is_upper_fp32() {
            let lost = 23 - m;
            let odd = bits >> lost & 1;
            let half = if lost == 0 { 0 } else { (1 << (lost - 1)) - 1 + odd };
            return sign | ((bits & 0x7fff_ffff) + half) >> lost;
        }
        let field = bits >> 23 & 0xff;
        let exponent = field.max(1) as i32 - 127;
        // 8 bits below those of fp32, so that there is always something to shift out.
        let significand = u64::from(bits & 0x7f_ffff | u32::from(field != 0) << 23) << 8;
        let lost = 31 - m as i32 + (self.least_exponent - exponent).max(0);
        let lost = lost.min(40) as u32;
        let odd = significand >> lost & 1;
        let kept = (significand + (1 << (lost - 1)) - 1 + odd) >> lost;
        // The leading bit of a normal number, and a carry, count up the exponent.
        let above = (exponent - self.least_exponent).max(0) as u64;
        let code = (above << m) + kept;
        let last = u64::from(most + u32::from(!self.saturates));
        sign | code.min(last) as u32
    }

    /// Whether codes are upper bits of fp32's, as they are with its exponents and infinities.
    #[inline]
    fn is_upper_fp32(&self) -> bool {
        self.least_exponent == FP32.least_exponent && self.infinite && !self.saturates
    }

    /// The value of a float's code.
    #[inline]
    fn value(&self, code: u32) -> f64 {
        if self.is_upper_fp32() {
            return f64::from(f32::from_bits(code << (23 - self.mantissa)));
        }
        let (m, most, sign_at) = (self.mantissa, self.most(), self.sign_at());
        let sign = u64::from(code >> sign_at & 1) << 63;
        let code = code & ((1 << sign_at) - 1);
        let (field, fraction) = (code >> m, u64::from(code & ((1 << m) - 1)) << (52 - m));
        let power = |exponent: i32| ((exponent + 1023) as u64) << 52;
        let bits = if code > most {
            let nan = if self.infinite && fraction == 0 { 0 } else { 1 << 51 | fraction };
            power(1024) | nan
        } else if field == 0 {
            // A subnormal: the fraction without its leading bit.
            let least = power(self.least_exponent);
            (f64::from_bits(least | fraction) - f64::from_bits(least)).to_bits()
        } else {
            power(field as i32 - 1 + self.least_exponent) | fraction
        };
        f64::from_bits(sign | bits)
    }

    /// `x` as an integer: to nearest, ties to even, clamped. Scaled ones are symmetric.
    #[inline]
    fn whole(&self, x: f64) -> f64 {
        let least = if self.scaled { -self.max } else { -self.max - 1.0 };
        x.round_ties_even().clamp(least, self.max)
    }

    /// Writes `values` into `bytes`, elements of `N` bytes each.
    pub(super) fn fill<const N: usize>(&self, values: &[f32], bytes: &mut [u8]) {
        // A copy, which what is written cannot change.
        let f = *self;
        for (to, x) in bytes.as_chunks_mut::<N>().0.iter_mut().zip(values) {
            to.copy_from_slice(&f.encode(f64::from(*x)).to_le_bytes()[..N]);
        }
    }

    /// The code of `x`. NaN has the code of 0 in integers.
    #[inline]
    fn encode(&self, x: f64) -> u32 {
        match self.class {
            Class::Float => self.nearest(x as f32),
            Class::Integer => self.whole(x) as i32 as u32,
        }
    }

    /// The value of a code of as many bits as the format has.
    #[inline]
    fn decode(&self, code: u32) -> f64 {
        match self.class {
            Class::Float => self.value(code),
            Class::Integer => {
                let above = 32 - 8 * self.bytes as u32;
                f64::from((code << above) as i32 >> above)
            }
        }
    }
}

/// `a, b or c`.
fn listed(words: &[String]) -> String {
    match words {
        [few @ .., last] if !few.is_empty() => format!("{} or {last}", few.join(", ")),
        _ => words.concat(),
    }
}

impl DType {
    /// The types that values are kept in: all but indices.
    pub const ALL: [DType; 7] =
        [DType::Bf16, DType::Fp16, DType::Tf32, DType::Fp32, DType::E4m3, DType::E5m2, DType::Int8];

    /// The types that may be the precision of a problem.
    pub const PRECISIONS: [DType; 3] = [DType::Bf16, DType::Fp16, DType::Tf32];

    /// Everything there is to say about the type.
    pub fn format(self) -> &'static Format {
        &FORMATS[self as usize]
    }

    /// The name in sweeps, manifests and records.
    pub fn name(self) -> &'static str {
        self.format().name
    }

    /// The type of [`DType::ALL`] of that name, or `None`.
    pub fn parse(name: &str) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.name() == name)
    }

    /// The type of [`DType::PRECISIONS`] of that name, or `None`.
    pub fn precision(name: &str) -> Option<DType> {
        DType::PRECISIONS.into_iter().find(|d| d.name() == name)
    }

    /// The names of [`DType::PRECISIONS`] for messages: `bf16, fp16 or tf32`.
    pub fn precision_names() -> String {
        listed(&DType::PRECISIONS.map(|d| d.name().to_string()))
    }

    /// The codes in safetensors files of [`DType::PRECISIONS`] for messages:
    /// `BF16, F16 or F32 (for tf32)`.
    pub fn precision_files() -> String {
        listed(&DType::PRECISIONS.map(|d| match d.format() {
            f if f.storage == d => f.file.to_string(),
            f => format!("{} (for {})", f.file, f.name),
        }))
    }

    /// The type that safetensors files store under that code, or `None`.
    pub fn from_file(code: &str) -> Option<DType> {
        FORMATS.iter().find(|f| f.file == code && f.storage == f.dtype).map(|f| f.dtype)
    }

    /// Bytes an element takes in memory.
    pub fn bytes(self) -> usize {
        self.format().bytes
    }

    /// The type a tensor of this precision has in memory: tf32 lives as fp32.
    pub fn storage(self) -> DType {
        self.format().storage
    }

    /// `x` rounded to this type (nearest, ties to even), as fp64. A float's value is rounded to
    /// fp32 first, as kernels hold it before they store, so that it may be off by 2^-14 of a unit
    /// in the last place more than half of one (bf16 2^-17, fp8 less). Beyond the largest finite
    /// value lies infinity; fp8 and integers saturate instead. NaN stays NaN.
    pub fn round(self, x: f64) -> f64 {
        let f = self.format();
        match f.class {
            Class::Float => f.value(f.nearest(x as f32)),
            Class::Integer => f.whole(x),
        }
    }

    /// Appends `x`, rounded to the storage type as [`DType::round`] does, little-endian. NaN is 0
    /// in integers.
    pub fn push(self, x: f64, out: &mut Vec<u8>) {
        let f = self.storage().format();
        out.extend_from_slice(&f.encode(x).to_le_bytes()[..f.bytes]);
    }

    /// Element `i` of little-endian `bytes`, exactly.
    ///
    /// # Panics
    /// If `bytes` has no element `i`.
    pub fn get(self, bytes: &[u8], i: usize) -> f64 {
        // The formats that are read most.
        match self {
            DType::Bf16 => {
                let code = u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]);
                return f64::from(f32::from_bits(u32::from(code) << 16));
            }
            DType::Fp32 | DType::Tf32 => {
                let code: [u8; 4] = bytes[4 * i..4 * i + 4].try_into().expect("four bytes");
                return f64::from(f32::from_le_bytes(code));
            }
            _ => {}
        }
        let f = self.storage().format();
        let element = &bytes[f.bytes * i..f.bytes * (i + 1)];
        f.decode(match *element {
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]),
            [a, b] => u16::from_le_bytes([a, b]).into(),
            _ => element[0].into(),
        })
    }

    /// The size of one unit in the last place at `x`, exactly; that of the subnormals below the
    /// least normal number, 1 in integers. Infinity at infinities, NaN at NaN.
    pub fn ulp(self, x: f64) -> f64 {
        let f = self.format();
        if !x.is_finite() {
            return x.abs();
        }
        if f.class == Class::Integer {
            return 1.0;
        }
        let exponent = (x.to_bits() >> 52 & 0x7ff) as i32 - 1023;
        2f64.powi(exponent.max(f.least_exponent) - f.mantissa as i32)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A block of values that share a scale.
#[derive(Debug, Clone, PartialEq)]
pub struct Scaled {
    pub dtype: DType,
    /// What every element is multiplied by; greater than 0.
    pub scale: f32,
    /// The elements, of the storage type, little-endian.
    pub bytes: Vec<u8>,
}

impl Scaled {
    /// `values` over the scale that takes the largest finite magnitude among them (amax) to the
    /// format's largest value: amax/127 for int8, rounded to fp32; 1 where that is 0. An int8
    /// element is off by at most half a scale, and by as much again as fp32 rounds amax/127.
    /// Infinities saturate; NaN is 0 in integers.
    pub fn of(dtype: DType, values: &[f64]) -> Scaled {
        let finite = values.iter().map(|x| x.abs()).filter(|x| x.is_finite());
        let amax = finite.fold(0f64, f64::max);
        let scale = ((amax / dtype.format().max) as f32).min(f32::MAX);
        let scale = if scale > 0.0 { scale } else { 1.0 };
        let mut bytes = Vec::with_capacity(values.len() * dtype.bytes());
        for x in values {
            dtype.push(x / f64::from(scale), &mut bytes);
        }
        Scaled { dtype, scale, bytes }
    }

    /// The values that the block stands for: elements times scale, exactly.
    pub fn values(&self) -> Vec<f64> {
        let n = self.bytes.len() / self.dtype.bytes();
        let scale = f64::from(self.scale);
        (0..n).map(|i| self.dtype.get(&self.bytes, i) * scale).collect()
    }
}

#[cfg(test)]
#[path = "dtype_tests.rs"]
mod tests;
