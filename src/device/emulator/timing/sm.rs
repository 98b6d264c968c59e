//! The CTAs of one multiprocessor in time: each warp's instructions in order, on pipes that all
//! share.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::path::{Cause, Path};
use super::plan::{CLASSES, Kind, Plan};
use super::products::Group;
use super::trace::{NOBODY, Step, Trace};
use super::turn::Turn;
use crate::device::emulator::program::Class;
use crate::device::model::SUB_CORES;

/// What a multiprocessor has beside its pipes.
#[derive(Debug, Clone)]
pub struct Ports {
    /// Bytes a cycle that it takes from L2, and gives to it.
    pub l2: f64,
    /// The same for bulk loads, some of which L2 does not hold.
    pub load: f64,
    /// For each instruction, cycles from the start of a bulk load to the end of its phase.
    pub load_latency: Vec<f64>,
    /// The same until a bulk store has read shared memory.
    pub store_latency: f64,
    pub barrier_latency: f64,
    /// Cycles until an arrival at an mbarrier counts, and again until a waiter knows.
    pub mbarrier_latency: f64,
    /// Cycles more until another multiprocessor of the cluster learns of an arrival.
    pub remote_latency: f64,
    pub product_latency: f64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Ran {
    pub cycles: f64,
    /// Where the cycles of the warp that ended last went.
    pub path: Path,
}

/// Register files and queues of one warp.
pub struct Warp {
    trace: usize,
    /// CTA among all that run here, for its events.
    copy: usize,
    pub sm: usize,
    core: usize,
    step: usize,
    /// The run that it is in, if it is in one, and its next place there.
    run: Option<(u32, u32)>,
    place: u32,
    /// What instructions of the run do beside, in order of place.
    beside: VecDeque<(u32, Step)>,
    /// When it may issue its next instruction.
    now: f64,
    /// Since when it queues for the special function unit or the port; infinite if it does not.
    queued: f64,
    /// When each register can be read, and why not before.
    ready: Vec<(f64, Cause)>,
    path: Path,
    copies_open: f64,
    copies: VecDeque<f64>,
    /// Its warpgroup, how many products of it this warp has issued, and how many when it committed
    /// each group that it has not waited for.
    group: usize,
    slept: bool,
    products: usize,
    commits: VecDeque<usize>,
}

struct Gate {
    missing: u32,
    at: f64,
    path: Path,
    waiting: Vec<u32>,
}

#[derive(Clone)]
struct Core {
    slot: f64,
    pipes: [f64; CLASSES],
    /// What pipes share while products run.
    port: f64,
}

/// When what a multiprocessor has is free.
#[derive(Clone)]
pub struct Multiprocessor {
    cores: Vec<Core>,
    /// When the tensor cores are free, and whether somebody looks then.
    pub tensor: f64,
    pub watched: bool,
    shared: f64,
    read: f64,
    write: f64,
}

/// What came of the try to issue an instruction.
enum Issue {
    Done,
    Later(f64),
    /// Until a product of its warpgroup begins.
    Asleep,
}

/// Runs `copies` of the CTAs of a trace side by side: each CTA of a cluster with its copies on a
/// multiprocessor of its own.
pub struct Simulation<'a> {
    plan: &'a Plan<'a>,
    trace: &'a Trace,
    pub ports: Ports,
    pub warps: Vec<Warp>,
    pub groups: Vec<Group>,
    gates: Vec<Gate>,
    pub sms: Vec<Multiprocessor>,
    turns: BinaryHeap<Reverse<Turn>>,
    pub issued: u64,
}

impl<'a> Simulation<'a> {
    /// All warps at the start of their CTAs, at cycle 0.
    pub fn new(plan: &'a Plan<'a>, trace: &'a Trace, ports: Ports, copies: usize) -> Self {
        let per_cta = trace.warps_per_cta as usize;
        let ctas = trace.warps.len() / per_cta.max(1);
        let registers = plan.program.depend.registers;
        let mut warps = Vec::new();
        for copy in 0..copies {
            for at in 0..trace.warps.len() {
                let (sm, w) = (at / per_cta, at % per_cta);
                warps.push(Warp {
                    trace: at,
                    copy,
                    sm,
                    core: (copy * per_cta + w) % SUB_CORES as usize,
                    step: 0,
                    run: None,
                    place: 0,
                    beside: VecDeque::new(),
                    now: 0.0,
                    queued: f64::INFINITY,
                    ready: vec![(0.0, Cause::Results); registers],
                    path: Path::default(),
                    copies_open: 0.0,
                    copies: VecDeque::new(),
                    group: (copy * trace.warps.len() + at) / 4,
                    slept: false,
                    products: 0,
                    commits: VecDeque::new(),
                });
            }
        }
        let mut groups: Vec<Group> = Vec::new();
        for warp in &warps {
            groups.resize_with(groups.len().max(warp.group + 1), Group::default);
            groups[warp.group].warps += 1;
            groups[warp.group].sm = warp.sm;
        }
        let gates = (0..copies)
            .flat_map(|_| &trace.events)
            .map(|e| Gate { missing: e.needs, at: 0.0, path: Path::default(), waiting: Vec::new() })
            .collect();
        let core = Core { slot: 0.0, pipes: [0.0; CLASSES], port: 0.0 };
        let sm = Multiprocessor {
            cores: vec![core; SUB_CORES as usize],
            tensor: 0.0,
            watched: false,
            shared: 0.0,
            read: 0.0,
            write: 0.0,
        };
        let first = |w| Reverse(Turn { at: 0.0, since: 0.0, warp: Reverse(w) });
        let turns = (0..warps.len() as u32).map(first).collect();
        Simulation {
            plan,
            trace,
            ports,
            warps,
            groups,
            gates,
            sms: vec![sm; ctas],
            turns,
            issued: 0,
        }
    }

    /// To the end, or until `most` instructions have been issued: then the rest is taken to go on at
    /// the same pace.
    pub fn run(mut self, most: u64) -> Ran {
        let total: u64 = self.total();
        while let Some(Reverse(turn)) = self.turns.pop() {
            match (turn.warp.0 as usize).checked_sub(self.warps.len()) {
                None => self.go_on(turn.warp.0 as usize, turn.at),
                Some(sm) => {
                    self.sms[sm].watched = false;
                    self.multiply(sm, turn.at);
                }
            }
            if self.issued >= most {
                break;
            }
        }
        let last = self.warps.iter().max_by(|a, b| a.now.total_cmp(&b.now));
        let (cycles, path) = last.map_or((0.0, Path::default()), |w| (w.now, w.path.clone()));
        let scale = if self.issued >= most { total as f64 / self.issued as f64 } else { 1.0 };
        Ran { cycles: cycles * scale, path: path.scaled(scale) }
    }

    fn total(&self) -> u64 {
        let length = |s: &Step| match s {
            Step::Run(from, to) => u64::from(to - from),
            _ => 0,
        };
        let all: u64 = self.trace.warps.iter().flatten().map(length).sum();
        let copies = self.warps.len() / self.trace.warps.len().max(1);
        all * copies as u64
    }

    /// Warp `w` does what it can at `now`, and comes back when it can do more.
    fn go_on(&mut self, w: usize, now: f64) {
        loop {
            let warp = &mut self.warps[w];
            let Some((from, to)) = warp.run else {
                let steps = &self.trace.warps[warp.trace];
                match steps.get(warp.step) {
                    None => return,
                    Some(Step::Run(..)) => self.enter(w),
                    Some(&Step::Wait(event)) => {
                        let gate = self.gate(w, event);
                        if self.gates[gate].missing > 0 {
                            self.gates[gate].waiting.push(w as u32);
                            return;
                        }
                        self.pass(w, event);
                        let warp = &mut self.warps[w];
                        warp.step += 1;
                        if warp.now > now {
                            let at = warp.now;
                            self.come_back(w, at);
                            return;
                        }
                    }
                    Some(&step) => {
                        warp.step += 1;
                        self.engage(w, step);
                    }
                }
                continue;
            };
            let place = warp.place;
            if place >= to {
                (warp.run, warp.step) = (None, warp.step + 1);
                continue;
            }
            let (first, end) = self.plan.region[place as usize];
            let whole = first >= from && end <= to;
            let pc = if whole { self.plan.order[place as usize] } else { place };
            match self.issue(w, pc as usize, now) {
                Issue::Done => {}
                Issue::Later(at) => {
                    self.come_back(w, at);
                    return;
                }
                Issue::Asleep => return,
            }
            self.issued += 1;
            let warp = &mut self.warps[w];
            warp.place += 1;
            warp.queued = f64::INFINITY;
            while let Some(&(at, step)) = self.warps[w].beside.front()
                && at == pc
            {
                self.warps[w].beside.pop_front();
                self.engage(w, step);
            }
            let warp = &self.warps[w];
            // Engines and barriers take part at the time of their instruction.
            let next = self.trace.warps[warp.trace].get(warp.step + 1);
            if warp.place < to || matches!(next, None | Some(Step::Run(..))) {
                let at = warp.now;
                self.come_back(w, at);
                return;
            }
        }
    }

    /// A warp comes to a run. Where its last region goes on behind arrivals, they and what follows are
    /// taken with it.
    fn enter(&mut self, w: usize) {
        let warp = &mut self.warps[w];
        let steps = &self.trace.warps[warp.trace];
        let Some(&Step::Run(from, mut to)) = steps.get(warp.step) else { return };
        let goal = |reached: u32| self.plan.region[reached as usize - 1].1;
        let (mut step, mut reached) = (warp.step, to);
        warp.beside.clear();
        while reached < goal(reached) {
            step += 1;
            match steps.get(step) {
                Some(&Step::Run(f, t)) if f == reached => reached = t,
                Some(&arrive @ Step::Arrive(_)) => warp.beside.push_back((reached - 1, arrive)),
                _ => break,
            }
        }
        if reached >= goal(reached) {
            (to, warp.step) = (reached, step);
        } else {
            warp.beside.clear();
        }
        (warp.run, warp.place) = (Some((from, to)), from);
    }

    /// Arrives, or puts an engine to work.
    fn engage(&mut self, w: usize, step: Step) {
        let warp = &self.warps[w];
        let (now, mut path) = (warp.now, warp.path.clone());
        let before = self.trace.warps[warp.trace][..warp.step].iter().rev();
        let pc = before
            .filter_map(|s| if let Step::Run(_, to) = s { Some(*to as usize - 1) } else { None })
            .next()
            .unwrap_or(0);
        let sm = &mut self.sms[warp.sm];
        let (event, at) = match step {
            Step::Arrive(event) => {
                let owner = self.trace.events[event as usize].cta;
                let latency = match owner {
                    Some(cta) if cta as usize != warp.sm => {
                        self.ports.mbarrier_latency + self.ports.remote_latency
                    }
                    Some(_) => self.ports.mbarrier_latency,
                    None => 0.0,
                };
                path.spend(Cause::Barriers, latency);
                (event, now + latency)
            }
            Step::Load { event, bytes } | Step::Store { event, bytes } => {
                let (port, rate, latency) = match step {
                    Step::Load { .. } => {
                        (&mut sm.read, self.ports.load, self.ports.load_latency[pc])
                    }
                    _ => (&mut sm.write, self.ports.l2, self.ports.store_latency),
                };
                *port = now.max(*port) + f64::from(bytes) / rate;
                path.spend(Cause::Bandwidth, *port - now);
                path.spend(Cause::Copies, latency);
                (event, *port + latency)
            }
            Step::Run(..) | Step::Wait(_) => return,
        };
        self.contribute(w, event, at, path);
    }

    /// Warp `w` has its next turn at cycle `at`.
    pub fn come_back(&mut self, w: usize, at: f64) {
        let since = self.warps.get(w).map_or(0.0, |warp| warp.queued.min(at));
        self.turns.push(Reverse(Turn { at, since, warp: Reverse(w as u32) }));
    }

    fn gate(&self, w: usize, event: u32) -> usize {
        self.warps[w].copy * self.trace.events.len() + event as usize
    }

    /// Something that `event` takes comes at `at`.
    fn contribute(&mut self, w: usize, event: u32, at: f64, path: Path) {
        if event == NOBODY {
            return;
        }
        let gate = self.gate(w, event);
        let gate = &mut self.gates[gate];
        gate.missing = gate.missing.saturating_sub(1);
        if at >= gate.at {
            (gate.at, gate.path) = (at, path);
        }
        if gate.missing == 0 {
            let at = gate.at;
            for w in std::mem::take(&mut gate.waiting) {
                let later = self.warps[w as usize].now.max(at);
                self.come_back(w as usize, later);
            }
        }
    }

    /// A warp goes through a complete event.
    fn pass(&mut self, w: usize, event: u32) {
        let gate = self.gate(w, event);
        let (gate, warp) = (&self.gates[gate], &mut self.warps[w]);
        let polled = self.trace.events[event as usize].polled;
        let late = gate.at > warp.now;
        if late {
            (warp.now, warp.path) = (gate.at, gate.path.clone());
        }
        // Whoever comes late to an mbarrier has its answer with the instruction.
        let latency = match polled {
            true if late => self.ports.mbarrier_latency,
            true => 0.0,
            false => self.ports.barrier_latency,
        };
        warp.now += latency;
        warp.path.spend(Cause::Barriers, latency);
    }

    /// Issues an instruction at `now`, or says when it may be.
    fn issue(&mut self, w: usize, pc: usize, now: f64) -> Issue {
        let plan = self.plan;
        let cost = &plan.costs[pc];
        let depend = &plan.program.depend;
        let warp = &mut self.warps[w];
        let group = &mut self.groups[warp.group];
        let sm = &mut self.sms[warp.sm];
        let core = &mut sm.cores[warp.core];
        let class = cost.class as usize;
        let mut best = (warp.now, Cause::Issue);
        let mut consider = |at: f64, cause: Cause| {
            if at > best.0 {
                best = (at, cause);
            }
        };
        for &r in &depend.reads[pc] {
            let (at, cause) = warp.ready[r as usize];
            consider(at, cause);
        }
        if cost.slots > 0.0 {
            consider(core.slot, Cause::Issue);
            consider(core.pipes[class], Cause::of_pipe(cost.class));
            if cost.beside.is_some() {
                consider(core.port, Cause::of_pipe(cost.class));
            }
        }
        match cost.kind {
            Kind::CopiesWait(n) => {
                if let Some(&at) = warp
                    .copies
                    .len()
                    .checked_sub(n as usize + 1)
                    .and_then(|last| warp.copies.get(last))
                {
                    consider(at, Cause::Copies);
                }
            }
            Kind::ProductsWait(n) => {
                let covered = warp.commits.len().checked_sub(n as usize + 1);
                if let Some(last) = covered.and_then(|c| warp.commits[c].checked_sub(1)) {
                    let Some((at, path)) = group.done.get(last) else {
                        warp.slept = true;
                        group.asleep.push(w as u32);
                        return Issue::Asleep;
                    };
                    if *at > best.0 {
                        best = (*at, Cause::Products);
                        if *at > now {
                            warp.path = path.clone();
                        }
                    }
                }
            }
            _ => {}
        }
        let (at, cause) = best;
        if at > now {
            // Remembered for when it comes back: it may find the same again.
            if cause != Cause::Products {
                warp.path.wait_until(at, cause);
            }
            warp.now = at;
            let queues = cost.class == Class::Special && at == core.pipes[class]
                || cost.beside.is_some() && at == core.port;
            warp.queued = if queues { warp.queued.min(now) } else { f64::INFINITY };
            return Issue::Later(at);
        }
        let slept = std::mem::take(&mut warp.slept);
        warp.path.wait_until(now, if slept { Cause::Products } else { cause });
        if cost.slots > 0.0 {
            core.slot = now + cost.slots;
            core.pipes[class] = now + cost.pipe;
            if let Some((port, pipe)) = cost.beside.filter(|_| sm.tensor > now) {
                (core.port, core.pipes[class]) = (now + port, now + pipe);
            }
        }
        warp.now = now + cost.slots.max(cost.issue);
        warp.path.wait_until(warp.now, Cause::Issue);
        let mut result = (now + cost.latency, Cause::Results);
        match cost.kind {
            Kind::Plain => {
                if cost.class == Class::Special {
                    result.1 = Cause::Special;
                }
            }
            Kind::Shared(cycles) => {
                let start = now.max(sm.shared);
                sm.shared = start + cycles;
                result = (sm.shared.max(start + 1.0) - 1.0 + cost.latency, Cause::Shared);
            }
            Kind::Global(bytes) => {
                let start = now.max(sm.read);
                sm.read = start + bytes / self.ports.l2;
                result = (start + cost.latency, Cause::Memory);
            }
            Kind::Copy(bytes) => {
                let start = now.max(sm.read);
                sm.read = start + bytes / self.ports.l2;
                warp.copies_open = warp.copies_open.max(sm.read + cost.latency);
            }
            Kind::CopiesCommit => {
                let open = std::mem::take(&mut warp.copies_open);
                let last = warp.copies.back().copied().unwrap_or(0.0);
                warp.copies.push_back(open.max(last));
            }
            Kind::CopiesWait(n) => {
                while warp.copies.len() > n as usize {
                    warp.copies.pop_front();
                }
            }
            Kind::Product(product) => {
                let n = warp.products;
                warp.products += 1;
                let (sm, path) = (warp.sm, warp.path.clone());
                if group.issue(n, product, path) {
                    self.multiply(sm, now);
                }
                return Issue::Done;
            }
            Kind::ProductsCommit => warp.commits.push_back(warp.products),
            Kind::ProductsWait(n) => {
                while warp.commits.len() > n as usize {
                    warp.commits.pop_front();
                }
            }
        }
        if !matches!(cost.kind, Kind::Copy(_)) {
            for &r in &depend.writes[pc] {
                warp.ready[r as usize] = result;
            }
        }
        Issue::Done
    }
}
