//! Shards: the I-th of N disjoint parts of a plan.

use std::fmt;
use std::str::FromStr;

/// Written `I/N` with `I` in `0..N`, as array jobs count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

impl Shard {
    /// The only shard of one.
    pub const WHOLE: Shard = Shard { index: 0, count: 1 };

    /// Whether the case of that index belongs to it.
    pub fn has(self, index: usize) -> bool {
        index % self.count == self.index
    }

    pub fn is_whole(self) -> bool {
        self.count == 1
    }
}

impl FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts =
            text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match parts {
            Some((index, count)) if index < count => Ok(Shard { index, count }),
            Some((index, count)) => Err(format!(
                "shard {index} of {count}: shards count from 0, so the first of four is 0/4 and the last 3/4"
            )),
            None => Err(format!("`{text}` is no shard: write I/N, such as 0/4")),
        }
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}
