//! `crossover check`: kernel regression tests.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use indexmap::IndexMap;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::{Failure, Result, console};
use crate::device::emulator::Checks;
use crate::device::open::{open, open_with};
use crate::kernel::{Kernel, Registry, Tile};
use crate::op::{Family, Problem};
use crate::verify::suite;
use crate::verify::trial::{self, Ending, Subject, Trial};

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
    /// One JSON object a case on stdout; the summary goes to stderr.
    #[arg(long)]
    json: bool,
    /// Cases at a time; on the emulator one a core unless given, on a GPU always one.
    #[arg(long, value_name = "N")]
    jobs: Option<usize>,
}

/// Failures printed in full for each kernel; the others get one line.
const FULL: usize = 3;

/// `kernels` is the folder that the registry was read from, if not the embedded one.
///
/// # Errors
/// A pattern, problem, tile, check or device that means nothing, or no case left; a case that
/// failed, or none that could run.
pub fn run(args: Args, registry: &Registry, kernels: Option<&Path>) -> Result {
    let work = work(&args, &registry.matching(&args.glob)?)?;
    if args.list {
        let lines: String = work.iter().map(|(_, case)| case.label() + "\n").collect();
        console::put(&lines);
        return Ok(());
    }

    let checks = args.without.iter().try_fold(Checks::ALL, |all, name| all.without(name));
    let checks = checks.map_err(Failure::Usage)?;
    let facts = open(&args.device)?.facts().clone();
    let workers = match (facts.emulated, args.jobs) {
        (true, Some(n)) => n,
        (true, None) => std::thread::available_parallelism().map_or(1, |n| n.get()),
        (false, _) => 1,
    };
    // `auto` is resolved once, so that every worker and the repeat command have the same device.
    let device = if args.device == "auto" { facts.id.clone() } else { args.device.clone() };
    let mut summary = Summary::new(
        &work,
        Repeat { device: device.clone(), kernels: kernels.map(Path::to_path_buf) },
        args.json,
    );
    let start = Instant::now();
    let against = args.against.as_deref();
    let open_device = || open_with(&device, checks);
    let open_other = || open(against.unwrap_or_default());
    let other: Option<trial::Open> = against.map(|_| &open_other as trial::Open);
    trial::run_all(&work, workers, &open_device, other, |i, trial| {
        summary.done(&work[i].1, &trial);
    })?;
    summary.finish(start.elapsed().as_secs_f64())
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
    let problem = Problem::parse(kernel.manifest.op, kernel.phase(), settings)?;
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

/// One case as `--json` prints it; docs/adding-a-kernel.md describes the fields.
fn object(subject: &Subject, trial: &Trial, repeat: &Repeat) -> Value {
    let case = &subject.case;
    json!({
        "kernel": case.kernel,
        "tile": case.tile,
        "problem": case.problem,
        "family": case.family,
        "seed": case.seed,
        "sms": subject.multiprocessors,
        "device": repeat.device,
        "status": trial.ending,
        "faults": trial.faults,
        "skipped": trial.skipped,
        "verification": trial.verification,
        "agreement": trial.agreement,
        "seconds": trial.seconds,
        "repeat": repeat.command(subject),
    })
}

/// What became of the cases of one kernel.
#[derive(Default)]
struct Tally {
    cases: usize,
    passed: usize,
    failed: usize,
    skipped: IndexMap<String, usize>,
    seconds: f64,
    /// The E/F nearest its limit, with that limit, by output.
    worst: IndexMap<String, (f64, f64)>,
    /// The smallest share of elements within one unit in the last place and the largest distance,
    /// by output.
    agreement: IndexMap<String, (f64, f64)>,
}

/// What a command that repeats a case needs beside the case.
struct Repeat {
    device: String,
    kernels: Option<PathBuf>,
}

impl Repeat {
    fn command(&self, subject: &Subject) -> String {
        subject.command(&self.device, self.kernels.as_deref())
    }
}

struct Summary {
    repeat: Repeat,
    json: bool,
    bar: ProgressBar,
    kernels: IndexMap<String, Tally>,
}

impl Summary {
    fn new(work: &[(&Kernel, Subject)], repeat: Repeat, json: bool) -> Summary {
        let bar = if std::io::stderr().is_terminal() {
            let style = "{bar:32} {pos}/{len} cases  {elapsed}  {msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            ProgressBar::new(work.len() as u64).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        let mut kernels: IndexMap<String, Tally> = IndexMap::new();
        for (kernel, _) in work {
            kernels.entry(kernel.name.clone()).or_default().cases += 1;
        }
        Summary { repeat, json, bar, kernels }
    }

    /// To stdout, or to stderr where stdout carries JSON.
    fn say(&self, text: &str) {
        self.bar.suspend(|| if self.json { console::note(text) } else { console::say(text) });
    }

    fn done(&mut self, subject: &Subject, trial: &Trial) {
        let case = &subject.case;
        let tally = self.kernels.entry(case.kernel.clone()).or_default();
        tally.seconds += trial.seconds;
        match trial.ending {
            Ending::Passed => tally.passed += 1,
            Ending::Failed => tally.failed += 1,
            Ending::Skipped => {
                let why = trial.skipped.clone().unwrap_or_default();
                *tally.skipped.entry(why).or_default() += 1;
            }
        }
        for o in trial.verification.iter().flat_map(|v| &v.outputs) {
            let worst = tally.worst.entry(o.name.clone()).or_insert((0.0, o.limit));
            if o.ratio() / o.limit > worst.0 / worst.1 {
                *worst = (o.ratio(), o.limit);
            }
        }
        for a in &trial.agreement {
            let least = tally.agreement.entry(a.name.clone()).or_insert((1.0, 0.0));
            *least = (least.0.min(a.within_one_ulp), least.1.max(a.worst_ulp));
        }
        let failed = tally.failed;
        let ended = tally.passed + failed + tally.skipped.values().sum::<usize>();
        let complete = ended == tally.cases;
        if self.json {
            let line = object(subject, trial, &self.repeat).to_string();
            self.bar.suspend(|| console::say(&line));
        }
        if trial.ending == Ending::Failed {
            self.say(&failure(subject, trial, &self.repeat, failed <= FULL));
        }
        if complete {
            let line = self.line(&case.kernel);
            self.say(&line);
        }
        self.bar.set_message(case.kernel.clone());
        self.bar.inc(1);
    }

    /// One line a kernel.
    fn line(&self, name: &str) -> String {
        let width = self.kernels.keys().map(String::len).max().unwrap_or(0);
        let t = &self.kernels[name];
        let mut text = format!("{name:width$}  {} of {} passed", t.passed, t.cases);
        if t.failed > 0 {
            text += &format!(", {} FAILED", t.failed);
        }
        let skipped: usize = t.skipped.values().sum();
        if skipped > 0 {
            text += &format!(", {skipped} skipped");
        }
        text += &format!("  {:.1} s", t.seconds);
        for (output, (ratio, limit)) in &t.worst {
            text += &format!("  {output} E/F {ratio:.2} of {limit}");
        }
        for (output, (share, worst)) in &t.agreement {
            text += &format!("  {output} {:.2}% within 1 ulp, worst {worst:.1}", share * 100.0);
        }
        for (why, n) in &t.skipped {
            text += &format!("\n{:width$}  skipped {n}: {why}", "");
        }
        text
    }

    fn finish(self, seconds: f64) -> Result {
        self.bar.finish_and_clear();
        let sum = |count: fn(&Tally) -> usize| self.kernels.values().map(count).sum::<usize>();
        let (cases, passed, failed) = (sum(|t| t.cases), sum(|t| t.passed), sum(|t| t.failed));
        let skipped = cases - passed - failed;
        let text = format!(
            "{cases} cases of {} kernels on {}: {passed} passed, {failed} failed, {skipped} skipped in {seconds:.1} s",
            self.kernels.len(),
            self.repeat.device
        );
        if failed > 0 {
            return Err(Failure::Negative(text));
        }
        if passed == 0 {
            return Err(Failure::Negative(format!("{text}: nothing was checked")));
        }
        self.say(&text);
        Ok(())
    }
}

/// A failed case for people: what, where, and how to see it again.
fn failure(subject: &Subject, trial: &Trial, repeat: &Repeat, full: bool) -> String {
    let mut text = format!("FAILED {}", subject.label());
    for fault in &trial.faults {
        let message = if full {
            fault.message.trim_end().replace('\n', "\n    ")
        } else {
            fault.message.lines().next().unwrap_or_default().to_string()
        };
        text += &format!("\n  {}: {message}", fault.check.name());
    }
    if full {
        for (output, map) in &trial.maps {
            text += &format!("\n  {output}: {}", map.trim_end().replace('\n', "\n  "));
        }
    }
    text + &format!("\n  repeat: {}", repeat.command(subject))
}
