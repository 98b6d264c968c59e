//! A matrix product for Hopper (TMA, mbarriers, warp specialisation, wgmma) through the device
//! API: on the emulator against fp64, with exact counts and all checks of order, and with faults
//! put in that the checks must find; on a GPU (`cargo test --release gemm -- --ignored`)
//! bit for bit as on the emulator.

use std::collections::BTreeSet;

use crossover::device::FaultKind;
use crossover::device::{
    Arg, BufferRole, Counts, Device, DeviceError, Job, Launch, Outcome, Swizzle, TensorMap, open,
};
use crossover::op::{DType, Tensor};

use crate::common::{buffer, emulator, is_alone, job, launch};

const PTX: &str = include_str!("gemm.sm90a.ptx");

/// The kernel's tile.
const BM: usize = 64;
const BN: usize = 128;
const BK: usize = 64;
const SHARED: u32 = 115_712;

/// Elements of 16 bytes.
const PIECE: usize = 8;

/// C [m,n] = A [m,k] B [n,k]^T over a grid of `ctas`.
#[derive(Debug, Clone, Copy)]
struct Size {
    m: usize,
    n: usize,
    k: usize,
    ctas: u32,
}

const fn size(m: usize, n: usize, k: usize, ctas: u32) -> Size {
    Size { m, n, k, ctas }
}

/// Whole and ragged; the stages go round within a tile, and over several tiles a CTA.
const SIZES: [Size; 10] = [
    size(64, 128, 64, 1),
    size(64, 128, 256, 1),
    size(64, 128, 1344, 1),
    size(192, 384, 192, 9),
    size(192, 384, 192, 2),
    size(1, 1, 1, 1),
    size(63, 127, 65, 1),
    size(65, 129, 1000, 3),
    size(100, 72, 40, 2),
    size(200, 300, 333, 4),
];

impl Size {
    /// Elements from one row to the next: tensor maps want multiples of 16 bytes. Ragged rows have
    /// a whole piece of 16 bytes behind the one that they end in.
    fn pitch(columns: usize) -> usize {
        columns.next_multiple_of(PIECE) + if columns.is_multiple_of(PIECE) { 0 } else { PIECE }
    }

    fn tiles(self) -> (usize, usize) {
        (self.m.div_ceil(BM), self.n.div_ceil(BN))
    }

    fn steps(self) -> usize {
        self.k.div_ceil(BK)
    }

    fn job(self, ptx: &str) -> Job {
        let buffer = |name, role, rows, columns| {
            buffer(name, role, DType::Bf16, &[rows, Size::pitch(columns)])
        };
        let map = |buffer, rows: usize, columns: usize, tile_rows: usize| {
            Arg::TensorMap(TensorMap {
                buffer,
                dtype: DType::Bf16,
                dims: vec![columns as u64, rows as u64],
                strides_bytes: vec![2 * Size::pitch(columns) as u64],
                tile: vec![64, tile_rows as u32],
                swizzle: Swizzle::B128,
                nan_fill: false,
            })
        };
        let (tiles_m, tiles_n) = self.tiles();
        let args = vec![
            map(0, self.m, self.k, BM),
            map(1, self.n, self.k, BN),
            map(2, self.m, self.n, BM),
            Arg::U32(tiles_m as u32),
            Arg::U32((tiles_m * tiles_n) as u32),
            Arg::U32(self.steps() as u32),
        ];
        let buffers = vec![
            buffer("A", BufferRole::Input(0), self.m, self.k),
            buffer("B", BufferRole::Input(1), self.n, self.k),
            buffer("C", BufferRole::Output(0), self.m, self.n),
        ];
        let launch = Launch { shared_bytes: SHARED, ..launch("gemm", self.ctas, 256, args) };
        job("gemm", ptx, buffers, vec![launch])
    }

    /// A and B of `value(row, column)`; NaN between the rows, where the copies must not read.
    fn inputs(self, mut value: impl FnMut() -> f64) -> [Tensor; 2] {
        [self.m, self.n].map(|rows| {
            let pitch = Size::pitch(self.k);
            let mut at = |i| if i % pitch < self.k { value() } else { f64::NAN };
            let values: Vec<f64> = (0..rows * pitch).map(&mut at).collect();
            Tensor::from_f64(DType::Bf16, &[rows, pitch], values)
        })
    }

    /// Every product with the sum of its terms' sizes, row by row.
    fn reference(self, [a, b]: &[Tensor; 2]) -> Vec<(f64, f64)> {
        let (a, b, pitch) = (a.to_f64(), b.to_f64(), Size::pitch(self.k));
        let row = |x: &[f64], r: usize| x[r * pitch..r * pitch + self.k].to_vec();
        let b: Vec<_> = (0..self.n).map(|r| row(&b, r)).collect();
        let mut out = Vec::new();
        for m in 0..self.m {
            let a = row(&a, m);
            out.extend(b.iter().map(|b| {
                a.iter().zip(b).fold((0.0, 0.0), |(s, t), (x, y)| (s + x * y, t + (x * y).abs()))
            }));
        }
        out
    }

    /// C's elements. The copy engine writes on to the end of the 16 bytes that a row ends in, here
    /// products with rows of B out of bounds, which are zero; nothing behind them.
    fn result(self, outcome: &Outcome) -> Vec<f64> {
        assert!(outcome.damage.is_empty(), "{self:?}: {:?}", outcome.damage);
        let (pitch, end) = (Size::pitch(self.n), self.n.next_multiple_of(PIECE));
        let mut inside = Vec::new();
        for (i, x) in outcome.outputs[0].to_f64().into_iter().enumerate() {
            match i % pitch {
                column if column < self.n => inside.push(x),
                column if column < end => {
                    assert_eq!(x, 0.0, "{self:?}: row {}, {column}", i / pitch);
                }
                column => assert!(x.is_nan(), "{self:?}: {x} in row {}, {column}", i / pitch),
            }
        }
        inside
    }

    fn check_counts(self, c: &Counts) {
        let Size { m, n, k, ctas } = self;
        let (tiles_m, tiles_n) = self.tiles();
        let (tiles, steps) = ((tiles_m * tiles_n) as u64, self.steps() as u64);
        assert_eq!(c.ctas, u64::from(ctas), "{self:?}");
        let products = tiles * steps * (BK / 16) as u64;
        let flops = 2 * (BM * BN * 16) as u64 * products;
        assert_eq!(
            c.tensor_flops.iter().map(|(t, n)| (&t[..], *n)).collect::<Vec<_>>(),
            [("bf16", flops)]
        );
        assert_eq!(c.instructions["wgmma"], 4 * products, "{self:?}: a warpgroup is four warps");
        assert_eq!(c.special_ops, 0);
        // Each row of A is read once a column of tiles, each of B once a row of tiles. Those of C
        // are written to the end of the 16 bytes that they end in.
        let written = n.next_multiple_of(PIECE);
        assert_eq!(c.bulk_read_bytes, (2 * k * (m * tiles_n + n * tiles_m)) as u64, "{self:?}");
        assert_eq!(c.bulk_write_bytes, (2 * m * written) as u64, "{self:?}");
        let a = sectors(m, k, k);
        let b = sectors(n, k, k);
        let c_ = sectors(m, n, written);
        assert_eq!(
            c.global_read_sectors,
            a.requested * tiles_n as u64 + b.requested * tiles_m as u64,
            "{self:?}"
        );
        assert_eq!(c.global_write_sectors, c_.requested, "{self:?}");
        assert_eq!(c.unique_read_sectors, a.unique + b.unique, "{self:?}");
        assert_eq!(c.unique_write_sectors, c_.unique, "{self:?}");
    }
}

struct Sectors {
    requested: u64,
    unique: u64,
}

/// Sectors of a matrix of which `copied` columns are copied once in boxes of 64
/// columns, row by row of each box.
fn sectors(rows: usize, columns: usize, copied: usize) -> Sectors {
    let mut requested = 0;
    let mut unique = BTreeSet::new();
    for row in 0..rows {
        for first in (0..copied).step_by(64) {
            let at = 2 * (row * Size::pitch(columns) + first);
            let end = at + 2 * (copied - first).min(64);
            let touched = at / 32..end.div_ceil(32);
            requested += touched.len() as u64;
            unique.extend(touched);
        }
    }
    Sectors { requested, unique: unique.len() as u64 }
}

/// Numbers of [-1, 1), always the same: a linear congruence's upper half.
fn noise() -> impl FnMut() -> f64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 32) as f64 / f64::from(1u32 << 31) - 1.0
    }
}

fn run(
    device: &dyn Device,
    size: Size,
    ptx: &str,
    inputs: &[Tensor],
) -> Result<Outcome, DeviceError> {
    let mut loaded = device.load(&size.job(ptx), inputs)?;
    assert_eq!(loaded.build().warnings, [""; 0], "{size:?}");
    loaded.run()
}

/// All sizes on `device`: noise within the rounding of bf16 and fp32 of fp64, small whole numbers
/// exactly. Returns C of each run.
fn products(device: &dyn Device) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for size in SIZES {
        let inputs = size.inputs(noise());
        let outcome = run(device, size, PTX, &inputs).unwrap_or_else(|e| panic!("{size:?}: {e}"));
        let got = size.result(&outcome);
        for (i, (got, (sum, terms))) in got.iter().zip(size.reference(&inputs)).enumerate() {
            // Half a unit of bf16's last place; each addition cuts at most one of fp32's.
            let bound = sum.abs() / 256.0 + terms * (size.k as f64 + 1.0) * 2f64.powi(-23);
            let (m, n) = (i / size.n, i % size.n);
            assert!((got - sum).abs() <= bound, "{size:?}: C[{m},{n}] = {got}, not {sum}");
        }
        outcomes.push(outcome);

        let mut next = noise();
        let inputs = size.inputs(|| (next() * 4.0).floor());
        let outcome = run(device, size, PTX, &inputs).unwrap_or_else(|e| panic!("{size:?}: {e}"));
        let exact = size.reference(&inputs).into_iter().map(|(sum, _)| sum);
        let exact = Tensor::from_f64(DType::Bf16, &[size.m, size.n], exact).to_f64();
        assert_eq!(size.result(&outcome), exact, "{size:?}: whole numbers");
        outcomes.push(outcome);
    }
    outcomes
}

#[test]
fn agrees_with_fp64_and_counts_exactly() {
    let outcomes = products(&emulator());
    for (size, outcomes) in SIZES.iter().zip(outcomes.chunks(2)) {
        for outcome in outcomes {
            size.check_counts(outcome.counts.as_ref().expect("the emulator counts"));
        }
    }
}

/// The kernel with one text replaced, which must be there once.
fn with(from: &str, to: &str) -> String {
    assert_eq!(PTX.matches(from).count(), 1, "{from}");
    PTX.replace(from, to)
}

/// The changed kernel is stopped by a fault of one of the kinds, whose text has all `words`.
fn caught(ptx: &str, size: Size, kinds: &[FaultKind], words: &[&str]) {
    let emulator = emulator().with_step_limit(2_000_000);
    match run(&emulator, size, ptx, &size.inputs(noise())) {
        Err(DeviceError::Trap(trap)) => {
            let text = trap.to_string();
            assert!(kinds.contains(&trap.kind), "{:?}: {text}", trap.kind);
            words.iter().for_each(|word| assert!(text.contains(word), "no {word:?} in {text}"));
        }
        Err(e) => panic!("no trap: {e}"),
        Ok(_) => panic!("not caught"),
    }
}

/// Ten steps: the stages go round twice.
const LONG: Size = size(64, 128, 640, 1);

#[test]
fn a_stage_that_is_not_waited_for_is_found() {
    let wait = "    mbarrier.try_wait.parity.shared::cta.b64  full, [bars], phase;\n";
    let again = "    @!full bra  $full_wait;\n";
    caught(&with(&(wait.to_owned() + again), ""), LONG, &[FaultKind::InFlight], &["wgmma"]);
    // Asked, but the answer is not looked at.
    caught(&with(again, ""), LONG, &[FaultKind::InFlight], &["wgmma"]);
}

#[test]
fn a_stage_that_is_not_released_is_found() {
    let ptx = with("    @release mbarrier.arrive.shared::cta.b64  _, [bars_before + 32];\n", "");
    caught(&ptx, LONG, &[FaultKind::Deadlock], &["mbarrier"]);
}

#[test]
fn a_stage_that_is_overwritten_too_early_is_found() {
    let ptx = with("    @!free bra  $fill_wait;\n", "");
    caught(&ptx, LONG, &[FaultKind::Race, FaultKind::InFlight, FaultKind::Arrivals], &[]);
    // Released before its products are waited for.
    let ptx = with(
        "    wgmma.wait_group.sync.aligned  1;       // the products of the step before\n",
        "",
    );
    caught(&ptx, LONG, &[FaultKind::Race, FaultKind::InFlight], &[]);
}

#[test]
fn accumulators_that_are_not_waited_for_are_found() {
    let ptx = with(
        "    wgmma.wait_group.sync.aligned  0;       // the accumulators are this warp's again\n",
        "",
    );
    caught(&ptx, LONG, &[FaultKind::RegistersInFlight], &["wgmma"]);
}

#[test]
fn missing_fences_are_found() {
    let ptx = with("    wgmma.fence.sync.aligned;\n", "");
    // The first tile's accumulators are new; those of the second were read in between.
    caught(&ptx, Size { m: 128, ..LONG }, &[FaultKind::MissingFence], &["wgmma.fence"]);
    let ptx = with(
        "    fence.proxy.async.shared::cta;          // the copy engine reads what was written\n",
        "",
    );
    caught(&ptx, LONG, &[FaultKind::Proxy], &["fence.proxy.async"]);
    let ptx = with("    fence.mbarrier_init.release.cluster;    // for the copy engine\n", "");
    caught(&ptx, LONG, &[FaultKind::Proxy], &["fence.mbarrier_init"]);
}

#[test]
fn an_epilogue_that_does_not_meet_is_found() {
    let before = "    @storer cp.async.bulk.wait_group.read  0;\n";
    let two = Size { m: 128, ..LONG };
    caught(&with(before, ""), two, &[FaultKind::InFlight, FaultKind::Race], &["stmatrix"]);
    let ptx = with("bar.sync  1, 128;\n    @!storer bra", "@!storer bra");
    caught(&ptx, LONG, &[FaultKind::Race, FaultKind::Uninitialised], &[]);
}

#[test]
#[ignore = "needs a GPU of compute capability 9.0"]
fn a_gpu_agrees_bit_for_bit() {
    // Another test's faults would take the GPU from it.
    if !is_alone("gemm::a_gpu_agrees_bit_for_bit") {
        return;
    }
    let gpu = open::open("cuda:0").expect("a GPU");
    println!("{} driver {}", gpu.facts().name, gpu.facts().driver);
    let mut different = 0;
    let (ours, theirs) = (products(&emulator()), products(&*gpu));
    for (i, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        let size = SIZES[i / 2];
        let (ours, theirs) = (size.result(ours), size.result(theirs));
        let bits = |x: f64| x.to_bits();
        let wrong: Vec<_> = (0..ours.len()).filter(|&i| bits(ours[i]) != bits(theirs[i])).collect();
        let inputs = if i % 2 == 0 { "noise" } else { "whole numbers" };
        println!("{size:?} {inputs}: {} of {} elements differ", wrong.len(), ours.len());
        for &i in wrong.iter().take(4) {
            let (m, n) = (i / size.n, i % size.n);
            println!("  C[{m},{n}]: emulator {:e}, GPU {:e}", ours[i], theirs[i]);
        }
        different += wrong.len();
    }
    assert_eq!(different, 0, "elements that differ");
}
