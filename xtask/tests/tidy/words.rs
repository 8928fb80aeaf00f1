//! Words that may not cross a border: the host does not know how containers are made, the VMM does not know that there
//! are any, and only the engine choice knows KVM.

use crate::{none, tree};

/// Rooms, the words that may not stand there, and the files in them that may.
struct Ban {
    rooms: &'static [&'static str],
    words: &'static [&'static str],
    except: &'static [&'static str],
    /// Whether comments count too.
    comments: bool,
}

const BANS: &[Ban] = &[
    Ban {
        rooms: &["host/", "vmm/"],
        words: &["lxc", "lxd", "incus"],
        except: &[],
        comments: true,
    },
    Ban {
        rooms: &["vmm/", "devices/", "virtio/"],
        words: &["container"],
        except: &[],
        comments: true,
    },
    Ban {
        // In the guest it is only the name of a group.
        rooms: &["host/", "link/", "wire/", "sys/", "devices/"],
        words: &["kvm"],
        // The engine choice, and the command that explains it.
        except: &[
            "host/concierge/src/engine",
            "host/concierge/src/config",
            "host/cli/src/doctor",
            "/tests",
        ],
        comments: false,
    },
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "base", "misc", "helper", "helpers",
];

#[test]
fn no_word_stands_where_it_may_not() {
    let mut offences = Vec::new();
    for file in tree::files(&[".rs", ".proto"]) {
        let bans = BANS.iter().filter(|ban| {
            ban.rooms.iter().any(|room| file.path.starts_with(room))
                && !ban.except.iter().any(|except| file.path.contains(except))
        });
        for ban in bans {
            for (number, line) in file.text.lines().enumerate() {
                let line = if ban.comments {
                    line
                } else {
                    without_comment(line)
                };
                let line = line.to_lowercase();
                let found = ban.words.iter().filter(|word| line.contains(**word));
                offences.extend(found.map(|word| format!("{}:{}: {word}", file.path, number + 1)));
            }
        }
    }
    none("words stand where they may not", &offences);
}

#[test]
fn every_name_says_what_is_inside() {
    let empty = |part: &str| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"));
    let offences: Vec<_> = tree::paths()
        .into_iter()
        .filter(|path| path.split('/').any(empty))
        .collect();
    none("files or folders whose name says nothing", &offences);
}

fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}
