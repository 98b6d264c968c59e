//! What a device gives back: builds, results of runs, times.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Computed, Counts, JobShare, nan};
use crate::op::Tensor;

/// What the assembler said of one entry.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct EntryBuild {
    /// Of a thread.
    pub registers: u32,
    /// Of a thread; spills lie there.
    pub local_bytes: u32,
    /// Shared memory of a CTA that the PTX declares.
    pub static_shared_bytes: u32,
    /// CTAs that fit a multiprocessor at the launch's block and shared memory.
    pub ctas_per_sm: u32,
}

/// What came of compiling a job.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// By name.
    pub entries: IndexMap<String, EntryBuild>,
    /// C75xx lines and spill reports of the log; empty for a clean build.
    pub warnings: Vec<String>,
    /// Time to compile and load, on the host's clock.
    #[serde(deserialize_with = "nan::one")]
    pub load_ms: f64,
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
    /// What was executed, where [`Loaded::limit_ctas`](super::Loaded::limit_ctas) asked for a part.
    pub share: Option<JobShare>,
    /// Which elements of each output were written, where CTAs were left out. The rest is poison.
    pub computed: Option<Vec<Computed>>,
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
    /// The time of the run.
    #[serde(deserialize_with = "nan::one")]
    pub ns: f64,
    /// Multiprocessor clock over the sample, where the device can tell.
    pub sm_mhz: Option<f64>,
}
