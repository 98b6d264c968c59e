//! A CUDA GPU, through the driver library opened at run time. All `unsafe` code is here.
//!
//! - PTX is compiled by the driver, and its log read: spills and lost performance become
//!   warnings of the [`crate::device::Build`]. A compiled module is kept for later jobs with the
//!   same PTX.
//! - Every buffer is an allocation of its own between 16 KB canaries, its first byte at a multiple
//!   of 1024. Outputs and workspaces are filled with NaN before each verified run, zeroed
//!   workspaces with 0 before every run: that filling is part of a measured time, since a kernel
//!   that needs it pays for it. Inputs are hashed on the device, all of them, after each verified
//!   run.
//! - A fault or a kernel that does not end within 20 s costs the context and every job loaded in
//!   it. The next [`Device::load`] makes a new one; if the device does not give the old one up,
//!   as while a kernel hangs, it is [`DeviceError::Unavailable`] until the process ends.

#![allow(unsafe_code)]

mod driver;
mod loaded;
mod log;
mod memory;
mod module;
mod nvml;
mod sampler;
mod tensormap;

use std::ffi::{CStr, c_char};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use indexmap::IndexMap;

use self::driver::{Context, ok};
use self::loaded::CudaLoaded;
use self::memory::Flush;
use self::module::Tools;
use self::nvml::Monitor;
use super::model::DeviceModel;
use super::{Device, DeviceError, Facts, Health, Job, Loaded, Meter, Peak};
use crate::op::Tensor;

/// One CUDA GPU.
pub struct CudaDevice {
    raw: sys::CUdevice,
    facts: Facts,
    monitor: Option<Monitor>,
    station: Mutex<Option<Arc<Station>>>,
    /// Why the device cannot be used any more in this process.
    lost: OnceLock<String>,
}

/// A context with what measuring needs in it.
struct Station {
    tools: Tools,
    flush: Flush,
    multiprocessors: u32,
    context: Arc<Context>,
}

impl Station {
    fn new(device: sys::CUdevice, facts: &Facts) -> Result<Station, DeviceError> {
        let context = Context::new(device).map_err(|e| {
            DeviceError::Unavailable(format!("{}: no context can be made: {e}", facts.id))
        })?;
        let tools = Tools::new(&context, facts.compute_capability)?;
        let flush_bytes = (2 * facts.l2_bytes as usize).max(64 << 20);
        let flush = Flush::new(&context, flush_bytes)?;
        Ok(Station { tools, flush, multiprocessors: facts.multiprocessors, context })
    }
}

impl CudaDevice {
    /// How many GPUs the driver shows this process.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] if there is no driver, it is too old, or it does not start.
    pub fn count() -> Result<usize, DeviceError> {
        driver::driver_version()?;
        let mut count = 0;
        // SAFETY: writes one integer; the driver is initialized.
        ok(unsafe { sys::cuDeviceGetCount(&mut count) })
            .map_err(|e| DeviceError::Unavailable(format!("the CUDA devices: {e}")))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The GPU with this number, from 0, in the driver's order.
    ///
    /// # Errors
    /// [`DeviceError::Unavailable`] as [`CudaDevice::count`], or if there is no such GPU.
    pub fn open(ordinal: usize) -> Result<CudaDevice, DeviceError> {
        let count = Self::count()?;
        if ordinal >= count {
            let there = match count {
                0 => "the driver shows no GPU; use --device emulator".to_owned(),
                1 => "the only GPU is cuda:0".to_owned(),
                n => format!("the GPUs are cuda:0 to cuda:{}", n - 1),
            };
            return Err(DeviceError::Unavailable(format!("no device cuda:{ordinal}; {there}")));
        }
        let failed = |e: String| DeviceError::Unavailable(format!("cuda:{ordinal}: {e}"));
        let mut raw = 0;
        // SAFETY: writes one integer.
        ok(unsafe { sys::cuDeviceGet(&mut raw, ordinal as i32) }).map_err(failed)?;
        let pci = text(|buffer, n| {
            // SAFETY: writes at most `n` bytes with a NUL.
            unsafe { sys::cuDeviceGetPCIBusId(buffer, n, raw) }
        })
        .map_err(failed)?;
        let monitor = Monitor::new(&pci);
        let facts = facts(ordinal, raw, pci, monitor.as_ref()).map_err(failed)?;
        let (station, lost) = (Mutex::new(None), OnceLock::new());
        Ok(CudaDevice { raw, facts, monitor, station, lost })
    }

    /// The context in use, or a new one after a fault.
    fn station(&self) -> Result<Arc<Station>, DeviceError> {
        if let Some(why) = self.lost.get() {
            return Err(DeviceError::Unavailable(why.clone()));
        }
        let mut slot = self.station.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(station) = slot.as_ref() {
            if !station.context.is_broken() {
                station.context.bind()?;
                return Ok(station.clone());
            }
            if let Err(e) = station.context.abandon() {
                let why = format!(
                    "{} is lost to this process since {} ({e}); start again, with --resume to \
                     keep what is done",
                    self.facts.id,
                    station.context.why_broken()
                );
                let _ = self.lost.set(why.clone());
                return Err(DeviceError::Unavailable(why));
            }
            *slot = None;
        }
        let station = Arc::new(Station::new(self.raw, &self.facts)?);
        *slot = Some(station.clone());
        Ok(station)
    }
}

impl Device for CudaDevice {
    fn facts(&self) -> &Facts {
        &self.facts
    }

    fn health(&self) -> Option<Health> {
        self.monitor.as_ref()?.health()
    }

    fn meter(&self) -> Option<Box<dyn Meter>> {
        self.monitor.as_ref()?.meter()
    }

    fn load<'d>(
        &'d self,
        job: &Job,
        inputs: &[Tensor],
    ) -> Result<Box<dyn Loaded + 'd>, DeviceError> {
        Ok(Box::new(CudaLoaded::new(self.station()?, &self.facts, job, inputs)?))
    }
}

/// A string that the driver writes into a buffer.
fn text(write: impl FnOnce(*mut c_char, i32) -> sys::CUresult) -> Result<String, String> {
    let mut buffer = [0 as c_char; 256];
    ok(write(buffer.as_mut_ptr(), 255))?;
    // SAFETY: the last byte is 0 whatever was written.
    let text = unsafe { CStr::from_ptr(buffer.as_ptr()) };
    Ok(text.to_string_lossy().into_owned())
}

fn facts(
    ordinal: usize,
    raw: sys::CUdevice,
    pci: String,
    monitor: Option<&Monitor>,
) -> Result<Facts, String> {
    let attribute = |which: Attribute| {
        let mut value = 0;
        // SAFETY: writes one integer.
        ok(unsafe { sys::cuDeviceGetAttribute(&mut value, which, raw) })?;
        Ok::<u32, String>(value.max(0) as u32)
    };
    let name = text(|buffer, n| {
        // SAFETY: writes at most `n` bytes with a NUL.
        unsafe { sys::cuDeviceGetName(buffer, n, raw) }
    })?;
    let mut memory_bytes = 0;
    // SAFETY: writes one size.
    ok(unsafe { sys::cuDeviceTotalMem_v2(&mut memory_bytes, raw) })?;
    let mut uuid = sys::CUuuid { bytes: [0; 16] };
    // SAFETY: writes 16 bytes.
    ok(unsafe { sys::cuDeviceGetUuid_v2(&mut uuid, raw) })?;

    let compute_capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    let multiprocessors = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let sm_khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE).unwrap_or(0);
    let memory_khz = attribute(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE).unwrap_or(0);
    let bus_bits = attribute(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH).unwrap_or(0);

    let mut more = IndexMap::from([
        ("uuid".to_owned(), format_uuid(uuid.bytes.map(|b| b as u8))),
        ("pci".to_owned(), pci),
        ("max_sm_mhz".to_owned(), (sm_khz / 1000).to_string()),
    ]);
    let (peak, source) = match DeviceModel::of_gpu(&name) {
        Some(model) => (model.peak(), format!("data sheet, as devices/{}.toml", model.name)),
        None => derived_peak(compute_capability, multiprocessors, sm_khz, memory_khz, bus_bits),
    };
    more.insert("peak".to_owned(), source);
    if let Some(monitor) = monitor {
        monitor.facts(&mut more);
    }
    let cuda = driver::driver_version().map_err(|e| e.to_string())?;
    let cuda = format!("CUDA {}.{}", cuda.0, cuda.1);
    Ok(Facts {
        id: format!("cuda:{ordinal}"),
        name,
        emulated: false,
        compute_capability,
        multiprocessors,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?.into(),
        memory_bytes: memory_bytes as u64,
        shared_bytes_per_cta: attribute(
            Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
        )?,
        peak,
        driver: match monitor.and_then(Monitor::driver) {
            Some(driver) => format!("{driver} ({cuda})"),
            None => cuda,
        },
        more,
    })
}

/// As NVML and nvidia-smi write it.
fn format_uuid(bytes: [u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Peaks of a GPU that no description matches, from its clocks and its architecture's tensor
/// FLOPs per multiprocessor and clock (dense bf16, fp32 accumulation), and where they come from.
/// 0 is unknown.
fn derived_peak(
    compute_capability: (u32, u32),
    multiprocessors: u32,
    sm_khz: u32,
    memory_khz: u32,
    bus_bits: u32,
) -> (Peak, String) {
    let flops = match compute_capability {
        (8, 0) => 2048.0,
        (8, _) | (12, _) => 512.0,
        (9, _) => 4096.0,
        (10, _) => 8192.0,
        _ => 0.0,
    };
    let bf16_tflops = flops * f64::from(multiprocessors) * f64::from(sm_khz) / 1e9;
    // Two transfers a clock.
    let memory_gbps = 2.0 * f64::from(memory_khz) * f64::from(bus_bits) / 8.0 / 1e6;
    let source = if flops == 0.0 {
        "tensor rate of this architecture unknown; memory derived from its clock".to_owned()
    } else {
        format!("derived: {flops} FLOPs a multiprocessor and clock at {} MHz", sm_khz / 1000)
    };
    (Peak { bf16_tflops, tf32_tflops: bf16_tflops / 2.0, memory_gbps }, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_driver_is_a_sentence_with_a_way_out() {
        // True with and without a GPU: a device number that no machine has.
        let e = CudaDevice::open(999).err().expect("no machine has 1000 GPUs");
        assert!(matches!(e, DeviceError::Unavailable(_)), "{e:?}");
        if CudaDevice::count().is_err() {
            assert!(e.to_string().contains("--device emulator"), "{e}");
        }
    }

    #[test]
    fn derived_peaks_match_data_sheets() {
        // A100 SXM 40 GB: 312 TFLOP/s, 1555 GB/s.
        let (peak, source) = derived_peak((8, 0), 108, 1_410_000, 1_215_000, 5120);
        assert!((peak.bf16_tflops - 312.0).abs() < 1.0, "{peak:?}");
        assert!((peak.memory_gbps - 1555.0).abs() < 1.0, "{peak:?}");
        assert!(source.contains("derived"), "{source}");
        assert_eq!(derived_peak((13, 0), 1, 1, 1, 1).0.bf16_tflops, 0.0);
    }

    #[test]
    fn uuids_read_as_nvidia_smi_writes_them() {
        let bytes: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(format_uuid(bytes), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
