//! A case's time from record to record, with the verdict between neighbours.

use std::fmt::Write as _;

use indexmap::IndexMap;

use super::render::time;
use super::{Pair, Rule, Verdict, case, pair, regime};
use crate::record::{Record, Status};
use crate::report::Course;

/// One case on one kind of device, measured or modelled, in the order of time.
pub struct Track {
    pub case: String,
    pub device: String,
    pub points: Vec<Point>,
}

/// Records of one case that were made together: one, or those of several processes.
pub struct Point {
    pub records: Vec<Record>,
    /// Against the point before it.
    pub change: Option<Pair>,
}

/// The cases of stored records; what failed or was left out has no time and no point. Records of several
/// processes of one program, PTX and sweep make one point.
pub fn tracks(records: &[Record], threshold: f64) -> Vec<Track> {
    let mut all: IndexMap<(String, String), IndexMap<String, Vec<Record>>> = IndexMap::new();
    let mut sorted: Vec<&Record> = records.iter().filter(|r| r.status == Status::Ok).collect();
    sorted.sort_by(|a, b| a.time.cmp(&b.time));
    for (i, r) in sorted.into_iter().enumerate() {
        let Some(regime) = regime(r) else { continue };
        let together = match r.process {
            Some(_) => format!("{} {:?} {}", r.id, r.binary_sha256, r.kernel.ptx_sha256),
            None => format!("{i}"),
        };
        let key = (format!("{}, {regime}", case(r)), r.device.name.clone());
        all.entry(key).or_default().entry(together).or_default().push(r.clone());
    }
    let rule = Rule { threshold, across_devices: false };
    all.into_iter()
        .map(|((case, device), points)| {
            let mut track = Track { case, device, points: Vec::new() };
            for records in points.into_values() {
                let of = regime(&records[0]).unwrap_or_default();
                let before = track.points.last();
                let change = before
                    .and_then(|p: &Point| pair(&track.case, of, &p.records, &records, rule).ok());
                track.points.push(Point { records, change });
            }
            track
        })
        .collect()
}

impl Track {
    /// For drawing.
    pub fn course(&self) -> Course {
        let (kernel, rest) = self.case.split_once(' ').unwrap_or((&self.case, ""));
        let point = |p: &Point| {
            let date = &p.records[0].time;
            let ratio = p.change.as_ref().filter(|_| p.has_changed()).map(|c| c.ratio);
            (date.get(..10).unwrap_or(date).to_string(), p.ns(), ratio)
        };
        Course {
            kernel: kernel.into(),
            notes: vec![rest.into(), self.device.clone()],
            op: self.points[0].records[0].problem.op(),
            points: self.points.iter().map(point).collect(),
        }
    }
}

impl Point {
    /// The middle of its medians, ns.
    pub fn ns(&self) -> f64 {
        let mut all: Vec<f64> =
            self.records.iter().filter_map(|r| r.timing.as_ref()).map(|t| t.ns()).collect();
        all.sort_by(f64::total_cmp);
        all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Whether it is another time than the one before.
    pub fn has_changed(&self) -> bool {
        let verdict = self.change.as_ref().map(|c| c.verdict);
        matches!(verdict, Some(Verdict::Slower | Verdict::Faster))
    }
}

/// A table of every track.
pub fn text(tracks: &[Track]) -> String {
    let mut out = String::new();
    for t in tracks {
        let _ = writeln!(out, "{} on {}", t.case, t.device);
        for p in &t.points {
            let r = &p.records[0];
            let hash = r.binary_sha256.as_deref().unwrap_or("unknown");
            let change = match &p.change {
                None => String::new(),
                Some(c) => format!(
                    "{} {:.4}{}{}{}",
                    c.verdict,
                    c.ratio,
                    if c.ptx_changed { ", other PTX" } else { "" },
                    if c.other_gpu { ", another GPU" } else { "" },
                    if p.has_changed() { "  <--" } else { "" }
                ),
            };
            let _ = writeln!(
                out,
                "  {}  {} {}  {:>8}  {change}",
                r.time.get(..16).unwrap_or(&r.time),
                r.version,
                hash.get(..8).unwrap_or(hash),
                time(p.ns())
            );
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::made_up::{Made, ops};

    #[test]
    fn changes_are_marked_and_devices_and_kinds_kept_apart() {
        let made = |day: u32, ns: f64, measured: bool| Record {
            time: format!("2026-03-{day:02}T12:00:00Z"),
            ..Made { measured, ..Made::new(ops()[0], 1024, ns) }.record()
        };
        let mut other = made(9, 5e5, true);
        other.device.name = "NVIDIA H100".into();
        let records = [
            made(3, 1.2e5, true),
            made(1, 1e5, true),
            made(2, 1e5, true),
            made(4, 7e4, false),
            other,
        ];
        let found = tracks(&records, 0.01);
        assert_eq!(found.len(), 3);
        let ns: Vec<f64> = found[0].points.iter().map(Point::ns).collect();
        assert_eq!(ns, [1e5, 1e5, 1.2e5]);
        let changed: Vec<bool> = found[0].points.iter().map(Point::has_changed).collect();
        assert_eq!(changed, [false, false, true]);
        assert!(text(&found).contains("<--"), "{}", text(&found));
    }

    #[test]
    fn processes_make_one_point() {
        let made =
            |process| Record { process: Some(process), ..Made::new(ops()[0], 64, 5e3).record() };
        let found = tracks(&[made(0), made(1), made(2)], 0.01);
        assert_eq!((found.len(), found[0].points.len()), (1, 1));
        assert_eq!(found[0].points[0].records.len(), 3);
    }
}
