//! `crossover compare --live`: two kernels in turns on one device.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::super::{Failure, Result, console, pick, shell};
use super::Args;
use crate::compare::render::time;
use crate::device::open::open;
use crate::device::{Clock, Device, Regime, Sampler};
use crate::disk;
use crate::kernel::{Registry, Tile};
use crate::measure::live::{Live, Until, interleaved};
use crate::measure::{Bench, Limits, Verdict};
use crate::op::Problem;
use crate::record::{Record, Status};
use crate::sweep::Case;

/// Samples before a planted slowdown is set, so that the clock is that of the comparison.
const CALIBRATION: usize = 400;
/// A planted slowdown is a kernel that spins behind both sides' launches, for so long behind A's: its
/// launch costs both the same.
const SPIN_NS: f64 = 2000.0;

/// `[DIR::]KERNEL[:TILE]`, taken apart.
struct Side<'t> {
    folder: Option<&'t Path>,
    kernel: &'t str,
    tile: Option<Tile>,
}

impl<'t> Side<'t> {
    fn parse(text: &'t str) -> Result<Side<'t>> {
        let (folder, rest) = match text.split_once("::") {
            Some((folder, rest)) => (Some(Path::new(folder)), rest),
            None => (None, text),
        };
        let (kernel, tile) = match rest.split_once(':') {
            Some((kernel, tile)) => {
                let parsed = tile.parse().map_err(|e| Failure::Usage(format!("{text}: {e}")))?;
                (kernel, Some(parsed))
            }
            None => (rest, None),
        };
        if let Some(folder) = folder.filter(|f| !f.is_dir()) {
            let folder = folder.display();
            return Err(Failure::Usage(format!("{text}: {folder} is no kernel folder")));
        }
        Ok(Side { folder, kernel, tile })
    }

    fn registry(&self) -> Result<Option<Registry>> {
        self.folder.map(|dir| Registry::from_dir(dir).map_err(Failure::from)).transpose()
    }

    /// The case of this side; the problem is that of `problem` or, without it, of the settings.
    fn case(
        &self,
        args: &Args,
        registry: &Registry,
        device: &dyn Device,
        problem: Option<&Problem>,
    ) -> Result<Case> {
        let named = registry.named(self.kernel)?;
        let problem = match problem {
            Some(problem) if problem.op() != named.op() => {
                return Err(Failure::Usage(format!(
                    "{}: it computes {}, and the other kernel {}; kernels of one operator are \
                     compared here, and operators by a sweep (`crossover run`)",
                    self.kernel,
                    named.op(),
                    problem.op()
                )));
            }
            Some(problem) => problem.clone(),
            None => named.problem(&args.settings()).map_err(Failure::Usage)?,
        };
        problem.fits_memory().map_err(Failure::Usage)?;
        let kernel = pick(&named, device.facts(), &problem)?;
        kernel.supports(&problem)?;
        if let Some(why) = kernel.unfit(device.facts()) {
            return Err(Failure::Usage(why));
        }
        // Axes that are not given are the default's.
        let mut tile = kernel.default_tile(&problem)?;
        tile.0.extend(self.tile.iter().flat_map(|given| given.0.clone()));
        kernel.check_tile(&problem, &tile)?;
        let (family, seed) = (Default::default(), args.seed);
        let regime = if args.hot { Regime::Hot } else { Regime::Cold };
        Ok(Case { problem, family, seed, kernel: kernel.name.clone(), tile, regime })
    }
}

/// Compares two kernels on one device and prints the verdict.
///
/// # Errors
/// A kernel, tile, problem or device that means nothing or does not fit; a wrong result; B slower.
pub fn run(args: &Args, registry: &Registry) -> Result {
    let (one, two) = (args.old.to_string_lossy(), args.new.to_string_lossy());
    let sides = [Side::parse(&one)?, Side::parse(&two)?];
    let own = [sides[0].registry()?, sides[1].registry()?];
    let registries = [own[0].as_ref().unwrap_or(registry), own[1].as_ref().unwrap_or(registry)];
    let device = open(&args.device)?;
    let device = device.as_ref();
    let a = sides[0].case(args, registries[0], device, None)?;
    let b = sides[1].case(args, registries[1], device, Some(&a.problem))?;
    let command = shell::command();
    let bench = |i: usize| Bench::new(registries[i], device, "live", &command, Limits::default());
    let mut held = Vec::new();
    let mut records = Vec::new();
    for (i, case) in [&a, &b].into_iter().enumerate() {
        let name = ["A", "B"][i];
        console::say(&format!("{name}  {} {}", case.kernel, case.tile));
        let (record, job) = bench(i).hold(case).map_err(|lost| Failure::Usage(lost.0))?;
        let Some(job) = job else {
            let why = record.reason.unwrap_or_default();
            let said = format!("{name} is {:?}: {why}", record.status);
            return Err(match record.status {
                Status::Wrong => Failure::Negative(said),
                _ => Failure::Usage(said),
            });
        };
        records.push(record);
        held.push(job);
    }
    let facts = device.facts();
    console::say(&format!("both verified: {}, on {} ({})", a.problem, facts.id, facts.name));
    let max_mhz = device.health().and_then(|h| h.max_sm_mhz).map(f64::from);
    let (mut second, mut first) = (held.pop(), held.pop());
    let (Some((one, times_a)), Some((two, times_b))) = (&mut first, &mut second) else {
        return Err(Failure::Usage("nothing is loaded".into()));
    };
    match (one.clock(*times_a), two.clock(*times_b)) {
        (Clock::Modelled(Some(x)), Clock::Modelled(Some(y))) => {
            modelled(args, &records, x.ns, y.ns * (1.0 + args.plant.unwrap_or(0.0)))
        }
        (Clock::Measured(x), Clock::Measured(y)) => {
            measured(args, &records, [x, y], a.regime, max_mhz)
        }
        _ => Err(Failure::Usage(format!("{}: nothing was counted", facts.id))),
    }
}

fn modelled(args: &Args, records: &[Record], a: f64, b: f64) -> Result {
    let ratio = b / a;
    let verdict = Verdict::of((ratio, ratio), args.threshold);
    console::say(&format!(
        "{verdict}: B/A {ratio:.4}, modelled exactly, nothing measured (A {}, B {})",
        time(a),
        time(b)
    ));
    let found =
        json!({"kind": "modelled", "verdict": verdict, "ratio": ratio, "a_ns": a, "b_ns": b});
    keep(args, records, &[found])?;
    ended(verdict == Verdict::Slower)
}

fn measured(
    args: &Args,
    records: &[Record],
    [a, b]: [&mut dyn Sampler; 2],
    regime: Regime,
    max_mhz: Option<f64>,
) -> Result {
    if let Some(share) = args.plant {
        plant(share, [&mut *a, &mut *b], regime)?;
    }
    let (start, mut counts, mut all) = (Instant::now(), [0; 4], Vec::new());
    for n in 0..args.repeat {
        let until = Until {
            threshold: args.threshold,
            budget: args.budget,
            span: Duration::from_millis(100).min(args.budget),
            seed: u64::from(n),
        };
        let mut elapsed = || start.elapsed();
        let live = interleaved([&mut *a, &mut *b], regime, &until, max_mhz, &mut elapsed)?;
        console::say(&line(&live));
        counts[Verdict::ALL.iter().position(|v| *v == live.verdict).unwrap_or(3)] += 1;
        all.push(json!(live));
        // What was measured stays, whatever comes after it.
        if n % 20 == 0 {
            keep(args, records, &all)?;
        }
    }
    keep(args, records, &all)?;
    if args.repeat > 1 {
        let parts: Vec<_> =
            Verdict::ALL.iter().zip(counts).map(|(v, n)| format!("{n} {v}")).collect();
        let each = start.elapsed().as_secs_f64() / f64::from(args.repeat);
        console::say(&format!(
            "{} comparisons: {}; {each:.2} s each",
            args.repeat,
            parts.join(", ")
        ));
    } else if counts[3] > 0 {
        console::say("ambiguous: the budget was too short for a verdict; a longer --budget helps");
    }
    ended(2 * counts[0] > args.repeat)
}

fn line(live: &Live) -> String {
    let Live { verdict, ratio, interval, a_ns, b_ns, .. } = live;
    let doubt = if live.settled { "" } else { ", the clock did not settle" };
    format!(
        "{verdict}: B/A {ratio:.4} ({:.4}..{:.4}), A {}, B {}, {} blocks in {:.2} s{doubt}",
        interval.0,
        interval.1,
        time(*a_ns),
        time(*b_ns),
        live.blocks,
        live.seconds
    )
}

/// Lets a kernel spin behind both sides, and longer behind B by a share of A's time.
fn plant(share: f64, [a, b]: [&mut dyn Sampler; 2], regime: Regime) -> Result {
    let mut samples = Vec::new();
    for _ in 0..CALIBRATION {
        samples.push(a.sample(regime)?);
        b.sample(regime)?;
    }
    let middle = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let mhz = middle(samples[CALIBRATION / 2..].iter().filter_map(|s| s.sm_mhz).collect());
    let Some(mhz) = mhz else {
        return Err(Failure::Usage("--plant: this device does not tell its clock".into()));
    };
    let cycles = |ns: f64| (ns * mhz / 1e3) as u64;
    a.spin(cycles(SPIN_NS))?;
    let mut with = Vec::new();
    for _ in 0..CALIBRATION {
        with.push(a.sample(regime)?.ns);
    }
    let whole = middle(with).unwrap_or(0.0);
    b.spin(cycles(SPIN_NS + share * whole))?;
    console::say(&format!(
        "planted on the device: both spin {} cycles behind their launches, B {} more, {:.2}% of {}",
        cycles(SPIN_NS),
        cycles(SPIN_NS + share * whole) - cycles(SPIN_NS),
        100.0 * share,
        time(whole)
    ));
    Ok(())
}

/// Writes both records and every sample where `--out` says.
fn keep(args: &Args, records: &[Record], comparisons: &[serde_json::Value]) -> Result {
    let Some(path) = &args.out else { return Ok(()) };
    let text = json!({"schema": 1, "threshold": args.threshold, "planted": args.plant,
        "a": records[0], "b": records[1], "comparisons": comparisons});
    disk::replace(path, format!("{text}\n").as_bytes())
        .map_err(|e| Failure::Usage(format!("cannot write {}: {e}", path.display())))
}

fn ended(slower: bool) -> Result {
    match slower {
        true => Err(Failure::Negative("B is slower than A".into())),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_are_taken_apart() {
        let side = Side::parse("kernels::some/prefill.sm80:BM=128,BN=64").unwrap();
        assert_eq!(side.folder, Some(Path::new("kernels")));
        assert_eq!(side.kernel, "some/prefill.sm80");
        assert_eq!(side.tile.unwrap().to_string(), "BM=128,BN=64");
        let side = Side::parse("some/prefill").unwrap();
        assert!(side.folder.is_none() && side.tile.is_none() && side.kernel == "some/prefill");
        assert!(Side::parse("no/such::some/prefill").is_err());
        assert!(Side::parse("some/prefill:BM").is_err());
    }
}
