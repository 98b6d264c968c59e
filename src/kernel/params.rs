//! Parameters of entries: what the PTX declares, held against what the manifest passes.

use super::expr::{Context, Evaluator};
use super::manifest::{Entry, Expr, Param, ParamKind};
use super::{Kernel, KernelError, Tile};
use crate::device::Ptx;
use crate::op::Problem;

/// Bytes of a tensor map, and what its address is a multiple of.
const MAP_BYTES: u64 = 128;
const MAP_ALIGN: u64 = 64;

/// An entry as the PTX declares it.
#[derive(Debug, PartialEq)]
struct Declared<'a> {
    name: &'a str,
    /// From 1.
    line: usize,
    params: Vec<DeclaredParam<'a>>,
}

/// A parameter as the PTX declares it.
#[derive(Debug, PartialEq)]
struct DeclaredParam<'a> {
    name: &'a str,
    /// Without the dot: `u64`.
    kind: &'a str,
    align: Option<u64>,
    /// Elements, if it is an array.
    elements: Option<u64>,
    line: usize,
}

impl Kernel {
    /// Refuses PTX whose entries are not those that the manifest launches: in number, type or name of
    /// their parameters.
    ///
    /// # Errors
    /// The first that differs, with its place in both files; or an expression of the manifest fails.
    pub(super) fn check_entries(
        &self,
        ptx: &Ptx,
        problem: &Problem,
        tile: &Tile,
    ) -> Result<(), KernelError> {
        let eval = Evaluator::default();
        let context = self.launch_context(problem, tile, 132, &eval)?;
        let code = code_of(&ptx.text);
        let declared = entries(&code);
        for entry in &self.manifest.entry {
            let fault = |why: String| {
                KernelError(format!("{}: entry {}: {why}", self.manifest_path(), entry.name))
            };
            if holds(entry.when.as_deref(), &eval, &context).map_err(fault)? {
                self.check_entry(entry, &declared, ptx, (&eval, &context)).map_err(fault)?;
            }
        }
        Ok(())
    }

    fn check_entry(
        &self,
        entry: &Entry,
        declared: &[Declared],
        ptx: &Ptx,
        (eval, context): (&Evaluator, &Context),
    ) -> Result<(), String> {
        let place = |line: usize| match ptx.origin.get(line - 1) {
            Some((file, at)) if *at > 0 => format!("{file}:{at}"),
            _ => format!("{}, PTX line {line}", self.template_path()),
        };
        let Some(found) = declared.iter().find(|d| d.name == entry.name) else {
            let known: Vec<_> = declared.iter().map(|d| d.name).collect();
            let known = if known.is_empty() { "none".into() } else { known.join(", ") };
            let path = self.template_path();
            return Err(format!("{path} has no .entry of that name: it has {known}"));
        };
        let mut passed = Vec::new();
        for param in &entry.params {
            let in_param = |e: String| format!("param {}: {e}", param.name);
            if holds(param.when.as_deref(), eval, context).map_err(in_param)? {
                passed.push(param);
            }
        }
        if passed.len() != found.params.len() {
            let names = |all: Vec<&str>| match all.is_empty() {
                true => String::new(),
                false => format!(" ({})", all.join(", ")),
            };
            return Err(format!(
                "{} parameters{}, but {} declares {}{}",
                passed.len(),
                names(passed.iter().map(|p| p.name.as_str()).collect()),
                place(found.line),
                found.params.len(),
                names(found.params.iter().map(|p| p.name).collect()),
            ));
        }
        for (i, (param, own)) in passed.iter().zip(&found.params).enumerate() {
            let says = || format!("{} declares `{}`", place(own.line), own.text());
            if let Some(wants) = misfit(&param.kind, own) {
                return Err(format!(
                    "parameter {} `{}` is {}, which wants {wants}, but {}",
                    i + 1,
                    param.name,
                    passes(&param.kind),
                    says()
                ));
            }
            let fits = passed.iter().filter(|p| misfit(&p.kind, own).is_none()).copied();
            if let Some(other) = stands_for(own.name, &entry.name, param, fits) {
                return Err(format!(
                    "parameter {} `{}` is {}, but {}, the name of `{other}`: parameters are passed \
                     by their place",
                    i + 1,
                    param.name,
                    passes(&param.kind),
                    says()
                ));
            }
        }
        Ok(())
    }
}

fn holds(when: Option<&str>, eval: &Evaluator, context: &Context) -> Result<bool, String> {
    when.map_or(Ok(true), |when| eval.holds(when, context))
}

impl DeclaredParam<'_> {
    fn text(&self) -> String {
        let align = self.align.map_or_else(String::new, |n| format!(".align {n} "));
        let array = self.elements.map_or_else(String::new, |n| format!("[{n}]"));
        format!(".param {align}.{} {}{array}", self.kind, self.name)
    }

    fn bytes(&self) -> u64 {
        let bits: u64 =
            self.kind.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(0);
        bits / 8 * self.elements.unwrap_or(1)
    }
}

/// What a parameter of the manifest is, for messages.
fn passes(kind: &ParamKind) -> String {
    let value = |kind: &str, e: &Expr| match e {
        Expr::Text(text) => format!("{kind} = \"{text}\""),
        Expr::Int(x) => format!("{kind} = {x}"),
        Expr::Float(x) => format!("{kind} = {x}"),
    };
    match kind {
        ParamKind::Buffer(name) => format!("buffer = \"{name}\""),
        ParamKind::U32(e) => value("u32", e),
        ParamKind::U64(e) => value("u64", e),
        ParamKind::F32(e) => value("f32", e),
        ParamKind::TensorMap(spec) => format!("a tensor_map of {}", spec.buffer),
    }
}

/// What the type would have to be, if it is another. An array of bytes of the same size, which
/// compilers make of structures, fits.
fn misfit(kind: &ParamKind, own: &DeclaredParam) -> Option<&'static str> {
    let (types, bytes, wants): (&[&str], u64, _) = match kind {
        ParamKind::Buffer(_) | ParamKind::U64(_) => (&["u64", "s64", "b64"], 8, ".u64"),
        ParamKind::U32(_) => (&["u32", "s32", "b32"], 4, ".u32"),
        ParamKind::F32(_) => (&["f32", "b32"], 4, ".f32"),
        ParamKind::TensorMap(_) => (&[], MAP_BYTES, ".align 64 .b8 [128]"),
    };
    let array = own.elements.is_some() && own.bytes() == bytes;
    let fits = match kind {
        ParamKind::TensorMap(_) => array && own.align.is_some_and(|n| n >= MAP_ALIGN),
        _ if own.elements.is_some() => array && matches!(own.kind, "b8" | "u8" | "s8"),
        _ => types.contains(&own.kind),
    };
    (!fits).then_some(wants)
}

/// Names under which a parameter's value is known: its own, its tensor's, its variable's.
fn names(param: &Param) -> impl Iterator<Item = &str> {
    let value = match &param.kind {
        ParamKind::Buffer(name) => Some(name.as_str()),
        ParamKind::TensorMap(spec) => Some(spec.buffer.as_str()),
        ParamKind::U32(e) | ParamKind::U64(e) | ParamKind::F32(e) => e.variable(),
    };
    std::iter::once(param.name.as_str()).chain(value)
}

/// The parameter among `all` that a name of the PTX stands for, if that is another than the one at
/// its place. Names are compared without the entry's name, `p_`, `_param` and the like around them;
/// one that is no parameter's, as `f_param_3` of compilers, says nothing.
fn stands_for<'m>(
    name: &str,
    entry: &str,
    own: &Param,
    all: impl Iterator<Item = &'m Param> + Clone,
) -> Option<&'m str> {
    const BEFORE: [&str; 7] = ["p_", "param_", "arg_", "ptr_", "in_", "out_", "_"];
    const BEHIND: [&str; 6] = ["_param", "_ptr", "_arg", "_addr", "_p", "_"];
    let mut forms = vec![name];
    let mut form = name;
    let own_entry = format!("{entry}_");
    loop {
        let before = std::iter::once(own_entry.as_str()).chain(BEFORE);
        let cut = before.filter_map(|b| form.strip_prefix(b)).next();
        let cut = cut.or_else(|| BEHIND.iter().filter_map(|b| form.strip_suffix(b)).next());
        match cut.filter(|cut| !cut.is_empty()) {
            Some(cut) => form = cut,
            None => break,
        }
        forms.push(form);
    }
    let exact = |a: &str, b: &str| a == b;
    let alike = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    for same in [exact as fn(&str, &str) -> bool, alike] {
        for form in &forms {
            if names(own).any(|n| same(n, form)) {
                return None;
            }
            if let Some(other) = all.clone().find(|p| names(p).any(|n| same(n, form))) {
                return Some(&other.name);
            }
        }
    }
    None
}

/// PTX with blanks in place of comments and strings, byte for byte.
fn code_of(ptx: &str) -> String {
    let mut code = String::with_capacity(ptx.len());
    let mut rest = ptx;
    while let Some(at) = rest.find(['/', '"']) {
        code.push_str(&rest[..at]);
        rest = &rest[at..];
        let whole = rest.len();
        let end = match rest {
            _ if rest.starts_with("//") => rest.find('\n').unwrap_or(whole),
            _ if rest.starts_with("/*") => rest[2..].find("*/").map_or(whole, |n| n + 4),
            _ if rest.starts_with('"') => rest[1..].find(['"', '\n']).map_or(whole, |n| n + 2),
            _ => 0,
        };
        let blank = |b: u8| if b == b'\n' { '\n' } else { ' ' };
        code.extend(rest.as_bytes()[..end.max(1)].iter().map(|b| blank(*b)));
        rest = &rest[end.max(1)..];
    }
    code + rest
}

/// The entries that some PTX without comments declares.
fn entries(code: &str) -> Vec<Declared<'_>> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_$%".contains(c);
    let line = |at: usize| 1 + code[..at].matches('\n').count();
    let at = |part: &str| part.as_ptr().addr() - code.as_ptr().addr();
    let mut all = Vec::new();
    for (start, word) in code.match_indices(".entry") {
        let rest = &code[start + word.len()..];
        if !rest.starts_with(char::is_whitespace) {
            continue;
        }
        let rest = rest.trim_start();
        let (name, rest) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
        let list = rest.trim_start().strip_prefix('(').and_then(|l| l.split_once(')'));
        let list = list.map_or("", |(list, _)| list).trim();
        let parts = list.split(',').filter(|_| !list.is_empty());
        let params = parts.map(|part| {
            let mut param =
                DeclaredParam { name: "", kind: "", align: None, elements: None, line: 0 };
            let mut rest = part;
            let mut before = "";
            while let Some(first) = rest.find(|c: char| !c.is_whitespace()) {
                rest = &rest[first..];
                let dot = usize::from(rest.starts_with('.'));
                let end = rest[dot..].find(|c| !is_name(c)).map_or(rest.len(), |n| n + dot);
                let word = &rest[..end.max(1)];
                match word {
                    ".param" | ".ptr" | ".global" | ".const" | ".shared" | ".local" | ".align"
                    | "[" | "]" => {}
                    _ if before == "[" => param.elements = word.parse().ok(),
                    // Behind a name is the alignment of what it points to.
                    _ if before == ".align" && !is_pointer(&part[..at(word) - at(part)]) => {
                        param.align = word.parse().ok();
                    }
                    _ if before == ".align" => {}
                    _ if dot == 1 => param.kind = &word[1..],
                    _ => (param.name, param.line) = (word, line(at(word))),
                }
                before = word;
                rest = &rest[word.len()..];
            }
            param
        });
        all.push(Declared { name, line: line(start), params: params.collect() });
    }
    all
}

/// Whether `.ptr` stands before.
fn is_pointer(before: &str) -> bool {
    before.contains(".ptr")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declarations_of_every_kind_are_read() {
        let text = "\
.visible .entry plain()
{ ret; }
// .entry no(.param .u32 x)
.visible.entry f$1( /* a, b */ .param .u64 q_param, // the queries
    .param.u32 Tq,
    .param .u64 .ptr .global .align 16 f$1_param_2,
    .param .align 64 .b8 tm[128], .param .f32 %scale
)
.maxntid 32
{ .file 1 \".entry g(\" }
.entry bare { ret; }
";
        let code = code_of(text);
        assert_eq!(code.len(), text.len());
        let all = entries(&code);
        let names: Vec<_> = all.iter().map(|d| (d.name, d.line, d.params.len())).collect();
        assert_eq!(names, [("plain", 1, 0), ("f$1", 4, 5), ("bare", 11, 0)]);
        let said: Vec<_> = all[1].params.iter().map(|p| (p.text(), p.line)).collect();
        let want = [
            (".param .u64 q_param", 4),
            (".param .u32 Tq", 5),
            (".param .u64 f$1_param_2", 6),
            (".param .align 64 .b8 tm[128]", 7),
            (".param .f32 %scale", 7),
        ];
        assert_eq!(said, want.map(|(text, line)| (text.to_string(), line)));
        assert_eq!(all[1].params[3].bytes(), 128);
    }

    #[test]
    fn names_are_compared_where_they_say_something() {
        let param = |name: &str, kind| Param { name: name.into(), kind, when: None };
        let buffer = |name: &str, of: &str| param(name, ParamKind::Buffer(of.into()));
        let u32 = |name: &str, e: &str| param(name, ParamKind::U32(Expr::Text(e.into())));
        let all = [buffer("q", "q"), buffer("keys", "k"), u32("Tq", "Tq"), u32("n", "2 * Tkv")];
        let stands = |name: &str, own: usize| stands_for(name, "f", &all[own], all.iter());
        for (name, own) in [
            ("q", 0),
            ("p_q", 0),
            ("q_param", 0),
            ("f_q_ptr", 0),
            ("Q", 0),
            ("f_param_1", 0),
            ("k", 1),
            ("keys", 1),
            ("x", 2),
            ("TQ", 2),
            ("n", 3),
            ("Tkv", 3),
        ] {
            assert_eq!(stands(name, own), None, "{name}");
        }
        assert_eq!(stands("p_k", 0), Some("keys"));
        assert_eq!(stands("keys_param", 0), Some("keys"));
        assert_eq!(stands("Tq_param", 3), Some("Tq"));
        assert_eq!(stands("f_q", 1), Some("q"));
    }
}
