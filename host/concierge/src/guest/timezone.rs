//! The host's time zone by its name in the time zone database, for new containers.

/// Longest name that is passed on; the database's longest has 32 bytes.
const NAME_MAX: usize = 64;

/// Returns the name, empty when the host has none: what `TZ` says, else where `/etc/localtime` points, else what
/// `/etc/timezone` holds (distributions that copy the zone's file keep its name there).
pub(super) fn name() -> String {
    let variable = std::env::var("TZ").unwrap_or_default();
    let link = std::fs::read_link("/etc/localtime").unwrap_or_default();
    let file = std::fs::read_to_string("/etc/timezone").unwrap_or_default();
    let said = [variable.as_str(), &link.to_string_lossy(), &file];
    let names = said.into_iter().filter_map(parse);
    names.map(str::to_owned).next().unwrap_or_default()
}

/// Returns the zone's name in a path, a `TZ` (tzset(3)) or a line; none in what describes a zone by rules.
fn parse(text: &str) -> Option<&str> {
    let text = text.trim();
    let text = text.strip_prefix(':').unwrap_or(text);
    let name = text.split_once("zoneinfo/").map_or(text, |(_, name)| name);
    // The database's variants without and with leap seconds are the same zones.
    let name = ["posix/", "right/"]
        .iter()
        .find_map(|variant| name.strip_prefix(variant))
        .unwrap_or(name);
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+');
    let good = |part: &str| !part.is_empty() && part.bytes().all(inside);
    (name.len() <= NAME_MAX && name.split('/').all(good)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_whatever_says_them() {
        for said in [
            "Europe/Berlin",
            ":Europe/Berlin",
            "/usr/share/zoneinfo/Europe/Berlin",
            "../usr/share/zoneinfo/posix/Europe/Berlin",
            "Europe/Berlin\n",
        ] {
            assert_eq!(parse(said), Some("Europe/Berlin"), "{said:?}");
        }
        assert_eq!(parse("Etc/GMT+5"), Some("Etc/GMT+5"));
    }

    #[test]
    fn what_is_no_name_is_left_to_the_next_source() {
        for said in [
            "",
            "/etc/my-zone",
            "CET-1CEST,M3.5.0,M10.5.0/3",
            "../../etc",
            "a b",
        ] {
            assert_eq!(parse(said), None, "{said:?}");
        }
    }
}
