//! The cases of a run, one after the other on a GPU, a few at a time on the emulator.

use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Sender, bounded};

use super::super::{Failure, Result};
use crate::device::{Device, ShareRule};
use crate::kernel::Registry;
use crate::measure::{Bench, Limits, Lost};
use crate::op::Problem;
use crate::record::Record;
use crate::sweep::Case;

/// What all cases of a run share.
pub struct Site<'a> {
    pub registry: &'a Registry,
    pub device: &'a dyn Device,
    /// What the device was opened as.
    pub spec: &'a str,
    /// The name of the sweep, and the command line, for the records.
    pub sweep: &'a str,
    pub command: &'a str,
    /// Which CTAs the emulator executes.
    pub sample: ShareRule,
    /// When sampling of a case ends, on a GPU.
    pub limits: Limits,
}

/// Emulated cases at a time: a short sequence has too few CTAs for all cores. Memory bounds it.
const MOST_AT_A_TIME: usize = 4;
/// What emulated cases may take together.
const MEMORY_BYTES: f64 = 1.5e9;
/// Host memory that an emulated case takes, over the size of its tensors: device and shadow
/// memory, fp64 references, two outcomes.
const FOOTPRINT: f64 = 12.0;

impl Site<'_> {
    fn bench<'b>(&'b self, device: &'b dyn Device) -> Bench<'b> {
        Bench::new(self.registry, device, self.sweep, self.command, self.limits)
            .with_share_rule(self.sample)
    }

    /// How many of `cases` run at a time.
    fn width(&self, cases: &[&Case]) -> usize {
        if !self.device.facts().emulated {
            return 1;
        }
        let bytes = |p: &Problem| FOOTPRINT * p.one_head_group().0.min_bytes();
        let largest = cases.iter().map(|c| bytes(&c.problem)).fold(1.0, f64::max);
        let fitting = (MEMORY_BYTES / largest) as usize;
        rayon::current_num_threads().min(MOST_AT_A_TIME).min(fitting).min(cases.len()).max(1)
    }
}

/// Hands the records of all cases to `keep`, each as it finishes, until `stop` is counted up.
///
/// # Errors
/// The device is lost, or a record could not be kept.
pub fn all(
    site: &Site,
    skipped: &[(&Case, &str)],
    todo: &[&Case],
    stop: &AtomicUsize,
    mut keep: impl FnMut(Record) -> Result,
) -> Result {
    let bench = site.bench(site.device);
    skipped.iter().try_for_each(|(case, why)| keep(bench.skipped(case, why)))?;
    drop(bench);
    let lost = |e: Lost| Failure::Usage(e.0);
    let width = site.width(todo);
    if width == 1 {
        let mut bench = site.bench(site.device);
        for case in todo {
            if stop.load(Ordering::SeqCst) > 0 {
                break;
            }
            keep(bench.measure(case).map_err(lost)?)?;
        }
        return Ok(());
    }
    // Devices are not shared between threads: each worker opens its own.
    let devices = (0..width)
        .map(|_| crate::device::open::open(site.spec).map_err(Failure::from))
        .collect::<Result<Vec<_>>>()?;
    let next = AtomicUsize::new(0);
    let (send, receive) = bounded(width);
    let (registry, sweep, command) = (site.registry, site.sweep, site.command);
    let (limits, sample) = (site.limits, site.sample);
    let worker = |device: Box<dyn Device>, send: Sender<std::result::Result<Record, Lost>>| {
        let mut bench =
            Bench::new(registry, device.as_ref(), sweep, command, limits).with_share_rule(sample);
        while stop.load(Ordering::SeqCst) == 0 {
            let Some(case) = todo.get(next.fetch_add(1, Ordering::SeqCst)) else { break };
            // Nobody receives any more once a record could not be kept.
            if send.send(bench.measure(case)).is_err() {
                break;
            }
        }
    };
    std::thread::scope(|scope| {
        for device in devices {
            let (send, worker) = (send.clone(), &worker);
            scope.spawn(move || worker(device, send));
        }
        drop(send);
        receive.into_iter().try_for_each(|record| keep(record.map_err(lost)?))
    })
}
