//! One small kernel for each fault that the emulator finds, and its repaired twin.
//!
//! A file is both: lines that end in `// broken` or `// repaired` stand in that twin alone, and the
//! header says what fault the broken one has and how it is launched.

use std::collections::BTreeSet;
use std::fs;

use crossover::device::emulator::{Checks, RawArg, RawOptions, RawOutcome, run_raw_checked};
use crossover::device::{Swizzle, TensorMap, Trap};
use crossover::op::DType;

use crate::common::data;

/// A kernel of `tests/broken/*.ptx`, and words of the report on its broken twin.
const TABLE: &[(&str, &[&str])] = &[
    ("accumulators_in_flight", &["no wgmma.wait_group has covered it"]),
    ("arrival_missing", &["deadlock", "1 of 65 arrivals missing"]),
    ("arrivals_too_many", &["3 arrivals, but phase 0 awaits 1 more of 64"]),
    ("atomic_beside_a_store", &["shared address 0", "updates it atomically", "wrote it"]),
    ("barrier_in_a_branch", &["predicate is false"]),
    ("barriers_swapped", &["barrier 1, 32 of 64", "barrier 2, 32 of 64"]),
    ("bulk_load_not_waited", &["mbarrier at shared address 0", "before that, thread (0, 0, 0)"]),
    ("bulk_load_overwritten", &["writes it", "began a bulk copy that reads it", "mbarrier"]),
    ("bulk_misaligned", &["multiple of 16"]),
    ("bulk_out_of_bounds", &["`arg0`"]),
    (
        "bulk_reduction_beside_a_store",
        &["between CTAs of one launch", "begins a bulk reduction into it", "wrote it"],
    ),
    ("bulk_source_overwritten", &["cp.async.bulk.wait_group.read"]),
    (
        "bulk_store_published_too_early",
        &["between CTAs of one launch", "began a bulk copy that writes it"],
    ),
    (
        "bulk_store_read_too_early",
        &["reads it", "began a bulk copy that writes it", "cp.async.bulk.wait_group"],
    ),
    ("bulk_store_without_proxy_fence", &["fence.proxy.async", "wrote it"]),
    (
        "bulk_stores_to_one_place",
        &["begins a bulk copy that writes it", "began a bulk copy that writes it"],
    ),
    ("bytes_not_expected", &["256 bytes missing"]),
    ("bytes_too_many", &["128 bytes more than expect_tx announced", "announced 128 bytes"]),
    (
        "circle_of_waits",
        &[
            "they wait for each other: warp 0 waits at barrier 1, raw.ptx:27",
            "for warp 1, which waits at the mbarrier at shared address 0, raw.ptx:32",
            "perhaps for warp 0",
        ],
    ),
    ("copy_not_waited", &["began a copy into it that has not been waited for"]),
    ("endless_loop", &["the limit is"]),
    (
        "global_load_without_proxy_fence",
        &["fence.proxy.async.global", "begins a bulk copy that reads it", "wrote it"],
    ),
    ("init_without_fence", &["fence.mbarrier_init", "initialised it"]),
    ("last_cta_without_fence", &["between CTAs of one launch", "atomic", "thread (0, 0, 0)"]),
    ("map_without_fence", &["tensormap::generic.acquire", "by the tensor map there"]),
    ("misaligned_global", &["byte 8 of `arg0`"]),
    ("misaligned_shared", &["shared address 4"]),
    ("no_mbarrier", &["no mbarrier was initialised there"]),
    ("operand_overwritten", &["began a product that reads it", "wgmma.wait_group"]),
    ("operand_without_barrier", &["began a product that reads it", "writes it"]),
    ("peer_arrival_after_its_exit", &["mbarrier.arrive: CTA 1 of the cluster has exited"]),
    ("peer_arrival_of_cta_scope", &["of the cluster", "reads it", "wrote it"]),
    ("peer_atomic_beside_a_store", &["of the cluster", "updates it atomically", "wrote it"]),
    ("peer_flag_without_release", &["of the cluster", "reads it", "wrote it"]),
    ("peer_has_exited", &["CTA 1 of the cluster has exited"]),
    ("peer_memory_uninitialised", &["shared::cluster load", "which was never written"]),
    ("peer_read_unsynchronised", &["of the cluster"]),
    ("peer_store_not_waited", &["an asynchronous"]),
    ("phase_reused", &["phase 0", "phase 2"]),
    ("product_without_proxy_fence", &["fence.proxy.async", "multiplies it"]),
    ("race_between_ctas", &["between CTAs of one launch", "CTA (0, 0, 0), thread (0, 0, 0)"]),
    ("race_between_lanes", &["lanes of one warp", "bar.warp.sync"]),
    ("race_in_global_memory", &["between warps of one CTA"]),
    ("race_in_one_instruction", &["lanes 1 and 0 of one instruction"]),
    ("race_one_named_barrier", &["race at shared address 128", "warp 1"]),
    ("race_read_after_write", &["race at shared address", "bar.sync", "before that, thread"]),
    ("race_write_after_read", &["race at shared address", "bar.sync", "before that, thread"]),
    ("race_write_after_write", &["race at shared address 0", "wrote it"]),
    ("read_out_of_bounds", &["behind the end of `arg0`"]),
    ("registers_not_in_the_pool", &["registers a thread more"]),
    ("setmaxnreg_in_the_wrong_direction", &["to 40 registers, but the warp holds 24"]),
    ("setmaxnreg_uneven", &["setmaxnreg that warp 3 never executed"]),
    ("shared_out_of_bounds", &["the CTA has 32768 bytes"]),
    ("shuffle_from_nobody", &["reads lane 20"]),
    ("shuffle_with_absent_lanes", &["member mask 0000ffff"]),
    (
        "stage_filled_too_early",
        &["of warp 1 reads it", "mbarrier at shared address 0", "warp 0 began a copy"],
    ),
    ("too_few_at_a_barrier", &["64 of 96"]),
    ("trap", &["the kernel executed `trap`"]),
    ("uninitialised_global", &["`arg1` was never written"]),
    ("uninitialised_local", &["local load at address 4"]),
    ("uninitialised_register", &["register `x`"]),
    ("uninitialised_shared", &["which was never written"]),
    ("wgmma_fence_missing", &["wgmma.fence is missing"]),
    ("write_out_of_bounds", &["4 bytes before `arg1`"]),
];

/// Faults between two, beside those of memory: the instruction of the other.
const PARTIES: &[(&str, &str)] = &[
    ("accumulators_in_flight", "wgmma.mma_async"),
    ("arrivals_too_many", "mbarrier.arrive.shared.b64"),
    ("bytes_not_expected", "@first mbarrier.arrive.expect_tx"),
    ("bytes_too_many", "@first mbarrier.arrive.expect_tx"),
    ("circle_of_waits", "mbarrier.try_wait"),
    ("peer_arrival_after_its_exit", "ret"),
    ("peer_has_exited", "ret"),
    ("phase_reused", "mbarrier.arrive.shared.b64"),
    ("setmaxnreg_in_the_wrong_direction", "setmaxnreg.dec.sync.aligned.u32  24"),
    ("setmaxnreg_uneven", "setmaxnreg.dec"),
    ("wgmma_fence_missing", "mov.u32     a0, 0"),
];

/// Faults that always have two parties.
const BETWEEN_TWO: &[&str] = &[
    "race",
    "proxy",
    "in_flight",
    "registers_in_flight",
    "missing_fence",
    "transaction",
    "arrivals",
    "phase_reuse",
    "peer_exited",
];

/// Check by check, the kernels that are caught no more, or for something else, without it.
const LEFT_OUT: &[(&str, &[&str])] = &[
    ("in_flight", &["copy_not_waited", "bulk_load_not_waited", "operand_overwritten"]),
    ("products", &["accumulators_in_flight", "wgmma_fence_missing"]),
    (
        "uninitialised",
        &[
            "uninitialised_global",
            "uninitialised_local",
            "uninitialised_register",
            "uninitialised_shared",
            "peer_memory_uninitialised",
        ],
    ),
    ("transactions", &["bytes_too_many", "bytes_not_expected"]),
    ("phases", &["phase_reused"]),
    ("setmaxnreg", &["setmaxnreg_in_the_wrong_direction", "setmaxnreg_uneven"]),
    ("exits", &["peer_has_exited", "peer_arrival_after_its_exit"]),
];

/// Faults of order.
const ORDER: &[&str] = &["race", "proxy"];

fn source(name: &str) -> String {
    fs::read_to_string(data("broken").join(format!("{name}.ptx"))).expect("a broken kernel")
}

/// The text of one twin, line for line.
fn twin(source: &str, other: &str) -> String {
    let keep = |line: &str| !line.ends_with(&format!("// {other}"));
    source.lines().map(|l| if keep(l) { l } else { "" }).collect::<Vec<_>>().join("\n") + "\n"
}

/// What the header says of a word: `block 64`.
fn header<'a>(source: &'a str, word: &str) -> &'a str {
    let line = source.lines().find(|l| l.starts_with("// fault ")).expect("a line of facts");
    let words: Vec<&str> = line.split([' ', ',', ';']).filter(|w| !w.is_empty()).collect();
    let at = words.iter().position(|w| *w == word).expect(word);
    words[at + 1]
}

/// The input as 16 rows of 16 words, in boxes of 16 by 2.
fn map() -> TensorMap {
    TensorMap {
        buffer: 0,
        dtype: DType::I32,
        dims: vec![16, 16],
        strides_bytes: vec![64],
        tile: vec![16, 2],
        swizzle: Swizzle::None,
        nan_fill: false,
    }
}

fn run(source: &str, text: &str, checks: Checks) -> Result<RawOutcome, Box<Trap>> {
    let number = |word: &str| header(source, word).parse::<u32>().expect("a number");
    let shape = [[number("grid"), 1, 1], [number("block"), 1, 1], [number("cluster"), 1, 1]];
    let mut args = vec![RawArg::words(0..256), RawArg::Out(1024), RawArg::InOut(1024)];
    if source.contains(" map[128]") {
        args.push(RawArg::TensorMap(map()));
    }
    let options = RawOptions { checks, ..RawOptions::default() };
    run_raw_checked(text, "k", shape, number("shared"), &args, options)
}

#[test]
fn each_broken_kernel_is_caught_by_its_check_and_its_twin_by_none() {
    let mut faults = Vec::new();
    for (name, words) in TABLE {
        let source = source(name);
        let fault = header(&source, "fault");
        match run(&source, &twin(&source, "repaired"), Checks::ALL) {
            Ok(_) => faults.push(format!("{name}: not caught")),
            Err(trap) => {
                let text = trap.to_string();
                let kind = serde_json::to_value(trap.kind).expect("a kind");
                if kind != fault {
                    faults.push(format!("{name}: caught as {kind}, not {fault}: {text}"));
                }
                for word in words.iter().filter(|w| !text.contains(**w)) {
                    faults.push(format!("{name}: no `{word}` in: {text}"));
                }
                let at = trap.at.line;
                if at == 0 || trap.at.source.is_empty() {
                    faults.push(format!("{name}: no place in: {text}"));
                }
                if let Some(missing) = silent(name, fault, &trap) {
                    faults.push(format!("{name}: {missing} in: {text}"));
                }
            }
        }
        if let Err(trap) = run(&source, &twin(&source, "broken"), Checks::ALL) {
            faults.push(format!("{name}: the repaired twin has {trap}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// What a report should say and does not: place, PTX line and template line, of each party; a hint.
fn silent(name: &str, fault: &str, trap: &Trap) -> Option<String> {
    let text = trap.to_string();
    let party = PARTIES.iter().find(|(n, _)| *n == name).map(|(_, source)| *source);
    // Of two lanes of one instruction the message itself says which.
    let two = BETWEEN_TWO.contains(&fault) && name != "race_in_one_instruction";
    if (party.is_some() || two) && trap.other.is_none() {
        return Some("no other party".into());
    }
    for site in [Some(&trap.at), trap.other.as_ref()].into_iter().flatten() {
        let place = format!("at raw.ptx:{0} (PTX line {0}): {1}", site.line, site.source);
        if site.line == 0 || !text.contains(&place) {
            return Some(format!("no `{place}`"));
        }
    }
    if let (Some(party), Some(other)) = (party, &trap.other)
        && !other.source.starts_with(party)
    {
        return Some(format!("the other party is not `{party}`"));
    }
    if trap.hint.is_empty() || !text.contains(&trap.hint) {
        return Some("no hint".into());
    }
    // Wherever else an instruction is named, it is so with its template line.
    let bare = text.match_indices("PTX line").any(|(at, _)| !text[..at].ends_with(" ("));
    (bare || text.contains('\u{1}')).then(|| "a place without its template line".into())
}

/// Without its check, a broken kernel ends, or as something else.
#[test]
fn each_check_can_be_left_out() {
    let mut faults = Vec::new();
    let names: BTreeSet<&str> = LEFT_OUT.iter().map(|(check, _)| *check).collect();
    let order = ["races", "lanes", "proxies"];
    assert!(Checks::names().all(|n| names.contains(n) || order.contains(&n)));
    for (check, kernels) in LEFT_OUT {
        let without = Checks::ALL.without(check).expect("a check");
        for name in *kernels {
            let source = source(name);
            let fault = header(&source, "fault");
            if let Err(trap) = run(&source, &twin(&source, "repaired"), without)
                && serde_json::to_value(trap.kind).expect("a kind") == fault
            {
                faults.push(format!("{name} without {check}: {trap}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

/// With its check left out, a fault of order is not reported as one.
#[test]
fn checks_that_are_left_out_find_nothing() {
    for (name, _) in TABLE {
        let source = source(name);
        let fault = header(&source, "fault");
        if !ORDER.contains(&fault) {
            continue;
        }
        if let Err(trap) = run(&source, &twin(&source, "repaired"), Checks::NONE) {
            let kind = serde_json::to_value(trap.kind).expect("a kind");
            assert!(!ORDER.iter().any(|o| kind == *o), "{name}: {trap}");
        }
    }
}

#[test]
fn the_table_has_every_file() {
    let files: BTreeSet<String> = fs::read_dir(data("broken"))
        .expect("the folder")
        .filter_map(|e| {
            e.expect("an entry").file_name().to_str()?.strip_suffix(".ptx").map(str::to_owned)
        })
        .collect();
    let table: BTreeSet<String> = TABLE.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(files, table);
    assert!(table.len() >= 25);
}

/// Both accesses of a race, each with thread and place, for people and for programs.
#[test]
fn a_race_names_both_accesses() {
    let source = source("race_write_after_read");
    let trap = run(&source, &twin(&source, "repaired"), Checks::ALL).expect_err("a race");
    let other = trap.other.clone().expect("the other access");
    let mut both = [trap.at.source.as_str(), other.source.as_str()];
    both.sort_unstable();
    assert!(both[0].starts_with("ld.shared.b32") && both[1].starts_with("st.shared.b32"), "{trap}");
    assert!(trap.at.thread != other.thread && trap.at.line != other.line, "{trap}");
    let json = serde_json::to_value(&*trap).expect("JSON");
    assert_eq!(json["kind"], "race");
    assert_eq!(json["other"]["line"], other.line);
    assert!(json["hint"].as_str().is_some_and(|h| !h.is_empty()));
}
