//! Manifests of users: the one in the documentation, and what is wrong with others.

use std::path::Path;

use crossover::device::open::open;
use crossover::kernel::{Kernel, Registry};
use crossover::op::Problem;
use crossover::verify::suite;
use crossover::verify::trial::{self, Ending};
use predicates::prelude::*;
use predicates::str::contains;
use tempfile::TempDir;

use crate::common::{crossover, problem, registry};

const NAME: &str = "attention/prefill.mine";
const PTX: &str = include_str!("documented.sm80.ptx");

/// The manifest that docs/adding-a-kernel.md shows.
fn documented() -> &'static str {
    let text = include_str!("../../docs/adding-a-kernel.md");
    let (_, block) = text.split_once("```toml\n").expect("a manifest");
    block.split_once("```").expect("its end").0
}

/// A folder with a kernel of that manifest and PTX.
fn folder(manifest: &str, ptx: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let of = folder.path().join("attention");
    std::fs::create_dir(&of).expect("a folder");
    std::fs::write(of.join("prefill.mine.toml"), manifest).expect("a file");
    std::fs::write(of.join("prefill.mine.ptx"), ptx).expect("a file");
    folder
}

/// The documented manifest beside PTX that is changed.
pub fn mine(change: impl Fn(&str) -> String) -> TempDir {
    let ptx = change(PTX);
    assert_ne!(ptx, PTX, "nothing is changed");
    folder(documented(), &ptx)
}

fn read(folder: &Path) -> Result<Kernel, String> {
    let registry = Registry::from_dir(folder).map_err(|e| e.0)?;
    registry.get(NAME).cloned().map_err(|e| e.0)
}

/// The documented manifest with each text in place of another.
fn changed(changes: &[(&str, &str)]) -> String {
    changes.iter().fold(documented().to_owned(), |text, (from, to)| {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        text.replace(from, to)
    })
}

/// What the manifest says is all that a right kernel of it is tried on: windows, soft caps and packed
/// lengths are not, and it passes.
#[test]
fn the_documented_manifest_is_enough() {
    let folder = folder(documented(), PTX);
    let kernel = read(folder.path()).unwrap_or_else(|e| panic!("{e}"));
    let cases = suite::cases(&kernel, 1).expect("a suite");
    assert!(cases.len() >= 100, "{}", cases.len());
    for case in &cases {
        let p = &case.case.problem;
        let plain = p.get("window").is_none() && p.number("softcap").is_none();
        assert!(plain && p.lens().is_empty() && p.count("Dv") == p.count("D"), "{p}");
    }
    let short = cases.into_iter().filter(|c| c.case.problem.flops() < 2e6);
    let work: Vec<_> = short.map(|c| (&kernel, c)).collect();
    assert!(work.len() >= 60, "{}", work.len());
    let workers = std::thread::available_parallelism().map_or(1, |n| n.get());
    trial::run_all(&work, workers, &|| open("emulator"), None, |i, trial| {
        assert_eq!(trial.ending, Ending::Passed, "{}: {:?}", work[i].1.label(), trial.faults);
    })
    .expect("the emulator");
}

#[test]
fn options_are_off_unless_the_manifest_names_them() {
    let refused = |manifest: &str, settings: &str| {
        let folder = folder(manifest, PTX);
        let kernel = read(folder.path()).unwrap_or_else(|e| panic!("{e}"));
        kernel.supports(&problem("attention", settings)).err().map(|e| e.0).unwrap_or_default()
    };
    let options = [
        ("window", "T=64,D=64,causal=true,window=9"),
        ("softcap", "T=64,D=64,softcap=9"),
        ("lens", "D=64,lens=5+6"),
        ("Dv", "T=64,D=64,Dv=128"),
    ];
    for (name, settings) in options {
        let why = refused(documented(), settings);
        assert!(why.contains(&format!("takes no {name}")) && why.contains("`options`"), "{why}");
        let asks = format!("options = [\"{name}\"]\n{}", documented());
        assert_eq!(refused(&asks, settings), "");
        // Named in any other way it is asked for as well.
        let named = if name == "lens" { "packed" } else { name };
        let asks =
            changed(&[("specialise = [\"D\"", &format!("specialise = [\"{named}\", \"D\""))]);
        assert_eq!(refused(&asks, settings), "", "{named}");
    }
    let by_tensor = changed(&[(
        "{ name = \"Tq\", u32 = \"Tq\" }",
        "{ name = \"starts\", buffer = \"cu_seqlens_q\" }",
    )]);
    assert_eq!(refused(&by_tensor, "D=64,lens=5+6"), "");
    // What a kernel of the program takes, its manifest states.
    for kernel in registry().kernels() {
        for (name, settings) in options {
            if kernel.manifest.op.name() == "attention" {
                let settings = settings.replace("D=64,Dv=128", "D=192,Dv=128");
                let takes = kernel.supports(&problem("attention", &settings)).is_ok();
                let states = kernel.manifest.options.iter().any(|o| o == name);
                assert_eq!(takes, states, "{} {name}", kernel.name);
            }
        }
    }
}

#[test]
fn faults_of_a_manifest_are_found_when_it_is_read() {
    let last = "[[default]]\ntile = { BM = 64, BN = 64 }";
    for (from, to, words) in [
        (
            "tile = { BM = 64, BN = 64 }",
            "tile = { BM = 96, BN = 64 }",
            "default 2 (BM=96,BN=64): tile axis BM takes [64, 128], not 96",
        ),
        (
            "tile = { BM = 128, BN = 64 }",
            "tile = { BM = 128 }",
            "default 1 (BM=128): tile axis `BN` is missing",
        ),
        (
            "tile = { BM = 128, BN = 64 }",
            "tile = { BM = 128, BN = 64, WG = 1 }",
            "no tile axis `WG`: there are BM, BN",
        ),
        (
            last,
            "[[default]]\nwhen = \"D == 128\"\ntile = { BM = 64, BN = 64 }",
            "default 2 (BM=64,BN=64) is the last and has `when = \"D == 128\"`",
        ),
        ("when = \"D == 64\"\n", "", "default 1 (BM=128,BN=64) has no `when`"),
        (
            "buffer = \"q\"",
            "buffer = \"k\"",
            "entry attention_prefill: param `q` passes the buffer `k`",
        ),
        (
            "u32 = \"Tq\"",
            "u32 = \"Tkv\"",
            "entry attention_prefill: param `Tq` passes the value `Tkv`",
        ),
        (
            "dtypes =",
            "options = [\"causal\"]\ndtypes =",
            "options: `causal` is no option of attention: it has Dv, window, softcap, lens",
        ),
        (
            "dtypes =",
            "options = [\"windows\"]\ndtypes =",
            "options: `windows` is no option of attention",
        ),
        ("BN = [32, 64]", "BN = []", "axis BN"),
    ] {
        let folder = folder(&changed(&[(from, to)]), PTX);
        let e = read(folder.path()).expect_err(to);
        assert!(e.contains("attention/prefill.mine.toml: ") && e.contains(words), "{to}: {e}");
        // As a user meets it, whatever the command.
        crossover(&["check", "--list", "--kernels"])
            .arg(folder.path())
            .assert()
            .code(2)
            .stderr(contains(words));
    }
}

/// Parameters are passed by their place: number, types and names of both sides are compared.
#[test]
fn parameters_are_those_of_the_ptx() {
    let line = |name: &str, kind: &str| format!("{{ name = \"{name}\", {kind} = \"{name}\" }},");
    let swapped = |a: &str, b: &str, kind: &str| {
        let (a, b) = (line(a, kind), line(b, kind));
        changed(&[(&format!("{a}\n  {b}"), &format!("{b}\n  {a}"))])
    };
    for (manifest, words) in [
        (
            swapped("Tq", "Tkv", "u32"),
            ["parameter 6 `Tkv` is u32 = \"Tkv\"", "prefill.mine.ptx:23 declares `.param .u32 Tq`"],
        ),
        (
            swapped("q", "k", "buffer"),
            ["parameter 1 `k` is buffer = \"k\"", "prefill.mine.ptx:18 declares `.param .u64 q`"],
        ),
        (
            changed(&[("name = \"Hkv\", u32", "name = \"Hkv\", f32")]),
            [
                "parameter 9 `Hkv` is f32 = \"Hkv\", which wants .f32",
                "prefill.mine.ptx:26 declares `.param .u32 Hkv`",
            ],
        ),
        (
            changed(&[("name = \"scale\", f32", "name = \"scale\", u32")]),
            ["which wants .u32", "declares `.param .f32 scale`"],
        ),
        (
            changed(&[("name = \"q\", buffer = \"q\"", "name = \"q\", u32 = 1")]),
            ["`q` is u32 = 1, which wants .u32", "`.param .u64 q`"],
        ),
        (
            changed(&[("  { name = \"group\", u32 = \"group\" },\n", "")]),
            ["10 parameters (q, k, v, o, lse, Tq", "prefill.mine.ptx:17 declares 11 (q, k"],
        ),
        (
            changed(&[("name = \"attention_prefill\"", "name = \"attention\"")]),
            [
                "entry attention: attention/prefill.mine.ptx has no .entry of that name",
                "attention_prefill",
            ],
        ),
    ] {
        let folder = folder(&manifest, PTX);
        let kernel = read(folder.path()).unwrap_or_else(|e| panic!("{e}"));
        let p = problem("attention", "T=64,D=64");
        let tile = kernel.default_tile(&p).expect("a tile");
        let e = kernel.render(&p, &tile).expect_err(words[0]).0;
        assert!(e.contains("attention/prefill.mine.toml: entry attention"), "{e}");
        assert!(words.iter().all(|w| e.contains(w)), "{words:?}: {e}");
        assert!(kernel.job(&p, &tile).is_err());
    }
    // Names that compilers make say nothing, and prefixes are no difference.
    for (from, to) in
        [("q", "attention_prefill_param_0"), ("q", "p_q"), ("q", "q_param"), ("Tq", "P_TQ")]
    {
        let ptx = PTX
            .replace(&format!(".param .u64 {from},"), &format!(".param .u64 {to},"))
            .replace(&format!(".param .u32 {from},"), &format!(".param .u32 {to},"))
            .replace(&format!("[{from}]"), &format!("[{to}]"));
        let folder = folder(documented(), &ptx);
        let kernel = read(folder.path()).unwrap_or_else(|e| panic!("{e}"));
        let p = problem("attention", "T=64,D=64");
        let tile = kernel.default_tile(&p).expect("a tile");
        kernel.render(&p, &tile).unwrap_or_else(|e| panic!("{to}: {e}"));
    }
}

/// What a user leaves open is what the kernel has.
#[test]
fn problems_at_a_prompt_have_the_kernels_dimensions() {
    let manifest =
        changed(&[("D = [64, 128]", "D = [64]"), ("[\"bf16\", \"fp16\"]", "[\"fp16\"]")]);
    let folder = folder(&manifest, PTX);
    let run = |args: &[&str]| crossover(args).arg("--kernels").arg(folder.path()).assert();
    run(&["kernels", NAME]).success().stdout(contains("D 64").or(contains("D=64")));
    run(&["kernels", NAME, "--render"]).success().stdout(contains("// [B,Tq,Hq,64]"));
    run(&["profile", NAME, "-p", "T=70", "--summary"]).success().stdout(contains("right"));
    run(&["check", NAME, "--device", "emulator", "--problem", "T=33", "--tile", "BM=64,BN=32"])
        .success()
        .stdout(contains("1 case of 1 kernel on emulator"));
    run(&["kernels", NAME, "-p", "D=128"]).code(2).stderr(contains("takes D of [64], not 128"));
    let kernel = read(folder.path()).unwrap_or_else(|e| panic!("{e}"));
    let p: Problem = kernel.problem("T=5").expect("a problem");
    assert_eq!((p.count("D"), p.dtype().name(), p.number("scale")), (64, "fp16", Some(0.125)));
}

/// The table in the documentation has every macro of lib/.
#[test]
fn the_documentation_lists_the_macros() {
    let text = include_str!("../../docs/adding-a-kernel.md");
    let kernel = registry().kernels().first().expect("a kernel");
    let mut found = 0;
    for file in std::fs::read_dir("kernels/lib").expect("lib") {
        let path = file.expect("a file").path();
        let name = format!("lib/{}", path.file_name().expect("a name").to_string_lossy());
        let source = kernel.source(&name).expect("an embedded file");
        for line in source.lines().filter(|l| l.trim_start().starts_with("<% macro ")) {
            let macro_name = line.split("macro ").nth(1).and_then(|l| l.split('(').next());
            let macro_name = macro_name.expect("a name").trim();
            let row = text.lines().find(|l| l.starts_with(&format!("| `{name}` |")));
            let row = row.unwrap_or_else(|| panic!("no row of {name}"));
            assert!(row.contains(&format!("`{macro_name}`")), "{name}: {macro_name}");
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}
