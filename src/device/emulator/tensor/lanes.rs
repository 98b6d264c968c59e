//! Vectors for the sums of tensor cores: AVX2 where the machine has it, arrays elsewhere. Both
//! compute the same bits.

/// Vectors of eight 32-bit lanes (floats, integers) and of sixteen 16-bit integers.
pub trait Lanes: Copy {
    type F: Copy;
    type I: Copy;
    type H: Copy;

    fn floats(self, x: &[f32; 8]) -> Self::F;
    /// The four values twice.
    fn float_quad(self, x: &[f32; 4]) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// Toward zero. Lanes beyond 32 bits, and NaN, give anything.
    fn truncate(self, a: Self::F) -> Self::I;
    /// To nearest.
    fn convert(self, a: Self::I) -> Self::F;

    fn ints(self, x: &[u32; 8]) -> Self::I;
    fn splat(self, x: i32) -> Self::I;
    fn add(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub(self, a: Self::I, b: Self::I) -> Self::I;
    fn max(self, a: Self::I, b: Self::I) -> Self::I;
    /// Of the least integer, itself.
    fn abs(self, a: Self::I) -> Self::I;
    /// All ones where a > b.
    fn above(self, a: Self::I, b: Self::I) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    /// a without the bits of b.
    fn without(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    fn left<const N: i32>(self, a: Self::I) -> Self::I;
    /// Logical.
    fn right<const N: i32>(self, a: Self::I) -> Self::I;
    fn bits(self, a: Self::F) -> Self::I;
    fn floating(self, a: Self::I) -> Self::F;
    fn store(self, a: Self::I) -> [u32; 8];
    /// The sign bits.
    fn signs(self, a: Self::I) -> u32;

    fn shorts(self, x: &[i16; 16]) -> Self::H;
    /// The four values four times.
    fn short_quad(self, x: &[i16; 4]) -> Self::H;
    fn add_shorts(self, a: Self::H, b: Self::H) -> Self::H;
    fn max_shorts(self, a: Self::H, b: Self::H) -> Self::H;
    /// Lanes 0 to 7 and 8 to 15.
    fn widen(self, a: Self::H) -> [Self::I; 2];
}

/// Arrays, for machines without AVX2.
#[derive(Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn zip<A: Copy, B: Copy, C, const N: usize>(a: [A; N], b: [B; N], f: impl Fn(A, B) -> C) -> [C; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes for Portable {
    type F = [f32; 8];
    type I = [i32; 8];
    type H = [i16; 16];

    #[inline(always)]
    fn floats(self, x: &[f32; 8]) -> [f32; 8] {
        *x
    }
    #[inline(always)]
    fn float_quad(self, x: &[f32; 4]) -> [f32; 8] {
        std::array::from_fn(|i| x[i % 4])
    }
    #[inline(always)]
    fn mul(self, a: [f32; 8], b: [f32; 8]) -> [f32; 8] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn truncate(self, a: [f32; 8]) -> [i32; 8] {
        a.map(|x| x as i32)
    }
    #[inline(always)]
    fn convert(self, a: [i32; 8]) -> [f32; 8] {
        a.map(|x| x as f32)
    }
    #[inline(always)]
    fn ints(self, x: &[u32; 8]) -> [i32; 8] {
        x.map(|x| x as i32)
    }
    #[inline(always)]
    fn splat(self, x: i32) -> [i32; 8] {
        [x; 8]
    }
    #[inline(always)]
    fn add(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn max(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    fn abs(self, a: [i32; 8]) -> [i32; 8] {
        a.map(i32::wrapping_abs)
    }
    #[inline(always)]
    fn above(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| -i32::from(a > b))
    }
    #[inline(always)]
    fn and(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn without(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a & !b)
    }
    #[inline(always)]
    fn or(self, a: [i32; 8], b: [i32; 8]) -> [i32; 8] {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn left<const N: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn right<const N: i32>(self, a: [i32; 8]) -> [i32; 8] {
        a.map(|x| (x as u32 >> N) as i32)
    }
    #[inline(always)]
    fn bits(self, a: [f32; 8]) -> [i32; 8] {
        a.map(|x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn floating(self, a: [i32; 8]) -> [f32; 8] {
        a.map(|x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn store(self, a: [i32; 8]) -> [u32; 8] {
        a.map(|x| x as u32)
    }
    #[inline(always)]
    fn signs(self, a: [i32; 8]) -> u32 {
        (0..8).fold(0, |m, i| m | (a[i] as u32 >> 31) << i)
    }
    #[inline(always)]
    fn shorts(self, x: &[i16; 16]) -> [i16; 16] {
        *x
    }
    #[inline(always)]
    fn short_quad(self, x: &[i16; 4]) -> [i16; 16] {
        std::array::from_fn(|i| x[i % 4])
    }
    #[inline(always)]
    fn add_shorts(self, a: [i16; 16], b: [i16; 16]) -> [i16; 16] {
        zip(a, b, i16::wrapping_add)
    }
    #[inline(always)]
    fn max_shorts(self, a: [i16; 16], b: [i16; 16]) -> [i16; 16] {
        zip(a, b, i16::max)
    }
    #[inline(always)]
    fn widen(self, a: [i16; 16]) -> [[i32; 8]; 2] {
        [std::array::from_fn(|i| a[i].into()), std::array::from_fn(|i| a[8 + i].into())]
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{__m128i, __m256, __m256i};

    use pulp::cast;
    use pulp::x86::V3;

    use super::Lanes;

    impl Lanes for V3 {
        type F = __m256;
        type I = __m256i;
        type H = __m256i;

        #[inline(always)]
        fn floats(self, x: &[f32; 8]) -> __m256 {
            cast(*x)
        }
        #[inline(always)]
        fn float_quad(self, x: &[f32; 4]) -> __m256 {
            self.avx._mm256_broadcast_ps(&cast(*x))
        }
        #[inline(always)]
        fn mul(self, a: __m256, b: __m256) -> __m256 {
            self.avx._mm256_mul_ps(a, b)
        }
        #[inline(always)]
        fn truncate(self, a: __m256) -> __m256i {
            self.avx._mm256_cvttps_epi32(a)
        }
        #[inline(always)]
        fn convert(self, a: __m256i) -> __m256 {
            self.avx._mm256_cvtepi32_ps(a)
        }
        #[inline(always)]
        fn ints(self, x: &[u32; 8]) -> __m256i {
            cast(*x)
        }
        #[inline(always)]
        fn splat(self, x: i32) -> __m256i {
            self.avx._mm256_set1_epi32(x)
        }
        #[inline(always)]
        fn add(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_add_epi32(a, b)
        }
        #[inline(always)]
        fn sub(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_sub_epi32(a, b)
        }
        #[inline(always)]
        fn max(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_max_epi32(a, b)
        }
        #[inline(always)]
        fn abs(self, a: __m256i) -> __m256i {
            self.avx2._mm256_abs_epi32(a)
        }
        #[inline(always)]
        fn above(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_cmpgt_epi32(a, b)
        }
        #[inline(always)]
        fn and(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_and_si256(a, b)
        }
        #[inline(always)]
        fn without(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_andnot_si256(b, a)
        }
        #[inline(always)]
        fn or(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_or_si256(a, b)
        }
        #[inline(always)]
        fn left<const N: i32>(self, a: __m256i) -> __m256i {
            self.avx2._mm256_slli_epi32::<N>(a)
        }
        #[inline(always)]
        fn right<const N: i32>(self, a: __m256i) -> __m256i {
            self.avx2._mm256_srli_epi32::<N>(a)
        }
        #[inline(always)]
        fn bits(self, a: __m256) -> __m256i {
            cast(a)
        }
        #[inline(always)]
        fn floating(self, a: __m256i) -> __m256 {
            cast(a)
        }
        #[inline(always)]
        fn store(self, a: __m256i) -> [u32; 8] {
            cast(a)
        }
        #[inline(always)]
        fn signs(self, a: __m256i) -> u32 {
            self.avx._mm256_movemask_ps(cast(a)) as u32
        }
        #[inline(always)]
        fn shorts(self, x: &[i16; 16]) -> __m256i {
            cast(*x)
        }
        #[inline(always)]
        fn short_quad(self, x: &[i16; 4]) -> __m256i {
            self.avx._mm256_set1_epi64x(cast(*x))
        }
        #[inline(always)]
        fn add_shorts(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_add_epi16(a, b)
        }
        #[inline(always)]
        fn max_shorts(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_max_epi16(a, b)
        }
        #[inline(always)]
        fn widen(self, a: __m256i) -> [__m256i; 2] {
            let [low, high]: [__m128i; 2] = cast(a);
            [self.avx2._mm256_cvtepi16_epi32(low), self.avx2._mm256_cvtepi16_epi32(high)]
        }
    }
}
