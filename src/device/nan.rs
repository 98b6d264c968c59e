//! JSON has no NaN or infinity: they are written as `null`, and read back as NaN.

use indexmap::IndexMap;
use serde::{Deserialize, Deserializer};

/// A number, or NaN for `null`.
///
/// # Errors
/// A value that is neither.
pub fn one<'de, D: Deserializer<'de>>(d: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(d)?.unwrap_or(f64::NAN))
}

/// As [`one`], two of them.
///
/// # Errors
/// As of [`one`], or another number of values.
pub fn pair<'de, D: Deserializer<'de>>(d: D) -> Result<(f64, f64), D::Error> {
    let (a, b) = <(Option<f64>, Option<f64>)>::deserialize(d)?;
    Ok((a.unwrap_or(f64::NAN), b.unwrap_or(f64::NAN)))
}

/// As [`one`], any number of them.
///
/// # Errors
/// As of [`one`].
pub fn many<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<f64>, D::Error> {
    let all = Vec::<Option<f64>>::deserialize(d)?;
    Ok(all.into_iter().map(|x| x.unwrap_or(f64::NAN)).collect())
}

/// As [`one`], any number of them, each with a name.
///
/// # Errors
/// As of [`one`].
pub fn by_name<'de, D: Deserializer<'de>>(d: D) -> Result<IndexMap<String, f64>, D::Error> {
    let all = IndexMap::<String, Option<f64>>::deserialize(d)?;
    Ok(all.into_iter().map(|(name, x)| (name, x.unwrap_or(f64::NAN))).collect())
}
