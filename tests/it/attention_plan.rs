//! Packed sequences in the Hopper attention kernel: the plan that its first entry makes, run on the
//! emulator and held against a plain sort; and that no sequence sees another's values.

use crossover::device::emulator::{RawArg, run_raw};
use crossover::device::{Arg, Device};
use crossover::op::{Family, Problem, Tensor};

use crate::common::{emulator, kernel, problem};

fn packed(lens: &[[usize; 2]], (hq, hkv): (usize, usize), causal: bool) -> Problem {
    problem("attention", &format!("Hq={hq},Hkv={hkv},D=64,causal={causal}")).pack(lens.to_vec())
}

fn starts(lens: &[[usize; 2]], side: usize) -> RawArg {
    let ends = lens.iter().scan(0, |sum, l| {
        *sum += l[side] as u32;
        Some(*sum)
    });
    RawArg::words(std::iter::once(0).chain(ends))
}

#[test]
fn longest_sequences_come_first() {
    let kernel = kernel("attention/prefill.sm90a");
    // More sequences than a CTA has threads, with ties and empty ones.
    let lens: Vec<[usize; 2]> = (0..150)
        .map(|i| [(i * 37 % 700) * (i % 5).min(1), (i / 2) * 53 % 900 * (i % 4).min(1)])
        .collect();
    for causal in [false, true] {
        let problem = packed(&lens, (3, 1), causal);
        let tile = kernel.default_tile(&problem).unwrap();
        let rows = 64 * tile.0["WG"] as usize;
        let job = kernel.job(&problem, &tile).unwrap();
        let launch = &job.launches[0];
        assert_eq!(launch.entry, "attention_plan");
        let n = lens.len();
        let Some(Arg::TensorMap(map)) = launch.args.iter().find(|a| matches!(a, Arg::TensorMap(_)))
        else {
            panic!("no tensor map");
        };
        let mut map = map.clone();
        map.buffer = 3; // among those below: nothing reads it
        let values = lens.iter().map(|l| l[1]).sum::<usize>() * 64 * 2;
        let args = [
            starts(&lens, 0),
            starts(&lens, 1),
            RawArg::Out(4 * (2 * n + 1)),
            RawArg::U32(n as u32),
            RawArg::U32(3),
            RawArg::TensorMap(map),
            RawArg::Out(values.max(128 * n)),
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

#[test]
fn no_sequence_sees_anothers_values() {
    let kernel = kernel("attention/prefill.sm90a");
    let emulator = emulator();
    // None ends where a block of keys does; the second one's values are not finite.
    let lens = [[70, 70], [60, 60], [5, 200], [300, 300]];
    for causal in [false, true] {
        let problem = packed(&lens, (2, 1), causal);
        let tile = kernel.default_tile(&problem).unwrap();
        let job = kernel.job(&problem, &tile).unwrap();
        let run = |inputs: &[Tensor]| {
            let mut loaded = emulator.load(&job, inputs).unwrap_or_else(|e| panic!("{e}"));
            let outcome = loaded.run().unwrap_or_else(|e| panic!("{e}"));
            outcome.outputs[0].bytes.clone()
        };
        let mut inputs = problem.inputs(&Family::default(), 5);
        let clean = run(&inputs);
        let (first, end) = (70 * 64 * 2, 130 * 64 * 2);
        for (i, pair) in inputs[2].bytes[first..end].chunks_exact_mut(2).enumerate() {
            let poison: u16 = if i % 2 == 0 { 0x7fc0 } else { 0xff80 }; // NaN, -infinity
            pair.copy_from_slice(&poison.to_le_bytes());
        }
        let poisoned = run(&inputs);
        // Rows of q and o have two heads.
        let (first, end) = (2 * first, 2 * end);
        assert!(poisoned[..first] == clean[..first], "causal {causal}: the sequence before");
        assert!(poisoned[end..] == clean[end..], "causal {causal}: those after");
        assert!(poisoned[first..end] != clean[first..end], "causal {causal}: its own");
    }
}
