//! Where kernels run: one [`Device`] trait, a CUDA GPU or the emulator behind it.

pub mod counts;
pub mod cuda;
pub mod emulator;
pub mod model;
pub mod open;
pub mod sample;
mod tensormap;

use std::collections::BTreeMap;
use std::sync::Arc;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

pub use counts::{Counts, L2Counts, Modelled};
pub use sample::{Computed, CtaSample, SampleCtas, Sampling};

use crate::op::{DType, Tensor};

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
    /// Of lines that macros brought, where they stand in these; `origin` is the outermost call.
    pub macros: Macros,
}

/// By line of the PTX from 1: `lib/mma.ptx:31 in mma.step(), called at attention/prefill.sm90a.ptx:104`.
type Within = BTreeMap<u32, String>;

/// Where lines stand that macros brought, found out when somebody asks: it takes its time.
#[derive(Clone, Default)]
pub struct Macros(Option<Arc<dyn Fn() -> Within + Send + Sync>>);

impl Macros {
    pub fn new(find: impl Fn() -> Within + Send + Sync + 'static) -> Macros {
        Macros(Some(Arc::new(find)))
    }

    pub fn find(&self) -> Within {
        self.0.as_ref().map(|find| find()).unwrap_or_default()
    }
}

impl std::fmt::Debug for Macros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
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

#[derive(Debug, Clone)]
pub struct Buffer {
    pub name: String,
    pub role: BufferRole,
    pub dtype: DType,
    pub shape: Vec<usize>,
}

impl Buffer {
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
    pub entry: String,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    /// Dynamic shared memory.
    pub shared_bytes: u32,
    pub args: Vec<Arg>,
}

/// All a device needs to run one kernel variant on one problem: the launches in order over
/// common buffers.
#[derive(Debug, Clone)]
pub struct Job {
    pub ptx: Ptx,
    pub buffers: Vec<Buffer>,
    pub launches: Vec<Launch>,
}

/// What the assembler said of one entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EntryBuild {
    pub registers: u32,
    pub local_bytes: u32,
    pub static_shared_bytes: u32,
    /// CTAs that fit a multiprocessor at the launch's block and shared memory.
    pub ctas_per_sm: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Build {
    pub entries: IndexMap<String, EntryBuild>,
    /// C75xx lines and spill reports of the log; empty for a clean build.
    pub warnings: Vec<String>,
    /// Time to compile and load, on the host's clock.
    pub load_ms: f64,
}

/// Facts that a record carries about its device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `cuda:0`, `emulator:h200`
    pub id: String,
    /// `NVIDIA H200`, or the described device's name for the emulator.
    pub name: String,
    /// A modelled device is described, not present.
    pub emulated: bool,
    pub compute_capability: (u32, u32),
    pub multiprocessors: u32,
    pub l2_bytes: u64,
    pub memory_bytes: u64,
    pub shared_bytes_per_cta: u32,
    /// Rates that limits are computed from, by data sheet or description.
    pub peak: Peak,
    /// Empty on the emulator.
    pub driver: String,
    /// Uuid, PCI id, MIG state, power limit and whatever else the driver says.
    pub more: IndexMap<String, String>,
}

/// Peak rates of a device.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Peak {
    /// Dense matrix TFLOP/s with fp32 accumulation.
    pub bf16_tflops: f64,
    pub tf32_tflops: f64,
    /// Device memory, 10^9 bytes a second.
    pub memory_gbps: f64,
}

/// What NVML says at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Health {
    pub sm_mhz: Option<u32>,
    pub max_sm_mhz: Option<u32>,
    pub memory_mhz: Option<u32>,
    pub power_w: Option<f64>,
    pub temperature_c: Option<u32>,
    /// Reasons for a lowered clock, by NVML's names; empty if none.
    pub throttle: Vec<String>,
}

/// Whether L2 is flushed before each sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Regime {
    #[default]
    Cold,
    Hot,
}

/// One timed run of all launches of a job.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub ns: f64,
    /// Multiprocessor clock over the sample, where the device can tell.
    pub sm_mhz: Option<f64>,
}

/// What one run left behind.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// In the order of the problem's output tensors. Poisoned with NaN before the run.
    pub outputs: Vec<Tensor>,
    /// Damaged canaries and changed inputs, each a sentence naming the buffer and the place.
    pub damage: Vec<String>,
    /// Counted by the emulator, absent on a GPU.
    pub counts: Option<Counts>,
    /// Where [`Loaded::sample_ctas`] asked for a part of the CTAs: what was executed.
    pub sample: Option<CtaSample>,
    /// Where CTAs were left out: which elements of each output were written. The rest is poison.
    pub computed: Option<Vec<Computed>>,
}

/// Why a device could not do as asked. The message says what, where and the way out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeviceError {
    /// No such device, or no driver.
    #[error("{0}")]
    Unavailable(String),
    /// The PTX does not assemble, or needs what the device lacks.
    #[error("{0}")]
    Build(String),
    /// A launch that the device refuses, or a fault or trap while it runs.
    #[error("{0}")]
    Launch(String),
    #[error("{0}")]
    Timeout(String),
    /// A fault that the emulator found while it ran, with its place.
    #[error("{0}")]
    Trap(Box<emulator::Trap>),
}

/// A place where jobs run.
pub trait Device: Send {
    fn facts(&self) -> &Facts;

    /// Clocks, power, temperature, throttle reasons; `None` where nothing tells.
    fn health(&self) -> Option<Health>;

    /// Compiles the job's PTX, allocates its buffers between canaries and uploads the inputs.
    fn load<'d>(
        &'d self,
        job: &Job,
        inputs: &[Tensor],
    ) -> Result<Box<dyn Loaded + 'd>, DeviceError>;
}

/// A compiled job with its buffers on a device.
pub trait Loaded {
    fn build(&self) -> &Build;

    /// How many CTAs of each launch the next runs execute; all at first. Launches that cannot do
    /// with a part are executed whole. A device that is present executes everything, whatever is
    /// asked.
    ///
    /// # Errors
    /// [`Sampling::Most`] of a job that has more CTAs, but no launch that can do with a part.
    fn sample_ctas(&mut self, sampling: Sampling) -> Result<(), DeviceError> {
        let _ = sampling;
        Ok(())
    }

    /// How many warp instructions a CTA of the next runs may execute before it is taken to hang. A
    /// device that is present has a time limit of its own.
    fn limit_steps(&mut self, steps: u64) {
        let _ = steps;
    }

    /// Poisons outputs and workspaces, runs every launch once, checks canaries and inputs.
    fn run(&mut self) -> Result<Outcome, DeviceError>;

    /// Where times come from. Measured and modelled never mix. A modelled time is that of `times`
    /// disjoint copies of what [`Loaded::run`] executed, as when one head stands for many; a
    /// measured one is that of the job itself, and `times` is 1.
    fn clock(&mut self, times: u64) -> Clock<'_>;
}

pub enum Clock<'a> {
    /// A GPU's event clock.
    Measured(&'a mut dyn Sampler),
    /// The roofline model over the counts of the last [`Loaded::run`]; `None` before it.
    Modelled(Option<Modelled>),
}

/// Times runs one by one; `crate::measure` decides how many.
pub trait Sampler {
    fn sample(&mut self, regime: Regime) -> Result<Sample, DeviceError>;
}
