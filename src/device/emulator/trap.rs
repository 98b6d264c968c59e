//! What stops a launch, as the instruction sees it: a [`Fault`]. Callers are told of it as a
//! [`Trap`](crate::device::Trap).

use std::fmt;

use super::events::Who;
pub use crate::device::FaultKind;

/// The other of two accesses, as the instruction sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Party {
    /// What it did: `wrote it`.
    pub does: String,
    /// Number of its CTA in the launch, cluster by cluster.
    pub cta: u64,
    pub warp: u32,
    pub lane: Option<u32>,
    pub pc: Option<usize>,
}

/// A fault as the instruction sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub kind: FaultKind,
    /// The first lane concerned.
    pub lane: Option<u32>,
    pub message: String,
    /// What the instruction does, where there is another: `reads it`.
    pub does: String,
    pub other: Option<Party>,
    /// As `other`, and what it did, before its CTA is numbered in the launch.
    pub against: Option<(Who, String)>,
    /// The way out, empty for the kind's own.
    pub hint: String,
}

impl Fault {
    pub fn new(kind: FaultKind, lane: impl Into<Option<u32>>, message: String) -> Box<Fault> {
        Box::new(Fault {
            kind,
            lane: lane.into(),
            message,
            does: String::new(),
            other: None,
            against: None,
            hint: String::new(),
        })
    }

    /// With somebody who has a part in it: who, and what they did.
    pub fn against(mut self: Box<Self>, other: Option<(Who, impl Into<String>)>) -> Box<Fault> {
        self.against = other.map(|(who, does)| (who, does.into()));
        self
    }

    pub fn hint(&self) -> &str {
        if self.hint.is_empty() { self.kind.hint() } else { &self.hint }
    }
}

/// An instruction named in the message of a [`Fault`]: that of a [`Trap`](crate::device::Trap) has
/// its [`Place`](crate::device::fault::Place) instead.
pub struct At(pub usize);

/// Stands on both sides of an instruction's number; no PTX has it.
const MARK: char = '\u{1}';

impl fmt::Display for At {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK}{}{MARK}", self.0)
    }
}

impl At {
    /// A message with places instead of instructions.
    pub fn placed(message: &str, place: impl Fn(usize) -> String) -> String {
        let part = |(i, part): (usize, &str)| match part.parse() {
            Ok(pc) if i % 2 == 1 => place(pc),
            _ => part.to_owned(),
        };
        message.split(MARK).enumerate().map(part).collect()
    }
}
