//! Constant expressions.

use super::Result;
use super::ast::Const;
use super::lex::Tok;
use super::parse::Parser;

/// Operators from loose to tight.
const LEVELS: [&str; 7] = ["|", "^", "&", "<>", "LR", "+-", "*/%"];
/// Level of products: what a term of a sum is made of.
pub const PRODUCT: usize = 6;

impl Parser<'_> {
    /// A constant expression, folded.
    pub(super) fn constant(&mut self) -> Result<Const> {
        self.deeper()?;
        let c = self.binary(0)?;
        let c = if self.eat('?') {
            let a = self.constant()?;
            self.expect(':')?;
            let b = self.constant()?;
            if truthy(c) { a } else { b }
        } else {
            c
        };
        self.depth -= 1;
        Ok(c)
    }

    /// Operators of `level` of [`LEVELS`] and tighter.
    pub(super) fn binary(&mut self, level: usize) -> Result<Const> {
        if level == LEVELS.len() {
            return self.unary();
        }
        let mut left = self.binary(level + 1)?;
        loop {
            let Tok::P(op) = self.peek() else { return Ok(left) };
            if !LEVELS[level].contains(op) {
                return Ok(left);
            }
            self.next();
            let right = self.binary(level + 1)?;
            left = match fold(op, left, right) {
                Some(c) => c,
                None => {
                    let op = match op {
                        'L' => "<<".to_owned(),
                        'R' => ">>".to_owned(),
                        op => op.to_string(),
                    };
                    return self.error(format!("cannot compute `{op}` in this constant"));
                }
            };
        }
    }

    fn unary(&mut self) -> Result<Const> {
        self.deeper()?;
        let c = match self.peek() {
            Tok::Int(i) => {
                self.next();
                Const::Int(i)
            }
            Tok::F32(x) => {
                self.next();
                Const::F32(x)
            }
            Tok::F64(x) => {
                self.next();
                Const::F64(x)
            }
            Tok::P('-') => {
                self.next();
                match self.unary()? {
                    Const::Int(i) => Const::Int(i.wrapping_neg()),
                    Const::F32(x) => Const::F32(-x),
                    Const::F64(x) => Const::F64(-x),
                }
            }
            Tok::P('+') => {
                self.next();
                self.unary()?
            }
            Tok::P(op @ ('~' | '!')) => {
                self.next();
                match (op, self.unary()?) {
                    ('~', Const::Int(i)) => Const::Int(!i),
                    ('!', c) => Const::Int(u64::from(!truthy(c))),
                    _ => return self.error("`~` wants a whole number"),
                }
            }
            Tok::P('(') => {
                self.next();
                if let Tok::Dot("s64" | "u64") = self.peek() {
                    self.next();
                    self.expect(')')?;
                    self.unary()?
                } else {
                    let c = self.constant()?;
                    self.expect(')')?;
                    c
                }
            }
            _ => return self.unexpected("an operand"),
        };
        self.depth -= 1;
        Ok(c)
    }
}

fn truthy(c: Const) -> bool {
    match c {
        Const::Int(i) => i != 0,
        Const::F32(x) => x != 0.0,
        Const::F64(x) => x != 0.0,
    }
}

fn fold(op: char, a: Const, b: Const) -> Option<Const> {
    let float = |c| match c {
        Const::Int(i) => i as i64 as f64,
        Const::F32(x) => f64::from(x),
        Const::F64(x) => x,
    };
    if let (Const::Int(a), Const::Int(b)) = (a, b) {
        return Some(Const::Int(match op {
            '|' => a | b,
            '^' => a ^ b,
            '&' => a & b,
            '<' => u64::from((a as i64) < b as i64),
            '>' => u64::from(a as i64 > b as i64),
            'L' => a.checked_shl(b.try_into().ok()?)?,
            'R' => (a as i64).checked_shr(b.try_into().ok()?)? as u64,
            '+' => a.wrapping_add(b),
            '-' => a.wrapping_sub(b),
            '*' => a.wrapping_mul(b),
            '/' => (a as i64).checked_div(b as i64)? as u64,
            '%' => (a as i64).checked_rem(b as i64)? as u64,
            _ => return None,
        }));
    }
    let (a, b) = (float(a), float(b));
    Some(Const::F64(match op {
        '+' => a + b,
        '-' => a - b,
        '*' => a * b,
        '/' => a / b,
        _ => return None,
    }))
}
