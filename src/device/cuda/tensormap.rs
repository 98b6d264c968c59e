//! Tensor maps encoded by the driver.

use std::ffi::c_void;
use std::ptr;

use cudarc::driver::sys::{self, CUtensorMapDataType as Type, CUtensorMapSwizzle as Mode};

use super::driver::ok;
use crate::device::tensormap::validate;
use crate::device::{Buffer, DeviceError, Swizzle, TensorMap};
use crate::op::dtype::MapType;

/// Encodes `map` over `buffer`, whose payload is at `address`, a multiple of 1024.
///
/// # Errors
/// [`DeviceError::Launch`] naming the buffer, the field and the rule it breaks.
pub(super) fn encode(
    map: &TensorMap,
    buffer: &Buffer,
    address: u64,
) -> Result<Box<sys::CUtensorMap>, DeviceError> {
    let refuse =
        |why: String| DeviceError::Launch(format!("tensor map over {}: {why}", buffer.name));
    validate(map, buffer.bytes() as u64).map_err(refuse)?;
    let dtype = match map.dtype.format().map {
        MapType::Bf16 => Type::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        MapType::F16 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        MapType::F32 => Type::CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
        MapType::S32 => Type::CU_TENSOR_MAP_DATA_TYPE_INT32,
        MapType::U8 => Type::CU_TENSOR_MAP_DATA_TYPE_UINT8,
    };
    let swizzle = match map.swizzle {
        Swizzle::None => Mode::CU_TENSOR_MAP_SWIZZLE_NONE,
        Swizzle::B32 => Mode::CU_TENSOR_MAP_SWIZZLE_32B,
        Swizzle::B64 => Mode::CU_TENSOR_MAP_SWIZZLE_64B,
        Swizzle::B128 => Mode::CU_TENSOR_MAP_SWIZZLE_128B,
    };
    let fill = if map.nan_fill {
        sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA
    } else {
        sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE
    };
    let mut encoded = Box::new(sys::CUtensorMap { opaque: [0; 16] });
    let element_strides = vec![1u32; map.dims.len()];
    // SAFETY: the arrays have `dims.len()` elements, the strides one less; the address is only
    // recorded.
    let result = unsafe {
        sys::cuTensorMapEncodeTiled(
            &mut *encoded,
            dtype,
            map.dims.len() as u32,
            ptr::without_provenance_mut::<c_void>(address as usize),
            map.dims.as_ptr(),
            map.strides_bytes.as_ptr(),
            map.tile.as_ptr(),
            element_strides.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
            fill,
        )
    };
    ok(result).map_err(|e| refuse(format!("the driver refuses {map:?}: {e}")))?;
    Ok(encoded)
}
