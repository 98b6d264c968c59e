//! Progress of a run: a line for each case, and on a terminal a bar with the time left.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::super::console;
use crate::device::{CtaShare, Facts, ShareRule};
use crate::op::{Problem, Side};
use crate::record::{Record, Status, Timing};
use crate::sweep::Case;

/// A status for people.
pub fn word(status: Status) -> &'static str {
    match status {
        Status::Ok => "ok",
        Status::Skipped => "skipped",
        Status::Invalid => "invalid",
        Status::BuildFailed => "build failed",
        Status::LaunchFailed => "launch failed",
        Status::Wrong => "wrong",
        Status::Timeout => "timeout",
    }
}

/// The progress of a run.
pub struct Bar {
    bar: ProgressBar,
    emulated: bool,
    sample: ShareRule,
    done: usize,
    all: usize,
    /// Widths of the columns.
    kernel: usize,
    problem: usize,
    family: usize,
}

impl Bar {
    /// `sample`: which CTAs the emulator executes.
    pub fn new(cases: &[&Case], facts: &Facts, sample: ShareRule) -> Bar {
        let emulated = facts.emulated;
        let bar = ProgressBar::new(cases.iter().map(|c| cost(&c.problem, emulated, sample)).sum());
        let style = ProgressStyle::with_template("{bar:40} {msg}, {eta} left")
            .expect("a valid template")
            .progress_chars("=> ");
        bar.set_style(style);
        // Hidden anyway where stderr is no terminal.
        bar.enable_steady_tick(Duration::from_secs(1));
        let width = |f: &dyn Fn(&Case) -> usize| cases.iter().map(|c| f(c)).max().unwrap_or(0);
        let this = Bar {
            bar,
            emulated,
            sample,
            done: 0,
            all: cases.len(),
            kernel: width(&|c| c.kernel.len()),
            problem: width(&|c| c.problem.short().len()),
            family: width(&|c| c.family.to_string().len()),
        };
        this.message();
        this
    }

    fn message(&self) {
        self.bar.set_message(format!("{}/{}", self.done, self.all));
    }

    /// Says how a case ended.
    pub fn finished(&mut self, record: &Record) {
        self.done += 1;
        let line = self.line(record);
        self.bar.suspend(|| console::say(&line));
        self.bar.inc(cost(&record.problem, self.emulated, self.sample));
        self.message();
    }

    /// Takes the bar off the terminal.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    fn line(&self, record: &Record) -> String {
        let digits = self.all.to_string().len();
        let head = format!(
            "{:digits$}/{}  {:kw$}  {:pw$}  {:fw$}",
            self.done,
            self.all,
            record.kernel.name,
            record.problem.short(),
            record.family.to_string(),
            kw = self.kernel,
            pw = self.problem,
            fw = self.family,
        );
        let worst = record.verification.iter().flat_map(|v| &v.outputs).map(|o| o.ratio());
        let worst = worst.fold(None, |worst: Option<f64>, x| Some(worst.map_or(x, |w| w.max(x))));
        let mut text = head;
        if let Some(timing) = &record.timing {
            let ns = timing.ns();
            let kind = match timing {
                Timing::Measured { .. } => "ms".to_owned(),
                Timing::Modelled(_) => match record.model_error() {
                    Some(error) => format!("ms (modelled, {})", error.percent()),
                    None => "ms modelled".to_owned(),
                },
            };
            text += &format!("  {:>9} {kind}  {:>6.1} TFLOP/s", ms(ns), record.flops / ns / 1e3);
        }
        if let Some(worst) = worst {
            text += &format!("  E/F {worst:.2}");
        }
        let sampled = record.traffic.as_ref().and_then(|t| t.sampled.as_ref()?.ctas.as_ref());
        if let Some(ctas) = sampled.filter(|ctas| ctas.is_part()) {
            text += &format!("  sampled {} of {} CTAs", ctas.executed, ctas.of);
        }
        text += &format!("  {}", word(record.status));
        if let Some(reason) = &record.reason {
            for line in reason.lines() {
                text += &format!("\n      {line}");
            }
        }
        text
    }
}

/// Four digits, whatever the size.
fn ms(ns: f64) -> String {
    let ms = ns / 1e6;
    match ms {
        x if x >= 100.0 => format!("{x:.1}"),
        x if x >= 10.0 => format!("{x:.2}"),
        x if x >= 1.0 => format!("{x:.3}"),
        x => format!("{x:.4}"),
    }
}

/// About how long a case takes, against others on the same device.
fn cost(problem: &Problem, emulated: bool, sample: ShareRule) -> u64 {
    if !emulated {
        // Mostly verification, which is bounded, and the making of inputs.
        return 300 + (problem.min_bytes() / 1e6) as u64;
    }
    let executed = problem.one_head_group().0;
    let (weight, whole) = match problem.op().side() {
        // One large launch is what can be sampled.
        Side::Full => (1.0, sample),
        // Small products and exponentials emulate slower, FLOP for FLOP.
        Side::Linear => (3.0, ShareRule::All),
    };
    let share = match whole.of(executed.flops()) {
        CtaShare::Fraction(share) => share,
        CtaShare::All | CtaShare::Most(_) => 1.0,
    };
    20 + (executed.flops() * share * weight / 1e6) as u64
}
