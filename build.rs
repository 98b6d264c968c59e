//! The binary embeds these folders: a file that is new in one must trigger a rebuild.

fn main() {
    for folder in ["kernels", "sweeps", "devices"] {
        println!("cargo::rerun-if-changed={folder}");
    }
}
