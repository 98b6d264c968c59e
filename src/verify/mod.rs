//! Whether an output is right, and how far it is from fp64.
//!
//! The reference is computed in fp64 from the inputs as the kernel got them, already rounded.
//! E is the relative Frobenius error against it, F the same error of the reference rounded to
//! the precision of the problem, and E/F is what is held against a limit ([`limits`]). Beside
//! it no single element may be grossly off, and nothing may be NaN or infinite where the
//! reference is not. All comparisons are written so that NaN fails them.

mod agree;
mod error;
pub mod groups;
pub mod limits;
mod map;
mod subset;
pub mod suite;
pub mod trial;
pub mod workers;

use rayon::prelude::*;

pub use agree::{Agreement, agreement};
pub use subset::Subset;

use crate::device::Outcome;
use crate::op::{Crop, Family, Flow, Problem, Tensor, TensorSpec};
use crate::record::{OutputError, Share, Verification};

/// Reference operations that [`verify`] spends in callers with no budget of their own: a few
/// seconds on two cores.
pub const BUDGET_FLOPS: f64 = 2e10;

/// The fp64 results of a problem on given inputs, for a subset of its heads and rows.
pub struct Reference {
    problem: Problem,
    specs: Vec<TensorSpec>,
    subset: Subset,
    /// One a crop of the subset, each with its outputs.
    crops: Vec<(Crop, Vec<Vec<f64>>)>,
}

/// A verification with what a person wants to see of a wrong result.
#[derive(Debug, Clone)]
pub struct Verdict {
    pub verification: Verification,
    /// A text map of the bad tiles of each wrong output, by output name.
    pub maps: Vec<(String, String)>,
}

impl Reference {
    /// Computes the reference, heads (and blocks of rows) in parallel.
    ///
    /// # Panics
    /// If `inputs` are not the problem's.
    pub fn new(problem: &Problem, inputs: &[Tensor], subset: Subset) -> Reference {
        let crops = subset
            .crops(problem)
            .into_par_iter()
            .map(|crop| {
                let small = problem.crop_tensors(Flow::Input, inputs, &crop);
                let values = problem.crop(&crop).reference(&small);
                (crop, values)
            })
            .collect();
        let specs = problem.tensors_of(Flow::Output);
        Reference { problem: problem.clone(), specs, subset, crops }
    }

    /// Holds outputs, in the order of the problem's tensors, against the reference. `family` is
    /// what the inputs were drawn from; it chooses the limits.
    ///
    /// # Panics
    /// If `outputs` are not the problem's.
    pub fn hold(&self, family: &Family, outputs: &[Tensor]) -> Verdict {
        let limit = |output: &str| self.problem.op().limit(&self.problem, family, output);
        self.hold_where(limit, outputs, None)
    }

    /// As [`Reference::hold`], against that E/F in place of the operator's limits.
    ///
    /// # Panics
    /// As [`Reference::hold`].
    pub fn hold_to(&self, most: f64, outputs: &[Tensor]) -> Verdict {
        self.hold_where(|_| most, outputs, None)
    }

    /// As [`Reference::hold`], of the elements alone that have a 1 in `masks`, if there are any.
    fn hold_where(
        &self,
        limit: impl Fn(&str) -> f64,
        outputs: &[Tensor],
        masks: Option<&[Tensor]>,
    ) -> Verdict {
        let masks = masks.map(|masks| {
            let cut = |(crop, _): &(Crop, _)| self.problem.crop_tensors(Flow::Output, masks, crop);
            (masks, self.crops.par_iter().map(cut).collect::<Vec<_>>())
        });
        let cut: Vec<Vec<Tensor>> = self
            .crops
            .par_iter()
            .map(|(crop, _)| self.problem.crop_tensors(Flow::Output, outputs, crop))
            .collect();
        let mut verification = Verification {
            passed: true,
            outputs: Vec::new(),
            subset: self.subset.sentence.clone(),
            deterministic: None,
            damage: Vec::new(),
        };
        let mut maps = Vec::new();
        for (i, spec) in self.specs.iter().enumerate() {
            let parts: Vec<error::Part> = self
                .crops
                .iter()
                .zip(&cut)
                .enumerate()
                .map(|(k, ((crop, want), got))| {
                    let mask = masks.as_ref().map(|(_, cut)| &cut[k][i]);
                    error::Part { crop, want: &want[i], got: &got[i], mask }
                })
                .collect();
            let elements = parts.iter().map(error::Part::held).sum();
            let limit = limits::for_elements(limit(spec.name), elements);
            let (mut judged, map) = error::judge(&self.problem, spec, &parts, limit);
            if let Some((whole, _)) = &masks {
                if elements == 0 {
                    judged.first_bad =
                        Some("no executed CTA wrote an element of it: sample more CTAs".into());
                }
                judged.share = Some(shares(&whole[i], elements));
            }
            verification.passed &= output_passes(&judged);
            maps.extend(map.map(|map| (spec.name.to_string(), map)));
            verification.outputs.push(judged);
        }
        Verdict { verification, maps }
    }
}

/// Holds what a run computed against the fp64 reference, as much of it as the reference does in
/// `budget_flops`. Without sampled CTAs that is [`Subset::plan`]'s.
///
/// # Panics
/// If `inputs` or the outputs are not the problem's tensors.
pub fn hold_run(
    problem: &Problem,
    family: &Family,
    inputs: &[Tensor],
    run: &Outcome,
    budget_flops: f64,
) -> Verdict {
    let Some(computed) = &run.computed else {
        let subset = Subset::plan(problem, budget_flops);
        return Reference::new(problem, inputs, subset).hold(family, &run.outputs);
    };
    let masks = subset::masks(computed, &run.outputs);
    let subset = Subset::of_computed(problem, budget_flops, &masks);
    let reference = Reference::new(problem, inputs, subset);
    let limit = |output: &str| problem.op().limit(problem, family, output);
    reference.hold_where(limit, &run.outputs, Some(&masks))
}

/// Holds `outputs` against the fp64 reference over `subset` ([`Subset::plan`]).
///
/// # Panics
/// If `inputs` or `outputs` are not the problem's tensors.
pub fn verify(
    problem: &Problem,
    family: &Family,
    inputs: &[Tensor],
    outputs: &[Tensor],
    subset: Subset,
) -> Verification {
    Reference::new(problem, inputs, subset).hold(family, outputs).verification
}

/// The shares of an output's elements that have a 1 in the mask, and that were held.
fn shares(mask: &Tensor, held: usize) -> Share {
    let all = mask.len().max(1) as f64;
    let computed = mask.bytes.iter().filter(|b| **b == 1).count();
    Share { computed: computed as f64 / all, verified: held as f64 / all }
}

/// Whether one output is right: E/F in its limit, all finite that should be, no element grossly
/// off.
pub fn output_passes(o: &OutputError) -> bool {
    o.ratio() <= o.limit && o.nonfinite == 0 && o.first_bad.is_none()
}

/// Whether two runs left the same bits.
pub fn same_bits(a: &[Tensor], b: &[Tensor]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.bytes == b.bytes)
}

/// Adds what the runs themselves told: damaged canaries and changed inputs (both runs'), and
/// whether a second run was bit for bit equal. Either can fail the verification.
pub fn add_run_facts(
    v: &mut Verification,
    damage: impl IntoIterator<Item = String>,
    deterministic: Option<bool>,
) {
    v.damage.extend(damage);
    v.deterministic = deterministic;
    v.passed &= v.damage.is_empty() && deterministic != Some(false);
}

/// One indented line an output: error, ratio to the floor, limit, non-finite elements.
pub fn table(v: &Verification) -> String {
    let line = |o: &OutputError| {
        let share = o.share.map_or_else(String::new, |s| format!("; {s}"));
        format!(
            "  {}: E {:.3e}, E/F {:.3} (limit {}), {} non-finite{share}\n",
            o.name,
            o.error,
            o.ratio(),
            o.limit,
            o.nonfinite
        )
    };
    v.outputs.iter().map(line).collect()
}

/// Why a verification failed, in one line; `None` if it passed.
pub fn reason(v: &Verification) -> Option<String> {
    if v.passed {
        return None;
    }
    let mut why = Vec::new();
    for o in v.outputs.iter().filter(|o| !output_passes(o)) {
        why.push(output_reason(o));
    }
    why.extend(v.damage.iter().cloned());
    if v.deterministic == Some(false) {
        why.push("a second run gave other bits".to_string());
    }
    Some(why.join("; "))
}

/// What is wrong with one output, in one line.
pub fn output_reason(o: &OutputError) -> String {
    let mut text = format!("{}: E/F = {:.3} (limit {})", o.name, o.ratio(), o.limit);
    if o.nonfinite > 0 {
        text += &format!(", {} non-finite elements", o.nonfinite);
    }
    if let Some(bad) = &o.first_bad {
        text += &format!(", {bad}");
    }
    text
}

#[cfg(test)]
mod tests;
