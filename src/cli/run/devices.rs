//! The devices of a run: one, or several of one kind.

use super::super::{Failure, Result};
use crate::device::cuda::CudaDevice;
use crate::device::open::open;

/// All GPUs, and in ids of records whichever of several.
pub const ALL: &str = "cuda:all";

/// What the devices of a specification are opened as, in the order given.
///
/// # Errors
/// There is no such device; several that are not of one kind, or a GPU twice. The emulator may be there
/// as often as it likes.
pub fn of(spec: &str) -> Result<Vec<String>> {
    let names: Vec<String> = match spec {
        ALL => (0..CudaDevice::count()?).map(|i| format!("cuda:{i}")).collect(),
        several if several.contains(',') && !several.contains('/') => {
            several.split(',').map(|name| name.trim().to_string()).collect()
        }
        one => vec![one.to_string()],
    };
    if names.is_empty() {
        return Err(Failure::Usage("--device cuda:all: the driver shows no GPU".into()));
    }
    if names.len() == 1 {
        return Ok(names);
    }
    let facts =
        names.iter().map(|name| Ok(open(name)?.facts().clone())).collect::<Result<Vec<_>>>()?;
    for (i, other) in facts.iter().enumerate() {
        let wrong = |why: String| Err(Failure::Usage(format!("--device {spec}: {why}")));
        if !other.emulated && facts[..i].iter().any(|f| f.id == other.id) {
            return wrong(format!("{} is there twice", other.id));
        }
        if other.name != facts[0].name {
            return wrong(format!(
                "{} is {} and {} is {}: devices that are not of one kind have runs of their own",
                facts[0].id, facts[0].name, other.id, other.name
            ));
        }
    }
    Ok(names)
}
