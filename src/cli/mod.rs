//! The command line: one file a subcommand, thin.

mod kernels;
pub mod problem;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::kernel::Registry;

/// Benchmarks and autotunes attention kernels written by hand in PTX.
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
    Kernels(kernels::Args),
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
}

impl<E: Into<crate::kernel::KernelError>> From<E> for Failure {
    fn from(e: E) -> Failure {
        Failure::Usage(e.into().0)
    }
}

pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

fn registry(dir: Option<&PathBuf>) -> Result<Registry> {
    Ok(match dir {
        Some(dir) => Registry::from_dir(dir)?,
        None => Registry::embedded()?,
    })
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = registry(cli.kernels.as_ref()).and_then(|registry| match cli.command {
        Command::Kernels(args) => kernels::run(args, &registry),
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::from(match e {
                Failure::Usage(_) => 2,
                Failure::Negative(_) => 1,
            })
        }
    }
}
