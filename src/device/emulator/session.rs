//! A job on the emulator: its programs, its buffers, and what its launches did.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::Emulator;
use super::chain::chain;
use super::cta::Dims;
use super::decode::{decode, module_vars};
use super::hopper::Image;
use super::l2::{Cache, Replay};
use super::launch::{self, Stop};
use super::memory::{Global, Region, RegionKind};
use super::order::{GlobalShadow, MAX_CTA};
use super::program::{ModuleVar, ParamSlot, Program};
use super::ptx::{PtxError, parse};
use super::shares::{self, Pick};
use super::timing::timing;
use super::trap::At;
use super::warp::Line;
use crate::device::fault::Place;
use crate::device::model::{LaunchCounts, LaunchWork, Timing, model_work, resident, work};
use crate::device::tensormap::validate;
use crate::device::{
    Arg, BufferRole, Build, Clock, Computed, Counts, CtaShare, DeviceError, EntryBuild, FaultKind,
    Job, JobShare, Launch, Loaded, Outcome, Site, Trap,
};
use crate::op::Tensor;

/// What a launch did, by PTX line.
#[derive(Debug, Clone, PartialEq)]
pub struct LaunchProfile {
    pub launch: Launch,
    pub counts: Counts,
    pub build: EntryBuild,
    /// Warp instructions of each CTA (or cluster), in order.
    pub steps: Vec<u64>,
    /// Cycles of all executed warps together, each as if it had the multiprocessor to itself.
    pub warp_cycles: f64,
    /// Cycles of the sub-cores' busiest pipe other than tensor cores and special functions, in all.
    pub pipe_cycles: f64,
    /// The simulation of one CTA, where it was asked for.
    pub timing: Option<Timing>,
    /// By line of the PTX from 1; lines that hold no instruction are absent.
    pub lines: BTreeMap<u32, Line>,
    /// What each line takes of `warp_cycles`.
    pub cycles: BTreeMap<u32, f64>,
}

impl LaunchProfile {
    /// What the model of time needs to know of it.
    pub fn counted(&self) -> LaunchCounts<'_> {
        LaunchCounts {
            launch: &self.launch,
            counts: &self.counts,
            build: &self.build,
            steps: &self.steps,
            warp_cycles: self.warp_cycles,
            pipe_cycles: self.pipe_cycles,
            timing: self.timing.as_ref(),
        }
    }
}

/// A launch ready to run.
struct Ready {
    launch: Launch,
    program: Arc<Program>,
    params: Vec<u8>,
    dims: Dims,
}

/// A job loaded on an [`Emulator`].
pub struct Session<'d> {
    emulator: &'d Emulator,
    job: Job,
    inputs: Vec<Tensor>,
    module_vars: Vec<ModuleVar>,
    ready: Vec<Ready>,
    global: Global,
    build: Build,
    profiles: Vec<LaunchProfile>,
    /// Distinct sectors over the launches of the last run.
    unique: (u64, u64),
    fresh: bool,
    /// CTAs launched so far.
    ctas: u64,
    copies: u64,
    step_limit: u64,
    /// L2 is empty at the start of each launch.
    cold: bool,
    /// For each launch, the clusters that are executed if not all are.
    picks: Vec<Option<Vec<Pick>>>,
    share: Option<JobShare>,
}

impl<'d> Session<'d> {
    pub(super) fn new(
        emulator: &'d Emulator,
        job: &Job,
        inputs: &[Tensor],
    ) -> Result<Session<'d>, DeviceError> {
        let start = Instant::now();
        let build_error = |e: PtxError| {
            let origin = job.ptx.origin.get((e.line as usize).wrapping_sub(1));
            let text = job.ptx.text.lines().nth((e.line as usize).wrapping_sub(1)).unwrap_or("");
            DeviceError::Build(format!(
                "{}: {}\n  at {}: {}",
                job.ptx.kernel,
                e.message,
                Place(e.line, origin),
                text.trim()
            ))
        };
        let module = parse(&job.ptx.text).map_err(build_error)?;
        check_target(module.target, emulator.facts.compute_capability)
            .map_err(|m| DeviceError::Build(format!("{}: {m}", job.ptx.kernel)))?;
        let module_vars = module_vars(&module).map_err(build_error)?;
        let mut build = Build::default();
        let mut programs: BTreeMap<&str, Arc<Program>> = BTreeMap::new();
        let mut ready = Vec::new();
        for launch in &job.launches {
            let Some(entry) = module.entries.iter().find(|e| e.name == launch.entry) else {
                let names: Vec<_> = module.entries.iter().map(|e| e.name).collect();
                return Err(DeviceError::Build(format!(
                    "{}: there is no entry `{}`; the PTX has {}",
                    job.ptx.kernel,
                    launch.entry,
                    if names.is_empty() { "none".into() } else { names.join(", ") }
                )));
            };
            let program = match programs.get(entry.name) {
                Some(p) => p.clone(),
                None => {
                    let p = Arc::new(decode(&module, entry).map_err(build_error)?);
                    programs.insert(entry.name, p.clone());
                    p
                }
            };
            let fail = |m: String| {
                DeviceError::Launch(format!("{}: entry `{}`: {m}", job.ptx.kernel, launch.entry))
            };
            let limit = emulator.facts.shared_bytes_per_cta;
            let dims = dims(&program, launch, limit).map_err(fail)?;
            let params = params(&program.params, launch, job).map_err(fail)?;
            // What the assembler allots at entry, where setmaxnreg makes it a fixed number.
            let registers = program.entry_registers.unwrap_or(program.live_registers);
            if program.entry_registers.is_none() && program.sets_registers() {
                build.warnings.push(format!(
                    "entry `{}`: setmaxnreg is ignored (C7508) without .minnctapersm and .maxntid, \
                     or .maxnreg",
                    launch.entry
                ));
            }
            let entry_build = EntryBuild {
                registers,
                local_bytes: program.local_bytes,
                static_shared_bytes: program.static_shared,
                ctas_per_sm: emulator.model.ctas_per_sm(
                    dims.threads(),
                    registers,
                    dims.total_shared,
                ),
            };
            build.entries.insert(launch.entry.clone(), entry_build);
            ready.push(Ready { launch: launch.clone(), program, params, dims });
        }
        let mut global = buffers(job, inputs, &module_vars)?;
        let lenient = !emulator.checks.uninitialised;
        global.regions.iter_mut().chain(&mut global.modules).for_each(|r| r.lenient = lenient);
        if emulator.checks.races {
            global.regions.iter_mut().chain(&mut global.modules).for_each(Region::watch);
        }
        build.load_ms = start.elapsed().as_secs_f64() * 1e3;
        Ok(Session {
            emulator,
            job: job.clone(),
            inputs: inputs.to_vec(),
            module_vars,
            ready,
            global,
            build,
            profiles: Vec::new(),
            unique: (0, 0),
            fresh: true,
            ctas: 0,
            copies: 1,
            step_limit: emulator.step_limit,
            cold: false,
            picks: vec![None; job.launches.len()],
            share: None,
        })
    }

    /// How many disjoint copies of this job the modelled L2 is to see, side by side; 1 at first.
    pub fn set_copies(&mut self, copies: u64) {
        self.copies = copies.max(1);
    }

    /// Empties the modelled L2 before each launch, as profilers do.
    pub fn set_cold(&mut self) {
        self.cold = true;
    }

    /// What the next run executes where a part of the CTAs was asked for.
    pub fn share(&self) -> Option<&JobShare> {
        self.share.as_ref()
    }

    /// Some CTAs are left out.
    fn partial(&self) -> bool {
        self.picks.iter().any(Option::is_some)
    }

    /// What each launch of the last run did. Their unique sectors are those of the launch alone.
    pub fn profiles(&self) -> &[LaunchProfile] {
        &self.profiles
    }

    /// What the time of each launch of the last run is modelled from, were it `times` disjoint copies.
    pub fn works(&self, times: u64) -> Vec<LaunchWork> {
        let of = |p: &LaunchProfile| work(&self.emulator.model, &p.counted(), times);
        self.profiles.iter().map(of).collect()
    }

    /// The counts of the last run, all launches together; a sector that several launches touch
    /// is unique once.
    pub fn counts(&self) -> Counts {
        let mut all = Counts::default();
        for p in &self.profiles {
            all.add(&p.counts);
        }
        (all.unique_read_sectors, all.unique_write_sectors) = self.unique;
        all
    }

    /// The bytes of each zeroed workspace after the last run.
    pub(super) fn zeroed(&self) -> Vec<Vec<u8>> {
        let zeroed = |r: &&Region| r.kind == RegionKind::Zeroed;
        self.global.regions.iter().filter(zeroed).map(Region::to_bytes).collect()
    }

    /// CTAs are numbered over all launches, so that shadows need no clearing until numbers run out.
    fn forget(&mut self) {
        let ctas = |r: &Ready| r.dims.grid.iter().map(|&n| u64::from(n)).product::<u64>();
        let next: u64 = self.ready.iter().map(ctas).sum();
        if self.ctas + next >= MAX_CTA {
            self.ctas = 0;
            let regions = self.global.regions.iter_mut().chain(&mut self.global.modules);
            regions.filter_map(|r| r.order.as_mut()).for_each(GlobalShadow::clear);
        }
    }

    fn reset(&mut self) {
        for (buffer, region) in self.job.buffers.iter().zip(&mut self.global.regions) {
            match buffer.role {
                BufferRole::Input(i) => {
                    if self.fresh || region.dirty.load(Relaxed) {
                        region.fill(&self.inputs[i].bytes);
                    }
                }
                BufferRole::ZeroedWorkspace | BufferRole::Output(_) | BufferRole::Workspace => {
                    region.reset();
                }
            }
        }
        for (var, region) in self.module_vars.iter().zip(&mut self.global.modules) {
            region.fill(&var.bytes);
        }
        self.fresh = false;
    }

    /// Runs all launches; the error is the trap itself.
    ///
    /// # Errors
    /// The fault of the first launch that has one, with its place in PTX and template.
    pub fn try_run(&mut self) -> Result<Outcome, Box<Trap>> {
        match self.run_once(false) {
            // The cores decide which of several races between CTAs is met first: once more, on one
            // core.
            Err(trap)
                if matches!(trap.kind, FaultKind::Race | FaultKind::Proxy)
                    && trap.between_ctas() =>
            {
                self.run_once(true).and(Err(trap))
            }
            done => done,
        }
    }

    fn run_once(&mut self, serial: bool) -> Result<Outcome, Box<Trap>> {
        self.reset();
        let checks = self.emulator.checks;
        self.forget();
        self.profiles.clear();
        let mut touched: Vec<(Vec<u32>, Vec<u32>)> = self
            .global
            .regions
            .iter()
            .chain(&self.global.modules)
            .map(|r| (vec![0; r.sector_words()], vec![0; r.sector_words()]))
            .collect();
        let model = &self.emulator.model;
        // What L2 holds follows from the order of all requests: a part of them tells nothing.
        let mut cache =
            (self.emulator.l2 && !self.partial()).then(|| Cache::new(model.l2_effective_bytes));
        for (r, picks) in self.ready.iter().zip(&self.picks) {
            let ctas: u64 = r.dims.grid.iter().map(|&n| u64::from(n)).product();
            let number = self.ctas + 1;
            self.ctas += ctas;
            self.global.published.clear();
            if self.cold
                && let Some(cache) = &mut cache
            {
                *cache = Cache::new(model.l2_effective_bytes);
            }
            let before = cache.as_ref().map(|c| c.counts);
            let build = self.build.entries.get(&r.launch.entry).cloned().unwrap_or_default();
            let clusters = r.dims.clusters().iter().map(|&n| u64::from(n)).product::<u64>();
            let resident = resident(model, &r.launch, &build);
            let slots = u64::from(model.multiprocessors) * resident;
            let mut replay = cache.as_mut().map(|cache| {
                let size = ctas.div_ceil(clusters);
                Replay::new(cache, slots / size, self.copies, r.program.insts.len())
            });
            let done = launch::launch(
                &r.program,
                r.dims,
                launch::Memory { global: &self.global, params: &r.params },
                launch::Ordering {
                    steps: self.step_limit,
                    checks,
                    number,
                    serial,
                    trace: self.emulator.timing,
                    arch: self.emulator.arch,
                },
                replay.as_mut(),
                picks.as_deref(),
            )
            .map_err(|stop| {
                let mut trap = trap(&self.job, r, &stop);
                if trap.kind == FaultKind::Uninitialised && picks.is_some() {
                    trap.hint = shares::hint(&trap.hint);
                }
                trap
            })?;
            let mut lines = done.lines;
            for (line, misses) in lines.iter_mut().zip(replay.map(Replay::finish).iter().flatten())
            {
                line.l2_miss_sectors = *misses;
            }
            let mut counts = launch::counts(&r.program, &lines, ctas);
            counts.executed_ctas = picks.as_ref().map(|p| p.len() as u64 * (ctas / clusters));
            counts.l2 = cache.as_ref().zip(before).map(|(c, before)| c.since(&before));
            let chain = chain(&r.program, &lines, model);
            // The longest of the traced clusters decides when the launch ends.
            let longest = done.traces.iter().max_by_key(|t| t.0);
            let timing = longest.map(|(steps, trace)| {
                let active = (ctas * self.copies).div_ceil(resident);
                let active = active.min(model.multiprocessors.into());
                let copies = self.copies;
                // When the longest ends, others have ended before.
                let most = done.steps.iter().copied().max().unwrap_or(0).max(1);
                let all = done.steps.iter().sum::<u64>() * copies * clusters;
                let active = active.min(all.div_ceil(most * resident)).max(1);
                let of = (*steps, resident, active, copies);
                timing(&r.program, &lines, model, trace, of)
            });
            let regions = self.global.regions.iter_mut().chain(&mut self.global.modules);
            for (region, (read, written)) in regions.zip(&mut touched) {
                let constant = region.kind == RegionKind::Constant;
                let (mut reads, mut writes) = region.take_sectors(read, written);
                if picks.is_some() {
                    // Which sectors the other CTAs would touch is not known: at most all.
                    reads = shares::all_if_any(reads, read, region.sectors());
                    writes = shares::all_if_any(writes, written, region.sectors());
                }
                if !constant {
                    counts.unique_read_sectors += reads;
                    counts.unique_write_sectors += writes;
                }
            }
            let mut by_line: BTreeMap<u32, Line> = BTreeMap::new();
            let mut cycles: BTreeMap<u32, f64> = BTreeMap::new();
            let spent = lines.iter().zip(&chain.by_instruction);
            for (inst, (line, spent)) in r.program.insts.iter().zip(spent) {
                let at = by_line.entry(inst.line).or_default();
                *cycles.entry(inst.line).or_default() += spent;
                if inst.continued {
                    continue;
                }
                at.add(line);
            }
            self.profiles.push(LaunchProfile {
                launch: r.launch.clone(),
                counts,
                build,
                steps: done.steps,
                warp_cycles: chain.warp_cycles,
                pipe_cycles: chain.pipe_cycles,
                timing,
                lines: by_line,
                cycles,
            });
        }
        let ones = |bits: &[u32]| bits.iter().map(|b| u64::from(b.count_ones())).sum::<u64>();
        let kinds = self.global.regions.iter().chain(&self.global.modules).map(|r| r.kind);
        self.unique = touched
            .iter()
            .zip(kinds)
            .filter(|(_, kind)| *kind != RegionKind::Constant)
            .fold((0, 0), |(r, w), ((read, written), _)| (r + ones(read), w + ones(written)));
        Ok(self.outcome())
    }

    fn outcome(&self) -> Outcome {
        let mut outputs: BTreeMap<usize, Tensor> = BTreeMap::new();
        let mut damage = Vec::new();
        for (buffer, region) in self.job.buffers.iter().zip(&self.global.regions) {
            match buffer.role {
                BufferRole::Output(i) => {
                    let (dtype, shape) = (buffer.dtype, buffer.shape.clone());
                    outputs.insert(i, Tensor { dtype, shape, bytes: region.to_bytes() });
                }
                BufferRole::Input(i) if region.dirty.load(Relaxed) => {
                    let now = region.to_bytes();
                    let changed = now.iter().zip(&self.inputs[i].bytes).position(|(a, b)| a != b);
                    damage.push(match changed {
                        Some(at) => {
                            format!("input `{}` has changed from byte {at} on", buffer.name)
                        }
                        None => {
                            format!("input `{}` was written, with the same values", buffer.name)
                        }
                    });
                }
                _ => {}
            }
        }
        let computed = self.partial().then(|| self.computed());
        Outcome {
            outputs: outputs.into_values().collect(),
            damage,
            counts: Some(self.counts()),
            share: self.share.clone(),
            computed,
        }
    }

    /// What was written of each output.
    fn computed(&self) -> Vec<Computed> {
        let mut all: BTreeMap<usize, Computed> = BTreeMap::new();
        for (buffer, region) in self.job.buffers.iter().zip(&self.global.regions) {
            if let BufferRole::Output(i) = buffer.role {
                all.insert(i, Computed(region.written(buffer.dtype.bytes())));
            }
        }
        all.into_values().collect()
    }
}

impl Loaded for Session<'_> {
    fn build(&self) -> &Build {
        &self.build
    }

    fn limit_ctas(&mut self, share: CtaShare) -> Result<(), DeviceError> {
        let launches: Vec<_> = self.ready.iter().map(|r| (&*r.program, r.dims)).collect();
        let variables = self.module_vars.iter().any(|v| !v.constant);
        (self.picks, self.share) = shares::plan(share, &self.job, &launches, variables)?;
        Ok(())
    }

    fn limit_steps(&mut self, steps: u64) {
        self.step_limit = steps;
    }

    fn run(&mut self) -> Result<Outcome, DeviceError> {
        self.try_run().map_err(DeviceError::Trap)
    }

    fn clock(&mut self, times: u64) -> Clock<'_> {
        let works = self.works(times);
        let ran = !works.is_empty();
        Clock::Modelled(ran.then(|| model_work(&self.emulator.model, &works)))
    }
}

fn trap(job: &Job, r: &Ready, stop: &Stop) -> Box<Trap> {
    let fault = &stop.fault;
    let macros = job.ptx.macros.find();
    let ctas: u64 = r.dims.cluster.iter().map(|&n| u64::from(n)).product();
    let site = |does: &str, cta, warp: Option<u32>, lane: Option<u32>, pc: Option<usize>| {
        let line = pc.and_then(|pc| r.program.insts.get(pc)).map_or(0, |i| i.line);
        let at = (line as usize).wrapping_sub(1);
        Site {
            does: does.into(),
            cta,
            warp,
            thread: warp.zip(lane).map(|(w, lane)| r.dims.thread(32 * w + lane)),
            line,
            source: job.ptx.text.lines().nth(at).unwrap_or("").trim().to_owned(),
            origin: job.ptx.origin.get(at).cloned(),
            within: macros.get(&line).cloned(),
        }
    };
    Box::new(Trap {
        kind: fault.kind,
        kernel: job.ptx.kernel.clone(),
        entry: r.launch.entry.clone(),
        message: At::placed(&fault.message, |pc| {
            let line = r.program.insts.get(pc).map_or(0, |i| i.line);
            let origin = job.ptx.origin.get((line as usize).wrapping_sub(1));
            Place(line, origin).to_string()
        }),
        at: site(&fault.does, stop.cta, stop.warp, fault.lane, Some(stop.pc)),
        other: fault.other.as_ref().map(|p| {
            let cta = r.dims.cta(p.cta / ctas, (p.cta % ctas) as u32);
            site(&p.does, cta, Some(p.warp), p.lane, p.pc)
        }),
        hint: fault.hint().to_owned(),
    })
}

/// `sm_80` runs on 8.0 and above; `sm_90a` on 9.0 alone.
fn check_target(target: &str, (major, minor): (u32, u32)) -> Result<(), String> {
    let digits: String =
        target.trim_start_matches("sm_").chars().take_while(char::is_ascii_digit).collect();
    let Ok(number) = digits.parse::<u32>() else {
        return Err(format!("`.target {target}` is no target such as sm_80"));
    };
    let have = major * 10 + minor;
    let exact = target.ends_with('a');
    if exact && number != have || number > have {
        return Err(format!(
            "the PTX is for {target}, but the device has compute capability {major}.{minor}"
        ));
    }
    Ok(())
}

fn dims(program: &Program, launch: &Launch, shared_limit: u32) -> Result<Dims, String> {
    let product = |d: [u32; 3]| d.iter().try_fold(1u32, |a, &b| a.checked_mul(b));
    let threads = product(launch.block).filter(|n| (1..=1024).contains(n));
    let Some(threads) = threads else {
        return Err(format!("block {:?} must have 1 to 1024 threads", launch.block));
    };
    if let Some(wanted) = program.reqntid
        && wanted != launch.block
    {
        return Err(format!("block {:?}, but `.reqntid` says {wanted:?}", launch.block));
    }
    if let Some(most) = program.maxntid
        && product(most).is_some_and(|n| threads > n)
    {
        return Err(format!("{threads} threads, but `.maxntid` allows {most:?}"));
    }
    if launch.grid.contains(&0) || launch.grid[1] > 65535 || launch.grid[2] > 65535 {
        return Err(format!("grid {:?} is empty or too large", launch.grid));
    }
    let given = if launch.cluster == [0; 3] { [1; 3] } else { launch.cluster };
    let cluster = match program.cluster {
        Some(own) if given != [1; 3] && given != own => {
            return Err(format!("cluster {given:?}, but `.reqnctapercluster` says {own:?}"));
        }
        Some(own) => own,
        None => given,
    };
    if product(cluster).is_none_or(|n| !(1..=16).contains(&n)) {
        return Err(format!("cluster {cluster:?} must have 1 to 16 CTAs"));
    }
    if (0..3).any(|a| !launch.grid[a].is_multiple_of(cluster[a])) {
        return Err(format!("grid {:?} is no multiple of cluster {cluster:?}", launch.grid));
    }
    let total = if launch.shared_bytes == 0 {
        program.static_shared
    } else {
        program.dynamic_start().saturating_add(launch.shared_bytes)
    };
    if total > shared_limit {
        return Err(format!(
            "{total} bytes of shared memory ({} of them dynamic), but a CTA has {shared_limit}",
            launch.shared_bytes
        ));
    }
    Ok(Dims {
        grid: launch.grid,
        block: launch.block,
        cluster,
        dynamic_shared: launch.shared_bytes,
        total_shared: total,
    })
}

/// The parameter block of a launch.
fn params(slots: &[ParamSlot], launch: &Launch, job: &Job) -> Result<Vec<u8>, String> {
    if slots.len() != launch.args.len() {
        return Err(format!(
            "it has {} parameters, but the launch passes {}",
            slots.len(),
            launch.args.len()
        ));
    }
    let end = slots.last().map_or(0, |p| p.offset + p.bytes);
    let mut out = vec![0; end as usize];
    for (p, arg) in slots.iter().zip(&launch.args) {
        let bytes: Vec<u8> = match arg {
            Arg::Buffer(i) if *i < job.buffers.len() => Region::base_of(*i).to_le_bytes().into(),
            Arg::Buffer(i) => {
                return Err(format!("parameter `{}`: there is no buffer {i}", p.name));
            }
            Arg::U32(x) => x.to_le_bytes().into(),
            Arg::U64(x) => x.to_le_bytes().into(),
            Arg::F32(x) => x.to_le_bytes().into(),
            Arg::TensorMap(map) => {
                let Some(buffer) = job.buffers.get(map.buffer) else {
                    return Err(format!(
                        "parameter `{}`: there is no buffer {}",
                        p.name, map.buffer
                    ));
                };
                validate(map, buffer.bytes() as u64)
                    .map_err(|why| format!("tensor map over {}: {why}", buffer.name))?;
                if !p.offset.is_multiple_of(64) || !p.array {
                    return Err(format!(
                        "parameter `{}` (PTX line {}) is passed a tensor map: declare it as \
                         .align 64 .b8 {}[128]",
                        p.name, p.line, p.name
                    ));
                }
                Image::new(map, Region::base_of(map.buffer)).0.into()
            }
        };
        let array = matches!(arg, Arg::TensorMap(_));
        if bytes.len() != p.bytes as usize || p.array != array {
            return Err(format!(
                "parameter `{}` (PTX line {}) takes {} bytes, but the launch passes {}",
                p.name,
                p.line,
                p.bytes,
                bytes.len()
            ));
        }
        out[p.offset as usize..][..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(out)
}

fn buffers(job: &Job, inputs: &[Tensor], vars: &[ModuleVar]) -> Result<Global, DeviceError> {
    let mut global = Global::default();
    for (i, b) in job.buffers.iter().enumerate() {
        let kind = match b.role {
            BufferRole::Input(_) => RegionKind::Input,
            BufferRole::Output(_) => RegionKind::Output,
            BufferRole::Workspace => RegionKind::Workspace,
            BufferRole::ZeroedWorkspace => RegionKind::Zeroed,
        };
        if let BufferRole::Input(k) = b.role
            && inputs.get(k).map(|t| t.bytes.len()) != Some(b.bytes())
        {
            return Err(DeviceError::Launch(format!(
                "{}: buffer `{}` takes {} bytes, but input {k} has {}",
                job.ptx.kernel,
                b.name,
                b.bytes(),
                inputs.get(k).map_or("no value".into(), |t| t.bytes.len().to_string())
            )));
        }
        global.regions.push(Region::new(&b.name, kind, Region::base_of(i), b.bytes() as u64));
    }
    for v in vars {
        let kind = if v.constant { RegionKind::Constant } else { RegionKind::Module };
        global.modules.push(Region::new(&v.name, kind, v.base, v.bytes.len() as u64));
    }
    Ok(global)
}
