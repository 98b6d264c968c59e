//! The minimum bytes of a window had all keys in them, also those that no row sees.

use crate::common::problem;

/// q, o and lse of 64 rows and 8 heads, and the 127 keys and values that the rows see; 16 bits each.
#[test]
fn keys_that_no_row_sees_are_not_read() {
    let heads = "Hq=8,D=128,causal=true";
    let p = problem("attention", &format!("{heads},Tq=64,Tkv=32768,window=64"));
    assert_eq!(p.min_bytes(), 784_384.0);
    // 100 queries of 40 keys: the first 60 see none, and only their outputs count.
    let p = problem("attention", &format!("{heads},Tq=100,Tkv=40"));
    let row = 8.0 * 128.0 * 2.0;
    assert_eq!(p.min_bytes(), row * (40.0 + 2.0 * 40.0 + 100.0) + 4.0 * 8.0 * 100.0);
}

/// The emulator sees no kernel read less than the minimum; with a window it reads little more.
#[test]
fn counts_are_not_below_the_minimum() {
    use crate::common::{emulator, kernel};
    use crossover::device::Device;
    let p = problem("attention", "Hq=1,D=64,causal=true,Tq=64,Tkv=2048,window=64");
    let kernel = kernel("attention/prefill.sm90a");
    let tile = kernel.tiles(&p).unwrap().swap_remove(0);
    let job = kernel.job(&p, &tile).unwrap();
    let inputs = p.inputs(&Default::default(), 1);
    let run = emulator().load(&job, &inputs).unwrap().run().unwrap();
    let counts = run.counts.expect("counts");
    let bytes = 32.0 * (counts.unique_read_sectors + counts.unique_write_sectors) as f64;
    assert!((1.0..1.6).contains(&(bytes / p.min_bytes())), "{bytes} and {}", p.min_bytes());
}
