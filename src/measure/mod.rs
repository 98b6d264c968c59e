//! From a case to its record: run, verify, time. A wrong result never gets a time, and whatever
//! happens there is a record that says so. docs/method.md tells why it is done this way.

pub mod case;
pub mod counters;
pub mod energy;
pub mod live;
pub mod model_check;
pub mod model_error;
pub mod profile;
pub mod sampling;
pub mod stats;
pub mod variant;
mod verdict;
pub mod warning;
pub mod worker;

pub use case::{Bench, Lost};
pub use sampling::{Limits, Series, Stop};
pub use verdict::Verdict;
pub use warning::Warning;
