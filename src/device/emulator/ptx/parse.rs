//! Tokens to the syntax tree, by recursive descent.

use super::ast::*;
use super::constant::PRODUCT;
use super::lex::{Tok, Token, lex};
use super::{PtxError, Result};

/// Nesting of blocks, and of parentheses in constants, beyond which a text is refused.
const MAX_DEPTH: u32 = 64;
/// Registers that one entry may declare.
pub const MAX_REGISTERS: u32 = 60_000;
/// Bytes that one variable may take.
const MAX_VAR_BYTES: u64 = 1 << 28;

/// Reads a module.
///
/// # Errors
/// The first text that is no PTX, with its line.
pub fn parse(text: &str) -> Result<Module<'_>> {
    let tokens = lex(text)?;
    Parser { text, tokens, at: 0, depth: 0 }.module()
}

pub(super) struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Token<'a>>,
    at: usize,
    pub(super) depth: u32,
}

/// What a declaration said before its name.
#[derive(Default)]
struct Head {
    space: Option<Space>,
    align: Option<u32>,
    ty: Option<Ty>,
    vector: u32,
    is_extern: bool,
}

impl<'a> Parser<'a> {
    pub(super) fn peek(&self) -> Tok<'a> {
        self.tokens[self.at].tok
    }

    fn peek2(&self) -> Tok<'a> {
        self.tokens.get(self.at + 1).map_or(Tok::End, |t| t.tok)
    }

    fn line(&self) -> u32 {
        self.tokens[self.at].line
    }

    pub(super) fn next(&mut self) -> Tok<'a> {
        let tok = self.tokens[self.at].tok;
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        tok
    }

    pub(super) fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(PtxError::new(self.line(), message))
    }

    pub(super) fn unexpected<T>(&self, wanted: &str) -> Result<T> {
        let got = match self.peek() {
            Tok::Word(w) => format!("`{w}`"),
            Tok::Dot(w) => format!("`.{w}`"),
            Tok::Int(i) => format!("`{i}`"),
            Tok::Huge => "an integer of more than 64 bits".into(),
            Tok::F32(x) => format!("`{x}`"),
            Tok::F64(x) => format!("`{x}`"),
            Tok::Str => "a string".into(),
            Tok::P('L') => "`<<`".into(),
            Tok::P('R') => "`>>`".into(),
            Tok::P(c) => format!("`{c}`"),
            Tok::End => "the end of the text".into(),
        };
        self.error(format!("{wanted} is expected, not {got}"))
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        let hit = self.peek() == Tok::P(c);
        if hit {
            self.next();
        }
        hit
    }

    pub(super) fn expect(&mut self, c: char) -> Result<()> {
        if self.eat(c) { Ok(()) } else { self.unexpected(&format!("`{c}`")) }
    }

    fn word(&mut self, wanted: &str) -> Result<&'a str> {
        match self.peek() {
            Tok::Word(w) => {
                self.next();
                Ok(w)
            }
            _ => self.unexpected(wanted),
        }
    }

    fn uint(&mut self, wanted: &str) -> Result<u32> {
        let line = self.line();
        match self.constant()? {
            Const::Int(i) if i <= u64::from(u32::MAX) => Ok(i as u32),
            c => {
                let c = match c {
                    Const::Int(i) => (i as i64).to_string(),
                    Const::F32(x) => x.to_string(),
                    Const::F64(x) => x.to_string(),
                };
                let message =
                    format!("{wanted} must be a whole number up to {}, not {c}", u32::MAX);
                Err(PtxError::new(line, message))
            }
        }
    }

    pub(super) fn deeper(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.error(format!("nested more than {MAX_DEPTH} deep"));
        }
        Ok(())
    }

    fn module(&mut self) -> Result<Module<'a>> {
        let mut m = Module { version: (0, 0), target: "", vars: Vec::new(), entries: Vec::new() };
        loop {
            match self.peek() {
                Tok::End => break,
                Tok::Dot("version") => {
                    self.next();
                    m.version = match self.next() {
                        Tok::F64(v) => (v as u32, (v * 10.0).round() as u32 % 10),
                        _ => return self.error("`.version` wants a number such as 8.0"),
                    };
                }
                Tok::Dot("target") => {
                    self.next();
                    m.target = self.word("a target such as sm_80")?;
                    while self.eat(',') {
                        self.word("a target option")?;
                    }
                }
                Tok::Dot("address_size") => {
                    self.next();
                    if self.next() != Tok::Int(64) {
                        return self.error("`.address_size` must be 64");
                    }
                }
                Tok::Dot("file") => {
                    while matches!(self.peek2(), Tok::Int(_) | Tok::Str | Tok::P(',')) {
                        self.next();
                    }
                    self.next();
                }
                Tok::Dot("section") => self.skip_section()?,
                Tok::Dot("pragma") => while !matches!(self.next(), Tok::P(';') | Tok::End) {},
                Tok::Dot("visible" | "weak") => {
                    self.next();
                }
                Tok::Dot("entry") => {
                    let entry = self.entry()?;
                    if m.entries.iter().any(|e| e.name == entry.name) {
                        return Err(PtxError::new(
                            entry.line,
                            format!("entry `{}` is defined twice", entry.name),
                        ));
                    }
                    m.entries.push(entry);
                }
                Tok::Dot("func") => {
                    return self.error("`.func` is not supported: inline it as a macro");
                }
                Tok::Dot(_) => {
                    let vars = self.variables()?;
                    m.vars.extend(vars);
                }
                Tok::P(';') => {
                    self.next();
                }
                _ => return self.unexpected("a directive such as `.entry`"),
            }
        }
        if m.version == (0, 0) {
            return Err(PtxError::new(1, "`.version` is missing"));
        }
        if m.target.is_empty() {
            return Err(PtxError::new(1, "`.target` is missing"));
        }
        Ok(m)
    }

    fn skip_section(&mut self) -> Result<()> {
        while !matches!(self.peek(), Tok::P('{') | Tok::End) {
            self.next();
        }
        self.expect('{')?;
        while !matches!(self.peek(), Tok::P('}') | Tok::End) {
            self.next();
        }
        self.expect('}')
    }

    fn entry(&mut self) -> Result<Entry<'a>> {
        let line = self.line();
        self.next();
        let name = self.word("the entry's name")?;
        let mut params = Vec::new();
        if self.eat('(') && !self.eat(')') {
            let mut end = 0;
            loop {
                let p = self.param(end)?;
                end = p.offset + p.bytes;
                params.push(p);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(')')?;
        }
        let mut e = Entry {
            name,
            params,
            maxntid: None,
            reqntid: None,
            cluster: None,
            minnctapersm: None,
            maxnreg: None,
            body: Block::default(),
            line,
        };
        loop {
            match self.peek() {
                Tok::Dot("maxntid") => e.maxntid = Some(self.triple()?),
                Tok::Dot("reqntid") => e.reqntid = Some(self.triple()?),
                Tok::Dot("reqnctapercluster") => e.cluster = Some(self.triple()?),
                Tok::Dot("minnctapersm" | "maxnctapersm") => {
                    self.next();
                    e.minnctapersm = Some(self.uint("the count")?);
                }
                Tok::Dot("maxnreg") => {
                    self.next();
                    e.maxnreg = Some(self.uint("`.maxnreg`")?);
                }
                Tok::Dot("maxclusterrank") => {
                    self.next();
                    self.uint("`.maxclusterrank`")?;
                }
                Tok::Dot("explicitcluster" | "noreturn" | "blocksareclusters") => {
                    self.next();
                }
                Tok::Dot("pragma") => while !matches!(self.next(), Tok::P(';') | Tok::End) {},
                Tok::P('{') => break,
                _ => return self.unexpected("`{` or a performance directive"),
            }
        }
        e.body = self.block()?;
        Ok(e)
    }

    fn triple(&mut self) -> Result<[u32; 3]> {
        self.next();
        let mut out = [1; 3];
        for slot in &mut out {
            *slot = self.uint("a dimension")?;
            if !self.eat(',') {
                break;
            }
        }
        Ok(out)
    }

    fn param(&mut self, end: u32) -> Result<Param<'a>> {
        let line = self.line();
        if self.next() != Tok::Dot("param") {
            return Err(PtxError::new(line, "`.param` is expected here"));
        }
        let (mut ty, mut align) = (None, None);
        while let Tok::Dot(d) = self.peek() {
            self.next();
            match d {
                "align" if ty.is_none() => align = Some(self.uint("`.align`")?),
                // The alignment of what a pointer points to.
                "align" => drop(self.uint("`.align`")?),
                "ptr" | "global" | "shared" | "const" | "local" => {}
                _ => match Ty::parse(d) {
                    Some(t) => ty = Some(t),
                    None => return self.error(format!("`.{d}` is no type of a parameter")),
                },
            }
        }
        let Some(ty) = ty else { return self.error("the parameter has no type") };
        let name = self.word("the parameter's name")?;
        let (mut bytes, mut array) = (ty.bytes(), false);
        if self.eat('[') {
            let n = self.uint("the array's length")?;
            self.expect(']')?;
            bytes = match bytes.checked_mul(n) {
                Some(b) if b <= 1 << 15 => b,
                _ => return self.error(format!("parameter `{name}` takes more than 32 KiB")),
            };
            array = true;
        }
        let align = self.alignment(align, ty)?;
        let offset = end.next_multiple_of(align);
        if offset + bytes > 1 << 15 {
            return self.error("the parameters take more than 32 KiB");
        }
        Ok(Param { name, ty, align, bytes, offset, array, line })
    }

    fn alignment(&self, given: Option<u32>, ty: Ty) -> Result<u32> {
        match given {
            None => Ok(ty.bytes()),
            Some(a) if a.is_power_of_two() && a <= 1 << 16 => Ok(a),
            Some(a) => self.error(format!("`.align {a}` is not a power of two up to 65536")),
        }
    }

    /// `.shared .align 16 .b8 x[64], y;`
    fn variables(&mut self) -> Result<Vec<Var<'a>>> {
        let mut h = Head { vector: 1, ..Head::default() };
        while let Tok::Dot(d) = self.peek() {
            match d {
                "extern" => h.is_extern = true,
                "visible" | "weak" | "common" => {}
                "shared" | "shared::cta" => h.space = Some(Space::Shared),
                "global" => h.space = Some(Space::Global),
                "const" => h.space = Some(Space::Const),
                "local" => h.space = Some(Space::Local),
                "v2" => h.vector = 2,
                "v4" => h.vector = 4,
                "align" => {
                    self.next();
                    h.align = Some(self.uint("`.align`")?);
                    continue;
                }
                _ => match Ty::parse(d) {
                    Some(Ty::Pred) => return self.error("a variable cannot be `.pred`"),
                    Some(t) => h.ty = Some(t),
                    None => return self.error(format!("`.{d}` is not a known directive")),
                },
            }
            self.next();
        }
        let (Some(space), Some(ty)) = (h.space, h.ty) else {
            return self.error("a declaration needs a state space and a type");
        };
        let mut out = Vec::new();
        loop {
            out.push(self.variable(&h, space, ty)?);
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')?;
        Ok(out)
    }

    fn variable(&mut self, h: &Head, space: Space, ty: Ty) -> Result<Var<'a>> {
        let line = self.line();
        let name = self.word("the variable's name")?;
        let mut bytes = Some(u64::from(ty.bytes() * h.vector));
        let mut open = false;
        while self.eat('[') {
            if self.eat(']') {
                open = true;
                continue;
            }
            let n = self.uint("the array's length")?;
            bytes = bytes.and_then(|b| b.checked_mul(n.into()));
            self.expect(']')?;
        }
        let mut init = None;
        if self.eat('=') {
            let mut values = Vec::new();
            self.initialiser(&mut values)?;
            if open {
                bytes = Some(u64::from(ty.bytes()) * values.len() as u64);
                open = false;
            }
            init = Some(values);
        }
        if open && !h.is_extern {
            return self.error(format!("array `{name}` has no length"));
        }
        let bytes = match bytes {
            Some(b) if b <= MAX_VAR_BYTES => b,
            _ => return self.error(format!("`{name}` takes more than {MAX_VAR_BYTES} bytes")),
        };
        if init.as_ref().is_some_and(|v| v.len() as u64 * u64::from(ty.bytes()) > bytes) {
            return self.error(format!("`{name}` has more initial values than elements"));
        }
        if init.is_some() && !matches!(space, Space::Global | Space::Const) {
            return self.error(format!("a {} variable cannot be initialised", space.name()));
        }
        let align = self.alignment(h.align, ty)?.max(ty.bytes() * h.vector);
        let bytes = if open { 0 } else { bytes };
        Ok(Var { space, name, align, ty, bytes, is_extern: h.is_extern, init, line })
    }

    fn initialiser(&mut self, out: &mut Vec<Const>) -> Result<()> {
        if !self.eat('{') {
            out.push(self.constant()?);
            return Ok(());
        }
        self.deeper()?;
        while !self.eat('}') {
            self.initialiser(out)?;
            if !self.eat(',') {
                self.expect('}')?;
                break;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn block(&mut self) -> Result<Block<'a>> {
        self.deeper()?;
        self.expect('{')?;
        let mut b = Block::default();
        loop {
            match self.peek() {
                Tok::P('}') => {
                    self.next();
                    self.depth -= 1;
                    return Ok(b);
                }
                Tok::P('{') => b.stmts.push(Stmt::Block(self.block()?)),
                Tok::P(';') => {
                    self.next();
                }
                Tok::Dot("reg") => self.registers(&mut b.regs)?,
                Tok::Dot("loc") => {
                    let line = self.line();
                    while self.line() == line && self.peek() != Tok::End {
                        self.next();
                    }
                }
                Tok::Dot("pragma") => while !matches!(self.next(), Tok::P(';') | Tok::End) {},
                Tok::Dot(_) => {
                    let vars = self.variables()?;
                    b.vars.extend(vars);
                }
                Tok::Word(name) if self.peek2() == Tok::P(':') => {
                    let line = self.line();
                    self.next();
                    self.next();
                    b.stmts.push(Stmt::Label { name, line });
                }
                Tok::Word(_) | Tok::P('@') => b.stmts.push(Stmt::Inst(self.instruction()?)),
                _ => return self.unexpected("an instruction, a label or `}`"),
            }
        }
    }

    fn registers(&mut self, out: &mut Vec<RegDecl<'a>>) -> Result<()> {
        self.next();
        let ty = match self.next() {
            Tok::Dot(d) => match Ty::parse(d) {
                Some(t) => t,
                None => return self.error(format!("`.{d}` is no register type")),
            },
            _ => return self.error("`.reg` wants a type"),
        };
        loop {
            let line = self.line();
            let name = self.word("a register's name")?;
            let mut count = None;
            if self.eat('<') {
                let n = match self.next() {
                    Tok::Int(n) if n <= u64::from(MAX_REGISTERS) => n as u32,
                    _ => {
                        return self.error(format!(
                            "`{name}<..>` wants a count of at most {MAX_REGISTERS}"
                        ));
                    }
                };
                self.expect('>')?;
                count = Some(n);
            }
            out.push(RegDecl { name, ty, count, line });
            if !self.eat(',') {
                break;
            }
        }
        self.expect(';')
    }

    fn instruction(&mut self) -> Result<Instr<'a>> {
        let line = self.line();
        let mut guard = None;
        if self.eat('@') {
            let negated = self.eat('!');
            guard = Some(Guard { pred: self.word("a predicate")?, negated });
        }
        let opcode = self.word("an instruction")?;
        let mut mods = Vec::new();
        while let Token { tok: Tok::Dot(m), glued: true, .. } = self.tokens[self.at] {
            mods.push(m);
            self.next();
        }
        let mut operands = Vec::new();
        if !self.eat(';') {
            loop {
                operands.push(self.operand()?);
                if !self.eat(',') {
                    break;
                }
            }
            self.expect(';')?;
        }
        Ok(Instr { guard, opcode, mods, operands, line })
    }

    fn operand(&mut self) -> Result<Operand<'a>> {
        let first = self.operand_part()?;
        if self.eat('|') {
            let second = self.operand_part()?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn operand_part(&mut self) -> Result<Operand<'a>> {
        match self.peek() {
            Tok::Word("_") => {
                self.next();
                Ok(Operand::Sink)
            }
            Tok::Word(_) => {
                let name = self.dotted()?;
                if matches!(self.peek(), Tok::P('+' | '-')) {
                    let offset = self.offset()?;
                    return Ok(Operand::NamePlus(name, offset));
                }
                Ok(Operand::Name(name))
            }
            Tok::P('!') => {
                self.next();
                Ok(Operand::Not(self.word("a predicate")?))
            }
            Tok::P('{') => {
                self.next();
                let mut items = Vec::new();
                loop {
                    if self.peek() == Tok::P('{') {
                        return self.error("a vector cannot hold a vector");
                    }
                    items.push(self.operand_part()?);
                    if !self.eat(',') {
                        break;
                    }
                }
                self.expect('}')?;
                Ok(Operand::Vector(items))
            }
            Tok::P('[') => self.address(),
            _ => Ok(Operand::Const(self.constant()?)),
        }
    }

    /// `%tid.x`, `a`
    fn dotted(&mut self) -> Result<&'a str> {
        let name = self.word("a name")?;
        match self.tokens[self.at] {
            Token { tok: Tok::Dot(d), glued: true, .. } => {
                self.next();
                // Both are slices of the text with one dot between them.
                let start = name.as_ptr() as usize - self.text.as_ptr() as usize;
                Ok(&self.text[start..start + name.len() + 1 + d.len()])
            }
            _ => Ok(name),
        }
    }

    /// `+ 16`, `- 4 + 8`: what follows a base.
    fn offset(&mut self) -> Result<i64> {
        let mut sum = 0i64;
        loop {
            let negative = match self.peek() {
                Tok::P('+') => false,
                Tok::P('-') => true,
                _ => return Ok(sum),
            };
            self.next();
            let Const::Int(term) = self.binary(PRODUCT)? else {
                return self.error("an offset must be a whole number");
            };
            let term = term as i64;
            sum = sum.wrapping_add(if negative { term.wrapping_neg() } else { term });
        }
    }

    fn address(&mut self) -> Result<Operand<'a>> {
        self.expect('[')?;
        let mut base = None;
        let mut offset;
        match self.peek() {
            Tok::Word(_) => {
                base = Some(self.dotted()?);
                offset = self.offset()?;
            }
            _ => {
                let line = self.line();
                // `[16 + smem]` is as legal as `[smem + 16]`.
                match self.binary(PRODUCT)? {
                    Const::Int(i) => offset = i as i64,
                    _ => return Err(PtxError::new(line, "an address must be a whole number")),
                }
                if self.peek() == Tok::P('+') && matches!(self.peek2(), Tok::Word(_)) {
                    self.next();
                    base = Some(self.dotted()?);
                }
                offset = offset.wrapping_add(self.offset()?);
            }
        }
        let mut coords = Vec::new();
        if self.eat(',') {
            match self.operand_part()? {
                Operand::Vector(v) => coords = v,
                _ => return self.error("`{` with the coordinates is expected behind the comma"),
            }
        }
        self.expect(']')?;
        Ok(Operand::Addr { base, offset, coords })
    }
}
