//! Trees built by hand and through real tars.

use super::*;

fn tree(nodes: &[(&str, Kind)]) -> Tree {
    let mut tree = Tree::default();
    for (path, kind) in nodes {
        tree.put(path, 0o755, kind.clone());
    }
    tree
}

fn link(target: &str) -> Kind {
    Kind::Link(target.to_owned())
}

#[test]
fn links_are_followed_through_folders_and_out_of_them() {
    let tree = tree(&[
        ("usr/bin/sh", link("../../etc/sh")),
        ("etc/sh", link("/usr/libexec/shell")),
        ("usr/libexec", link("lib/real")),
        ("usr/lib/real/shell", Kind::File(b"x".to_vec())),
    ]);
    assert_eq!(tree.resolve("/bin/sh").unwrap(), "usr/lib/real/shell");
    assert_eq!(tree.content("bin/sh").unwrap(), b"x");
    let way = tree.follow("/bin/sh").unwrap();
    assert_eq!(
        way,
        ["usr/bin/sh", "etc/sh", "usr/libexec", "usr/lib/real/shell"]
    );
}

#[test]
fn loops_and_dangling_links_lead_nowhere() {
    let tree = tree(&[("a", link("b")), ("b", link("a")), ("c", link("/nowhere"))]);
    assert_eq!((tree.resolve("a"), tree.resolve("c")), (None, None));
}

#[test]
fn tar_round_trip_keeps_everything_and_is_the_same_every_time() {
    let mut original = tree(&[
        ("etc/passwd", Kind::File(b"root".to_vec())),
        ("usr/bin/sudo", Kind::File(b"elf".to_vec())),
        ("usr/bin/s", link("sudo")),
    ]);
    original.0.get_mut("usr/bin/sudo").unwrap().mode = 0o4755;
    original.0.get_mut("etc/passwd").unwrap().owner = (0, 42);
    let mut bytes = Vec::new();
    original.write_tar(&mut bytes).unwrap();
    let mut read = Tree::default();
    read.add_tar(bytes.as_slice()).unwrap();
    assert_eq!(read, original);
    let mut again = Vec::new();
    read.write_tar(&mut again).unwrap();
    assert_eq!(bytes, again);
}

#[test]
fn files_for_bin_land_in_usr_bin() {
    let mut bytes = Vec::new();
    let unmerged = tree(&[("bin/ip", Kind::File(vec![]))]);
    unmerged.write_tar(&mut bytes).unwrap();
    let mut read = Tree::default();
    read.add_tar(bytes.as_slice()).unwrap();
    assert!(read.0.contains_key("usr/bin/ip") && !read.0.contains_key("bin/ip"));
}

#[test]
fn truncated_tar_is_an_error() {
    let mut bytes = Vec::new();
    tree(&[("a", Kind::File(vec![7; 5000]))])
        .write_tar(&mut bytes)
        .unwrap();
    assert!(Tree::default().add_tar(&bytes[..2000]).is_err());
}
