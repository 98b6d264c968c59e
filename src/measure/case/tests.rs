//! A stand-in device that computes references, for what no real device does on purpose.

use std::time::Duration;

use super::*;
use crate::device::model::DeviceModel;
use crate::device::{
    Build, Counts, Facts, Health, Job, Modelled, Outcome, Regime, Sample, Sampler,
};
use crate::op::{Flow, PhaseName, examples};
use crate::sweep::{Source, Sweep};

/// What the stand-in does wrong.
#[derive(Clone, Copy)]
enum Fault {
    None,
    Load(fn(String) -> DeviceError),
    Run(fn(String) -> DeviceError),
    Value,
    Damage,
    Flicker,
    Sample,
}

struct StandIn {
    facts: Facts,
    fault: Fault,
    problem: Problem,
}

struct Job1<'d> {
    device: &'d StandIn,
    inputs: Vec<Tensor>,
    runs: u32,
    build: Build,
}

impl Device for StandIn {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn health(&self) -> Option<Health> {
        (!self.facts.emulated).then(|| Health { max_sm_mhz: Some(1980), ..Health::default() })
    }

    fn load<'d>(&'d self, _: &Job, inputs: &[Tensor]) -> Result<Box<dyn Loaded + 'd>, DeviceError> {
        if let Fault::Load(error) = self.fault {
            return Err(error("load".into()));
        }
        let build = Build::default();
        Ok(Box::new(Job1 { device: self, inputs: inputs.to_vec(), runs: 0, build }))
    }
}

impl Loaded for Job1<'_> {
    fn build(&self) -> &Build {
        &self.build
    }

    fn run(&mut self) -> Result<Outcome, DeviceError> {
        self.runs += 1;
        let device = self.device;
        if let Fault::Run(error) = device.fault {
            return Err(error("run".into()));
        }
        let problem = match device.facts.emulated {
            true => device.problem.one_head_group().0,
            false => device.problem.clone(),
        };
        let specs = problem.tensors_of(Flow::Output).into_iter();
        let mut outputs: Vec<Tensor> = problem
            .reference(&self.inputs)
            .into_iter()
            .zip(specs)
            .map(|(x, t)| Tensor::from_f64(t.dtype, &t.shape, x))
            .collect();
        if matches!(device.fault, Fault::Value) {
            outputs[0].bytes[..2].copy_from_slice(&[0, 0x47]);
        }
        if matches!(device.fault, Fault::Flicker) && self.runs == 2 {
            outputs[0].bytes[0] ^= 1;
        }
        let damage = match device.fault {
            Fault::Damage => vec!["o: the canary behind it is damaged".to_string()],
            _ => Vec::new(),
        };
        let counts = Counts { ctas: 3, ..Counts::default() };
        let counts = device.facts.emulated.then_some(counts);
        Ok(Outcome { outputs, damage, counts, share: None, computed: None })
    }

    fn clock(&mut self, times: u64) -> Clock<'_> {
        if !self.device.facts.emulated {
            return Clock::Measured(self);
        }
        let (limits, bound) = (Default::default(), "memory".into());
        let modelled =
            Modelled { model: "x".into(), ns: 1000.0 * times as f64, sm_mhz: None, limits, bound };
        Clock::Modelled((self.runs > 0).then_some(modelled))
    }
}

impl Sampler for Job1<'_> {
    fn sample(&mut self, _: Regime) -> Result<Sample, DeviceError> {
        match self.device.fault {
            Fault::Sample => Err(DeviceError::Timeout("sample".into())),
            _ => Ok(Sample { ns: 2e5, sm_mhz: Some(1900.0) }),
        }
    }
}

fn registry() -> Registry {
    let kernels = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernels");
    Registry::from_dir(std::path::Path::new(kernels)).unwrap()
}

fn case(registry: &Registry) -> Case {
    let text = format!(
        "name = 'x'\n[[group]]\nop = '{}'\nT = 70\nHV = 4\nH = 2\nK = 64\nV = 64",
        examples::linear()
    );
    let sweep = Sweep::parse(Source::new("x.toml", text)).unwrap();
    let plan = sweep.plan(registry, None, None).unwrap();
    plan.runnable().next().unwrap().clone()
}

fn measure(fault: Fault, emulated: bool) -> Result<Record, Lost> {
    let registry = registry();
    let case = case(&registry);
    let mut facts = DeviceModel::named("h200").unwrap().facts();
    facts.emulated = emulated;
    let device = StandIn { facts, fault, problem: case.problem.clone() };
    let mut bench = Bench::new(&registry, &device, "x", "crossover run x.toml", limits());
    let record = bench.measure(&case)?;
    // A record is itself after a trip through JSON.
    let text = serde_json::to_string(&record).unwrap();
    assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
    assert_eq!(record.id, case.id("x", &record.device.id));
    assert_eq!((record.phase, record.problem.op()), (PhaseName::Prefill, examples::linear()));
    assert_eq!(record.timing.is_some(), record.status == Status::Ok);
    assert_eq!(record.reason.is_some(), record.status != Status::Ok);
    Ok(record)
}

/// The stand-in samples in no time, so a span of it is endless.
fn limits() -> Limits {
    Limits { span: Duration::ZERO, ..Limits::default() }
}

#[test]
fn a_right_result_is_measured() {
    let record = measure(Fault::None, false).unwrap();
    assert_eq!(record.status, Status::Ok, "{:?}", record.reason);
    let v = record.verification.unwrap();
    assert!(v.passed && v.deterministic == Some(true) && v.outputs.len() == 2);
    let Some(Timing::Measured { samples, median_ns, .. }) = record.timing else { panic!() };
    assert_eq!((samples.len(), median_ns), (10, 2e5));
    assert_eq!(record.traffic.unwrap().sampled, None);
}

#[test]
fn one_head_stands_for_all_on_the_emulator() {
    let record = measure(Fault::None, true).unwrap();
    assert_eq!(record.status, Status::Ok, "{:?}", record.reason);
    let Some(Timing::Modelled(modelled)) = record.timing else { panic!() };
    // Two groups of two value heads.
    assert_eq!(modelled.ns, 2000.0);
    let traffic = record.traffic.unwrap();
    assert_eq!(traffic.counts.unwrap().ctas, 6);
    let sampled = traffic.sampled.unwrap();
    assert_eq!((sampled.times, sampled.executed.output_heads()), (2, (1, 2)));
    assert_eq!(record.flops, record.problem.flops());
}

#[test]
fn wrong_results_get_no_time() {
    for fault in [Fault::Value, Fault::Damage, Fault::Flicker] {
        let record = measure(fault, false).unwrap();
        assert_eq!(record.status, Status::Wrong);
        assert!(!record.verification.unwrap().passed);
    }
}

#[test]
fn every_failure_is_a_record() {
    let ends = [
        (Fault::Load(DeviceError::Build), Status::BuildFailed),
        (Fault::Load(DeviceError::Launch), Status::LaunchFailed),
        (Fault::Run(DeviceError::Launch), Status::LaunchFailed),
        (Fault::Run(DeviceError::Timeout), Status::Timeout),
        (Fault::Sample, Status::Timeout),
    ];
    for (fault, status) in ends {
        assert_eq!(measure(fault, false).unwrap().status, status);
    }
    let lost = measure(Fault::Load(DeviceError::Unavailable), false).unwrap_err();
    assert_eq!(lost.0, "load");
}

#[test]
fn skips_and_what_a_kernel_cannot_do() {
    let registry = registry();
    let mut case = case(&registry);
    let facts = DeviceModel::named("h200").unwrap().facts();
    let device = StandIn { facts, fault: Fault::None, problem: case.problem.clone() };
    let mut bench = Bench::new(&registry, &device, "x", "", limits());
    let record = bench.ended(&case, Status::Skipped, "too long");
    assert_eq!((record.status, record.reason.as_deref()), (Status::Skipped, Some("too long")));
    case.problem = case.problem.with("K", 96);
    let record = bench.measure(&case).unwrap();
    assert_eq!(record.status, Status::Invalid);
    assert!(record.reason.unwrap().contains("96"));
}
