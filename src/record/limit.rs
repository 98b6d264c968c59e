//! The least time of a problem on a device, and what to think of a time below it.

use super::{Record, Timing};
use crate::device::{Facts, Regime};
use crate::op::DType;
use crate::op::dtype::Rate;

/// What a device cannot do a problem faster than.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limit {
    /// All FLOPs at peak or all minimum bytes at peak, whichever takes longer, ns.
    pub ns: f64,
    pub by: Bound,
}

/// Which of the two takes longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    Flops,
    Bytes,
}

/// The peak rate of matrix products on operands of that type, FLOP/s; 0 where it is not known.
fn peak_flops(device: &Facts, dtype: DType) -> f64 {
    1e12 * match dtype.format().rate {
        Rate::Bits16 => device.peak.bf16_tflops,
        Rate::Tf32 => device.peak.tf32_tflops,
        // The facts of devices have none yet.
        Rate::Bits8 => 0.0,
    }
}

impl Record {
    /// The least time of the problem on the device; `None` where a peak or the bytes are not known.
    pub fn limit(&self) -> Option<Limit> {
        let (flops, bytes) =
            (peak_flops(&self.device, self.problem.dtype()), self.device.peak.memory_gbps);
        let min_bytes = self.traffic.as_ref()?.min_bytes;
        if !(flops > 0.0 && bytes > 0.0) {
            return None;
        }
        let (by_flops, by_bytes) = (self.flops / flops * 1e9, min_bytes / bytes);
        Some(match by_flops >= by_bytes {
            true => Limit { ns: by_flops, by: Bound::Flops },
            false => Limit { ns: by_bytes, by: Bound::Bytes },
        })
    }

    /// The limit over the time: 1 is as fast as the device can be. `None` without either.
    pub fn share_of_limit(&self) -> Option<f64> {
        let ns = self.timing.as_ref()?.ns();
        let share = self.limit()?.ns / ns;
        (ns > 0.0 && share.is_finite()).then_some(share)
    }

    /// What cannot be right about a time below the limit; `None` for a time that may be.
    pub fn doubt(&self) -> Option<String> {
        let share = self.share_of_limit().filter(|share| *share > 1.0)?;
        let (limit, ns) = (self.limit()?, self.timing.as_ref()?.ns());
        let share = 100.0 * share;
        let (what, wrong) = match limit.by {
            Bound::Flops => (
                format!(
                    "{:.0} TFLOP/s where the device has {:.0}",
                    self.flops / ns / 1e3,
                    self.flops / limit.ns / 1e3
                ),
                "the FLOPs are counted too high, the time is too short, or the device's peak rate is \
                 that of a lower clock",
            ),
            Bound::Bytes => (
                format!(
                    "{:.0} GB/s where the device has {:.0}",
                    self.traffic.as_ref()?.min_bytes / ns,
                    self.device.peak.memory_gbps
                ),
                "the minimum bytes are counted too high, the time is too short, or outputs were still \
                 in L2 when it ended",
            ),
        };
        let hot = matches!(self.timing, Some(Timing::Measured { regime: Regime::Hot, .. }));
        Some(match limit.by == Bound::Bytes && hot {
            true => format!(
                "{share:.1}% of the limit: {what}; with a hot L2 bytes need not pass through memory"
            ),
            false => format!("{share:.1}% of the limit cannot be: {what}; {wrong}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::Made;

    /// A record of that many ns whose FLOPs take `flops_ns` at peak, and its bytes `bytes_ns`.
    fn record(ns: f64, flops_ns: f64, bytes_ns: f64) -> Record {
        let mut r = Made::new(examples::full(), 8192, ns).record();
        r.flops = 989e12 * flops_ns * 1e-9;
        r.traffic.as_mut().unwrap().min_bytes = 4800.0 * bytes_ns;
        r
    }

    #[test]
    fn the_limit_is_the_slower_of_flops_and_bytes() {
        let of = |r: &Record| r.limit().map(|l| (l.ns.round(), l.by));
        let mut r = record(1e7, 1e6, 5e5);
        assert_eq!(of(&r), Some((1e6, Bound::Flops)));
        r = record(1e7, 1e6, 2e6);
        assert_eq!(of(&r), Some((2e6, Bound::Bytes)));
        r.device.peak.memory_gbps = 0.0;
        assert_eq!(r.limit(), None);
    }

    #[test]
    fn a_time_below_the_limit_is_doubted_and_says_why() {
        assert_eq!(record(1e6, 1e6 - 1.0, 0.0).doubt(), None);
        let flops = record(1e6, 1.25e6, 5e5).doubt().unwrap();
        assert!(flops.starts_with("125.0% of the limit cannot be: 1236 TFLOP/s"), "{flops}");
        assert!(flops.contains("the FLOPs are counted too high"), "{flops}");
        let mut r = record(1e6, 0.0, 2e6);
        let bytes = r.doubt().unwrap();
        assert!(
            bytes.contains("9600 GB/s where the device has 4800; the minimum bytes"),
            "{bytes}"
        );
        if let Some(Timing::Measured { regime, .. }) = &mut r.timing {
            *regime = Regime::Hot;
        }
        assert!(r.doubt().unwrap().contains("hot L2"));
        // Neither time nor traffic: nothing to say.
        for ns in [0.0, f64::NAN] {
            assert_eq!(record(ns, 1e6, 1e6).doubt(), None, "{ns}");
        }
        r.traffic = None;
        assert_eq!(r.doubt(), None);
    }
}
