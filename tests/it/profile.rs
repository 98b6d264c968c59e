//! `crossover profile` and `crossover model-check`, as a user meets them.

use predicates::prelude::*;
use predicates::str::contains;
use serde_json::Value;

use crate::common::crossover;

const DELTA: &str = "gated_delta_rule/prefill.sm80";

fn json(args: &[&str]) -> Value {
    let out = crossover(args).assert().success().get_output().stdout.clone();
    serde_json::from_slice(&out).expect("one JSON object")
}

#[test]
fn a_profile_names_lines_limits_and_what_was_executed() {
    let args = ["profile", "attention/prefill.sm80", "-p", "T=256,Hq=4,Hkv=2,causal=true"];
    crossover(&args)
        .assert()
        .success()
        .stdout(contains("all times are modelled, none is measured"))
        .stdout(contains("counts are 2 times its own"))
        .stdout(contains("bound by"))
        .stdout(contains("clock      1830 MHz modelled"))
        .stdout(contains("measured / modelled").and(contains("attention/prefill.sm80")))
        .stdout(contains("verified   right"))
        .stdout(contains("hottest lines"))
        .stdout(contains("attention/prefill.sm80.ptx"))
        .stdout(contains("modelled L2"))
        .stdout(contains("\x1b").not());
    // The template is there with every line of it, the PTX where asked for.
    crossover(&args).arg("--summary").assert().success().stdout(contains("<% macro").not());
    crossover(&args).arg("--ptx").assert().success().stdout(contains("mma.sync.aligned"));
}

#[test]
fn lines_add_up_to_the_whole() {
    let p = json(&["profile", DELTA, "-p", "T=200,H=1,HV=2", "--json"]);
    let number = |v: &Value| v.as_u64().expect("a count");
    for key in ["lines", "ptx_lines"] {
        let lines = p[key].as_array().expect("lines");
        let sum = |field: &str| lines.iter().map(|l| number(&l[field])).sum::<u64>();
        assert_eq!(sum("read_sectors"), number(&p["counts"]["global_read_sectors"]));
        assert_eq!(sum("write_sectors"), number(&p["counts"]["global_write_sectors"]));
        assert_eq!(sum("wavefronts"), number(&p["counts"]["shared_wavefronts"]));
        assert_eq!(sum("special"), number(&p["counts"]["special_ops"]));
        let types = p["counts"]["tensor_flops"].as_object().expect("types");
        assert_eq!(sum("flops"), types.values().map(number).sum::<u64>());
        assert_eq!(sum("l2_miss_sectors"), number(&p["counts"]["l2"]["read_miss_sectors"]));
        let share: f64 = lines.iter().map(|l| l["share"].as_f64().expect("a share")).sum();
        assert!((share - 1.0).abs() < 1e-6, "{share}");
    }
    let launches = p["launches"].as_array().expect("launches");
    let times: f64 = launches.iter().map(|l| l["modelled"]["ns"].as_f64().unwrap()).sum();
    assert!((times / p["modelled"]["ns"].as_f64().unwrap() - 1.0).abs() < 1e-9);
    // Reads of the modelled L2 are those requested.
    let l2 = &p["counts"]["l2"];
    let reads = number(&l2["read_hit_sectors"]) + number(&l2["read_miss_sectors"]);
    assert_eq!(reads, number(&p["counts"]["global_read_sectors"]));
}

#[test]
fn more_heads_multiply_counts_and_not_the_work() {
    let of = |heads: &str| {
        json(&["profile", DELTA, "-p", heads, "--json", "--tile", "BV=32,SPLIT=2,STAGES=3"])
    };
    let (one, many) = (of("T=128,HV=1"), of("T=128,HV=200,H=200"));
    assert_eq!(many["times"], 200);
    let sectors = |p: &Value| p["counts"]["global_read_sectors"].as_u64().unwrap();
    assert_eq!(sectors(&many), 200 * sectors(&one));
    let ns = |p: &Value| p["modelled"]["ns"].as_f64().unwrap();
    // 800 CTAs of the walk on 132 multiprocessors: several waves, but far from 200 times as long.
    assert!(
        ns(&many) > 2.0 * ns(&one) && ns(&many) < 40.0 * ns(&one),
        "{} {}",
        ns(&many),
        ns(&one)
    );
}

#[test]
fn a_page_stands_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let page = folder.path().join("p.html");
    crossover(&["profile", DELTA, "-p", "T=64", "--no-l2", "--summary", "--html"])
        .arg(&page)
        .assert()
        .success()
        .stdout(contains("modelled L2").not());
    let text = std::fs::read_to_string(&page).expect("a page");
    assert!(text.contains("prefers-color-scheme:dark") && text.contains("mma.sync"));
    assert!(!text.contains("<script") && !text.contains("http"), "needs something outside of it");
    let missing = folder.path().join("no/such/p.html");
    crossover(&["profile", DELTA, "-p", "T=64", "--html"])
        .arg(missing)
        .assert()
        .code(2)
        .stderr(contains("cannot write"));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let refused = |args: &[&str], words: &[&str]| {
        let mut failed = crossover(args).assert().code(2).stdout("");
        for word in words {
            failed = failed.stderr(contains(*word));
        }
        failed.stderr(contains("panicked").not());
    };
    refused(&["profile", "no/such"], &["unknown kernel"]);
    refused(&["profile", DELTA, "--device", "cuda:0"], &["cuda:0", "emulator"]);
    refused(&["profile", DELTA, "--device", "emulator:h300"], &["h300", "h200"]);
    refused(&["profile", DELTA, "-p", "Q=3"], &["Q"]);
    refused(&["profile", DELTA, "--tile", "BV=48"], &["BV"]);
    refused(&["model-check", "no-such.jsonl"], &["no-such.jsonl"]);
    refused(&["model-check"], &["RECORDS"]);
    refused(&["model-check", "--counted", "no-such.json"], &["no-such.json"]);
    refused(&["model-check", "--counted", "Cargo.toml"], &["Cargo.toml", "line 1"]);
}

#[test]
fn model_check_ranks_measured_records() {
    let folder = tempfile::tempdir().expect("a folder");
    let all = std::fs::read_to_string("reports/h200-peer-shapes/records.jsonl").expect("records");
    let some: Vec<&str> = all
        .lines()
        .filter(|l| l.contains("\"kda/prefill.sm80\"") && l.contains("\"t\":1024"))
        .collect();
    assert!(some.len() >= 2, "{}", some.len());
    let records = folder.path().join("some.jsonl");
    std::fs::write(&records, some.join("\n") + "\n").expect("a file");
    let out = folder.path().join("out");
    crossover(&["model-check", "--require", "0.5", "--out"])
        .args([&out, &records])
        .assert()
        .success()
        .stdout(contains("kda/prefill.sm80: 2 variants, Spearman 1.000"));
    let table = std::fs::read_to_string(out.join("README.md")).expect("a table");
    assert!(table.contains("| `kda/prefill.sm80` | 2 | 1.000 |"), "{table}");
    // What was counted gives the same times again, without executing anything.
    let again = folder.path().join("again");
    let counted = out.join("counted.json");
    crossover(&["model-check"])
        .arg("--out")
        .arg(&again)
        .arg("--counted")
        .arg(&counted)
        .assert()
        .success();
    let rows =
        |text: &str| text.lines().filter(|l| l.starts_with("| `")).collect::<Vec<_>>().join("\n");
    let copy = std::fs::read_to_string(again.join("README.md")).expect("a table");
    assert_eq!(rows(&copy), rows(&table));
    // The table of errors is of times as `run` models them.
    crossover(&["model-check", "--errors", "no.toml", "--counted"])
        .arg(&counted)
        .assert()
        .code(2)
        .stderr(contains("--as-run"));
    assert!(std::fs::read_to_string(out.join("scatter.svg")).expect("a plot").contains("<svg"));
    // Modelled records are no measure of a model.
    crossover(&["model-check", "--only", "attention/*"])
        .arg(&records)
        .assert()
        .code(2)
        .stderr(contains("no measured record"));
}
