//! One case from plan to record.

use std::time::Instant;

use super::variant::{Executed, launch_sha256};
use super::worker::Step;
use super::{Limits, energy, sampling, warning};
use crate::device::{Clock, Device, DeviceError, ErrorKind, Loaded, ShareRule};
use crate::kernel::{KernelError, Registry};
use crate::op::{Family, Problem, Tensor};
use crate::record::{
    Energy, Kernel as KernelFacts, Record, SCHEMA, Sampled, Status, Timing, Traffic, binary_sha256,
};
use crate::sweep::Case;
use crate::verify::{Reference, Subset, add_run_facts, hold_run, reason, same_bits};

/// Reference operations to spend on one case: a second or two on two cores. Not a matter of the
/// machine, so that what is verified is the same everywhere.
const REFERENCE_FLOPS: f64 = 1e10;
/// An emulated run that took longer is not repeated to compare its bits.
const REPEATED_EMULATION_SECONDS: f64 = 0.25;

/// The device is gone, and with it the rest of the run: why, and the way out.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Lost(pub String);

/// A verified job, and how many of what was executed make up the problem.
pub type Held<'a> = (Box<dyn Loaded + 'a>, u64);

/// Measures cases on a device.
pub struct Bench<'a> {
    registry: &'a Registry,
    device: &'a dyn Device,
    sweep: String,
    command: String,
    limits: Limits,
    rule: ShareRule,
    /// What stands for the device in the ids of records.
    place: String,
    /// Whether energy is measured.
    energy: bool,
    /// What the idle device takes, W, or why that is not known; measured when first asked for.
    idle: Option<Result<f64, String>>,
    /// Hears what a case is at.
    watch: &'a dyn Fn(Step),
    /// Inputs and reference of the last case: its other tiles and kernels use them again.
    last: Option<(Question, Answer)>,
}

/// What decides inputs and reference.
type Question = (Problem, Family, u64);

struct Answer {
    inputs: Vec<Tensor>,
    /// Made when it is first asked for: runs of sampled CTAs have references of their own.
    reference: Option<Reference>,
}

/// How a case ended early.
struct End(Status, String);

enum Fail {
    End(End),
    Lost(Lost),
}

impl From<End> for Fail {
    fn from(end: End) -> Fail {
        Fail::End(end)
    }
}

impl From<KernelError> for Fail {
    fn from(e: KernelError) -> Fail {
        Fail::End(End(Status::BuildFailed, e.0))
    }
}

impl From<DeviceError> for Fail {
    fn from(e: DeviceError) -> Fail {
        let status = match e.kind() {
            ErrorKind::Unavailable => return Fail::Lost(Lost(e.to_string())),
            ErrorKind::Build => Status::BuildFailed,
            ErrorKind::Launch => Status::LaunchFailed,
            ErrorKind::Timeout => Status::Timeout,
        };
        Fail::End(End(status, e.to_string()))
    }
}

impl<'a> Bench<'a> {
    /// `sweep` and `command` go into every record.
    pub fn new(
        registry: &'a Registry,
        device: &'a dyn Device,
        sweep: &str,
        command: &str,
        limits: Limits,
    ) -> Bench<'a> {
        let (sweep, command) = (sweep.to_string(), command.to_string());
        let (rule, place) = (ShareRule::default(), device.facts().id.clone());
        Bench {
            registry,
            device,
            sweep,
            command,
            limits,
            rule,
            place,
            energy: false,
            idle: None,
            watch: &|_| {},
            last: None,
        }
    }

    /// What stands for the device in the ids of records, where it is not the device's own id: of several
    /// GPUs any may take a case.
    pub fn with_place(mut self, place: &str) -> Bench<'a> {
        self.place = place.to_string();
        self
    }

    /// Whether the energy of each case is measured, which takes a GPU some three seconds a case.
    pub fn with_energy(mut self, energy: bool) -> Bench<'a> {
        self.energy = energy;
        self
    }

    /// Who hears what a case is at, before it is at it.
    pub fn with_watch(mut self, watch: &'a dyn Fn(Step)) -> Bench<'a> {
        self.watch = watch;
        self
    }

    /// Which CTAs the emulator executes.
    pub fn with_share_rule(mut self, rule: ShareRule) -> Bench<'a> {
        self.rule = rule;
        self
    }

    /// The record of a case that is left out, or of whose measuring nothing came back.
    pub fn ended(&self, case: &Case, status: Status, why: &str) -> Record {
        let mut record = self.blank(case);
        record.status = status;
        record.reason = Some(why.to_string());
        record
    }

    /// Runs, verifies and times a case. However it ends there is a record.
    ///
    /// # Errors
    /// The device can run nothing any more; the case has no record and should be run again.
    pub fn measure(&mut self, case: &Case) -> Result<Record, Lost> {
        let mut record = self.blank(case);
        match self.fill(case, &mut record) {
            Ok(()) => {}
            Err(Fail::End(End(status, why))) => {
                (record.status, record.reason, record.timing) = (status, Some(why), None);
                record.energy = None;
            }
            Err(Fail::Lost(lost)) => return Err(lost),
        }
        Ok(record)
    }

    fn blank(&self, case: &Case) -> Record {
        let facts = self.device.facts();
        let target = self.registry.get(&case.kernel).map(|k| k.manifest.target.clone());
        Record {
            schema: SCHEMA,
            id: case.id(&self.sweep, &self.place),
            sweep: self.sweep.clone(),
            time: format!("{:.3}", jiff::Timestamp::now()),
            command: self.command.clone(),
            version: env!("CARGO_PKG_VERSION").to_string(),
            binary_sha256: binary_sha256().map(String::from),
            sample_ctas: facts.emulated.then(|| self.rule.to_string()),
            attempt: None,
            process: None,
            energy: None,
            problem: case.problem.clone(),
            phase: case.problem.phase(),
            family: case.family,
            seed: case.seed,
            kernel: KernelFacts {
                name: case.kernel.clone(),
                tile: case.tile.0.clone(),
                ptx_sha256: String::new(),
                launch_sha256: None,
                target: target.unwrap_or_default(),
            },
            device: facts.clone(),
            status: Status::Ok,
            reason: None,
            build: None,
            verification: None,
            timing: None,
            traffic: None,
            flops: case.problem.flops(),
            flops_formula: case.problem.flops_formula().to_string(),
        }
    }

    /// Runs and verifies a case and leaves it loaded, with a record that has no time yet. `None` in place
    /// of the job where the case failed; the record says how. The second is how many of what was executed
    /// make up the problem.
    ///
    /// # Errors
    /// As of [`Bench::measure`].
    pub fn hold(&mut self, case: &Case) -> Result<(Record, Option<Held<'a>>), Lost> {
        let mut record = self.blank(case);
        match self.prepare(case, &mut record) {
            Ok(held) => Ok((record, Some(held))),
            Err(Fail::End(End(status, why))) => {
                (record.status, record.reason) = (status, Some(why));
                Ok((record, None))
            }
            Err(Fail::Lost(lost)) => Err(lost),
        }
    }

    fn fill(&mut self, case: &Case, record: &mut Record) -> Result<(), Fail> {
        // A device that had no work yet is idle.
        if self.energy && self.idle.is_none() && !self.device.facts().emulated {
            (self.watch)(Step::Time);
            self.idle = Some(energy::idle(self.device));
        }
        let (mut loaded, times) = self.prepare(case, record)?;
        (self.watch)(Step::Time);
        record.timing = Some(time(self.device, loaded.as_mut(), case, times, &self.limits)?);
        if let Some(doubt) = record.doubt()
            && let Some(Timing::Measured { warnings, .. }) = &mut record.timing
        {
            warnings.push(doubt);
        }
        record.energy = match (&self.idle, loaded.clock(times)) {
            (Some(Ok(idle)), Clock::Measured(s)) => Some(energy::energy(self.device, s, *idle)?),
            (Some(Err(why)), _) => Some(Energy::unavailable(why)),
            _ => None,
        };
        Ok(())
    }

    fn prepare(&mut self, case: &Case, record: &mut Record) -> Result<Held<'a>, Fail> {
        let (device, at) = (self.device, self.watch);
        let facts = device.facts();
        let kernel = self.registry.get(&case.kernel)?;
        let drawn = |()| kernel.admits_drawn(&case.problem, &case.family, case.seed);
        kernel.supports(&case.problem).and_then(drawn).map_err(|e| End(Status::Invalid, e.0))?;
        let Executed { problem: executed, times, job } = Executed::new(kernel, case, facts)?;
        record.kernel.ptx_sha256 = job.ptx.sha256.clone();
        record.kernel.launch_sha256 = Some(launch_sha256(&job));
        let mut traffic =
            Traffic { min_bytes: case.problem.min_bytes(), counts: None, sampled: None };

        at(Step::Inputs);
        let answer = answer(&mut self.last, (executed.clone(), case.family, case.seed));
        at(Step::Load);
        let mut loaded = device.load(&job, &answer.inputs)?;
        loaded.limit_ctas(self.rule.of(executed.flops()))?;
        record.build = Some(loaded.build().clone());
        at(Step::Run);
        let start = Instant::now();
        let first = loaded.run()?;
        let seconds = start.elapsed().as_secs_f64();
        if let Some(counts) = &first.counts {
            traffic.counts = Some(counts.times(times));
            let ctas = first.share.clone();
            let part = times > 1 || ctas.is_some();
            traffic.sampled = part.then(|| Sampled { executed: executed.clone(), times, ctas });
        }
        record.traffic = Some(traffic);

        at(Step::Verify);
        let held = match first.computed {
            Some(_) => hold_run(&executed, &case.family, &answer.inputs, &first, REFERENCE_FLOPS),
            None => answer.reference(&executed).hold(&case.family, &first.outputs),
        };
        let mut verification = held.verification;
        let mut damage = first.damage;
        let mut same = None;
        if !facts.emulated || seconds < REPEATED_EMULATION_SECONDS {
            at(Step::Run);
            let second = loaded.run()?;
            same = Some(same_bits(&first.outputs, &second.outputs));
            for sentence in second.damage {
                if !damage.contains(&sentence) {
                    damage.push(sentence);
                }
            }
        }
        add_run_facts(&mut verification, damage, same);
        let why = reason(&verification);
        record.verification = Some(verification);
        if let Some(why) = why {
            return Err(End(Status::Wrong, why).into());
        }
        Ok((loaded, times))
    }
}

/// Inputs, and perhaps their reference, from `last` where it answers the same question.
fn answer(last: &mut Option<(Question, Answer)>, question: Question) -> &mut Answer {
    if last.as_ref().is_none_or(|(asked, _)| *asked != question) {
        // The old one goes first: two of the largest need not fit.
        *last = None;
        let (problem, family, seed) = &question;
        let inputs = problem.inputs(family, *seed);
        *last = Some((question, Answer { inputs, reference: None }));
    }
    &mut last.as_mut().expect("just answered").1
}

impl Answer {
    fn reference(&mut self, problem: &Problem) -> &Reference {
        self.reference.get_or_insert_with(|| {
            Reference::new(problem, &self.inputs, Subset::plan(problem, REFERENCE_FLOPS))
        })
    }
}

/// The time of a verified job.
fn time(
    device: &dyn Device,
    loaded: &mut dyn Loaded,
    case: &Case,
    times: u64,
    limits: &Limits,
) -> Result<Timing, DeviceError> {
    match loaded.clock(times) {
        Clock::Modelled(Some(modelled)) => Ok(Timing::Modelled(modelled)),
        Clock::Modelled(None) => {
            Err(DeviceError::Launch(format!("{}: nothing was counted", case.kernel)))
        }
        Clock::Measured(sampler) => {
            let before = device.health();
            let max_mhz = before.as_ref().and_then(|h| h.max_sm_mhz).map(f64::from);
            let start = Instant::now();
            let mut elapsed = || start.elapsed();
            let series = sampling::series(sampler, case.regime, limits, max_mhz, &mut elapsed)?;
            let after = device.health();
            let warnings = warning::warnings(
                &series,
                limits.precision,
                before.as_ref(),
                after.as_ref(),
                device.facts(),
            );
            Ok(Timing::Measured {
                regime: case.regime,
                median_ns: series.median_ns,
                ci_ns: series.ci_ns,
                stopped: series.stopped.to_string(),
                samples: series.samples,
                before,
                after,
                warnings: warnings.iter().map(ToString::to_string).collect(),
            })
        }
    }
}

#[cfg(test)]
mod tests;
