//! Modelled against measured times, the one place where both stand side by side: it judges the model.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::plot::{self, Axis, Line, Panel};
use super::svg::Ink;
use super::{ReportError, format};
use crate::disk;
use crate::measure::counters::{Compared, Pair};
use crate::measure::model_check::{Checked, Point, agreements};
use crate::op::{Mark, Op, Problem};

/// Writes `README.md`, `scatter.svg` and `counted.json` into `out`; returns their paths.
///
/// `compared` are counts beside hardware counters, perhaps none. `shown` turns a problem into a few words; `title` names the GPU and the description.
///
/// # Errors
/// A file that cannot be written.
pub fn write_model_check(
    checked: &Checked,
    compared: &[Compared],
    title: &str,
    command: &str,
    shown: &dyn Fn(&Problem) -> String,
    out: &Path,
) -> Result<Vec<PathBuf>, ReportError> {
    let put = |path: PathBuf, text: &str| {
        disk::replace(&path, text.as_bytes())
            .map_err(|source| ReportError::Write { path: path.clone(), source })?;
        Ok(path)
    };
    std::fs::create_dir_all(out)
        .map_err(|source| ReportError::Write { path: out.to_path_buf(), source })?;
    let mut files = Vec::new();
    let mut text = format!(
        "# {title}\n\nMade by `{command}`. Measured times are medians on the GPU; modelled times are \
         what the emulator's counts and the description of the device come to. No measured time \
         went into the description; clocks that GPUs held did, into what it says of power.\n\n"
    );
    text += "In cycles: each time by its own clock.\n\n| kernel | variants | Spearman, all | in cycles | \
             Spearman by problem | in cycles | modelled / measured, median |\n\
             |---|---:|---:|---:|---|---|---:|\n";
    for (kernel, a) in agreements(&checked.points) {
        let by: Vec<String> =
            a.by_problem.iter().map(|p| format!("{:.2} ({})", p.rho, p.variants)).collect();
        let in_cycles: Vec<String> =
            a.by_problem.iter().filter_map(|p| Some(format!("{:.2}", p.in_cycles?))).collect();
        let _ = writeln!(
            text,
            "| `{kernel}` | {} | {:.3} | {} | {} | {} | {:.2} |",
            a.variants,
            a.overall,
            a.in_cycles.map_or(String::new(), |r| format!("{r:.3}")),
            by.join(", "),
            in_cycles.join(", "),
            a.ratio
        );
    }
    for (kernel, (n, why)) in &checked.missing {
        let _ = writeln!(text, "\n`{kernel}`: {n} variants could not be executed: {why}");
    }
    // What people say of it stays.
    if let Ok(notes) = std::fs::read_to_string(out.join("notes.md")) {
        let _ = writeln!(text, "\n{}", notes.trim());
    }
    if let Some(svg) = plot::draw(title, &panels(&checked.points)) {
        files.push(put(out.join("scatter.svg"), &svg.standalone())?);
        text += "\n![Modelled against measured time](scatter.svg)\n";
    }
    text += &counters(compared, shown);
    let mhz = |clock: Option<f64>| clock.map_or(String::new(), |mhz| format!("{mhz:.0}"));
    text += "\n| kernel | problem | tile | measured, us | modelled, us | ratio | measured, MHz | modelled, MHz | bound by |\n|---|---|---|---:|---:|---:|---:|---:|---|\n";
    for p in &checked.points {
        let _ = writeln!(
            text,
            "| `{}` | {} | {} | {} | {} | {:.2} | {} | {} | {} |",
            p.counted.kernel,
            shown(&p.counted.problem),
            p.counted.tile,
            format::three(p.counted.measured_ns / 1e3),
            format::three(p.modelled.ns / 1e3),
            p.modelled.ns / p.counted.measured_ns,
            mhz(p.counted.measured_mhz),
            mhz(p.modelled.sm_mhz),
            p.modelled.bound
        );
    }
    files.push(put(out.join("counted.json"), &checked.count().text())?);
    files.insert(0, put(out.join("README.md"), &text)?);
    Ok(files)
}

/// Counts beside hardware counters, by launch and by kernel.
fn counters(compared: &[Compared], shown: &dyn Fn(&Problem) -> String) -> String {
    if compared.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## Counts against hardware counters\n\nThe emulator's counts over the GPU's, by launch, \
         L2 cold. Sectors are those that loads, asynchronous copies and stores request \
         (`l1tex__t_sectors_pipe_lsu_mem_global_op_ld`, `_st`); bytes of device memory are those of \
         the modelled L2 (`dram__bytes_read`, `dram__bytes_write`). Instructions are PTX on one side \
         and machine code on the other.\n\n| launch | problem | tile | sectors read | written | \
         device memory, read, MB | written, MB | both | wavefronts | instructions |\n\
         |---|---|---|---:|---:|---:|---:|---:|---:|---:|\n",
    );
    for c in compared {
        let mb = |p: Pair| {
            let of = |bytes: f64| format::three(bytes / 1e6);
            format!("{} of {}", of(p.counted), of(p.hardware))
        };
        let _ = writeln!(
            text,
            "| `{}` `{}` | {} | {} | {:.3} | {:.3} | {} | {} | {:.2} | {:.2} | {:.2} |",
            c.kernel,
            c.entry,
            shown(&c.problem),
            c.tile,
            c.read_sectors.ratio(),
            c.write_sectors.ratio(),
            mb(c.dram_read_bytes),
            mb(c.dram_write_bytes),
            c.dram_read_bytes.plus(c.dram_write_bytes).ratio(),
            c.wavefronts.ratio(),
            c.instructions.ratio()
        );
    }
    text += "\n| kernel, all launches | problem | sectors | device memory |\n|---|---|---:|---:|\n";
    for case in compared.chunk_by(|a, b| a.kernel == b.kernel && a.problem == b.problem) {
        let zero = Pair { counted: 0.0, hardware: 0.0 };
        let sum = |of: fn(&Compared) -> Pair| case.iter().map(of).fold(zero, Pair::plus);
        let sectors = sum(|c| c.read_sectors.plus(c.write_sectors));
        let dram = sum(|c| c.dram_read_bytes.plus(c.dram_write_bytes));
        let (kernel, problem) = (&case[0].kernel, shown(&case[0].problem));
        let (sectors, dram) = (sectors.ratio(), dram.ratio());
        let _ = writeln!(text, "| `{kernel}` | {problem} | {sectors:.3} | {dram:.2} |");
    }
    text + "\n## Modelled against measured times\n"
}

/// A panel a kernel: each problem with a marker of its own.
fn panels(points: &[Point]) -> Vec<Panel> {
    let by_kernel = agreements(points);
    let panel =
        |(order, (kernel, a)): (usize, (&&str, &crate::measure::model_check::Agreement))| {
            let of: Vec<&Point> = points.iter().filter(|p| p.counted.kernel == **kernel).collect();
            let times =
                || of.iter().flat_map(|p| [p.counted.measured_ns / 1e3, p.modelled.ns / 1e3]);
            let x = Axis::values(of.iter().map(|p| p.counted.measured_ns / 1e3), "measured, us");
            let y = Axis::values(of.iter().map(|p| p.modelled.ns / 1e3), "modelled, us");
            let (lo, hi) = times().fold((f64::INFINITY, 0f64), |(l, h), t| (l.min(t), h.max(t)));
            let mut lines = vec![equal(lo.max(x.lo).max(y.lo), hi.min(x.hi).min(y.hi))];
            let mut problems: Vec<_> = of.iter().map(|p| &p.counted.problem).collect();
            problems.dedup();
            lines.extend(of.iter().map(|p| {
                let which = problems.iter().position(|q| **q == p.counted.problem).unwrap_or(0);
                let markers = [Mark::Circle, Mark::Square, Mark::Triangle];
                Line {
                    label: String::new(),
                    ink: match which / 3 {
                        0 => Ink::Op(p.counted.problem.op()),
                        _ => Ink::Op(another(p.counted.problem.op())),
                    },
                    dash: 0,
                    marker: Some(markers[which % 3]),
                    points: vec![(p.counted.measured_ns / 1e3, p.modelled.ns / 1e3)],
                    spread: vec![],
                }
            }));
            Panel {
                title: kernel.to_string(),
                notes: vec![format!("{} variants, Spearman {:.3}", a.variants, a.overall)],
                order,
                x,
                y,
                lines,
                marks: vec![],
                rules: vec![],
            }
        };
    by_kernel.iter().enumerate().map(panel).collect()
}

/// An operator of the other side, whose colour is free.
fn another(op: Op) -> Op {
    Op::all().find(|other| other.side() != op.side()).unwrap_or(op)
}

/// Where both times are equal.
fn equal(lo: f64, hi: f64) -> Line {
    let points = if lo < hi { vec![(lo, lo), (hi, hi)] } else { vec![] };
    Line { label: String::new(), ink: Ink::Muted, dash: 1, marker: None, points, spread: vec![] }
}
