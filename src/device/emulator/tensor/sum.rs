//! The sums of [`super::rule`] over 16 rows and 8 columns at a time, bit by bit the same.

use pulp::{Arch, Simd, WithSimd};

use super::lanes::{Lanes, Portable};
use super::rule::{Rule, ZERO, exact};
use crate::device::emulator::regs::Row;

/// Most products of one output.
pub const MAX_K: usize = 32;

/// Rows of A as they meet the accumulators' lanes: lane l of half r has row l / 4 + 8 r.
pub struct Rows {
    /// By k, half, and eight lanes.
    pub value: [[[[f32; 8]; 4]; 2]; MAX_K],
    /// Exponents and 127.
    pub exponent: [[[[i16; 16]; 2]; 2]; MAX_K],
}

impl Default for Rows {
    fn default() -> Rows {
        Rows { value: [[[[0.0; 8]; 4]; 2]; MAX_K], exponent: [[[[0; 16]; 2]; 2]; MAX_K] }
    }
}

/// Columns of B, in steps of four: step 2 j + i has columns 8 j + 2 t + i, t = 0..4.
#[derive(Default)]
pub struct Columns {
    /// By step, then k.
    pub value: Vec<[f32; 4]>,
    pub exponent: Vec<[i16; 4]>,
}

impl Columns {
    /// Makes room for `n` times four elements.
    pub fn reserve(&mut self, n: usize) {
        if self.value.len() < n {
            self.value.resize(n, [0.0; 4]);
            self.exponent.resize(n, [0; 4]);
        }
    }
}

/// What all outputs of an instruction have in common.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    pub rule: Rule,
    pub k: usize,
    /// Results will be rounded to fp16.
    pub half: bool,
}

impl Sum {
    /// c += a b for half `r` of the rows and a step of columns.
    pub fn run(self, arch: Arch, a: &Rows, b: &Columns, r: usize, step: usize, c: &mut Row<u32>) {
        struct K<'a>(Sum, &'a Rows, &'a Columns, usize, usize, &'a mut Row<u32>);
        impl WithSimd for K<'_> {
            type Output = u32;
            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) -> u32 {
                let K(sum, a, b, r, step, c) = self;
                sum.lanes(Portable, a, b, r, step, c)
            }
        }
        #[cfg(target_arch = "x86_64")]
        struct Avx2<'a>(pulp::x86::V3, K<'a>);
        #[cfg(target_arch = "x86_64")]
        impl pulp::NullaryFnOnce for Avx2<'_> {
            type Output = u32;
            #[inline(always)]
            fn call(self) -> u32 {
                let Avx2(simd, K(sum, a, b, r, step, c)) = self;
                sum.lanes(simd, a, b, r, step, c)
            }
        }
        let kernel = K(self, a, b, r, step, c);
        #[cfg(target_arch = "x86_64")]
        let doubtful = match arch {
            Arch::V3(simd) => simd.vectorize(Avx2(simd, kernel)),
            _ => arch.dispatch(kernel),
        };
        #[cfg(not(target_arch = "x86_64"))]
        let doubtful = arch.dispatch(kernel);
        if doubtful != 0 {
            self.one_by_one(doubtful, a, b, r, step, c);
        }
    }

    /// As [`Sum::run`], without the machine's vectors.
    #[cfg(test)]
    pub fn run_portable(self, a: &Rows, b: &Columns, r: usize, step: usize, c: &mut Row<u32>) {
        let doubtful = self.lanes(Portable, a, b, r, step, c);
        self.one_by_one(doubtful, a, b, r, step, c);
    }

    /// All lanes but those that it gives back, whose exponents or sums are out of its range.
    #[inline(always)]
    fn lanes<L: Lanes>(
        self,
        l: L,
        a: &Rows,
        b: &Columns,
        r: usize,
        step: usize,
        c: &mut Row<u32>,
    ) -> u32 {
        let value = &b.value[step * self.k..][..self.k];
        let exponent = &b.exponent[step * self.k..][..self.k];
        let mut top = [l.shorts(&[ZERO; 16]); 2];
        for (a, b) in a.exponent[..self.k].iter().zip(exponent) {
            let b = l.short_quad(b);
            for (top, a) in top.iter_mut().zip(&a[r]) {
                *top = l.max_shorts(*top, l.add_shorts(l.shorts(a), b));
            }
        }
        let [e0, e1] = l.widen(top[0]);
        let [e2, e3] = l.widen(top[1]);
        let mut e = [e0, e1, e2, e3];
        let mut scale = [l.floats(&[0.0; 8]); 4];
        let mut sum = [l.splat(0); 4];
        let old = c.as_chunks::<8>().0;
        for q in 0..4 {
            let c = l.ints(&old[q]);
            e[q] = l.max(e[q], l.and(l.right::<23>(c), l.splat(0xff)));
            scale[q] = l.floating(l.left::<23>(l.sub(l.splat(254 + self.rule.fraction), e[q])));
            sum[q] = l.truncate(l.mul(l.floating(c), scale[q]));
        }
        for (a, b) in a.value[..self.k].iter().zip(value) {
            let b = l.float_quad(b);
            for ((sum, a), scale) in sum.iter_mut().zip(&a[r]).zip(&scale) {
                let product = l.mul(l.mul(l.floats(a), b), *scale);
                *sum = l.add(*sum, l.truncate(product));
            }
        }
        let mask = l.splat(-1 << (24 - self.rule.keep));
        let mut out = [[0; 8]; 4];
        let mut doubtful = 0;
        for q in 0..4 {
            let m = l.abs(sum[q]);
            // Exponents whose powers of two, and those of the scale, are normal numbers.
            let far = l.above(l.abs(l.sub(e[q], l.splat(137))), l.splat(110));
            // A sum of 2^30 and more may have overflown.
            let great = l.or(m, l.left::<1>(m));
            doubtful |= l.signs(l.or(far, great)) << (8 * q);
            // Without the highest lost bit, rounding cuts.
            let float = l.convert(l.without(m, l.right::<24>(m)));
            let mut bits = l.bits(float);
            if self.half {
                let exact = l.sub(l.truncate(float), m);
                bits = l.or(bits, l.and(l.above(l.splat(0), exact), l.splat(1)));
            } else {
                bits = l.and(bits, mask);
            }
            let unit = l.floating(l.left::<23>(l.sub(e[q], l.splat(self.rule.fraction))));
            let x = l.bits(l.mul(l.floating(bits), unit));
            out[q] = l.store(l.or(x, l.and(sum[q], l.splat(i32::MIN))));
        }
        if doubtful == 0 {
            for (c, out) in c.as_chunks_mut::<8>().0.iter_mut().zip(out) {
                *c = out;
            }
            return 0;
        }
        // Nothing but zeros is common, as in rows beyond the end of a tensor.
        let products = [l.widen(top[0]), l.widen(top[1])];
        let mut zeros = 0;
        for (q, products) in products.as_flattened().iter().enumerate() {
            let c = l.abs(l.left::<1>(l.ints(&old[q])));
            let none = l.above(l.splat(i32::from(ZERO) / 2), *products);
            let some = l.or(l.above(c, l.splat(0)), c);
            zeros |= l.signs(l.without(none, some)) << (8 * q);
        }
        for (i, out) in out.as_flattened().iter().enumerate() {
            let keep = if doubtful >> i & 1 != 0 { c[i] } else { *out };
            c[i] = if zeros >> i & 1 != 0 { 0 } else { keep };
        }
        doubtful & !zeros
    }

    #[cold]
    fn one_by_one(
        self,
        lanes: u32,
        a: &Rows,
        b: &Columns,
        r: usize,
        step: usize,
        c: &mut Row<u32>,
    ) {
        let at = step * self.k;
        for i in (0..32).filter(|i| lanes >> i & 1 != 0) {
            let pairs = (0..self.k).map(|k| {
                let a = (a.value[k][r][i / 8][i % 8], a.exponent[k][r][i / 16][i % 16] - 127);
                (a, (b.value[at + k][i % 4], b.exponent[at + k][i % 4]))
            });
            c[i] = exact(self.rule, pairs, f32::from_bits(c[i]), self.half);
        }
    }
}
