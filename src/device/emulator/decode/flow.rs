//! Data flow over the control-flow graph: which reads may come before a write, and how many
//! registers are alive at once.

use std::ops::Range;

use super::super::program::{Check, Inst, Op};
use super::{Declared, Uses};

/// What an analysis of an entry's data flow tells.
pub struct Facts {
    pub checks: Vec<Check>,
    /// Per instruction, an index into `checks`; 0 is empty.
    pub check_of: Vec<u32>,
    /// Names of the registers that are tracked at run time.
    pub tracked: Vec<String>,
    pub live_registers: u32,
    /// Instructions that write registers which nothing reads afterwards.
    pub unread: Vec<usize>,
}

/// A set of registers.
#[derive(Clone, PartialEq, Eq)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(n: usize, full: bool) -> Bits {
        Bits(vec![if full { u64::MAX } else { 0 }; n.div_ceil(64)])
    }

    fn get(&self, i: u32) -> bool {
        self.0[i as usize / 64] >> (i % 64) & 1 != 0
    }

    fn set(&mut self, i: u32) {
        self.0[i as usize / 64] |= 1 << (i % 64);
    }

    fn clear(&mut self, i: u32) {
        self.0[i as usize / 64] &= !(1 << (i % 64));
    }
}

fn successors(insts: &[Inst], at: usize) -> impl Iterator<Item = usize> {
    let inst = &insts[at];
    let guarded = inst.guard != super::UNGUARDED;
    let (jump, falls) = match inst.op {
        Op::Bra(t) => (Some(t as usize), guarded),
        Op::Exit | Op::Trap => (None, guarded),
        _ => (None, true),
    };
    let next = (falls && at + 1 < insts.len()).then_some(at + 1);
    jump.into_iter().chain(next)
}

/// Straight runs of instructions, ascending.
pub fn runs(insts: &[Inst]) -> Vec<Range<usize>> {
    let mut starts = vec![0];
    for (at, i) in insts.iter().enumerate() {
        match i.op {
            Op::Bra(t) => starts.extend([t as usize, at + 1]),
            Op::Exit | Op::Trap => starts.push(at + 1),
            _ => {}
        }
    }
    starts.retain(|&s| s < insts.len());
    starts.sort_unstable();
    starts.dedup();
    let ends = starts.iter().skip(1).copied().chain([insts.len()]);
    starts.iter().copied().zip(ends).map(|(a, b)| a..b).collect()
}

/// Analyses the data flow of an entry: `uses` has the declared registers of each instruction.
pub fn analyse(insts: &[Inst], uses: &[Uses], declared: &[Declared]) -> Facts {
    let n = declared.len();
    let runs = runs(insts);
    let run_at = |at: usize| runs.binary_search_by_key(&at, |r| r.start).ok();
    let next: Vec<Vec<usize>> =
        runs.iter().map(|r| successors(insts, r.end - 1).filter_map(run_at).collect()).collect();
    let unguarded = |at: usize| insts[at].guard == super::UNGUARDED;

    // Forward: registers written on every path.
    let mut written = vec![Bits::new(n, true); runs.len()];
    written[0] = Bits::new(n, false);
    let mut work: Vec<usize> = (0..runs.len()).rev().collect();
    while let Some(b) = work.pop() {
        let mut now = written[b].clone();
        for at in runs[b].clone() {
            if unguarded(at) {
                uses[at].writes.iter().for_each(|&r| now.set(r));
            }
        }
        for &s in &next[b] {
            let mut changed = false;
            for (x, y) in written[s].0.iter_mut().zip(&now.0) {
                changed |= *x & !*y != 0;
                *x &= *y;
            }
            if changed {
                work.push(s);
            }
        }
    }
    // Registers that some read may find unwritten.
    let mut doubtful = Bits::new(n, false);
    let mut doubts: Vec<(usize, [Vec<u32>; 2], Option<u32>)> = Vec::new();
    for (b, run) in runs.iter().enumerate() {
        let mut now = written[b].clone();
        for at in run.clone() {
            let unwritten =
                |list: &[u32]| list.iter().copied().filter(|&r| !now.get(r)).collect::<Vec<u32>>();
            let reads = [unwritten(&uses[at].reads), unwritten(&uses[at].maybe)];
            let guard = uses[at].guard.filter(|&r| !now.get(r));
            reads.iter().flatten().chain(&guard).for_each(|&r| doubtful.set(r));
            if reads.iter().any(|r| !r.is_empty()) || guard.is_some() {
                doubts.push((at, reads, guard));
            }
            if unguarded(at) {
                uses[at].writes.iter().for_each(|&r| now.set(r));
            }
        }
    }
    let mut tracked = Vec::new();
    let mut index = vec![u16::MAX; n];
    for r in 0..n as u32 {
        if doubtful.get(r) {
            index[r as usize] = tracked.len() as u16;
            tracked.push(declared[r as usize].name.clone());
        }
    }
    let mut check_of = vec![0; insts.len()];
    let mut checks = vec![Check::default()];
    let mut at_check = Vec::new();
    let mut of_inst: Vec<Option<usize>> = vec![None; insts.len()];
    for (at, reads, guard) in doubts {
        let [reads, maybe] = reads.map(|list| {
            let mut list: Vec<u16> = list.iter().map(|&r| index[r as usize]).collect();
            list.sort_unstable();
            list.dedup();
            list
        });
        of_inst[at] = Some(at_check.len());
        let guard = guard.map(|g| index[g as usize]);
        at_check.push(Check { reads, writes: Vec::new(), guard, maybe });
    }
    for (at, u) in uses.iter().enumerate() {
        let mut writes: Vec<u16> =
            u.writes.iter().map(|&r| index[r as usize]).filter(|&i| i != u16::MAX).collect();
        writes.dedup();
        let check = of_inst[at].map(|k| std::mem::take(&mut at_check[k]));
        if check.is_some() || !writes.is_empty() {
            check_of[at] = checks.len() as u32;
            checks.push(Check { writes, ..check.unwrap_or_default() });
        }
    }
    let (live_registers, unread) = live(insts, uses, declared, &runs, &next);
    Facts { checks, check_of, tracked, live_registers, unread }
}

/// Backward: the most 32-bit words alive between two instructions, and the instructions whose results
/// nothing reads.
fn live(
    insts: &[Inst],
    uses: &[Uses],
    declared: &[Declared],
    runs: &[Range<usize>],
    next: &[Vec<usize>],
) -> (u32, Vec<usize>) {
    let n = declared.len();
    let step = |at: usize, now: &mut Bits| {
        if insts[at].guard == super::UNGUARDED {
            uses[at].writes.iter().for_each(|&r| now.clear(r));
        }
        let u = &uses[at];
        u.reads.iter().chain(&u.guard).chain(&u.maybe).for_each(|&r| now.set(r));
    };
    let mut live_in = vec![Bits::new(n, false); runs.len()];
    let before: Vec<Vec<usize>> = {
        let mut before = vec![Vec::new(); runs.len()];
        for (b, list) in next.iter().enumerate() {
            list.iter().for_each(|&s| before[s].push(b));
        }
        before
    };
    let live_out = |live_in: &[Bits], b: usize| {
        let mut now = Bits::new(n, false);
        for &s in &next[b] {
            now.0.iter_mut().zip(&live_in[s].0).for_each(|(x, y)| *x |= *y);
        }
        now
    };
    let mut work: Vec<usize> = (0..runs.len()).collect();
    while let Some(b) = work.pop() {
        let mut now = live_out(&live_in, b);
        for at in runs[b].clone().rev() {
            step(at, &mut now);
        }
        if now != live_in[b] {
            live_in[b] = now;
            work.extend(&before[b]);
        }
    }
    let (mut most, mut unread) = (0, Vec::new());
    for (b, run) in runs.iter().enumerate() {
        let mut now = live_out(&live_in, b);
        for at in run.clone().rev() {
            // A result needs a register even if nobody reads it.
            let writes = &uses[at].writes;
            if !writes.is_empty() && !writes.iter().any(|&r| now.get(r)) {
                unread.push(at);
            }
            let mut here = now.clone();
            writes.iter().for_each(|&r| here.set(r));
            let words: u32 = here
                .0
                .iter()
                .enumerate()
                .flat_map(|(w, &bits)| {
                    std::iter::successors((bits != 0).then_some(bits), |b| {
                        let b = b & (b - 1);
                        (b != 0).then_some(b)
                    })
                    .map(move |b| w * 64 + b.trailing_zeros() as usize)
                })
                .map(|r| declared[r].words)
                .sum();
            most = most.max(words);
            step(at, &mut now);
        }
    }
    (most, unread)
}
