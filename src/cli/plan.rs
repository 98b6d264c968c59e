//! `crossover plan`: the cases of a sweep, how many, and why each skipped one is skipped.

use std::path::PathBuf;

use super::{Result, console};
use crate::kernel::Registry;
use crate::sweep::{Plan, Shard, Sweep};

/// List the cases of a sweep, and why each skipped one is skipped; no device needed.
#[derive(clap::Args)]
pub struct Args {
    /// Sweep file, or the name of one that comes with the program (quickstart).
    sweep: PathBuf,
    /// Device to decide skips for: cuda:N, emulator or emulator:MODEL.
    #[arg(long, value_name = "DEVICE")]
    device: Option<String>,
    /// Only part I of N, I from 0.
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Seed of the inputs, in place of the sweep's.
    #[arg(long)]
    seed: Option<u64>,
    /// One JSON object a case.
    #[arg(long)]
    json: bool,
}

/// Prints the plan.
///
/// # Errors
/// A sweep that cannot be read or planned, or no such device.
pub fn run(args: Args, registry: &Registry) -> Result {
    let sweep = Sweep::load(&args.sweep)?;
    let device = args.device.as_deref().map(super::facts).transpose()?;
    let plan = sweep.plan(registry, device.as_ref(), args.seed)?;
    let plan = plan.shard(args.shard.unwrap_or(Shard::WHOLE));
    let id = device.as_ref().map(|facts| facts.id.as_str());
    let text = if args.json { json(&plan, id) } else { text(&sweep, &plan) };
    console::put(&text);
    Ok(())
}

fn json(plan: &Plan, device: Option<&str>) -> String {
    let line = |p: &crate::sweep::Planned| {
        let mut case = serde_json::to_value(&p.case).expect("a case is plain data");
        if let Some(device) = device {
            case["id"] = p.case.id(&plan.sweep, device).into();
        }
        case["skip"] = p.skip.clone().into();
        case.to_string() + "\n"
    };
    plan.cases.iter().map(line).collect()
}

fn text(sweep: &Sweep, plan: &Plan) -> String {
    let mut text = format!("{}\n{}\n\n", sweep.name, sweep.question);
    let rows: Vec<[String; 4]> = plan
        .runnable()
        .map(|c| {
            let inputs = match c.seed {
                0 => c.family.to_string(),
                seed => format!("{} seed={seed}", c.family),
            };
            [c.kernel.clone(), c.problem.short(), inputs, c.tile.to_string()]
        })
        .collect();
    let width = |i: usize| rows.iter().map(|r| r[i].len()).max().unwrap_or(0);
    let (kernel, problem, inputs) = (width(0), width(1), width(2));
    let digits = rows.len().to_string().len();
    for (i, r) in rows.iter().enumerate() {
        text += &format!(
            "{:digits$}  {:kernel$}  {:problem$}  {:inputs$}  {}\n",
            i + 1,
            r[0],
            r[1],
            r[2],
            r[3]
        );
    }
    let skipped = plan.cases.len() - rows.len();
    text += &format!("\n{} to run, {skipped} skipped\n", super::cases(rows.len()));
    let reasons = plan.reasons();
    let digits = reasons.values().max().map_or(1, |n| n.to_string().len());
    for (reason, n) in reasons {
        text += &format!("  {n:digits$}  {reason}\n");
    }
    for skip in &plan.undecided {
        text += &format!("  not decided without --device: {} (where {})\n", skip.why, skip.when);
    }
    text
}
