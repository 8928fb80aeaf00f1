//! Archives as they come and as an attacker would make them.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use tar::{Builder, Header};

use super::*;

struct Maker(Builder<Vec<u8>>);

impl Maker {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn add(mut self, kind: EntryType, path: &str, content: &str) -> Self {
        let mut header = Header::new_gnu();
        // Written by hand: the library would not write a hostile name.
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o4755);
        let meta = std::fs::metadata("/proc/self").unwrap();
        header.set_uid(meta.uid().into());
        header.set_gid(meta.gid().into());
        header.set_mtime(1_000_000);
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_gnu_mut().unwrap().linkname[..content.len()]
                .copy_from_slice(content.as_bytes());
        }
        let content = if is_link { "" } else { content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content.as_bytes()).unwrap();
        self
    }

    fn file(self, path: &str, content: &str) -> Self {
        self.add(EntryType::Regular, path, content)
    }

    fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

struct Place {
    outside: tempfile::TempDir,
    top: PathBuf,
}

impl Place {
    fn new() -> Self {
        let outside = tempfile::tempdir().unwrap();
        let top = outside.path().join("top");
        std::fs::create_dir(&top).unwrap();
        Self { outside, top }
    }

    fn unpack(&self, bytes: &[u8], take: &Take) -> Result<(), Fault> {
        archive(bytes, &self.top, take)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.top.join(path)).unwrap()
    }

    /// Nothing but the top directory and what the test put there itself.
    fn outside_has(&self, expected: &[&str]) {
        let mut names: Vec<_> = std::fs::read_dir(self.outside.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(names, expected);
    }
}

#[test]
fn files_come_with_mode_time_and_links() {
    let place = Place::new();
    let bytes = Maker::new()
        .add(EntryType::Directory, "./bin/", "")
        .file("./bin/tool", "program")
        .add(EntryType::Link, "bin/same", "./bin/tool")
        .add(EntryType::Symlink, "bin/other", "/bin/tool")
        .add(EntryType::Fifo, "pipe", "")
        .bytes();
    place.unpack(&bytes, &Take::All).unwrap();
    let tool = std::fs::metadata(place.top.join("bin/tool")).unwrap();
    assert_eq!(tool.permissions().mode() & 0o7777, 0o4755);
    assert_eq!((tool.nlink(), tool.mtime()), (2, 1_000_000));
    assert_eq!(
        std::fs::read_link(place.top.join("bin/other")).unwrap(),
        Path::new("/bin/tool")
    );
    assert!(
        std::fs::symlink_metadata(place.top.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
}

#[test]
fn no_member_leaves_the_top() {
    for hostile in ["../up", "a/../../up", "/../up"] {
        let place = Place::new();
        let fault = place
            .unpack(&Maker::new().file(hostile, "x").bytes(), &Take::All)
            .unwrap_err();
        assert_eq!(fault.parts().code, "E-IMPORT", "{hostile}");
        place.outside_has(&["top"]);
    }
    let place = Place::new();
    place
        .unpack(&Maker::new().file("/absolute", "x").bytes(), &Take::All)
        .unwrap();
    assert_eq!(place.text("absolute"), "x");
}

#[test]
fn links_made_by_earlier_members_are_not_followed_out() {
    let place = Place::new();
    let outside = place.outside.path().to_str().unwrap().to_owned();
    std::fs::write(place.outside.path().join("victim"), "safe").unwrap();
    let through = Maker::new()
        .add(EntryType::Symlink, "out", "../")
        .file("out/new", "inside")
        .add(EntryType::Symlink, "abs", &outside)
        .bytes();
    place.unpack(&through, &Take::All).unwrap();
    // `..` at the top is the top.
    assert_eq!(place.text("new"), "inside");
    let write = Maker::new()
        .add(EntryType::Symlink, "abs", &outside)
        .file("abs/victim", "hit");
    let _ = place.unpack(&write.bytes(), &Take::All);
    let over = Maker::new()
        .add(EntryType::Symlink, "file", &format!("{outside}/victim"))
        .file("file", "mine");
    place.unpack(&over.bytes(), &Take::All).unwrap();
    assert_eq!(place.text("file"), "mine");
    let hard = Maker::new()
        .add(EntryType::Link, "steal", "abs/victim")
        .bytes();
    assert!(place.unpack(&hard, &Take::All).is_err());
    assert_eq!(
        std::fs::read_to_string(place.outside.path().join("victim")).unwrap(),
        "safe"
    );
    place.outside_has(&["top", "victim"]);
}

#[test]
fn device_nodes_are_left_out_and_whiteouts_of_overlays_are_not() {
    let place = Place::new();
    let bytes = Maker::new()
        .add(EntryType::Block, "disk", "")
        .file("kept", "")
        .bytes();
    place.unpack(&bytes, &Take::All).unwrap();
    let names = std::fs::read_dir(&place.top).unwrap().count();
    assert_eq!(names, 1);
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Char);
    header.set_size(0);
    for (minor, is_kept) in [(0, true), (1, false)] {
        header.set_device_major(0).unwrap();
        header.set_device_minor(minor).unwrap();
        assert_eq!(is_whiteout(&header).unwrap(), is_kept);
    }
}

#[test]
fn layers_remove_what_they_white_out() {
    let place = Place::new();
    let lower = Maker::new()
        .file("etc/gone", "1")
        .file("etc/kept", "1")
        .file("opt/a", "1")
        .file("opt/deep/b", "1")
        .bytes();
    let upper = Maker::new()
        .file("etc/.wh.gone", "")
        .file("opt/.wh..wh..opq", "")
        .file("opt/c", "2")
        .file("etc/.wh.never-there", "")
        .bytes();
    place.unpack(&lower, &Take::Layer).unwrap();
    place.unpack(&upper, &Take::Layer).unwrap();
    assert!(!place.top.join("etc/gone").exists());
    assert_eq!(place.text("etc/kept"), "1");
    let names: Vec<_> = std::fs::read_dir(place.top.join("opt"))
        .unwrap()
        .flatten()
        .collect();
    assert_eq!(names.len(), 1);
    assert_eq!(place.text("opt/c"), "2");
}

#[test]
fn a_whiteout_cannot_remove_outside() {
    let place = Place::new();
    std::fs::write(place.outside.path().join("victim"), "safe").unwrap();
    let outside = place.outside.path().to_str().unwrap().to_owned();
    let bytes = Maker::new()
        .add(EntryType::Symlink, "abs", &outside)
        .file("abs/.wh.victim", "")
        .bytes();
    let _ = place.unpack(&bytes, &Take::Layer);
    let up = Maker::new().file(".wh...", "").bytes();
    let _ = place.unpack(&up, &Take::Layer);
    place.outside_has(&["top", "victim"]);
}

#[test]
fn a_kind_may_change_between_layers() {
    let place = Place::new();
    let lower = Maker::new().file("a/inner", "").file("b", "").bytes();
    let upper = Maker::new()
        .file("a", "file")
        .add(EntryType::Directory, "b/", "")
        .bytes();
    place.unpack(&lower, &Take::Layer).unwrap();
    place.unpack(&upper, &Take::Layer).unwrap();
    assert_eq!(place.text("a"), "file");
    assert!(place.top.join("b").is_dir());
}

#[test]
fn what_is_below_one_directory_becomes_the_top() {
    let place = Place::new();
    let bytes = Maker::new()
        .file("metadata.yaml", "x")
        .file("rootfs/etc/mark", "1")
        .add(EntryType::Link, "rootfs/same", "rootfs/etc/mark")
        .bytes();
    place.unpack(&bytes, &Take::Below("rootfs")).unwrap();
    assert_eq!(
        (place.text("etc/mark"), place.text("same")),
        ("1".to_owned(), "1".to_owned())
    );
    assert!(!place.top.join("metadata.yaml").exists());
}

#[test]
fn rubbish_is_a_fault_and_never_a_panic() {
    let good = Maker::new().file("a", &"x".repeat(5000)).bytes();
    for bytes in [
        &b""[..],
        b"no tar at all",
        &good[..700],
        &[0; 1024],
        &[0x28, 0xb5, 0x2f, 0xfd],
    ] {
        let fault = Place::new().unpack(bytes, &Take::All).unwrap_err();
        assert_eq!(fault.kind(), FaultKind::Invalid);
    }
}

#[test]
fn more_than_the_disk_has_room_for_is_refused_before_it_is_written() {
    const HUGE: u64 = 1 << 55;
    let mut header = Header::new_gnu();
    header.set_path("bomb").unwrap();
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(HUGE);
    gnu.sparse[0].set_offset(HUGE);
    gnu.sparse[0].set_length(0);
    header.set_cksum();
    let mut maker = Maker::new();
    maker.0.append(&header, io::empty()).unwrap();
    let place = Place::new();
    let fault = place.unpack(&maker.bytes(), &Take::All).unwrap_err();
    assert_eq!(fault.parts().code, "E-DISK-FULL");
    assert!(!place.top.join("bomb").exists());
}
