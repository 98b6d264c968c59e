//! Instructions newer than the text says it is.

use super::super::decode::decode;
use super::super::ptx::parse;

/// A row an instruction: for each of [`TEXTS`], x where ptxas 13.0 wants a newer `.target` or
/// `.version`, and a point where it does not.
const REFUSALS: &str = include_str!("needs.txt");

const TEXTS: [(&str, &str); 11] = [
    ("sm_75", "6.5"),
    ("sm_80", "7.0"),
    ("sm_80", "7.4"),
    ("sm_86", "7.8"),
    ("sm_89", "8.1"),
    ("sm_90", "7.8"),
    ("sm_90", "8.0"),
    ("sm_90a", "8.0"),
    ("sm_90a", "8.4"),
    ("sm_90a", "8.6"),
    ("sm_90a", "9.0"),
];

fn refusal(target: &str, version: &str, body: &str) -> Option<String> {
    let text = format!(
        ".version {version}\n.target {target}\n.address_size 64\n\
         .extern .shared .align 1024 .b8 smem[];\n\
         .visible .entry k(.param .align 64 .b8 map[128]) .maxntid 256 .minnctapersm 1\n{{\n\
         .reg .b32 x, y, z, w, s; .reg .b64 p, q, st; .reg .pred p1, p2; .reg .b16 h, g;\n\
         .reg .f32 f, e, d<64>; .reg .f64 dd; .reg .b64 b; .reg .b32 a<4>, c<4>;\n\
         {body}\nret;\n}}\n"
    );
    let done = parse(&text).and_then(|m| decode(&m, &m.entries[0]).map(drop));
    done.err().map(|e| e.to_string())
}

#[test]
fn refusals_are_the_assemblers() {
    let mut wrong = Vec::new();
    for row in REFUSALS.lines() {
        let (marks, body) = row.split_once(' ').expect("marks and an instruction");
        assert_eq!(marks.len(), TEXTS.len(), "{row}");
        for (mark, (target, version)) in marks.chars().zip(TEXTS) {
            let got = refusal(target, version, body);
            let refused = got.as_ref().is_some_and(|e| e.contains("; this PTX says ."));
            if refused != (mark == 'x') {
                wrong.push(format!("{body} for {target} {version}: {got:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn refusals_say_what_is_wanted() {
    let says = |target, version, body, words: &str| {
        let e = refusal(target, version, body).expect("an error");
        assert!(e.ends_with(words), "{e}");
    };
    says(
        "sm_80",
        "7.0",
        "cp.async.bulk.commit_group;",
        "PTX line 9: `cp.async.bulk.commit_group` needs .target sm_90 or higher and .version 8.0 or \
         later; this PTX says .target sm_80 and .version 7.0",
    );
    says(
        "sm_90",
        "8.0",
        "wgmma.fence.sync.aligned;",
        "`wgmma.fence.sync.aligned` needs .target sm_90a; this PTX says .target sm_90",
    );
    says(
        "sm_80",
        "8.0",
        "mov.u32 x, %cluster_ctarank;",
        "`%cluster_ctarank` needs .target sm_90 or higher; this PTX says .target sm_80",
    );
    // A register may be called so.
    assert_eq!(refusal("sm_80", "8.0", ".reg .b32 %cluster_size; mov.u32 %cluster_size, 1;"), None);
    says(
        "sm_90a",
        "7.8",
        "ret;",
        "PTX line 1: `.target sm_90a` needs .version 8.0 or later; this PTX says .version 7.8",
    );
}
