use super::*;
use crate::op::Op;

/// E/F of o and of the final state, of the recurrence in fp32 with its operands rounded to `dtype`.
fn rounded(gate: Gate, dtype: DType, family: &Family, t: usize) -> [f64; 2] {
    let op = Op::parse(if gate == Gate::Scalar { "gated_delta_rule" } else { "kda" }).unwrap();
    let p = Problem::plain(op, PhaseName::Prefill, dtype, (128, 16), t).with("final_state", true);
    let (s, inputs) = (Shape::of(&p), p.inputs(family, 1));
    let [q, k, v, g, beta] = [0, 1, 2, 3, 4]
        .map(|i| (0..inputs[i].len()).map(|j| inputs[i].get(j) as f32).collect::<Vec<_>>());
    let scale = p.number("scale").unwrap() as f32;
    let round = |x: f32| dtype.round(f64::from(x)) as f32;
    let (mut state, mut o) = (vec![0f32; s.k * s.v], Vec::new());
    let channels = g.len() / s.t;
    for t in 0..s.t {
        let (q, k) = (&q[t * s.k..][..s.k], &k[t * s.k..][..s.k]);
        let (mut e, mut out) = (v[t * s.v..][..s.v].to_vec(), vec![0f32; s.v]);
        for (c, row) in state.chunks_mut(s.v).enumerate() {
            let decay = g[t * channels + c % channels].exp();
            row.iter_mut().for_each(|x| *x *= decay);
            e.iter_mut().zip(&*row).for_each(|(e, x)| *e -= k[c] * round(*x));
        }
        e.iter_mut().for_each(|e| *e = round(beta[t] * *e));
        for (c, row) in state.chunks_mut(s.v).enumerate() {
            row.iter_mut().zip(&e).for_each(|(x, e)| *x += k[c] * e);
            out.iter_mut().zip(&*row).for_each(|(o, x)| *o += q[c] * round(*x));
        }
        o.extend(out.iter().map(|x| round(scale * x)));
    }
    let want = p.reference(&inputs);
    let usual = dtype.format().usual_floor;
    let off = |a: &mut dyn Iterator<Item = f64>, b: &[f64]| {
        let norm = |x: f64, y: f64| x + y * y;
        a.zip(b).map(|(a, b)| a - b).fold(0.0, norm).sqrt()
            / b.iter().copied().fold(0.0, norm).sqrt()
    };
    [&o, &state]
        .map(|x| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>())
        .into_iter()
        .zip(want)
        .map(|(got, want)| {
            let floor = off(&mut want.iter().map(|x| dtype.round(*x)), &want).max(usual / 2.0);
            off(&mut got.into_iter(), &want) / floor
        })
        .collect::<Vec<_>>()
        .try_into()
        .unwrap()
}

/// Each limit is at most twice the worst that the recurrence loses on inputs of its row, and no family
/// of the suite asks for less than the recurrence loses.
#[test]
fn limits_are_twice_what_the_recurrence_loses() {
    let mut worst: Vec<([f64; 2], [f64; 2])> = Vec::new();
    for family in FAMILIES.iter().map(|f| f.parse::<Family>().unwrap()) {
        // Without writes there is nothing to lose.
        if family.beta == Beta::Zero {
            continue;
        }
        let limits = ["o", "final_state"].map(|output| limit(&family, output));
        let long = family.gate == Decay::Zero && family.keys == Keys::Normal;
        for (gate, dtype) in [
            (Gate::Scalar, DType::Bf16),
            (Gate::PerChannel, DType::Bf16),
            (Gate::PerChannel, DType::Fp16),
        ] {
            let got = rounded(gate, dtype, &family, if long { 2048 } else { 384 });
            assert!(got[0] < limits[0] && got[1] < limits[1], "{family} {gate:?} {dtype}: {got:?}");
            match worst.iter_mut().find(|(l, _)| *l == limits) {
                Some((_, w)) => (0..2).for_each(|i| w[i] = w[i].max(got[i])),
                None => worst.push((limits, got)),
            }
        }
    }
    assert_eq!(worst.len(), 3);
    for (limits, worst) in worst {
        for i in 0..2 {
            assert!(
                limits[i] <= 2.0 * worst[i] * 1.02,
                "{limits:?}: the recurrence loses {worst:?}"
            );
        }
    }
}

/// No limit is above what it was when families had limits by their keys.
#[test]
fn limits_do_not_rise() {
    for family in FAMILIES.iter().map(|f| f.parse::<Family>().unwrap()) {
        assert!(
            ["o", "final_state"].iter().all(|output| limit(&family, output) <= 4.5),
            "{family}"
        );
    }
}
