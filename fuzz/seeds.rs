//! Writes what the fuzzer of texts begins with: `corpus/text` has programs and the kernels of the
//! program, `text.dict` the words of the language.

#[allow(dead_code, reason = "shared with tests/it/fuzz")]
#[path = "../tests/it/fuzz/soup.rs"]
mod soup;

use std::fs;
use std::path::Path;

use crossover::kernel::Registry;
use crossover::op::{DType, Problem};
use rand::SeedableRng;
use rand_pcg::Pcg64;

/// Greater texts make a fuzzer slow.
const MOST: usize = 64 << 10;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = here.join("corpus/text");
    fs::create_dir_all(&corpus)?;
    for seed in 0..300 {
        let text = soup::program(&mut Pcg64::seed_from_u64(seed));
        fs::write(corpus.join(format!("program-{seed}")), text)?;
    }
    for kernel in Registry::embedded()?.kernels() {
        let (op, phase) = (kernel.manifest.op, kernel.phase());
        let problem = Problem::plain(op, phase, DType::Bf16, (64, 64), 70);
        let Ok(tile) = kernel.default_tile(&problem) else { continue };
        let text = kernel.render(&problem, &tile)?.text;
        // The entry that is run.
        let text = match text.split_once(".entry ") {
            Some((head, tail)) => {
                let name = tail.find(['(', ' ', '\n']).unwrap_or(0);
                format!("{head}.entry k{}", &tail[name..])
            }
            None => text,
        };
        if text.len() <= MOST {
            fs::write(corpus.join(kernel.name.replace('/', "-")), text)?;
        }
    }
    let words: String = soup::words().map(|w| format!("\"{}\"\n", w.escape_default())).collect();
    fs::write(here.join("text.dict"), words)?;
    Ok(())
}
