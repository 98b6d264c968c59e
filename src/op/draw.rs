//! Seeded draws: a value depends on seed, stream and place alone, not on the number of cores. Each
//! tensor of a problem has a stream of its own.

use rand::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use rand_pcg::Pcg64Mcg;
use rayon::prelude::*;

use super::{Tensor, TensorSpec};

/// Elements drawn from one generator.
const BLOCK: usize = 1 << 14;

fn generator(seed: u64, stream: u64, block: usize) -> Pcg64Mcg {
    let mix = (stream << 40) ^ block as u64;
    Pcg64Mcg::seed_from_u64(
        seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ mix.wrapping_mul(0xd1b5_4a32_d192_ed03),
    )
}

/// Fills `out` with standard normals of that seed and stream.
pub fn fill_normal(out: &mut [f32], seed: u64, stream: u64) {
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(i, chunk)| {
        let mut rng = generator(seed, stream, i);
        chunk.iter_mut().for_each(|x| *x = StandardNormal.sample(&mut rng));
    });
}

/// A tensor of normals times `scale`.
pub fn normal_tensor(spec: &TensorSpec, seed: u64, stream: u64, scale: f32) -> Tensor {
    let mut x = vec![0f32; spec.elements()];
    fill_normal(&mut x, seed, stream);
    if scale != 1.0 {
        x.par_iter_mut().for_each(|x| *x *= scale);
    }
    Tensor::from_f32(spec.dtype, &spec.shape, &x)
}

pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// Uniform in (0,1) from a normal, by a logistic approximation of its distribution.
pub fn uniform(n: f32) -> f32 {
    sigmoid(1.702 * n)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_and_stream() {
        let draw = |seed, stream| {
            let mut x = vec![0f32; 3 * BLOCK / 2];
            fill_normal(&mut x, seed, stream);
            x
        };
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        let x = draw(7, 0);
        let mean = x.iter().sum::<f32>() / x.len() as f32;
        let var = x.iter().map(|x| x * x).sum::<f32>() / x.len() as f32;
        assert!(mean.abs() < 0.03 && (var - 1.0).abs() < 0.05, "{mean} {var}");
    }
}
