//! The driver library and one context on a device, with its errors in words.

use std::collections::HashMap;
use std::ffi::CStr;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::sys::{self, CUresult};

use super::module::Module;
use crate::device::DeviceError;

/// A kernel that runs longer than this counts as hung.
const WATCHDOG: Duration = Duration::from_secs(20);

/// How long a faulted context may take to go away.
const FAREWELL: Duration = Duration::from_secs(10);

/// `CUDA_SUCCESS`, or name and description of the error.
pub(super) fn ok(result: CUresult) -> Result<(), String> {
    if result == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(words(result)) }
}

fn words(result: CUresult) -> String {
    let mut text = [ptr::null(), ptr::null()];
    // SAFETY: both calls only write a pointer to a string of static lifetime, or leave null.
    let text = unsafe {
        let _ = sys::cuGetErrorName(result, &mut text[0]);
        let _ = sys::cuGetErrorString(result, &mut text[1]);
        text.map(|p| if p.is_null() { None } else { CStr::from_ptr(p).to_str().ok() })
    };
    match text {
        [Some(name), Some(what)] => format!("{name}: {what}"),
        _ => format!("CUDA error {}", result as u32),
    }
}

/// Loads the driver library and initializes it, once a process.
///
/// # Errors
/// [`DeviceError::Unavailable`] if there is no driver, it is too old, or it finds no device.
pub(super) fn driver_version() -> Result<(i32, i32), DeviceError> {
    static DRIVER: OnceLock<Result<(i32, i32), String>> = OnceLock::new();
    DRIVER.get_or_init(initialize).clone().map_err(DeviceError::Unavailable)
}

fn initialize() -> Result<(i32, i32), String> {
    // SAFETY: opens and closes the library; its initializers take no part of this program.
    if !unsafe { sys::is_culib_present() } {
        return Err("no CUDA driver found (libcuda.so.1 could not be loaded); \
                    use --device emulator"
            .into());
    }
    if std::env::var_os("CUDA_CACHE_DISABLE").is_none() {
        // A cached compilation has no log, and the log is where lost performance is reported.
        // SAFETY: before cuInit, once; the other threads of this program read the environment
        // through std alone, which locks it.
        unsafe { std::env::set_var("CUDA_CACHE_DISABLE", "1") };
    }
    let mut version = 0;
    // SAFETY: writes one integer.
    ok(unsafe { sys::cuDriverGetVersion(&mut version) }).map_err(|e| {
        format!("the CUDA driver does not tell its version ({e}); use --device emulator")
    })?;
    let version = (version / 1000, version % 1000 / 10);
    if version < (12, 8) {
        return Err(format!(
            "the CUDA driver supports CUDA {}.{} and 12.8 is the least that works; update the \
             driver or use --device emulator",
            version.0, version.1
        ));
    }
    // SAFETY: takes flags, which must be 0.
    ok(unsafe { sys::cuInit(0) })
        .map_err(|e| format!("the CUDA driver does not start ({e}); use --device emulator"))?;
    Ok(version)
}

/// Errors after which a context answers every call with the same error.
fn is_sticky(result: CUresult) -> bool {
    use CUresult::*;
    matches!(
        result,
        CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_LAUNCH_FAILED
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUDA_ERROR_UNKNOWN
    )
}

/// What usually lies behind a fault.
fn advice(result: CUresult) -> &'static str {
    use CUresult::*;
    match result {
        CUDA_ERROR_ILLEGAL_ADDRESS | CUDA_ERROR_MISALIGNED_ADDRESS => {
            "; the same case with --device emulator names the instruction and the address"
        }
        CUDA_ERROR_ILLEGAL_INSTRUCTION => {
            "; often a matrix or tensor-map descriptor that the hardware rejects"
        }
        CUDA_ERROR_LAUNCH_FAILED => "; a trap, or a fault of an asynchronous copy or barrier",
        CUDA_ERROR_LAUNCH_TIMEOUT => "; a display's watchdog ended it: use smaller problems",
        CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => {
            "; too many registers or too much shared memory for this many threads"
        }
        CUDA_ERROR_INVALID_CLUSTER_SIZE => "; the grid must be a multiple of the cluster",
        _ => "",
    }
}

/// Host memory that kernels reach too: a flag that holds the stream, and clock stamps.
pub(super) struct Page {
    host: *mut c_void,
    pub device: sys::CUdeviceptr,
}

impl Page {
    /// Stamps of one probe: two 8-byte values for each multiprocessor id below this.
    pub const SLOTS: usize = 1024;
    /// Where the stamps of probe 0 start, after the flag; probe 1 follows.
    pub const STAMPS: usize = 64;
    const BYTES: usize = Self::STAMPS + 2 * Self::SLOTS * 16;

    /// The 4-byte word `i` of the page.
    pub fn word(&self, i: usize) -> &AtomicU32 {
        assert!(i < Self::BYTES / 4, "inside the page");
        // SAFETY: inside the page, aligned, and reached by others through atomics or by kernels.
        unsafe { AtomicU32::from_ptr(self.host.cast::<u32>().add(i)) }
    }

    /// The 8-byte value at `byte`, once kernels have finished writing it.
    pub fn value(&self, byte: usize) -> u64 {
        let half = |i| u64::from(self.word(byte / 4 + i).load(Ordering::Acquire));
        half(0) | half(1) << 32
    }

    /// Sets the whole page to zero.
    pub fn clear(&self) {
        (0..Self::BYTES / 4).for_each(|i| self.word(i).store(0, Ordering::Release));
    }
}

/// A context of its own (not the primary one), so that it can be thrown away after a fault.
pub(super) struct Context {
    raw: sys::CUcontext,
    pub stream: sys::CUstream,
    /// Recorded behind the work that [`Context::wait`] waits for.
    fence: sys::CUevent,
    pub page: Page,
    /// Compiled modules by their PTX.
    modules: Mutex<HashMap<String, Arc<Module>>>,
    /// Why no call may be made any more.
    broken: OnceLock<String>,
}

// SAFETY: the driver's handles may be used from any thread; the page is reached by atomics.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Makes a context on `device` and clears its page.
    ///
    /// # Errors
    /// The driver's refusal to make the context, its stream, its event or its page, in words.
    pub fn new(device: sys::CUdevice) -> Result<Arc<Context>, String> {
        let mut raw = ptr::null_mut();
        // SAFETY: writes one handle; null parameters ask for a plain context.
        ok(unsafe { sys::cuCtxCreate_v4(&mut raw, ptr::null_mut(), 0, device) })?;
        let mut context = Context {
            raw,
            stream: ptr::null_mut(),
            fence: ptr::null_mut(),
            page: Page { host: ptr::null_mut(), device: 0 },
            modules: Mutex::default(),
            broken: OnceLock::new(),
        };
        let non_blocking = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the context was just made current; each call writes one handle or address.
        unsafe {
            ok(sys::cuStreamCreate(&mut context.stream, non_blocking))?;
            ok(sys::cuEventCreate(&mut context.fence, 0))?;
            let mapped = sys::CU_MEMHOSTALLOC_DEVICEMAP;
            ok(sys::cuMemHostAlloc(&mut context.page.host, Page::BYTES, mapped))?;
            let page = &mut context.page;
            ok(sys::cuMemHostGetDevicePointer_v2(&mut page.device, page.host, 0))?;
        }
        context.page.clear();
        Ok(Arc::new(context))
    }

    /// Makes this the calling thread's context.
    ///
    /// # Errors
    /// If an earlier fault broke it.
    pub fn bind(&self) -> Result<(), DeviceError> {
        if let Some(why) = self.broken.get() {
            return Err(DeviceError::Launch(format!("this context is lost: {why}")));
        }
        // SAFETY: `raw` lives until it is broken or dropped.
        self.check(unsafe { sys::cuCtxSetCurrent(self.raw) }, || {
            "making the context current".into()
        })
    }

    /// Whether a fault or a hung kernel has made it unusable.
    pub fn is_broken(&self) -> bool {
        self.broken.get().is_some()
    }

    /// Turns a driver's answer into a launch error that begins with `doing`.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] with what was being done and the driver's words, for any answer but
    /// success. An error that the context cannot outlive breaks it.
    pub fn check(
        &self,
        result: CUresult,
        doing: impl FnOnce() -> String,
    ) -> Result<(), DeviceError> {
        if result == CUresult::CUDA_SUCCESS {
            return Ok(());
        }
        let message = format!("{}: {}{}", doing(), words(result), advice(result));
        if is_sticky(result) {
            let _ = self.broken.set(message.clone());
        }
        Err(DeviceError::Launch(message))
    }

    /// Waits for all work of the stream, `kernel` last.
    ///
    /// # Errors
    /// The fault of a kernel, or [`DeviceError::Timeout`] after 20 s. Both break the context: the
    /// next load makes a new one, and if the device won't give the old one up, says so.
    pub fn wait(&self, kernel: &str) -> Result<(), DeviceError> {
        // SAFETY: handles of this context.
        let recorded = unsafe { sys::cuEventRecord(self.fence, self.stream) };
        self.check(recorded, || format!("kernel {kernel}"))?;
        let start = Instant::now();
        loop {
            // SAFETY: as above.
            let result = unsafe { sys::cuEventQuery(self.fence) };
            if result != CUresult::CUDA_ERROR_NOT_READY {
                return self.check(result, || format!("kernel {kernel}"));
            }
            let waited = start.elapsed();
            if waited > WATCHDOG {
                let message = format!(
                    "kernel {kernel} has not ended after {} s; it waits for something that never \
                     comes, or the problem is too large for it",
                    WATCHDOG.as_secs()
                );
                let _ = self.broken.set(message.clone());
                return Err(DeviceError::Timeout(message));
            }
            if waited > Duration::from_millis(2) {
                std::thread::sleep(Duration::from_micros(200));
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// Throws a broken context away, with all its memory.
    ///
    /// # Errors
    /// If the device holds on to it, as it may while a kernel hangs.
    pub fn abandon(&self) -> Result<(), String> {
        let raw = SendHandle(self.raw);
        let (done, answer) = mpsc::channel();
        std::thread::spawn(move || {
            let raw = raw;
            // SAFETY: broken, so nobody else uses the handle again.
            let _ = done.send(ok(unsafe { sys::cuCtxDestroy_v2(raw.0) }));
        });
        answer.recv_timeout(FAREWELL).unwrap_or_else(|_| Err("it does not answer".into()))
    }

    /// What broke it, in words; empty if nothing did.
    pub fn why_broken(&self) -> &str {
        self.broken.get().map_or("", String::as_str)
    }

    /// A cached module, or the one `compile` makes.
    ///
    /// # Errors
    /// What `compile` fails with.
    pub fn module(
        &self,
        ptx: &str,
        compile: impl FnOnce() -> Result<Module, DeviceError>,
    ) -> Result<Arc<Module>, DeviceError> {
        const KEPT: usize = 128;
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(module) = modules.get(ptx) {
            return Ok(module.clone());
        }
        let module = Arc::new(compile()?);
        if modules.len() >= KEPT {
            modules.retain(|_, m| {
                let used = Arc::strong_count(m) > 1;
                if !used {
                    m.unload();
                }
                used
            });
        }
        modules.insert(ptx.to_owned(), module.clone());
        Ok(module)
    }
}

struct SendHandle(sys::CUcontext);
// SAFETY: context handles may be used from any thread.
unsafe impl Send for SendHandle {}

impl Drop for Context {
    fn drop(&mut self) {
        // A broken context is abandoned or left to the end of the process: freeing could block.
        if !self.is_broken() {
            // SAFETY: the last user is gone; everything made in the context goes with it.
            let _ = unsafe { sys::cuCtxDestroy_v2(self.raw) };
        }
    }
}
