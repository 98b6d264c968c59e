//! How far the times modelled for a described device are from those measured on it: a table made by
//! `crossover model-check --errors`, which comes with the program.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

/// The tables that come with the program, by name of the description.
const KNOWN: [(&str, &str); 1] = [("h200", include_str!("../../../devices/h200-error.toml"))];

static TABLES: LazyLock<Vec<ErrorTable>> = LazyLock::new(|| {
    let read = |(model, text): &(&str, &str)| match ErrorTable::parse(text) {
        Ok(table) if table.model == *model => table,
        Ok(table) => panic!("the errors of {model} say that they are those of {}", table.model),
        Err(e) => panic!("the errors of {model}: {e}"),
    };
    KNOWN.iter().map(read).collect()
});

/// Stands for every kernel that was not measured.
pub const ANY: &str = "*";

/// Measured over modelled times, by kernel and modelled time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorTable {
    /// The description, such as `h200`.
    pub model: String,
    /// The narrow rows of a kernel before its wide one, and that of [`ANY`] last.
    pub error: Vec<ErrorRow>,
}

/// Measured over modelled times of cases that have something in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ErrorRow {
    pub kernel: String,
    /// What the kernel does: `prefill`, `decode`, ... Absent where it does not matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Bounds of the modelled time; the lower belongs to the region. Absent where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_us: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_us: Option<f64>,
    /// Bounds of measured over modelled time: of the middle nine tenths of the cases, or of all where
    /// they are fewer than 20.
    pub low: f64,
    pub high: f64,
    pub cases: usize,
}

impl ErrorRow {
    /// Whether a modelled time is in the region.
    fn holds(&self, us: f64) -> bool {
        self.from_us.is_none_or(|from| us >= from) && self.to_us.is_none_or(|to| us < to)
    }

    /// `attention/prefill.sm90a for decode, 30 us to 1 ms`, `any kernel`.
    pub fn region(&self) -> String {
        let kernel = match &self.phase {
            _ if self.kernel == ANY => "any kernel".to_owned(),
            // The name of a kernel has its first phase.
            Some(phase) if !self.kernel.contains(&format!("/{phase}.")) => {
                format!("{} for {phase}", self.kernel)
            }
            _ => self.kernel.clone(),
        };
        let time = |us: f64| match us {
            us if us >= 1000.0 => format!("{} ms", us / 1e3),
            us => format!("{us} us"),
        };
        match (self.from_us, self.to_us) {
            (None, None) => kernel,
            (None, Some(to)) => format!("{kernel}, below {}", time(to)),
            (Some(from), None) => format!("{kernel}, from {} on", time(from)),
            (Some(from), Some(to)) => format!("{kernel}, {} to {}", time(from), time(to)),
        }
    }
}

impl ErrorTable {
    /// The table of a description that comes with the program.
    pub fn of(model: &str) -> Option<&'static ErrorTable> {
        TABLES.iter().find(|table| table.model == model)
    }

    /// # Errors
    /// Text that is no table, or a row whose bounds make no sense.
    pub fn parse(text: &str) -> Result<ErrorTable, String> {
        let table: ErrorTable = toml::from_str(text).map_err(|e| e.to_string())?;
        for row in &table.error {
            let sound = row.low > 0.0 && row.low <= row.high && row.high.is_finite();
            if !(sound && row.cases > 0) {
                return Err(format!("low = {}, high = {} of {}", row.low, row.high, row.region()));
            }
        }
        Ok(table)
    }

    /// The row of the modelled time of a kernel in a phase: of its region, else of the kernel, else of
    /// any.
    pub fn row(&self, kernel: &str, phase: &str, ns: f64) -> Option<&ErrorRow> {
        let own = |r: &&ErrorRow| {
            r.kernel == kernel && r.phase.as_ref().is_none_or(|p| p == phase) && r.holds(ns / 1e3)
        };
        self.error.iter().find(own).or_else(|| self.error.iter().find(|r| r.kernel == ANY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_row_that_holds_is_taken() {
        let table = ErrorTable::parse(
            "model = \"x\"\n\
             [[error]]\nkernel = \"a\"\nto_us = 30.0\nlow = 0.9\nhigh = 1.0\ncases = 9\n\
             [[error]]\nkernel = \"a\"\nfrom_us = 30.0\nto_us = 1000.0\nlow = 1.0\nhigh = 1.1\ncases = 8\n\
             [[error]]\nkernel = \"a\"\nlow = 0.9\nhigh = 1.2\ncases = 20\n\
             [[error]]\nkernel = \"x/prefill.c\"\nphase = \"decode\"\nlow = 0.8\nhigh = 1.2\ncases = 9\n\
             [[error]]\nkernel = \"x/prefill.c\"\nphase = \"prefill\"\nlow = 0.7\nhigh = 1.2\ncases = 9\n\
             [[error]]\nkernel = \"*\"\nlow = 0.5\nhigh = 2.0\ncases = 40\n",
        )
        .unwrap();
        let row = |kernel, phase, us: f64| table.row(kernel, phase, us * 1e3).unwrap().region();
        let region = |kernel, us| row(kernel, "prefill", us);
        assert_eq!(region("a", 29.9), "a, below 30 us");
        assert_eq!(region("a", 30.0), "a, 30 us to 1 ms");
        assert_eq!(region("a", 1000.0), "a");
        assert_eq!(region("b", 1.0), "any kernel");
        assert_eq!(region("x/prefill.c", 1.0), "x/prefill.c");
        assert_eq!(row("x/prefill.c", "decode", 1.0), "x/prefill.c for decode");
        assert_eq!(row("x/prefill.c", "verify", 1.0), "any kernel");
    }

    #[test]
    fn tables_that_make_no_sense_are_refused() {
        let row = |low, high, cases| {
            format!(
                "model = \"x\"\n[[error]]\nkernel = \"a\"\nlow = {low}\nhigh = {high}\ncases = {cases}\n"
            )
        };
        assert!(ErrorTable::parse(&row("1.0", "1.0", 1)).is_ok());
        for (low, high, cases) in [
            ("0.0", "1.0", 1),
            ("1.1", "1.0", 1),
            ("nan", "1.0", 1),
            ("1.0", "inf", 1),
            ("1.0", "1.0", 0),
        ] {
            assert!(ErrorTable::parse(&row(low, high, cases)).is_err(), "{low} {high} {cases}");
        }
    }

    #[test]
    fn every_table_that_comes_with_the_program_reads() {
        for (model, _) in KNOWN {
            let table = ErrorTable::of(model).unwrap();
            let any = table.row("no/such.kernel", "prefill", 1e6).unwrap();
            // A kernel that nobody has measured is no better than the worst that was.
            assert!(table.error.iter().all(|r| any.low <= r.low && r.high <= any.high));
        }
        assert!(ErrorTable::of("laptop").is_none());
    }
}
