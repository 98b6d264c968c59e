//! What instructions need of `.target` and `.version`, as ptxas 13.0 refuses them.

use super::super::ptx::ast::{Instr, Operand};
use super::super::ptx::{PtxError, Result};

/// What a form needs at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Need {
    version: (u32, u32),
    target: u32,
    /// The target must be this very one, with its `a`.
    exact: bool,
}

const fn need(version: (u32, u32), target: u32) -> Need {
    Need { version, target, exact: false }
}

const HOPPER: Need = need((7, 8), 90);
const BULK: Need = need((8, 0), 90);
const HOPPER_ALONE: Need = Need { exact: true, ..BULK };
const AMPERE: Need = need((7, 0), 80);
const WIDE: Need = need((8, 3), 70);
const HINTS: Need = need((7, 4), 70);

/// By opcode and suffixes that must all be there; an opcode of "" stands for all. Every row that fits
/// counts.
const NEEDS: &[(&str, &[&str], Need)] = &[
    ("wgmma", &[], HOPPER_ALONE),
    ("setmaxnreg", &[], HOPPER_ALONE),
    ("cp", &["async"], AMPERE),
    ("cp", &["async", "bulk"], BULK),
    ("mbarrier", &[], AMPERE),
    ("mbarrier", &["test_wait", "parity"], need((7, 1), 80)),
    ("mbarrier", &["try_wait"], HOPPER),
    ("mbarrier", &["expect_tx"], BULK),
    ("mbarrier", &["complete_tx"], BULK),
    ("mbarrier", &["release"], need((8, 0), 80)),
    ("mbarrier", &["acquire"], need((8, 0), 80)),
    ("mbarrier", &["arrive", "relaxed"], need((8, 6), 90)),
    ("mbarrier", &["arrive_drop", "relaxed"], need((8, 6), 90)),
    ("mbarrier", &["test_wait", "relaxed"], need((8, 6), 90)),
    ("mbarrier", &["try_wait", "relaxed"], need((8, 6), 90)),
    ("elect", &[], BULK),
    ("stmatrix", &[], HOPPER),
    ("ldmatrix", &[], need((6, 5), 75)),
    ("movmatrix", &[], need((7, 8), 75)),
    ("mapa", &[], HOPPER),
    ("getctarank", &[], HOPPER),
    ("barrier", &["cluster"], HOPPER),
    ("barrier", &["cluster", "release"], BULK),
    ("barrier", &["cluster", "relaxed"], BULK),
    ("barrier", &["cluster", "acquire"], BULK),
    ("barrier", &["cta"], need((7, 8), 70)),
    ("griddepcontrol", &[], HOPPER),
    ("fence", &["proxy"], need((7, 5), 70)),
    ("fence", &["proxy", "async"], BULK),
    ("fence", &["proxy", "async::generic"], need((8, 6), 90)),
    ("fence", &["proxy", "tensormap::generic"], need((8, 3), 90)),
    ("tensormap", &["cp_fenceproxy"], need((8, 3), 90)),
    ("", &["b128"], WIDE),
    ("atom", &["b128"], need((8, 3), 90)),
    ("fence", &["mbarrier_init"], BULK),
    ("prefetch", &["tensormap"], BULK),
    ("prefetch", &["L2::evict_last"], HINTS),
    ("prefetch", &["L2::evict_normal"], HINTS),
    ("st", &["async"], need((8, 1), 90)),
    ("red", &["async"], need((8, 1), 90)),
    ("createpolicy", &[], need((7, 4), 80)),
    ("discard", &[], need((7, 4), 80)),
    ("applypriority", &[], need((7, 4), 80)),
    ("ld", &["mmio"], need((8, 2), 70)),
    ("st", &["mmio"], need((8, 2), 70)),
    ("ld", &["v8"], need((8, 8), 100)),
    ("st", &["v8"], need((8, 8), 100)),
    ("", &["L2::cache_hint"], need((7, 4), 80)),
    ("", &["L2::64B"], need((7, 4), 75)),
    ("", &["L2::128B"], need((7, 4), 75)),
    ("", &["L2::256B"], need((7, 4), 80)),
    ("", &["L1::no_allocate"], HINTS),
    ("", &["L1::evict_first"], HINTS),
    ("", &["L1::evict_last"], HINTS),
    ("", &["L1::evict_normal"], HINTS),
    ("", &["L1::evict_unchanged"], HINTS),
    ("isspacep", &["param"], need((7, 7), 70)),
    ("cvta", &["param"], need((7, 7), 70)),
    ("redux", &[], AMPERE),
    ("tanh", &[], need((7, 0), 75)),
    ("tanh", &["bf16"], HOPPER),
    ("tanh", &["bf16x2"], HOPPER),
    ("ex2", &["f16"], need((7, 0), 75)),
    ("ex2", &["f16x2"], need((7, 0), 75)),
    ("ex2", &["bf16"], HOPPER),
    ("ex2", &["bf16x2"], HOPPER),
    ("add", &["bf16"], HOPPER),
    ("add", &["bf16x2"], HOPPER),
    ("sub", &["bf16"], HOPPER),
    ("sub", &["bf16x2"], HOPPER),
    ("mul", &["bf16"], HOPPER),
    ("mul", &["bf16x2"], HOPPER),
    ("set", &["bf16"], HOPPER),
    ("set", &["bf16x2"], HOPPER),
    ("setp", &["bf16"], HOPPER),
    ("setp", &["bf16x2"], HOPPER),
    ("min", &["f16"], AMPERE),
    ("min", &["f16x2"], AMPERE),
    ("max", &["f16"], AMPERE),
    ("max", &["f16x2"], AMPERE),
    ("min", &["NaN"], AMPERE),
    ("max", &["NaN"], AMPERE),
    ("min", &["xorsign"], need((7, 2), 86)),
    ("max", &["xorsign"], need((7, 2), 86)),
    ("fma", &["relu"], AMPERE),
    ("fma", &["oob"], need((8, 1), 90)),
    ("cvt", &["relu"], AMPERE),
    ("cvt", &["rna", "satfinite"], need((8, 1), 80)),
    ("cvt", &["f16x2", "f32"], AMPERE),
    ("cvt", &["tf32", "rn"], HOPPER),
    ("cvt", &["tf32", "rz"], HOPPER),
    ("mma", &["e4m3"], need((8, 4), 89)),
    ("mma", &["e5m2"], need((8, 4), 89)),
    ("mma", &["m16n8k16"], AMPERE),
    ("mma", &["m16n8k32"], AMPERE),
    ("mma", &["m16n8k8"], need((6, 5), 75)),
    ("atom", &["bf16"], HOPPER),
    ("atom", &["bf16x2"], HOPPER),
    ("red", &["bf16"], HOPPER),
    ("red", &["bf16x2"], HOPPER),
    ("tensormap", &["replace"], Need { version: (8, 3), ..HOPPER_ALONE }),
    ("multimem", &[], need((8, 1), 90)),
    ("szext", &[], need((7, 6), 70)),
    ("bmsk", &[], need((7, 6), 70)),
    ("", &["bf16"], AMPERE),
    ("", &["bf16x2"], AMPERE),
    ("", &["tf32"], AMPERE),
    ("", &["cluster"], HOPPER),
];

/// By special register.
const REGISTERS: &[(&str, Need)] = &[
    ("%clusterid", HOPPER),
    ("%nclusterid", HOPPER),
    ("%cluster_", HOPPER),
    ("%is_explicit_cluster", HOPPER),
    ("%aggr_smem_size", need((8, 1), 90)),
];

/// What the text says it is for.
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    pub version: (u32, u32),
    pub target: &'a str,
}

impl Given<'_> {
    fn number(&self) -> u32 {
        let digits = self.target.trim_start_matches("sm_");
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        digits[..end].parse().unwrap_or(0)
    }

    fn check(&self, what: &str, n: Need, line: u32) -> Result<()> {
        let wanted = if n.exact { format!("sm_{}a", n.target) } else { format!("sm_{}", n.target) };
        let (major, minor) = self.version;
        let target_fits = if n.exact { self.target == wanted } else { self.number() >= n.target };
        let mut lacks = Vec::new();
        if !target_fits {
            let higher = if n.exact { "" } else { " or higher" };
            lacks.push((format!(".target {wanted}{higher}"), format!(".target {}", self.target)));
        }
        if self.version < n.version {
            let (a, b) = n.version;
            lacks.push((format!(".version {a}.{b} or later"), format!(".version {major}.{minor}")));
        }
        if lacks.is_empty() {
            return Ok(());
        }
        let (wants, says): (Vec<_>, Vec<_>) = lacks.into_iter().unzip();
        let message =
            format!("`{what}` needs {}; this PTX says {}", wants.join(" and "), says.join(" and "));
        Err(PtxError::new(line, message))
    }

    /// Refuses an instruction that is newer than the text says it is.
    ///
    /// # Errors
    /// The `.version` and `.target` that it needs, at its line.
    pub fn allows(&self, i: &Instr<'_>) -> Result<()> {
        let has = |m: &&str| i.mods.contains(m);
        let name = || {
            let mods: String = i.mods.iter().map(|m| format!(".{m}")).collect();
            format!("{}{mods}", i.opcode)
        };
        let check = |n: Need| self.check(&name(), n, i.line);
        for (opcode, mods, n) in NEEDS {
            if (opcode.is_empty() || *opcode == i.opcode) && mods.iter().all(has) {
                check(*n)?;
            }
        }
        for m in &i.mods {
            if m.ends_with("::cluster") {
                check(HOPPER)?;
            } else if m.ends_with("::cta") && (i.opcode != "cp" || has(&"bulk")) {
                check(need((7, 8), 30))?;
            }
        }
        match i.opcode {
            "cp" if has(&"bulk") => {
                let space = |s: &str| i.mods.iter().position(|m| *m == s);
                if let (Some(to), Some(from)) = (space("shared::cta"), space("global"))
                    && to < from
                {
                    check(need((8, 6), 90))?;
                }
            }
            // With a number of arrivals and a phase that may complete.
            "mbarrier" if i.mods[0].starts_with("arrive") && !has(&"noComplete") => {
                let state = !matches!(i.operands.first(), Some(Operand::Addr { .. }));
                if i.operands.len() > 1 + usize::from(state) {
                    check(HOPPER)?;
                }
            }
            "cvt" => {
                let float = |m: &&&str| matches!(**m, "bf16" | "bf16x2");
                let halves = i.mods.iter().filter(float).count();
                if halves == 2 || halves == 1 && !has(&"f32") {
                    check(HOPPER)?;
                } else if halves == 1 && i.mods.last().is_some_and(|m| *m == "bf16") {
                    check(need((7, 1), 80))?;
                }
                if i.mods.iter().any(|m| matches!(*m, "e4m3x2" | "e5m2x2")) {
                    // Ada has it since 8.1.
                    let ada = self.number() == 89;
                    check(if ada { need((8, 1), 89) } else { HOPPER })?;
                }
            }
            "atom" | "red" if has(&"v2") || has(&"v4") || has(&"v8") => check(need((8, 1), 90))?,
            "lop3" if i.mods.len() > 1 => check(need((8, 2), 70))?,
            "add" | "min" | "max" if has(&"u16x2") || has(&"s16x2") => check(BULK)?,
            "min" | "max" if has(&"relu") => check(BULK)?,
            _ => {}
        }
        Ok(())
    }

    /// Refuses a special register that is newer than the text says it is.
    ///
    /// # Errors
    /// As [`Given::allows`].
    pub fn allows_register(&self, name: &str, line: u32) -> Result<()> {
        match REGISTERS.iter().find(|(r, _)| name.starts_with(r)) {
            Some((_, n)) => self.check(name, *n, line),
            None => Ok(()),
        }
    }

    /// Refuses registers of 128 bits before there were any.
    ///
    /// # Errors
    /// As [`Given::allows`].
    pub fn allows_wide(&self, line: u32) -> Result<()> {
        self.check(".reg .b128", WIDE, line)
    }

    /// Refuses clusters before there were any, and targets newer than the version.
    ///
    /// # Errors
    /// As [`Given::allows`]: at the line `clusters`, or at line 1 for the target.
    pub fn allows_module(&self, clusters: Option<u32>) -> Result<()> {
        if let Some(line) = clusters {
            self.check(".reqnctapercluster", HOPPER, line)?;
        }
        let number = self.number();
        let since = match number {
            0..80 => (6, 0),
            80 => (7, 0),
            81..87 => (7, 1),
            87 => (7, 4),
            88..90 => (7, 8),
            90 if self.target.ends_with('a') => (8, 0),
            90 => (7, 8),
            _ => (8, 6),
        };
        if self.version < since {
            let ((a, b), (major, minor)) = (since, self.version);
            let message = format!(
                "`.target {}` needs .version {a}.{b} or later; this PTX says .version {major}.{minor}",
                self.target
            );
            return Err(PtxError::new(1, message));
        }
        Ok(())
    }
}
