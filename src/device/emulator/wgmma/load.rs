//! Operands of `wgmma` from shared memory or registers to where they are added up.

use std::marker::PhantomData;

use pulp::{Arch, Simd, WithSimd};

use crate::device::emulator::ptx::ast::Ty;
use crate::device::emulator::regs::{Row, dispatch};
use crate::device::emulator::tensor::{Bf16, Columns, E4m3, E5m2, Element, F16, Scratch, Tf32};

/// Four registers of an A fragment; bits to xor to the values.
pub type LoadA = fn(Arch, &mut Scratch, &[Row<u32>; 4], u32);
/// The words of B's pieces in their order; columns; bits to xor to the values.
pub type LoadB = fn(Arch, &mut Columns, &[u32], usize, u32);

/// How operands of a type are taken in: A, B by K-major pieces, and B by MN-major ones.
#[derive(Clone, Copy)]
pub struct Loads {
    pub a: LoadA,
    pub b: LoadB,
    pub b_mn: Option<LoadB>,
    /// Elements along k of one instruction.
    pub k: usize,
}

/// How operands of type `ty` are taken in; `None` for a type that products do not take.
pub fn loads(ty: Ty) -> Option<Loads> {
    fn of<E: Element>(mn: bool) -> Option<Loads> {
        let b_mn = if mn { Some(mn_major::<E> as LoadB) } else { None };
        Some(Loads { a: fragments::<E>, b: k_major::<E>, b_mn, k: 8 * E::PACK })
    }
    match ty {
        Ty::Bf16 => of::<Bf16>(true),
        Ty::F16 => of::<F16>(true),
        Ty::Tf32 => of::<Tf32>(false),
        Ty::E4m3 => of::<E4m3>(false),
        Ty::E5m2 => of::<E5m2>(false),
        _ => None,
    }
}

fn fragments<E: Element>(arch: Arch, s: &mut Scratch, a: &[Row<u32>; 4], flip: u32) {
    struct K<'a, E>(&'a mut Scratch, &'a [Row<u32>; 4], u32, PhantomData<E>);
    impl<E: Element> WithSimd for K<'_, E> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            for (j, words) in self.1.iter().enumerate() {
                self.0.fragment::<E>(j, words, self.2);
            }
        }
    }
    dispatch(arch, K::<E>(s, a, flip, PhantomData));
}

fn k_major<E: Element>(arch: Arch, s: &mut Columns, words: &[u32], n: usize, flip: u32) {
    struct K<'a, E>(&'a mut Columns, &'a [u32], usize, u32, PhantomData<E>);
    impl<E: Element> WithSimd for K<'_, E> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let K(s, words, n, flip, _) = self;
            let k = 8 * E::PACK;
            s.reserve(n / 4 * k);
            let value = s.value.chunks_exact_mut(k);
            let exponent = s.exponent.chunks_exact_mut(k);
            let columns = words.as_chunks::<8>().0.as_chunks::<8>().0;
            let steps = columns.iter().flat_map(|c| [(c, 0), (c, 1)]);
            for ((value, exponent), (columns, i)) in value.zip(exponent).zip(steps) {
                // Words of columns i, 2 + i, 4 + i, 6 + i side by side.
                let mut quads = [0; 32];
                for x in 0..8 {
                    for t in 0..4 {
                        quads[4 * x + t] = columns[2 * t + i][x];
                    }
                }
                for p in 0..E::PACK {
                    let (mut v, mut e) = ([0f32; 32], [0i16; 32]);
                    for i in 0..32 {
                        let w = quads[i] >> (32 / E::PACK * p);
                        v[i] = f32::from_bits(E::value(w).to_bits() ^ flip);
                        e[i] = E::exponent(w);
                    }
                    for x in 0..8 {
                        value[E::PACK * x + p] = v.as_chunks::<4>().0[x];
                        exponent[E::PACK * x + p] = e.as_chunks::<4>().0[x];
                    }
                }
            }
        }
    }
    dispatch(arch, K::<E>(s, words, n, flip, PhantomData));
}

/// Takes in MN-major pieces of 16-bit elements.
fn mn_major<E: Element>(arch: Arch, s: &mut Columns, words: &[u32], n: usize, flip: u32) {
    struct K<'a, E>(&'a mut Columns, &'a [u32], usize, u32, PhantomData<E>);
    impl<E: Element> WithSimd for K<'_, E> {
        type Output = ();
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) {
            let K(s, words, n, flip, _) = self;
            s.reserve(n / 4 * 16);
            for (k, words) in words.chunks_exact(n / 2).enumerate() {
                let mut blocks = 0..n / 8;
                for words in words.chunks(8) {
                    // Two blocks, or the last one alone.
                    let mut w = [0; 8];
                    w[..words.len()].copy_from_slice(words);
                    let (mut v, mut e) = ([[0f32; 8]; 2], [[0i16; 8]; 2]);
                    for i in 0..2 {
                        for t in 0..8 {
                            let w = w[t] >> (16 * i);
                            v[i][t] = f32::from_bits(E::value(w).to_bits() ^ flip);
                            e[i][t] = E::exponent(w);
                        }
                    }
                    for (half, block) in blocks.by_ref().take(2).enumerate() {
                        for i in 0..2 {
                            let to = (2 * block + i) * 16 + k;
                            s.value[to] = v[i].as_chunks::<4>().0[half];
                            s.exponent[to] = e[i].as_chunks::<4>().0[half];
                        }
                    }
                }
            }
        }
    }
    dispatch(arch, K::<E>(s, words, n, flip, PhantomData));
}
