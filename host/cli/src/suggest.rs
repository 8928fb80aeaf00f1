//! The nearest thing the user can have meant: among names that exist, and among spellings that are allowed.

/// Similarity (Jaro) from which a name counts as meant; clap uses the same for its own suggestions.
const NEAR: f64 = 0.7;

/// Returns the one of `known` that is most like `given`, if any is.
pub(crate) fn nearest<'a>(
    given: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (strsim::jaro(given, name), name))
        .filter(|(likeness, _)| *likeness > NEAR)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name)
}

/// Returns `given` in lower case with everything between letters and digits made a hyphen; it still has to be
/// parsed.
pub(crate) fn spelling(given: &str) -> String {
    given
        .to_ascii_lowercase()
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_near_and_another_word_is_not() {
        assert_eq!(nearest("pengiun", ["dev", "penguin"]), Some("penguin"));
        assert_eq!(nearest("xyz", ["dev", "penguin"]), None);
    }

    #[test]
    fn spellings_are_labels() {
        assert_eq!(spelling("My Box_2!"), "my-box-2");
    }
}
