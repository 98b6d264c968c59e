//! The median and its distribution-free confidence interval.

/// Middle value of ascending numbers, or the mean of both middle ones.
///
/// # Panics
/// If there are none.
pub fn median(sorted: &[f64]) -> f64 {
    let n = sorted.len();
    if n % 2 == 1 { sorted[n / 2] } else { (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0 }
}

/// Interval that holds the median with at least 95% confidence whatever the distribution, from
/// order statistics of ascending numbers: with fewer than six, all of their range and less than
/// 95%.
///
/// # Panics
/// If there are none.
pub fn median_ci(sorted: &[f64]) -> (f64, f64) {
    let low = median_rank(sorted.len());
    (sorted[low], sorted[sorted.len() - 1 - low])
}

/// Half the interval's width, relative to the median.
pub fn relative_half_width(sorted: &[f64]) -> f64 {
    let (low, high) = median_ci(sorted);
    (high - low) / 2.0 / median(sorted)
}

/// The largest rank `r` from 0 such that a fair coin gives at most `r` heads in `n` throws with
/// probability of at most 2.5%: `x[r]..x[n-1-r]` then misses the median in at most 5%.
fn median_rank(n: usize) -> usize {
    if n > 500 {
        // The binomial as a normal, rounded towards the wider interval.
        let r = (n as f64 / 2.0 - 0.5 * 1.96 * (n as f64).sqrt()).floor() - 1.0;
        return r.max(0.0) as usize;
    }
    let mut term = 0.5f64.powi(n as i32);
    let mut below = term;
    let mut rank = 0;
    // `below` is P(heads <= rank).
    loop {
        term *= (n - rank) as f64 / (rank + 1) as f64;
        if below + term > 0.025 || rank + 1 >= n / 2 {
            return rank;
        }
        below += term;
        rank += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0, 9.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 4.0, 9.0]), 3.0);
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Ranks from 1 of the lower bound, from tables of the sign test at 95%.
        for (n, rank) in
            [(6, 1), (8, 1), (9, 2), (10, 2), (15, 4), (20, 6), (30, 10), (50, 18), (100, 40)]
        {
            assert_eq!(median_rank(n) + 1, rank, "{n}");
        }
        for n in 1..6 {
            assert_eq!(median_rank(n), 0, "{n}");
        }
        // The normal approximation is no narrower than the exact rank where they meet.
        let exact = median_rank(500);
        assert!(
            (exact - 2..=exact + 1).contains(&median_rank(501)),
            "{exact} {}",
            median_rank(501)
        );
    }

    #[test]
    fn intervals() {
        let x: Vec<f64> = (1..=10).map(f64::from).collect();
        assert_eq!(median_ci(&x), (2.0, 9.0));
        assert!((relative_half_width(&x) - 3.5 / 5.5).abs() < 1e-12);
        assert_eq!(median_ci(&[4.0]), (4.0, 4.0));
        assert_eq!(relative_half_width(&[4.0; 12]), 0.0);
    }

    #[test]
    fn the_interval_covers_the_median() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_pcg::Pcg64Mcg::seed_from_u64(1);
        for n in [10, 33, 128] {
            let covered = (0..2000).filter(|_| {
                // Skewed, as times are; the true median of -ln u is ln 2.
                let mut x: Vec<f64> = (0..n).map(|_| -rng.random::<f64>().ln()).collect();
                x.sort_by(f64::total_cmp);
                let (low, high) = median_ci(&x);
                (low..=high).contains(&std::f64::consts::LN_2)
            });
            let share = covered.count() as f64 / 2000.0;
            assert!((0.94..0.999).contains(&share), "{n}: {share}");
        }
    }
}
