//! Values of variables: what a person gives, and what manifests and templates see of it.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::lens;

/// The largest count that a variable may have.
pub const MAX_COUNT: usize = 1 << 30;

/// A scalar that manifests and templates can name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    Bool(bool),
    Int(i64),
    Float(f64),
    /// One of the words of its variable, such as the name of a number format.
    Word(&'static str),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Bool(b) => write!(f, "{b}"),
            Scalar::Int(i) => write!(f, "{i}"),
            Scalar::Float(x) => write!(f, "{x}"),
            Scalar::Word(word) => f.write_str(word),
        }
    }
}

/// Which values a variable takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// 1 to [`MAX_COUNT`].
    Count,
    Flag,
    /// A finite number.
    Number,
    /// One of these.
    Word(&'static [&'static str]),
    /// Lengths of packed sequences: tokens of q and of k.
    Lens,
}

/// The value of a variable; `None` where the problem goes without it.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    None,
    Count(usize),
    Flag(bool),
    Number(f64),
    Word(&'static str),
    Lens(Arc<[[usize; 2]]>),
}

impl Eq for Value {}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Value) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A total order: none first, then by kind; numbers by [`f64::total_cmp`], lengths by how many
/// there are.
impl Ord for Value {
    fn cmp(&self, other: &Value) -> Ordering {
        let place = |v: &Value| match v {
            Value::None => 0,
            Value::Count(_) => 1,
            Value::Flag(_) => 2,
            Value::Number(_) => 3,
            Value::Word(_) => 4,
            Value::Lens(_) => 5,
        };
        match (self, other) {
            (Value::Count(a), Value::Count(b)) => a.cmp(b),
            (Value::Flag(a), Value::Flag(b)) => a.cmp(b),
            (Value::Number(a), Value::Number(b)) => a.total_cmp(b),
            (Value::Word(a), Value::Word(b)) => a.cmp(b),
            (Value::Lens(a), Value::Lens(b)) => (a.len(), a).cmp(&(b.len(), b)),
            _ => place(self).cmp(&place(other)),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("none"),
            Value::Count(n) => write!(f, "{n}"),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Number(x) => write!(f, "{x}"),
            Value::Word(word) => f.write_str(word),
            Value::Lens(all) => f.write_str(&lens::text(all)),
        }
    }
}

impl From<usize> for Value {
    fn from(n: usize) -> Value {
        Value::Count(n)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

impl From<f64> for Value {
    fn from(x: f64) -> Value {
        Value::Number(x)
    }
}

impl From<Vec<[usize; 2]>> for Value {
    fn from(lens: Vec<[usize; 2]>) -> Value {
        if lens.is_empty() { Value::None } else { Value::Lens(lens.into()) }
    }
}

impl Kind {
    /// The value that `text` gives a variable of that name and kind.
    ///
    /// # Errors
    /// The text is none; the message names variable, text and what is expected.
    pub fn parse(self, name: &str, text: &str) -> Result<Value, String> {
        match self {
            Kind::Count => match text.parse::<usize>() {
                Ok(n) if (1..=MAX_COUNT).contains(&n) => Ok(Value::Count(n)),
                _ => Err(format!("{name}={text}: expected an integer from 1 to {MAX_COUNT}")),
            },
            Kind::Flag => match text.parse() {
                Ok(flag) => Ok(Value::Flag(flag)),
                Err(_) => Err(format!("{name}={text}: expected true or false")),
            },
            Kind::Number => match text.parse::<f64>() {
                Ok(x) if x.is_finite() => Ok(Value::Number(x)),
                Ok(_) => Err(format!("{name} = {text}: expected a finite number")),
                Err(_) => Err(format!("{name}={text}: expected a number")),
            },
            Kind::Word(words) => match words.iter().find(|w| **w == text) {
                Some(word) => Ok(Value::Word(word)),
                None => Err(format!("{name}={text}: expected {}", words.join(", "))),
            },
            Kind::Lens => Ok(lens::parse(text)?.into()),
        }
    }

    /// What a manifest's expressions see of a variable that the problem goes without: 0, false or
    /// an empty word. Lengths are nothing that they can name.
    pub(super) fn nothing(self) -> Option<Scalar> {
        match self {
            Kind::Count => Some(Scalar::Int(0)),
            Kind::Flag => Some(Scalar::Bool(false)),
            Kind::Number => Some(Scalar::Float(0.0)),
            Kind::Word(_) => Some(Scalar::Word("")),
            Kind::Lens => None,
        }
    }

    /// The value that a record's JSON holds.
    ///
    /// # Errors
    /// It is none of that kind; the message says what it should be.
    pub(super) fn read_json(self, json: &serde_json::Value) -> Result<Value, String> {
        use serde_json::Value as Json;
        let wrong = |wants: &str| Err(format!("{json} is not {wants}"));
        match (self, json) {
            (Kind::Count, Json::Number(n)) => match n.as_u64() {
                Some(n @ 1..) if n <= MAX_COUNT as u64 => Ok(Value::Count(n as usize)),
                _ => wrong("a count"),
            },
            (Kind::Flag, Json::Bool(flag)) => Ok(Value::Flag(*flag)),
            (Kind::Number, Json::Number(n)) => {
                n.as_f64().map_or_else(|| wrong("a number"), |x| Ok(Value::Number(x)))
            }
            (Kind::Word(words), Json::String(text)) => match words.iter().find(|w| *w == text) {
                Some(word) => Ok(Value::Word(word)),
                None => wrong(&format!("one of {}", words.join(", "))),
            },
            (Kind::Lens, json) => {
                let lens: Result<Vec<[usize; 2]>, _> = serde_json::from_value(json.clone());
                match lens {
                    Ok(lens) if lens.iter().flatten().all(|n| *n <= MAX_COUNT) => Ok(lens.into()),
                    _ => wrong("a list of pairs of lengths, each up to 2^30"),
                }
            }
            (Kind::Count, _) => wrong("a count"),
            (Kind::Flag, _) => wrong("true or false"),
            (Kind::Number, _) => wrong("a number"),
            (Kind::Word(_), _) => wrong("a word"),
        }
    }
}

impl Value {
    /// As a record's JSON holds it; null for none.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Value::None => serde_json::Value::Null,
            Value::Count(n) => (*n).into(),
            Value::Flag(flag) => (*flag).into(),
            Value::Number(x) => (*x).into(),
            Value::Word(word) => (*word).into(),
            Value::Lens(lens) => lens.iter().map(|l| l.to_vec()).collect::<Vec<_>>().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_values_or_say_why_not() {
        let words = Kind::Word(&["fp32", "bf16"]);
        assert_eq!(Kind::Count.parse("B", "3"), Ok(Value::Count(3)));
        assert_eq!(words.parse("state", "bf16"), Ok(Value::Word("bf16")));
        for (kind, text, why) in [
            (Kind::Count, "0", "from 1 to"),
            (Kind::Count, "-1", "from 1 to"),
            (Kind::Count, "1073741825", "from 1 to 1073741824"),
            (Kind::Flag, "yes", "true or false"),
            (Kind::Number, "inf", "finite"),
            (Kind::Number, "x", "a number"),
            (words, "fp64", "fp32, bf16"),
            (Kind::Lens, "1+", "no length"),
        ] {
            assert!(kind.parse("x", text).unwrap_err().contains(why), "{kind:?} {text}");
        }
    }

    #[test]
    fn json_round_trips() {
        let lens: Value = vec![[1, 2], [3, 4]].into();
        for (kind, value) in [
            (Kind::Count, Value::Count(7)),
            (Kind::Flag, Value::Flag(true)),
            (Kind::Number, Value::Number(0.08838834764831845)),
            (Kind::Word(&["a", "b"]), Value::Word("b")),
            (Kind::Lens, lens),
        ] {
            assert_eq!(kind.read_json(&value.to_json()), Ok(value.clone()));
            assert!(kind.read_json(&serde_json::json!({})).is_err());
        }
        // Their sum is no overflow.
        let long = serde_json::json!([[1, 1], [u64::MAX, 1]]);
        assert!(Kind::Lens.read_json(&long).unwrap_err().contains("up to 2^30"));
    }

    #[test]
    fn the_order_is_total() {
        let lens: Value = vec![[1, 2]].into();
        let mut all = [lens.clone(), Value::Number(f64::NAN), Value::Count(2), Value::None];
        all.sort();
        assert_eq!(all[0], Value::None);
        assert_eq!(all[1], Value::Count(2));
        assert_eq!(all[3], lens);
    }
}
