//! Makes text from a guest harmless to a terminal: no control sequence in it is obeyed, and no direction mark
//! reorders what stands around it.

use std::borrow::Cow;

/// Returns `text` with every control character but tab shown instead of obeyed (`^[` for escape).
pub(crate) fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            _ if !is_harmful(c) => out.push(c),
            '\x7f' => out.push_str("^?"),
            // Caret notation: the letter 64 places further on.
            '\0'..='\x1f' => {
                out.push('^');
                out.push(char::from(c as u8 + 64));
            }
            _ => out.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    // Bidirectional overrides and isolates (Unicode 16 §23.2) change the order of everything after them.
    let direction =
        matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    (c.is_control() && c != '\t') || direction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_is_untouched() {
        assert!(matches!(
            clean("Debian\tGNU/Linux 13 (trixie) é 漢"),
            Cow::Borrowed(_)
        ));
    }

    #[test]
    fn control_sequences_are_shown() {
        assert_eq!(clean("\x1b]0;title\x07\r\n"), "^[]0;title^G^M^J");
        assert_eq!(clean("\u{9b}31m\x7f"), "\\u{9b}31m^?");
        assert_eq!(clean("a\u{202e}b"), "a\\u{202e}b");
    }
}
