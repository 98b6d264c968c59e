//! Where kernels come from: the folder embedded in the binary, or one given by the user.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use globset::Glob;
use include_dir::{Dir, include_dir};

use super::{KernelError, Manifest, pieces};
use crate::device::Facts;
use crate::op::{Op, PhaseName, Problem};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/kernels");

/// Every file of a kernel folder, by path relative to it.
pub type Sources = Arc<BTreeMap<String, String>>;

/// A template with its manifest.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// `attention/prefill.sm80`
    pub name: String,
    pub manifest: Manifest,
    pub(super) sources: Sources,
}

impl Kernel {
    /// Path of the template in its folder.
    pub fn template_path(&self) -> String {
        format!("{}.ptx", self.name)
    }

    /// Path of the manifest in its folder.
    pub fn manifest_path(&self) -> String {
        format!("{}.toml", self.name)
    }

    /// Whether the PTX is rendered. As the manifest's `template` says; without it, a text that has
    /// template syntax outside of PTX comments and strings is a template.
    pub fn is_template(&self) -> bool {
        self.manifest.template.unwrap_or_else(|| pieces::is_template(self.template()))
    }

    /// The text of the template, or of the plain PTX.
    pub fn template(&self) -> &str {
        &self.sources[&self.template_path()]
    }

    /// The text of a file of the kernel folder, by its path in it.
    pub fn source(&self, path: &str) -> Option<&str> {
        self.sources.get(path).map(String::as_str)
    }

    /// `<op>/<phase>` of each of its phases: what all kernels of an operator's phase are called.
    pub fn without_target(&self) -> impl Iterator<Item = String> {
        self.manifest.phases.iter().map(|phase| format!("{}/{phase}", self.manifest.op))
    }

    /// The phase that it does if nobody names another.
    pub fn phase(&self) -> PhaseName {
        self.manifest.phases[0]
    }

    /// The compute capability of the target, and whether it runs on that one alone.
    pub fn architecture(&self) -> ((u32, u32), bool) {
        let digits = self.manifest.target.trim_start_matches("sm_");
        let (digits, exact) = match digits.strip_suffix('a') {
            Some(digits) => (digits, true),
            None => (digits, false),
        };
        (digits.parse::<u32>().map(|n| (n / 10, n % 10)).unwrap_or((u32::MAX, 0)), exact)
    }

    /// Whether grids or parameters depend on how many multiprocessors the device has.
    pub fn fills_device(&self) -> bool {
        let text = self.source(&self.manifest_path()).unwrap_or_default();
        let code = text.lines().filter_map(|line| line.split('#').next());
        let mut words =
            code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'));
        words.any(|word| word == "SMS")
    }

    /// The problem of settings as at a prompt, `T=1000,causal=true`. What they leave open is the
    /// operator's default, or the first value of the manifest's where the kernel has no such.
    ///
    /// # Errors
    /// As of [`Problem::parse`].
    pub fn problem(&self, settings: &str) -> Result<Problem, String> {
        let m = &self.manifest;
        let parse = |settings: &str| Problem::parse(m.op, self.phase(), settings);
        let problem = parse(settings)?;
        let given = |name: &str| {
            settings.split(',').any(|s| s.split('=').next().map(str::trim) == Some(name))
        };
        let mut all = settings.trim().trim_end_matches(',').to_owned();
        let mut add = |name: &str, value: &dyn std::fmt::Display| {
            let comma = if all.is_empty() { "" } else { "," };
            all += &format!("{comma}{name}={value}");
        };
        if let Some(dtype) = m.dtypes.first().filter(|_| !m.dtypes.contains(&problem.dtype()))
            && !given("dtype")
        {
            add("dtype", dtype);
        }
        for (name, allowed) in &m.shapes {
            let usual = problem.get(name).is_some_and(|x| !allowed.contains(&(x as i64)));
            if let Some(first) = allowed.first().filter(|_| usual && !given(name)) {
                add(name, first);
            }
        }
        parse(&all)
    }

    /// Why PTX of this target cannot run on a device, if it cannot.
    pub fn unfit(&self, facts: &Facts) -> Option<String> {
        let target = &self.manifest.target;
        let (need, exact) = self.architecture();
        let has = facts.compute_capability;
        if if exact { has == need } else { has >= need } {
            return None;
        }
        let (major, minor) = has;
        Some(format!(
            "{} needs {target}; {} ({}) has compute capability {major}.{minor}",
            self.name, facts.id, facts.name
        ))
    }
}

/// The kernels of one folder.
#[derive(Debug, Clone)]
pub struct Registry {
    kernels: Vec<Kernel>,
}

impl Registry {
    /// The kernels that the binary carries.
    ///
    /// # Errors
    /// A manifest that does not parse, has no template beside it, or lies where its `op` and
    /// `phases` say it does not belong.
    pub fn embedded() -> Result<Registry, KernelError> {
        let mut files = BTreeMap::new();
        collect_embedded(&EMBEDDED, &mut files);
        Registry::from_sources(files, "the embedded kernels")
    }

    /// The kernels of a folder, laid out as `kernels/` is; `lib/` comes from the binary where the
    /// folder has none of that name.
    ///
    /// # Errors
    /// As of [`Registry::embedded`], a file that cannot be read, or a folder without kernels.
    pub fn from_dir(dir: &Path) -> Result<Registry, KernelError> {
        let mut files = BTreeMap::new();
        collect_embedded(&EMBEDDED, &mut files);
        files.retain(|path, _| path.starts_with("lib/"));
        collect_dir(dir, dir, &mut files)?;
        let registry = Registry::from_sources(files, &dir.display().to_string())?;
        if registry.kernels.is_empty() {
            return Err(KernelError(format!(
                "{}: no kernel here: expected <op>/<phase>.<arch>.toml beside <op>/<phase>.<arch>.ptx",
                dir.display()
            )));
        }
        Ok(registry)
    }

    fn from_sources(files: BTreeMap<String, String>, place: &str) -> Result<Registry, KernelError> {
        let sources = Arc::new(files);
        let mut kernels = Vec::new();
        for (path, text) in sources.iter() {
            let Some(name) = path.strip_suffix(".toml") else { continue };
            let manifest: Manifest = toml::from_str(text)
                .map_err(|e| KernelError(format!("{place}: {path}: {}", e.to_string().trim())))?;
            if let Some(why) = manifest.fault() {
                return Err(KernelError(format!("{place}: {path}: {why}")));
            }
            if !sources.contains_key(&format!("{name}.ptx")) {
                return Err(KernelError(format!(
                    "{place}: {path} has no PTX {name}.ptx beside it, template or plain"
                )));
            }
            let prefix = format!("{}/{}.", manifest.op, manifest.phases[0]);
            if !name.starts_with(&prefix) {
                return Err(KernelError(format!(
                    "{place}: {path}: op and the first of phases say it belongs at {prefix}<arch>.toml"
                )));
            }
            kernels.push(Kernel { name: name.to_string(), manifest, sources: sources.clone() });
        }
        Ok(Registry { kernels })
    }

    /// All of them, in the order of their paths.
    pub fn kernels(&self) -> &[Kernel] {
        &self.kernels
    }

    /// The kernel of exactly that name.
    ///
    /// # Errors
    /// There is none; the message names those that there are.
    pub fn get(&self, name: &str) -> Result<&Kernel, KernelError> {
        self.kernels.iter().find(|k| k.name == name).ok_or_else(|| {
            let known: Vec<_> = self.kernels.iter().map(|k| k.name.as_str()).collect();
            let short = self.kernels.first().and_then(|k| k.without_target().next());
            KernelError(format!(
                "unknown kernel `{name}`: there are {}; without its target, as {}, commands that \
                 run one kernel take the best for device and problem",
                known.join(", "),
                short.unwrap_or_default()
            ))
        })
    }

    /// The kernels whose name, or name without target, matches a glob such as `attention/*`,
    /// `attention/prefill` or `*.sm80`.
    ///
    /// # Errors
    /// The glob does not parse, or nothing matches it.
    pub fn matching(&self, glob: &str) -> Result<Vec<&Kernel>, KernelError> {
        let matcher = Glob::new(glob)
            .map_err(|e| KernelError(format!("`{glob}` is no glob: {e}")))?
            .compile_matcher();
        let matches = |k: &&Kernel| {
            matcher.is_match(&k.name) || k.without_target().any(|name| matcher.is_match(name))
        };
        let found: Vec<_> = self.kernels.iter().filter(matches).collect();
        if found.is_empty() {
            let known: Vec<_> = self.kernels.iter().map(|k| k.name.as_str()).collect();
            return Err(KernelError(format!(
                "no kernel matches `{glob}`: there are {}",
                known.join(", ")
            )));
        }
        Ok(found)
    }

    /// The kernels of an operator that do the phase.
    pub fn of(&self, op: Op, phase: PhaseName) -> impl Iterator<Item = &Kernel> {
        let does = move |k: &&Kernel| k.manifest.op == op && k.manifest.phases.contains(&phase);
        self.kernels.iter().filter(does)
    }
}

fn collect_embedded(dir: &Dir<'_>, files: &mut BTreeMap<String, String>) {
    for file in dir.files() {
        if let (Some(path), Some(text)) = (file.path().to_str(), file.contents_utf8()) {
            files.insert(path.replace('\\', "/"), text.to_string());
        }
    }
    dir.dirs().for_each(|d| collect_embedded(d, files));
}

fn collect_dir(
    root: &Path,
    dir: &Path,
    files: &mut BTreeMap<String, String>,
) -> Result<(), KernelError> {
    let fail = |path: &Path, e: std::io::Error| KernelError(format!("{}: {e}", path.display()));
    for entry in std::fs::read_dir(dir).map_err(|e| fail(dir, e))? {
        let path = entry.map_err(|e| fail(dir, e))?.path();
        if path.is_dir() {
            collect_dir(root, &path, files)?;
        } else if path.extension().is_some_and(|x| x == "ptx" || x == "toml") {
            // A pipe would be waited for, a device read without end.
            if !path.metadata().map_err(|e| fail(&path, e))?.is_file() {
                return Err(KernelError(format!("{}: is no regular file", path.display())));
            }
            let text = std::fs::read_to_string(&path).map_err(|e| fail(&path, e))?;
            let name = path.strip_prefix(root).expect("a path under its root");
            files.insert(name.to_string_lossy().replace('\\', "/"), text);
        }
    }
    Ok(())
}
