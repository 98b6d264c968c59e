//! Which CTAs of large launches the emulator executes, and what is said of it afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What `--sample-ctas` says: the CTAs to execute of each launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SampleCtas {
    /// All of problems of up to [`SampleCtas::BUDGET_FLOPS`], of larger ones as many as that takes.
    #[default]
    Auto,
    All,
    /// About so many of each launch that has more.
    Ctas(u64),
}

impl SampleCtas {
    /// FLOPs of a problem that is executed whole: a few seconds on two cores.
    pub const BUDGET_FLOPS: f64 = 1e11;

    /// What to execute of a problem of `flops`.
    pub fn of(self, flops: f64) -> Sampling {
        match self {
            SampleCtas::Auto if flops > Self::BUDGET_FLOPS => {
                Sampling::Share(Self::BUDGET_FLOPS / flops)
            }
            SampleCtas::Auto | SampleCtas::All => Sampling::All,
            SampleCtas::Ctas(n) => Sampling::Most(n),
        }
    }
}

impl FromStr for SampleCtas {
    type Err = String;

    fn from_str(text: &str) -> Result<SampleCtas, String> {
        match text {
            "auto" => Ok(SampleCtas::Auto),
            "all" => Ok(SampleCtas::All),
            n => match n.parse() {
                Ok(n) if n > 0 => Ok(SampleCtas::Ctas(n)),
                _ => Err("expected auto, all or a number of CTAs".into()),
            },
        }
    }
}

impl fmt::Display for SampleCtas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SampleCtas::Auto => f.write_str("auto"),
            SampleCtas::All => f.write_str("all"),
            SampleCtas::Ctas(n) => write!(f, "{n}"),
        }
    }
}

/// How much of each launch is executed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Sampling {
    #[default]
    All,
    /// About so many CTAs of each launch that has more, in whole clusters. It is an error if no
    /// such launch can do with a part of its CTAs.
    Most(u64),
    /// About this share of the clusters of each launch, in 0..1, and no fewer than 16.
    Share(f64),
}

/// What was executed where a part stood for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CtaSample {
    /// CTAs executed, over all launches, of how many.
    pub executed: u64,
    pub of: u64,
    pub launches: Vec<LaunchSample>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSample {
    pub entry: String,
    pub executed: u64,
    pub of: u64,
    /// Why all of its CTAs were executed, if a part was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

impl CtaSample {
    pub fn new(launches: Vec<LaunchSample>) -> CtaSample {
        let sum = |f: fn(&LaunchSample) -> u64| launches.iter().map(f).sum();
        CtaSample { executed: sum(|l| l.executed), of: sum(|l| l.of), launches }
    }

    /// Whether any CTA was left out.
    pub fn is_part(&self) -> bool {
        self.executed < self.of
    }

    /// For people: what was executed, and what of each launch that was not sampled though it
    /// should have been.
    pub fn sentences(&self) -> Vec<String> {
        let mut all = Vec::new();
        if self.is_part() {
            let (executed, of) = (self.executed, self.of);
            all.push(format!("sampled: executed {executed} of {of} CTAs, counts are extrapolated"));
        }
        all.extend(self.launches.iter().filter_map(|l| {
            let why = l.whole.as_ref()?;
            Some(format!("all {} CTAs of {} executed: {why}", l.of, l.entry))
        }));
        all
    }
}

/// Which elements of an output the executed CTAs wrote, row-major.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Computed(pub Vec<bool>);

impl Computed {
    /// Share of the elements, in 0..=1.
    pub fn share(&self) -> f64 {
        let written = self.0.iter().filter(|w| **w).count();
        written as f64 / self.0.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write() {
        for text in ["auto", "all", "64"] {
            assert_eq!(text.parse::<SampleCtas>().unwrap().to_string(), text);
        }
        for text in ["", "0", "-3", "some", "1.5"] {
            assert!(text.parse::<SampleCtas>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_budget_decides() {
        assert_eq!(SampleCtas::Auto.of(SampleCtas::BUDGET_FLOPS), Sampling::All);
        assert_eq!(SampleCtas::Auto.of(4.0 * SampleCtas::BUDGET_FLOPS), Sampling::Share(0.25));
        assert_eq!(SampleCtas::All.of(f64::INFINITY), Sampling::All);
        assert_eq!(SampleCtas::Ctas(9).of(0.0), Sampling::Most(9));
    }
}
