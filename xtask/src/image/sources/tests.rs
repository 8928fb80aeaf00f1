//! The machine's apt configuration in the shapes people have it, all read from a real folder.

use super::*;

const DEB822: &str = "\
Types: deb deb-src
# a comment inside the stanza
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://switched-off.example/debian
Suites: bookworm
Components: main
Enabled: no
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: https://vendor.example/apt
Suites: bookworm
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 mQINBFU
 -----END PGP PUBLIC KEY BLOCK-----
";

fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("sources.list.d")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn read(files: &[(&str, &str)]) -> Result<Vec<(String, String)>> {
    let folder = machine(files);
    let sources = Sources::of_machine(folder.path(), "bookworm", "")?;
    Ok(sources
        .list
        .into_iter()
        .map(|source| (source.uri, source.suites.join(" ")))
        .collect())
}

fn pair(uri: &str, suites: &str) -> (String, String) {
    (uri.to_owned(), suites.to_owned())
}

#[test]
fn deb822_keeps_debian_and_leaves_vendors_and_disabled_stanzas() {
    let sources = read(&[("sources.list.d/debian.sources", DEB822)]).unwrap();
    assert_eq!(
        sources,
        [
            pair("http://mirror.example/debian", "trixie trixie-updates"),
            pair("http://mirror.example/debian-security", "trixie-security"),
        ]
    );
}

#[test]
fn one_line_entries_of_one_mirror_become_one_source() {
    let list = "deb http://m.example/debian bookworm main # the mirror\n\
                deb [arch=amd64] http://m.example/debian bookworm-updates main\n\
                deb-src http://m.example/debian bookworm main\n\
                deb cdrom:[Debian]/ bookworm main\n\
                deb [signed-by=/usr/share/keyrings/vendor.gpg] http://v.example/apt bookworm main\n";
    let sources = read(&[("sources.list", list)]).unwrap();
    assert_eq!(
        sources,
        [pair("http://m.example/debian", "trixie trixie-updates")]
    );
}

#[test]
fn mirror_file_is_replaced_by_the_mirrors_it_names() {
    let folder = machine(&[(
        "mirrors",
        "# chosen at boot\nhttp://a.example/debian priority:1\nhttp://b.example/debian\n",
    )]);
    let uri = format!("mirror+file://{}", folder.path().join("mirrors").display());
    let sources = read(&[("sources.list", &format!("deb {uri} stable main\n"))]).unwrap();
    assert_eq!(
        sources,
        [
            pair("http://a.example/debian", "trixie"),
            pair("http://b.example/debian", "trixie")
        ]
    );
}

#[test]
fn machine_without_debian_is_refused_with_a_way_out() {
    let error = read(&[("sources.list", "deb http://u.example/ubuntu noble main\n")]).unwrap_err();
    assert!(error.to_string().contains("--mirror"), "{error}");
}

#[test]
fn deb822_output_names_mirror_suites_and_keyring() {
    let text = Sources::of_mirror("http://m.example/debian", "").deb822(Path::new("/k.gpg"));
    assert_eq!(
        text,
        "Types: deb\nURIs: http://m.example/debian\nSuites: trixie trixie-updates\n\
         Components: main\nSigned-By: /k.gpg\n\n"
    );
}

#[test]
fn proxies_are_found_and_loopback_ones_stay_on_the_host() {
    let dump = "Acquire::http::Proxy \"http://cache.example:3142/\";\n\
                Acquire::https::Proxy \"http://127.0.0.1:3142/\";\n\
                Acquire::Languages \"none\";\nAcquire::ftp::Proxy \"\";\n";
    let sources = Sources::of_mirror("http://m.example", dump);
    assert_eq!(sources.proxies.len(), 2);
    assert_eq!(
        sources.guest_proxy_conf(),
        "Acquire::http::Proxy \"http://cache.example:3142/\";\n"
    );
    assert_eq!(sources.out_of_reach().len(), 1);
}

#[test]
fn what_only_this_machine_reaches_is_said() {
    for own in [
        "http://127.0.0.1:3142/debian",
        "http://user:secret@localhost/debian",
        "https://[::1]:8443/debian",
        "file:/srv/debian",
        "tor+http://x.example/debian",
    ] {
        let said = Sources::of_mirror(own, "").out_of_reach();
        assert!(said.len() == 1 && said[0].contains(own), "{own}: {said:?}");
    }
    let dump = "Acquire::http::Proxy-Auto-Detect \"/usr/bin/find-proxy\";\n\
                Acquire::http::Proxy::m.example \"DIRECT\";\n";
    let sources = Sources::of_mirror("http://127.example/debian", dump);
    assert_eq!(
        sources.out_of_reach().len(),
        1,
        "the program is not in the container"
    );
    assert_eq!(
        sources.guest_proxy_conf(),
        "Acquire::http::Proxy::m.example \"DIRECT\";\n"
    );
}
