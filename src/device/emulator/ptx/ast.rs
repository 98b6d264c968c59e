//! The syntax tree of a PTX module. Names borrow from the text.

/// An operand or element type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    E4m3x2,
    E5m2x2,
    E4m3,
    E5m2,
}

impl Ty {
    /// The type of that suffix, without its dot.
    pub fn parse(s: &str) -> Option<Ty> {
        Some(match s {
            "pred" => Ty::Pred,
            "b8" => Ty::B8,
            "b16" => Ty::B16,
            "b32" => Ty::B32,
            "b64" => Ty::B64,
            "b128" => Ty::B128,
            "u8" => Ty::U8,
            "u16" => Ty::U16,
            "u32" => Ty::U32,
            "u64" => Ty::U64,
            "s8" => Ty::S8,
            "s16" => Ty::S16,
            "s32" => Ty::S32,
            "s64" => Ty::S64,
            "f16" => Ty::F16,
            "f16x2" => Ty::F16x2,
            "bf16" => Ty::Bf16,
            "bf16x2" => Ty::Bf16x2,
            "tf32" => Ty::Tf32,
            "f32" => Ty::F32,
            "f64" => Ty::F64,
            "e4m3x2" => Ty::E4m3x2,
            "e5m2x2" => Ty::E5m2x2,
            "e4m3" => Ty::E4m3,
            "e5m2" => Ty::E5m2,
            _ => return None,
        })
    }

    /// Width in bits; predicates count one.
    pub fn bits(self) -> u32 {
        match self {
            Ty::Pred => 1,
            Ty::B8 | Ty::U8 | Ty::S8 | Ty::E4m3 | Ty::E5m2 => 8,
            Ty::B16 | Ty::U16 | Ty::S16 | Ty::F16 | Ty::Bf16 | Ty::E4m3x2 | Ty::E5m2x2 => 16,
            Ty::B32 | Ty::U32 | Ty::S32 | Ty::F16x2 | Ty::Bf16x2 | Ty::Tf32 | Ty::F32 => 32,
            Ty::B64 | Ty::U64 | Ty::S64 | Ty::F64 => 64,
            Ty::B128 => 128,
        }
    }

    /// Width in bytes.
    pub fn bytes(self) -> u32 {
        self.bits().div_ceil(8)
    }

    pub fn is_signed(self) -> bool {
        matches!(self, Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }

    pub fn is_int(self) -> bool {
        matches!(self, Ty::U8 | Ty::U16 | Ty::U32 | Ty::U64 | Ty::S8 | Ty::S16 | Ty::S32 | Ty::S64)
    }
}

/// A state space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Space {
    Generic,
    Global,
    Shared,
    /// `.shared::cluster`: shared memory of any CTA of the cluster.
    Cluster,
    Local,
    Param,
    Const,
}

impl Space {
    pub fn name(self) -> &'static str {
        match self {
            Space::Generic => "generic",
            Space::Global => "global",
            Space::Shared => "shared",
            Space::Cluster => "shared::cluster",
            Space::Local => "local",
            Space::Param => "param",
            Space::Const => "const",
        }
    }
}

/// A module of PTX.
#[derive(Debug, Clone, PartialEq)]
pub struct Module<'a> {
    pub version: (u32, u32),
    pub target: &'a str,
    pub vars: Vec<Var<'a>>,
    pub entries: Vec<Entry<'a>>,
}

/// A variable in memory, of module or block scope.
#[derive(Debug, Clone, PartialEq)]
pub struct Var<'a> {
    pub space: Space,
    pub name: &'a str,
    pub align: u32,
    pub ty: Ty,
    /// Bytes, padding included; 0 for `.extern .shared x[]`.
    pub bytes: u64,
    pub is_extern: bool,
    /// Initial values from the start; the rest is zero. `None` without an initialiser.
    pub init: Option<Vec<Const>>,
    pub line: u32,
}

/// A literal or folded constant expression.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Const {
    /// Two's complement, 64 bits.
    Int(u64),
    F32(f32),
    F64(f64),
}

/// A parameter of an entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Param<'a> {
    pub name: &'a str,
    pub ty: Ty,
    pub align: u32,
    pub bytes: u32,
    /// From the start of the parameter block.
    pub offset: u32,
    /// Declared as an array.
    pub array: bool,
    pub line: u32,
}

/// An `.entry` with its directives.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<'a> {
    pub name: &'a str,
    pub params: Vec<Param<'a>>,
    /// `.maxntid`: the product bounds the CTA's threads.
    pub maxntid: Option<[u32; 3]>,
    /// `.reqntid`: exactly this block.
    pub reqntid: Option<[u32; 3]>,
    /// `.reqnctapercluster`.
    pub cluster: Option<[u32; 3]>,
    pub minnctapersm: Option<u32>,
    pub maxnreg: Option<u32>,
    pub body: Block<'a>,
    pub line: u32,
}

/// `{ ... }` with its own registers, variables and labels.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Block<'a> {
    pub regs: Vec<RegDecl<'a>>,
    pub vars: Vec<Var<'a>>,
    pub stmts: Vec<Stmt<'a>>,
}

/// `.reg .f32 x;` or, with a count, `x<4>` for x0 to x3.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RegDecl<'a> {
    pub name: &'a str,
    pub ty: Ty,
    pub count: Option<u32>,
    pub line: u32,
}

/// A statement of a block.
#[derive(Debug, Clone, PartialEq)]
pub enum Stmt<'a> {
    Label { name: &'a str, line: u32 },
    Inst(Instr<'a>),
    Block(Block<'a>),
}

/// One instruction.
#[derive(Debug, Clone, PartialEq)]
pub struct Instr<'a> {
    pub guard: Option<Guard<'a>>,
    /// `mma` of `mma.sync.aligned.m16n8k16...`.
    pub opcode: &'a str,
    /// The suffixes without their dots.
    pub mods: Vec<&'a str>,
    pub operands: Vec<Operand<'a>>,
    pub line: u32,
}

/// `@p` or `@!p`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Guard<'a> {
    pub pred: &'a str,
    pub negated: bool,
}

/// An operand as it is written.
#[derive(Debug, Clone, PartialEq)]
pub enum Operand<'a> {
    /// Register, variable, label, or special register with its dots (`%tid.x`).
    Name(&'a str),
    /// `x+16` outside brackets.
    NamePlus(&'a str, i64),
    /// `!p`
    Not(&'a str),
    /// `_`
    Sink,
    Const(Const),
    /// `p|q`
    Pair(Box<Operand<'a>>, Box<Operand<'a>>),
    /// `{a, b, c, d}`
    Vector(Vec<Operand<'a>>),
    /// `[base+offset]`, `[base, {c0, c1}]`
    Addr {
        base: Option<&'a str>,
        offset: i64,
        coords: Vec<Operand<'a>>,
    },
}
