//! Laws that every operator keeps: what the rest of the program takes for granted of rows, roles and
//! references.

use std::collections::HashSet;
use std::path::Path;

use crossover::op::{
    ALL, Crop, DType, Family, Flow, Given, Kind, Mark, Needed, Op, PhaseName, Problem, Role, Side,
    Tensor, Value,
};
use crossover::sweep::{Source, Sweep};

use crate::common::{op, problem, registry};

/// Small problems of every operator and phase: two sequences, four heads of the output, two of those
/// that serve several, with each value of each own axis of the suites and each of their extras.
fn problems() -> Vec<Problem> {
    let mut all = Vec::new();
    for op in Op::all() {
        for phase in op.phases() {
            let plain = Problem::plain(op, phase.name, DType::Bf16, (8, 16), 70);
            let mut base = plain.with_role(Role::Sequence, 2).with_role(Role::Heads, 4);
            for v in op.variables() {
                if matches!(v.role, Role::Shared { .. }) {
                    base = base.with(v.name, 2);
                }
            }
            let suite = op.suite(phase.name);
            for own in suite.own {
                for value in 0..own.values {
                    all.push((own.set)(base.clone(), value));
                }
            }
            for turn in 0..5 {
                all.push((suite.extras)(&base, turn));
                all.push((suite.extras)(&(suite.uneven)(base.clone()), turn));
            }
        }
    }
    all.retain(|p| p.fault().is_none());
    assert!(all.len() > 10 * ALL.len());
    all
}

/// Outputs of the reference, as fp32 tensors.
fn outputs(p: &Problem, inputs: &[Tensor]) -> Vec<Tensor> {
    let specs = p.tensors_of(Flow::Output);
    let values = p.reference(inputs);
    assert_eq!(specs.len(), values.len(), "{p}");
    let tensor =
        |(s, x): (&crossover::op::TensorSpec, Vec<f64>)| Tensor::from_f64(DType::Fp32, &s.shape, x);
    specs.iter().zip(values).map(tensor).collect()
}

/// Equal but for what fp32 rounds.
fn near(got: f64, want: f64) -> bool {
    (want - got).abs() <= 1e-6 * (1.0 + got.abs()) || want == got
}

/// A cropped problem's reference is the crop of the whole problem's reference.
#[test]
fn crop_commutes_with_the_reference() {
    for p in problems() {
        let inputs = p.inputs(&Family::default(), 3);
        let whole = outputs(&p, &inputs);
        let (b, heads) = p.output_heads();
        let t = p.tokens();
        let rows = match p.has_rows_apart() {
            true => vec![0..t, t / 7..(t / 2).max(t / 7 + 1), t - 1..t, t / 3..t],
            false => std::iter::once(0..t).collect(),
        };
        for (rows, head) in rows.into_iter().zip([heads - 1, 0, heads / 2, heads - 1]) {
            let crop = Crop { b: b - 1, head, rows };
            let small = p.crop(&crop);
            assert_eq!(small.output_heads(), (1, 1), "{p}");
            let cut = p.crop_tensors(Flow::Output, &whole, &crop);
            let got = outputs(&small, &p.crop_tensors(Flow::Input, &inputs, &crop));
            for (cut, got) in cut.iter().zip(&got) {
                assert_eq!(cut.shape, got.shape, "{p} {crop:?}");
                for i in 0..got.len() {
                    let (got, want) = (got.get(i), cut.get(i));
                    assert!(near(got, want), "{p} {crop:?} at {i}: {got} {want}");
                }
            }
        }
    }
}

/// A crop of packed rows, within one sequence or across several, keeps each sequence its own keys.
#[test]
fn crops_of_packed_rows_keep_each_sequence_its_keys() {
    for window in [0, 30] {
        for causal in [true, window > 0] {
            let settings = format!(
                "Hq=4,Hkv=2,D=8,Dv=4,scale=0.3,causal={causal},window={window},\
                 lens=0:9+70+0+60:100+0:20+5:3+4:0+0:7+90+0:5"
            );
            let p = problem("attention", &settings);
            let inputs = p.inputs(&Family::default(), 3);
            let whole = outputs(&p, &inputs);
            for rows in [0..229, 0..10, 65..75, 60..140, 130..137, 131..132, 135..137, 200..229] {
                let crop = Crop { b: 0, head: 3, rows };
                let cut = p.crop_tensors(Flow::Output, &whole, &crop);
                let small = p.crop(&crop);
                let got = outputs(&small, &p.crop_tensors(Flow::Input, &inputs, &crop));
                for (cut, got) in cut.iter().zip(&got) {
                    assert!((0..got.len()).all(|i| near(got.get(i), cut.get(i))), "{p} {crop:?}");
                }
            }
        }
    }
}

/// The work of one head group, times the number of groups, is that of the whole problem. So are the
/// bytes, but for tensors that heads or sequences share.
#[test]
fn head_groups_multiply() {
    for p in problems() {
        let (group, times) = p.one_head_group();
        assert!((group.flops() * times as f64 / p.flops() - 1.0).abs() < 1e-12, "{p}");
        let reference = group.reference_flops() * times as f64 / p.reference_flops();
        assert!((reference - 1.0).abs() < 1e-12, "{p}");
        let shared: usize =
            p.tensors().iter().filter(|t| t.dtype == DType::I32).map(|t| t.bytes()).sum();
        let bytes = group.min_bytes() * times as f64 - (shared * (times - 1)) as f64;
        // A decay a head is a tensor without sequences: each group of a batch has it.
        let slack: usize = p
            .tensors()
            .iter()
            .filter(|t| !t.roles.contains(&Some(Role::Sequence)))
            .map(|t| t.bytes())
            .sum();
        assert!((bytes - p.min_bytes()).abs() <= (slack * times) as f64, "{p}");
        assert_eq!(group.one_head_group(), (group.clone(), 1), "{p}");
        assert_eq!(group.fault(), None, "{p}");
    }
}

/// A problem comes back from its text and from its JSON as it was.
#[test]
fn text_and_json_round_trip() {
    for p in problems() {
        for p in [p.clone(), p.with_dtype(DType::Fp16), p.with("scale", 0.3)] {
            let text = p.settings();
            let again = Problem::parse(p.op(), PhaseName::Prefill, &text);
            assert_eq!(again.as_ref(), Ok(&p), "{text}");
            let json = serde_json::to_string(&p).unwrap();
            assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), p, "{json}");
        }
    }
    // So do all number formats.
    for op in Op::all() {
        for v in op.variables() {
            let (Role::Format { .. }, Kind::Word(words)) = (v.role, v.kind) else { continue };
            for word in words {
                let settings = format!("{}={word}", v.name);
                let p = Problem::parse(op, PhaseName::Prefill, &settings).unwrap();
                let text = p.settings();
                assert_eq!(Problem::parse(op, PhaseName::Prefill, &text).as_ref(), Ok(&p));
                let json = serde_json::to_string(&p).unwrap();
                assert_eq!(serde_json::from_str::<Problem>(&json).unwrap(), p, "{json}");
                assert_eq!(p.format(v.name).name(), *word, "a format is a number format");
            }
        }
    }
}

/// A sweep of one problem's variables plans that problem.
#[test]
fn toml_round_trips() {
    let registry = registry();
    for kernel in registry.kernels() {
        let (op, phase) = (kernel.manifest.op, kernel.phase());
        let p = Problem::plain(op, phase, kernel.manifest.dtypes[0], (64, 64), 96);
        let p = p.with_role(Role::Sequence, 2);
        let value = |v: &Value| match v {
            Value::Word(_) | Value::Lens(_) => format!("'{v}'"),
            v => v.to_string(),
        };
        let rows = op.variables_in(phase).filter(|v| *p.value(v.name) != Value::None);
        let lines: Vec<_> =
            rows.map(|v| format!("{} = {}", v.name, value(p.value(v.name)))).collect();
        let text = format!(
            "name = 'x'\n[[group]]\nop = '{op}'\nphase = '{phase}'\nkernels = '{}'\ndtype = '{}'\n{}\n",
            kernel.name,
            p.dtype(),
            lines.join("\n")
        );
        let sweep = Sweep::parse(Source::new("x.toml", text.clone())).unwrap();
        let plan = sweep.plan(registry, None, None).unwrap_or_else(|e| panic!("{text}{e}"));
        assert_eq!(plan.cases.len(), 1, "{text}");
        assert_eq!(plan.cases[0].case.problem, p, "{text}");
    }
}

/// No two operators share a name, summary, class, colour or mark; both sides have one.
#[test]
fn faces_differ() {
    let faces: Vec<_> = Op::all().map(|op| op.face()).collect();
    let all = |f: fn(&crossover::op::Face) -> &str| faces.iter().map(f).collect::<HashSet<_>>();
    for of in
        [all(|f| f.name), all(|f| f.class), all(|f| f.light), all(|f| f.dark), all(|f| f.summary)]
    {
        assert_eq!(of.len(), faces.len(), "{of:?}");
    }
    let marks: Vec<Mark> = faces.iter().map(|f| f.mark).collect();
    assert!((1..marks.len()).all(|i| !marks[..i].contains(&marks[i])), "{marks:?}");
    assert!([Side::Full, Side::Linear].iter().all(|s| faces.iter().any(|f| f.side == *s)));
    // The name is the folder of its kernels, and what records say.
    for op in Op::all() {
        assert_eq!(Op::parse(op.name()), Some(op));
        assert!(
            op.name().chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit())
        );
        assert_eq!(serde_json::to_value(op).unwrap(), op.name());
    }
}

/// There is a limit for every output, precision and family of the suites.
#[test]
fn limits_exist_for_every_output() {
    for p in problems() {
        for dtype in DType::PRECISIONS {
            let p = p.with_dtype(dtype);
            for family in p.op().suite(p.phase()).families {
                let family: Family = family.parse().expect("a family");
                for t in p.tensors_of(Flow::Output) {
                    let limit = p.op().limit(&p, &family, t.name);
                    assert!(limit.is_finite() && limit > 0.0, "{p} {family} {}: {limit}", t.name);
                }
            }
        }
    }
}

/// Names and keys are unique, rows refer to rows, roles that generic code asks for are there once,
/// dimensions of tensors are letters of rows, and inputs are as the tensors say.
#[test]
fn rows_hang_together() {
    for op in Op::all() {
        let rows = op.variables();
        let names: HashSet<_> = rows.iter().map(|v| v.name).collect();
        let keys: HashSet<_> = rows.iter().map(|v| v.key).collect();
        assert!(names.len() == rows.len() && keys.len() == rows.len(), "{op}: a name twice");
        for v in rows {
            assert!(!v.doc.is_empty(), "{op} {}", v.name);
            if let Role::Shared { of } = v.role {
                assert!(op.variable(of).is_some_and(|v| v.role == Role::Heads), "{op} {of}");
            }
        }
        // Generic code takes the one row with such a role.
        for role in
            [Role::Sequence, Role::Token, Role::Heads, Role::Key, Role::Channel, Role::Scale]
        {
            assert_eq!(rows.iter().filter(|v| v.role == role).count(), 1, "{op} {role:?}");
        }
        for phase in op.phases() {
            assert!(phase.lengths.iter().all(|n| op.variable(n).is_some()), "{op} {}", phase.name);
            let p =
                Problem::new(op, phase.name, DType::Bf16, &Given::new(), Needed::Small).unwrap();
            assert_eq!(p.fault(), None, "{p}");
            let tensors = p.tensors();
            assert!(p.tensors_of(Flow::Input).len() > 2 && !p.tensors_of(Flow::Output).is_empty());
            for t in &tensors {
                let letters: Vec<_> = t.dims.split(' ').collect();
                assert_eq!(letters.len(), t.roles.len());
                for (letter, role) in letters.iter().zip(&t.roles) {
                    assert!(role.is_some() || *letter == "N+1", "{op} {}: {letter}", t.name);
                }
            }
            let inputs = p.inputs(&Family::default(), 1);
            assert_eq!(inputs.len(), p.tensors_of(Flow::Input).len());
            for (spec, tensor) in p.tensors_of(Flow::Input).iter().zip(&inputs) {
                assert_eq!(
                    (&spec.shape, spec.dtype),
                    (&tensor.shape, tensor.dtype),
                    "{p} {}",
                    spec.name
                );
            }
        }
    }
}

/// A name has one kind and key in all operators: sweeps read values before they know the operator.
#[test]
fn shared_names_have_one_kind() {
    for a in Op::all().flat_map(|op| op.variables()) {
        for b in Op::all().flat_map(|op| op.variables()).filter(|b| b.name == a.name) {
            assert_eq!((a.kind, a.key), (b.kind, b.key), "{}", a.name);
        }
    }
}

/// FLOPs of phases: `2 B Hq (D + Dv)` a visible pair; a delta rule's step `7 K V`; lightning's `5 K V`.
#[test]
fn work_is_that_of_the_phase() {
    let flops = |name: &str, phase, settings: &str| {
        Problem::parse(op(name), phase, settings).unwrap().flops()
    };
    let (prefill, decode, verify) = (PhaseName::Prefill, PhaseName::Decode, PhaseName::Verify);
    assert_eq!(
        flops("attention", decode, "B=3,Hq=8,Hkv=2,D=64,context=500"),
        2.0 * 24.0 * 128.0 * 500.0
    );
    // Of 4 new tokens among 500 keys: 497 + 498 + 499 + 500 pairs.
    assert_eq!(
        flops("attention", verify, "Hq=2,D=64,Tq=4,context=500"),
        2.0 * 2.0 * 128.0 * 1994.0
    );
    assert_eq!(
        flops("attention", prefill, "Hq=2,D=64,T=100,causal=true"),
        2.0 * 2.0 * 128.0 * 5050.0
    );
    assert_eq!(flops("attention", prefill, "Hq=2,D=64,Dv=32,T=100"), 2.0 * 2.0 * 96.0 * 10000.0);
    for name in ["gated_delta_rule", "kda"] {
        assert_eq!(flops(name, decode, "B=3,H=2,HV=4,K=64,V=32"), 3.0 * 4.0 * 7.0 * 64.0 * 32.0);
        assert_eq!(
            flops(name, verify, "B=3,T=8,HV=4,K=64,V=32"),
            8.0 * 3.0 * 4.0 * 7.0 * 64.0 * 32.0
        );
        let chunked = 100.0 * 4.0 * (6.0 * 64.0 * 32.0 + 256.0 * 96.0);
        assert_eq!(flops(name, prefill, "T=100,HV=4,K=64,V=32"), chunked);
    }
    assert_eq!(flops("lightning", decode, "B=3,H=4,K=64,V=32"), 3.0 * 4.0 * 5.0 * 64.0 * 32.0);
    assert_eq!(flops("lightning", verify, "T=2,H=4,K=64,V=32"), 2.0 * 4.0 * 5.0 * 64.0 * 32.0);
}

/// A linear step depends on no context; attention's cache grows with it.
#[test]
fn a_context_costs_a_linear_operator_nothing() {
    for op in Op::all() {
        let at = |n: usize| {
            let settings = format!("context={n}");
            Problem::parse(op, PhaseName::Decode, &settings).unwrap()
        };
        let (short, long) = (at(100), at(100_000));
        assert_eq!((short.length(), long.length()), (100, 100_000));
        assert_eq!(short.layer(), long.layer());
        let grows = long.min_bytes() > short.min_bytes() && long.flops() > short.flops();
        assert_eq!(grows, op.side() == Side::Full, "{op}");
        if op.side() == Side::Linear {
            assert_eq!((short.flops(), short.min_bytes()), (long.flops(), long.min_bytes()));
        }
    }
}

/// Decode takes one new token, verify 2 to 16, and only the operator's phases can be named.
#[test]
fn phases_hold_their_number_of_new_tokens() {
    for op in Op::all() {
        let token = op.with_role(Role::Token).expect("a row of tokens").name;
        let of = |phase, n: usize| Problem::parse(op, phase, &format!("{token}={n}"));
        assert!(of(PhaseName::Decode, 1).is_ok());
        let why = of(PhaseName::Decode, 2).unwrap_err();
        assert!(why.contains(&format!("{token} = 2")) && why.contains("decode takes 1"), "{why}");
        assert!(of(PhaseName::Verify, 2).is_ok() && of(PhaseName::Verify, 16).is_ok());
        for n in [1, 17] {
            assert!(of(PhaseName::Verify, n).unwrap_err().contains("verify takes 2 to 16"));
        }
        assert!(of(PhaseName::Prefill, 17).is_ok());
        let why = Problem::parse(op, PhaseName::Prefill, "phase=training").unwrap_err();
        assert!(why.contains("phase=training") && why.contains("prefill, decode, verify"), "{why}");
    }
}

/// docs/sweeps.md has a row for each variable with the operators that have it, docs/exec.md one for
/// each tensor with its layout.
#[test]
fn tables_of_the_docs_equal_the_rows() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read_to_string(root.join("docs").join(name)).expect("a page");
    let sweeps = read("sweeps.md");
    for op in Op::all() {
        for v in op.variables() {
            let row = sweeps.lines().find(|l| {
                l.starts_with("| `")
                    && l.split('|').nth(1).is_some_and(|n| n.contains(&format!("`{}`", v.name)))
            });
            let row =
                row.unwrap_or_else(|| panic!("docs/sweeps.md: no row of {op}'s `{}`", v.name));
            let of = row.split('|').nth(2).unwrap_or_default();
            let with = Op::all().filter(|op| op.variable(v.name).is_some());
            let wanted: Vec<_> = with.map(|op| op.name()).collect();
            let all = wanted.len() == ALL.len();
            let named = |name: &&str| of.split(',').any(|x| x.trim() == *name);
            assert!(
                if all {
                    of.trim() == "all"
                } else {
                    wanted.iter().all(named) && of.split(',').count() == wanted.len()
                },
                "docs/sweeps.md: `{}` is of {wanted:?}, not of {of}",
                v.name
            );
        }
        let exec = read("exec.md");
        let section = exec.split(&format!("**{op}**")).nth(1);
        let section = section.unwrap_or_else(|| panic!("docs/exec.md: no section **{op}**"));
        let section = section.split("\n**").next().unwrap_or_default();
        let any = Problem::new(op, PhaseName::Prefill, DType::Bf16, &Given::new(), Needed::Small)
            .unwrap();
        for t in op.tensors(&any) {
            let layout = format!("`[{}]`", t.dims.replace(' ', ", "));
            let row = section.lines().find(|l| {
                l.split('|').nth(1).is_some_and(|n| n.contains(&format!("`{}`", t.name)))
            });
            let row = row.unwrap_or_else(|| panic!("docs/exec.md: no row of {op}'s `{}`", t.name));
            assert!(row.contains(&layout), "docs/exec.md: {op}'s `{}` is {layout}", t.name);
        }
    }
}

/// Every record under reports/ still reads, and its problem is written as it was.
#[test]
fn records_of_the_reports_still_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports");
    let mut read = 0;
    for folder in std::fs::read_dir(root).expect("reports").flatten() {
        let file = folder.path().join("records.jsonl");
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        for line in text.lines() {
            let json: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let record: crossover::record::Record =
                serde_json::from_str(line).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
            let again = serde_json::to_value(&record.problem).expect("JSON");
            assert_eq!(again, json["problem"], "{}", file.display());
            assert_eq!(serde_json::to_value(record.phase).unwrap(), json["phase"]);
            assert_eq!(record.phase, record.problem.phase());
            assert_eq!(record.problem.fault(), None);
            read += 1;
        }
    }
    assert!(read > 500, "{read} records");
}

/// Rust without its comments, line by line; strings stay.
fn code(text: &str) -> String {
    let all: Vec<char> = text.chars().collect();
    let (mut out, mut i) = (String::new(), 0);
    let at = |i: usize| all.get(i).copied().unwrap_or('\0');
    let until = |mut i: usize, end: char| {
        while i < all.len() && all[i] != end {
            i += if all[i] == '\\' { 2 } else { 1 };
        }
        i
    };
    while i < all.len() {
        let next = match (at(i), at(i + 1)) {
            ('/', '/') => {
                i += all[i..].iter().position(|c| *c == '\n').unwrap_or(all.len() - i);
                continue;
            }
            ('"', _) => until(i + 1, '"') + 1,
            // A character, not a lifetime.
            ('\'', '\\') => until(i + 1, '\'') + 1,
            ('\'', _) if at(i + 2) == '\'' => i + 3,
            _ => i + 1,
        };
        out.extend(&all[i..next.min(all.len())]);
        i = next;
    }
    out
}

#[test]
fn code_is_what_comments_leave() {
    let text =
        "let a = \"// kda\"; // kda\n/// kda\nlet b = '\"'; let c: &'static str = \"\\\"kda\"; //";
    assert_eq!(
        code(text),
        "let a = \"// kda\"; \n\nlet b = '\"'; let c: &'static str = \"\\\"kda\"; "
    );
}

/// An operator is one value in src/op: elsewhere in src no identifier and no string has its name.
#[test]
fn nobody_else_names_an_operator() {
    fn files(folder: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true if path.ends_with("src/op") => {}
                true => files(&path, found),
                false if path.extension().is_some_and(|e| e == "rs") => found.push(path),
                false => {}
            }
        }
    }
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    assert!(found.len() > 100, "{} files", found.len());
    // The name as in kernels, as types have it, and the class of its marks.
    let names: Vec<String> = Op::all()
        .flat_map(|op| [op.name().to_string(), op.name().replace('_', ""), op.face().class.into()])
        .collect();
    let mut named = Vec::new();
    for file in found {
        let text = std::fs::read_to_string(&file).expect("a source file");
        for (i, line) in code(&text).lines().enumerate() {
            let line = line.to_lowercase();
            if names.iter().any(|name| line.contains(name)) {
                named.push(format!("{}:{}: {}", file.display(), i + 1, line.trim()));
            }
        }
    }
    assert!(named.is_empty(), "outside src/op:\n{}", named.join("\n"));
}

/// What a record must say is not made up, and what it says must agree.
#[test]
fn records_of_problems_say_all_that_fixes_them() {
    let read = |json: &str| serde_json::from_str::<Problem>(json).map_err(|e| e.to_string());
    for p in problems() {
        let json = serde_json::to_value(&p).unwrap();
        for key in json.as_object().expect("an object").keys() {
            let mut less = json.clone();
            less.as_object_mut().expect("an object").shift_remove(key);
            let sparse = ["phase", "dv", "window", "softcap", "lens", "kv", "state"];
            let why = read(&less.to_string());
            if !sparse.contains(&key.as_str()) {
                assert!(why.unwrap_err().contains(&format!("missing field `{key}`")), "{less}");
            }
            let mut odd = json.clone();
            odd[key] = serde_json::json!([null]);
            assert!(read(&odd.to_string()).unwrap_err().contains(&format!("`{key}`")), "{odd}");
        }
        // A later version may know more.
        let mut more = json.clone();
        more["spin"] = "up".into();
        assert_eq!(read(&more.to_string()).as_ref(), Ok(&p));
    }
    // Packed steps, of which each has few new tokens and all together many.
    for settings in ["phase=decode,lens=1:40+1:90", "phase=verify,lens=4:40+16:90"] {
        let p = problem("attention", &format!("Hq=2,D=64,{settings}"));
        assert_eq!(read(&serde_json::to_string(&p).unwrap()).as_ref(), Ok(&p));
        assert_eq!(Problem::parse(p.op(), PhaseName::Prefill, &p.settings()).as_ref(), Ok(&p));
    }
    let wrong = serde_json::to_string(&problem("attention", "lens=4:40")).unwrap();
    let why = read(&wrong.replace("\"tq\":4", "\"tq\":5")).unwrap_err();
    assert!(why.contains("Tq = 5: packed sequences have 4 in all"), "{why}");
    let many = Problem::parse(op("attention"), PhaseName::Decode, "lens=5:100");
    assert!(many.unwrap_err().contains("Tq = 5: decode takes 1"));
    // Padding has no row that could be too many; without any row or key there is nothing to do.
    for (phase, lens) in [
        (PhaseName::Decode, "1:40+3x0+1:90"),
        (PhaseName::Decode, "0:7+1:40+1:0"),
        (PhaseName::Prefill, "0+30"),
        (PhaseName::Prefill, "5:0+0:5"),
    ] {
        let p = Problem::parse(op("attention"), phase, &format!("lens={lens},D=64")).unwrap();
        assert_eq!(read(&serde_json::to_string(&p).unwrap()).as_ref(), Ok(&p));
    }
    for (lens, none) in [("0", "tokens"), ("3x0", "tokens"), ("0:5+0", "queries"), ("5:0", "keys")]
    {
        let why = Problem::parse(op("attention"), PhaseName::Prefill, &format!("lens={lens}"));
        let why = why.unwrap_err();
        assert!(why.starts_with(&format!("lens={lens}: no sequence has {none}")), "{why}");
    }
}

/// A kernel that takes states alone, or 16-bit ones alone, is tried with them; one that takes nothing
/// says why.
#[test]
fn suites_find_what_a_kernel_takes() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let folder = tempfile::tempdir().expect("a folder");
    let kernels = folder.path().join("lightning");
    std::fs::create_dir(&kernels).expect("a folder");
    let stem = "lightning/decode.sm80";
    let template = std::fs::read_to_string(root.join(format!("{stem}.ptx"))).expect("a template");
    let manifest = std::fs::read_to_string(root.join(format!("{stem}.toml"))).expect("a manifest");
    std::fs::write(folder.path().join(format!("{stem}.ptx")), template).expect("a file");
    let suite = |manifest: &str| {
        std::fs::write(folder.path().join(format!("{stem}.toml")), manifest).expect("a file");
        let registry = crossover::kernel::Registry::from_dir(folder.path()).map_err(|e| e.0)?;
        let cases = crossover::verify::suite::cases(registry.get(stem).expect("the kernel"), 1);
        cases
            .map(|all| all.into_iter().map(|s| s.case.problem).collect::<Vec<_>>())
            .map_err(|e| e.0)
    };
    let supports = |expr: &str| {
        format!("{manifest}\n").replacen(
            "[[supports]]",
            &format!("[[supports]]\nexpr = \"{expr}\"\nwhy = \"because\"\n\n[[supports]]"),
            1,
        )
    };
    let states = suite(&supports("initial_state")).expect("a suite");
    assert!(states.len() > 60 && states.iter().all(|p| p.flag("initial_state")));
    let formats = "formats = { state = [\"fp32\", \"bf16\", \"fp16\"] }";
    assert!(manifest.contains(formats));
    let narrow =
        suite(&manifest.replace(formats, "formats = { state = [\"bf16\"] }")).expect("a suite");
    assert!(narrow.len() > 60 && narrow.iter().all(|p| p.format("state") == DType::Bf16));
    for (text, words) in [
        (supports("T > 100"), "has no case that it does: lightning/decode.sm80: because"),
        (manifest.replace(formats, "formats = { stat = [\"bf16\"] }"), "`stat` is no format"),
        (manifest.replace(formats, "formats = { K = [\"bf16\"] }"), "`K` is no format"),
        (manifest.replace(formats, "formats = { state = [\"fp8\"] }"), "unknown format `fp8`"),
        (manifest.replace(formats, "formats = { state = [] }"), "formats.state is empty"),
        (manifest.replace("\"fp16\"]\nformats", "\"e4m3\"]\nformats"), "e4m3 is no precision"),
        (
            manifest.replace("[\"decode\", \"verify\"]", "[\"decode\", \"decode\"]"),
            "phase `decode` twice",
        ),
        (manifest.replace("[\"decode\", \"verify\"]", "[]"), "no phase"),
    ] {
        let why = suite(&text).expect_err(words);
        assert!(why.contains(words), "{why}");
    }
}
