//! A text map of the bad tiles of an output: where in a head a kernel goes wrong tells which
//! part of it does.

use crate::op::Crop;

const TILE: usize = 16;
/// Lines a map may take.
const LINES: usize = 24;

/// Bad elements of one output, by part; the first part with any is drawn.
#[derive(Default)]
pub struct BadTiles {
    parts: Vec<Grid>,
}

struct Grid {
    b: usize,
    head: usize,
    first_row: usize,
    rows: usize,
    cols: usize,
    /// Bad elements and NaNs of each tile, row by row.
    tiles: Vec<(u32, u32)>,
    bad: u64,
}

impl Grid {
    fn across(&self) -> usize {
        self.cols.div_ceil(TILE)
    }
}

impl BadTiles {
    /// Elements added from here on lie in this part.
    pub fn start(&mut self, crop: &Crop, first_row: usize, rows: usize, cols: usize) {
        let tiles = vec![(0, 0); rows.div_ceil(TILE) * cols.div_ceil(TILE)];
        let (b, head) = (crop.b, crop.head);
        self.parts.push(Grid { b, head, first_row, rows, cols, tiles, bad: 0 });
    }

    /// Row and column inside the part.
    pub fn add(&mut self, row: usize, col: usize, nan: bool) {
        let grid = self.parts.last_mut().expect("a started part");
        let tile = row / TILE * grid.across() + col / TILE;
        grid.tiles[tile].0 += 1;
        grid.tiles[tile].1 += u32::from(nan);
        grid.bad += 1;
    }

    /// `None` if nothing is bad.
    pub fn draw(&self) -> Option<String> {
        let first = self.parts.iter().find(|g| g.bad > 0)?;
        let mut heads: Vec<_> =
            self.parts.iter().filter(|g| g.bad > 0).map(|g| (g.b, g.head)).collect();
        heads.dedup();
        let mut all: Vec<_> = self.parts.iter().map(|g| (g.b, g.head)).collect();
        all.dedup();
        let total: u64 = self.parts.iter().map(|g| g.bad).sum();
        let elements: usize = self.parts.iter().map(|g| g.rows * g.cols).sum();
        let mut text = format!(
            "{total} of {elements} elements bad, in {} of {} heads; sequence {} head {} by tiles of {TILE}x{TILE} (. good, x some bad, X all bad, N NaN):\n",
            heads.len(),
            all.len(),
            first.b,
            first.head
        );
        let across = first.across();
        let mut lines: Vec<(usize, String)> = Vec::new();
        for (i, line) in first.tiles.chunks(across).enumerate() {
            let marks = line.iter().enumerate().map(|(j, &(bad, nan))| {
                let rows = TILE.min(first.rows - i * TILE);
                let full = rows * TILE.min(first.cols - j * TILE);
                match (bad as usize, nan) {
                    (0, _) => '.',
                    (_, 1..) => 'N',
                    (n, _) if n == full => 'X',
                    _ => 'x',
                }
            });
            lines.push((first.first_row + i * TILE, marks.collect()));
        }
        // Runs of equal lines are drawn once.
        let mut drawn = 0;
        let mut i = 0;
        while i < lines.len() {
            let same = lines[i..].iter().take_while(|l| l.1 == lines[i].1).count();
            if drawn == LINES {
                text += &format!("  {:>6}  ... {} more lines\n", "", lines.len() - i);
                break;
            }
            let times = if same > 1 { format!("  x{same}") } else { String::new() };
            text += &format!("  {:>6}  {}{times}\n", lines[i].0, lines[i].1);
            drawn += 1;
            i += same;
        }
        Some(text)
    }
}
