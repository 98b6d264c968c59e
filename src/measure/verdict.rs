//! What an interval of a ratio of times comes to.

use std::fmt;

use serde::Serialize;

/// What is said of a new time over an old one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Slower,
    Faster,
    Same,
    Ambiguous,
}

impl Verdict {
    pub const ALL: [Verdict; 4] =
        [Verdict::Slower, Verdict::Faster, Verdict::Same, Verdict::Ambiguous];

    /// Of the interval of new over old, with a threshold as a part of one:
    /// - same: the whole interval lies within the threshold, 1/(1+t) to 1+t;
    /// - slower: else, and it lies above 1+t/2 as a whole; faster: below 1/(1+t/2);
    /// - ambiguous: everything else, and what is no number.
    ///
    /// An interval narrower than half the threshold always has one of the first three.
    pub fn of((low, high): (f64, f64), threshold: f64) -> Verdict {
        let (whole, half) = (1.0 + threshold, 1.0 + threshold / 2.0);
        match () {
            () if low.is_nan() || high.is_nan() => Verdict::Ambiguous,
            () if low >= 1.0 / whole && high <= whole => Verdict::Same,
            () if low > half => Verdict::Slower,
            () if high < 1.0 / half => Verdict::Faster,
            () => Verdict::Ambiguous,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Verdict::Slower => "slower",
            Verdict::Faster => "faster",
            Verdict::Same => "same",
            Verdict::Ambiguous => "ambiguous",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_have_verdicts() {
        for (interval, wanted) in [
            ((0.995, 1.005), Verdict::Same),
            ((1.006, 1.009), Verdict::Same),
            ((1.006, 1.02), Verdict::Slower),
            ((1.004, 1.02), Verdict::Ambiguous),
            ((0.97, 0.98), Verdict::Faster),
            ((0.98, 0.999), Verdict::Ambiguous),
            ((0.9, 1.1), Verdict::Ambiguous),
            ((f64::NAN, 1.0), Verdict::Ambiguous),
        ] {
            assert_eq!(Verdict::of(interval, 0.01), wanted, "{interval:?}");
        }
    }

    #[test]
    fn narrow_intervals_are_never_ambiguous() {
        for i in 0..400 {
            let low = 0.97 + 1.5e-4 * f64::from(i);
            assert_ne!(Verdict::of((low, low + 0.0048), 0.01), Verdict::Ambiguous, "{low}");
        }
    }
}
