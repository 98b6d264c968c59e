//! Sweeps: any text is survived, products are whole, ids unique, shards a partition.

use std::collections::HashSet;

use crossover::device::model::DeviceModel;
use crossover::kernel::Registry;
use crossover::op::{DType, Side};
use crossover::sweep::{Plan, Shard, Source, Sweep};
use proptest::prelude::*;

use crate::common::data;

fn registry() -> Registry {
    Registry::from_dir(&data("kernels")).unwrap()
}

fn parse(text: &str) -> Result<Sweep, String> {
    Sweep::parse(Source::new("x.toml", text)).map_err(|e| e.to_string())
}

fn plan(text: &str) -> Result<Plan, String> {
    parse(text)?.plan(&registry(), None, None).map_err(|e| e.to_string())
}

/// `[[group]]` of attention, which needs the most.
fn attention(fields: &str) -> String {
    format!("name = 'x'\n[[group]]\nop = 'attention'\n{fields}\n")
}

#[test]
fn a_group_is_the_product_of_its_axes() {
    let text =
        attention("T = [64, 128]\nHq = [4, 8]\nHkv = 4\ncausal = [true, false]\ntile = 'all'");
    let plan = plan(&text).unwrap();
    // Five of six tiles are legal.
    assert_eq!((plan.cases.len(), plan.runnable().count()), (2 * 2 * 2 * 5, 40));
    // Short sequences first, whatever the order of axes.
    let tokens: Vec<_> = plan.runnable().map(|c| c.problem.tokens()).collect();
    assert!(tokens.is_sorted());
}

#[test]
fn tied_variables_move_together() {
    let text =
        attention("Hq = 8\ncausal = true\nshape = [{ B = 16, T = 1024 }, { B = 4, T = 4096 }]");
    let got: Vec<_> = plan(&text)
        .unwrap()
        .runnable()
        .map(|c| ["B", "Tq", "Tkv", "Hkv"].map(|name| c.problem.count(name)))
        .collect();
    assert_eq!(got, [[16, 1024, 1024, 8], [4, 4096, 4096, 8]]);
}

#[test]
fn groups_take_the_shared_axes_their_operator_has() {
    let text = "
        name = 'x'
        seed = 7
        [axes]
        T = [256, 512]
        heads = [{ Hq = 32, Hkv = 8, H = 16, HV = 32 }, { Hq = 16, H = 16, HV = 16 }]
        inputs = ['gate=slow', 'gate=strong']
        K = [64, 128]
        [[group]]
        op = 'attention'
        causal = true
        T = 1024
        [[group]]
        op = ['gated_delta_rule', 'kda']
        dtype = 'fp16'
    ";
    let plan = plan(text).unwrap();
    let of = |name: &str| plan.runnable().filter(|c| c.problem.op().name() == name).count();
    // K is none of attention's, the gate means nothing to it, and its own T replaces the shared.
    assert_eq!((of("attention"), of("gated_delta_rule"), of("kda")), (2, 16, 16));
    for case in plan.runnable() {
        assert_eq!(case.seed, 7);
        let p = &case.problem;
        match p.op().side() {
            Side::Full => {
                assert_eq!((p.tokens(), p.count("D"), p.dtype()), (1024, 128, DType::Bf16));
                assert_eq!(case.family.to_string(), "random");
            }
            Side::Linear => {
                let states = (p.flag("final_state"), p.flag("initial_state"));
                assert_eq!((states, p.dtype()), ((true, false), DType::Fp16));
                assert_eq!(p.number("scale"), Some((p.count("K") as f64).powf(-0.5)));
            }
        }
    }
}

#[test]
fn an_axis_of_a_group_replaces_the_shared_one() {
    let text = "name = 'x'\n[axes]\nT = [64, 128]\ncausal = true\nHq = 4\n\
                shape = [{ B = 1 }, { B = 2, D = 64 }]\n\
                [[group]]\nop = 'attention'\nshape = [{ B = 8 }]\nT = 256\n";
    let plan = plan(text).unwrap();
    let shown: Vec<_> = plan.runnable().map(|c| c.problem.to_string()).collect();
    assert_eq!(shown, ["attention bf16 B=8 Tq=256 Tkv=256 Hq=4 Hkv=4 D=128 causal"]);
}

#[test]
fn the_documented_example_is_as_documented() {
    let docs = include_str!("../../docs/sweeps.md");
    let text = docs.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let sweep = parse(text).unwrap();
    let of = |facts| {
        let plan = sweep.plan(&registry(), facts, None).unwrap();
        (plan.runnable().count(), plan.cases.len())
    };
    assert_eq!(of(None), (60, 60));
    assert_eq!(of(Some(&DeviceModel::named("h200").unwrap().facts())), (40, 60));
    let one_group = docs.split("```toml\n").nth(2).unwrap().split("```").next().unwrap();
    let plan = plan(&format!("name = 'x'\n{one_group}")).unwrap();
    assert_eq!(plan.runnable().count(), 6);
}

#[test]
fn skips_have_reasons() {
    let text = "
        name = 'x'
        [axes]
        T = [256, 16384]
        dtype = ['bf16', 'tf32']
        Hq = 4
        HV = 4
        causal = true
        [[group]]
        tile = { BM = 128, BN = 64 }
        kernels = 'attention/*'
        skip = [{ when = 'BM == 128 and T > 1000 and emulated', why = 'slow' }]
        [[group]]
        kernels = ['gated*', 'kda/*.sm80']
        [[skip]]
        when = \"dtype == 'tf32' and T > 8192\"
        why = 'dear'
        [[skip]]
        when = 'HV == 4 and K == 64'
        why = 'never'
        [[skip]]
        when = 'capability < 90'
        why = 'old'
    ";
    let sweep = parse(text).unwrap();
    let without = sweep.plan(&registry(), None, None).unwrap();
    assert_eq!(without.cases.len(), 12);
    assert_eq!(without.undecided.len(), 2);
    let reasons = without.reasons();
    assert_eq!(reasons["dear"], 1);
    assert_eq!(reasons.values().sum::<usize>(), 5, "{reasons:?}");
    assert!(
        reasons.keys().any(|r| r.contains("kda/prefill.sm80 has no dtype tf32")),
        "{reasons:?}"
    );

    let facts = |name: &str| DeviceModel::named(name).unwrap().facts();
    let with = sweep.plan(&registry(), Some(&facts("h200")), None).unwrap();
    assert!(with.undecided.is_empty());
    assert_eq!(with.reasons()["slow"], 1);
    // Of 7 left; the tf32 tile does not fit even here.
    assert_eq!(with.runnable().count(), 5);
    // On 99 KB of shared memory the tile that is asked for does not fit; what is left is old.
    let laptop = sweep.plan(&registry(), Some(&facts("laptop")), None).unwrap();
    assert_eq!(laptop.runnable().count(), 0);
    let reasons = laptop.reasons();
    assert!(reasons.keys().any(|r| r.contains("bytes of shared memory")), "{reasons:?}");
    assert!(reasons.contains_key("old"), "{reasons:?}");
}

#[test]
fn a_default_tile_gives_way_to_one_that_fits() {
    let sweep =
        parse(&attention("T = 64\nHq = 4\ncausal = true\ntile = ['default', 'BM=64,BN=32']"))
            .unwrap();
    let tiles = |name: &str| -> Vec<String> {
        let facts = DeviceModel::named(name).unwrap().facts();
        let plan = sweep.plan(&registry(), Some(&facts), None).unwrap();
        plan.runnable().map(|c| c.tile.to_string()).collect()
    };
    assert_eq!(tiles("h200"), ["BM=64,BN=64", "BM=64,BN=32"]);
    // 64 x 64 takes 160 KB there and 64 x 32 the 96 KB that fit; it is not planned twice.
    assert_eq!(tiles("laptop"), ["BM=64,BN=32"]);
}

#[test]
fn a_seed_on_the_command_line_replaces_all_others() {
    let text = attention("T = 64\nHq = 4\ncausal = true\nseed = [1, 2, 3]");
    let sweep = parse(&text).unwrap();
    let seeds = |seed| -> Vec<u64> {
        let plan = sweep.plan(&registry(), None, seed).unwrap();
        plan.runnable().map(|c| c.seed).collect()
    };
    assert_eq!((seeds(None), seeds(Some(9))), (vec![1, 2, 3], vec![9]));
}

/// Each with the line it is about and words of the message.
#[test]
fn errors_name_place_value_and_way_out() {
    let good = "T = 64\nHq = 4\ncausal = true\n";
    let with = |extra: &str| attention(&format!("{good}{extra}"));
    let table: &[(String, usize, &[&str])] = &[
        (with("tau = 3"), 7, &["unknown key `tau`", "causal", "tied"]),
        (with("T.x = 3"), 7, &[]),
        ("nam = 'x'".into(), 0, &["`name` is missing"]),
        ("name = 'x'\nT = 3".into(), 2, &["unknown key `T`", "[axes]"]),
        ("name = 'x'".into(), 0, &["[[group]]"]),
        ("name = '../x'\n[[group]]".into(), 1, &["../x", "letters"]),
        ("name = 'x'\nenergy = 'yes'".into(), 2, &["`energy` takes true or false", "string"]),
        ("name = 5".into(), 1, &["`name` takes a string, not an integer"]),
        (attention("T = 0\nHq = 4\ncausal = true"), 4, &["T = 0", "1 to"]),
        (attention("T = -4"), 4, &["T = -4"]),
        (attention("T = 'long'"), 4, &["`T` takes an integer", "string"]),
        (attention("T = 1.5"), 4, &["`T` takes an integer", "float"]),
        (attention("T = []"), 4, &["`T`", "product of axes is empty"]),
        (attention("T = 64\nHq = 4"), 2, &["`causal`", "causal = true"]),
        (attention("Hq = 4\ncausal = true"), 2, &["`T`"]),
        (attention("T = 64\ncausal = true"), 2, &["`Hq`"]),
        (attention("T = 64\ncausal = true\nHq = 12\nHkv = 8"), 7, &["Hq = 12", "Hkv = 8", "tie"]),
        (with("D = 96"), 7, &["attention/prefill.sm80 takes D of [64, 128], not 96"]),
        (with("K = 64"), 7, &["`K`", "attention has B, T, Tq"]),
        (with("dtype = ['bf16', 'fp8']"), 7, &["unknown dtype `fp8`", "tf32"]),
        (with("dtype = 'fp32'"), 7, &["`fp32`"]),
        (
            with("kernels = 'attention/prefix*'"),
            7,
            &["attention/prefix*", "attention/prefill.sm80"],
        ),
        (with("kernels = 'kda/*'"), 3, &["attention prefill", "attention/prefill.sm80"]),
        (with("phase = 'decode'"), 3, &["no kernel does attention decode"]),
        (with("phase = 'training'"), 7, &["`training`", "prefill"]),
        (with("inputs = 'gate=fast'"), 7, &["`fast`", "strong"]),
        (with("tile = 'BM=96'"), 7, &["BM of [64, 128], not 96"]),
        (with("tile = { BX = 1 }"), 7, &["no tile axis `BX`"]),
        (with("tile = 'large'"), 7, &["`large`", "BM=128"]),
        (with("tile = 3"), 7, &["`tile`", "default"]),
        (with("shape = [{ B = 2, Q = 3 }]"), 7, &["unknown variable `Q`"]),
        (with("shape = [{ T = 2 }]"), 7, &["T is set by the axis `T` already"]),
        (with("shape = [{}]"), 7, &["at least one"]),
        (with("seed = -1"), 7, &["seed"]),
        (with("scale = 0"), 7, &["scale"]),
        (with("skip = [{ when = 'T >' , why = 'x' }]"), 7, &["no expression"]),
        (with("skip = [{ when = 'TT > 4' , why = 'x' }]"), 7, &["`TT`", "Tkv"]),
        (with("skip = [{ when = 'T + 4' , why = 'x' }]"), 7, &["neither true nor false"]),
        (with("skip = [{ when = 'T > 4' }]"), 7, &["`why`"]),
        (with("skip = 'T > 4'"), 7, &["`skip`", "when"]),
        (
            "name = 'x'\n[[group]]\nop = 'atention'".into(),
            3,
            &["unknown operator `atention`", "kda"],
        ),
        ("name = 'x'\nregime = 'warm'\n[[group]]".into(), 2, &["`warm`", "cold"]),
        ("name = 'x'\n[axes]\nlength = 3\n[[group]]".into(), 3, &["unknown key `length`"]),
        ("name = 'x'\n[axes\n".into(), 2, &[]),
        (with("B = 1000000000\nD = 128"), 2, &["too many"]),
    ];
    for (text, line, words) in table {
        let e = plan(text).expect_err(text);
        let place = if *line == 0 { "x.toml: ".into() } else { format!("x.toml:{line}:") };
        assert!(e.starts_with(&place), "{text}\n{e}");
        assert!(words.iter().all(|w| e.contains(w)), "{text}\n{e}\nwants {words:?}");
        if *line > 0 {
            assert!(e.contains('^'), "{e}");
        }
    }
}

/// Fragments that sweeps are made of, to reach deeper than random text does.
fn fragment() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "name = 'x'",
        "[axes]",
        "[[group]]",
        "[[skip]]",
        "op = 'attention'",
        "op = ['kda', 3]",
        "T = [1, 2]",
        "T = 99999999999999999999",
        "T = 0x40",
        "B = [[1]]",
        "Hq = 4",
        "HV = 2",
        "causal = true",
        "heads = [{ Hq = 4, H = 2, HV = 4 }]",
        "tile = 'all'",
        "tile = {}",
        "inputs = 'gate=-0.1 keys=identical'",
        "inputs = 'gate=nan'",
        "dtype = ['bf16', 'tf32']",
        "when = 'T > 3'",
        "when = '((((('",
        "when = 'range(999999999)'",
        "why = 'µ'",
        "seed = 3",
        "skip = [{ when = 'T == B', why = 'w' }]",
        "scale = inf",
        "kernels = '**'",
        "kernels = '[['",
        "phase = 'prefill'",
        "\u{feff}",
        "\"",
        "'''",
        "= 3",
        "a.b.c = 1",
        "# c",
        "T = 1979-05-27",
        "when = 'log2(T) > min(1, B)'",
        "when = 'T / 0 == 1'",
        "when = \"dtype ~ op == 'x'\"",
    ]);
    prop_oneof![9 => known.prop_map(str::to_string), 1 => ".{0,12}"]
}

/// Some values of an axis, each once.
fn some<T: Clone + std::fmt::Debug + 'static>(of: &[T]) -> impl Strategy<Value = Vec<T>> {
    let n = of.len();
    prop::sample::subsequence(of.to_vec(), 1..=n)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 160, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_survived(text in "\\PC{0,200}") {
        let _ = plan(&text);
    }

    #[test]
    fn any_fragments_are_survived(lines in prop::collection::vec(fragment(), 0..14)) {
        let text = lines.join("\n");
        if let Err(e) = plan(&text) {
            prop_assert!(e.starts_with("x.toml:"), "{e}");
        }
    }

    #[test]
    fn plans_are_products_and_shards_partition_them(
        t in some(&[1usize, 63, 64, 1000, 4096]),
        b in some(&[1usize, 2, 16]),
        dtype in some(&["bf16", "fp16"]),
        heads in some(&["{ Hq = 8, Hkv = 2, H = 4, HV = 8 }", "{ Hq = 4, H = 4, HV = 4 }"]),
        gates in some(&["strong", "mid", "slow", "-0.03"]),
        tile in prop::sample::select(vec![("default", 1, 1), ("all", 5, 2)]),
        seeds in 1u64..4,
        n in 1usize..9,
    ) {
        let gates_text: Vec<_> = gates.iter().map(|g| format!("gate={g}")).collect();
        let text = format!(
            "name = 'x'\n[axes]\nT = {t:?}\nB = {b:?}\ndtype = {dtype:?}\nheads = [{}]\n\
             inputs = {gates_text:?}\ntile = '{}'\nseed = {:?}\n[[group]]\ncausal = [true, false]\n",
            heads.join(", "), tile.0, (0..seeds).collect::<Vec<_>>(),
        );
        let sweep = parse(&text).unwrap();
        let registry = registry();
        let plan = sweep.plan(&registry, None, None).unwrap();
        let shapes = t.len() * b.len() * dtype.len() * heads.len() * seeds as usize;
        let want = shapes * (2 * tile.1 + 2 * gates.len() * tile.2);
        prop_assert_eq!(plan.cases.len(), want);
        prop_assert_eq!(plan.runnable().count(), want);
        let ids = |plan: &Plan| -> Vec<String> {
            plan.cases.iter().map(|p| p.case.id("x", "cuda:0")).collect()
        };
        let all = ids(&plan);
        prop_assert_eq!(all.iter().collect::<HashSet<_>>().len(), want);
        // Planned again it is the same, id by id.
        prop_assert_eq!(&all, &ids(&sweep.plan(&registry, None, None).unwrap()));
        let mut union: Vec<String> = Vec::new();
        let mut sizes = Vec::new();
        for i in 0..n {
            let shard: Shard = format!("{i}/{n}").parse().unwrap();
            let part = ids(&plan.clone().shard(shard));
            sizes.push(part.len());
            union.extend(part);
        }
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1);
        prop_assert_eq!(union.len(), all.len());
        prop_assert_eq!(union.into_iter().collect::<HashSet<_>>(), all.into_iter().collect::<HashSet<_>>());
    }

    #[test]
    fn shards_do_not_depend_on_the_device(n in 2usize..6) {
        let text = "name = 'x'\n[axes]\nT = [64, 128, 4096]\ndtype = ['bf16', 'fp16', 'tf32']\n\
                    Hq = 4\nHV = 4\ncausal = true\n[[group]]\n[[skip]]\n\
                    when = 'emulated and T == 128'\nwhy = 'x'\n";
        let sweep = parse(text).unwrap();
        let facts = DeviceModel::named("laptop").unwrap().facts();
        for i in 0..n {
            let shard: Shard = format!("{i}/{n}").parse().unwrap();
            // All but the tile: a smaller device may have another default.
            let part = |facts| -> Vec<String> {
                let plan = sweep.plan(&registry(), facts, None).unwrap().shard(shard);
                let cases = plan.cases.iter().map(|p| &p.case);
                cases.map(|c| format!("{} {} {}", c.kernel, c.problem, c.family)).collect()
            };
            prop_assert_eq!(part(None), part(Some(&facts)));
        }
    }
}

#[test]
fn bad_shards_are_refused() {
    for text in ["", "1", "4/4", "0/0", "-1/2", "a/b", "1/2/3"] {
        assert!(text.parse::<Shard>().is_err(), "{text}");
    }
    assert!("4/4".parse::<Shard>().unwrap_err().contains("from 0"));
}
