//! Where a variant's modelled time goes, by line of its template.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::device::emulator::{Emulator, Line, Session};
use crate::device::model::{model_at, resident, work};
use crate::device::{Clock, Counts, JobShare, Loaded, Modelled, ShareRule};
use crate::kernel::{Kernel, Tile};
use crate::op::{Family, Problem};
use crate::record::{ModelError, Verification};
use crate::verify;

/// A variant executed on the emulator, with its counts and modelled times.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    pub kernel: String,
    pub tile: Tile,
    pub problem: Problem,
    /// What was executed; `times` disjoint copies of it make up the problem.
    pub executed: Problem,
    pub times: u64,
    /// Which CTAs of `executed` were executed, where not all should be.
    #[serde(rename = "sample")]
    pub share: Option<JobShare>,
    /// `emulator:h200`
    pub device: String,
    pub ptx_sha256: String,
    /// Counts of the whole problem: `times` times what was executed, and what the modelled L2 made
    /// of it if every CTA was executed.
    pub counts: Counts,
    /// The time of all launches of the whole problem.
    pub modelled: Modelled,
    /// How far such times are from measured ones, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_error: Option<ModelError>,
    pub launches: Vec<Part>,
    /// Lines that hold instructions, the kernel's own template first. What a macro makes stands at
    /// the line that calls it.
    pub lines: Vec<Spot>,
    /// The same by line of the rendered PTX.
    pub ptx_lines: Vec<Spot>,
    /// The rendered PTX.
    #[serde(skip)]
    pub ptx: String,
    pub verification: Verification,
}

/// One launch.
#[derive(Debug, Clone, Serialize)]
pub struct Part {
    pub entry: String,
    /// As executed.
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    pub shared_bytes: u32,
    /// As the emulator counts registers: the most alive at once.
    pub registers: u32,
    /// CTAs that a multiprocessor holds at once, the warps that makes, and how many it could hold.
    pub ctas_per_sm: u64,
    pub warps_per_sm: u64,
    pub max_warps_per_sm: u32,
    pub counts: Counts,
    pub modelled: Modelled,
}

/// What the instructions of one line of a template did, of the whole problem.
#[derive(Debug, Clone, Serialize)]
pub struct Spot {
    pub file: String,
    /// From 1; 0 if the line is not known.
    pub number: u32,
    /// Share of the modelled time: each launch's time is shared out by the cycles that its warps
    /// spend on a line.
    pub share: f64,
    #[serde(flatten)]
    pub line: Line,
}

/// Executes one head group of the problem, or all of it if `whole`, in either case the CTAs that
/// `rule` says; verifies it and models the whole. Head groups count alike but for tensors such as
/// \[B,T,HV\], where neighbouring heads share sectors. `cold` empties the modelled L2 before each
/// launch, as profilers of GPUs do.
///
/// # Errors
/// A tile or problem that the kernel does not take, and whatever the emulator finds wrong.
pub fn profile(
    kernel: &Kernel,
    problem: &Problem,
    tile: &Tile,
    (family, seed): (&Family, u64),
    emulator: &Emulator,
    (cold, whole): (bool, bool),
    rule: ShareRule,
) -> Result<Profile, String> {
    let (executed, times) = if whole { (problem.clone(), 1) } else { problem.one_head_group() };
    let times = times as u64;
    let device = emulator.model();
    let job = kernel.job_on(&executed, tile, device.multiprocessors).map_err(|e| e.0)?;
    let inputs = executed.inputs(family, seed);
    let mut session = emulator.session(&job, &inputs).map_err(|e| e.to_string())?;
    session.set_copies(times);
    session.limit_ctas(rule.of(executed.flops())).map_err(|e| e.to_string())?;
    if cold {
        session.set_cold();
    }
    let run = session.run().map_err(|e| e.to_string())?;
    let held = verify::hold_run(&executed, family, &inputs, &run, verify::BUDGET_FLOPS);
    let mut verification = held.verification;
    verify::add_run_facts(&mut verification, run.damage, None);
    let modelled = match session.clock(times) {
        Clock::Modelled(Some(modelled)) => modelled,
        _ => return Err(format!("{}: nothing was counted", kernel.name)),
    };
    let clock = modelled.sm_mhz.unwrap_or(f64::from(device.sm_mhz));
    let parts = parts(&session, emulator, times, clock);
    let first = kernel.template_path();
    let lines = spots(&session, &parts, times, |line| {
        match job.ptx.origin.get((line as usize).wrapping_sub(1)) {
            Some((file, number)) => (**file != first, file, *number),
            None => (false, &first, 0),
        }
    });
    let ptx_lines = spots(&session, &parts, times, |line| (false, PTX, line));
    let mut counts = session.counts().times(times);
    counts.l2 = session.counts().l2;
    Ok(Profile {
        kernel: kernel.name.clone(),
        tile: tile.clone(),
        problem: problem.clone(),
        executed,
        times,
        share: run.share,
        device: format!("emulator:{}", device.name),
        ptx_sha256: job.ptx.sha256.clone(),
        counts,
        model_error: ModelError::of(&kernel.name, problem.phase(), &modelled),
        modelled,
        launches: parts,
        lines,
        ptx_lines,
        ptx: job.ptx.text.clone(),
        verification,
    })
}

/// All launches at the clock that the device holds for them together.
fn parts(session: &Session<'_>, emulator: &Emulator, times: u64, sm_mhz: f64) -> Vec<Part> {
    let device = emulator.model();
    let part = |p: &crate::device::emulator::LaunchProfile| {
        let ctas_per_sm = resident(device, &p.launch, &p.build);
        let warps = u64::from(p.launch.block.iter().product::<u32>().div_ceil(32));
        let mut counts = p.counts.times(times);
        counts.l2 = p.counts.l2;
        Part {
            entry: p.launch.entry.clone(),
            grid: p.launch.grid,
            block: p.launch.block,
            cluster: p.launch.cluster,
            shared_bytes: p.launch.shared_bytes + p.build.static_shared_bytes,
            registers: p.build.registers,
            ctas_per_sm,
            warps_per_sm: ctas_per_sm * warps,
            max_warps_per_sm: device.max_warps_per_sm,
            counts,
            modelled: model_at(device, &[work(device, &p.counted(), times)], sm_mhz),
        }
    };
    session.profiles().iter().map(part).collect()
}

/// What lines of the rendered PTX have for a file.
pub const PTX: &str = "rendered PTX";

/// `place` of a PTX line: whether it comes after others, file, line.
fn spots<'a>(
    session: &Session<'_>,
    parts: &[Part],
    times: u64,
    place: impl Fn(u32) -> (bool, &'a str, u32),
) -> Vec<Spot> {
    let total: f64 = parts.iter().map(|p| p.modelled.ns).sum();
    let mut all: BTreeMap<(bool, &str, u32), (f64, Line)> = BTreeMap::new();
    for (p, part) in session.profiles().iter().zip(parts) {
        let cycles: f64 = p.cycles.values().sum();
        for (at, line) in &p.lines {
            let spot = all.entry(place(*at)).or_default();
            let own = p.cycles.get(at).copied().unwrap_or(0.0);
            if cycles > 0.0 && total > 0.0 {
                spot.0 += own / cycles * part.modelled.ns / total;
            }
            spot.1.add(&line.times(times));
        }
    }
    let spot = |((_, file, number), (share, line)): ((bool, &str, u32), (f64, Line))| Spot {
        file: file.to_string(),
        number,
        share,
        line,
    };
    all.into_iter().map(spot).collect()
}
