//! Which CTAs of large launches the emulator executes, and what is said of it afterwards.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What `--sample-ctas` says: the CTAs to execute of each launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ShareRule {
    /// All of problems of up to [`ShareRule::BUDGET_FLOPS`], and as many of larger ones as so many
    /// FLOPs take.
    #[default]
    Auto,
    All,
    /// About so many of each launch that has more.
    Ctas(u64),
}

impl ShareRule {
    /// FLOPs of a problem that is executed whole: a few seconds on two cores.
    pub const BUDGET_FLOPS: f64 = 1e11;

    /// What to execute of a problem of `flops`.
    pub fn of(self, flops: f64) -> CtaShare {
        match self {
            ShareRule::Auto if flops > Self::BUDGET_FLOPS => {
                CtaShare::Fraction(Self::BUDGET_FLOPS / flops)
            }
            ShareRule::Auto | ShareRule::All => CtaShare::All,
            ShareRule::Ctas(n) => CtaShare::Most(n),
        }
    }
}

impl FromStr for ShareRule {
    type Err = String;

    fn from_str(text: &str) -> Result<ShareRule, String> {
        match text {
            "auto" => Ok(ShareRule::Auto),
            "all" => Ok(ShareRule::All),
            n => match n.parse() {
                Ok(n) if n > 0 => Ok(ShareRule::Ctas(n)),
                _ => Err("expected auto, all or a number of CTAs".into()),
            },
        }
    }
}

impl fmt::Display for ShareRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShareRule::Auto => f.write_str("auto"),
            ShareRule::All => f.write_str("all"),
            ShareRule::Ctas(n) => write!(f, "{n}"),
        }
    }
}

/// How much of each launch is executed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum CtaShare {
    #[default]
    All,
    /// About so many CTAs of each launch that has more, in whole clusters. A job whose larger
    /// launches all need every CTA is refused.
    Most(u64),
    /// About this share of the clusters of each launch, in 0..1, and no fewer than 16.
    Fraction(f64),
}

/// Which CTAs of a job were executed, where a part was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobShare {
    /// CTAs executed, over all launches, of how many.
    pub executed: u64,
    pub of: u64,
    pub launches: Vec<LaunchShare>,
}

/// Which CTAs of one launch were executed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchShare {
    pub entry: String,
    pub executed: u64,
    pub of: u64,
    /// Why all of its CTAs were executed, if a part was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub whole: Option<String>,
}

impl JobShare {
    /// The sum of the launches.
    pub fn new(launches: Vec<LaunchShare>) -> JobShare {
        let sum = |f: fn(&LaunchShare) -> u64| launches.iter().map(f).sum();
        JobShare { executed: sum(|l| l.executed), of: sum(|l| l.of), launches }
    }

    /// Whether any CTA was left out.
    pub fn is_part(&self) -> bool {
        self.executed < self.of
    }

    /// For people: what was executed, and why launches were executed whole though a part was asked
    /// for.
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
            assert_eq!(text.parse::<ShareRule>().unwrap().to_string(), text);
        }
        for text in ["", "0", "-3", "some", "1.5"] {
            assert!(text.parse::<ShareRule>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_budget_decides() {
        assert_eq!(ShareRule::Auto.of(ShareRule::BUDGET_FLOPS), CtaShare::All);
        assert_eq!(ShareRule::Auto.of(4.0 * ShareRule::BUDGET_FLOPS), CtaShare::Fraction(0.25));
        assert_eq!(ShareRule::All.of(f64::INFINITY), CtaShare::All);
        assert_eq!(ShareRule::Ctas(9).of(0.0), CtaShare::Most(9));
    }
}
