//! `wgmma`, and which of its registers other instructions touch.

use super::super::tensor::Sum;
use super::super::tensor::rule::Rule;
use super::super::wgmma::{From, Touch, WgOp, Wgmma, loads};
use super::*;

/// Sets of registers that can be told apart; one more would not fit a word.
const MAX_SETS: usize = 63;

/// Declared registers of one product.
#[derive(Default)]
pub(super) struct Operands {
    d: Vec<u32>,
    a: Vec<u32>,
}

impl<'a> Decoder<'a> {
    pub(super) fn wgmma(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        let op =
            m.need(&[("fence", 0), ("commit_group", 1), ("wait_group", 2), ("mma_async", 3)])?;
        if !(m.flag("sync") & m.flag("aligned")) {
            return m.unknown();
        }
        if op == 3 {
            self.class = Class::Wgmma;
            return self.product(i, m);
        }
        self.class = Class::Barrier;
        let op = match op {
            0 => WgOp::Fence,
            1 => WgOp::Commit,
            _ => {
                let a = self.args(i, 1..=1)?;
                let n = self.int_const(&a[0], "the number of groups")?;
                WgOp::Wait(n.min(u32::MAX.into()) as u32)
            }
        };
        if !matches!(op, WgOp::Wait(_)) {
            self.args(i, 0..=0)?;
        }
        self.push(Op::Warpgroup(op));
        Ok(())
    }

    fn product(&mut self, i: &'a Instr<'a>, m: &mut Mods<'a>) -> Result<()> {
        let Some(shape) = m.prefixed("m64n") else { return m.unknown() };
        let [cd, ta, tb] = [m.ty()?, m.ty()?, m.ty()?];
        let (Some(la), Some(lb)) = (loads(ta), loads(tb)) else { return m.unknown() };
        let fp8 = |t: Ty| matches!(t, Ty::E4m3 | Ty::E5m2);
        let half = cd == Ty::F16;
        let size = shape
            .split_once('k')
            .and_then(|(n, k)| Some((n.parse::<u32>().ok()?, k.parse::<usize>().ok()?)));
        let Some((n, k)) = size else { return m.unknown() };
        let legal = n % 8 == 0
            && (8..=256).contains(&n)
            && k == la.k
            && (ta == tb || fp8(ta) && fp8(tb))
            && (cd == Ty::F32 || half && (ta == Ty::F16 || fp8(ta)));
        if !legal {
            return m.unknown();
        }
        let short = la.b_mn.is_some();
        let from_registers = matches!(i.operands.get(1), Some(Operand::Vector(_)));
        // Descriptors may be transposed, of 16-bit elements.
        let transposes = usize::from(short) * if from_registers { 1 } else { 2 };
        let args = self.args(i, 6 + transposes..=6 + transposes)?;
        let mut operands = Operands::default();
        let count = n / if half { 4 } else { 2 };
        let list = |d: &mut Self, o: &Operand<'_>, n: u32, ids: &mut Vec<u32>| {
            let Operand::Vector(list) = o else {
                return d.error("accumulators of wgmma are a vector in braces");
            };
            if list.len() != n as usize {
                return d
                    .error(format!("this operand of wgmma has {n} registers, not {}", list.len()));
            }
            let mut slots = Vec::new();
            for o in list {
                let reg = match o {
                    Operand::Name(name) => d.find_reg(name),
                    _ => None,
                };
                let Some(reg) = reg else {
                    return d.error("the operands of wgmma are registers");
                };
                ids.push(reg.id);
                slots.push(d.src(o, Ty::B32)?);
            }
            Ok(slots)
        };
        let d = list(self, &args[0], count, &mut operands.d)?;
        // Whether accumulators are read is only known when it runs.
        self.now.reads.clear();
        let a = if from_registers {
            let slots = list(self, &args[1], 4, &mut operands.a)?;
            From::Registers([slots[0], slots[1], slots[2], slots[3]])
        } else {
            From::Shared(self.src(&args[1], Ty::B64)?)
        };
        let b = self.src(&args[2], Ty::B64)?;
        let (p, negated) = match &args[3] {
            Operand::Const(Const::Int(0)) => (TRUE, true),
            o => self.pred_src(o)?,
        };
        self.now.writes.extend(&operands.d);
        self.now.maybe.extend(&operands.d);
        let mut imm = [0; 4];
        for (x, o) in imm.iter_mut().zip(&args[4..]) {
            *x = self.int_const(o, "scales and transposes of wgmma")? as i64;
        }
        let scale = |x: i64| match x {
            1 => Ok(0),
            -1 => Ok(1 << 31),
            _ => self.error(format!("imm-scale of wgmma is 1 or -1, not {x}")),
        };
        let flip = [scale(imm[0])?, scale(imm[1])?];
        if imm[2..].iter().any(|x| !matches!(x, 0 | 1)) {
            return self.error("imm-trans of wgmma is 0 or 1");
        }
        let (a_mn, b_mn) =
            if from_registers { (false, imm[2] == 1) } else { (imm[2] == 1, imm[3] == 1) };
        let load_b = if b_mn { lb.b_mn.unwrap_or(lb.b) } else { lb.b };
        let rule = if fp8(ta) { Rule::FP8 } else { Rule::WIDE };
        let name = match ta {
            Ty::Bf16 => "bf16",
            Ty::F16 => "fp16",
            Ty::Tf32 => "tf32",
            _ => "fp8",
        };
        let at = self.wgmmas.len() as u32;
        self.wgmmas.push(Wgmma {
            sum: Sum { rule, k, half },
            n,
            d,
            a,
            a_mn,
            b,
            b_mn,
            load_a: la.a,
            load_b,
            accumulate: p << 1 | u16::from(negated),
            flip,
            name,
            sets: [0; 2],
        });
        self.products.push(operands);
        self.push(Op::Warpgroup(WgOp::Product(at)));
        Ok(())
    }

    /// Names the sets of registers that products use, and says which an instruction touches.
    pub(super) fn touches(&mut self) -> (Vec<Touch>, Vec<String>) {
        let mut touches = vec![Touch::default()];
        let mut names: Vec<String> = Vec::new();
        if self.products.is_empty() {
            return (touches, names);
        }
        // For each register the operands it stands in; registers that stand in the same ones are a
        // set.
        let mut stands: Vec<Vec<u32>> = vec![Vec::new(); self.declared.len()];
        for (k, p) in self.products.iter().enumerate() {
            p.d.iter().for_each(|&r| stands[r as usize].push(2 * k as u32));
            p.a.iter().for_each(|&r| stands[r as usize].push(2 * k as u32 + 1));
        }
        let mut sets: HashMap<&[u32], (usize, u32)> = HashMap::new();
        let mut set_of = vec![0u64; self.declared.len()];
        for (r, list) in stands.iter().enumerate() {
            if list.is_empty() {
                continue;
            }
            let next = sets.len();
            let (set, members) = sets.entry(list).or_insert((next, 0));
            *members += 1;
            if *set >= MAX_SETS {
                continue;
            }
            set_of[r] = 1 << *set;
            if *members == 1 {
                names.push(format!("`{}`", self.declared[r].name));
            } else if *members == 2 {
                names[*set].push_str(" and others");
            }
        }
        let bits = |list: &[u32]| list.iter().fold(0, |m, &r| m | set_of[r as usize]);
        for (w, p) in self.wgmmas.iter_mut().zip(&self.products) {
            w.sets = [bits(&p.d), bits(&p.a)];
        }
        let mut index: HashMap<(u64, u64), u16> = HashMap::from([((0, 0), 0)]);
        for (inst, uses) in self.insts.iter_mut().zip(&self.uses) {
            if matches!(inst.op, Op::Warpgroup(_)) {
                continue;
            }
            let t = Touch { reads: bits(&uses.reads), writes: bits(&uses.writes) };
            let next = touches.len();
            let at = *index.entry((t.reads, t.writes)).or_insert(next.min(0xffff) as u16);
            if usize::from(at) == next {
                touches.push(t);
            }
            inst.touch = if usize::from(at) < touches.len() { at } else { 0 };
        }
        (touches, names)
    }
}
