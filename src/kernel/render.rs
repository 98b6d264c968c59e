//! Renders a template for a problem and tile to PTX, and keeps each line's origin.

use std::borrow::Cow;
use std::sync::Arc;

use minijinja::value::Value;
use minijinja::{Error, ErrorKind};
use sha2::{Digest, Sha256};

use super::expr::{Context, Evaluator, environment, value};
use super::manifest::is_beyond_plain;
use super::{Kernel, KernelError, Tile, macros, pieces};
use crate::device::{Macros, Ptx};
use crate::op::{Default, Family, Problem, Role, Scalar, Tensor, Value as Given, Variable};

impl Kernel {
    fn fault(&self, field: &str, why: impl std::fmt::Display) -> KernelError {
        KernelError(format!("{}: {field}: {why}", self.manifest_path()))
    }

    /// Problem variables and `dtype`, as manifests name them.
    pub(super) fn problem_context(&self, problem: &Problem) -> Context {
        let mut context = Context::new();
        for (name, scalar) in problem.vars() {
            context.insert(name.to_string(), value(scalar));
        }
        context.insert("phase".into(), Value::from(problem.phase().name()));
        context.insert("dtype".into(), Value::from(problem.dtype().name()));
        context.insert("ESIZE".into(), Value::from(problem.dtype().bytes()));
        context
    }

    /// Refuses a problem that this kernel cannot do.
    ///
    /// # Errors
    /// It refuses the operator, phase, precision, a shape, a number format, or what a condition
    /// excludes; or the manifest names a variable that the operator lacks, or a condition of it
    /// fails.
    pub fn supports(&self, problem: &Problem) -> Result<(), KernelError> {
        let m = &self.manifest;
        if problem.op() != m.op {
            return Err(KernelError(format!(
                "{} computes {}, not {}",
                self.name,
                m.op,
                problem.op()
            )));
        }
        if !m.phases.contains(&problem.phase()) {
            let known: Vec<_> = m.phases.iter().map(|p| p.name()).collect();
            return Err(KernelError(format!(
                "{} does {}, not {}",
                self.name,
                known.join(" and "),
                problem.phase()
            )));
        }
        if !m.dtypes.contains(&problem.dtype()) {
            let known: Vec<_> = m.dtypes.iter().map(|d| d.name()).collect();
            return Err(KernelError(format!(
                "{} has no dtype {}: it has {}",
                self.name,
                problem.dtype(),
                known.join(", ")
            )));
        }
        let context = self.problem_context(problem);
        for (name, allowed) in &m.shapes {
            let got =
                context.get(name).and_then(|v| i64::try_from(v.clone()).ok()).ok_or_else(|| {
                    self.fault("shapes", format!("no integer variable `{name}` in {}", m.op))
                })?;
            if !allowed.contains(&got) {
                return Err(KernelError(format!(
                    "{} takes {name} of {allowed:?}, not {got}",
                    self.name
                )));
            }
        }
        for v in problem.op().variables_in(problem.phase()) {
            let given = problem.value(v.name);
            if matches!(v.role, Role::Format { .. }) && !self.takes(v.name, given) {
                let known = m
                    .formats
                    .get(v.name)
                    .map_or_else(|| "the usual one".into(), |all| all.join(", "));
                return Err(KernelError(format!(
                    "{} takes {} of {known}, not {given}",
                    self.name, v.name
                )));
            }
        }
        for v in problem.op().variables_in(problem.phase()) {
            if let Some(why) = self.not_asked_for(v, problem) {
                return Err(KernelError(why));
            }
        }
        let eval = Evaluator::default();
        for condition in &m.supports {
            if !eval.holds(&condition.expr, &context).map_err(|e| self.fault("supports", e))? {
                return Err(KernelError(format!("{}: {}", self.name, condition.why)));
            }
        }
        Ok(())
    }

    /// Why a problem that has an option beyond the operator's plain form is refused: the manifest does
    /// not name it. `None` for all others.
    fn not_asked_for(&self, v: &Variable, problem: &Problem) -> Option<String> {
        let op = problem.op();
        let given = problem.value(v.name);
        let is_on = match &v.default {
            Default::As(other) => given != problem.value(other),
            _ => *given != Given::None,
        };
        if !is_beyond_plain(op, v) || !is_on {
            return None;
        }
        // Packed lengths are known by flags and tensors that only packed problems have.
        let mut names = vec![v.name];
        if v.role == Role::Lengths {
            let plain = problem.pack(Vec::new());
            let flags = op.derived(&plain).into_iter();
            names.extend(flags.filter(|(_, x)| matches!(x, Scalar::Bool(_))).map(|(name, _)| name));
            let absent = plain.absent();
            names.extend(absent.into_iter().filter(|name| !problem.absent().contains(name)));
        }
        if names.iter().any(|name| self.manifest.names(name)) {
            return None;
        }
        Some(format!(
            "{} takes no {}: its manifest does not name it; a kernel that does lists it in `options`",
            self.name,
            match v.role {
                Role::Channel => format!("{} = {given}", v.name),
                _ => v.name.to_string(),
            }
        ))
    }

    /// Refuses inputs that the kernel would make a wrong result of without a word.
    ///
    /// # Errors
    /// A condition of the manifest excludes them; the message says why, and the measures that they
    /// have. Or a condition of it fails.
    pub fn admits(&self, problem: &Problem, inputs: &[Tensor]) -> Result<(), KernelError> {
        if self.manifest.inputs.is_empty() {
            return Ok(());
        }
        let mut context = self.problem_context(problem);
        let measures = problem.op().measures(problem, inputs);
        context.extend(measures.iter().map(|(name, x)| (name.to_string(), Value::from(*x))));
        let eval = Evaluator::default();
        for condition in &self.manifest.inputs {
            if !eval.holds(&condition.expr, &context).map_err(|e| self.fault("inputs", e))? {
                let named = measures.iter().filter(|(name, _)| condition.expr.contains(name));
                let has: Vec<_> = named.map(|(name, x)| format!("{name} = {x:.3e}")).collect();
                return Err(KernelError(format!(
                    "{}: {}; these inputs have {}",
                    self.name,
                    condition.why,
                    has.join(", ")
                )));
            }
        }
        Ok(())
    }

    /// As [`Kernel::admits`], of the inputs that a family draws. They are of usual size: only an
    /// unusual scale can make them too large.
    ///
    /// # Errors
    /// As of [`Kernel::admits`].
    pub fn admits_drawn(
        &self,
        problem: &Problem,
        family: &Family,
        seed: u64,
    ) -> Result<(), KernelError> {
        if self.manifest.inputs.is_empty() || problem.has_usual_scale() {
            return Ok(());
        }
        self.admits(problem, &problem.inputs(family, seed))
    }

    /// Whether the manifest takes that number format for a variable: one that it lists, or the usual
    /// one where it lists none or the problem names none.
    pub fn takes(&self, variable: &str, format: &Given) -> bool {
        let usual = self.manifest.op.variable(variable).is_some_and(|v| v.is_default(format));
        let listed = self.manifest.formats.get(variable);
        match (listed, format) {
            (Some(listed), Given::Word(word)) => listed.iter().any(|w| w == word),
            _ => usual,
        }
    }

    /// The template's constants: specialised variables in capitals as well as under their own
    /// name, `dtype`, `ESIZE` (bytes an element), `DT` (PTX's name of the operand type), the
    /// tile, and the manifest's constants.
    ///
    /// # Errors
    /// The manifest specialises a variable that the operator lacks, or a constant does not
    /// evaluate.
    pub(super) fn constants(&self, problem: &Problem, tile: &Tile) -> Result<Context, KernelError> {
        let all = self.problem_context(problem);
        let mut context = Context::new();
        context.insert("KERNEL".into(), Value::from(self.name.clone()));
        context.insert("dtype".into(), all["dtype"].clone());
        context.insert("ESIZE".into(), all["ESIZE"].clone());
        context.insert("DT".into(), Value::from(problem.dtype().format().ptx));
        for name in &self.manifest.specialise {
            let value = all.get(name).ok_or_else(|| {
                let known: Vec<_> = all.keys().map(String::as_str).collect();
                self.fault(
                    "specialise",
                    format!("no variable `{name}`: there are {}", known.join(", ")),
                )
            })?;
            context.insert(name.clone(), value.clone());
            context.insert(name.to_uppercase(), value.clone());
        }
        for (axis, x) in &tile.0 {
            context.insert(axis.clone(), Value::from(*x));
        }
        let eval = Evaluator::default();
        for (name, expr) in &self.manifest.constants {
            let x = eval
                .number(expr, &context)
                .map_err(|e| self.fault(&format!("constants.{name}"), e))?;
            context.insert(name.clone(), x);
        }
        Ok(context)
    }

    /// Refuses a tile that is not legal for the problem.
    ///
    /// # Errors
    /// An axis that is missing, unknown or has no such value, or a constraint that does not hold;
    /// or the manifest fails, as of [`Kernel::tiles`].
    pub fn check_tile(&self, problem: &Problem, tile: &Tile) -> Result<(), KernelError> {
        for (axis, values) in &self.manifest.tile {
            match tile.0.get(axis) {
                None => {
                    return Err(KernelError(format!(
                        "{}: tile axis `{axis}` is missing in {tile}",
                        self.name
                    )));
                }
                Some(x) if !values.contains(x) => {
                    return Err(KernelError(format!(
                        "{}: tile axis {axis} takes {values:?}, not {x}",
                        self.name
                    )));
                }
                Some(_) => {}
            }
        }
        if let Some(axis) = tile.0.keys().find(|a| !self.manifest.tile.contains_key(*a)) {
            let known: Vec<_> = self.manifest.tile.keys().map(String::as_str).collect();
            return Err(KernelError(format!(
                "{}: no tile axis `{axis}`: there are {}",
                self.name,
                known.join(", ")
            )));
        }
        let context = self.constants(problem, tile)?;
        let eval = Evaluator::default();
        for condition in &self.manifest.constraints {
            if !eval.holds(&condition.expr, &context).map_err(|e| self.fault("constraints", e))? {
                return Err(KernelError(format!("{}: tile {tile}: {}", self.name, condition.why)));
            }
        }
        Ok(())
    }

    /// Every legal tile for the problem, in the order of the manifest's axes.
    ///
    /// # Errors
    /// The manifest specialises a variable that the operator lacks, or a constant or constraint of
    /// it does not evaluate.
    pub fn tiles(&self, problem: &Problem) -> Result<Vec<Tile>, KernelError> {
        let mut tiles = vec![Tile::default()];
        for (axis, values) in &self.manifest.tile {
            let extend = |t: Tile| {
                values.iter().map(move |x| {
                    let mut t = t.clone();
                    t.0.insert(axis.clone(), *x);
                    t
                })
            };
            tiles = tiles.into_iter().flat_map(extend).collect();
        }
        let eval = Evaluator::default();
        let mut legal = Vec::new();
        'tiles: for tile in tiles {
            let context = self.constants(problem, &tile)?;
            for condition in &self.manifest.constraints {
                if !eval
                    .holds(&condition.expr, &context)
                    .map_err(|e| self.fault("constraints", e))?
                {
                    continue 'tiles;
                }
            }
            legal.push(tile);
        }
        Ok(legal)
    }

    /// The manifest's default tile for the problem.
    ///
    /// # Errors
    /// None of the manifest's defaults is for the problem, or the first that is is not legal.
    pub fn default_tile(&self, problem: &Problem) -> Result<Tile, KernelError> {
        if self.manifest.default.is_empty() {
            // Each axis has one value, or there is none.
            let only =
                |(axis, values): (&String, &Vec<i64>)| Some((axis.clone(), *values.first()?));
            let tile = Tile(self.manifest.tile.iter().filter_map(only).collect());
            self.check_tile(problem, &tile).map_err(|e| self.fault("tile", e))?;
            return Ok(tile);
        }
        let context = self.problem_context(problem);
        let eval = Evaluator::default();
        for default in &self.manifest.default {
            let holds = match &default.when {
                Some(when) => {
                    eval.holds(when, &context).map_err(|e| self.fault("default.when", e))?
                }
                None => true,
            };
            if holds {
                // Axes in the manifest's order, so that one tile has one spelling.
                let order = self.manifest.tile.keys();
                let mut tile: Tile =
                    Tile(order.filter_map(|a| Some((a.clone(), *default.tile.get(a)?))).collect());
                tile.0.extend(default.tile.iter().map(|(a, x)| (a.clone(), *x)));
                self.check_tile(problem, &tile).map_err(|e| self.fault("default", e))?;
                return Ok(tile);
            }
        }
        Err(self.fault("default", format!("none holds for {problem}")))
    }

    /// The PTX of one variant: the rendered template, or the file as it is where that is plain PTX.
    ///
    /// # Errors
    /// As of [`Kernel::supports`] and [`Kernel::check_tile`], the template fails, or the PTX lacks an
    /// entry of the manifest or has other parameters; the message says where.
    pub fn render(&self, problem: &Problem, tile: &Tile) -> Result<Ptx, KernelError> {
        self.supports(problem)?;
        self.check_tile(problem, tile)?;
        let path = self.template_path();
        if !self.is_template() {
            let ptx = self.verbatim(Arc::from(path));
            self.check_entries(&ptx, problem, tile)?;
            return Ok(ptx);
        }
        let context = self.constants(problem, tile)?;
        let mut env = environment();
        let sources = self.sources.clone();
        env.set_loader(move |name| {
            let guarded = sources.get(name).map(|text| pieces::guarded(text)).transpose();
            guarded.map_err(|why| Error::new(ErrorKind::SyntaxError, format!("{name}: {why}")))
        });
        let template = env.get_template(&path).map_err(|e| template_error(&path, &e))?;
        let (text, spans) = template
            .render_with_spans(Value::from_pairs(context.clone()))
            .map_err(|e| template_error(&path, &e))?;

        // Template line at each byte where a span starts; inside raw spans lines advance together.
        let names: Vec<Arc<str>> = spans.iter().map(|s| Arc::from(s.name())).collect();
        let mut origin = Vec::new();
        let mut lines = Vec::new();
        let (mut at, mut span) = (0, 0);
        for line in text.split_inclusive('\n') {
            // The first visible character says where the line comes from.
            let first = at + line.len() - line.trim_start().len();
            while span + 1 < spans.len() && spans[span].output_range().end <= first {
                span += 1;
            }
            let place = spans.get(span).map(|s| {
                let raw = s.kind() == minijinja::OutputSpanKind::Raw;
                let before = s.output_range().start.min(first);
                let down = if raw { text[before..first].matches('\n').count() } else { 0 };
                (names[span].clone(), (s.line() + down) as u32)
            });
            at += line.len();
            let line = line.trim_end();
            // Line statements and macro calls leave empty lines behind: keep one of a run.
            if line.is_empty() && lines.last().is_none_or(|l: &Cow<str>| l.is_empty()) {
                continue;
            }
            lines.push(pieces::bare(line));
            origin.push(place.unwrap_or_else(|| (Arc::from(path.as_str()), 0)));
        }
        let text = lines.join("\n") + "\n";
        let sha256 = hash(&text);
        let (sources, rendered) = (self.sources.clone(), sha256.clone());
        let macros = Macros::new(move || macros::within(&sources, &path, &context, &rendered));
        let ptx = Ptx { kernel: self.name.clone(), text, origin, sha256, macros };
        self.check_entries(&ptx, problem, tile)?;
        Ok(ptx)
    }

    /// The file as it is.
    fn verbatim(&self, path: Arc<str>) -> Ptx {
        let text = self.template().to_owned();
        let lines = 1..=text.lines().count() as u32;
        let origin = lines.map(|line| (path.clone(), line)).collect();
        let (kernel, sha256) = (self.name.clone(), hash(&text));
        Ptx { kernel, text, origin, sha256, macros: Macros::default() }
    }
}

/// SHA-256 in hex.
pub(super) fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

/// minijinja's error with the chain of templates it went through.
fn template_error(path: &str, error: &minijinja::Error) -> KernelError {
    let mut text = format!("{path}: {error}");
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text += &format!("; from {inner}");
        source = inner.source();
    }
    KernelError(text)
}
