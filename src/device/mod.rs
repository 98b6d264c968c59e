//! Where kernels run: one [`Device`] trait, a CUDA GPU or the emulator behind it.
//!
//! This file and those beside it hold what both share: what a device is given ([`Job`]), what it
//! gives back ([`Outcome`]), why it cannot ([`DeviceError`]), what it is ([`Facts`]). None of them
//! knows [`cuda`] or [`emulator`]; [`open`](mod@open) alone knows both.

pub mod counts;
pub mod cuda;
pub mod emulator;
mod facts;
mod fault;
mod job;
pub mod model;
pub(crate) mod nan;
pub mod open;
mod outcome;
mod shares;
mod tensormap;

pub use counts::{Counts, L2Counts, Modelled};
pub use facts::{Facts, Health, Peak};
pub use fault::{DeviceError, ErrorKind, FaultKind, Site, Trap};
pub use job::{Arg, Buffer, BufferRole, Job, Launch, Macros, Ptx, Swizzle, TensorMap};
pub use outcome::{Build, EntryBuild, Outcome, Regime, Sample};
pub use shares::{Computed, CtaShare, JobShare, LaunchShare, ShareRule};

use crate::op::Tensor;

/// Warp instructions that a CTA may execute before it is taken to hang, unless told otherwise.
pub const STEP_LIMIT: u64 = 1_000_000_000;

/// A place where jobs run.
pub trait Device: Send {
    /// What a record says of the device.
    fn facts(&self) -> &Facts;

    /// Clocks, power, temperature, throttle reasons; `None` where nothing tells.
    fn health(&self) -> Option<Health>;

    /// What tells energy and power, by itself, from any thread; `None` where nothing does.
    fn meter(&self) -> Option<Box<dyn Meter>> {
        None
    }

    /// Compiles the job's PTX, allocates its buffers between canaries and uploads the inputs.
    ///
    /// # Errors
    /// The PTX does not assemble or lacks an entry, the device lacks what a launch needs, there is
    /// too little memory, or the device is lost.
    fn load<'d>(
        &'d self,
        job: &Job,
        inputs: &[Tensor],
    ) -> Result<Box<dyn Loaded + 'd>, DeviceError>;
}

/// Tells a device's energy.
pub trait Meter: Send {
    /// Counter and power as of now.
    ///
    /// # Errors
    /// In words: the device does not tell.
    fn read(&mut self) -> Result<Reading, String>;
}

/// What a [`Meter`] tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// Since some moment, J. The counter may move in steps.
    pub joules: f64,
    /// As of now or a short time before, W.
    pub watts: Option<f64>,
}

/// A compiled job with its buffers on a device.
pub trait Loaded {
    /// What the assembler made of the job.
    fn build(&self) -> &Build;

    /// How many CTAs of each launch the next runs execute; all at first. Launches that cannot do
    /// with a part are executed whole. A device that is present executes everything, whatever is
    /// asked.
    ///
    /// # Errors
    /// [`CtaShare::Most`] of a job that has more CTAs, but no launch that can do with a part.
    fn limit_ctas(&mut self, share: CtaShare) -> Result<(), DeviceError> {
        let _ = share;
        Ok(())
    }

    /// How many warp instructions a CTA of the next runs may execute before it is taken to hang. A
    /// device that is present has a time limit of its own.
    fn limit_steps(&mut self, steps: u64) {
        let _ = steps;
    }

    /// Poisons outputs and workspaces, runs every launch once, checks canaries and inputs.
    ///
    /// # Errors
    /// A launch that the device refuses, a fault while it runs, or a kernel that does not end.
    fn run(&mut self) -> Result<Outcome, DeviceError>;

    /// The clock of this job. Measured and modelled times never mix. A modelled time is that of
    /// `times` disjoint copies of what [`Loaded::run`] executed, as when one head stands for many;
    /// a measured one is that of the job itself, and `times` is 1.
    fn clock(&mut self, times: u64) -> Clock<'_>;
}

/// What times a job.
pub enum Clock<'a> {
    /// A GPU's event clock.
    Measured(&'a mut dyn Sampler),
    /// The modelled time of the counts of the last [`Loaded::run`]; `None` before it.
    Modelled(Option<Modelled>),
}

/// Times runs one by one; `crate::measure` decides how many.
pub trait Sampler {
    /// One run of all launches, with L2 in that state.
    ///
    /// # Errors
    /// As of [`Loaded::run`].
    fn sample(&mut self, regime: Regime) -> Result<Sample, DeviceError>;

    /// So many runs of all launches back to back, L2 as they leave it: their time, ns.
    ///
    /// # Errors
    /// As of [`Loaded::run`], or the sampler cannot.
    fn burst(&mut self, runs: u32) -> Result<f64, DeviceError> {
        let _ = runs;
        Err(DeviceError::Launch("runs cannot be queued back to back on this device".into()))
    }

    /// Adds to the next samples a kernel that spins for so many cycles behind the launches; 0 for none. A
    /// slowdown that is known shows what comparisons can tell.
    ///
    /// # Errors
    /// The sampler cannot.
    fn spin(&mut self, cycles: u64) -> Result<(), DeviceError> {
        let _ = cycles;
        Err(DeviceError::Launch("no slowdown can be planted on this device".into()))
    }
}
