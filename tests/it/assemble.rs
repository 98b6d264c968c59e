//! Every variant of every kernel through NVIDIA's assembler, without spills and without lost
//! performance (C75xx lines).
//!
//! At each head dimension are assembled
//!
//! - without extras, and with all of them at once (soft cap, packed lengths and a window), which takes
//!   the most registers, as many tiles as let each three values of tile axes, flags, states and
//!   dimensions meet ([`covering`]);
//! - of the other combinations of extras, windows narrower and wider than a block among them, as many
//!   as let each two of them meet;
//! - all of that in the first precision. Where another gives the same PTX but for the type's name, as
//!   fp16 and bf16 mostly do, it is assembled with one tile of each of these combinations, and must take
//!   the registers of the first; elsewhere as the first.
//!
//! PTX that runs on several architectures is assembled for the last of them, and for each other as far
//! as each two values meet.
//!
//! `CROSSOVER_ASSEMBLE_ALL=1` leaves nothing out. What the same assembler took before is not
//! assembled again (`target/tmp/ptxas`): a change of a kernel costs the variants that it changes.
//!
//! ptxas is found through `PTXAS`, else on the path. Where there is none the tests say that they
//! were skipped; with `CROSSOVER_REQUIRE_PTXAS=1` that is a failure.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crossover::device::Ptx;
use crossover::kernel::{Kernel, Tile};
use crossover::op::{Kind, Problem, Value};
use crossover::verify::suite;
use rayon::prelude::*;

use crate::common::{kernel, ptxas, registry};

/// The tiles that a problem is assembled with: those by which so many values meet.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meets {
    Triples,
    Pairs,
}

/// The problem with every combination of its flags and formats, as far as templates are specialised
/// for them.
fn flags(kernel: &Kernel, plain: Problem) -> Vec<(Problem, Meets)> {
    let special = |name: &str| kernel.manifest.specialise.iter().any(|s| s == name);
    let on = |name: &str| if special(name) { vec![false, true] } else { vec![false] };
    let mut all = vec![plain];
    for v in kernel.manifest.op.variables_in(kernel.phase()) {
        let values: Vec<Value> = match v.kind {
            Kind::Flag => on(v.name).into_iter().map(Value::Flag).collect(),
            Kind::Word(words) => {
                let taken = |w: &&&'static str| kernel.takes(v.name, &Value::Word(w));
                let taken = words.iter().filter(taken).map(|w| Value::Word(w));
                taken.filter(|_| special(v.name)).collect()
            }
            _ => continue,
        };
        if !values.is_empty() {
            let with = |p: Problem| values.iter().map(move |x| p.with(v.name, x.clone()));
            all = all.into_iter().flat_map(|p| with(p).collect::<Vec<_>>()).collect();
        }
    }
    all.into_iter().flat_map(|p| extras(kernel, &p)).collect()
}

/// The problem with windows, soft caps and packed lengths, where the operator has such.
fn extras(kernel: &Kernel, p: &Problem) -> Vec<(Problem, Meets)> {
    let special = |name: &str| kernel.manifest.specialise.iter().any(|s| s == name);
    let on = |name: &str| if special(name) { vec![false, true] } else { vec![false] };
    // Less than any block of keys and 64 more, and more than that.
    let windows = [None, Some(100), Some(1000)];
    let windows = &windows[..if p.flag("causal") && special("window") { 3 } else { 1 }];
    let (caps, packs) = (on("softcap"), on("packed"));
    let mut all = Vec::new();
    let cells = windows.iter().flat_map(|w| caps.iter().map(move |c| (w, c)));
    for ((&window, &capped), packed) in cells.flat_map(|cell| packs.iter().map(move |p| (cell, *p)))
    {
        let mut p = p.clone();
        if let Some(window) = window {
            p = p.with("window", window);
        }
        if capped {
            p = p.with("softcap", 30.0);
        }
        if packed {
            p = p.pack(vec![[5, 5], [100, 100]]);
        }
        let extras = [window.is_some(), capped, packed].iter().filter(|x| **x).count();
        let whole = extras == 0 || extras == 3 && window == Some(100);
        all.push((p, if whole { Meets::Triples } else { Meets::Pairs }));
    }
    all
}

/// A PTX that the kernel can be rendered to.
struct Variant {
    name: String,
    ptx: Ptx,
    /// The hash of the one of the first precision that is the same but for the type's name.
    twin: Option<String>,
    /// What it is made of.
    words: Vec<String>,
}

/// A problem whose tiles are assembled.
struct Group {
    problem: Problem,
    /// Those that are legal.
    tiles: Vec<Tile>,
    meets: Meets,
    /// The index of the same in the first precision, if this is another.
    first: Option<usize>,
}

fn groups(kernel: &Kernel) -> Vec<Group> {
    let mut all = Vec::new();
    let mut of_first = 0;
    for (place, &dtype) in kernel.manifest.dtypes.iter().enumerate() {
        for dims in suite::head_dims(kernel) {
            let plain = Problem::plain(kernel.manifest.op, kernel.phase(), dtype, dims, 256);
            for (problem, meets) in flags(kernel, plain) {
                let first = (place > 0).then(|| all.len() - place * of_first);
                all.push(Group { problem, tiles: Vec::new(), meets, first });
            }
        }
        if place == 0 {
            of_first = all.len();
        }
    }
    all.par_iter_mut().for_each(|g| g.tiles = kernel.tiles(&g.problem).expect("legal tiles"));
    all
}

/// A tile of a group, by the group's index.
type Row = (usize, Tile);

/// What a row is made of: `D=64`, `BM=128`, `window=100`.
fn words(groups: &[Group], (group, tile): &Row) -> Vec<String> {
    let settings = groups[*group].problem.settings();
    let tile = tile.to_string();
    settings.split(',').chain(tile.split(',')).map(str::to_owned).collect()
}

/// The fewest rows that a search finds by which each `strength` words meet, 2 or 3, that any row has
/// together; a word that a row lacks counts as one.
fn covering(rows: &[Vec<String>], strength: usize) -> Vec<usize> {
    let name = |word: &str| word.split('=').next().unwrap_or_default().to_owned();
    let names: BTreeSet<String> = rows.iter().flatten().map(|word| name(word)).collect();
    let mut ids: HashMap<String, usize> = HashMap::new();
    let rows: Vec<Vec<usize>> = rows
        .iter()
        .map(|row| {
            let lacks = names.iter().filter(|n| !row.iter().any(|word| name(word) == **n));
            let all = row.iter().cloned().chain(lacks.map(|n| format!("no {n}")));
            let mut own = Vec::new();
            for word in all {
                let new = ids.len();
                own.push(*ids.entry(word).or_insert(new));
            }
            own.sort_unstable();
            own
        })
        .collect();
    let n = ids.len();
    let meetings: Vec<Vec<u32>> = rows
        .iter()
        .map(|row| {
            let mut all = Vec::new();
            for (i, a) in row.iter().enumerate() {
                for (j, b) in row.iter().enumerate().skip(i + 1) {
                    match strength {
                        2 => all.push(a * n + b),
                        3 => all.extend(row[j + 1..].iter().map(|c| (a * n + b) * n + c)),
                        _ => unreachable!("two or three"),
                    }
                }
            }
            all.into_iter().map(|meeting| meeting as u32).collect()
        })
        .collect();
    let mut met = vec![false; n.pow(strength as u32)];
    // What a row would add shrinks only, so the largest of the old counts is an upper bound.
    let mut queue: BinaryHeap<(usize, Reverse<usize>)> =
        meetings.iter().enumerate().map(|(i, all)| (all.len(), Reverse(i))).collect();
    let mut chosen = Vec::new();
    while let Some((old, Reverse(i))) = queue.pop() {
        let new = meetings[i].iter().filter(|m| !met[**m as usize]).count();
        if new == old {
            meetings[i].iter().for_each(|m| met[*m as usize] = true);
            chosen.push(i);
        } else if new > 0 {
            queue.push((new, Reverse(i)));
        }
    }
    chosen.sort_unstable();
    chosen
}

/// The rows of some groups that are assembled; every one there is if `all` are wanted.
fn rows(groups: &[Group], of: &[usize], all: bool) -> Vec<Row> {
    let legal = |i: usize| groups[i].tiles.iter().map(move |tile| (i, tile.clone()));
    let every: Vec<Row> = of.iter().copied().flat_map(legal).collect();
    if all {
        return every;
    }
    let covering_of = |meets: Meets, strength: usize| {
        let rows: Vec<&Row> = every.iter().filter(|row| groups[row.0].meets == meets).collect();
        let words: Vec<_> = rows.iter().map(|row| words(groups, row)).collect();
        covering(&words, strength).into_iter().map(|i| rows[i].clone()).collect::<Vec<Row>>()
    };
    [covering_of(Meets::Triples, 3), covering_of(Meets::Pairs, 2)].concat()
}

/// The PTX of a row, and whether it is that of the first precision but for the type's name.
fn variant(kernel: &Kernel, groups: &[Group], row: &Row) -> Variant {
    let (group, tile) = (&groups[row.0], &row.1);
    let name = format!("{} {tile} {}", kernel.name, group.problem);
    let ptx = kernel.render(&group.problem, tile).unwrap_or_else(|e| panic!("{name}: {e}"));
    let first = group.first.and_then(|i| kernel.render(&groups[i].problem, tile).ok());
    let one_type = |ptx: &Ptx| ptx.text.replace("bf16", "f16").replace("fp16", "f16");
    let twin = first.filter(|first| one_type(first) == one_type(&ptx)).map(|p| p.sha256);
    Variant { name, ptx, twin, words: words(groups, row) }
}

/// The distinct PTX of a kernel that are assembled; every one there is if `all` are wanted.
fn variants(kernel: &Kernel, all: bool) -> Vec<Variant> {
    let groups = groups(kernel);
    let (firsts, others): (Vec<usize>, Vec<usize>) =
        (0..groups.len()).partition(|i| groups[*i].first.is_none());
    let chosen = rows(&groups, &firsts, all);
    let mut twins: Vec<Row> = Vec::new();
    let mut rest: Vec<usize> = Vec::new();
    for i in others {
        // One of the tiles that the first precision is assembled with, if it is with any.
        let own = &groups[i];
        let common: Vec<&Tile> = chosen
            .iter()
            .filter(|(first, tile)| Some(*first) == own.first && own.tiles.contains(tile))
            .map(|row| &row.1)
            .collect();
        let one = common.get(i * 7 % common.len().max(1)).copied().or(own.tiles.first());
        let Some(one) = one.map(|tile| (i, tile.clone())) else { continue };
        if all || variant(kernel, &groups, &one).twin.is_none() {
            rest.push(i);
        } else if !common.is_empty() {
            twins.push(one);
        }
    }
    let rest = rows(&groups, &rest, all);
    let work: Vec<&Row> = chosen.iter().chain(&twins).chain(&rest).collect();
    let found: Vec<Variant> = work.par_iter().map(|row| variant(kernel, &groups, row)).collect();
    let mut seen = HashSet::new();
    found.into_iter().filter(|v| seen.insert(v.ptx.sha256.clone())).collect()
}

/// A folder for what this very assembler said.
fn logs_of(ptxas: &Path) -> PathBuf {
    let version = Command::new(ptxas).arg("--version").output().expect("ptxas runs").stdout;
    let build = String::from_utf8_lossy(&version).trim().lines().last().unwrap_or("").to_owned();
    let build = build.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ptxas").join(build);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// What the assembler says of a text that it takes, else of one that it refuses. Text, architecture
/// and assembler decide that: what it took before is read from `logs`.
fn log(ptxas: &Path, logs: &Path, ptx: &Ptx, arch: &str) -> Result<String, String> {
    let kept = logs.join(format!("{}.{arch}", ptx.sha256));
    if let Ok(log) = std::fs::read_to_string(&kept) {
        return Ok(log);
    }
    let mut file = tempfile::NamedTempFile::with_suffix_in(".ptx", logs).expect("a file");
    file.write_all(ptx.text.as_bytes()).expect("a written file");
    let output = Command::new(ptxas)
        .args(["-v", "-arch", arch, "-o", "/dev/null"])
        .arg(file.path())
        .output()
        .expect("ptxas runs");
    let log = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(log.into());
    }
    // Renamed when whole, so that nobody reads a part.
    std::fs::write(file.path(), &*log).expect("a written file");
    file.persist(&kept).expect("a renamed file");
    Ok(log.into())
}

/// The registers of each entry of a variant on one architecture, or what is wrong with it.
fn assemble(ptxas: &Path, logs: &Path, v: &Variant, arch: &str) -> Result<Vec<u64>, String> {
    let log = log(ptxas, logs, &v.ptx, arch);
    let lines: Vec<&str> = match &log {
        Ok(log) => log.lines().filter(|l| costs(l)).collect(),
        Err(log) => log.lines().take(8).collect(),
    };
    match log {
        Ok(ref log) if lines.is_empty() => {
            Ok(log.lines().filter_map(|l| before(l, "registers")).collect())
        }
        _ => Err(format!("{} for {arch}:\n  {}", v.name, lines.join("\n  "))),
    }
}

/// The number in front of some words of a line.
fn before(line: &str, what: &str) -> Option<u64> {
    let words = line.split(what).next().filter(|_| line.contains(what))?;
    words.split_whitespace().last()?.parse().ok()
}

/// Whether a line of the log tells of spills, local memory or serialised instructions.
fn costs(line: &str) -> bool {
    ["bytes stack frame", "bytes spill stores", "bytes spill loads"]
        .iter()
        .any(|what| before(line, what).is_some_and(|n| n > 0))
        || line.contains("C75")
}

/// Every variant of a kernel assembles cleanly, and takes the registers of its twin.
fn of_kernel(name: &str) {
    let Some(ptxas) = ptxas() else { return };
    let all = std::env::var_os("CROSSOVER_ASSEMBLE_ALL").is_some_and(|x| x == "1");
    let kernel = kernel(name);
    // PTX for sm_80 runs on later devices too, compiled for them by the driver.
    let archs: &[&str] =
        if kernel.manifest.target == "sm_80" { &["sm_80", "sm_90a"] } else { &["sm_90a"] };
    let variants = variants(kernel, all);
    assert!(!variants.is_empty());
    let some = covering(&variants.iter().map(|v| v.words.clone()).collect::<Vec<_>>(), 2);
    let (last, others) = archs.split_last().expect("an architecture");
    let mut work: Vec<(&Variant, &str)> = variants.iter().map(|v| (v, *last)).collect();
    for arch in others {
        let meets = |i: &usize| all || some.contains(i);
        work.extend((0..variants.len()).filter(meets).map(|i| (&variants[i], *arch)));
    }
    let logs = logs_of(ptxas);
    let done: Vec<_> = work.par_iter().map(|(v, arch)| assemble(ptxas, &logs, v, arch)).collect();
    let mut bad: Vec<String> = done.iter().filter_map(|d| d.clone().err()).collect();
    let registers: HashMap<_, _> =
        work.iter().zip(&done).map(|((v, arch), d)| ((v.ptx.sha256.as_str(), *arch), d)).collect();
    let mut twins = 0;
    for ((v, arch), own) in work.iter().zip(&done) {
        let Some(twin) = &v.twin else { continue };
        // For some architectures not all are assembled.
        let Some(first) = registers.get(&(twin.as_str(), *arch)) else { continue };
        twins += 1;
        if let (Ok(own), Ok(first)) = (own, first)
            && (own != first || own.is_empty())
        {
            let (name, of) = (&v.name, "the other precision takes");
            bad.push(format!("{name} for {arch}: {own:?} registers, {of} {first:?}"));
        }
    }
    assert!(
        bad.is_empty(),
        "{} of {} variants:\n{}",
        bad.len(),
        work.len(),
        bad.iter().take(20).cloned().collect::<Vec<_>>().join("\n")
    );
    println!("{} variants assembled, {twins} of them beside one of another precision", work.len());
}

// A test for each kernel, by build.rs: `assemble::kda_prefill_sm80`.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

#[test]
fn the_log_is_read_right() {
    let clean = "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads";
    let used = "ptxas info    : Used 168 registers, 400 bytes cmem[0]";
    assert_eq!((before(used, "registers"), before(clean, "registers")), (Some(168), None));
    assert!(!costs(clean) && !costs("ptxas info    : Used 168 registers, 400 bytes cmem[0]"));
    assert!(costs("    8 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads"));
    assert!(costs("    0 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads"));
    assert!(costs("ptxas info    : (C7510) Potential Performance Loss: wgmma.mma_async ..."));
}

/// What is left out of combinations of some extras is met by other tiles, and nothing else is left out.
#[test]
fn values_are_assembled_together() {
    for kernel in registry().kernels() {
        let groups = groups(kernel);
        let firsts: Vec<usize> = (0..groups.len()).filter(|i| groups[*i].first.is_none()).collect();
        let every = rows(&groups, &firsts, true);
        let chosen = rows(&groups, &firsts, false);
        let meetings = |rows: &[Row], of: usize| {
            let mut all = HashSet::new();
            for row in rows {
                let words = words(&groups, row);
                for (i, a) in words.iter().enumerate() {
                    for (j, b) in words.iter().enumerate().skip(i + 1) {
                        all.insert((a.clone(), b.clone(), String::new()));
                        if of == 3 {
                            let third = words[j + 1..].iter();
                            all.extend(third.map(|c| (a.clone(), b.clone(), c.clone())));
                        }
                    }
                }
            }
            all
        };
        let whole = |rows: &[Row]| -> Vec<Row> {
            let is = |row: &&Row| groups[row.0].meets == Meets::Triples;
            rows.iter().filter(is).cloned().collect()
        };
        assert_eq!(meetings(&chosen, 2), meetings(&every, 2), "{}", kernel.name);
        let [few, many] = [&chosen, &every].map(|rows| meetings(&whole(rows), 3));
        assert_eq!(few, many, "{}", kernel.name);
        println!("{}: {} of {} in one precision", kernel.name, chosen.len(), every.len());
        // Few combinations leave little to save.
        let most = if every.len() > 500 { every.len() / 2 } else { every.len() };
        assert!(chosen.len() <= most, "{} of {}", chosen.len(), every.len());
    }
}

#[test]
fn a_covering_has_every_pair_and_little_more() {
    let rows: Vec<Vec<String>> = (0..4 * 3 * 5 * 2)
        .map(|i| {
            let mut row = vec![
                format!("a={}", i % 4),
                format!("b={}", i / 4 % 3),
                format!("c={}", i / 12 % 5),
            ];
            row.extend((i >= 60).then(|| "d=1".to_owned()));
            row
        })
        .collect();
    let chosen = covering(&rows, 2);
    let has = |a: &str, b: Option<&str>| {
        chosen.iter().any(|i| {
            let row = &rows[*i];
            row.iter().any(|w| w == a)
                && match b {
                    Some(b) => row.iter().any(|w| w == b),
                    None => row.len() == 3,
                }
        })
    };
    for a in ["a=0", "a=3", "b=2", "c=4"] {
        for b in [Some("c=0"), Some("b=1"), Some("d=1"), None] {
            if b.is_none_or(|b| b[..1] != a[..1]) {
                assert!(has(a, b), "{a} {b:?}");
            }
        }
    }
    assert!(chosen.len() <= 30, "{}", chosen.len());
}

/// Of attention's second precision one tile each is assembled, beside its twin.
#[test]
fn a_second_precision_is_met_by_twins() {
    for name in ["attention/prefill.sm80", "attention/prefill.sm90a"] {
        let kernel = kernel(name);
        let groups = groups(kernel);
        let mut twins = 0;
        for (i, group) in groups.iter().enumerate().filter(|(_, g)| g.first.is_some()).take(4) {
            let Some(tile) = group.tiles.first().cloned() else { continue };
            let first = &groups[group.first.expect("a first")].problem;
            assert_eq!(first.with_dtype(group.problem.dtype()), group.problem);
            twins += usize::from(variant(kernel, &groups, &(i, tile)).twin.is_some());
        }
        assert!(twins > 0, "{name}");
    }
}
