//! Kimi Delta Attention (KDA, Kimi Linear): one decay a head, token and key channel, g
//! `[B,T,HV,K]`. Maths and reference are those of [`super::recurrence`].

use super::family::Part;
use super::operator::{Face, Mark, Operator, Phase, PhaseName, Side, Suite, Variable, Work};
use super::recurrence::{self, Gate};
use super::{Family, Problem, Tensor, TensorSpec};

/// Kimi Delta Attention.
pub struct Kda;

const GATE: Gate = Gate::PerChannel;

impl Operator for Kda {
    fn face(&self) -> Face {
        Face {
            name: "kda",
            summary: "Kimi Delta Attention: one decay a head, token and key channel",
            class: "kda",
            // Okabe and Ito's green.
            light: "#00825a",
            dark: "#3fcf9f",
            mark: Mark::Triangle,
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
