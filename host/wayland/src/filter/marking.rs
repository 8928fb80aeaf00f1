//! How the host marks what comes from a VM: pure functions on titles and names.

/// The longest title shown, the tag not counted. Longer ones only help to hide something.
const MAX_TITLE_CHARS: usize = 256;

/// The longest app id of a guest; desktop files have far shorter names.
const MAX_APP_ID_LEN: usize = 128;

/// Returns the title that a window of `vm` gets for its own `title`.
#[must_use]
pub(crate) fn title(vm: &str, title: &str) -> String {
    let clean: String = title
        .chars()
        .filter(|c| is_plain(*c))
        .take(MAX_TITLE_CHARS)
        .collect();
    format!("[{vm}] {clean}")
}

/// Returns the app id that a window of `vm` gets for its own `app_id`. A guest's value that
/// already looks like one of ours is prefixed like any other, so no VM can pass for another one.
#[must_use]
pub(crate) fn app_id(prefix: &str, vm: &str, app_id: &str) -> String {
    let clean: String = app_id
        .chars()
        .filter(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        .take(MAX_APP_ID_LEN)
        .collect();
    let clean = if clean.is_empty() { "unnamed" } else { &clean };
    format!("{prefix}.vm.{vm}.{clean}")
}

/// Returns whether a character is shown as what it is: no controls, and nothing that turns the
/// direction of the text around it (Unicode UAX #9) or is invisible.
fn is_plain(c: char) -> bool {
    let reorders = matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}') && !reorders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_title_carries_its_vm() {
        assert_eq!(title("penguin", "Mail"), "[penguin] Mail");
        assert_eq!(title("penguin", ""), "[penguin] ");
    }

    #[test]
    fn a_title_can_neither_turn_the_text_nor_go_on_for_ever() {
        assert_eq!(title("vm", "\u{202e}gpj.exe\u{7}\n"), "[vm] gpj.exe");
        assert_eq!(
            title("vm", &"a".repeat(100_000)).len(),
            "[vm] ".len() + MAX_TITLE_CHARS
        );
    }

    #[test]
    fn a_spoofed_prefix_is_prefixed_again() {
        assert_eq!(
            app_id("org.testudo", "evil", "org.testudo.vm.bank.browser"),
            "org.testudo.vm.evil.org.testudo.vm.bank.browser"
        );
    }

    #[test]
    fn an_app_id_is_a_plain_name() {
        assert_eq!(app_id("p", "vm", "../../x y"), "p.vm.vm.....xy");
        assert_eq!(app_id("p", "vm", "名前"), "p.vm.vm.unnamed");
    }
}
