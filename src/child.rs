//! A process of its own that is asked and answers in lines of JSON.

use std::io::{self, BufRead, BufReader, Write};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long one may take to end once its input has.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long one that was killed may stay: a driver that hangs holds on to its processes.
const BURIAL: Duration = Duration::from_secs(10);

/// A process that is asked and answers.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    /// Closed when the process is to end.
    to: Option<ChildStdin>,
    from: mpsc::Receiver<io::Result<String>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// Its output has ended, and most likely so has the process.
    #[error("it ended before it answered")]
    Ended,
    #[error("it did not answer within {:.0} s", .0.as_secs_f64())]
    Silent(Duration),
    #[error("it answered what means nothing here ({0})")]
    Nonsense(serde_json::Error),
    #[error("{0}")]
    Broken(#[from] io::Error),
}

impl Child {
    /// Starts the command with pipes for what goes in and comes out. What it says on stderr goes where
    /// this program's own does.
    ///
    /// # Errors
    /// The command cannot be started; the error names it.
    pub fn start(mut command: Command) -> io::Result<Child> {
        let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process =
            spawned.map_err(|e| io::Error::new(e.kind(), format!("{command:?}: {e}")))?;
        let (to, output) = (process.stdin.take(), process.stdout.take().expect("a piped output"));
        let (send, from) = mpsc::channel();
        // Reads cannot be given a time; receiving can.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                let broken = line.is_err();
                if send.send(line).is_err() || broken {
                    return;
                }
            }
        });
        Ok(Child { process, to, from })
    }

    /// Sends one line.
    ///
    /// # Errors
    /// Its input is closed, as when it has ended.
    pub fn ask(&mut self, question: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        let to = self.to.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        to.write_all(&line)?;
        to.flush()
    }

    /// Its next line, waited for at most so long.
    ///
    /// # Errors
    /// It ends, is silent, or writes another thing than was expected.
    pub fn answer<T: DeserializeOwned>(&mut self, within: Duration) -> Result<T, NoAnswer> {
        let line = self.from.recv_timeout(within).map_err(|e| match e {
            RecvTimeoutError::Timeout => NoAnswer::Silent(within),
            RecvTimeoutError::Disconnected => NoAnswer::Ended,
        })??;
        serde_json::from_str(&line).map_err(NoAnswer::Nonsense)
    }

    /// Ends it, at once, and says how it ended: `exit status: 7`, `signal: 9 (SIGKILL)`.
    pub fn kill(&mut self) -> String {
        self.to = None;
        // One that is about to end by itself tells more.
        if !self.ends_within(Duration::from_millis(500)) {
            let _ = self.process.kill();
            self.ends_within(BURIAL);
        }
        match self.process.try_wait() {
            Ok(Some(status)) => status.to_string(),
            Ok(None) => "it does not go away".into(),
            Err(e) => e.to_string(),
        }
    }

    fn ends_within(&mut self, time: Duration) -> bool {
        const STEP: Duration = Duration::from_millis(20);
        for _ in 0..time.as_millis() / STEP.as_millis() {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(STEP);
        }
        false
    }
}

impl Drop for Child {
    /// One that hangs in the driver does not hear that its input has ended.
    fn drop(&mut self) {
        self.to = None;
        if !self.ends_within(FAREWELL) {
            let _ = self.process.kill();
            self.ends_within(BURIAL);
        }
    }
}

/// The lines of this process's input, for one that serves: whoever asks is gone once they end, and so
/// is this process then, whatever it is at.
pub fn lines() -> impl Iterator<Item = io::Result<String>> {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            let _ = send.send(line);
        }
        std::process::exit(0);
    });
    receive.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Child {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Child::start(command).expect("a shell")
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn it_is_asked_and_answers() {
        let mut child = shell("read x; echo \"[$x, 2]\"");
        child.ask(&1).expect("asked");
        assert_eq!(child.answer::<[u32; 2]>(SOON).expect("an answer"), [1, 2]);
        assert!(matches!(child.answer::<u32>(SOON), Err(NoAnswer::Ended)));
        assert_eq!(child.kill(), "exit status: 0");
    }

    #[test]
    fn silence_nonsense_and_ends_are_told_apart() {
        let mut child = shell("echo hello; sleep 100");
        assert!(matches!(child.answer::<u32>(SOON), Err(NoAnswer::Nonsense(_))));
        let soon = Duration::from_millis(30);
        assert!(matches!(child.answer::<u32>(soon), Err(NoAnswer::Silent(_))));
        assert!(child.kill().contains("signal: 9"), "killed");
        let mut child = shell("exit 7");
        assert!(matches!(child.answer::<u32>(SOON), Err(NoAnswer::Ended)));
        assert_eq!(child.kill(), "exit status: 7");
        let e = Child::start(Command::new("/no/such/program")).expect_err("nothing to start");
        assert!(e.to_string().contains("/no/such/program"), "{e}");
    }
}
