//! A job on the GPU: its module, its buffers and its launches.

use std::sync::Arc;

use super::Station;
use super::memory::{Guarded, Hashes};
use super::module::{Module, Packed, Ready};
use super::sampler::Events;
use super::tensormap;
use crate::device::{
    Arg, Buffer, BufferRole, Build, Clock, DeviceError, Facts, Job, Launch, Loaded, Outcome,
};
use crate::op::Tensor;

/// NaN in every element type.
const POISON: u8 = 0xFF;

pub(super) struct CudaLoaded {
    // Fields drop in order: what uses the module before the module.
    events: Events,
    buffers: Vec<(Buffer, Guarded)>,
    /// Hashes of the inputs, each with its index into `buffers`.
    hashes: Vec<(usize, Hashes)>,
    launches: Vec<Ready>,
    _module: Arc<Module>,
    station: Arc<Station>,
    kernel: String,
    build: Build,
    warm: bool,
    /// Of a planted slowdown.
    spin_cycles: u64,
}

impl CudaLoaded {
    /// Compiles, allocates, uploads, checks every launch.
    ///
    /// # Errors
    /// [`DeviceError::Build`] if the PTX does not compile; else an entry that is missing, a launch
    /// or parameter that does not fit it, an input that is missing or of another size, or the
    /// driver's refusal.
    pub fn new(
        station: Arc<Station>,
        facts: &Facts,
        job: &Job,
        inputs: &[Tensor],
    ) -> Result<CudaLoaded, DeviceError> {
        let context = &station.context;
        let ptx = &job.ptx;
        let module = context
            .module(&ptx.text, || Module::compile(context, ptx, facts.compute_capability))?;

        let mut buffers = Vec::with_capacity(job.buffers.len());
        let mut hashes = Vec::new();
        for (i, buffer) in job.buffers.iter().enumerate() {
            let guarded = Guarded::new(context, &buffer.name, buffer.bytes())?;
            if let BufferRole::Input(n) = buffer.role {
                guarded.upload(input(&job.ptx.kernel, buffer, n, inputs)?)?;
                hashes.push((i, Hashes::new(&guarded, &station.tools)?));
            }
            buffers.push((buffer.clone(), guarded));
        }

        let mut build = Build {
            warnings: module.warnings.clone(),
            load_ms: module.load_ms,
            ..Build::default()
        };
        let mut launches = Vec::with_capacity(job.launches.len());
        for launch in &job.launches {
            let function = module.function(context, &launch.entry)?;
            let entry = function.prepare(context, launch, facts.shared_bytes_per_cta)?;
            let known = build.warnings.iter().any(|w| w.starts_with(&launch.entry));
            if entry.local_bytes > 0 && !known {
                build.warnings.push(format!(
                    "{}: {} bytes of local memory a thread (spills or local arrays)",
                    launch.entry, entry.local_bytes
                ));
            }
            // An entry that is launched several ways tells of the launch that fits a multiprocessor
            // least.
            let kept = build.entries.entry(launch.entry.clone()).or_insert_with(|| entry.clone());
            kept.ctas_per_sm = kept.ctas_per_sm.min(entry.ctas_per_sm);
            launches.push(Ready {
                entry: launch.entry.clone(),
                function,
                grid: launch.grid,
                block: launch.block,
                cluster: launch.cluster,
                shared_bytes: launch.shared_bytes,
                args: pack(launch, &buffers)?,
            });
        }
        Ok(CudaLoaded {
            events: Events::new(context)?,
            buffers,
            hashes,
            launches,
            _module: module,
            kernel: job.ptx.kernel.clone(),
            build,
            warm: false,
            spin_cycles: 0,
            station,
        })
    }

    pub fn station(&self) -> &Station {
        &self.station
    }

    pub fn kernel(&self) -> &str {
        &self.kernel
    }

    pub fn events(&self) -> &Events {
        &self.events
    }

    /// For how long a kernel spins behind the launches of each sample.
    pub fn spin_cycles(&self) -> u64 {
        self.spin_cycles
    }

    pub fn set_spin(&mut self, cycles: u64) {
        self.spin_cycles = cycles;
    }

    /// Queues what is timed: the zeroing of workspaces that must be zero (a kernel that needs it
    /// pays for it), then all launches.
    ///
    /// # Errors
    /// The driver's refusal of a launch or of the zeroing.
    pub fn queue(&self) -> Result<(), DeviceError> {
        self.zero()?;
        self.launches.iter().try_for_each(|launch| launch.queue(&self.station.context))
    }

    fn zero(&self) -> Result<(), DeviceError> {
        self.buffers
            .iter()
            .filter(|(b, _)| b.role == BufferRole::ZeroedWorkspace)
            .try_for_each(|(_, guarded)| guarded.fill(0))
    }

    /// Runs everything once before the first sample.
    ///
    /// # Errors
    /// A launch that the driver refuses, or as [`Context::wait`](super::driver::Context::wait).
    pub fn warm_up(&mut self) -> Result<(), DeviceError> {
        if !self.warm {
            self.queue()?;
            self.station.context.wait(&self.kernel)?;
            self.warm = true;
        }
        Ok(())
    }
}

impl Loaded for CudaLoaded {
    fn build(&self) -> &Build {
        &self.build
    }

    fn run(&mut self) -> Result<Outcome, DeviceError> {
        let station = self.station.clone();
        let context = &station.context;
        context.bind()?;
        for (buffer, guarded) in &self.buffers {
            if !matches!(buffer.role, BufferRole::Input(_)) {
                guarded.fill(POISON)?;
            }
        }
        self.zero()?;
        for launch in &self.launches {
            launch.queue(context)?;
            // One at a time, so that a fault is known to be this entry's.
            context.wait(&format!("{}, entry {}", self.kernel, launch.entry))?;
        }
        self.warm = true;

        let mut damage = Vec::new();
        for (_, guarded) in &self.buffers {
            damage.extend(guarded.damage()?);
        }
        for (i, hashes) in &self.hashes {
            damage.extend(hashes.damage(&self.buffers[*i].1, &station.tools)?);
        }
        let mut outputs = Vec::new();
        for (buffer, guarded) in &self.buffers {
            if let BufferRole::Output(n) = buffer.role {
                let bytes = guarded.download()?;
                let (dtype, shape) = (buffer.dtype, buffer.shape.clone());
                outputs.push((n, Tensor { dtype, shape, bytes }));
            }
        }
        outputs.sort_by_key(|(n, _)| *n);
        let outputs = outputs.into_iter().map(|(_, tensor)| tensor).collect();
        Ok(Outcome { outputs, damage, counts: None, share: None, computed: None })
    }

    fn clock(&mut self, _times: u64) -> Clock<'_> {
        Clock::Measured(self)
    }
}

impl Drop for CudaLoaded {
    fn drop(&mut self) {
        if self.station.context.bind().is_ok() {
            self.events.destroy();
        }
    }
}

/// The bytes of input `n`, if they fill its buffer.
fn input<'t>(
    kernel: &str,
    buffer: &Buffer,
    n: usize,
    inputs: &'t [Tensor],
) -> Result<&'t [u8], DeviceError> {
    let refuse = |why: String| DeviceError::Launch(format!("kernel {kernel}: {why}"));
    let tensor = inputs.get(n).ok_or_else(|| {
        refuse(format!("input {} is number {n}, and {} are given", buffer.name, inputs.len()))
    })?;
    if tensor.bytes.len() != buffer.bytes() {
        return Err(refuse(format!(
            "input {} has {} bytes; {} {:?} has {}",
            buffer.name,
            tensor.bytes.len(),
            buffer.dtype,
            buffer.shape,
            buffer.bytes()
        )));
    }
    Ok(&tensor.bytes)
}

fn pack(launch: &Launch, buffers: &[(Buffer, Guarded)]) -> Result<Vec<Packed>, DeviceError> {
    let buffer = |i: usize| {
        buffers.get(i).ok_or_else(|| {
            DeviceError::Launch(format!(
                "entry {}: an argument names buffer {i} of {}",
                launch.entry,
                buffers.len()
            ))
        })
    };
    launch
        .args
        .iter()
        .map(|arg| {
            Ok(match arg {
                Arg::Buffer(i) => Packed::U64(buffer(*i)?.1.address),
                Arg::U32(x) => Packed::U32(*x),
                Arg::U64(x) => Packed::U64(*x),
                Arg::F32(x) => Packed::F32(*x),
                Arg::TensorMap(map) => {
                    let (described, guarded) = buffer(map.buffer)?;
                    Packed::Map(tensormap::encode(map, described, guarded.address)?)
                }
            })
        })
        .collect()
}
