//! An entry made ready to run: operands resolved to slots, instructions to functions.

use super::decode::Depend;
use super::hopper::Async;
use super::ptx::ast::{Param, Space};
use super::regs::{AluFn, Regs, Slots};
use super::tensor::MmaFn;
use super::warpwide::CollectiveFn;
use super::wgmma::{Touch, WgOp, Wgmma};

/// What kind of work an instruction is, as [`crate::device::Counts`] names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    Mma,
    Wgmma,
    Alu,
    Fma,
    Special,
    Convert,
    Move,
    LoadGlobal,
    StoreGlobal,
    LoadShared,
    StoreShared,
    LoadLocal,
    StoreLocal,
    LoadConst,
    Ldmatrix,
    Stmatrix,
    CpAsync,
    Tma,
    Mbarrier,
    Atomic,
    Shuffle,
    Vote,
    Branch,
    Barrier,
    Other,
}

impl Class {
    /// The name that counts and descriptions use.
    pub fn name(self) -> &'static str {
        match self {
            Class::Mma => "mma",
            Class::Wgmma => "wgmma",
            Class::Alu => "alu",
            Class::Fma => "fma",
            Class::Special => "special",
            Class::Convert => "convert",
            Class::Move => "move",
            Class::LoadGlobal => "load_global",
            Class::StoreGlobal => "store_global",
            Class::LoadShared => "load_shared",
            Class::StoreShared => "store_shared",
            Class::LoadLocal => "load_local",
            Class::StoreLocal => "store_local",
            Class::LoadConst => "load_const",
            Class::Ldmatrix => "ldmatrix",
            Class::Stmatrix => "stmatrix",
            Class::CpAsync => "cp_async",
            Class::Tma => "tma",
            Class::Mbarrier => "mbarrier",
            Class::Atomic => "atomic",
            Class::Shuffle => "shuffle",
            Class::Vote => "vote",
            Class::Branch => "branch",
            Class::Barrier => "barrier",
            Class::Other => "other",
        }
    }
}

/// No guard.
pub const UNGUARDED: u16 = u16::MAX;

/// One instruction, ready to run.
#[derive(Debug, Clone, Copy)]
pub struct Inst {
    pub op: Op,
    /// Predicate slot times two, plus one if negated; or [`UNGUARDED`].
    pub guard: u16,
    pub class: Class,
    /// Belongs to the instruction before it and is not counted.
    pub continued: bool,
    /// Works on pairs of 16-bit floats.
    pub paired: bool,
    /// Index into [`Program::touches`], 0 for none.
    pub touch: u16,
    /// Index into [`Program::checks`], 0 for none.
    pub check: u32,
    /// PTX line.
    pub line: u32,
}

impl Inst {
    /// Values that a lane computes: two for pairs of 16-bit floats.
    pub fn values(&self) -> u64 {
        if self.paired { 2 } else { 1 }
    }
}

/// What an instruction does.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    Alu(AluFn, Slots),
    /// Indices into [`Program::mems`].
    Ld(u32),
    St(u32),
    Atom(u32),
    CpAsync(u32),
    Ldmatrix(u32),
    Stmatrix(u32),
    /// Function, and where its operands start in [`Program::pool`].
    Mma(MmaFn, u32),
    Warpgroup(WgOp),
    /// Needs every lane of the member mask, held by register slot `.2`, before it executes.
    Collective(CollectiveFn, Slots, u16),
    /// Target; a label's number until [`Program`] is complete.
    Bra(u32),
    Bar(Bar),
    /// Index into [`Program::asyncs`].
    Async(u32),
    CommitGroup,
    /// All but this many of the latest groups must have landed.
    WaitGroup(u32),
    WaitAll,
    /// The warp's steps into a 32- or 64-bit slot.
    Clock(u16, bool),
    Exit,
    Trap,
    Nop,
}

/// `bar.sync`, `bar.arrive`, `barrier.sync`, ...
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    /// 32-bit slot of the barrier's number.
    pub id: u16,
    /// 32-bit slot of the count of threads, or [`UNGUARDED`] for all.
    pub count: u16,
    pub arrive: bool,
    /// All threads of the warp execute it together.
    pub aligned: bool,
    /// `bar.red`: operation, source predicate slot times two plus negation, destination slot.
    pub reduce: Option<(Reduce, u16, u16)>,
}

/// The operation of `bar.red`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduce {
    And,
    Or,
    Popc,
}

/// The register of an address, by slot of the 32- or 64-bit file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Base {
    None,
    R32(u16),
    R64(u16),
}

/// The operation of `atom` or `red`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomOp {
    Add,
    Min,
    Max,
    And,
    Or,
    Xor,
    Exch,
    Cas,
    Inc,
    Dec,
}

/// The element of an atomic operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtomTy {
    U32,
    S32,
    F32,
    U64,
    S64,
    F64,
    F16,
    Bf16,
    F16x2,
    Bf16x2,
}

/// An access to memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Mem {
    pub space: Space,
    /// Bytes of an element: 1, 2, 4 or 8.
    pub size: u32,
    /// Elements a lane.
    pub n: u32,
    /// Sign-extend from `size` to the register.
    pub signed: bool,
    /// Registers are 64-bit slots.
    pub wide: bool,
    pub base: Base,
    pub offset: i64,
    /// Destinations of loads, sources of stores.
    pub regs: Vec<u16>,
    pub strength: Strength,
    pub extra: Extra,
}

/// What an access says of the order of others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strength {
    /// `.relaxed`, `.volatile` and all below, and every atomic.
    pub strong: bool,
    pub acquire: bool,
    pub release: bool,
    /// `.cta`: of no meaning to other CTAs.
    pub near: bool,
}

/// What some accesses have beside address and registers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Extra {
    None,
    /// `regs` = [destination, b, c]; `returns` is false for `red`.
    Atom {
        op: AtomOp,
        ty: AtomTy,
        returns: bool,
    },
    /// The global source; the shared destination is the access itself. `size` is the cp-size.
    CpAsync {
        from: Base,
        offset: i64,
        /// 32-bit slot of the bytes to read, the rest being zeroed.
        bytes: Option<u16>,
        /// Predicate slot times two plus negation: where true, nothing is read.
        ignore: Option<u16>,
    },
    /// ldmatrix, stmatrix: transposed or not.
    Matrix {
        transposed: bool,
    },
}

/// A register that a warp finds filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Preset {
    Const(u64),
    Tid(u8),
    Ntid(u8),
    Ctaid(u8),
    Nctaid(u8),
    Laneid,
    Warpid,
    Nwarpid,
    /// eq, le, lt, ge, gt
    Lanemask(u8),
    DynamicShared,
    TotalShared,
    /// Start of dynamic shared memory plus an offset.
    ExternShared(u64),
    /// `%clusterid`: of the cluster in the grid, by axis.
    Clusterid(u8),
    Nclusterid(u8),
    /// `%cluster_ctaid`: of the CTA in its cluster, by axis.
    ClusterCtaid(u8),
    ClusterNctaid(u8),
    ClusterCtarank,
    ClusterNctarank,
    /// A predicate: the launch or the entry says how large clusters are.
    ExplicitCluster,
}

/// The row of a register in its file: 32 bits, 64 bits, or predicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Slot {
    R32(u16),
    R64(u16),
    P(u16),
}

/// Registers that an instruction must find, or makes, initialised. Only those that some path
/// reads before writing are tracked at all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Check {
    /// Tracked registers read.
    pub reads: Vec<u16>,
    /// Tracked registers written.
    pub writes: Vec<u16>,
    /// Tracked register of the guard.
    pub guard: Option<u16>,
    /// Tracked registers read if operands say so when it runs.
    pub maybe: Vec<u16>,
}

/// A `.global` or `.const` variable with its initial bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleVar {
    pub name: String,
    pub constant: bool,
    pub bytes: Vec<u8>,
    /// Address of its first byte.
    pub base: u64,
}

/// One parameter as a launch must fill it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParamSlot {
    pub name: String,
    pub offset: u32,
    pub bytes: u32,
    pub array: bool,
    pub line: u32,
}

impl From<&Param<'_>> for ParamSlot {
    fn from(p: &Param<'_>) -> ParamSlot {
        ParamSlot {
            name: p.name.into(),
            offset: p.offset,
            bytes: p.bytes,
            array: p.array,
            line: p.line,
        }
    }
}

/// An entry ready to run.
#[derive(Debug, Clone)]
pub struct Program {
    pub params: Vec<ParamSlot>,
    pub maxntid: Option<[u32; 3]>,
    pub reqntid: Option<[u32; 3]>,
    /// `.reqnctapercluster`
    pub cluster: Option<[u32; 3]>,
    /// Registers of a thread at entry, where the entry says so: what `setmaxnreg` starts from.
    pub entry_registers: Option<u32>,
    pub insts: Vec<Inst>,
    pub mems: Vec<Mem>,
    pub asyncs: Vec<Async>,
    pub wgmmas: Vec<Wgmma>,
    /// Registers of `wgmma` that other instructions touch.
    pub touches: Vec<Touch>,
    /// Names of the sets in [`Touch`].
    pub set_names: Vec<String>,
    pub pool: Vec<u16>,
    pub checks: Vec<Check>,
    /// Names of tracked registers.
    pub tracked: Vec<String>,
    pub presets: Vec<(Slot, Preset)>,
    /// Rows of each file.
    pub rows32: usize,
    pub rows64: usize,
    pub preds: usize,
    pub static_shared: u32,
    pub shared_align: u32,
    pub local_bytes: u32,
    /// Most 32-bit registers alive at once.
    pub live_registers: u32,
    pub depend: Depend,
}

impl Program {
    /// It has a `setmaxnreg`.
    pub fn sets_registers(&self) -> bool {
        self.asyncs.iter().any(|a| matches!(a, Async::SetMaxNreg { .. }))
    }

    /// Where dynamic shared memory starts.
    pub fn dynamic_start(&self) -> u32 {
        self.static_shared.next_multiple_of(self.shared_align.max(16))
    }

    /// The product that instruction `pc` is.
    pub fn wgmma(&self, pc: usize) -> Option<&Wgmma> {
        match self.insts.get(pc)?.op {
            Op::Warpgroup(WgOp::Product(at)) => self.wgmmas.get(at as usize),
            _ => None,
        }
    }

    /// The registers of sets of [`Touch`], for people.
    pub fn set_names(&self, sets: u64) -> String {
        let names = self.set_names.iter().enumerate();
        let hit: Vec<_> = names.filter(|(i, _)| sets >> i & 1 != 0).map(|(_, n)| &n[..]).collect();
        hit.join(", ")
    }

    /// A warp's registers, all zero.
    pub fn empty_regs(&self) -> Regs {
        Regs {
            r32: vec![super::regs::Row([0; 32]); self.rows32],
            r64: vec![super::regs::Row([0; 32]); self.rows64],
            p: vec![0; self.preds],
        }
    }
}
