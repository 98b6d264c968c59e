//! The gated delta rule (GDN, Qwen3-Next): one decay a head and token, g `[B,T,HV]`. Maths and
//! reference are those of [`super::recurrence`].

use super::operator::{Face, Mark, Side};
use super::recurrence::{DeltaRule, Gate};

pub static OPERATOR: DeltaRule = DeltaRule {
    face: Face {
        name: "gated_delta_rule",
        summary: "gated delta rule: one decay a head and token",
        class: "gdn",
        // Okabe and Ito's blue.
        light: "#0b6cb0",
        dark: "#62b4f0",
        mark: Mark::Square,
        side: Side::Linear,
    },
    gate: Gate::Scalar,
};
