//! A container's account files (passwd(5), group(5)): read with a limit, every line of them untrusted.

use super::rootfs::Rootfs;

/// The kernel takes at most this many groups for a process (NGROUPS_MAX); more are of no use.
const GROUPS_MAX: usize = 1024;

/// One line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) home: String,
    pub(crate) shell: String,
}

impl Account {
    /// What remains when an image knows no account at all.
    pub(crate) fn root() -> Self {
        Self {
            name: "root".to_owned(),
            uid: 0,
            gid: 0,
            home: "/root".to_owned(),
            shell: "/bin/sh".to_owned(),
        }
    }

    /// Finds the account called `name`, or with that number.
    pub(crate) fn find(rootfs: &Rootfs, name: &str) -> Option<Self> {
        let text = rootfs.read("etc/passwd").ok();
        let found = text.and_then(|text| {
            let accounts: Vec<_> = accounts(&String::from_utf8_lossy(&text)).collect();
            let number = name.parse::<u32>().ok();
            let by_name = accounts.iter().find(|account| account.name == name);
            by_name
                .or_else(|| accounts.iter().find(|a| Some(a.uid) == number))
                .cloned()
        });
        found.or_else(|| (name == "root" || name == "0").then(Self::root))
    }

    /// Returns the numbers of the groups that it is a member of, its own first.
    pub(crate) fn groups(&self, rootfs: &Rootfs) -> Vec<u32> {
        let text = rootfs.read("etc/group").unwrap_or_default();
        let mut all = vec![self.gid];
        for (gid, members) in memberships(&String::from_utf8_lossy(&text)) {
            if members.split(',').any(|member| member == self.name) && !all.contains(&gid) {
                all.push(gid);
            }
        }
        all.truncate(GROUPS_MAX);
        all
    }
}

/// Reads the well-formed lines of a passwd file.
pub(super) fn accounts(passwd: &str) -> impl Iterator<Item = Account> {
    passwd.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else {
            return None;
        };
        let or = |text: &str, other: &str| if text.is_empty() { other } else { text }.to_owned();
        Some(Account {
            name: name.to_owned(),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home: or(home, "/"),
            shell: or(shell, "/bin/sh"),
        })
    })
}

/// Reads number and members of the well-formed lines of a group file.
fn memberships(group: &str) -> impl Iterator<Item = (u32, &str)> {
    group.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [_, _, gid, members] = fields[..] else {
            return None;
        };
        Some((gid.parse().ok()?, members))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rootfs(passwd: &str, group: &str) -> (tempfile::TempDir, Rootfs) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::fs::write(folder.path().join("etc/passwd"), passwd).unwrap();
        std::fs::write(folder.path().join("etc/group"), group).unwrap();
        let rootfs = Rootfs::open(folder.path()).unwrap();
        (folder, rootfs)
    }

    #[test]
    fn an_account_is_found_by_name_or_number_among_broken_lines() {
        let passwd = "junk\nroot:x:0:0:root:/root:/bin/bash\nada:x:1000:1001:A,,:/home/ada:\na:b\n";
        let group = "audio:x:29:bob,ada\nada:x:1001:\nbroken:x:y:ada\nsudo:x:27:ada\n";
        let (_folder, rootfs) = rootfs(passwd, group);
        let ada = Account::find(&rootfs, "ada").unwrap();
        assert_eq!(
            (ada.uid, ada.gid, ada.shell.as_str()),
            (1000, 1001, "/bin/sh")
        );
        assert_eq!(Account::find(&rootfs, "1000").unwrap().name, "ada");
        assert_eq!(Account::find(&rootfs, "eve"), None);
        assert_eq!(ada.groups(&rootfs), [1001, 29, 27]);
    }

    #[test]
    fn root_is_there_even_without_account_files() {
        let folder = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::open(folder.path()).unwrap();
        assert_eq!(Account::find(&rootfs, "root"), Some(Account::root()));
        assert_eq!(Account::root().groups(&rootfs), [0]);
    }
}
