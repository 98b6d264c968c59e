//! `crossover exec`: one kernel on the tensors of a file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use super::{Failure, Result, file};
use crate::device::emulator::Checks;
use crate::device::open::open_with;
use crate::device::{Clock, Counts, JobShare, Modelled, Regime, ShareRule};
use crate::kernel::{Registry, Tile};
use crate::measure::sampling::{Limits, Series, series};
use crate::op::{Family, Flow, Problem};
use crate::record::Verification;
use crate::verify;

/// Run one kernel on the tensors of a safetensors file and write what it computes.
///
/// Shapes and precision come from the tensors; docs/exec.md lists names and layouts.
#[derive(clap::Args)]
pub struct Args {
    /// Kernel, such as attention/prefill.sm80; without its target (attention/prefill) the best
    /// that device and problem admit.
    kernel: String,
    /// File with the operator's inputs.
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// File to write the outputs to.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Tile; the kernel's default for the problem if missing.
    #[arg(long, value_name = "AXIS=N,..")]
    tile: Option<Tile>,
    /// auto, cuda:N or emulator[:MODEL].
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: String,
    /// On the emulator, execute about N CTAs of each launch: counts are extrapolated, what the
    /// other CTAs would write is NaN. all, or auto: as many as take a few seconds.
    #[arg(long, value_name = "N", default_value = "all")]
    sample_ctas: ShareRule,
    #[command(flatten)]
    options: super::options::Options,
    /// Hold the outputs against the fp64 reference; exit code 1 if they are wrong.
    #[arg(long)]
    verify: bool,
    /// Input family whose limits --verify uses.
    #[arg(long, requires = "verify", default_value = "random")]
    family: Family,
    /// Print what was run as one JSON object.
    #[arg(long)]
    json: bool,
}

/// Runs the kernel on the tensors of the file, writes its outputs and says what was run.
///
/// # Errors
/// A file that is no problem of the operator, or that the kernel, tile or device cannot do; a fault
/// while it runs; outputs that cannot be written, are wrong, or come with damaged buffers.
pub fn run(args: Args, registry: &Registry) -> Result {
    let named = registry.named(&args.kernel)?;
    let (problem, inputs) = file::read(&args.inputs, named.op(), named.phases(), &args.options)
        .map_err(Failure::Usage)?;
    let in_file = |e: crate::kernel::KernelError| {
        Failure::Usage(format!("{}: {problem}: {}", args.inputs.display(), e.0))
    };
    let device = open_with(&args.device, Checks::ALL)?;
    let facts = device.facts();
    let kernel = super::pick(&named, facts, &problem).map_err(in_file)?;
    kernel.supports(&problem).map_err(in_file)?;
    let tile = match &args.tile {
        Some(tile) => tile.clone(),
        None => kernel.default_tile(&problem).map_err(in_file)?,
    };
    kernel.check_tile(&problem, &tile)?;
    file::writable(&args.out).map_err(Failure::Usage)?;

    if let Some(why) = kernel.unfit(facts) {
        return Err(Failure::Usage(why));
    }
    super::sampling_allowed(args.sample_ctas, facts)?;
    let job = kernel.job_on(&problem, &tile, facts.multiprocessors)?;
    let mut loaded = device.load(&job, &inputs)?;
    loaded.limit_ctas(args.sample_ctas.of(problem.flops()))?;
    let run = loaded.run()?;
    let verification = args.verify.then(|| {
        let budget = verify::BUDGET_FLOPS;
        let held = verify::hold_run(&problem, &args.family, &inputs, &run, budget);
        let mut v = held.verification;
        verify::add_run_facts(&mut v, run.damage.clone(), None);
        v
    });
    // No time without a verified result beside it.
    let right = verification.as_ref().is_some_and(|v| v.passed);
    let (modelled, measured) = match loaded.clock(1) {
        Clock::Modelled(modelled) => (modelled, None),
        Clock::Measured(sampler) if right => {
            let start = Instant::now();
            let max_mhz = device.health().and_then(|h| h.max_sm_mhz).map(f64::from);
            let limits = Limits::default();
            let elapsed = &mut || start.elapsed();
            (None, Some(series(sampler, Regime::Cold, &limits, max_mhz, elapsed)?))
        }
        Clock::Measured(_) => (None, None),
    };
    let mut facts_of_run = vec![
        ("kernel", kernel.name.clone()),
        ("tile", tile.to_string()),
        ("ptx_sha256", job.ptx.sha256.clone()),
        ("device", facts.id.clone()),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
    ];
    if let (Some(sample), true) = (&run.share, run.computed.is_some()) {
        let (executed, of) = (sample.executed, sample.of);
        let text = format!("{executed} of {of} CTAs executed; what the others write is NaN");
        facts_of_run.push(("sampled", text));
    }
    file::write(&args.out, &problem, Flow::Output, &run.outputs, &facts_of_run)
        .map_err(Failure::Usage)?;

    let report = Report {
        problem: &problem,
        tile: &tile,
        inputs: &args.inputs,
        out: &args.out,
        counts: run.counts.as_ref(),
        sample: run.share.as_ref(),
        modelled: modelled.as_ref(),
        measured: measured.as_ref(),
        build: loaded.build(),
        verification: verification.as_ref(),
    };
    let text = if args.json {
        let object = report.json(&kernel.name, &kernel.manifest.target, &job.ptx.sha256, facts);
        format!("{object}\n")
    } else {
        report.text(&kernel.name, &job.ptx.sha256, &facts.id)
    };
    // A closed pipe (| head) is no failure.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());

    if let Some(why) = verification.as_ref().and_then(verify::reason) {
        return Err(Failure::Negative(format!("{}: wrong: {why}", kernel.name)));
    }
    if !run.damage.is_empty() {
        return Err(Failure::Negative(format!("{}: {}", kernel.name, run.damage.join("; "))));
    }
    Ok(())
}

/// What was run and what came of it.
struct Report<'a> {
    problem: &'a Problem,
    tile: &'a Tile,
    inputs: &'a Path,
    out: &'a Path,
    counts: Option<&'a Counts>,
    sample: Option<&'a JobShare>,
    modelled: Option<&'a Modelled>,
    measured: Option<&'a Series>,
    build: &'a crate::device::Build,
    verification: Option<&'a Verification>,
}

impl Report<'_> {
    fn json(
        &self,
        kernel: &str,
        target: &str,
        sha256: &str,
        device: &crate::device::Facts,
    ) -> serde_json::Value {
        let outputs: serde_json::Map<_, _> = self
            .problem
            .tensors_of(Flow::Output)
            .into_iter()
            .map(|t| {
                let facts = json!({ "dtype": t.dtype, "dims": t.dims, "shape": t.shape });
                (t.name.to_string(), facts)
            })
            .collect();
        json!({
            "kernel": kernel,
            "tile": self.tile,
            "target": target,
            "ptx_sha256": sha256,
            "problem": self.problem,
            "device": device,
            "inputs": self.inputs,
            "out": self.out,
            "outputs": outputs,
            "build": self.build,
            "counts": self.counts,
            "sample": self.sample,
            "modelled": self.modelled,
            "measured": self.measured.map(|m| json!({
                "regime": Regime::Cold,
                "median_ns": m.median_ns,
                "ci_ns": m.ci_ns,
                "samples": m.samples,
                "stopped": m.stopped.to_string(),
            })),
            "verification": self.verification,
        })
    }

    fn text(&self, kernel: &str, sha256: &str, device: &str) -> String {
        let tile = if self.tile.0.is_empty() { String::new() } else { format!(" {}", self.tile) };
        let mut text =
            format!("{kernel}{tile} on {device}\n  {}\n  PTX {sha256}\n", self.problem.settings());
        for sentence in self.sample.iter().flat_map(|s| s.sentences()) {
            text += &format!("  {sentence}\n");
        }
        if let Some(c) = self.counts {
            let bound = if c.executed_ctas.is_some() { "at most " } else { "" };
            text += &format!(
                "  {} instructions, {bound}{} bytes of distinct memory touched, {} bank conflicts\n",
                c.total_instructions(),
                c.unique_bytes(),
                c.bank_conflicts
            );
        }
        if let Some(m) = self.modelled {
            text +=
                &format!("  {:.3} ms modelled for {}, bound by {}\n", m.ns / 1e6, m.model, m.bound);
        }
        if let Some(m) = self.measured {
            text += &format!(
                "  {:.4} ms measured, L2 flushed, median of {} samples, 95% in {:.4}..{:.4}\n",
                m.median_ns / 1e6,
                m.samples.len(),
                m.ci_ns.0 / 1e6,
                m.ci_ns.1 / 1e6
            );
        }
        for warning in &self.build.warnings {
            text += &format!("  assembler: {warning}\n");
        }
        text += &self.verification.map(verify::table).unwrap_or_default();
        if let Some(subset) = self.verification.and_then(|v| v.subset.as_ref()) {
            text += &format!("  verified: {subset}\n");
        }
        text + &format!("  wrote {}\n", self.out.display())
    }
}
