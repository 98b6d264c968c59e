//! `setmaxnreg`: warps give registers to their CTA's pool and take them from it.

use super::Flow;
use crate::device::emulator::events::Who;
use crate::device::emulator::lockstep::{LEAD, Lockstep};
use crate::device::emulator::program::Program;
use crate::device::emulator::trap::{At, Fault, FaultKind};
use crate::device::emulator::warp::{Context, Wait, Warp};

/// Registers of a CTA, counted in units of 32: one for each thread of a warp.
#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// Units that no warp holds.
    pub free: u32,
    /// Units that each warp holds: registers of each of its threads.
    pub held: Vec<u32>,
    /// The instructions that the warps of each warpgroup execute.
    done: Vec<Lockstep<usize>>,
    /// The latest that each warp has executed.
    by: Vec<Option<usize>>,
}

impl Pool {
    /// The registers of a CTA at its start: each warp holds what the entry says.
    pub fn new(program: &Program, warps: u32) -> Pool {
        let each = program.entry_registers.unwrap_or(0);
        let warps = warps as usize;
        let groups = (0..warps.div_ceil(4)).map(|g| Lockstep::new(warps - 4 * g));
        Pool { free: 0, held: vec![each; warps], done: groups.collect(), by: vec![None; warps] }
    }

    /// Two warps of a warpgroup that have not executed the same: one that has not, one that has,
    /// and the instruction.
    pub fn uneven(&self) -> Option<(usize, usize, usize)> {
        self.done.iter().enumerate().find_map(|(g, steps)| {
            let (w, pc) = steps.behind()?;
            Some((4 * g + w, 4 * g + steps.ahead(w)?, pc))
        })
    }
}

impl Warp {
    /// Takes or gives registers, so that the warp holds `count`; waits until the CTA has enough.
    ///
    /// # Errors
    /// `.inc` to fewer or `.dec` to more than the warp holds; warps of a warpgroup that do not
    /// execute the same ones in the same order.
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
        let who = |warp: usize, pc| Who { cta: cx.rank, warp: warp as u32, lanes: u32::MAX, pc };
        let refuse = |message: String, other: Option<(Who, String)>| {
            Err(Fault::new(FaultKind::Registers, None, message).against(other))
        };
        let (first, steps) = (w / 4 * 4, &pool.done[w / 4]);
        if cx.events.order.checks.setmaxnreg {
            if inc && count < held || !inc && count > held {
                let other = pool.by[w].map(|pc| (who(w, pc), format!("set them to {held}")));
                return refuse(
                    format!("{name} to {count} registers, but the warp holds {held}"),
                    other,
                );
            }
            // The warps of a warpgroup execute the same ones in the same order.
            let ahead = steps.ahead(w % 4).map_or(first, |o| first + o);
            if let Some(other) = steps.next(w % 4)
                && other != pc
            {
                return refuse(
                    format!(
                        "all warps of a warpgroup must execute the same {name}: warp {ahead} \
                         executed that at {} instead",
                        At(other)
                    ),
                    Some((who(ahead, other), "executed the other".into())),
                );
            }
            if let (true, Some((late, next))) = (steps.is_full(), steps.behind())
                && late != w % 4
            {
                return refuse(
                    format!(
                        "all warps of a warpgroup must execute the same {name}: warp {} is {LEAD} \
                         of them behind; its next is at {}",
                        first + late,
                        At(next)
                    ),
                    None,
                );
            }
        }
        if count > held {
            if pool.free < count - held {
                return Ok(Flow::Again(Wait::Registers { more: count - held }));
            }
            pool.free -= count - held;
        } else {
            pool.free += held - count;
            cx.engine.progress += 1;
        }
        pool.held[w] = count;
        pool.by[w] = Some(pc);
        if cx.events.order.checks.setmaxnreg {
            pool.done[w / 4].advance(w % 4, pc);
        }
        Ok(Flow::Next)
    }
}
