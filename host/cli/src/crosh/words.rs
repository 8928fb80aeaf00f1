//! A line as words: blanks part them, quotes and backslashes keep them together, and nothing is ever expanded.

use std::fmt;

/// Why a line cannot be made into words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordError {
    /// A quote is not closed.
    OpenQuote(char),
    /// The line ends in a backslash.
    Backslash,
}

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OpenQuote(quote) => write!(f, "{quote} is not closed"),
            Self::Backslash => f.write_str("nothing follows the last \\"),
        }
    }
}

/// Returns the words of `line`. In single quotes everything stands for itself; in double quotes a backslash keeps
/// its meaning before `"` and `\`.
pub(super) fn split(line: &str) -> Result<Vec<String>, WordError> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match c {
            _ if c.is_whitespace() => words.extend(word.take()),
            '\\' => {
                let next = chars.next().ok_or(WordError::Backslash)?;
                word.get_or_insert_default().push(next);
            }
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next().ok_or(WordError::OpenQuote(c))? {
                        end if end == c => break,
                        '\\' if c == '"' => {
                            let next = chars.next().ok_or(WordError::OpenQuote(c))?;
                            if !matches!(next, '"' | '\\') {
                                word.push('\\');
                            }
                            word.push(next);
                        }
                        inside => word.push(inside),
                    }
                }
            }
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        let words = split(r#"vsh termina -- sh -c "echo \"$HOME\" \n" 'a b'\ c '' "#).unwrap();
        assert_eq!(
            words,
            [
                "vsh",
                "termina",
                "--",
                "sh",
                "-c",
                r#"echo "$HOME" \n"#,
                "a b c",
                ""
            ]
        );
    }

    #[test]
    fn what_is_not_finished_is_refused() {
        assert_eq!(split("a 'b"), Err(WordError::OpenQuote('\'')));
        assert_eq!(split("a \\"), Err(WordError::Backslash));
        assert_eq!(split("   "), Ok(Vec::new()));
    }
}
