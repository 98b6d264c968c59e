//! Kimi Delta Attention (KDA, Kimi Linear): one decay a head, token and key channel, g
//! `[B,T,HV,K]`. Maths and reference are those of [`super::recurrence`].

use super::operator::{Face, Mark, Side};
use super::recurrence::{DeltaRule, Gate};

pub static OPERATOR: DeltaRule = DeltaRule {
    face: Face {
        name: "kda",
        summary: "Kimi Delta Attention: one decay a head, token and key channel",
        class: "kda",
        // Okabe and Ito's green.
        light: "#00825a",
        dark: "#3fcf9f",
        mark: Mark::Triangle,
        side: Side::Linear,
    },
    gate: Gate::PerChannel,
};
