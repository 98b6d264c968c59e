//! The emulator's counts against a GPU's hardware counters, as Nsight Compute writes them.
//!
//! A folder holds `cases.tsv` (csv, kernel, problem, tile) and one CSV of `ncu --csv --page raw` a
//! case, with one row for each launch of the kernel in order. L2 is cold at each launch there
//! (`--cache-control all`), and so it is in the model.

use std::collections::HashMap;
use std::path::Path;

use crate::device::emulator::Emulator;
use crate::device::{L2Counts, ShareRule};
use crate::kernel::{Registry, Tile};
use crate::measure::profile::profile;
use crate::op::{Family, Problem};

/// One launch, counted twice.
#[derive(Debug, Clone)]
pub struct Compared {
    pub kernel: String,
    pub problem: Problem,
    pub tile: Tile,
    pub entry: String,
    /// Sectors requested of global memory.
    pub read_sectors: Pair,
    pub write_sectors: Pair,
    /// Bytes from device memory, and back to it within the launch.
    pub dram_read_bytes: Pair,
    pub dram_write_bytes: Pair,
    pub wavefronts: Pair,
    pub instructions: Pair,
}

/// What the emulator says and what the counters say.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pair {
    pub counted: f64,
    pub hardware: f64,
}

impl Pair {
    /// Counted over hardware; 1 where both are 0.
    pub fn ratio(&self) -> f64 {
        if self.counted == self.hardware { 1.0 } else { self.counted / self.hardware }
    }

    /// Both sides summed.
    pub fn plus(self, o: Pair) -> Pair {
        Pair { counted: self.counted + o.counted, hardware: self.hardware + o.hardware }
    }
}

/// Profiles every case of the folder. `parse` reads a problem of a kernel's operator.
///
/// # Errors
/// A file that cannot be read, a column or launch that is missing, a case that does not run.
pub fn compare(
    registry: &Registry,
    emulator: &Emulator,
    folder: &Path,
    parse: &dyn Fn(&str, &str) -> Result<Problem, String>,
) -> Result<Vec<Compared>, String> {
    let read = |name: &str| {
        let path = folder.join(name);
        std::fs::read_to_string(&path).map_err(|e| format!("cannot read {}: {e}", path.display()))
    };
    let mut all = Vec::new();
    for (i, line) in read("cases.tsv")?.lines().enumerate().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let [csv, kernel, problem, tile] = columns[..] else {
            return Err(format!("cases.tsv:{}: expected csv, kernel, problem, tile", i + 1));
        };
        let rows = rows(&read(csv)?);
        let of_case = |why: String| format!("cases.tsv:{}: {kernel}: {why}", i + 1);
        let problem = parse(kernel, problem).map_err(of_case)?;
        let tile = tile.parse::<Tile>().map_err(of_case)?;
        let kernel = registry.get(kernel).map_err(|e| of_case(e.0))?;
        let inputs = (&Family::default(), 1);
        let every = ShareRule::All;
        let found = profile(kernel, &problem, &tile, inputs, emulator, (true, true), every)
            .map_err(of_case)?;
        if rows.len() != found.launches.len() {
            let (n, m) = (rows.len(), found.launches.len());
            return Err(format!("{csv}: {n} launches, but {} has {m}", kernel.name));
        }
        for (row, part) in rows.iter().zip(&found.launches) {
            let metric = |name: &str| -> Result<f64, String> {
                let text = row.get(name).ok_or_else(|| format!("{csv}: no column {name}"))?;
                text.replace(',', "").parse().map_err(|_| format!("{csv}: {name} = {text:?}"))
            };
            let pair = |counted: u64, name: &str| {
                Ok::<_, String>(Pair { counted: counted as f64, hardware: metric(name)? })
            };
            let c = &part.counts;
            let l2: L2Counts = c.l2.unwrap_or_default();
            all.push(Compared {
                kernel: kernel.name.clone(),
                problem: problem.clone(),
                tile: tile.clone(),
                entry: part.entry.clone(),
                // Loads and asynchronous copies are one in this counter.
                read_sectors: pair(
                    c.global_read_sectors,
                    "l1tex__t_sectors_pipe_lsu_mem_global_op_ld.sum",
                )?,
                write_sectors: pair(
                    c.global_write_sectors,
                    "l1tex__t_sectors_pipe_lsu_mem_global_op_st.sum",
                )?,
                dram_read_bytes: pair(l2.dram_read_bytes, "dram__bytes_read.sum")?,
                dram_write_bytes: pair(l2.dram_write_bytes, "dram__bytes_write.sum")?,
                wavefronts: pair(
                    c.shared_wavefronts,
                    "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
                )?,
                instructions: pair(c.total_instructions(), "smsp__inst_executed.sum")?,
            });
        }
    }
    Ok(all)
}

/// Rows of a CSV by column; those without an `ID` (units) are left out.
fn rows(text: &str) -> Vec<HashMap<String, String>> {
    let mut lines = text.lines().map(fields);
    let head = lines.next().unwrap_or_default();
    lines
        .map(|row| head.iter().cloned().zip(row).collect::<HashMap<_, _>>())
        .filter(|row| row.get("ID").is_some_and(|id| !id.is_empty()))
        .collect()
}

/// Fields of a line; quotes may hold commas.
fn fields(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            c => out.last_mut().expect("never empty").push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_of_the_profiler() {
        let text = "\"ID\",\"Kernel Name\",\"x.sum\"\n\"\",\"\",\"byte\"\n\"0\",\"k\",\"1,234\"\n";
        let rows = rows(text);
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["x.sum"], "1,234");
        assert_eq!(Pair { counted: 0.0, hardware: 0.0 }.ratio(), 1.0);
    }
}
