//! Tiles: one value for each tile axis of a manifest.

use std::fmt;
use std::str::FromStr;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Written `BM=128,BN=64,STAGES=2`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tile(pub IndexMap<String, i64>);

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<_> = self.0.iter().map(|(k, v)| format!("{k}={v}")).collect();
        f.write_str(&parts.join(","))
    }
}

impl FromStr for Tile {
    type Err = String;

    fn from_str(text: &str) -> Result<Tile, String> {
        let mut tile = IndexMap::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            let pair =
                part.split_once('=').and_then(|(k, v)| Some((k.trim(), v.trim().parse().ok()?)));
            let Some((axis, value)) = pair else {
                return Err(format!(
                    "`{part}` is no tile value: write AXIS=INTEGER, as in BM=128,BN=64"
                ));
            };
            if tile.insert(axis.to_string(), value).is_some() {
                return Err(format!("tile axis `{axis}` is given twice"));
            }
        }
        Ok(Tile(tile))
    }
}
