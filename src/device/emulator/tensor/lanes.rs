//! Vectors for the sums of tensor cores: AVX-512 or AVX2 where the machine has it, arrays elsewhere.
//! All compute the same bits.

/// Vectors over a row of 32 lanes: `Q` vectors of floats or integers make a row, and one vector
/// holds all its exponents.
pub trait Lanes<const Q: usize>: Copy {
    /// There are registers enough for straight code.
    const UNROLL: bool;
    /// fp32
    type F: Copy;
    /// i32
    type I: Copy;
    /// 32 of i16
    type E: Copy;

    fn floats(self, x: &[f32; 32]) -> [Self::F; Q];
    /// The four values over and over.
    fn float_quad(self, x: &[f32; 4]) -> Self::F;
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// Toward zero. Lanes beyond 32 bits, and NaN, give anything.
    fn truncate(self, a: Self::F) -> Self::I;
    /// Toward zero, for less than 2^30 either way.
    fn cut(self, a: Self::I) -> Self::F;

    fn ints(self, x: &[u32; 32]) -> [Self::I; Q];
    fn splat(self, x: i32) -> Self::I;
    fn add(self, a: Self::I, b: Self::I) -> Self::I;
    fn sub(self, a: Self::I, b: Self::I) -> Self::I;
    fn max(self, a: Self::I, b: Self::I) -> Self::I;
    fn min(self, a: Self::I, b: Self::I) -> Self::I;
    /// The magnitude; the least integer gives itself.
    fn abs(self, a: Self::I) -> Self::I;
    fn and(self, a: Self::I, b: Self::I) -> Self::I;
    fn or(self, a: Self::I, b: Self::I) -> Self::I;
    /// a, with its lowest bit set where b and c differ.
    fn stick(self, a: Self::I, b: Self::I, c: Self::I) -> Self::I;
    fn left<const N: u32>(self, a: Self::I) -> Self::I;
    /// Logical.
    fn right<const N: u32>(self, a: Self::I) -> Self::I;
    fn bits(self, a: Self::F) -> Self::I;
    fn floating(self, a: Self::I) -> Self::F;
    fn store(self, a: [Self::I; Q]) -> [u32; 32];
    /// Some sign bit is set.
    fn any_sign(self, a: Self::I) -> bool;

    fn exponents(self, x: &[i16; 32]) -> Self::E;
    fn exponent_splat(self, x: i16) -> Self::E;
    /// The four values over and over.
    fn exponent_quad(self, x: &[i16; 4]) -> Self::E;
    fn add_exponents(self, a: Self::E, b: Self::E) -> Self::E;
    fn max_exponents(self, a: Self::E, b: Self::E) -> Self::E;
    fn widen(self, a: Self::E) -> [Self::I; Q];
}

/// Arrays, for machines without AVX2.
#[derive(Clone, Copy)]
pub struct Portable;

#[inline(always)]
fn zip<A: Copy, B: Copy, C, const N: usize>(a: [A; N], b: [B; N], f: impl Fn(A, B) -> C) -> [C; N] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Lanes<1> for Portable {
    const UNROLL: bool = false;
    type F = [f32; 32];
    type I = [i32; 32];
    type E = [i16; 32];

    #[inline(always)]
    fn floats(self, x: &[f32; 32]) -> [[f32; 32]; 1] {
        [*x]
    }
    #[inline(always)]
    fn float_quad(self, x: &[f32; 4]) -> [f32; 32] {
        std::array::from_fn(|i| x[i % 4])
    }
    #[inline(always)]
    fn mul(self, a: [f32; 32], b: [f32; 32]) -> [f32; 32] {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    fn truncate(self, a: [f32; 32]) -> [i32; 32] {
        a.map(|x| x as i32)
    }
    #[inline(always)]
    fn cut(self, a: [i32; 32]) -> [f32; 32] {
        // Without the highest lost bit, rounding cuts.
        a.map(|x| {
            let m = x.unsigned_abs();
            let y = (m & !(m >> 24)) as f32;
            if x < 0 { -y } else { y }
        })
    }
    #[inline(always)]
    fn ints(self, x: &[u32; 32]) -> [[i32; 32]; 1] {
        [x.map(|x| x as i32)]
    }
    #[inline(always)]
    fn splat(self, x: i32) -> [i32; 32] {
        [x; 32]
    }
    #[inline(always)]
    fn add(self, a: [i32; 32], b: [i32; 32]) -> [i32; 32] {
        zip(a, b, i32::wrapping_add)
    }
    #[inline(always)]
    fn sub(self, a: [i32; 32], b: [i32; 32]) -> [i32; 32] {
        zip(a, b, i32::wrapping_sub)
    }
    #[inline(always)]
    fn max(self, a: [i32; 32], b: [i32; 32]) -> [i32; 32] {
        zip(a, b, i32::max)
    }
    #[inline(always)]
    fn min(self, a: [i32; 32], b: [i32; 32]) -> [i32; 32] {
        zip(a, b, i32::min)
    }
    #[inline(always)]
    fn abs(self, a: [i32; 32]) -> [i32; 32] {
        a.map(i32::wrapping_abs)
    }
    #[inline(always)]
    fn and(self, a: [i32; 32], b: [i32; 32]) -> [i32; 32] {
        zip(a, b, |a, b| a & b)
    }
    #[inline(always)]
    fn or(self, a: [i32; 32], b: [i32; 32]) -> [i32; 32] {
        zip(a, b, |a, b| a | b)
    }
    #[inline(always)]
    fn stick(self, a: [i32; 32], b: [i32; 32], c: [i32; 32]) -> [i32; 32] {
        std::array::from_fn(|i| a[i] | i32::from(b[i] != c[i]))
    }
    #[inline(always)]
    fn left<const N: u32>(self, a: [i32; 32]) -> [i32; 32] {
        a.map(|x| x << N)
    }
    #[inline(always)]
    fn right<const N: u32>(self, a: [i32; 32]) -> [i32; 32] {
        a.map(|x| (x as u32 >> N) as i32)
    }
    #[inline(always)]
    fn bits(self, a: [f32; 32]) -> [i32; 32] {
        a.map(|x| x.to_bits() as i32)
    }
    #[inline(always)]
    fn floating(self, a: [i32; 32]) -> [f32; 32] {
        a.map(|x| f32::from_bits(x as u32))
    }
    #[inline(always)]
    fn store(self, [a]: [[i32; 32]; 1]) -> [u32; 32] {
        a.map(|x| x as u32)
    }
    #[inline(always)]
    fn any_sign(self, a: [i32; 32]) -> bool {
        a.iter().any(|&x| x < 0)
    }
    #[inline(always)]
    fn exponents(self, x: &[i16; 32]) -> [i16; 32] {
        *x
    }
    #[inline(always)]
    fn exponent_splat(self, x: i16) -> [i16; 32] {
        [x; 32]
    }
    #[inline(always)]
    fn exponent_quad(self, x: &[i16; 4]) -> [i16; 32] {
        std::array::from_fn(|i| x[i % 4])
    }
    #[inline(always)]
    fn add_exponents(self, a: [i16; 32], b: [i16; 32]) -> [i16; 32] {
        zip(a, b, i16::wrapping_add)
    }
    #[inline(always)]
    fn max_exponents(self, a: [i16; 32], b: [i16; 32]) -> [i16; 32] {
        zip(a, b, i16::max)
    }
    #[inline(always)]
    fn widen(self, a: [i16; 32]) -> [[i32; 32]; 1] {
        [a.map(i32::from)]
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m128i, __m256, __m256i, __m512, __m512i, _MM_FROUND_NO_EXC, _MM_FROUND_TO_ZERO,
    };

    use pulp::cast;
    use pulp::x86::{V3, V4};

    use super::Lanes;

    impl Lanes<4> for V3 {
        const UNROLL: bool = false;
        type F = __m256;
        type I = __m256i;
        type E = [__m256i; 2];

        #[inline(always)]
        fn floats(self, x: &[f32; 32]) -> [__m256; 4] {
            cast(*x)
        }
        #[inline(always)]
        fn ints(self, x: &[u32; 32]) -> [__m256i; 4] {
            cast(*x)
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
        fn store(self, a: [__m256i; 4]) -> [u32; 32] {
            cast(a)
        }
        #[inline(always)]
        fn exponents(self, x: &[i16; 32]) -> [__m256i; 2] {
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
        fn cut(self, a: __m256i) -> __m256 {
            // Without the highest lost bit, rounding cuts.
            let m = self.avx2._mm256_abs_epi32(a);
            let m = self.avx2._mm256_andnot_si256(self.avx2._mm256_srli_epi32::<24>(m), m);
            let sign = self.and(a, self.splat(i32::MIN));
            cast(self.or(cast(self.avx._mm256_cvtepi32_ps(m)), sign))
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
        fn min(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_min_epi32(a, b)
        }
        #[inline(always)]
        fn and(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_and_si256(a, b)
        }
        #[inline(always)]
        fn or(self, a: __m256i, b: __m256i) -> __m256i {
            self.avx2._mm256_or_si256(a, b)
        }
        #[inline(always)]
        fn abs(self, a: __m256i) -> __m256i {
            self.avx2._mm256_abs_epi32(a)
        }
        #[inline(always)]
        fn stick(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
            let same = self.avx2._mm256_cmpeq_epi32(b, c);
            self.or(a, self.avx2._mm256_andnot_si256(same, self.splat(1)))
        }
        #[inline(always)]
        fn left<const N: u32>(self, a: __m256i) -> __m256i {
            self.avx2._mm256_sll_epi32(a, cast([u64::from(N), 0]))
        }
        #[inline(always)]
        fn right<const N: u32>(self, a: __m256i) -> __m256i {
            self.avx2._mm256_srl_epi32(a, cast([u64::from(N), 0]))
        }
        #[inline(always)]
        fn any_sign(self, a: __m256i) -> bool {
            self.avx._mm256_movemask_ps(cast(a)) != 0
        }
        #[inline(always)]
        fn exponent_splat(self, x: i16) -> [__m256i; 2] {
            [self.avx._mm256_set1_epi16(x); 2]
        }
        #[inline(always)]
        fn exponent_quad(self, x: &[i16; 4]) -> [__m256i; 2] {
            [self.avx._mm256_set1_epi64x(cast(*x)); 2]
        }
        #[inline(always)]
        fn add_exponents(self, [a, b]: [__m256i; 2], [c, d]: [__m256i; 2]) -> [__m256i; 2] {
            [self.avx2._mm256_add_epi16(a, c), self.avx2._mm256_add_epi16(b, d)]
        }
        #[inline(always)]
        fn max_exponents(self, [a, b]: [__m256i; 2], [c, d]: [__m256i; 2]) -> [__m256i; 2] {
            [self.avx2._mm256_max_epi16(a, c), self.avx2._mm256_max_epi16(b, d)]
        }
        #[inline(always)]
        fn widen(self, a: [__m256i; 2]) -> [__m256i; 4] {
            let quarters: [__m128i; 4] = cast(a);
            quarters.map(|a| self.avx2._mm256_cvtepi16_epi32(a))
        }
    }

    impl Lanes<2> for V4 {
        const UNROLL: bool = true;
        type F = __m512;
        type I = __m512i;
        type E = __m512i;

        #[inline(always)]
        fn floats(self, x: &[f32; 32]) -> [__m512; 2] {
            cast(*x)
        }
        #[inline(always)]
        fn ints(self, x: &[u32; 32]) -> [__m512i; 2] {
            cast(*x)
        }
        #[inline(always)]
        fn bits(self, a: __m512) -> __m512i {
            cast(a)
        }
        #[inline(always)]
        fn floating(self, a: __m512i) -> __m512 {
            cast(a)
        }
        #[inline(always)]
        fn store(self, a: [__m512i; 2]) -> [u32; 32] {
            cast(a)
        }
        #[inline(always)]
        fn exponents(self, x: &[i16; 32]) -> __m512i {
            cast(*x)
        }
        #[inline(always)]
        fn float_quad(self, x: &[f32; 4]) -> __m512 {
            self.avx512f._mm512_broadcast_f32x4(cast(*x))
        }
        #[inline(always)]
        fn mul(self, a: __m512, b: __m512) -> __m512 {
            self.avx512f._mm512_mul_ps(a, b)
        }
        #[inline(always)]
        fn truncate(self, a: __m512) -> __m512i {
            self.avx512f._mm512_cvttps_epi32(a)
        }
        #[inline(always)]
        fn cut(self, a: __m512i) -> __m512 {
            const CUT: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
            self.avx512f._mm512_cvt_roundepi32_ps::<CUT>(a)
        }
        #[inline(always)]
        fn splat(self, x: i32) -> __m512i {
            self.avx512f._mm512_set1_epi32(x)
        }
        #[inline(always)]
        fn add(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_add_epi32(a, b)
        }
        #[inline(always)]
        fn sub(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_sub_epi32(a, b)
        }
        #[inline(always)]
        fn max(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_max_epi32(a, b)
        }
        #[inline(always)]
        fn min(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_min_epi32(a, b)
        }
        #[inline(always)]
        fn and(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_and_si512(a, b)
        }
        #[inline(always)]
        fn or(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512f._mm512_or_si512(a, b)
        }
        #[inline(always)]
        fn abs(self, a: __m512i) -> __m512i {
            self.avx512f._mm512_abs_epi32(a)
        }
        #[inline(always)]
        fn stick(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
            let other = self.avx512f._mm512_cmpneq_epi32_mask(b, c);
            self.avx512f._mm512_mask_or_epi32(a, other, a, self.splat(1))
        }
        #[inline(always)]
        fn left<const N: u32>(self, a: __m512i) -> __m512i {
            self.avx512f._mm512_slli_epi32::<N>(a)
        }
        #[inline(always)]
        fn right<const N: u32>(self, a: __m512i) -> __m512i {
            self.avx512f._mm512_srli_epi32::<N>(a)
        }
        #[inline(always)]
        fn any_sign(self, a: __m512i) -> bool {
            self.avx512f._mm512_cmplt_epi32_mask(a, self.splat(0)) != 0
        }
        #[inline(always)]
        fn exponent_splat(self, x: i16) -> __m512i {
            self.avx512f._mm512_set1_epi16(x)
        }
        #[inline(always)]
        fn exponent_quad(self, x: &[i16; 4]) -> __m512i {
            self.avx512f._mm512_set1_epi64(cast(*x))
        }
        #[inline(always)]
        fn add_exponents(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512bw._mm512_add_epi16(a, b)
        }
        #[inline(always)]
        fn max_exponents(self, a: __m512i, b: __m512i) -> __m512i {
            self.avx512bw._mm512_max_epi16(a, b)
        }
        #[inline(always)]
        fn widen(self, a: __m512i) -> [__m512i; 2] {
            let halves: [__m256i; 2] = cast(a);
            halves.map(|a| self.avx512f._mm512_cvtepi16_epi32(a))
        }
    }
}
