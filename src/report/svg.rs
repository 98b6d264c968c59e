//! SVG whose colours are classes, so that one drawing serves light and dark pages.
//!
//! plotters writes plain colours. Each [`Ink`] has a colour of its own that stands for it and is
//! turned into a class here; style sheets give the classes their colours.

use std::fmt::Write as _;

use plotters::style::RGBColor;

use crate::op::Op;

use super::html::escape;

/// What a mark is, hence its colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    Op(Op),
    /// Text that matters.
    Text,
    /// Tick labels, axis titles.
    Muted,
    Axis,
    Grid,
    /// The paper.
    Paper,
}

/// How a line is broken, to tell lines of one colour apart.
pub const DASHES: [&str; 5] = ["", "7 4", "2 3.5", "10 3 2 3", "14 5"];

/// An ink, its class, and its colour on light and on dark paper.
type Row = (Ink, &'static str, &'static str, &'static str);

/// Inks that are no operator's.
const PLAIN: [Row; 5] = [
    (Ink::Text, "text", "#1c1d20", "#e9e9ea"),
    (Ink::Muted, "muted", "#62656c", "#a0a3aa"),
    (Ink::Axis, "axis", "#9a9da3", "#6d7077"),
    (Ink::Grid, "grid", "#e7e7ea", "#2b2d32"),
    (Ink::Paper, "paper", "#fdfdfc", "#17181b"),
];

/// Every ink: each operator's, then the others.
fn inks() -> impl Iterator<Item = Row> {
    let face = |op: Op| (Ink::Op(op), op.face().class, op.face().light, op.face().dark);
    Op::all().map(face).chain(PLAIN)
}

/// Marks the colours that stand for inks; no other drawing code makes colours.
const KEY: u8 = 0xE5;

impl Ink {
    fn index(self) -> usize {
        inks().position(|i| i.0 == self).expect("every ink is listed")
    }

    /// The colour that stands for this ink, drawn with the dash of that index.
    pub fn colour(self, dash: usize) -> RGBColor {
        RGBColor(KEY, self.index() as u8, (dash % DASHES.len()) as u8)
    }
}

/// Colours of the inks as CSS custom properties: (light, dark).
pub fn properties() -> (String, String) {
    let of = |pick: fn(&Row) -> &'static str| {
        inks().fold(String::new(), |css, ink| css + &format!("--{}:{};", ink.1, pick(&ink)))
    };
    (of(|ink| ink.2), of(|ink| ink.3))
}

/// Rules for the classes of a drawing, from the custom properties of the page.
pub fn rules() -> String {
    let mut css = String::from("svg text{font-family:var(--sans);font-feature-settings:'tnum'}");
    for (_, name, ..) in inks() {
        let _ = write!(css, ".f-{name}{{fill:var(--{name})}}.s-{name}{{stroke:var(--{name})}}");
    }
    css + &dash_rules()
}

fn dash_rules() -> String {
    let mut css = String::new();
    for (i, dash) in DASHES.iter().enumerate().skip(1) {
        // Dashes are in user units, which are finer than pixels.
        let scaled: Vec<_> = dash
            .split(' ')
            .map(|x| (x.parse::<f64>().expect("a number") * super::plot::FINE).to_string())
            .collect();
        let _ = write!(css, ".d{i}{{stroke-dasharray:{}}}", scaled.join(" "));
    }
    css
}

/// A finished drawing.
#[derive(Debug, Clone)]
pub struct Svg {
    /// What the drawing shows, for readers that do not see it.
    title: String,
    /// Size in pixels.
    size: (u32, u32),
    /// The elements, in units of 1/[`super::plot::FINE`] pixel.
    body: String,
}

impl Svg {
    /// Takes plotters' output: its elements, with stand-in colours turned into classes.
    pub fn new(title: String, size: (u32, u32), drawn: &str) -> Svg {
        let inside = drawn.split_once('>').map_or("", |(_, rest)| rest);
        let inside = inside.trim().trim_end_matches("</svg>");
        let mut body = String::with_capacity(inside.len());
        let mut rest = inside;
        while let Some(at) = rest.find("=\"#E5") {
            let digits = rest.get(at + 5..at + 9).unwrap_or_default();
            let (property, before) = match &rest[..at] {
                b if b.ends_with("fill") => ("f", &b[..b.len() - 4]),
                b => ("s", b.strip_suffix("stroke").unwrap_or(b)),
            };
            body.push_str(before);
            let part = |i: usize| {
                digits.get(i..i + 2).and_then(|d| usize::from_str_radix(d, 16).ok()).unwrap_or(0)
            };
            let name = inks().nth(part(0)).map_or("text", |i| i.1);
            let _ = write!(body, "class=\"{property}-{name}");
            if part(2) > 0 {
                let _ = write!(body, " d{}", part(2));
            }
            body.push('"');
            rest = rest.get(at + 10..).unwrap_or_default();
        }
        body.push_str(rest);
        // What the style sheets say anyway.
        for noise in [" opacity=\"1\"", " font-family=\"sans-serif\""] {
            body = body.replace(noise, "");
        }
        Svg { title, size, body }
    }

    fn open(&self) -> String {
        let (w, h) = self.size;
        let fine = super::plot::FINE as u32;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{w}\" height=\"{h}\" \
             viewBox=\"0 0 {} {}\" role=\"img\"><title>{}</title>\n",
            w * fine,
            h * fine,
            escape(&self.title)
        )
    }

    /// For a page that has [`properties`] and [`rules`]; on the page's own paper.
    pub fn inline(&self) -> String {
        format!("{}{}</svg>", self.open(), self.body)
    }

    /// A file of its own: with paper, and light or dark as the reader prefers.
    pub fn standalone(&self) -> String {
        let colours = |pick: fn(&Row) -> &'static str| {
            inks().fold(String::new(), |css, ink| {
                let (name, colour) = (ink.1, pick(&ink));
                css + &format!(".f-{name}{{fill:{colour}}}.s-{name}{{stroke:{colour}}}")
            })
        };
        format!(
            "{}<style>text{{font-family:system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}}\
             {}{}@media(prefers-color-scheme:dark){{{}}}</style>\n\
             <rect class=\"f-paper\" width=\"100%\" height=\"100%\"/>\n{}</svg>\n",
            self.open(),
            colours(|ink| ink.2),
            dash_rules(),
            colours(|ink| ink.3),
            self.body
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_in_colours_become_classes() {
        let (text, line) = (Ink::Text.index(), Ink::Op(Op::all().nth(1).unwrap()));
        let class = Op::all().nth(1).unwrap().face().class;
        let drawn = format!(
            "<svg width=\"1\">\n<line opacity=\"1\" stroke=\"#E5{:02X}02\" x1=\"3\"/>\n\
             <text fill=\"#E5{text:02X}00\" opacity=\"1\">\na\n</text>\n</svg>\n",
            line.index()
        );
        let svg = Svg::new("a < b".into(), (10, 5), &drawn);
        assert_eq!(
            svg.body,
            format!(
                "<line class=\"s-{class} d2\" x1=\"3\"/>\n<text class=\"f-text\">\na\n</text>\n"
            )
        );
        let whole = svg.standalone();
        assert!(whole.contains("<title>a &lt; b</title>") && whole.contains("prefers-color"));
        assert!(!whole.contains("#E5"));
    }
}
