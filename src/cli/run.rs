//! `crossover run`: plan, verify, measure, record, report.

pub mod progress;
mod work;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::{Failure, Result, report};
use crate::device::ShareRule;
use crate::kernel::Registry;
use crate::measure::Limits;
use crate::record::file::{FILE_NAME, Writer, done_ids};
use crate::record::{Record, Status};
use crate::report::Pairing;
use crate::sweep::{Plan, Planned, Shard, Sweep};

/// Run a sweep: verify and measure its cases, record them, write a report.
#[derive(clap::Args)]
pub struct Args {
    /// Sweep file, or the name of one that comes with the program (quickstart).
    sweep: PathBuf,
    /// auto (the first GPU, else the emulator), cuda:N, emulator or emulator:MODEL.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Folder of the records and the report; out/<name of the sweep> if missing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Leave out what the folder has records of.
    #[arg(long)]
    resume: bool,
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
}

fn seconds(text: &str) -> std::result::Result<f64, String> {
    match text.parse::<f64>() {
        Ok(s) if s > 0.0 && s <= 3600.0 => Ok(s),
        _ => Err("expected a number of seconds over 0 and up to 3600".into()),
    }
}

/// Runs what is planned and not yet recorded, then draws the report of the whole folder.
///
/// # Errors
/// A sweep that cannot be planned or has nothing to run; no such device, or one that is lost;
/// records or a report that cannot be written; a case that failed; Ctrl-C.
pub fn run(args: Args, registry: &Registry) -> Result {
    let sweep = Sweep::load(&args.sweep)?;
    // A faulty sweep is refused before a device is looked for.
    sweep.plan(registry, None, args.seed)?;
    let spec = args.device.as_deref().or(sweep.device.as_deref()).unwrap_or("auto");
    let device = crate::device::open::open(spec)?;
    if let Some(sample) = args.sample_ctas {
        super::sampling_allowed(sample, device.facts())?;
    }
    let shard = args.shard.unwrap_or(Shard::WHOLE);
    let plan = sweep.plan(registry, Some(device.facts()), args.seed)?;
    if plan.runnable().next().is_none() {
        return Err(Failure::Usage(nothing_to_run(&sweep, &plan)));
    }
    let plan = plan.shard(shard);

    let out = args.out.clone().unwrap_or_else(|| Path::new("out").join(&sweep.name));
    let file = out.join(match shard.is_whole() {
        true => FILE_NAME.to_string(),
        false => shard_file(shard),
    });
    let Open { mut writer, done, retried } = open(&file, args.resume)?;
    // The report of these records, drawn again, finds its prose here.
    let copy = out.join(report::SWEEP_COPY);
    std::fs::write(&copy, sweep.source.text.as_bytes())
        .map_err(|e| Failure::Usage(format!("cannot write {}: {e}", copy.display())))?;

    let facts = device.facts().clone();
    let id = |p: &Planned| p.case.id(&sweep.name, &facts.id);
    let (old, new): (Vec<_>, Vec<_>) = plan.cases.iter().partition(|p| done.contains(&id(p)));
    let (mut skipped, mut todo): (Vec<_>, Vec<_>) = (Vec::new(), Vec::new());
    for p in new {
        match &p.skip {
            Some(why) => skipped.push((&p.case, why.as_str())),
            None => todo.push(&p.case),
        }
    }
    // What ended a run before must not keep the rest from being run.
    todo.sort_by_key(|case| retried.contains(&case.id(&sweep.name, &facts.id)));

    let stop = interrupts();
    let ground = if facts.emulated { "modelled after counts of the emulator" } else { "measured" };
    progress::say(&format!(
        "{}: {} on {}, times {ground}{}{}",
        sweep.name,
        super::cases(todo.len()),
        facts.name,
        if skipped.is_empty() { String::new() } else { format!(", {} skipped", skipped.len()) },
        if old.is_empty() { String::new() } else { format!(", {} done before", old.len()) },
    ));
    let sample = args.sample_ctas.or(sweep.sample_ctas).unwrap_or_default();
    let site = work::Site {
        registry,
        device: device.as_ref(),
        spec,
        sweep: &sweep.name,
        command: &command(),
        sample,
        limits: Limits { time: Duration::from_secs_f64(args.time), ..Limits::default() },
    };
    let mut tally = Tally::default();
    let mut bar = progress::Bar::new(&todo, &facts, sample);
    let ended = work::all(&site, &skipped, &todo, stop, |record| {
        writer.write(&record).map_err(|e| Failure::Usage(e.to_string()))?;
        if record.status != Status::Skipped {
            bar.finished(&record);
        }
        tally.add(&record);
        Ok(())
    });
    bar.end();
    let stopped = stop.load(Ordering::SeqCst) > 0;

    // Whatever happened, what is recorded is drawn.
    let drawn = report::draw(&[&out], Some(&sweep), Pairing::default(), &out);
    match &drawn {
        Ok(summary) => report::tell(&[&file], summary),
        Err(e) => eprintln!("error: {e}"),
    }
    ended?;
    drawn?;
    let resume = || {
        let device = args.device.as_ref().map_or(String::new(), |d| format!(" --device {d}"));
        let out = args.out.as_ref().map_or(String::new(), |o| format!(" --out {}", o.display()));
        let shard = args.shard.map_or(String::new(), |s| format!(" --shard {s}"));
        let sample = args.sample_ctas.map_or(String::new(), |s| format!(" --sample-ctas {s}"));
        format!("crossover run {}{device}{out}{shard}{sample} --resume", args.sweep.display())
    };
    if stopped {
        return Err(Failure::Interrupted(format!(
            "stopped after {} of {}; go on with: {}",
            tally.ran,
            super::cases(todo.len()),
            resume()
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

struct Open {
    writer: Writer,
    done: std::collections::HashSet<String>,
    /// Cases with a record that is not final.
    retried: std::collections::HashSet<String>,
}

/// Opens the records for appending. Only a resumed run may find some.
fn open(file: &Path, resume: bool) -> Result<Open> {
    let fail = |e: crate::record::file::RecordError| Failure::Usage(e.to_string());
    let size = std::fs::metadata(file).map_or(0, |m| m.len());
    if size > 0 && !resume {
        return Err(Failure::Usage(format!(
            "{} has records already: go on with --resume, or write elsewhere with --out DIR",
            file.display()
        )));
    }
    let done = done_ids(file).map_err(fail)?;
    let retried = match size {
        0 => Default::default(),
        _ => {
            let records = crate::record::file::read(&[file]).map_err(fail)?.records;
            records.into_iter().filter(|r| !r.status.is_final()).map(|r| r.id).collect()
        }
    };
    let writer = Writer::append(file).map_err(fail)?;
    Ok(Open { writer, done, retried })
}

fn shard_file(shard: Shard) -> String {
    format!("records-{}.jsonl", shard.to_string().replace('/', "-of-"))
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

/// The command line as a person would type it.
pub fn command() -> String {
    let quoted = |arg: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        if !arg.is_empty() && arg.chars().all(plain) {
            return arg;
        }
        format!("'{}'", arg.replace('\'', "'\\''"))
    };
    let args = std::env::args_os().skip(1).map(|arg| quoted(arg.to_string_lossy().into_owned()));
    std::iter::once("crossover".to_string()).chain(args).collect::<Vec<_>>().join(" ")
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
        eprintln!("\nstopping after the running case; Ctrl-C again stops at once");
    });
    &STOP
}
