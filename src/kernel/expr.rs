//! Expressions of manifests and the template environment: minijinja with PTX-friendly syntax.

use indexmap::IndexMap;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind, UndefinedBehavior, syntax::SyntaxConfig};

use super::manifest::Expr;
use crate::op::Scalar;

/// Names and values an expression or template sees.
pub type Context = IndexMap<String, Value>;

/// A scalar as expressions see it.
pub fn value(scalar: Scalar) -> Value {
    match scalar {
        Scalar::Bool(b) => Value::from(b),
        Scalar::Int(i) => Value::from(i),
        Scalar::Float(x) => Value::from(x),
        Scalar::Word(word) => Value::from(word),
    }
}

/// Variables `${ }`, blocks `<% %>`, comments `<# #>`, line statements `#`, line comments `##`;
/// undefined names are errors. Functions: `ceil_div(a, b)`, `min(a, b)`, `max(a, b)`, `log2(n)`
/// of a power of two, `vec(name, n, first=0)` for `{name0, name1, ...}`, `f32(x)` for PTX's
/// `0f` form, `fail(why)`.
pub fn environment<'e>() -> Environment<'e> {
    let mut env = Environment::new();
    let syntax = SyntaxConfig::builder()
        .variable_delimiters("${", "}")
        .block_delimiters("<%", "%>")
        .comment_delimiters("<#", "#>")
        .line_statement_prefix("#")
        .line_comment_prefix("##")
        .trim_blocks(true)
        .lstrip_blocks(true)
        .keep_trailing_newline(true)
        .build()
        .expect("valid delimiters");
    env.set_syntax(syntax);
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    env.set_debug(true);
    // A template is a few thousand lines; a runaway loop must not hang a launcher.
    env.set_fuel(Some(20_000_000));
    env.add_function("ceil_div", |a: i64, b: i64| match b {
        1.. => Ok((a + b - 1).div_euclid(b)),
        _ => Err(Error::new(ErrorKind::InvalidOperation, format!("ceil_div by {b}"))),
    });
    env.add_function("min", |a: i64, b: i64| a.min(b));
    env.add_function("max", |a: i64, b: i64| a.max(b));
    env.add_function("log2", |n: i64| match u64::try_from(n) {
        Ok(n) if n.is_power_of_two() => Ok(n.trailing_zeros()),
        _ => Err(Error::new(ErrorKind::InvalidOperation, format!("log2 of {n}, no power of two"))),
    });
    env.add_function("vec", |name: &str, n: i64, first: Option<i64>| {
        let first = first.unwrap_or(0);
        let all: Vec<_> = (first..first + n).map(|i| format!("{name}{i}")).collect();
        format!("{{{}}}", all.join(", "))
    });
    env.add_function("f32", |x: f64| format!("0f{:08X}", (x as f32).to_bits()));
    env.add_function("fail", |why: &str| -> Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, why.to_string()))
    });
    env
}

/// Evaluates expressions, with messages that carry the expression.
pub struct Evaluator {
    env: Environment<'static>,
}

impl Default for Evaluator {
    fn default() -> Evaluator {
        Evaluator { env: environment() }
    }
}

impl Evaluator {
    /// The value of an expression.
    ///
    /// # Errors
    /// It does not parse or evaluate, or its value is undefined.
    pub fn value(&self, expr: &str, context: &Context) -> Result<Value, String> {
        let compiled = self.env.compile_expression(expr).map_err(|e| format!("`{expr}`: {e}"))?;
        let value = compiled
            .eval(Value::from_pairs(context.clone()))
            .map_err(|e| format!("`{expr}`: {e}"))?;
        if value.is_undefined() {
            return Err(format!("`{expr}` names something that is not defined here"));
        }
        Ok(value)
    }

    /// The value of a manifest's expression or plain number.
    ///
    /// # Errors
    /// As of [`Evaluator::value`].
    pub fn number(&self, expr: &Expr, context: &Context) -> Result<Value, String> {
        match expr {
            Expr::Int(i) => Ok(Value::from(*i)),
            Expr::Float(x) => Ok(Value::from(*x)),
            Expr::Text(text) => self.value(text, context),
        }
    }

    /// As [`Evaluator::number`], an integer.
    ///
    /// # Errors
    /// As of [`Evaluator::value`], or the value is no integer.
    pub fn int(&self, expr: &Expr, context: &Context) -> Result<i64, String> {
        let value = self.number(expr, context)?;
        i64::try_from(value.clone()).map_err(|_| format!("{expr} is {value}, not an integer"))
    }

    /// As [`Evaluator::number`], from 0 to 2^32 - 1.
    ///
    /// # Errors
    /// As of [`Evaluator::int`], or the value is out of that range.
    pub fn unsigned(&self, expr: &Expr, context: &Context) -> Result<u32, String> {
        let value = self.int(expr, context)?;
        u32::try_from(value).map_err(|_| format!("{expr} is {value}, not in 0..2^32"))
    }

    /// As [`Evaluator::number`], as fp64.
    ///
    /// # Errors
    /// As of [`Evaluator::value`], or the value is no number.
    pub fn float(&self, expr: &Expr, context: &Context) -> Result<f64, String> {
        let value = self.number(expr, context)?;
        f64::try_from(value.clone()).map_err(|_| format!("{expr} is {value}, not a number"))
    }

    /// Whether a condition holds; anything but a boolean is an error.
    ///
    /// # Errors
    /// As of [`Evaluator::value`], or the value is no boolean.
    pub fn holds(&self, expr: &str, context: &Context) -> Result<bool, String> {
        let value = self.value(expr, context)?;
        bool::try_from(value.clone())
            .map_err(|_| format!("`{expr}` is {value}, neither true nor false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_out_of_range_is_shown_as_it_is_written() {
        let expressions = Evaluator::default();
        let context = Context::default();
        for (expr, said) in [
            (Expr::Int(40_000_000_000), "40000000000 is 40000000000, not in 0..2^32"),
            (Expr::Text("3 - 5".into()), "`3 - 5` is -2, not in 0..2^32"),
        ] {
            assert_eq!(expressions.unsigned(&expr, &context).unwrap_err(), said);
        }
    }
}
