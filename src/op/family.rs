//! Families of inputs: random, and the pathological ones that break kernels.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// How strongly a gated operator forgets: the natural-log decay g of each token.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Decay {
    /// A decay a head `-2u`, a decay a channel `-5 sigmoid(n)`; u uniform in (0,1), n normal.
    Strong,
    /// `-0.1u`
    #[default]
    Mid,
    /// `-0.001u`
    Slow,
    /// Heads in turn strong, mid, slow.
    Mixed,
    /// `g = 0`: nothing is ever forgotten.
    Zero,
    /// `g = -5` at every token.
    Saturated,
    /// `-16 softplus(n)`: the unbounded gate at its largest released rate.
    Unbounded,
    /// `2 m u`, of mean `m < 0`.
    Mean(f64),
}

/// How the keys of a sequence relate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keys {
    #[default]
    Normal,
    /// Every token of a head has the same key.
    Identical,
    /// Correlation 0.9 between any two keys of a head.
    Correlated,
}

/// The write strength of the delta rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Beta {
    /// sigmoid of a normal
    #[default]
    Random,
    Zero,
    One,
}

/// The size of attention's logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Logits {
    #[default]
    Normal,
    /// Queries 16 times as long: softmax nearly one-hot.
    Huge,
    /// The first key is long: some rows put almost all weight on it.
    Sink,
}

/// How fast heads with a fixed decay forget: head h of H by `s_h = 2^(-8(h+1)/H) (1 - x + 1e-5)`,
/// with x the layer's place among the layers, from 0 for the first to 1 for the last.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Slope {
    /// `x = 0`
    #[default]
    First,
    /// `x = 0.5`
    Middle,
    /// `x = 1`
    Last,
    /// `s = 0`: nothing is ever forgotten.
    Zero,
    /// `s = 5` for every head.
    Steep,
    /// x itself, in 0..=1.
    At(f64),
}

/// A part of a family. Operators say which ones their inputs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Gate,
    Keys,
    Beta,
    Logits,
    Slope,
}

/// A family of inputs, written as `gate=slow keys=identical`. Parts not named are the default, and
/// the default family is `random`. An operator ignores the parts that it has no use for.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Family {
    pub gate: Decay,
    pub keys: Keys,
    pub beta: Beta,
    pub logits: Logits,
    pub slope: Slope,
}

const GATES: [(&str, Decay); 7] = [
    ("strong", Decay::Strong),
    ("mid", Decay::Mid),
    ("slow", Decay::Slow),
    ("mixed", Decay::Mixed),
    ("zero", Decay::Zero),
    ("saturated", Decay::Saturated),
    ("unbounded", Decay::Unbounded),
];
const KEYS: [(&str, Keys); 3] =
    [("normal", Keys::Normal), ("identical", Keys::Identical), ("correlated", Keys::Correlated)];
const BETAS: [(&str, Beta); 3] = [("random", Beta::Random), ("0", Beta::Zero), ("1", Beta::One)];
const LOGITS: [(&str, Logits); 3] =
    [("normal", Logits::Normal), ("huge", Logits::Huge), ("sink", Logits::Sink)];

const SLOPES: [(&str, Slope); 5] = [
    ("first", Slope::First),
    ("middle", Slope::Middle),
    ("last", Slope::Last),
    ("zero", Slope::Zero),
    ("steep", Slope::Steep),
];

fn look_up<T: Copy>(table: &[(&str, T)], part: &str, value: &str) -> Result<T, String> {
    table.iter().find(|(name, _)| *name == value).map(|(_, x)| *x).ok_or_else(|| {
        let known: Vec<_> = table.iter().map(|(name, _)| *name).collect();
        format!("unknown {part} `{value}`: expected one of {}", known.join(", "))
    })
}

fn name_of<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, x)| x == value).map_or("?", |(name, _)| name)
}

impl FromStr for Family {
    type Err = String;

    fn from_str(text: &str) -> Result<Family, String> {
        let mut family = Family::default();
        for part in text.split_whitespace().filter(|p| *p != "random") {
            let Some((name, value)) = part.split_once('=') else {
                return Err(format!(
                    "`{part}` is no part of an input family: write `random` or parts such as gate=slow, keys=identical, beta=1, logits=huge"
                ));
            };
            match name {
                "gate" => {
                    family.gate = match value.parse::<f64>() {
                        Ok(m) if m < 0.0 && m.is_finite() => Decay::Mean(m),
                        Ok(m) => return Err(format!("gate={m}: a mean log decay is negative")),
                        Err(_) => look_up(&GATES, "gate", value)?,
                    }
                }
                "keys" => family.keys = look_up(&KEYS, "keys", value)?,
                "beta" => family.beta = look_up(&BETAS, "beta", value)?,
                "logits" => family.logits = look_up(&LOGITS, "logits", value)?,
                "slope" => {
                    family.slope = match value.parse::<f64>() {
                        Ok(x) if (0.0..=1.0).contains(&x) => Slope::At(x),
                        Ok(x) => return Err(format!("slope={x}: a layer's place is 0 to 1")),
                        Err(_) => look_up(&SLOPES, "slope", value)?,
                    }
                }
                _ => {
                    return Err(format!(
                        "unknown part `{name}` of an input family: expected gate, keys, beta, logits or slope"
                    ));
                }
            }
        }
        Ok(family)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        match self.gate {
            Decay::Mid => {}
            Decay::Mean(m) => parts.push(format!("gate={m}")),
            gate => parts.push(format!("gate={}", name_of(&GATES, &gate))),
        }
        if self.keys != Keys::Normal {
            parts.push(format!("keys={}", name_of(&KEYS, &self.keys)));
        }
        if self.beta != Beta::Random {
            parts.push(format!("beta={}", name_of(&BETAS, &self.beta)));
        }
        if self.logits != Logits::Normal {
            parts.push(format!("logits={}", name_of(&LOGITS, &self.logits)));
        }
        match self.slope {
            Slope::First => {}
            Slope::At(x) => parts.push(format!("slope={x}")),
            slope => parts.push(format!("slope={}", name_of(&SLOPES, &slope))),
        }
        f.write_str(if parts.is_empty() { "random" } else { "" })?;
        f.write_str(&parts.join(" "))
    }
}

impl TryFrom<String> for Family {
    type Error = String;
    fn try_from(text: String) -> Result<Family, String> {
        text.parse()
    }
}

impl From<Family> for String {
    fn from(family: Family) -> String {
        family.to_string()
    }
}

impl Family {
    /// The family with these parts alone, the others at their defaults: equal inputs have one name.
    pub fn only(&self, parts: &[Part]) -> Family {
        let has = |part: Part| parts.contains(&part);
        let mut family = Family::default();
        if has(Part::Gate) {
            family.gate = self.gate;
        }
        if has(Part::Keys) {
            family.keys = self.keys;
        }
        if has(Part::Beta) {
            family.beta = self.beta;
        }
        if has(Part::Logits) {
            family.logits = self.logits;
        }
        if has(Part::Slope) {
            family.slope = self.slope;
        }
        family
    }

    /// As [`Family::only`], as text for reports. A gate or slope is named even if it is the
    /// default: `gate=mid`.
    pub fn text_of(&self, parts: &[Part]) -> String {
        let family = self.only(parts);
        let text = family.to_string();
        let named = match () {
            () if parts.contains(&Part::Gate) && family.gate == Decay::Mid => "gate=mid",
            () if parts.contains(&Part::Slope) && family.slope == Slope::First => "slope=first",
            () => return text,
        };
        match text.as_str() {
            "random" => named.to_string(),
            rest => format!("{named} {rest}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_round_trip() {
        for text in [
            "random",
            "gate=slow",
            "gate=-0.03 keys=identical beta=1",
            "logits=huge",
            "slope=last",
            "keys=identical slope=0.25",
        ] {
            assert_eq!(text.parse::<Family>().unwrap().to_string(), text);
        }
        assert!("gate=fast".parse::<Family>().unwrap_err().contains("strong, mid"));
        assert!("gate=0.5".parse::<Family>().is_err());
        assert!("slope=1.5".parse::<Family>().unwrap_err().contains("0 to 1"));
    }

    #[test]
    fn parts_that_mean_nothing_are_dropped_and_what_forgets_is_named() {
        let f: Family = "gate=slow keys=identical logits=huge slope=last".parse().unwrap();
        assert_eq!(f.text_of(&[Part::Keys, Part::Logits]), "keys=identical logits=huge");
        assert_eq!(f.text_of(&[Part::Gate, Part::Keys]), "gate=slow keys=identical");
        assert_eq!(f.text_of(&[Part::Slope]), "slope=last");
        let plain = Family::default();
        assert_eq!(plain.text_of(&[Part::Gate, Part::Beta]), "gate=mid");
        assert_eq!(plain.text_of(&[Part::Slope, Part::Keys]), "slope=first");
        assert_eq!(plain.text_of(&[Part::Keys]), "random");
    }
}
