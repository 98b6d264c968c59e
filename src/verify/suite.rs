//! The regression suite of a kernel: which cases it must pass.
//!
//! Every legal tile meets every precision and head dimension it is legal for; lengths, masks,
//! heads, states and input families are spread over those variants so that values of any two
//! axes meet wherever the number of cases allows.

use std::collections::HashSet;

use crate::kernel::{Kernel, KernelError, Tile};
use crate::op::{DType, Family, Op, Problem, attention, delta};

use super::trial::Case;

/// Cases a kernel gets at most, unless it has more variants than that.
const CASES: usize = 400;
/// Variants with many legal tiles still get this many cases each.
const LEAST_PER_VARIANT: usize = 2;
/// From this length on problems keep to few heads: the suite has to end in minutes on a CPU.
const LONG: usize = 500;

const ATTENTION_FAMILIES: [&str; 5] =
    ["random", "keys=identical", "keys=correlated", "logits=huge", "logits=sink"];

const DELTA_FAMILIES: [&str; 14] = [
    "random",
    "gate=strong",
    "gate=slow",
    "gate=mixed",
    "gate=zero",
    "gate=saturated",
    "gate=unbounded",
    "keys=identical",
    "keys=correlated",
    "beta=0",
    "beta=1",
    "gate=zero keys=identical beta=1",
    "gate=slow keys=correlated beta=1",
    "gate=saturated keys=identical",
];

/// Query and key/value heads; H and HV of the delta rules are the other way round.
const HEADS: [(usize, usize); 4] = [(1, 1), (2, 1), (4, 2), (3, 1)];
const BATCHES: [usize; 2] = [1, 2];
/// Tq beside Tkv: as many, fewer, more, one.
const CROSS: usize = 4;
/// Multiprocessors, in turns, of kernels whose grid fills the device: on all of them a case's CTAs
/// have one unit of work each, on few they have several.
const FEW: [Option<u32>; 4] = [Some(2), Some(5), None, Some(3)];
/// Multiprocessors beside the query and key heads of [`uneven`] cases.
const UNEVEN: [(u32, (usize, usize)); 3] = [(5, (2, 1)), (7, (2, 1)), (9, (3, 1))];
/// Off and on.
const FLAG: usize = 2;

/// The suite of a kernel, in an order that does not depend on the seed.
pub fn cases(kernel: &Kernel, seed: u64) -> Result<Vec<Case>, KernelError> {
    let variants = variants(kernel)?;
    let axes = Axes::new(kernel, &variants);
    let fills = kernel.fills_device();
    let per_variant = (CASES / variants.len().max(1)).max(LEAST_PER_VARIANT);
    let mut covering = Covering::new(axes.sizes());
    let mut cases: Vec<Case> = Vec::new();
    for v in &variants {
        let mut used = Vec::new();
        for _ in 0..per_variant.min(v.lengths.len()) {
            let fits = |free: &[usize]| {
                v.lengths.contains(&axes.lengths[free[0]])
                    && !used.contains(&free[0])
                    && axes.affordable(free)
                    && kernel.supports(&axes.problem(v, free)).is_ok()
                    && kernel.check_tile(&axes.problem(v, free), &v.tile).is_ok()
            };
            let Some(free) = covering.choose(&[v.tile_id, v.dtype_id, v.dims_id], fits) else {
                break;
            };
            used.push(free[0]);
            let plain = axes.problem(v, &free);
            let more = with_extras(&plain, cases.len());
            let does = kernel.supports(&more).is_ok() && kernel.check_tile(&more, &v.tile).is_ok();
            let problem = if does { more } else { plain };
            let family = axes.families[free[1]];
            let prefix = has_prefix_property(&problem) && cases.len().is_multiple_of(3);
            let multiprocessors = fills.then(|| FEW[cases.len() % FEW.len()]).flatten();
            let (kernel, tile) = (kernel.name.clone(), v.tile.clone());
            let most_steps = None;
            cases.push(Case {
                kernel,
                tile,
                problem,
                family,
                seed,
                prefix,
                multiprocessors,
                most_steps,
            });
        }
    }
    if fills {
        cases.extend(uneven(kernel, &variants, seed));
    }
    Ok(cases)
}

/// Long causal cases of a kernel whose grid fills the device, on numbers of multiprocessors among
/// which whole pairs of tiles, one long and one short, cannot be shared out evenly. For tiles that
/// have each value of each axis between them.
fn uneven(kernel: &Kernel, variants: &[Variant], seed: u64) -> Vec<Case> {
    let mut met = HashSet::new();
    let mut cases = Vec::new();
    for v in variants {
        let new = v.tile.0.iter().filter(|value| met.insert(*value)).count();
        let problem = |(many, few)| {
            let mut problem = plain(kernel.manifest.op, v.dtype, v.dims, 1000);
            if let Problem::Attention(s) = &mut problem {
                (s.hq, s.hkv, s.causal) = (many, few, true);
            }
            problem
        };
        for (multiprocessors, heads) in UNEVEN {
            let problem = problem(heads);
            if new > 0 && kernel.check_tile(&problem, &v.tile).is_ok() {
                cases.push(Case {
                    kernel: kernel.name.clone(),
                    tile: v.tile.clone(),
                    problem,
                    family: Family::default(),
                    seed,
                    prefix: false,
                    multiprocessors: Some(multiprocessors),
                    most_steps: None,
                });
            }
        }
    }
    cases
}

/// The problem in turns as it is, with a window, a soft cap, packed lengths, and all of them.
fn with_extras(problem: &Problem, turn: usize) -> Problem {
    let mut problem = problem.clone();
    if let Problem::Attention(s) = &mut problem {
        let turn = turn % 5;
        if matches!(turn, 1 | 4) && s.causal {
            s.extras.window = Some(s.tkv / 3 + 1);
        }
        if matches!(turn, 2 | 4) {
            s.extras.softcap = Some(20.0);
        }
        if matches!(turn, 3 | 4) {
            let (q, k) = (s.tq, s.tkv);
            s.pack(vec![[q.div_ceil(3), k.div_ceil(3)], [q, k], [1, k], [65, 63]]);
        }
    }
    problem
}

/// Whether outputs of early tokens cannot depend on later ones.
pub fn has_prefix_property(problem: &Problem) -> bool {
    match problem {
        Problem::Attention(s) => {
            let square = s.extras.lens.iter().all(|[q, k]| q == k);
            s.causal && s.tq == s.tkv && s.tq > 1 && square
        }
        Problem::GatedDeltaRule(s) | Problem::Kda(s) => s.t > 1,
    }
}

/// A tile at a precision and head dimensions: what is compiled on its own.
struct Variant {
    tile: Tile,
    dtype: DType,
    dims: (usize, usize),
    /// Lengths around this tile's edges.
    lengths: Vec<usize>,
    tile_id: usize,
    dtype_id: usize,
    dims_id: usize,
}

/// Head dimensions that the manifest allows: D and Dv, or K and V.
pub fn head_dims(kernel: &Kernel) -> Vec<(usize, usize)> {
    let of = |name: &str| -> Vec<usize> {
        let listed = kernel.manifest.shapes.get(name);
        listed.map_or(vec![64, 128], |all| all.iter().map(|&x| x as usize).collect())
    };
    match kernel.manifest.op {
        Op::Attention => {
            let values = match kernel.manifest.shapes.contains_key("Dv") {
                true => of("Dv"),
                false => vec![],
            };
            let pairs = of("D").into_iter().flat_map(|d| {
                let mut own = values.clone();
                if own.is_empty() {
                    own.push(d);
                }
                own.into_iter().map(move |dv| (d, dv))
            });
            let dtype = kernel.manifest.dtypes.first().copied().unwrap_or(DType::Bf16);
            let fits = |dims: &(usize, usize)| {
                kernel.supports(&plain(Op::Attention, dtype, *dims, 256)).is_ok()
            };
            pairs.filter(fits).collect()
        }
        Op::GatedDeltaRule | Op::Kda => {
            of("K").into_iter().flat_map(|k| of("V").into_iter().map(move |v| (k, v))).collect()
        }
    }
}

/// A problem of the kernel's operator: one sequence, one head, all flags off.
pub fn plain(op: Op, dtype: DType, dims: (usize, usize), t: usize) -> Problem {
    let scale = (dims.0 as f64).powf(-0.5);
    let shape = delta::Shape {
        dtype,
        b: 1,
        t,
        h: 1,
        hv: 1,
        k: dims.0,
        v: dims.1,
        initial_state: false,
        final_state: false,
        scale,
    };
    match op {
        Op::Attention => Problem::Attention(attention::Shape {
            dtype,
            b: 1,
            tq: t,
            tkv: t,
            hq: 1,
            hkv: 1,
            d: dims.0,
            causal: false,
            scale,
            extras: attention::Extras {
                dv: (dims.1 != dims.0).then_some(dims.1),
                ..Default::default()
            },
        }),
        Op::GatedDeltaRule => Problem::GatedDeltaRule(shape),
        Op::Kda => Problem::Kda(shape),
    }
}

fn variants(kernel: &Kernel) -> Result<Vec<Variant>, KernelError> {
    let mut tiles: Vec<Tile> = Vec::new();
    let mut all = Vec::new();
    for (dtype_id, &dtype) in kernel.manifest.dtypes.iter().enumerate() {
        for (dims_id, dims) in head_dims(kernel).into_iter().enumerate() {
            let problem = plain(kernel.manifest.op, dtype, dims, 256);
            for tile in kernel.tiles(&problem)? {
                let tile_id = tiles.iter().position(|t| *t == tile).unwrap_or_else(|| {
                    tiles.push(tile.clone());
                    tiles.len() - 1
                });
                let lengths = lengths(&tile);
                all.push(Variant { tile, dtype, dims, lengths, tile_id, dtype_id, dims_id });
            }
        }
    }
    Ok(all)
}

/// 1, 63, 1000, and one below, at and above each block length: those among the tile's values, and
/// the delta rules' usual chunk.
fn lengths(tile: &Tile) -> Vec<usize> {
    let mut all = vec![1, 63, 1000];
    let blocks = tile.0.values().filter(|&&x| (16..=256).contains(&x)).map(|&x| x as usize);
    all.extend(blocks.chain([64]).flat_map(|n| [n - 1, n, n + 1]));
    all.sort_unstable();
    all.dedup();
    all
}

/// The free axes: length, family, heads, batch and two of the operator's own.
struct Axes {
    op: Op,
    fixed: [usize; 3],
    lengths: Vec<usize>,
    families: Vec<Family>,
    own: [usize; 2],
}

impl Axes {
    fn new(kernel: &Kernel, variants: &[Variant]) -> Axes {
        let count = |id: fn(&Variant) -> usize| variants.iter().map(id).max().map_or(0, |n| n + 1);
        let mut lengths: Vec<_> = variants.iter().flat_map(|v| v.lengths.clone()).collect();
        lengths.sort_unstable();
        lengths.dedup();
        let op = kernel.manifest.op;
        let (families, own): (&[&str], _) = match op {
            Op::Attention => (&ATTENTION_FAMILIES, [FLAG, CROSS]),
            Op::GatedDeltaRule | Op::Kda => (&DELTA_FAMILIES, [FLAG, FLAG]),
        };
        Axes {
            op,
            fixed: [count(|v| v.tile_id), count(|v| v.dtype_id), count(|v| v.dims_id)],
            lengths,
            families: families.iter().map(|f| f.parse().expect("a family")).collect(),
            own,
        }
    }

    fn sizes(&self) -> Vec<usize> {
        let free = [
            self.lengths.len(),
            self.families.len(),
            HEADS.len(),
            BATCHES.len(),
            self.own[0],
            self.own[1],
        ];
        self.fixed.iter().copied().chain(free).collect()
    }

    fn affordable(&self, free: &[usize]) -> bool {
        self.lengths[free[0]] < LONG || (BATCHES[free[3]] == 1 && HEADS[free[2]].0 <= 2)
    }

    fn problem(&self, v: &Variant, free: &[usize]) -> Problem {
        let &[length, _, heads, batch, own0, own1] = free else { unreachable!("six free axes") };
        let (t, (many, few), b) = (self.lengths[length], HEADS[heads], BATCHES[batch]);
        let mut problem = plain(self.op, v.dtype, v.dims, t);
        match &mut problem {
            Problem::Attention(s) => {
                (s.b, s.hq, s.hkv, s.causal) = (b, many, few, own0 == 1);
                s.tq = [t, (t - t / 3).max(1), t + 37, 1][own1];
            }
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => {
                (s.b, s.h, s.hv) = (b, few, many);
                (s.initial_state, s.final_state) = (own0 == 1, own1 == 1);
            }
        }
        problem
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
    use std::collections::HashMap;

    use crate::device::Arg;

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
    fn extras_take_turns_where_a_kernel_has_them() {
        let registry = crate::kernel::Registry::embedded().unwrap();
        let met = |name: &str| {
            let all = cases(registry.get(name).unwrap(), 1).unwrap();
            let has = |f: fn(&attention::Extras) -> bool| {
                all.iter().any(|c| matches!(&c.problem, Problem::Attention(s) if f(&s.extras)))
            };
            [
                has(|e| e.window.is_some()),
                has(|e| e.softcap.is_some()),
                has(|e| !e.lens.is_empty()),
                has(|e| e.dv.is_some()),
            ]
        };
        assert_eq!(met("attention/prefill.sm90a"), [true; 4]);
        assert_eq!(met("attention/prefill.sm80"), [false; 4]);
    }

    #[test]
    fn lengths_surround_the_blocks() {
        let tile: Tile = "BM=128,BN=32,STAGES=2".parse().unwrap();
        assert_eq!(lengths(&tile), [1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 1000]);
    }

    /// On the emulated 132 multiprocessors every CTA of an unpacked case has one unit of work: what a
    /// persistent kernel hands over from one to the next is met on fewer.
    #[test]
    fn persistent_ctas_have_several_units() {
        let registry = crate::kernel::Registry::embedded().unwrap();
        for kernel in registry.kernels() {
            let all = cases(kernel, 1).unwrap();
            let few: Vec<_> = all.iter().filter(|c| c.multiprocessors.is_some()).collect();
            if !kernel.fills_device() {
                assert!(few.is_empty(), "{}", kernel.name);
                continue;
            }
            // CTAs of two units at least, of three, and pairs taken apart so that all have as much.
            let mut met: HashMap<String, [usize; 3]> = HashMap::new();
            for case in &few {
                let Problem::Attention(s) = &case.problem else { unreachable!("attention") };
                let launch = |sms: u32| {
                    let job = kernel.job_on(&case.problem, &case.tile, sms).unwrap();
                    job.launches.last().unwrap().clone()
                };
                let own = launch(case.multiprocessors.unwrap());
                let (ctas, units) = (own.grid[0], launch(1 << 14).grid[0]);
                let entry = kernel.manifest.entry.iter().find(|e| e.name == own.entry).unwrap();
                let rest = entry.params.iter().position(|p| p.name == "rest").unwrap();
                let apart = s.causal && own.args[rest] != Arg::U32(0);
                let tile = |axis: &str| format!("{axis}={}", case.tile.0[axis]);
                let mut kinds = vec![format!("packed={}", !s.extras.lens.is_empty())];
                kinds.extend(["CLUSTER", "PINGPONG", "QREGS", "WG"].map(tile));
                for kind in kinds {
                    let all = met.entry(format!("causal={} {kind}", s.causal)).or_default();
                    all[0] += usize::from(units > ctas);
                    all[1] += usize::from(units > 2 * ctas);
                    all[2] += usize::from(units > ctas && apart);
                }
            }
            assert_eq!(met.len(), 20, "{met:?}");
            for (kind, [two, three, apart]) in &met {
                assert!(*two >= 20 && *three >= 10, "{kind}: {met:?}");
                let whole = kind.contains("causal=false") || kind.contains("packed=true");
                assert!(whole || *apart >= 2, "{kind}: {met:?}");
            }
        }
    }
}
