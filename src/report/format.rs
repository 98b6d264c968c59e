//! Numbers and lists as people read them.

/// Three significant digits, without an exponent where that stays short.
pub fn three(x: f64) -> String {
    if !x.is_finite() {
        return "–".to_string();
    }
    if x == 0.0 {
        return "0".to_string();
    }
    let digits = 2 - x.abs().log10().floor() as i32;
    if !(-4..=6).contains(&digits) {
        return format!("{x:.2e}");
    }
    // Rounding may carry into one more digit: 9.999 is 10.0.
    let text = format!("{x:.*}", digits.max(0) as usize);
    let shown: f64 = text.parse().unwrap_or(x);
    let digits = 2 - shown.abs().log10().floor() as i32;
    format!("{shown:.*}", digits.max(0) as usize)
}

/// An integer of at most three significant digits: 2931.7 is 2930.
pub fn integer(x: f64) -> String {
    let unit = 10f64.powf(x.max(1.0).log10().floor() - 2.0).max(1.0);
    format!("{:.0}", (x / unit).round() * unit)
}

/// `2.5x`
pub fn factor(x: f64) -> String {
    match x {
        x if x >= 99.5 => format!("{x:.0}x"),
        x if x >= 1.095 => format!("{x:.1}x"),
        x => format!("{x:.2}x"),
    }
}

/// A percentage of a part of one: `83%`, `0.4%`.
pub fn percent(x: f64) -> String {
    match x * 100.0 {
        p if !p.is_finite() => "–".to_string(),
        p if p >= 9.95 || p == 0.0 => format!("{p:.0}%"),
        p if p >= 0.095 => format!("{p:.1}%"),
        p => format!("{p:.2}%"),
    }
}

/// A length as a tick: 256, 1k, 4k; k and M are powers of 1024, and only where exact.
pub fn tokens(t: f64) -> String {
    let (k, m) = (1024.0, 1024.0 * 1024.0);
    match t {
        t if t >= m && t % m == 0.0 => format!("{}M", t / m),
        t if t >= k && t % k == 0.0 => format!("{}k", t / k),
        t => format!("{t}"),
    }
}

/// `a, b and c`
pub fn list<T: AsRef<str>>(parts: &[T]) -> String {
    match parts {
        [] => String::new(),
        [one] => one.as_ref().to_string(),
        [most @ .., last] => {
            let most: Vec<_> = most.iter().map(AsRef::as_ref).collect();
            format!("{} and {}", most.join(", "), last.as_ref())
        }
    }
}

/// Nouns with their number: `1 case`, `2 cases`.
pub fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        for (x, wanted) in [
            (0.0, "0"),
            (0.0123456, "0.0123"),
            (1.0, "1.00"),
            (9.999, "10.0"),
            (12.345, "12.3"),
            (999.96, "1000"),
            (1234.5, "1234"),
            (1.66e-3, "0.00166"),
            (1.5e-9, "1.50e-9"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(three(x), wanted, "{x}");
        }
    }

    #[test]
    fn lengths_factors_and_lists() {
        assert_eq!([256.0, 1000.0, 1024.0, 32768.0].map(tokens), ["256", "1000", "1k", "32k"]);
        assert_eq!(tokens(1048576.0), "1M");
        assert_eq!([2931.7, 999.6, 63.2, 12345.0].map(integer), ["2930", "1000", "63", "12300"]);
        assert_eq!([1.004, 1.0951, 2.53, 250.2].map(factor), ["1.00x", "1.1x", "2.5x", "250x"]);
        assert_eq!([0.831, 0.0041, 0.0].map(percent), ["83%", "0.4%", "0%"].map(str::to_string));
        assert_eq!(list::<&str>(&[]), "");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
    }
}
