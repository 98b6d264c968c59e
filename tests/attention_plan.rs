//! The plan of packed sequences, which the Hopper attention kernel's first entry makes: run on
//! the emulator and held against a plain sort.

use crossover::device::emulator::{RawArg, run_raw};
use crossover::kernel::Registry;
use crossover::op::attention::{Extras, Shape};
use crossover::op::{DType, Problem};

fn starts(lens: &[[usize; 2]], side: usize) -> RawArg {
    let ends = lens.iter().scan(0, |sum, l| {
        *sum += l[side] as u32;
        Some(*sum)
    });
    RawArg::words(std::iter::once(0).chain(ends))
}

#[test]
fn longest_sequences_come_first() {
    let registry = Registry::embedded().unwrap();
    let kernel = registry.get("attention/prefill.sm90a").unwrap();
    // More sequences than a CTA has threads, with ties.
    let lens: Vec<[usize; 2]> =
        (0..150).map(|i| [1 + i * 37 % 700, 1 + (i / 2) * 53 % 900]).collect();
    for causal in [false, true] {
        let mut shape = Shape {
            dtype: DType::Bf16,
            b: 1,
            tq: 0,
            tkv: 0,
            hq: 3,
            hkv: 1,
            d: 64,
            causal,
            scale: 0.125,
            extras: Extras::default(),
        };
        shape.pack(lens.clone());
        let problem = Problem::Attention(shape);
        let tile = kernel.default_tile(&problem).unwrap();
        let rows = 64 * tile.0["WG"] as usize;
        let job = kernel.job(&problem, &tile).unwrap();
        let launch = &job.launches[0];
        assert_eq!(launch.entry, "attention_plan");
        let n = lens.len();
        let args = [
            starts(&lens, 0),
            starts(&lens, 1),
            RawArg::Out(4 * (2 * n + 1)),
            RawArg::U32(n as u32),
            RawArg::U32(3),
        ];
        let out = run_raw(&job.ptx.text, &launch.entry, launch.grid, launch.block, 0, &args)
            .unwrap_or_else(|trap| panic!("{trap:?}"));

        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(lens[i][1]));
        let mut want = vec![0];
        for &i in &order {
            let tiles = lens[i][0].div_ceil(rows);
            let units = 3 * if causal { tiles.div_ceil(2) } else { tiles };
            want.push(want[want.len() - 1] + units as u32);
        }
        want.extend(order.iter().map(|&i| i as u32));
        assert_eq!(out.words(0), want, "causal {causal}");
    }
}
