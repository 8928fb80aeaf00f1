//! Reads this machine's own apt configuration and turns its Debian sources into the same mirrors'
//! sources for the suite the image is made of. Mirrors and proxies are never named in the repository.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// The Debian release that kernel, Termina and the default container come from.
pub(super) const SUITE: &str = "trixie";

/// Suites of one release, by what follows the code name; backports and proposals stay out.
const POCKETS: [&str; 3] = ["", "-updates", "-security"];

/// How the keyring of Debian's archive is called in `Signed-By`, whatever its folder.
const DEBIAN_KEYRING: &str = "debian-archive";

/// One source of the image's packages: a mirror and the suites taken from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    uri: String,
    suites: Vec<String>,
}

/// Where the image's packages come from: sources and the apt settings needed to reach them.
#[derive(Clone, Debug)]
pub(super) struct Sources {
    list: Vec<Source>,
    /// apt options about proxies, in the order apt prints them.
    pub(super) proxies: Vec<(String, String)>,
}

/// One stanza or line of apt's sources, as the machine has it.
#[derive(Debug, Default)]
struct Entry {
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: Option<String>,
}

impl Sources {
    /// Reads `etc_apt` (`/etc/apt`) of a machine whose release is `codename`, and `apt_config`, the
    /// output of `apt-config dump`.
    ///
    /// # Errors
    /// When no source there is one of Debian's.
    pub(super) fn of_machine(etc_apt: &Path, codename: &str, apt_config: &str) -> Result<Self> {
        let entries = read_entries(etc_apt)?;
        let list = debian_sources(&entries, codename);
        if !list
            .iter()
            .any(|source| source.suites.iter().any(|suite| suite == SUITE))
        {
            bail!(
                "no Debian mirror in {}: name one with `cargo xtask image --mirror URI`",
                etc_apt.display()
            );
        }
        let list = list
            .into_iter()
            .map(expand_mirror_file)
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            list: list.into_iter().flatten().collect(),
            proxies: proxies(apt_config),
        })
    }

    /// Takes everything from one named mirror, for machines that are not Debian.
    pub(super) fn of_mirror(uri: &str, apt_config: &str) -> Self {
        let suites = vec![SUITE.to_owned(), format!("{SUITE}-updates")];
        let list = vec![Source {
            uri: uri.to_owned(),
            suites,
        }];
        Self {
            list,
            proxies: proxies(apt_config),
        }
    }

    /// Returns the sources as a deb822 file whose signatures `keyring` checks.
    pub(super) fn deb822(&self, keyring: &Path) -> String {
        let mut text = String::new();
        for Source { uri, suites } in &self.list {
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "Types: deb\nURIs: {uri}\nSuites: {}\nComponents: main\nSigned-By: {}\n",
                suites.join(" "),
                keyring.display()
            );
        }
        text
    }

    /// Returns the proxies that a guest can use too, as lines of an apt.conf.
    pub(super) fn guest_proxy_conf(&self) -> String {
        let usable = self
            .proxies
            .iter()
            .filter(|(_, value)| is_proxy_of_guests(value));
        usable
            .map(|(name, value)| format!("{name} \"{value}\";\n"))
            .collect()
    }

    /// Returns what this machine's apt uses and a guest cannot, one sentence each: mirrors and proxies on the
    /// host's own loopback or disk, and programs of the host that choose a proxy.
    pub(super) fn out_of_reach(&self) -> Vec<String> {
        let mirrors = self.list.iter().map(|source| &source.uri);
        let mirrors = mirrors.filter(|uri| !is_mirror_of_guests(uri)).map(|uri| {
            format!("the mirror {uri} is this machine's own and out of a container's reach: name another in the container's sources")
        });
        let proxies = self
            .proxies
            .iter()
            .filter(|(_, value)| !is_proxy_of_guests(value));
        let proxies = proxies.map(|(name, value)| {
            format!("{name} {value} is this machine's own and out of a container's reach: the container's apt does without")
        });
        mirrors.chain(proxies).collect()
    }
}

/// Whether a guest can fetch from `uri`: over the network, from another machine.
fn is_mirror_of_guests(uri: &str) -> bool {
    let remote = ["http://", "https://", "mirror+http://", "mirror+https://"];
    remote.iter().any(|scheme| uri.starts_with(scheme)) && !is_loopback(uri)
}

/// Whether a proxy setting means something in a guest. `DIRECT` does; the path of a program to ask does not.
fn is_proxy_of_guests(value: &str) -> bool {
    !value.starts_with('/') && !is_loopback(value)
}

fn is_loopback(uri: &str) -> bool {
    let host = uri.split_once("://").map_or("", |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    host.starts_with("127.") && host.bytes().all(|b| !b.is_ascii_alphabetic())
        || ["localhost", "[::1]", "0.0.0.0"].iter().any(|own| {
            host.strip_prefix(own)
                .is_some_and(|port| port.is_empty() || port.starts_with(':'))
        })
}

fn read_entries(etc_apt: &Path) -> Result<Vec<Entry>> {
    let mut files = vec![etc_apt.join("sources.list")];
    if let Ok(parts) = fs::read_dir(etc_apt.join("sources.list.d")) {
        for part in parts {
            files.push(part.context("cannot list sources.list.d")?.path());
        }
    }
    files.sort();
    let mut entries = Vec::new();
    for file in files {
        let parse = match file.extension().and_then(|extension| extension.to_str()) {
            Some("list") => parse_one_line,
            Some("sources") => parse_deb822,
            _ => continue,
        };
        // sources.list may be absent; what cannot be read has nothing to offer.
        entries.extend(
            fs::read_to_string(&file)
                .map(|text| parse(&text))
                .unwrap_or_default(),
        );
    }
    Ok(entries)
}

/// Parses the one-line style of sources.list(5); lines it does not know are left out.
fn parse_one_line(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?;
    let rest = rest.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']')?,
        None => ("", rest),
    };
    let signed_by = options
        .split_whitespace()
        .find_map(|option| option.strip_prefix("signed-by="))
        .map(str::to_owned);
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Entry {
        uris: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

/// Parses the deb822 style of sources.list(5).
fn parse_deb822(text: &str) -> Vec<Entry> {
    let uncommented: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    uncommented
        .split(|line| line.trim().is_empty())
        .filter_map(|stanza| entry_of(&fields(stanza)))
        .collect()
}

/// Joins the lines of one stanza into fields; names are in lower case.
pub(super) fn fields(stanza: &[&str]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    let mut current: Option<(String, String)> = None;
    for line in stanza {
        match (line.starts_with([' ', '\t']), line.split_once(':')) {
            (true, _) => {
                if let Some((_, value)) = &mut current {
                    value.push(' ');
                    value.push_str(line.trim());
                }
            }
            (false, Some((name, value))) => {
                fields.extend(current.take());
                current = Some((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            (false, None) => {}
        }
    }
    fields.extend(current);
    fields
}

fn entry_of(fields: &BTreeMap<String, String>) -> Option<Entry> {
    let words = |name: &str| -> Vec<String> {
        fields
            .get(name)
            .map(|value| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let enabled = fields.get("enabled").is_none_or(|value| value != "no");
    let entry = Entry {
        uris: words("uris"),
        suites: words("suites"),
        components: words("components"),
        signed_by: fields.get("signed-by").cloned(),
    };
    (enabled && words("types").iter().any(|kind| kind == "deb")).then_some(entry)
}

/// Keeps the entries that are Debian's own archive and moves them to [`SUITE`].
///
/// Others use Debian's code names for their suites too. An entry signed by the archive's keyring is
/// surely Debian's; only when there is none do entries without `Signed-By` count.
fn debian_sources(entries: &[Entry], codename: &str) -> Vec<Source> {
    let of_main = |entry: &&Entry| entry.components.iter().any(|component| component == "main");
    let sure = |entry: &&Entry| {
        entry
            .signed_by
            .as_deref()
            .is_some_and(|key| key.contains(DEBIAN_KEYRING))
    };
    let mut chosen: Vec<&Entry> = entries.iter().filter(of_main).filter(sure).collect();
    if chosen
        .iter()
        .all(|entry| pockets(entry, codename).is_empty())
    {
        chosen = entries
            .iter()
            .filter(of_main)
            .filter(|entry| entry.signed_by.is_none())
            .collect();
    }
    let mut sources: Vec<Source> = Vec::new();
    for entry in chosen {
        let suites = pockets(entry, codename);
        for uri in entry.uris.iter().filter(|uri| !uri.starts_with("cdrom:")) {
            match sources.iter_mut().find(|source| source.uri == *uri) {
                Some(known) => known.suites.extend(suites.iter().cloned()),
                None if suites.is_empty() => {}
                None => sources.push(Source {
                    uri: uri.clone(),
                    suites: suites.clone(),
                }),
            }
        }
    }
    for source in &mut sources {
        source.suites.sort();
        source.suites.dedup();
    }
    sources
}

/// Returns the suites of `entry` that belong to release `codename`, renamed to [`SUITE`].
fn pockets(entry: &Entry, codename: &str) -> Vec<String> {
    let moved = |suite: &String| {
        let pocket = suite
            .strip_prefix(codename)
            .or_else(|| suite.strip_prefix("stable"))?;
        POCKETS
            .contains(&pocket)
            .then(|| format!("{SUITE}{pocket}"))
    };
    entry.suites.iter().filter_map(moved).collect()
}

/// Replaces `mirror+file:` (as Debian's cloud images have it) by the mirrors that its file names,
/// since the file does not exist inside a container.
fn expand_mirror_file(source: Source) -> Result<Vec<Source>> {
    let Some(path) = source.uri.strip_prefix("mirror+file:") else {
        return Ok(vec![source]);
    };
    let path = format!("/{}", path.trim_start_matches('/'));
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read mirror list {path}"))?;
    let uris = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let named = uris.filter(|uri| !uri.starts_with('#'));
    Ok(named
        .map(|uri| Source {
            uri: uri.to_owned(),
            suites: source.suites.clone(),
        })
        .collect())
}

/// Picks the proxy settings out of `apt-config dump`.
fn proxies(apt_config: &str) -> Vec<(String, String)> {
    let setting = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        let value = value.strip_prefix('"')?.strip_suffix("\";")?;
        let wanted = name.starts_with("Acquire::") && name.to_ascii_lowercase().contains("proxy");
        (wanted && !value.is_empty()).then(|| (name.to_owned(), value.to_owned()))
    };
    apt_config.lines().filter_map(setting).collect()
}

#[cfg(test)]
mod tests;
