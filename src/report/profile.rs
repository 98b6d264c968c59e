//! A profile for people: a summary and the annotated template, as text and as a page of HTML.

use std::fmt::Write as _;

use super::format::{integer, percent, plural, three};
use super::html::escape;
use super::svg;
use crate::device::Counts;
use crate::device::emulator::Line;
use crate::measure::profile::{PTX, Part, Profile, Spot};

/// A template with what each of its lines did.
pub struct Annotated {
    pub path: String,
    pub lines: Vec<Row>,
}

/// One line of a template.
pub struct Row {
    /// From 1; 0 for instructions of no known line.
    pub number: u32,
    pub text: String,
    /// Share of the modelled time, in 0..=1.
    pub share: f64,
    /// `None` where the line holds no instruction of this variant.
    pub line: Option<Line>,
}

/// Heads of [`Row::row`].
pub const HEAD: &str =
    "  share     executed   FLOPs  special  sectors  fetched  wavefr. conflicts  line";

impl Row {
    /// One line of text.
    pub fn row(&self) -> String {
        let text = format!("{:>5} {}", self.number, self.text);
        let Some(l) = &self.line else { return format!("{:79}{text}", "") };
        let mut row = format!("{:>7} {:>12}", percent_of(self.share), l.executions);
        for (n, width) in cells(l).into_iter().zip([8, 9, 9, 9, 9, 10]) {
            let _ = write!(row, "{:>width$}", short(n));
        }
        format!("{row:79}{text}").trim_end().to_string()
    }
}

fn cells(l: &Line) -> [u64; 6] {
    let sectors = l.read_sectors + l.write_sectors;
    [l.flops, l.special, sectors, l.l2_miss_sectors, l.wavefronts, l.conflicts]
}

fn percent_of(share: f64) -> String {
    if share < 0.0005 { String::new() } else { format!("{:.1}%", share * 100.0) }
}

/// A count in at most five characters; nothing for none.
fn short(n: u64) -> String {
    let x = n as f64;
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(unit, _)| x >= *unit) {
        _ if n == 0 => String::new(),
        None => n.to_string(),
        Some((unit, name)) if x / unit < 10.0 => format!("{:.2}{name}", x / unit),
        Some((unit, name)) if x / unit < 100.0 => format!("{:.1}{name}", x / unit),
        Some((unit, name)) => format!("{:.0}{name}", x / unit),
    }
}

/// The templates that hold executed lines, each whole; `source` gives the text of a path.
pub fn annotated<'a>(p: &Profile, source: &dyn Fn(&str) -> Option<&'a str>) -> Vec<Annotated> {
    files(&p.lines, source)
}

/// The rendered PTX.
pub fn annotated_ptx(p: &Profile) -> Annotated {
    let mut all = files(&p.ptx_lines, &|_| Some(&p.ptx));
    all.pop().unwrap_or(Annotated { path: PTX.to_string(), lines: Vec::new() })
}

fn files<'a>(spots: &[Spot], source: &dyn Fn(&str) -> Option<&'a str>) -> Vec<Annotated> {
    let mut files: Vec<&str> = spots.iter().map(|s| s.file.as_str()).collect();
    files.dedup();
    let one = |path: &str| {
        let of = |number: u32| spots.iter().find(|s| s.file == path && s.number == number);
        let row = |number: u32, text: &str| {
            let spot = of(number);
            Row {
                number,
                text: text.to_string(),
                share: spot.map_or(0.0, |s| s.share),
                line: spot.map(|s| s.line),
            }
        };
        let mut lines = Vec::new();
        if of(0).is_some() {
            lines.push(row(0, "(instructions of no known line)"));
        }
        let text = source(path).unwrap_or_default();
        lines.extend(text.lines().enumerate().map(|(i, text)| row(i as u32 + 1, text)));
        Annotated { path: path.to_string(), lines }
    };
    files.into_iter().map(one).collect()
}

/// What was run, how long it would take, what binds it, and what it did, as text.
pub fn summary(p: &Profile, problem: &str) -> String {
    let mut out = String::new();
    for (name, value) in facts(p, problem) {
        let mut lines = value.lines();
        let _ = writeln!(out, "{name:10} {}", lines.next().unwrap_or_default());
        for more in lines {
            let _ = writeln!(out, "{:10} {more}", "");
        }
    }
    for part in &p.launches {
        let _ = writeln!(out, "\nlaunch {}", part.entry);
        for (name, value) in launch_facts(part) {
            let _ = writeln!(out, "  {name:12} {value}");
        }
    }
    out
}

fn facts(p: &Profile, problem: &str) -> Vec<(&'static str, String)> {
    let m = &p.modelled;
    let us = |ns: f64| format!("{} us", three(ns / 1e3));
    let mut out = vec![
        ("kernel", format!("{}[{}]", p.kernel, p.tile)),
        ("problem", problem.to_string()),
        ("device", format!("{}: all times are modelled, none is measured", p.device)),
    ];
    if p.times > 1 {
        let what = format!("{}\ncounts are {} times its own", p.executed, p.times);
        out.push(("executed", what));
    }
    if let Some(share) = &p.share {
        let mut all = share.sentences();
        if share.is_part() {
            all.push("L2 is not modelled: device memory is taken to see each buffer once".into());
        }
        out.push(("CTAs", all.join("\n")));
    }
    out.push(("time", format!("{} modelled, bound by {}", us(m.ns), m.bound)));
    if let Some(mhz) = m.sm_mhz {
        out.push(("clock", format!("{mhz:.0} MHz modelled")));
    }
    if let Some(error) = &p.model_error {
        out.push(("error", format!("{} of the time: {error}", error.percent())));
    }
    out.push(("memory", memory(&p.counts)));
    let flops: Vec<String> =
        p.counts.tensor_flops.iter().map(|(dtype, n)| format!("{} {dtype}", short(*n))).collect();
    if !flops.is_empty() {
        out.push(("tensor", format!("{} FLOPs", flops.join(", "))));
    }
    let held: Vec<String> = (p.verification.outputs.iter())
        .map(|o| {
            let share = o.share.map_or_else(String::new, |s| format!(" ({s})"));
            format!("{} E/F {:.2} of {}{share}", o.name, o.ratio(), o.limit)
        })
        .collect();
    let subset = p.verification.subset.as_ref().map_or(String::new(), |s| format!(" ({s})"));
    let right = if p.verification.passed { "right" } else { "WRONG" };
    out.push(("verified", format!("{right}: {}{subset}", held.join(", "))));
    out
}

/// Traffic in one line: what was asked for, what is distinct, what the modelled L2 let through.
fn memory(c: &Counts) -> String {
    let bytes = |sectors: u64| size((sectors * Counts::SECTOR_BYTES) as f64);
    let bound = if c.executed_ctas.is_some() { "at most " } else { "" };
    let mut text = format!(
        "{} read and {} written in requests; {bound}{} and {} distinct",
        bytes(c.global_read_sectors),
        bytes(c.global_write_sectors),
        bytes(c.unique_read_sectors),
        bytes(c.unique_write_sectors)
    );
    if let Some(l2) = &c.l2 {
        let reads = (l2.read_hit_sectors + l2.read_miss_sectors).max(1) as f64;
        let _ = write!(
            text,
            "\nmodelled L2: {} of read sectors hit; device memory reads {}, writes {}, {} left to write",
            percent(l2.read_hit_sectors as f64 / reads),
            size(l2.dram_read_bytes as f64),
            size(l2.dram_write_bytes as f64),
            size(l2.left_dirty_bytes as f64)
        );
    }
    if c.bulk_read_bytes + c.bulk_write_bytes > 0 {
        let (read, written) = (size(c.bulk_read_bytes as f64), size(c.bulk_write_bytes as f64));
        let _ = write!(text, "\nby bulk copies: {read} read, {written} written");
    }
    text
}

fn size(bytes: f64) -> String {
    match bytes {
        b if b >= 1e9 => format!("{} GB", three(b / 1e9)),
        b if b >= 1e6 => format!("{} MB", three(b / 1e6)),
        b => format!("{} kB", three(b / 1e3)),
    }
}

fn launch_facts(part: &Part) -> Vec<(&'static str, String)> {
    let us = |ns: f64| format!("{} us", three(ns / 1e3));
    let dims = |d: [u32; 3]| format!("{} x {} x {}", d[0], d[1], d[2]);
    let mut limits: Vec<(&String, &f64)> = part.modelled.limits.iter().collect();
    limits.sort_by(|a, b| b.1.total_cmp(a.1));
    let limits: Vec<String> =
        limits.iter().map(|(name, ns)| format!("{name} {}", us(**ns))).collect();
    let mut classes: Vec<(&String, &u64)> = part.counts.instructions.iter().collect();
    classes.sort_by(|a, b| b.1.cmp(a.1));
    let classes: Vec<String> = classes.iter().map(|(c, n)| format!("{c} {}", short(**n))).collect();
    let c = &part.counts;
    let mut out = vec![
        ("time", format!("{} modelled, bound by {}", us(part.modelled.ns), part.modelled.bound)),
        ("limits", limits.join(", ")),
        (
            "grid",
            format!(
                "{} CTAs of {} threads, {}executed as {}",
                integer(c.ctas as f64),
                part.block.iter().product::<u32>(),
                c.executed_ctas
                    .map_or(String::new(), |n| format!("{} of them ", integer(n as f64))),
                dims(part.grid)
            ),
        ),
        (
            "occupancy",
            format!(
                "{} a multiprocessor, {} of {} warps; about {} registers, {} bytes of shared memory",
                plural(part.ctas_per_sm as usize, "CTA"),
                part.warps_per_sm,
                part.max_warps_per_sm,
                part.registers,
                integer(f64::from(part.shared_bytes))
            ),
        ),
        ("instructions", format!("{}: {}", short(c.total_instructions()), classes.join(", "))),
    ];
    if c.shared_wavefronts > 0 {
        let share = c.bank_conflicts as f64 / c.shared_wavefronts as f64;
        let text = format!(
            "{} wavefronts, {} ({}) of them bank conflicts",
            short(c.shared_wavefronts),
            integer(c.bank_conflicts as f64),
            percent(share)
        );
        out.push(("shared", text));
    }
    out
}

/// The same as one page: nothing outside of it is needed, and no script.
pub fn html<'a>(p: &Profile, problem: &str, source: &dyn Fn(&str) -> Option<&'a str>) -> String {
    let (light, dark) = svg::properties();
    let title = format!("{} on {}", p.kernel, p.device);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n\
         :root{{{light}}}\n@media(prefers-color-scheme:dark){{:root{{{dark}}}}}\n\
         @media print{{:root{{{light}}}}}\n{}\n{}</style>\n</head>\n<body>\n<main>\n<header>\n\
         <p class=\"kicker\">crossover profile</p>\n<h1>{}</h1>\n<p class=\"question\">{}</p>\n",
        escape(&title),
        include_str!("style.css"),
        include_str!("profile.css"),
        escape(&p.kernel),
        escape(problem)
    );
    out.push_str("</header>\n");
    list(&mut out, &facts(p, problem));
    for part in &p.launches {
        let _ = writeln!(out, "<h3>Launch {}</h3>", escape(&part.entry));
        list(&mut out, &launch_facts(part));
    }
    for file in annotated(p, source).into_iter().chain([annotated_ptx(p)]) {
        let _ = writeln!(
            out,
            "<section>\n<h2>{}</h2>\n<div class=\"wide\"><table class=\"source\">",
            escape(&file.path)
        );
        out.push_str("<thead><tr>");
        let heads = [
            "share",
            "executed",
            "FLOPs",
            "special",
            "sectors",
            "fetched",
            "wavefronts",
            "conflicts",
            "",
        ];
        heads.iter().for_each(|h| out.push_str(&format!("<th class=\"n\">{h}</th>")));
        out.push_str("<th>template</th></tr></thead><tbody>\n");
        file.lines.iter().for_each(|row| html_row(&mut out, row));
        out.push_str("</tbody></table></div>\n</section>\n");
    }
    let _ = write!(
        out,
        "<footer>PTX {}. Modelled by crossover {}; no time here is measured.</footer>\n</main>\n</body>\n</html>\n",
        p.ptx_sha256,
        env!("CARGO_PKG_VERSION")
    );
    out
}

fn list(out: &mut String, facts: &[(&'static str, String)]) {
    out.push_str("<dl class=\"facts\">\n");
    for (name, value) in facts {
        let value: Vec<_> = value.lines().map(escape).collect();
        let _ = writeln!(out, "<dt>{name}</dt><dd>{}</dd>", value.join("<br>"));
    }
    out.push_str("</dl>\n");
}

fn html_row(out: &mut String, row: &Row) {
    // The bar behind the share: half of the time fills it.
    let heat = (row.share * 200.0).min(100.0);
    match row.share {
        s if s >= 0.001 => {
            let _ = write!(out, "<tr class=\"hot\" style=\"--heat:{heat:.1}%\">");
        }
        _ if row.line.is_none() => out.push_str("<tr class=\"cold\">"),
        _ => out.push_str("<tr>"),
    }
    let mut cell = |text: String| {
        let _ = write!(out, "<td class=\"n\">{text}</td>");
    };
    match &row.line {
        Some(l) => {
            cell(percent_of(row.share));
            cell(l.executions.to_string());
            cells(l).into_iter().for_each(|n| cell(short(n)));
        }
        None => (0..8).for_each(|_| cell(String::new())),
    }
    cell(row.number.to_string());
    let _ = writeln!(out, "<td><code>{}</code></td></tr>", escape(&row.text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_short() {
        let all = [0, 7, 999, 1000, 12_345, 999_400, 1_500_000_000, 34_000_000_000_000];
        let all: Vec<String> = all.into_iter().map(short).collect();
        assert_eq!(all, ["", "7", "999", "1.00k", "12.3k", "999k", "1.50G", "34.0T"]);
    }

    #[test]
    fn rows_line_up() {
        let line = Line { executions: 123_456, read_sectors: 5000, ..Line::default() };
        let row = |line, share| Row { number: 12, text: "ld.global".into(), share, line };
        let full = row(Some(line), 0.034).row();
        assert_eq!(full.find("   12 ld.global"), Some(79), "{full}");
        assert_eq!(row(None, 0.0).row().find("   12 ld.global"), Some(79));
        assert!(
            full.contains("3.4%") && full.contains("123456") && full.contains("5.00k"),
            "{full}"
        );
    }
}
