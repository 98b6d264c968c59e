//! Damage for tests: what disks, editors and other programs do to files, from a seed.

use rand::{Rng, SeedableRng};
use rand_pcg::Pcg64Mcg;

/// What a number of a text becomes.
const NUMBERS: [&str; 18] = [
    "-1",
    "0",
    "1e308",
    "-1e308",
    "1e999",
    "1e-320",
    "1073741824",
    "4294967296",
    "9223372036854775807",
    "18446744073709551616",
    "0.5",
    "null",
    "NaN",
    "\"x\"",
    "[]",
    "{}",
    "true",
    "",
];

pub fn seeded(seed: u64) -> Pcg64Mcg {
    Pcg64Mcg::seed_from_u64(seed)
}

/// Somewhere in `0..=end`.
fn place(rng: &mut Pcg64Mcg, end: usize) -> usize {
    rng.random_range(0..=end)
}

/// A span of up to `most` bytes.
fn span(rng: &mut Pcg64Mcg, bytes: &[u8], most: usize) -> std::ops::Range<usize> {
    let start = place(rng, bytes.len());
    start..bytes.len().min(start + place(rng, most))
}

/// Damages bytes in one way; says which.
pub fn bytes(rng: &mut Pcg64Mcg, bytes: &mut Vec<u8>) -> &'static str {
    match rng.random_range(0..9) {
        0 if !bytes.is_empty() => {
            let at = place(rng, bytes.len() - 1);
            bytes[at] ^= 1 << rng.random_range(0..8);
            "a flipped bit"
        }
        1 => {
            let end = place(rng, bytes.len());
            bytes.truncate(end);
            "cut off"
        }
        2 => {
            let at = place(rng, bytes.len());
            let new: Vec<u8> = (0..rng.random_range(1..40)).map(|_| rng.random()).collect();
            bytes.splice(at..at, new);
            "inserted bytes"
        }
        3 => {
            let (a, b) = (span(rng, bytes, 900), span(rng, bytes, 900));
            let (first, last) = if a.start <= b.start { (a, b) } else { (b, a) };
            if first.end <= last.start {
                let (x, y) = (bytes[first.clone()].to_vec(), bytes[last.clone()].to_vec());
                bytes.splice(last, x);
                bytes.splice(first, y);
            }
            "swapped spans"
        }
        4 => {
            let of = span(rng, bytes, 6000);
            let again = bytes[of.clone()].to_vec();
            bytes.splice(of.end..of.end, again);
            "a repeated span"
        }
        5 => {
            let of = span(rng, bytes, 900);
            bytes.drain(of);
            "a lost span"
        }
        6 => {
            let of = span(rng, bytes, 900);
            bytes[of].fill(0);
            "a span of zeros"
        }
        7 => {
            let end = place(rng, bytes.len());
            bytes.truncate(end);
            bytes.resize(end + rng.random_range(1..5000), 0);
            "a tail of zeros"
        }
        _ => {
            let crlf = |byte: &u8| if *byte == b'\n' { vec![b'\r', b'\n'] } else { vec![*byte] };
            *bytes = bytes.iter().flat_map(crlf).collect();
            "other line ends"
        }
    }
}

/// Replaces one number of a text.
pub fn number(rng: &mut Pcg64Mcg, bytes: &mut Vec<u8>) -> &'static str {
    let part = |b: u8| b.is_ascii_digit() || b"+-.e".contains(&b);
    let begins = |i: usize| {
        let before = i.checked_sub(1).map_or(b' ', |j| bytes[j]);
        (bytes[i].is_ascii_digit() || bytes[i] == b'-') && b":[,".contains(&before)
    };
    let starts: Vec<usize> = (0..bytes.len()).filter(|i| begins(*i)).collect();
    if starts.is_empty() {
        return "no number";
    }
    let start = starts[rng.random_range(0..starts.len())];
    let end = (start..bytes.len()).find(|i| !part(bytes[*i])).unwrap_or(bytes.len());
    let new = NUMBERS[rng.random_range(0..NUMBERS.len())];
    bytes.splice(start..end, new.bytes());
    "another number"
}

/// Replaces one word of a text by another of its words.
pub fn word(rng: &mut Pcg64Mcg, bytes: &mut Vec<u8>) -> &'static str {
    let quotes: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i] == b'"').collect();
    if quotes.len() < 4 {
        return "no words";
    }
    let mut pick = || {
        let i = rng.random_range(0..quotes.len() / 2) * 2;
        quotes[i] + 1..quotes[i + 1]
    };
    let (from, to) = (pick(), pick());
    let new = bytes[from].to_vec();
    bytes.splice(to, new);
    "another word"
}
