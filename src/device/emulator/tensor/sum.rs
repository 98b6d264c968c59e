//! The sums of [`super::rule`] over 16 rows and 8 columns at a time, bit by bit the same.

use pulp::Arch;

use super::lanes::{Lanes, Portable};
use super::rule::{Rule, ZERO, exact};
use super::{pack, unpack};
use crate::device::emulator::regs::Row;

/// Most products of one output.
pub const MAX_K: usize = 32;

/// Rows of A as they meet the accumulators' lanes: lane l of half r has row l / 4 + 8 r.
pub struct Rows {
    /// By half, then k.
    pub value: [[Row<f32>; MAX_K]; 2],
    /// Exponents plus 127.
    pub exponent: [[Row<i16>; MAX_K]; 2],
}

impl Default for Rows {
    fn default() -> Rows {
        Rows { value: [[Row([0.0; 32]); MAX_K]; 2], exponent: [[Row([0; 32]); MAX_K]; 2] }
    }
}

impl Rows {
    #[inline(always)]
    fn half(&self, r: usize, k: usize) -> Half<'_> {
        (&self.value[r][..k], &self.exponent[r][..k])
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
    #[inline(always)]
    fn step(&self, i: usize, k: usize) -> Step<'_> {
        (&self.value[i * k..][..k], &self.exponent[i * k..][..k])
    }

    /// Makes room for `n` times four elements.
    pub fn reserve(&mut self, n: usize) {
        if self.value.len() < n {
            self.value.resize(n, [0.0; 4]);
            self.exponent.resize(n, [0; 4]);
        }
    }
}

/// Accumulators of 16 rows in registers. Each block of 8 columns has the two steps of half 0, then
/// those of half 1; with pairs of fp16, one register has both steps of a half.
pub struct Accumulators<'a> {
    pub rows: &'a mut [Row<u32>],
    /// Which of the rows.
    pub slots: &'a [u16],
    /// They count as zero.
    pub fresh: bool,
}

/// Values, and exponents plus 127, of half of the rows, by k.
type Half<'a> = (&'a [Row<f32>], &'a [Row<i16>]);
/// Values and exponents of a step of columns by k.
type Step<'a> = (&'a [[f32; 4]], &'a [[i16; 4]]);

/// What all outputs of an instruction have in common.
#[derive(Debug, Clone, Copy)]
pub struct Sum {
    pub rule: Rule,
    pub k: usize,
    /// Results will be rounded to fp16.
    pub half: bool,
}

impl Sum {
    /// c += a b
    pub fn run(self, arch: Arch, a: &Rows, b: &Columns, c: Accumulators<'_>) {
        #[cfg(target_arch = "x86_64")]
        struct Vectors<'a, L>(L, Sum, &'a Rows, &'a Columns, Accumulators<'a>);
        #[cfg(target_arch = "x86_64")]
        impl pulp::NullaryFnOnce for Vectors<'_, pulp::x86::V3> {
            type Output = ();
            #[inline(always)]
            fn call(self) {
                let Vectors(simd, sum, a, b, c) = self;
                sum.registers(simd, a, b, c);
            }
        }
        #[cfg(target_arch = "x86_64")]
        impl pulp::NullaryFnOnce for Vectors<'_, pulp::x86::V4> {
            type Output = ();
            #[inline(always)]
            fn call(self) {
                let Vectors(simd, sum, a, b, c) = self;
                sum.registers(simd, a, b, c);
            }
        }
        match arch {
            #[cfg(target_arch = "x86_64")]
            Arch::V4(simd) => simd.vectorize(Vectors(simd, self, a, b, c)),
            #[cfg(target_arch = "x86_64")]
            Arch::V3(simd) => simd.vectorize(Vectors(simd, self, a, b, c)),
            _ => self.registers(Portable, a, b, c),
        }
    }

    /// As [`Sum::run`], without the machine's vectors.
    #[cfg(test)]
    pub fn run_portable(self, a: &Rows, b: &Columns, c: Accumulators<'_>) {
        self.registers(Portable, a, b, c);
    }

    #[inline(always)]
    fn registers<const Q: usize, L: Lanes<Q>>(
        self,
        l: L,
        a: &Rows,
        b: &Columns,
        c: Accumulators<'_>,
    ) {
        // With a number of products that is known, loops over them become straight code, where
        // registers are many enough for it.
        match self.k {
            16 if L::UNROLL => Sum { k: 16, ..self }.registers_of(l, a, b, c),
            _ => self.registers_of(l, a, b, c),
        }
    }

    #[inline(always)]
    fn registers_of<const Q: usize, L: Lanes<Q>>(
        self,
        l: L,
        a: &Rows,
        b: &Columns,
        c: Accumulators<'_>,
    ) {
        // Each block's registers, by half of the rows, then step.
        let (rows, count) = (c.rows, if self.half { 2 } else { 4 });
        let halves = [a.half(0, self.k), a.half(1, self.k)];
        for (block, slots) in c.slots.chunks(count).enumerate() {
            let steps = [b.step(2 * block, self.k), b.step(2 * block + 1, self.k)];
            let tops = tops(l, halves, steps);
            for (i, &slot) in slots.iter().enumerate() {
                let row = &mut rows[usize::from(slot)];
                if self.half {
                    let mut acc = if c.fresh { [Row([0; 32]); 2] } else { unpack(row) };
                    for (j, acc) in acc.iter_mut().enumerate() {
                        self.step(l, halves[i], steps[j], tops[2 * i + j], acc);
                    }
                    *row = pack(&acc);
                } else {
                    if c.fresh {
                        row.fill(0);
                    }
                    self.step(l, halves[i / 2], steps[i % 2], tops[i], row);
                }
            }
        }
    }

    /// For half of the rows and a step of columns, with the products' [`tops`].
    #[inline(always)]
    fn step<const Q: usize, L: Lanes<Q>>(
        self,
        l: L,
        a: Half<'_>,
        b: Step<'_>,
        top: L::E,
        c: &mut Row<u32>,
    ) {
        let mut e = l.widen(top);
        let mut scale = [l.floating(l.splat(0)); Q];
        let mut sum = [l.splat(0); Q];
        let place = l.splat(254 + self.rule.fraction);
        let (least, most) = (l.splat(27), l.splat(247));
        for (q, c) in l.ints(c).into_iter().enumerate() {
            e[q] = l.max(e[q], l.right::<24>(l.left::<1>(c)));
            // No lower than where its scale is a normal number: a sum of zeros is right in any.
            let e = l.max(e[q], least);
            scale[q] = l.floating(l.left::<23>(l.sub(place, e)));
            sum[q] = l.truncate(l.mul(l.floating(c), scale[q]));
        }
        // Exponents whose powers of two, and those of the scale, are normal numbers.
        let (mut low, mut high) = (e[0], e[0]);
        for &e in &e[1..] {
            (low, high) = (l.min(low, e), l.max(high, e));
        }
        let far = l.or(l.sub(low, least), l.sub(most, high));
        // Where scales are 1 and more, and zeros stay below 1, exponents add up as whole numbers, which
        // more of a core's units do.
        if l.any_sign(l.sub(l.splat(127 + self.rule.fraction), high)) {
            for (a, b) in a.0.iter().zip(b.0) {
                let (a, b) = (l.floats(a), l.float_quad(b));
                for q in 0..Q {
                    let product = l.mul(l.mul(a[q], b), scale[q]);
                    sum[q] = l.add(sum[q], l.truncate(product));
                }
            }
        } else {
            let one = l.splat(127 << 23);
            let shift: [L::I; Q] = std::array::from_fn(|q| l.sub(l.bits(scale[q]), one));
            for (a, b) in a.0.iter().zip(b.0) {
                let (a, b) = (l.floats(a), l.float_quad(b));
                for q in 0..Q {
                    let product = l.add(l.bits(l.mul(a[q], b)), shift[q]);
                    sum[q] = l.add(sum[q], l.truncate(l.floating(product)));
                }
            }
        }
        // A sum of 2^30 and more may have overflown.
        let mut m = l.abs(sum[0]);
        for &sum in &sum[1..] {
            m = l.or(m, l.abs(sum));
        }
        if l.any_sign(l.or(far, l.or(m, l.left::<1>(m)))) {
            return self.doubtful(l, (a, b, top), (&sum, &scale), c);
        }
        **c = l.store(self.finish(l, &sum, &scale));
    }

    /// Sums as fp32.
    #[inline(always)]
    fn finish<const Q: usize, L: Lanes<Q>>(
        self,
        l: L,
        sum: &[L::I; Q],
        scale: &[L::F; Q],
    ) -> [L::I; Q] {
        let one = l.splat(254 << 23);
        let mut out = [l.splat(0); Q];
        for q in 0..Q {
            let mut x = l.cut(sum[q]);
            if self.half {
                x = l.floating(l.stick(l.bits(x), l.truncate(x), sum[q]));
            } else if self.rule.keep < 24 {
                x = l.floating(l.and(l.bits(x), l.splat(-1 << (24 - self.rule.keep))));
            }
            let unit = l.floating(l.sub(one, l.bits(scale[q])));
            out[q] = l.bits(l.mul(x, unit));
        }
        out
    }

    /// The end of [`Sum::step`] where exponents or sums of some lanes are out of its range.
    #[inline(always)]
    fn doubtful<const Q: usize, L: Lanes<Q>>(
        self,
        l: L,
        (a, b, top): (Half<'_>, Step<'_>, L::E),
        (sum, scale): (&[L::I; Q], &[L::F; Q]),
        c: &mut Row<u32>,
    ) {
        let (top, old) = (l.widen(top), l.ints(c));
        let mut doubt = [l.splat(0); Q];
        let mut any = l.splat(0);
        for q in 0..Q {
            let e = l.max(top[q], l.right::<24>(l.left::<1>(old[q])));
            // Nothing but zeros is common, as in rows beyond the end of a tensor.
            let products = l.sub(l.splat(i32::from(ZERO) / 2), top[q]);
            let twice = l.left::<1>(old[q]);
            let some = l.or(products, l.or(twice, l.sub(l.splat(0), twice)));
            let low = l.and(l.sub(e, l.splat(27)), some);
            let m = l.abs(sum[q]);
            let great = l.or(m, l.left::<1>(m));
            doubt[q] = l.or(l.or(low, l.sub(l.splat(247), e)), great);
            any = l.or(any, doubt[q]);
        }
        let out = Row(l.store(self.finish(l, sum, scale)));
        if l.any_sign(any) {
            self.one_by_one(a, b, (&Row(l.store(doubt)), &out), c);
        } else {
            *c = out;
        }
    }

    /// Lanes whose sign is set in `doubt` as the rule says, the others as in `out`.
    #[cold]
    #[inline(never)]
    fn one_by_one(
        self,
        a: Half<'_>,
        b: Step<'_>,
        (doubt, out): (&Row<u32>, &Row<u32>),
        c: &mut Row<u32>,
    ) {
        for i in 0..32 {
            if doubt[i] >> 31 == 0 {
                c[i] = out[i];
                continue;
            }
            let pairs = (0..self.k).map(|k| {
                let a = (a.0[k][i], a.1[k][i] - 127);
                (a, (b.0[k][i % 4], b.1[k][i % 4]))
            });
            c[i] = exact(self.rule, pairs, f32::from_bits(c[i]), self.half);
        }
    }
}

/// The products' greatest exponents plus 127, by half of the rows, then step.
#[inline(always)]
fn tops<const Q: usize, L: Lanes<Q>>(l: L, a: [Half<'_>; 2], b: [Step<'_>; 2]) -> [L::E; 4] {
    let mut top = [l.exponent_splat(ZERO); 4];
    let rows = a[0].1.iter().zip(a[1].1);
    let columns = b[0].1.iter().zip(b[1].1);
    for ((a, high), (b, odd)) in rows.zip(columns) {
        let (a, high) = (l.exponents(a), l.exponents(high));
        let (b, odd) = (l.exponent_quad(b), l.exponent_quad(odd));
        top[0] = l.max_exponents(top[0], l.add_exponents(a, b));
        top[1] = l.max_exponents(top[1], l.add_exponents(a, odd));
        top[2] = l.max_exponents(top[2], l.add_exponents(high, b));
        top[3] = l.max_exponents(top[3], l.add_exponents(high, odd));
    }
    top
}
