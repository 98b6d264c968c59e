//! What a case runs: the job, and the hashes that name it.

use sha2::{Digest, Sha256};

use crate::device::{Facts, Job};
use crate::kernel::{Kernel, KernelError};
use crate::op::Problem;
use crate::sweep::Case;

/// What is executed for a case on a device.
pub struct Executed {
    /// The work does not depend on the data: on the emulator one head (with its group) stands for
    /// all, and its counts are multiplied by `times`.
    pub problem: Problem,
    pub times: u64,
    pub job: Job,
}

impl Executed {
    /// What `kernel` makes of the case.
    ///
    /// # Errors
    /// As of [`Kernel::job_on`].
    pub fn new(kernel: &Kernel, case: &Case, facts: &Facts) -> Result<Executed, KernelError> {
        let (problem, times) = match facts.emulated {
            true => case.problem.one_head_group(),
            false => (case.problem.clone(), 1),
        };
        let job = kernel.job_on(&problem, &case.tile, facts.multiprocessors)?;
        Ok(Executed { problem, times: times as u64, job })
    }
}

/// SHA-256 of what a manifest makes beside the PTX: buffers, grids, arguments.
pub fn launch_sha256(job: &Job) -> String {
    let buffers: Vec<_> = job
        .buffers
        .iter()
        .map(|b| (&b.name, format!("{:?}", b.role), b.dtype.name(), &b.shape))
        .collect();
    let text = serde_json::to_string(&(buffers, &job.launches)).expect("launches are plain data");
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
