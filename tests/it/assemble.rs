//! Every variant of every kernel through NVIDIA's assembler, without spills and without lost
//! performance (C75xx lines).
//!
//! Each legal tile is assembled at each head dimension
//!
//! - causal and not, with each state on and off;
//! - with each extra alone (soft cap, packed lengths, windows narrower and wider than a block), with
//!   all of them and, in turns, with one of the combinations of some ([`TURNS`]);
//! - in the first precision. Where another gives the same PTX but for the type's name, as fp16 and
//!   bf16 mostly do, it is assembled with one tile of each of these combinations, and must take the
//!   registers of the first; elsewhere with every tile.
//!
//! `CROSSOVER_ASSEMBLE_ALL=1` leaves nothing out. What the same assembler took before is not
//! assembled again (`target/tmp/ptxas`): a change of a kernel costs the variants that it changes.
//!
//! ptxas is found through `PTXAS`, else on the path. Where there is none the tests say that they
//! were skipped; with `CROSSOVER_REQUIRE_PTXAS=1` that is a failure.

use std::collections::{HashMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crossover::device::Ptx;
use crossover::kernel::{Kernel, Tile};
use crossover::op::{Kind, Problem, Value};
use crossover::verify::suite;
use rayon::prelude::*;

use crate::common::{kernel, ptxas};

/// Of the combinations of some extras, each tile meets one in so many; there are six.
const TURNS: usize = 6;

/// The problem with every combination of its flags and formats, as far as templates are specialised
/// for them. A number: a combination that only every so many tiles are assembled for.
fn flags(kernel: &Kernel, plain: Problem) -> Vec<(Problem, Option<usize>)> {
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
    let mut some = 0;
    all.into_iter().flat_map(|p| extras(kernel, &p, &mut some)).collect()
}

/// The problem with windows, soft caps and packed lengths, where the operator has such.
fn extras(kernel: &Kernel, p: &Problem, some: &mut usize) -> Vec<(Problem, Option<usize>)> {
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
        let most = if p.flag("causal") { window == Some(100) && extras == 3 } else { extras == 2 };
        let turn = (extras > 1 && !most).then_some(*some);
        *some += usize::from(turn.is_some());
        all.push((p, turn));
    }
    all
}

/// A PTX that the kernel can be rendered to.
struct Variant {
    name: String,
    ptx: Ptx,
    /// The hash of the one of the first precision that is the same but for the type's name.
    twin: Option<String>,
}

/// A problem whose tiles are assembled.
struct Group {
    problem: Problem,
    /// The same in the first precision, if this is another.
    first: Option<Problem>,
    turn: Option<usize>,
    number: usize,
}

fn groups(kernel: &Kernel) -> Vec<Group> {
    let mut all = Vec::new();
    let of = |dtype, dims| {
        flags(kernel, Problem::plain(kernel.manifest.op, kernel.phase(), dtype, dims, 256))
    };
    for (place, &dtype) in kernel.manifest.dtypes.iter().enumerate() {
        for dims in suite::head_dims(kernel) {
            let firsts = of(kernel.manifest.dtypes[0], dims);
            for ((problem, turn), (first, _)) in of(dtype, dims).into_iter().zip(firsts) {
                let (first, number) = ((place > 0).then_some(first), all.len());
                all.push(Group { problem, first, turn, number });
            }
        }
    }
    all
}

impl Group {
    fn variant(&self, kernel: &Kernel, tile: &Tile) -> Variant {
        let name = format!("{} {tile} {}", kernel.name, self.problem);
        let ptx = kernel.render(&self.problem, tile).unwrap_or_else(|e| panic!("{name}: {e}"));
        let first = self.first.as_ref().and_then(|first| kernel.render(first, tile).ok());
        let one_type = |ptx: &Ptx| ptx.text.replace("bf16", "f16").replace("fp16", "f16");
        let twin = first.filter(|first| one_type(first) == one_type(&ptx)).map(|p| p.sha256);
        Variant { name, ptx, twin }
    }

    /// The tiles that it is assembled with, unless one is enough.
    fn tiles(&self, kernel: &Kernel, all: bool) -> Vec<Tile> {
        // The same turn for a tile in every group, and turns spread over the values of each axis.
        let number = |tile: &Tile| tile.to_string().bytes().map(usize::from).sum::<usize>();
        let meets = |tile: &Tile| {
            all || self.turn.is_none_or(|turn| (number(tile) + turn).is_multiple_of(TURNS))
        };
        let mut tiles = kernel.tiles(&self.problem).expect("legal tiles");
        tiles.retain(meets);
        tiles
    }

    fn variants(&self, kernel: &Kernel, all: bool) -> Vec<Variant> {
        let tiles = self.tiles(kernel, all);
        if !all && self.first.is_some() && !tiles.is_empty() {
            let one = self.variant(kernel, &tiles[self.number * 7 % tiles.len()]);
            if one.twin.is_some() {
                return vec![one];
            }
        }
        tiles.par_iter().map(|tile| self.variant(kernel, tile)).collect()
    }
}

/// The distinct PTX of a kernel that are assembled; every one there is if `all` are wanted.
fn variants(kernel: &Kernel, all: bool) -> Vec<Variant> {
    let groups = groups(kernel);
    let found: Vec<Vec<Variant>> = groups.par_iter().map(|g| g.variants(kernel, all)).collect();
    let mut seen = HashSet::new();
    found.into_iter().flatten().filter(|v| seen.insert(v.ptx.sha256.clone())).collect()
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
    let work: Vec<(&Variant, &str)> =
        variants.iter().flat_map(|v| archs.iter().map(move |&arch| (v, arch))).collect();
    let logs = logs_of(ptxas);
    let done: Vec<_> = work.par_iter().map(|(v, arch)| assemble(ptxas, &logs, v, arch)).collect();
    let mut bad: Vec<String> = done.iter().filter_map(|d| d.clone().err()).collect();
    let registers: HashMap<_, _> =
        work.iter().zip(&done).map(|((v, arch), d)| ((v.ptx.sha256.as_str(), *arch), d)).collect();
    let mut twins = 0;
    for ((v, arch), own) in work.iter().zip(&done) {
        let Some(twin) = &v.twin else { continue };
        twins += 1;
        let first = registers.get(&(twin.as_str(), *arch)).expect("the first precision's is there");
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

/// What is left out by turns is met by other tiles, and nothing else is left out.
#[test]
fn every_combination_is_assembled() {
    let kernel = kernel("attention/prefill.sm90a");
    let groups = groups(kernel);
    let dims = suite::head_dims(kernel).len();
    assert_eq!(groups.len(), kernel.manifest.dtypes.len() * dims * (4 + 12));
    let turns: HashSet<_> = groups.iter().filter_map(|g| g.turn).collect();
    assert_eq!(turns.len(), TURNS);
    let tiles = |g: &Group| {
        let all = kernel.tiles(&g.problem).expect("legal tiles");
        all.iter().map(Tile::to_string).collect::<HashSet<_>>()
    };
    // Those that each combination of some has, and those that have met one.
    let (mut common, mut met) = (None, HashSet::new());
    for group in &groups[..4 + 12] {
        let found: HashSet<_> = group.tiles(kernel, false).iter().map(Tile::to_string).collect();
        let legal = tiles(group);
        match group.turn {
            None => assert_eq!(found, legal, "{}", group.problem),
            Some(_) => {
                assert!(found.len() * TURNS * 2 > legal.len(), "{}: {found:?}", group.problem);
                met.extend(found);
                common = Some(common.map_or_else(|| legal.clone(), |c| &c & &legal));
            }
        }
    }
    assert!(common.expect("combinations of some").is_subset(&met));
}

/// Of attention's second precision one tile each is assembled, beside its twin.
#[test]
fn a_second_precision_is_met_by_twins() {
    for name in ["attention/prefill.sm80", "attention/prefill.sm90a"] {
        let kernel = kernel(name);
        let mut twins = 0;
        for group in groups(kernel).iter().filter(|g| g.first.is_some()).take(4) {
            let found = group.variants(kernel, false);
            let of = &group.problem;
            assert!(found.len() <= 1 && found.iter().all(|v| v.twin.is_some()), "{of}");
            twins += found.len();
        }
        assert!(twins > 0, "{name}");
    }
}
