//! One run at a time in a folder, or several that are different shards of one sweep.
//!
//! Locks are advisory and the system's own, so that a killed run leaves none. They lie on files of
//! their own, which say who holds them and are gone after the run.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use same_file::Handle;

use super::super::{Failure, Result, console, shell};
use crate::sweep::Shard;

/// The lock of the whole folder: a run of all cases has it alone, shards share it.
const FOLDER: &str = ".crossover.lock";

/// Keeps other runs away until it is dropped.
#[derive(Debug)]
pub struct Lock {
    held: Vec<Held>,
}

#[derive(Debug)]
struct Held {
    file: File,
    path: PathBuf,
    shared: bool,
}

/// Locks the folder, which is made where missing, for a run of the shard.
///
/// Where the file system has no locks, a note says so and the run goes on.
///
/// # Errors
/// Another run is at the same cases; the message says which one, as far as it is known. Or the
/// folder or the lock's file cannot be made.
pub fn take(folder: &Path, shard: Shard) -> Result<Lock> {
    fs::create_dir_all(folder).map_err(|e| {
        Failure::Usage(format!("cannot create the folder {}: {e}", folder.display()))
    })?;
    let mut lock = Lock { held: Vec::new() };
    let mut wanted = vec![(folder.join(FOLDER), !shard.is_whole())];
    if !shard.is_whole() {
        wanted.push((folder.join(format!(".crossover-{}.lock", super::of(shard))), false));
    }
    for (path, shared) in wanted {
        match acquire(&path, shared) {
            Ok(held) => lock.held.push(held),
            Err(Refused::Held) => return Err(Failure::Usage(taken(folder, &path))),
            Err(Refused::NoLocks(e)) => {
                let _ = fs::remove_file(&path);
                console::note(&format!(
                    "note: {}: no locks here ({e}): nothing keeps another run out of the folder",
                    folder.display()
                ));
                break;
            }
            Err(Refused::Io(e)) => {
                return Err(Failure::Usage(format!("cannot write {}: {e}", path.display())));
            }
        }
    }
    Ok(lock)
}

#[derive(Debug)]
enum Refused {
    /// Somebody else has it.
    Held,
    NoLocks(io::Error),
    Io(io::Error),
}

fn acquire(path: &Path, shared: bool) -> Result<Held, Refused> {
    loop {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let file = options.open(path).map_err(Refused::Io)?;
        outcome(if shared { file.try_lock_shared() } else { file.try_lock() })?;
        let mut held = Held { file, path: path.to_path_buf(), shared };
        // A run that ended between opening and locking took the file away: that lock keeps nobody
        // out.
        if held.is_there() {
            held.sign().map_err(Refused::Io)?;
            return Ok(held);
        }
    }
}

/// What a try says.
fn outcome(tried: Result<(), TryLockError>) -> Result<(), Refused> {
    tried.map_err(|e| match e {
        TryLockError::WouldBlock => Refused::Held,
        TryLockError::Error(e) => Refused::NoLocks(e),
    })
}

impl Held {
    fn is_there(&self) -> bool {
        let own = self.file.try_clone().and_then(Handle::from_file);
        matches!((own, Handle::from_path(&self.path)), (Ok(own), Ok(there)) if own == there)
    }

    /// Says who has the lock. What a killed run said goes; a shared lock says nothing.
    fn sign(&mut self) -> io::Result<()> {
        self.file.set_len(0)?;
        if self.shared {
            return Ok(());
        }
        self.file.rewind()?;
        let host = host().map_or(String::new(), |host| format!(" on {host}"));
        let (pid, command) = (std::process::id(), shell::command());
        let since = jiff::Timestamp::now();
        writeln!(self.file, "process {pid}{host}, since {since:.0}: {command}")
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // The last of several takes the file away.
        let last = !self.shared
            || (self.file.unlock().is_ok() && self.file.try_lock().is_ok() && self.is_there());
        if last {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The name of this machine.
fn host() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = name.or_else(|| std::env::var("HOSTNAME").ok())?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty())
}

/// Who is there, for people.
fn taken(folder: &Path, path: &Path) -> String {
    let mut who = vec![said(path)];
    // Shards share the folder's lock and have signed their own.
    if who[0].is_empty() {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
        let of_shard = |p: &PathBuf| {
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.starts_with(".crossover-") && name.ends_with(".lock") && is_held(p)
        };
        who = entries.filter(of_shard).map(|p| said(&p)).collect();
    }
    who.retain(|w| !w.is_empty());
    let who = if who.is_empty() { "another run".into() } else { who.join("; ") };
    format!(
        "{}: {who} is at it; wait for its end, or write elsewhere with --out DIR",
        folder.display()
    )
}

fn is_held(path: &Path) -> bool {
    let tried = File::open(path).map(|file| file.try_lock_shared());
    matches!(tried, Ok(Err(TryLockError::WouldBlock)))
}

fn said(path: &Path) -> String {
    let mut text = String::new();
    // Nobody signs with more.
    let read = File::open(path).and_then(|file| file.take(4096).read_to_string(&mut text));
    match read {
        Ok(_) => text.trim().to_string(),
        Err(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shard(text: &str) -> Shard {
        text.parse().unwrap()
    }

    fn refused(folder: &Path, shard: Shard) -> String {
        take(folder, shard).unwrap_err().to_string()
    }

    #[test]
    fn one_run_or_different_shards() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("a/b");
        let whole = take(&folder, Shard::WHOLE).unwrap();
        let said = refused(&folder, Shard::WHOLE);
        let pid = format!("process {}", std::process::id());
        assert!(
            said.contains(&pid) && said.contains("since 2") && said.contains("--out"),
            "{said}"
        );
        assert!(refused(&folder, shard("0/2")).contains(&pid));
        drop(whole);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left");

        let first = take(&folder, shard("0/2")).unwrap();
        let second = take(&folder, shard("1/2")).unwrap();
        for s in [shard("0/2"), shard("1/2"), Shard::WHOLE] {
            assert!(refused(&folder, s).contains(&pid), "{s}");
        }
        drop(first);
        assert!(refused(&folder, Shard::WHOLE).contains(&pid));
        let first = take(&folder, shard("0/2")).unwrap();
        drop((first, second));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left");
        // What a killed run left is nobody's.
        fs::write(folder.join(FOLDER), "process 1").unwrap();
        let first = take(&folder, shard("0/2")).unwrap();
        assert!(!refused(&folder, Shard::WHOLE).contains("process 1,"));
        drop(first);
        take(&folder, Shard::WHOLE).unwrap();
    }

    #[test]
    fn a_file_system_without_locks_is_no_other_run() {
        let none = io::Error::from(io::ErrorKind::Unsupported);
        assert!(matches!(outcome(Err(TryLockError::Error(none))), Err(Refused::NoLocks(_))));
        assert!(matches!(outcome(Err(TryLockError::WouldBlock)), Err(Refused::Held)));
    }
}
