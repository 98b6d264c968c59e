//! One case of the regression suite: run twice, look at everything that can be wrong.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::workers::{self, Crew, Event, Open};
use super::{Agreement, Reference, Subset, add_run_facts, agreement, output_passes, output_reason};
use crate::device::{Device, DeviceError, ErrorKind, Job, Loaded, STEP_LIMIT, Trap};
use crate::kernel::{Kernel, Loss};
use crate::op::{Flow, Problem, Role, Tensor, TensorSpec};
use crate::record::Verification;
use crate::sweep::Case;

/// What is tried: a case, and how.
#[derive(Debug, Clone)]
pub struct Subject {
    pub case: Case,
    /// Check as well that other inputs after some token leave all outputs before it as they are.
    pub prefix: bool,
    /// Grids that fill the device are made for so many multiprocessors if it has more: each CTA
    /// then has more to do.
    pub multiprocessors: Option<u32>,
    /// Warp instructions after which the emulator takes a CTA to hang, if not [`Subject::steps`].
    pub most_steps: Option<u64>,
}

/// Warp instructions that a check allows a CTA whatever its problem, and FLOPs of the problem for
/// each one more. No CTA of the suites takes more than a tenth of that; a CTA that did a problem
/// alone, one FLOP a lane, would take half of what the FLOPs allow.
const STEPS: u64 = 5_000_000;
const FLOPS_A_STEP: f64 = 16.0;

impl Subject {
    /// The command that repeats this case alone; `kernels` is the kernel folder if not the
    /// embedded one.
    pub fn command(&self, device: &str, kernels: Option<&Path>) -> String {
        let folder = kernels.map_or_else(String::new, |k| format!("--kernels {} ", k.display()));
        let tile = match self.case.tile.0.is_empty() {
            true => String::new(),
            false => format!(" --tile {}", self.case.tile),
        };
        format!(
            "crossover {folder}check {} --device {device} --seed {}{tile} --problem {} --family '{}'{}{}",
            self.case.kernel,
            self.case.seed,
            self.case.problem.settings(),
            self.case.family,
            self.multiprocessors.map_or_else(String::new, |n| format!(" --sms {n}")),
            self.most_steps.map_or_else(String::new, |n| format!(" --steps {n}")),
        )
    }

    /// Warp instructions that a CTA may execute before the emulator takes it to hang.
    pub fn steps(&self) -> u64 {
        let usual = STEPS + (self.case.problem.flops() / FLOPS_A_STEP) as u64;
        self.most_steps.unwrap_or(usual.min(STEP_LIMIT))
    }

    /// Multiprocessors that the job is made for on a device that has `all`.
    fn multiprocessors(&self, all: u32) -> u32 {
        self.multiprocessors.map_or(all, |n| n.min(all))
    }

    /// Compiles the job of this case.
    fn load<'d>(
        &self,
        job: &Job,
        inputs: &[Tensor],
        device: &'d dyn Device,
    ) -> Result<Box<dyn Loaded + 'd>, DeviceError> {
        let mut loaded = device.load(job, inputs)?;
        loaded.limit_steps(self.steps());
        Ok(loaded)
    }

    /// One line, of words that a filter can name.
    pub fn label(&self) -> String {
        let Case { kernel, tile, problem, family, .. } = &self.case;
        let tile = tile.to_string().replace(',', " ");
        let problem = problem.settings().replace(',', " ");
        let sms = self.multiprocessors.map_or_else(String::new, |n| format!(" sms={n}"));
        format!("{kernel} {tile} {problem}{sms} {family}")
    }
}

/// What a case is looked at for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// Template, manifest or PTX.
    Build,
    /// A fault or trap while it runs.
    Trap,
    /// Did not end.
    Timeout,
    /// A canary, or an input after the run.
    Damage,
    /// NaN or infinity where the reference is finite; poison that was never overwritten.
    Nonfinite,
    /// E/F over its limit, or an element grossly off.
    Accuracy,
    /// A second run gave other bits.
    Determinism,
    /// Later inputs changed earlier outputs.
    Prefix,
    /// Another device gave other results.
    Agreement,
}

impl Check {
    /// The name in JSON and messages.
    pub fn name(self) -> &'static str {
        match self {
            Check::Build => "build",
            Check::Trap => "trap",
            Check::Timeout => "timeout",
            Check::Damage => "damage",
            Check::Nonfinite => "nonfinite",
            Check::Accuracy => "accuracy",
            Check::Determinism => "determinism",
            Check::Prefix => "prefix",
            Check::Agreement => "agreement",
        }
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Fault {
    pub check: Check,
    /// For people.
    pub message: String,
    /// What the emulator knows of a fault at run time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trap: Option<Box<Trap>>,
}

/// How a trial ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    Passed,
    Failed,
    /// Not run, never counted as passed.
    Skipped,
}

/// What came of a case.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trial {
    pub ending: Ending,
    pub faults: Vec<Fault>,
    /// Why the kernel's manifest says that it fails, where it fails no worse than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<String>,
    /// Why it was skipped.
    pub skipped: Option<String>,
    pub verification: Option<Verification>,
    /// Maps of bad tiles, by output.
    pub maps: Vec<(String, String)>,
    /// By output, where a second device was asked for.
    pub agreement: Vec<Agreement>,
    /// Time on the host, reference included.
    pub seconds: f64,
    /// The device may be unusable after this.
    pub fatal: bool,
}

impl Trial {
    fn new() -> Trial {
        Trial {
            ending: Ending::Passed,
            faults: Vec::new(),
            known: None,
            skipped: None,
            verification: None,
            maps: Vec::new(),
            agreement: Vec::new(),
            seconds: 0.0,
            fatal: false,
        }
    }

    /// A case that is not run.
    pub fn skip(why: impl Into<String>) -> Trial {
        Trial { ending: Ending::Skipped, skipped: Some(why.into()), ..Trial::new() }
    }

    /// A case that failed by that check.
    pub fn failed(check: Check, message: impl Into<String>) -> Trial {
        let mut trial = Trial::new();
        trial.fault(check, message);
        trial
    }

    fn fault(&mut self, check: Check, message: impl Into<String>) {
        self.faults.push(Fault { check, message: message.into(), trap: None });
        self.ending = Ending::Failed;
        self.known = None;
    }

    fn device_fault(&mut self, context: &str, error: &DeviceError) {
        let check = match error.kind() {
            ErrorKind::Build => Check::Build,
            ErrorKind::Timeout => Check::Timeout,
            ErrorKind::Launch | ErrorKind::Unavailable => Check::Trap,
        };
        self.fatal |= check != Check::Build;
        self.fault(check, format!("{context}{error}"));
        if let (DeviceError::Trap(t), Some(fault)) = (error, self.faults.last_mut()) {
            if check == Check::Timeout {
                fault.message += &format!(
                    "\n  a check allows a CTA {} million warp instructions and one more for each \
                     {FLOPS_A_STEP} FLOPs of the problem; --steps N allows it N",
                    STEPS / 1_000_000
                );
            }
            fault.trap = Some(t.clone());
        }
    }
}

/// Runs a case on a device, and on a second one to compare with if given.
pub fn run(
    kernel: &Kernel,
    subject: &Subject,
    device: &dyn Device,
    against: Option<&dyn Device>,
) -> Trial {
    if let Some(why) = kernel.unfit(device.facts()) {
        return Trial::skip(why);
    }
    // A problem of the suite is one that a user may have, without a tile.
    if let Err(e) = kernel.default_tile(&subject.case.problem) {
        return Trial::failed(Check::Build, e.0);
    }
    let multiprocessors = subject.multiprocessors(device.facts().multiprocessors);
    let Case { problem, tile, family, seed, .. } = &subject.case;
    let drawn = kernel.admits_drawn(problem, family, *seed);
    match drawn.and_then(|()| kernel.job_on(problem, tile, multiprocessors)) {
        Ok(job) => run_known(&job, subject, device, against, kernel.manifest.loss(family)),
        Err(e) => Trial::failed(Check::Build, e.0),
    }
}

/// As [`run`], of a job that is made already.
pub fn run_job(
    job: &Job,
    subject: &Subject,
    device: &dyn Device,
    against: Option<&dyn Device>,
) -> Trial {
    run_known(job, subject, device, against, None)
}

/// As [`run_job`], of a kernel that is known to lose so much on these inputs.
fn run_known(
    job: &Job,
    subject: &Subject,
    device: &dyn Device,
    against: Option<&dyn Device>,
    loss: Option<&Loss>,
) -> Trial {
    let start = Instant::now();
    let room = device.facts().shared_bytes_per_cta;
    if let Some(launch) = job.launches.iter().find(|l| l.shared_bytes > room) {
        return Trial::skip(format!(
            "{} takes {} bytes of shared memory; {} has {room} a CTA",
            launch.entry,
            launch.shared_bytes,
            device.facts().id
        ));
    }
    let mut trial = Trial::new();
    let inputs = subject.case.problem.inputs(&subject.case.family, subject.case.seed);
    if let Some(outputs) = twice(job, subject, &inputs, device, loss, &mut trial) {
        if subject.prefix {
            prefix(job, subject, &inputs, &outputs, device, &mut trial);
        }
        if let Some(other) = against {
            compare(job, subject, &inputs, &outputs, other, &mut trial);
        }
    }
    trial.seconds = start.elapsed().as_secs_f64();
    trial
}

/// Two runs and what they left.
fn twice(
    job: &Job,
    subject: &Subject,
    inputs: &[Tensor],
    device: &dyn Device,
    loss: Option<&Loss>,
    trial: &mut Trial,
) -> Option<Vec<Tensor>> {
    let runs =
        subject.load(job, inputs, device).and_then(|mut loaded| Ok((loaded.run()?, loaded.run()?)));
    let (first, second) = match runs {
        Ok(runs) => runs,
        Err(e) => {
            trial.device_fault("", &e);
            return None;
        }
    };
    let same = super::same_bits(&first.outputs, &second.outputs);
    let reference =
        Reference::new(&subject.case.problem, inputs, Subset::whole(&subject.case.problem));
    let Case { problem, family, .. } = &subject.case;
    let family = match problem.has_usual_scale() {
        true => *family,
        false => problem.op().family_of(problem, inputs, family),
    };
    let mut held = reference.hold(&family, &first.outputs);
    let mut damage = first.damage;
    damage.extend(second.damage);
    damage.dedup();
    add_run_facts(&mut held.verification, damage, Some(same));
    for text in &held.verification.damage {
        trial.fault(Check::Damage, text);
    }
    for o in held.verification.outputs.iter().filter(|o| !output_passes(o)) {
        let check = if o.nonfinite > 0 { Check::Nonfinite } else { Check::Accuracy };
        trial.fault(check, output_reason(o));
    }
    let inexact = !trial.faults.is_empty();
    if inexact && trial.faults.iter().all(|f| f.check == Check::Accuracy) {
        // Any fault that comes behind makes it unknown again.
        let no_worse = |loss: &&Loss| {
            reference
                .hold_to(loss.most, &first.outputs)
                .verification
                .outputs
                .iter()
                .all(output_passes)
        };
        trial.known = loss.filter(no_worse).map(|loss| loss.why.clone());
    }
    if !same {
        trial.fault(
            Check::Determinism,
            first_difference(&subject.case.problem, &first.outputs, &second.outputs, |_| true)
                .map_or_else(String::new, |at| format!("a second run gave other bits: {at}")),
        );
    }
    trial.maps = held.maps;
    trial.verification = Some(held.verification);
    Some(first.outputs)
}

/// Runs again with other inputs from a token on; outputs before it must keep their bits.
fn prefix(
    job: &Job,
    subject: &Subject,
    inputs: &[Tensor],
    outputs: &[Tensor],
    device: &dyn Device,
    trial: &mut Trial,
) {
    let problem = &subject.case.problem;
    let t = problem.tokens();
    // Somewhere inside, rarely at a block's edge.
    let cut = (t / 2 + 3).min(t - 1);
    // Of the tokens that are looked back on, those that the rows before the cut see.
    let seen = problem.op().cut(problem, &(0..cut)).map_or(cut, |needed| needed.past.end);
    let other =
        subject.case.problem.inputs(&subject.case.family, subject.case.seed.wrapping_add(0x5eed));
    let specs: Vec<TensorSpec> = subject.case.problem.tensors_of(Flow::Input);
    let mixed: Vec<Tensor> = specs
        .iter()
        .zip(inputs.iter().zip(&other))
        .map(|(spec, (a, b))| {
            let mut mixed = a.clone();
            let is_time = |role: &Option<Role>| matches!(role, Some(Role::Token | Role::Past));
            let Some(axis) = spec.roles.iter().position(is_time) else { return mixed };
            let row = spec.shape[axis + 1..].iter().product::<usize>() * spec.dtype.bytes();
            let (first, all) = match spec.roles[axis] {
                Some(Role::Past) => (seen, spec.shape[axis]),
                _ => (cut, t),
            };
            for start in (0..mixed.bytes.len()).step_by(row * all) {
                let changed = start + first * row..start + all * row;
                mixed.bytes[changed.clone()].copy_from_slice(&b.bytes[changed]);
            }
            mixed
        })
        .collect();
    let run = subject.load(job, &mixed, device).and_then(|mut loaded| loaded.run());
    match run {
        Err(e) => trial.device_fault(&format!("with other inputs from token {cut} on: "), &e),
        Ok(run) => {
            let early = |token: Option<usize>| token.is_some_and(|t| t < cut);
            if let Some(at) = first_difference(&subject.case.problem, outputs, &run.outputs, early)
            {
                trial.fault(
                    Check::Prefix,
                    format!("other inputs from token {cut} on change an earlier output: {at}"),
                );
            }
        }
    }
}

/// The first element whose bits differ, among those whose token passes; outputs without tokens
/// have none.
fn first_difference(
    problem: &Problem,
    a: &[Tensor],
    b: &[Tensor],
    held: impl Fn(Option<usize>) -> bool,
) -> Option<String> {
    let specs = problem.tensors_of(Flow::Output).into_iter();
    for (spec, (a, b)) in specs.zip(a.iter().zip(b)) {
        let dims: Vec<&str> = spec.dims.split(' ').collect();
        let size = spec.dtype.bytes();
        let index = |i: usize| {
            let mut rest = i;
            let mut at: Vec<usize> = spec
                .shape
                .iter()
                .rev()
                .map(|n| {
                    let x = rest % n;
                    rest /= n;
                    x
                })
                .collect();
            at.reverse();
            at
        };
        let token = spec.token_axis();
        let differs = |i: &usize| {
            a.bytes[i * size..(i + 1) * size] != b.bytes[i * size..(i + 1) * size]
                && held(token.map(|axis| index(*i)[axis]))
        };
        if let Some(i) = (0..a.len()).find(differs) {
            let at: Vec<_> =
                dims.iter().zip(index(i)).map(|(letter, x)| format!("{letter}={x}")).collect();
            return Some(format!(
                "{}[{}] {:e} and {:e}",
                spec.name,
                at.join(" "),
                a.get(i),
                b.get(i)
            ));
        }
    }
    None
}

fn compare(
    job: &Job,
    subject: &Subject,
    inputs: &[Tensor],
    outputs: &[Tensor],
    other: &dyn Device,
    trial: &mut Trial,
) {
    match subject.load(job, inputs, other).and_then(|mut loaded| loaded.run()) {
        Err(e) => trial.device_fault(&format!("on {}: ", other.facts().id), &e),
        Ok(run) => {
            trial.agreement = agreement(&subject.case.problem, outputs, &run.outputs);
            for a in trial.agreement.clone().iter().filter(|a| !a.passes()) {
                trial.fault(
                    Check::Agreement,
                    format!(
                        "{}: {:.3}% of elements within one unit in the last place of {}; worst {:.1} at element {}",
                        a.name,
                        a.within_one_ulp * 100.0,
                        other.facts().id,
                        a.worst_ulp,
                        a.worst_at
                    ),
                );
            }
        }
    }
}

/// Runs cases over `workers` threads, each with a device of its own, and hands every trial to
/// `done` as it ends, with its index.
///
/// # Errors
/// If a device cannot be opened.
pub fn run_all(
    work: &[(&Kernel, Subject)],
    workers: usize,
    device: Open,
    against: Option<Open>,
    mut done: impl FnMut(usize, Trial),
) -> Result<(), DeviceError> {
    let crew = Crew::Threads { count: workers, device, against };
    workers::run(work, crew, |event| {
        if let Event::Ended(i, trial) = event {
            done(i, *trial);
        }
        ControlFlow::Continue(())
    })
}

#[cfg(test)]
#[path = "trial_tests.rs"]
mod tests;
