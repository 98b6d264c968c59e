//! Which linear settings are held against which full ones, and why the others are against none.

use crate::op::{PhaseName, Side};

use super::format::{list, plural};
use super::setting::Setting;

/// Which linear operators are held against which full ones. They always share the precision and the
/// batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pairing {
    /// Those of one sweep whose outputs are as wide: heads times head dimension.
    #[default]
    Alike,
    /// All, across sweeps: with full ones of the same output width where there are any, else with
    /// every one.
    All,
}

/// A property in which two settings must agree to be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Precision,
    Batch,
    OneLength,
    Packing,
    Step,
    Width,
}

impl Need {
    const ALL: [Need; 6] =
        [Need::Precision, Need::Batch, Need::OneLength, Need::Packing, Need::Step, Need::Width];

    fn met(self, a: &Setting, b: &Setting) -> bool {
        match self {
            Need::Precision => a.dtype == b.dtype,
            Need::Batch => a.b == b.b,
            Need::OneLength => a.layer().has_one_length() && b.layer().has_one_length(),
            Need::Packing => a.packed() == b.packed(),
            // A step is held against one of as many new tokens; packed sequences are no single step.
            Need::Step => {
                a.layer().phase() == PhaseName::Prefill
                    || a.layer().tokens() == b.layer().tokens() && a.packed().is_empty()
            }
            Need::Width => a.width() == b.width(),
        }
    }

    /// What a setting has there, for people.
    fn value(self, s: &Setting) -> String {
        let layer = s.layer();
        match self {
            Need::Precision => s.dtype.name().to_string(),
            Need::Batch => format!("B={}", s.b),
            Need::OneLength => s.lengths_text(),
            Need::Packing if s.packed().is_empty() => "sequences of one length".to_string(),
            Need::Packing => plural(s.packed().len(), "packed sequence"),
            Need::Step => format!("steps of {}", plural(layer.tokens(), "token")),
            Need::Width => {
                let (heads, channels) = s.out();
                format!("{} of {channels}", plural(heads, "head"))
            }
        }
    }
}

/// Full settings that a linear one is held against. Of those that are as wide, those with the very
/// heads where there are any; of those, the causal ones, as a linear operator is causal.
pub fn partners<'s>(linear: &Setting, full: &[&'s Setting], pairing: Pairing) -> Vec<&'s Setting> {
    let needs = Need::ALL.iter().filter(|n| pairing == Pairing::Alike || **n != Need::Width);
    let alike = |s: &&Setting| needs.clone().all(|n| n.met(s, linear));
    let mut found: Vec<_> = full.iter().copied().filter(alike).collect();
    let narrow = |found: &mut Vec<&Setting>, fits: &dyn Fn(&Setting) -> bool| {
        if found.iter().any(|s| fits(s)) {
            found.retain(|s| fits(s));
        }
    };
    narrow(&mut found, &|s| Need::Width.met(s, linear));
    narrow(&mut found, &|s| s.out() == linear.out());
    narrow(&mut found, &|s| s.op.is_causal(s.layer()));
    found
}

/// Settings that are held against nothing, for one reason.
struct Reason<'s> {
    need: Need,
    of: Vec<&'s Setting>,
    /// Settings of the other side that agree in all needs before.
    others: Vec<&'s Setting>,
}

/// What has nothing to be held against, and why, a clause and its setting for each reason: `kda with
/// 2 heads of 128 has nothing to be held against, as attention was run with 16 heads of 128`, `bf16,
/// B=1`. Nothing where one side is missing altogether.
pub fn unpaired(settings: &[Setting], pairing: Pairing) -> Vec<(String, String)> {
    let of = |side: Side| settings.iter().filter(|s| s.is(side)).collect::<Vec<_>>();
    let (full, linear) = (of(Side::Full), of(Side::Linear));
    let held = |l: &Setting, f: &Setting| partners(l, &full, pairing).contains(&f);
    let mut reasons: Vec<Reason> = Vec::new();
    for l in linear.iter().filter(|l| partners(l, &full, pairing).is_empty()) {
        if let Some((need, others)) = why(l, &full, pairing) {
            add(&mut reasons, need, l, others);
        }
    }
    let said = reasons.len();
    let mut rest = Vec::new();
    for f in full.iter().filter(|f| !linear.iter().any(|l| held(l, f))) {
        match why(f, &linear, pairing) {
            // Said from the other side already.
            Some((need, _))
                if reasons[..said].iter().any(|r| r.need == need && r.others.contains(f)) => {}
            Some((need, others)) => add(&mut reasons, need, f, others),
            None => rest.extend(closer(f, &linear, &full, pairing)),
        }
    }
    reasons.iter().map(Reason::text).chain(rest).collect()
}

/// The first need that no setting of the other side meets, and those that met all before; none where
/// one meets all.
fn why<'s>(
    one: &Setting,
    others: &[&'s Setting],
    pairing: Pairing,
) -> Option<(Need, Vec<&'s Setting>)> {
    let mut left = others.to_vec();
    for need in Need::ALL {
        if pairing == Pairing::All && need == Need::Width {
            continue;
        }
        let met: Vec<_> = left.iter().copied().filter(|s| need.met(one, s)).collect();
        if met.is_empty() {
            return (!left.is_empty()).then_some((need, left));
        }
        left = met;
    }
    None
}

/// Adds a setting to the reason that it shares, or a reason.
fn add<'s>(reasons: &mut Vec<Reason<'s>>, need: Need, one: &'s Setting, others: Vec<&'s Setting>) {
    let same = |r: &&mut Reason| {
        let first = r.of[0];
        let there = (need <= Need::Precision || first.dtype == one.dtype)
            && (need <= Need::Batch || first.b == one.b);
        r.need == need && first.op == one.op && there && r.others == others
    };
    match reasons.iter_mut().find(same) {
        Some(r) => r.of.push(one),
        None => reasons.push(Reason { need, of: vec![one], others }),
    }
}

/// Why a full setting that would do is left out: another one is closer to the linear one.
fn closer(
    one: &Setting,
    linear: &[&Setting],
    full: &[&Setting],
    pairing: Pairing,
) -> Option<(String, String)> {
    let would = |l: &&&Setting| why(one, &[**l], pairing).is_none();
    let l = linear.iter().find(would)?;
    let partner = *partners(l, full, pairing).first()?;
    let text = format!(
        "{} {} has nothing to be held against, as {} is held against {} {}",
        one.op,
        one.heads_text(),
        l.op,
        partner.op,
        partner.heads_text()
    );
    Some((text, format!("{}, B={}", one.dtype, one.b)))
}

impl Reason<'_> {
    fn text(&self) -> (String, String) {
        let need = self.need;
        let values = |all: &[&Setting]| {
            let mut values: Vec<_> = all.iter().map(|s| need.value(s)).collect();
            let mut seen = std::collections::HashSet::new();
            values.retain(|v| seen.insert(v.clone()));
            match values.len() {
                0..=4 => list(&values),
                n => format!("{} and {} others", values[..3].join(", "), n - 3),
            }
        };
        let mut ops: Vec<_> = self.others.iter().map(|s| s.op.name()).collect();
        ops.sort_unstable();
        ops.dedup();
        let were = if ops.len() == 1 { "was" } else { "were" };
        let (one, others) = (self.of[0], list(&ops));
        let name = one.op.name();
        let place = match need {
            Need::Precision => String::new(),
            Need::Batch => one.dtype.name().to_string(),
            _ => format!("{}, B={}", one.dtype, one.b),
        };
        let (mine, theirs) = (values(&self.of), values(&self.others));
        let text = match need {
            Need::OneLength if one.layer().has_one_length() => format!(
                "{name} has nothing to be held against, as {others} {were} run with {theirs}, which \
                 is no one length (a step of decode is phase = \"decode\")"
            ),
            _ => {
                let how = if need == Need::Precision { "in" } else { "with" };
                format!(
                    "{name} {how} {mine} has nothing to be held against, as {others} {were} run \
                     {how} {theirs}"
                )
            }
        };
        (text, place)
    }
}
