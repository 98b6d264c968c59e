//! What a folder has records of, and whether those would come out the same now.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use clap::ValueEnum;
use indexmap::IndexMap;
use rayon::prelude::*;

use super::super::{Failure, Result, cases};
use crate::device::{Facts, ShareRule};
use crate::kernel::Registry;
use crate::measure::variant::{Executed, launch_sha256};
use crate::record::{self, Record, RecordError, Status, binary_sha256};
use crate::sweep::{Case, Plan, Planned};

/// Which recorded cases a resumed run measures again, besides timeouts and failed launches that were
/// tried once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rerun {
    /// None: their records stay, whatever has changed.
    None,
    /// Those that failed, however often.
    Failed,
    /// Those whose kernel has changed: its PTX, or the launches that its manifest makes.
    Kernels,
    /// Those of which anything has changed: kernel, program, device, what the sweep says of them.
    Changed,
    /// All.
    All,
}

/// What makes the cases of a run, beside the plan.
pub struct Now<'a> {
    pub registry: &'a Registry,
    pub facts: &'a Facts,
    /// What stands for the device in ids.
    pub place: &'a str,
    pub sample: ShareRule,
}

/// A record's case, and which process measured it.
pub type Key = (String, Option<u32>);

/// How often a case is tried that ends in a timeout or a failed launch.
const ATTEMPTS: u32 = 2;

/// What is to be done about cases that have records.
#[derive(Debug, Default)]
pub struct Found {
    /// The records that stay.
    pub done: HashSet<Key>,
    /// How often a run has failed before at what is tried again.
    pub retried: HashMap<Key, u32>,
    /// What has changed, for people.
    pub notes: Vec<String>,
}

/// What is different about a record.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Change {
    Ptx(String),
    Launches(String),
    /// The plan has the case and left it out before, or the other way round.
    Skip {
        now: bool,
    },
    Sample {
        was: String,
        is: String,
    },
    Device(String),
    Binary(String),
}

impl Change {
    fn is_of_kernel(&self) -> bool {
        matches!(self, Change::Ptx(_) | Change::Launches(_))
    }

    /// What `3 records are` of.
    fn words(&self) -> String {
        match self {
            Change::Ptx(kernel) => format!("of another PTX of {kernel}"),
            Change::Launches(kernel) => {
                format!("of other launches of {kernel}, whose manifest has changed")
            }
            Change::Skip { now: true } => "of cases that the plan leaves out now".into(),
            Change::Skip { now: false } => "of cases that the plan left out and has now".into(),
            Change::Sample { was, is } => format!("of --sample-ctas {was}, not {is}"),
            Change::Device(how) | Change::Binary(how) => how.clone(),
        }
    }
}

/// Reads the records of a folder.
///
/// # Errors
/// Records that cannot be read.
pub fn records(folder: &Path) -> Result<Vec<Record>> {
    if !folder.exists() {
        return Ok(Vec::new());
    }
    match record::read(&[folder]) {
        Err(RecordError::Empty(_)) => Ok(Vec::new()),
        Err(e) => Err(Failure::Usage(e.to_string())),
        Ok(read) => Ok(read.records),
    }
}

/// Holds the records of a folder against what would be measured of `part` of the plan.
///
/// # Errors
/// Records that would not be the same now, if nobody said what becomes of them.
pub fn find(
    folder: &Path,
    records: &[Record],
    whole: &Plan,
    part: &[&Planned],
    now: &Now,
    rerun: Option<Rerun>,
) -> Result<Found> {
    let mut found = Found::default();
    let id = |p: &Planned| p.case.id(&whole.sweep, now.place);
    let mut recorded: HashMap<&str, Vec<&Record>> = HashMap::new();
    records.iter().for_each(|r| recorded.entry(&r.id).or_default().push(r));
    let (mut known, mut given_up) = (Vec::new(), 0);
    for p in part {
        for record in recorded.get(id(p).as_str()).into_iter().flatten() {
            let attempts = record.attempt.unwrap_or(1);
            let failed = !matches!(record.status, Status::Ok | Status::Skipped);
            let again = rerun == Some(Rerun::Failed) && failed;
            if again || !record.status.is_final() && attempts < ATTEMPTS {
                // Of other failures another end is not expected, and nothing is counted.
                let attempts = if record.status.is_final() { 0 } else { attempts };
                found.retried.insert((record.id.clone(), record.process), attempts);
                continue;
            }
            given_up += usize::from(!record.status.is_final());
            known.push((*p, *record));
        }
    }
    if given_up > 0 && rerun != Some(Rerun::All) {
        let of = "of cases that failed twice and are left alone; --rerun failed tries them again";
        found.notes.push(counted(given_up, of));
    }
    let planned: HashSet<String> = whole.cases.iter().map(id).collect();
    let is_here = |r: &Record| match now.place == now.facts.id {
        true => r.device.id == now.facts.id,
        false => r.device.name == now.facts.name,
    };
    let is_gone = |r: &&Record| r.sweep == whole.sweep && is_here(r) && !planned.contains(&r.id);
    let gone = records.iter().filter(is_gone).count();
    if gone > 0 {
        let of = "of cases that the sweep no longer has: they stay, and reports show them";
        found.notes.push(counted(gone, of));
    }
    if rerun == Some(Rerun::All) {
        return Ok(found);
    }

    let differences: Vec<Vec<Change>> =
        known.par_iter().map(|(p, record)| now.changes(p, record)).collect();
    let mut by_change: IndexMap<Change, usize> = IndexMap::new();
    for change in differences.iter().flatten() {
        *by_change.entry(change.clone()).or_default() += 1;
    }
    by_change.sort_unstable_keys();
    let changed = differences.iter().filter(|d| !d.is_empty()).count();
    let of_kernels = differences.iter().filter(|d| d.iter().any(Change::is_of_kernel)).count();
    let lines: Vec<String> = by_change.iter().map(|(c, n)| counted(*n, &c.words())).collect();
    if changed > 0 && rerun.is_none() {
        let kernels = match of_kernels {
            0 => String::new(),
            n if n == changed => String::new(),
            n => format!(", --rerun kernels the {} of another kernel", cases(n)),
        };
        return Err(Failure::Usage(format!(
            "{}: {changed} of {} records would not be the same now:\n  {}\n--rerun changed runs {} \
             again{kernels}, --rerun none keeps the records",
            folder.display(),
            known.len(),
            lines.join("\n  "),
            cases(changed),
        )));
    }
    for ((_, record), changes) in known.iter().zip(&differences) {
        let again = match rerun {
            Some(Rerun::Changed) => !changes.is_empty(),
            Some(Rerun::Kernels) => changes.iter().any(Change::is_of_kernel),
            _ => false,
        };
        if !again {
            found.done.insert((record.id.clone(), record.process));
        }
    }
    found.notes.extend(lines);
    Ok(found)
}

/// `3 records are of another PTX`
fn counted(n: usize, of: &str) -> String {
    match n {
        1 => format!("1 record is {of}"),
        n => format!("{n} records are {of}"),
    }
}

impl Now<'_> {
    /// What would be different about the record of a case.
    fn changes(&self, planned: &Planned, record: &Record) -> Vec<Change> {
        let was_skipped = record.status == Status::Skipped;
        if was_skipped || planned.skip.is_some() {
            let now = planned.skip.is_some();
            return (was_skipped != now).then_some(Change::Skip { now }).into_iter().collect();
        }
        let mut all = Vec::new();
        let kernel = &record.kernel;
        let (ptx, launches) = self.hashes(&planned.case);
        if ptx != kernel.ptx_sha256 {
            all.push(Change::Ptx(kernel.name.clone()));
        } else if let (Some(is), Some(was)) = (launches, &kernel.launch_sha256)
            && is != *was
        {
            all.push(Change::Launches(kernel.name.clone()));
        }
        if let Some(was) = record.sample_ctas.clone().filter(|_| self.facts.emulated) {
            let is = self.sample.to_string();
            all.extend((was != is).then_some(Change::Sample { was, is }));
        }
        all.extend(other_device(&record.device, self.facts).map(Change::Device));
        all.extend(other_binary(record).map(Change::Binary));
        all
    }

    /// Hashes of the PTX and of the launches of a case, as its record would have them.
    fn hashes(&self, case: &Case) -> (String, Option<String>) {
        let executed = self.registry.get(&case.kernel).and_then(|kernel| {
            kernel.supports(&case.problem)?;
            Executed::new(kernel, case, self.facts)
        });
        match executed {
            Ok(executed) => {
                let launches = launch_sha256(&executed.job);
                (executed.job.ptx.sha256, Some(launches))
            }
            // Such a case has no PTX in its record.
            Err(_) => (String::new(), None),
        }
    }
}

/// How the device of that id is another one; its PCI id or power limit do not make it one.
fn other_device(was: &Facts, is: &Facts) -> Option<String> {
    if was.name != is.name {
        return Some(format!("of another device: {}, not {}", was.name, is.name));
    }
    if was.driver != is.driver {
        return Some(format!("of another driver: {}, not {}", was.driver, is.driver));
    }
    // Nor does its number: of several any may have taken the case.
    let plain = |f: &Facts| Facts { id: String::new(), more: IndexMap::new(), ..f.clone() };
    (plain(was) != plain(is))
        .then(|| format!("of {} with other facts: multiprocessors, memory or peak rates", is.name))
}

/// How the program that wrote a record is another one.
fn other_binary(record: &Record) -> Option<String> {
    let is = binary_sha256()?;
    let version = &record.version;
    match &record.binary_sha256 {
        Some(was) if was == is => None,
        Some(was) => {
            let was = was.get(..12).unwrap_or(was);
            Some(format!(
                "of another build of crossover: {version}, binary {was}.., not {}, {}..",
                env!("CARGO_PKG_VERSION"),
                &is[..12]
            ))
        }
        None => Some(format!(
            "of an older build of crossover ({version}) that left no hash of itself: unknown \
             whether it measured as this one does"
        )),
    }
}
