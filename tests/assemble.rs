//! Every variant of every kernel through NVIDIA's assembler, without spills and without lost
//! performance (C75xx lines).
//!
//! ptxas is found through `PTXAS`, else on the path. Where there is none the test says that it
//! was skipped; with `CROSSOVER_REQUIRE_PTXAS=1` that is a failure.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use crossover::device::Ptx;
use crossover::kernel::{Kernel, Registry};
use crossover::op::{Op, Problem};
use crossover::verify::suite;
use rayon::prelude::*;

fn ptxas() -> Option<PathBuf> {
    let given = std::env::var_os("PTXAS").map(PathBuf::from);
    let path = given.clone().unwrap_or_else(|| PathBuf::from("ptxas"));
    let works = Command::new(&path).arg("--version").output().is_ok_and(|o| o.status.success());
    if works {
        return Some(path);
    }
    if let Some(given) = given {
        panic!("PTXAS={}: does not run", given.display());
    }
    let required = std::env::var_os("CROSSOVER_REQUIRE_PTXAS").is_some_and(|x| x == "1");
    assert!(!required, "CROSSOVER_REQUIRE_PTXAS=1 and neither PTXAS nor the path has a ptxas");
    println!("skipped: no ptxas; set PTXAS to one (PyPI's nvidia-cuda-nvcc has it)");
    None
}

/// The problem with every combination of its flags, as far as templates are specialised for them.
fn flags(kernel: &Kernel, problem: Problem) -> Vec<Problem> {
    let special = |name: &str| kernel.manifest.specialise.iter().any(|s| s == name);
    let on = |name: &str| if special(name) { vec![false, true] } else { vec![false] };
    let mut all = Vec::new();
    match problem {
        Problem::Attention(s) => {
            for causal in on("causal") {
                let plain = crossover::op::attention::Shape { causal, ..s.clone() };
                all.push(Problem::Attention(plain.clone()));
                // All extras at once take the most registers; types differ in none.
                if special("packed") && s.dtype == kernel.manifest.dtypes[0] {
                    let mut full = plain;
                    full.extras.softcap = Some(30.0);
                    full.extras.window = causal.then_some(100);
                    full.pack(vec![[5, 5], [100, 70]]);
                    all.push(Problem::Attention(full));
                }
            }
        }
        Problem::GatedDeltaRule(ref s) | Problem::Kda(ref s) => {
            for initial_state in on("initial_state") {
                for final_state in on("final_state") {
                    let s = crossover::op::delta::Shape { initial_state, final_state, ..s.clone() };
                    all.push(match problem.op() {
                        Op::Kda => Problem::Kda(s),
                        _ => Problem::GatedDeltaRule(s),
                    });
                }
            }
        }
    }
    all
}

/// Every distinct PTX that the kernel can be rendered to.
fn variants(kernel: &Kernel) -> Vec<(String, Ptx)> {
    let mut seen = HashSet::new();
    let mut all = Vec::new();
    for &dtype in &kernel.manifest.dtypes {
        for dims in suite::head_dims(kernel) {
            let problem = suite::plain(kernel.manifest.op, dtype, dims, 256);
            for problem in flags(kernel, problem) {
                for tile in kernel.tiles(&problem).expect("legal tiles") {
                    let name = format!("{} {tile} {problem}", kernel.name);
                    let ptx =
                        kernel.render(&problem, &tile).unwrap_or_else(|e| panic!("{name}: {e}"));
                    if seen.insert(ptx.sha256.clone()) {
                        all.push((name, ptx));
                    }
                }
            }
        }
    }
    all
}

/// What is wrong with one variant on one architecture.
fn assemble(ptxas: &Path, name: &str, ptx: &Ptx, arch: &str) -> Option<String> {
    let file = tempfile::Builder::new().suffix(".ptx").tempfile().expect("a temporary file");
    std::fs::write(file.path(), &ptx.text).expect("a written file");
    let output = Command::new(ptxas)
        .args(["-v", "-arch", arch, "-o", "/dev/null"])
        .arg(file.path())
        .output()
        .expect("ptxas runs");
    let log = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    let bad: Vec<&str> = log.lines().filter(|l| costs(l)).collect();
    if output.status.success() && bad.is_empty() {
        return None;
    }
    let lines: Vec<&str> =
        if output.status.success() { bad } else { log.lines().take(8).collect() };
    Some(format!("{name} for {arch}:\n  {}", lines.join("\n  ")))
}

/// Whether a line of the log tells of spills, local memory or serialised instructions.
fn costs(line: &str) -> bool {
    let number = |what: &str| {
        let words = line.split(what).next().filter(|_| line.contains(what))?;
        words.split_whitespace().last()?.parse::<u64>().ok()
    };
    ["bytes stack frame", "bytes spill stores", "bytes spill loads"]
        .iter()
        .any(|what| number(what).is_some_and(|n| n > 0))
        || line.contains("C75")
}

#[test]
fn every_variant_assembles_cleanly() {
    let Some(ptxas) = ptxas() else { return };
    let registry = Registry::embedded().expect("the embedded kernels");
    let mut work = Vec::new();
    for kernel in registry.kernels() {
        // PTX for sm_80 runs on later devices too, compiled for them by the driver.
        let archs: &[&str] =
            if kernel.manifest.target == "sm_80" { &["sm_80", "sm_90a"] } else { &["sm_90a"] };
        for (name, ptx) in variants(kernel) {
            work.extend(archs.iter().map(|&arch| (name.clone(), ptx.clone(), arch)));
        }
    }
    assert!(!work.is_empty());
    let bad: Vec<String> =
        work.par_iter().filter_map(|(name, ptx, arch)| assemble(&ptxas, name, ptx, arch)).collect();
    assert!(
        bad.is_empty(),
        "{} of {} variants:\n{}",
        bad.len(),
        work.len(),
        bad.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
    println!("{} variants assembled", work.len());
}

#[test]
fn the_log_is_read_right() {
    let clean = "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    assert!(!costs(clean) && !costs("ptxas info    : Used 168 registers, 400 bytes cmem[0]"));
    assert!(costs("    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"));
    assert!(costs("    0 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads"));
    assert!(costs("ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async ..."));
}
