//! The suffixes of an instruction. One that nobody takes is an error, so that none is ignored.

use super::{Instr, PtxError, Result, Ty};

/// The suffixes of one instruction, and which of them have been taken.
pub struct Mods<'a> {
    list: &'a [&'a str],
    taken: Vec<bool>,
    opcode: &'a str,
    line: u32,
}

impl<'a> Mods<'a> {
    pub fn new(i: &'a Instr<'a>) -> Mods<'a> {
        Mods { list: &i.mods, taken: vec![false; i.mods.len()], opcode: i.opcode, line: i.line }
    }

    fn take(&mut self, hit: impl Fn(&str) -> bool) -> Option<&'a str> {
        let at = (0..self.list.len()).find(|&k| !self.taken[k] && hit(self.list[k]))?;
        self.taken[at] = true;
        Some(self.list[at])
    }

    /// Takes a suffix and says whether it stood there.
    pub fn flag(&mut self, name: &str) -> bool {
        self.take(|m| m == name).is_some()
    }

    /// Takes suffixes that change nothing here.
    pub fn ignore(&mut self, names: &[&str]) {
        while self.take(|m| names.contains(&m)).is_some() {}
    }

    /// Takes the first of the given suffixes.
    pub fn pick<T: Copy>(&mut self, names: &[(&str, T)]) -> Option<T> {
        let hit = self.take(|m| names.iter().any(|(n, _)| *n == m))?;
        names.iter().find(|(n, _)| *n == hit).map(|&(_, t)| t)
    }

    /// As [`Mods::pick`], where one must stand.
    ///
    /// # Errors
    /// None of them stands there; the message lists them.
    pub fn need<T: Copy>(&mut self, names: &[(&str, T)]) -> Result<T> {
        self.pick(names).ok_or_else(|| {
            let list: Vec<_> = names.iter().map(|(n, _)| format!(".{n}")).collect();
            self.error(format!("`{}` wants one of {}", self.opcode, list.join(", ")))
        })
    }

    /// Takes the next suffix that is a type, if there is one.
    pub fn opt_ty(&mut self) -> Option<Ty> {
        self.take(|m| Ty::parse(m).is_some()).and_then(Ty::parse)
    }

    /// The next type.
    ///
    /// # Errors
    /// There is none.
    pub fn ty(&mut self) -> Result<Ty> {
        self.opt_ty().ok_or_else(|| self.error(format!("`{}` wants a type", self.opcode)))
    }

    /// Takes the first suffix of the given beginning and gives what follows it.
    pub fn prefixed(&mut self, prefix: &str) -> Option<&'a str> {
        self.take(|m| m.starts_with(prefix)).map(|m| &m[prefix.len()..])
    }

    /// An error at the instruction's line.
    pub fn error(&self, message: impl Into<String>) -> PtxError {
        PtxError::new(self.line, message)
    }

    /// The emulator has no such form.
    ///
    /// # Errors
    /// Always: the message shows the form.
    pub fn unknown<T>(&self) -> Result<T> {
        let mods: String = self.list.iter().map(|m| format!(".{m}")).collect();
        Err(self.error(format!(
            "the emulator does not know this form of `{}`: `{}{mods}`",
            self.opcode, self.opcode
        )))
    }

    /// Refuses suffixes that nobody took.
    ///
    /// # Errors
    /// The first of them.
    pub fn finish(&self) -> Result<()> {
        match self.taken.iter().position(|t| !t) {
            None => Ok(()),
            Some(at) => Err(self.error(format!(
                "the emulator does not know `.{}` on `{}`",
                self.list[at], self.opcode
            ))),
        }
    }
}
