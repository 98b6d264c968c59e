//! The command line: one file a subcommand, thin.

mod check;
mod devices;
mod exec;
mod file;
mod inputs;
mod kernels;
mod model_check;
mod options;
mod plan;
mod profile;
mod report;
mod run;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::device::model::DeviceModel;
use crate::device::open::{self, DEFAULT_MODEL};
use crate::device::{DeviceError, Facts, ShareRule};
use crate::kernel::{Kernel, KernelError, Named, Registry};
use crate::op::Problem;
use crate::sweep::SweepError;

/// Benchmarks attention kernels written by hand in PTX; autotuning is to come.
#[derive(Parser)]
#[command(version, about, max_term_width = 100)]
struct Cli {
    /// Kernel folder to use in place of the embedded one.
    #[arg(long, global = true, value_name = "DIR")]
    kernels: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Plan(plan::Args),
    Check(check::Args),
    Report(report::Args),
    Exec(exec::Args),
    Inputs(inputs::Args),
    Verify(verify::Args),
    Kernels(kernels::Args),
    Devices(devices::Args),
    Profile(profile::Args),
    ModelCheck(model_check::Args),
}

/// What ends a command early, by exit code.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Bad input or an unusable environment: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The work was done and its answer is no (a check failed, say): exit code 1.
    #[error("{0}")]
    Negative(String),
    /// Stopped by Ctrl-C: exit code 130, as shells have it.
    #[error("{0}")]
    Interrupted(String),
}

impl From<KernelError> for Failure {
    fn from(e: KernelError) -> Failure {
        Failure::Usage(e.0)
    }
}

impl From<SweepError> for Failure {
    fn from(e: SweepError) -> Failure {
        Failure::Usage(e.0)
    }
}

impl From<DeviceError> for Failure {
    fn from(e: DeviceError) -> Failure {
        Failure::Usage(e.to_string())
    }
}

/// What a command returns.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

fn registry(dir: Option<&PathBuf>) -> Result<Registry> {
    Ok(match dir {
        Some(dir) => Registry::from_dir(dir)?,
        None => Registry::embedded()?,
    })
}

/// `1 case`, `2 cases`.
fn cases(n: usize) -> String {
    format!("{n} case{}", if n == 1 { "" } else { "s" })
}

/// The kernel of a name. A note says which one it is if the name has no target.
fn pick<'r>(
    named: &Named<'r>,
    facts: &Facts,
    problem: &Problem,
) -> Result<&'r Kernel, KernelError> {
    let kernel = named.pick(facts, problem)?;
    if let Named::Best { .. } = named {
        eprintln!("note: {named} is {} here ({}, {problem})", kernel.name, facts.id);
    }
    Ok(kernel)
}

/// Refuses a number of CTAs for a device that executes them all.
fn sampling_allowed(sample: ShareRule, device: &Facts) -> Result {
    if matches!(sample, ShareRule::Ctas(_)) && !device.emulated {
        return Err(Failure::Usage(format!(
            "--sample-ctas {sample}: {} executes every CTA; CTAs are sampled on the emulator \
             (--device emulator)",
            device.id
        )));
    }
    Ok(())
}

/// The facts of a device. A described one is not opened for them.
fn facts(spec: &str) -> Result<Facts> {
    let model = match spec.strip_prefix("emulator") {
        Some("") => Some(DEFAULT_MODEL),
        Some(rest) => rest.strip_prefix(':'),
        None => None,
    };
    Ok(match model {
        Some(model) => DeviceModel::named(model)?.facts(),
        None => open::open(spec)?.facts().clone(),
    })
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = registry(cli.kernels.as_ref()).and_then(|registry| match cli.command {
        Command::Run(args) => run::run(args, &registry),
        Command::Plan(args) => plan::run(args, &registry),
        Command::Check(args) => check::run(args, &registry, cli.kernels.as_deref()),
        Command::Report(args) => report::run(args),
        Command::Exec(args) => exec::run(args, &registry),
        Command::Inputs(args) => inputs::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Kernels(args) => kernels::run(args, &registry),
        Command::Devices(args) => devices::run(args),
        Command::Profile(args) => profile::run(args, &registry),
        Command::ModelCheck(args) => model_check::run(args, &registry),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(match e {
                Failure::Usage(_) => 2,
                Failure::Negative(_) => 1,
                Failure::Interrupted(_) => 130,
            })
        }
    }
}
