//! `crossover profile`: where a variant's modelled time goes, line by line.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use super::output::{self, Input};
use super::{Failure, Result, console};
use crate::device::ShareRule;
use crate::device::emulator::Emulator;
use crate::device::model::DeviceModel;
use crate::device::open::DEFAULT_MODEL;
use crate::disk;
use crate::kernel::{Registry, Tile};
use crate::measure::profile::{Profile, profile};
use crate::op::Family;
use crate::report::profile::{HEAD, annotated, annotated_ptx, html, summary};
use crate::verify;

/// Execute one kernel on the emulator and print its template with what each line did: executions,
/// share of the modelled time, memory traffic, bank conflicts.
///
/// One sequence and head, with the heads that share its keys, stand for all. Times are modelled,
/// never measured; docs/profile.md tells how.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel, such as attention/prefill.sm80; without its target (attention/prefill) the best
    /// that device and problem admit.
    kernel: String,
    /// Problem, over a small default one: B=4,T=8192,Hq=32,causal=true.
    #[arg(long, short, value_name = "VAR=VALUE,..", default_value = "")]
    problem: String,
    /// Tile; the kernel's default for the problem if missing.
    #[arg(long, value_name = "AXIS=N,..")]
    tile: Option<Tile>,
    /// emulator or emulator:MODEL, the device whose time is modelled.
    #[arg(long, default_value = "emulator", value_name = "DEVICE")]
    device: String,
    /// Input family: random, gate=slow keys=identical, logits=huge, ...
    #[arg(long, default_value = "random")]
    family: Family,
    /// Seed of the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Take every distinct sector to be fetched once instead of modelling L2; quicker.
    #[arg(long)]
    no_l2: bool,
    /// Empty the modelled L2 before each launch, as profilers of GPUs do.
    #[arg(long, conflicts_with = "no_l2")]
    cold_l2: bool,
    /// Execute about N CTAs of each launch and extrapolate the counts, without a model of L2; all;
    /// or auto: all CTAs of problems of up to 1e11 FLOPs a head group, and as many of larger ones
    /// as 1e11 FLOPs take.
    #[arg(long, value_name = "N", default_value = "auto")]
    sample_ctas: ShareRule,
    /// Lines of the table of the hottest; 0 for none.
    #[arg(long, value_name = "N", default_value_t = 12)]
    hottest: usize,
    /// Print the rendered PTX in place of the template: what macros make is taken apart.
    #[arg(long)]
    ptx: bool,
    /// Print the summary alone, without the template.
    #[arg(long)]
    summary: bool,
    /// Write the same as a page of HTML.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object.
    #[arg(long, conflicts_with_all = ["summary", "hottest", "ptx"])]
    json: bool,
}

/// Executes the variant and prints what each line did.
///
/// `kernels` is the folder that the registry was read from, if not the embedded one.
///
/// # Errors
/// A kernel, problem, tile or device that means nothing or does not fit; a page that cannot be
/// written; a kernel that faults or gives a wrong result.
pub fn run(args: Args, registry: &Registry, kernels: Option<&Path>) -> Result {
    if let Some(path) = &args.html {
        let kernels = kernels.map(|path| Input { option: "--kernels", path });
        let device = output::description(&args.device);
        let device = device.map(|path| Input { option: "--device", path });
        output::file("--html", path, &kernels.into_iter().chain(device).collect::<Vec<_>>())?;
    }
    let named = registry.named(&args.kernel)?;
    let problem = named.problem(&args.problem).map_err(Failure::Usage)?;
    problem.fits_memory().map_err(Failure::Usage)?;
    let emulator = emulator(&args)?;
    let facts = emulator.model().facts();
    let kernel = super::pick(&named, &facts, &problem)?;
    kernel.supports(&problem)?;
    if let Some(why) = kernel.unfit(&facts) {
        return Err(Failure::Usage(why));
    }
    let tile = match &args.tile {
        Some(tile) => tile.clone(),
        None => kernel.default_tile(&problem)?,
    };
    kernel.check_tile(&problem, &tile)?;
    let inputs = (&args.family, args.seed);
    let found = profile(
        kernel,
        &problem,
        &tile,
        inputs,
        &emulator,
        (args.cold_l2, false),
        args.sample_ctas,
    )
    .map_err(Failure::Negative)?;
    let words = problem.short();
    let source = |path: &str| kernel.source(path);
    if let Some(path) = &args.html {
        disk::replace(path, html(&found, &words, &source).as_bytes())
            .map_err(|e| Failure::Usage(format!("cannot write {}: {e}", path.display())))?;
    }
    let text = if args.json {
        format!("{}\n", serde_json::to_string(&found).expect("a profile is plain data"))
    } else {
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        text(&found, &words, &source, &args, colour)
    };
    console::put(&text);
    match verify::reason(&found.verification) {
        None => Ok(()),
        Some(why) => Err(Failure::Negative(format!("{}: wrong: {why}", kernel.name))),
    }
}

/// The emulator that `--device` names; profiles of a GPU are for other tools.
fn emulator(args: &Args) -> Result<Emulator> {
    let model = match args.device.split_once(':') {
        None if args.device == "emulator" => DEFAULT_MODEL,
        Some(("emulator", model)) => model,
        _ => {
            return Err(Failure::Usage(format!(
                "--device {}: profiles come from the emulator's counts: use emulator or \
                 emulator:MODEL",
                args.device
            )));
        }
    };
    let emulator = Emulator::new(DeviceModel::named(model)?).with_timing();
    Ok(if args.no_l2 { emulator } else { emulator.with_l2() })
}

fn text<'a>(
    p: &Profile,
    words: &str,
    source: &dyn Fn(&str) -> Option<&'a str>,
    args: &Args,
    colour: bool,
) -> String {
    let mut out = summary(p, words);
    let all = if args.ptx { vec![annotated_ptx(p)] } else { annotated(p, source) };
    let paint = |share: f64, line: String| match share {
        _ if !colour => line,
        s if s >= 0.04 => format!("\x1b[1;31m{line}\x1b[0m"),
        s if s >= 0.01 => format!("\x1b[33m{line}\x1b[0m"),
        0.0 => format!("\x1b[2m{line}\x1b[0m"),
        _ => line,
    };
    let mut hottest: Vec<_> =
        all.iter().flat_map(|f| f.lines.iter().map(move |l| (f, l))).collect();
    hottest.retain(|(_, l)| l.share > 0.0);
    hottest.sort_by(|a, b| b.1.share.total_cmp(&a.1.share));
    hottest.truncate(args.hottest);
    if !hottest.is_empty() {
        out += &format!("\nhottest lines\n{}\n", HEAD);
        for (file, line) in hottest {
            out += &paint(line.share, format!("{}  {}:{}", line.row(), file.path, line.number));
            out += "\n";
        }
    }
    if args.summary {
        return out;
    }
    for file in &all {
        out += &format!("\n{}\n{}\n", file.path, HEAD);
        for line in &file.lines {
            out += &paint(line.share, line.row());
            out += "\n";
        }
    }
    out
}
