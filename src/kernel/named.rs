//! Names of kernels without a target, such as `attention/prefill`: which kernel they stand for.

use std::cmp::Reverse;
use std::fmt;

use super::{Kernel, KernelError, Registry};
use crate::device::Facts;
use crate::op::{Op, PhaseName, Problem};

/// What a name stands for: the kernel of that name or, as `attention/prefill`, the best of an
/// operator's phase, which device and problem decide.
#[derive(Debug, Clone)]
pub enum Named<'r> {
    Kernel(&'r Kernel),
    Best { registry: &'r Registry, op: Op, phase: PhaseName },
}

impl<'r> Named<'r> {
    pub fn op(&self) -> Op {
        match self {
            Named::Kernel(kernel) => kernel.manifest.op,
            Named::Best { op, .. } => *op,
        }
    }

    /// The phase that is meant if a problem does not say another.
    pub fn phase(&self) -> PhaseName {
        match self {
            Named::Kernel(kernel) => kernel.phase(),
            Named::Best { phase, .. } => *phase,
        }
    }

    /// The phases that a file of tensors may be of, the likeliest first.
    pub fn phases(&self) -> &[PhaseName] {
        match self {
            Named::Kernel(kernel) => &kernel.manifest.phases,
            Named::Best { phase: PhaseName::Prefill, .. } => &[PhaseName::Prefill],
            Named::Best { phase: PhaseName::Decode, .. } => &[PhaseName::Decode, PhaseName::Verify],
            Named::Best { phase: PhaseName::Verify, .. } => &[PhaseName::Verify, PhaseName::Decode],
        }
    }

    /// The problem of settings as at a prompt: what they leave open is as the kernel of that name has
    /// it ([`Kernel::problem`]).
    ///
    /// # Errors
    /// As of [`Problem::parse`].
    pub fn problem(&self, settings: &str) -> Result<Problem, String> {
        match self {
            Named::Kernel(kernel) => kernel.problem(settings),
            Named::Best { op, phase, .. } => Problem::parse(*op, *phase, settings),
        }
    }

    /// The kernel that was named, even if it cannot do the problem; else [`Registry::best`].
    ///
    /// # Errors
    /// As of [`Registry::best`].
    pub fn pick(&self, facts: &Facts, problem: &Problem) -> Result<&'r Kernel, KernelError> {
        match self {
            Named::Kernel(kernel) => Ok(kernel),
            Named::Best { registry, op, .. } => registry.best(*op, problem.phase(), facts, problem),
        }
    }
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Named::Kernel(kernel) => f.write_str(&kernel.name),
            Named::Best { op, phase, .. } => write!(f, "{op}/{phase}"),
        }
    }
}

impl Registry {
    /// The kernel of exactly that name, or what a name without target stands for.
    ///
    /// # Errors
    /// The name is neither; the message names the kernels that there are.
    pub fn named(&self, name: &str) -> Result<Named<'_>, KernelError> {
        for kernel in self.kernels() {
            let phases = kernel.manifest.phases.iter().zip(kernel.without_target());
            if let Some((phase, _)) = phases.into_iter().find(|(_, called)| called == name) {
                return Ok(Named::Best { registry: self, op: kernel.manifest.op, phase: *phase });
            }
        }
        self.get(name).map(Named::Kernel)
    }

    /// The kernel for the highest architecture among those of an operator's phase that the device
    /// can run and that can do the problem; the first by name where several are for one
    /// architecture.
    ///
    /// # Errors
    /// There is none; the message says why each was refused.
    pub fn best(
        &self,
        op: Op,
        phase: PhaseName,
        facts: &Facts,
        problem: &Problem,
    ) -> Result<&Kernel, KernelError> {
        let mut refused = Vec::new();
        let mut admitted = Vec::new();
        for kernel in self.of(op, phase) {
            match kernel.unfit(facts).or_else(|| kernel.supports(problem).err().map(|e| e.0)) {
                Some(why) => refused.push(format!("\n  {why}")),
                None => admitted.push(kernel),
            }
        }
        // The first of equals, which `max_by_key` does not give.
        let best = admitted.into_iter().min_by_key(|k| Reverse(k.architecture()));
        best.ok_or_else(|| {
            let known = if refused.is_empty() { "\n  there is none at all" } else { "" };
            KernelError(format!(
                "no kernel of {op}/{phase} does {problem} on {}:{known}{}",
                facts.id,
                refused.concat()
            ))
        })
    }
}
