//! Kernels by GPU time: criterion measures with the device's event clock, cold L2.
//!
//! `cargo bench --bench gpu`; without a CUDA device it says so and measures nothing.

use std::cell::RefCell;

use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput};
use crossover::device::open::open;
use crossover::device::{Clock, Regime};
use crossover::kernel::Registry;
use crossover::op::{Family, Op, PhaseName, Problem, Role};

/// Nanoseconds on the GPU's clock, handed over by `iter_custom`.
struct GpuTime;

struct Nanoseconds;

impl ValueFormatter for Nanoseconds {
    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (factor, unit) = if typical < 1e3 {
            (1.0, "ns")
        } else if typical < 1e6 {
            (1e-3, "us")
        } else {
            (1e-6, "ms")
        };
        values.iter_mut().for_each(|v| *v *= factor);
        unit
    }

    fn scale_throughputs(
        &self,
        _typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        // Elements are FLOPs here: FLOPs a nanosecond are GFLOP/s.
        let n = match throughput {
            Throughput::Elements(n) | Throughput::Bytes(n) => *n as f64,
            _ => 1.0,
        };
        values.iter_mut().for_each(|v| *v = n / *v * 1e-3);
        "TFLOP/s"
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}

impl Measurement for GpuTime {
    type Intermediate = ();
    type Value = f64;

    fn start(&self) {}
    fn end(&self, (): ()) -> f64 {
        // Reached only by iter(), which these benchmarks do not use.
        f64::NAN
    }
    fn add(&self, a: &f64, b: &f64) -> f64 {
        a + b
    }
    fn zero(&self) -> f64 {
        0.0
    }
    fn to_f64(&self, value: &f64) -> f64 {
        *value
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        &Nanoseconds
    }
}

/// What every operator and phase is measured at: a large prefill, and steps of as many sequences as a
/// server has.
fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    for op in Op::all() {
        for phase in op.phases() {
            let sizes = match phase.name {
                PhaseName::Prefill => "B=2,T=8192",
                PhaseName::Decode | PhaseName::Verify => "B=16,context=8192",
            };
            let mut settings = sizes.to_string();
            for v in op.variables() {
                settings += &match v.role {
                    Role::Heads => format!(",{}=32", v.name),
                    Role::Shared { .. } => format!(",{}=8", v.name),
                    _ => String::new(),
                };
            }
            let problem = Problem::parse(op, phase.name, &settings).expect("a problem");
            // Whatever a row sees: all of it, and the past alone.
            let flag = op.variable("causal").filter(|_| phase.name == PhaseName::Prefill);
            all.extend(flag.map(|v| problem.with(v.name, true)));
            all.push(problem);
        }
    }
    all
}

fn main() {
    let device = match open("cuda:0") {
        Ok(device) => device,
        Err(e) => return println!("nothing measured: {e}"),
    };
    let facts = device.facts();
    let registry = Registry::embedded().expect("the embedded kernels");
    let mut criterion =
        Criterion::default().with_measurement(GpuTime).sample_size(20).configure_from_args();
    for problem in problems() {
        let inputs = problem.inputs(&Family::default(), 1);
        for kernel in registry.kernels().iter().filter(|k| k.unfit(facts).is_none()) {
            if kernel.supports(&problem).is_err() {
                continue;
            }
            let tile = kernel.default_tile(&problem).expect("a default tile");
            let job = kernel
                .job_on(&problem, &tile, facts.multiprocessors)
                .expect("a job of a supported problem");
            let loaded = RefCell::new(device.load(&job, &inputs).expect("a job that loads"));
            loaded.borrow_mut().run().expect("a kernel that runs");
            let mut group = criterion.benchmark_group(kernel.name.as_str());
            group.throughput(Throughput::Elements(problem.flops() as u64));
            group.bench_function(problem.to_string(), |b| {
                b.iter_custom(|n| {
                    let mut loaded = loaded.borrow_mut();
                    let Clock::Measured(sampler) = loaded.clock(1) else {
                        unreachable!("a GPU measures")
                    };
                    (0..n).map(|_| sampler.sample(Regime::Cold).expect("a sample").ns).sum()
                })
            });
        }
    }
    criterion.final_summary();
}
