//! Every form of an instruction that the emulator says it knows, as an assembler accepts it.

use super::*;

/// One instruction a line, accepted by ptxas 13.0 for sm_90a.
const FORMS: &str = include_str!("forms.ptx");

#[test]
fn forms_are_known() {
    let mut unknown = Vec::new();
    for form in FORMS.lines() {
        let text = format!(
            ".version 9.0\n.target sm_90a\n.address_size 64\n\
             .extern .shared .align 1024 .b8 smem[];\n\
             .visible .entry k(.param .u64 map) .maxntid 256 .minnctapersm 1\n{{\n\
             .reg .b32 x, y, z, w, s; .reg .b64 p, q, st; .reg .pred never, p1, p2;\n\
             .reg .b16 h, g; .reg .f32 f, e, f0, f1; .reg .f64 d;\n\
             setp.ne.u32 never, 0, 0;\n@never bra $form; ret;\n$form:\n{form}\nret;\n}}\n"
        );
        if let Err(t) = run_raw(&text, "k", [1; 3], [32, 1, 1], 1024, &[RawArg::U64(0)]) {
            unknown.push(format!("{form}  {}", t.message.lines().next().unwrap_or("")));
        }
    }
    assert!(unknown.is_empty(), "{} forms:\n{}", unknown.len(), unknown.join("\n"));
}
