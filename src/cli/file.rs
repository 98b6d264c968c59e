//! Problems from safetensors files, and results into them.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::{Dtype, TensorView};
use safetensors::{SafeTensors, serialize};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error as Unknown, StrDeserializer};

use crate::op::{DType, Op, Problem, Role, Tensor, TensorSpec, attention, delta};

/// What the tensors do not say.
#[derive(clap::Args, Default)]
pub struct Options {
    /// attention: mask keys after the query, aligned to the last token.
    #[arg(long)]
    pub causal: bool,
    /// attention: with --causal, the most keys a query row sees, the last ones.
    #[arg(long, value_name = "KEYS")]
    pub window: Option<usize>,
    /// attention: scores become X * tanh(score / X).
    #[arg(long, value_name = "X")]
    pub softcap: Option<f64>,
    /// Factor on q; one over the square root of the head dimension if missing.
    #[arg(long, value_name = "X")]
    pub scale: Option<f64>,
    /// Delta rules: the state after the last token as well.
    #[arg(long)]
    pub final_state: bool,
}

/// Reads a problem of the operator and its inputs, in the order of [`Problem::tensors`].
///
/// # Errors
/// Naming the file, the tensor, what was found and what is expected.
pub fn read(path: &Path, op: Op, options: &Options) -> Result<(Problem, Vec<Tensor>), String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| format!("{name}: {e}"))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| format!("{name}: no safetensors file: {e}"))?;
    let source = Source { name: name.to_string(), file };
    let problem = source.problem(op, options)?;
    let specs: Vec<TensorSpec> =
        problem.tensors().into_iter().filter(|t| t.role == Role::Input).collect();
    let inputs = specs.iter().map(|s| source.input(s)).collect::<Result<Vec<_>, _>>()?;
    let mut ignored: Vec<_> = source.file.names();
    ignored.retain(|n| !specs.iter().any(|s| s.name == *n));
    ignored.sort_unstable();
    if !ignored.is_empty() {
        eprintln!("note: {name}: {op} has no input {}: ignored", ignored.join(", "));
    }
    for (spec, tensor) in specs.iter().zip(&inputs) {
        let bad = (0..tensor.len()).filter(|&i| !tensor.get(i).is_finite()).count();
        if bad > 0 {
            eprintln!("warning: {name}: {}: {bad} values are NaN or infinite", spec.name);
        }
        if spec.name == "g" && (0..tensor.len()).any(|i| tensor.get(i) > 0.0) {
            eprintln!("warning: {name}: g: values above 0 are no decay: g is a natural logarithm");
        }
    }
    Ok((problem, inputs))
}

struct Source<'a> {
    name: String,
    file: SafeTensors<'a>,
}

impl Source<'_> {
    fn tensor(&self, tensor: &str) -> Result<TensorView<'_>, String> {
        self.file.tensor(tensor).map_err(|_| {
            let mut known = self.file.names();
            known.sort_unstable();
            format!("{}: no tensor `{tensor}`: the file has {}", self.name, known.join(", "))
        })
    }

    /// A tensor's four dimensions, none of them zero.
    fn four(&self, tensor: &str, dims: &str) -> Result<[usize; 4], String> {
        let view = self.tensor(tensor)?;
        let shape = view.shape();
        let fault = |why: &str| {
            format!("{}: {tensor}: got shape {shape:?}, expected [{dims}]{why}", self.name)
        };
        let four: [usize; 4] = shape.try_into().map_err(|_| fault(", four dimensions"))?;
        if four.iter().any(|&n| n == 0 || n > 1 << 30) {
            return Err(fault(", each from 1 to 2^30"));
        }
        Ok(four)
    }

    fn problem(&self, op: Op, options: &Options) -> Result<Problem, String> {
        let is_attention = op == Op::Attention;
        let q_dims = if is_attention { "B, Tq, Hq, D" } else { "B, T, H, K" };
        let [b, t, h, d] = self.four("q", q_dims)?;
        let code = self.tensor("q")?.dtype().to_string();
        // fp32 in memory is tf32 in the products.
        let dtype = DType::PRECISIONS.into_iter().find(|d| d.format().file == code);
        let dtype = dtype.ok_or_else(|| {
            let known = DType::precision_files();
            format!("{}: q: got {code}, expected {known}", self.name)
        })?;
        let scale = options.scale.unwrap_or((d as f64).powf(-0.5));
        if !scale.is_finite() {
            return Err(format!("--scale {scale}: expected a finite number"));
        }
        let multiple = |many: usize, few: usize, tensor: &str, text: &str| {
            if many.is_multiple_of(few) {
                return Ok(());
            }
            Err(format!("{}: {tensor}: {text}: {many} is no multiple of {few}", self.name))
        };
        if is_attention {
            if options.final_state {
                return Err(format!("--final-state: {op} has no state"));
            }
            let [_, tkv, hkv, _] = self.four("k", "B, Tkv, Hkv, D")?;
            multiple(h, hkv, "k", "query heads must be a multiple of key/value heads")?;
            let [_, _, _, dv] = self.four("v", "B, Tkv, Hkv, Dv")?;
            let mut shape = attention::Shape {
                dtype,
                b,
                tq: t,
                tkv,
                hq: h,
                hkv,
                d,
                causal: options.causal,
                scale,
                extras: attention::Extras {
                    dv: (dv != d).then_some(dv),
                    window: options.window,
                    softcap: options.softcap,
                    lens: vec![],
                },
            };
            if let Some(keys) = options.window.filter(|keys| !(1..=1 << 30).contains(keys)) {
                return Err(format!(
                    "--window {keys}: expected 1 to {} keys; leave it out for no window",
                    1 << 30
                ));
            }
            if self.file.names().contains(&"cu_seqlens_q") {
                shape.pack(self.lens()?);
                if [shape.tq, shape.tkv] != [t, tkv] || b != 1 {
                    return Err(format!(
                        "{}: cu_seqlens: packed sequences of {} and {} tokens in all need q of shape [1, {}, Hq, D] and k, v of [1, {}, Hkv, D]: got [{b}, {t}, ..] and [{b}, {tkv}, ..]",
                        self.name, shape.tq, shape.tkv, shape.tq, shape.tkv
                    ));
                }
            }
            return match shape.fault() {
                Some(why) => Err(format!("--{why}")),
                None => Ok(Problem::Attention(shape)),
            };
        }
        let foreign = [
            (options.causal, "--causal: {op} is always causal"),
            (options.window.is_some(), "--window: {op} has no window"),
            (options.softcap.is_some(), "--softcap: {op} has no soft cap"),
        ];
        if let Some((_, why)) = foreign.iter().find(|(given, _)| *given) {
            return Err(format!("{}; leave it out", why.replace("{op}", op.name())));
        }
        let [_, _, hv, v] = self.four("v", "B, T, HV, V")?;
        multiple(hv, h, "v", "value heads must be a multiple of query heads")?;
        let shape = delta::Shape {
            dtype,
            b,
            t,
            h,
            hv,
            k: d,
            v,
            initial_state: self.file.names().contains(&"initial_state"),
            final_state: options.final_state,
            scale,
        };
        Ok(if op == Op::Kda { Problem::Kda(shape) } else { Problem::GatedDeltaRule(shape) })
    }

    /// Lengths of packed sequences: differences of `cu_seqlens_q` and `cu_seqlens_kv`.
    fn lens(&self) -> Result<Vec<[usize; 2]>, String> {
        let read = |tensor: &str| {
            let fault = |why: String| format!("{}: {tensor}: {why}", self.name);
            let view = self.tensor(tensor)?;
            if view.dtype() != Dtype::I32 || view.shape().len() != 1 {
                let got = format!("got {:?} of shape {:?}", view.dtype(), view.shape());
                return Err(fault(format!("{got}, expected I32 of shape [N+1]")));
            }
            let n = view.shape()[0];
            let starts: Vec<f64> = (0..n).map(|i| DType::I32.get(view.data(), i)).collect();
            if starts.first() != Some(&0.0) || !starts.windows(2).all(|w| w[0] < w[1]) || n < 2 {
                return Err(fault("expected 0, then ascending ends of the sequences".into()));
            }
            Ok(starts.windows(2).map(|w| (w[1] - w[0]) as usize).collect::<Vec<_>>())
        };
        let (q, k) = (read("cu_seqlens_q")?, read("cu_seqlens_kv")?);
        if q.len() != k.len() {
            return Err(format!(
                "{}: cu_seqlens_q has {} sequences, cu_seqlens_kv {}: expected as many",
                self.name,
                q.len(),
                k.len()
            ));
        }
        Ok(q.into_iter().zip(k).map(|(q, k)| [q, k]).collect())
    }

    /// The tensor of a spec. fp32 inputs of a 16-bit problem may come in 16 bits: widening
    /// loses nothing.
    fn input(&self, spec: &TensorSpec) -> Result<Tensor, String> {
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
        let widens = matches!(spec.name, "g" | "beta" | "initial_state");
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
                if widens { ", BF16 or F16" } else { " as q" }
            )),
        }
    }
}

fn stored(dtype: DType) -> Dtype {
    let code: StrDeserializer<'_, Unknown> = dtype.format().file.into_deserializer();
    Dtype::deserialize(code).expect("rows have safetensors' own codes")
}

/// Whether a file can be made there, before any work is done for it.
pub fn writable(path: &Path) -> Result<(), String> {
    if path.is_dir() {
        return Err(format!("--out {}: is a folder; name a file", path.display()));
    }
    // The file is renamed into place: that would replace a device by a file.
    if path.metadata().is_ok_and(|m| !m.is_file()) {
        return Err(format!("--out {}: is a device or pipe; name a file", path.display()));
    }
    temporary(path).map(drop)
}

/// A file beside `path`, so that renaming it there is atomic.
fn temporary(path: &Path) -> Result<tempfile::NamedTempFile, String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    tempfile::Builder::new()
        .prefix(".crossover-")
        .tempfile_in(folder)
        .map_err(|e| format!("--out {}: cannot write there: {e}", path.display()))
}

/// Outputs of a problem that another program left in a file, in the order of its tensors; `None`
/// for those that the file lacks.
///
/// # Errors
/// Naming the file and the tensor: none of the outputs is there, a shape or type does not fit.
pub fn read_outputs(path: &Path, problem: &Problem) -> Result<Vec<Option<Tensor>>, String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| format!("{name}: {e}"))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| format!("{name}: no safetensors file: {e}"))?;
    let source = Source { name: name.to_string(), file };
    let specs = problem.tensors().into_iter().filter(|t| t.role == Role::Output);
    let read =
        |s: &TensorSpec| source.file.names().contains(&s.name).then(|| source.input(s)).transpose();
    let specs: Vec<TensorSpec> = specs.collect();
    let outputs = specs.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    if outputs.iter().all(Option::is_none) {
        let wanted: Vec<_> = specs.iter().map(|s| s.name).collect();
        return Err(format!(
            "{name}: none of the outputs {}: the file has {}",
            wanted.join(", "),
            source.file.names().join(", ")
        ));
    }
    Ok(outputs)
}

/// Writes the tensors of one role, in the order of the problem's tensors, with facts as the
/// file's metadata.
pub fn write(
    path: &Path,
    problem: &Problem,
    role: Role,
    tensors: &[Tensor],
    facts: &[(&str, String)],
) -> Result<(), String> {
    let fault = |e: String| format!("--out {}: {e}", path.display());
    let specs = problem.tensors().into_iter().filter(|t| t.role == role);
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
    let file = temporary(path)?;
    std::fs::write(file.path(), bytes).map_err(|e| fault(e.to_string()))?;
    set_readable(file.path()).map_err(|e| fault(e.to_string()))?;
    file.persist(path).map_err(|e| fault(e.to_string()))?;
    Ok(())
}

/// Temporary files are private to their owner; results are ordinary files.
fn set_readable(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = path;
    Ok(())
}
