//! What each instruction of a program costs, and the order that an assembler would give them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::ops::Range;

use super::products::Product;
use crate::device::emulator::hopper::{Async, Mbar, MbarOp};
use crate::device::emulator::launch::tensor_work;
use crate::device::emulator::program::{Class, Inst, Op, Program};
use crate::device::emulator::warp::Line;
use crate::device::emulator::wgmma::{From, WgOp};
use crate::device::model::DeviceModel;

/// Cycles that a warp takes to issue a product, beside a part of the cycles that the product keeps
/// the tensor cores: an H200 issues products of 64 columns (32 cycles each) every 10 cycles, those
/// of 128 columns (64 cycles) every 14.
const PRODUCT_ISSUE: f64 = 6.0;
const PRODUCT_ISSUE_OF_CYCLES: f64 = 0.125;

/// Number of classes of instructions.
pub const CLASSES: usize = Class::Other as usize + 1;

/// What an instruction does beside keeping its pipe.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    Plain,
    /// Keeps the port of shared memory for so many cycles.
    Shared(f64),
    /// Moves so many bytes from or to L2.
    Global(f64),
    /// The same into shared memory, waited for by group.
    Copy(f64),
    /// Ends a group of copies.
    CopiesCommit,
    /// Waits for all groups of copies but the latest.
    CopiesWait(u32),
    /// Keeps the tensor cores while the warp goes on.
    Product(Product),
    ProductsCommit,
    ProductsWait(u32),
}

/// What one instruction costs, in cycles of its sub-core unless said otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    pub class: Class,
    pub kind: Kind,
    /// Issue slots: none if it belongs to the instruction before it.
    pub slots: f64,
    /// Cycles of the pipe of its class.
    pub pipe: f64,
    /// Cycles until its result can be used.
    pub latency: f64,
    /// Cycles until the warp may issue again, if more than its slots.
    pub issue: f64,
    /// While products of warpgroups run: cycles of the port that pipes share, and of its own pipe.
    pub beside: Option<(f64, f64)>,
}

/// A program with its costs.
pub struct Plan<'p> {
    pub program: &'p Program,
    pub costs: Vec<Cost>,
    /// At each place the instruction that is issued there, where its whole region is executed.
    pub order: Vec<u32>,
    /// First and last place of each place's region. Nothing moves from one region to another.
    pub region: Vec<(u32, u32)>,
}

impl<'p> Plan<'p> {
    /// `lines` says what the instructions requested of memory.
    pub fn new(program: &'p Program, lines: &[Line], device: &DeviceModel) -> Plan<'p> {
        let costs: Vec<Cost> =
            (0..program.insts.len()).map(|at| cost(program, at, &lines[at], device)).collect();
        let mut plan = Plan {
            program,
            order: (0..costs.len() as u32).collect(),
            region: vec![(0, 0); costs.len()],
            costs,
        };
        for run in &program.depend.runs {
            let moved = movable(program, run.clone());
            let hard: Vec<usize> = run
                .clone()
                .filter(|&at| fixed(&program.insts[at]) && !moved.iter().any(|m| m.at == at))
                .collect();
            let mut from = run.start;
            for &at in hard.iter().chain([&run.end]) {
                plan.region(from, at, &moved);
                if at < run.end {
                    plan.region(at, at + 1, &[]);
                }
                from = at + 1;
            }
        }
        plan
    }

    /// Orders the instructions of a region as a list scheduler does: of those whose operands are
    /// there and whose pipe is free, the one with the longest way to the end.
    fn region(&mut self, from: usize, to: usize, moved: &[Movable]) {
        if to <= from {
            return;
        }
        self.region[from..to].fill((from as u32, to as u32));
        if to - from < 2 {
            return;
        }
        let n = to - from;
        let mut users: Vec<Vec<u32>> = vec![Vec::new(); n];
        let mut missing = vec![0u32; n];
        let mut edge = |before: usize, after: usize| {
            users[before].push(after as u32);
            missing[after] += 1;
        };
        for i in 0..n {
            let list = self.program.depend.on[from + i].iter();
            for d in list.filter_map(|&d| (d as usize).checked_sub(from)) {
                edge(d, i);
            }
        }
        let mut last = None;
        for m in moved.iter().filter(|m| (from..to).contains(&m.at)) {
            let at = m.at - from;
            if let Some(last) = last.replace(at) {
                edge(last, at);
            }
            // A wait stands behind what needs no result of variable latency, and before the first
            // instructions of variable latency.
            if let Some(sets) = m.waits {
                let mut slow = vec![false; n];
                for i in 0..at {
                    let on = self.program.depend.on[from + i].iter();
                    let after = on
                        .filter_map(|&d| (d as usize).checked_sub(from))
                        .any(|d| slow[d] && d != i);
                    slow[i] = after || variable(self.program.insts[from + i].class);
                    match slow[i] {
                        true if !after => edge(at, i),
                        true => {}
                        false => edge(i, at),
                    }
                }
                for i in at + 1..n {
                    if touches(self.program, from + i) & sets != 0 {
                        edge(at, i);
                    }
                }
            }
        }
        let mut height = vec![0.0f64; n];
        for i in (0..n).rev() {
            let after = users[i].iter().map(|&u| height[u as usize]).fold(0.0, f64::max);
            let cost = &self.costs[from + i];
            height[i] = after + cost.latency.max(cost.pipe).max(cost.slots);
        }
        // Heights and times are whole cycles here: they only decide an order.
        let rank = |i: usize| (height[i] as u64, Reverse(i as u32));
        let mut waiting: BinaryHeap<Reverse<(u64, u32)>> = BinaryHeap::new();
        let mut ready: Vec<BinaryHeap<(u64, Reverse<u32>)>> = vec![BinaryHeap::new(); CLASSES];
        let mut free = [0u64; CLASSES];
        let mut at = vec![0u64; n];
        for i in (0..n).filter(|&i| missing[i] == 0) {
            waiting.push(Reverse((0, i as u32)));
        }
        let (mut now, mut place) = (0u64, from);
        while place < to {
            while let Some(&Reverse((t, i))) = waiting.peek()
                && t <= now
            {
                waiting.pop();
                ready[self.costs[from + i as usize].class as usize].push(rank(i as usize));
            }
            let open = (0..CLASSES).filter(|&c| free[c] <= now);
            let best = open.filter_map(|c| ready[c].peek().map(|r| (*r, c))).max();
            let Some(((_, Reverse(i)), class)) = best else {
                let blocked = (0..CLASSES).filter(|&c| !ready[c].is_empty()).map(|c| free[c]).min();
                let next = waiting.peek().map(|Reverse((t, _))| *t);
                now = match (blocked, next) {
                    (Some(a), Some(b)) => a.min(b),
                    (Some(a), None) | (None, Some(a)) => a,
                    (None, None) => return,
                };
                continue;
            };
            ready[class].pop();
            let cost = self.costs[from + i as usize];
            self.order[place] = (from as u32) + i;
            place += 1;
            free[class] = now + cost.pipe.ceil() as u64;
            let done = now + cost.latency.ceil() as u64;
            now += cost.slots as u64;
            for &u in &users[i as usize] {
                let u = u as usize;
                at[u] = at[u].max(done);
                missing[u] -= 1;
                if missing[u] == 0 {
                    waiting.push(Reverse((at[u], u as u32)));
                }
            }
        }
    }
}

/// An instruction that synchronises and yet moves: a wait for products, and arrivals behind it.
struct Movable {
    at: usize,
    /// The sets of registers that a wait gives back; `None` for an arrival.
    waits: Option<u64>,
}

/// What an assembler moves although it synchronises. ptxas (13.0) moves a wait for products up over
/// plain instructions that do not touch their registers, to before the first one of variable latency:
/// in every tile of `attention/prefill.sm90a` all exponentials stand behind the wait for P v that the
/// PTX has behind them.
fn movable(program: &Program, run: Range<usize>) -> Vec<Movable> {
    let mut out: Vec<Movable> = Vec::new();
    // Sets of registers of the products of each group in flight, and whether there may be others.
    let (mut open, mut groups) = (0u64, VecDeque::new());
    let mut unknown = true;
    for at in run.clone() {
        let inst = &program.insts[at];
        match inst.op {
            Op::Warpgroup(WgOp::Product(w)) => {
                open |= program.wgmmas.get(w as usize).map_or(0, |w| w.sets[0] | w.sets[1]);
            }
            Op::Warpgroup(WgOp::Commit) => groups.push_back(std::mem::take(&mut open)),
            Op::Warpgroup(WgOp::Wait(n)) => {
                let n = n as usize;
                let mut sets = 0;
                while groups.len() > n {
                    sets |= groups.pop_front().unwrap_or(0);
                }
                if !unknown {
                    out.push(Movable { at, waits: Some(sets) });
                }
                unknown &= groups.len() < n;
            }
            Op::Async(a) => {
                let arrives = matches!(
                    program.asyncs.get(a as usize),
                    Some(Async::Mbar(Mbar { op: MbarOp::Arrive { .. }, .. }))
                );
                // Only behind a wait that moves, with no access to memory in between.
                let since = out.last().map_or(at, |m| m.at);
                let free = !program.insts[since..at].iter().any(|i| {
                    memory(i.class) || fixed(i) && !matches!(i.op, Op::Warpgroup(WgOp::Wait(_)))
                });
                if arrives && since < at && free {
                    out.push(Movable { at, waits: None });
                }
            }
            _ => {}
        }
    }
    out
}

fn memory(class: Class) -> bool {
    use Class::*;
    matches!(
        class,
        LoadGlobal
            | StoreGlobal
            | LoadShared
            | StoreShared
            | LoadLocal
            | StoreLocal
            | Ldmatrix
            | Stmatrix
            | CpAsync
            | Tma
            | Atomic
    )
}

/// An assembler does not know how long it takes.
fn variable(class: Class) -> bool {
    memory(class) || matches!(class, Class::Special | Class::Shuffle)
}

/// Sets of registers of products that an instruction uses.
fn touches(program: &Program, at: usize) -> u64 {
    match program.insts[at].touch {
        0 => 0,
        t => program.touches.get(usize::from(t)).map_or(0, |t| t.reads | t.writes),
    }
}

/// Stays where it is: what synchronises, and what ends a run.
fn fixed(inst: &Inst) -> bool {
    match inst.op {
        Op::Bar(_)
        | Op::Async(_)
        | Op::Warpgroup(_)
        | Op::CommitGroup
        | Op::WaitGroup(_)
        | Op::WaitAll
        | Op::Bra(_)
        | Op::Exit
        | Op::Trap => true,
        Op::Collective(..) => inst.class == Class::Barrier,
        _ => inst.class == Class::Atomic,
    }
}

fn cost(program: &Program, at: usize, line: &Line, device: &DeviceModel) -> Cost {
    let inst = &program.insts[at];
    let mean = |n: u64| n as f64 / line.executions.max(1) as f64;
    let work = tensor_work(program, &inst.op);
    let wavefront_cycles = 128.0 / f64::from(device.shared_bytes_per_clock);
    let shared = mean(line.wavefronts) * wavefront_cycles;
    let bytes = mean(line.read_sectors + line.write_sectors) * 32.0;
    let values = if inst.class == Class::Special { inst.values() as f64 } else { 1.0 };
    let asynchronous = inst.class == Class::Wgmma;
    let pipe = device.pipe(inst.class.name(), work, asynchronous) * values;
    let kind = match (inst.op, inst.class) {
        // One in four warps counts what all of the warpgroup read.
        (Op::Warpgroup(WgOp::Product(w)), _) => {
            let a = program.wgmmas.get(w as usize).map(|w| &w.a);
            let registers = matches!(a, Some(From::Registers(_)));
            Kind::Product(Product { cycles: pipe.max(4.0 * shared), registers })
        }
        (Op::Warpgroup(WgOp::Commit), _) => Kind::ProductsCommit,
        (Op::Warpgroup(WgOp::Wait(n)), _) => Kind::ProductsWait(n),
        (Op::CommitGroup, _) => Kind::CopiesCommit,
        (Op::WaitGroup(n), _) => Kind::CopiesWait(n),
        (Op::WaitAll, _) => Kind::CopiesWait(0),
        (Op::CpAsync(_), _) => Kind::Copy(bytes),
        (_, Class::LoadGlobal | Class::StoreGlobal | Class::Atomic) => Kind::Global(bytes),
        (_, Class::LoadShared | Class::StoreShared | Class::Ldmatrix | Class::Stmatrix) => {
            Kind::Shared(shared)
        }
        (_, Class::Shuffle) => Kind::Shared(wavefront_cycles),
        _ => Kind::Plain,
    };
    let slots = f64::from(u8::from(!inst.continued));
    let issue = match kind {
        Kind::Product(_) => PRODUCT_ISSUE + pipe * PRODUCT_ISSUE_OF_CYCLES,
        _ => slots,
    };
    let beside = device.beside_wgmma(inst.class.name()).filter(|_| slots > 0.0);
    Cost {
        class: inst.class,
        kind,
        slots,
        pipe: if inst.continued || asynchronous { 0.0 } else { pipe },
        latency: device.latency(inst.class.name()),
        issue,
        beside: beside.map(|[port, pipe]| (port, pipe * values)),
    }
}
