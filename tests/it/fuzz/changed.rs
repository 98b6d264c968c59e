//! The kernels of the program, small, with some of their lines changed.

use crossover::device::emulator::Emulator;
use crossover::device::model::DeviceModel;
use crossover::device::{Device, Job};
use crossover::kernel::Registry;
use crossover::op::{DType, Problem, Tensor};
use rand::Rng;

use super::soup;

/// Jobs with their inputs, and where they run.
pub struct Kernels {
    device: Emulator,
    jobs: Vec<(Job, Vec<Tensor>)>,
}

impl Kernels {
    /// Those that the emulator takes; each warp of them may make so many steps.
    pub fn new(steps: u64) -> Kernels {
        let model = DeviceModel::named("h200").expect("a described device");
        let device = Emulator::new(model).with_step_limit(steps);
        let registry = Registry::embedded().expect("the embedded kernels");
        let jobs: Vec<(Job, Vec<Tensor>)> = registry
            .kernels()
            .iter()
            .filter(|k| k.unfit(device.facts()).is_none())
            .map(|kernel| {
                let (op, phase) = (kernel.manifest.op, kernel.phase());
                let problem = Problem::plain(op, phase, DType::Bf16, (64, 64), 70);
                let tile = kernel.default_tile(&problem).expect("a default tile");
                let inputs = problem.inputs(&Default::default(), 1);
                (kernel.job(&problem, &tile).expect("a job"), inputs)
            })
            .collect();
        assert!(jobs.len() >= 4, "{} kernels", jobs.len());
        Kernels { device, jobs }
    }

    /// Changes kernel `i`, counted around, in one to three places, and gives it to `run`.
    pub fn change(&self, i: usize, rng: &mut impl Rng, run: impl FnOnce(&str, &dyn Fn())) {
        let (job, inputs) = &self.jobs[i % self.jobs.len()];
        let mut job = job.clone();
        let changes = rng.random_range(1..4);
        for _ in 0..changes {
            job.ptx.text = soup::change(&job.ptx.text, rng);
        }
        run(&job.ptx.text, &|| {
            if let Ok(mut loaded) = self.device.load(&job, inputs) {
                let _ = loaded.run();
            }
        });
    }
}
