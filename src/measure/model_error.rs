//! The table of a model's errors, from variants that were both measured and modelled.

use indexmap::IndexMap;

use super::model_check::Point;
use crate::device::model::{ANY, ErrorRow, ErrorTable};

/// Where one region of modelled times ends and the next begins, in microseconds: what launches and
/// a warm L2 are worth, and how far power holds the clock back, goes with the length of a kernel.
const CUTS_US: [f64; 3] = [30.0, 100.0, 1000.0];

/// Cases that a region needs to have a row of its own.
const LEAST: usize = 5;

/// Cases from which on a twentieth at each end is left out.
const MANY: usize = 20;

/// The errors of each kernel and phase that at least [`LEAST`] points are of, by region and over all,
/// and of any other kernel, which may be as wrong as the worst row of all. Points whose PTX has changed
/// since it was measured tell nothing.
///
/// # Errors
/// No point's PTX is what was measured.
pub fn table(model: &str, points: &[Point]) -> Result<ErrorTable, String> {
    let mut by_kernel: IndexMap<(&str, String), Vec<&Point>> = IndexMap::new();
    for p in points.iter().filter(|p| p.counted.same_ptx) {
        let phase = p.counted.problem.phase().to_string();
        by_kernel.entry((&p.counted.kernel, phase)).or_default().push(p);
    }
    by_kernel.sort_keys();
    let mut error = Vec::new();
    for (kernel, points) in &by_kernel {
        let starts = std::iter::once(None).chain(CUTS_US.map(Some));
        let ends = CUTS_US.map(Some).into_iter().chain([None]);
        for region in starts.zip(ends) {
            let inside = |p: &&&Point| {
                let us = p.modelled.ns / 1e3;
                region.0.is_none_or(|from| us >= from) && region.1.is_none_or(|to| us < to)
            };
            let inside: Vec<&Point> = points.iter().filter(inside).copied().collect();
            // A region of all that there is says no more than the kernel's row.
            if inside.len() < points.len() {
                error.extend(row(kernel, region, &inside));
            }
        }
        error.extend(row(kernel, (None, None), points));
    }
    // Kernels with fewer cases have no row, and yet show how wrong a time can be.
    let few = by_kernel.values().filter(|points| points.len() < LEAST).flatten();
    let few: Vec<f64> = few.map(|p| ratio(p)).collect();
    let rows = error.iter().map(|r: &ErrorRow| (r.low, r.high));
    let all = rows.chain(few.iter().map(|r| outwards(*r, *r)));
    let worst = all.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1)));
    let Some((low, high)) = worst else {
        return Err("no variant's PTX is what was measured".into());
    };
    let cases = by_kernel.values().map(Vec::len).sum();
    let kernel = ANY.to_owned();
    error.push(ErrorRow { kernel, phase: None, from_us: None, to_us: None, low, high, cases });
    Ok(ErrorTable { model: model.into(), error })
}

fn row(
    (kernel, phase): &(&str, String),
    (from_us, to_us): (Option<f64>, Option<f64>),
    points: &[&Point],
) -> Option<ErrorRow> {
    if points.len() < LEAST {
        return None;
    }
    let mut ratios: Vec<f64> = points.iter().map(|p| ratio(p)).collect();
    ratios.sort_by(f64::total_cmp);
    let cases = ratios.len();
    let out = if cases < MANY { 0 } else { cases / MANY };
    let (low, high) = outwards(ratios[out], ratios[cases - 1 - out]);
    let (kernel, phase) = (kernel.to_string(), Some(phase.clone()));
    Some(ErrorRow { kernel, phase, from_us, to_us, low, high, cases })
}

fn ratio(p: &Point) -> f64 {
    p.counted.measured_ns / p.modelled.ns
}

/// Two digits, outwards.
fn outwards(low: f64, high: f64) -> (f64, f64) {
    ((low * 100.0).floor() / 100.0, (high * 100.0).ceil() / 100.0)
}

/// The table as a file, with `command` as its origin.
pub fn text(table: &ErrorTable, command: &str) -> String {
    let rows = toml::to_string(table).expect("a table is plain data");
    format!(
        "# Measured over modelled times of kernels, by modelled time; docs/method.md says how it is used.\n\
         # Made by `{command}`.\n\n{rows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Modelled;
    use crate::kernel::Tile;
    use crate::measure::model_check::Counted;
    use crate::op::{DType, Op, Problem};

    /// Modelled at `us`, measured at `ratio` times that.
    fn point(kernel: &str, us: f64, ratio: f64, same_ptx: bool) -> Point {
        let op = Op::all().next().unwrap();
        let modelled = Modelled {
            model: "x".into(),
            ns: us * 1e3,
            sm_mhz: Some(1000.0),
            limits: IndexMap::new(),
            bound: String::new(),
        };
        let counted = Counted {
            kernel: kernel.into(),
            problem: Problem::plain(op, op.phases()[0].name, DType::Bf16, (64, 64), 64),
            tile: Tile::default(),
            same_ptx,
            measured_ns: us * 1e3 * ratio,
            measured_mhz: None,
            measured_cycles: None,
            launches: Vec::new(),
        };
        Point { counted, modelled }
    }

    #[test]
    fn rows_by_region_and_kernel_and_the_worst_for_all_others() {
        let short = (0..6).map(|i| point("a", 10.0, 1.0 + f64::from(i) / 10.0, true));
        let long = (0..40).map(|i| point("a", 2000.0, 0.8 + f64::from(i) / 100.0, true));
        // Too few for a row, and of another PTX.
        let few = (0..4).map(|_| point("b", 10.0, 9.0, true));
        let other = (0..9).map(|_| point("a", 10.0, 0.1, false));
        let points: Vec<Point> = short.chain(long).chain(few).chain(other).collect();
        let table = table("x", &points).unwrap();
        let a = format!("a for {}", points[0].counted.problem.phase());
        let rows: Vec<_> =
            table.error.iter().map(|r| (r.region(), r.low, r.high, r.cases)).collect();
        assert_eq!(
            rows,
            [
                (format!("{a}, below 30 us"), 1.0, 1.5, 6),
                // Of 40, two at each end are left out.
                (format!("{a}, from 1 ms on"), 0.82, 1.17, 40),
                (a, 0.82, 1.3, 46),
                ("any kernel".to_string(), 0.82, 9.0, 50),
            ]
        );
        assert_eq!(ErrorTable::parse(&text(&table, "x")).unwrap(), table);
        assert!(super::table("x", &points[points.len() - 9..]).is_err());
    }
}
