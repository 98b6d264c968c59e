//! The launches of a variant on a problem: grids, buffers and arguments from the manifest.

use super::expr::{Context, Evaluator};
use super::manifest::{Expr, Param, ParamKind, TensorMapSpec};
use super::{Kernel, KernelError, Tile};
use crate::device::{Arg, Buffer, BufferRole, Job, Launch, TensorMap};
use crate::op::{Flow, Problem};

impl Kernel {
    /// What a device needs to run this variant on this problem. A grid that covers the device is
    /// that of an H200, with 132 multiprocessors.
    ///
    /// # Errors
    /// As of [`Kernel::job_on`].
    pub fn job(&self, problem: &Problem, tile: &Tile) -> Result<Job, KernelError> {
        self.job_on(problem, tile, 132)
    }

    /// As [`Kernel::job`] for a device of `multiprocessors`, which manifests call `SMS`.
    ///
    /// # Errors
    /// The kernel does not do the problem, the tile is not legal, the template does not render, or
    /// an expression of the manifest fails. The message names the file and the field.
    pub fn job_on(
        &self,
        problem: &Problem,
        tile: &Tile,
        multiprocessors: u32,
    ) -> Result<Job, KernelError> {
        let ptx = self.render(problem, tile)?;
        let eval = Evaluator::default();
        let fault = |field: String, why: String| {
            KernelError(format!("{}: {field}: {why}", self.manifest_path()))
        };
        let context = self.launch_context(problem, tile, multiprocessors, &eval)?;

        let absent = problem.absent();
        let mut buffers = Vec::new();
        let (mut inputs, mut outputs) = (0, 0);
        for spec in problem.tensors() {
            let counter = if spec.flow == Flow::Input { &mut inputs } else { &mut outputs };
            let role = if spec.flow == Flow::Input {
                BufferRole::Input(*counter)
            } else {
                BufferRole::Output(*counter)
            };
            *counter += 1;
            buffers.push(Buffer {
                name: spec.name.to_string(),
                role,
                dtype: spec.dtype,
                shape: spec.shape,
            });
        }
        for w in &self.manifest.workspace {
            if let Some(when) = &w.when
                && !eval
                    .holds(when, &context)
                    .map_err(|e| fault(format!("workspace {}: when", w.name), e))?
            {
                continue;
            }
            let shape = w
                .shape
                .iter()
                .map(|e| Ok(eval.unsigned(e, &context)? as usize))
                .collect::<Result<_, String>>()
                .map_err(|e| fault(format!("workspace {}", w.name), e))?;
            let role = if w.zeroed { BufferRole::ZeroedWorkspace } else { BufferRole::Workspace };
            buffers.push(Buffer { name: w.name.clone(), role, dtype: w.dtype.storage(), shape });
        }

        let mut launches = Vec::new();
        for entry in &self.manifest.entry {
            let at = |field: &str| format!("entry {}: {field}", entry.name);
            if let Some(when) = &entry.when
                && !eval.holds(when, &context).map_err(|e| fault(at("when"), e))?
            {
                continue;
            }
            let triple = |exprs: &[Expr], field: &str| -> Result<[u32; 3], KernelError> {
                let mut out = [1; 3];
                if exprs.len() > 3 {
                    return Err(fault(at(field), "more than three dimensions".into()));
                }
                for (out, expr) in out.iter_mut().zip(exprs) {
                    *out = eval.unsigned(expr, &context).map_err(|e| fault(at(field), e))?;
                }
                if out.contains(&0) {
                    return Err(fault(at(field), format!("{out:?} has a zero for {problem}")));
                }
                Ok(out)
            };
            let mut args = Vec::new();
            for p in &entry.params {
                let fails = |e| fault(at(&format!("param {}", p.name)), e);
                let there = match &p.when {
                    Some(when) => eval.holds(when, &context).map_err(fails)?,
                    None => true,
                };
                if there {
                    let named = Named { buffers: &buffers, absent: &absent };
                    args.push(self.argument(p, named, &eval, &context).map_err(fails)?);
                }
            }
            launches.push(Launch {
                entry: entry.name.clone(),
                grid: triple(&entry.grid, "grid")?,
                block: triple(&entry.block, "block")?,
                cluster: triple(&entry.cluster, "cluster")?,
                shared_bytes: eval
                    .unsigned(&entry.shared, &context)
                    .map_err(|e| fault(at("shared"), e))?,
                args,
            });
        }
        Ok(Job { ptx, buffers, launches })
    }

    /// The most dynamic shared memory a CTA of any launch asks for, without rendering.
    ///
    /// # Errors
    /// An expression of the manifest fails.
    pub fn shared_bytes(
        &self,
        problem: &Problem,
        tile: &Tile,
        multiprocessors: u32,
    ) -> Result<u32, KernelError> {
        let eval = Evaluator::default();
        let context = self.launch_context(problem, tile, multiprocessors, &eval)?;
        let mut most = 0;
        for entry in &self.manifest.entry {
            let fault = |field: &str, why: String| {
                KernelError(format!(
                    "{}: entry {}: {field}: {why}",
                    self.manifest_path(),
                    entry.name
                ))
            };
            let runs = entry.when.as_ref().map_or(Ok(true), |when| eval.holds(when, &context));
            if runs.map_err(|e| fault("when", e))? {
                let bytes = eval.unsigned(&entry.shared, &context);
                most = most.max(bytes.map_err(|e| fault("shared", e))?);
            }
        }
        Ok(most)
    }

    /// What grids, workspaces and parameters may name: the problem, the template's constants
    /// and the manifest's derived values.
    pub(super) fn launch_context(
        &self,
        problem: &Problem,
        tile: &Tile,
        multiprocessors: u32,
        eval: &Evaluator,
    ) -> Result<Context, KernelError> {
        let mut context = self.problem_context(problem);
        context.extend(self.constants(problem, tile)?);
        context.insert("SMS".into(), multiprocessors.into());
        for (name, expr) in &self.manifest.derived {
            let x = eval.number(expr, &context).map_err(|e| {
                KernelError(format!("{}: derived.{name}: {e}", self.manifest_path()))
            })?;
            context.insert(name.clone(), x);
        }
        Ok(context)
    }
}

/// What parameters may name: buffers, and tensors that the problem goes without.
#[derive(Clone, Copy)]
struct Named<'a> {
    buffers: &'a [Buffer],
    absent: &'a [&'static str],
}

impl Kernel {
    fn argument(
        &self,
        param: &Param,
        named: Named,
        eval: &Evaluator,
        context: &Context,
    ) -> Result<Arg, String> {
        Ok(match &param.kind {
            ParamKind::Buffer(name) => match find(named.buffers, name) {
                Ok(i) => Arg::Buffer(i),
                // What the problem goes without is a null address.
                Err(_) if named.absent.contains(&name.as_str()) || self.has_workspace(name) => {
                    Arg::U64(0)
                }
                Err(e) => return Err(e),
            },
            ParamKind::U32(expr) => Arg::U32(eval.unsigned(expr, context)?),
            ParamKind::U64(expr) => {
                let x = eval.int(expr, context)?;
                Arg::U64(u64::try_from(x).map_err(|_| format!("{x} is negative"))?)
            }
            ParamKind::F32(expr) => Arg::F32(eval.float(expr, context)? as f32),
            ParamKind::TensorMap(spec) => {
                Arg::TensorMap(tensor_map(spec, named.buffers, eval, context)?)
            }
        })
    }

    fn has_workspace(&self, name: &str) -> bool {
        self.manifest.workspace.iter().any(|w| w.name == name)
    }
}

fn find(buffers: &[Buffer], name: &str) -> Result<usize, String> {
    buffers.iter().position(|b| b.name == name).ok_or_else(|| {
        let known: Vec<_> = buffers.iter().map(|b| b.name.as_str()).collect();
        format!("no tensor or workspace `{name}`: there are {}", known.join(", "))
    })
}

fn tensor_map(
    spec: &TensorMapSpec,
    buffers: &[Buffer],
    eval: &Evaluator,
    context: &Context,
) -> Result<TensorMap, String> {
    let buffer = find(buffers, &spec.buffer)?;
    let dtype = buffers[buffer].dtype;
    let ints = |exprs: &[Expr]| -> Result<Vec<u64>, String> {
        exprs.iter().map(|e| Ok(u64::from(eval.unsigned(e, context)?))).collect()
    };
    let map = TensorMap {
        buffer,
        dtype,
        dims: ints(&spec.dims)?,
        strides_bytes: ints(&spec.strides)?.into_iter().map(|s| s * dtype.bytes() as u64).collect(),
        tile: ints(&spec.tile)?.into_iter().map(|x| x as u32).collect(),
        swizzle: spec.swizzle,
        nan_fill: spec.nan_fill,
    };
    if map.tile.len() != map.dims.len() || map.strides_bytes.len() + 1 != map.dims.len() {
        return Err(format!(
            "{} dims need as many tile sizes and one stride fewer, not {} and {}",
            map.dims.len(),
            map.tile.len(),
            map.strides_bytes.len()
        ));
    }
    Ok(map)
}
