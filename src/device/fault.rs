//! Why a device could not do as asked, and where a kernel went wrong.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize};

/// Why a device could not do as asked. The message says what, where and the way out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum DeviceError {
    /// No such device, or no driver.
    #[error("{0}")]
    Unavailable(String),
    /// The PTX does not assemble, or needs what the device lacks.
    #[error("{0}")]
    Build(String),
    /// A launch that the device refuses, or a fault or trap while it runs.
    #[error("{0}")]
    Launch(String),
    /// A kernel that did not end in the time that a device gives it.
    #[error("{0}")]
    Timeout(String),
    /// A fault that was found while a kernel ran, with its place.
    #[error("{0}")]
    Trap(Box<Trap>),
}

/// What has failed, as far as a caller acts on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// There is no device, or it is lost.
    Unavailable,
    /// Nothing was run.
    Build,
    /// A launch was refused or stopped.
    Launch,
    /// A kernel did not end, by a clock or by a count of steps.
    Timeout,
}

impl DeviceError {
    /// The one place where an error becomes a kind: statuses of records and checks follow from it.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DeviceError::Unavailable(_) => ErrorKind::Unavailable,
            DeviceError::Build(_) => ErrorKind::Build,
            DeviceError::Timeout(_) => ErrorKind::Timeout,
            DeviceError::Trap(trap) if trap.kind == FaultKind::StepLimit => ErrorKind::Timeout,
            DeviceError::Launch(_) | DeviceError::Trap(_) => ErrorKind::Launch,
        }
    }
}

/// The kind of a fault, so that tests and callers need not read the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// An access outside of the memory that is there.
    OutOfBounds,
    /// An address that is no multiple of what the instruction needs.
    Misaligned,
    /// A read of a register or of memory that nothing has written.
    Uninitialised,
    /// Use of shared memory that an asynchronous operation still writes, or a write to what one
    /// reads.
    InFlight,
    /// Use of registers that an asynchronous product still works on.
    RegistersInFlight,
    /// Registers that no `wgmma.fence` has handed over to a product.
    MissingFence,
    /// Two accesses of one place, a write among them, that nothing orders.
    Race,
    /// Memory passes between the generic and the async proxy without a proxy fence.
    Proxy,
    /// A barrier or warp-wide instruction that not all its threads reach.
    Divergence,
    /// Threads wait for what nobody is left to do.
    Deadlock,
    /// Bytes that copies bring and bytes that an mbarrier expects do not agree.
    Transaction,
    /// More arrivals at an mbarrier than it expects.
    Arrivals,
    /// A use of what is no live mbarrier, or of an mbarrier's bytes as plain memory.
    Mbarrier,
    /// A phase of an mbarrier that a waiter can no longer tell from a later one.
    PhaseReuse,
    /// `setmaxnreg` against its rules.
    Registers,
    /// Use of the shared memory of a CTA of the cluster that has exited.
    PeerExited,
    /// A CTA executed more than it may: it is taken to hang.
    StepLimit,
    /// The instruction forbids these operands at run time.
    Operand,
    /// `trap;`
    Trap,
}

impl FaultKind {
    /// What usually helps.
    pub fn hint(self) -> &'static str {
        match self {
            FaultKind::OutOfBounds => {
                "compare the address with the size, and with the predicate that guards the tail"
            }
            FaultKind::Misaligned => {
                "an access of n bytes wants an address that is a multiple of n (bulk copies: 16, \
                 tensor copies: 128 in shared memory); use a narrower one, or pad the stride"
            }
            FaultKind::Uninitialised => {
                "write it first on every path that leads here; before others' memory is read, pass \
                 a barrier behind which it has been written"
            }
            FaultKind::InFlight => {
                "wait for the copy (cp.async.wait_group, or the mbarrier it completes on), then pass \
                 a barrier if another warp uses it"
            }
            FaultKind::RegistersInFlight => {
                "put wgmma.wait_group behind the product's wgmma.commit_group, with as few groups \
                 left in flight as it takes to cover it, before the registers are used"
            }
            FaultKind::MissingFence => {
                "put wgmma.fence.sync.aligned between the last use of these registers by other \
                 instructions and the product"
            }
            FaultKind::Race => "let both pass a common barrier between the two accesses",
            FaultKind::Proxy => "put fence.proxy.async behind the write, before the barrier",
            FaultKind::Divergence => {
                "all named threads must come to the same instruction: move it out of the branch"
            }
            FaultKind::Deadlock => {
                "count who arrives at each barrier and how many it expects, on every path"
            }
            FaultKind::Transaction => {
                "expect_tx of a phase must announce the bytes of all its copies: of tensor copies \
                 the whole box, of a multicast those that reach this CTA"
            }
            FaultKind::Arrivals => {
                "mbarrier.init must count all who arrive in a phase (each lane that executes \
                 mbarrier.arrive), and nobody may arrive twice in one"
            }
            FaultKind::Mbarrier => {
                "mbarrier.init it once, pass a barrier, and leave its 8 bytes to mbarrier \
                 instructions until mbarrier.inval"
            }
            FaultKind::PhaseReuse => {
                "let nobody arrive for the phase after next before all waiters have seen this one \
                 end: a second mbarrier that they arrive at says so"
            }
            FaultKind::Registers => {
                "all four warps of a warpgroup execute the same setmaxnreg: .dec from what they hold \
                 first, .inc for no more than others have given back"
            }
            FaultKind::PeerExited => {
                "let no CTA exit before its peers are done with its shared memory: \
                 barrier.cluster.arrive and .wait at the end"
            }
            FaultKind::StepLimit => "a loop does not end, or waits for what nobody does",
            FaultKind::Operand => "the operand is computed at run time: look where it comes from",
            FaultKind::Trap => {
                "the kernel's own check has failed: look at the condition of the branch to `trap`"
            }
        }
    }
}

/// An instruction executed by a thread or warp.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Site {
    /// What it does: `reads it`. Empty where the message says it.
    pub does: String,
    /// Its place in the grid.
    pub cta: [u32; 3],
    /// Its number in the CTA; `None` where a thread acts alone.
    pub warp: Option<u32>,
    /// Its place in the CTA; `None` where the whole warp acts.
    pub thread: Option<[u32; 3]>,
    /// Line of the PTX from 1, and its text; 0 if unknown.
    pub line: u32,
    pub source: String,
    /// Template file and line.
    #[serde(serialize_with = "origin", deserialize_with = "read_origin")]
    pub origin: Option<(Arc<str>, u32)>,
    /// Where a line that a macro brought stands in it, and the calls that led there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// As `"file:line"`.
fn origin<S: serde::Serializer>(origin: &Option<(Arc<str>, u32)>, s: S) -> Result<S::Ok, S::Error> {
    match origin {
        Some((file, line)) => s.collect_str(&format_args!("{file}:{line}")),
        None => s.serialize_none(),
    }
}

fn read_origin<'de, D: Deserializer<'de>>(d: D) -> Result<Option<(Arc<str>, u32)>, D::Error> {
    let text = Option::<String>::deserialize(d)?;
    let split = |text: String| {
        let (file, line) = text.rsplit_once(':')?;
        Some((Arc::from(file), line.parse().ok()?))
    };
    Ok(text.and_then(split))
}

impl Site {
    fn who(&self, cta: bool) -> String {
        let mut text = String::new();
        if cta {
            let [x, y, z] = self.cta;
            text += &format!("CTA ({x}, {y}, {z}), ");
        }
        match (self.thread, self.warp) {
            (Some([x, y, z]), Some(w)) => text += &format!("thread ({x}, {y}, {z}) of warp {w}"),
            (Some([x, y, z]), None) => text += &format!("thread ({x}, {y}, {z})"),
            (None, Some(w)) => text += &format!("warp {w}"),
            (None, None) => {
                text.truncate(text.len().saturating_sub(2));
            }
        }
        text
    }

    fn place(&self) -> String {
        if self.line == 0 {
            return "at an instruction that is no longer known".into();
        }
        let mut text = format!("at {}: {}", Place(self.line, self.origin.as_ref()), self.source);
        if let Some(within) = &self.within {
            text += &format!("\n      which is {within}");
        }
        text
    }
}

/// A fault with its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trap {
    pub kind: FaultKind,
    pub kernel: String,
    pub entry: String,
    pub message: String,
    pub at: Site,
    /// The access that it collides with.
    pub other: Option<Site>,
    /// The way out; may be empty.
    pub hint: String,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)?;
        write!(f, "\n  in {}, entry `{}`, {}", self.kernel, self.entry, self.at.who(true))?;
        if !self.at.does.is_empty() {
            write!(f, " {}", self.at.does)?;
        }
        if self.at.line > 0 {
            write!(f, "\n    {}", self.at.place())?;
        }
        if let Some(other) = &self.other {
            let elsewhere = other.cta != self.at.cta;
            write!(f, "\n  before that, {} {}", other.who(elsewhere), other.does)?;
            write!(f, "\n    {}", other.place())?;
        }
        if !self.hint.is_empty() {
            write!(f, "\n  hint: {}", self.hint)?;
        }
        Ok(())
    }
}

impl Trap {
    /// Whether the two accesses are of different CTAs.
    pub fn between_ctas(&self) -> bool {
        self.other.as_ref().is_some_and(|o| o.cta != self.at.cta)
    }
}

impl std::error::Error for Trap {}

/// `file.ptx:34 (PTX line 12)`
pub struct Place<'a>(pub u32, pub Option<&'a (Arc<str>, u32)>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some((file, line)) => write!(f, "{file}:{line} (PTX line {})", self.0),
            None => write!(f, "PTX line {}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trap_is_a_timeout_where_the_steps_ran_out() {
        let kind = |kind| {
            let at = Site {
                does: String::new(),
                cta: [0; 3],
                warp: None,
                thread: None,
                line: 0,
                source: String::new(),
                origin: None,
                within: None,
            };
            let text = String::new;
            let (kernel, entry, message, hint) = (text(), text(), text(), text());
            let trap = Trap { kind, kernel, entry, message, at, other: None, hint };
            DeviceError::Trap(Box::new(trap)).kind()
        };
        assert_eq!(kind(FaultKind::StepLimit), ErrorKind::Timeout);
        assert_eq!(kind(FaultKind::Race), ErrorKind::Launch);
        assert_eq!(kind(FaultKind::Trap), ErrorKind::Launch);
    }
}
