//! What a device is given to run: PTX, buffers, parameters, launches.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::op::DType;

/// Rendered PTX and where each of its lines came from.
#[derive(Debug, Clone)]
pub struct Ptx {
    /// The kernel's name, such as `attention/prefill.sm80`.
    pub kernel: String,
    pub text: String,
    /// For line `i` (from 0) of `text`: template file and line (from 1). Empty if unknown.
    pub origin: Vec<(Arc<str>, u32)>,
    /// SHA-256 of `text`, hex. Names the variant.
    pub sha256: String,
    /// Where lines that macros brought stand in the macros; `origin` has their outermost call.
    pub macros: Macros,
}

/// By line of the PTX from 1: `lib/mma.ptx:31 in mma.step(), called at attention/prefill.sm90a.ptx:104`.
type Within = BTreeMap<u32, String>;

/// Where lines that macros brought stand. It takes a while to find out, so it waits until someone
/// asks.
#[derive(Clone, Default)]
pub struct Macros(Option<Arc<dyn Fn() -> Within + Send + Sync>>);

impl Macros {
    /// Places that `find` finds out each time it is asked.
    pub fn new(find: impl Fn() -> Within + Send + Sync + 'static) -> Macros {
        Macros(Some(Arc::new(find)))
    }

    /// Finds them out; nothing where the PTX comes from no template.
    pub fn find(&self) -> Within {
        self.0.as_ref().map(|find| find()).unwrap_or_default()
    }
}

impl fmt::Debug for Macros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Macros")
    }
}

/// What a buffer of a launch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BufferRole {
    /// Index into the inputs, in the order of the problem's tensors.
    Input(usize),
    /// Index into the outputs, likewise.
    Output(usize),
    /// Scratch; its contents before a run are undefined.
    Workspace,
    /// Scratch that each run finds zeroed.
    ZeroedWorkspace,
}

/// Memory of a job, row-major.
#[derive(Debug, Clone)]
pub struct Buffer {
    pub name: String,
    pub role: BufferRole,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Buffer {
    /// Bytes of all elements.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bytes()
    }
}

/// One kernel parameter.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Arg {
    /// `.u64`: the global address of a buffer of [`Job::buffers`].
    Buffer(usize),
    U32(u32),
    U64(u64),
    F32(f32),
    /// `.align 64 .b8[128]`: a tensor map, described here and encoded by the device.
    TensorMap(TensorMap),
}

/// What cuTensorMapEncodeTiled is told.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorMap {
    /// Index into [`Job::buffers`].
    pub buffer: usize,
    pub dtype: DType,
    /// Elements along each dimension, innermost first.
    pub dims: Vec<u64>,
    /// Bytes from one index to the next, of dimensions 1..; the innermost is contiguous.
    pub strides_bytes: Vec<u64>,
    /// Elements of the box along each dimension, innermost first.
    pub tile: Vec<u32>,
    pub swizzle: Swizzle,
    /// Read NaN instead of zero out of bounds.
    pub nan_fill: bool,
}

/// The pattern in which a tensor map lays its box into shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum Swizzle {
    #[default]
    #[serde(rename = "none")]
    None,
    #[serde(rename = "32B")]
    B32,
    #[serde(rename = "64B")]
    B64,
    #[serde(rename = "128B")]
    B128,
}

/// One kernel launch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Launch {
    /// The name of the `.entry`.
    pub entry: String,
    /// CTAs along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a CTA along x, y, z.
    pub block: [u32; 3],
    /// CTAs of a cluster along x, y, z.
    pub cluster: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: u32,
    /// In the order of the `.param` list.
    pub args: Vec<Arg>,
}

/// All a device needs to run one kernel variant on one problem: the launches in order over
/// common buffers.
#[derive(Debug, Clone)]
pub struct Job {
    pub ptx: Ptx,
    pub buffers: Vec<Buffer>,
    /// In order; each begins when the one before has ended.
    pub launches: Vec<Launch>,
}
