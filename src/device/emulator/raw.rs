//! Runs PTX without a kernel, a manifest or an operator: for tests and small programs.

use std::sync::Arc;

use super::order::Checks;
use super::{Emulator, LaunchProfile};
use crate::device::model::{DEFAULT_MODEL, DeviceModel};
use crate::device::{
    Arg, Buffer, BufferRole, Counts, DeviceError, FaultKind, Job, Launch, Macros, Ptx, Site,
    TensorMap, Trap,
};
use crate::op::{DType, Tensor};

/// How a small program is run.
#[derive(Debug, Clone, Copy)]
pub struct RawOptions {
    pub checks: Checks,
    /// Warp instructions that a CTA may execute.
    pub steps: u64,
    /// With vectors of 256 bits on a machine that has wider ones, too.
    pub narrow: bool,
}

impl Default for RawOptions {
    fn default() -> RawOptions {
        RawOptions { checks: Checks::ALL, steps: 5_000_000, narrow: false }
    }
}

/// One argument of [`run_raw`].
#[derive(Debug, Clone, PartialEq)]
pub enum RawArg {
    /// A buffer that the kernel reads.
    In(Vec<u8>),
    /// A buffer of so many bytes that the kernel writes.
    Out(usize),
    /// A zeroed buffer of so many bytes, returned like an output.
    InOut(usize),
    U32(u32),
    U64(u64),
    F32(f32),
    /// A tensor map over a buffer, which it names by its place among the buffers passed.
    TensorMap(TensorMap),
}

impl RawArg {
    /// An input of 32-bit words.
    pub fn words(words: impl IntoIterator<Item = u32>) -> RawArg {
        RawArg::In(words.into_iter().flat_map(u32::to_le_bytes).collect())
    }

    /// An input of fp32 values.
    pub fn floats(values: impl IntoIterator<Item = f32>) -> RawArg {
        RawArg::words(values.into_iter().map(f32::to_bits))
    }
}

/// What [`run_raw`] gives back.
#[derive(Debug, Clone)]
pub struct RawOutcome {
    /// The bytes of each [`RawArg::Out`], in order; 0xFF where nothing was written.
    pub outputs: Vec<Vec<u8>>,
    pub counts: Counts,
    pub profile: LaunchProfile,
    pub registers: u32,
}

impl RawOutcome {
    /// Output `i` as 32-bit words.
    pub fn words(&self, i: usize) -> Vec<u32> {
        self.outputs[i].as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect()
    }

    /// Output `i` as fp32 values.
    pub fn floats(&self, i: usize) -> Vec<f32> {
        self.words(i).into_iter().map(f32::from_bits).collect()
    }
}

/// Runs one entry of `text` once. `shared` is dynamic shared memory in bytes.
///
/// # Errors
/// The trap, or text that cannot be read, as a trap without a place.
pub fn run_raw(
    text: &str,
    entry: &str,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    args: &[RawArg],
) -> Result<RawOutcome, Box<Trap>> {
    run_raw_clusters(text, entry, [grid, block, [1; 3]], shared, args)
}

/// As [`run_raw`], in clusters: `shape` is grid, block and cluster.
///
/// # Errors
/// As [`run_raw`].
pub fn run_raw_clusters(
    text: &str,
    entry: &str,
    shape: [[u32; 3]; 3],
    shared: u32,
    args: &[RawArg],
) -> Result<RawOutcome, Box<Trap>> {
    run_raw_checked(text, entry, shape, shared, args, RawOptions::default())
}

/// As [`run_raw_clusters`], with some checks left out, or another limit of steps.
///
/// # Errors
/// As [`run_raw`].
pub fn run_raw_checked(
    text: &str,
    entry: &str,
    [grid, block, cluster]: [[u32; 3]; 3],
    shared: u32,
    args: &[RawArg],
    options: RawOptions,
) -> Result<RawOutcome, Box<Trap>> {
    let (mut buffers, mut inputs, mut list) = (Vec::new(), Vec::new(), Vec::new());
    let mut outputs = 0;
    for (i, a) in args.iter().enumerate() {
        let (role, bytes) = match a {
            RawArg::In(bytes) => {
                let (dtype, shape) = (DType::Bf16, vec![bytes.len() / 2]);
                inputs.push(Tensor { dtype, shape, bytes: bytes.clone() });
                (BufferRole::Input(inputs.len() - 1), bytes.len())
            }
            RawArg::Out(n) => {
                outputs += 1;
                (BufferRole::Output(outputs - 1), *n)
            }
            RawArg::InOut(n) => (BufferRole::ZeroedWorkspace, *n),
            RawArg::U32(x) => {
                list.push(Arg::U32(*x));
                continue;
            }
            RawArg::U64(x) => {
                list.push(Arg::U64(*x));
                continue;
            }
            RawArg::F32(x) => {
                list.push(Arg::F32(*x));
                continue;
            }
            RawArg::TensorMap(map) => {
                list.push(Arg::TensorMap(map.clone()));
                continue;
            }
        };
        list.push(Arg::Buffer(buffers.len()));
        buffers.push(Buffer {
            name: format!("arg{i}"),
            role,
            dtype: DType::Bf16,
            shape: vec![bytes / 2],
        });
    }
    let launch =
        Launch { entry: entry.into(), grid, block, cluster, shared_bytes: shared, args: list };
    let file: Arc<str> = "raw.ptx".into();
    let origin = (1..=text.lines().count() as u32).map(|line| (file.clone(), line)).collect();
    let ptx = Ptx {
        kernel: "raw".into(),
        text: text.into(),
        origin,
        sha256: String::new(),
        macros: Macros::default(),
    };
    let job = Job { ptx, buffers, launches: vec![launch] };
    let refuse = |e: DeviceError| {
        Box::new(Trap {
            kind: FaultKind::Operand,
            kernel: "raw".into(),
            entry: entry.into(),
            message: e.to_string(),
            at: Site {
                does: String::new(),
                cta: [0; 3],
                warp: None,
                thread: None,
                line: 0,
                source: String::new(),
                origin: None,
                within: None,
            },
            other: None,
            hint: String::new(),
        })
    };
    let model = DeviceModel::named(DEFAULT_MODEL).map_err(refuse)?;
    let mut emulator =
        Emulator::new(model).with_step_limit(options.steps).with_checks(options.checks);
    if options.narrow {
        emulator = emulator.with_narrow_vectors();
    }
    let mut session = emulator.session(&job, &inputs).map_err(refuse)?;
    let outcome = session.try_run()?;
    let zeroed = session.zeroed();
    let mut given = outcome.outputs.into_iter().map(|t| t.bytes);
    let mut zeroed = zeroed.into_iter();
    let outputs = args
        .iter()
        .filter_map(|a| match a {
            RawArg::Out(_) => given.next(),
            RawArg::InOut(_) => zeroed.next(),
            _ => None,
        })
        .collect();
    let profile = session.profiles()[0].clone();
    Ok(RawOutcome {
        outputs,
        counts: session.counts(),
        registers: profile.build.registers,
        profile,
    })
}
