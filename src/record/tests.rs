//! What files of records may look like, and what is read of them.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::file::FILE_NAME;
use super::*;

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn line(r: &Record) -> String {
    serde_json::to_string(r).unwrap()
}

fn reads(path: &Path, bytes: impl AsRef<[u8]>) -> Result<Records, String> {
    fs::write(path, bytes).unwrap();
    read(&[path]).map_err(|e| e.to_string())
}

#[test]
fn what_is_written_is_read() {
    let dir = folder();
    let path = dir.path().join("a/b/records.jsonl");
    let records: Vec<_> = made_up::sweep().into_iter().take(5).collect();
    for half in records.chunks(3) {
        let mut w = Writer::append(&path).unwrap();
        half.iter().for_each(|r| w.write(r).unwrap());
    }
    let got = read(&[&path]).unwrap();
    assert_eq!(got, Records { records: records.clone(), ..Records::default() });
    assert_eq!(read(&[dir.path().join("a/b")]).unwrap().records, records);
    // Named twice, read once.
    assert_eq!(read(&[dir.path().join("a/b"), path]).unwrap(), got);
}

/// Places of the numbers that a record has as fractions: all that the format calls `number`.
fn numbers(value: &Value, at: String, found: &mut Vec<String>) {
    match value {
        Value::Number(n) if n.is_f64() => found.push(at),
        Value::Array(all) => {
            all.iter().enumerate().for_each(|(i, v)| numbers(v, format!("{at}/{i}"), found));
        }
        Value::Object(all) => {
            all.iter().for_each(|(name, v)| numbers(v, format!("{at}/{name}"), found));
        }
        _ => {}
    }
}

/// A measured and a modelled record with everything that a record may have.
fn full() -> Vec<Record> {
    let mut all = vec![made_up::sweep().remove(0)];
    let op = crate::op::examples::linear();
    all.push(made_up::Made { measured: false, ..made_up::Made::new(op, 4096, 9e5) }.record());
    for record in &mut all {
        for output in &mut record.verification.as_mut().unwrap().outputs {
            output.share = Some(Share { computed: 0.5, verified: 0.25 });
            output.slope = Some(0.01);
        }
    }
    all
}

#[test]
fn null_is_nan_in_every_number_field() {
    let mut fields = std::collections::BTreeSet::new();
    for record in full() {
        let whole = serde_json::to_value(&record).unwrap();
        let mut found = Vec::new();
        numbers(&whole, String::new(), &mut found);
        for at in &found {
            let mut json = whole.clone();
            *json.pointer_mut(at).unwrap() = Value::Null;
            let back: Record =
                serde_json::from_str(&json.to_string()).unwrap_or_else(|e| panic!("{at}: {e}"));
            let again = serde_json::to_value(&back).unwrap();
            // Null where a field may be absent says that there is nothing to say.
            assert!(again.pointer(at).is_none_or(Value::is_null), "{at}");
            fields.insert(
                at.rsplit('/').find(|part| part.parse::<usize>().is_err()).unwrap().to_string(),
            );
        }
        // An integer is no number: null there is a fault with its place.
        let mut json = whole.clone();
        json["seed"] = Value::Null;
        let said = reads(&folder().path().join(FILE_NAME), json.to_string()).unwrap_err();
        assert!(said.contains("records.jsonl:1: not a record: invalid type: null"), "{said}");
    }
    for field in [
        "flops",
        "min_bytes",
        "median_ns",
        "ci_ns",
        "ns",
        "sm_mhz",
        "power_w",
        "load_ms",
        "memory",
        "bf16_tflops",
        "tf32_tflops",
        "memory_gbps",
        "error",
        "floor",
        "limit",
        "blocks",
        "slope",
        "max_ulp",
        "computed",
        "verified",
        "scale",
    ] {
        assert!(fields.contains(field), "no {field} in {fields:?}");
    }
}

#[test]
fn nonfinite_errors_survive() {
    let mut r = made_up::sweep().remove(0);
    let v = r.verification.as_mut().unwrap();
    v.outputs[0].error = f64::NAN;
    v.outputs[0].max_ulp = f64::INFINITY;
    v.outputs[0].blocks = vec![1.0, f64::NAN, 2.0];
    let back: Record = serde_json::from_str(&line(&r)).unwrap();
    let got = &back.verification.as_ref().unwrap().outputs[0];
    assert!(got.error.is_nan() && got.max_ulp.is_nan() && got.ratio().is_nan());
    assert!(got.blocks[1].is_nan());
    assert_eq!((got.blocks[0], got.blocks[2]), (1.0, 2.0));
}

/// Each kind of file that a reader meets: records by their number, what is said of the rest, or the
/// error. A writer that goes on after it leaves what was read as it was and adds its record.
#[test]
fn files_of_every_kind() {
    let dir = folder();
    let path = dir.path().join(FILE_NAME);
    let all = made_up::sweep();
    let (a, b, c) = (line(&all[0]), line(&all[1]), line(&all[2]));
    let half = &b[..b.len() / 2];
    let zeros = "\0".repeat(512);
    let many = "\0".repeat(200_000);
    let cut = |n: usize| format!("records.jsonl:{n} was cut short by an interrupted write");
    let zero = |n: usize, of: usize| format!("records.jsonl:{n} has {of} zero bytes");
    let with_accent = b.replacen("sample", "é", 1);
    let torn_letter = with_accent.find('é').unwrap() + 1;
    let mut later = all[0].clone();
    later.status = Status::Wrong;
    let older = |mut json: Value| {
        for key in ["binary_sha256", "sample_ctas"] {
            json.as_object_mut().unwrap().shift_remove(key);
        }
        json["kernel"].as_object_mut().unwrap().shift_remove("launch_sha256");
        json.to_string()
    };
    let table: Vec<(&str, Vec<u8>, usize, Vec<String>)> = vec![
        ("no byte", "".into(), 0, vec![]),
        ("blank lines", format!("\n\n{a}\n \t\n{b}\n\n").into(), 2, vec![]),
        ("Windows' line ends", format!("{a}\r\n{b}\r\n").into(), 2, vec![]),
        ("a byte order mark", format!("\u{feff}{a}\n{b}\n").into(), 2, vec![]),
        ("marks of two files", format!("\u{feff}{a}\n\u{feff}{b}\n").into(), 2, vec![]),
        ("no last line end", format!("{a}\n{b}").into(), 2, vec![]),
        ("files joined without one", format!("{a}{b}\n").into(), 2, vec![]),
        ("torn end", format!("{a}\n{half}").into(), 1, vec![cut(2)]),
        (
            "torn in a letter",
            [a.as_bytes(), b"\n", &with_accent.as_bytes()[..torn_letter]].concat(),
            1,
            vec![cut(2)],
        ),
        ("torn middle", format!("{a}\n{half}\n{c}\n").into(), 2, vec![cut(2)]),
        ("torn, Windows' line end", format!("{a}\r\n{half}\r\n{c}\r\n").into(), 2, vec![cut(2)]),
        ("a record behind a torn one", format!("{a}\n{half}{c}\n").into(), 2, vec![cut(2)]),
        ("zeros", zeros.clone().into(), 0, vec![zero(1, 512)]),
        ("zero tail", format!("{a}\n{b}\n{zeros}").into(), 2, vec![zero(3, 512)]),
        ("one zero", format!("{a}\n\0").into(), 1, vec![zero(2, 1)]),
        ("a long zero tail", format!("{a}\n{many}").into(), 1, vec![zero(2, 200_000)]),
        ("zeros for a line end", format!("{a}{zeros}").into(), 1, vec![zero(1, 512)]),
        ("torn and zeros", format!("{a}\n{half}{zeros}").into(), 1, vec![cut(2), zero(2, 512)]),
        (
            "zeros within",
            format!("{a}\n{half}{zeros}\n{c}\n").into(),
            2,
            vec![cut(2), zero(2, 512)],
        ),
        ("a record behind zeros", format!("{a}\n{zeros}{c}\n").into(), 2, vec![zero(2, 512)]),
        (
            "torn, zeros, a record",
            format!("{a}\n{half}{zeros}{c}").into(),
            2,
            vec![cut(2), zero(2, 512)],
        ),
        (
            "fields of a later version",
            a.replacen('{', r#"{"more_of_it":[{"x":null}],"#, 1).into(),
            1,
            vec![],
        ),
        (
            "a record of before hashes",
            older(serde_json::to_value(&all[0]).unwrap()).into(),
            1,
            vec![],
        ),
        ("one id twice", format!("{a}\n{b}\n{}\n", line(&later)).into(), 2, vec![]),
        (
            "a huge line",
            format!("{a}\n{}\n", b.replacen("precise", &"x".repeat(5 << 20), 1)).into(),
            2,
            vec![],
        ),
    ];
    for (kind, bytes, records, said) in table {
        let got = reads(&path, &bytes).unwrap_or_else(|e| panic!("{kind}: {e}"));
        let notes: Vec<String> = got.ignored.iter().map(ToString::to_string).collect();
        assert_eq!(got.records.len(), records, "{kind}: {notes:?}");
        assert_eq!(notes.len(), said.len(), "{kind}: {notes:?}");
        for (note, said) in notes.iter().zip(&said) {
            assert!(note.contains(said.as_str()), "{kind}: {note}, not {said}");
        }
        assert_eq!(fs::read(&path).unwrap(), bytes, "{kind}: reading changes nothing");

        Writer::append(&path).unwrap().write(&all[5]).unwrap();
        let after = read(&[&path]).unwrap_or_else(|e| panic!("{kind}, appended to: {e}"));
        let mut wanted = got.records;
        wanted.push(all[5].clone());
        assert_eq!(after.records, wanted, "{kind}, appended to");
        let kept = bytes.len() - bytes.iter().rev().take_while(|byte| **byte == 0).count();
        assert!(
            fs::read(&path).unwrap().starts_with(&bytes[..kept]),
            "{kind}: what was there stays"
        );
        assert!(
            !after.ignored.iter().any(|i| bytes.ends_with(b"\0") && i.zeros == Some(512)),
            "{kind}: {:?}",
            after.ignored
        );
    }
    assert_eq!(reads(&path, format!("{a}\n{b}\n{}\n", line(&later))).unwrap().records[0], later);
    assert_eq!(reads(&path, format!("{a}\n{a}\n{a}\n")).unwrap().superseded, 2);
}

#[test]
fn damage_is_named_by_file_and_line() {
    let dir = folder();
    let path = dir.path().join(FILE_NAME);
    let good = line(&made_up::sweep()[0]);
    let zero_within = good.replacen("sample", "sam\0\0ple", 1);
    let letter = [good.split("sample").next().unwrap().as_bytes(), b"\xff\""].concat();
    let letter = [&letter[..], good.split_once("sample\"").unwrap().1.as_bytes()].concat();
    let changed = |from: &str, to: &str| {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        bad.into_bytes()
    };
    let bad_lines: Vec<(Vec<u8>, &str)> = vec![
        ("not json".into(), "records.jsonl:2: not a record: expected"),
        ("[]".into(), "records.jsonl:2: not a record"),
        ("[".into(), "records.jsonl:2: not a record"),
        ("\"{\"".into(), "records.jsonl:2: not a record"),
        ("[".repeat(100_000).into(), "records.jsonl:2: not a record"),
        (r#"{"schema":1}"#.into(), "records.jsonl:2: not a record: missing field `id`"),
        (
            r#"{"level":"INFO","msg":"x"}"#.into(),
            "records.jsonl:2: not a record: missing field `schema`",
        ),
        (changed("\"seed\":1", "\"seed\":\"x\""), "invalid type: string \"x\""),
        (changed("\"seed\":1", "\"seed\":-1"), "records.jsonl:2: not a record: "),
        (changed("\"seed\":1", "\"seed\":1e400"), "records.jsonl:2: not a record: "),
        (changed("\"seed\":1", "\"seed\":NaN"), "records.jsonl:2: not a record: expected"),
        (
            changed("\"schema\":1", "\"schema\":2"),
            "schema 2: read it with the crossover that wrote it (0.1.0)",
        ),
        (changed("\"schema\":1", "\"schema\":0"), "records.jsonl:2: field `schema`: this"),
        (changed("\"schema\":1", "\"schema\":-1"), "records.jsonl:2: not a record"),
        (changed("prefill\",\"family", "decode\",\"family"), "field `phase`: decode"),
        (zero_within.into(), "records.jsonl:2: not a record: control character"),
        (letter, "records.jsonl:2: not a record: invalid unicode"),
        (format!("{good} x").into(), "trailing characters"),
        (format!("INFO {good}").into(), "records.jsonl:2: not a record: expected value (column "),
    ];
    for (bad, wanted) in bad_lines {
        let bytes = [good.as_bytes(), b"\n", &bad, b"\n", good.as_bytes(), b"\n"].concat();
        let said = reads(&path, &bytes).unwrap_err();
        assert!(said.contains(wanted), "{said}, not {wanted}");
        assert!(said.contains("records.jsonl:2: "), "{said}");
    }
    // The column is the line's, also behind what was cut short.
    let cut = &good[..40];
    let said =
        reads(&path, format!("{cut}{}", good.replacen("\"seed\":1", "\"seed\":x", 1))).unwrap_err();
    let at = 40 + good.find("\"seed\":1").unwrap() + 8;
    assert!(said.contains(&format!("(column {at})")), "{said}");

    let utf16: Vec<u8> = good.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let said = reads(&path, [&b"\xff\xfe"[..], &utf16].concat()).unwrap_err();
    assert!(said.contains("UTF-16") && said.contains("iconv"), "{said}");

    let said = read(&[dir.path().join("none.jsonl")]).unwrap_err().to_string();
    assert!(said.starts_with("cannot read ") && said.contains("none.jsonl"), "{said}");
    fs::remove_file(&path).unwrap();
    assert!(matches!(read(&[dir.path()]), Err(RecordError::Empty(_))));
    // A folder of a file's name is a folder.
    fs::create_dir(&path).unwrap();
    assert!(matches!(read(&[&path]), Err(RecordError::Empty(_))));
    let said = Writer::append(&path).unwrap_err().to_string();
    assert!(said.contains("records.jsonl: ") && said.contains("directory"), "{said}");
    #[cfg(unix)]
    {
        let said = read(&["/dev/zero"]).unwrap_err().to_string();
        assert!(said.contains("cannot read /dev/zero: it is a device"), "{said}");
    }
}

#[test]
fn a_line_is_torn_wherever_it_is_cut() {
    let all = made_up::sweep();
    let (first, torn, last) = (line(&all[0]), line(&all[1]), line(&all[2]));
    for at in 1..torn.len() {
        for behind in ["", "\0\0\0", "\r", "\n"] {
            let text = format!("{first}\n{}{behind}", &torn[..at]);
            let (records, ignored) = read::parse(Path::new("x"), text.as_bytes()).unwrap();
            assert_eq!((records.len(), ignored[0].zeros), (1, None), "cut at {at}");
            let text = format!("{text}{last}\n");
            let (records, _) = read::parse(Path::new("x"), text.as_bytes()).unwrap();
            assert_eq!(records[1..], all[2..3], "cut at {at}");
        }
    }
}

#[test]
fn of_several_records_of_an_id_the_newest_stays() {
    let dir = folder();
    let all = made_up::sweep();
    let at = |time: &str, status: Status| {
        let mut r = all[0].clone();
        (r.time, r.status) = (time.into(), status);
        r
    };
    let put = |name: &str, records: &[Record]| {
        let text: String = records.iter().map(|r| line(r) + "\n").collect();
        fs::write(dir.path().join(name), text).unwrap();
    };
    let early = at("2026-03-01T12:00:00.000Z", Status::Ok);
    let late = at("2026-03-01T13:00:00.5Z", Status::Timeout);
    // In one file the order decides, whatever a clock said.
    put("a.jsonl", &[late.clone(), all[1].clone(), early.clone()]);
    let got = read(&[dir.path()]).unwrap();
    assert_eq!((got.records, got.superseded), (vec![early.clone(), all[1].clone()], 1));
    // Of several files the time does, whatever the order of their names.
    put("a.jsonl", &[late.clone(), all[1].clone()]);
    put("b.jsonl", std::slice::from_ref(&early));
    let got = read(&[dir.path()]).unwrap();
    assert_eq!((got.records, got.superseded), (vec![late.clone(), all[1].clone()], 1));
    put("b.jsonl", &[at("some day", Status::Wrong)]);
    assert_eq!(read(&[dir.path()]).unwrap().records[0].status, Status::Wrong);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let dir = folder();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = Writer::append(&file.join(FILE_NAME)).unwrap_err().to_string();
    assert!(said.starts_with("cannot create the folder ") && said.contains("file"), "{said}");
}
