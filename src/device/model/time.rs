//! From counts to a time.
//!
//! For each launch every limit is a time of its own:
//!
//! | limit | work | rate |
//! |---|---|---|
//! | `memory` | what passes the modelled L2, else distinct sectors | what a copy reaches |
//! | `l2` | sectors requested | L2 |
//! | `l2_port` | the same | what one multiprocessor takes from L2 |
//! | `tensor` | FLOPs by operand type | tensor cores: `wgmma` if the launch has any, else `mma` |
//! | `special` | ex2, rcp, ... | special-function lanes |
//! | `pipe` | warp instructions of the busiest other class | its pipe |
//! | `issue` | warp instructions | issue slots |
//! | `shared` | wavefronts, and shuffles | 128 bytes a clock |
//! | `latency` | the instructions of the CTAs that share a multiprocessor, and what they wait for | simulated where that was asked for; else a warp's alone, each as soon as what it uses is there |
//!
//! Those from `l2_port` to `latency` are taken through the schedule of the grid
//! ([`super::schedule`]): CTAs in their order over multiprocessors that hold as many as registers,
//! shared memory and warps allow, each with its own share of the work. There a CTA takes as long as
//! its warps' latency or its share of the busiest pipe, whichever is longer, so that the launch can
//! take longer than each limit by itself. Launches follow each other, each after `launch_ns`.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::power::Spent;
use super::schedule::Grid;
use super::{DeviceModel, SUB_CORES};
use crate::device::{Counts, EntryBuild, Launch, Modelled};

/// What [`model`] needs to know of one launch that was executed.
#[derive(Debug, Clone)]
pub struct LaunchCounts<'a> {
    pub launch: &'a Launch,
    /// Counts of the CTAs that were executed, `counts.ctas` of them. `counts.l2`, if there, is of
    /// all copies.
    pub counts: &'a Counts,
    /// Registers and static shared memory bound how many CTAs are resident.
    pub build: &'a EntryBuild,
    /// Warp instructions of each CTA (or cluster) in order of launch; all alike if empty.
    pub steps: &'a [u64],
    /// Cycles of all executed warps together, each as if it had the multiprocessor to itself.
    pub warp_cycles: f64,
    /// Cycles in all that warps keep the pipes of their sub-cores, for the busiest class other than
    /// tensor cores and special functions.
    pub pipe_cycles: f64,
    /// What a simulation of one CTA gave, if there was one.
    pub timing: Option<&'a Timing>,
}

/// A CTA in time, by itself and among as many as a multiprocessor holds.
#[derive(Debug, Clone, PartialEq)]
pub struct Timing {
    /// Its warp instructions.
    pub steps: u64,
    /// CTAs that a multiprocessor holds.
    pub resident: u64,
    /// Cycles of one CTA alone, and of `resident` together.
    pub alone: f64,
    pub full: f64,
    /// Where the cycles of `full` went, in words, the longest part first.
    pub parts: Vec<(&'static str, f64)>,
}

impl Timing {
    /// The two longest parts with their shares, such as `matrix products 45%, special functions 20%`.
    pub fn words(&self) -> String {
        let all: f64 = self.parts.iter().map(|p| p.1).sum();
        let share = |(name, cycles): &(&str, f64)| format!("{name} {:.0}%", cycles / all * 100.0);
        self.parts.iter().take(2).map(share).collect::<Vec<_>>().join(", ")
    }

    /// Cycles of `n` CTAs together.
    fn together(&self, n: usize) -> f64 {
        let more = self.resident.saturating_sub(1).max(1) as f64;
        let part = (n.saturating_sub(1) as f64 / more).min(1.0);
        self.alone + (self.full - self.alone) * part
    }
}

/// What a launch is to the model of time: the limits of its time, and what its energy follows from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchWork {
    /// Nanoseconds that each limit alone would take, at the described clock.
    pub limits: IndexMap<String, f64>,
    /// Nanoseconds of the schedule of CTAs, at the described clock.
    pub schedule_ns: f64,
    /// Where the cycles of the longest warp went, in words, where that was simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<String>,
    pub energy: Spent,
}

impl LaunchWork {
    /// Nanoseconds that a limit alone takes where the clock is `slow` times lower than described.
    /// Device memory and L2 have clocks of their own.
    fn limit_ns(&self, limit: &str, slow: f64) -> f64 {
        let ns = self.limits.get(limit).copied().unwrap_or(0.0);
        if OWN_CLOCKS.contains(&limit) { ns } else { ns * slow }
    }

    /// Nanoseconds of the launch, likewise.
    pub(super) fn ns(&self, slow: f64) -> f64 {
        let limits = self.limits.keys().map(|limit| self.limit_ns(limit, slow));
        limits.fold(self.schedule_ns * slow, f64::max)
    }
}

/// Limits that do not follow the clock of the multiprocessors.
const OWN_CLOCKS: [&str; 2] = ["memory", "l2"];

/// The time the described device would take for `launches`, one after the other, were each of
/// them `times` disjoint copies of what was executed (as when one head stands for all).
pub fn model(device: &DeviceModel, launches: &[LaunchCounts<'_>], times: u64) -> Modelled {
    let works: Vec<LaunchWork> = launches.iter().map(|one| work(device, one, times)).collect();
    model_work(device, &works)
}

/// As [`model`], of what [`work`] made of each launch: at the clock that the device holds for it.
pub fn model_work(device: &DeviceModel, launches: &[LaunchWork]) -> Modelled {
    model_at(device, launches, device.held_mhz(launches))
}

/// As [`model_work`], at a clock of the multiprocessors.
pub fn model_at(device: &DeviceModel, launches: &[LaunchWork], sm_mhz: f64) -> Modelled {
    let slow = f64::from(device.sm_mhz) / sm_mhz;
    let mut limits: IndexMap<String, f64> = IndexMap::new();
    let mut bound_ns: IndexMap<&str, f64> = IndexMap::new();
    let mut ns = 0.0;
    // The longest of the launches that are bound by their chain, and where its time goes.
    let mut chain: (f64, Option<&str>) = (0.0, None);
    for one in launches {
        let time = one.ns(slow);
        let mut longest = ("launch", 0.0);
        for limit in one.limits.keys() {
            let alone = one.limit_ns(limit, slow);
            *limits.entry(limit.clone()).or_default() += alone;
            if alone > longest.1 {
                longest = (limit, alone);
            }
        }
        if longest.0 == "latency" && time > chain.0 {
            chain = (time, one.words.as_deref());
        }
        *limits.entry("launch".to_owned()).or_default() += device.launch_ns;
        *bound_ns.entry(longest.0).or_default() += time;
        *bound_ns.entry("launch").or_default() += device.launch_ns;
        ns += time + device.launch_ns;
    }
    let bound = bound_ns
        .iter()
        .max_by(|a, b| a.1.total_cmp(b.1))
        .map_or_else(|| "launch".to_owned(), |(limit, _)| (*limit).to_owned());
    let bound = match chain.1 {
        Some(words) if bound == "latency" => format!("latency: {words}"),
        _ => bound,
    };
    Modelled { model: device.name.clone(), ns, sm_mhz: Some(sm_mhz), limits, bound }
}

/// CTAs of this launch that a multiprocessor holds at once, at least 1.
pub fn resident(device: &DeviceModel, launch: &Launch, build: &EntryBuild) -> u64 {
    let threads = launch.block.iter().product::<u32>();
    let shared = launch.shared_bytes + build.static_shared_bytes;
    u64::from(match build.ctas_per_sm {
        0 => device.ctas_per_sm(threads, build.registers, shared).max(1),
        known => known,
    })
}

/// The limits of a launch of `times` disjoint copies of what was executed, and what it spends.
pub fn work(device: &DeviceModel, one: &LaunchCounts<'_>, times: u64) -> LaunchWork {
    let counts = one.counts;
    let ghz = f64::from(device.sm_mhz) / 1e3;
    let ctas = counts.ctas.max(1) as f64;
    let n = times as f64;

    // Cycles of its multiprocessor that a mean CTA needs of each part.
    let sectors = (counts.global_read_sectors + counts.global_write_sectors) as f64;
    let bytes = sectors * Counts::SECTOR_BYTES as f64;
    let wavefronts = counts.shared_wavefronts + count(counts, "shuffle");
    let wavefront_cycles = 128.0 / f64::from(device.shared_bytes_per_clock);
    let parts = [
        ("l2_port", bytes / f64::from(device.l2_bytes_per_clock)),
        ("tensor", tensor_cycles(device, counts)),
        ("special", counts.special_ops as f64 / f64::from(device.special_ops)),
        ("pipe", one.pipe_cycles / SUB_CORES as f64),
        ("issue", counts.total_instructions() as f64 / f64::from(device.issue_slots)),
        ("shared", wavefronts as f64 * wavefront_cycles),
    ]
    .map(|(name, cycles)| (name, cycles / ctas));
    let busy = parts.iter().fold(0.0, |most: f64, part| most.max(part.1));

    let warps = u64::from(one.launch.block.iter().product::<u32>().div_ceil(32)).max(1);
    // The first loads and the last stores have nothing to hide behind.
    let memory = device.memory_latency_ns * ghz;
    let mean = one.steps.iter().sum::<u64>() as f64 / one.steps.len().max(1) as f64;
    let lone = one.warp_cycles / (warps as f64 * ctas);
    let chain = |n: usize| match one.timing {
        Some(t) if mean > 0.0 => t.together(n) * mean / t.steps as f64 + memory,
        _ => lone + memory,
    };
    let weights: Vec<f64> = match mean > 0.0 {
        true => one.steps.iter().map(|s| *s as f64 / mean).collect(),
        false => Vec::new(),
    };
    // A cluster has its CTAs on as many multiprocessors.
    let size = one.launch.cluster.iter().map(|n| u64::from((*n).max(1))).product::<u64>();
    let grid = Grid {
        weights: &weights,
        ctas: counts.ctas.div_ceil(size),
        times,
        multiprocessors: (u64::from(device.multiprocessors) / size).max(1),
        resident: resident(device, one.launch, one.build),
    };
    // Without latency the schedule is in proportion to the work.
    let even = grid.makespan(|n| n as f64);
    let both = grid.makespan(|n| chain(n).max(busy * n as f64)) / ghz;
    let [port, tensor, special, pipe, issue, shared] =
        parts.map(|(name, cycles)| (name, cycles * even / ghz));
    let dram = match &counts.l2 {
        Some(l2) => (l2.dram_read_bytes + l2.dram_write_bytes + l2.left_dirty_bytes) as f64,
        None => n * counts.unique_bytes() as f64,
    };
    let limits = [
        ("memory", dram / device.memory_gbps),
        ("l2", n * bytes / device.l2_gbps),
        port,
        tensor,
        special,
        pipe,
        issue,
        shared,
        ("latency", grid.makespan(chain) / ghz),
    ];
    let flops = n * tensor_flops(device, counts);
    let (wgmma_flops, mma_flops) = if by_warpgroups(counts) { (flops, 0.0) } else { (0.0, flops) };
    let products = count(counts, "wgmma") + count(counts, "mma");
    let energy = Spent {
        wgmma_flops,
        mma_flops,
        instructions: n * counts.total_instructions().saturating_sub(products) as f64,
        shared_bytes: n * 128.0 * wavefronts as f64,
        l2_bytes: n * bytes,
        dram_bytes: dram,
    };
    LaunchWork {
        limits: limits.map(|(name, ns)| (name.to_owned(), ns)).into_iter().collect(),
        schedule_ns: both,
        words: one.timing.map(Timing::words),
        energy,
    }
}

fn count(counts: &Counts, class: &str) -> u64 {
    counts.instructions.get(class).copied().unwrap_or(0)
}

fn by_warpgroups(counts: &Counts) -> bool {
    count(counts, "wgmma") > 0
}

/// Cycles one multiprocessor's tensor cores would take for all FLOPs.
fn tensor_cycles(device: &DeviceModel, counts: &Counts) -> f64 {
    let wgmma = by_warpgroups(counts);
    let cycles = |(dtype, flops): (&String, &u64)| *flops as f64 / device.tensor.rate(dtype, wgmma);
    counts.tensor_flops.iter().map(cycles).sum()
}

/// FLOPs in units of those of 16-bit types: as many as take the same cycles.
fn tensor_flops(device: &DeviceModel, counts: &Counts) -> f64 {
    match tensor_cycles(device, counts) {
        0.0 => 0.0,
        cycles => cycles * device.tensor.rate("bf16", by_warpgroups(counts)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 10 multiprocessors at 1 GHz with round rates.
    fn toy() -> DeviceModel {
        let text = include_str!("../../../devices/h200.toml");
        let mut m = DeviceModel::parse("toy", text).unwrap();
        m.multiprocessors = 10;
        m.sm_mhz = 1000;
        m.power = None;
        m.memory_gbps = 100.0;
        m.l2_gbps = 200.0;
        m.launch_ns = 1000.0;
        m.memory_latency_ns = 500.0;
        m.tensor.mma.insert("bf16".into(), 1000.0);
        m.tensor.wgmma.insert("bf16".into(), 4000.0);
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

    /// One CTA a multiprocessor, its warps never waiting for themselves.
    fn modelled(counts: &Counts, steps: &[u64], warp_cycles: f64, times: u64) -> Modelled {
        let launch = launch(128);
        let build = EntryBuild { ctas_per_sm: 1, ..EntryBuild::default() };
        let one = LaunchCounts {
            launch: &launch,
            counts,
            build: &build,
            steps,
            warp_cycles,
            pipe_cycles: 0.0,
            timing: None,
        };
        model(&toy(), &[one], times)
    }

    #[test]
    fn memory_and_l2() {
        let mut counts = Counts {
            unique_read_sectors: 1_000_000,
            unique_write_sectors: 250_000,
            global_read_sectors: 9_000_000,
            global_write_sectors: 1_000_000,
            ..alu(10, 0)
        };
        let m = modelled(&counts, &[], 0.0, 1);
        assert_eq!(m.limits["memory"], 400_000.0); // 40 MB at 100 GB/s
        assert_eq!(m.limits["l2"], 1_600_000.0); // 320 MB at 200 GB/s
        assert_eq!(m.limits["l2_port"], 500_000.0); // 32 MB a multiprocessor, 64 bytes a clock
        assert_eq!((m.ns, m.bound.as_str()), (1_601_000.0, "l2"));
        // What passes the modelled L2 is of all copies already.
        let (dram_read_bytes, dram_write_bytes) = (300_000_000, 20_000_000);
        let l2 =
            crate::device::L2Counts { dram_read_bytes, dram_write_bytes, ..Default::default() };
        counts.l2 = Some(l2);
        assert_eq!(modelled(&counts, &[], 0.0, 4).limits["memory"], 3_200_000.0);
    }

    #[test]
    fn multiprocessor_limits() {
        let mut counts = Counts {
            special_ops: 16 * 10 * 7000,
            shared_wavefronts: 10 * 3000,
            tensor_flops: IndexMap::from([("bf16".into(), 1000 * 10 * 20_000)]),
            ..alu(10, 4 * 10 * 5000)
        };
        let m = modelled(&counts, &[], 0.0, 1);
        assert_eq!(m.limits["special"], 7000.0);
        assert_eq!(m.limits["shared"], 3000.0);
        assert_eq!(m.limits["tensor"], 20_000.0);
        assert_eq!(m.limits["issue"], 5000.0);
        assert_eq!((m.ns, m.bound.as_str()), (21_000.0, "tensor"));
        counts.instructions.insert("wgmma".into(), 0);
        assert_eq!(modelled(&counts, &[], 0.0, 1).limits["tensor"], 20_000.0);
        counts.instructions.insert("wgmma".into(), 40);
        assert_eq!(modelled(&counts, &[], 0.0, 1).limits["tensor"], 5000.0);
        counts.instructions.insert("shuffle".into(), 40_000);
        assert_eq!(modelled(&counts, &[], 0.0, 1).limits["shared"], 7000.0);
    }

    #[test]
    fn the_last_wave_counts_whole() {
        // 10 CTAs fill 10 multiprocessors; the eleventh doubles the time.
        assert_eq!(modelled(&alu(10, 40_000), &[], 0.0, 1).limits["issue"], 1000.0);
        assert_eq!(modelled(&alu(11, 44_000), &[], 0.0, 1).limits["issue"], 2000.0);
        // One CTA out of ten with half of all work.
        let mut steps = [2000; 10];
        steps[3] = 18_000;
        assert_eq!(modelled(&alu(10, 36_000), &steps, 0.0, 1).limits["issue"], 4500.0);
    }

    #[test]
    fn few_serial_ctas_are_bound_by_their_latency() {
        // Two CTAs of 4 warps of 25_000 cycles each, and 500 ns of memory latency.
        let m = modelled(&alu(2, 80_000), &[], 200_000.0, 1);
        assert_eq!(m.limits["latency"], 25_500.0);
        assert_eq!(m.limits["issue"], 10_000.0);
        assert_eq!((m.ns, m.bound.as_str()), (26_500.0, "latency"));
    }

    #[test]
    fn residents_hide_each_others_latency() {
        let (launch, counts) = (launch(128), alu(20, 80_000));
        let time = |ctas_per_sm| {
            let build = EntryBuild { ctas_per_sm, ..EntryBuild::default() };
            let one = LaunchCounts {
                launch: &launch,
                counts: &counts,
                build: &build,
                steps: &[],
                warp_cycles: 20.0 * 4.0 * 1500.0,
                pipe_cycles: 0.0,
                timing: None,
            };
            model(&toy(), &[one], 1).ns
        };
        assert_eq!(time(1), 1000.0 + 2.0 * 2000.0);
        assert_eq!(time(2), 1000.0 + 2000.0);
    }

    #[test]
    fn times_multiplies_ctas_and_work() {
        let (once, whole) = (alu(4, 16_000), alu(32, 128_000));
        assert_eq!(modelled(&once, &[], 8000.0, 8), modelled(&whole, &[], 64_000.0, 1));
    }

    #[test]
    fn launches_add_up() {
        let (l, b) = (launch(128), EntryBuild::default());
        let (x, y) = (alu(10, 40_000), alu(10, 4_000_000));
        let one = |counts| LaunchCounts {
            launch: &l,
            counts,
            build: &b,
            steps: &[],
            warp_cycles: 0.0,
            pipe_cycles: 0.0,
            timing: None,
        };
        let both = model(&toy(), &[one(&x), one(&y)], 1);
        let (a, b) = (model(&toy(), &[one(&x)], 1), model(&toy(), &[one(&y)], 1));
        assert_eq!(both.ns, a.ns + b.ns);
        assert_eq!(both.limits["launch"], 2000.0);
        assert_eq!(model(&toy(), &[], 1).ns, 0.0);
    }
}
