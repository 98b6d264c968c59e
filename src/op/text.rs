//! Problems as people write and read them.

use std::fmt;

use super::operator::{Default, Fault, Role, Variable};
use super::problem::{Given, Needed};
use super::value::{Kind, Value};
use super::{DType, Op, PhaseName, Problem, TensorSpec};

/// Bytes of tensors up to which sizes are computed at all.
const MOST_BYTES: f64 = (1u64 << 46) as f64;

impl Problem {
    /// The problem that settings such as `dtype=fp16,Tq=1000,causal=true` describe, by the names of
    /// variables. What is not given has its default, or is small where it has none.
    ///
    /// - A name alone is a flag that is on.
    /// - The phase's length sets all of its variables: `T` both `Tq` and `Tkv`.
    /// - `lens=1000+16x512` packs sequences of these lengths.
    /// - 0 is none of whatever a problem may go without: `window=0` is no window.
    /// - `phase=decode` chooses among the operator's phases; without it the phase is `phase`.
    ///
    /// # Errors
    /// A name that is no variable, a value that is none of it, values that do not fit together,
    /// tensors larger than any machine's memory.
    pub fn parse(op: Op, phase: PhaseName, settings: &str) -> Result<Problem, String> {
        let parts = || {
            let parts = settings.split(',').map(str::trim).filter(|p| !p.is_empty());
            parts
                .map(|p| p.split_once('=').unwrap_or((p, "true")))
                .map(|(n, v)| (n.trim(), v.trim()))
        };
        let mut phase = phase;
        if let Some((_, value)) = parts().rfind(|(name, _)| *name == "phase") {
            let known = || {
                let names: Vec<_> = op.phases().iter().map(|p| p.name.name()).collect();
                format!("phase={value}: {op} has {}", names.join(", "))
            };
            phase = PhaseName::parse(value).filter(|p| op.phase(*p).is_some()).ok_or_else(known)?;
        }
        let (mut dtype, mut given) = (DType::Bf16, Given::new());
        for (name, value) in parts() {
            match name {
                "phase" => {}
                "dtype" => {
                    let known = || format!("dtype={value}: expected {}", DType::precision_names());
                    dtype = DType::precision(value).ok_or_else(known)?;
                }
                name => {
                    let (name, value) = setting(op, phase, name, value)?;
                    given.insert(name, value);
                }
            }
        }
        let problem =
            Problem::new(op, phase, dtype, &given, Needed::Small).map_err(|e: Fault| e.text)?;
        problem.within(MOST_BYTES, "more than any machine has")?;
        Ok(problem)
    }

    /// The variables that texts of this problem name. Packed lengths stand in place of sequences
    /// and tokens, and come last. What the problem goes without is left out, and what records leave
    /// out because it is usual.
    fn shown(&self) -> impl Iterator<Item = (&'static Variable, &Value)> {
        let packed = !self.lens().is_empty();
        let says = move |v: &&'static Variable| match v.role {
            Role::Sequence | Role::Token | Role::Past => !packed,
            Role::Lengths => packed,
            _ => *self.value(v.name) != Value::None && !(v.is_sparse() && self.is_usual(v)),
        };
        let all: Vec<_> = self.op().variables_in(self.phase()).filter(says).collect();
        let last = |v: &&'static Variable| v.role == Role::Lengths;
        let (lens, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(last);
        rest.into_iter().chain(lens).map(|v| (v, self.value(v.name)))
    }

    /// The problem as [`Problem::parse`] reads it. The scale is named only where it is not the
    /// usual one.
    pub fn settings(&self) -> String {
        let mut parts = vec![format!("dtype={}", self.dtype())];
        if self.phase() != PhaseName::Prefill {
            parts.insert(0, format!("phase={}", self.phase()));
        }
        let unusual = |(v, _): &(&Variable, &Value)| v.role != Role::Scale || !self.is_usual(v);
        parts.extend(self.shown().filter(unusual).map(|(v, value)| format!("{}={value}", v.name)));
        parts.join(",")
    }

    /// The problem in a few words, for tables whose kernel names operator and phase:
    /// `bf16 B=1 T=512 Hq=16 Hkv=4 D=128 causal`.
    pub fn short(&self) -> String {
        let mut text = self.dtype().name().to_string();
        let lengths = self.phase_row().lengths;
        let square = lengths.iter().all(|name| self.value(name) == self.value(lengths[0]));
        for (v, value) in self.shown() {
            match value {
                value if v.name == lengths[0] && square && lengths.len() > 1 => {
                    text += &format!(" {}={value}", self.phase_row().length);
                }
                _ if square && lengths[1..].contains(&v.name) => {}
                _ if v.role == Role::Scale => {}
                // What nearly every case of the phase has says nothing.
                Value::Flag(true) if self.is_usually_on(v) => {}
                Value::Flag(false) if self.is_usually_on(v) => {
                    text += &format!(" no_{}", v.name);
                }
                Value::Flag(true) => text += &format!(" {}", v.name),
                Value::Flag(false) => {}
                value => text += &format!(" {}={value}", v.name),
            }
        }
        text
    }

    /// Whether a flag is on where nobody gives it.
    fn is_usually_on(&self, v: &Variable) -> bool {
        let of_phase = self.phase_row().defaults.iter().find(|(name, _)| *name == v.name);
        match (of_phase, &v.default) {
            (Some((_, value)), _) => *value == Value::Flag(true),
            (None, Default::Is(value)) => *value == Value::Flag(true),
            _ => false,
        }
    }

    /// Refuses a problem whose tensors take more than this machine's memory, as /proc/meminfo tells
    /// it; where nothing tells, any will do.
    ///
    /// # Errors
    /// They take more; the message says how much.
    pub fn fits_memory(&self) -> Result<(), String> {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
        let kib = total.and_then(|t| t.split_whitespace().next()?.parse::<f64>().ok());
        match kib {
            Some(kib) => self.within(1024.0 * kib, "and this machine has less memory"),
            None => Ok(()),
        }
    }

    /// Refuses tensors of more than `most` bytes, and says `why`.
    fn within(&self, most: f64, why: &str) -> Result<(), String> {
        let size = |t: &TensorSpec| {
            t.shape.iter().fold(t.dtype.bytes() as f64, |bytes, n| bytes * *n as f64)
        };
        let bytes: f64 = self.tensors().iter().map(size).sum();
        if bytes <= most {
            return Ok(());
        }
        let short = self.short();
        Err(format!("{short}: the tensors take {bytes:.1e} bytes, {why}: choose a smaller one"))
    }
}

/// One setting of a problem: the name of a variable, or of the phase's length, with its value. 0 is
/// [`Value::None`] for what a problem may go without.
///
/// # Errors
/// A name that is no variable, or a value that is none of it.
pub fn setting(
    op: Op,
    phase: PhaseName,
    name: &str,
    value: &str,
) -> Result<(&'static str, Value), String> {
    let Some(known) = op.giveable(phase, name) else {
        let names = op.giveable_names(phase);
        return Err(format!("{op} has no variable `{name}`: it has dtype, {}", names.join(", ")));
    };
    let row = op.variable(known);
    // Of lengths 0 is one: that of an empty sequence.
    let may_lack =
        |v: &Variable| matches!(v.default, Default::Nothing) && !matches!(v.kind, Kind::Lens);
    if value == "0" && row.is_some_and(may_lack) {
        return Ok((known, Value::None));
    }
    let kind = row.map_or(Kind::Count, |v| v.kind);
    Ok((known, kind.parse(known, value)?))
}

impl Op {
    /// What may be given in a phase: its variables, and its length where that is none of them.
    pub fn giveable_names(self, phase: PhaseName) -> Vec<&'static str> {
        let mut names: Vec<_> = self.variables_in(phase).map(|v| v.name).collect();
        if let Some(row) = self.phase(phase).filter(|p| !names.contains(&p.length)) {
            names.insert(1, row.length);
        }
        names
    }
}

/// A line for people: `attention bf16 B=1 Tq=512 ...`, with the phase where it is not prefill.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.op())?;
        if self.phase() != PhaseName::Prefill {
            write!(f, "{} ", self.phase())?;
        }
        write!(f, "{}", self.dtype())?;
        for (v, value) in self.shown() {
            match value {
                Value::Flag(true) => write!(f, " {}", v.name)?,
                Value::Flag(false) => {}
                _ if v.role == Role::Scale => {}
                value => write!(f, " {}={value}", v.name)?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).unwrap_or_default())
    }
}
