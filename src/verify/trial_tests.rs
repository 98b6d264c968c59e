use std::cell::Cell;

use super::*;
use crate::device::{Build, Clock, Facts, Health, Loaded, Outcome, Peak, Ptx, Regime};
use crate::op::{DType, Family, examples};

/// A device whose kernels are perfect but for one thing.
struct Fake {
    facts: Facts,
    problem: Problem,
    flaw: Flaw,
}

#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    None,
    /// The second run differs in one bit.
    Random,
    /// Output 0 depends on the last token.
    Leaks,
    /// Damages a canary.
    Writes,
    /// Leaves poison.
    Poison,
    /// Faults.
    Faults,
    /// Half a percent off: wrong, and unlike other devices.
    Off,
}

struct FakeLoaded<'d> {
    device: &'d Fake,
    inputs: Vec<Tensor>,
    runs: Cell<u32>,
}

impl Fake {
    fn new(problem: &Problem, flaw: Flaw, emulated: bool) -> Fake {
        let facts = Facts {
            id: "fake".into(),
            name: "fake".into(),
            emulated,
            compute_capability: (8, 0),
            multiprocessors: 1,
            l2_bytes: 0,
            memory_bytes: 0,
            shared_bytes_per_cta: 1 << 16,
            peak: Peak::default(),
            driver: String::new(),
            more: Default::default(),
        };
        Fake { facts, problem: problem.clone(), flaw }
    }
}

impl Device for Fake {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn health(&self) -> Option<Health> {
        None
    }

    fn load<'d>(&'d self, _: &Job, inputs: &[Tensor]) -> Result<Box<dyn Loaded + 'd>, DeviceError> {
        Ok(Box::new(FakeLoaded { device: self, inputs: inputs.to_vec(), runs: Cell::new(0) }))
    }
}

impl Loaded for FakeLoaded<'_> {
    fn build(&self) -> &Build {
        unreachable!("not asked for")
    }

    fn run(&mut self) -> Result<Outcome, DeviceError> {
        let Fake { problem, flaw, .. } = self.device;
        self.runs.set(self.runs.get() + 1);
        if *flaw == Flaw::Faults {
            return Err(DeviceError::Launch("illegal address".into()));
        }
        let specs = problem.tensors_of(Flow::Output).into_iter();
        let factor = if *flaw == Flaw::Off { 1.01 } else { 1.0 };
        let mut outputs: Vec<Tensor> = specs
            .zip(problem.reference(&self.inputs))
            .map(|(s, x)| Tensor::from_f64(s.dtype, &s.shape, x.iter().map(|x| x * factor)))
            .collect();
        match flaw {
            Flaw::Random if self.runs.get() == 2 => outputs[0].bytes[6] ^= 1,
            Flaw::Leaks => {
                let v = &self.inputs[2].bytes;
                outputs[0].bytes[0] = v[v.len() - 2];
            }
            Flaw::Poison => {
                let end = outputs[0].bytes.len();
                DType::Bf16.push(f64::NAN, &mut outputs[0].bytes);
                let nan = outputs[0].bytes.split_off(end);
                outputs[0].bytes[end - 2..].copy_from_slice(&nan);
            }
            _ => {}
        }
        let damage = if *flaw == Flaw::Writes { vec!["canary after o".into()] } else { vec![] };
        Ok(Outcome { outputs, damage, counts: None, share: None, computed: None })
    }

    fn clock(&mut self, _: u64) -> Clock<'_> {
        Clock::Modelled(None)
    }
}

fn subject() -> Subject {
    let problem = examples::problem(examples::linear(), "T=20,H=1,HV=2,K=64,V=64");
    let case = Case {
        kernel: format!("{}/prefill.fake", problem.op()),
        tile: "BV=32".parse().unwrap(),
        problem,
        family: Family::default(),
        seed: 3,
        regime: Regime::default(),
    };
    Subject { case, prefix: true, multiprocessors: None, most_steps: None }
}

fn job() -> Job {
    let ptx = Ptx {
        kernel: "fake".into(),
        text: String::new(),
        origin: Vec::new(),
        sha256: String::new(),
        macros: Default::default(),
    };
    Job { ptx, buffers: Vec::new(), launches: Vec::new() }
}

fn trial(flaw: Flaw) -> Trial {
    let subject = subject();
    run_job(&job(), &subject, &Fake::new(&subject.case.problem, flaw, true), None)
}

#[test]
fn each_flaw_is_caught_by_its_check() {
    let clean = trial(Flaw::None);
    assert!(clean.ending == Ending::Passed && clean.faults.is_empty() && clean.maps.is_empty());
    for (flaw, check, words) in [
        (Flaw::Random, Check::Determinism, "o[B=0 T=0 HV=0 V=3]"),
        (Flaw::Leaks, Check::Prefix, "token 13 on change an earlier output: o[B=0 T=0 HV=0 V=0]"),
        (Flaw::Writes, Check::Damage, "canary after o"),
        (Flaw::Poison, Check::Nonfinite, "1 non-finite elements, first bad o[B=0 T=19 HV=1 V=63]"),
        (Flaw::Faults, Check::Trap, "illegal address"),
        (Flaw::Off, Check::Accuracy, "o: E/F"),
    ] {
        let trial = trial(flaw);
        assert_eq!(trial.ending, Ending::Failed);
        let fault = &trial.faults.iter().find(|f| f.check == check);
        let message = &fault.unwrap_or_else(|| panic!("{check:?}: {:?}", trial.faults)).message;
        assert!(message.contains(words), "{message}");
    }
}

/// An inexact kernel that is known to be fails as known: up to what its manifest says, and by
/// nothing else.
#[test]
fn only_what_the_manifest_says_is_known() {
    let subject = subject();
    let of = |flaw: Flaw, most: f64| {
        let loss = Loss { family: "keys=identical".into(), most, why: "it rounds twice".into() };
        let fake = Fake::new(&subject.case.problem, flaw, true);
        run_known(&job(), &subject, &fake, None, Some(&loss))
    };
    let ratio = |t: &Trial| {
        t.verification.as_ref().unwrap().outputs.iter().map(|o| o.ratio()).fold(0.0, f64::max)
    };
    let off = ratio(&of(Flaw::Off, 1e9));
    let known = of(Flaw::Off, 1.5 * off);
    assert_eq!((known.ending, known.known.as_deref()), (Ending::Failed, Some("it rounds twice")));
    assert_eq!(of(Flaw::Off, off / 100.0).known, None);
    assert_eq!(trial(Flaw::Off).known, None);
    for flaw in [Flaw::Random, Flaw::Leaks, Flaw::Writes, Flaw::Poison, Flaw::Faults] {
        let trial = of(flaw, 1e9);
        assert_eq!((trial.ending, trial.known), (Ending::Failed, None));
    }
    assert_eq!(of(Flaw::None, 1e9).known, None);
}

#[test]
fn disagreement_is_reported() {
    let subject = subject();
    let (a, b) = (
        Fake::new(&subject.case.problem, Flaw::None, true),
        Fake::new(&subject.case.problem, Flaw::Off, true),
    );
    let trial = run_job(&job(), &subject, &a, Some(&b));
    assert_eq!(trial.faults.len(), 2, "{:?}", trial.faults);
    assert!(trial.faults.iter().all(|f| f.check == Check::Agreement));
    assert!(trial.agreement[0].worst_ulp >= 1.0);
    let same =
        run_job(&job(), &subject, &a, Some(&Fake::new(&subject.case.problem, Flaw::None, true)));
    assert!(same.ending == Ending::Passed && same.agreement[0].within_one_ulp == 1.0);
}

#[test]
fn what_the_device_lacks_is_skipped_and_not_passed() {
    let subject = subject();
    let mut job = job();
    job.launches.push(crate::device::Launch {
        entry: "big".into(),
        grid: [1; 3],
        block: [32, 1, 1],
        cluster: [1; 3],
        shared_bytes: 1 << 17,
        args: Vec::new(),
    });
    let trial = run_job(&job, &subject, &Fake::new(&subject.case.problem, Flaw::None, true), None);
    assert_eq!(trial.ending, Ending::Skipped);
    assert!(trial.skipped.unwrap().contains("big takes 131072 bytes"));
}

#[test]
fn labels_and_commands_name_the_case() {
    let subject = subject();
    let name = &subject.case.kernel;
    assert_eq!(
        subject.label(),
        format!(
            "{name} BV=32 dtype=bf16 B=1 T=20 H=1 HV=2 K=64 V=64 initial_state=false \
             final_state=true random"
        )
    );
    assert_eq!(
        subject.command("emulator:h200", Some(Path::new("mine"))),
        format!(
            "crossover --kernels mine check {name} --device emulator:h200 --seed 3 --tile BV=32 \
             --problem dtype=bf16,B=1,T=20,H=1,HV=2,K=64,V=64,initial_state=false,final_state=true \
             --family 'random'"
        )
    );
}
