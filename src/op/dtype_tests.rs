use half::{bf16, f16};
use safetensors::Dtype;

use super::*;

/// Pseudo-random bits (splitmix64).
fn bits() -> impl Iterator<Item = u64> {
    (1u64..).map(|i| {
        let z = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    })
}

/// The value of a code of fp8 by the specification's formula; `None` is NaN.
fn fp8(dtype: DType, code: u8) -> Option<f64> {
    let (m, bias) = if dtype == DType::E4m3 { (3, 7) } else { (2, 15) };
    let (exponent, fraction) = (i32::from(code & 0x7f) >> m, f64::from(code & ((1 << m) - 1)));
    let fraction = fraction / f64::from(1 << m);
    let size = match (dtype, code & 0x7f) {
        (DType::E4m3, 0x7f) | (DType::E5m2, 0x7d..) => return None,
        (DType::E5m2, 0x7c) => f64::INFINITY,
        _ if exponent == 0 => fraction * 2f64.powi(1 - bias),
        _ => (1.0 + fraction) * 2f64.powi(exponent - bias),
    };
    Some(if code > 0x7f { -size } else { size })
}

fn push(dtype: DType, x: f64) -> u8 {
    let mut bytes = Vec::new();
    dtype.push(x, &mut bytes);
    assert_eq!(bytes.len(), 1);
    bytes[0]
}

#[test]
fn rows_stand_in_the_order_of_their_variants() {
    for (i, f) in FORMATS.iter().enumerate() {
        assert_eq!(f.dtype as usize, i, "{}", f.name);
        assert_eq!(f.dtype.format(), f);
        assert_eq!(serde_json::to_value(f.dtype).unwrap(), f.name);
        assert_eq!(f.storage.storage(), f.storage);
        assert_eq!((f.storage.bytes(), f.storage.format().file), (f.bytes, f.file));
        assert_eq!(f.dtype.round(f.max), f.max, "{}", f.name);
        let of_file: Dtype = serde_json::from_value(f.file.into()).unwrap();
        assert_eq!(of_file.bitsize(), 8 * f.bytes);
        assert_eq!(DType::from_file(f.file), Some(f.storage));
    }
    let order = [DType::Bf16, DType::Fp16, DType::Tf32, DType::Fp32, DType::I32];
    assert!(order.is_sorted());
    for dtype in DType::ALL {
        assert_eq!(DType::parse(dtype.name()), Some(dtype));
        assert_eq!(DType::precision(dtype.name()).is_some(), DType::PRECISIONS.contains(&dtype));
    }
    assert_eq!(DType::parse("i32"), None);
    assert_eq!(DType::precision_names(), "bf16, fp16 or tf32");
    assert_eq!(DType::precision_files(), "BF16, F16 or F32 (for tf32)");
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

#[test]
fn every_code_of_fp8_is_the_specifications_and_round_trips() {
    for dtype in [DType::E4m3, DType::E5m2] {
        for code in 0..=0xff {
            let x = dtype.get(&[code], 0);
            match fp8(dtype, code) {
                None => {
                    assert!(x.is_nan(), "{dtype} {code:#x}: {x}");
                    // PTX's conversion has one NaN.
                    assert_eq!(push(dtype, x), 0x7f);
                }
                Some(want) => {
                    assert_eq!(x.to_bits(), want.to_bits(), "{dtype} {code:#x}");
                    // Infinities are never written.
                    let back = if want.is_infinite() { code - 1 } else { code };
                    assert_eq!(push(dtype, x), back, "{dtype} {code:#x}");
                }
            }
        }
    }
    // The specification's table of extremes, by their bits: sign, exponent and fraction stand apart.
    #[allow(clippy::unusual_byte_groupings)]
    let extremes = [
        (DType::E4m3, 0b0_1111_110, 448.0),
        (DType::E4m3, 0b0_0001_000, 2f64.powi(-6)),
        (DType::E4m3, 0b0_0000_111, 0.875 * 2f64.powi(-6)),
        (DType::E4m3, 0b0_0000_001, 2f64.powi(-9)),
        (DType::E5m2, 0b0_11110_11, 57344.0),
        (DType::E5m2, 0b0_00001_00, 2f64.powi(-14)),
        (DType::E5m2, 0b0_00000_11, 0.75 * 2f64.powi(-14)),
        (DType::E5m2, 0b0_00000_01, 2f64.powi(-16)),
    ];
    for (dtype, code, x) in extremes {
        assert_eq!((push(dtype, x), push(dtype, -x)), (code, code | 0x80), "{dtype} {x}");
    }
}

#[test]
fn fp8_rounds_to_nearest_even_and_saturates() {
    for (dtype, last) in [(DType::E4m3, 0x7e), (DType::E5m2, 0x7b)] {
        for code in 0..last {
            let (a, b) = (fp8(dtype, code).unwrap(), fp8(dtype, code + 1).unwrap());
            let (mid, nudge) = ((a + b) / 2.0, (b - a) / 1024.0);
            let even = code + (code & 1);
            for (x, want) in [(mid, even), (mid - nudge, code), (mid + nudge, code + 1)] {
                assert_eq!(push(dtype, x), want, "{dtype} {x}");
                assert_eq!(push(dtype, -x), want | 0x80, "{dtype} -{x}");
                assert_eq!(dtype.round(x), fp8(dtype, want).unwrap());
            }
        }
        let max = fp8(dtype, last).unwrap();
        assert_eq!(dtype.format().max, max);
        for beyond in [max * 1.01, max * 1.125, max * 2.0, 1e30, 1e300, f64::INFINITY] {
            assert_eq!((push(dtype, beyond), push(dtype, -beyond)), (last, last | 0x80));
            assert_eq!(dtype.round(-beyond), -max);
        }
        // A zero keeps its sign, and so does what is too small.
        assert_eq!((push(dtype, 0.0), push(dtype, -0.0)), (0, 0x80));
        assert_eq!((push(dtype, 1e-30), push(dtype, -1e-300)), (0, 0x80));
        assert!(dtype.round(f64::NAN).is_nan());
    }
}

#[test]
fn sixteen_bits_agree_with_half() {
    for code in 0..=u16::MAX {
        let bytes = code.to_le_bytes();
        let pairs = [
            (DType::Bf16, bf16::from_bits(code).to_f64(), bf16::from_bits(code).to_f32()),
            (DType::Fp16, f16::from_bits(code).to_f64(), f16::from_bits(code).to_f32()),
        ];
        for (dtype, x, x32) in pairs {
            assert_eq!(dtype.get(&bytes, 0).to_bits(), x.to_bits(), "{dtype} {code:#x}");
            // Back, a NaN made quiet, as half makes it.
            let want = match dtype {
                DType::Bf16 => bf16::from_f32(x32).to_bits(),
                _ => f16::from_f32(x32).to_bits(),
            };
            let mut back = Vec::new();
            dtype.push(x, &mut back);
            assert_eq!(back, want.to_le_bytes(), "{dtype} {code:#x}");
            assert!(x.is_nan() || want == code);
            // The midpoint to the next larger code, and its neighbours in fp32.
            if let (true, Some(bits)) = (x.is_finite(), code.checked_add(1)) {
                let next = dtype.get(&bits.to_le_bytes(), 0);
                let mid = if next.is_finite() { ((x + next) / 2.0) as f32 } else { x32 };
                for x in [mid, mid.next_down(), mid.next_up()] {
                    let want = match dtype {
                        DType::Bf16 => bf16::from_f32(x).to_f64(),
                        _ => f16::from_f32(x).to_f64(),
                    };
                    assert_eq!(dtype.round(x.into()).to_bits(), want.to_bits(), "{dtype} {x:e}");
                }
            }
        }
    }
    for bits in bits().take(1_000_000) {
        let x = f32::from_bits(bits as u32);
        let pairs =
            [(DType::Bf16, bf16::from_f32(x).to_f64()), (DType::Fp16, f16::from_f32(x).to_f64())];
        for (dtype, want) in pairs {
            assert_eq!(dtype.round(x.into()).to_bits(), want.to_bits(), "{dtype} {x:e}");
        }
    }
    // What overflows.
    assert_eq!(DType::Fp16.round(65519.0), 65504.0);
    assert_eq!(DType::Fp16.round(65520.0), f64::INFINITY);
    assert_eq!(DType::Bf16.round(f64::MIN), f64::NEG_INFINITY);
}

#[test]
fn four_bytes_agree_with_the_processor() {
    for bits in bits().take(1_000_000) {
        let near_one = f64::from_bits(bits >> 12 | 0x3ff << 52);
        for x in [f64::from_bits(bits), f32::from_bits(bits as u32).into(), near_one] {
            let want = x as f32;
            if want.is_nan() {
                // Which NaN it is, Rust leaves to the processor and the optimiser.
                assert!(DType::Fp32.round(x).is_nan() && DType::Tf32.round(x).is_nan());
                continue;
            }
            assert_eq!(DType::Fp32.round(x).to_bits(), f64::from(want).to_bits(), "{x:e}");
            let mut bytes = Vec::new();
            DType::Tf32.push(x, &mut bytes);
            assert_eq!(bytes, want.to_le_bytes());
            if want.is_finite() {
                let bits = want.to_bits();
                let rounded = bits.wrapping_add(0xfff + ((bits >> 13) & 1)) & !0x1fff;
                assert_eq!(DType::Tf32.round(x), f64::from(f32::from_bits(rounded)), "{x:e}");
            }
        }
    }
}

#[test]
fn tf32_rounds_to_nearest_even() {
    let ulp = 2f64.powi(-10);
    assert_eq!(DType::Tf32.round(1.0 + ulp / 2.0), 1.0);
    assert_eq!(DType::Tf32.round(1.0 + 1.5 * ulp), 1.0 + 2.0 * ulp);
    assert_eq!(DType::Tf32.round(-1.0 - 0.75 * ulp), -1.0 - ulp);
    assert!(DType::Tf32.round(f64::NAN).is_nan());
    assert_eq!(DType::Tf32.round(f64::NEG_INFINITY), f64::NEG_INFINITY);
}

#[test]
fn integers_round_to_even_and_saturate() {
    let cases = [
        (0.5, 0.0),
        (1.5, 2.0),
        (-2.5, -2.0),
        (126.5, 126.0),
        (126.51, 127.0),
        (127.5, 127.0),
        (1e9, 127.0),
        (-128.0, -127.0),
        (f64::NEG_INFINITY, -127.0),
    ];
    for (x, want) in cases {
        assert_eq!(DType::Int8.round(x), want, "{x}");
        assert_eq!(f64::from(push(DType::Int8, x) as i8), want, "{x}");
    }
    for code in 0..=0xff {
        assert_eq!(DType::Int8.get(&[code], 0), f64::from(code as i8));
    }
    assert_eq!(push(DType::Int8, f64::NAN), 0);
    let mut bytes = Vec::new();
    for x in [-5.5, 2147483647.0, -2147483648.0, 3e9] {
        DType::I32.push(x, &mut bytes);
    }
    let back: Vec<f64> = (0..4).map(|i| DType::I32.get(&bytes, i)).collect();
    assert_eq!(back, [-6.0, 2147483647.0, -2147483648.0, 2147483647.0]);
}

#[test]
fn a_scale_takes_the_largest_magnitude_to_the_largest_value() {
    let values = [0.1, -2.54, 1.2, 0.0, 0.014];
    let block = Scaled::of(DType::Int8, &values);
    assert_eq!(block.scale, (2.54 / 127.0) as f32);
    assert_eq!(block.bytes, [5, -127i8 as u8, 60, 0, 1]);
    for (x, y) in values.iter().zip(block.values()) {
        assert!((x - y).abs() <= 0.5001 * f64::from(block.scale), "{x} {y}");
    }
    // Scales within fp32's reach of what they are: amax stays at 127.
    for bits in bits().take(10_000) {
        let x = (bits >> 11) as f64 * 2f64.powi((bits % 100) as i32 - 103);
        let block = Scaled::of(DType::Int8, &[x, -x]);
        assert_eq!((block.bytes[0], block.bytes[1] as i8), (127, -127), "{x:e}");
    }
    for nothing in [[0.0, -0.0], [0.0, 1e-300]] {
        assert_eq!(Scaled::of(DType::Int8, &nothing).values(), [0.0, 0.0]);
    }
    let odd = Scaled::of(DType::Int8, &[1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY]);
    assert_eq!(odd.bytes, [127, 0, 127, -127i8 as u8]);
    // fp8 with a scale, which takes it to 448.
    let fp8 = Scaled::of(DType::E4m3, &[3.5, -1.75]);
    assert_eq!((fp8.scale, fp8.values()), (3.5 / 448.0, vec![3.5, -1.75]));
    assert!(Scaled::of(DType::Int8, &[]).values().is_empty());
}

#[test]
fn ulps_are_the_steps_between_neighbours() {
    let two = |e| 2f64.powi(e);
    let cases = [
        (DType::Bf16, 1.0, two(-7)),
        (DType::Bf16, 1.99, two(-7)),
        (DType::Bf16, -2.0, two(-6)),
        (DType::Bf16, 0.0, two(-133)),
        (DType::Fp16, two(-14), two(-24)),
        (DType::Fp16, two(-20), two(-24)),
        (DType::Tf32, 1024.0, 1.0),
        (DType::Tf32, two(-140), two(-136)),
        (DType::Fp32, two(127), two(104)),
        (DType::Fp32, two(-149), two(-149)),
        (DType::E4m3, 256.0, 32.0),
        (DType::E4m3, two(-9), two(-9)),
        (DType::E5m2, two(15), two(13)),
        (DType::E5m2, 0.0, two(-16)),
        (DType::I32, 1e6, 1.0),
        (DType::Int8, 0.3, 1.0),
    ];
    for (dtype, x, want) in cases {
        assert_eq!(dtype.ulp(x), want, "{dtype} {x:e}");
    }
    // Just below a power of two, where a logarithm rounds up.
    assert_eq!(DType::Fp16.ulp(1024f64.next_down()), 0.5);
    assert_eq!(DType::Fp16.ulp(f64::NEG_INFINITY), f64::INFINITY);
    for dtype in [DType::E4m3, DType::E5m2] {
        for code in 0..0x7b {
            let (a, b) = (fp8(dtype, code).unwrap(), fp8(dtype, code + 1).unwrap());
            assert_eq!(dtype.ulp(a), b - a, "{dtype} {code:#x}");
        }
    }
}

#[test]
fn usual_floors_are_those_of_normal_values() {
    // Normally distributed (Box and Muller), 2^19 of them, in blocks of 128.
    let unit = |b: u64| ((b >> 11) as f64 + 0.5) * 2f64.powi(-53);
    let draws: Vec<u64> = bits().take(1 << 20).collect();
    let values = draws
        .chunks_exact(2)
        .map(|b| (-2.0 * unit(b[0]).ln()).sqrt() * (2.0 * std::f64::consts::PI * unit(b[1])).cos());
    let values: Vec<f64> = values.collect();
    let norm = values.iter().map(|x| x * x).sum::<f64>();
    for f in FORMATS.iter().filter(|f| f.dtype != DType::I32) {
        let rounded: Vec<f64> = if f.scaled {
            values.chunks(128).flat_map(|block| Scaled::of(f.dtype, block).values()).collect()
        } else {
            values.iter().map(|x| f.dtype.round(*x)).collect()
        };
        let error: f64 = rounded.iter().zip(&values).map(|(r, x)| (r - x).powi(2)).sum();
        let floor = (error / norm).sqrt();
        let off = (floor / f.usual_floor - 1.0).abs();
        assert!(off < 0.015, "{}: {floor:e}, the row has {:e}", f.name, f.usual_floor);
    }
    assert_eq!(DType::I32.format().usual_floor, 0.0);
}
