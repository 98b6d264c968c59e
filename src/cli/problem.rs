//! Problems as a person writes them: `dtype=fp16,Tq=1000,causal=true`.

use crate::op::{DType, Op, Problem, Scalar, TensorSpec, attention, delta};

/// A small problem of the operator, the start for [`apply`].
pub fn default(op: Op) -> Problem {
    let dtype = DType::Bf16;
    let scale = 128f64.powf(-0.5);
    let shape = delta::Shape {
        dtype,
        b: 1,
        t: 256,
        h: 1,
        hv: 1,
        k: 128,
        v: 128,
        initial_state: false,
        final_state: true,
        scale,
    };
    match op {
        Op::Attention => Problem::Attention(attention::Shape {
            dtype,
            b: 1,
            tq: 256,
            tkv: 256,
            hq: 1,
            hkv: 1,
            d: 128,
            causal: false,
            scale,
            extras: attention::Extras::default(),
        }),
        Op::GatedDeltaRule => Problem::GatedDeltaRule(shape),
        Op::Kda => Problem::Kda(shape),
    }
}

/// The problem in a few words, for tables whose kernel names the operator:
/// `bf16 B=1 T=512 Hq=16 Hkv=4 D=128 causal`.
pub fn short(problem: &Problem) -> String {
    let mut text = problem.dtype().name().to_string();
    let square = matches!(problem, Problem::Attention(s) if s.tq == s.tkv);
    let (vars, lens) = problem.shown();
    for (name, value) in vars {
        match (name, value) {
            ("Tq", value) if square => text += &format!(" T={value}"),
            ("Tkv", _) if square => {}
            // What nearly every case has says nothing.
            ("final_state", Scalar::Bool(yes)) => text += if yes { "" } else { " no_final_state" },
            (name, Scalar::Bool(true)) => text += &format!(" {name}"),
            (name, Scalar::Int(n)) => text += &format!(" {name}={n}"),
            ("softcap", value) => text += &format!(" softcap={value}"),
            _ => {}
        }
    }
    lens.map_or(text.clone(), |lens| format!("{text} lens={lens}"))
}

/// Sets variables of a problem, by the names of [`Problem::vars`] and `dtype`; for attention `T`
/// sets both `Tq` and `Tkv`, `lens=1000+16x512` packs sequences of these lengths, and `window=0`
/// and `softcap=0` mean none. The scale follows the head dimension unless given.
pub fn apply(problem: &mut Problem, settings: &str) -> Result<(), String> {
    let (mut scaled, mut sized) = (false, None);
    for part in settings.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, "true"));
        set(problem, name.trim(), value.trim())?;
        scaled |= name.trim() == "scale";
        if matches!(name.trim(), "B" | "T" | "Tq" | "Tkv") {
            sized = Some(part);
        }
    }
    if !scaled {
        match problem {
            Problem::Attention(s) => s.scale = (s.d as f64).powf(-0.5),
            Problem::GatedDeltaRule(s) | Problem::Kda(s) => s.scale = (s.k as f64).powf(-0.5),
        }
    }
    if let Problem::Attention(s) = problem {
        s.extras.dv = s.extras.dv.filter(|dv| *dv != s.d);
        if let (Some(lens), Some(sized)) = (s.lens_text(), sized) {
            return Err(format!("{sized}: lens={lens} already says it: leave one of them out"));
        }
        if let Some(fault) = s.fault() {
            return Err(fault);
        }
    }
    let (Problem::Attention(attention::Shape { scale, .. })
    | Problem::GatedDeltaRule(delta::Shape { scale, .. })
    | Problem::Kda(delta::Shape { scale, .. })) = problem;
    if !scale.is_finite() {
        return Err(format!("scale = {scale}: expected a finite number"));
    }
    within(problem, MOST_BYTES, "more than any machine has")
}

/// Bytes of tensors up to which sizes are computed at all.
const MOST_BYTES: f64 = (1u64 << 46) as f64;

/// Refuses a problem whose tensors take more than this machine's memory.
pub fn fits_memory(problem: &Problem) -> Result<(), String> {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|l| l.strip_prefix("MemTotal:"));
    let kib = total.and_then(|t| t.split_whitespace().next()?.parse::<f64>().ok());
    match kib {
        Some(kib) => within(problem, 1024.0 * kib, "and this machine has less memory"),
        None => Ok(()),
    }
}

fn within(problem: &Problem, most: f64, why: &str) -> Result<(), String> {
    let size =
        |t: &TensorSpec| t.shape.iter().fold(t.dtype.bytes() as f64, |bytes, n| bytes * *n as f64);
    let tensors = problem.tensors();
    let bytes: f64 = tensors.iter().map(size).sum();
    if bytes <= most {
        return Ok(());
    }
    Err(format!(
        "{}: the tensors take {:.1e} bytes, {why}: choose a smaller one",
        short(problem),
        bytes
    ))
}

fn set(problem: &mut Problem, name: &str, value: &str) -> Result<(), String> {
    let mut vars: Vec<_> = problem.vars().into_keys().collect();
    vars.retain(|name| !matches!(*name, "packed" | "N" | "Tmax"));
    let op = problem.op();
    let lens = if op == Op::Attention { ", lens" } else { "" };
    let known =
        || format!("{op} has no variable `{name}`: it has dtype, {}{lens}", vars.join(", "));
    let count = || match value.parse::<usize>() {
        Ok(n) if n > 0 && n <= 1 << 30 => Ok(n),
        _ => Err(format!("{name}={value}: expected an integer from 1 to {}", 1 << 30)),
    };
    let flag =
        || value.parse::<bool>().map_err(|_| format!("{name}={value}: expected true or false"));
    let scale = || value.parse::<f64>().map_err(|_| format!("{name}={value}: expected a number"));
    let wrong = || format!("dtype={value}: expected {}", DType::precision_names());
    let dtype = || DType::precision(value).ok_or_else(wrong);
    match problem {
        Problem::Attention(s) => match name {
            "dtype" => s.dtype = dtype()?,
            "B" => s.b = count()?,
            "T" => (s.tq, s.tkv) = (count()?, count()?),
            "Tq" => s.tq = count()?,
            "Tkv" => s.tkv = count()?,
            "Hq" => s.hq = count()?,
            "Hkv" => s.hkv = count()?,
            "D" => s.d = count()?,
            "Dv" => s.extras.dv = Some(count()?),
            "causal" => s.causal = flag()?,
            "scale" => s.scale = scale()?,
            "window" if value == "0" => s.extras.window = None,
            "window" => s.extras.window = Some(count()?),
            "softcap" => s.extras.softcap = Some(scale()?).filter(|cap| *cap != 0.0),
            "lens" => s.pack(attention::parse_lens(value)?),
            _ => return Err(known()),
        },
        Problem::GatedDeltaRule(s) | Problem::Kda(s) => match name {
            "dtype" => s.dtype = dtype()?,
            "B" => s.b = count()?,
            "T" => s.t = count()?,
            "H" => s.h = count()?,
            "HV" => s.hv = count()?,
            "K" => s.k = count()?,
            "V" => s.v = count()?,
            "initial_state" => s.initial_state = flag()?,
            "final_state" => s.final_state = flag()?,
            "scale" => s.scale = scale()?,
            _ => return Err(known()),
        },
    }
    Ok(())
}
