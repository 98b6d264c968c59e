use super::*;
use crate::device::Regime;
use crate::op::{DType, Side, examples};
use crate::record::made_up::{self, Made, law, ops};
use crate::record::{Energy, Status, Timing};

fn prose() -> Prose {
    Prose {
        name: "At which length does a linear operator overtake a full one?".into(),
        question: "From which T on is a linear operator faster than a full one, and what does \
                   it cost in traffic and accuracy?"
            .into(),
        analysis: "The full one's work grows with `T^2`, the linear one's with `T`.".into(),
    }
}

/// A sweep over precisions, batches and gates, with failures, and a part of it modelled.
fn rich() -> Vec<Record> {
    let mut all = Vec::new();
    for dtype in [DType::Bf16, DType::Fp16] {
        for (b, heads) in [(1, 16), (1, 32), (4, 32)] {
            let size = (b * heads) as f64 / 16.0;
            for t in (8..16).map(|e| 1usize << e) {
                for op in ops() {
                    let ns = law(op, t) * if op.side() == Side::Full { size } else { size.sqrt() };
                    let case = Made { dtype, b, heads, ..Made::new(op, t, ns) };
                    if op.side() == Side::Full {
                        for (bm, slow) in [(64, 1.15), (128, 1.0)] {
                            let mut tiled = Made { ns: ns * slow, ..case.clone() };
                            tiled.tile.insert("BM".into(), bm);
                            all.push(tiled.record());
                        }
                        continue;
                    }
                    for (family, slow) in
                        [("gate=strong", 1.0), ("gate=mid", 1.01), ("gate=slow", 1.4)]
                    {
                        let slow =
                            if op == examples::other() { slow } else { 1.0 + (slow - 1.0) / 40.0 };
                        all.push(Made { family, ns: ns * slow, ..case.clone() }.record());
                    }
                }
            }
        }
    }
    for t in (8..12).map(|e| 1usize << e) {
        for op in ops() {
            let ns = 0.8 * law(op, t);
            all.push(Made { measured: false, ..Made::new(op, t, ns) }.record());
        }
    }
    let n = all.len();
    for (i, status, reason) in [
        (3, Status::Wrong, "o: E/F 7.1 exceeds 4 at [0, 17, 3, 5]: got 0.5, wanted 0.25 <script>"),
        (9, Status::Timeout, "no end after 60 s"),
        (n - 1, Status::Skipped, "needs more memory than the device has"),
        (40, Status::LaunchFailed, "too many resources requested for launch"),
    ] {
        (all[i].status, all[i].reason, all[i].timing) = (status, Some(reason.into()), None);
    }
    all
}

#[test]
fn a_report_is_whole_and_its_links_hold() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("a/b");
    let records = rich();
    let summary = write(&records, &prose(), Pairing::Alike, &out).unwrap();
    let html = fs::read_to_string(&summary.index).unwrap();
    let md = fs::read_to_string(out.join("report.md")).unwrap();
    let svgs: Vec<_> =
        summary.files.iter().filter(|f| f.extension().is_some_and(|e| e == "svg")).collect();
    assert!(svgs.len() >= 3 && summary.files.iter().all(|f| f.is_file()));
    for svg in &svgs {
        let name = svg.file_name().unwrap().to_str().unwrap();
        assert!(md.contains(&format!("({name})")), "{name} is not linked");
        let text = fs::read_to_string(svg).unwrap();
        assert!(text.contains("prefers-color-scheme") && !text.contains("#E5"), "{name}");
        assert!(!text.contains("NaN") && !text.contains("inf,"), "{name}");
    }
    assert_eq!(html.matches("<svg").count(), svgs.len());
    // Self-contained, without scripts, and nothing of a record is taken for HTML.
    for outside in ["<script", "<link", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(html.contains("wanted 0.25 &lt;script&gt;"));
    // Every case is somewhere: timed in a row, failed in a row, skipped in a count.
    let timed = records.iter().filter(|r| r.status == Status::Ok).count();
    let page = Page::new(&records, &prose(), Pairing::Alike);
    let rows: usize = page.parts.iter().flat_map(|p| &p.results).map(|t| t.rows.len()).sum();
    assert_eq!(rows, timed);
    assert_eq!(page.parts[0].failures.as_ref().unwrap().rows.len(), 3);
    assert!(page.parts[1].skipped.is_some());
    assert!(summary.crossovers.iter().all(|s| s.contains("measured") || s.contains("modelled")));
    assert!(summary.crossovers.iter().any(|s| s.contains(" overtakes ") && s.contains(" at T ≈")));
    assert!(!summary.headlines.is_empty());
    for s in &summary.crossovers {
        assert!(html.contains(&html::escape(s.split(" (").next().unwrap())), "{s}");
    }
}

#[test]
fn measured_and_modelled_have_separate_parts() {
    let page = Page::new(&rich(), &prose(), Pairing::Alike);
    let words: Vec<_> = page.parts.iter().map(|p| p.word).collect();
    assert_eq!(words, ["measured", "modelled"]);
    assert!(page.parts[0].note.is_none() && page.parts[1].note.is_some());
    for part in &page.parts {
        let other = if part.word == "measured" { "modelled" } else { "measured " };
        assert!(part.sentences.iter().all(|s| !s.contains(other)), "{:?}", part.sentences);
        assert!(part.figures.iter().all(|f| f.slug.ends_with(part.word)));
    }
}

#[test]
fn the_word_modelled_belongs_to_times_which_state_their_error() {
    let page = Page::new(&rich(), &prose(), Pairing::Alike);
    let part = &page.parts[1];
    assert_eq!(part.word, "modelled");
    assert!(part.figures.len() >= 4);
    for f in &part.figures {
        let of_times = f.slug.starts_with("time-") || f.slug.starts_with("rate-");
        assert_eq!(f.title.contains("(modelled)"), of_times, "{}", f.title);
    }
    let error = |text: &str| text.contains(" times as long ");
    assert!(error(part.note.as_ref().unwrap()), "{:?}", part.note);
    let time = part.figures.iter().find(|f| f.slug.starts_with("time-")).unwrap();
    assert!(error(&time.caption), "{}", time.caption);
    assert!(part.facts.facts.iter().any(|(name, value)| name == "model error" && error(value)));
    for table in &part.results {
        assert_eq!(table.head[5..7], ["model error", "bound by"]);
        for row in &table.rows {
            assert_eq!(row.len(), table.head.len());
            assert!(row[5].text.contains('%') && row[6].text == "tensor", "{row:?}");
        }
    }
    assert!(page.parts[0].results.iter().all(|t| t.head[5] == "95% CI"));
    let crossed = part.sentences.iter().filter(|s| s.contains("overtakes"));
    assert!(crossed.clone().all(|s| s.contains("within the model's error")), "{crossed:#?}");
}

#[test]
fn one_length_has_no_chart_and_a_reason_is_told_once() {
    let mut records: Vec<Record> = ops().map(|op| Made::new(op, 512, law(op, 512)).record()).into();
    let bad = "[0, 3]: got 1, wanted 2";
    records[0].status = Status::Wrong;
    records[0].timing = None;
    records[0].reason = Some(format!("o: E/F 7 exceeds 4, first at {bad}"));
    let v = records[0].verification.as_mut().unwrap();
    v.outputs[0].first_bad = Some(bad.into());
    v.damage = vec!["a canary after o".into()];
    let page = Page::new(&records, &prose(), Pairing::Alike);
    let over_t = page.parts[0].figures.iter().filter(|f| !f.slug.starts_with("blocks"));
    assert_eq!(over_t.count(), 0);
    let failures = page.parts[0].failures.as_ref().unwrap();
    let reason = &failures.rows[0][5].text;
    assert_eq!(reason.matches(bad).count(), 1, "{reason}");
    assert!(reason.ends_with("; a canary after o"), "{reason}");
}

#[test]
fn more_than_the_limit_is_marked_and_warned_of_once() {
    let mut records = vec![Made::new(examples::full(), 8192, 1e3).record()];
    // As a run would have left it.
    let doubt = records[0].doubt().unwrap();
    if let Some(Timing::Measured { warnings, .. }) = &mut records[0].timing {
        *warnings = vec![doubt.clone()];
    }
    records.push(Made::new(examples::full(), 4096, 1e9).record());
    let page = Page::new(&records, &prose(), Pairing::Alike);
    let part = &page.parts[0];
    let told: Vec<_> = part.facts.warnings.iter().filter(|w| w.contains("cannot be")).collect();
    assert_eq!(told, [&format!("{doubt} (1 of 2 cases)")]);
    let marks: Vec<_> = part.results[0].rows.iter().map(|r| r[8].mood).collect();
    assert_eq!(marks, [table::Mood::Plain, table::Mood::Bad]);
    assert!(part.results[0].rows[1][8].text.ends_with("% (!)"));
}

/// Columns of energy are there where a record has some.
#[test]
fn energy_has_columns_where_it_was_measured() {
    let mut records: Vec<_> =
        [512, 1024].map(|t| Made::new(examples::full(), t, 1e5).record()).into();
    let table = |records: &[Record]| {
        Page::new(records, &prose(), Pairing::Alike).parts[0].results[0].clone()
    };
    assert!(!table(&records).head.iter().any(|h| h.contains("mJ")));
    records[0].energy = Some(Energy::Measured {
        joules: 0.032,
        net_joules: 0.016,
        watts: 320.0,
        power_watts: Some(321.0),
        idle_watts: 160.0,
        launches: 15_000.0,
        seconds: 1.5,
    });
    records[1].energy = Some(Energy::unavailable("the counter stands still"));
    let found = table(&records);
    assert_eq!(found.head[10..], ["mJ a launch", "less idle", "tokens/J"]);
    let text = |row: usize| found.rows[row][10..].iter().map(|c| &*c.text).collect::<Vec<_>>();
    assert_eq!(text(0), ["32.0", "16.0", "16000"]);
    assert_eq!(text(1), ["–"; 3]);
}

#[test]
fn peaks_are_rounded() {
    let mut records = vec![Made::new(examples::full(), 512, 1e5).record()];
    records[0].device.peak.bf16_tflops = 989.42976;
    let page = Page::new(&records, &prose(), Pairing::Alike);
    let peaks = page.parts[0].facts.facts.iter().find(|f| f.0 == "peak rates").unwrap();
    assert_eq!(peaks.1, "989.4 TFLOP/s bf16 and fp16, 494.5 TFLOP/s tf32, 4800 GB/s");
}

#[test]
fn odd_records_do_no_harm() {
    // Nothing timed; one length; no traffic, verification or samples; NaN errors.
    let mut bare = Made::new(examples::other(), 1, 1e3).record();
    (bare.verification, bare.traffic, bare.build) = (None, None, None);
    if let Some(Timing::Measured { samples, ci_ns, regime, .. }) = &mut bare.timing {
        samples.clear();
        (*ci_ns, *regime) = ((f64::NAN, f64::NAN), Regime::Hot);
    }
    let mut nan = Made::new(examples::full(), 64, 1e3).record();
    for o in &mut nan.verification.as_mut().unwrap().outputs {
        (o.error, o.nonfinite, o.blocks) = (f64::NAN, 5, vec![f64::NAN; 3]);
    }
    (nan.status, nan.timing, nan.device.peak) = (Status::Wrong, None, Default::default());
    for records in [vec![bare.clone()], vec![nan.clone()], vec![nan, bare]] {
        let dir = tempfile::tempdir().unwrap();
        let summary = write(&records, &Prose::default(), Pairing::Alike, dir.path()).unwrap();
        assert!(!summary.crossovers.is_empty() || !summary.unpaired.is_empty());
        let html = fs::read_to_string(&summary.index).unwrap();
        assert!(html.contains("<h1>sample</h1>"));
    }
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        write(&[], &Prose::default(), Pairing::Alike, dir.path()),
        Err(ReportError::NoRecords)
    ));
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let said = write(&made_up::sweep(), &prose(), Pairing::Alike, &file.join("x"))
        .unwrap_err()
        .to_string();
    assert!(said.starts_with("cannot write ") && said.contains("file/x"), "{said}");
}

/// Draws the sample into the folder that CROSSOVER_SAMPLE_REPORT names, to be looked at.
#[test]
#[ignore = "writes files to look at"]
fn draw_the_sample() {
    let out = std::env::var_os("CROSSOVER_SAMPLE_REPORT").expect("CROSSOVER_SAMPLE_REPORT=DIR");
    let out = Path::new(&out);
    write(&rich(), &prose(), Pairing::Alike, &out.join("rich")).unwrap();
    let summary = write(&made_up::sweep(), &prose(), Pairing::Alike, &out.join("small")).unwrap();
    println!("{summary:#?}");
}
