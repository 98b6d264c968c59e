//! Times from record to record: a panel a case and device, changes marked.

use super::plot::{self, Axis, Line, Mark, Panel};
use super::svg::Ink;
use crate::op::Op;

/// Most dates named on an axis.
const MOST_DATES: usize = 6;

/// One case's times, in the order of time; at least one.
pub struct Course {
    pub kernel: String,
    /// Lines below it: the case, the device.
    pub notes: Vec<String>,
    pub op: Op,
    /// Date, ns, and where it has changed new over old.
    pub points: Vec<(String, f64, Option<f64>)>,
}

/// The drawing as a file of SVG; `None` of nothing.
pub fn write_history(courses: &[Course]) -> Option<String> {
    let panels: Vec<_> = courses.iter().map(panel).collect();
    plot::draw("Times from record to record", &panels).map(|svg| svg.standalone())
}

/// Points stand at equal distances: on a logarithmic axis at equal factors.
fn panel(course: &Course) -> Panel {
    let at = |i: usize| (i as f64 / 8.0).exp2();
    let ink = Ink::Op(course.op);
    let places = course.points.iter().enumerate().map(|(i, p)| (at(i), p.1 / 1e3));
    let points: Vec<_> = places.collect();
    let line = Line {
        label: String::new(),
        ink,
        dash: 0,
        marker: Some(course.op.face().mark),
        points: points.clone(),
        spread: vec![],
    };
    let (title, notes) = (course.kernel.clone(), course.notes.clone());
    let mut panel = Panel::new(title, notes, "date of the record", "time, us", vec![line], vec![]);
    let n = course.points.len();
    let dates = (0..n).step_by(n.div_ceil(MOST_DATES).max(1));
    let ticks = dates.map(|i| (at(i), course.points[i].0.clone())).collect();
    let (lo, hi) = (at(0) / 1.03, at(n.saturating_sub(1)) * 1.03);
    panel.x = Axis { lo, hi, ticks, title: panel.x.title };
    let changed = course.points.iter().zip(points).filter_map(|(p, at)| Some((p.2?, at)));
    panel.marks = changed
        .map(|(ratio, at)| Mark { at, label: format!("{:+.1}%", 100.0 * (ratio - 1.0)), ink })
        .collect();
    panel
}
