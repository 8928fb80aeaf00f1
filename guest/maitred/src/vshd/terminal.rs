//! Pseudoterminals, opened where the command will look for its own: in the container's `/dev/pts`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, Uid, fchmod, fchown, fstat, fstatfs, major, minor};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use wire::proto::VshWindow;

use crate::container::Rootfs;

/// The multiplexer's device number (Documentation/admin-guide/devices.txt: 5 char, 2 = /dev/ptmx).
const MULTIPLEXER: (u32, u32) = (5, 2);

/// `DEVPTS_SUPER_MAGIC` of linux/magic.h.
const DEVPTS: i64 = 0x1cd1;

/// Both ends of a terminal.
#[derive(Debug)]
pub(super) struct Terminal {
    /// Ours.
    pub(super) master: OwnedFd,
    /// The command's.
    pub(super) slave: OwnedFd,
}

impl Terminal {
    /// Opens one of this VM's own.
    pub(super) fn in_vm() -> io::Result<Self> {
        Self::from_master(openpt(
            OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC,
        )?)
    }

    /// Opens one of the container whose `/` is at `root`, for its user with number `uid` in the VM.
    pub(super) fn in_container(root: &Path, uid: u32) -> io::Result<Self> {
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK;
        let master = Rootfs::open(root)?.open_at("dev/pts/ptmx", flags)?;
        // The container decides what is at that path, and only a terminal may come of it.
        let stat = fstat(&master)?;
        let device = (major(stat.st_rdev), minor(stat.st_rdev));
        let is_multiplexer = FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && device == MULTIPLEXER
            && fstatfs(&master)?.f_type == DEVPTS;
        if !is_multiplexer {
            let message = "the container's /dev/pts/ptmx is not a terminal";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let terminal = Self::from_master(master)?;
        fchown(&terminal.slave, Some(Uid::from_raw(uid)), None)?;
        fchmod(&terminal.slave, Mode::RUSR | Mode::WUSR | Mode::WGRP)?;
        Ok(terminal)
    }

    fn from_master(master: OwnedFd) -> io::Result<Self> {
        unlockpt(&master)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        rustix::io::ioctl_fionbio(&master, true)?;
        Ok(Self { master, slave })
    }
}

/// Sets the terminal's size; the kernel tells the foreground processes.
pub(super) fn resize(master: impl AsFd, window: VshWindow) -> io::Result<()> {
    let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    let (ws_row, ws_col) = (cells(window.rows), cells(window.columns));
    tcsetwinsize(
        master,
        Winsize {
            ws_row,
            ws_col,
            ws_xpixel: 0,
            ws_ypixel: 0,
        },
    )
    .map_err(Into::into)
}
