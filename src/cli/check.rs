//! `crossover check`: kernel regression tests.

mod estimate;
mod summary;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use self::estimate::Estimate;
use self::summary::{Repeat, Summary};
use super::{Failure, Result, console};
use crate::child;
use crate::device::Facts;
use crate::device::emulator::Checks;
use crate::device::open::{open, open_with};
use crate::kernel::{Kernel, Registry, Tile};
use crate::op::Family;
use crate::verify::suite;
use crate::verify::trial::{Ending, Subject};
use crate::verify::workers::{self, Crew, Event, Open};

/// Run the regression tests of kernels: every legal tile, edge lengths, pathological inputs, each
/// run twice between canaries and held against fp64.
///
/// Without --problem the suite of each kernel runs; with it that one problem, for every legal
/// tile unless --tile names one. Exit code 1 if a case fails or none could run.
#[derive(clap::Args)]
pub struct Args {
    /// Kernels, such as attention/* or *.sm80; attention/prefill is those of every target.
    #[arg(default_value = "*")]
    glob: String,
    /// auto, cuda:N or emulator[:MODEL].
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Compare every output with this second device: at least 99% of elements within one unit in
    /// the last place.
    #[arg(long, value_name = "DEVICE")]
    against: Option<String>,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only cases whose line in --list has all these words: --filter "dtype=bf16 T=1000".
    #[arg(long, value_name = "WORDS")]
    filter: Option<String>,
    /// Print the cases and run nothing.
    #[arg(long)]
    list: bool,
    /// Check one problem, given over a small default one: Tq=100,Tkv=100,causal=true.
    #[arg(long, value_name = "VAR=VALUE,..")]
    problem: Option<String>,
    /// Check one tile.
    #[arg(long, value_name = "AXIS=N,..")]
    tile: Option<Tile>,
    /// Input family of --problem: random, gate=slow keys=identical, logits=huge, ...
    #[arg(long, requires = "problem")]
    family: Option<Family>,
    /// Make grids that fill the device for N multiprocessors, if it has more. The suite has its own
    /// for each case (sms=N in --list).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    sms: Option<u32>,
    /// On the emulator, warp instructions after which a CTA is taken to hang; by default 5 million,
    /// and one for each 16 FLOPs of the problem.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    steps: Option<u64>,
    /// Leave out checks of the emulator: races, lanes, proxies, in_flight, products,
    /// uninitialised, transactions, phases, setmaxnreg, exits, or all of these.
    #[arg(long, value_name = "CHECK,..", value_delimiter = ',')]
    without: Vec<String>,
    /// One JSON object a case on stdout, and one a group of failures at the end; the summary goes to
    /// stderr.
    #[arg(long)]
    json: bool,
    /// Stop at the first case that fails.
    #[arg(long)]
    fail_fast: bool,
    /// Cases at a time; one a core unless given, on a GPU 16 at most.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    jobs: Option<u16>,
    /// Give each of them a process of its own, as is done on a GPU in any case: one that crashes costs
    /// its case alone.
    #[arg(long)]
    processes: bool,
    /// Take failures that a kernel's manifest says there are (`loses`) for what they are: exit code 1
    /// for others alone
    #[arg(long)]
    allow_known: bool,
    /// Run cases that come in on stdin, as such a process does.
    #[arg(long, hide = true)]
    worker: bool,
}

/// Cases at a time on a GPU: more wait for each other. Each takes a context, of this many bytes with
/// what a case needs.
const MOST_ON_GPU: usize = 16;
const BYTES_ON_GPU: u64 = 2 << 30;

/// `kernels` is the folder that the registry was read from, if not the embedded one.
///
/// # Errors
/// A pattern, problem, tile, check or device that means nothing, or no case left; a case that
/// failed, or none that could run; Ctrl-C.
pub fn run(args: Args, registry: &Registry, kernels: Option<&Path>) -> Result {
    let checks = args.without.iter().try_fold(Checks::ALL, |all, name| all.without(name));
    let checks = checks.map_err(Failure::Usage)?;
    let against = args.against.as_deref();
    let open_other = || open(against.unwrap_or_default());
    let other: Option<Open> = against.map(|_| &open_other as Open);
    if args.worker {
        return serve(registry, &|| open_with(&args.device, checks), other);
    }
    let work = work(&args, &registry.matching(&args.glob)?)?;
    if args.list {
        let lines: String = work.iter().map(|(_, case)| case.label() + "\n").collect();
        console::put(&lines);
        return Ok(());
    }

    let facts = open(&args.device)?.facts().clone();
    let count = args.jobs.map_or_else(|| at_a_time(&facts), usize::from).min(work.len());
    // `auto` is resolved once, so that every worker and the repeat command have the same device.
    let device = if args.device == "auto" { facts.id.clone() } else { args.device.clone() };
    let open_device = || open_with(&device, checks);
    let program = std::env::current_exe()
        .map_err(|e| Failure::Usage(format!("the program does not know its own path: {e}")))?;
    let start = || {
        let mut command = Command::new(&program);
        command.args(kernels.map(|dir| [Path::new("--kernels"), dir]).into_iter().flatten());
        command.args(["check", "--worker", "--device", &device]);
        command.args(against.map(|other| ["--against", other]).into_iter().flatten());
        if !args.without.is_empty() {
            command.args(["--without", &args.without.join(",")]);
        }
        // All of them together have the cores.
        command.env("RAYON_NUM_THREADS", (2 * cores() / count.max(1)).max(1).to_string());
        command
    };
    let crew = if args.processes || !facts.emulated && count > 1 {
        Crew::Processes { count, start: &start }
    } else {
        Crew::Threads { count, device: &open_device, against: other }
    };

    let repeat = Repeat { device: device.clone(), kernels: kernels.map(Path::to_path_buf) };
    let estimate = Estimate::new(&work, &facts, count);
    let mut summary = Summary::new(&work, repeat, args.json, estimate);
    static STOP: AtomicBool = AtomicBool::new(false);
    // A handler that cannot be set leaves Ctrl-C as it is: no summary.
    let _ = ctrlc::set_handler(|| STOP.store(true, Ordering::SeqCst));
    let ended = workers::run(&work, crew, |event| {
        if STOP.load(Ordering::SeqCst) {
            // Cases that run may take minutes, and nothing waits for them.
            summary.stopped();
        }
        match event {
            Event::Ended(i, trial) => {
                let allowed = args.allow_known && trial.known.is_some();
                let failed = trial.ending == Ending::Failed && !allowed;
                summary.done(i, &trial);
                if failed && args.fail_fast {
                    return ControlFlow::Break(());
                }
            }
            Event::Tick => summary.tick(),
        }
        ControlFlow::Continue(())
    });
    if let Err(e) = ended {
        summary.end();
        return Err(e.into());
    }
    summary.finish(args.allow_known)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

/// Cases at a time unless told.
fn at_a_time(facts: &Facts) -> usize {
    if facts.emulated {
        return cores();
    }
    let room = (facts.memory_bytes / BYTES_ON_GPU).max(1) as usize;
    cores().min(MOST_ON_GPU).min(room)
}

/// Runs what comes in on stdin. Ctrl-C is for the process that sends it; when that is gone or done, so
/// is this one, whatever it runs.
fn serve(registry: &Registry, device: Open, against: Option<Open>) -> Result {
    let _ = ctrlc::set_handler(|| {});
    workers::serve(registry, device, against, child::lines(), std::io::stdout().lock())
        .map_err(|e| Failure::Usage(format!("a case or its answer did not come through: {e}")))
}

/// The cases: each kernel's suite, or one problem.
fn work<'k>(args: &Args, kernels: &[&'k Kernel]) -> Result<Vec<(&'k Kernel, Subject)>> {
    let mut work = Vec::new();
    let mut refused = Vec::new();
    for &kernel in kernels {
        let cases = match &args.problem {
            None => suite::cases(kernel, args.seed)?,
            Some(settings) => match given(args, kernel, settings) {
                Ok(cases) => cases,
                // One of many kernels may not do the problem; a kernel asked for by name must.
                Err(e) if kernels.len() > 1 => {
                    refused.push(e);
                    continue;
                }
                Err(e) => return Err(Failure::Usage(e)),
            },
        };
        let only = |s: &Subject| args.tile.as_ref().is_none_or(|t| same_tile(t, &s.case.tile));
        let given = |s: Subject| Subject {
            multiprocessors: args.sms.or(s.multiprocessors),
            most_steps: args.steps,
            ..s
        };
        work.extend(cases.into_iter().filter(only).map(|s| (kernel, given(s))));
    }
    if let Some(filter) = &args.filter {
        let wanted: Vec<&str> = filter.split([' ', ',']).filter(|w| !w.is_empty()).collect();
        work.retain(|(_, case)| {
            let label = case.label();
            let words: BTreeSet<&str> = label.split(' ').collect();
            wanted.iter().all(|w| words.contains(w))
        });
    }
    if work.is_empty() {
        let mut text = format!("no case of `{}` is left", args.glob);
        if let Some(filter) = &args.filter {
            text += &format!(" by --filter \"{filter}\"; see --list for the words of each case");
        }
        if let Some(tile) = &args.tile {
            text += &format!(" by --tile {tile}; see `crossover kernels NAME` for legal tiles");
        }
        for why in refused {
            text += &format!("\n  {why}");
        }
        return Err(Failure::Usage(text));
    }
    Ok(work)
}

/// Equal whatever the order of the axes.
fn same_tile(a: &Tile, b: &Tile) -> bool {
    a.0.len() == b.0.len() && a.0.iter().all(|(axis, x)| b.0.get(axis) == Some(x))
}

/// The cases of `--problem`.
fn given(args: &Args, kernel: &Kernel, settings: &str) -> Result<Vec<Subject>, String> {
    let problem = kernel.problem(settings)?;
    problem.fits_memory()?;
    kernel.supports(&problem).map_err(|e| e.0)?;
    let tiles = match &args.tile {
        Some(tile) => {
            kernel.check_tile(&problem, tile).map_err(|e| e.0)?;
            vec![tile.clone()]
        }
        None => kernel.tiles(&problem).map_err(|e| e.0)?,
    };
    let family = args.family.unwrap_or_default();
    let subject = |tile| Subject {
        case: suite::case(kernel, &tile, problem.clone(), family, args.seed),
        prefix: problem.has_prefix_property(),
        multiprocessors: None,
        most_steps: None,
    };
    Ok(tiles.into_iter().map(subject).collect())
}
