//! `setmaxnreg`: warps give registers to their CTA's pool and take them from it.

use super::Flow;
use crate::device::emulator::program::Program;
use crate::device::emulator::trap::{Fault, FaultKind};
use crate::device::emulator::warp::{Context, Wait, Warp};

/// Registers of a CTA, in registers a thread times 32.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Not held by any warp, in units of a warp's share.
    pub free: u32,
    /// Registers that each warp holds a thread.
    pub held: Vec<u32>,
    /// The instructions that each warp has executed.
    done: Vec<Vec<usize>>,
}

impl Pool {
    pub fn new(program: &Program, warps: u32) -> Pool {
        let each = program.entry_registers.unwrap_or(0);
        Pool { free: 0, held: vec![each; warps as usize], done: vec![Vec::new(); warps as usize] }
    }

    /// Warps of a warpgroup that have not executed the same, by number, and the instruction.
    pub fn uneven(&self) -> Option<(usize, usize, usize)> {
        for (g, group) in self.done.chunks(4).enumerate() {
            let most = group.iter().max_by_key(|d| d.len())?;
            for (w, d) in group.iter().enumerate() {
                if d.len() < most.len() {
                    return Some((4 * g, 4 * g + w, most[d.len()]));
                }
            }
        }
        None
    }
}

impl Warp {
    pub fn set_max_nreg(
        &mut self,
        cx: &mut Context<'_>,
        inc: bool,
        count: u32,
        pc: usize,
    ) -> Result<Flow, Box<Fault>> {
        if cx.program.entry_registers.is_none() {
            // The assembler ignores it where the entry does not fix its registers.
            return Ok(Flow::Next);
        }
        let w = self.id as usize;
        let pool = &mut cx.engine.pools[cx.rank as usize];
        let held = pool.held[w];
        let name = if inc { "setmaxnreg.inc" } else { "setmaxnreg.dec" };
        let refuse = |message: String| Err(Fault::new(FaultKind::Registers, None, message));
        if inc && count < held || !inc && count > held {
            return refuse(format!("{name} to {count} registers, but the warp holds {held}"));
        }
        // The warps of a warpgroup execute the same ones in the same order.
        let at = pool.done[w].len();
        let first = w / 4 * 4;
        let other = (first..pool.done.len().min(first + 4))
            .find_map(|o| pool.done[o].get(at).map(|&other| (o, other)));
        if let Some((o, other)) = other
            && other != pc
        {
            return refuse(format!(
                "all warps of a warpgroup must execute the same {name}: warp {o} executed that of \
                 PTX line {} instead",
                cx.program.insts[other].line
            ));
        }
        if inc {
            if pool.free < count - held {
                return Ok(Flow::Again(Wait::Registers { more: count - held }));
            }
            pool.free -= count - held;
        } else {
            pool.free += held - count;
            cx.engine.progress += 1;
        }
        pool.held[w] = count;
        pool.done[w].push(pc);
        Ok(Flow::Next)
    }
}
