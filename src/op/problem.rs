//! Problems: an operator in a phase at a precision, and a value for each of its rows. What holds
//! for every operator follows here from rows and roles.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::lens::{self, Sequence};
use super::operator::{Default, Fault, FaultKind, Phase, Role, Variable};
use super::value::{Scalar, Value};
use super::{DType, Family, Flow, Op, PhaseName, Tensor, TensorSpec, Work};

/// One problem: an operator in a phase, at a shape and precision. It fixes the result but for the
/// values of the inputs. Problems are ordered by operator, phase, precision and values.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    op: Op,
    phase: PhaseName,
    dtype: DType,
    /// One for each row of the operator; [`Value::None`] where the phase lacks the variable or the
    /// problem goes without it.
    values: Arc<[Value]>,
}

/// What is given of a problem: values by the names of variables, or of the phase's length.
pub type Given = IndexMap<&'static str, Value>;

/// What becomes of variables that are needed and not given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needed {
    /// They are small, as for a person at a prompt.
    Small,
    /// They are a fault that says how to give them.
    Given,
}

impl Op {
    /// The row of a variable of that name, whatever the phase.
    pub fn variable(self, name: &str) -> Option<&'static Variable> {
        self.variables().iter().find(|v| v.name == name)
    }

    /// The row of a phase, if the operator has it.
    pub fn phase(self, name: PhaseName) -> Option<&'static Phase> {
        self.phases().iter().find(|p| p.name == name)
    }

    /// The variables of a phase: all, but the context only where it is the phase's length.
    pub fn variables_in(self, phase: PhaseName) -> impl Iterator<Item = &'static Variable> {
        let has = move |v: &&Variable| {
            v.role != Role::Context
                || self.phase(phase).is_some_and(|p| p.lengths.contains(&v.name))
        };
        self.variables().iter().filter(has)
    }

    /// The name, if it may be given in that phase: that of a variable, or of the phase's length.
    pub fn giveable(self, phase: PhaseName, name: &str) -> Option<&'static str> {
        let row = self.variables_in(phase).find(|v| v.name == name).map(|v| v.name);
        row.or_else(|| self.phase(phase).map(|p| p.length).filter(|length| *length == name))
    }

    /// The variable with that role, the first if there are several.
    pub fn with_role(self, role: Role) -> Option<&'static Variable> {
        self.variables().iter().find(|v| v.role == role)
    }

    /// The role of a layout's letter: that of its variable, and `N` is sequences. `N+1` has none.
    pub fn role(self, letter: &str) -> Option<Role> {
        if letter == "N" {
            return Some(Role::Sequence);
        }
        self.variable(letter).map(|v| v.role)
    }

    /// Pairs of head counts: the name of the output's, and the row of the one that divides it.
    fn shared(self) -> impl Iterator<Item = (&'static str, &'static Variable)> {
        self.variables().iter().filter_map(|v| match v.role {
            Role::Shared { of } => Some((of, v)),
            _ => None,
        })
    }
}

impl Problem {
    /// The problem with the given values, and the defaults of phase and rows for the rest.
    ///
    /// # Errors
    /// The operator lacks the phase, something needed is missing, or values do not fit together.
    pub fn new(
        op: Op,
        phase: PhaseName,
        dtype: DType,
        given: &Given,
        needed: Needed,
    ) -> Result<Problem, Fault> {
        let Some(row) = op.phase(phase) else {
            let known: Vec<_> = op.phases().iter().map(|p| p.name.name()).collect();
            let text = format!("{op} has no {phase}, only {}", known.join(", "));
            return Err(Fault::wrong("phase", text));
        };
        let maker = Maker { op, phase: row, given, needed };
        maker.check_lengths()?;
        let rows = op.variables().iter();
        let values = rows.map(|v| maker.value(v)).collect::<Result<_, _>>()?;
        let problem = Problem { op, phase, dtype, values };
        problem.fault().map_or(Ok(problem), Err)
    }

    /// One sequence, one head, all flags off; key and value dimension `dims`, that length.
    ///
    /// # Panics
    /// The operator lacks the phase, or does not take such dimensions.
    pub fn plain(
        op: Op,
        phase: PhaseName,
        dtype: DType,
        dims: (usize, usize),
        length: usize,
    ) -> Problem {
        let mut given = Given::new();
        for v in op.variables_in(phase) {
            match (v.role, v.kind) {
                (Role::Key, _) => given.insert(v.name, dims.0.into()),
                (Role::Channel, _) => given.insert(v.name, dims.1.into()),
                (_, super::Kind::Flag) => given.insert(v.name, false.into()),
                _ => None,
            };
        }
        if let Some(row) = op.phase(phase) {
            given.insert(row.length, length.into());
        }
        Problem::new(op, phase, dtype, &given, Needed::Small).unwrap_or_else(|e| panic!("{e}"))
    }

    /// The operator.
    pub fn op(&self) -> Op {
        self.op
    }

    /// The phase.
    pub fn phase(&self) -> PhaseName {
        self.phase
    }

    /// The row of the problem's phase.
    pub fn phase_row(&self) -> &'static Phase {
        self.op.phase(self.phase).expect("a problem's operator has its phase")
    }

    /// The precision of the operands of the matrix products.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same in another precision.
    pub fn with_dtype(&self, dtype: DType) -> Problem {
        Problem { dtype, ..self.clone() }
    }

    /// The value of a variable; none where the operator lacks it or the problem goes without.
    pub fn value(&self, name: &str) -> &Value {
        let at = self.op.variables().iter().position(|v| v.name == name);
        at.map_or(&Value::None, |i| &self.values[i])
    }

    /// The value of a count; 0 where there is none.
    pub fn count(&self, name: &str) -> usize {
        self.get(name).unwrap_or(0)
    }

    /// The value of a count, if there is one.
    pub fn get(&self, name: &str) -> Option<usize> {
        match self.value(name) {
            Value::Count(n) => Some(*n),
            _ => None,
        }
    }

    /// Whether a flag is on; false where there is none.
    pub fn flag(&self, name: &str) -> bool {
        *self.value(name) == Value::Flag(true)
    }

    /// The value of a number, if there is one.
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.value(name) {
            Value::Number(x) => Some(*x),
            _ => None,
        }
    }

    /// The number format that a variable names; the problem's precision where it names none.
    pub fn format(&self, name: &str) -> DType {
        match self.value(name) {
            Value::Word(word) => DType::parse(word).unwrap_or(self.dtype),
            _ => self.dtype,
        }
    }

    /// The same with another value of one variable. No other variable follows, not even one whose
    /// default it is; [`Problem::pack`] sets all that packed lengths decide.
    ///
    /// # Panics
    /// The operator has no such variable.
    pub fn with(&self, name: &str, value: impl Into<Value>) -> Problem {
        let at = self.op.variables().iter().position(|v| v.name == name);
        let at = at.unwrap_or_else(|| panic!("{} has no variable {name}", self.op));
        let mut values = self.values.to_vec();
        values[at] = value.into();
        Problem { values: values.into(), ..self.clone() }
    }

    /// The same with another value of the variable with that role; unchanged where there is none.
    pub fn with_role(&self, role: Role, value: impl Into<Value>) -> Problem {
        self.op.with_role(role).map_or_else(|| self.clone(), |v| self.with(v.name, value))
    }

    /// The count with that role; 1 where there is none.
    fn role_count(&self, role: Role) -> usize {
        self.op.with_role(role).and_then(|v| self.get(v.name)).unwrap_or(1)
    }

    /// Sequences; packed ones are one.
    pub fn sequences(&self) -> usize {
        self.role_count(Role::Sequence)
    }

    /// Tokens a sequence that outputs have rows for; all of them where sequences are packed.
    pub fn tokens(&self) -> usize {
        self.role_count(Role::Token)
    }

    /// The length that cases of the phase are drawn over.
    pub fn length(&self) -> usize {
        self.count(self.phase_row().lengths[0])
    }

    /// The same of another length: all that the phase's length sets.
    pub fn with_length(&self, length: usize) -> Problem {
        self.phase_row().lengths.iter().fold(self.clone(), |p, name| p.with(name, length))
    }

    /// Lengths of packed sequences: tokens of q and of k. Empty where nothing is packed.
    pub fn lens(&self) -> &[[usize; 2]] {
        let packed = self.op.with_role(Role::Lengths).map(|v| self.value(v.name));
        match packed {
            Some(Value::Lens(lens)) => lens,
            _ => &[],
        }
    }

    /// Packs sequences of these lengths of q and of k; with an empty list nothing is packed.
    pub fn pack(&self, lens: Vec<[usize; 2]>) -> Problem {
        let [q, k] = lens::sums(&lens);
        let sized = match lens.is_empty() {
            true => self.clone(),
            false => {
                let one = self.with_role(Role::Sequence, 1).with_role(Role::Token, q);
                one.with_role(Role::Past, k)
            }
        };
        sized.with_role(Role::Lengths, lens)
    }

    /// The packed sequences; one of all tokens where nothing is packed.
    pub fn places(&self) -> Vec<Sequence> {
        match self.lens() {
            [] => lens::places(&[[self.tokens(), self.role_count(Role::Past)]]),
            lens => lens::places(lens),
        }
    }

    /// Why the values do not fit together, if they do not.
    pub fn fault(&self) -> Option<Fault> {
        for (many, few) in self.op.shared() {
            let (m, f) = (self.count(many), self.count(few.name));
            if f == 0 || !m.is_multiple_of(f) {
                let text = format!("{many} = {m} must be a multiple of {} = {f}", few.name);
                let kind = FaultKind::Indivisible { many };
                return Some(Fault { variable: few.name, text, kind });
            }
        }
        for &(name, least, most) in self.phase_row().ranges {
            let n = self.count(name);
            let packed = !self.lens().is_empty()
                && self.op.with_role(Role::Token).is_some_and(|v| v.name == name);
            // An empty sequence has no row to be of the phase.
            let mut given = self.lens().iter().map(|l| l[0]).filter(|n| *n > 0);
            let bad = given.find(|n| !(least..=most).contains(n));
            let n = if packed { bad.unwrap_or(least) } else { n };
            if !(least..=most).contains(&n) {
                let range =
                    if least == most { least.to_string() } else { format!("{least} to {most}") };
                let text = format!("{name} = {n}: {} takes {range}", self.phase);
                return Some(Fault::wrong(name, text));
            }
        }
        for v in self.op.variables() {
            if let Value::Number(x) = self.value(v.name)
                && !x.is_finite()
            {
                return Some(Fault::wrong(
                    v.name,
                    format!("{} = {x}: expected a finite number", v.name),
                ));
            }
        }
        self.emptiness_fault().or_else(|| self.lengths_fault()).or_else(|| self.op.fault(self))
    }

    /// Packed lengths of which all are 0. Sequences may be empty one by one, but a tensor without
    /// elements has no address and no tensor map.
    fn emptiness_fault(&self) -> Option<Fault> {
        let (v, lens) = (self.op.with_role(Role::Lengths)?, self.lens());
        let [q, k] = lens::sums(lens);
        let none = match (q, k) {
            (0, 0) => "tokens",
            (0, _) => "queries",
            (_, 0) => "keys",
            _ => return None,
        };
        let text = format!(
            "{}={}: no sequence has {none}: nothing can be launched on tensors without elements; give at least one sequence some, or leave the batch out",
            v.name,
            lens::text(lens)
        );
        (!lens.is_empty()).then(|| Fault::wrong(v.name, text))
    }

    /// Packed lengths that are not the operator's, or whose sums the sizes beside them contradict.
    fn lengths_fault(&self) -> Option<Fault> {
        let lens = self.lens();
        let v = self.op.with_role(Role::Lengths)?;
        let sums = lens::sums(lens);
        let looks_back = self.op.with_role(Role::Past).is_some();
        if let Some([q, k]) = lens.iter().find(|[q, k]| q != k && !looks_back) {
            let text = format!(
                "{}: {q}:{k}: {} has one length a sequence: write {q} or {k}",
                v.name, self.op
            );
            return Some(Fault::wrong(v.name, text));
        }
        let roles = [Role::Sequence, Role::Token, Role::Past];
        let wants = [1, sums[0], sums[1]];
        let differs = |(role, want): (Role, usize)| {
            self.op.with_role(role).is_some_and(|v| self.count(v.name) != want)
        };
        if lens.is_empty() || !roles.into_iter().zip(wants).any(differs) {
            return None;
        }
        let names = self.op.length_names(self.phase_row());
        let (last, rest) = names.split_last()?;
        let tokens = match looks_back {
            true => format!("{} and {} tokens of q and k", sums[0], sums[1]),
            false => format!("{} tokens", sums[0]),
        };
        let text = format!(
            "{}: packed sequences have one sequence and {tokens}, the sums of their lengths; leave {} and {last} out",
            v.name,
            rest.join(", ")
        );
        Some(Fault::wrong(v.name, text))
    }

    /// Every variable that a manifest's expressions may name, in a fixed order: the rows of the
    /// phase, then what the operator derives. What the problem goes without is 0, a format that it
    /// does not name is the precision's, and packed lengths are left out.
    pub fn vars(&self) -> IndexMap<&'static str, Scalar> {
        let mut vars = IndexMap::new();
        for v in self.op.variables_in(self.phase) {
            let scalar = match self.value(v.name) {
                Value::Count(n) => Some(Scalar::Int(*n as i64)),
                Value::Flag(flag) => Some(Scalar::Bool(*flag)),
                Value::Number(x) => Some(Scalar::Float(*x)),
                Value::Word(word) => Some(Scalar::Word(word)),
                Value::None if matches!(v.role, Role::Format { .. }) => {
                    Some(Scalar::Word(self.dtype.name()))
                }
                Value::None => v.kind.nothing(),
                Value::Lens(_) => None,
            };
            vars.extend(scalar.map(|s| (v.name, s)));
        }
        vars.extend(self.op.derived(self));
        vars
    }

    /// Whether a variable has the value it would have if it were not given.
    pub(super) fn is_usual(&self, v: &Variable) -> bool {
        let phase = self.phase_row();
        if let Some((_, value)) = phase.defaults.iter().find(|(name, _)| *name == v.name) {
            return self.value(v.name) == value;
        }
        match &v.default {
            Default::Is(value) => self.value(v.name) == value,
            Default::As(other) => self.value(v.name) == self.value(other),
            Default::InverseRoot(other) => {
                self.number(v.name) == Some((self.count(other) as f64).powf(-0.5))
            }
            Default::Need { .. } => false,
            Default::Nothing => *self.value(v.name) == Value::None,
        }
    }

    /// Whether the scale is what it is where none is given.
    pub fn has_usual_scale(&self) -> bool {
        self.op.with_role(Role::Scale).is_none_or(|v| self.is_usual(v))
    }

    /// Inputs then outputs, with layouts, in the order of the operator's documentation.
    pub fn tensors(&self) -> Vec<TensorSpec> {
        self.op.tensors(self).into_iter().filter(|t| t.there).collect()
    }

    /// The tensors of that flow, in the order of [`Problem::tensors`].
    pub fn tensors_of(&self, flow: Flow) -> Vec<TensorSpec> {
        self.tensors().into_iter().filter(|t| t.flow == flow).collect()
    }

    /// Tensors that other problems of the operator have and this one goes without.
    pub fn absent(&self) -> Vec<&'static str> {
        self.op.tensors(self).into_iter().filter(|t| !t.there).map(|t| t.name).collect()
    }

    /// An input of that format and layout, such as `"B T H K"`, at this problem's sizes.
    pub(super) fn input(&self, name: &'static str, dtype: DType, dims: &'static str) -> TensorSpec {
        let (mut shape, mut roles) = (Vec::new(), Vec::new());
        let packed = self.lens().len();
        for letter in dims.split(' ') {
            let (size, role) = match letter {
                // Packed sequences are one: a head of it has the states of all.
                "N" if packed > 0 => (packed, None),
                "N" => (self.sequences(), self.op.role(letter)),
                "N+1" => (packed + 1, None),
                letter => (self.count(letter), self.op.role(letter)),
            };
            shape.push(size);
            roles.push(role);
        }
        let (wide, dtype) = (dtype == DType::Fp32, dtype.storage());
        TensorSpec { name, flow: Flow::Input, there: true, dtype, wide, dims, shape, roles }
    }

    /// An output likewise.
    pub(super) fn output(
        &self,
        name: &'static str,
        dtype: DType,
        dims: &'static str,
    ) -> TensorSpec {
        TensorSpec { flow: Flow::Output, ..self.input(name, dtype, dims) }
    }

    /// The layer that cases of several lengths share: the problem without its scale and its phase's
    /// length. Where the length is several variables, those that differ from the first stay.
    pub fn layer(&self) -> Problem {
        let lengths = self.phase_row().lengths;
        let first = self.value(lengths[0]);
        let mut layer = self.with_role(Role::Scale, Value::None);
        for name in lengths.iter().filter(|name| self.value(name) == first) {
            layer = layer.with(name, Value::None);
        }
        layer
    }

    /// Whether no length stays in a [`Problem::layer`].
    pub fn has_one_length(&self) -> bool {
        self.phase_row().lengths.iter().all(|name| *self.value(name) == Value::None)
    }

    /// Heads of the output and their value dimension.
    pub fn out(&self) -> (usize, usize) {
        (self.role_count(Role::Heads), self.role_count(Role::Channel))
    }

    fn work(&self) -> Work {
        self.op.work(self)
    }

    /// Floating-point operations, by the formula of [`Problem::flops_formula`].
    pub fn flops(&self) -> f64 {
        self.work().flops
    }

    /// The formula behind [`Problem::flops`], for people.
    pub fn flops_formula(&self) -> &'static str {
        self.work().formula
    }

    /// Operations of the fp64 reference, at the rate of a matrix product.
    pub fn reference_flops(&self) -> f64 {
        self.work().reference_flops
    }

    /// Fewest bytes through device memory: each row of an input that some output depends on is read
    /// once, each output is written once.
    pub fn min_bytes(&self) -> f64 {
        let seen = self.op.seen(self);
        let needed = |t: &TensorSpec| {
            let rows = |role: Role| t.roles.iter().position(|r| *r == Some(role));
            let bytes = t.bytes() as f64;
            let part = |axis: usize, seen: usize| bytes * seen as f64 / t.shape[axis].max(1) as f64;
            match (t.flow, seen) {
                (Flow::Input, Some(seen)) => match (rows(Role::Token), rows(Role::Past)) {
                    (Some(axis), _) => part(axis, seen.tokens),
                    (_, Some(axis)) => part(axis, seen.past),
                    _ => bytes,
                },
                _ => bytes,
            }
        };
        self.tensors().iter().map(needed).sum()
    }

    /// Seeded inputs in the order of [`Problem::tensors`], already rounded to their storage type.
    pub fn inputs(&self, family: &Family, seed: u64) -> Vec<Tensor> {
        self.op.inputs(self, family, seed)
    }

    /// The outputs in fp64, in the order of [`Problem::tensors`], from the rounded inputs.
    pub fn reference(&self, inputs: &[Tensor]) -> Vec<Vec<f64>> {
        self.op.reference(self, inputs)
    }

    /// Whether other inputs after some token must leave the outputs before it as they are.
    pub fn has_prefix_property(&self) -> bool {
        self.op.has_prefix_property(self)
    }

    /// Sequences and output heads.
    pub fn output_heads(&self) -> (usize, usize) {
        (self.sequences(), self.role_count(Role::Heads))
    }

    /// The same problem with one sequence and as few heads as keep the head ratio, and how many of
    /// these make up the whole. Work does not depend on the data, so counts multiply.
    pub fn one_head_group(&self) -> (Problem, usize) {
        let (b, heads) = self.output_heads();
        let group = self.op.shared().next().map_or(1, |(_, few)| heads / self.count(few.name));
        let mut small = self.with_role(Role::Sequence, 1).with_role(Role::Heads, group);
        for (_, few) in self.op.shared() {
            small = small.with(few.name, 1);
        }
        (small, b * heads / group)
    }

    /// This problem with one sequence and one head of each kind.
    pub(super) fn one_head(&self) -> Problem {
        let mut small = self.with_role(Role::Sequence, 1).with_role(Role::Heads, 1);
        for (_, few) in self.op.shared() {
            small = small.with(few.name, 1);
        }
        small
    }
}

impl Op {
    /// The names that packed lengths replace: those of sequences, tokens and the phase's length,
    /// unless that is a context, of which lengths say nothing.
    pub fn length_names(self, phase: &Phase) -> Vec<&'static str> {
        let sized = |v: &&Variable| matches!(v.role, Role::Sequence | Role::Token | Role::Past);
        let mut names: Vec<_> = self.variables().iter().filter(sized).map(|v| v.name).collect();
        let is_context = self.variable(phase.length).is_some_and(|v| v.role == Role::Context);
        if !names.contains(&phase.length) && !is_context {
            names.insert(1, phase.length);
        }
        names
    }
}

/// Makes the values of a problem.
struct Maker<'a> {
    op: Op,
    phase: &'static Phase,
    given: &'a Given,
    needed: Needed,
}

impl Maker<'_> {
    /// Packed lengths, if they are given.
    fn lens(&self) -> Option<&[[usize; 2]]> {
        match self.given.get(self.op.with_role(Role::Lengths)?.name)? {
            Value::Lens(lens) => Some(lens),
            _ => None,
        }
    }

    /// Refuses sequences and tokens that are given beside packed lengths, which already say them.
    fn check_lengths(&self) -> Result<(), Fault> {
        // A length of one variable is another name of it.
        let (length, lengths) = (self.phase.length, self.phase.lengths);
        if let ([one], Some(value)) = (lengths, self.given.get(length))
            && *one != length
            && let Some(other) = self.given.get(one)
        {
            let text =
                format!("{length}={value}: {one}={other} already says it: leave one of them out");
            return Err(Fault::wrong(length, text));
        }
        let Some(lens) = self.lens() else { return Ok(()) };
        let names = self.op.length_names(self.phase);
        let beside = names.iter().find_map(|n| Some((*n, self.given.get(n)?)));
        match beside {
            Some((name, value)) => {
                let text = format!(
                    "{name}={value}: lens={} already says it: leave one of them out",
                    lens::text(lens)
                );
                Err(Fault::wrong(name, text))
            }
            None => Ok(()),
        }
    }

    /// The value of a variable: as given; else as packed lengths or the phase's length say; else
    /// the default of the phase, then of the row.
    fn value(&self, v: &'static Variable) -> Result<Value, Fault> {
        let is_length = self.phase.lengths.contains(&v.name);
        if v.role == Role::Context && !is_length {
            return Ok(Value::None);
        }
        if let Some(value) = self.given.get(v.name) {
            return Ok(value.clone());
        }
        if let Some(lens) = self.lens() {
            let [q, k] = lens::sums(lens);
            match v.role {
                Role::Sequence => return Ok(1.into()),
                Role::Token => return Ok(q.into()),
                Role::Past => return Ok(k.into()),
                _ => {}
            }
        }
        if let Some(value) = self.given.get(self.phase.length).filter(|_| is_length) {
            return Ok(value.clone());
        }
        if let Some((_, value)) = self.phase.defaults.iter().find(|(name, _)| *name == v.name) {
            return Ok(value.clone());
        }
        let other = |name: &str| {
            self.value(self.op.variable(name).expect("a row names another of its operator"))
        };
        Ok(match &v.default {
            Default::Is(value) => value.clone(),
            Default::As(name) => other(name)?,
            Default::InverseRoot(name) => match other(name)? {
                Value::Count(n) => Value::Number((n as f64).powf(-0.5)),
                _ => Value::None,
            },
            Default::Need { small, .. } if self.needed == Needed::Small => small.clone(),
            Default::Need { example, .. } => {
                let variable = if is_length { self.phase.length } else { v.name };
                let text = format!("{} needs {variable}", self.op);
                return Err(Fault { variable, text, kind: FaultKind::Missing(example) });
            }
            Default::Nothing => Value::None,
        })
    }
}

/// `{"op": "kda", "dtype": "bf16", "b": 1, ..}`, with the phase where it is not prefill. What the
/// problem goes without is left out, as are usual number formats and a value dimension that is the
/// keys' by default.
impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map: IndexMap<&str, serde_json::Value> = IndexMap::new();
        map.insert("op", self.op.name().into());
        if self.phase != PhaseName::Prefill {
            map.insert("phase", self.phase.name().into());
        }
        map.insert("dtype", self.dtype.name().into());
        for v in self.op.variables() {
            let value = self.value(v.name);
            if *value != Value::None && !(v.is_sparse() && self.is_usual(v)) {
                map.insert(v.key, value.to_json());
            }
        }
        map.serialize(serializer)
    }
}

impl Variable {
    /// Whether records and texts leave the variable out where its value is the usual one.
    pub(super) fn is_sparse(&self) -> bool {
        matches!(self.role, Role::Channel) && matches!(self.default, Default::As(_))
            || matches!(self.role, Role::Format { .. })
    }
}

impl<'de> Deserialize<'de> for Problem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Problem, D::Error> {
        let map: IndexMap<String, serde_json::Value> = IndexMap::deserialize(deserializer)?;
        let word = |key: &'static str| match map.get(key) {
            None => Ok(None),
            Some(serde_json::Value::String(text)) => Ok(Some(text.as_str())),
            Some(other) => Err(D::Error::custom(format!("`{key}`: {other} is not a word"))),
        };
        let op = word("op")?.ok_or_else(|| D::Error::missing_field("op"))?;
        let op = Op::parse(op)
            .ok_or_else(|| D::Error::custom(format!("unknown operator `{op}`: {}", Op::names())))?;
        let phase = match word("phase")? {
            None => PhaseName::Prefill,
            Some(name) => PhaseName::parse(name).ok_or_else(|| {
                D::Error::custom(format!("unknown phase `{name}`: {}", PhaseName::names()))
            })?,
        };
        let dtype = word("dtype")?.ok_or_else(|| D::Error::missing_field("dtype"))?;
        let dtype = DType::precision(dtype).ok_or_else(|| {
            D::Error::custom(format!("unknown dtype `{dtype}`: {}", DType::precision_names()))
        })?;
        // Keys that no row has are a later version's, and left alone.
        let (mut given, mut nulls) = (Given::new(), Vec::new());
        for v in op.variables_in(phase) {
            let may_lack = v.is_sparse() || matches!(v.default, Default::Nothing);
            let json = map.get(v.key).filter(|json| !(may_lack && json.is_null()));
            let Some(json) = json else {
                if may_lack {
                    continue;
                }
                return Err(D::Error::missing_field(v.key));
            };
            if matches!(v.default, Default::Nothing) && json.as_f64() == Some(0.0) {
                continue;
            }
            // JSON has no NaN: a null number is one, as everywhere in a record.
            if json.is_null() && v.kind == super::Kind::Number {
                nulls.push(v.name);
                continue;
            }
            let value = v.kind.read_json(json);
            let value = value.map_err(|e| D::Error::custom(format!("`{}`: {e}", v.key)))?;
            given.insert(v.name, value);
        }
        // Packed lengths stand beside their sums here, and make them again.
        let lens = op.with_role(Role::Lengths).filter(|v| given.contains_key(v.name));
        let mut sums = Given::new();
        if lens.is_some() {
            let row =
                op.phase(phase).ok_or_else(|| D::Error::custom(format!("{op} has no {phase}")))?;
            for name in op.length_names(row) {
                sums.extend(given.shift_remove(name).map(|value| (name, value)));
            }
        }
        let problem =
            Problem::new(op, phase, dtype, &given, Needed::Given).map_err(D::Error::custom)?;
        let problem = nulls.into_iter().fold(problem, |p, name| p.with(name, f64::NAN));
        match sums.iter().find(|(name, value)| problem.value(name) != *value) {
            None => Ok(problem),
            Some((name, value)) => {
                let is = problem.value(name);
                Err(D::Error::custom(format!(
                    "{name} = {value}: packed sequences have {is} in all"
                )))
            }
        }
    }
}
