//! `crossover model-check`: modelled times against measured ones.

use std::fmt::Write;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use indicatif::{ProgressBar, ProgressStyle};

use super::output::{self, Input};
use super::{Failure, Result, console, shell};
use crate::device::emulator::{Checks, Emulator};
use crate::device::model::DeviceModel;
use crate::kernel::Registry;
use crate::measure::counters::{Compared, compare};
use crate::measure::model_check::{Checked, Count, How, Point, agreements, check};
use crate::measure::model_error;
use crate::op::Problem;
use crate::record;
use crate::report::write_model_check;

/// Execute the variants of measured records on the emulator and hold the order of their modelled
/// times against the measured one: Spearman's rank correlation of each kernel.
#[derive(clap::Args)]
pub struct Args {
    /// Records of a GPU, or folders that runs wrote.
    #[arg(required_unless_present = "counted")]
    records: Vec<PathBuf>,
    /// What an earlier check wrote as counted.json: nothing is executed, times are modelled anew.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["records", "counters", "as_run"])]
    counted: Option<PathBuf>,
    /// Folder of hardware counters by Nsight Compute to compare counts with; docs/profile.md
    /// describes it.
    #[arg(long, value_name = "DIR")]
    counters: Option<PathBuf>,
    /// Description of the GPU: a name or the path of a .toml file; the one that the records' device
    /// matches if missing.
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Execute variants as `run` does, one head group for all and a part of the CTAs of large ones, with
    /// no model of L2: what the times of reports are worth.
    #[arg(long)]
    as_run: bool,
    /// Only kernels that match, such as kda/*.
    #[arg(long, default_value = "*", value_name = "GLOB")]
    only: String,
    /// File for the table of the model's errors by kernel and modelled time, as devices/h200-error.toml.
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// Folder for a table, a scatter plot and what was counted.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Exit code 1 if a kernel's correlation is below this.
    #[arg(long, value_name = "RHO")]
    require: Option<f64>,
}

/// Prints how well modelled times order the variants, by kernel and problem.
///
/// # Errors
/// Records, counters or counts that cannot be read; no measured record, or several devices; no
/// description of the GPU; a file that cannot be written; a correlation below `--require`.
pub fn run(args: Args, registry: &Registry) -> Result {
    writable(&args)?;
    let (checked, compared, title, model) = match &args.counted {
        Some(path) => recounted(&args, path, registry)?,
        None => executed(&args, registry)?,
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
    if let Some(path) = &args.errors {
        if !checked.as_run {
            return Err(Failure::Usage(
                "--errors: the table is of times as `crossover run` models them: give --as-run, or \
                 --counted of a check with it"
                    .into(),
            ));
        }
        let table = model_error::table(&model.name, &checked.points).map_err(Failure::Usage)?;
        let text = model_error::text(&table, &shell::command());
        std::fs::write(path, text)
            .map_err(|e| Failure::Usage(format!("cannot write {}: {e}", path.display())))?;
        let _ = writeln!(out, "wrote {}", path.display());
    }
    console::put(&out);
    if !low.is_empty() {
        let least = args.require.unwrap_or_default();
        return Err(Failure::Negative(format!("below {least}: {}", low.join(", "))));
    }
    Ok(())
}

/// Makes sure, before any work, that what is asked for can be written, and over nothing that is read.
fn writable(args: &Args) -> Result {
    let mut inputs: Vec<_> =
        args.records.iter().map(|path| Input { option: "RECORDS", path }).collect();
    inputs.extend(args.counted.iter().map(|path| Input { option: "--counted", path }));
    let model = args.model.as_deref().and_then(output::description);
    inputs.extend(model.map(|path| Input { option: "--model", path }));
    if let Some(path) = &args.errors {
        output::file("--errors", path, &inputs)?;
    }
    let Some(out) = &args.out else { return Ok(()) };
    output::folder("--out", out, &["md", "svg", "json"], &inputs)?;
    let readme = out.join("README.md");
    let text = std::fs::read_to_string(&readme);
    if text.is_ok_and(|text| !text.contains("crossover model-check")) {
        return Err(Failure::Usage(format!(
            "--out {}: {} is no table of this command; name another folder",
            out.display(),
            readme.display()
        )));
    }
    Ok(())
}

/// Points, counts beside hardware counters, a title, and the description that times are modelled for.
type Found = (Checked, Vec<Compared>, String, DeviceModel);

/// Executes the variants of the records.
fn executed(args: &Args, registry: &Registry) -> Result<Found> {
    let read = record::read(&args.records).map_err(|e| Failure::Usage(e.to_string()))?;
    let kernels = matching(args, registry)?;
    let records: Vec<_> = read
        .records
        .into_iter()
        .filter(|r| kernels.contains(&r.kernel.name.as_str()))
        .filter(|r| r.timing.as_ref().is_some_and(|t| t.is_measured()))
        .collect();
    let Some(first) = records.first() else { return Err(nothing_measured(args)) };
    let gpu = first.device.name.clone();
    if let Some(other) = records.iter().find(|r| r.device.name != gpu) {
        return Err(Failure::Usage(format!(
            "records of {gpu} and of {}: check one device at a time",
            other.device.name
        )));
    }
    let model = described(args, &gpu)?;
    let title = format!("{} against {gpu}", model.name);
    let bar = if std::io::stderr().is_terminal() {
        let style = ProgressStyle::with_template("{bar:32} {pos}/{len} variants  {elapsed}");
        ProgressBar::new(records.len() as u64).with_style(style.expect("a valid template"))
    } else {
        ProgressBar::hidden()
    };
    let emulator = Emulator::new(model.clone()).with_timing().with_checks(Checks::UNORDERED);
    let (emulator, how) = match args.as_run {
        true => (emulator, How::AsRun),
        false => (emulator.with_l2(), How::Exactly),
    };
    let checked = check(registry, &emulator, &records, how, &|| bar.inc(1));
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
    Ok((checked, compared, title, model))
}

/// Models the times of what an earlier check counted.
fn recounted(args: &Args, path: &Path, registry: &Registry) -> Result<Found> {
    let wrong = |what: String| Failure::Usage(format!("{}: {what}", path.display()));
    let text = std::fs::read_to_string(path)
        .map_err(|e| Failure::Usage(format!("cannot read {}: {e}", path.display())))?;
    let counted = Count::parse(&text).map_err(wrong)?;
    let model = described(args, &counted.gpu)?;
    let title = format!("{} against {}", model.name, counted.gpu);
    let kernels = matching(args, registry)?;
    let points: Vec<Point> = (counted.variants.into_iter())
        .filter(|c| kernels.contains(&c.kernel.as_str()))
        .map(|c| Point::new(&model, c))
        .collect();
    if points.is_empty() {
        return Err(nothing_measured(args));
    }
    Ok((
        Checked { gpu: counted.gpu, as_run: counted.as_run, points, ..Checked::default() },
        Vec::new(),
        title,
        model,
    ))
}

fn matching<'r>(args: &Args, registry: &'r Registry) -> Result<Vec<&'r str>> {
    Ok(registry.matching(&args.only)?.iter().map(|k| k.name.as_str()).collect())
}

fn nothing_measured(args: &Args) -> Failure {
    Failure::Usage(format!(
        "no measured record of a kernel matching `{}`: a model is checked against times of a GPU",
        args.only
    ))
}

/// The description that is checked: the one asked for, else that of the GPU.
fn described(args: &Args, gpu: &str) -> Result<DeviceModel> {
    match &args.model {
        Some(spec) => Ok(DeviceModel::named(spec)?),
        None => DeviceModel::of_gpu(gpu).ok_or_else(|| {
            Failure::Usage(format!("no description matches {gpu:?}; name one with --model"))
        }),
    }
}
