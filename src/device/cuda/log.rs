//! The assembler's log: what it says of lost performance, and errors placed in the template.

use crate::device::Ptx;

/// C75xx lines, warnings, and spills of more than 0 bytes, each with its entry if the log says.
pub(super) fn warnings(log: &str) -> Vec<String> {
    let mut entry = String::new();
    let mut found = Vec::new();
    for line in log.lines().map(str::trim) {
        if let Some(name) = entry_name(line) {
            entry = name.to_owned();
        }
        let lower = line.to_lowercase();
        let bad = line.contains("(C75") || lower.contains("warning") || spills(line);
        if bad {
            let text = line.split_once(':').filter(|(head, _)| is_level(head));
            let text = text.map_or(line, |(_, rest)| rest.trim());
            found.push(if entry.is_empty() || text.contains(&entry) {
                text.to_owned()
            } else {
                format!("{entry}: {text}")
            });
        }
    }
    found.dedup();
    found
}

/// `ptxas info    `, `info    `, `ptxas warning `: what stands before a message.
fn is_level(head: &str) -> bool {
    let words: Vec<&str> = head.split_whitespace().collect();
    matches!(words.as_slice(), ["ptxas", "info" | "warning" | "."] | ["info" | "warning" | "."])
}

/// The entry whose report this line opens.
fn entry_name(line: &str) -> Option<&str> {
    let rest = ["Compiling entry function", "Function properties for"]
        .iter()
        .find_map(|opening| line.split_once(opening))?
        .1
        .trim();
    let name = match rest.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next()?,
        None => rest.split([' ', ':']).next()?,
    };
    Some(name)
}

/// Whether a number before `bytes spill` or after `spill` in `N bytes spill stores` is not 0.
fn spills(line: &str) -> bool {
    let words: Vec<&str> = line.split([' ', ',']).filter(|w| !w.is_empty()).collect();
    words.windows(3).any(|w| {
        w[1] == "bytes" && w[2].starts_with("spill") && w[0].parse::<u64>().is_ok_and(|n| n > 0)
    })
}

/// The log's errors, with `line N` followed by the template's file and line and the PTX itself.
pub(super) fn explain(log: &str, ptx: &Ptx) -> String {
    let lines: Vec<&str> = ptx.text.lines().collect();
    let mut text = String::new();
    for message in log.lines().map(str::trim).filter(|l| !l.is_empty()) {
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(message);
        let number = message
            .split_once("line ")
            .and_then(|(_, rest)| rest.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|n| n.parse::<usize>().ok())
            .filter(|n| (1..=lines.len()).contains(n));
        if let Some(n) = number {
            let at = match ptx.origin.get(n - 1) {
                Some((file, line)) if *line > 0 => format!("{file}:{line}"),
                _ => format!("line {n}"),
            };
            text.push_str(&format!("\n    {at}: {}", lines[n - 1].trim()));
        }
    }
    text
}

/// `sm_90a` and the like, from the `.target` line.
pub(super) fn target(ptx: &str) -> Option<&str> {
    let line = ptx.lines().map(str::trim).find_map(|l| l.strip_prefix(".target"))?;
    line.split([',', ' ', '\t']).find(|w| !w.is_empty())
}

/// Why a device of this compute capability cannot run `.target target`, if it can't.
pub(super) fn misfit(target: &str, (major, minor): (u32, u32)) -> Option<String> {
    let digits: String =
        target.strip_prefix("sm_")?.chars().take_while(char::is_ascii_digit).collect();
    let wanted: u32 = digits.parse().ok()?;
    let suffix = &target["sm_".len() + digits.len()..];
    let have = major * 10 + minor;
    let fits = match suffix {
        "a" => have == wanted,
        "f" => have / 10 == wanted / 10 && have >= wanted,
        _ => have >= wanted,
    };
    (!fits).then(|| format!("it is for {target}, and this device is sm_{have}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    const CLEAN: &str = "\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'fwd' for 'sm_90'
ptxas info    : Function properties for fwd
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 400 bytes cmem[0]";

    #[test]
    fn a_clean_log_has_no_warnings() {
        assert!(warnings(CLEAN).is_empty());
    }

    #[test]
    fn spills_and_serialised_wgmma_are_warnings_of_their_entry() {
        let spilled = CLEAN.replace("0 bytes spill stores", "12 bytes spill stores");
        let found = warnings(&spilled);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("fwd: ") && found[0].contains("12 bytes spill stores"));
        let log = "info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored in 'fwd'";
        let expected = "(C7508) Potential Performance Loss: 'setmaxnreg' ignored in 'fwd'";
        assert_eq!(warnings(log), [expected]);
    }

    #[test]
    fn errors_are_placed_in_the_template() {
        let file: Arc<str> = Arc::from("op/prefill.sm80.ptx");
        let ptx = Ptx {
            kernel: "op/prefill.sm80".into(),
            text: ".version 7.0\n  mov.u32 %a, %b;\n".into(),
            origin: vec![(file.clone(), 1), (file, 42)],
            sha256: String::new(),
            macros: Default::default(),
        };
        let log = "ptxas application ptx input, line 2; error   : Unknown symbol '%b'\n";
        let text = explain(log, &ptx);
        assert!(text.contains("op/prefill.sm80.ptx:42: mov.u32 %a, %b;"), "{text}");
        assert!(text.contains("Unknown symbol"), "{text}");
        assert!(explain("line 99; error: x", &ptx).ends_with("x"));
    }

    #[test]
    fn targets_fit_devices() {
        assert_eq!(target("// x\n.version 8.0\n.target sm_90a, debug\n"), Some("sm_90a"));
        assert_eq!(misfit("sm_80", (9, 0)), None);
        assert_eq!(misfit("sm_90a", (9, 0)), None);
        assert!(misfit("sm_90a", (10, 0)).unwrap().contains("sm_90a"));
        assert!(misfit("sm_90", (8, 9)).is_some());
    }
}
