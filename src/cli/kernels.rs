//! `crossover kernels`: the kernels, their legal tiles, their rendered PTX.

use serde_json::json;

use super::{Failure, Result, console};
use crate::device::{BufferRole, Job};
use crate::kernel::{Named, Registry, Tile};

/// List kernels and legal tiles; print rendered PTX.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel, such as attention/prefill.sm80, or without its target (attention/prefill) the best
    /// that --device and problem admit; all if missing.
    name: Option<String>,
    /// Print the rendered PTX of one variant.
    #[arg(long, requires = "name")]
    render: bool,
    /// Print the launches of one variant on the problem as JSON: buffers, grids, arguments.
    #[arg(long, requires = "name", conflicts_with = "render")]
    job: bool,
    /// Device that a name without target is for: auto, cuda:N or emulator[:MODEL].
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// Multiprocessors that --job is for; 132, or for a name without target those of --device.
    #[arg(long, value_name = "N")]
    sms: Option<u32>,
    /// Tile of --render and --job; the default tile if missing.
    #[arg(long, value_name = "AXIS=N,..")]
    tile: Option<Tile>,
    /// Problem that tiles and PTX are for, over a small default one.
    #[arg(long, short, value_name = "VAR=VALUE,..", default_value = "")]
    problem: String,
}

/// Prints the list, one kernel, or one variant.
///
/// # Errors
/// A name, problem or tile that means nothing or that the kernel cannot do; for a name without
/// target, a device that cannot be had.
pub fn run(args: Args, registry: &Registry) -> Result {
    console::put(&text(args, registry)?);
    Ok(())
}

fn text(args: Args, registry: &Registry) -> Result<String> {
    let Some(name) = &args.name else {
        let width = registry.kernels().iter().map(|k| k.name.len()).max().unwrap_or(0);
        return Ok(registry
            .kernels()
            .iter()
            .map(|k| {
                format!("{:width$}  {:7}  {}\n", k.name, k.manifest.target, k.manifest.summary)
            })
            .collect());
    };
    let named = registry.named(name)?;
    let problem = named.problem(&args.problem).map_err(Failure::Usage)?;
    let (kernel, sms) = match named {
        Named::Kernel(kernel) => (kernel, 132),
        Named::Best { .. } => {
            let facts = super::facts(&args.device)?;
            (super::pick(&named, &facts, &problem)?, facts.multiprocessors)
        }
    };
    kernel.supports(&problem)?;
    let default = kernel.default_tile(&problem)?;
    if args.job {
        let job = kernel.job_on(
            &problem,
            args.tile.as_ref().unwrap_or(&default),
            args.sms.unwrap_or(sms),
        )?;
        return Ok(describe(&job) + "\n");
    }
    if args.render {
        return Ok(kernel.render(&problem, args.tile.as_ref().unwrap_or(&default))?.text);
    }
    let m = &kernel.manifest;
    let dtypes: Vec<_> = m.dtypes.iter().map(|d| d.name()).collect();
    let mut text = format!(
        "{}\n{}\n\ntarget  {}\ndtypes  {}\n",
        kernel.name,
        m.summary,
        m.target,
        dtypes.join(", ")
    );
    for (axis, values) in &m.tile {
        text += &format!("axis    {axis} of {values:?}\n");
    }
    text += &format!("\nlegal tiles for {problem}\n");
    for tile in kernel.tiles(&problem)? {
        let mark = if tile == default { "  (default)" } else { "" };
        text += &format!("  {tile}{mark}\n");
    }
    Ok(text)
}

/// The launches as a program outside this one would make them.
fn describe(job: &Job) -> String {
    let buffers: Vec<_> = job
        .buffers
        .iter()
        .map(|b| {
            let role = match b.role {
                BufferRole::Input(_) => "input",
                BufferRole::Output(_) => "output",
                BufferRole::Workspace => "workspace",
                BufferRole::ZeroedWorkspace => "zeroed workspace",
            };
            json!({ "name": b.name, "role": role, "dtype": b.dtype.name(), "shape": b.shape })
        })
        .collect();
    json!({ "kernel": job.ptx.kernel, "ptx_sha256": job.ptx.sha256, "buffers": buffers,
        "launches": job.launches })
    .to_string()
}
