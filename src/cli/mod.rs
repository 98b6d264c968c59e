//! The command line: one file a subcommand, thin.

mod check;
mod compare;
mod console;
mod devices;
mod exec;
mod file;
mod history;
mod inputs;
mod kernels;
mod model_check;
mod options;
mod output;
mod plan;
mod profile;
mod report;
mod run;
mod shell;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::device::model::DeviceModel;
use crate::device::open::{self, DEFAULT_MODEL};
use crate::device::{DeviceError, Facts, ShareRule};
use crate::kernel::{Kernel, KernelError, Named, Registry};
use crate::op::Problem;
use crate::sweep::SweepError;

const EXIT_CODES: &str = "Exit codes: 0 done; 1 a case or check failed, or a result is wrong; \
    2 bad input, or what cannot be read, run or written; 130 stopped by Ctrl-C";

/// Benchmarks attention kernels written by hand in PTX; autotuning is to come.
#[derive(Parser)]
#[command(version, about, max_term_width = 100, after_help = EXIT_CODES)]
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
    Compare(compare::Args),
    History(history::Args),
    Exec(exec::Args),
    Inputs(inputs::Args),
    Verify(verify::Args),
    Kernels(kernels::Args),
    Devices(devices::Args),
    Profile(profile::Args),
    ModelCheck(model_check::Args),
    #[command(hide = true)]
    Serve(run::ServeArgs),
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
        console::note(&format!("note: {named} is {} here ({}, {problem})", kernel.name, facts.id));
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
    let result = match parse() {
        Ok(cli) => run(cli),
        Err(e) => {
            let text = e.render();
            if e.use_stderr() {
                console::note(text.to_string().trim_end());
                return ExitCode::from(2);
            }
            console::put(&text.to_string());
            Ok(())
        }
    };
    let code = match &result {
        Ok(()) => 0,
        Err(Failure::Negative(_)) => 1,
        Err(Failure::Usage(_)) => 2,
        Err(Failure::Interrupted(_)) => 130,
    };
    let said = console::end();
    for e in [&result, &said].into_iter().filter_map(|r| r.as_ref().err()) {
        console::note(&format!("error: {e}"));
    }
    ExitCode::from(if code == 0 && said.is_err() { 2 } else { code })
}

/// The command line as this process has it.
fn parse() -> Result<Cli, clap::Error> {
    // `--seed -1` is a value that the option refuses, and no option of its own.
    let numbers = |command: clap::Command| {
        command.mut_args(|arg| match arg.is_positional() || !arg.get_action().takes_values() {
            true => arg,
            false => arg.allow_negative_numbers(true),
        })
    };
    let command = numbers(Cli::command()).mut_subcommands(numbers);
    Cli::from_arg_matches(&command.try_get_matches()?)
}

fn run(cli: Cli) -> Result {
    let registry = registry(cli.kernels.as_ref())?;
    let (registry, kernels) = (&registry, cli.kernels.as_deref());
    match cli.command {
        Command::Run(args) => run::run(args, registry, kernels),
        Command::Plan(args) => plan::run(args, registry),
        Command::Check(args) => check::run(args, registry, kernels),
        Command::Report(args) => report::run(args),
        Command::Compare(args) => compare::run(args, registry, kernels),
        Command::History(args) => history::run(args),
        Command::Exec(args) => exec::run(args, registry, kernels),
        Command::Inputs(args) => inputs::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Kernels(args) => kernels::run(args, registry),
        Command::Devices(args) => devices::run(args),
        Command::Profile(args) => profile::run(args, registry, kernels),
        Command::ModelCheck(args) => model_check::run(args, registry),
        Command::Serve(args) => run::serve(args, registry),
    }
}
