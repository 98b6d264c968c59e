//! Cases measured in a process of its own, so that what a kernel does to its process costs its case and
//! no other: a fault takes the context along, a driver may hang, a process may be killed.
//!
//! [`Worker`] is the side that asks, [`serve`] the side that measures.

use std::io::{self, Write};
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Bench, Limits, Lost};
use crate::child::{Child, NoAnswer};
use crate::device::{Device, DeviceError, ShareRule};
use crate::kernel::Registry;
use crate::record::{Record, Status};
use crate::sweep::Case;

/// What the cases of a run share.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Site {
    /// What the device is opened as.
    pub device: String,
    /// What stands for the device in the ids of records; the device's own id if missing.
    pub place: Option<String>,
    /// The name of the sweep, and the command line, for the records.
    pub sweep: String,
    pub command: String,
    /// When sampling of a case ends, on a GPU.
    pub limits: Limits,
    /// Whether energy is measured.
    pub energy: bool,
    /// Which CTAs the emulator executes.
    #[serde(with = "rule")]
    pub sample: ShareRule,
}

mod rule {
    use super::*;

    pub fn serialize<S: serde::Serializer>(rule: &ShareRule, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(rule)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<ShareRule, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

impl Site {
    /// A bench of this site.
    pub fn bench<'a>(&self, registry: &'a Registry, device: &'a dyn Device) -> Bench<'a> {
        let bench = Bench::new(registry, device, &self.sweep, &self.command, self.limits)
            .with_share_rule(self.sample)
            .with_energy(self.energy);
        match &self.place {
            Some(place) => bench.with_place(place),
            None => bench,
        }
    }
}

/// What a case is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The host draws inputs.
    Inputs,
    /// The device compiles and allocates.
    Load,
    /// The device runs everything once.
    Run,
    /// The host holds results against fp64.
    Verify,
    /// The device takes samples.
    Time,
}

impl Step {
    /// How long a process may be silent at it. On the host work takes as long as it takes, and nothing
    /// can hang; a device has a watch of its own, which ends a kernel after 20 s.
    fn longest(self, limits: &Limits) -> Duration {
        const DEVICE: Duration = Duration::from_secs(240);
        match self {
            Step::Inputs | Step::Verify => Duration::from_secs(24 * 3600),
            Step::Load | Step::Run => DEVICE,
            Step::Time => DEVICE + 4 * limits.time,
        }
    }

    fn words(self) -> &'static str {
        match self {
            Step::Inputs => "its inputs were drawn",
            Step::Load => "it was compiled and loaded",
            Step::Run => "it ran",
            Step::Verify => "its results were held against fp64",
            Step::Time => "it was timed",
        }
    }
}

/// What a process says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Said {
    Ready,
    Refused(String),
    At(Step),
    Record(Box<Record>),
    Lost(String),
}

/// What came of a case in a process of its own.
#[derive(Debug)]
pub enum Came {
    Record(Box<Record>),
    /// The process did not outlive the case: how it ended, for its record.
    Died(Status, String),
    /// The device can run nothing any more in that process.
    Lost(Lost),
}

/// A process that measures.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    limits: Limits,
    /// How long it may be silent at a step, where a test has less time.
    longest: Option<Duration>,
    /// Cases it has measured.
    measured: usize,
}

impl Worker {
    /// Starts `command`, which must [`serve`] what comes in.
    ///
    /// # Errors
    /// It cannot be started, or cannot open the device: why.
    pub fn start(command: Command, site: &Site) -> Result<Worker, String> {
        let named = format!("{command:?}");
        let mut child = Child::start(command).map_err(|e| e.to_string())?;
        let opening = Duration::from_secs(120);
        let answer = child.ask(site).map_err(NoAnswer::from).and_then(|()| child.answer(opening));
        match answer {
            Ok(Said::Ready) => {
                Ok(Worker { child, limits: site.limits, longest: None, measured: 0 })
            }
            Ok(Said::Refused(why)) => Err(why),
            Ok(_) => Err(format!("{named} answers before it is asked")),
            Err(e) => Err(format!("{named}: {e} ({})", child.kill())),
        }
    }

    /// Whether it has not measured yet.
    pub fn is_fresh(&self) -> bool {
        self.measured == 0
    }

    /// Measures a case. After [`Came::Died`] and [`Came::Lost`], and where a device that is present
    /// refused a launch or ended one, the process should be given up.
    pub fn measure(&mut self, case: &Case) -> Came {
        self.measured += 1;
        let mut step = Step::Inputs;
        if let Err(e) = self.child.ask(case) {
            return self.died(step, &e.into());
        }
        loop {
            let longest = self.longest.unwrap_or_else(|| step.longest(&self.limits));
            match self.child.answer(longest) {
                Ok(Said::At(now)) => step = now,
                Ok(Said::Record(record)) => return Came::Record(record),
                Ok(Said::Lost(why)) => return Came::Lost(Lost(why)),
                Ok(Said::Ready) => {
                    let what = io::Error::other("it does not say what came of the case");
                    return self.died(step, &what.into());
                }
                Ok(Said::Refused(why)) => return self.died(step, &io::Error::other(why).into()),
                Err(e) => return self.died(step, &e),
            }
        }
    }

    fn died(&mut self, step: Step, why: &NoAnswer) -> Came {
        let status = match why {
            NoAnswer::Silent(_) => Status::Timeout,
            _ => Status::LaunchFailed,
        };
        let ended = self.child.kill();
        let why = format!(
            "the process that measured the case was lost while {}: {why} ({ended})",
            step.words()
        );
        Came::Died(status, why)
    }
}

/// What a [`Worker`]'s process does: measures the cases of the lines that come in behind the site, and
/// writes what it is at and what came of each.
///
/// # Errors
/// The input or the output breaks off, or the input is neither site nor case.
pub fn serve(
    registry: &Registry,
    open: impl Fn(&str) -> Result<Box<dyn Device>, DeviceError>,
    mut from: impl Iterator<Item = io::Result<String>>,
    to: impl Write,
) -> io::Result<()> {
    let to = std::cell::RefCell::new(to);
    let say = |said: &Said| -> io::Result<()> {
        let mut to = to.borrow_mut();
        writeln!(to, "{}", serde_json::to_string(said)?)?;
        to.flush()
    };
    let Some(first) = from.next() else { return Ok(()) };
    let site: Site = serde_json::from_str(&first?)?;
    let device = match open(&site.device) {
        Ok(device) => device,
        Err(e) => return say(&Said::Refused(e.to_string())),
    };
    // Whoever is not heard any more is about to end.
    let at = |step| drop(say(&Said::At(step)));
    let mut bench = site.bench(registry, device.as_ref()).with_watch(&at);
    say(&Said::Ready)?;
    for line in from {
        let case: Case = serde_json::from_str(&line?)?;
        say(&match bench.measure(&case) {
            Ok(record) => Said::Record(Box::new(record)),
            Err(Lost(why)) => Said::Lost(why),
        })?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;
