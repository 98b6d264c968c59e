//! `crossover devices`: where kernels can run.

use super::{Result, console};
use crate::device::open::list;
use crate::device::{DeviceError, Facts};

/// List the GPUs, with the facts that a record carries, and the devices that the emulator
/// describes.
#[derive(clap::Args)]
pub struct Args {
    /// One JSON object a device.
    #[arg(long)]
    json: bool,
}

/// Lists the devices.
///
/// # Errors
/// None: the list says why a device cannot be opened.
pub fn run(args: Args) -> Result {
    let found = list();
    console::put(&if args.json { json(&found) } else { text(&found) });
    Ok(())
}

/// Devices on stdout; what could not be opened is no device and goes to stderr.
fn json(found: &[Result<Facts, DeviceError>]) -> String {
    let mut text = String::new();
    for device in found {
        match device {
            Ok(facts) => {
                text += &serde_json::to_string(facts).expect("facts are plain data");
                text.push('\n');
            }
            Err(e) => console::note(&e.to_string()),
        }
    }
    text
}

fn text(found: &[Result<Facts, DeviceError>]) -> String {
    let mut text = String::new();
    let (gpus, described): (Vec<_>, Vec<_>) =
        found.iter().partition(|d| !matches!(d, Ok(facts) if facts.emulated));
    for device in gpus {
        match device {
            Ok(facts) => text += &one(facts),
            Err(e) => text += &format!("no GPU: {e}\n"),
        }
    }
    text += "\nDescribed for the emulator (times are modelled, never measured):\n";
    for facts in described.into_iter().flatten() {
        text += &one(facts);
    }
    text
}

fn one(f: &Facts) -> String {
    let gib = |bytes: u64| bytes as f64 / (1u64 << 30) as f64;
    let mut text = format!(
        "{}\n  {}\n  compute capability {}.{}, {} multiprocessors, {:.1} GiB, {:.0} MiB of L2, {} bytes of shared memory a CTA\n",
        f.id,
        f.name,
        f.compute_capability.0,
        f.compute_capability.1,
        f.multiprocessors,
        gib(f.memory_bytes),
        gib(f.l2_bytes) * 1024.0,
        f.shared_bytes_per_cta
    );
    text += &format!(
        "  peak {:.0} bf16 TFLOP/s, {:.0} tf32 TFLOP/s, {:.0} GB/s\n",
        f.peak.bf16_tflops, f.peak.tf32_tflops, f.peak.memory_gbps
    );
    if !f.driver.is_empty() {
        text += &format!("  driver {}\n", f.driver);
    }
    for (name, value) in &f.more {
        text += &format!("  {name}: {value}\n");
    }
    text
}
