//! The rules of cuTensorMapEncodeTiled, checked in words before any device sees a map.

use super::{Swizzle, TensorMap};

/// Checks `map` over a buffer of `buffer_bytes`, whose address is a multiple of 16.
///
/// # Errors
/// The field and the rule it breaks.
pub(super) fn validate(map: &TensorMap, buffer_bytes: u64) -> Result<(), String> {
    let rank = map.dims.len();
    let element = map.dtype.bytes() as u64;
    if !(1..=5).contains(&rank) {
        return Err(format!("dims has {rank} dimensions; 1 to 5 are possible"));
    }
    if map.tile.len() != rank || map.strides_bytes.len() != rank - 1 {
        return Err(format!(
            "dims has {rank} dimensions, tile {} and strides_bytes {}; {rank} and {} are wanted",
            map.tile.len(),
            map.strides_bytes.len(),
            rank - 1
        ));
    }
    if let Some(i) = map.dims.iter().position(|d| !(1..=1 << 32).contains(d)) {
        return Err(format!("dims[{i}] = {}; 1 to 2^32 are possible", map.dims[i]));
    }
    if let Some(i) = map.tile.iter().position(|t| !(1..=256).contains(t)) {
        return Err(format!("tile[{i}] = {}; 1 to 256 are possible", map.tile[i]));
    }
    for (i, stride) in map.strides_bytes.iter().enumerate() {
        if stride % 16 != 0 || *stride >= 1 << 40 {
            return Err(format!(
                "strides_bytes[{i}] = {stride}; a multiple of 16 below 2^40 is wanted"
            ));
        }
    }
    let inner = u64::from(map.tile[0]) * element;
    if !inner.is_multiple_of(16) {
        return Err(format!("tile[0] is {inner} bytes wide; a multiple of 16 is wanted"));
    }
    let span = match map.swizzle {
        Swizzle::None => u64::MAX,
        Swizzle::B32 => 32,
        Swizzle::B64 => 64,
        Swizzle::B128 => 128,
    };
    if inner > span {
        return Err(format!("tile[0] is {inner} bytes wide; its swizzle spans {span}"));
    }
    if map.nan_fill && !map.dtype.format().map.is_float() {
        return Err("nan_fill is for floats; whole numbers are filled with zero".into());
    }
    let last = map.dims[1..]
        .iter()
        .zip(&map.strides_bytes)
        .try_fold(0u64, |sum, (dim, stride)| sum.checked_add((dim - 1).checked_mul(*stride)?));
    let end = last.and_then(|last| last.checked_add(map.dims[0] * element));
    if end.is_none_or(|end| end > buffer_bytes) {
        return Err(format!(
            "dims {:?} with strides_bytes {:?} reach past the buffer's {buffer_bytes} bytes",
            map.dims, map.strides_bytes
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::DType;

    fn map() -> TensorMap {
        TensorMap {
            buffer: 0,
            dtype: DType::Bf16,
            dims: vec![128, 1000],
            strides_bytes: vec![256],
            tile: vec![64, 128],
            swizzle: Swizzle::B128,
            nan_fill: false,
        }
    }

    #[test]
    fn rules_are_checked_with_field_and_value() {
        assert_eq!(validate(&map(), 256_000), Ok(()));
        let broken = |change: fn(&mut TensorMap), words: &str| {
            let mut m = map();
            change(&mut m);
            let e = validate(&m, 256_000).unwrap_err();
            assert!(e.contains(words), "{e}");
        };
        broken(|m| m.strides_bytes[0] = 250, "strides_bytes[0] = 250");
        broken(|m| m.tile[0] = 128, "256 bytes wide; its swizzle spans 128");
        broken(|m| m.tile[1] = 257, "tile[1] = 257");
        broken(|m| m.tile[0] = 4, "8 bytes wide");
        broken(|m| m.dims[1] = 1001, "reach past the buffer's 256000 bytes");
        broken(|m| m.dims[1] = 0, "dims[1] = 0");
        broken(|m| m.dims.clear(), "0 dimensions");
        broken(|m| m.strides_bytes.push(16), "strides_bytes 2");
    }
}
