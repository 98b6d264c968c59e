//! Where the cycles of a chain of instructions and waits went.

use crate::device::emulator::program::Class;

/// What a warp waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Its turn to issue, and the issue of its own instructions.
    Issue,
    /// Results of its own instructions.
    Results,
    /// Special functions.
    Special,
    /// The pipes of other classes.
    Pipes,
    /// Matrix products.
    Products,
    Shared,
    /// Loads of global memory.
    Memory,
    /// The latency of asynchronous copies.
    Copies,
    /// The rate of bulk copies.
    Bandwidth,
    /// Barriers themselves; what is waited for there counts as what it is.
    Barriers,
}

const CAUSES: usize = Cause::Barriers as usize + 1;

impl Cause {
    const ALL: [Cause; CAUSES] = [
        Cause::Issue,
        Cause::Results,
        Cause::Special,
        Cause::Pipes,
        Cause::Products,
        Cause::Shared,
        Cause::Memory,
        Cause::Copies,
        Cause::Bandwidth,
        Cause::Barriers,
    ];

    /// The cause that waiting for the pipe of a class counts as.
    pub fn of_pipe(class: Class) -> Cause {
        match class {
            Class::Special => Cause::Special,
            Class::Mma => Cause::Products,
            _ => Cause::Pipes,
        }
    }

    /// For people.
    pub fn words(self) -> &'static str {
        match self {
            Cause::Issue => "instructions",
            Cause::Results => "results of instructions",
            Cause::Special => "special functions",
            Cause::Pipes => "arithmetic pipes",
            Cause::Products => "matrix products",
            Cause::Shared => "shared memory",
            Cause::Memory => "global loads",
            Cause::Copies => "latency of copies",
            Cause::Bandwidth => "rate of copies",
            Cause::Barriers => "barriers",
        }
    }
}

/// Cycles by cause, from the start of a CTA on.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Path {
    spent: [f64; CAUSES],
    until: f64,
}

impl Path {
    /// What it waits for lasts `cycles`.
    pub fn spend(&mut self, cause: Cause, cycles: f64) {
        self.spent[cause as usize] += cycles;
        self.until += cycles;
    }

    /// What it waits for lasts until `at`, if that is still to come.
    pub fn wait_until(&mut self, at: f64, cause: Cause) {
        self.spend(cause, (at - self.until).max(0.0));
    }

    /// All cycles times `by`.
    pub fn scaled(mut self, by: f64) -> Path {
        self.spent.iter_mut().for_each(|s| *s *= by);
        self.until *= by;
        self
    }

    /// Causes with their cycles, the longest first.
    pub fn parts(&self) -> Vec<(&'static str, f64)> {
        let mut all: Vec<_> =
            Cause::ALL.iter().map(|c| (c.words(), self.spent[*c as usize])).collect();
        all.sort_by(|a, b| b.1.total_cmp(&a.1));
        all.retain(|(_, cycles)| *cycles > 0.0);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_count_once() {
        let mut path = Path::default();
        path.spend(Cause::Issue, 10.0);
        path.wait_until(40.0, Cause::Products);
        path.wait_until(25.0, Cause::Special);
        assert_eq!(path.parts(), [("matrix products", 30.0), ("instructions", 10.0)]);
    }
}
