//! Options for what the tensors of a file do not say of a problem, made from the operators' rows.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use crate::op::{
    DType, Default as Usual, Flow, Given, Kind, Op, PhaseName, Problem, Role, TensorSpec, Variable,
    setting,
};

/// What was given: `--causal`, `--window 4096` and the like, and `-p causal=true,window=4096`,
/// which says the same. Where both set a variable, its own option wins.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Names and values: those of `-p`, then the options'.
    settings: Vec<(String, String)>,
    /// Names that came as options of their own, for messages.
    flags: Vec<&'static str>,
}

/// The variables that tensors say nothing of, each name once, with the operators that have it:
/// flags, factors, the format of a state, the context. Dimensions are read off the shapes.
fn told_by_options() -> Vec<(&'static Variable, Vec<Op>)> {
    let mut all: Vec<(&'static Variable, Vec<Op>)> = Vec::new();
    for op in Op::all() {
        let plain = |v: &&'static Variable| {
            matches!(v.role, Role::Option | Role::Scale | Role::Context | Role::Format { .. })
        };
        for v in op.variables().iter().filter(plain).filter(|v| !told_by_tensors(op, v)) {
            match all.iter_mut().find(|(known, _)| known.name == v.name) {
                Some((_, ops)) => ops.push(op),
                None => all.push((v, vec![op])),
            }
        }
    }
    all
}

/// Whether a file says it: a state is given by being there, an 8-bit format is the tensor's type.
fn told_by_tensors(op: Op, v: &Variable) -> bool {
    let plain = Problem::plain(op, op.phases()[0].name, DType::Bf16, (64, 64), 64);
    let names_input = |t: &TensorSpec| t.flow == Flow::Input && t.name == v.name;
    let narrow = |word: &&str| DType::parse(word).is_none_or(|d| d.bytes() == 1);
    match v.kind {
        Kind::Word(words) => words.iter().all(narrow),
        _ => op.tensors(&plain).iter().any(names_input),
    }
}

/// `--final-state` of `final_state`.
pub fn long(name: &str) -> String {
    name.replace('_', "-")
}

impl Args for Options {
    fn augment_args(command: Command) -> Command {
        let settings =
            Arg::new("settings").short('p').long("problem").value_name("VAR=VALUE,..").help(
                "What the tensors do not say, such as causal=true; the options below say the same",
            );
        let option = |command: Command, (v, ops): (&'static Variable, Vec<Op>)| {
            let of: Vec<_> = ops.iter().map(|op| op.name()).collect();
            let of = if of.len() == Op::all().count() {
                String::new()
            } else {
                format!("{}: ", of.join(", "))
            };
            let words = match v.kind {
                Kind::Word(words) => format!(": {}", words.join(", ")),
                _ => String::new(),
            };
            let arg = Arg::new(v.name).long(long(v.name)).help(format!("{of}{}{words}", v.doc));
            command.arg(match v.kind {
                Kind::Flag => arg.action(ArgAction::SetTrue),
                Kind::Count => arg.value_name("N"),
                Kind::Word(_) => arg.value_name("WORD"),
                Kind::Number | Kind::Lens => arg.value_name("X"),
            })
        };
        told_by_options().into_iter().fold(command.arg(settings), option)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Options::augment_args(command)
    }
}

impl FromArgMatches for Options {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Options, clap::Error> {
        let mut options = Options::default();
        if let Some(text) = matches.get_one::<String>("settings") {
            for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
                let (name, value) = part.split_once('=').unwrap_or((part, "true"));
                options.settings.push((name.trim().to_string(), value.trim().to_string()));
            }
        }
        for (v, _) in told_by_options() {
            let value = match v.kind {
                Kind::Flag => matches.get_flag(v.name).then(|| "true".to_string()),
                _ => matches.get_one::<String>(v.name).cloned(),
            };
            if let Some(value) = value {
                options.settings.push((v.name.to_string(), value));
                options.flags.push(v.name);
            }
        }
        Ok(options)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Options::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Options {
    /// The phase, if `-p` names one.
    ///
    /// # Errors
    /// The operator lacks it.
    pub fn phase(&self, op: Op) -> Result<Option<PhaseName>, String> {
        let named = self.settings.iter().rev().find(|(name, _)| name == "phase");
        let parse = |(_, value): &(String, String)| {
            PhaseName::parse(value).filter(|p| op.phase(*p).is_some()).ok_or_else(|| {
                let known: Vec<_> = op.phases().iter().map(|p| p.name.name()).collect();
                format!("phase={value}: {op} has {}", known.join(", "))
            })
        };
        named.map(parse).transpose()
    }

    /// Whether a variable came as an option of its own, and not by `-p`.
    pub fn has_flag(&self, name: &str) -> bool {
        self.flags.contains(&name)
    }

    /// The values that are given of the operator's variables in a phase.
    ///
    /// # Errors
    /// A variable that the operator lacks, or a value that the variable does not take.
    pub fn given(&self, op: Op, phase: PhaseName) -> Result<Given, String> {
        let mut given = Given::new();
        for (name, value) in self.settings.iter().filter(|(name, _)| name != "phase") {
            let flag = self.has_flag(name);
            if name == "dtype" {
                return Err(format!("dtype={value}: the tensors say the precision; leave it out"));
            }
            if flag && op.giveable(phase, name).is_none() {
                return Err(format!("--{}: {op} has no {name}; leave it out", long(name)));
            }
            let optional = op.variable(name).is_some_and(|v| matches!(v.default, Usual::Nothing));
            if flag && value == "0" && optional {
                let long = long(name);
                return Err(format!("--{long} 0: expected more than 0; leave it out for none"));
            }
            let (name, value) = setting(op, phase, name, value).map_err(|e| match flag {
                true => match e.split_once(": ") {
                    Some((_, wants)) => format!("--{} {value}: {wants}", long(name)),
                    None => e,
                },
                false => e,
            })?;
            given.insert(name, value);
        }
        Ok(given)
    }
}
