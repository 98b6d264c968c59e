//! How long the CTAs of one multiprocessor take side by side: a simulation of events.
//!
//! While a cluster is executed, its warps' instructions and what passes between warps and engines
//! are written down ([`trace`]). Afterwards each sub-core issues one instruction a cycle, of the
//! youngest warp that can go on. An instruction waits for its operands, its pipe and its slot. A
//! product begins when all four warps have issued it and the tensor cores are free; warpgroups take
//! turns there, and the warps go on ([`products`]). While products run, maxima, conversions and
//! exponentials take longer; warps queue for exponentials and for what all three share then.
//! `wait_group`, mbarriers, named barriers and bulk copies hold a warp until what they wait for has
//! happened. Within a region without synchronisation, instructions are taken in the order that a
//! list scheduler gives them ([`plan`]), as an assembler reorders them.
//!
//! A cycle of the last warp to end is counted as what that warp, or whoever it waited for, did
//! then: the critical path ([`path`]).

mod path;
mod plan;
mod products;
mod sm;
mod trace;
mod turn;

pub use trace::Trace;

use super::program::{Class, Program};
use super::warp::Line;
use crate::device::model::{DeviceModel, Timing};
use plan::Plan;
use sm::{Ports, Simulation};

/// Instructions that a simulation issues; the rest is taken to go on at the same pace.
const MOST: u64 = 1 << 20;

/// Times of a traced cluster alone on its multiprocessors, and of as many of its kind as they hold.
///
/// On average, `active` multiprocessors share L2. `steps` are the instructions of the traced
/// cluster's longest CTA; `lines` are of one of `copies` that the modelled L2 saw, if it saw any.
pub fn timing(
    program: &Program,
    lines: &[Line],
    device: &DeviceModel,
    trace: &Trace,
    (steps, resident, active, copies): (u64, u64, u64, u64),
) -> Timing {
    let plan = Plan::new(program, lines, device);
    let ghz = f64::from(device.sm_mhz) / 1e3;
    let share = device.l2_gbps / ghz / active.max(1) as f64;
    let l2 = share.min(f64::from(device.l2_bytes_per_clock));
    let load = device.latency("tma");
    // The part of what bulk copies load that L2 did not hold.
    let bulk = || program.insts.iter().zip(lines).filter(|(i, _)| i.class == Class::Tma);
    let read = bulk().map(|(_, l)| l.read_sectors).sum::<u64>() * copies;
    let missed = bulk().map(|(_, l)| l.l2_miss_sectors).sum::<u64>();
    let missed = (missed as f64 / read.max(1) as f64).min(1.0);
    let memory = device.memory_gbps / ghz / active.max(1) as f64;
    // A tile of queries is always new, keys and values seldom.
    let part = |l: &Line| l.l2_miss_sectors as f64 / (l.read_sectors * copies).max(1) as f64;
    let latency = |l: &Line| load + part(l).min(1.0) * device.memory_latency_ns * ghz;
    let load_latency = lines.iter().map(latency).collect();
    let ports = Ports {
        l2,
        load: l2.min(memory / missed.max(1e-9)),
        load_latency,
        // Without the way to L2 and back.
        store_latency: (load - device.latency("load_global")).max(0.0),
        barrier_latency: device.latency("barrier"),
        mbarrier_latency: device.latency("mbarrier"),
        remote_latency: device.latency("cluster"),
        product_latency: device.latency("wgmma"),
    };
    let run = |copies: u64| Simulation::new(&plan, trace, ports.clone(), copies as usize).run(MOST);
    let alone = run(1);
    let full = if resident > 1 { run(resident) } else { alone.clone() };
    Timing {
        steps,
        resident: resident.max(1),
        alone: alone.cycles,
        full: full.cycles,
        parts: full.path.parts(),
    }
}
