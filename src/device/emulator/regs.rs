//! A warp's registers, and how an instruction's function over one lane becomes one over a warp.

use pulp::{Arch, Simd, WithSimd};

/// Runs `op` with AVX2 where the machine has it: wider vectors gain nothing on rows of 32 lanes.
#[inline(always)]
pub fn dispatch<Op: WithSimd>(arch: Arch, op: Op) -> Op::Output {
    match arch {
        #[cfg(target_arch = "x86_64")]
        Arch::V4(simd) => Simd::vectorize(*simd, op),
        #[cfg(target_arch = "x86_64")]
        Arch::V3(simd) => Simd::vectorize(simd, op),
        _ => op.with_simd(pulp::Scalar),
    }
}

/// A register of a warp: one value a lane. Aligned, so that no vector load straddles cache lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(align(64))]
pub struct Row<T>(pub [T; 32]);

impl<T: Copy> Row<T> {
    pub fn splat(x: T) -> Row<T> {
        Row([x; 32])
    }
}

impl<T> std::ops::Deref for Row<T> {
    type Target = [T; 32];
    #[inline(always)]
    fn deref(&self) -> &[T; 32] {
        &self.0
    }
}

impl<T> std::ops::DerefMut for Row<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T; 32] {
        &mut self.0
    }
}

/// All registers of a warp. 16-bit values sit zero-extended in 32-bit rows; predicates are masks.
#[derive(Debug, Clone, Default)]
pub struct Regs {
    pub r32: Vec<Row<u32>>,
    pub r64: Vec<Row<u64>>,
    pub p: Vec<u32>,
}

/// Operand slots of a register instruction. `o[0]` is the destination; then come the sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots {
    pub o: [u16; 5],
    pub imm: u32,
}

/// A register instruction over the lanes of `mask`.
pub type AluFn = fn(Arch, &mut Regs, &Slots, u32);

/// What a lane of a register holds.
pub trait El: Copy + Default {
    fn row(r: &Regs, i: u16) -> &Row<Self>;
    /// Stores the lanes of `mask`.
    fn write(r: &mut Regs, i: u16, mask: u32, v: &Row<Self>);
}

impl El for u32 {
    #[inline(always)]
    fn row(r: &Regs, i: u16) -> &Row<u32> {
        &r.r32[i as usize]
    }

    #[inline(always)]
    fn write(r: &mut Regs, i: u16, mask: u32, v: &Row<u32>) {
        blend(&mut r.r32[i as usize], mask, v);
    }
}

impl El for u64 {
    #[inline(always)]
    fn row(r: &Regs, i: u16) -> &Row<u64> {
        &r.r64[i as usize]
    }

    #[inline(always)]
    fn write(r: &mut Regs, i: u16, mask: u32, v: &Row<u64>) {
        blend(&mut r.r64[i as usize], mask, v);
    }
}

/// No operand.
impl El for () {
    #[inline(always)]
    fn row(_: &Regs, _: u16) -> &Row<()> {
        &Row([(); 32])
    }

    #[inline(always)]
    fn write(_: &mut Regs, _: u16, _: u32, _: &Row<()>) {}
}

#[inline(always)]
fn blend<T: Copy>(d: &mut Row<T>, mask: u32, v: &Row<T>) {
    if mask == u32::MAX {
        *d = *v;
        return;
    }
    for i in 0..32 {
        d[i] = if mask >> i & 1 != 0 { v[i] } else { d[i] };
    }
}

/// A function of up to three registers and an immediate, of one lane. It must be total: it is
/// computed for inactive lanes too.
pub trait Lane {
    type A: El;
    type B: El;
    type C: El;
    type D: El;
    fn f(a: Self::A, b: Self::B, c: Self::C, imm: u32) -> Self::D;
}

/// `o = [d, a, b, c]`
pub fn alu<L: Lane>(arch: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    struct K<'a, L>(&'a mut Regs, &'a Slots, u32, std::marker::PhantomData<L>);
    impl<L: Lane> WithSimd for K<'_, L> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let K(r, s, mask, _) = self;
            let a = L::A::row(r, s.o[1]);
            let b = L::B::row(r, s.o[2]);
            let c = L::C::row(r, s.o[3]);
            let mut out = Row([L::D::default(); 32]);
            for i in 0..32 {
                out[i] = L::f(a[i], b[i], c[i], s.imm);
            }
            L::D::write(r, s.o[0], mask, &out);
        }
    }
    dispatch(arch, K::<L>(r, s, mask, std::marker::PhantomData));
}

/// A comparison of one lane.
pub trait Compare {
    type A: El;
    fn f(a: Self::A, b: Self::A) -> bool;
}

/// Bits of the immediate of [`setp`]: how the third predicate joins in.
pub const JOIN_AND: u32 = 0;
pub const JOIN_OR: u32 = 1;
pub const JOIN_XOR: u32 = 2;
pub const JOIN_NEGATED: u32 = 4;

/// `o = [p, a, b, q, c]`: p = (a ? b) join c, q = !(a ? b) join c.
pub fn setp<C: Compare>(arch: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    struct K<'a, C>(&'a mut Regs, &'a Slots, u32, std::marker::PhantomData<C>);
    impl<C: Compare> WithSimd for K<'_, C> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let K(r, s, mask, _) = self;
            let a = C::A::row(r, s.o[1]);
            let b = C::A::row(r, s.o[2]);
            let mut hit = 0;
            for i in 0..32 {
                hit |= u32::from(C::f(a[i], b[i])) << i;
            }
            let mut c = r.p[s.o[4] as usize];
            if s.imm & JOIN_NEGATED != 0 {
                c = !c;
            }
            let (p, q) = match s.imm & 3 {
                JOIN_OR => (hit | c, !hit | c),
                JOIN_XOR => (hit ^ c, !hit ^ c),
                _ => (hit & c, !hit & c),
            };
            put(&mut r.p[s.o[3] as usize], mask, q);
            put(&mut r.p[s.o[0] as usize], mask, p);
        }
    }
    dispatch(arch, K::<C>(r, s, mask, std::marker::PhantomData));
}

/// Sets the lanes of `mask` in a predicate.
#[inline(always)]
pub fn put(p: &mut u32, mask: u32, v: u32) {
    *p = *p & !mask | v & mask;
}

/// `o = [d, a, b, p]`: d = p ? a : b; `imm` 1 negates p.
pub fn selp<T: El>(arch: Arch, r: &mut Regs, s: &Slots, mask: u32) {
    struct K<'a, T>(&'a mut Regs, &'a Slots, u32, std::marker::PhantomData<T>);
    impl<T: El> WithSimd for K<'_, T> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let K(r, s, mask, _) = self;
            let p = r.p[s.o[3] as usize] ^ s.imm.wrapping_neg();
            let a = T::row(r, s.o[1]);
            let b = T::row(r, s.o[2]);
            let mut out = Row([T::default(); 32]);
            for i in 0..32 {
                out[i] = if p >> i & 1 != 0 { a[i] } else { b[i] };
            }
            T::write(r, s.o[0], mask, &out);
        }
    }
    dispatch(arch, K::<T>(r, s, mask, std::marker::PhantomData));
}
