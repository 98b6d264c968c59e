//! Buffers between canaries, and hashes that show whether a kernel changed its inputs.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys;

use super::driver::Context;
use super::module::Tools;
use crate::device::DeviceError;

/// Canary bytes on each side of a buffer: a row of a tile too many still lands in them.
const CANARY_BYTES: usize = 16 * 1024;

/// A NaN in bf16, fp16 and fp32 alike, so that a value read from a canary shows too.
const CANARY: u16 = 0xFFC5;

/// Alignment of a buffer's first byte, as 128-byte swizzles over tensor maps want it.
const ALIGN: usize = 1024;

/// Bytes that one hash covers: the finest place a changed input is reported at.
pub(super) const HASH_BLOCK: usize = 64 * 1024;

/// One allocation: canary, payload, canary.
pub(super) struct Guarded {
    context: Arc<Context>,
    base: sys::CUdeviceptr,
    pub name: String,
    /// The payload's address, a multiple of 1024.
    pub address: sys::CUdeviceptr,
    pub bytes: usize,
}

impl Guarded {
    /// Allocates `bytes` (an even number, as every element type has one) and sets the canaries.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] with the free memory, if there is too little.
    pub fn new(context: &Arc<Context>, name: &str, bytes: usize) -> Result<Guarded, DeviceError> {
        let all = ALIGN + CANARY_BYTES + bytes + CANARY_BYTES;
        let mut base = 0;
        // SAFETY: writes one address; the context is current.
        let result = unsafe { sys::cuMemAlloc_v2(&mut base, all) };
        context.check(result, || {
            let (mut free, mut total) = (0, 0);
            // SAFETY: writes two sizes.
            let _ = unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) };
            format!(
                "buffer {name}: {} MB wanted, {} of {} MB free; take a smaller problem",
                all / 1_000_000,
                free / 1_000_000,
                total / 1_000_000
            )
        })?;
        let address = (base + CANARY_BYTES as u64).next_multiple_of(ALIGN as u64);
        let buffer =
            Guarded { context: context.clone(), base, name: name.to_owned(), address, bytes };
        for start in [buffer.front(), buffer.back()] {
            // SAFETY: both canaries lie inside the allocation.
            let set =
                unsafe { sys::cuMemsetD16Async(start, CANARY, CANARY_BYTES / 2, context.stream) };
            context.check(set, || format!("setting the canaries of {name}"))?;
        }
        Ok(buffer)
    }

    fn front(&self) -> sys::CUdeviceptr {
        self.address - CANARY_BYTES as u64
    }

    fn back(&self) -> sys::CUdeviceptr {
        self.address + self.bytes as u64
    }

    /// Sets every byte of the payload, behind the stream's earlier work.
    ///
    /// # Errors
    /// The driver's refusal, or a fault of earlier work that it now tells.
    pub fn fill(&self, byte: u8) -> Result<(), DeviceError> {
        if self.bytes == 0 {
            return Ok(());
        }
        // SAFETY: the payload lies inside the allocation.
        let set =
            unsafe { sys::cuMemsetD8Async(self.address, byte, self.bytes, self.context.stream) };
        self.context.check(set, || format!("filling buffer {}", self.name))
    }

    /// Copies `data`, as long as the payload, to the device, behind the stream's earlier work.
    ///
    /// # Errors
    /// As [`Guarded::fill`]. Panics if `data` is of another length.
    pub fn upload(&self, data: &[u8]) -> Result<(), DeviceError> {
        assert_eq!(data.len(), self.bytes, "data fill buffer {}", self.name);
        if data.is_empty() {
            return Ok(());
        }
        let from: *const c_void = data.as_ptr().cast();
        let stream = self.context.stream;
        // SAFETY: both sides are `bytes` long; from pageable memory the call returns once `data`
        // has been read.
        let copied = unsafe { sys::cuMemcpyHtoDAsync_v2(self.address, from, self.bytes, stream) };
        self.context.check(copied, || format!("uploading buffer {}", self.name))
    }

    /// The payload, once the stream is idle.
    ///
    /// # Errors
    /// As [`Guarded::fill`].
    pub fn download(&self) -> Result<Vec<u8>, DeviceError> {
        self.read(self.address, self.bytes)
    }

    fn read(&self, start: sys::CUdeviceptr, bytes: usize) -> Result<Vec<u8>, DeviceError> {
        let mut data = vec![0u8; bytes];
        if bytes > 0 {
            // SAFETY: callers name a range of the allocation; `data` has as many bytes.
            let copied = unsafe { sys::cuMemcpyDtoH_v2(data.as_mut_ptr().cast(), start, bytes) };
            self.context.check(copied, || format!("downloading buffer {}", self.name))?;
        }
        Ok(data)
    }

    /// A sentence for each canary that was written, naming the first and last place; sets it
    /// again.
    ///
    /// # Errors
    /// As [`Guarded::fill`].
    pub fn damage(&self) -> Result<Vec<String>, DeviceError> {
        let mut found = Vec::new();
        for (start, front) in [(self.front(), true), (self.back(), false)] {
            let data = self.read(start, CANARY_BYTES)?;
            if let Some(sentence) = describe(&self.name, self.bytes, front, &data) {
                found.push(sentence);
                // SAFETY: the canary lies inside the allocation.
                let set = unsafe {
                    sys::cuMemsetD16Async(start, CANARY, CANARY_BYTES / 2, self.context.stream)
                };
                self.context.check(set, || format!("setting the canaries of {}", self.name))?;
            }
        }
        Ok(found)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: allocated by `new` and freed once; the driver waits for kernels using it.
            let _ = unsafe { sys::cuMemFree_v2(self.base) };
        }
    }
}

fn describe(name: &str, bytes: usize, front: bool, canary: &[u8]) -> Option<String> {
    let intact = CANARY.to_le_bytes();
    let wrong = |i: &usize| canary[*i] != intact[i % 2];
    let first = (0..canary.len()).find(wrong)?;
    let last = (0..canary.len()).rfind(wrong)?;
    let count = (0..canary.len()).filter(wrong).count();
    Some(if front {
        let (far, near) = (canary.len() - first, canary.len() - last);
        format!(
            "buffer {name} ({bytes} bytes): {count} bytes before its start were written, \
             {near} to {far} bytes before it"
        )
    } else {
        format!(
            "buffer {name} ({bytes} bytes): {count} bytes past its end were written, \
             {first} to {last} bytes past it"
        )
    })
}

/// Hashes of every 64 KB of a buffer, computed on the device: all of it is covered at the speed
/// of memory, and no copy of the inputs is kept.
pub(super) struct Hashes {
    scratch: Guarded,
    before: Vec<u8>,
}

impl Hashes {
    /// Hashes `buffer` as it is now.
    ///
    /// # Errors
    /// No room for 8 bytes each 64 KB, or the hashing kernel failed.
    pub fn new(buffer: &Guarded, tools: &Tools) -> Result<Hashes, DeviceError> {
        let blocks = buffer.bytes.div_ceil(HASH_BLOCK);
        let scratch = Guarded::new(&buffer.context, "hashes", blocks * 8)?;
        let mut hashes = Hashes { scratch, before: Vec::new() };
        hashes.before = hashes.compute(buffer, tools)?;
        Ok(hashes)
    }

    fn compute(&self, buffer: &Guarded, tools: &Tools) -> Result<Vec<u8>, DeviceError> {
        if buffer.bytes == 0 {
            return Ok(Vec::new());
        }
        self.scratch.fill(0)?;
        let blocks = buffer.bytes.div_ceil(HASH_BLOCK) as u32;
        tools.hash(&buffer.context, buffer.address, buffer.bytes, self.scratch.address, blocks)?;
        buffer.context.wait("hash")?;
        self.scratch.download()
    }

    /// A sentence if `buffer` differs from what it was.
    ///
    /// # Errors
    /// The hashing kernel failed.
    pub fn damage(&self, buffer: &Guarded, tools: &Tools) -> Result<Option<String>, DeviceError> {
        let now = self.compute(buffer, tools)?;
        let changed = now.chunks(8).zip(self.before.chunks(8)).position(|(a, b)| a != b);
        Ok(changed.map(|block| {
            let start = block * HASH_BLOCK;
            let end = (start + HASH_BLOCK).min(buffer.bytes);
            format!("input {}: changed by the kernel, first in bytes {start} to {end}", buffer.name)
        }))
    }
}

/// Device memory written over to flush L2.
pub(super) struct Flush {
    context: Arc<Context>,
    base: sys::CUdeviceptr,
    bytes: usize,
}

impl Flush {
    /// Allocates `bytes` of device memory.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] if they cannot be had.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Flush, DeviceError> {
        let mut base = 0;
        // SAFETY: writes one address.
        let result = unsafe { sys::cuMemAlloc_v2(&mut base, bytes) };
        context.check(result, || format!("{} MB to flush L2 with", bytes / 1_000_000))?;
        Ok(Flush { context: context.clone(), base, bytes })
    }

    /// Queues the overwriting of all of it.
    ///
    /// # Errors
    /// The driver's refusal.
    pub fn run(&self) -> Result<(), DeviceError> {
        let stream = self.context.stream;
        // SAFETY: fills the allocation.
        let set = unsafe { sys::cuMemsetD8Async(self.base, 0, self.bytes, stream) };
        self.context.check(set, || "flushing L2".into())
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        if self.context.bind().is_ok() {
            // SAFETY: allocated by `new` and freed once.
            let _ = unsafe { sys::cuMemFree_v2(self.base) };
        }
    }
}

/// No parameters, for calls that take none.
pub(super) const NO_EXTRA: *mut *mut c_void = ptr::null_mut();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canary_damage_names_the_place() {
        let mut canary = CANARY.to_le_bytes().repeat(CANARY_BYTES / 2);
        assert_eq!(describe("o", 64, true, &canary), None);
        canary[10] = 0;
        canary[13] = 0;
        let back = describe("o", 64, false, &canary).unwrap();
        assert!(back.contains("buffer o (64 bytes): 2 bytes past its end"), "{back}");
        assert!(back.contains("10 to 13 bytes past"), "{back}");
        let mut canary = CANARY.to_le_bytes().repeat(CANARY_BYTES / 2);
        canary[CANARY_BYTES - 1] = 0;
        let front = describe("o", 64, true, &canary).unwrap();
        assert!(front.contains("1 bytes before its start"), "{front}");
        assert!(front.contains("1 to 1 bytes before it"), "{front}");
    }
}
