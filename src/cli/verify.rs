//! `crossover verify`: what another program made of the inputs, held against fp64.

use std::path::PathBuf;

use serde_json::json;

use super::inputs::operator;
use super::{Failure, Result, console, file};
use crate::op::{Family, Flow, Op, Tensor};
use crate::verify::{self, Reference, Subset};

/// Hold outputs in a file, of any program, against the fp64 reference; exit code 1 if wrong.
///
/// Shapes and precision come from the inputs. Outputs that the file lacks (a softmax without lse,
/// say) are not held.
#[derive(clap::Args)]
pub struct Args {
    /// Operator.
    #[arg(value_parser = operator)]
    op: Op,
    /// File with the inputs, as of `crossover inputs`.
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// File with the outputs: o, and lse or final_state.
    #[arg(long, value_name = "FILE")]
    outputs: PathBuf,
    #[command(flatten)]
    options: super::options::Options,
    /// Input family whose limits count.
    #[arg(long, default_value = "random")]
    family: Family,
    /// Hold every head and row, however long that takes; otherwise those that fit a few seconds.
    #[arg(long)]
    all: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// Holds the outputs against the reference and says how far they are off.
///
/// # Errors
/// Inputs that are no problem of the operator, outputs that do not fit them, or a wrong output.
pub fn run(args: Args) -> Result {
    let op = args.op;
    let phases: Vec<_> = op.phases().iter().map(|p| p.name).collect();
    let (problem, inputs) =
        file::read(&args.inputs, op, &phases, &args.options).map_err(Failure::Usage)?;
    let found = file::read_outputs(&args.outputs, &problem).map_err(Failure::Usage)?;
    let specs = problem.tensors_of(Flow::Output);
    let missing: Vec<_> =
        specs.iter().zip(&found).filter(|(_, t)| t.is_none()).map(|(s, _)| s.name).collect();
    let outputs: Vec<Tensor> = specs
        .iter()
        .zip(found)
        .map(|(s, t)| {
            let empty = || Tensor {
                dtype: s.dtype.storage(),
                shape: s.shape.clone(),
                bytes: vec![0; s.bytes()],
            };
            t.unwrap_or_else(empty)
        })
        .collect();
    let budget = if args.all { f64::INFINITY } else { verify::BUDGET_FLOPS };
    let subset = Subset::plan(&problem, budget);
    let family = problem.op().family_of(&problem, &inputs, &args.family);
    let mut v = Reference::new(&problem, &inputs, subset).hold(&family, &outputs).verification;
    v.outputs.retain(|o| !missing.contains(&o.name.as_str()));
    v.passed = v.outputs.iter().all(verify::output_passes);
    let text = if args.json {
        let object = json!({
            "op": op,
            "problem": problem,
            "inputs": args.inputs,
            "outputs": args.outputs,
            "family": args.family,
            "not_held": missing,
            "verification": v,
        });
        format!("{object}\n")
    } else {
        let mut text = format!("{op} {}\n{}", problem.short(), verify::table(&v));
        if let Some(subset) = &v.subset {
            text += &format!("  verified: {subset}\n");
        }
        if !missing.is_empty() {
            text += &format!("  not in the file, not held: {}\n", missing.join(", "));
        }
        text
    };
    console::put(&text);
    match verify::reason(&v) {
        Some(why) => Err(Failure::Negative(format!("{}: wrong: {why}", args.outputs.display()))),
        None => Ok(()),
    }
}
