//! The gated delta rule (GDN, Qwen3-Next): one decay a head and token, g `[B,T,HV]`. Maths and
//! reference are those of [`super::recurrence`].

use super::family::Part;
use super::operator::{Face, Mark, Operator, Phase, PhaseName, Side, Suite, Variable, Work};
use super::recurrence::{self, Gate};
use super::{Family, Problem, Tensor, TensorSpec};

/// The gated delta rule.
pub struct GatedDeltaRule;

const GATE: Gate = Gate::Scalar;

impl Operator for GatedDeltaRule {
    fn face(&self) -> Face {
        Face {
            name: "gated_delta_rule",
            summary: "gated delta rule: one decay a head and token",
            class: "gdn",
            // Okabe and Ito's blue.
            light: "#0b6cb0",
            dark: "#62b4f0",
            mark: Mark::Square,
            side: Side::Linear,
        }
    }

    fn variables(&self) -> &'static [Variable] {
        &recurrence::VARIABLES
    }

    fn phases(&self) -> &'static [Phase] {
        &recurrence::PHASES
    }

    fn parts(&self) -> &'static [Part] {
        recurrence::PARTS
    }

    fn tensors(&self, p: &Problem) -> Vec<TensorSpec> {
        recurrence::tensors(p, GATE)
    }

    fn work(&self, p: &Problem) -> Work {
        recurrence::work(p)
    }

    fn inputs(&self, p: &Problem, family: &Family, seed: u64) -> Vec<Tensor> {
        recurrence::inputs(p, GATE, family, seed)
    }

    fn reference(&self, p: &Problem, inputs: &[Tensor]) -> Vec<Vec<f64>> {
        recurrence::reference(p, GATE, inputs)
    }

    fn limit(&self, _: &Problem, family: &Family, _: &str) -> f64 {
        recurrence::limit(family)
    }

    fn has_prefix_property(&self, p: &Problem) -> bool {
        p.tokens() > 1
    }

    fn suite(&self, phase: PhaseName) -> Suite {
        recurrence::suite(phase)
    }

    fn layer(&self, p: &Problem) -> String {
        recurrence::heads(p)
    }

    fn doubt(&self, name: &str, tensor: &Tensor) -> Option<&'static str> {
        recurrence::doubt(name, tensor)
    }
}
