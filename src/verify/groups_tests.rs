use super::*;
use crate::device::Regime;
use crate::op::{Family, Problem, examples};
use crate::sweep::Case;

/// A case of a problem with a fault of that message, or none.
fn case(settings: &str, family: &str, fault: Option<(Check, &str)>) -> (Subject, Trial) {
    let problem = examples::problem(examples::full(), settings);
    let case = Case {
        kernel: "x/prefill.y".into(),
        tile: "BM=64,BN=32".parse().unwrap(),
        problem,
        family: family.parse::<Family>().unwrap(),
        seed: 1,
        regime: Regime::default(),
    };
    let subject = Subject { case, prefix: false, multiprocessors: None, most_steps: None };
    let trial = match fault {
        None => Trial::skip(""),
        Some((check, message)) => Trial::failed(check, message),
    };
    (
        subject,
        match fault {
            None => Trial { ending: Ending::Passed, ..trial },
            Some(_) => trial,
        },
    )
}

fn groups(cases: &[(Subject, Trial)]) -> (Vec<Group>, Vec<bool>) {
    let mut groups = Groups::default();
    let first = cases.iter().enumerate().map(|(i, (s, t))| groups.add(i, s, t)).collect();
    (groups.of("x/prefill.y", examples::full()), first)
}

#[test]
fn failures_of_one_place_are_one_group() {
    let cases = [
        case("T=64", "random", Some((Check::Build, "a.ptx:12: `x` is undeclared in 3 of 4"))),
        case("T=65", "random", Some((Check::Build, "a.ptx:12: `x` is undeclared in 5 of 60"))),
        case("T=66", "random", Some((Check::Build, "a.ptx:13: `x` is undeclared in 5 of 60"))),
        case("T=67", "random", Some((Check::Accuracy, "o: E/F = 3.2 (limit 1.6)"))),
        case("T=68", "random", Some((Check::Accuracy, "o: E/F = 7.1 (limit 1.6)"))),
        case("T=69", "random", Some((Check::Accuracy, "lse: E/F = 7.1 (limit 1.6)"))),
        case("T=70", "random", None),
    ];
    let (groups, first) = groups(&cases);
    assert_eq!(first, [true, false, true, true, false, true, false]);
    let found: Vec<_> = groups.iter().map(|g| (g.cases, g.first)).collect();
    assert_eq!(found, [(2, 0), (2, 3), (1, 2), (1, 5)]);
    assert_eq!(groups[1].what, "accuracy: o: E/F = 3.2 (limit 1.6)");
}

#[test]
fn what_failures_have_in_common_is_said() {
    let wrong = Some((Check::Accuracy, "o: E/F = 3.2 (limit 1.6)"));
    let of = |fails: &dyn Fn(&Problem, &str) -> bool| {
        let mut cases = Vec::new();
        for t in [1, 31, 32, 33, 63, 64, 65, 1000] {
            for causal in [false, true] {
                for heads in ["Hq=1,Hkv=1", "Hq=4,Hkv=2"] {
                    for family in ["random", "logits=huge"] {
                        for extra in ["", ",softcap=20"] {
                            let text = format!("T={t},causal={causal},{heads}{extra}");
                            let (subject, _) = case(&text, family, None);
                            let fault = wrong.filter(|_| fails(&subject.case.problem, family));
                            cases.push(case(&text, family, fault));
                        }
                    }
                }
            }
        }
        let (groups, _) = groups(&cases);
        assert_eq!(groups.len(), 1);
        groups[0].in_common.clone()
    };
    assert_eq!(of(&|p, _| p.flag("causal")), ["causal=true"]);
    assert_eq!(of(&|p, _| p.number("softcap").is_some()), ["softcap=20"]);
    assert_eq!(of(&|p, _| p.count("Hq") > p.count("Hkv")), ["Hkv=2"]);
    assert_eq!(of(&|_, family| family == "logits=huge"), ["logits=huge"]);
    assert_eq!(of(&|p, _| p.count("Tkv") % 32 != 0), ["Tkv no multiple of BN"]);
    assert_eq!(of(&|p, _| p.count("Tkv") > 64), ["Tkv >= 65"]);
    let both = of(&|p, _| p.flag("causal") && p.count("Tkv") % 64 != 0);
    assert_eq!(both, ["causal=true", "Tkv no multiple of BM"]);
    assert!(of(&|_, _| true).is_empty());
}

#[test]
fn one_failure_has_nothing_in_common() {
    let wrong = Some((Check::Accuracy, "o: E/F = 3.2 (limit 1.6)"));
    let (groups, _) = groups(&[case("T=1", "random", wrong), case("T=2", "random", None)]);
    assert!(groups[0].in_common.is_empty() && groups[0].passed == 1);
}
