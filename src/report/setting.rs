//! What curves over the length share: a problem without its length.

use crate::op::{DType, Family, Op, Problem, Side, Value};
use crate::record::Record;

use super::format::list;

/// Everything of a problem but its length.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Setting {
    pub op: Op,
    pub dtype: DType,
    pub b: usize,
    layer: Problem,
}

impl Setting {
    /// The problem less its length.
    pub fn of(problem: &Problem) -> Setting {
        let (op, dtype, b) = (problem.op(), problem.dtype(), problem.sequences());
        Setting { op, dtype, b, layer: problem.layer() }
    }

    /// The problem without its length.
    pub fn layer(&self) -> &Problem {
        &self.layer
    }

    /// Lengths of packed sequences.
    pub fn packed(&self) -> Vec<usize> {
        self.layer.lens().iter().map(|l| l[0]).collect()
    }

    /// Lengths that stay beside the one that curves run along: `Tkv 1024 beside Tq`.
    pub fn lengths_text(&self) -> String {
        let lengths = self.layer.phase_row().lengths;
        let own = lengths.iter().filter(|name| *self.layer.value(name) != Value::None);
        let own: Vec<_> = own.map(|name| format!("{name} {}", self.layer.count(name))).collect();
        match own.is_empty() {
            true => lengths.join(" = "),
            false => format!("{} unlike {}", list(&own), lengths[0]),
        }
    }

    /// Width of the layer's output: heads times head dimension.
    pub fn width(&self) -> usize {
        let (heads, channels) = self.layer.out();
        heads * channels
    }

    /// Heads and head dimension of the output.
    pub fn out(&self) -> (usize, usize) {
        self.layer.out()
    }

    pub fn is(&self, side: Side) -> bool {
        self.op.side() == side
    }

    /// Heads and dimensions: `HV 16, K = V = 128`.
    pub fn heads_text(&self) -> String {
        self.op.layer(&self.layer)
    }
}

/// The parts of a family that matter to an operator, as text.
pub fn family_of(op: Op, family: &Family) -> String {
    family.text_of(op.parts())
}

/// The axis that curves run along: that of the phase.
pub fn length(record: &Record) -> usize {
    record.problem.length()
}

/// Settings of records, in order.
pub fn settings(records: &[&Record]) -> Vec<Setting> {
    let mut settings: Vec<Setting> = records.iter().map(|r| Setting::of(&r.problem)).collect();
    settings.sort();
    settings.dedup();
    settings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;

    #[test]
    fn families_keep_only_what_an_operator_uses() {
        let f: Family = "gate=slow keys=identical logits=huge".parse().unwrap();
        assert_eq!(family_of(examples::full(), &f), "keys=identical logits=huge");
        assert_eq!(family_of(examples::other(), &f), "gate=slow keys=identical");
        assert_eq!(family_of(examples::other(), &Family::default()), "gate=mid");
    }
}
