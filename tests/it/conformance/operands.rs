//! Bits of operands by type: specials, anything, and numbers near each other.

use rand::Rng;
use rand_pcg::Pcg64;

const F32: [u32; 16] = [
    0,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0x0080_0000,
    0x8080_0000,
    1,
    0x807f_ffff,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x3f00_0000,
    0x477f_f000,
    0x3380_0000,
];

/// Zeros, ones, infinities, NaN quiet and signalling, subnormals, the largest.
const F16: [u16; 16] = [
    0, 0x8000, 0x3c00, 0xbc00, 0x7c00, 0xfc00, 0x7fff, 0xfe01, 0x7d00, 1, 0x8001, 0x83ff, 0x0400,
    0x7bff, 0xfbff, 0xffff,
];
const BF16: [u16; 16] = [
    0, 0x8000, 0x3f80, 0xbf80, 0x7f80, 0xff80, 0x7fff, 0xffc1, 0x7fa0, 1, 0x8001, 0x807f, 0x0080,
    0x7f7f, 0xff7f, 0xffff,
];
const F64: [u64; 16] = [
    0,
    1 << 63,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff4_0000_0000_0001,
    1,
    0x800f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x41df_ffff_ffc0_0000,
    0x43e0_0000_0000_0000,
    0x3690_0000_0000_0000,
];

fn half(specials: &[u16; 16], near: std::ops::Range<u16>, mantissa: u32, r: &mut Pcg64) -> u64 {
    let x = match r.random_range(0..4) {
        0 => specials[r.random_range(0..16)],
        1 => r.random(),
        _ => {
            r.random::<u16>() & (0x8000 | ((1 << mantissa) - 1)) | r.random_range(near) << mantissa
        }
    };
    x.into()
}

/// The type that a register of an operand has.
pub fn declared(ty: &str) -> &str {
    match ty {
        "few" | "few64" | "pos" | "tiny" | "base" | "some" | "even" => {
            if ty == "tiny" {
                "s32"
            } else {
                "u32"
            }
        }
        "offset" => "s32",
        "pos64" => "u64",
        "some64" => "b64",
        "pos16" => "u16",
        "most" => "pred",
        "f16" | "bf16" | "fp8" => "b16",
        "f16x2" | "bf16x2" => "b32",
        other => other,
    }
}

/// Bits of an operand of a type, for the thread of number `case`.
pub fn operand(ty: &str, case: u32, r: &mut Pcg64) -> u64 {
    let ints = [0u32, 1, 2, 31, 32, 33, 0x7fff_ffff, 0x8000_0000, u32::MAX, u32::MAX - 1];
    let word = |r: &mut Pcg64| match r.random_range(0..4) {
        0 => ints[r.random_range(0..ints.len())],
        1 => r.random_range(0..64),
        _ => r.random(),
    };
    match ty {
        "f32" => match r.random_range(0..4) {
            0 => F32[r.random_range(0..16)].into(),
            1 => r.random::<u32>().into(),
            // Exponents near each other.
            _ => u64::from(r.random::<u32>() & 0x807f_ffff | r.random_range(120..134u32) << 23),
        },
        "f64" => match r.random_range(0..4) {
            0 => F64[r.random_range(0..16)],
            1 => r.random(),
            // Few bits, so that roundings tie, and exponents near each other.
            2 => u64::from(r.random::<u32>()) << 32 & !0x7ff0_0000_0000_0000 | 0x3ff << 52,
            _ => r.random::<u64>() & !(0x7ff << 52) | r.random_range(1010..1060u64) << 52,
        },
        "f16" => half(&F16, 11..19, 10, r),
        "bf16" => half(&BF16, 123..131, 7, r),
        "f16x2" => half(&F16, 11..19, 10, r) | half(&F16, 11..19, 10, r) << 16,
        "bf16x2" => half(&BF16, 123..131, 7, r) | half(&BF16, 123..131, 7, r) << 16,
        // Every byte, beside any.
        "fp8" => u64::from(case & 0xff) | u64::from(r.random::<u8>()) << 8,
        "few" => r.random_range(0..40),
        "few64" => r.random_range(0..80),
        "some" => r.random_range(0..4),
        "some64" => r.random_range(0..4u64) << 33,
        // The same in most warps.
        "even" => u64::from(case / 32 % 4 == 3 && r.random_range(0..9) == 0),
        "base" => r.random_range(0..32),
        "offset" => u64::from(r.random_range(-4..5i32) as u32),
        "tiny" => u64::from(match r.random_range(0..3) {
            0 => r.random_range(-9..10i32) as u32,
            1 => r.random_range(-300..300i32) as u32,
            _ => word(r),
        }),
        "pos" => match r.random_range(0..2) {
            0 => r.random_range(1..64),
            _ => u64::from((r.random::<u32>() >> 1).max(1)),
        },
        "pos64" => match r.random_range(0..2) {
            0 => r.random_range(1..64),
            _ => (r.random::<u64>() >> r.random_range(1..40)).max(1),
        },
        "pos16" => u64::from(r.random::<u16>() >> r.random_range(1..15)).max(1),
        "u64" | "b64" | "s64" => u64::from(word(r)) | u64::from(word(r)) << 32,
        "b16" | "u16" | "s16" => r.random::<u16>().into(),
        "pred" => r.random_range(0..2),
        "most" => u64::from(r.random_range(0..40) > 0),
        _ => word(r).into(),
    }
}
