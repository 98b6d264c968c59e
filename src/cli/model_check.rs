//! `crossover model-check`: modelled times against measured ones.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressStyle};

use super::output::{self, Input};
use super::{Failure, Result, console, shell};
use crate::device::emulator::{Checks, Emulator};
use crate::device::model::DeviceModel;
use crate::kernel::Registry;
use crate::measure::counters::compare;
use crate::measure::model_check::{agreements, check};
use crate::op::Problem;
use crate::record;
use crate::report::write_model_check;

/// Execute the variants of measured records on the emulator and hold the order of their modelled
/// times against the measured one: Spearman's rank correlation of each kernel.
#[derive(clap::Args)]
pub struct Args {
    /// Records of a GPU, or folders that runs wrote.
    #[arg(required = true)]
    records: Vec<PathBuf>,
    /// Folder of hardware counters by Nsight Compute to compare counts with; docs/profile.md
    /// describes it.
    #[arg(long, value_name = "DIR")]
    counters: Option<PathBuf>,
    /// Description of the GPU: a name or the path of a .toml file; the one that the records' device
    /// matches if missing.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Only kernels that match, such as kda/*.
    #[arg(long, default_value = "*", value_name = "GLOB")]
    only: String,
    /// Folder for a table and a scatter plot.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Exit code 1 if a kernel's correlation is below this.
    #[arg(long, value_name = "RHO")]
    require: Option<f64>,
}

/// Prints how well modelled times order the variants, by kernel and problem.
///
/// # Errors
/// Records that cannot be read, none measured, or of several devices; no description of the GPU;
/// counters that cannot be read; a correlation below `--require`.
pub fn run(args: Args, registry: &Registry) -> Result {
    if let Some(out) = &args.out {
        let mut inputs: Vec<_> =
            args.records.iter().map(|path| Input { option: "RECORDS", path }).collect();
        let model = args.model.as_deref().and_then(output::description);
        inputs.extend(model.map(|path| Input { option: "--model", path }));
        output::folder("--out", out, &["md", "svg"], &inputs)?;
        let readme = out.join("README.md");
        let text = std::fs::read_to_string(&readme);
        if text.is_ok_and(|text| !text.contains("crossover model-check")) {
            return Err(Failure::Usage(format!(
                "--out {}: {} is no table of this command; name another folder",
                out.display(),
                readme.display()
            )));
        }
    }
    let read = record::read(&args.records).map_err(|e| Failure::Usage(e.to_string()))?;
    let kernels: Vec<&str> =
        registry.matching(&args.only)?.iter().map(|k| k.name.as_str()).collect();
    let records: Vec<_> = read
        .records
        .into_iter()
        .filter(|r| kernels.contains(&r.kernel.name.as_str()))
        .filter(|r| r.timing.as_ref().is_some_and(|t| t.is_measured()))
        .collect();
    let Some(first) = records.first() else {
        return Err(Failure::Usage(format!(
            "no measured record of a kernel matching `{}`: a model is checked against times of a GPU",
            args.only
        )));
    };
    let gpu = first.device.name.clone();
    if let Some(other) = records.iter().find(|r| r.device.name != gpu) {
        return Err(Failure::Usage(format!(
            "records of {gpu} and of {}: check one device at a time",
            other.device.name
        )));
    }
    let model = match &args.model {
        Some(spec) => DeviceModel::named(spec)?,
        None => DeviceModel::of_gpu(&gpu).ok_or_else(|| {
            Failure::Usage(format!("no description matches {gpu:?}; name one with --model"))
        })?,
    };
    let title = format!("{} against {gpu}", model.name);
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} variants  {elapsed}");
        ProgressBar::new(records.len() as u64).with_style(style.expect("a valid template"))
    } else {
        ProgressBar::hidden()
    };
    let emulator = Emulator::new(model).with_l2().with_timing().with_checks(Checks::UNORDERED);
    let checked = check(registry, &emulator, &records, &|| bar.inc(1));
    bar.finish_and_clear();
    let compared = match &args.counters {
        None => Vec::new(),
        Some(folder) => {
            let parse = |kernel: &str, settings: &str| {
                let kernel = registry.get(kernel).map_err(|e| e.0)?;
                Problem::parse(kernel.manifest.op, kernel.phase(), settings)
            };
            compare(registry, &emulator, folder, &parse).map_err(Failure::Usage)?
        }
    };

    let mut out = String::new();
    let mut low = Vec::new();
    for (kernel, a) in agreements(&checked.points) {
        let cycles =
            |rho: Option<f64>| rho.map_or(String::new(), |r| format!(" ({r:.3} in cycles)"));
        let _ = writeln!(
            out,
            "{kernel}: {} variants, Spearman {:.3}{}, modelled / measured {:.2}",
            a.variants,
            a.overall,
            cycles(a.in_cycles),
            a.ratio
        );
        for p in &a.by_problem {
            let (rho, n, in_cycles) = (p.rho, p.variants, cycles(p.in_cycles));
            let _ = writeln!(out, "  {rho:.3}{in_cycles} over {n} tiles  {}", p.problem.short());
        }
        // NaN is no agreement either.
        if args.require.is_some_and(|least| a.overall.is_nan() || a.overall < least) {
            low.push(format!("{kernel} {:.3}", a.overall));
        }
    }
    for (kernel, (n, why)) in &checked.missing {
        let _ = writeln!(out, "{kernel}: {n} variants could not be executed: {why}");
    }
    for c in &compared {
        let _ = writeln!(
            out,
            "{} {}  {}: counted / hardware: sectors read {:.3}, written {:.3}; device memory {:.3}",
            c.kernel,
            c.entry,
            c.problem.short(),
            c.read_sectors.ratio(),
            c.write_sectors.ratio(),
            c.dram_read_bytes.plus(c.dram_write_bytes).ratio()
        );
    }
    if let Some(folder) = &args.out {
        let shown = Problem::short;
        let files =
            write_model_check(&checked, &compared, &title, &shell::command(), &shown, folder)
                .map_err(|e| Failure::Usage(e.to_string()))?;
        let _ = writeln!(out, "wrote {}", files[0].display());
    }
    console::put(&out);
    if !low.is_empty() {
        let least = args.require.unwrap_or_default();
        return Err(Failure::Negative(format!("below {least}: {}", low.join(", "))));
    }
    Ok(())
}
