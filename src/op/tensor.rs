//! Tensors on the host.

use rayon::prelude::*;

use super::DType;
use super::operator::Role;

/// Elements one core converts at a time.
const CHUNK: usize = 1 << 16;

/// What a kernel does with a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Input,
    Output,
}

/// A tensor of a problem: name, layout, type. Row-major, the last dimension contiguous.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    pub name: &'static str,
    pub flow: Flow,
    /// Whether the problem has it; other problems of the operator do.
    pub there: bool,
    /// Type in memory.
    pub dtype: DType,
    /// Whether it is fp32 whatever the precision of the problem.
    pub wide: bool,
    /// The letters of the dimensions, such as `"B T H K"`.
    pub dims: &'static str,
    pub shape: Vec<usize>,
    /// What each dimension stands for; none of a dimension that is no variable.
    pub roles: Vec<Option<Role>>,
}

impl TensorSpec {
    /// The same, absent unless `there`.
    pub(super) fn only_if(self, there: bool) -> TensorSpec {
        TensorSpec { there, ..self }
    }

    /// The dimension along the output's tokens, if it has one.
    pub fn token_axis(&self) -> Option<usize> {
        self.roles.iter().position(|r| *r == Some(Role::Token))
    }

    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.bytes()
    }
}

/// A tensor's values, little-endian, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub dtype: DType,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    /// `values` rounded to `dtype`'s storage type.
    ///
    /// # Panics
    /// If `values` does not fill `shape`.
    pub fn from_f64(
        dtype: DType,
        shape: &[usize],
        values: impl IntoIterator<Item = f64>,
    ) -> Tensor {
        let dtype = dtype.storage();
        let n: usize = shape.iter().product();
        let mut bytes = Vec::with_capacity(n * dtype.bytes());
        for x in values {
            dtype.push(x, &mut bytes);
        }
        assert_eq!(bytes.len(), n * dtype.bytes(), "values do not fill the shape {shape:?}");
        Tensor { dtype, shape: shape.to_vec(), bytes }
    }

    /// As [`Tensor::from_f64`], from fp32 values, on all cores.
    ///
    /// # Panics
    /// If `values` do not fill `shape`.
    pub fn from_f32(dtype: DType, shape: &[usize], values: &[f32]) -> Tensor {
        let dtype = dtype.storage();
        let n: usize = shape.iter().product();
        assert_eq!(values.len(), n, "values do not fill the shape {shape:?}");
        let (format, size) = (dtype.format(), dtype.bytes());
        let mut bytes = vec![0; n * size];
        let chunks = bytes.par_chunks_mut(CHUNK * size).zip(values.par_chunks(CHUNK));
        chunks.for_each(|(bytes, values)| match size {
            1 => format.fill::<1>(values, bytes),
            2 => format.fill::<2>(values, bytes),
            _ => format.fill::<4>(values, bytes),
        });
        Tensor { dtype, shape: shape.to_vec(), bytes }
    }

    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element `i` in row-major order.
    pub fn get(&self, i: usize) -> f64 {
        self.dtype.get(&self.bytes, i)
    }

    /// All elements, row-major.
    pub fn to_f64(&self) -> Vec<f64> {
        (0..self.len()).map(|i| self.get(i)).collect()
    }
}
