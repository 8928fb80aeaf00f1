//! What a TAP device is asked by ioctl, on the host: the only place of this daemon that needs `unsafe`.

#![expect(unsafe_code, reason = "UNSAFETY: ioctls of linux/if_tun.h")]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Requests of linux/if_tun.h, which the libc crate lacks for some targets: `_IOR('T', 210, unsigned int)`,
/// `_IOW('T', 208, unsigned int)`, `_IOW('T', 216, int)`.
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
pub(crate) const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;

/// Offloads: checksums, TCP over IPv4 and IPv6.
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;

/// Kinds of device: Ethernet frames, without a packet type before them, with a virtio header.
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;

/// `struct ifreq`: a name, then a union of which the flags are the first two bytes.
#[repr(C)]
struct Interface {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    rest: [u8; 22],
}

/// Checks that `file` is a TAP device that carries virtio headers.
pub(crate) fn check(file: &File) -> io::Result<()> {
    let mut interface = Interface {
        name: [0; libc::IFNAMSIZ],
        flags: 0,
        rest: [0; 22],
    };
    // SAFETY: TUNGETIFF writes one `struct ifreq`, which the pointer is to; any other descriptor answers with an error.
    answer(unsafe { libc::ioctl(file.as_raw_fd(), TUNGETIFF, &raw mut interface) })?;
    let wanted = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    if interface.flags & wanted == wanted {
        return Ok(());
    }
    Err(io::Error::other(
        "the TAP device must be made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR",
    ))
}

/// Says how long the header before each frame is.
pub(crate) fn set_header_bytes(file: &File, bytes: usize) -> io::Result<()> {
    let bytes = libc::c_int::try_from(bytes).map_err(io::Error::other)?;
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    answer(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETVNETHDRSZ, &raw const bytes) })
}

/// Says what the guest can take.
pub(crate) fn set(file: &File, checksums: bool, tcp4: bool, tcp6: bool) -> io::Result<()> {
    let flag = |set: bool, flag| if set { flag } else { 0 };
    let flags = flag(checksums, TUN_F_CSUM)
        | flag(checksums && tcp4, TUN_F_TSO4)
        | flag(checksums && tcp6, TUN_F_TSO6);
    // SAFETY: TUNSETOFFLOAD takes its flags by value.
    answer(unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD, flags) })
}

fn answer(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
