//! `crossover compare`: what has become faster or slower between two sets of records.

mod live;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::output::{self, Input};
use super::{Failure, Result, console};
use crate::compare::{Comparison, Rule, compare, render};
use crate::kernel::Registry;
use crate::{disk, record};

/// Hold new records against old ones, case by case: faster, slower, same or ambiguous.
///
/// The ratio of medians comes with a 95% interval. Same: the whole interval lies within the threshold.
/// Slower (faster): it lies beyond half the threshold. Ambiguous: neither, and a note says what helps.
/// Exit code 1 if a case is slower, or was right and is not any more.
///
/// With --live, OLD and NEW are two kernels, verified and then timed in turns on one device until the
/// verdict is sure or the budget is spent: [DIR::]KERNEL[:TILE], such as attention/prefill.sm90a,
/// attention/prefill.sm80:BM=128,BN=64 or my-kernels::attention/prefill.sm80. Drift cancels, and one may
/// look at any time: the interval holds all the same. On the emulator modelled times are compared.
#[derive(clap::Args)]
pub struct Args {
    /// Records from before: a file, or a folder that a run wrote. With --live kernel A.
    old: PathBuf,
    /// Records from after. With --live kernel B.
    new: PathBuf,
    /// Percent by which times may differ and still be the same.
    #[arg(long, value_name = "PCT", default_value = "1", value_parser = percent)]
    threshold: f64,
    /// Compare cases though they are of unlike devices.
    #[arg(long, conflicts_with = "live")]
    across_devices: bool,
    /// How the comparison is written.
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t, conflicts_with = "live")]
    format: Format,
    /// Write it to a file; standard output then has the counts alone. With --live every sample, as JSON.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Time two kernels in turns on one device.
    #[arg(long)]
    live: bool,
    /// Problem of --live, over a small default one: B=2,T=2048,causal=true.
    #[arg(long, short, value_name = "VAR=VALUE,..", default_value = "", requires = "live")]
    problem: String,
    /// Precision of --live; says the same as dtype=.. in the problem.
    #[arg(long, value_name = "DTYPE", requires = "live")]
    dtype: Option<String>,
    /// Device of --live: auto, cuda:N or emulator[:MODEL].
    #[arg(long, default_value = "auto", value_name = "DEVICE", requires = "live")]
    device: String,
    /// Seed of the inputs of --live.
    #[arg(long, default_value_t = 1, requires = "live")]
    seed: u64,
    /// Leave L2 as the run before left it, in place of flushing it before each sample of --live.
    #[arg(long, requires = "live")]
    hot: bool,
    /// Longest time for samples of --live: 30s, 1m, 2m30s.
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = duration, requires = "live")]
    budget: Duration,
    /// Whole comparisons of --live, with the counts of their verdicts.
    #[arg(long, value_name = "N", default_value_t = 1, requires = "live")]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100_000))]
    repeat: u32,
    /// Slow B by so many percent of A's time: on a GPU a kernel spins on the device within each sample,
    /// on the emulator the modelled time is multiplied.
    #[arg(long, hide = true, value_name = "PCT", value_parser = percent, requires = "live")]
    plant: Option<f64>,
}

impl Args {
    fn settings(&self) -> String {
        match &self.dtype {
            Some(dtype) => format!("dtype={dtype},{}", self.problem),
            None => self.problem.clone(),
        }
    }
}

/// `90`, `90s`, `1m`, `1m30s`.
fn duration(text: &str) -> std::result::Result<Duration, String> {
    let text = text.trim();
    let seconds = match text.split_once('m') {
        Some((m, "")) => m.parse::<f64>().map(|m| 60.0 * m),
        Some((m, rest)) => m
            .parse::<f64>()
            .and_then(|m| rest.trim_end_matches('s').parse::<f64>().map(|s| 60.0 * m + s)),
        None => text.trim_end_matches('s').parse::<f64>(),
    };
    match seconds {
        Ok(s) if s > 0.0 && s <= 86_400.0 => Ok(Duration::from_secs_f64(s)),
        _ => Err("expected a time over 0 and up to a day, such as 30s, 1m or 2m30s".into()),
    }
}

#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Markdown,
    Csv,
    Json,
}

/// `1` or `1%`, as a part of one.
pub fn percent(text: &str) -> std::result::Result<f64, String> {
    match text.trim().trim_end_matches('%').parse::<f64>() {
        Ok(p) if p > 0.0 && p <= 100.0 => Ok(p / 100.0),
        _ => Err("expected percent over 0 and up to 100, such as 1 or 0.5".into()),
    }
}

/// Prints the comparison. `kernels` is the folder that the registry was read from, if not the embedded one.
///
/// # Errors
/// Records that cannot be read or have no case in common, an output that cannot be written; a regression.
pub fn run(args: Args, registry: &Registry, kernels: Option<&Path>) -> Result {
    if args.live {
        if let Some(path) = &args.out {
            let inputs: Vec<_> =
                kernels.iter().map(|path| Input { option: "--kernels", path }).collect();
            output::file("--out", path, &inputs)?;
        }
        return live::run(&args, registry);
    }
    if let Some(path) = &args.out {
        let inputs = [("OLD", &args.old), ("NEW", &args.new)];
        output::file("--out", path, &inputs.map(|(option, path)| Input { option, path }))?;
    }
    let rule = Rule { threshold: args.threshold, across_devices: args.across_devices };
    let (old, new) = (records(&args.old)?, records(&args.new)?);
    let found = compare(&old, &new, rule).map_err(Failure::Usage)?;
    let text = match args.format {
        Format::Text => render::text(&found),
        Format::Markdown => render::markdown(&found),
        Format::Csv => render::csv(&found),
        Format::Json => render::json(&found),
    };
    match &args.out {
        None => console::put(&text),
        Some(path) => {
            disk::replace(path, text.as_bytes())
                .map_err(|e| Failure::Usage(format!("cannot write {}: {e}", path.display())))?;
            console::say(&render::counts(&found));
        }
    }
    verdict(&found)
}

fn verdict(found: &Comparison) -> Result {
    match found.regressions() {
        0 => Ok(()),
        1 => Err(Failure::Negative("1 case is a regression".into())),
        n => Err(Failure::Negative(format!("{n} cases are regressions"))),
    }
}

fn records(path: &Path) -> Result<Vec<record::Record>> {
    let read = record::read(&[path]).map_err(|e| Failure::Usage(e.to_string()))?;
    for ignored in &read.ignored {
        console::note(&format!("note: {ignored}"));
    }
    Ok(read.records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_percents() {
        let seconds = |text| duration(text).map(|d| d.as_secs_f64()).ok();
        let wanted = [Some(90.0), Some(30.0), Some(60.0), Some(150.0)];
        assert_eq!(["90", "30s", "1m", "2m30s"].map(seconds), wanted);
        assert_eq!(["", "0", "-1s", "x", "1h", "nan", "1m1m"].map(seconds), [None; 7]);
        assert_eq!(
            ["1", "0.5%", "0", "nan", "101"].map(|t| percent(t).ok()),
            [Some(0.01), Some(0.005), None, None, None]
        );
    }
}
