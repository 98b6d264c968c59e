//! `crossover inputs`: the seeded inputs of a problem, for other programs.

use std::path::PathBuf;

use super::{Failure, Result, console, file, output};
use crate::op::{Family, Flow, Op, PhaseName, Problem};

/// Write the seeded inputs of a problem to a safetensors file.
///
/// `exec` takes the file, and so may any other program; `verify` holds against fp64 what that
/// program makes of it. docs/exec.md lists names and layouts.
#[derive(clap::Args)]
pub struct Args {
    /// Operator.
    #[arg(value_parser = operator)]
    op: Op,
    /// Problem, over a small default one: dtype=fp16,B=2,T=4096, heads and dimensions by the
    /// operator's letters, phase=decode.
    #[arg(long, short, value_name = "VAR=VALUE,..", default_value = "")]
    problem: String,
    /// Input family, such as `logits=huge` or `gate=slow keys=identical`.
    #[arg(long, default_value = "random")]
    family: Family,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Writes the inputs and says where.
///
/// # Errors
/// Settings that make no problem, tensors that this machine has no memory for, or a file that
/// cannot be written.
pub fn run(args: Args) -> Result {
    let op = args.op;
    let first = op.phases()[0].name;
    let problem = Problem::parse(op, first, &args.problem).map_err(Failure::Usage)?;
    problem.fits_memory().map_err(Failure::Usage)?;
    output::file("--out", &args.out, &[])?;
    let inputs = problem.inputs(&args.family, args.seed);
    let facts = [
        ("op", op.name().to_string()),
        ("phase", problem.phase().to_string()),
        ("problem", problem.short()),
        ("family", args.family.to_string()),
        ("seed", args.seed.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    file::write(&args.out, &problem, Flow::Input, &inputs, &facts).map_err(Failure::Usage)?;
    let phase = match problem.phase() {
        PhaseName::Prefill => String::new(),
        phase => format!("{phase} "),
    };
    let out = args.out.display();
    console::say(&format!("{op} {phase}{}, {}: wrote {out}", problem.short(), args.family));
    Ok(())
}

/// The operator of that name.
///
/// # Errors
/// There is none; the message names those that there are.
pub fn operator(name: &str) -> Result<Op, String> {
    Op::parse(name).ok_or_else(|| format!("no operator `{name}`: expected {}", Op::names()))
}
