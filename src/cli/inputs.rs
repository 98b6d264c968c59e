//! `crossover inputs`: the seeded inputs of a problem, for other programs.

use std::path::PathBuf;

use super::{Failure, Result, file, problem};
use crate::op::{Family, Op, Role};

/// Write the seeded inputs of a problem to a safetensors file.
///
/// `exec` takes the file, and so may any other program; `verify` holds against fp64 what that
/// program makes of it. docs/exec.md lists names and layouts.
#[derive(clap::Args)]
pub struct Args {
    /// attention, gated_delta_rule or kda.
    op: String,
    /// Problem, over a small default one: dtype=fp16,B=2,T=4096,Hq=16,Hkv=4,D=128.
    #[arg(long, short, value_name = "VAR=VALUE,..", default_value = "")]
    problem: String,
    /// Input family, such as `logits=huge` or `gate=slow keys=identical`.
    #[arg(long, default_value = "random")]
    family: Family,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// File to write.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: Args) -> Result {
    let op = operator(&args.op)?;
    let mut problem = problem::default(op);
    problem::apply(&mut problem, &args.problem).map_err(Failure::Usage)?;
    super::check::divisible(&problem).map_err(Failure::Usage)?;
    problem::fits_memory(&problem).map_err(Failure::Usage)?;
    file::writable(&args.out).map_err(Failure::Usage)?;
    let inputs = problem.inputs(&args.family, args.seed);
    let facts = [
        ("op", op.name().to_string()),
        ("problem", problem::short(&problem)),
        ("family", args.family.to_string()),
        ("seed", args.seed.to_string()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    file::write(&args.out, &problem, Role::Input, &inputs, &facts).map_err(Failure::Usage)?;
    println!("{op} {}, {}: wrote {}", problem::short(&problem), args.family, args.out.display());
    Ok(())
}

/// The operator of that name.
pub fn operator(name: &str) -> Result<Op> {
    Op::parse(name).ok_or_else(|| {
        let known: Vec<_> = Op::ALL.iter().map(|op| op.name()).collect();
        Failure::Usage(format!("no operator `{name}`: expected {}", known.join(", ")))
    })
}
