//! What commands say. A closed pipe (`| head`) is no failure; whatever else keeps standard output
//! from being written fails the command in the end, after its work.

use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

use super::{Failure, Result};

/// Why standard output takes nothing more.
static CLOSED: Mutex<Option<io::Error>> = Mutex::new(None);

/// Writes text to standard output.
pub fn put(text: &str) {
    let mut closed = CLOSED.lock().unwrap_or_else(|e| e.into_inner());
    if closed.is_none() {
        let mut out = io::stdout().lock();
        *closed = out.write_all(text.as_bytes()).and_then(|()| out.flush()).err();
    }
}

/// Writes a line to standard output.
pub fn say(line: &str) {
    put(&format!("{line}\n"));
}

/// Writes a line to standard error. Where it cannot go there it can go nowhere.
pub fn note(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Whether all that was said could be written.
///
/// # Errors
/// Standard output could not be written, for another reason than a closed pipe.
pub fn end() -> Result {
    match CLOSED.lock().unwrap_or_else(|e| e.into_inner()).take() {
        Some(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Usage(format!("cannot write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}
