//! A device that is described and not present: its TOML description, and the roofline model that
//! turns counts into the time it would take. Modelled times are never called measured.
//!
//! For each launch every limit is a time of its own, and the launch takes the longest of them:
//!
//! | limit | work | rate |
//! |---|---|---|
//! | `memory` | distinct sectors touched | what a copy reaches |
//! | `l2` | sectors requested | L2 |
//! | `tensor` | FLOPs by operand type | tensor cores: `wgmma` if the launch has any, else `mma` |
//! | `special` | ex2, rcp, ... | special-function lanes |
//! | `issue` | warp instructions | issue slots |
//! | `shared` | wavefronts | 128 bytes a clock |
//! | `latency` | the serial time of one CTA, a wave of resident CTAs at a time | one warp's pace |
//!
//! The limits of a multiprocessor (`tensor` to `shared`) are those of the busiest one: 133 equal
//! CTAs on 132 multiprocessors take as long as 264. Launches follow each other, each after
//! `launch_ns`, and every launch is charged its own distinct sectors, as though nothing stayed in
//! L2 between launches.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Counts, DeviceError, EntryBuild, Facts, Launch, Modelled, Peak};

/// The descriptions that come with the program.
const KNOWN: [(&str, &str); 3] = [
    ("h100", include_str!("../../devices/h100.toml")),
    ("h200", include_str!("../../devices/h200.toml")),
    ("laptop", include_str!("../../devices/laptop.toml")),
];

/// Sub-cores of a multiprocessor: each has its own tensor core and issues one warp at a time.
const SUB_CORES: u64 = 4;

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
    /// The clock that times are modelled at and peak rates computed with.
    pub sm_mhz: u32,
    pub max_sm_mhz: u32,
    pub memory_bytes: u64,
    /// What a copy reaches, read plus written.
    pub memory_gbps: f64,
    /// By the data sheet.
    pub memory_peak_gbps: f64,
    pub memory_latency_ns: f64,
    pub l2_bytes: u64,
    pub l2_gbps: f64,
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
    /// Cycles that an instruction of a class keeps its own warp waiting; `other` for the rest.
    pub exposed_cycles: IndexMap<String, f64>,
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
        let text = std::fs::read_to_string(spec).map_err(|e| {
            DeviceError::Unavailable(format!("cannot read the device description {spec}: {e}"))
        })?;
        Self::parse(spec, &text)
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
            ("shared_bytes_per_sm", f64::from(self.shared_bytes_per_sm)),
            ("shared_bytes_per_cta", f64::from(self.shared_bytes_per_cta)),
            ("registers_per_sm", f64::from(self.registers_per_sm)),
            ("max_warps_per_sm", f64::from(self.max_warps_per_sm)),
            ("max_ctas_per_sm", f64::from(self.max_ctas_per_sm)),
            ("issue_slots", f64::from(self.issue_slots)),
            ("special_ops", f64::from(self.special_ops)),
            ("shared_bytes_per_clock", f64::from(self.shared_bytes_per_clock)),
        ];
        for (field, value) in positive {
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
        let waits = self.exposed_cycles.iter().map(|(class, c)| (class.as_str(), *c));
        let more = [("launch_ns", self.launch_ns), ("memory_latency_ns", self.memory_latency_ns)];
        for (field, value) in waits.chain(more) {
            if !(value.is_finite() && value >= 0.0) {
                return Err(format!("{field} = {value} must not be negative"));
            }
        }
        if !self.exposed_cycles.contains_key("other") {
            return Err("exposed_cycles.other is missing; it stands for unlisted classes".into());
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

    fn exposed(&self, class: &str) -> f64 {
        self.exposed_cycles.get(class).or(self.exposed_cycles.get("other")).copied().unwrap_or(0.0)
    }
}

/// What [`model`] needs to know of one launch that was executed.
#[derive(Debug, Clone)]
pub struct LaunchCounts<'a> {
    pub launch: &'a Launch,
    /// Counts of the CTAs that were executed, `counts.ctas` of them.
    pub counts: &'a Counts,
    /// Registers and static shared memory bound how many CTAs are resident.
    pub build: &'a EntryBuild,
    /// Warp instructions of the CTA that executed most; the mean if unknown.
    pub longest_cta: Option<u64>,
}

/// The time the described device would take for `launches`, one after the other, were each of
/// them `times` disjoint copies of what was executed (as when one head stands for all).
pub fn model(device: &DeviceModel, launches: &[LaunchCounts<'_>], times: u64) -> Modelled {
    let mut limits: IndexMap<String, f64> = IndexMap::new();
    let mut bound_ns: IndexMap<&str, f64> = IndexMap::new();
    let mut ns = 0.0;
    for one in launches {
        let mut longest = ("launch", 0.0);
        for (limit, time) in launch_limits(device, one, times) {
            *limits.entry(limit.to_owned()).or_default() += time;
            if time > longest.1 {
                longest = (limit, time);
            }
        }
        *limits.entry("launch".to_owned()).or_default() += device.launch_ns;
        *bound_ns.entry(longest.0).or_default() += longest.1;
        *bound_ns.entry("launch").or_default() += device.launch_ns;
        ns += longest.1 + device.launch_ns;
    }
    let bound = bound_ns
        .iter()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map_or_else(|| "launch".to_owned(), |(limit, _)| (*limit).to_owned());
    Modelled { model: device.name.clone(), ns, limits, bound }
}

/// Nanoseconds that each limit alone would take.
fn launch_limits(
    device: &DeviceModel,
    one: &LaunchCounts<'_>,
    times: u64,
) -> [(&'static str, f64); 7] {
    let counts = one.counts;
    let sms = u64::from(device.multiprocessors);
    let ghz = f64::from(device.sm_mhz) / 1e3;
    // Executed work times `times`, as an exact integer where it matters and fp64 for rates.
    let n = times as f64;
    let ctas = counts.ctas * times;
    let instructions = counts.total_instructions();

    // The longest CTA against the mean one.
    let skew = match one.longest_cta {
        Some(longest) if instructions > 0 => {
            (longest as f64 * counts.ctas as f64 / instructions as f64).max(1.0)
        }
        _ => 1.0,
    };
    // The busiest multiprocessor has this much of an even share of all work.
    let spread = if ctas == 0 {
        1.0
    } else {
        (ctas.div_ceil(sms) as f64).max(skew) * sms as f64 / ctas as f64
    };
    let on_sm = |cycles: f64| n * cycles / (sms as f64 * ghz) * spread;

    let tensor_cycles: f64 = tensor_cycles(device, counts);
    let sectors = counts.global_read_sectors + counts.global_write_sectors;
    let wavefront_bytes = 128.0 / f64::from(device.shared_bytes_per_clock);
    [
        ("memory", n * counts.unique_bytes() as f64 / device.memory_gbps),
        ("l2", n * (sectors * Counts::SECTOR_BYTES) as f64 / device.l2_gbps),
        ("tensor", on_sm(tensor_cycles)),
        ("special", on_sm(counts.special_ops as f64 / f64::from(device.special_ops))),
        ("issue", on_sm(instructions as f64 / f64::from(device.issue_slots))),
        ("shared", on_sm(counts.shared_wavefronts as f64 * wavefront_bytes)),
        ("latency", latency_ns(device, one, ctas, skew)),
    ]
}

/// Cycles one multiprocessor's tensor cores would take for all FLOPs. A type the description
/// lacks runs at the slowest listed rate, so that it is never free.
fn tensor_cycles(device: &DeviceModel, counts: &Counts) -> f64 {
    let wgmma = counts.instructions.get("wgmma").is_some_and(|n| *n > 0);
    let rates = if wgmma && !device.tensor.wgmma.is_empty() {
        &device.tensor.wgmma
    } else {
        &device.tensor.mma
    };
    let slowest = rates.values().copied().fold(f64::INFINITY, f64::min);
    counts
        .tensor_flops
        .iter()
        .map(|(dtype, flops)| *flops as f64 / rates.get(dtype).copied().unwrap_or(slowest))
        .sum()
}

/// Waves of resident CTAs, each as long as one CTA takes when its warps wait only for
/// themselves. A grid of few, long CTAs is bound by this and not by any throughput.
fn latency_ns(device: &DeviceModel, one: &LaunchCounts<'_>, ctas: u64, skew: f64) -> f64 {
    if ctas == 0 {
        return 0.0;
    }
    let counts = one.counts;
    let threads = one.launch.block.iter().product::<u32>();
    let shared = one.launch.shared_bytes + one.build.static_shared_bytes;
    let resident = match one.build.ctas_per_sm {
        0 => device.ctas_per_sm(threads, one.build.registers, shared).max(1),
        known => known,
    };
    let warps = u64::from(threads.div_ceil(32)).max(1);

    // A warp reaches the tensor core of its own sub-core only.
    let tensor = tensor_cycles(device, counts) * SUB_CORES as f64 / warps.min(SUB_CORES) as f64;
    let waits: f64 =
        counts.instructions.iter().map(|(class, n)| *n as f64 * device.exposed(class)).sum();
    let cta_cycles = (tensor + waits / warps as f64) / counts.ctas as f64;
    let cta_ns = cta_cycles / (f64::from(device.sm_mhz) / 1e3) + device.memory_latency_ns;

    let waves = ctas.div_ceil(u64::from(device.multiprocessors) * u64::from(resident));
    cta_ns * (waves as f64).max(skew)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 multiprocessors at 1 GHz with round rates.
    fn toy() -> DeviceModel {
        let text = include_str!("../../devices/h200.toml");
        let mut m = DeviceModel::parse("toy", text).unwrap();
        m.multiprocessors = 10;
        m.sm_mhz = 1000;
        m.memory_gbps = 100.0;
        m.l2_gbps = 200.0;
        m.launch_ns = 1000.0;
        m.memory_latency_ns = 500.0;
        m.tensor.mma.insert("bf16".into(), 1000.0);
        m.tensor.wgmma.insert("bf16".into(), 4000.0);
        m.exposed_cycles = IndexMap::from([("other".into(), 2.0), ("barrier".into(), 50.0)]);
        m
    }

    fn launch(threads: u32) -> Launch {
        Launch {
            entry: "e".into(),
            grid: [1, 1, 1],
            block: [threads, 1, 1],
            cluster: [1, 1, 1],
            shared_bytes: 0,
            args: vec![],
        }
    }

    fn alu(ctas: u64, instructions: u64) -> Counts {
        Counts {
            ctas,
            instructions: IndexMap::from([("alu".into(), instructions)]),
            ..Counts::default()
        }
    }

    fn modelled(counts: &Counts, threads: u32, longest: Option<u64>, times: u64) -> Modelled {
        let (launch, build) = (launch(threads), EntryBuild::default());
        let one = LaunchCounts { launch: &launch, counts, build: &build, longest_cta: longest };
        model(&toy(), &[one], times)
    }

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
        let bare = text.replace("other = 2.0", "");
        says(DeviceModel::parse("x.toml", &bare), &["exposed_cycles.other"]);
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

    #[test]
    fn memory_and_l2() {
        let counts = Counts {
            unique_read_sectors: 1_000_000,
            unique_write_sectors: 250_000,
            global_read_sectors: 9_000_000,
            global_write_sectors: 1_000_000,
            ..alu(10, 0)
        };
        let m = modelled(&counts, 128, None, 1);
        assert_eq!(m.limits["memory"], 400_000.0); // 40 MB at 100 GB/s
        assert_eq!(m.limits["l2"], 1_600_000.0); // 320 MB at 200 GB/s
        assert_eq!((m.ns, m.bound.as_str()), (1_601_000.0, "l2"));
    }

    #[test]
    fn multiprocessor_limits() {
        let mut counts = Counts {
            special_ops: 16 * 10 * 7000,
            shared_wavefronts: 10 * 3000,
            tensor_flops: IndexMap::from([("bf16".into(), 1000 * 10 * 20_000)]),
            ..alu(10, 4 * 10 * 5000)
        };
        let m = modelled(&counts, 128, None, 1);
        assert_eq!(m.limits["special"], 7000.0);
        assert_eq!(m.limits["shared"], 3000.0);
        assert_eq!(m.limits["tensor"], 20_000.0);
        assert_eq!(m.limits["issue"], 5000.0);
        counts.instructions.insert("wgmma".into(), 0);
        assert_eq!(modelled(&counts, 128, None, 1).limits["tensor"], 20_000.0);
        counts.instructions.insert("wgmma".into(), 40);
        assert_eq!(modelled(&counts, 128, None, 1).limits["tensor"], 5000.0);
    }

    #[test]
    fn the_last_wave_counts_whole() {
        // 10 CTAs fill 10 multiprocessors; the eleventh doubles the time.
        assert_eq!(modelled(&alu(10, 40_000), 128, None, 1).limits["issue"], 1000.0);
        assert_eq!(modelled(&alu(11, 44_000), 128, None, 1).limits["issue"], 2000.0);
        // One CTA out of ten with half of all work.
        assert_eq!(modelled(&alu(10, 40_000), 128, Some(20_000), 1).limits["issue"], 5000.0);
    }

    #[test]
    fn few_serial_ctas_are_bound_by_their_latency() {
        // Two CTAs of 4 warps, 10_000 ALU operations and 100 barriers a warp:
        // 10_000 * 2 + 100 * 50 cycles at 1 GHz, and 500 ns of memory latency.
        let mut counts = alu(2, 80_000);
        counts.instructions.insert("barrier".into(), 800);
        let m = modelled(&counts, 128, None, 1);
        assert_eq!(m.limits["latency"], 25_500.0);
        assert_eq!(m.limits["issue"], 80_800.0 / 2.0 / 4.0);
        assert_eq!((m.ns, m.bound.as_str()), (26_500.0, "latency"));
    }

    #[test]
    fn one_warp_feeds_one_tensor_core() {
        let mut counts = alu(1, 0);
        counts.tensor_flops.insert("bf16".into(), 1_000_000);
        assert_eq!(modelled(&counts, 128, None, 1).limits["latency"], 1500.0);
        assert_eq!(modelled(&counts, 32, None, 1).limits["latency"], 4500.0);
    }

    #[test]
    fn times_multiplies_ctas_and_work() {
        let (once, whole) = (alu(4, 16_000), alu(32, 128_000));
        assert_eq!(modelled(&once, 128, None, 8), modelled(&whole, 128, None, 1));
    }

    #[test]
    fn launches_add_up() {
        let (l, b) = (launch(128), EntryBuild::default());
        let (x, y) = (alu(10, 40_000), alu(10, 4_000_000));
        let one = |counts| LaunchCounts { launch: &l, counts, build: &b, longest_cta: None };
        let both = model(&toy(), &[one(&x), one(&y)], 1);
        let (a, b) = (model(&toy(), &[one(&x)], 1), model(&toy(), &[one(&y)], 1));
        assert_eq!(both.ns, a.ns + b.ns);
        assert_eq!(both.limits["launch"], 2000.0);
        assert_eq!(model(&toy(), &[], 1).ns, 0.0);
    }
}
