//! A launch: its CTAs in order over the cores, each worker taking the next.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use indexmap::IndexMap;
use pulp::Arch;
use rayon::prelude::*;

use super::cta::Dims;
use super::hopper::Cluster;
use super::l2::Replay;
use super::memory::Global;
use super::order::Checks;
use super::program::{Class, Op, Program};
use super::shares::Pick;
use super::stream::Stream;
use super::tensor;
use super::timing::Trace;
use super::trap::Fault;
use super::warp::{Faulted, Line};
use super::wgmma::WgOp;
use crate::device::Counts;

/// A fault with its CTA, warp and instruction; [`crate::device::Trap`] adds the names.
pub struct Stop {
    pub fault: Box<Fault>,
    pub pc: usize,
    /// Number of the cluster.
    cluster: u64,
    /// Coordinates of the CTA.
    pub cta: [u32; 3],
    pub warp: Option<u32>,
}

/// What a launch did.
pub struct Done {
    /// By instruction, over all CTAs.
    pub lines: Vec<Line>,
    /// Warp instructions of each cluster, in order. A cluster that was not executed has those of
    /// the one that stands for it.
    pub steps: Vec<u64>,
    /// Instructions and events of a few clusters in order, where a model of time is asked for.
    pub traces: Vec<(u64, Box<Trace>)>,
}

/// How long a CTA may run, and how the order of accesses is checked.
#[derive(Debug, Clone, Copy)]
pub struct Ordering {
    /// Warp instructions of a CTA.
    pub steps: u64,
    pub checks: Checks,
    /// Number of the launch's first CTA, counted over all launches of the session.
    pub number: u64,
    /// On one core, so that the same one of several races is reported each time.
    pub serial: bool,
    /// Write down the events of a few clusters for a model of time.
    pub trace: bool,
    pub arch: Arch,
}

/// What a launch reads and writes.
#[derive(Clone, Copy)]
pub struct Memory<'a> {
    pub global: &'a Global,
    pub params: &'a [u8],
}

/// Executes every CTA, or those of the `picks`, each counted as often as it stands for others.
/// Gives what each instruction did, over all of them.
///
/// # Errors
/// The fault of the first cluster that has one, whatever the number of cores, with its CTA, warp
/// and instruction.
pub fn launch(
    program: &Program,
    dims: Dims,
    memory: Memory<'_>,
    order: Ordering,
    replay: Option<&mut Replay<'_>>,
    picks: Option<&[Pick]>,
) -> Result<Done, Box<Stop>> {
    let Memory { global, params } = memory;
    let clusters: u64 = dims.clusters().iter().map(|&n| u64::from(n)).product();
    let places = picks.map_or(clusters, |p| p.len() as u64);
    let next = AtomicU64::new(0);
    // Places from this one on need not run any more.
    let end = AtomicU64::new(places);
    let stop: Mutex<Option<Box<Stop>>> = Mutex::new(None);
    let arch = order.arch;
    let replay = replay.map(Mutex::new);
    let all_steps: Vec<AtomicU64> = (0..places).map(|_| AtomicU64::new(0)).collect();
    // The longest tend to be the first or the last.
    let traced = [0, places / 2, places - 1];
    let traces: Mutex<Vec<(u64, u64, Box<Trace>)>> = Mutex::new(Vec::new());
    let empty = || vec![Line::default(); program.insts.len()];
    let worker = |_| {
        let mut lines = empty();
        let mut own = if picks.is_some() { empty() } else { Vec::new() };
        let mut cluster: Option<Cluster> = None;
        loop {
            let place = next.fetch_add(1, Relaxed);
            if place >= end.load(Relaxed) {
                return lines;
            }
            let (i, stands) = match picks {
                Some(picks) => (picks[place as usize].index, picks[place as usize].stands),
                None => (place, 1),
            };
            let cluster = cluster.get_or_insert_with(|| Cluster::new(program, dims, order.checks));
            let counts = if stands == 1 { &mut lines[..] } else { &mut own[..] };
            let mut stream = replay.is_some().then(Stream::default);
            let runner = Runner {
                arch,
                global,
                params,
                counts,
                number: order.number,
                stream: stream.as_mut(),
                trace: order.trace && traced.contains(&place),
            };
            let halt = match cluster.run(i, order.steps, program, runner) {
                Ok(steps) => {
                    all_steps[place as usize].store(steps, Relaxed);
                    if let Some(trace) = cluster.take_trace() {
                        lock(&traces).push((place, steps, trace));
                    }
                    if stands > 1 {
                        for (line, own) in lines.iter_mut().zip(&mut own) {
                            line.add(&std::mem::take(own).times(stands));
                        }
                    }
                    if let (Some(replay), Some(stream)) = (&replay, stream) {
                        lock(replay).hand_in(i, stream);
                    }
                    continue;
                }
                Err(e) => e,
            };
            end.fetch_min(place, Relaxed);
            let mut slot = lock(&stop);
            if slot.as_ref().is_none_or(|s| s.cluster > i) {
                let Faulted(fault, pc) = halt.faulted;
                let cta = dims.cta(i, halt.rank);
                *slot = Some(Box::new(Stop { fault, pc, cluster: i, cta, warp: halt.warp }));
            }
        }
    };
    let threads = if order.serial { 1 } else { rayon::current_num_threads() as u64 };
    let workers = threads.min(places);
    let mut lines = (0..workers).into_par_iter().map(worker).reduce(empty, |mut a, b| {
        a.iter_mut().zip(&b).for_each(|(a, b)| a.add(b));
        a
    });
    match stop.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(stop) => Err(stop),
        None => {
            fixed(program, &mut lines);
            let mut traces = traces.into_inner().unwrap_or_else(PoisonError::into_inner);
            traces.sort_by_key(|t| t.0);
            let traces = traces.into_iter().map(|(_, steps, trace)| (steps, trace)).collect();
            let steps = all_steps.into_iter().map(AtomicU64::into_inner);
            let stands = |place: usize| picks.map_or(1, |p| p[place].stands as usize);
            let each = |(place, steps)| std::iter::repeat_n(steps, stands(place));
            Ok(Done { lines, steps: steps.enumerate().flat_map(each).collect(), traces })
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Adds what follows from the number of executions alone.
fn fixed(program: &Program, lines: &mut [Line]) {
    for (inst, line) in program.insts.iter().zip(lines) {
        if let Some((_, flops)) = tensor_work(program, &inst.op) {
            line.flops = line.lanes / 32 * flops;
        }
        if inst.class == Class::Special {
            line.special = line.lanes * inst.values();
        }
    }
}

/// Type of the operands and FLOPs of one warp for an instruction of the tensor cores.
pub fn tensor_work(program: &Program, op: &Op) -> Option<(&'static str, u64)> {
    match op {
        Op::Mma(f, _) => Some(tensor::work(*f)),
        Op::Warpgroup(WgOp::Product(at)) => {
            program.wgmmas.get(*at as usize).map(|w| (w.name, w.flops()))
        }
        _ => None,
    }
}

/// What a cluster's warps need from outside of it.
pub struct Runner<'a> {
    pub arch: Arch,
    pub global: &'a Global,
    pub params: &'a [u8],
    pub counts: &'a mut [Line],
    /// Number of the launch's first CTA, counted over all launches of the session.
    pub number: u64,
    pub stream: Option<&'a mut Stream>,
    /// Whether the cluster's events are to be written down.
    pub trace: bool,
}

/// Sums up what the instructions of a launch did. Unique sectors are the caller's to add.
pub fn counts(program: &Program, lines: &[Line], ctas: u64) -> Counts {
    let mut c = Counts { ctas, ..Counts::default() };
    let mut by_class: IndexMap<&str, u64> = IndexMap::new();
    for (inst, line) in program.insts.iter().zip(lines) {
        if line.executions > 0 && !inst.continued {
            *by_class.entry(inst.class.name()).or_default() += line.executions;
        }
        if let Some((name, _)) = tensor_work(program, &inst.op) {
            *c.tensor_flops.entry(name.into()).or_default() += line.flops;
        }
        c.special_ops += line.special;
        c.bulk_read_bytes += line.bulk_read_bytes;
        c.bulk_write_bytes += line.bulk_write_bytes;
        c.global_read_sectors += line.read_sectors;
        c.global_write_sectors += line.write_sectors;
        c.shared_wavefronts += line.wavefronts;
        c.bank_conflicts += line.conflicts;
    }
    by_class.sort_unstable_keys();
    c.instructions = by_class.into_iter().map(|(k, n)| (k.to_owned(), n)).collect();
    c.tensor_flops.retain(|_, n| *n > 0);
    c
}
