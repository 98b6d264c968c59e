//! Lengths of packed sequences, as texts and as places. A sequence may be empty, of queries, of keys
//! or of both, as in batches that are padded for CUDA graphs.

use std::ops::Range;

/// Where one of the packed sequences lies, in tokens of q and of k.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    pub q: Range<usize>,
    pub k: Range<usize>,
}

/// Lengths as settings name them: `1000+3x64`, and `5:1000` where q and k differ.
pub fn text(lens: &[[usize; 2]]) -> String {
    let runs = lens.chunk_by(|a, b| a == b).map(|run| {
        let [q, k] = run[0];
        let one = if q == k { q.to_string() } else { format!("{q}:{k}") };
        if run.len() > 1 { format!("{}x{one}", run.len()) } else { one }
    });
    runs.collect::<Vec<_>>().join("+")
}

/// Sequences in a sentence, told from as many of other lengths: `2 packed sequences (100+28)`.
pub fn words(lens: &[[usize; 2]]) -> String {
    /// Characters that a title has room for.
    const MOST: usize = 40;
    let all = text(lens);
    let shown = match all.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}.., {} tokens", &all[..end], sums(lens)[0]),
        None => all,
    };
    format!("{} packed sequences ({shown})", lens.len())
}

/// Lengths as [`text`] writes them.
///
/// # Errors
/// A part is no length; the message names it.
pub fn parse(text: &str) -> Result<Vec<[usize; 2]>, String> {
    let mut lens = Vec::new();
    for part in text.split('+') {
        let fault = || {
            format!(
                "lens={text}: `{part}` is no length: write lengths as in 1000+4097, 16x512 for 1 to 2^20 equal ones, 5:1000 for 5 queries of 1000 keys, 0 for an empty sequence; 2^30 tokens at most"
            )
        };
        let count = |text: &str| match text.trim().parse::<usize>() {
            Ok(n) if n <= 1 << 30 => Ok(n),
            _ => Err(fault()),
        };
        let (times, one) = part.split_once('x').map_or((Ok(1), part), |(n, one)| (count(n), one));
        let (q, k) = one.split_once(':').unwrap_or((one, one));
        let (times, one) = (times?, [count(q)?, count(k)?]);
        let is_many = |n: usize| n.saturating_mul(times) > 1 << 30;
        if !(1..=1 << 20).contains(&times) || is_many(one[0]) || is_many(one[1]) {
            return Err(fault());
        }
        lens.extend(std::iter::repeat_n(one, times));
    }
    Ok(lens)
}

/// Tokens of q and of k of all sequences together.
pub fn sums(lens: &[[usize; 2]]) -> [usize; 2] {
    [0, 1].map(|i| lens.iter().map(|l| l[i]).sum())
}

/// The places of packed sequences, one after another.
pub fn places(lens: &[[usize; 2]]) -> Vec<Sequence> {
    let (mut q, mut k) = (0, 0);
    let place = |&[tq, tkv]: &[usize; 2]| {
        (q, k) = (q + tq, k + tkv);
        Sequence { q: q - tq..q, k: k - tkv..k }
    };
    lens.iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_tell_lengths_apart() {
        let of = |text: &str| words(&parse(text).unwrap());
        assert_eq!(of("100+28"), "2 packed sequences (100+28)");
        assert_eq!(of("16x512"), "16 packed sequences (16x512)");
        let long = (0..40).map(|i| i.to_string()).collect::<Vec<_>>().join("+");
        assert!(of(&long).ends_with(".., 780 tokens)"), "{}", of(&long));
    }

    #[test]
    fn lengths_round_trip() {
        for given in ["1000", "3x64+1000", "5:1000+2x7:8+7", "0+30+3x0+5:0+0:5+70"] {
            assert_eq!(text(&parse(given).unwrap()), given);
        }
        for given in ["", "1+", "2x", "x3", "0x3", "1:", "-1", "99999999999", "1048576x1048576"] {
            assert!(parse(given).unwrap_err().contains("lens="), "{given}");
        }
    }

    #[test]
    fn sequences_lie_one_after_another() {
        let all = places(&[[5, 7], [2, 3]]);
        assert_eq!((all[1].q.clone(), all[1].k.clone()), (5..7, 7..10));
        assert_eq!(sums(&[[5, 7], [2, 3]]), [7, 10]);
        let all = places(&[[0, 0], [5, 0], [0, 3], [2, 3]]);
        assert_eq!((all[1].q.clone(), all[1].k.clone()), (0..5, 0..0));
        assert_eq!((all[3].q.clone(), all[3].k.clone()), (5..7, 3..6));
    }
}
