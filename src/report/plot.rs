//! Log-log plots: panels with direct labels, drawn with plotters.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::format;
use super::svg::{Ink, Svg};
use crate::op;

/// Drawing units a pixel: plotters places things on whole units.
pub const FINE: f64 = 8.0;

/// Width of a figure, px.
const WIDTH: u32 = 1120;

/// An axis, logarithmic.
#[derive(Debug, Clone)]
pub struct Axis {
    /// The least value, greater than 0, and the largest.
    pub lo: f64,
    pub hi: f64,
    /// Values and what is written there.
    pub ticks: Vec<(f64, String)>,
    /// Name and unit.
    pub title: String,
}

impl Axis {
    /// Lengths: ticks at powers of two, or at every fourth where many.
    pub fn tokens(values: impl Iterator<Item = f64> + Clone, title: &str) -> Axis {
        let (lo, hi) = extent(values);
        let (first, last) = (lo.log2().ceil() as i32, hi.log2().floor() as i32);
        let step = if last - first > 7 { 2 } else { 1 };
        let from = first + (last - first).rem_euclid(step);
        let mut ticks: Vec<_> = (from..=last)
            .step_by(step as usize)
            .map(|e| 2f64.powi(e))
            .map(|t| (t, format::tokens(t)))
            .collect();
        if ticks.is_empty() {
            ticks.push((lo, format::tokens(lo)));
        }
        // Room for markers at both ends; a single length stands in the middle.
        let pad = if lo == hi { 1.5 } else { (hi / lo).powf(0.02) };
        Axis { lo: lo / pad, hi: hi * pad, ticks, title: title.to_string() }
    }

    /// Values with ticks at 1, 2, 5 of each decade, or at decades where there are many.
    pub fn values(values: impl Iterator<Item = f64> + Clone, title: &str) -> Axis {
        let (mut lo, mut hi) = extent(values);
        let pad = (hi / lo).powf(0.06).max(1.1);
        // Finite, or there are ticks without end.
        (lo, hi) = ((lo / pad).max(f64::MIN_POSITIVE), (hi * pad).min(f64::MAX));
        let decades = (hi / lo).log10();
        let steps: &[f64] = match decades {
            d if d > 3.0 => &[1.0],
            d if d > 1.2 => &[1.0, 2.0, 5.0],
            d if d > 0.5 => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
            _ => &[
                1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 1.8, 2.0, 2.3, 2.6, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0,
                7.0, 8.0, 9.0,
            ],
        };
        let ticks = (lo.log10().floor() as i32..=hi.log10().ceil() as i32)
            .flat_map(|e| steps.iter().map(move |s| s * 10f64.powi(e)))
            .filter(|x| (lo..=hi).contains(x))
            .map(|x| (x, short(x)))
            .collect();
        Axis { lo, hi, ticks, title: title.to_string() }
    }
}

/// A tick's number without needless digits.
fn short(x: f64) -> String {
    let rounded: f64 = format!("{x:.1e}").parse().unwrap_or(x);
    match rounded {
        r if (1e-4..1e5).contains(&r) => format!("{r}"),
        r => format!("{r:e}"),
    }
}

/// Smallest and largest of the positive finite values; (1, 1) of none.
fn extent(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let good = values.filter(|x| x.is_finite() && *x > 0.0);
    let (lo, hi) = good.fold((f64::INFINITY, 0f64), |(lo, hi), x| (lo.min(x), hi.max(x)));
    if hi > 0.0 { (lo, hi) } else { (1.0, 1.0) }
}

/// A curve.
#[derive(Debug, Clone)]
pub struct Line {
    /// Written at the line's end.
    pub label: String,
    pub ink: Ink,
    /// Index into [`super::svg::DASHES`].
    pub dash: usize,
    /// The shape of its points; none for lines of many points.
    pub marker: Option<op::Mark>,
    pub points: Vec<(f64, f64)>,
    /// `(x, low, high)`: spread of the samples, drawn as a band with whiskers.
    pub spread: Vec<(f64, f64, f64)>,
}

/// A named point on the plot.
#[derive(Debug, Clone)]
pub struct Mark {
    pub at: (f64, f64),
    pub label: String,
    pub ink: Ink,
}

/// One set of axes with its curves.
#[derive(Debug, Clone)]
pub struct Panel {
    pub title: String,
    /// Lines below the title.
    pub notes: Vec<String>,
    /// Panels of a figure stand in this order, else as they come.
    pub order: usize,
    pub x: Axis,
    pub y: Axis,
    pub lines: Vec<Line>,
    pub marks: Vec<Mark>,
    /// Horizontal rules with a name, such as a peak rate.
    pub rules: Vec<(f64, String)>,
}

impl Panel {
    /// A panel whose axes fit its lines and rules.
    pub fn new(
        title: String,
        notes: Vec<String>,
        x: &str,
        y: &str,
        lines: Vec<Line>,
        rules: Vec<(f64, String)>,
    ) -> Panel {
        let xs = lines.iter().flat_map(|l| l.points.iter().map(|p| p.0));
        let spread = lines.iter().flat_map(|l| l.spread.iter().flat_map(|s| [s.1, s.2]));
        let points = lines.iter().flat_map(|l| l.points.iter().map(|p| p.1));
        let ys = points.chain(spread).chain(rules.iter().map(|r| r.0));
        let (x, y) = (Axis::tokens(xs, x), Axis::values(ys, y));
        Panel { title, notes, order: 0, x, y, lines, marks: vec![], rules }
    }
}

type Root<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// Draws panels side by side, two a row. Panels without lines are left out; `None` if none stays.
pub fn draw(title: &str, panels: &[Panel]) -> Option<Svg> {
    let panels: Vec<_> =
        panels.iter().filter(|p| p.lines.iter().any(|l| !l.points.is_empty())).collect();
    let columns = match panels.len() {
        0 => return None,
        1 => 1,
        _ => 2,
    };
    let rows = panels.len().div_ceil(columns);
    let height = if columns == 1 { 500 } else { 410 };
    let size = (WIDTH, height * rows as u32);
    let mut drawn = String::new();
    {
        let fine = (size.0 * FINE as u32, size.1 * FINE as u32);
        let root = SVGBackend::with_string(&mut drawn, fine).into_drawing_area();
        for (area, panel) in root.split_evenly((rows, columns)).iter().zip(&panels) {
            // Drawing into a string fails only for an axis that has no extent, which
            // `Axis` does not make.
            draw_panel(area, panel).ok()?;
        }
        root.present().ok()?;
    }
    Some(Svg::new(title.to_string(), size, &drawn))
}

/// Pixels as drawing units.
fn px(x: f64) -> i32 {
    (x * FINE).round() as i32
}

fn stroke(ink: Ink, dash: usize, width: f64) -> ShapeStyle {
    ink.colour(dash).stroke_width(px(width) as u32)
}

/// A text of that size in px; plotters' own sizes are 1.24 times what it writes.
fn font(ink: Ink, size: f64, bold: bool, h: HPos, v: VPos) -> TextStyle<'static> {
    let style = if bold { FontStyle::Bold } else { FontStyle::Normal };
    TextStyle {
        font: FontDesc::new(FontFamily::SansSerif, size * 1.24 * FINE, style),
        color: ink.colour(0).to_backend_color(),
        pos: Pos::new(h, v),
    }
}

fn draw_panel(area: &Root, panel: &Panel) -> Drawn {
    let (ax, ay) = (area.dim_in_pixel(), FINE);
    let (width, height) = (f64::from(ax.0) / ay, f64::from(ax.1) / ay);
    // Widest label, by an average letter.
    let longest = panel.lines.iter().map(|l| l.label.chars().count()).max().unwrap_or(0);
    let right = (longest as f64 * 7.3 + 24.0).clamp(40.0, width * 0.5);
    let (left, top, bottom) = (54.0, 56.0 + 17.0 * panel.notes.len() as f64, 46.0);
    let text = |at: (f64, f64), text: &str, style: TextStyle<'static>| -> Drawn {
        area.draw(&Text::new(text.to_string(), (px(at.0), px(at.1)), style))?;
        Ok(())
    };
    text((4.0, 10.0), &panel.title, font(Ink::Text, 13.0, true, HPos::Left, VPos::Top))?;
    for (i, note) in panel.notes.iter().enumerate() {
        let style = font(Ink::Muted, 12.0, false, HPos::Left, VPos::Top);
        text((4.0, 29.0 + 17.0 * i as f64), note, style)?;
    }
    let style = font(Ink::Text, 12.0, false, HPos::Left, VPos::Top);
    text((4.0, top - 27.0), &panel.y.title, style)?;

    let chart = ChartBuilder::on(area)
        .margin_left(px(left))
        .margin_right(px(right))
        .margin_top(px(top))
        .margin_bottom(px(bottom))
        .build_cartesian_2d(
            (panel.x.lo..panel.x.hi).log_scale(),
            (panel.y.lo..panel.y.hi).log_scale(),
        )?;
    let corner = area.get_base_pixel();
    let at = {
        let area = chart.plotting_area();
        move |x: f64, y: f64| {
            let (x, y) = area.map_coordinate(&(x, y));
            (f64::from(x - corner.0) / FINE, f64::from(y - corner.1) / FINE)
        }
    };
    let (x0, x1) = (left, width - right);
    let (y0, y1) = (top, height - bottom);
    let segment = |a: (f64, f64), b: (f64, f64), style: ShapeStyle| -> Drawn {
        let path = vec![(px(a.0), px(a.1)), (px(b.0), px(b.1))];
        area.draw(&PathElement::new(path, style))?;
        Ok(())
    };
    for (value, label) in &panel.y.ticks {
        let y = at(panel.x.lo, *value).1;
        segment((x0, y), (x1, y), stroke(Ink::Grid, 0, 1.0))?;
        let style = font(Ink::Muted, 11.5, false, HPos::Right, VPos::Center);
        text((x0 - 7.0, y), label, style)?;
    }
    segment((x0, y1), (x1, y1), stroke(Ink::Axis, 0, 1.0))?;
    for (value, label) in &panel.x.ticks {
        let x = at(*value, panel.y.lo).0;
        segment((x, y1), (x, y1 + 5.0), stroke(Ink::Axis, 0, 1.0))?;
        let style = font(Ink::Muted, 11.5, false, HPos::Center, VPos::Top);
        text((x, y1 + 8.0), label, style)?;
    }
    let style = font(Ink::Text, 12.0, false, HPos::Right, VPos::Top);
    text((x1, y1 + 25.0), &panel.x.title, style)?;
    for (value, label) in &panel.rules {
        let y = at(panel.x.lo, *value).1;
        segment((x0, y), (x1, y), stroke(Ink::Muted, 1, 1.0))?;
        let style = font(Ink::Muted, 11.5, false, HPos::Left, VPos::Bottom);
        text((x0 + 4.0, y - 4.0), label, style)?;
    }

    for line in &panel.lines {
        draw_spread(area, line, &at)?;
        let points = line.points.iter().map(|p| at(p.0, p.1)).map(|(x, y)| (px(x), px(y)));
        area.draw(&PathElement::new(points.collect::<Vec<_>>(), stroke(line.ink, line.dash, 2.0)))?;
        for (x, y) in line.points.iter().map(|p| at(p.0, p.1)) {
            marker(area, line, (px(x), px(y)))?;
        }
    }
    draw_marks(area, panel, &at, (y0, y1))?;
    draw_labels(area, panel, &at, x1, (y0, y1))
}

/// A band through the spread, and a whisker at each point.
fn draw_spread(area: &Root, line: &Line, at: &impl Fn(f64, f64) -> (f64, f64)) -> Drawn {
    if line.spread.is_empty() {
        return Ok(());
    }
    let high = line.spread.iter().map(|s| (s.0, s.2));
    let low = line.spread.iter().rev().map(|s| (s.0, s.1));
    let band: Vec<_> =
        high.chain(low).map(|(x, y)| at(x, y)).map(|(x, y)| (px(x), px(y))).collect();
    area.draw(&Polygon::new(band, line.ink.colour(0).mix(0.18)))?;
    for (x, low, high) in &line.spread {
        let (a, b) = (at(*x, *low), at(*x, *high));
        // Shorter than the marker, a whisker is not seen.
        if a.1 - b.1 > 6.0 {
            for path in [
                vec![(a.0, a.1), (b.0, b.1)],
                vec![(a.0 - 4.0, a.1), (a.0 + 4.0, a.1)],
                vec![(b.0 - 4.0, b.1), (b.0 + 4.0, b.1)],
            ] {
                let path: Vec<_> = path.into_iter().map(|(x, y)| (px(x), px(y))).collect();
                area.draw(&PathElement::new(path, stroke(line.ink, 0, 1.2)))?;
            }
        }
    }
    Ok(())
}

fn marker(area: &Root, line: &Line, (x, y): (i32, i32)) -> Drawn {
    let fill = line.ink.colour(0).filled();
    let corners = |all: &[(f64, f64)]| -> Vec<(i32, i32)> {
        all.iter().map(|p| (x + px(p.0), y + px(p.1))).collect()
    };
    match line.marker {
        None => {}
        Some(op::Mark::Circle) => area.draw(&Circle::new((x, y), px(3.4), fill))?,
        Some(op::Mark::Square) => {
            let all = [(-3.0, -3.0), (3.0, -3.0), (3.0, 3.0), (-3.0, 3.0)];
            area.draw(&Polygon::new(corners(&all), fill))?;
        }
        Some(op::Mark::Triangle) => {
            let all = [(0.0, -4.2), (3.9, 2.8), (-3.9, 2.8)];
            area.draw(&Polygon::new(corners(&all), fill))?;
        }
        Some(op::Mark::Diamond) => {
            let all = [(0.0, -4.4), (4.4, 0.0), (0.0, 4.4), (-4.4, 0.0)];
            area.draw(&Polygon::new(corners(&all), fill))?;
        }
    }
    Ok(())
}

/// Rings at the marks, with a dashed drop to the axis; names stand above the axis, stepped so
/// that neighbours do not touch.
fn draw_marks(
    area: &Root,
    panel: &Panel,
    at: &impl Fn(f64, f64) -> (f64, f64),
    (_, y1): (f64, f64),
) -> Drawn {
    let mut marks: Vec<_> = panel.marks.iter().collect();
    marks.sort_by(|a, b| b.at.0.total_cmp(&a.at.0));
    for mark in &marks {
        let (x, y) = at(mark.at.0, mark.at.1);
        let drop = vec![(px(x), px(y + 6.0)), (px(x), px(y1))];
        area.draw(&PathElement::new(drop, stroke(mark.ink, 2, 1.2)))?;
        let centre = (px(x), px(y));
        area.draw(&Circle::new(centre, px(6.0), Ink::Paper.colour(0).filled()))?;
        area.draw(&Circle::new(centre, px(6.0), stroke(mark.ink, 0, 2.0)))?;
    }
    for (i, mark) in marks.into_iter().enumerate() {
        let x = at(mark.at.0, mark.at.1).0 + 6.0;
        let y = y1 - 6.0 - 17.0 * i as f64;
        // Paper behind the name: other marks' drops pass there.
        let wide = mark.label.chars().count() as f64 * 7.4;
        let (from, to) = ((px(x - 3.0), px(y - 15.0)), (px(x + wide), px(y)));
        area.draw(&Rectangle::new([from, to], Ink::Paper.colour(0).filled()))?;
        let style = font(mark.ink, 12.0, true, HPos::Left, VPos::Bottom);
        area.draw(&Text::new(mark.label.clone(), (px(x), px(y - 1.0)), style))?;
    }
    Ok(())
}

/// Names at the ends of their lines, moved apart where they would touch.
fn draw_labels(
    area: &Root,
    panel: &Panel,
    at: &impl Fn(f64, f64) -> (f64, f64),
    x1: f64,
    (y0, y1): (f64, f64),
) -> Drawn {
    const PITCH: f64 = 15.0;
    let mut ends: Vec<(f64, f64, &Line)> = Vec::new();
    for line in panel.lines.iter().filter(|l| !l.label.is_empty()) {
        if let Some(last) = line.points.last() {
            let (x, y) = at(last.0, last.1);
            ends.push((x, y, line));
        }
    }
    ends.sort_by(|a, b| a.1.total_cmp(&b.1));
    let mut places: Vec<f64> = ends.iter().map(|e| e.1).collect();
    // Push down from the top, then up from the bottom.
    let mut least = y0;
    for y in &mut places {
        *y = y.max(least);
        least = *y + PITCH;
    }
    let mut most = y1;
    for y in places.iter_mut().rev() {
        *y = y.min(most);
        most = *y - PITCH;
    }
    for ((x, y, line), place) in ends.into_iter().zip(places) {
        let from = x1 + 12.0;
        if (place - y).abs() > 3.0 || from - x > 24.0 {
            let path = vec![(px(x + 5.0), px(y)), (px(from - 3.0), px(place))];
            area.draw(&PathElement::new(path, stroke(line.ink, 0, 0.6)))?;
        }
        let style = font(line.ink, 12.0, true, HPos::Left, VPos::Center);
        area.draw(&Text::new(line.label.clone(), (px(from), px(place)), style))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_powers_of_two_and_round_numbers() {
        let names = |a: Axis| a.ticks.into_iter().map(|t| t.1).collect::<Vec<_>>();
        let t = [300.0, 512.0, 5000.0];
        assert_eq!(names(Axis::tokens(t.into_iter(), "")), ["512", "1k", "2k", "4k"]);
        let t = [256.0, 131072.0];
        assert_eq!(names(Axis::tokens(t.into_iter(), "")), ["512", "2k", "8k", "32k", "128k"]);
        assert_eq!(names(Axis::tokens([1000.0].into_iter(), "")), ["1000"]);
        let y = [0.011, 90.0];
        assert_eq!(names(Axis::values(y.into_iter(), "")), ["0.01", "0.1", "1", "10", "100"]);
        // Values near the end of fp64 have ticks that end.
        let huge = Axis::values([1e-308, 1e308].into_iter(), "");
        assert!(huge.lo > 0.0 && huge.hi.is_finite() && huge.ticks.len() < 700);
    }

    #[test]
    fn a_plot_without_points_is_none_and_odd_values_do_no_harm() {
        let line = |points| Line {
            label: "a".into(),
            ink: Ink::Text,
            dash: 0,
            marker: Some(op::Mark::Circle),
            points,
            spread: vec![],
        };
        let panel = |points| Panel::new("p".into(), vec![], "T", "y", vec![line(points)], vec![]);
        assert!(draw("t", &[panel(vec![])]).is_none());
        assert!(draw("t", &[panel(vec![(64.0, 1.0)]), panel(vec![])]).is_some());
        assert!(draw("t", &[panel(vec![(64.0, 3.0), (128.0, 3.0)])]).is_some());
    }
}
