//! Runs cases at a time: in threads, or in processes of their own.
//!
//! A GPU's cases go to processes. Most of their time is the driver's compiler, which then runs on all
//! cores and for the very code that a launch gets: what the driver's linker makes ahead in threads is
//! other code, in which setmaxnreg has no effect. And a fault costs the process that it happens in.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::trial::{self, Check, Subject, Trial};
use crate::child::{Child, NoAnswer};
use crate::device::{Device, DeviceError};
use crate::kernel::{Kernel, Registry};
use crate::sweep::Case;

/// Opens a device for one worker.
pub type Open<'a> = &'a (dyn Fn() -> Result<Box<dyn Device>, DeviceError> + Sync);

/// The command that starts a process which does [`serve`].
pub type Start<'a> = &'a (dyn Fn() -> Command + Sync);

/// Who runs cases, so many at a time.
#[derive(Clone, Copy)]
pub enum Crew<'a> {
    /// Threads, each with a device of its own and one to compare with if given.
    Threads {
        count: usize,
        device: Open<'a>,
        against: Option<Open<'a>>,
    },
    Processes {
        count: usize,
        start: Start<'a>,
    },
}

/// What comes of [`run`].
pub enum Event {
    /// The case of that index has ended.
    Ended(usize, Box<Trial>),
    /// A while has gone by.
    Tick,
}

/// The while of [`Event::Tick`].
const TICK: Duration = Duration::from_millis(100);

type Work<'w, 'k> = &'w [(&'k Kernel, Subject)];
type Send = mpsc::Sender<Result<(usize, Trial), DeviceError>>;

/// Runs cases and hands every trial over as it ends, until `each` breaks: then the cases that run are
/// waited for and no other is begun.
///
/// In threads, once a device that is not emulated faults, the driver's context may be lost: what is
/// left is skipped and says so. Processes are replaced then.
///
/// # Errors
/// No device can be opened. A process that cannot open it, beside others that can, is done without.
pub fn run(
    work: Work,
    crew: Crew,
    mut each: impl FnMut(Event) -> ControlFlow<()>,
) -> Result<(), DeviceError> {
    let next = AtomicUsize::new(0);
    let (lost, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let take = || {
        let taken = (!stop.load(Ordering::Relaxed)).then(|| next.fetch_add(1, Ordering::Relaxed));
        taken.filter(|i| *i < work.len())
    };
    let (send, receive) = mpsc::channel();
    std::thread::scope(|scope| {
        let count = match crew {
            Crew::Threads { count, .. } | Crew::Processes { count, .. } => count,
        };
        for _ in 0..count.clamp(1, work.len().max(1)) {
            let send = send.clone();
            let (lost, take) = (&lost, &take);
            scope.spawn(move || match crew {
                Crew::Threads { device, against, .. } => {
                    in_thread(work, (device, against), lost, take, &send);
                }
                Crew::Processes { start, .. } => in_process(work, start, take, &send),
            });
        }
        drop(send);
        let (mut ended, mut refused) = (0, None);
        loop {
            let event = match receive.recv_timeout(TICK) {
                Ok(Ok((i, trial))) => {
                    ended += 1;
                    Event::Ended(i, Box::new(trial))
                }
                Ok(Err(e)) => {
                    refused.get_or_insert(e);
                    continue;
                }
                Err(mpsc::RecvTimeoutError::Timeout) => Event::Tick,
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
            };
            if !stop.load(Ordering::Relaxed) && each(event).is_break() {
                stop.store(true, Ordering::Relaxed);
            }
        }
        match refused {
            Some(e) if ended < work.len() && !stop.load(Ordering::Relaxed) => Err(e),
            _ => Ok(()),
        }
    })
}

fn in_thread(
    work: Work,
    (device, against): (Open, Option<Open>),
    lost: &AtomicBool,
    take: &(dyn Fn() -> Option<usize> + Sync),
    send: &Send,
) {
    let opened = device().and_then(|d| Ok((d, against.map(|open| open()).transpose()?)));
    let (device, against) = match opened {
        Ok(devices) => devices,
        Err(e) => {
            let _ = send.send(Err(e));
            return;
        }
    };
    while let Some(i) = take() {
        let (kernel, subject) = &work[i];
        let trial = if lost.load(Ordering::Relaxed) {
            Trial::skip(format!("{} faulted in an earlier case", device.facts().id))
        } else {
            trial::run(kernel, subject, device.as_ref(), against.as_deref())
        };
        if trial.fatal && !device.facts().emulated {
            lost.store(true, Ordering::Relaxed);
        }
        if send.send(Ok((i, trial))).is_err() {
            return;
        }
    }
}

fn in_process(work: Work, start: Start, take: &(dyn Fn() -> Option<usize> + Sync), send: &Send) {
    let mut process = None;
    loop {
        let mut helper = match process.take().map_or_else(|| Helper::start(start), Ok) {
            Ok(helper) => helper,
            Err(why) => {
                let _ = send.send(Err(DeviceError::Unavailable(why)));
                return;
            }
        };
        let Some(i) = take() else { return };
        let trial = helper.run(&work[i].1).unwrap_or_else(|e| helper.died(&e));
        if !trial.fatal {
            process = Some(helper);
        }
        if send.send(Ok((i, trial))).is_err() {
            return;
        }
    }
}

/// What a process says: that it is ready, why it is not, or what came of a case.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ready,
    Refused(String),
    Trial(Box<Trial>),
}

/// A process that runs cases.
struct Helper(Child);

/// Longer than any case takes: the device has a watch of its own.
const LONGEST: Duration = Duration::from_secs(3600);

impl Helper {
    fn start(start: Start) -> Result<Helper, String> {
        let command = start();
        let named = format!("{command:?}");
        let mut child = Child::start(command).map_err(|e| e.to_string())?;
        match child.answer(LONGEST) {
            Ok(Answer::Ready) => Ok(Helper(child)),
            Ok(Answer::Refused(why)) => Err(why),
            Ok(Answer::Trial(_)) => Err(format!("{named} answers before it is asked")),
            Err(e) => Err(format!("{named}: {e} ({})", child.kill())),
        }
    }

    fn run(&mut self, subject: &Subject) -> Result<Trial, NoAnswer> {
        self.0.ask(&Message::of(subject))?;
        match self.0.answer(LONGEST)? {
            Answer::Trial(trial) => Ok(*trial),
            Answer::Ready => Err(io::Error::other("it does not say what came of the case").into()),
            Answer::Refused(why) => Err(io::Error::other(why).into()),
        }
    }

    /// What is said of a case whose process did not come back with an answer.
    fn died(&mut self, why: &NoAnswer) -> Trial {
        let status = self.0.kill();
        let why = format!("the process that ran it ended before the case did: {why} ({status})");
        Trial { fatal: true, ..Trial::failed(Check::Trap, why) }
    }
}

/// A subject on its way to a process.
#[derive(Serialize, Deserialize)]
struct Message {
    case: Case,
    prefix: bool,
    multiprocessors: Option<u32>,
    most_steps: Option<u64>,
}

impl Message {
    fn of(subject: &Subject) -> Message {
        let Subject { case, prefix, multiprocessors, most_steps } = subject.clone();
        Message { case, prefix, multiprocessors, most_steps }
    }

    fn subject(self) -> Subject {
        let Message { case, prefix, multiprocessors, most_steps } = self;
        Subject { case, prefix, multiprocessors, most_steps }
    }
}

/// What a process of [`Crew::Processes`] does: runs the cases of the lines that come in and writes
/// an answer to each.
///
/// # Errors
/// The input or the output breaks off, or the input is no case of the registry's kernels.
pub fn serve(
    registry: &Registry,
    device: Open,
    against: Option<Open>,
    from: impl Iterator<Item = io::Result<String>>,
    mut to: impl Write,
) -> io::Result<()> {
    let mut say = |answer: &Answer| {
        writeln!(to, "{}", serde_json::to_string(answer)?)?;
        to.flush()
    };
    let opened = device().and_then(|d| Ok((d, against.map(|open| open()).transpose()?)));
    let (device, against) = match opened {
        Ok(devices) => devices,
        Err(e) => return say(&Answer::Refused(e.to_string())),
    };
    say(&Answer::Ready)?;
    for line in from {
        let subject = serde_json::from_str::<Message>(&line?)?.subject();
        let kernel = registry.get(&subject.case.kernel).map_err(io::Error::other)?;
        let trial = trial::run(kernel, &subject, device.as_ref(), against.as_deref());
        say(&Answer::Trial(Box::new(trial)))?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "workers_tests.rs"]
mod tests;
