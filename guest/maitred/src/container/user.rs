//! Makes the user's account in a container that has never run: by editing its account files, which works for any
//! distribution and starts none of its programs.

use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use wire::{Fault, Kind, proto};

use super::account::accounts;
use super::config::{IDS, User};
use super::rootfs::{Owner, Rootfs};
use super::skeleton;
use crate::fault::OrFault;

/// Longest name that useradd(8) takes.
const NAME_MAX: usize = 32;

/// Groups that give the devices and rights a person at the machine has; those that exist are joined.
const GROUPS: [&str; 14] = [
    "sudo", "wheel", "adm", "audio", "video", "render", "input", "plugdev", "dialout", "cdrom",
    "netdev", "users", "kvm", "lp",
];

/// Ids for the user's own containers, after all that the container itself uses (subuid(5)).
const SUBORDINATE: (u32, u32) = (100_000, 65_536);

/// Makes the account of `wanted`, or takes the one of that name that the image brings.
pub(super) fn create(rootfs: &Rootfs, wanted: &proto::User) -> Result<User, Fault> {
    let message = || format!("cannot make the account of {}", wanted.name);
    check(&wanted.name)?;
    if wanted.uid >= SUBORDINATE.0.min(IDS) {
        let fault = Fault::new(Kind::Invalid, "E-USER-NAME", message());
        return Err(fault.cause(format!("user number {} is too large", wanted.uid)));
    }
    let user = account(rootfs, wanted).or_fault("E-USER", message)?;
    rights(rootfs, &user).or_fault("E-USER", message)?;
    Ok(user)
}

/// Names that every distribution's tools accept.
fn check(name: &str) -> Result<(), Fault> {
    let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
    let inside = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let good = name.len() <= NAME_MAX
        && name.bytes().next().is_some_and(first)
        && name.bytes().all(inside);
    if good {
        return Ok(());
    }
    let message = format!("{name:?} cannot be a user name in a container");
    Err(Fault::new(Kind::Invalid, "E-USER-NAME", message))
}

fn account(rootfs: &Rootfs, wanted: &proto::User) -> io::Result<User> {
    let text = |path: &str| match rootfs.read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        other => other.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
    };
    let passwd = text("etc/passwd")?;
    if let Some(there) = accounts(&passwd).find(|account| account.name == wanted.name) {
        return Ok(User {
            name: there.name,
            uid: there.uid,
            gid: there.gid,
        });
    }
    let group = text("etc/group")?;
    let uid = free(wanted.uid, |uid| {
        accounts(&passwd).any(|account| account.uid == uid)
    });
    let numbers: Vec<u32> = group
        .lines()
        .filter_map(|l| l.split(':').nth(2)?.parse().ok())
        .collect();
    let gid = free(uid, |gid| numbers.contains(&gid));
    let user = User {
        name: wanted.name.clone(),
        uid,
        gid,
    };
    write(rootfs, &user)?;
    let home = Owner {
        uid,
        gid,
        mode: 0o700,
    };
    skeleton::copy(rootfs, Path::new(&format!("home/{}", user.name)), home)?;
    Ok(user)
}

/// Returns the first number from `wanted` on that is not taken.
fn free(wanted: u32, taken: impl Fn(u32) -> bool) -> u32 {
    (wanted..).find(|number| !taken(*number)).unwrap_or(wanted)
}

fn write(rootfs: &Rootfs, user: &User) -> io::Result<()> {
    let User { name, uid, gid } = user;
    let shell = if rootfs.exists("bin/bash") {
        "/bin/bash"
    } else {
        "/bin/sh"
    };
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let day = now.as_secs() / 86_400;
    let add = |path: &str, mode: u32, line: String| {
        rootfs.edit(Path::new(path), Owner::root(mode), |bytes| {
            with_line(bytes, &line)
        })
    };
    add(
        "etc/passwd",
        0o644,
        format!("{name}:x:{uid}:{gid}::/home/{name}:{shell}"),
    )?;
    add("etc/group", 0o644, format!("{name}:x:{gid}:"))?;
    // No password: nobody logs in by one, and sudo asks for none.
    add("etc/shadow", 0o640, format!("{name}:*:{day}:0:99999:7:::"))?;
    if rootfs.exists("etc/gshadow") {
        add("etc/gshadow", 0o640, format!("{name}:*::"))?;
    }
    Ok(())
}

/// Groups, sudo, ids for containers inside, and services that run without a login.
fn rights(rootfs: &Rootfs, user: &User) -> io::Result<()> {
    let name = &user.name;
    if user.uid != 0 {
        for path in ["etc/group", "etc/gshadow"] {
            if rootfs.exists(path) {
                rootfs.edit(Path::new(path), Owner::root(0o644), |bytes| {
                    joined(&bytes, name)
                })?;
            }
        }
        let (first, count) = SUBORDINATE;
        for path in ["etc/subuid", "etc/subgid"] {
            rootfs.edit(Path::new(path), Owner::root(0o644), |bytes| {
                if has_entry(&bytes, name) {
                    bytes
                } else {
                    with_line(bytes, &format!("{name}:{first}:{count}"))
                }
            })?;
        }
        let rule = format!("{name} ALL=(ALL:ALL) NOPASSWD: ALL\n");
        rootfs.replace(
            Path::new("etc/sudoers.d/testudo"),
            rule.as_bytes(),
            Owner::root(0o440),
        )?;
    }
    if rootfs.exists("var/lib/systemd") {
        let linger = Path::new("var/lib/systemd/linger").join(name);
        rootfs.replace(&linger, b"", Owner::root(0o644))?;
    }
    Ok(())
}

fn with_line(mut bytes: Vec<u8>, line: &str) -> Vec<u8> {
    if bytes.last().is_some_and(|last| *last != b'\n') {
        bytes.push(b'\n');
    }
    bytes.extend(line.as_bytes());
    bytes.push(b'\n');
    bytes
}

fn has_entry(bytes: &[u8], name: &str) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.lines()
        .any(|line| line.split(':').next() == Some(name))
}

/// Adds `name` to the members of our groups; every other line stays as it is.
fn joined(bytes: &[u8], name: &str) -> Vec<u8> {
    let mut changed = Vec::with_capacity(bytes.len() + 16 * GROUPS.len());
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let (text, end) = text
            .strip_suffix('\n')
            .map_or((&*text, ""), |text| (text, "\n"));
        let fields: Vec<&str> = text.split(':').collect();
        match fields[..] {
            [group, _, _, members]
                if GROUPS.contains(&group) && !members.split(',').any(|m| m == name) =>
            {
                let comma = if members.is_empty() { "" } else { "," };
                changed.extend(format!("{text}{comma}{name}{end}").into_bytes());
            }
            _ => changed.extend(line),
        }
    }
    changed
}

#[cfg(test)]
mod tests;
