//! What is known of a device: facts that a record carries, and its state at a moment.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::nan;

/// Facts that a record carries about its device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// `cuda:0`, `emulator:h200`
    pub id: String,
    /// `NVIDIA H200`, or the described device's name for the emulator.
    pub name: String,
    /// A modelled device is described, not present.
    pub emulated: bool,
    /// Major and minor.
    pub compute_capability: (u32, u32),
    pub multiprocessors: u32,
    pub l2_bytes: u64,
    pub memory_bytes: u64,
    /// The most shared memory that a CTA may have.
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
    #[serde(deserialize_with = "nan::one")]
    pub bf16_tflops: f64,
    #[serde(deserialize_with = "nan::one")]
    pub tf32_tflops: f64,
    /// Device memory, 10^9 bytes a second.
    #[serde(deserialize_with = "nan::one")]
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
