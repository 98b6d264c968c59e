//! What tests of several modules need: the program, its kernels, problems in one line, jobs made by
//! hand, a process for one test alone.

use std::path::{Path, PathBuf};
use std::process::Command as Process;
use std::sync::{LazyLock, Mutex, PoisonError};

use assert_cmd::Command;
use crossover::device::emulator::Emulator;
use crossover::device::model::DeviceModel;
use crossover::device::{Arg, Buffer, BufferRole, Job, Launch, Ptx};
use crossover::kernel::{Kernel, Registry};
use crossover::op::{DType, Op, PhaseName, Problem};

/// The program's path.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_crossover");

/// The program as a user runs it.
pub fn crossover(args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.env_remove("RUST_BACKTRACE").args(args);
    command
}

/// A file or folder of `tests/`.
pub fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// The program's kernels, read once.
pub fn registry() -> &'static Registry {
    static REGISTRY: LazyLock<Registry> =
        LazyLock::new(|| Registry::embedded().expect("the embedded kernels"));
    &REGISTRY
}

/// The kernel of exactly that name.
pub fn kernel(name: &str) -> &'static Kernel {
    registry().get(name).unwrap_or_else(|e| panic!("{e}"))
}

/// An emulated H200 with all checks.
pub fn emulator() -> Emulator {
    Emulator::new(DeviceModel::named("h200").expect("a described device"))
}

/// The operator of that name.
pub fn op(name: &str) -> Op {
    Op::parse(name).unwrap_or_else(|| panic!("no operator {name}"))
}

/// The prefill problem of an operator that settings describe, as for `-p`: `T=70,D=64`.
pub fn problem(name: &str, settings: &str) -> Problem {
    Problem::parse(op(name), PhaseName::Prefill, settings).unwrap_or_else(|e| panic!("{e}"))
}

/// One sequence and head of an operator in its first phase, 64 wide, all flags off.
pub fn plain(op: Op, length: usize) -> Problem {
    Problem::plain(op, op.phases()[0].name, DType::Bf16, (64, 64), length)
}

/// A job of PTX that no template made, under a name for messages.
pub fn job(name: &str, text: impl Into<String>, buffers: Vec<Buffer>, launch: Vec<Launch>) -> Job {
    let ptx = Ptx {
        kernel: name.into(),
        text: text.into(),
        origin: Vec::new(),
        sha256: String::new(),
        macros: Default::default(),
    };
    Job { ptx, buffers, launches: launch }
}

/// A buffer of a job, row-major.
pub fn buffer(name: &str, role: BufferRole, dtype: DType, shape: &[usize]) -> Buffer {
    Buffer { name: name.into(), role, dtype, shape: shape.to_vec() }
}

/// CTAs and threads along x, no clusters, no dynamic shared memory.
pub fn launch(entry: &str, ctas: u32, threads: u32, args: Vec<Arg>) -> Launch {
    Launch {
        entry: entry.into(),
        grid: [ctas, 1, 1],
        block: [threads, 1, 1],
        cluster: [1; 3],
        shared_bytes: 0,
        args,
    }
}

/// This binary again, to run one test by its whole path, ignored or not.
pub fn process_of(test: &str) -> Process {
    let mut process = Process::new(std::env::current_exe().expect("this binary"));
    process.args([test, "--exact", "--include-ignored", "--nocapture", "--test-threads=1"]);
    process
}

/// Whether this process runs nothing but `test`. If not, one that does is started and must succeed,
/// and the caller returns. For tests that other tests would disturb: those of a GPU or of memory.
pub fn is_alone(test: &str) -> bool {
    const ALONE: &str = "CROSSOVER_TEST_ALONE";
    /// One at a time: most of them need a GPU.
    static TURN: Mutex<()> = Mutex::new(());
    if std::env::var(ALONE).is_ok_and(|name| name == test) {
        return true;
    }
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let out = process_of(test).env(ALONE, test).output().expect("a process");
    let said = String::from_utf8_lossy(&out.stdout);
    let errors = String::from_utf8_lossy(&out.stderr);
    // A path that names no test succeeds as well.
    assert!(out.status.success() && said.contains("1 passed"), "{test} alone:\n{said}\n{errors}");
    print!("{said}");
    false
}

/// The most bytes that this process has had in memory, which Linux tells.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).expect("a line VmHWM");
    let kib = line.split_whitespace().next().expect("a number");
    1024 * kib.parse::<u64>().expect("a number")
}

/// NVIDIA's assembler: that of `PTXAS`, else the one on the path. Tests that get none say that they
/// are skipped; with `CROSSOVER_REQUIRE_PTXAS=1` they fail.
pub fn ptxas() -> Option<&'static Path> {
    static FOUND: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let given = std::env::var_os("PTXAS").map(PathBuf::from);
        let path = given.clone().unwrap_or_else(|| PathBuf::from("ptxas"));
        match Process::new(&path).arg("--version").output() {
            Ok(output) if output.status.success() => Ok(path),
            _ if given.is_some() => Err(format!("PTXAS={}: does not run", path.display())),
            _ => Err("no ptxas; set PTXAS to one (PyPI's nvidia-cuda-nvcc has it)".into()),
        }
    });
    let set = |name: &str| std::env::var_os(name);
    match &*FOUND {
        Ok(path) => Some(path),
        Err(why) if set("PTXAS").is_some() => panic!("{why}"),
        Err(why) if set("CROSSOVER_REQUIRE_PTXAS").is_some_and(|x| x == "1") => {
            panic!("CROSSOVER_REQUIRE_PTXAS=1: {why}")
        }
        Err(why) => {
            println!("skipped: {why}");
            None
        }
    }
}
