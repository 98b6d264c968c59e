//! Which kernel runs a problem on a device, where nobody named one by its target.

use std::cmp::Reverse;
use std::fmt;

use super::{Kernel, KernelError, Registry};
use crate::device::Facts;
use crate::op::{Op, Phase, Problem};

/// What a name stands for: the kernel of that name or, as `attention/prefill`, the best of an
/// operator's phase, which device and problem decide.
#[derive(Debug, Clone)]
pub enum Named<'r> {
    Kernel(&'r Kernel),
    Best { registry: &'r Registry, op: Op, phase: Phase },
}

impl<'r> Named<'r> {
    pub fn op(&self) -> Op {
        match self {
            Named::Kernel(kernel) => kernel.manifest.op,
            Named::Best { op, .. } => *op,
        }
    }

    /// The kernel, whatever it can do if it was named; see [`Registry::best`] for the other case.
    ///
    /// # Errors
    /// As of [`Registry::best`].
    pub fn pick(&self, facts: &Facts, problem: &Problem) -> Result<&'r Kernel, KernelError> {
        match self {
            Named::Kernel(kernel) => Ok(kernel),
            Named::Best { registry, op, phase } => registry.best(*op, *phase, facts, problem),
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
    /// The kernel of exactly that name or, by a name without target, the best of those it leaves.
    ///
    /// # Errors
    /// A name that is neither, with those that there are.
    pub fn named(&self, name: &str) -> Result<Named<'_>, KernelError> {
        let same = |k: &&Kernel| k.without_target() == name;
        match self.kernels().iter().find(same).map(|k| &k.manifest) {
            Some(m) => Ok(Named::Best { registry: self, op: m.op, phase: m.phase }),
            None => self.get(name).map(Named::Kernel),
        }
    }

    /// Of the kernels of an operator's phase that the device can run and that can do the problem,
    /// the one for the highest architecture; of several for one, the first by name.
    ///
    /// # Errors
    /// There is none: why each was refused.
    pub fn best(
        &self,
        op: Op,
        phase: Phase,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::model::DeviceModel;
    use crate::op::DType;
    use crate::op::attention::Shape;
    use crate::verify::suite;

    fn facts(compute_capability: (u32, u32)) -> Facts {
        let model = DeviceModel::named("h200").expect("a described device");
        Facts { compute_capability, ..model.facts() }
    }

    fn attention(dtype: DType, change: impl FnOnce(&mut Shape)) -> Problem {
        let Problem::Attention(mut s) = suite::plain(Op::Attention, dtype, (64, 64), 70) else {
            unreachable!("attention")
        };
        change(&mut s);
        Problem::Attention(s)
    }

    fn best(facts: &Facts, problem: &Problem) -> Result<String, String> {
        let registry = Registry::embedded().expect("the embedded kernels");
        let best = registry.best(problem.op(), Phase::Prefill, facts, problem);
        best.map(|k| k.name.clone()).map_err(|e| e.0)
    }

    #[test]
    fn the_highest_architecture_that_device_and_problem_admit() {
        let plain = attention(DType::Bf16, |_| {});
        assert_eq!(best(&facts((9, 0)), &plain).unwrap(), "attention/prefill.sm90a");
        // sm_90a is for 9.0 alone.
        for other in [(8, 0), (8, 9), (10, 0)] {
            assert_eq!(best(&facts(other), &plain).unwrap(), "attention/prefill.sm80");
        }
        // Only the older one has tf32.
        let tf32 = attention(DType::Tf32, |_| {});
        assert_eq!(best(&facts((9, 0)), &tf32).unwrap(), "attention/prefill.sm80");
        let extras: [fn(&mut Shape); 4] = [
            |s| (s.causal, s.extras.window) = (true, Some(20)),
            |s| s.extras.softcap = Some(20.0),
            |s| s.pack(vec![[5, 5], [30, 40]]),
            |s| (s.d, s.extras.dv) = (192, Some(128)),
        ];
        for extra in extras {
            let problem = attention(DType::Bf16, extra);
            assert_eq!(best(&facts((9, 0)), &problem).unwrap(), "attention/prefill.sm90a");
            let why = best(&facts((8, 0)), &problem).unwrap_err();
            assert!(why.contains("attention/prefill.sm90a needs sm_90a"), "{why}");
            assert_eq!(why.lines().count(), 3, "{why}");
            assert!(why.lines().any(|l| l.contains("attention/prefill.sm80")), "{why}");
        }
        let why = best(&facts((7, 5)), &plain).unwrap_err();
        assert!(why.contains("sm80 needs sm_80") && why.contains("sm90a needs sm_90a"), "{why}");
    }

    #[test]
    fn names_with_and_without_target() {
        let registry = Registry::embedded().unwrap();
        let (of, problem) = (facts((8, 0)), attention(DType::Bf16, |_| {}));
        for (name, picked) in [
            ("attention/prefill", "attention/prefill.sm80"),
            // What is named is taken: who uses it says why it cannot be.
            ("attention/prefill.sm90a", "attention/prefill.sm90a"),
        ] {
            let named = registry.named(name).unwrap();
            assert_eq!((named.to_string().as_str(), named.op()), (name, Op::Attention));
            assert_eq!(named.pick(&of, &problem).unwrap().name, picked);
        }
        for name in ["attention", "attention/decode", "attention/prefill.", "prefill", ""] {
            let why = registry.named(name).unwrap_err().0;
            assert!(why.contains("unknown kernel") && why.contains("without its target"), "{why}");
        }
        let all: Vec<_> = registry.matching("attention/prefill").unwrap();
        assert_eq!(all.len(), 2, "every target");
    }
}
