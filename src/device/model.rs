//! A device that is described and not present: its TOML description, and the time that it would take
//! for what the emulator has counted. Modelled times are never called measured.

mod errors;
mod power;
mod schedule;
mod time;

use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{DeviceError, Facts, Peak};

pub use errors::{ANY, ErrorRow, ErrorTable};
pub use power::{Power, Spent};
pub use time::{LaunchCounts, LaunchWork, Timing, model, model_at, model_work, resident, work};

/// The model that `emulator` alone stands for.
pub const DEFAULT_MODEL: &str = "h200";

/// The descriptions that come with the program.
const KNOWN: [(&str, &str); 3] = [
    ("h100", include_str!("../../devices/h100.toml")),
    ("h200", include_str!("../../devices/h200.toml")),
    ("laptop", include_str!("../../devices/laptop.toml")),
];

/// Sub-cores of a multiprocessor: each has its own tensor core and issues one warp at a time.
pub const SUB_CORES: u64 = 4;

/// A described device. The fields' units are in their names; rates without one are per
/// multiprocessor and clock. `devices/h200.toml` explains them with their sources.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeviceModel {
    pub name: String,
    pub title: String,
    /// Starts of the names of GPUs that this describes.
    #[serde(default)]
    pub matches: Vec<String>,
    pub compute_capability: (u32, u32),
    pub multiprocessors: u32,
    /// The clock that times are modelled at, but where power lowers it, and peak rates computed with.
    pub sm_mhz: u32,
    pub max_sm_mhz: u32,
    pub memory_bytes: u64,
    /// What a copy reaches, read plus written.
    pub memory_gbps: f64,
    /// By the data sheet.
    pub memory_peak_gbps: f64,
    pub memory_latency_ns: f64,
    pub l2_bytes: u64,
    /// The part of it that serves data shared by all multiprocessors.
    pub l2_effective_bytes: u64,
    pub l2_gbps: f64,
    /// What one multiprocessor takes from L2 in a clock.
    pub l2_bytes_per_clock: u32,
    pub shared_bytes_per_sm: u32,
    pub shared_bytes_per_cta: u32,
    pub shared_reserved_per_cta: u32,
    pub registers_per_sm: u32,
    pub max_warps_per_sm: u32,
    pub max_ctas_per_sm: u32,
    pub issue_slots: u32,
    pub special_ops: u32,
    pub shared_bytes_per_clock: u32,
    pub launch_ns: f64,
    pub tensor: TensorRates,
    /// What it draws and may draw; no kernel is held back by power where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub power: Option<Power>,
    /// Cycles from the issue of an instruction of a class to that of one that uses its result;
    /// `other` for the rest.
    pub latency_cycles: IndexMap<String, f64>,
    /// Cycles that a warp instruction of a class keeps its pipe of its sub-core; `other` for the
    /// rest. That of matrix products follows from `tensor`, that of special functions from
    /// `special_ops`.
    pub pipe_cycles: IndexMap<String, f64>,
    /// Classes whose instructions are slower while products of warpgroups run: cycles of a port of
    /// the sub-core that all such classes share, and of the class's own pipe.
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub beside_wgmma_cycles: IndexMap<String, [f64; 2]>,
}

/// Tensor-core FLOPs per multiprocessor and clock, by operand type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRates {
    /// `mma.sync`.
    pub mma: IndexMap<String, f64>,
    /// `wgmma`; empty where the device has none.
    #[serde(default)]
    pub wgmma: IndexMap<String, f64>,
}

impl TensorRates {
    /// FLOPs per multiprocessor and clock of an operand type. A type the description lacks runs at
    /// the slowest listed rate, so that it is never free.
    pub fn rate(&self, dtype: &str, asynchronous: bool) -> f64 {
        let rates = if asynchronous && !self.wgmma.is_empty() { &self.wgmma } else { &self.mma };
        let slowest = rates.values().copied().fold(f64::INFINITY, f64::min);
        rates.get(dtype).copied().unwrap_or(slowest)
    }

    /// The faster way's rate for an operand type; 0 if it has none.
    fn best(&self, dtype: &str) -> f64 {
        let rate = |table: &IndexMap<String, f64>| table.get(dtype).copied().unwrap_or(0.0);
        rate(&self.mma).max(rate(&self.wgmma))
    }
}

impl DeviceModel {
    /// The names that [`DeviceModel::named`] knows without a file.
    pub fn known() -> impl Iterator<Item = &'static str> {
        KNOWN.iter().map(|(name, _)| *name)
    }

    /// A description by name (`h100`, `h200`, `laptop`) or by the path of a TOML file.
    ///
    /// # Errors
    /// An unknown name, an unreadable file, or a description with a missing, unknown or
    /// senseless field.
    pub fn named(spec: &str) -> Result<DeviceModel, DeviceError> {
        if let Some((name, text)) = KNOWN.iter().find(|(name, _)| *name == spec) {
            return Self::parse(&format!("devices/{name}.toml"), text);
        }
        if !(spec.ends_with(".toml") || spec.contains(['/', '\\'])) {
            let known = Self::known().collect::<Vec<_>>().join(", ");
            return Err(DeviceError::Unavailable(format!(
                "no device is described as {spec:?}; known: {known}, or the path of a .toml file"
            )));
        }
        let text = crate::disk::read_text(Path::new(spec)).map_err(|e| {
            DeviceError::Unavailable(format!("cannot read the device description {spec}: {e}"))
        })?;
        let mut model = Self::parse(spec, &text)?;
        // What is known of a description does not hold for a changed copy of it.
        if Self::known().any(|name| name == model.name) && Self::named(&model.name)? != model {
            model.name = spec.to_owned();
        }
        Ok(model)
    }

    /// The description that a GPU's name matches.
    pub fn of_gpu(gpu_name: &str) -> Option<DeviceModel> {
        Self::known()
            .filter_map(|name| Self::named(name).ok())
            .find(|model| model.matches.iter().any(|m| gpu_name.starts_with(m.as_str())))
    }

    /// Reads a description; `source` names it in errors.
    ///
    /// # Errors
    /// As [`DeviceModel::named`].
    pub fn parse(source: &str, text: &str) -> Result<DeviceModel, DeviceError> {
        let wrong = |what: String| DeviceError::Unavailable(format!("{source}: {what}"));
        let model: DeviceModel = toml::from_str(text).map_err(|e| wrong(e.to_string()))?;
        model.validate().map_err(wrong)?;
        Ok(model)
    }

    /// Every divisor must be positive, so that no modelled time is infinite or NaN.
    fn validate(&self) -> Result<(), String> {
        let positive = [
            ("multiprocessors", f64::from(self.multiprocessors)),
            ("sm_mhz", f64::from(self.sm_mhz)),
            ("memory_gbps", self.memory_gbps),
            ("memory_peak_gbps", self.memory_peak_gbps),
            ("l2_gbps", self.l2_gbps),
            ("l2_effective_bytes", self.l2_effective_bytes as f64),
            ("l2_bytes_per_clock", f64::from(self.l2_bytes_per_clock)),
            ("shared_bytes_per_sm", f64::from(self.shared_bytes_per_sm)),
            ("shared_bytes_per_cta", f64::from(self.shared_bytes_per_cta)),
            ("registers_per_sm", f64::from(self.registers_per_sm)),
            ("max_warps_per_sm", f64::from(self.max_warps_per_sm)),
            ("max_ctas_per_sm", f64::from(self.max_ctas_per_sm)),
            ("issue_slots", f64::from(self.issue_slots)),
            ("special_ops", f64::from(self.special_ops)),
            ("shared_bytes_per_clock", f64::from(self.shared_bytes_per_clock)),
        ];
        let power = self.power.as_ref().map(Power::fields);
        let (divisors, energies) = power.as_ref().map_or((&[][..], &[][..]), |f| f.split_at(2));
        for &(field, value) in positive.iter().chain(divisors) {
            if !(value.is_finite() && value > 0.0) {
                return Err(format!("{field} = {value} must be greater than 0"));
            }
        }
        let tables = [("tensor.mma", &self.tensor.mma), ("tensor.wgmma", &self.tensor.wgmma)];
        for (table, rates) in tables {
            for (dtype, rate) in rates {
                if !(rate.is_finite() && *rate > 0.0) {
                    return Err(format!("{table}.{dtype} = {rate} must be greater than 0"));
                }
            }
        }
        let waits = self.latency_cycles.iter().chain(&self.pipe_cycles);
        let waits = waits.map(|(class, c)| (class.as_str(), *c));
        let beside = self.beside_wgmma_cycles.iter();
        let beside = beside.flat_map(|(class, c)| c.iter().map(|c| (class.as_str(), *c)));
        let waits = waits.chain(beside);
        let more = [("launch_ns", self.launch_ns), ("memory_latency_ns", self.memory_latency_ns)];
        let energies = energies.iter().copied();
        for (field, value) in waits.chain(more).chain(energies) {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("{field} = {value} must not be negative"));
            }
        }
        if let Some(slope) = self.power.as_ref().map(|p| p.voltage_slope).filter(|s| *s > 1.0) {
            return Err(format!("power.voltage_slope = {slope} must be at most 1"));
        }
        let tables = [("latency_cycles", &self.latency_cycles), ("pipe_cycles", &self.pipe_cycles)];
        for (table, cycles) in tables {
            if !cycles.contains_key("other") {
                return Err(format!("{table}.other is missing; it stands for unlisted classes"));
            }
        }
        Ok(())
    }

    /// Peak rates by the data sheet: dense matrix products at `sm_mhz`, memory at its peak.
    pub fn peak(&self) -> Peak {
        let tflops = |dtype| {
            self.tensor.best(dtype) * f64::from(self.multiprocessors) * f64::from(self.sm_mhz) / 1e6
        };
        Peak {
            bf16_tflops: tflops("bf16"),
            tf32_tflops: tflops("tf32"),
            memory_gbps: self.memory_peak_gbps,
        }
    }

    /// The facts that records of emulated runs carry.
    pub fn facts(&self) -> Facts {
        Facts {
            id: format!("emulator:{}", self.name),
            name: self.title.clone(),
            emulated: true,
            compute_capability: self.compute_capability,
            multiprocessors: self.multiprocessors,
            l2_bytes: self.l2_bytes,
            memory_bytes: self.memory_bytes,
            shared_bytes_per_cta: self.shared_bytes_per_cta,
            peak: self.peak(),
            driver: String::new(),
            more: IndexMap::from([("modelled_sm_mhz".to_owned(), self.sm_mhz.to_string())]),
        }
    }

    /// CTAs of `threads` threads that a multiprocessor holds at once. Registers are allotted by
    /// warp in units of 256. 0 if not even one fits.
    ///
    /// `shared_bytes` is static plus dynamic shared memory of one CTA.
    pub fn ctas_per_sm(&self, threads: u32, registers: u32, shared_bytes: u32) -> u32 {
        if shared_bytes > self.shared_bytes_per_cta || threads == 0 {
            return 0;
        }
        let warps = threads.div_ceil(32);
        let registers_per_cta = (registers * 32).next_multiple_of(256) * warps;
        let by_registers =
            self.registers_per_sm.checked_div(registers_per_cta).unwrap_or(self.max_ctas_per_sm);
        let shared_per_cta = (shared_bytes + self.shared_reserved_per_cta).max(1);
        (self.max_warps_per_sm / warps)
            .min(self.max_ctas_per_sm)
            .min(by_registers)
            .min(self.shared_bytes_per_sm / shared_per_cta)
    }

    /// See [`DeviceModel::latency_cycles`].
    pub fn latency(&self, class: &str) -> f64 {
        of_class(&self.latency_cycles, class)
    }

    /// See [`DeviceModel::beside_wgmma_cycles`].
    pub fn beside_wgmma(&self, class: &str) -> Option<[f64; 2]> {
        self.beside_wgmma_cycles.get(class).copied()
    }

    /// Cycles that a warp instruction keeps its pipe of its sub-core. `tensor` is the type and the
    /// FLOPs of a matrix product, `asynchronous` if warpgroups do it.
    pub fn pipe(&self, class: &str, tensor: Option<(&str, u64)>, asynchronous: bool) -> f64 {
        match tensor {
            Some((dtype, flops)) => {
                flops as f64 * SUB_CORES as f64 / self.tensor.rate(dtype, asynchronous)
            }
            None if class == "special" => 32.0 * SUB_CORES as f64 / f64::from(self.special_ops),
            None => of_class(&self.pipe_cycles, class),
        }
    }
}

fn of_class(table: &IndexMap<String, f64>, class: &str) -> f64 {
    table.get(class).or(table.get("other")).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_description_reads_and_names_itself() {
        for name in DeviceModel::known() {
            assert_eq!(DeviceModel::named(name).unwrap().name, name);
        }
        let peak = DeviceModel::named("h200").unwrap().peak();
        assert!((peak.bf16_tflops - 989.4).abs() < 0.5, "{peak:?}");
        assert!((peak.tf32_tflops - 494.7).abs() < 0.3, "{peak:?}");
        assert_eq!(DeviceModel::of_gpu("NVIDIA H200").unwrap().name, "h200");
        assert!(DeviceModel::of_gpu("NVIDIA H100 PCIe").is_none());
    }

    #[test]
    fn errors_say_what_and_where() {
        let says = |r: Result<DeviceModel, DeviceError>, words: &[&str]| {
            let e = r.unwrap_err().to_string();
            assert!(words.iter().all(|w| e.contains(w)), "{e}");
        };
        says(DeviceModel::named("h300"), &["h300", "h100, h200, laptop", ".toml"]);
        says(DeviceModel::named("no/such.toml"), &["no/such.toml", "cannot read"]);
        let text = include_str!("../../devices/laptop.toml");
        says(DeviceModel::parse("x.toml", &format!("colour = 1\n{text}")), &["x.toml", "colour"]);
        let zero = text.replace("l2_gbps = 1300.0", "l2_gbps = 0.0");
        says(DeviceModel::parse("x.toml", &zero), &["x.toml", "l2_gbps = 0"]);
        let bare = text.replace("other = 4.0", "");
        says(DeviceModel::parse("x.toml", &bare), &["latency_cycles.other"]);
    }

    #[test]
    fn occupancy_follows_the_scarcest_resource() {
        let m = DeviceModel::named("h200").unwrap();
        assert_eq!(m.ctas_per_sm(128, 32, 0), 16); // 64 warps / 4
        assert_eq!(m.ctas_per_sm(128, 168, 0), 3); // 65536 / (168 * 128)
        assert_eq!(m.ctas_per_sm(128, 32, 100 * 1024), 2); // 228 KB / 101 KB
        assert_eq!(m.ctas_per_sm(32, 16, 0), 32);
        assert_eq!(m.ctas_per_sm(128, 32, 232_449), 0);
    }
}
