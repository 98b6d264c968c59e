//! Commands as a person would type them.

/// The command line of this process; words that a shell would take apart are quoted.
pub fn command() -> String {
    let args = std::env::args_os().skip(1).map(|arg| quoted(&arg.to_string_lossy()));
    std::iter::once("crossover".to_string()).chain(args).collect::<Vec<_>>().join(" ")
}

/// One word for a shell.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_string(),
        false => format!("'{}'", word.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_stay_words() {
        for (word, wanted) in [
            ("sweeps/a.toml", "sweeps/a.toml"),
            ("a b.toml", "'a b.toml'"),
            ("it's", "'it'\\''s'"),
            ("", "''"),
            ("*", "'*'"),
            ("~/x", "'~/x'"),
        ] {
            assert_eq!(quoted(word), wanted);
        }
    }
}
