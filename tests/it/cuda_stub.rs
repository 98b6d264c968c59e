//! The CUDA device's launch path over a stand-in for the driver (tests/stub/cuda.c): build log,
//! launches, canaries, input hashes, samples, recovery after a fault. Needs a C compiler.

use std::process::Command;
use std::sync::Arc;

use crossover::device::{Arg, BufferRole, Clock, Device, DeviceError, Job, Launch, Regime, open};
use crossover::op::{DType, Tensor};

use crate::common::{self, buffer, data, launch, process_of};

const MARK: &str = "CROSSOVER_STUB_DRIVER";
const ELEMENTS: usize = 50_000;

#[test]
fn launch_path_over_a_stand_in_driver() {
    let dir = tempfile::tempdir().unwrap();
    let source = data("stub/cuda.c");
    // The first name that the loader tries, so that a real driver is not found before it.
    let library = dir.path().join("libcuda.so");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let compiled = Command::new(&compiler)
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .args([&library, &source])
        .status();
    match compiled {
        Err(e) => return eprintln!("skipped: no C compiler ({compiler}: {e})"),
        Ok(status) => assert!(status.success(), "{compiler} compiles the stand-in"),
    }
    // The loader reads its path when a process starts.
    let child = process_of("cuda_stub::under_the_stand_in")
        .env("LD_LIBRARY_PATH", dir.path())
        .env(MARK, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stdout);
    let errors = String::from_utf8_lossy(&child.stderr);
    assert!(child.status.success() && said.contains("1 passed"), "{said}\n{errors}");
}

#[test]
#[ignore = "run by launch_path_over_a_stand_in_driver in a process of its own"]
fn under_the_stand_in() {
    if std::env::var_os(MARK).is_none() {
        return;
    }
    let device = open::open("cuda:0").unwrap();
    let facts = device.facts();
    assert_eq!((facts.name.as_str(), facts.compute_capability), ("NVIDIA H200", (9, 0)));
    assert!(facts.driver.contains("CUDA 13.0"), "{}", facts.driver);
    assert!((facts.peak.memory_gbps - 4800.0).abs() < 1.0, "{:?}", facts.peak);
    assert_eq!(open::open("auto").unwrap().facts().id, "cuda:0");
    assert!(open::open("cuda:1").err().unwrap().to_string().contains("only GPU is cuda:0"));

    a_copy_runs_and_is_timed(&*device);
    damage_is_found(&*device);
    refusals_say_why(&*device);
    a_fault_costs_one_case(&*device);
}

fn tensor() -> Tensor {
    Tensor::from_f64(DType::Bf16, &[ELEMENTS], (0..ELEMENTS).map(|i| (i % 97) as f64))
}

fn job(entry: &str, body: &str) -> Job {
    let text = format!(".version 7.0\n.target sm_80\n.visible .entry {entry}(...)\n{body}\n");
    let file: Arc<str> = Arc::from("stub/copy.ptx");
    let origin = (0..text.lines().count() as u32).map(|i| (file.clone(), 10 * i + 10)).collect();
    let buffer = |name, role| buffer(name, role, DType::Bf16, &[ELEMENTS]);
    let buffers = vec![
        buffer("x", BufferRole::Input(0)),
        buffer("y", BufferRole::Output(0)),
        buffer("zeros", BufferRole::ZeroedWorkspace),
        buffer("z", BufferRole::Output(1)),
    ];
    let args = vec![Arg::Buffer(0), Arg::Buffer(1), Arg::U32(2 * ELEMENTS as u32)];
    let launch = Launch { shared_bytes: 100_000, ..launch(entry, 7, 128, args) };
    let mut job = common::job("stub/copy", text, buffers, vec![launch]);
    job.ptx.origin = origin;
    job
}

fn a_copy_runs_and_is_timed(device: &dyn Device) {
    let mut job = job("copy", "// spills");
    // A second launch takes the zeroed workspace to the second output.
    let mut second = job.launches[0].clone();
    second.args[0] = Arg::Buffer(2);
    second.args[1] = Arg::Buffer(3);
    job.launches.push(second);
    let mut loaded = device.load(&job, &[tensor()]).unwrap();
    let entry = &loaded.build().entries["copy"];
    assert_eq!((entry.registers, entry.ctas_per_sm), (40, 16));
    let warnings = &loaded.build().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains("16 bytes spill"), "{warnings:?}");

    let outcome = loaded.run().unwrap();
    assert_eq!(outcome.outputs[0], tensor());
    assert!(outcome.outputs[1].bytes.iter().all(|b| *b == 0), "zeroed before the run");
    assert!(outcome.damage.is_empty(), "{:?}", outcome.damage);
    let Clock::Measured(sampler) = loaded.clock(1) else { panic!("a GPU measures") };
    for regime in [Regime::Cold, Regime::Hot] {
        let sample = sampler.sample(regime).unwrap();
        assert_eq!((sample.ns, sample.sm_mhz), (125_000.0, Some(1500.0)));
    }
}

fn damage_is_found(device: &dyn Device) {
    let bytes = 2 * ELEMENTS;
    let cases = [
        ("overrun", format!("buffer y ({bytes} bytes): 3 bytes past its end")),
        ("underrun", format!("buffer y ({bytes} bytes): 2 bytes before its start")),
        ("scribble", format!("input x: changed by the kernel, first in bytes 65536 to {bytes}")),
    ];
    for (entry, sentence) in cases {
        let mut loaded = device.load(&job(entry, ""), &[tensor()]).unwrap();
        let damage = loaded.run().unwrap().damage;
        assert!(damage.len() == 1 && damage[0].starts_with(&sentence), "{entry}: {damage:?}");
    }
}

fn refusals_say_why(device: &dyn Device) {
    let refused = |job: &Job, words: &[&str]| {
        let e = device.load(job, &[tensor()]).err().expect("refused");
        assert!(words.iter().all(|w| e.to_string().contains(w)), "{e}");
        e
    };
    let e = refused(&job("copy", "no such thing"), &["stub/copy.ptx:40: no such thing"]);
    assert!(matches!(e, DeviceError::Build(_)), "{e:?}");
    let mut wrong = job("copy", "");
    wrong.ptx.text = wrong.ptx.text.replace("sm_80", "sm_100a");
    refused(&wrong, &["does not compile", "sm_100a", "sm_90"]);
    let change = |words: &[&str], change: fn(&mut Job)| {
        let mut job = job("copy", "");
        change(&mut job);
        refused(&job, words);
    };
    change(&["no entry \"other\""], |j| j.launches[0].entry = "other".into());
    change(&["257 threads", "1 to 256"], |j| j.launches[0].block = [257, 1, 1]);
    change(&["shared memory", "232448"], |j| j.launches[0].shared_bytes = 300_000);
    change(&["3 parameters", "has 2"], |j| j.launches[0].args.truncate(2));
    change(&["parameter 2 has 4 bytes", "8"], |j| j.launches[0].args[2] = Arg::U64(1));
    change(&["input x has 100000 bytes", "200000"], |j| j.buffers[0].shape = vec![2, ELEMENTS]);
    change(&["buffer z", "MB wanted", "smaller problem"], |j| {
        j.buffers[3].shape = vec![1 << 20, 1 << 12];
    });
}

fn a_fault_costs_one_case(device: &dyn Device) {
    let mut before = device.load(&job("copy", ""), &[tensor()]).unwrap();
    let mut faulty = device.load(&job("fault", ""), &[tensor()]).unwrap();
    let e = faulty.run().unwrap_err();
    assert!(matches!(e, DeviceError::Launch(_)), "{e:?}");
    let words = ["stub/copy, entry fault", "CUDA_ERROR_ILLEGAL_ADDRESS", "--device emulator"];
    assert!(words.iter().all(|w| e.to_string().contains(w)), "{e}");
    let e = before.run().unwrap_err().to_string();
    assert!(e.contains("context is lost") && e.contains("entry fault"), "{e}");
    let mut after = device.load(&job("copy", ""), &[tensor()]).unwrap();
    assert_eq!(after.run().unwrap().outputs[0], tensor());
    assert!(before.run().is_err(), "what was loaded before the fault stays lost");
}
