//! Problems from safetensors files, and results into them.

use std::collections::HashMap;
use std::path::Path;

use indexmap::IndexMap;
use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as Unknown, StrDeserializer};

use super::console;
use super::options::{Options, long};
use crate::disk;
use crate::op::{
    DType, FaultKind, Flow, Given, Kind, MAX_COUNT, Needed, Op, PhaseName, Problem, Role, Tensor,
    TensorSpec, Value, Variable,
};

/// A problem with its inputs, in the order of [`Problem::tensors`], and what a user should know of
/// them.
pub struct Found {
    pub problem: Problem,
    pub inputs: Vec<Tensor>,
    pub notes: Vec<String>,
}

/// Reads a problem of the operator and its inputs from a file; notes go to standard error. The phase
/// is that which the options name, else the first of `phases` that takes the tensors.
///
/// # Errors
/// The file is no problem of the operator; the message names file and tensor, what was found and
/// what is expected.
pub fn read(
    path: &Path,
    op: Op,
    phases: &[PhaseName],
    options: &Options,
) -> Result<(Problem, Vec<Tensor>), String> {
    let bytes = disk::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let found = parse(path, &bytes, op, phases, options)?;
    found.notes.iter().for_each(|note| console::note(note));
    Ok((found.problem, found.inputs))
}

/// As [`read`], from the bytes of the file of that path.
///
/// # Errors
/// As of [`read`].
pub fn parse(
    path: &Path,
    bytes: &[u8],
    op: Op,
    phases: &[PhaseName],
    options: &Options,
) -> Result<Found, String> {
    let source = Source::new(path, bytes)?;
    let name = &source.name;
    let named = options.phase(op)?;
    let phases = named.as_ref().map_or(phases, std::slice::from_ref);
    let tried = phases.iter().map(|phase| source.problem(op, *phase, options));
    // The first phase that takes the tensors; where none does, what the first says.
    let either =
        |first: Result<Problem, String>, other: Result<Problem, String>| match (first, other) {
            (Ok(problem), _) | (Err(_), Ok(problem)) => Ok(problem),
            (Err(first), Err(other)) if first == other => Err(first),
            (Err(first), Err(other)) => Err(format!("{first}; {other}")),
        };
    let problem = tried.reduce(either);
    let problem = problem.ok_or_else(|| format!("{op} without a phase"))??;
    let specs = problem.tensors_of(Flow::Input);
    let inputs = specs.iter().map(|s| source.input(s, &problem)).collect::<Result<Vec<_>, _>>()?;
    let mut notes = Vec::new();
    let mut ignored: Vec<_> = source.file.names();
    ignored.retain(|n| !specs.iter().any(|s| s.name == *n));
    ignored.sort_unstable();
    if !ignored.is_empty() {
        notes.push(format!("note: {name}: {op} has no input {}: ignored", ignored.join(", ")));
    }
    for (spec, tensor) in specs.iter().zip(&inputs) {
        let bad = (0..tensor.len()).filter(|&i| !tensor.get(i).is_finite()).count();
        if bad > 0 {
            let of = spec.name;
            notes.push(format!("warning: {name}: {of}: {bad} values are NaN or infinite"));
        }
        if let Some(doubt) = op.doubt(spec.name, tensor) {
            notes.push(format!("warning: {name}: {}: {doubt}", spec.name));
        }
    }
    Ok(Found { problem, inputs, notes })
}

struct Source<'a> {
    name: String,
    file: SafeTensors<'a>,
}

/// Variables with the tensor that told them.
type Told = IndexMap<&'static str, &'static str>;

impl<'a> Source<'a> {
    fn new(path: &Path, bytes: &'a [u8]) -> Result<Source<'a>, String> {
        let name = path.display().to_string();
        match SafeTensors::deserialize(bytes) {
            Ok(file) => Ok(Source { name, file }),
            Err(e) => Err(format!("{name}: no safetensors file: {e}")),
        }
    }

    fn tensor(&self, tensor: &str) -> Result<TensorView<'_>, String> {
        self.file.tensor(tensor).map_err(|_| {
            let mut known = self.file.names();
            known.sort_unstable();
            format!("{}: no tensor `{tensor}`: the file has {}", self.name, known.join(", "))
        })
    }

    fn has(&self, tensor: &str) -> bool {
        self.file.names().contains(&tensor)
    }

    /// A tensor's dimensions, as many as its layout has, none of them zero.
    fn sizes(&self, spec: &TensorSpec) -> Result<Vec<usize>, String> {
        let view = self.tensor(spec.name)?;
        let (shape, rank) = (view.shape(), spec.roles.len());
        let fault = |why: String| {
            let dims = spec.dims.replace(' ', ", ");
            format!("{}: {}: got shape {shape:?}, expected [{dims}]{why}", self.name, spec.name)
        };
        if shape.len() != rank {
            let words = ["no", "one", "two", "three", "four", "five"];
            let dimensions = if rank == 1 { "dimension" } else { "dimensions" };
            return Err(fault(format!(", {} {dimensions}", words[rank.min(5)])));
        }
        if shape.iter().any(|&n| n == 0 || n > MAX_COUNT) {
            return Err(fault(", each from 1 to 2^30".into()));
        }
        Ok(shape.to_vec())
    }

    /// The problem: shapes and precision are those of the tensors, the rest is as the options say.
    fn problem(&self, op: Op, phase: PhaseName, options: &Options) -> Result<Problem, String> {
        let said = options.given(op, phase)?;
        // A flag that is not given is off, whatever its default elsewhere.
        let flags = op.variables_in(phase).filter(|v| v.kind == Kind::Flag);
        let mut given: Given = flags.map(|v| (v.name, false.into())).collect();
        given.extend(said.clone());
        let plain = Problem::new(op, phase, DType::Bf16, &Given::new(), Needed::Small)
            .map_err(|e| e.text)?;
        let all = op.tensors(&plain).into_iter().filter(|t| t.flow == Flow::Input);
        // Tensors that another problem of the operator goes without tell by being there.
        let (optional, needed): (Vec<_>, Vec<_>) = all.partition(|t| is_optional(op, t));
        let mut told = Told::new();
        for spec in &needed {
            let letters = spec.dims.split(' ').zip(&spec.roles);
            let new = |(letter, role): &(&str, &Option<Role>)| {
                role.is_some() && *letter != "N" && !told.contains_key(*letter)
            };
            if !letters.clone().any(|l| new(&l)) {
                continue;
            }
            for ((letter, _), size) in letters.clone().zip(self.sizes(spec)?) {
                if let Some(v) = op.variable(letter).filter(|v| !told.contains_key(v.name)) {
                    told.insert(v.name, spec.name);
                    given.insert(v.name, size.into());
                }
            }
        }
        let first = needed.first().ok_or_else(|| format!("{op} has no inputs"))?;
        let dtype = self.precision(first.name)?;
        for v in op.variables_in(phase) {
            if let Some((tensor, value)) = self.told_by_presence(v, &optional)? {
                told.insert(v.name, tensor);
                given.insert(v.name, value);
            }
        }
        // The length that is said is held against the tensors' below.
        let lengths = plain.phase_row().lengths;
        if lengths.iter().all(|name| told.contains_key(name)) {
            given.retain(|name, _| *name != plain.phase_row().length || lengths.contains(name));
        }
        let contradicted = |(name, tensor): (&&'static str, &&'static str)| {
            let (said, is) = (said.get(name)?, given.get(name)?);
            let has = || format!("{}: {tensor}: {name} = {is}, not {said} as given", self.name);
            (said != is).then(has)
        };
        if let Some(why) = told.iter().find_map(contradicted) {
            return Err(why);
        }
        // Where packed sequences begin and the last ends: in tokens of q, and of k if they differ.
        let packing: Vec<_> = optional.iter().filter(|t| is_packing(t)).map(|t| t.name).collect();
        let packed = packing.iter().any(|name| self.has(name));
        let lens = op.with_role(Role::Lengths).filter(|_| packed);
        let sized = given.clone();
        if let Some(v) = lens {
            op.length_names(plain.phase_row()).iter().for_each(|n| {
                given.shift_remove(n);
            });
            given.insert(v.name, self.lens(&packing)?.into());
        }
        let problem = Problem::new(op, phase, dtype, &given, Needed::Small).map_err(
            |fault| match (fault.kind, told.get(fault.variable)) {
                (FaultKind::Indivisible { many }, Some(tensor)) => {
                    let doc = |name: &str| op.variable(name).map_or("", |v| v.doc);
                    let size =
                        |name: &str| given.get(name).map(Value::to_string).unwrap_or_default();
                    let (few, name) = (fault.variable, &self.name);
                    format!(
                        "{name}: {tensor}: {} must be a multiple of {}: {} is no multiple of {}",
                        doc(many),
                        doc(few),
                        size(many),
                        size(few)
                    )
                }
                (_, Some(tensor)) => format!("{}: {tensor}: {}", self.name, fault.text),
                (_, None) => match fault.text.strip_prefix(&format!("{}: ", fault.variable)) {
                    Some(why) if options.has_flag(fault.variable) => {
                        format!("--{}: {why}", long(fault.variable))
                    }
                    _ if said.contains_key(fault.variable) => fault.text,
                    _ => format!("{}: {}", self.name, fault.text),
                },
            },
        )?;
        let length = problem.phase_row().length;
        if let Some(n) = said.get(length).filter(|n| **n != problem.length().into()) {
            let is = problem.length();
            return Err(format!("{}: {length} = {is}, not {n} as given", self.name));
        }
        let differs = |(name, value): (&&'static str, &Value)| {
            op.variable(name).is_some() && problem.value(name) != value
        };
        if let (Some(_), Some((name, value))) = (lens, sized.iter().find(|pair| differs(*pair))) {
            let (is, file) = (problem.value(name), &self.name);
            let tensor = told.get(name).unwrap_or(&"the tensors");
            return Err(match op.variable(name).map(|v| v.role) {
                Some(role @ (Role::Token | Role::Past)) => {
                    let ends = packing[usize::from(role == Role::Past)];
                    format!(
                        "{file}: {ends}: ends with {is}: expected {name} = {value}, the tokens of {tensor}"
                    )
                }
                _ => format!(
                    "{file}: {tensor}: packed sequences have {name} = {is} in all: got {name} = {value}"
                ),
            });
        }
        Ok(problem)
    }

    /// The precision of the problem: that of its first tensor.
    fn precision(&self, tensor: &str) -> Result<DType, String> {
        let code = self.tensor(tensor)?.dtype().to_string();
        // fp32 in memory is tf32 in the products.
        let dtype = DType::PRECISIONS.into_iter().find(|d| d.format().file == code);
        dtype.ok_or_else(|| {
            let known = DType::precision_files();
            format!("{}: {tensor}: got {code}, expected {known}", self.name)
        })
    }

    /// What a tensor tells of a variable by being there or by its 8-bit format, with its name.
    fn told_by_presence(
        &self,
        v: &Variable,
        optional: &[TensorSpec],
    ) -> Result<Option<(&'static str, Value)>, String> {
        if let Some(spec) = optional.iter().find(|t| t.name == v.name && v.kind == Kind::Flag) {
            return Ok(Some((spec.name, self.has(spec.name).into())));
        }
        let Role::Format { of } = v.role else { return Ok(None) };
        for &tensor in of.iter().filter(|t| self.has(t)) {
            let found = DType::from_file(&self.tensor(tensor)?.dtype().to_string());
            // Wider formats are widened, or as the precision says.
            let narrow = found.filter(|d| d.bytes() == 1).map(DType::name);
            if let (Some(name), Kind::Word(words)) = (narrow, v.kind)
                && let Some(word) = words.iter().find(|w| **w == name)
            {
                return Ok(Some((tensor, Value::Word(word))));
            }
        }
        Ok(None)
    }

    /// Lengths of packed sequences: differences of `cu_seqlens_q` and `cu_seqlens_kv`, or of
    /// `cu_seqlens` for both.
    fn lens(&self, packing: &[&str]) -> Result<Vec<[usize; 2]>, String> {
        let all: Vec<_> = packing.iter().map(|t| self.lengths(t)).collect::<Result<_, _>>()?;
        let (Some(q), Some(k)) = (all.first(), all.last()) else { return Ok(vec![]) };
        if q.len() != k.len() {
            return Err(format!(
                "{}: {} has {} sequences, {} {}: expected as many",
                self.name,
                packing[0],
                q.len(),
                packing[packing.len() - 1],
                k.len()
            ));
        }
        Ok(q.iter().zip(k).map(|(q, k)| [*q, *k]).collect())
    }

    /// Differences of a tensor that holds 0, then the end of each sequence.
    fn lengths(&self, tensor: &str) -> Result<Vec<usize>, String> {
        let fault = |why: String| Err(format!("{}: {tensor}: {why}", self.name));
        let view = self.tensor(tensor)?;
        if view.dtype() != Dtype::I32 || view.shape().len() != 1 {
            let got = format!("got {:?} of shape {:?}", view.dtype(), view.shape());
            return fault(format!("{got}, expected I32 of shape [N+1]"));
        }
        let n = view.shape()[0];
        if n < 2 {
            return fault(format!(
                "got shape [{n}], expected [N+1]: 0, then the end of each sequence"
            ));
        }
        let ends: Vec<i64> = (0..n).map(|i| DType::I32.get(view.data(), i) as i64).collect();
        if ends[0] != 0 {
            return fault(format!(
                "[0] is {}, expected 0, where the first sequence begins",
                ends[0]
            ));
        }
        if let Some(i) = (1..n).find(|&i| ends[i] < ends[i - 1]) {
            return fault(format!(
                "[{i}] is {} after {}: expected ends in ascending order, an end again for an empty sequence",
                ends[i],
                ends[i - 1]
            ));
        }
        Ok(ends.windows(2).map(|w| (w[1] - w[0]) as usize).collect())
    }

    /// The tensor of a spec. fp32 inputs of a 16-bit problem may come in 16 bits: widening
    /// loses nothing.
    fn input(&self, spec: &TensorSpec, problem: &Problem) -> Result<Tensor, String> {
        let view = self.tensor(spec.name)?;
        if view.shape() != spec.shape {
            return Err(format!(
                "{}: {}: got shape {:?}, expected {:?} ([{}] by the other tensors)",
                self.name,
                spec.name,
                view.shape(),
                spec.shape,
                spec.dims.replace(' ', ", ")
            ));
        }
        let from = DType::from_file(&view.dtype().to_string());
        // fp32 beside operands of 16 bits.
        let widens = spec.wide;
        let format = problem.op().variables().iter().find(|v| match v.role {
            Role::Format { of } => of.contains(&spec.name) && !v.is_default(problem.value(v.name)),
            _ => false,
        });
        match from {
            Some(from) if from == spec.dtype => Ok(Tensor {
                dtype: spec.dtype,
                shape: spec.shape.clone(),
                bytes: view.data().to_vec(),
            }),
            Some(from) if widens && from.bytes() > 1 => {
                let values = (0..spec.elements()).map(|i| from.get(view.data(), i));
                Ok(Tensor::from_f64(spec.dtype, &spec.shape, values))
            }
            _ => Err(format!(
                "{}: {}: got {:?}, expected {:?}{}",
                self.name,
                spec.name,
                view.dtype(),
                stored(spec.dtype),
                match format {
                    Some(v) => format!(" as {} = {}", v.name, problem.value(v.name)),
                    None if widens => ", BF16 or F16".into(),
                    None => " as q".into(),
                }
            )),
        }
    }
}

fn stored(dtype: DType) -> Dtype {
    let code: StrDeserializer<'_, Unknown> = dtype.format().file.into_deserializer();
    Dtype::deserialize(code).expect("rows have safetensors' own codes")
}

/// Whether the tensor says where packed sequences begin: those alone are integers.
fn is_packing(spec: &TensorSpec) -> bool {
    spec.dtype == DType::I32
}

/// Whether some problems of the operator go without the tensor: a flag has its name, or it is one
/// of packed lengths.
fn is_optional(op: Op, spec: &TensorSpec) -> bool {
    let flag = op.variable(spec.name).is_some_and(|v| v.kind == Kind::Flag);
    flag || is_packing(spec)
}

/// Outputs of a problem that another program left in a file, in the order of its tensors; `None`
/// for those that the file lacks.
///
/// # Errors
/// None of the outputs is there, or a shape or type does not fit; the message names file and tensor.
pub fn read_outputs(path: &Path, problem: &Problem) -> Result<Vec<Option<Tensor>>, String> {
    let bytes = disk::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
    parse_outputs(path, &bytes, problem)
}

/// As [`read_outputs`], from the bytes of the file of that path.
///
/// # Errors
/// As of [`read_outputs`].
fn parse_outputs(
    path: &Path,
    bytes: &[u8],
    problem: &Problem,
) -> Result<Vec<Option<Tensor>>, String> {
    let source = Source::new(path, bytes)?;
    let specs = problem.tensors_of(Flow::Output);
    let read = |s: &TensorSpec| {
        let there = source.file.names().contains(&s.name);
        there.then(|| source.input(s, problem)).transpose()
    };
    let outputs = specs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if outputs.iter().all(Option::is_none) {
        let wanted: Vec<_> = specs.iter().map(|s| s.name).collect();
        return Err(format!(
            "{}: none of the outputs {}: the file has {}",
            source.name,
            wanted.join(", "),
            source.file.names().join(", ")
        ));
    }
    Ok(outputs)
}

/// Writes the tensors of one flow, in the order of the problem's tensors, with facts as the
/// file's metadata.
///
/// # Errors
/// The path, and why the file cannot be made or written.
pub fn write(
    path: &Path,
    problem: &Problem,
    flow: Flow,
    tensors: &[Tensor],
    facts: &[(&str, String)],
) -> Result<(), String> {
    let fault = |e: String| format!("--out {}: {e}", path.display());
    let specs = problem.tensors_of(flow).into_iter();
    let views = specs
        .zip(tensors)
        .map(|(spec, t)| {
            let view = TensorView::new(stored(t.dtype), t.shape.clone(), &t.bytes);
            view.map(|v| (spec.name, v)).map_err(|e| fault(e.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let metadata: HashMap<String, String> =
        facts.iter().map(|(name, value)| (name.to_string(), value.clone())).collect();
    let bytes = serialize(views, Some(metadata)).map_err(|e| fault(e.to_string()))?;
    disk::replace(path, &bytes).map_err(|e| fault(e.to_string()))
}

#[cfg(test)]
mod mutated;
