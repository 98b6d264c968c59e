//! Reads TOML as a [`Sweep`] and keeps the place of every value for messages.

use indexmap::IndexMap;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{
    Axis, Group, Kind, Point, Setting, Settings, Skip, Source, Span, Sweep, SweepError, TileChoice,
    Variable,
};
use crate::device::{Regime, ShareRule};
use crate::kernel::Tile;
use crate::op::{self, DType, Op, PhaseName, Value};

type Result<T> = std::result::Result<T, SweepError>;

/// Reads a sweep; [`Sweep::parse`] describes it.
///
/// # Errors
/// As of [`Sweep::parse`].
pub fn sweep(source: Source) -> Result<Sweep> {
    let text = source.text.clone();
    let table =
        DeTable::parse(&text).map_err(|e| source.error(&e.span().unwrap_or(0..0), e.message()))?;
    let reader = Reader { source: &source };
    let mut fields = Fields::of(table.get_ref());

    let name = fields.take("name").map(|f| reader.name(f)).transpose()?;
    let name = name.ok_or_else(|| {
        source.fault("`name` is missing: begin with name = \"...\", which records carry")
    })?;
    let question = fields.take("question").map(|f| reader.text(f)).transpose()?;
    let analysis = fields.take("analysis").map(|f| reader.text(f)).transpose()?;
    let device = fields.take("device").map(|f| reader.text(f)).transpose()?;
    let seed = fields.take("seed").map(|f| reader.seed(f.value)).transpose()?;
    let regime = fields.take("regime").map(|f| reader.regime(f)).transpose()?;
    let sample_ctas = fields.take("sample_ctas").map(|f| reader.sample_ctas(f)).transpose()?;
    let energy = fields.take("energy").map(|f| reader.truth(f)).transpose()?;
    let skips = reader.skips(fields.take("skip"))?;
    let axes = match fields.take("axes") {
        Some(field) => reader.axes(Fields::of(reader.table(field)?), &[])?,
        None => Vec::new(),
    };
    let groups = match fields.take("group") {
        Some(field) => reader
            .list(field, "[[group]]")?
            .into_iter()
            .map(|value| reader.group(value))
            .collect::<Result<Vec<_>>>()?,
        None => Vec::new(),
    };
    if let Some(field) = fields.rest().next() {
        let known = "name, question, analysis, device, seed, regime, sample_ctas, energy, axes, group, skip";
        let hint = match Variable::named(field.name) {
            Some(_) => "; axes stand in [axes] or in a [[group]]",
            None => "",
        };
        return Err(source.error(
            &field.key,
            format!("unknown key `{}`: a sweep has {known}{hint}", field.name),
        ));
    }
    if groups.is_empty() {
        return Err(source.fault(
            "no [[group]]: write at least one; without fields it takes every kernel of every operator",
        ));
    }
    Ok(Sweep {
        name,
        question: question.unwrap_or_default().trim().to_string(),
        analysis: analysis.unwrap_or_default().trim().to_string(),
        device,
        seed: seed.unwrap_or(0),
        regime: regime.unwrap_or_default(),
        sample_ctas,
        energy: energy.unwrap_or(false),
        axes,
        groups,
        skips,
        source: source.clone(),
    })
}

/// A key with its value and their places.
struct Field<'t> {
    name: &'t str,
    key: Span,
    value: &'t Spanned<DeValue<'t>>,
}

/// The fields of a table in the order of the file, less those taken.
struct Fields<'t>(IndexMap<&'t str, Field<'t>>);

impl<'t> Fields<'t> {
    fn of(table: &'t DeTable<'t>) -> Fields<'t> {
        let field = |(key, value): (&'t Spanned<std::borrow::Cow<'t, str>>, _)| {
            let name: &str = key.get_ref();
            (name, Field { name, key: key.span(), value })
        };
        Fields(table.iter().map(field).collect())
    }

    fn take(&mut self, name: &str) -> Option<Field<'t>> {
        self.0.shift_remove(name)
    }

    fn rest(self) -> impl Iterator<Item = Field<'t>> {
        self.0.into_values()
    }
}

struct Reader<'s> {
    source: &'s Source,
}

impl Reader<'_> {
    /// `value` is not what the field wants.
    fn wrong<T>(&self, value: &Spanned<DeValue>, name: &str, wants: &str) -> Result<T> {
        let got = value.get_ref().type_str();
        let article = if got.starts_with(['a', 'i', 'o']) { "an" } else { "a" };
        Err(self
            .source
            .error(&value.span(), format!("`{name}` takes {wants}, not {article} {got}")))
    }

    fn text(&self, field: Field) -> Result<String> {
        match field.value.get_ref().as_str() {
            Some(text) => Ok(text.to_string()),
            None => self.wrong(field.value, field.name, "a string"),
        }
    }

    fn truth(&self, field: Field) -> Result<bool> {
        match field.value.get_ref().as_bool() {
            Some(truth) => Ok(truth),
            None => self.wrong(field.value, field.name, "true or false"),
        }
    }

    fn sample_ctas(&self, field: Field) -> Result<ShareRule> {
        let text = match field.value.get_ref() {
            DeValue::Integer(n) => n.to_string(),
            DeValue::String(text) => text.to_string(),
            _ => return self.wrong(field.value, field.name, "auto, all or a number of CTAs"),
        };
        let wrong = |e| self.source.error(&field.value.span(), format!("sample_ctas: {e}"));
        text.parse().map_err(wrong)
    }

    /// The sweep's name becomes a folder's.
    fn name(&self, field: Field) -> Result<String> {
        let (span, name) = (field.value.span(), self.text(field)?);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
            return Err(self.source.error(
                &span,
                format!("name = {name:?}: write letters, digits, `-`, `_` and `.`; it names the output folder"),
            ));
        }
        Ok(name)
    }

    fn regime(&self, field: Field) -> Result<Regime> {
        let span = field.value.span();
        match self.text(field)?.as_str() {
            "cold" => Ok(Regime::Cold),
            "hot" => Ok(Regime::Hot),
            other => Err(self.source.error(
                &span,
                format!(
                    "unknown regime `{other}`: expected cold (L2 flushed before each sample) or hot"
                ),
            )),
        }
    }

    fn table<'t>(&self, field: Field<'t>) -> Result<&'t DeTable<'t>> {
        match field.value.get_ref().as_table() {
            Some(table) => Ok(table),
            None => self.wrong(field.value, field.name, "a table"),
        }
    }

    fn list<'t>(&self, field: Field<'t>, form: &str) -> Result<Vec<&'t Spanned<DeValue<'t>>>> {
        match field.value.get_ref().as_array() {
            Some(array) => Ok(array.iter().collect()),
            None => self.wrong(field.value, field.name, &format!("a list, written {form}")),
        }
    }

    /// One value, or a list of them.
    fn one_or_many<'t>(&self, field: &Field<'t>) -> Vec<&'t Spanned<DeValue<'t>>> {
        match field.value.get_ref().as_array() {
            Some(array) => array.iter().collect(),
            None => vec![field.value],
        }
    }

    fn integer(&self, value: &Spanned<DeValue>) -> Option<i128> {
        let integer = value.get_ref().as_integer()?;
        i128::from_str_radix(integer.as_str(), integer.radix()).ok()
    }

    fn seed(&self, value: &Spanned<DeValue>) -> Result<u64> {
        match self.integer(value).map(u64::try_from) {
            Some(Ok(seed)) => Ok(seed),
            Some(Err(_)) => {
                Err(self.source.error(&value.span(), "`seed` is an integer of 0 to 2^64 - 1"))
            }
            None => self.wrong(value, "seed", "an integer"),
        }
    }

    fn skips(&self, field: Option<Field>) -> Result<Vec<Skip>> {
        let Some(field) = field else { return Ok(Vec::new()) };
        let form = "[[skip]] or skip = [{ when = \"...\", why = \"...\" }]";
        let skip = |value: &Spanned<DeValue>| {
            let Some(table) = value.get_ref().as_table() else {
                return self.wrong(value, "skip", "tables { when = \"...\", why = \"...\" }");
            };
            let mut fields = Fields::of(table);
            let [when, why] = ["when", "why"].map(|name| fields.take(name));
            if let Some(field) = fields.rest().next() {
                let why = format!("unknown key `{}`: a skip has when and why", field.name);
                return Err(self.source.error(&field.key, why));
            }
            let (Some(when), Some(why)) = (when, why) else {
                let why =
                    "a skip needs both `when`, an expression, and `why`, the reason for people";
                return Err(self.source.error(&value.span(), why));
            };
            let span = when.value.span();
            Ok(Skip { span, when: self.text(when)?, why: self.text(why)? })
        };
        self.list(field, form)?.into_iter().map(skip).collect()
    }

    fn group(&self, value: &Spanned<DeValue>) -> Result<Group> {
        let Some(table) = value.get_ref().as_table() else {
            return self.wrong(value, "group", "tables, written [[group]]");
        };
        let mut fields = Fields::of(table);
        let mut ops = Vec::new();
        if let Some(field) = fields.take("op") {
            for value in self.one_or_many(&field) {
                let Some(name) = value.get_ref().as_str() else {
                    return self.wrong(value, "op", "an operator's name or a list of names");
                };
                let op = Op::parse(name).ok_or_else(|| {
                    let why = format!("unknown operator `{name}`: expected {}", Op::names());
                    self.source.error(&value.span(), why)
                })?;
                ops.push((op, value.span()));
            }
            if ops.is_empty() {
                let why = "`op` is empty: name an operator, or leave the key out for all";
                return Err(self.source.error(&field.value.span(), why));
            }
        }
        let phase = match fields.take("phase") {
            None => PhaseName::Prefill,
            Some(field) => match field.value.get_ref().as_str() {
                Some(name) => PhaseName::parse(name).ok_or_else(|| {
                    let why = format!("unknown phase `{name}`: expected {}", PhaseName::names());
                    self.source.error(&field.value.span(), why)
                })?,
                None => return self.wrong(field.value, "phase", "a string"),
            },
        };
        let mut kernels = Vec::new();
        if let Some(field) = fields.take("kernels") {
            for value in self.one_or_many(&field) {
                match value.get_ref().as_str() {
                    Some(glob) => kernels.push((glob.to_string(), value.span())),
                    None => return self.wrong(value, "kernels", "a glob or a list of globs"),
                }
            }
            if kernels.is_empty() {
                let why = "`kernels` is empty: write a glob such as \"*/prefill.*\", or leave the key out for all";
                return Err(self.source.error(&field.value.span(), why));
            }
        }
        let skips = self.skips(fields.take("skip"))?;
        let axes = self.axes(fields, &["op", "phase", "kernels", "skip"])?;
        Ok(Group { span: value.span(), ops, phase, kernels, axes, skips })
    }

    /// Every remaining field is an axis. `also` names the keys that the table has besides.
    fn axes(&self, fields: Fields, also: &[&str]) -> Result<Vec<Axis>> {
        let mut axes: Vec<Axis> = Vec::new();
        for field in fields.rest() {
            let axis = self.axis(&field, also)?;
            for point in &axis.points {
                for name in point.settings.keys() {
                    let twice = axes
                        .iter()
                        .find(|a| a.points.iter().any(|p| p.settings.contains_key(name)));
                    if let Some(other) = twice {
                        let why = format!("{name} is set by the axis `{}` already", other.name);
                        return Err(self.source.error(&point.span, why));
                    }
                }
            }
            axes.push(axis);
        }
        Ok(axes)
    }

    fn axis(&self, field: &Field, also: &[&str]) -> Result<Axis> {
        let name = field.name;
        let values = self.one_or_many(field);
        if values.is_empty() {
            let why = format!(
                "the axis `{name}` has no values, so the product of axes is empty: give it at least one"
            );
            return Err(self.source.error(&field.value.span(), why));
        }
        let mut points = Vec::new();
        match Variable::named(name) {
            Some(variable) => {
                for value in values {
                    let setting = self.setting(variable, value)?;
                    let settings = Settings::from([(variable.name, setting)]);
                    points.push(Point { span: value.span(), settings });
                }
            }
            None => {
                for value in values {
                    let Some(table) = value.get_ref().as_table() else {
                        let also: String = also.iter().map(|key| format!("{key}, ")).collect();
                        let why = format!(
                            "unknown key `{name}`: expected {also}a variable ({}), or a name of your own for tied axes with a list of tables, as in {name} = [{{ B = 16, T = 1024 }}, {{ B = 4, T = 4096 }}]",
                            Variable::names()
                        );
                        return Err(self.source.error(&field.key, why));
                    };
                    points.push(Point {
                        span: value.span(),
                        settings: self.tied(table, value.span())?,
                    });
                }
            }
        }
        Ok(Axis { name: name.to_string(), span: field.key.clone(), points })
    }

    /// A point of a tied axis: a table of variables.
    fn tied(&self, table: &DeTable, span: Span) -> Result<Settings> {
        let mut settings = Settings::new();
        for field in Fields::of(table).rest() {
            let variable = Variable::named(field.name).ok_or_else(|| {
                let known = Variable::names();
                let why = format!("unknown variable `{}`: there are {known}", field.name);
                self.source.error(&field.key, why)
            })?;
            settings.insert(variable.name, self.setting(variable, field.value)?);
        }
        if settings.is_empty() {
            return Err(self.source.error(&span, "a table of tied variables sets at least one"));
        }
        Ok(settings)
    }

    fn setting(&self, variable: Variable, value: &Spanned<DeValue>) -> Result<Setting> {
        let Variable { name, kind, .. } = variable;
        let said = |why: String| self.source.error(&value.span(), why);
        let text = |wants: &str| match value.get_ref().as_str() {
            Some(text) => Ok(text),
            None => self.wrong(value, name, wants),
        };
        Ok(match kind {
            Kind::Of(op::Kind::Count) => Setting::Value(match self.integer(value) {
                Some(n @ 1..) if n <= op::MAX_COUNT as i128 => Value::Count(n as usize),
                Some(n) => {
                    return Err(said(format!("{name} = {n}: expected 1 to {}", op::MAX_COUNT)));
                }
                None => return self.wrong(value, name, "an integer of at least 1"),
            }),
            Kind::Of(op::Kind::Flag) => Setting::Value(match value.get_ref().as_bool() {
                Some(flag) => Value::Flag(flag),
                None => return self.wrong(value, name, "true or false"),
            }),
            Kind::Of(op::Kind::Number) => {
                let number = match value.get_ref() {
                    DeValue::Float(x) => x.as_str().parse::<f64>().ok(),
                    DeValue::Integer(_) => self.integer(value).map(|n| n as f64),
                    _ => return self.wrong(value, name, "a number"),
                };
                match number {
                    Some(x) if x.is_finite() && x > 0.0 => Setting::Value(Value::Number(x)),
                    _ => return Err(said(format!("{name} is a number greater than 0"))),
                }
            }
            Kind::Of(kind @ op::Kind::Word(words)) => {
                let text = text(&format!("a word: {}", words.join(", ")))?;
                Setting::Value(kind.parse(name, text).map_err(said)?)
            }
            Kind::Of(kind @ op::Kind::Lens) => {
                let text = text("lengths of packed sequences such as \"1000+16x512\"")?;
                Setting::Value(kind.parse(name, text).map_err(said)?)
            }
            Kind::DType => {
                let known = DType::precision_names();
                let text = text(&format!("a string: {known}"))?;
                match DType::precision(text) {
                    Some(dtype) => Setting::DType(dtype),
                    None => return Err(said(format!("unknown dtype `{text}`: expected {known}"))),
                }
            }
            Kind::Inputs => {
                let text = text("a family of inputs such as \"gate=slow\"")?;
                Setting::Inputs(text.parse().map_err(said)?)
            }
            Kind::Tile => Setting::Tile(match value.get_ref() {
                DeValue::String(text) => match text.as_ref() {
                    "default" => TileChoice::Default,
                    "all" => TileChoice::All,
                    text => TileChoice::This(text.parse::<Tile>().map_err(|e| {
                        said(format!("{e}; `default` and `all` are the words for more"))
                    })?),
                },
                DeValue::Table(table) => {
                    let mut tile = IndexMap::new();
                    for field in Fields::of(table).rest() {
                        match self.integer(field.value).map(i64::try_from) {
                            Some(Ok(x)) => tile.insert(field.name.to_string(), x),
                            _ => return self.wrong(field.value, field.name, "an integer"),
                        };
                    }
                    TileChoice::This(Tile(tile))
                }
                _ => {
                    let wants = "\"default\", \"all\", \"BM=128,BN=64\" or { BM = 128, BN = 64 }";
                    return self.wrong(value, name, wants);
                }
            }),
            Kind::Seed => Setting::Seed(self.seed(value)?),
        })
    }
}
