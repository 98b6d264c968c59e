//! The emulator: a device that executes PTX on the CPU, warp by warp, and counts what it does.
//!
//! ```text
//! ptx (text -> syntax tree) -> decode (-> Program) -> launch (CTAs over cores) -> cta -> warp
//! ```
//!
//! A [`Program`](program::Program) is an entry with its operands resolved to slots and its
//! instructions to functions over 32 lanes. Global memory is words with relaxed atomic access, so
//! that CTAs run in parallel; shadows beside all memories know what has been written.
//!
//! Registers of a [`Build`](super::Build) are the most 32-bit virtual registers alive at once, by
//! data-flow analysis of the PTX: close to what an assembler without spills needs, and not what it uses.

mod access;
mod alu_carry;
mod alu_cvt;
mod alu_directed;
mod alu_float;
mod alu_int;
mod alu_narrow;
mod chain;
mod cta;
mod decode;
mod events;
mod hopper;
mod l2;
mod launch;
mod lockstep;
mod memory;
mod num;
mod order;
mod program;
mod ptx;
mod raw;
mod regs;
mod session;
mod shares;
mod special;
mod stream;
mod survey;
mod tensor;
#[cfg(test)]
mod tests;
mod timing;
mod trap;
mod warp;
mod warpwide;
mod wgmma;

pub use order::Checks;
pub use raw::{RawArg, RawOptions, RawOutcome, run_raw, run_raw_checked, run_raw_clusters};
pub use session::{LaunchProfile, Session};
pub use warp::Line;

use pulp::Arch;

use super::model::DeviceModel;
use super::{Device, DeviceError, Facts, Health, Job, Loaded, STEP_LIMIT};
use crate::op::Tensor;

/// Executes kernels on the CPU in place of a described GPU, and models the time it would take.
pub struct Emulator {
    model: DeviceModel,
    facts: Facts,
    step_limit: u64,
    checks: Checks,
    l2: bool,
    timing: bool,
    arch: Arch,
}

impl Emulator {
    /// An emulator of the described device, with all checks, without models of L2 and of timing.
    pub fn new(model: DeviceModel) -> Emulator {
        Emulator {
            facts: model.facts(),
            model,
            step_limit: STEP_LIMIT,
            checks: Checks::ALL,
            l2: false,
            timing: false,
            arch: Arch::new(),
        }
    }

    /// Stops a CTA after so many warp instructions, in place of [`STEP_LIMIT`].
    pub fn with_step_limit(mut self, steps: u64) -> Emulator {
        self.step_limit = steps;
        self
    }

    /// What is checked; all unless told otherwise.
    pub fn with_checks(mut self, checks: Checks) -> Emulator {
        self.checks = checks;
        self
    }

    /// Models L2 as well: runs take longer, and counts tell the traffic to device memory.
    pub fn with_l2(mut self) -> Emulator {
        self.l2 = true;
        self
    }

    /// Simulates the instructions of a few CTAs of each launch in time, for a better model of it; runs
    /// take a little longer.
    pub fn with_timing(mut self) -> Emulator {
        self.timing = true;
        self
    }

    /// Computes with vectors of 256 bits on a machine that has wider ones, too. No result changes.
    pub fn with_narrow_vectors(mut self) -> Emulator {
        #[cfg(target_arch = "x86_64")]
        if let Some(simd) = pulp::x86::V3::try_new() {
            self.arch = Arch::V3(simd);
        }
        self
    }

    /// The described device.
    pub fn model(&self) -> &DeviceModel {
        &self.model
    }

    /// As [`Device::load`], with the session's own type: it knows more than [`Loaded`] tells.
    ///
    /// # Errors
    /// PTX that the emulator cannot read or that the described device cannot run, with the line;
    /// a launch whose parameters, block or shared memory do not fit its entry.
    pub fn session(&self, job: &Job, inputs: &[Tensor]) -> Result<Session<'_>, DeviceError> {
        Session::new(self, job, inputs)
    }
}

impl Device for Emulator {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn health(&self) -> Option<Health> {
        None
    }

    fn load<'d>(
        &'d self,
        job: &Job,
        inputs: &[Tensor],
    ) -> Result<Box<dyn Loaded + 'd>, DeviceError> {
        Ok(Box::new(self.session(job, inputs)?))
    }
}
