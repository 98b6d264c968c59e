//! Records: JSON Lines, one self-contained object a case. docs/records.md describes them.

mod energy;
pub mod file;
mod limit;
mod line;
#[cfg(test)]
pub(crate) mod made_up;
mod model_error;
#[cfg(test)]
mod mutated;
mod processes;
mod program;
mod read;
#[cfg(test)]
mod tests;

use std::fmt;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use crate::device::{Build, Counts, Facts, Health, JobShare, Modelled, Regime, Sample, nan};
use crate::op::{Family, PhaseName, Problem};

pub use energy::Energy;
pub use file::{RecordError, Writer};
pub use limit::{Bound, Limit};
pub use model_error::ModelError;
pub use processes::joined;
pub use program::binary_sha256;
pub use read::{Ignored, Records, read};

/// Version of the schema below.
pub const SCHEMA: u32 = 1;

/// How a case ended. A failure is a record with a status, never a missing row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Ok,
    /// Not run, for the reason given.
    Skipped,
    /// The kernel cannot do this problem.
    Invalid,
    BuildFailed,
    LaunchFailed,
    /// The result is wrong; such a record has no time.
    Wrong,
    Timeout,
}

impl Status {
    /// Whether the same case would end the same way again, so that `--resume` leaves it. A timeout
    /// or a failed launch may come from the state of the machine.
    pub fn is_final(self) -> bool {
        !matches!(self, Status::Timeout | Status::LaunchFailed)
    }
}

/// Hexadecimal digits of a hash.
fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// One case: a kernel variant on a problem with inputs of a family, on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub schema: u32,
    /// Hash of everything that makes the case: sweep, problem, family, seed, kernel, tile, device.
    pub id: String,
    pub sweep: String,
    /// Start, RFC 3339, UTC.
    pub time: String,
    /// The exact command line.
    pub command: String,
    pub version: String,
    /// SHA-256 of the program's file; older records lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary_sha256: Option<String>,
    /// What `--sample-ctas` or the sweep said of it, on the emulator; older records lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sample_ctas: Option<String>,
    /// Which attempt at the case it is, from 2: the ones before had no final status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// Which process measured it, from 0, where `--repeat-process` had several measure each case.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<u32>,
    pub problem: Problem,
    /// The problem's, for whoever sorts records by it.
    pub phase: PhaseName,
    pub family: Family,
    pub seed: u64,
    pub kernel: Kernel,
    pub device: Facts,
    pub status: Status,
    /// Why, for every status but ok.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verification: Option<Verification>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timing: Option<Timing>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traffic: Option<Traffic>,
    /// Where it was asked for and there is a time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    #[serde(deserialize_with = "nan::one")]
    pub flops: f64,
    pub flops_formula: String,
}

/// The kernel variant of a record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Kernel {
    /// `attention/prefill.sm80`
    pub name: String,
    pub tile: IndexMap<String, i64>,
    pub ptx_sha256: String,
    /// SHA-256 of what the manifest makes beside the PTX: buffers, grids, arguments. Older records
    /// lack it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch_sha256: Option<String>,
    /// `.target` of the PTX.
    pub target: String,
}

/// Measured on a device or modelled from counts; nothing mixes the two.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Timing {
    Measured {
        regime: Regime,
        /// Every sample, in the order taken.
        samples: Vec<Sample>,
        #[serde(deserialize_with = "nan::one")]
        median_ns: f64,
        /// Distribution-free 95% confidence interval of the median.
        #[serde(deserialize_with = "nan::pair")]
        ci_ns: (f64, f64),
        /// Why sampling stopped: `precise`, `plateau`, `time`, ...
        stopped: String,
        before: Option<Health>,
        after: Option<Health>,
        /// Advice for the reader: unlocked clocks, throttling, noise.
        warnings: Vec<String>,
    },
    Modelled(Modelled),
}

impl Timing {
    /// Median of the samples, or the modelled time.
    pub fn ns(&self) -> f64 {
        match self {
            Timing::Measured { median_ns, .. } => *median_ns,
            Timing::Modelled(m) => m.ns,
        }
    }

    /// Whether the time was measured; if not, it is modelled.
    pub fn is_measured(&self) -> bool {
        matches!(self, Timing::Measured { .. })
    }
}

/// Bytes through device memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Each input read once, each output written once.
    #[serde(deserialize_with = "nan::one")]
    pub min_bytes: f64,
    /// On the emulator: counts for the whole problem, exact unless CTAs were sampled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
    /// What was executed in place of the whole problem, where that is not the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampled: Option<Sampled>,
}

/// A subset of heads, or of CTAs, executed in place of all.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampled {
    pub executed: Problem,
    /// By how much its counts were multiplied.
    pub times: u64,
    /// Which CTAs of `executed` were executed; all if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ctas: Option<JobShare>,
}

/// How far the outputs are from fp64.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    pub passed: bool,
    pub outputs: Vec<OutputError>,
    /// Heads (and rows) that were held against the reference, where not all were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<String>,
    /// Second run bit for bit equal to the first.
    pub deterministic: Option<bool>,
    /// Damaged canaries and changed inputs.
    pub damage: Vec<String>,
}

/// The error of one output, and what it is held against.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OutputError {
    pub name: String,
    /// E: relative Frobenius error against fp64.
    #[serde(deserialize_with = "nan::one")]
    pub error: f64,
    /// F: the same of the reference rounded to the output's precision.
    #[serde(deserialize_with = "nan::one")]
    pub floor: f64,
    /// The largest E/F that passes.
    #[serde(deserialize_with = "nan::one")]
    pub limit: f64,
    /// Elements that are NaN or infinite where the reference is not.
    pub nonfinite: u64,
    /// E of each block of 64 tokens along T; empty for outputs without T.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "nan::many")]
    pub blocks: Vec<f64>,
    /// Slope of log E over log T along the blocks; how fast the error drifts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slope: Option<f64>,
    /// Worst distance in units of the last place where |ref| > rms/1000.
    #[serde(deserialize_with = "nan::one")]
    pub max_ulp: f64,
    /// For a wrong output: the first bad index, got and wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_bad: Option<String>,
    /// Where CTAs were sampled: how much of this output there is, and how much was held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub share: Option<Share>,
}

/// Shares of all elements of an output, in 0..=1.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Written by the executed CTAs.
    #[serde(deserialize_with = "nan::one")]
    pub computed: f64,
    /// Of those, held against the reference; nothing is known of the rest.
    #[serde(deserialize_with = "nan::one")]
    pub verified: f64,
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |x: f64| match 100.0 * x {
            p if p == 0.0 || p == 100.0 || p >= 9.95 => format!("{p:.0}%"),
            p => format!("{p:.2}%"),
        };
        write!(f, "{} computed, {} verified", percent(self.computed), percent(self.verified))
    }
}

impl OutputError {
    /// E/F.
    pub fn ratio(&self) -> f64 {
        self.error / self.floor
    }
}
