//! What a launch takes from the socket.

use serde::{Deserialize, Serialize};

use crate::device::nan;

/// The energy of a case, or why it is not known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Energy {
    /// By the GPU's counter over many launches back to back, L2 as they leave it. A launch is one run of
    /// all of a job's launches.
    Measured {
        /// Of the whole GPU, a launch, J.
        #[serde(deserialize_with = "nan::one")]
        joules: f64,
        /// Less what an idle GPU takes in the time, a launch, J.
        #[serde(deserialize_with = "nan::one")]
        net_joules: f64,
        /// By the counter, W.
        #[serde(deserialize_with = "nan::one")]
        watts: f64,
        /// The mean of the power that the GPU told meanwhile, W: another instrument for the same.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        power_watts: Option<f64>,
        /// Of the idle GPU with this program's context, after a rest, W.
        #[serde(deserialize_with = "nan::one")]
        idle_watts: f64,
        /// How many there were, parts of one at both ends.
        #[serde(deserialize_with = "nan::one")]
        launches: f64,
        #[serde(deserialize_with = "nan::one")]
        seconds: f64,
    },
    Unavailable {
        why: String,
    },
}

impl Energy {
    pub fn unavailable(why: &str) -> Energy {
        Energy::Unavailable { why: format!("not available because {why}") }
    }

    /// Of the whole GPU, a launch, J.
    pub fn joules(&self) -> Option<f64> {
        match self {
            Energy::Measured { joules, .. } => Some(*joules),
            Energy::Unavailable { .. } => None,
        }
    }
}
