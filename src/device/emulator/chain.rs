//! How long a warp takes for its instructions if nobody is in its way, by the description's
//! latencies and pipes.
//!
//! Within a straight run an instruction starts as soon as the results it uses are there, in whatever
//! order that is: the assembler orders them so. Barriers and waits keep accesses to memory on their
//! side. A run takes as long as its longest chain of results or its busiest pipe, and the next begins
//! after it.

use indexmap::IndexMap;

use super::launch::tensor_work;
use super::program::{Class, Program};
use super::warp::Line;
use crate::device::model::DeviceModel;

/// Cycles of the warps of a launch.
pub struct Chain {
    /// Cycles of all warps together.
    pub warp_cycles: f64,
    /// Cycles of the busiest pipe other than tensor cores and special functions.
    pub pipe_cycles: f64,
    /// What each instruction takes of `warp_cycles`.
    pub by_instruction: Vec<f64>,
}

/// The cycles of a launch whose instructions were executed as often as `lines` say.
pub fn chain(program: &Program, lines: &[Line], device: &DeviceModel) -> Chain {
    let mut by_instruction = vec![0.0; program.insts.len()];
    let mut pipes: IndexMap<Class, f64> = IndexMap::new();
    let mut start = vec![0.0f64; program.insts.len()];
    let mut taken = vec![0.0f64; program.insts.len()];
    for run in &program.depend.runs {
        let times = run.clone().map(|at| lines[at].executions).max().unwrap_or(0) as f64;
        if times == 0.0 {
            continue;
        }
        let mut issue = 0.0;
        let mut of_run: IndexMap<Class, f64> = IndexMap::new();
        // When accesses behind the last barrier may start, and the latest start so far.
        let (mut gate, mut latest, mut clock) = (0.0f64, 0.0f64, 0.0f64);
        for at in run.clone() {
            let inst = &program.insts[at];
            let class = inst.class.name();
            let latency = |on: &u32| {
                let on = *on as usize;
                start[on] + device.latency(program.insts[on].class.name())
            };
            let ready = program.depend.on[at].iter().map(latency).fold(0.0, f64::max);
            let waits = matches!(inst.class, Class::Barrier | Class::Mbarrier);
            start[at] = match inst.class {
                _ if waits => ready.max(latest),
                c if c.of_memory() => ready.max(gate),
                _ => ready,
            };
            if waits {
                gate = start[at] + device.latency(class);
            }
            latest = latest.max(start[at]);
            let pipe = match inst.continued {
                true => 0.0,
                false => {
                    let values =
                        if inst.class == Class::Special { inst.values() as f64 } else { 1.0 };
                    device.pipe(class, tensor_work(program, &inst.op), inst.class.is_asynchronous())
                        * values
                }
            };
            *of_run.entry(inst.class).or_default() += pipe;
            issue += f64::from(u8::from(!inst.continued));
            let end = start[at] + pipe;
            taken[at] = (end - clock).max(0.0);
            clock = clock.max(end);
        }
        let busiest = of_run.values().copied().fold(issue, f64::max);
        // Where a pipe binds, its time is spread over all that use pipes.
        let spread = (busiest - clock).max(0.0) / issue.max(1.0);
        for at in run.clone() {
            let own = f64::from(u8::from(!program.insts[at].continued));
            by_instruction[at] = times * (taken[at] + own * spread);
        }
        for (class, cycles) in of_run {
            *pipes.entry(class).or_default() += times * cycles;
        }
    }
    let plain = pipes.iter().filter(|(c, _)| !c.is_tensor() && **c != Class::Special);
    Chain {
        warp_cycles: by_instruction.iter().sum(),
        pipe_cycles: plain.map(|(_, cycles)| *cycles).fold(0.0, f64::max),
        by_instruction,
    }
}

impl Class {
    fn of_memory(self) -> bool {
        use Class::*;
        matches!(
            self,
            LoadGlobal
                | StoreGlobal
                | LoadShared
                | StoreShared
                | Ldmatrix
                | Stmatrix
                | CpAsync
                | Tma
                | Atomic
        )
    }

    fn is_tensor(self) -> bool {
        self.is_asynchronous() || self == Class::Mma
    }

    /// Matrix products of warpgroups.
    fn is_asynchronous(self) -> bool {
        self == Class::Wgmma
    }
}
