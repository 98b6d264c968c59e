//! What a report says of modelled times: what they are, and how far they may be off.

use indexmap::IndexMap;

use super::format::{list, plural};
use super::group::{Section, has_time};
use super::span::{ASSUMED, Ground, Span};

/// What a modelled section begins with.
pub fn note(section: &Section) -> String {
    format!(
        "Modelled, not measured: the times of this section come from a simulation of one \
         multiprocessor and exact counts from the emulator, for the device described. Errors and \
         counts are exact. {}",
        errors(section)
    )
}

/// How far the times are from measured ones, by kernel and region.
pub fn errors(section: &Section) -> String {
    let mut known: IndexMap<String, String> = IndexMap::new();
    let mut assumed: IndexMap<&str, ()> = IndexMap::new();
    for r in section.records.iter().filter(|r| has_time(r)) {
        match Span::of(r) {
            Some((_, Some(Ground::Model(e)))) => {
                let text = format!(
                    "{:.2} to {:.2} times as long in {} ({})",
                    e.low,
                    e.high,
                    plural(e.cases, "case"),
                    e.region
                );
                known.entry(e.region).or_insert(text);
            }
            Some((_, Some(Ground::Assumed))) => {
                assumed.insert(&r.kernel.name, ());
            }
            _ => {}
        }
    }
    let mut parts = Vec::new();
    if !known.is_empty() {
        let known: Vec<_> = known.into_values().collect();
        parts.push(format!("Measured times were {}.", list(&known)));
    }
    if !assumed.is_empty() {
        let names: Vec<_> = assumed.into_keys().collect();
        parts.push(format!(
            "No measured record is at hand of {}: {:.2} to {:.2} times as long is assumed.",
            list(&names),
            1.0 / ASSUMED,
            ASSUMED
        ));
    }
    parts.join(" ")
}
