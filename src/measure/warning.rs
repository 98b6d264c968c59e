//! What a reader of a time should know, each with advice.

use std::fmt;

use super::Series;
use super::sampling::LOW_CLOCK;
use crate::device::{Facts, Health};

/// A warning, with the figures that it tells.
#[derive(Debug, Clone, PartialEq)]
pub enum Warning {
    /// The driver lowered the clock, for these reasons.
    Throttled(Vec<String>),
    /// The median clock of the samples is below 75% of the maximum.
    LowClock { mhz: f64, max_mhz: f64 },
    /// A second of warm-up did not bring the clock to rest.
    Unsettled,
    /// The median's interval stayed wider than asked.
    Noisy { half_width: f64 },
    /// Too short for events to tell the kernel from its launch.
    TooShort { ns: f64 },
    /// A slice of a GPU: other slices share memory and clock.
    Mig,
}

/// Medians below this are mostly launch.
const SHORT_NS: f64 = 10_000.0;

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Warning::Throttled(reasons) => write!(
                f,
                "throttled ({}): lock a lower clock with nvidia-smi --lock-gpu-clocks, or cool the GPU",
                reasons.join(", ")
            ),
            Warning::LowClock { mhz, max_mhz } => write!(
                f,
                "the clock was {mhz:.0} MHz, {:.0}% of its maximum: is another process or a power limit at work?",
                100.0 * mhz / max_mhz
            ),
            Warning::Unsettled => write!(
                f,
                "the clock did not settle in the warm-up: lock it with nvidia-smi --lock-gpu-clocks"
            ),
            Warning::Noisy { half_width } => write!(
                f,
                "the median is known to +-{:.1}% only: give more time with --time, or quiet the machine",
                100.0 * half_width
            ),
            Warning::TooShort { ns } => write!(
                f,
                "{:.1} us is short enough for the launch to matter: use a larger problem to judge the kernel",
                ns / 1e3
            ),
            Warning::Mig => write!(
                f,
                "a MIG slice: peak rates and limits are those of the whole GPU, and its neighbours share memory and clock"
            ),
        }
    }
}

/// What there is to warn of. A clock that the user set is no throttling.
pub fn warnings(
    series: &Series,
    precision: f64,
    before: Option<&Health>,
    after: Option<&Health>,
    facts: &Facts,
) -> Vec<Warning> {
    let mut found = Vec::new();
    let mut reasons: Vec<String> = Vec::new();
    for reason in [before, after].into_iter().flatten().flat_map(|h| &h.throttle) {
        let chosen = ["applications_clocks_setting", "display_clock_setting", "gpu_idle"];
        if !chosen.contains(&reason.as_str()) && !reasons.contains(reason) {
            reasons.push(reason.clone());
        }
    }
    if !reasons.is_empty() {
        found.push(Warning::Throttled(reasons));
    }
    let mut clocks: Vec<f64> = series.samples.iter().filter_map(|s| s.sm_mhz).collect();
    clocks.sort_by(f64::total_cmp);
    let max_mhz = [after, before].into_iter().flatten().find_map(|h| h.max_sm_mhz).map(f64::from);
    if let (Some(&mhz), Some(max_mhz)) = (clocks.get(clocks.len() / 2), max_mhz)
        && mhz < LOW_CLOCK * max_mhz
    {
        found.push(Warning::LowClock { mhz, max_mhz });
    } else if !series.settled {
        found.push(Warning::Unsettled);
    }
    if series.half_width() > precision {
        found.push(Warning::Noisy { half_width: series.half_width() });
    }
    if series.median_ns < SHORT_NS {
        found.push(Warning::TooShort { ns: series.median_ns });
    }
    if facts.more.get("mig").is_some_and(|mig| mig == "on") {
        found.push(Warning::Mig);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Sample;
    use crate::device::model::DeviceModel;
    use crate::measure::Stop;

    #[test]
    fn each_has_its_cause() {
        let mut facts = DeviceModel::named("h200").unwrap().facts();
        let sample = Sample { ns: 5e4, sm_mhz: Some(1900.0) };
        let mut series = Series {
            samples: vec![sample; 10],
            median_ns: 5e4,
            ci_ns: (5e4, 5e4),
            stopped: Stop::Precise,
            settled: true,
        };
        let mut health = Health {
            max_sm_mhz: Some(1980),
            throttle: vec!["applications_clocks_setting".into()],
            ..Health::default()
        };
        let find = |series: &Series, health: &Health, facts: &Facts| {
            warnings(series, 0.005, Some(health), Some(health), facts)
        };
        assert_eq!(find(&series, &health, &facts), []);
        health.throttle.push("sw_power_cap".into());
        series.samples.fill(Sample { ns: 5e3, sm_mhz: Some(1000.0) });
        series.settled = false;
        (series.median_ns, series.ci_ns) = (5e3, (4e3, 6e3));
        facts.more.insert("mig".into(), "on".into());
        assert_eq!(
            find(&series, &health, &facts),
            [
                Warning::Throttled(vec!["sw_power_cap".into()]),
                Warning::LowClock { mhz: 1000.0, max_mhz: 1980.0 },
                Warning::Noisy { half_width: 0.2 },
                Warning::TooShort { ns: 5e3 },
                Warning::Mig,
            ]
        );
        health.max_sm_mhz = None;
        assert!(find(&series, &health, &facts).contains(&Warning::Unsettled));
        for warning in find(&series, &health, &facts) {
            assert!(warning.to_string().contains(':'), "{warning} has no advice");
        }
    }
}
