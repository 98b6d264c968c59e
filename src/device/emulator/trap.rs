//! What stops a launch, and where.

use std::fmt;
use std::sync::Arc;

/// The kind of a fault, so that tests and callers need not read the message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FaultKind {
    OutOfBounds,
    Misaligned,
    /// Read of a register, of shared or of global memory that nothing has written.
    Uninitialised,
    /// Use of shared memory that an asynchronous copy still writes, or a write to what one reads.
    InFlight,
    /// Use of registers that an asynchronous product still works on.
    RegistersInFlight,
    /// Registers that no `wgmma.fence` has handed over to a product.
    MissingFence,
    /// A barrier or warp-wide instruction that not all its threads reach.
    Divergence,
    Deadlock,
    /// Bytes that copies bring and bytes that an mbarrier expects do not agree.
    Transaction,
    /// More arrivals at an mbarrier than it expects.
    Arrivals,
    /// Use of what is no live mbarrier, or of the bytes of one as plain memory.
    Mbarrier,
    /// A phase of an mbarrier that a waiter can no longer tell from a later one.
    PhaseReuse,
    /// `setmaxnreg` against its rules.
    Registers,
    /// Use of the shared memory of a CTA of the cluster that has exited.
    PeerExited,
    StepLimit,
    /// The instruction forbids these operands at run time.
    Operand,
    /// `trap;`
    Trap,
}

/// A fault as the instruction sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    /// The first lane concerned.
    pub lane: Option<u32>,
    pub message: String,
}

impl Fault {
    pub fn new(kind: FaultKind, lane: impl Into<Option<u32>>, message: String) -> Box<Fault> {
        Box::new(Fault { kind, lane: lane.into(), message })
    }
}

/// A fault with its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Trap {
    pub kind: FaultKind,
    pub kernel: String,
    pub entry: String,
    pub cta: [u32; 3],
    pub warp: Option<u32>,
    pub thread: Option<[u32; 3]>,
    /// Line of the PTX from 1, and its text.
    pub line: u32,
    pub source: String,
    /// Template file and line.
    pub origin: Option<(Arc<str>, u32)>,
    pub message: String,
}

impl fmt::Display for Trap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [x, y, z] = self.cta;
        write!(f, "{}: entry `{}`, CTA ({x}, {y}, {z})", self.kernel, self.entry)?;
        match (self.thread, self.warp) {
            (Some([x, y, z]), _) => write!(f, ", thread ({x}, {y}, {z})")?,
            (None, Some(w)) => write!(f, ", warp {w}")?,
            (None, None) => {}
        }
        write!(f, ": {}", self.message)?;
        if self.line > 0 {
            write!(f, "\n  at {}: {}", Place(self.line, self.origin.as_ref()), self.source)?;
        }
        Ok(())
    }
}

impl std::error::Error for Trap {}

/// `PTX line 12 (file.ptx:34)`
pub struct Place<'a>(pub u32, pub Option<&'a (Arc<str>, u32)>);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PTX line {}", self.0)?;
        match self.1 {
            Some((file, line)) => write!(f, " ({file}:{line})"),
            None => Ok(()),
        }
    }
}
