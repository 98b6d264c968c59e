//! Compiling PTX with the driver, and launching what comes out.

use std::ffi::{CString, c_void};
use std::ptr;
use std::sync::Arc;
use std::time::Instant;

use cudarc::driver::sys::{self, CUfunction_attribute as Attribute, CUjit_option as Jit, CUresult};

use super::driver::{Context, Page};
use super::log;
use super::memory::NO_EXTRA;
use crate::device::{DeviceError, EntryBuild, Launch, Ptx};

const LOG_BYTES: usize = 256 * 1024;

/// A loaded module. Unloaded by [`Module::unload`] or with its context.
pub(super) struct Module {
    raw: sys::CUmodule,
    pub warnings: Vec<String>,
    pub load_ms: f64,
}

// SAFETY: module handles may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Compiles `ptx`. Not through cuLink*, where the compiler ignores setmaxnreg.
    ///
    /// # Errors
    /// [`DeviceError::Build`] with the log, its lines placed in the template.
    pub fn compile(
        context: &Context,
        ptx: &Ptx,
        compute_capability: (u32, u32),
    ) -> Result<Module, DeviceError> {
        let failed = |why: String| {
            DeviceError::Build(format!("kernel {} does not compile: {why}", ptx.kernel))
        };
        if let Some(why) = log::target(&ptx.text).and_then(|t| log::misfit(t, compute_capability)) {
            return Err(failed(why));
        }
        let image = CString::new(ptx.text.as_str())
            .map_err(|e| failed(format!("the PTX has a NUL byte at {}", e.nul_position())))?;

        let (mut info, mut errors) = (vec![0u8; LOG_BYTES], vec![0u8; LOG_BYTES]);
        let number = |x: usize| ptr::without_provenance_mut::<c_void>(x);
        let mut options = [
            Jit::CU_JIT_INFO_LOG_BUFFER,
            Jit::CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
            Jit::CU_JIT_ERROR_LOG_BUFFER,
            Jit::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
            Jit::CU_JIT_LOG_VERBOSE,
        ];
        let mut values = [
            info.as_mut_ptr().cast(),
            number(LOG_BYTES),
            errors.as_mut_ptr().cast(),
            number(LOG_BYTES),
            number(1),
        ];
        let mut raw = ptr::null_mut();
        let start = Instant::now();
        // SAFETY: the image ends in NUL; each option has its value, each log its size.
        let result = unsafe {
            sys::cuModuleLoadDataEx(
                &mut raw,
                image.as_ptr().cast(),
                options.len() as u32,
                options.as_mut_ptr(),
                values.as_mut_ptr(),
            )
        };
        let load_ms = start.elapsed().as_secs_f64() * 1e3;
        if result != CUresult::CUDA_SUCCESS {
            let said = log::explain(&text_of(&errors), ptx);
            let said = if said.is_empty() { String::new() } else { format!("\n{said}") };
            return match context.check(result, String::new) {
                Err(DeviceError::Launch(name)) => {
                    Err(failed(format!("{}{said}", name.trim_start_matches(": "))))
                }
                other => other.and(Err(failed(said))),
            };
        }
        let mut warnings = log::warnings(&text_of(&info));
        warnings.extend(log::warnings(&text_of(&errors)));
        Ok(Module { raw, warnings, load_ms })
    }

    /// Gives the module back to the driver.
    pub fn unload(&self) {
        // SAFETY: callers hold the only reference, so no function of the module is used again.
        let _ = unsafe { sys::cuModuleUnload(self.raw) };
    }

    /// The entry of this name.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] if the PTX has none.
    pub fn function(&self, context: &Context, name: &str) -> Result<Function, DeviceError> {
        let missing = || format!("the PTX has no entry {name:?}");
        let symbol = CString::new(name).map_err(|_| DeviceError::Launch(missing()))?;
        let mut raw = ptr::null_mut();
        // SAFETY: writes one handle.
        let found = unsafe { sys::cuModuleGetFunction(&mut raw, self.raw, symbol.as_ptr()) };
        context.check(found, missing)?;
        Ok(Function { raw })
    }
}

/// A log buffer's text.
fn text_of(buffer: &[u8]) -> String {
    let end = buffer.iter().position(|b| *b == 0).unwrap_or(buffer.len());
    String::from_utf8_lossy(&buffer[..end]).into_owned()
}

/// An entry of a module that outlives it.
#[derive(Clone, Copy)]
pub(super) struct Function {
    raw: sys::CUfunction,
}

// SAFETY: function handles may be used from any thread.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

impl Function {
    fn attribute(&self, context: &Context, which: Attribute) -> Result<u32, DeviceError> {
        let mut value = 0;
        // SAFETY: writes one integer.
        let got = unsafe { sys::cuFuncGetAttribute(&mut value, which, self.raw) };
        context.check(got, || format!("reading {which:?}"))?;
        Ok(value.max(0) as u32)
    }

    fn set(&self, context: &Context, which: Attribute, value: u32) -> Result<(), DeviceError> {
        // SAFETY: takes an integer; the driver checks it.
        let set = unsafe { sys::cuFuncSetAttribute(self.raw, which, value as i32) };
        context.check(set, || format!("setting {which:?} to {value}"))
    }

    /// Allows the launch its shared memory and cluster, and says what the entry needs.
    ///
    /// # Errors
    /// If the launch asks for more threads, shared memory or parameters than the entry or the
    /// device has.
    pub fn prepare(
        &self,
        context: &Context,
        launch: &Launch,
        shared_limit: u32,
    ) -> Result<EntryBuild, DeviceError> {
        let entry = &launch.entry;
        let refuse = |why: String| Err(DeviceError::Launch(format!("entry {entry}: {why}")));
        let threads = u64::from(launch.block[0]) * u64::from(launch.block[1]);
        let threads = threads * u64::from(launch.block[2]);
        let max_threads =
            self.attribute(context, Attribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?;
        let registers = self.attribute(context, Attribute::CU_FUNC_ATTRIBUTE_NUM_REGS)?;
        if threads == 0 || threads > u64::from(max_threads) {
            return refuse(format!(
                "a CTA of {threads} threads is asked for; with {registers} registers a thread \
                 and its .maxntid it may have 1 to {max_threads}"
            ));
        }
        if launch.grid.contains(&0) {
            return refuse(format!("the grid {:?} is empty", launch.grid));
        }
        let fixed = self.attribute(context, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)?;
        if u64::from(launch.shared_bytes) + u64::from(fixed) > u64::from(shared_limit) {
            return refuse(format!(
                "{} + {fixed} bytes of dynamic and static shared memory are asked for; this \
                 device gives a CTA {shared_limit}; take a smaller tile or fewer stages",
                launch.shared_bytes
            ));
        }
        self.check_parameters(context, launch)?;
        let dynamic = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        if launch.shared_bytes > self.attribute(context, dynamic)? {
            self.set(context, dynamic, launch.shared_bytes)?;
        }
        if launch.cluster.iter().product::<u32>() > 8 {
            self.set(context, Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        let mut ctas_per_sm = 0;
        // SAFETY: writes one integer.
        let got = unsafe {
            sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(
                &mut ctas_per_sm,
                self.raw,
                threads as i32,
                launch.shared_bytes as usize,
            )
        };
        context.check(got, || format!("entry {entry}: occupancy"))?;
        Ok(EntryBuild {
            registers,
            local_bytes: self.attribute(context, Attribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES)?,
            static_shared_bytes: fixed,
            ctas_per_sm: ctas_per_sm.max(0) as u32,
        })
    }

    /// The driver copies as many bytes as the entry declares, so the arguments must match it.
    fn check_parameters(&self, context: &Context, launch: &Launch) -> Result<(), DeviceError> {
        let entry = &launch.entry;
        let mut declared = Vec::new();
        loop {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: writes two sizes, or says that there is no such parameter.
            let result = unsafe {
                sys::cuFuncGetParamInfo(self.raw, declared.len(), &mut offset, &mut size)
            };
            if result == CUresult::CUDA_ERROR_INVALID_VALUE {
                break;
            }
            context.check(result, || format!("entry {entry}: parameters"))?;
            declared.push(size);
        }
        if declared.len() != launch.args.len() {
            return Err(DeviceError::Launch(format!(
                "entry {entry}: the PTX declares {} parameters, the launch has {}",
                declared.len(),
                launch.args.len()
            )));
        }
        for (i, (arg, size)) in launch.args.iter().zip(&declared).enumerate() {
            let given = Packed::size_of(arg);
            if given != *size {
                return Err(DeviceError::Launch(format!(
                    "entry {entry}: parameter {i} has {size} bytes in the PTX and {given} in the \
                     launch"
                )));
            }
        }
        Ok(())
    }
}

/// A parameter's value, where the driver reads it from.
pub(super) enum Packed {
    U32(u32),
    U64(u64),
    F32(f32),
    Map(Box<sys::CUtensorMap>),
}

impl Packed {
    fn size_of(arg: &crate::device::Arg) -> usize {
        use crate::device::Arg;
        match arg {
            Arg::U32(_) | Arg::F32(_) => 4,
            Arg::U64(_) | Arg::Buffer(_) => 8,
            Arg::TensorMap(_) => size_of::<sys::CUtensorMap>(),
        }
    }

    fn pointer(&self) -> *mut c_void {
        match self {
            Packed::U32(x) => ptr::from_ref(x).cast_mut().cast(),
            Packed::U64(x) => ptr::from_ref(x).cast_mut().cast(),
            Packed::F32(x) => ptr::from_ref(x).cast_mut().cast(),
            Packed::Map(x) => ptr::from_ref(&**x).cast_mut().cast(),
        }
    }
}

/// A launch ready to be queued.
pub(super) struct Ready {
    pub entry: String,
    pub function: Function,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    pub shared_bytes: u32,
    /// As many and as large as the entry declares; see [`Function::prepare`].
    pub args: Vec<Packed>,
}

impl Ready {
    /// Queues the launch on the context's stream.
    ///
    /// # Errors
    /// [`DeviceError::Launch`] with the shape of the launch, if the driver refuses it.
    pub fn queue(&self, context: &Context) -> Result<(), DeviceError> {
        let mut params: Vec<*mut c_void> = self.args.iter().map(Packed::pointer).collect();
        let [x, y, z] = self.cluster;
        let mut cluster = sys::CUlaunchAttribute {
            id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
            pad: [0; 4],
            value: sys::CUlaunchAttributeValue {
                clusterDim: sys::CUlaunchAttributeValue_union__bindgen_ty_1 { x, y, z },
            },
        };
        let config = sys::CUlaunchConfig {
            gridDimX: self.grid[0],
            gridDimY: self.grid[1],
            gridDimZ: self.grid[2],
            blockDimX: self.block[0],
            blockDimY: self.block[1],
            blockDimZ: self.block[2],
            sharedMemBytes: self.shared_bytes,
            hStream: context.stream,
            attrs: &mut cluster,
            numAttrs: u32::from(x * y * z > 1),
        };
        // SAFETY: `params` point at values of the declared sizes (checked by `prepare`), which
        // the driver copies before it returns.
        let queued = unsafe {
            sys::cuLaunchKernelEx(&config, self.function.raw, params.as_mut_ptr(), NO_EXTRA)
        };
        context.check(queued, || {
            format!(
                "entry {}: launching grid {:?}, block {:?}, cluster {:?}, {} bytes of shared memory",
                self.entry, self.grid, self.block, self.cluster, self.shared_bytes
            )
        })
    }
}

/// The kernels that measuring and checking need, one set a context.
pub(super) struct Tools {
    hold: Function,
    spin: Function,
    stamp: Function,
    hash: Function,
    /// A module that nobody holds may be unloaded.
    _module: Arc<Module>,
}

impl Tools {
    /// Compiles `tools.ptx`, or takes it from the context's cache.
    ///
    /// # Errors
    /// The driver does not compile it.
    pub fn new(context: &Context, compute_capability: (u32, u32)) -> Result<Tools, DeviceError> {
        let ptx = Ptx {
            kernel: "tools".into(),
            text: include_str!("tools.ptx").into(),
            origin: Vec::new(),
            sha256: String::new(),
            macros: Default::default(),
        };
        let module: Arc<Module> =
            context.module(&ptx.text, || Module::compile(context, &ptx, compute_capability))?;
        let function = |name| module.function(context, name);
        let [hold, spin] = [function("hold")?, function("spin")?];
        let [stamp, hash] = [function("stamp")?, function("hash")?];
        Ok(Tools { hold, spin, stamp, hash, _module: module })
    }

    fn queue(
        &self,
        context: &Context,
        entry: &str,
        function: Function,
        ctas: u32,
        threads: u32,
        args: Vec<Packed>,
    ) -> Result<(), DeviceError> {
        let (grid, block, cluster) = ([ctas, 1, 1], [threads, 1, 1], [1; 3]);
        let entry = entry.to_owned();
        Ready { entry, function, grid, block, cluster, shared_bytes: 0, args }.queue(context)
    }

    /// Stops the stream until the page's word 0 is set, or `limit_ns` have gone by: then word 1
    /// is set.
    ///
    /// # Errors
    /// The driver's refusal of the launch.
    pub fn hold(&self, context: &Context, limit_ns: u64) -> Result<(), DeviceError> {
        let args = vec![Packed::U64(context.page.device), Packed::U64(limit_ns)];
        self.queue(context, "hold", self.hold, 1, 1, args)
    }

    /// Keeps the stream busy for so many cycles.
    ///
    /// # Errors
    /// As [`Tools::hold`].
    pub fn spin(&self, context: &Context, cycles: u64) -> Result<(), DeviceError> {
        self.queue(context, "spin", self.spin, 1, 1, vec![Packed::U64(cycles)])
    }

    /// Writes clock and time of the multiprocessors that `ctas` CTAs land on, as probe 0 or 1.
    ///
    /// # Errors
    /// As [`Tools::hold`].
    pub fn stamp(&self, context: &Context, probe: usize, ctas: u32) -> Result<(), DeviceError> {
        let offset = Page::STAMPS + probe * Page::SLOTS * 16;
        let args = vec![Packed::U64(context.page.device + offset as u64)];
        self.queue(context, "stamp", self.stamp, ctas, 1, args)
    }

    /// Adds the hash of each 64 KB of `bytes` at `data` to the 8-byte values at `out`.
    ///
    /// # Errors
    /// As [`Tools::hold`].
    pub fn hash(
        &self,
        context: &Context,
        data: u64,
        bytes: usize,
        out: u64,
        blocks: u32,
    ) -> Result<(), DeviceError> {
        let args = vec![Packed::U64(data), Packed::U64(bytes as u64 / 2), Packed::U64(out)];
        self.queue(context, "hash", self.hash, blocks, 256, args)
    }
}
