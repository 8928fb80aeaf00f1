//! What is exported comes back the same, and nothing else does.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::super::config::Config;
use super::super::import::{Imported, ours};
use super::*;

/// A tree with everything that a root file system has.
fn tree(top: &Path) {
    std::fs::create_dir_all(top.join("etc/deep")).unwrap();
    std::fs::write(top.join("etc/deep/file"), "content").unwrap();
    std::fs::write(top.join("tool"), vec![7; 100_000]).unwrap();
    std::fs::set_permissions(top.join("tool"), PermissionsExt::from_mode(0o4755)).unwrap();
    std::fs::hard_link(top.join("tool"), top.join("zz-same")).unwrap();
    symlink("/etc/deep/file", top.join("link")).unwrap();
    let long = "x".repeat(200);
    std::fs::create_dir(top.join(&long)).unwrap();
    std::fs::write(top.join(&long).join(&long), "long").unwrap();
    std::fs::write(top.join("odd\nname"), "odd").unwrap();
}

fn export(top: &Path) -> Vec<u8> {
    let scratch = tempfile::tempdir().unwrap();
    let name: ContainerName = "penguin".parse().unwrap();
    let manifest = Manifest::of(&name, &Config::new(10, None));
    let manifest = serde_json::to_vec(&manifest).unwrap();
    let (out, mut chunks) = mpsc::channel::<Result<Vec<u8>, Status>>(2);
    let collect = std::thread::spawn(move || {
        let mut all = Vec::new();
        while let Some(chunk) = chunks.blocking_recv() {
            all.extend(chunk.unwrap());
        }
        all
    });
    write(top, &manifest, &scratch.path().join("sums"), Sink::new(out)).unwrap();
    collect.join().unwrap()
}

fn import(bytes: &[u8]) -> (tempfile::TempDir, Result<Imported, Fault>) {
    let folder = tempfile::tempdir().unwrap();
    let done = ours::bring(bytes, folder.path());
    (folder, done)
}

#[test]
fn an_export_comes_back_as_it_was() {
    let from = tempfile::tempdir().unwrap();
    tree(from.path());
    let (to, done) = import(&export(from.path()));
    assert_eq!(done.unwrap().name.unwrap().as_str(), "penguin");
    let same = std::process::Command::new("diff")
        .args(["--recursive", "--no-dereference"])
        .args([from.path(), to.path()])
        .output()
        .unwrap();
    assert!(
        same.status.success(),
        "{}",
        String::from_utf8_lossy(&same.stdout)
    );
    let tool = std::fs::metadata(to.path().join("tool")).unwrap();
    assert_eq!((tool.mode() & 0o7777, tool.nlink()), (0o4755, 2));
    let mtime = |at: &Path| std::fs::metadata(at.join("etc/deep/file")).unwrap().mtime();
    assert_eq!(mtime(from.path()), mtime(to.path()));
}

#[test]
fn the_sums_can_be_checked_with_the_usual_tool() {
    let from = tempfile::tempdir().unwrap();
    tree(from.path());
    let to = tempfile::tempdir().unwrap();
    let bytes = zstd::decode_all(&export(from.path())[..]).unwrap();
    tar::Archive::new(&bytes[..]).unpack(to.path()).unwrap();
    let checked = std::process::Command::new("sha256sum")
        .args(["--check", "--quiet", "--strict", "checksums"])
        .current_dir(to.path())
        .output()
        .unwrap();
    assert!(
        checked.status.success(),
        "{}",
        String::from_utf8_lossy(&checked.stderr)
    );
}

#[test]
fn a_changed_a_cut_and_a_longer_export_are_refused() {
    let from = tempfile::tempdir().unwrap();
    tree(from.path());
    let good = export(from.path());
    let plain = zstd::decode_all(&good[..]).unwrap();
    let changed = {
        let mut bytes = plain.clone();
        let at = bytes.windows(7).position(|w| w == b"content").unwrap();
        bytes[at] = b'C';
        bytes
    };
    let at = plain.windows(9).rposition(|w| w == b"checksums").unwrap();
    let without_sums = [&plain[..at], &[0; 1024]].concat();
    let mut flipped = good.clone();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for bad in [
        &changed[..],
        &without_sums,
        &good[..good.len() - 5],
        &flipped,
        b"",
        b"x",
    ] {
        let (_folder, done) = import(bad);
        assert_eq!(done.unwrap_err().parts().code, "E-IMPORT");
    }
}

#[test]
fn an_export_ends_when_the_host_has_gone() {
    let from = tempfile::tempdir().unwrap();
    tree(from.path());
    let scratch = tempfile::tempdir().unwrap();
    let (out, chunks) = mpsc::channel(1);
    drop(chunks);
    let error = write(
        from.path(),
        b"{}",
        &scratch.path().join("sums"),
        Sink::new(out),
    );
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}
