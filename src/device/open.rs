//! Opens the device that `--device` names.

use super::cuda::CudaDevice;
use super::emulator::{Checks, Emulator};
pub use super::model::DEFAULT_MODEL;
use super::model::DeviceModel;
use super::{Device, DeviceError, Facts};

/// Opens a device: `auto` (the first GPU, else the emulator), `cuda:N` or `cuda` for number 0,
/// `emulator:MODEL` (a described device's name or the path of its TOML file), `emulator` for
/// [`DEFAULT_MODEL`].
///
/// # Errors
/// [`DeviceError::Unavailable`] naming what is accepted, or why the device cannot be had.
pub fn open(spec: &str) -> Result<Box<dyn Device>, DeviceError> {
    open_with(spec, Checks::UNORDERED)
}

/// As [`open`], with these checks for the emulator; [`open`] checks no order, for speed. Where
/// order is checked, modelled times are rougher: nothing is simulated for them.
///
/// # Errors
/// As of [`open`].
pub fn open_with(spec: &str, checks: Checks) -> Result<Box<dyn Device>, DeviceError> {
    let (kind, rest) = match spec.split_once(':') {
        Some((kind, rest)) => (kind, Some(rest)),
        None => (spec, None),
    };
    match (kind, rest) {
        ("auto", None) => match CudaDevice::open(0) {
            Ok(gpu) => Ok(Box::new(gpu)),
            Err(_) => emulator(DEFAULT_MODEL, checks),
        },
        ("cuda", number) => {
            let ordinal = number.unwrap_or("0").parse::<usize>().map_err(|_| unknown(spec))?;
            Ok(Box::new(CudaDevice::open(ordinal)?))
        }
        ("emulator", model) => emulator(model.unwrap_or(DEFAULT_MODEL), checks),
        _ => Err(unknown(spec)),
    }
}

fn emulator(model: &str, checks: Checks) -> Result<Box<dyn Device>, DeviceError> {
    let emulator = Emulator::new(DeviceModel::named(model)?).with_checks(checks);
    Ok(Box::new(if checks.ordered() { emulator } else { emulator.with_timing() }))
}

fn unknown(spec: &str) -> DeviceError {
    let models = DeviceModel::known().collect::<Vec<_>>().join(", ");
    DeviceError::Unavailable(format!(
        "no device is called {spec:?}; auto, cuda:N (from 0), emulator and emulator:MODEL are \
         accepted, with MODEL one of {models} or the path of a .toml file"
    ))
}

/// Every GPU, or the sentence why there is none, then every described device for the emulator.
pub fn list() -> Vec<Result<Facts, DeviceError>> {
    let gpus: Vec<Result<Facts, DeviceError>> = match CudaDevice::count() {
        Ok(0) => vec![Err(DeviceError::Unavailable("the CUDA driver shows no GPU".into()))],
        Ok(n) => (0..n).map(|i| CudaDevice::open(i).map(|gpu| gpu.facts().clone())).collect(),
        Err(e) => vec![Err(e)],
    };
    let described = DeviceModel::known().map(|name| DeviceModel::named(name).map(|m| m.facts()));
    gpus.into_iter().chain(described).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(spec: &str, words: &[&str]) {
        let e = open(spec).err().unwrap_or_else(|| panic!("{spec} opens")).to_string();
        assert!(words.iter().all(|w| e.contains(w)), "{spec}: {e}");
    }

    #[test]
    fn unknown_devices_are_answered_with_what_is_accepted() {
        for spec in ["", "gpu", "cuda:x", "cuda:-1", "auto:0", "tpu:0"] {
            says(spec, &[&format!("{spec:?}"), "auto", "cuda:N", "emulator:MODEL", "h200"]);
        }
        says("emulator:h300", &["h300", "h100, h200, laptop"]);
        says("emulator:no/file.toml", &["no/file.toml"]);
        says("cuda:999", &[]);
    }

    #[test]
    fn the_list_has_every_described_device() {
        let list = list();
        for name in DeviceModel::known() {
            let id = format!("emulator:{name}");
            assert!(list.iter().flatten().any(|facts| facts.id == id), "{id}");
        }
        assert!(list.len() > DeviceModel::known().count(), "GPUs or a sentence");
    }
}
