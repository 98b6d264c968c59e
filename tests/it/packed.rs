//! Packed sequences in the linear operators: each gives what it gives alone, bit for bit, whatever lies
//! beside it.

use std::ops::Range;
use std::path::Path;

use crossover::device::Device;
use crossover::kernel::{Kernel, Tile};
use crossover::op::{Family, Flow, Op, PhaseName, Problem, Side, Tensor, TensorSpec};
use predicates::str::contains;
use safetensors::tensor::TensorView;
use safetensors::{SafeTensors, serialize};

use crate::common::{crossover, emulator, kernel, op, problem, registry};
use crate::suite::suite_cases;

/// Kernels of linear operators that take packed sequences.
fn kernels() -> Vec<&'static Kernel> {
    let linear = registry().kernels().iter().filter(|k| k.manifest.op.side() == Side::Linear);
    let takes = |k: &&Kernel| {
        let dtype = k.manifest.dtypes[0];
        let plain = Problem::plain(k.manifest.op, k.phase(), dtype, (64, 64), 64);
        k.supports(&plain.pack(vec![[1, 1]])).is_ok()
    };
    let found: Vec<_> = linear.filter(takes).collect();
    assert!(found.len() >= 3, "{} kernels", found.len());
    found
}

/// Packed sequences of an operator with two value heads of one key head, where it has such.
fn packed(op: Op, lens: &[usize], states: (bool, bool)) -> Problem {
    let heads = if op.variable("HV").is_some() { "H=1,HV=2" } else { "H=2" };
    let (initial, last) = states;
    let settings = format!("{heads},K=64,V=64,initial_state={initial},final_state={last}");
    problem(op.name(), &settings).pack(lens.iter().map(|&n| [n, n]).collect())
}

/// The rows of a tensor's axis of that letter.
fn rows(t: &Tensor, axis: usize, rows: Range<usize>) -> Tensor {
    let outer: usize = t.shape[..axis].iter().product();
    let inner = t.shape[axis + 1..].iter().product::<usize>() * t.dtype.bytes();
    let each = t.shape[axis] * inner;
    let mut shape = t.shape.clone();
    shape[axis] = rows.len();
    let part = |i: usize| &t.bytes[i * each + rows.start * inner..i * each + rows.end * inner];
    let bytes = (0..outer).flat_map(|i| part(i).iter().copied()).collect();
    Tensor { dtype: t.dtype, shape, bytes }
}

/// What belongs to a sequence: of tensors along its tokens and of states; others as they are. A
/// problem of that sequence alone has no `cu_seqlens`.
fn of_sequence(p: &Problem, flow: Flow, all: &[Tensor], n: usize) -> Vec<Tensor> {
    let tokens = p.places()[n].q.clone();
    let specs = p.tensors_of(flow).into_iter().zip(all);
    specs
        .filter(|(spec, _)| spec.name != "cu_seqlens")
        .map(|(spec, t)| match spec.dims.split(' ').position(|d| d == "T" || d == "N") {
            Some(axis) if spec.token_axis() == Some(axis) => rows(t, axis, tokens.clone()),
            Some(axis) => rows(t, axis, n..n + 1),
            None => t.clone(),
        })
        .collect()
}

/// A sequence of a packed problem as a problem of its own; none if it is empty.
fn alone(p: &Problem, n: usize) -> Option<Problem> {
    let tokens = p.lens()[n][0];
    (tokens > 0).then(|| p.pack(vec![]).with("T", tokens))
}

fn run(kernel: &Kernel, tile: &Tile, problem: &Problem, inputs: &[Tensor]) -> Vec<Tensor> {
    let job = kernel.job(problem, tile).unwrap_or_else(|e| panic!("{}", e.0));
    let emulator = emulator();
    let mut loaded = emulator.load(&job, inputs).unwrap_or_else(|e| panic!("{problem}: {e}"));
    let outcome = loaded.run().unwrap_or_else(|e| panic!("{} {tile} {problem}: {e}", kernel.name));
    assert_eq!(outcome.damage, Vec::<String>::new(), "{problem}");
    outcome.outputs
}

/// What a sequence without tokens leaves: no rows, and the state as it was.
fn untouched(p: &Problem, inputs: &[Tensor], outputs: &[Tensor]) -> Vec<Tensor> {
    let given = p.tensors_of(Flow::Input).iter().position(|s| s.name == "initial_state");
    let left = |(i, t): (usize, &Tensor)| match (i, given) {
        (0, _) => t.clone(),
        (_, Some(given)) => inputs[given].clone(),
        (_, None) => Tensor { bytes: vec![0; t.bytes.len()], ..t.clone() },
    };
    assert!(outputs[0].is_empty());
    outputs.iter().enumerate().map(left).collect()
}

const STATES: [(bool, bool); 4] = [(true, true), (false, true), (true, false), (false, false)];

/// In fp64 too: the packed reference is that of each sequence.
#[test]
fn packing_is_a_loop_over_sequences() {
    for op in Op::all().filter(|op| op.side() == Side::Linear) {
        for states in STATES {
            let p = packed(op, &[0, 70, 1, 0, 9, 0], states).with("K", 8).with("V", 4);
            let inputs = p.inputs(&Family::default(), 3);
            let whole: Vec<_> =
                p.tensors_of(Flow::Output).into_iter().zip(p.reference(&inputs)).collect();
            let mut flops = 0.0;
            for (n, place) in p.places().into_iter().enumerate() {
                let of = |(spec, x): &(TensorSpec, Vec<f64>)| {
                    let (each, at) = match spec.token_axis() {
                        Some(_) => (x.len() / p.tokens(), place.q.clone()),
                        None => (x.len() / p.lens().len(), n..n + 1),
                    };
                    x[at.start * each..at.end * each].to_vec()
                };
                let got: Vec<_> = whole.iter().map(of).collect();
                let given = of_sequence(&p, Flow::Input, &inputs, n);
                let want = match alone(&p, n) {
                    Some(one) => {
                        flops += one.flops();
                        one.reference(&given)
                    }
                    None => {
                        let state = given.get(if op.variable("HV").is_some() { 5 } else { 4 });
                        let zero = || vec![0.0; got.last().expect("an output").len()];
                        let state = state.map_or_else(zero, Tensor::to_f64);
                        if states.1 { vec![vec![], state] } else { vec![vec![]] }
                    }
                };
                assert_eq!(got, want, "{p} {n}");
            }
            assert_eq!(p.flops(), flops, "{p}");
        }
    }
}

/// Half of the tiles at both precisions, states on and off; ragged, empty and short sequences.
#[test]
fn each_sequence_is_as_alone_bit_for_bit() {
    for kernel in kernels() {
        let (op, mut turn) = (kernel.manifest.op, 0);
        for &dtype in &kernel.manifest.dtypes {
            let sample = packed(op, &[64], STATES[0]).with_dtype(dtype);
            let tiles = kernel.tiles(&sample).expect("legal tiles");
            for tile in tiles.iter().step_by(2) {
                turn += 1;
                let lens: &[usize] =
                    [&[70, 0, 1, 64, 129][..], &[0, 0, 65, 63, 0, 2], &[1, 127, 0], &[200, 5]]
                        [turn % 4];
                let p = packed(op, lens, STATES[turn / 2 % 4]).with_dtype(dtype);
                let inputs = p.inputs(&Family::default(), 7);
                let outputs = run(kernel, tile, &p, &inputs);
                for n in 0..lens.len() {
                    let got = of_sequence(&p, Flow::Output, &outputs, n);
                    let given = of_sequence(&p, Flow::Input, &inputs, n);
                    let want = match alone(&p, n) {
                        Some(one) => run(kernel, tile, &one, &given),
                        None => untouched(&p, &given, &got),
                    };
                    assert!(got == want, "{} {tile} {p}: sequence {n}", kernel.name);
                }
            }
        }
    }
}

/// NaN in everything of one sequence stays there.
#[test]
fn no_sequence_sees_anothers_values() {
    for kernel in kernels() {
        for lens in [[70, 60, 5, 130], [64, 0, 1, 100]] {
            let p = packed(kernel.manifest.op, &lens, (true, true));
            let tile = kernel.default_tile(&p).expect("a default tile");
            let inputs = p.inputs(&Family::default(), 7);
            let clean = run(kernel, &tile, &p, &inputs);
            for bad in 0..lens.len() {
                let mut spoilt = inputs.clone();
                for (spec, t) in p.tensors_of(Flow::Input).iter().zip(&mut spoilt) {
                    let place = &p.places()[bad].q;
                    let (of, at) = match spec.dims.split(' ').next() {
                        _ if spec.token_axis().is_some() => (p.tokens(), place.clone()),
                        Some("N") => (lens.len(), bad..bad + 1),
                        _ => continue,
                    };
                    let each = t.len() / of;
                    let is = |i: usize| at.contains(&(i / each));
                    let x: Vec<f64> =
                        (0..t.len()).map(|i| if is(i) { f64::NAN } else { t.get(i) }).collect();
                    *t = Tensor::from_f64(t.dtype, &t.shape, x);
                }
                let got = run(kernel, &tile, &p, &spoilt);
                for n in (0..lens.len()).filter(|n| *n != bad) {
                    let [got, want] =
                        [&got, &clean].map(|all| of_sequence(&p, Flow::Output, all, n));
                    assert!(got == want, "{} {p}: sequence {n} beside {bad}", kernel.name);
                }
                let own = of_sequence(&p, Flow::Output, &got, bad);
                assert!((0..own[1].len()).all(|i| own[1].get(i).is_nan()), "{p} {bad}");
            }
        }
    }
}

/// A chunk finds its sequence among 40 (two loads of a warp) and 1100 (three), of which most are
/// empty.
#[test]
fn chunks_find_their_sequence_among_many() {
    for name in ["gated_delta_rule", "kda"] {
        let kernel = kernel(&format!("{name}/prefill.sm80"));
        for many in [32, 33, 40, 1100] {
            let lens: Vec<usize> = (0..many)
                .map(|n| match n {
                    _ if n + 1 == many => 66,
                    _ if n % 9 == 4 && many < 100 => 3 + n,
                    _ if n % 150 == 7 => 64,
                    _ => 0,
                })
                .collect();
            let settings = "HV=1,K=64,V=64,final_state=false";
            let p = problem(name, settings).pack(lens.iter().map(|&n| [n, n]).collect());
            let tile = kernel.default_tile(&p).expect("a default tile");
            let inputs = p.inputs(&Family::default(), 7);
            let outputs = run(kernel, &tile, &p, &inputs);
            for n in (0..many).filter(|n| lens[*n] > 0) {
                let one = alone(&p, n).expect("tokens");
                let want = run(kernel, &tile, &one, &of_sequence(&p, Flow::Input, &inputs, n));
                let got = of_sequence(&p, Flow::Output, &outputs, n);
                assert!(got == want, "{p}: sequence {n}");
            }
        }
    }
}

/// Suites of kernels that take them have packed sequences in every phase, empty ones among them.
#[test]
fn suites_try_packed_sequences() {
    for kernel in kernels() {
        for &phase in &kernel.manifest.phases {
            let all = suite_cases(kernel).iter().map(|s| &s.case.problem);
            let all: Vec<_> = all.filter(|p| p.phase() == phase).collect();
            let lens: Vec<_> = all.iter().map(|p| p.lens()).filter(|l| !l.is_empty()).collect();
            let least = if phase == PhaseName::Prefill { all.len() / 5 } else { 1 };
            assert!(lens.len() >= least && lens.len() * 2 < all.len(), "{} {phase}", kernel.name);
            if phase == PhaseName::Prefill {
                let has = |f: fn(&[[usize; 2]]) -> bool| lens.iter().any(|l| f(l));
                assert!(has(|l| l[0][0] == 0) && has(|l| l[l.len() - 1][0] == 0));
                assert!(has(|l| l[1..l.len() - 1].iter().any(|n| n[0] == 0)));
                assert!(has(|l| l.iter().any(|n| n[0] == 1)) && has(|l| l.contains(&[63, 63])));
            }
        }
    }
}

/// What is not packed pays nothing for it: no parameter, no search.
#[test]
fn unpacked_programs_have_no_trace_of_it() {
    for kernel in kernels() {
        let p = packed(kernel.manifest.op, &[64], (false, true));
        let tile = kernel.default_tile(&p).expect("a default tile");
        let text = |p: &Problem| kernel.render(p, &tile).unwrap_or_else(|e| panic!("{}", e.0)).text;
        let names = |text: &str| text.contains("cu_seqlens");
        assert!(names(&text(&p)) && !names(&text(&p.pack(vec![]))), "{}", kernel.name);
    }
}

#[test]
fn what_cannot_be_packed_is_refused() {
    let refused = |op: &str, phase, settings: &str, words: &[&str]| {
        let why = Problem::parse(self::op(op), phase, settings).unwrap_err();
        assert!(words.iter().all(|w| why.contains(w)), "{settings}: {why}");
    };
    let (prefill, decode) = (PhaseName::Prefill, PhaseName::Decode);
    refused("kda", prefill, "lens=5:7+2", &["lens: 5:7: kda has one length a sequence"]);
    refused("kda", prefill, "lens=5+2,T=7", &["T=7", "lens=5+2 already says it"]);
    refused("kda", prefill, "lens=5+2,B=2", &["B=2", "lens=5+2 already says it"]);
    refused("kda", prefill, "lens=0+0", &["lens=2x0", "no sequence has tokens"]);
    refused("gated_delta_rule", decode, "lens=1+2", &["T = 2", "decode takes 1"]);
    // A context is said beside lengths: no length tells of it.
    let p = Problem::parse(op("kda"), decode, "lens=3x1,context=5000").unwrap();
    assert_eq!((p.lens().len(), p.tokens(), p.length()), (3, 3, 5000));
    assert_eq!(Problem::parse(p.op(), prefill, &p.settings()).as_ref(), Ok(&p));
    let json = serde_json::to_string(&p).unwrap();
    assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), p, "{json}");
    let sums = json.replace("\"t\":3", "\"t\":4");
    let why = serde_json::from_str::<Problem>(&sums).unwrap_err().to_string();
    assert!(why.contains("T = 4: packed sequences have 3 in all"), "{why}");
    // Kernels that do not take packed sequences say so.
    let lightning = Problem::parse(op("lightning"), decode, "lens=3x1").unwrap();
    let why = kernel("lightning/decode.sm80").supports(&lightning).unwrap_err();
    assert!(why.0.contains("packed"), "{}", why.0);
    for kernel in kernels() {
        let many = packed(kernel.manifest.op, &[1; 65536], (false, true));
        let why = kernel.supports(&many).unwrap_err();
        assert!(why.0.contains("65535"), "{}", why.0);
    }
}

/// Fewer columns a CTA where one sequence is long and the others are not: it alone keeps CTAs busy.
#[test]
fn default_tiles_heed_the_longest_sequence() {
    let kernel = kernel("gated_delta_rule/prefill.sm80");
    let columns = |lens: &str| {
        let p = problem("gated_delta_rule", &format!("H=16,HV=32,{lens}"));
        kernel.default_tile(&p).expect("a default tile").0["BV"]
    };
    assert_eq!(columns("lens=8x512"), columns("B=8,T=512"));
    assert_eq!(columns("lens=8192+64x1"), columns("T=8192"));
    assert!(columns("lens=8192+64x1") < columns("lens=8x512"));
}

/// Writes the file again with one tensor changed.
fn changed(from: &Path, to: &Path, name: &str, change: impl Fn(&mut Vec<usize>, &mut Vec<u8>)) {
    let bytes = std::fs::read(from).expect("a file");
    let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let mut all = Vec::new();
    for (own, view) in file.tensors() {
        let (mut shape, mut data) = (view.shape().to_vec(), view.data().to_vec());
        if own == name {
            change(&mut shape, &mut data);
        }
        all.push((own, view.dtype(), shape, data));
    }
    let views = all.iter().map(|(name, dtype, shape, data)| {
        (name, TensorView::new(*dtype, shape.clone(), data).expect("a tensor"))
    });
    std::fs::write(to, serialize(views, None).expect("a file")).expect("a written file");
}

/// `inputs` writes `cu_seqlens`, `exec` reads it, and says what does not fit.
#[test]
fn files_carry_packed_sequences() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(format!("{name}.safetensors"));
    let settings = "lens=30+0+69,H=1,HV=2,K=64,V=64,initial_state=true";
    for name in ["gated_delta_rule", "kda", "lightning"] {
        let settings =
            if name == "lightning" { &settings.replace("H=1,HV", "H") } else { settings };
        let input = path("in");
        crossover(&["inputs", name, "-p", settings, "--out"]).arg(&input).assert().success();
        let exec = |input: &Path| {
            let mut command = crossover(&["exec", &format!("{name}/prefill.sm80")]);
            command.args(["--device", "emulator", "--final-state", "--verify", "--inputs"]);
            command.arg(input).arg("--out").arg(path("out"));
            command
        };
        exec(&input).assert().success().stdout(contains("lens=30+0+69"));
        let read = |name: &str| std::fs::read(path(name)).expect("a file");
        let (given, made) = (read("in"), read("out"));
        let [given, made] =
            [&given, &made].map(|b| SafeTensors::deserialize(b).expect("a safetensors file"));
        let start = given.tensor("initial_state").expect("a state");
        let end = made.tensor("final_state").expect("a state");
        assert_eq!((start.shape(), end.shape()), (&[3, 2, 64, 64][..], &[3, 2, 64, 64][..]));
        let each = start.data().len() / 3;
        assert_eq!(start.data()[each..2 * each], end.data()[each..2 * each], "{name}");
        assert_ne!(start.data()[..each], end.data()[..each], "{name}");

        std::fs::remove_file(path("out")).expect("a file");
        let refused =
            |tensor: &str, words: &[&str], change: &dyn Fn(&mut Vec<usize>, &mut Vec<u8>)| {
                changed(&input, &path("odd"), tensor, change);
                let mut failed = exec(&path("odd")).assert().code(2);
                for word in words {
                    failed = failed.stderr(contains(*word));
                }
                assert!(!path("out").exists());
            };
        let two = |shape: &mut Vec<usize>, data: &mut Vec<u8>| {
            shape[0] = 2;
            data.truncate(data.len() / 3 * 2);
        };
        refused(
            "initial_state",
            &["initial_state: got shape [2, 2, 64, 64]", "expected [3, 2"],
            &two,
        );
        let set = |i: usize, x: i32| {
            move |_: &mut Vec<usize>, data: &mut Vec<u8>| {
                data[4 * i..4 * i + 4].copy_from_slice(&x.to_le_bytes());
            }
        };
        refused("cu_seqlens", &["cu_seqlens: ends with 98", "T = 99"], &set(3, 98));
        refused("cu_seqlens", &["cu_seqlens: [2] is 29 after 30"], &set(2, 29));
        refused("cu_seqlens", &["cu_seqlens: [0] is 1, expected 0"], &set(0, 1));
    }
}
