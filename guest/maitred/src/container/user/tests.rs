//! The account files after a user was made, for images of several kinds.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;

use super::*;

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nubuntu:x:1000:1000::/home/ubuntu:/bin/bash";
const GROUP: &str = "root:x:0:\nsudo:x:27:ubuntu\naudio:x:29:\nstaff:x:50:\nubuntu:x:1000:\n";

struct Image {
    folder: tempfile::TempDir,
    rootfs: Rootfs,
}

impl Image {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let rootfs = Rootfs::open(folder.path()).unwrap();
        Self { folder, rootfs }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap()
    }

    fn create(&self, name: &str, uid: u32) -> Result<User, Fault> {
        create(
            &self.rootfs,
            &proto::User {
                name: name.to_owned(),
                uid,
            },
        )
    }
}

#[test]
fn a_new_user_gets_a_free_number_a_home_and_rights() {
    let image = Image::new(&[
        ("etc/passwd", PASSWD),
        ("etc/group", GROUP),
        ("etc/skel/.profile", "umask 022\n"),
        ("var/lib/systemd/x", ""),
    ]);
    let user = image.create("ada", 1000).unwrap();
    assert_eq!((user.uid, user.gid), (1001, 1001));
    let passwd = image.text("etc/passwd");
    assert!(passwd.starts_with(PASSWD));
    assert!(passwd.ends_with("\nada:x:1001:1001::/home/ada:/bin/sh\n"));
    let group = image.text("etc/group");
    for line in [
        "sudo:x:27:ubuntu,ada",
        "audio:x:29:ada",
        "staff:x:50:",
        "ada:x:1001:",
    ] {
        assert!(
            group.lines().any(|l| l == line),
            "{line} is missing in {group}"
        );
    }
    assert!(image.text("etc/shadow").starts_with("ada:*:"));
    assert_eq!(image.text("etc/subuid"), "ada:100000:65536\n");
    assert_eq!(
        image.text("etc/sudoers.d/testudo"),
        "ada ALL=(ALL:ALL) NOPASSWD: ALL\n"
    );
    assert_eq!(image.text("home/ada/.profile"), "umask 022\n");
    assert_eq!(image.text("var/lib/systemd/linger/ada"), "");
    let home = std::fs::metadata(image.path("home/ada")).unwrap();
    assert_eq!(
        (home.uid(), home.permissions().mode() & 0o777),
        (1001, 0o700)
    );
}

#[test]
fn an_account_of_the_image_is_taken_as_it_is() {
    let image = Image::new(&[("etc/passwd", PASSWD), ("etc/group", GROUP)]);
    let user = image.create("ubuntu", 1000).unwrap();
    assert_eq!(
        user,
        User {
            name: "ubuntu".to_owned(),
            uid: 1000,
            gid: 1000
        }
    );
    assert_eq!(image.text("etc/passwd"), PASSWD);
    assert!(image.text("etc/group").contains("sudo:x:27:ubuntu\n"));
}

#[test]
fn root_needs_no_account_and_no_sudo() {
    let image = Image::new(&[("etc/passwd", PASSWD), ("etc/group", GROUP)]);
    assert_eq!(image.create("root", 0).unwrap().uid, 0);
    assert!(!image.path("etc/sudoers.d").exists());
    assert_eq!(image.text("etc/group"), GROUP);
}

#[test]
fn an_image_without_account_files_gets_them() {
    let image = Image::new(&[]);
    assert_eq!(image.create("ada", 1000).unwrap().uid, 1000);
    assert_eq!(
        image.text("etc/passwd"),
        "ada:x:1000:1000::/home/ada:/bin/sh\n"
    );
}

#[test]
fn account_files_that_lead_out_are_not_followed() {
    let image = Image::new(&[]);
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("passwd");
    std::fs::write(&victim, "victim\n").unwrap();
    std::fs::create_dir(image.path("etc")).unwrap();
    symlink(&victim, image.path("etc/passwd")).unwrap();
    symlink(outside.path(), image.path("home")).unwrap();
    let _ = image.create("ada", 1000);
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "victim\n");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn names_that_would_become_more_than_a_name_are_refused() {
    let image = Image::new(&[]);
    for name in [
        "",
        "a:b",
        "a\nb",
        "../x",
        "a/b",
        "-a",
        "1a",
        "a b",
        "ä",
        &"a".repeat(33),
    ] {
        let fault = image.create(name, 1000).unwrap_err();
        assert_eq!(fault.parts().code, "E-USER-NAME", "{name:?}");
    }
    assert!(image.create("ada", 100_000).is_err());
}
