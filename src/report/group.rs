//! Sorts records into what may stand side by side: sections (one device, measured or modelled),
//! in them panels (one precision, batch and layer width), in them curves over T.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use crate::device::{Facts, Regime};
use crate::op::{DType, Family, PhaseName, Side};
use crate::record::{Record, Status, Timing};

use super::pairing::{Pairing, partners};
use super::setting::{Setting, family_of, length, settings};
use super::span::Span;

/// Where the times of a section come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Measured(Regime),
    Modelled,
}

impl Source {
    fn of(record: &Record) -> Option<Source> {
        record.timing.as_ref().map(|t| match t {
            Timing::Measured { regime, .. } => Source::Measured(*regime),
            Timing::Modelled(_) => Source::Modelled,
        })
    }

    /// Whether a GPU measured them.
    pub fn is_measured(self) -> bool {
        matches!(self, Source::Measured(_))
    }

    /// `measured` or `modelled`.
    pub fn word(self) -> &'static str {
        if self.is_measured() { "measured" } else { "modelled" }
    }
}

/// Records of one device and phase whose times come from one source.
pub struct Section<'a> {
    pub source: Source,
    pub phase: PhaseName,
    pub device: &'a Facts,
    /// Unique among the sections of a report, fit for a file name.
    pub slug: String,
    pub records: Vec<&'a Record>,
    pub panels: Vec<Panel<'a>>,
}

impl Section<'_> {
    /// `Measured on NVIDIA H200, cold L2`
    pub fn title(&self) -> String {
        let phase = match self.phase {
            PhaseName::Prefill => String::new(),
            phase => format!(", {phase}"),
        };
        match self.source {
            Source::Measured(regime) => {
                format!("Measured on {}, {} L2{phase}", self.device.name, regime_word(regime))
            }
            Source::Modelled => format!("Modelled for {}{phase}", self.device.name),
        }
    }

    /// What the length is called that curves run along: `T`, `context`.
    pub fn length(&self) -> &'static str {
        self.records.first().map_or("T", |r| r.problem.phase_row().length)
    }

    /// `measured on NVIDIA H200`, for the end of a sentence; the sweep before it, where it is named.
    pub fn provenance(&self, sweep: Option<&str>) -> String {
        let (name, how) = (&self.device.name, self.source.word());
        let text = match self.source {
            Source::Measured(Regime::Cold) => format!("{how} on {name}"),
            Source::Measured(regime) => format!("{how} on {name}, {} L2", regime_word(regime)),
            Source::Modelled => format!("{how} for {name}"),
        };
        let text = match self.phase {
            PhaseName::Prefill => text,
            phase => format!("{phase} {text}"),
        };
        sweep.map_or(text.clone(), |sweep| format!("sweep {sweep}; {text}"))
    }

    /// What the ranges of its times rest on: `the intervals`, `the model's error`.
    pub fn ranges(&self) -> &'static str {
        match self.source {
            Source::Measured(_) => "the intervals",
            Source::Modelled => "the model's error",
        }
    }

    /// A length in a sentence: `T = 512`, `a context of 512 tokens`.
    pub fn at(&self, t: usize) -> String {
        match self.length() {
            "T" => format!("T = {t}"),
            length => format!("a {length} of {t} tokens"),
        }
    }
}

/// `cold` or `hot`.
pub fn regime_word(regime: Regime) -> &'static str {
    match regime {
        Regime::Cold => "cold",
        Regime::Hot => "hot",
    }
}

/// Sections in order: measured before modelled, and as the records come.
pub fn sections(records: &[Record], pairing: Pairing) -> Vec<Section<'_>> {
    let several = records.iter().any(|r| r.sweep != records[0].sweep);
    let mut all: Vec<Section> = Vec::new();
    // Records with a time first: the others join the section that their device has.
    let timed = records.iter().filter(|r| r.timing.is_some());
    for r in timed.chain(records.iter().filter(|r| r.timing.is_none())) {
        let source = Source::of(r);
        let same = |s: &&mut Section| {
            // Several GPUs of one kind may have taken part in a run.
            (&s.device.name, s.device.emulated, s.phase)
                == (&r.device.name, r.device.emulated, r.phase)
                && source.is_none_or(|source| source == s.source)
        };
        if let Some(section) = all.iter_mut().find(same) {
            section.records.push(r);
            continue;
        }
        let default =
            if r.device.emulated { Source::Modelled } else { Source::Measured(Regime::Cold) };
        all.push(Section {
            source: source.unwrap_or(default),
            phase: r.phase,
            device: &r.device,
            slug: String::new(),
            records: vec![r],
            panels: vec![],
        });
    }
    all.sort_by_key(|s| !s.source.is_measured());
    let mut words: BTreeMap<&str, usize> = BTreeMap::new();
    for s in &mut all {
        let n = words.entry(s.source.word()).or_default();
        *n += 1;
        s.slug = match *n {
            1 => s.source.word().to_string(),
            n => format!("{}-{n}", s.source.word()),
        };
        let by_sweep = by_sweep(&s.records, pairing);
        for (sweep, records) in &by_sweep {
            s.panels.extend(panels(records, sweep.filter(|_| several), pairing));
        }
    }
    all
}

/// Settings that are one layer done in several ways: a fair comparison.
pub struct Panel<'a> {
    /// The sweep of all its records, where the report compares within sweeps.
    pub sweep: Option<&'a str>,
    pub dtype: DType,
    pub b: usize,
    pub settings: Vec<Setting>,
    pub curves: Vec<Curve<'a>>,
}

impl<'a> Panel<'a> {
    /// `bf16, B 1 · attention Hq 16, Hkv 4, D 128, causal · kda H 16, HV 16, K = V = 128`
    pub fn title(&self) -> String {
        let sweep = self.sweep.map_or(String::new(), |sweep| format!("{sweep}: "));
        format!("{sweep}{}, B {} · {}", self.dtype, self.b, self.heads().join(" · "))
    }

    /// Operators with their heads, one entry for those that share them.
    pub fn heads(&self) -> Vec<String> {
        let mut parts: Vec<(String, Vec<&str>)> = Vec::new();
        for s in &self.settings {
            let text = s.heads_text();
            match parts.iter_mut().find(|(t, _)| *t == text) {
                Some((_, ops)) => ops.push(s.op.name()),
                None => parts.push((text, vec![s.op.name()])),
            }
        }
        parts.into_iter().map(|(text, ops)| format!("{}: {text}", ops.join(", "))).collect()
    }

    /// Times of a setting, of the fastest of all kernels and tiles at each length.
    pub fn times(&self, setting: &Setting, family: &str) -> BTreeMap<usize, Span> {
        let mut times = BTreeMap::new();
        let of = |c: &&Curve<'a>| c.setting == *setting && c.family == family;
        for (t, span) in self.curves.iter().filter(of).flat_map(|c| &c.spans) {
            faster_of(&mut times, *t, *span);
        }
        times
    }

    /// Families of a setting, the usual one first.
    pub fn families(&self, setting: &Setting) -> Vec<&str> {
        let usual = Family::default().text_of(setting.op.parts());
        let of = self.curves.iter().filter(|c| c.setting == *setting);
        let mut all: Vec<&str> = of.map(|c| c.family.as_str()).collect();
        all.sort_by_key(|f| (*f != usual, *f));
        all.dedup();
        all
    }
}

/// One kernel on one setting with inputs of one family, over T.
pub struct Curve<'a> {
    pub setting: Setting,
    pub kernel: &'a str,
    pub family: String,
    /// The fastest tile at each length.
    pub best: BTreeMap<usize, &'a Record>,
    /// The time of the fastest tile at each length, as well as it is known.
    pub spans: BTreeMap<usize, Span>,
    /// Every record, of every tile, seed and status.
    pub all: Vec<&'a Record>,
}

impl Curve<'_> {
    /// Finds the fastest tile at each length. A tile that was run with several seeds is as fast as its
    /// middle one, and its range holds those of all: its best seed against another's is no comparison.
    fn race(&mut self) {
        let mut tiles: IndexMap<(usize, String), Vec<(&Record, Span)>> = IndexMap::new();
        for &r in self.all.iter().filter(|r| has_time(r)) {
            if let Some((span, _)) = Span::of(r) {
                let key = (length(r), format!("{:?} {:?}", r.kernel.tile, r.problem.lens()));
                tiles.entry(key).or_default().push((r, span));
            }
        }
        for ((t, _), mut seeds) in tiles {
            seeds.sort_by(|a, b| a.1.ns.total_cmp(&b.1.ns));
            keep_faster(&mut self.best, t, seeds[(seeds.len() - 1) / 2].0);
            if let Some(span) = Span::middle(seeds.into_iter().map(|s| s.1).collect()) {
                faster_of(&mut self.spans, t, span);
            }
        }
    }
}

fn faster_of(spans: &mut BTreeMap<usize, Span>, t: usize, span: Span) {
    spans.entry(t).and_modify(|s| *s = s.fastest(span)).or_insert(span);
}

fn keep_faster<'a>(best: &mut BTreeMap<usize, &'a Record>, t: usize, r: &'a Record) {
    let ns = |r: &Record| r.timing.as_ref().map_or(f64::INFINITY, Timing::ns);
    if best.get(&t).is_none_or(|old| ns(r) < ns(old)) {
        best.insert(t, r);
    }
}

/// Whether a record has a time that may be shown.
pub fn has_time(r: &Record) -> bool {
    r.status == Status::Ok && Span::of(r).is_some()
}

/// Records by sweep; where all are compared with all, as one without a name.
pub fn by_sweep<'a>(
    records: &[&'a Record],
    pairing: Pairing,
) -> BTreeMap<Option<&'a str>, Vec<&'a Record>> {
    let mut all: BTreeMap<Option<&str>, Vec<&Record>> = BTreeMap::new();
    for r in records {
        let sweep = (pairing == Pairing::Alike).then_some(r.sweep.as_str());
        all.entry(sweep).or_default().push(r);
    }
    all
}

fn panels<'a>(records: &[&'a Record], sweep: Option<&'a str>, pairing: Pairing) -> Vec<Panel<'a>> {
    let settings = settings(records);
    let full: Vec<_> = settings.iter().filter(|s| s.is(Side::Full)).collect();
    let linear: Vec<_> = settings.iter().filter(|s| s.is(Side::Linear)).collect();
    // Each full setting gathers the linear ones that would take its place.
    let mut groups: Vec<Vec<Setting>> = full.iter().map(|s| vec![(*s).clone()]).collect();
    for l in linear {
        let partners = partners(l, &full, pairing);
        for group in groups.iter_mut().filter(|g| partners.contains(&&g[0])) {
            group.push(l.clone());
        }
        if partners.is_empty() {
            let alike = |g: &&mut Vec<Setting>| {
                let s = &g[0];
                s.is(Side::Linear) && (s.dtype, s.b, s.out()) == (l.dtype, l.b, l.out())
            };
            match groups.iter_mut().find(alike) {
                Some(group) => group.push(l.clone()),
                None => groups.push(vec![l.clone()]),
            }
        }
    }
    groups.sort_by_key(|g| (g[0].dtype, g[0].b, g[0].width()));
    let panel = |settings: Vec<Setting>| Panel {
        sweep,
        dtype: settings[0].dtype,
        b: settings[0].b,
        curves: settings.iter().flat_map(|s| curves(s, records)).collect(),
        settings,
    };
    groups.into_iter().map(panel).collect()
}

fn curves<'a>(setting: &Setting, records: &[&'a Record]) -> Vec<Curve<'a>> {
    let mut all: Vec<Curve> = Vec::new();
    for &r in records.iter().filter(|r| Setting::of(&r.problem) == *setting) {
        let family = family_of(setting.op, &r.family);
        let same = |c: &&mut Curve| c.kernel == r.kernel.name && c.family == family;
        let curve = match all.iter_mut().position(|c| same(&c)) {
            Some(i) => &mut all[i],
            None => {
                let (best, spans) = (BTreeMap::new(), BTreeMap::new());
                let (setting, kernel) = (setting.clone(), r.kernel.name.as_str());
                all.push(Curve { setting, kernel, family, best, spans, all: vec![] });
                all.last_mut().expect("just pushed")
            }
        };
        curve.all.push(r);
    }
    all.iter_mut().for_each(Curve::race);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::examples;
    use crate::record::made_up::{self, Made, ops};

    /// The best seed of one against that of another is no comparison.
    #[test]
    fn seeds_are_pooled_and_not_raced() {
        let with = |op, seed, ns| Record { seed, ..Made::new(op, 1024, ns).record() };
        let (full, linear) = (examples::full(), examples::linear());
        let records = [
            with(full, 0, 100.0),
            with(full, 1, 101.0),
            with(linear, 0, 90.0),
            with(linear, 1, 280.0),
        ];
        let sections = sections(&records, Pairing::Alike);
        let span = |op| {
            let curve =
                sections[0].panels.iter().flat_map(|p| &p.curves).find(|c| c.setting.op == op);
            curve.expect("a curve").spans[&1024]
        };
        let (a, l) = (span(full), span(linear));
        assert!(a.low <= 100.0 && a.high >= 101.0);
        assert!(l.low <= 90.0 && l.high >= 280.0, "{l:?}");
        assert!(!l.is_below(&a) && !a.is_below(&l));
    }

    #[test]
    fn measured_and_modelled_never_share_a_section() {
        let mut records = made_up::sweep();
        records.push(Made { measured: false, ..Made::new(examples::other(), 512, 5e4) }.record());
        // A failure has no time: it stays with its own device.
        let mut failed =
            Made { measured: false, ..Made::new(examples::other(), 1024, 5e4) }.record();
        (failed.status, failed.timing) = (Status::Wrong, None);
        records.insert(0, failed);
        let sections = sections(&records, Pairing::Alike);
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[0].source, Source::Measured(Regime::Cold));
        assert_eq!(sections[1].source, Source::Modelled);
        assert_eq!(sections[1].records.len(), 2);
        for s in &sections {
            let of_device = |r: &&Record| r.device.emulated != s.source.is_measured();
            assert!(s.records.iter().all(of_device));
            let timed = s.panels.iter().flat_map(|p| &p.curves).flat_map(|c| c.best.values());
            assert!(timed.count() > 0);
        }
    }

    #[test]
    fn hot_and_cold_are_two_sections() {
        let mut records = vec![Made::new(examples::other(), 512, 5e4).record()];
        records.push(Made::new(examples::other(), 1024, 5e4).record());
        if let Some(Timing::Measured { regime, .. }) = &mut records[1].timing {
            *regime = Regime::Hot;
        }
        let sections = sections(&records, Pairing::Alike);
        assert_eq!(sections.len(), 2);
        assert_eq!(sections[1].title(), "Measured on NVIDIA H200, hot L2");
    }

    #[test]
    fn panels_pair_by_precision_batch_and_heads() {
        let mut records = Vec::new();
        for dtype in [DType::Bf16, DType::Fp16] {
            for (b, heads) in [(1, 16), (1, 32), (4, 16)] {
                for op in ops() {
                    let case = Made { dtype, b, heads, ..Made::new(op, 512, 1e4) };
                    records.push(case.record());
                }
            }
        }
        let sections = sections(&records, Pairing::Alike);
        let panels = &sections[0].panels;
        assert_eq!(panels.len(), 6);
        for p in panels {
            assert_eq!(p.settings.len(), 3, "{}", p.title());
            assert_eq!(p.curves.len(), 3);
            assert!(p.settings.iter().all(|s| s.out() == p.settings[0].out()));
        }
        let [full, linear, other] = ops();
        assert_eq!(
            panels[0].title(),
            format!(
                "bf16, B 1 · {full}: Hq 16, Hkv 4, D 128, causal · {linear}, {other}: H 16, HV 16, \
                 K = V = 128"
            )
        );
    }

    #[test]
    fn a_linear_operator_alone_has_a_panel_and_the_fastest_tile_is_taken() {
        let slow = Made::new(examples::linear(), 512, 2e4);
        let mut fast = Made { ns: 1e4, ..slow.clone() };
        fast.tile.insert("BV".into(), 32);
        let records = [slow.record(), fast.record()];
        let sections = sections(&records, Pairing::Alike);
        let panel = &sections[0].panels[0];
        let best = &panel.curves[0].best;
        assert_eq!(best[&512].timing.as_ref().unwrap().ns(), 1e4);
        let times = panel.times(&panel.settings[0], "gate=mid");
        assert_eq!((times[&512].ns, times[&512].high), (1e4, 1.01e4));
        assert_eq!(panel.curves[0].all.len(), 2);
    }
}
