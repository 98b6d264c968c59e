//! The model of time against records of H200s, from what was counted of their variants
//! (reports/h200-model-error): nothing is executed here.

use crossover::device::model::{DeviceModel, ErrorTable, model_at};
use crossover::measure::model_check::{Count, Counted, Point, agreements};

use crate::common::crossover;

const COUNTED: &str = "reports/h200-model-error/counted.json";
const TABLE: &str = "devices/h200-error.toml";

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn device() -> DeviceModel {
    DeviceModel::named("h200").expect("a described device")
}

fn points() -> Vec<Point> {
    let device = device();
    let count = Count::parse(&read(COUNTED)).expect("what was counted");
    count.variants.into_iter().map(|counted| Point::new(&device, counted)).collect()
}

/// The time at the described clock, as if power had no limit.
fn unlimited_ns(device: &DeviceModel, counted: &Counted) -> f64 {
    model_at(device, &counted.launches, f64::from(device.sm_mhz)).ns
}

#[test]
fn the_table_is_what_the_counts_come_to() {
    let folder = tempfile::tempdir().expect("a folder");
    let made = folder.path().join("errors.toml");
    crossover(&["model-check", "--counted", COUNTED, "--errors"]).arg(&made).assert().success();
    let made = std::fs::read_to_string(&made).expect("a table");
    let rows = |text: &str| text.split_once("\n\n").expect("a heading").1.to_owned();
    assert_eq!(rows(&made), rows(&read(TABLE)), "{TABLE} is not up to date: its heading says how");
    // As many of the cases are within it as it says: nine tenths of large rows, all of small ones.
    let table = ErrorTable::parse(&made).expect("a table");
    let points: Vec<Point> = points().into_iter().filter(|p| p.counted.same_ptx).collect();
    for row in table.error.iter().filter(|r| r.phase.is_some()) {
        let of: Vec<f64> = (points.iter())
            .filter(|p| {
                let (c, us) = (&p.counted, p.modelled.ns / 1e3);
                c.kernel == row.kernel
                    && Some(c.problem.phase().to_string()) == row.phase
                    && row.from_us.is_none_or(|from| us >= from)
                    && row.to_us.is_none_or(|to| us < to)
            })
            .map(|p| p.counted.measured_ns / p.modelled.ns)
            .collect();
        assert_eq!(of.len(), row.cases, "{}", row.region());
        let inside = of.iter().filter(|r| (row.low..=row.high).contains(*r)).count();
        let least = if of.len() < 20 { of.len() } else { of.len() * 9 / 10 };
        assert!(inside >= least, "{inside} of {} in {}", of.len(), row.region());
    }
}

#[test]
fn clocks_fall_as_those_of_gpus_do() {
    let device = device();
    let held: Vec<(f64, f64)> = (points().iter())
        .filter_map(|p| Some((p.counted.measured_mhz?, p.modelled.sm_mhz?)))
        .filter(|(measured, _)| *measured < 1700.0)
        .collect();
    assert!(held.len() > 50, "{}", held.len());
    let off = |of: &dyn Fn(f64) -> f64| {
        held.iter().map(|(measured, mhz)| (of(*mhz) / measured - 1.0).abs()).sum::<f64>()
            / held.len() as f64
    };
    let (modelled, fixed) = (off(&|mhz| mhz), off(&|_| f64::from(device.sm_mhz)));
    assert!(modelled < 0.08 && fixed > 2.0 * modelled, "{modelled:.3} of {fixed:.3}");
    // Light and short kernels keep theirs.
    let free: Vec<f64> = (points().iter())
        .filter(|p| p.modelled.ns < 3e4)
        .filter_map(|p| p.modelled.sm_mhz)
        .collect();
    let kept = free.iter().filter(|mhz| **mhz == f64::from(device.sm_mhz)).count();
    assert!(kept * 10 >= free.len() * 9, "{kept} of {}", free.len());
}

/// Attention with D 256 at 16k tokens: 1.19 ms at the described clock, 1.53 to 1.58 ms on H200s at 1.4 to
/// 1.47 GHz.
#[test]
fn long_products_are_modelled_at_the_clock_that_power_leaves() {
    let points = points();
    let long = points
        .iter()
        .find(|p| {
            let words = p.counted.problem.short();
            p.counted.kernel == "attention/prefill.sm90a"
                && [" T=16384 ", " D=256", " causal"].iter().all(|s| words.contains(s))
        })
        .expect("a record of D 256");
    let ratio = long.modelled.ns / long.counted.measured_ns;
    assert!((0.92..1.05).contains(&ratio), "{ratio}");
    let unlimited = unlimited_ns(&device(), &long.counted) / long.counted.measured_ns;
    assert!(unlimited < 0.8, "{unlimited}");
}

#[test]
fn modelled_times_order_variants_as_measured_ones_do() {
    let points = points();
    let agreements = agreements(&points);
    for kernel in ["attention", "gated_delta_rule", "kda"] {
        for (name, a) in agreements.iter().filter(|(name, _)| name.starts_with(kernel)) {
            assert!(a.overall > 0.9, "{name}: {:.3}", a.overall);
            for p in &a.by_problem {
                let (rho, problem) = (p.rho, p.problem.short());
                assert!(rho > 0.75, "{name}: {rho:.3} over {} tiles of {problem}", p.variants);
            }
        }
    }
}
