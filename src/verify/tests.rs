use super::*;
use crate::op::{DType, Role, examples};

fn full(t: usize, heads: usize) -> Problem {
    examples::problem(examples::full(), &format!("T={t},Hq={heads},Hkv=1,D=64,causal=true"))
}

fn linear(t: usize) -> Problem {
    let settings = format!("T={t},H=1,HV=2,K=64,V=64,initial_state=true");
    examples::problem(examples::linear(), &settings)
}

/// The reference rounded to the tensors' types: what a perfect kernel leaves.
fn perfect(problem: &Problem, inputs: &[Tensor]) -> Vec<Tensor> {
    let specs = problem.tensors_of(Flow::Output).into_iter();
    specs
        .zip(problem.reference(inputs))
        .map(|(s, x)| Tensor::from_f64(s.dtype, &s.shape, x))
        .collect()
}

fn set(tensor: &mut Tensor, i: usize, x: f64) {
    let mut bytes = Vec::new();
    tensor.dtype.push(x, &mut bytes);
    let size = bytes.len();
    tensor.bytes[i * size..(i + 1) * size].copy_from_slice(&bytes);
}

struct Bench {
    problem: Problem,
    inputs: Vec<Tensor>,
    reference: Reference,
    outputs: Vec<Tensor>,
}

fn bench(problem: Problem, subset: impl Fn(&Problem) -> Subset) -> Bench {
    let inputs = problem.inputs(&Family::default(), 5);
    let outputs = perfect(&problem, &inputs);
    let reference = Reference::new(&problem, &inputs, subset(&problem));
    Bench { problem, inputs, reference, outputs }
}

impl Bench {
    fn hold(&self) -> Verdict {
        self.reference.hold(&Family::default(), &self.outputs)
    }
}

#[test]
fn a_perfect_kernel_stands_at_the_floor() {
    for problem in [full(130, 2), linear(70)] {
        let b = bench(problem, Subset::whole);
        let v = b.hold();
        assert!(v.verification.passed && v.maps.is_empty(), "{:?}", v.verification);
        let o = &v.verification.outputs[0];
        assert!((o.ratio() - 1.0).abs() < 0.05, "E/F {}", o.ratio());
        assert!((1.3e-3..1.9e-3).contains(&o.floor), "F {}", o.floor);
        assert!(o.max_ulp <= 0.501, "{}", o.max_ulp);
        // lse and the state are fp32: far below the floor of a 16-bit computation.
        assert!(v.verification.outputs[1].ratio() < 1e-3);
        assert_eq!(o.blocks.len(), b.problem.tokens().div_ceil(64));
        assert_eq!(reason(&v.verification), None);
        let same = verify(
            &b.problem,
            &Family::default(),
            &b.inputs,
            &b.outputs,
            Subset::whole(&b.problem),
        );
        assert_eq!(same, v.verification);
    }
}

/// Rows of a state are counted through sequences and keys.
#[test]
fn a_bad_state_of_packed_sequences_is_named_by_its_sequence() {
    let mut b = bench(linear(70).pack(vec![[40, 40], [0, 0], [30, 30]]), Subset::whole);
    assert!(b.hold().verification.passed);
    set(&mut b.outputs[1], ((2 * 2 + 1) * 64 + 5) * 64 + 3, 1e6);
    let bad = b.hold().verification.outputs[1].first_bad.clone().unwrap();
    assert!(bad.starts_with("first bad final_state[N=2 HV=1 K=5 V=3] got"), "{bad}");
    assert_eq!(b.problem.tensors_of(Flow::Output)[1].shape, [3, 2, 64, 64]);
}

#[test]
fn one_nan_fails() {
    let mut b = bench(full(70, 2), Subset::whole);
    set(&mut b.outputs[0], 64 * 2 * 64 + 64 + 3, f64::NAN);
    let v = b.hold();
    let o = &v.verification.outputs[0];
    assert!(!v.verification.passed && o.nonfinite == 1 && o.error.is_finite());
    let bad = o.first_bad.as_deref().unwrap();
    assert!(bad.contains("o[B=0 Tq=64 Hq=1 Dv=3] got NaN"), "{bad}");
    assert!(v.maps[0].1.contains("      64  N..."), "{}", v.maps[0].1);
}

#[test]
fn untouched_poison_fails() {
    let mut b = bench(linear(5), Subset::whole);
    for x in 0..b.outputs[1].len() {
        set(&mut b.outputs[1], x, f64::NAN);
    }
    let v = b.hold().verification;
    assert!(output_passes(&v.outputs[0]) && !output_passes(&v.outputs[1]));
    assert_eq!(v.outputs[1].nonfinite, 2 * 64 * 64);
    assert!((v.outputs[1].error - 1.0).abs() < 1e-12);
}

#[test]
fn one_wrong_element_fails_though_the_norm_hardly_moves() {
    let mut b = bench(full(500, 4), Subset::whole);
    let i = 77_777;
    let wrong = b.outputs[0].get(i) + 0.2;
    set(&mut b.outputs[0], i, wrong);
    let v = b.hold();
    let o = &v.verification.outputs[0];
    assert!(o.ratio() < 4.0 && !v.verification.passed);
    assert!(o.first_bad.as_deref().unwrap().starts_with("first bad o["));
    assert!(v.maps[0].1.starts_with("1 of 128000 elements bad, in 1 of 4 heads"));
}

#[test]
fn a_permuted_tile_fails_and_shows_where() {
    let mut b = bench(linear(64), Subset::whole);
    // Two halves of 8 columns swapped in rows 16..32 of head 1.
    let old = b.outputs[0].clone();
    for t in 16..32 {
        for c in 0..16 {
            set(
                &mut b.outputs[0],
                (t * 2 + 1) * 64 + 32 + c,
                old.get((t * 2 + 1) * 64 + 32 + (c ^ 8)),
            );
        }
    }
    let v = b.hold();
    assert!(!v.verification.passed);
    let map = &v.maps[0].1;
    assert!(map.contains("head 1") && map.contains("      16  ..x.\n"), "{map}");
}

#[test]
fn a_wrong_tail_fails() {
    let mut b = bench(full(65, 1), Subset::whole);
    for c in 0..64 {
        set(&mut b.outputs[0], 64 * 64 + c, 0.0);
    }
    let v = b.hold().verification;
    assert!(!v.passed);
    assert!(v.outputs[0].blocks[1] > 0.99 && v.outputs[0].blocks[0] < 2e-3);
    assert!(v.outputs[0].first_bad.as_deref().unwrap().contains("Tq=64"));
}

#[test]
fn a_wrong_state_fails_though_the_output_is_right() {
    let mut b = bench(linear(40), Subset::whole);
    let x: Vec<f64> = b.outputs[1].to_f64().iter().map(|x| x * 1.02).collect();
    b.outputs[1] = Tensor::from_f64(DType::Fp32, &b.outputs[1].shape.clone(), x);
    let v = b.hold().verification;
    assert!(output_passes(&v.outputs[0]) && !output_passes(&v.outputs[1]) && !v.passed);
    assert!((v.outputs[1].error - 0.02).abs() < 1e-4);
    let why = reason(&v).unwrap();
    assert!(why.starts_with("final_state: E/F") && why.contains("no element grossly off"), "{why}");
}

#[test]
fn rows_that_see_no_key() {
    let mut b = bench(full(90, 1).with_role(Role::Past, 30), Subset::whole);
    assert_eq!(b.outputs[1].get(0), f64::NEG_INFINITY);
    assert!(b.hold().verification.passed);
    set(&mut b.outputs[1], 0, f64::NAN);
    assert!(!b.hold().verification.passed);
    set(&mut b.outputs[1], 0, -1e30);
    assert_eq!(b.hold().verification.outputs[1].nonfinite, 1);
    set(&mut b.outputs[1], 0, f64::NEG_INFINITY);
    set(&mut b.outputs[1], 89, f64::NEG_INFINITY);
    assert_eq!(b.hold().verification.outputs[1].nonfinite, 1);
}

#[test]
fn a_zero_reference_is_an_absolute_test() {
    let problem = linear(20).with("initial_state", false);
    let family: Family = "beta=0".parse().unwrap();
    let inputs = problem.inputs(&family, 1);
    let mut outputs = perfect(&problem, &inputs);
    let reference = Reference::new(&problem, &inputs, Subset::whole(&problem));
    let v = reference.hold(&family, &outputs).verification;
    assert!(v.passed && v.outputs[0].error == 0.0 && v.outputs[0].floor > 0.0);
    set(&mut outputs[0], 7, 1.0);
    assert!(!reference.hold(&family, &outputs).verification.passed);
}

#[test]
fn a_narrowed_decay_drifts() {
    // exp(g) near 1 narrowed to bf16 becomes 1: nothing is forgotten.
    let problem = linear(1024).with("HV", 1);
    let family: Family = "gate=slow".parse().unwrap();
    let inputs = problem.inputs(&family, 2);
    let mut narrowed = inputs.clone();
    let g: Vec<f64> = inputs[3].to_f64().iter().map(|g| DType::Bf16.round(g.exp()).ln()).collect();
    narrowed[3] = Tensor::from_f64(DType::Fp32, &inputs[3].shape, g);
    let wrong = perfect(&problem, &narrowed);
    let v = verify(&problem, &family, &inputs, &wrong, Subset::whole(&problem));
    assert!(!v.passed && v.outputs[0].slope.unwrap() > 0.2, "{:?}", v.outputs[0]);
}

#[test]
fn a_subset_of_a_large_problem() {
    let problem = full(8192, 64).with("B", 2);
    let heads = Subset::plan(&problem, 1e11);
    assert_eq!(heads.sentence.as_deref(), Some("11 of 128 heads"));
    assert_eq!((heads.heads[0], heads.heads[10]), ((0, 0), (1, 63)));
    let rows = Subset::plan(&problem, 1e9);
    let sentence = rows.sentence.as_deref().unwrap();
    assert!(sentence.starts_with("4 of 128 heads, rows 0..64, "), "{sentence}");
    assert!(sentence.ends_with("8128..8192"), "{sentence}");
    assert_eq!(Subset::whole(&problem).sentence, None);
    // A delta rule keeps all of T, and one head at least.
    let one = Subset::plan(&linear(4096), 1.0);
    assert_eq!((one.heads.len(), one.rows.len(), one.rows[0].end), (1, 1, 4096));

    // What is wrong inside the subset is found, with its place in the whole.
    let few = |p: &Problem| Subset::plan(p, 2e6);
    let mut b = bench(full(640, 6), few);
    let v = b.hold().verification;
    assert!(v.passed && v.outputs[0].blocks.is_empty(), "{v:?}");
    assert!(v.subset.as_deref().unwrap().starts_with("4 of 6 heads, rows 0..64, "));
    set(&mut b.outputs[0], (639 * 6 + 5) * 64 + 9, 3.0);
    let bad = b.hold().verification.outputs[0].first_bad.clone().unwrap();
    assert!(bad.contains("[B=0 Tq=639 Hq=5 Dv=9] got 3"), "{bad}");
}

#[test]
fn run_facts_fail_a_right_result() {
    let b = bench(linear(3), Subset::whole);
    let right = b.hold().verification;
    let mut v = right.clone();
    add_run_facts(&mut v, Vec::new(), Some(true));
    assert!(v.passed);
    add_run_facts(&mut v, Vec::new(), Some(false));
    assert!(!v.passed && reason(&v).unwrap().contains("other bits"));
    let mut v = right;
    add_run_facts(&mut v, ["canary after o damaged".to_string()], None);
    assert_eq!(reason(&v).as_deref(), Some("canary after o damaged"));
}

#[test]
fn agreement_counts_units_in_the_last_place() {
    let b = bench(linear(50), Subset::whole);
    let mut other = b.outputs.clone();
    let same = agreement(&b.problem, &b.outputs, &other);
    assert!(same.iter().all(|a| a.within_one_ulp == 1.0 && a.worst_ulp == 0.0));
    // One neighbour in bf16 is within one unit, two are not, NaN is as far as can be.
    let bits = |x: f64, steps: u16| {
        f64::from(half::bf16::from_bits(half::bf16::from_f64(x).to_bits() + steps))
    };
    let o = b.outputs[0].to_f64();
    set(&mut other[0], 0, bits(o[0], 1));
    set(&mut other[0], 1, bits(o[1], 2));
    let a = &agreement(&b.problem, &b.outputs, &other)[0];
    assert_eq!(a.within_one_ulp, 1.0 - 1.0 / o.len() as f64);
    assert_eq!(a.worst_at, 1);
    set(&mut other[0], 2, f64::NAN);
    assert_eq!(agreement(&b.problem, &b.outputs, &other)[0].worst_ulp, 2f64.powi(53));
}

/// NaN is right where the reference has it, and an infinity of the same sign; nothing else is.
#[test]
fn what_is_not_finite_must_be_of_its_kind() {
    let problem = full(130, 2);
    let mut inputs = problem.inputs(&Family::default(), 5);
    let row = 64;
    set(&mut inputs[2], 129 * row + 3, f64::NAN);
    set(&mut inputs[2], 128 * row + 5, f64::INFINITY);
    let outputs = perfect(&problem, &inputs);
    let reference = Reference::new(&problem, &inputs, Subset::whole(&problem));
    let hold = |outputs: &[Tensor]| reference.hold(&Family::default(), outputs).verification;
    let right = hold(&outputs);
    assert!(right.passed, "{right:?}");
    let at = |t: usize, h: usize, d: usize| (t * 2 + h) * row + d;
    assert!(outputs[0].get(at(129, 1, 3)).is_nan() && outputs[0].get(at(128, 1, 3)).is_finite());
    for (i, x) in [
        (at(129, 1, 3), 1.0),
        (at(129, 1, 3), f64::INFINITY),
        (at(129, 0, 5), f64::NEG_INFINITY),
        (at(129, 0, 5), f64::NAN),
        (at(128, 1, 3), f64::NAN),
    ] {
        let mut wrong = outputs.clone();
        set(&mut wrong[0], i, x);
        let v = hold(&wrong);
        assert!(!v.passed && v.outputs[0].nonfinite == 1, "{i} {x}: {v:?}");
        assert!(v.outputs[0].first_bad.is_some());
    }
}

/// An fp32 output of an fp16 problem may lie where fp16 has infinity.
#[test]
fn fp32_outputs_keep_their_range() {
    let problem = full(70, 1).with_dtype(DType::Fp16).with("scale", 1e5);
    let mut b = bench(problem, Subset::whole);
    assert!((0..70).any(|i| b.outputs[1].get(i).abs() > 65504.0));
    let v = b.hold().verification;
    assert!(v.passed && v.outputs[1].floor < 1e-3, "{v:?}");
    let i = (0..70).find(|i| b.outputs[1].get(*i).abs() > 65504.0).expect("a large one");
    set(&mut b.outputs[1], i, f64::INFINITY);
    assert_eq!(b.hold().verification.outputs[1].nonfinite, 1);
}
