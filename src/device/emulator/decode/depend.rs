//! Which results an instruction waits for, within its straight run of instructions.

use super::super::program::Inst;
use super::Uses;
use super::flow::runs;
use std::collections::HashMap;
use std::ops::Range;

/// Straight runs of a program, and for each instruction the earlier ones of its run whose results
/// it uses.
#[derive(Debug, Clone, Default)]
pub struct Depend {
    pub runs: Vec<Range<usize>>,
    pub on: Vec<Box<[u32]>>,
    /// Registers, by number, that each instruction reads (its guard included) and writes.
    pub reads: Vec<Box<[u32]>>,
    pub writes: Vec<Box<[u32]>>,
    /// How many there are.
    pub registers: usize,
}

/// Finds the runs of a program and what depends on what in each.
pub fn depend(insts: &[Inst], uses: &[Uses]) -> Depend {
    let runs = runs(insts);
    let mut on = vec![Box::default(); insts.len()];
    for run in &runs {
        let mut writer: HashMap<u32, u32> = HashMap::new();
        for at in run.clone() {
            let u = &uses[at];
            let guard = &u.guard;
            let mut list: Vec<u32> =
                u.reads.iter().chain(guard).filter_map(|r| writer.get(r).copied()).collect();
            // A write under a guard keeps what the lanes had before.
            if guard.is_some() {
                list.extend(u.writes.iter().filter_map(|r| writer.get(r).copied()));
            }
            list.sort_unstable();
            list.dedup();
            on[at] = list.into();
            writer.extend(u.writes.iter().map(|&r| (r, at as u32)));
        }
    }
    let reads: Vec<Box<[u32]>> =
        uses.iter().map(|u| u.reads.iter().chain(&u.guard).copied().collect()).collect();
    let writes: Vec<Box<[u32]>> = uses.iter().map(|u| u.writes.clone().into()).collect();
    let all = reads.iter().chain(&writes).flat_map(|list| list.iter());
    let registers = all.max().map_or(0, |&last| last as usize + 1);
    Depend { runs, on, reads, writes, registers }
}
