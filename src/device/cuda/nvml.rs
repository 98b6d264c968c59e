//! What NVML tells of a GPU; nothing where it is absent.

use indexmap::IndexMap;
use nvml_wrapper::Nvml;
use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, TemperatureSensor};

use crate::device::{Health, Meter, Reading};

/// NVML and the PCI id of the GPU that is asked about.
pub(super) struct Monitor {
    nvml: Nvml,
    pci: String,
}

impl Monitor {
    /// `None` if the library or the GPU is not found.
    pub fn new(pci: &str) -> Option<Monitor> {
        let nvml = Nvml::init().ok()?;
        nvml.device_by_pci_bus_id(pci).ok()?;
        Some(Monitor { nvml, pci: pci.to_owned() })
    }

    /// Clocks (MHz), power (W), temperature (degrees Celsius) and reasons for throttling, as of
    /// now.
    pub fn health(&self) -> Option<Health> {
        let gpu = self.nvml.device_by_pci_bus_id(self.pci.as_str()).ok()?;
        let throttle = gpu.current_throttle_reasons().map(names).unwrap_or_default();
        Some(Health {
            sm_mhz: gpu.clock_info(Clock::SM).ok(),
            max_sm_mhz: gpu.max_clock_info(Clock::SM).ok(),
            memory_mhz: gpu.clock_info(Clock::Memory).ok(),
            power_w: gpu.power_usage().ok().map(|mw| f64::from(mw) / 1e3),
            temperature_c: gpu.temperature(TemperatureSensor::Gpu).ok(),
            throttle,
        })
    }

    /// Another one of the same GPU.
    pub fn meter(&self) -> Option<Box<dyn Meter>> {
        Some(Box::new(Monitor::new(&self.pci)?))
    }

    /// The driver's version.
    pub fn driver(&self) -> Option<String> {
        self.nvml.sys_driver_version().ok()
    }

    /// Adds what is set on the GPU and does not change while it runs.
    pub fn facts(&self, more: &mut IndexMap<String, String>) {
        let Ok(gpu) = self.nvml.device_by_pci_bus_id(self.pci.as_str()) else { return };
        let mut add = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                more.insert(name.to_owned(), value);
            }
        };
        // NVML answers with an error where MIG does not exist.
        let mig = gpu.mig_mode().ok().map(|m| if m.current == 1 { "on" } else { "off" });
        add("mig", mig.map(str::to_owned));
        let watts = |mw: u32| format!("{}", f64::from(mw) / 1e3);
        add("power_limit_w", gpu.enforced_power_limit().ok().map(watts));
        add("default_power_limit_w", gpu.power_management_limit_default().ok().map(watts));
        add("max_memory_mhz", gpu.max_clock_info(Clock::Memory).ok().map(|m| m.to_string()));
        let ecc = gpu.is_ecc_enabled().ok().map(|e| e.currently_enabled);
        add("ecc", ecc.map(|on| if on { "on" } else { "off" }.to_owned()));
    }
}

impl Meter for Monitor {
    fn read(&mut self) -> Result<Reading, String> {
        let gpu = self.nvml.device_by_pci_bus_id(self.pci.as_str()).map_err(|e| e.to_string())?;
        let mj = gpu.total_energy_consumption().map_err(|e| format!("NVML has no counter: {e}"))?;
        let watts = gpu.power_usage().ok().map(|mw| f64::from(mw) / 1e3);
        Ok(Reading { joules: mj as f64 / 1e3, watts })
    }
}

/// NVML's names of the reasons, in lower case. Idleness is no throttling.
fn names(reasons: ThrottleReasons) -> Vec<String> {
    reasons
        .difference(ThrottleReasons::GPU_IDLE)
        .iter_names()
        .filter(|(_, flag)| !flag.is_empty())
        .map(|(name, _)| name.to_lowercase())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_gpu_is_not_throttled() {
        assert!(names(ThrottleReasons::GPU_IDLE).is_empty());
        let hot = ThrottleReasons::GPU_IDLE | ThrottleReasons::SW_THERMAL_SLOWDOWN;
        assert_eq!(names(hot), ["sw_thermal_slowdown"]);
        assert!(Monitor::new("0000:00:00.0").is_none_or(|m| m.health().is_none()));
    }
}
