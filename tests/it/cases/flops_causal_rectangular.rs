//! The FLOPs of a causal mask were those of half a rectangle, whatever its sides.

use crate::common::problem;

/// Chunked prefill, more queries than keys, and a window that masks nothing: the work of the visible
/// pairs. Their numbers were counted pair by pair.
#[test]
fn causal_work_is_that_of_the_visible_pairs() {
    for (settings, pairs) in [
        ("Tq=16384,Tkv=2048", 2_098_176.0),
        ("Tq=16384,Tkv=2048,window=8192", 2_098_176.0),
        ("Tq=512,Tkv=8192", 4_063_488.0),
        ("Tq=512,Tkv=8192,window=8192", 4_063_488.0),
        ("Tq=1,Tkv=1000", 1000.0),
        ("Tq=1000,Tkv=1", 1.0),
        ("lens=3+2:5", 6.0 + 9.0),
    ] {
        let p = problem("attention", &format!("Hq=32,D=128,causal=true,{settings}"));
        assert_eq!(p.flops(), 4.0 * 32.0 * 128.0 * pairs, "{p}");
    }
}
