//! The binary embeds folders: a file that is new in one must trigger a rebuild. And each kernel's
//! manifest is a test, by its name.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    for folder in ["kernels", "sweeps", "devices"] {
        println!("cargo::rerun-if-changed={folder}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a folder"));
    fs::write(out.join("kernels.rs"), tests()?)
}

/// A test for each kernel, which gives its name to `of_kernel` of the module that includes them:
/// `kda_prefill_sm80` of `kda/prefill.sm80`. tests/it includes them.
fn tests() -> io::Result<String> {
    let mut kernels = Vec::new();
    manifests(Path::new("kernels"), &mut kernels)?;
    kernels.sort();
    let mut text = String::new();
    for path in kernels {
        let name = path.strip_prefix("kernels").expect("a path below it").with_extension("");
        let name = name.to_str().expect("a name in UTF-8").replace('\\', "/");
        let test = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        writeln!(text, "#[test]\nfn {test}() {{\n    of_kernel({name:?});\n}}")
            .expect("a string takes text");
    }
    Ok(text)
}

/// Every TOML file with a template beside it.
fn manifests(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            manifests(&path, found)?;
        } else if path.extension().is_some_and(|e| e == "toml")
            && path.with_extension("ptx").exists()
        {
            found.push(path);
        }
    }
    Ok(())
}
