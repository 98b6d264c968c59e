//! How far modelled times are from measured ones.

use super::Record;

/// Measured over modelled time of one kernel in one region of problems.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelError {
    /// Below it lie the lowest 5% of the cases.
    pub low: f64,
    /// Above it lie the highest 5% of the cases.
    pub high: f64,
    /// Cases that were both measured and modelled.
    pub cases: usize,
    /// What they have in common, for people: `attention/prefill.sm90a, T >= 4096`.
    pub region: String,
}

impl Record {
    /// The error of this record's modelled time; `None` where nothing like it was measured, or where
    /// the time is measured.
    pub fn model_error(&self) -> Option<ModelError> {
        None
    }
}
