//! Syntax tree to [`Program`]: names to slots, instructions to functions over a warp.

mod alu;
mod atomic;
mod carry;
mod depend;
mod flow;
mod hopper;
mod mem;
mod mods;
mod needs;
mod rounded;
mod table;
mod warp;
mod wgmma;
mod wide;

use std::collections::HashMap;

pub use depend::Depend;

use super::hopper::Async;
use super::program::*;
use super::ptx::ast::*;
use super::ptx::{PtxError, Result};
use super::regs::{AluFn, Slots};
use super::wgmma::Wgmma;

pub use mods::Mods;
use needs::Given;

/// Base address of the first module variable; each has 2^36 bytes to itself.
pub const MODULE_BASE: u64 = 0x7000 << 36;

/// Most bytes of a module's variables.
const MAX_MODULE_BYTES: u64 = 1 << 28;

/// The variables of a module that live in global memory, in order of declaration.
///
/// # Errors
/// Variables that take more than 256 MiB together, or an initial value that is none of its type,
/// with the line.
pub fn module_vars(m: &Module<'_>) -> Result<Vec<ModuleVar>> {
    let mut out = Vec::new();
    let mut total = 0;
    for v in &m.vars {
        if !matches!(v.space, Space::Global | Space::Const) {
            continue;
        }
        total += v.bytes;
        if total > MAX_MODULE_BYTES {
            let message =
                format!("variables of the module take more than {MAX_MODULE_BYTES} bytes");
            return Err(PtxError::new(v.line, message));
        }
        let mut bytes = Vec::new();
        for &c in v.init.iter().flatten() {
            let bits = const_bits(c, v.ty, v.line)?;
            bytes.extend_from_slice(&bits.to_le_bytes()[..v.ty.bytes().min(8) as usize]);
        }
        bytes.resize(v.bytes as usize, 0);
        let base = MODULE_BASE + ((out.len() as u64) << 36);
        let constant = v.space == Space::Const;
        out.push(ModuleVar { name: v.name.into(), constant, bytes, base });
    }
    Ok(out)
}

/// Makes one entry of a module ready to run.
///
/// # Errors
/// The first instruction, operand or register that the emulator does not know, or that the
/// `.version` or `.target` of the text does not have, with its line.
pub fn decode(m: &Module<'_>, entry: &Entry<'_>) -> Result<Program> {
    let mut d = Decoder::new(m, entry)?;
    d.given().allows_module(entry.cluster.map(|_| entry.line))?;
    d.block(&entry.body)?;
    d.finish(entry)
}

/// A constant's bits in a register of type `ty`.
fn const_bits(c: Const, ty: Ty, line: u32) -> Result<u64> {
    let fail = |why: &str| Err(PtxError::new(line, why));
    let bits = match (c, ty) {
        (Const::Int(_), Ty::F32 | Ty::F64) => {
            return fail("a float operand wants a float constant such as 1.0 or 0f3F800000");
        }
        (Const::Int(i), _) => i,
        (Const::F32(x), Ty::F64) => f64::from(x).to_bits(),
        (Const::F32(x), Ty::F32 | Ty::B32 | Ty::Tf32) => x.to_bits().into(),
        (Const::F64(x), Ty::F32 | Ty::B32 | Ty::Tf32) => (x as f32).to_bits().into(),
        (Const::F64(x), Ty::F64 | Ty::B64) => x.to_bits(),
        (Const::F32(x), Ty::F16) => super::num::f32_to_f16(x).into(),
        (Const::F64(x), Ty::F16) => super::num::f32_to_f16(x as f32).into(),
        (Const::F32(x), Ty::Bf16) => super::num::f32_to_bf16(x).into(),
        (Const::F64(x), Ty::Bf16) => super::num::f32_to_bf16(x as f32).into(),
        _ => return fail("a float constant cannot stand for a whole number"),
    };
    Ok(match ty.bits() {
        bits_of @ 1..=63 => bits & (u64::MAX >> (64 - bits_of)),
        _ => bits,
    })
}

/// A declared register.
#[derive(Debug, Clone, Copy)]
struct Reg {
    slot: Slot,
    ty: Ty,
    /// Index into the list of declared registers.
    id: u32,
}

#[derive(Debug, Clone, Copy)]
enum Symbol {
    /// Offset in shared memory.
    Shared(u64),
    /// In dynamic shared memory.
    ExternShared,
    Local(u64),
    /// Address of a module variable.
    Global(u64),
    Param(u32),
}

#[derive(Default)]
struct Scope<'a> {
    regs: HashMap<String, Reg>,
    symbols: HashMap<&'a str, Symbol>,
    labels: HashMap<&'a str, u32>,
}

/// Declared registers that an instruction reads and writes.
#[derive(Debug, Clone, Default)]
struct Uses {
    reads: Vec<u32>,
    writes: Vec<u32>,
    guard: Option<u32>,
    /// Read if operands say so when it runs.
    maybe: Vec<u32>,
}

/// Name and 32-bit words of a declared register.
struct Declared {
    name: String,
    words: u32,
}

struct Decoder<'a> {
    module: &'a Module<'a>,
    scopes: Vec<Scope<'a>>,
    declared: Vec<Declared>,
    insts: Vec<Inst>,
    uses: Vec<Uses>,
    mems: Vec<Mem>,
    asyncs: Vec<Async>,
    wgmmas: Vec<Wgmma>,
    products: Vec<wgmma::Operands>,
    pool: Vec<u16>,
    presets: Vec<(Slot, Preset)>,
    preset_slots: HashMap<(u32, Preset), Slot>,
    rows: [usize; 3],
    /// Instruction behind each label, once met.
    labels: Vec<Option<u32>>,
    module_shared: HashMap<&'a str, u64>,
    static_shared: u64,
    shared_align: u32,
    local: u64,
    // Of the instruction at hand.
    line: u32,
    guard: u16,
    class: Class,
    now: Uses,
    first: bool,
    paired: bool,
}

/// Predicate slots that every program has: always true, and a sink.
const TRUE: u16 = 0;
pub const SINK: u16 = 1;

impl<'a> Decoder<'a> {
    fn new(module: &'a Module<'a>, entry: &'a Entry<'a>) -> Result<Decoder<'a>> {
        let mut globals = Scope::default();
        let mut n = 0;
        for v in &module.vars {
            match v.space {
                Space::Global | Space::Const => {
                    globals.symbols.insert(v.name, Symbol::Global(MODULE_BASE + (n << 36)));
                    n += 1;
                }
                Space::Shared if v.is_extern => {
                    globals.symbols.insert(v.name, Symbol::ExternShared);
                }
                // Space is set aside when an entry names it.
                Space::Shared => {}
                _ => {
                    return Err(PtxError::new(
                        v.line,
                        format!(
                            "`{}`: a .{} variable belongs into an entry",
                            v.name,
                            v.space.name()
                        ),
                    ));
                }
            }
        }
        for p in &entry.params {
            globals.symbols.insert(p.name, Symbol::Param(p.offset));
        }
        Ok(Decoder {
            module,
            scopes: vec![globals],
            declared: Vec::new(),
            insts: Vec::new(),
            uses: Vec::new(),
            mems: Vec::new(),
            asyncs: Vec::new(),
            wgmmas: Vec::new(),
            products: Vec::new(),
            pool: Vec::new(),
            presets: vec![(Slot::P(TRUE), Preset::Const(1))],
            preset_slots: HashMap::new(),
            // Row 0 of the 32- and 64-bit files is the sink.
            rows: [1, 1, 2],
            labels: Vec::new(),
            module_shared: HashMap::new(),
            static_shared: 0,
            shared_align: module
                .vars
                .iter()
                .filter(|v| v.space == Space::Shared && v.is_extern)
                .map(|v| v.align)
                .max()
                .unwrap_or(1),
            local: 0,
            line: entry.line,
            guard: UNGUARDED,
            class: Class::Other,
            now: Uses::default(),
            first: true,
            paired: false,
        })
    }

    /// What the text says it is for.
    fn given(&self) -> Given<'a> {
        Given { version: self.module.version, target: self.module.target }
    }

    fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(PtxError::new(self.line, message))
    }

    fn new_slot(&mut self, bits: u32) -> Result<Slot> {
        let (file, make): (usize, fn(u16) -> Slot) = match bits {
            1 => (2, Slot::P),
            64 => (1, Slot::R64),
            _ => (0, Slot::R32),
        };
        let slot = self.rows[file];
        // Guards hold a predicate's slot doubled.
        let limit = if bits == 1 { 0x7fff } else { 0xffff };
        if slot >= limit {
            return self.error(format!("more than {limit} registers of {bits} bits"));
        }
        self.rows[file] += 1;
        Ok(make(slot as u16))
    }

    fn block(&mut self, b: &'a Block<'a>) -> Result<()> {
        let mut scope = Scope::default();
        for stmt in &b.stmts {
            if let Stmt::Label { name, line } = stmt {
                if scope.labels.insert(name, self.labels.len() as u32).is_some() {
                    return Err(PtxError::new(*line, format!("label `{name}` stands twice")));
                }
                self.labels.push(None);
            }
        }
        self.scopes.push(scope);
        for r in &b.regs {
            self.line = r.line;
            match r.count {
                None => self.declare(r.name.into(), r.ty)?,
                Some(n) => {
                    for i in 0..n {
                        self.declare(format!("{}{i}", r.name), r.ty)?;
                    }
                }
            }
        }
        for v in &b.vars {
            self.line = v.line;
            let symbol = match v.space {
                Space::Shared if v.is_extern => {
                    self.shared_align = self.shared_align.max(v.align);
                    Symbol::ExternShared
                }
                Space::Shared => Symbol::Shared(self.take_shared(v.bytes, v.align)?),
                Space::Local => {
                    let at = self.local.next_multiple_of(v.align.into());
                    self.local = at + v.bytes;
                    if self.local > 512 << 10 {
                        return self.error("local memory takes more than 512 KiB a thread");
                    }
                    Symbol::Local(at)
                }
                _ => {
                    return self.error(format!(
                        "`{}`: a .{} variable belongs outside of entries",
                        v.name,
                        v.space.name()
                    ));
                }
            };
            self.scope().symbols.insert(v.name, symbol);
        }
        for stmt in &b.stmts {
            match stmt {
                Stmt::Label { name, .. } => {
                    let id = self.scope().labels[name];
                    self.labels[id as usize] = Some(self.insts.len() as u32);
                }
                Stmt::Block(inner) => self.block(inner)?,
                Stmt::Inst(i) => self.instruction(i)?,
            }
        }
        self.scopes.pop();
        Ok(())
    }

    fn take_shared(&mut self, bytes: u64, align: u32) -> Result<u64> {
        let at = self.static_shared.next_multiple_of(align.into());
        self.static_shared = at + bytes;
        if self.static_shared > 1 << 20 {
            return self.error("static shared memory takes more than 1 MiB");
        }
        self.shared_align = self.shared_align.max(align);
        Ok(at)
    }

    fn scope(&mut self) -> &mut Scope<'a> {
        self.scopes.last_mut().expect("the module's scope stays")
    }

    fn declare(&mut self, name: String, ty: Ty) -> Result<()> {
        if self.declared.len() >= super::ptx::MAX_REGISTERS as usize {
            return self.error(format!("more than {} registers", super::ptx::MAX_REGISTERS));
        }
        let slot = self.new_slot(ty.bits().min(64))?;
        if ty == Ty::B128 {
            self.given().allows_wide(self.line)?;
            self.new_slot(64)?;
        }
        let id = self.declared.len() as u32;
        let words = match ty.bits() {
            1 => 0,
            b => b.div_ceil(32),
        };
        if self.scope().regs.insert(name.clone(), Reg { slot, ty, id }).is_some() {
            return self.error(format!("register `{name}` is declared twice in one block"));
        }
        self.declared.push(Declared { name, words });
        Ok(())
    }

    fn find_reg(&self, name: &str) -> Option<Reg> {
        self.scopes.iter().rev().find_map(|s| s.regs.get(name)).copied()
    }

    fn find_symbol(&mut self, name: &str) -> Result<Option<Symbol>> {
        if let Some(&s) = self.scopes.iter().rev().find_map(|s| s.symbols.get(name)) {
            return Ok(Some(s));
        }
        let module = self.module;
        let var = module.vars.iter().find(|v| v.space == Space::Shared && v.name == name);
        let Some(v) = var else { return Ok(None) };
        let at = match self.module_shared.get(v.name) {
            Some(&at) => at,
            None => {
                let at = self.take_shared(v.bytes, v.align)?;
                self.module_shared.insert(v.name, at);
                at
            }
        };
        Ok(Some(Symbol::Shared(at)))
    }

    fn label(&self, name: &str) -> Result<u32> {
        match self.scopes.iter().rev().find_map(|s| s.labels.get(name)) {
            Some(&id) => Ok(id),
            None => self.error(format!("there is no label `{name}` in reach")),
        }
    }

    /// A slot that holds `preset` from the start.
    fn preset(&mut self, preset: Preset, bits: u32) -> Result<u16> {
        let bits = if bits == 64 || bits == 1 { bits } else { 32 };
        let slot = match self.preset_slots.get(&(bits, preset)) {
            Some(&s) => s,
            None => {
                let s = self.new_slot(bits)?;
                self.presets.push((s, preset));
                self.preset_slots.insert((bits, preset), s);
                s
            }
        };
        Ok(match slot {
            Slot::R32(i) | Slot::R64(i) | Slot::P(i) => i,
        })
    }

    fn constant(&mut self, bits: u64, width: u32) -> Result<u16> {
        self.preset(Preset::Const(bits), width)
    }

    /// A declared register read by the instruction at hand.
    fn read(&mut self, name: &str) -> Result<Reg> {
        match self.find_reg(name) {
            Some(r) => {
                self.now.reads.push(r.id);
                Ok(r)
            }
            None => self.error(format!("there is no register `{name}`")),
        }
    }

    fn fit(&self, name: &str, r: Reg, ty: Ty) -> Result<u16> {
        let bits = |t: Ty| t.bits().max(if t == Ty::Pred { 1 } else { 16 });
        if bits(r.ty) != bits(ty) {
            return self.error(format!(
                "`{name}` has {} bits, but this operand has {}",
                r.ty.bits(),
                ty.bits()
            ));
        }
        if ty == Ty::B128 {
            return self.error("this instruction takes no registers of 128 bits here");
        }
        Ok(match r.slot {
            Slot::R32(i) | Slot::R64(i) | Slot::P(i) => i,
        })
    }

    /// Slot of a source of type `ty`: register, constant, special register or address.
    fn src(&mut self, o: &Operand<'_>, ty: Ty) -> Result<u16> {
        match o {
            Operand::Name(name) if self.find_reg(name).is_some() => {
                let r = self.read(name)?;
                self.fit(name, r, ty)
            }
            _ if ty == Ty::B128 => {
                self.error("this instruction takes no operands of 128 bits here")
            }
            Operand::Const(c) if ty != Ty::Pred => {
                let bits = const_bits(*c, ty, self.line)?;
                self.constant(bits, ty.bits())
            }
            Operand::Const(Const::Int(1)) => Ok(TRUE),
            Operand::Name(name) => self.named(name, 0, ty),
            Operand::NamePlus(name, offset) => self.named(name, *offset, ty),
            Operand::Sink => self.error("`_` cannot be read"),
            _ => self.error("a register or constant is expected as this operand"),
        }
    }

    /// A special register, or the address of a variable.
    fn named(&mut self, name: &str, offset: i64, ty: Ty) -> Result<u16> {
        if let Some(symbol) = self.find_symbol(name)? {
            let preset = match symbol {
                Symbol::Shared(at) => Preset::Const(at.wrapping_add_signed(offset)),
                Symbol::ExternShared => Preset::ExternShared(offset as u64),
                Symbol::Local(at) => Preset::Const(at.wrapping_add_signed(offset)),
                Symbol::Global(at) if ty.bits() == 64 => {
                    Preset::Const(at.wrapping_add_signed(offset))
                }
                Symbol::Global(_) => {
                    return self.error(format!("the address of `{name}` takes 64 bits"));
                }
                Symbol::Param(at) => Preset::Const(u64::from(at).wrapping_add_signed(offset)),
            };
            if ty.bits() < 32 {
                return self.error(format!("the address of `{name}` takes at least 32 bits"));
            }
            return self.preset(preset, ty.bits());
        }
        if let Some(preset) = special(name)
            && offset == 0
            && (ty.bits() >= 16 || preset == Preset::ExplicitCluster)
            && (ty == Ty::Pred) == (preset == Preset::ExplicitCluster)
        {
            self.given().allows_register(name, self.line)?;
            return self.preset(preset, ty.bits());
        }
        if name.starts_with('%') && name.contains('.') || special(name).is_some() {
            return self.error(format!("special register `{name}` is not supported here"));
        }
        self.error(format!("`{name}` is neither a register nor a variable"))
    }

    /// Slot of a destination of type `ty`.
    fn dst(&mut self, o: &Operand<'_>, ty: Ty) -> Result<u16> {
        match o {
            Operand::Name(name) => match self.find_reg(name) {
                Some(r) => {
                    self.now.writes.push(r.id);
                    self.fit(name, r, ty)
                }
                None => self.error(format!("there is no register `{name}`")),
            },
            Operand::Sink => Ok(if ty == Ty::Pred { SINK } else { 0 }),
            _ => self.error("a register is expected as the destination"),
        }
    }

    /// Predicate source: slot and whether it is negated.
    fn pred_src(&mut self, o: &Operand<'_>) -> Result<(u16, bool)> {
        match o {
            Operand::Not(name) => {
                let r = self.read(name)?;
                Ok((self.fit(name, r, Ty::Pred)?, true))
            }
            o => Ok((self.src(o, Ty::Pred)?, false)),
        }
    }

    fn int_const(&self, o: &Operand<'_>, what: &str) -> Result<u64> {
        match o {
            Operand::Const(Const::Int(i)) => Ok(*i),
            _ => self.error(format!("{what} must be a whole-number constant")),
        }
    }

    fn push(&mut self, op: Op) {
        let uses = std::mem::take(&mut self.now);
        self.uses.push(uses);
        self.insts.push(Inst {
            op,
            guard: self.guard,
            class: self.class,
            continued: !self.first,
            paired: self.paired,
            touch: 0,
            check: 0,
            line: self.line,
        });
        self.first = false;
    }

    fn alu(&mut self, f: AluFn, o: [u16; 5], imm: u32) {
        self.push(Op::Alu(f, Slots { o, imm }));
    }

    fn instruction(&mut self, i: &'a Instr<'a>) -> Result<()> {
        self.line = i.line;
        self.now = Uses::default();
        self.guard = UNGUARDED;
        self.first = true;
        self.paired = i.mods.iter().any(|m| m.ends_with("16x2"));
        self.class = Class::Other;
        if let Some(g) = i.guard {
            let Some(r) = self.find_reg(g.pred) else {
                return self.error(format!("there is no predicate `{}`", g.pred));
            };
            self.guard = self.fit(g.pred, r, Ty::Pred)? << 1 | u16::from(g.negated);
            self.now.guard = Some(r.id);
        }
        let at = self.insts.len();
        let guard = self.now.guard;
        self.given().allows(i)?;
        let mut m = Mods::new(i);
        let known = self.rare_op(i, &mut m)?
            || self.rounded_op(i, &mut m)?
            || self.alu_op(i, &mut m)?
            || self.mem_op(i, &mut m)?
            || self.warp_op(i, &mut m)?
            || self.hopper_op(i, &mut m)?;
        if !known {
            let mods: String = i.mods.iter().map(|m| format!(".{m}")).collect();
            return self
                .error(format!("the emulator does not know the instruction `{}{mods}`", i.opcode));
        }
        m.finish()?;
        for u in &mut self.uses[at..] {
            u.guard = guard;
        }
        Ok(())
    }

    fn args(
        &self,
        i: &'a Instr<'a>,
        n: std::ops::RangeInclusive<usize>,
    ) -> Result<&'a [Operand<'a>]> {
        if n.contains(&i.operands.len()) {
            return Ok(&i.operands);
        }
        let wanted = if n.start() == n.end() {
            n.start().to_string()
        } else {
            format!("{} to {}", n.start(), n.end())
        };
        self.error(format!("`{}` takes {wanted} operands, not {}", i.opcode, i.operands.len()))
    }

    fn finish(mut self, entry: &Entry<'_>) -> Result<Program> {
        // Falling off the end is an exit; a label may stand there.
        self.line = self.insts.last().map_or(entry.line, |i| i.line);
        self.guard = UNGUARDED;
        self.class = Class::Branch;
        self.now = Uses::default();
        self.first = false;
        self.push(Op::Exit);
        for i in &mut self.insts {
            if let Op::Bra(label) = &mut i.op {
                match self.labels[*label as usize] {
                    Some(at) => *label = at,
                    None => return Err(PtxError::new(i.line, "this label's block never ends")),
                }
            }
        }
        let (touches, set_names) = self.touches();
        let facts = flow::analyse(&self.insts, &self.uses, &self.declared);
        for (inst, &check) in self.insts.iter_mut().zip(&facts.check_of) {
            inst.check = check;
        }
        // A wait whose answer nobody reads teaches nothing and holds nobody up.
        for &at in &facts.unread {
            if let Op::Async(index) = self.insts[at].op
                && let Async::MbarWait { done, .. } = &mut self.asyncs[index as usize]
            {
                *done = SINK;
            }
        }
        let depend = depend::depend(&self.insts, &self.uses);
        let entry_registers = hopper::entry_registers(&self.asyncs, entry);
        Ok(Program {
            params: entry.params.iter().map(ParamSlot::from).collect(),
            maxntid: entry.maxntid,
            reqntid: entry.reqntid,
            cluster: entry.cluster,
            entry_registers,
            insts: self.insts,
            mems: self.mems,
            asyncs: self.asyncs,
            wgmmas: self.wgmmas,
            touches,
            set_names,
            pool: self.pool,
            checks: facts.checks,
            tracked: facts.tracked,
            presets: self.presets,
            rows32: self.rows[0],
            rows64: self.rows[1],
            preds: self.rows[2],
            static_shared: self.static_shared as u32,
            shared_align: self.shared_align,
            local_bytes: self.local as u32,
            live_registers: facts.live_registers,
            depend,
        })
    }
}

fn special(name: &str) -> Option<Preset> {
    let axis = |base: &str| {
        let rest = name.strip_prefix(base)?;
        [".x", ".y", ".z"].iter().position(|&a| a == rest).map(|i| i as u8)
    };
    if let Some(a) = axis("%tid") {
        return Some(Preset::Tid(a));
    }
    if let Some(a) = axis("%ntid") {
        return Some(Preset::Ntid(a));
    }
    if let Some(a) = axis("%ctaid") {
        return Some(Preset::Ctaid(a));
    }
    if let Some(a) = axis("%nctaid") {
        return Some(Preset::Nctaid(a));
    }
    if let Some(a) = axis("%clusterid") {
        return Some(Preset::Clusterid(a));
    }
    if let Some(a) = axis("%nclusterid") {
        return Some(Preset::Nclusterid(a));
    }
    if let Some(a) = axis("%cluster_ctaid") {
        return Some(Preset::ClusterCtaid(a));
    }
    if let Some(a) = axis("%cluster_nctaid") {
        return Some(Preset::ClusterNctaid(a));
    }
    Some(match name {
        "%laneid" => Preset::Laneid,
        "%warpid" => Preset::Warpid,
        "%nwarpid" => Preset::Nwarpid,
        "%lanemask_eq" => Preset::Lanemask(0),
        "%lanemask_le" => Preset::Lanemask(1),
        "%lanemask_lt" => Preset::Lanemask(2),
        "%lanemask_ge" => Preset::Lanemask(3),
        "%lanemask_gt" => Preset::Lanemask(4),
        "%dynamic_smem_size" => Preset::DynamicShared,
        "%total_smem_size" | "%aggr_smem_size" => Preset::TotalShared,
        // The driver's to define.
        _ if name.strip_prefix("%envreg").is_some_and(|n| n.parse().is_ok_and(|n: u8| n < 32)) => {
            Preset::Const(0)
        }
        // Far below 2^32 steps, and all in one wave.
        "%smid" | "%gridid" | "%clock_hi" | "%globaltimer_hi" => Preset::Const(0),
        "%nsmid" => Preset::Const(1),
        "%is_explicit_cluster" => Preset::ExplicitCluster,
        "%cluster_ctarank" => Preset::ClusterCtarank,
        "%cluster_nctarank" => Preset::ClusterNctarank,
        "WARP_SZ" => Preset::Const(32),
        _ => return None,
    })
}
