//! The person a container is made for: this process's user, under a name that any distribution accepts.
//!
//! Users are read from `/etc/passwd` and the environment, never through glibc: the program is static and the
//! name service modules are not (ADR 2).

use wire::proto::User;

/// Longest user name that Linux tools accept (useradd(8)).
const NAME_LENGTH_MAX: usize = 32;
/// The id of the first person in a container, as distributions give it.
const UID: u32 = 1000;

/// Returns the user to make in a new container: root when we are root, else our name with uid 1000.
pub(crate) fn of_this_process() -> User {
    let uid = rustix::process::getuid();
    if uid.is_root() {
        return User {
            name: "root".to_owned(),
            uid: 0,
        };
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = named(&passwd, uid.as_raw())
        .map(str::to_owned)
        .or_else(|| std::env::var("USER").ok())
        .unwrap_or_default();
    User {
        name: acceptable(&name),
        uid: UID,
    }
}

/// Returns the name of user `uid` in the text of a passwd(5) file.
pub(crate) fn named(passwd: &str, uid: u32) -> Option<&str> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    })
}

/// Returns `name` with what useradd refuses left out; a name of which nothing remains, or that would be root's,
/// becomes `user`.
fn acceptable(name: &str) -> String {
    let kept: String = name
        .to_ascii_lowercase()
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .skip_while(|c| !c.is_ascii_lowercase() && *c != '_')
        .take(NAME_LENGTH_MAX)
        .collect();
    if kept.is_empty() || kept == "root" {
        "user".to_owned()
    } else {
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_by_its_number() {
        let passwd = "root:x:0:0::/root:/bin/sh\nbroken\nanna:x:1001:1001::/home/anna:/bin/sh\n";
        assert_eq!(named(passwd, 1001), Some("anna"));
        assert_eq!(named(passwd, 7), None);
    }

    #[test]
    fn directory_names_become_local_ones() {
        assert_eq!(
            acceptable("EXAMPLE\\Anna.Smith@corp"),
            "exampleannasmithcorp"
        );
        assert_eq!(acceptable("9lives"), "lives");
        assert_eq!(acceptable("Ω"), "user");
        assert_eq!(acceptable("Root"), "user");
    }
}
