//! What `crossover check` says: progress, failures in groups, a line a kernel.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indexmap::IndexMap;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::super::{Failure, Result, cases, console};
use super::estimate::{Estimate, words};
use crate::kernel::Kernel;
use crate::op::Op;
use crate::verify::groups::{Group, Groups};
use crate::verify::trial::{Ending, Subject, Trial};

/// Failures printed in full for each kernel; the others get one line.
const FULL: usize = 3;
/// How many of the slowest cases are named, of checks of more cases than that.
const SLOWEST: usize = 3;
/// Between two lines about progress where there is no terminal.
const QUIET: Duration = Duration::from_secs(60);

/// What a command that repeats a case needs beside the case.
pub struct Repeat {
    pub device: String,
    pub kernels: Option<PathBuf>,
}

impl Repeat {
    fn command(&self, subject: &Subject) -> String {
        subject.command(&self.device, self.kernels.as_deref())
    }
}

/// What became of the cases of one kernel.
struct Tally {
    op: Op,
    cases: usize,
    passed: usize,
    failed: usize,
    /// Failures that the manifest says there are, by its why.
    known: IndexMap<String, usize>,
    skipped: IndexMap<String, usize>,
    seconds: f64,
    /// Failures printed with all that is known of them.
    told: usize,
    /// The E/F nearest its limit, with that limit, by output.
    worst: IndexMap<String, (f64, f64)>,
    /// The smallest share of elements within one unit in the last place and the largest distance,
    /// by output.
    agreement: IndexMap<String, (f64, f64)>,
}

impl Tally {
    fn new(op: Op) -> Tally {
        let (known, skipped, worst, agreement) = Default::default();
        let (cases, passed, failed, told, seconds) = (0, 0, 0, 0, 0.0);
        Tally { op, cases, passed, failed, known, skipped, seconds, told, worst, agreement }
    }

    fn skipped(&self) -> usize {
        self.skipped.values().sum()
    }

    fn known(&self) -> usize {
        self.known.values().sum()
    }

    fn ended(&self) -> usize {
        self.passed + self.failed + self.known() + self.skipped()
    }
}

/// What has been said, and what is to be said at the end.
pub struct Summary<'w> {
    work: &'w [(&'w Kernel, Subject)],
    repeat: Repeat,
    json: bool,
    bar: ProgressBar,
    estimate: Estimate,
    /// When progress was last told where there is no terminal.
    told: Duration,
    kernels: IndexMap<String, Tally>,
    groups: Groups,
    /// The slowest cases, with their seconds.
    slowest: Vec<(f64, usize)>,
}

impl<'w> Summary<'w> {
    pub fn new(
        work: &'w [(&'w Kernel, Subject)],
        repeat: Repeat,
        json: bool,
        estimate: Estimate,
    ) -> Summary<'w> {
        let bar = if std::io::stderr().is_terminal() {
            let style = "{bar:32} {pos}/{len} cases  {elapsed}  {msg}";
            let style = ProgressStyle::with_template(style).expect("a valid template");
            ProgressBar::new(work.len() as u64).with_style(style)
        } else {
            ProgressBar::hidden()
        };
        let mut kernels: IndexMap<String, Tally> = IndexMap::new();
        for (kernel, _) in work {
            let new = || Tally::new(kernel.manifest.op);
            kernels.entry(kernel.name.clone()).or_insert_with(new).cases += 1;
        }
        if work.len() > 1 {
            let time = words(estimate.left());
            eprintln!("{} on {}, {time} by a guess", cases(work.len()), repeat.device);
        }
        let (told, groups, slowest) = Default::default();
        Summary { work, repeat, json, bar, estimate, told, kernels, groups, slowest }
    }

    /// To stdout, or to stderr where stdout carries JSON.
    fn say(&self, text: &str) {
        self.bar.suspend(|| if self.json { console::note(text) } else { console::say(text) });
    }

    /// Takes note of how the case of that index ended.
    pub fn done(&mut self, index: usize, trial: &Trial) {
        let subject = &self.work[index].1;
        let case = &subject.case;
        self.estimate.ended(index, trial.seconds);
        self.slowest.push((trial.seconds, index));
        self.slowest.sort_by(|a, b| b.0.total_cmp(&a.0));
        self.slowest.truncate(SLOWEST);
        let tally = self.kernels.get_mut(&case.kernel).expect("a kernel of the work");
        tally.seconds += trial.seconds;
        match trial.ending {
            Ending::Passed => tally.passed += 1,
            Ending::Failed => match &trial.known {
                Some(why) => *tally.known.entry(why.clone()).or_default() += 1,
                None => tally.failed += 1,
            },
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
        let complete = tally.ended() == tally.cases;
        // What is known is told in the kernel's line.
        let first = trial.known.is_none() && self.groups.add(index, subject, trial);
        let full = first && tally.told < FULL;
        tally.told += usize::from(full);
        if self.json {
            let object = object(subject, trial, &self.repeat);
            self.bar.suspend(|| console::say(&object.to_string()));
        }
        // What is like an earlier failure is told with its group.
        if first {
            self.say(&failure(subject, trial, &self.repeat, full));
        }
        if complete {
            self.kernel_ends(&case.kernel);
        }
        self.bar.inc(1);
        self.tick();
    }

    /// Says how far it is.
    pub fn tick(&mut self) {
        let left = words(self.estimate.left());
        self.bar.set_message(format!("about {left} left"));
        let elapsed = self.estimate.elapsed();
        if self.bar.is_hidden() && elapsed >= self.told + QUIET {
            self.told = elapsed;
            let ended: usize = self.kernels.values().map(Tally::ended).sum();
            eprintln!("{ended} of {}, about {left} left", cases(self.work.len()));
        }
    }

    /// The line of a kernel, and its failures in groups.
    fn kernel_ends(&self, name: &str) {
        let mut text = self.line(name);
        for group in self.groups.of(name, self.kernels[name].op) {
            if group.cases > 1 {
                text += &self.described(&group);
            }
        }
        self.say(&text);
    }

    fn described(&self, group: &Group) -> String {
        let mut text = format!("\n  {} FAILED alike: {}", cases(group.cases), group.what);
        if !group.in_common.is_empty() {
            let others = match group.passed_alike {
                0 => format!("none of the {} that pass", group.passed),
                n => format!("{n} of the {} that pass", group.passed),
            };
            text += &format!("\n    all have {}; so have {others}", group.in_common.join(", "));
        }
        text + &format!("\n    repeat: {}", self.repeat.command(&self.work[group.first].1))
    }

    /// One line a kernel.
    fn line(&self, name: &str) -> String {
        let width = self.kernels.keys().map(String::len).max().unwrap_or(0);
        let t = &self.kernels[name];
        let mut text = format!("{name:width$}  {} of {} passed", t.passed, t.cases);
        if t.failed > 0 {
            text += &format!(", {} FAILED", t.failed);
        }
        if t.known() > 0 {
            text += &format!(", {} FAILED as its manifest says", t.known());
        }
        if t.skipped() > 0 {
            text += &format!(", {} skipped", t.skipped());
        }
        if t.ended() < t.cases {
            text += &format!(", {} not run", t.cases - t.ended());
        }
        text += &format!("  {:.1} s", t.seconds);
        for (output, (ratio, limit)) in &t.worst {
            text += &format!("  {output} E/F {ratio:.2} of {limit}");
        }
        for (output, (share, worst)) in &t.agreement {
            text += &format!("  {output} {:.2}% within 1 ulp, worst {worst:.1}", share * 100.0);
        }
        for (why, n) in &t.known {
            text += &format!("\n{:width$}  FAILED {n}, known: {why}", "");
        }
        for (why, n) in &t.skipped {
            text += &format!("\n{:width$}  skipped {n}: {why}", "");
        }
        text
    }

    /// What is told at every end: kernels that are not complete, slow cases, groups as JSON.
    pub fn end(&self) {
        self.bar.finish_and_clear();
        for (name, tally) in &self.kernels {
            if (1..tally.cases).contains(&tally.ended()) {
                self.kernel_ends(name);
            }
        }
        if self.work.len() > SLOWEST {
            for (seconds, index) in &self.slowest {
                self.say(&format!("slow: {seconds:.1} s  {}", self.work[*index].1.label()));
            }
        }
        if self.json {
            for (name, tally) in &self.kernels {
                for group in self.groups.of(name, tally.op) {
                    let mut object = serde_json::to_value(&group).expect("a group is plain data");
                    object["repeat"] = self.repeat.command(&self.work[group.first].1).into();
                    console::say(&json!({ "group": object }).to_string());
                }
            }
        }
    }

    /// How many cases ended how: passed, failed, failed as is known, and all in words.
    fn counts(&self) -> ([usize; 3], String) {
        let sum = |count: fn(&Tally) -> usize| self.kernels.values().map(count).sum::<usize>();
        let (passed, failed, skipped) = (sum(|t| t.passed), sum(|t| t.failed), sum(Tally::skipped));
        let known = sum(Tally::known);
        let expected = match known {
            0 => String::new(),
            n => format!(" and {n} more as their manifests say"),
        };
        let not_run = match self.work.len() - passed - failed - known - skipped {
            0 => String::new(),
            n => format!(", {n} not run"),
        };
        let kernels = match self.kernels.len() {
            1 => "1 kernel".to_string(),
            n => format!("{n} kernels"),
        };
        let text = format!(
            "{} of {kernels} on {}: {passed} passed, {failed} failed{expected}, {skipped} skipped{not_run} in {:.1} s",
            cases(self.work.len()),
            self.repeat.device,
            self.estimate.elapsed().as_secs_f64(),
        );
        ([passed, failed, known], text)
    }

    /// The end of a check that Ctrl-C stopped; that of the process.
    pub fn stopped(&self) -> ! {
        self.end();
        eprintln!("error: stopped: {}", self.counts().1);
        std::process::exit(130)
    }

    /// The end of a check. Failures that manifests know of count unless they are allowed.
    ///
    /// # Errors
    /// A case failed, or none could run.
    pub fn finish(self, allow_known: bool) -> Result {
        self.end();
        let ([passed, failed, known], text) = self.counts();
        if failed > 0 || known > 0 && !allow_known {
            let way = match failed {
                0 => "; --allow-known takes those",
                _ => "",
            };
            return Err(Failure::Negative(text + way));
        }
        if passed + known == 0 {
            return Err(Failure::Negative(format!("{text}: nothing was checked")));
        }
        self.say(&text);
        Ok(())
    }
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
        "known": trial.known,
        "skipped": trial.skipped,
        "verification": trial.verification,
        "agreement": trial.agreement,
        "seconds": trial.seconds,
        "repeat": repeat.command(subject),
    })
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
