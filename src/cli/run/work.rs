//! The cases of a run and who measures them: on the emulator threads, a few at a time; on GPUs a process
//! for each, which is replaced when a case has cost it its device.

use std::collections::VecDeque;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use crossbeam_channel::{Sender, bounded};

use super::super::{Failure, Result};
use crate::device::Device;
use crate::device::open::open;
use crate::kernel::Registry;
use crate::measure::Bench;
use crate::measure::worker::{Came, Site, Worker};
use crate::op::Problem;
use crate::record::{Record, Status};
use crate::sweep::Case;

/// A case to be measured.
#[derive(Debug, Clone, Copy)]
pub struct Todo<'a> {
    pub case: &'a Case,
    /// Which process measures it, where several measure each case.
    pub process: Option<u32>,
    /// Attempts that had no final status.
    pub attempts: u32,
}

/// Who measures.
pub struct Hands<'a> {
    pub registry: &'a Registry,
    pub site: &'a Site,
    /// What the devices are opened as. All are of one kind.
    pub devices: &'a [String],
    pub emulated: bool,
    /// The command of a process that serves.
    pub start: &'a (dyn Fn() -> Command + Sync),
    /// Whether processes measure on the emulator too.
    pub processes: bool,
}

/// Emulated cases at a time: a short sequence has too few CTAs for all cores. Memory bounds it.
const MOST_AT_A_TIME: usize = 4;
/// What emulated cases may take together.
const MEMORY_BYTES: f64 = 1.5e9;
/// Host memory that an emulated case takes, over the size of its tensors: device and shadow
/// memory, fp64 references, two outcomes.
const FOOTPRINT: f64 = 12.0;

/// A case's record, or why no more can be measured.
type Sent = std::result::Result<Record, String>;

impl Hands<'_> {
    /// How many of `todo` are emulated at a time.
    fn width(&self, todo: &[Todo]) -> usize {
        let bytes = |p: &Problem| FOOTPRINT * p.one_head_group().0.min_bytes();
        let largest = todo.iter().map(|t| bytes(&t.case.problem)).fold(1.0, f64::max);
        let fitting = (MEMORY_BYTES / largest) as usize;
        rayon::current_num_threads().min(MOST_AT_A_TIME).min(fitting).min(todo.len()).max(1)
    }

    /// One thing after the other that one hand takes as a whole.
    fn queue<'t>(&self, todo: &[Todo<'t>]) -> VecDeque<Vec<Todo<'t>>> {
        if self.devices.len() == 1 {
            return todo.iter().map(|t| vec![*t]).collect();
        }
        // What is compared is timed on one GPU.
        let mut groups = indexmap::IndexMap::<_, Vec<Todo>>::new();
        for t in todo {
            let p = &t.case.problem;
            let key = (p.phase(), p.dtype(), p.length(), p.sequences(), t.process, t.attempts > 0);
            groups.entry(key).or_default().push(*t);
        }
        groups.into_values().collect()
    }

    /// Measures what it takes from the queue on a device of this process.
    fn in_thread(&self, device: &dyn Device, queue: &Queue, send: &Sender<Sent>) {
        let mut bench = self.site.bench(self.registry, device);
        while let Some(group) = queue.take() {
            for todo in group {
                if queue.is_stopped() {
                    return;
                }
                let sent = bench.measure(todo.case).map(|r| todo.mark(r)).map_err(|lost| lost.0);
                // Nobody receives any more once a record could not be kept.
                if send.send(sent).is_err() {
                    return;
                }
            }
        }
    }

    /// Measures what it takes from the queue in processes, one after the other.
    fn in_processes(&self, spec: &str, queue: &Queue, send: &Sender<Sent>) {
        let site = Site { device: spec.to_string(), ..self.site.clone() };
        // Nothing is loaded on it here: it lends its facts to records that no process wrote.
        let device = match open(spec) {
            Ok(device) => device,
            Err(e) => return drop(send.send(Err(e.to_string()))),
        };
        let bench = site.bench(self.registry, device.as_ref());
        let mut hired = Hired { start: self.start, site: &site, worker: None };
        while let Some(group) = queue.take() {
            for todo in group {
                if queue.is_stopped() {
                    return;
                }
                let sent = hired.measure(&todo, &bench);
                let ends = sent.is_err();
                if send.send(sent).is_err() || ends {
                    return;
                }
            }
        }
    }
}

/// The process at work, if there is one, and what another is started with.
struct Hired<'a> {
    start: &'a (dyn Fn() -> Command + Sync),
    site: &'a Site,
    worker: Option<(Option<u32>, Worker)>,
}

impl Hired<'_> {
    /// Measures a case, and lets the process go if the case has cost it its device.
    fn measure(&mut self, todo: &Todo, bench: &Bench) -> Sent {
        loop {
            let (process, mut worker) = match self.worker.take() {
                Some(hired) if hired.0 == todo.process => hired,
                _ => (todo.process, Worker::start((self.start)(), self.site)?),
            };
            let fresh = worker.is_fresh();
            return match worker.measure(todo.case) {
                Came::Record(record) => {
                    // A context that has seen a fault, or a kernel that hangs, is not to be trusted.
                    if !matches!(record.status, Status::LaunchFailed | Status::Timeout) {
                        self.worker = Some((process, worker));
                    }
                    Ok(todo.mark(*record))
                }
                Came::Died(status, why) => Ok(todo.mark(bench.ended(todo.case, status, &why))),
                // A case before it may have cost the process its device.
                Came::Lost(_) if !fresh => continue,
                Came::Lost(lost) => Err(lost.0),
            };
        }
    }
}

impl Todo<'_> {
    fn mark(&self, record: Record) -> Record {
        let attempt = (self.attempts > 0).then_some(self.attempts + 1);
        Record { attempt, process: self.process, ..record }
    }
}

/// What is left to be taken.
struct Queue<'a> {
    groups: Mutex<VecDeque<Vec<Todo<'a>>>>,
    stop: &'a AtomicUsize,
}

impl<'a> Queue<'a> {
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst) > 0
    }

    fn take(&self) -> Option<Vec<Todo<'a>>> {
        let taken = self.groups.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        taken.filter(|_| !self.is_stopped())
    }
}

/// Hands the records of all cases to `keep`, each as it finishes, until `stop` is counted up.
///
/// # Errors
/// The devices are lost, or a record could not be kept.
pub fn all(
    hands: &Hands,
    todo: &[Todo],
    stop: &AtomicUsize,
    mut keep: impl FnMut(Record) -> Result,
) -> Result {
    let queue = Queue { groups: Mutex::new(hands.queue(todo)), stop };
    let in_threads = hands.emulated && !hands.processes;
    let width = if in_threads { hands.width(todo) } else { hands.devices.len() };
    // Devices are not shared between threads: each opens its own.
    let devices = match in_threads {
        true => (0..width)
            .map(|_| open(&hands.site.device).map_err(Failure::from))
            .collect::<Result<Vec<_>>>()?,
        false => Vec::new(),
    };
    let (send, receive) = bounded(width);
    let queue = &queue;
    std::thread::scope(|scope| {
        for device in devices {
            let send = send.clone();
            scope.spawn(move || hands.in_thread(device.as_ref(), queue, &send));
        }
        if !in_threads {
            for spec in hands.devices {
                let send = send.clone();
                scope.spawn(move || hands.in_processes(spec, queue, &send));
            }
        }
        drop(send);
        // One device that is lost leaves the rest of its work to the others, or to a resumed run.
        let mut lost = Vec::new();
        for sent in receive {
            match sent {
                Ok(record) => keep(record)?,
                Err(why) => lost.push(why),
            }
        }
        match lost.is_empty() {
            true => Ok(()),
            false => Err(Failure::Usage(lost.join("\n"))),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::ShareRule;
    use crate::measure::Limits;
    use crate::op::examples;
    use crate::sweep::{Source, Sweep};

    /// What a crossover compares is never split between two GPUs, nor a first attempt kept waiting by
    /// a second.
    #[test]
    fn several_devices_take_what_is_compared_as_a_whole() {
        let ops = [examples::full(), examples::linear(), examples::other()].map(|op| op.name());
        let text = format!(
            "
name = 'g'
question = 'Who takes what?'
[axes]
T = [64, 128]
B = [1, 2]
dtype = ['bf16', 'fp16']
heads = {{ Hq = 1, Hkv = 1, H = 1, HV = 1 }}
causal = true
[[group]]
op = {ops:?}
kernels = '*.sm80'
"
        );
        let registry = Registry::embedded().expect("the embedded kernels");
        let sweep = Sweep::parse(Source::new("g.toml", text)).expect("a sweep");
        let plan = sweep.plan(&registry, None, None).expect("a plan");
        let mut todo: Vec<Todo> =
            plan.runnable().map(|case| Todo { case, process: None, attempts: 0 }).collect();
        let count = todo.len();
        todo.push(Todo { attempts: 1, ..todo[0] });
        let site = Site {
            device: "cuda:0".into(),
            place: None,
            sweep: "g".into(),
            command: String::new(),
            limits: Limits::default(),
            energy: false,
            sample: ShareRule::default(),
        };
        let names = ["cuda:0".to_string(), "cuda:1".to_string()];
        let start = || Command::new("none");
        let hands = |devices| Hands {
            registry: &registry,
            site: &site,
            devices,
            emulated: false,
            start: &start,
            processes: false,
        };
        let alone = hands(&names[..1]).queue(&todo);
        assert!(alone.len() == count + 1 && alone.iter().all(|group| group.len() == 1));
        let shared = hands(&names).queue(&todo);
        assert_eq!(shared.iter().map(Vec::len).sum::<usize>(), count + 1);
        assert_eq!(shared.len(), 9);
        for group in shared.iter().take(8) {
            let ops: std::collections::HashSet<_> =
                group.iter().map(|t| t.case.problem.op().to_string()).collect();
            assert_eq!(ops.len(), 3, "all operators of one length");
        }
        assert_eq!(shared[8][0].attempts, 1);
    }
}
