use std::slice::from_ref;

use super::*;
use crate::record::made_up::{Made, ops};

const RULE: Rule = Rule { threshold: 0.01, across_devices: false };

fn made(t: usize, ns: f64) -> Made {
    Made::new(ops()[0], t, ns)
}

fn wrong(record: Record) -> Record {
    let reason = Some("o[3] is 1, wanted 2".into());
    Record { status: Status::Wrong, reason, timing: None, ..record }
}

#[test]
fn cases_are_matched_whatever_the_sweep() {
    let old = [made(1024, 1e5).record(), made(2048, 2e5).record(), made(512, 1.0).record()];
    let mut new = vec![made(1024, 1e5).record(), made(2048, 2.4e5).record()];
    new[0].sweep = "other".into();
    new[0].id = "other".into();
    let c = compare(&old, &new, RULE).unwrap();
    assert_eq!(c.pairs.len(), 2);
    assert_eq!(c.pairs[0].verdict, Verdict::Slower);
    assert!((c.pairs[0].ratio - 1.2).abs() < 0.02, "{}", c.pairs[0].ratio);
    assert_ne!(c.pairs[1].verdict, Verdict::Slower);
    assert_eq!((c.left.len(), c.left[0].why.as_str()), (1, "only in OLD"));
    assert_eq!(c.regressions(), 1);
    let back = compare(&new, &old, RULE).unwrap();
    assert_eq!((back.count(Verdict::Faster), back.regressions()), (1, 0));
}

/// GPUs of one model are not one GPU.
#[test]
fn another_gpu_of_the_model_widens_the_interval() {
    let on = |gpu: &str, ns| {
        let mut r = made(1024, ns).record();
        r.device.more.insert("uuid".into(), gpu.into());
        r
    };
    let of = |a: Record, b: Record| compare(&[a], &[b], RULE).unwrap().pairs.remove(0);
    let below = |p: &Pair| (p.ratio / p.interval.0).ln();
    let same = of(on("GPU-1", 1e5), on("GPU-1", 1.2e5));
    let other = of(on("GPU-1", 1e5), on("GPU-2", 1.2e5));
    assert!(!same.other_gpu && other.other_gpu);
    assert!((same.verdict, other.verdict) == (Verdict::Slower, Verdict::Slower));
    assert!(below(&same) < 0.05 && below(&other) >= 0.05, "{} {}", below(&same), below(&other));
    assert_eq!(of(on("GPU-1", 1e5), on("GPU-2", 1.05e5)).verdict, Verdict::Ambiguous);
    let c = compare(&[on("GPU-1", 1e5)], &[on("GPU-2", 1e5)], RULE).unwrap();
    assert!(
        render::text(&c).contains("another GPU") && render::text(&c).contains("different GPUs")
    );
}

#[test]
fn what_was_right_and_is_not_is_a_regression() {
    let (ok, bad) = (made(1024, 1e5).record(), wrong(made(1024, 1e5).record()));
    let of = |a: &Record, b: &Record| {
        let c = compare(from_ref(a), from_ref(b), RULE).unwrap();
        (c.pairs.len(), c.left[0].why.clone(), c.regressions())
    };
    let (n, why, regressions) = of(&ok, &bad);
    assert!((n, regressions) == (0, 1) && why.contains("wrong: o[3]"), "{why}");
    assert_eq!(of(&bad, &ok).2, 0);
    assert!(of(&bad, &bad).1.contains("both sides"));
}

#[test]
fn modelled_times_compare_exactly_and_never_with_measured_ones() {
    let modelled = |ns| Made { measured: false, ..made(1024, ns) }.record();
    let of =
        |a: f64, b: f64| compare(&[modelled(a)], &[modelled(b)], RULE).unwrap().pairs.remove(0);
    let p = of(1e5, 1.02e5);
    assert_eq!((p.verdict, p.interval), (Verdict::Slower, (p.ratio, p.ratio)));
    assert!(!p.measured && p.model_error.is_some());
    assert_eq!(of(1e5, 1.005e5).verdict, Verdict::Same);
    let e = compare(&[modelled(1e5)], &[made(1024, 1e5).record()], RULE).unwrap_err();
    assert!(e.contains("never compared"), "{e}");
}

#[test]
fn unlike_devices_are_refused_unless_asked_for() {
    let old = made(1024, 1e5).record();
    let mut new = old.clone();
    new.device.name = "NVIDIA H100".into();
    let e = compare(from_ref(&old), from_ref(&new), RULE).unwrap_err();
    assert!(e.contains("--across-devices") && e.contains("NVIDIA H100"), "{e}");
    let across = Rule { across_devices: true, ..RULE };
    assert_eq!(compare(from_ref(&old), from_ref(&new), across).unwrap().pairs.len(), 1);
    let e = compare(&[old], &[made(64, 1.0).record()], RULE).unwrap_err();
    assert!(e.contains("no case is on both sides"), "{e}");
}

#[test]
fn processes_stand_together_and_renderings_say_the_same() {
    let of = |process, ns: f64| Record { process: Some(process), ..made(1024, ns).record() };
    let old: Vec<_> = (0..4).map(|i| of(i, 1e5 + 100.0 * f64::from(i))).collect();
    let new: Vec<_> = (0..4).map(|i| of(i, 1.1e5 + 100.0 * f64::from(i))).collect();
    let c = compare(&old, &new, RULE).unwrap();
    assert_eq!((c.pairs.len(), c.pairs[0].processes), (1, (4, 4)));
    assert_eq!(c.pairs[0].verdict, Verdict::Slower);
    for text in [render::text(&c), render::markdown(&c), render::csv(&c), render::json(&c)] {
        assert!(text.contains("slower") && text.contains("/prefill.sm80"), "{text}");
    }
    assert!(!render::text(&c).contains("One process"));
    let json: serde_json::Value = serde_json::from_str(&render::json(&c)).unwrap();
    assert_eq!(json["verdicts"]["slower"], 1);
    let lines: Vec<String> = render::csv(&c).lines().map(String::from).collect();
    assert_eq!(lines.len(), 2);
}
