//! `crossover run`: plan, verify, measure, record, report.

mod devices;
mod folder;
mod lock;
mod progress;
mod resume;
mod work;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Failure, Result, console, output, report, shell};
use crate::device::ShareRule;
use crate::kernel::Registry;
use crate::measure::worker::Site;
use crate::measure::{self, Limits};
use crate::record::file::{FILE_NAME, Writer};
use crate::record::{Record, Status};
use crate::report::Pairing;
use crate::sweep::{Plan, Planned, Shard, Sweep};
use crate::{child, disk};

/// Run a sweep: verify and measure its cases, record them, write a report.
#[derive(clap::Args)]
pub struct Args {
    /// Sweep file, or the name of one that comes with the program (quickstart).
    sweep: PathBuf,
    /// auto (the first GPU, else the emulator), cuda:N, several as cuda:0,cuda:1 or cuda:all, emulator
    /// or emulator:MODEL. Of several GPUs each takes what is left, and what is compared as a whole.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Folder of the records and the report; out/<name of the sweep> if missing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leave out what the folder has records of. Records that would not be the same now, since a
    /// kernel, this program or the device has changed, end the run unless --rerun says what becomes
    /// of them.
    #[arg(long)]
    resume: bool,
    /// As --resume, and measure again of what has records: those of changed kernels, all that have
    /// changed, all, or none. The newest record of a case counts.
    #[arg(long, value_name = "WHICH")]
    rerun: Option<resume::Rerun>,
    /// Only part I of N, I from 0; parts may share a folder.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Seed of the inputs, in place of the sweep's.
    #[arg(long)]
    seed: Option<u64>,
    /// On the emulator, execute about N CTAs of each launch and extrapolate the counts; all; or
    /// auto: all CTAs of cases of up to 1e11 FLOPs a head group, and as many of larger ones as 1e11
    /// FLOPs take. Overrides the sweep's sample_ctas, which is auto if missing.
    #[arg(long, value_name = "N")]
    sample_ctas: Option<ShareRule>,
    /// Seconds to sample one case for at most, on a GPU.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    time: f64,
    /// Measure the energy of each case too, on a GPU that tells it: joules a launch, and what an idle GPU
    /// takes. Some three seconds a case.
    #[arg(long)]
    energy: bool,
    /// Measure each case in N processes, one after the other, with a record from each: what differs
    /// between processes is part of a time.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    repeat_process: Option<u32>,
    /// On the emulator too, let a process of its own measure, as is done on a GPU in any case: one that
    /// crashes costs its case alone.
    #[arg(long)]
    processes: bool,
}

/// Measure the cases that come in on stdin, as a process of a run does.
#[derive(clap::Args)]
pub struct ServeArgs {}

/// Serves a run.
///
/// # Errors
/// A case or its record does not come through.
pub fn serve(_: ServeArgs, registry: &Registry) -> Result {
    // Ctrl-C is for the process that asks.
    let _ = ctrlc::set_handler(|| {});
    let to = std::io::stdout().lock();
    measure::worker::serve(registry, crate::device::open::open, child::lines(), to)
        .map_err(|e| Failure::Usage(format!("a case or its record did not come through: {e}")))
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= 3600.0 => Ok(s),
        _ => Err("expected a number of seconds over 0 and up to 3600".into()),
    }
}

/// Runs what is planned and not yet recorded, then draws the report of the whole folder. `kernels` is
/// the folder that the registry was read from, if not the embedded one.
///
/// # Errors
/// A sweep that cannot be planned or has nothing to run; no such device, or one that is lost; a
/// folder that another run is at, or that has records of these cases, or records that would not be
/// the same now; records or a report that cannot be written; a case that failed; Ctrl-C.
pub fn run(args: Args, registry: &Registry, kernels: Option<&Path>) -> Result {
    let sweep = Sweep::load(&args.sweep)?;
    // A faulty sweep is refused before a device is looked for.
    sweep.plan(registry, None, args.seed)?;
    let spec = args.device.as_deref().or(sweep.device.as_deref()).unwrap_or("auto");
    let devices = devices::of(spec)?;
    let device = crate::device::open::open(&devices[0])?;
    // Any of several GPUs may take a case.
    let any = devices.len() > 1 && !device.facts().emulated;
    let place = if any { devices::ALL } else { &device.facts().id };
    if args.repeat_process.is_some() && device.facts().emulated {
        return Err(Failure::Usage(format!(
            "--repeat-process: times of {} are modelled, and the same in every process",
            device.facts().id
        )));
    }
    if let Some(sample) = args.sample_ctas {
        super::sampling_allowed(sample, device.facts())?;
    }
    if args.energy && device.facts().emulated {
        return Err(Failure::Usage(format!(
            "--energy: {} executes on the host, and nothing tells what a GPU would take; leave it out, or \
             take a GPU by --device cuda",
            device.facts().id
        )));
    }
    // A sweep that asks for it can be run without a GPU.
    let energy = (args.energy || sweep.energy) && !device.facts().emulated;
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let whole = sweep.plan(registry, Some(device.facts()), args.seed)?;
    if whole.runnable().next().is_none() {
        return Err(Failure::Usage(nothing_to_run(&sweep, &whole)));
    }
    let plan = whole.clone().shard(shard);
    let sample = args.sample_ctas.or(sweep.sample_ctas).unwrap_or_default();

    let out = args.out.clone().unwrap_or_else(|| Path::new("out").join(&sweep.name));
    let file = out.join(match shard.is_whole() {
        true => FILE_NAME.to_string(),
        false => format!("records-{}.jsonl", of(shard)),
    });
    folder::check(&out, &file, &sweep, kernels, output::description(spec))?;
    let _lock = lock::take(&out, shard)?;
    let copy = folder::copy(&out, &sweep)?;
    let cases: Vec<_> = plan.cases.iter().collect();
    let now = resume::Now { registry, facts: device.facts(), place, sample };
    let records = resume::records(&out)?;
    let found = match args.resume || args.rerun.is_some() {
        true => resume::find(&out, &records, &whole, &cases, &now, args.rerun)?,
        false => folder::fresh(&file, &records, &plan, place)?,
    };
    let mut writer = Writer::append(&file).map_err(|e| Failure::Usage(e.to_string()))?;
    if writer.zeros_cut() > 0 {
        console::note(&format!(
            "note: {}: {} zero bytes of an interrupted write are cut off its end",
            file.display(),
            writer.zeros_cut()
        ));
    }
    if let Some(copy) = copy {
        // The report of these records, drawn again, finds its prose here.
        disk::replace(&copy, sweep.source.text.as_bytes())
            .map_err(|e| Failure::Usage(format!("cannot write {}: {e}", copy.display())))?;
    }
    found.notes.iter().for_each(|note| console::note(&format!("note: {note}")));

    let facts = device.facts().clone();
    let (mut skipped, mut todo, mut done) = (Vec::new(), Vec::new(), 0);
    let processes = args.repeat_process.map_or(vec![None], |n| (0..n).map(Some).collect());
    for process in processes {
        for Planned { case, skip, .. } in &plan.cases {
            let key = (case.id(&sweep.name, place), process);
            match (found.done.contains(&key), skip) {
                (true, _) => done += 1,
                (false, Some(why)) if process.is_none_or(|i| i == 0) => {
                    skipped.push((case, why.as_str()));
                }
                (false, Some(_)) => {}
                (false, None) => {
                    let attempts = found.retried.get(&key).copied().unwrap_or(0);
                    todo.push(work::Todo { case, process, attempts });
                }
            }
        }
    }
    // What ended a run before must not keep the rest from being run.
    todo.sort_by_key(|todo| todo.attempts > 0);

    let stop = interrupts();
    let ground = if facts.emulated { "modelled after counts of the emulator" } else { "measured" };
    console::say(&format!(
        "{}: {} on {}, times {ground}{}{}",
        sweep.name,
        super::cases(todo.len()),
        match devices.len() {
            1 => facts.name.clone(),
            n => format!("{n} times {}", facts.name),
        },
        if skipped.is_empty() { String::new() } else { format!(", {} skipped", skipped.len()) },
        if done == 0 { String::new() } else { format!(", {done} done before") },
    ));
    let site = Site {
        device: devices[0].clone(),
        place: any.then(|| place.to_string()),
        sweep: sweep.name.clone(),
        command: shell::command(),
        limits: Limits { time: Duration::from_secs_f64(args.time), ..Limits::default() },
        energy,
        sample,
    };
    let program = std::env::current_exe()
        .map_err(|e| Failure::Usage(format!("the program does not know its own path: {e}")))?;
    let start = || {
        let mut command = Command::new(&program);
        command.args(kernels.map(|dir| [Path::new("--kernels"), dir]).into_iter().flatten());
        command.arg("serve");
        command
    };
    let hands = work::Hands {
        registry,
        site: &site,
        devices: &devices,
        emulated: facts.emulated,
        start: &start,
        processes: args.processes || devices.len() > 1,
    };
    let mut tally = Tally::default();
    let cases: Vec<_> = todo.iter().map(|todo| todo.case).collect();
    let mut bar = progress::Bar::new(&cases, &facts, sample);
    let mut keep = |record: Record| {
        writer.write(&record).map_err(|e| Failure::Usage(e.to_string()))?;
        if record.status != Status::Skipped {
            bar.finished(&record);
        }
        tally.add(&record);
        Ok(())
    };
    let bench = site.bench(registry, device.as_ref());
    let mut left_out = skipped.iter().map(|(case, why)| bench.ended(case, Status::Skipped, why));
    let ended =
        left_out.try_for_each(&mut keep).and_then(|()| work::all(&hands, &todo, stop, &mut keep));
    bar.end();
    // Ctrl-C in the last case leaves nothing to go on with.
    let stopped = stop.load(Ordering::SeqCst) > 0 && tally.ran < todo.len();

    // Whatever happened, what is recorded is drawn.
    let drawn = report::draw(&[&out], Some(&sweep), Pairing::default(), &out);
    match &drawn {
        Ok(summary) => report::tell(&[&file], summary, ended.is_ok() && !stopped),
        Err(e) => console::note(&format!("error: {e}")),
    }
    ended?;
    drawn?;
    if stopped {
        let how = match args.rerun {
            Some(resume::Rerun::All) => "all again with",
            _ => "go on with",
        };
        let resume = if args.resume || args.rerun.is_some() { "" } else { " --resume" };
        return Err(Failure::Interrupted(format!(
            "stopped after {} of {}; {how}: {}{resume}",
            tally.ran,
            super::cases(todo.len()),
            shell::command()
        )));
    }
    match tally.verdict() {
        Some(verdict) => Err(Failure::Negative(verdict)),
        None => Ok(()),
    }
}

/// How cases ended.
#[derive(Default)]
struct Tally {
    ran: usize,
    bad: indexmap::IndexMap<&'static str, usize>,
}

impl Tally {
    fn add(&mut self, record: &Record) {
        if record.status == Status::Skipped {
            return;
        }
        self.ran += 1;
        if record.status != Status::Ok {
            *self.bad.entry(progress::word(record.status)).or_default() += 1;
        }
    }

    fn verdict(&self) -> Option<String> {
        if self.bad.is_empty() {
            return None;
        }
        let kinds: Vec<_> = self.bad.iter().map(|(word, n)| format!("{n} {word}")).collect();
        let bad: usize = self.bad.values().sum();
        Some(format!("{bad} of {} failed: {}", super::cases(self.ran), kinds.join(", ")))
    }
}

/// `0-of-4`, for names of files.
fn of(shard: Shard) -> String {
    shard.to_string().replace('/', "-of-")
}

fn nothing_to_run(sweep: &Sweep, plan: &Plan) -> String {
    let reasons: Vec<_> =
        plan.reasons().iter().map(|(reason, n)| format!("\n  {n}  {reason}")).collect();
    format!(
        "{}: all of its {} are skipped:{}",
        sweep.source.name,
        super::cases(plan.cases.len()),
        reasons.concat()
    )
}

/// Counts Ctrl-C: the first lets the running cases finish, the second ends at once. What is
/// recorded stays either way.
fn interrupts() -> &'static AtomicUsize {
    static STOP: AtomicUsize = AtomicUsize::new(0);
    // A handler that cannot be set leaves Ctrl-C as it is: records are safe, no report is drawn.
    let _ = ctrlc::set_handler(|| {
        if STOP.fetch_add(1, Ordering::SeqCst) > 0 {
            std::process::exit(130);
        }
        console::note("\nstopping after the running case; Ctrl-C again stops at once");
    });
    &STOP
}
