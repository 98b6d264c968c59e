//! The regression suite of a kernel: which cases it must pass.
//!
//! Every legal tile meets every precision and head dimension it is legal for; lengths, heads,
//! batches, input families and the operator's own axes are spread over those variants so that
//! values of any two axes meet wherever the number of cases allows.

use std::collections::HashSet;

use crate::device::Regime;
use crate::kernel::{Kernel, KernelError, Tile};
use crate::op::{DType, Family, Kind, Op, PhaseName, Problem, Role, Suite, Value};
use crate::sweep::Case;

use super::trial::Subject;

/// The most cases of a kernel, unless [`LEAST_PER_VARIANT`] of each variant are more.
const CASES: usize = 400;
/// The fewest cases of a variant, however many variants there are.
const LEAST_PER_VARIANT: usize = 2;
/// Problems of this length or more keep to few heads: the suite has to end in minutes on a CPU.
const LONG: usize = 500;

/// The length of cases at default tiles: a few blocks and a ragged end.
const DEFAULT_LENGTH: usize = 150;

/// Heads of the output, and heads that serve several of them where the operator has such.
const HEADS: [(usize, usize); 4] = [(1, 1), (2, 1), (4, 2), (3, 1)];
const BATCHES: [usize; 2] = [1, 2];
/// Multiprocessors, in turns, of kernels whose grid fills the device: on all of them a case's CTAs
/// have one unit of work each, on few they have several.
const FEW: [Option<u32>; 4] = [Some(2), Some(5), None, Some(3)];
/// Multiprocessors beside the heads of [`uneven`] cases.
const UNEVEN: [(u32, (usize, usize)); 3] = [(5, (2, 1)), (7, (2, 1)), (9, (3, 1))];

/// The suite of a kernel, in an order that does not depend on the seed. Its first phase has the whole
/// suite. The others are the same template: they have the tiles that show each value of each axis.
///
/// # Errors
/// The manifest names what problems lack, or an expression of it fails.
pub fn cases(kernel: &Kernel, seed: u64) -> Result<Vec<Subject>, KernelError> {
    let mut all = Vec::new();
    check_defaults(kernel)?;
    for &phase in &kernel.manifest.phases {
        let mut variants = variants(kernel, phase)?;
        if phase != kernel.phase() {
            few_tiles(&mut variants);
        }
        all.extend(at_default_tiles(kernel, &variants, seed)?);
        all.extend(of_phase(kernel, phase, &variants, seed)?);
    }
    if all.is_empty() {
        // A kernel that nothing is tried of must not pass in silence.
        let dims = (64, 64);
        let dtype = kernel.manifest.dtypes.first().copied().unwrap_or(DType::Bf16);
        let why = base(kernel, kernel.phase(), dtype, dims).err().map_or_else(String::new, |e| e.0);
        return Err(KernelError(format!(
            "{}: its suite has no case that it does: {why}",
            kernel.name
        )));
    }
    Ok(all)
}

/// Refuses default tiles that are legal for nothing the kernel does.
fn check_defaults(kernel: &Kernel) -> Result<(), KernelError> {
    let m = &kernel.manifest;
    let suite = m.op.suite(kernel.phase());
    let mut problems = Vec::new();
    for &dtype in &m.dtypes {
        for dims in head_dims(kernel) {
            let Ok(base) = base(kernel, kernel.phase(), dtype, dims) else { continue };
            let own = |own: &crate::op::Own| {
                (0..own.values).map(|i| (own.set)(base.clone(), i)).collect::<Vec<_>>()
            };
            let plain: Vec<Problem> =
                std::iter::once(base.clone()).chain(suite.own.iter().flat_map(own)).collect();
            let turns = (0..5).flat_map(|turn| plain.iter().map(move |p| (p, turn)));
            problems.extend(turns.map(|(p, turn)| (suite.extras)(p, turn)));
        }
    }
    problems.sort();
    problems.dedup();
    problems.retain(|p| p.fault().is_none() && kernel.supports(p).is_ok());
    for (i, default) in m.default.iter().enumerate() {
        // In the order of the axes, as a tile is checked.
        let tile = Tile(default.tile.clone());
        let mut why = None;
        let mut refused =
            |p: &Problem| kernel.check_tile(p, &tile).map_err(|e| why = Some(e)).is_err();
        // The last one may be for what none of them is.
        let another = |p: &Problem| kernel.default_tile(p).is_ok_and(|chosen| chosen != tile);
        let is_last = i + 1 == m.default.len();
        if problems.iter().all(&mut refused)
            && let Some(why) = why
            && !(is_last && problems.iter().all(another))
        {
            let path = kernel.manifest_path();
            let n = i + 1;
            return Err(KernelError(format!(
                "{path}: default {n} is legal for no problem that the suite has: {why}"
            )));
        }
    }
    Ok(())
}

/// A case at the default tile of each precision and pair of dimensions.
fn at_default_tiles(
    kernel: &Kernel,
    variants: &[Variant],
    seed: u64,
) -> Result<Vec<Subject>, KernelError> {
    let mut met = HashSet::new();
    let new = variants.iter().filter(|v| met.insert((v.dtype, v.dims)));
    let subject = |v: &Variant| {
        let problem = v.base.with_length(DEFAULT_LENGTH);
        let problem = Some(problem).filter(|p| kernel.supports(p).is_ok());
        let problem = problem.unwrap_or_else(|| v.base.clone());
        let tile = kernel.default_tile(&problem)?;
        let case = case(kernel, &tile, problem, Family::default(), seed);
        Ok(Subject { case, prefix: false, multiprocessors: None, most_steps: None })
    };
    new.map(subject).collect()
}

fn of_phase(
    kernel: &Kernel,
    phase: PhaseName,
    variants: &[Variant],
    seed: u64,
) -> Result<Vec<Subject>, KernelError> {
    let axes = Axes::new(kernel, phase, variants);
    let fills = kernel.fills_device();
    let most = if phase == kernel.phase() { CASES } else { CASES / 8 };
    let per_variant = (most / variants.len().max(1)).max(LEAST_PER_VARIANT);
    let mut covering = Covering::new(axes.sizes());
    let mut cases: Vec<Subject> = Vec::new();
    for v in variants {
        let mut used = Vec::new();
        for _ in 0..per_variant.min(axes.least_cases(v)) {
            let fits = |free: &[usize]| {
                v.lengths.contains(&axes.lengths[free[0]])
                    && !(axes.is_length_new() && used.contains(&free[0]))
                    && axes.affordable(free)
                    && axes.problem(v, free).fault().is_none()
                    && kernel.supports(&axes.problem(v, free)).is_ok()
                    && kernel.check_tile(&axes.problem(v, free), &v.tile).is_ok()
            };
            let Some(free) = covering.choose(&[v.tile_id, v.dtype_id, v.dims_id], fits) else {
                break;
            };
            used.push(free[0]);
            let plain = axes.problem(v, &free);
            let more = (axes.suite.extras)(&plain, cases.len());
            let does = kernel.supports(&more).is_ok() && kernel.check_tile(&more, &v.tile).is_ok();
            let problem = if does { more } else { plain };
            let prefix = problem.has_prefix_property() && cases.len().is_multiple_of(3);
            let multiprocessors = fills.then(|| FEW[cases.len() % FEW.len()]).flatten();
            let case = case(kernel, &v.tile, problem, axes.families[free[1]], seed);
            cases.push(Subject { case, prefix, multiprocessors, most_steps: None });
        }
    }
    if fills && phase == PhaseName::Prefill {
        cases.extend(uneven(kernel, &axes, variants, seed));
    }
    Ok(cases)
}

/// A case as `crossover check` runs it.
pub fn case(kernel: &Kernel, tile: &Tile, problem: Problem, family: Family, seed: u64) -> Case {
    let (kernel, tile, regime) = (kernel.name.clone(), tile.clone(), Regime::default());
    Case { problem, family, seed, kernel, tile, regime }
}

/// Long cases of a kernel whose grid fills the device, on numbers of multiprocessors among which
/// whole pairs of tiles, one long and one short, cannot be shared out evenly. For tiles that have
/// each value of each axis between them.
fn uneven(kernel: &Kernel, axes: &Axes, variants: &[Variant], seed: u64) -> Vec<Subject> {
    let mut met = HashSet::new();
    let mut cases = Vec::new();
    for v in variants {
        let new = v.tile.0.iter().filter(|value| met.insert(*value)).count();
        for (multiprocessors, heads) in UNEVEN {
            let plain = Problem::plain(axes.op, axes.phase, v.dtype, v.dims, 1000);
            let problem = (axes.suite.uneven)(with_heads(&plain, heads));
            if new > 0 && kernel.check_tile(&problem, &v.tile).is_ok() {
                cases.push(Subject {
                    case: case(kernel, &v.tile, problem, Family::default(), seed),
                    prefix: false,
                    multiprocessors: Some(multiprocessors),
                    most_steps: None,
                });
            }
        }
    }
    cases
}

/// The problem with `many` heads of the output, and `few` where some serve several of them.
fn with_heads(problem: &Problem, (many, few): (usize, usize)) -> Problem {
    let mut problem = problem.with_role(Role::Heads, many);
    for v in problem.op().variables() {
        if let Role::Shared { .. } = v.role {
            problem = problem.with(v.name, few);
        }
    }
    problem
}

/// A tile at a precision and head dimensions: what is compiled on its own.
struct Variant {
    tile: Tile,
    /// A problem that the kernel does with it.
    base: Problem,
    dtype: DType,
    dims: (usize, usize),
    /// Lengths around this tile's edges.
    lengths: Vec<usize>,
    tile_id: usize,
    dtype_id: usize,
    dims_id: usize,
}

/// Key and value dimensions that the manifest allows.
pub fn head_dims(kernel: &Kernel) -> Vec<(usize, usize)> {
    let op = kernel.manifest.op;
    let listed = |role: Role| -> Option<Vec<usize>> {
        let all = kernel.manifest.shapes.get(op.with_role(role)?.name)?;
        Some(all.iter().map(|&x| x as usize).collect())
    };
    let usual = || vec![64, 128];
    let keys = listed(Role::Key).unwrap_or_else(usual);
    // Where values are as wide as keys unless given, a kernel that does not list them has no others.
    let follows =
        op.with_role(Role::Channel).is_some_and(|v| matches!(v.default, crate::op::Default::As(_)));
    let values = listed(Role::Channel).or_else(|| (!follows).then(usual));
    let pairs = keys.into_iter().flat_map(|k| {
        let own = values.clone().unwrap_or_else(|| vec![k]);
        own.into_iter().map(move |v| (k, v))
    });
    let dtype = kernel.manifest.dtypes.first().copied().unwrap_or(DType::Bf16);
    pairs.filter(|dims| base(kernel, kernel.phase(), dtype, *dims).is_ok()).collect()
}

/// The plainest problem of those dimensions that the kernel does: with flags off and usual formats
/// if it can, else the first of what the suite varies; of 256 tokens, or of 1000.
///
/// # Errors
/// It does none of them; why not the plainest.
fn base(
    kernel: &Kernel,
    phase: PhaseName,
    dtype: DType,
    dims: (usize, usize),
) -> Result<Problem, KernelError> {
    let all = forms(kernel.manifest.op, phase, dtype, dims);
    let refused = kernel.supports(&all[0]);
    let found = all.into_iter().find(|p| p.fault().is_none() && kernel.supports(p).is_ok());
    found.ok_or_else(|| match refused {
        Err(why) => why,
        Ok(()) => KernelError(format!("{}: no problem of {dims:?} is whole", kernel.name)),
    })
}

/// Problems of those dimensions with all that the suite varies: flags, formats, 256 tokens or 1000;
/// the plainest first.
fn forms(op: Op, phase: PhaseName, dtype: DType, dims: (usize, usize)) -> Vec<Problem> {
    let mut all: Vec<Problem> =
        [256, 1000].map(|length| Problem::plain(op, phase, dtype, dims, length)).to_vec();
    for own in op.suite(phase).own {
        let with =
            |p: &Problem| (0..own.values).map(|i| (own.set)(p.clone(), i)).collect::<Vec<_>>();
        let more: Vec<_> = all.iter().flat_map(with).collect();
        all.extend(more);
    }
    for v in op.variables_in(phase) {
        if let (Role::Format { .. }, Kind::Word(words)) = (v.role, v.kind) {
            let with = |p: &Problem| {
                words.iter().map(|word| p.with(v.name, Value::Word(word))).collect::<Vec<_>>()
            };
            let more: Vec<_> = all.iter().flat_map(with).collect();
            all.extend(more);
        }
    }
    all
}

fn variants(kernel: &Kernel, phase: PhaseName) -> Result<Vec<Variant>, KernelError> {
    let mut tiles: Vec<Tile> = Vec::new();
    let mut all = Vec::new();
    for (dtype_id, &dtype) in kernel.manifest.dtypes.iter().enumerate() {
        for (dims_id, dims) in head_dims(kernel).into_iter().enumerate() {
            let Ok(base) = base(kernel, phase, dtype, dims) else { continue };
            for tile in kernel.tiles(&base)? {
                let tile_id = tiles.iter().position(|t| *t == tile).unwrap_or_else(|| {
                    tiles.push(tile.clone());
                    tiles.len() - 1
                });
                let (lengths, base) = (lengths(&tile, &base), base.clone());
                all.push(Variant { tile, base, dtype, dims, lengths, tile_id, dtype_id, dims_id });
            }
        }
    }
    Ok(all)
}

/// Leaves variants that have, at each precision, each value of each tile axis and each pair of
/// dimensions between them.
fn few_tiles(variants: &mut Vec<Variant>) {
    let (mut values, mut dims) = (HashSet::new(), HashSet::new());
    variants.retain(|v| {
        let value = |(axis, x): (&String, &i64)| values.insert((v.dtype, axis.clone(), *x));
        // Every value is entered, not only those up to the first new one.
        let new = v.tile.0.iter().map(value).filter(|new| *new).count();
        dims.insert((v.dtype, v.dims)) || new > 0
    });
}

/// 1, 63, 1000, and one below, at and above each block length: those among the tile's values, and
/// the usual chunk of 64; those that the problem may have. One will do where nothing depends on the
/// length.
fn lengths(tile: &Tile, problem: &Problem) -> Vec<usize> {
    let length = problem.op().variable(problem.phase_row().lengths[0]);
    if length.is_some_and(|v| v.role == Role::Context) {
        return vec![1000];
    }
    let mut all = vec![1, 63, 1000];
    let blocks = tile.0.values().filter(|&&x| (16..=256).contains(&x)).map(|&x| x as usize);
    all.extend(blocks.chain([64]).flat_map(|n| [n - 1, n, n + 1]));
    // A cache may have to hold the new tokens.
    let lengths = problem.phase_row().lengths.iter();
    let of = |n: usize| lengths.clone().fold(problem.clone(), |p, name| p.with(name, n));
    all.retain(|n| of(*n).fault().is_none());
    all.sort_unstable();
    all.dedup();
    all
}

/// The free axes: length, family, heads, batch and the operator's own.
struct Axes {
    op: Op,
    phase: PhaseName,
    suite: Suite,
    fixed: [usize; 3],
    lengths: Vec<usize>,
    families: Vec<Family>,
}

impl Axes {
    fn new(kernel: &Kernel, phase: PhaseName, variants: &[Variant]) -> Axes {
        let count = |id: fn(&Variant) -> usize| variants.iter().map(id).max().map_or(0, |n| n + 1);
        let mut lengths: Vec<_> = variants.iter().flat_map(|v| v.lengths.clone()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let op = kernel.manifest.op;
        let suite = op.suite(phase);
        let families = suite.families.iter().map(|f| f.parse().expect("a family")).collect();
        let fixed = [count(|v| v.tile_id), count(|v| v.dtype_id), count(|v| v.dims_id)];
        Axes { op, phase, suite, fixed, lengths, families }
    }

    fn sizes(&self) -> Vec<usize> {
        let free = [self.lengths.len(), self.families.len(), HEADS.len(), BATCHES.len()];
        let own = self.suite.own.iter().map(|own| own.values);
        self.fixed.iter().copied().chain(free).chain(own).collect()
    }

    /// Whether each case of a variant has a length of its own.
    fn is_length_new(&self) -> bool {
        self.lengths.len() > 1
    }

    /// Cases that a variant should have: one a length; where nothing depends on the length, one a
    /// family.
    fn least_cases(&self, v: &Variant) -> usize {
        if self.is_length_new() { v.lengths.len() } else { self.families.len() }
    }

    fn affordable(&self, free: &[usize]) -> bool {
        self.lengths[free[0]] < LONG
            || !self.is_length_new()
            || (BATCHES[free[3]] == 1 && HEADS[free[2]].0 <= 2)
    }

    fn problem(&self, v: &Variant, free: &[usize]) -> Problem {
        let &[length, _, heads, batch, ref own @ ..] = free else { unreachable!("four free axes") };
        let plain = Problem::plain(self.op, self.phase, v.dtype, v.dims, self.lengths[length]);
        let formats = self.op.variables().iter().filter(|v| matches!(v.role, Role::Format { .. }));
        let plain = formats.fold(plain, |p, row| p.with(row.name, v.base.value(row.name).clone()));
        let problem = with_heads(&plain, HEADS[heads]).with_role(Role::Sequence, BATCHES[batch]);
        let set = |p: Problem, (axis, value): (&crate::op::Own, &usize)| (axis.set)(p, *value);
        self.suite.own.iter().zip(own).fold(problem, set)
    }
}

/// Chooses values of the free axes so that pairs of values of any two axes are met evenly.
struct Covering {
    /// The first id of each axis' values, and of what follows the last.
    first: Vec<usize>,
    /// How often a pair of ids was met.
    met: Vec<u32>,
}

impl Covering {
    fn new(sizes: Vec<usize>) -> Covering {
        let mut first = vec![0];
        for size in sizes {
            first.push(first[first.len() - 1] + size);
        }
        let n = first[first.len() - 1];
        Covering { first, met: vec![0; n * n] }
    }

    fn cell(&self, a: usize, b: usize) -> usize {
        a * self.first[self.first.len() - 1] + b
    }

    /// The free values that meet the least met pairs together with the fixed ones (the first
    /// axes), among those that fit; `None` if none do.
    fn choose(&mut self, fixed: &[usize], fits: impl Fn(&[usize]) -> bool) -> Option<Vec<usize>> {
        let axes = self.first.len() - 1;
        let size = |axis: usize| self.first[axis + 1] - self.first[axis];
        let total: usize = (fixed.len()..axes).map(size).product();
        let mut scored: Vec<(f64, usize, Vec<usize>)> = (0..total)
            .map(|mut code| {
                let order = code.wrapping_mul(0x9e37_79b9) % 0x1_0000;
                let mut ids: Vec<usize> =
                    fixed.iter().enumerate().map(|(a, v)| self.first[a] + v).collect();
                for axis in fixed.len()..axes {
                    ids.push(self.first[axis] + code % size(axis));
                    code /= size(axis);
                }
                let mut score = 0.0;
                for (i, &a) in ids.iter().enumerate() {
                    for &b in &ids[i + 1..] {
                        score += 1.0 / f64::from(1 + self.met[self.cell(a, b)]);
                    }
                }
                (score, order, ids)
            })
            .collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        for (_, _, ids) in scored {
            let values: Vec<usize> =
                ids.iter().enumerate().map(|(axis, id)| id - self.first[axis]).collect();
            if fits(&values[fixed.len()..]) {
                for (i, &a) in ids.iter().enumerate() {
                    for &b in &ids[i + 1..] {
                        let cell = self.cell(a, b);
                        self.met[cell] += 1;
                    }
                }
                return Some(values[fixed.len()..].to_vec());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_covered() {
        let mut c = Covering::new(vec![3, 4, 5, 2]);
        let mut pairs = HashSet::new();
        for i in 0..30 {
            let free = c.choose(&[i % 3], |_| true).unwrap();
            pairs.insert((free[0], free[1]));
        }
        assert_eq!(pairs.len(), 20);
        assert_eq!(c.choose(&[0], |f| f[2] > 1), None);
    }

    #[test]
    fn lengths_surround_the_blocks() {
        let tile: Tile = "BM=128,BN=32,STAGES=2".parse().unwrap();
        let op = Op::all().next().unwrap();
        let of = |phase| Problem::plain(op, phase, DType::Bf16, (64, 64), 64);
        assert_eq!(
            lengths(&tile, &of(PhaseName::Prefill)),
            [1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000]
        );
    }
}
