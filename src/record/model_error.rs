//! How far modelled times are from measured ones.

use std::fmt;

use serde::Serialize;

use super::{Record, Timing};
use crate::device::Modelled;
use crate::device::model::ErrorTable;
use crate::op::PhaseName;

/// Measured over modelled time of one kernel in one region of problems.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelError {
    /// Below it lie the lowest 5% of the cases.
    pub low: f64,
    /// Above it lie the highest 5% of the cases.
    pub high: f64,
    /// Cases that were both measured and modelled.
    pub cases: usize,
    /// What they have in common, for people: `attention/prefill.sm90a, 100 us to 1 ms`.
    pub region: String,
}

impl ModelError {
    /// The error of a kernel's modelled time in a phase; `None` where the description comes with no table of
    /// errors, or the time is from before the model knew power.
    pub fn of(kernel: &str, phase: PhaseName, modelled: &Modelled) -> Option<ModelError> {
        modelled.sm_mhz?;
        let table = ErrorTable::of(&modelled.model)?;
        let row = table.row(kernel, &phase.to_string(), modelled.ns)?;
        let (low, high, cases, region) = (row.low, row.high, row.cases, row.region());
        Some(ModelError { low, high, cases, region })
    }

    /// Where the measured time lies, as parts of the modelled one: `-5%..+22%`.
    pub fn percent(&self) -> String {
        let percent = |ratio: f64| format!("{:+.0}%", ((ratio - 1.0) * 100.0).round() + 0.0);
        format!("{}..{}", percent(self.low), percent(self.high))
    }
}

/// `measured / modelled 0.95 to 1.22 in 62 cases of attention/prefill.sm90a, 100 us to 1 ms`
impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelError { low, high, cases, region } = self;
        write!(f, "measured / modelled {low:.2} to {high:.2} in {cases} cases of {region}")
    }
}

impl Record {
    /// The error of this record's modelled time; `None` where nothing like it was measured, or where
    /// the time is measured.
    pub fn model_error(&self) -> Option<ModelError> {
        match &self.timing {
            Some(Timing::Modelled(m)) => ModelError::of(&self.kernel.name, self.problem.phase(), m),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::Made;

    #[test]
    fn modelled_times_have_an_error_and_measured_ones_none() {
        let error = |low, high| ModelError { low, high, cases: 9, region: "any kernel".into() };
        assert_eq!(error(0.952, 1.22).percent(), "-5%..+22%");
        assert_eq!(error(0.998, 1.0).percent(), "+0%..+0%");
        assert_eq!(
            error(0.952, 1.22).to_string(),
            "measured / modelled 0.95 to 1.22 in 9 cases of any kernel"
        );

        let made = Made::new(examples::other(), 1024, 1e6);
        let modelled = Made { measured: false, ..made.clone() }.record();
        let error = modelled.model_error().expect("a described H200");
        assert!(error.low <= error.high && error.cases > 0, "{error}");
        let changed = |change: fn(&mut Modelled)| {
            let mut record = modelled.clone();
            let Some(Timing::Modelled(m)) = &mut record.timing else { panic!("modelled") };
            change(m);
            record.model_error()
        };
        // A kernel of one's own is any kernel; another device, or a model without a clock, is unknown.
        let mut own = modelled.clone();
        own.kernel.name = "own/kernel".into();
        assert_eq!(own.model_error().unwrap().region, "any kernel");
        assert_eq!(changed(|m| m.model = "laptop".into()), None);
        assert_eq!(changed(|m| m.sm_mhz = None), None);
        assert_eq!(made.record().model_error(), None);
    }
}
