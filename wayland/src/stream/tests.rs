//! Two ends of the stream in one thread: bytes, pools, files and pipes cross it.

use std::io::{Read as _, Write as _};
use std::rc::Rc;

use super::*;
use crate::pool::Budget;
use crate::rows::{Grid, Rows};

struct Ends {
    guest: Stream,
    host: Stream,
    guest_session: OwnedFd,
    host_session: OwnedFd,
}

fn ends(host_pipes: Limits) -> Ends {
    let (near, far) = socket::pair().unwrap();
    let pools = Some(PoolStore::new(Budget::new(1 << 24)));
    let host = Settings {
        pools,
        pipes: host_pipes,
        ..Settings::default()
    };
    let (guest, guest_session) = Stream::new(near, Settings::default()).unwrap();
    let (host, host_session) = Stream::new(far, host).unwrap();
    Ends {
        guest,
        host,
        guest_session,
        host_session,
    }
}

impl Ends {
    fn turn(&mut self) {
        for end in [&mut self.guest, &mut self.host] {
            end.pump(true, &[PollFlags::IN]).unwrap();
            end.notices = end.flush().unwrap();
        }
    }
}

#[test]
fn pixels_arrive_before_the_bytes_that_commit_them() {
    let mut ends = ends(Limits::default());
    let file = Rc::new(sealed_file(&[7; 4096]).unwrap());
    ends.guest.memory(Memory::Pool { id: 1, size: 4096 });
    let grid = Grid {
        offset: 0,
        stride: 64,
        row_len: 64,
        rows: 64,
    };
    ends.guest
        .memory(Memory::Rows(Rows::new(file.clone(), 1, grid)));
    ends.guest.memory(Memory::Commit);
    ends.guest.expect_fd(FdRole::Pool(1));
    let fd = file.try_clone().unwrap();
    socket::send_with(&ends.guest_session, b"12345678", &[fd]).unwrap();
    (0..3).for_each(|_| ends.turn());
    let (mut bytes, mut fds) = ([0; 64], Vec::new());
    let read = socket::receive(&ends.host_session, &mut bytes, &mut fds).unwrap();
    assert_eq!((read, &bytes[..8]), (Read::Bytes(8), &b"12345678"[..]));
    let mut pixels = [0; 4096];
    assert_eq!(
        rustix::io::pread(&fds[0], &mut pixels[..], 0).unwrap(),
        4096
    );
    assert_eq!(pixels, [7; 4096]);
    assert_eq!(ends.guest.status().unseen_commits, 0);
}

#[test]
fn last_words_are_read_though_nobody_listens_any_more() {
    let mut ends = ends(Limits::default());
    socket::send_with(&ends.host_session, b"an error", &[]).unwrap();
    let _ = ends.host.flush().unwrap();
    drop(ends.host);
    // The program writes before it reads, and finds nobody.
    socket::send_with(&ends.guest_session, b"a request", &[]).unwrap();
    let _ = ends.guest.flush().unwrap();
    assert!(!ends.guest.status().closed);
    (0..2).for_each(|_| ends.guest.pump(true, &[PollFlags::IN]).unwrap());
    let (mut bytes, mut fds) = ([0; 64], Vec::new());
    let read = socket::receive(&ends.guest_session, &mut bytes, &mut fds).unwrap();
    assert_eq!((read, &bytes[..8]), (Read::Bytes(8), &b"an error"[..]));
    assert!(ends.guest.status().closed);
}

#[test]
fn a_keymap_becomes_a_sealed_file_in_the_guest() {
    let mut ends = ends(Limits::default());
    let keymap = sealed_file(b"xkb_keymap {}").unwrap();
    ends.host.expect_fd(FdRole::Contents(13));
    socket::send_with(&ends.host_session, b"12345678", &[keymap]).unwrap();
    (0..3).for_each(|_| ends.turn());
    let (mut bytes, mut fds) = ([0; 64], Vec::new());
    socket::receive(&ends.guest_session, &mut bytes, &mut fds).unwrap();
    let mut text = [0; 20];
    assert_eq!(rustix::io::pread(&fds[0], &mut text[..], 0).unwrap(), 13);
    assert_eq!(&text[..13], b"xkb_keymap {}");
}

/// Hands a pipe from the guest to the host and returns (reader in the guest, writer on the host).
fn piped(ends: &mut Ends) -> (std::fs::File, std::fs::File) {
    let (reader, writer) = io::pipe().unwrap();
    ends.guest.expect_fd(FdRole::Pipe);
    socket::send_with(&ends.guest_session, b"12345678", &[writer.into()]).unwrap();
    (0..3).for_each(|_| ends.turn());
    let (mut bytes, mut fds) = ([0; 64], Vec::new());
    socket::receive(&ends.host_session, &mut bytes, &mut fds).unwrap();
    let reader: OwnedFd = reader.into();
    (reader.into(), fds.remove(0).into())
}

#[test]
fn a_transfer_larger_than_every_buffer_arrives_whole() {
    let mut ends = ends(Limits::default());
    let (mut reader, mut writer) = piped(&mut ends);
    let sent: Vec<u8> = (0..5_000_000u32).map(|n| (n * 31 / 7) as u8).collect();
    let data = sent.clone();
    let feeder = std::thread::spawn(move || writer.write_all(&data).unwrap());
    let drain = std::thread::spawn(move || {
        let mut got = Vec::new();
        reader.read_to_end(&mut got).unwrap();
        got
    });
    while !drain.is_finished() {
        ends.turn();
    }
    feeder.join().unwrap();
    assert!(drain.join().unwrap() == sent);
    assert!(ends.guest.pipes.is_idle() && ends.host.pipes.is_idle());
}

#[test]
fn a_writer_learns_that_its_reader_is_gone() {
    let mut ends = ends(Limits::default());
    let (reader, mut writer) = piped(&mut ends);
    drop(reader);
    (0..4).for_each(|_| ends.turn());
    let error = writer.write_all(&[0; 10]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_transfer_over_the_cap_is_cut_and_reported() {
    let limits = Limits {
        max_bytes: 1000,
        ..Limits::default()
    };
    let mut ends = ends(limits);
    let (_reader, mut writer) = piped(&mut ends);
    writer.write_all(&[0; 2000]).unwrap();
    ends.turn();
    ends.host.pump(true, &[]).unwrap();
    let told = ends.host.flush().unwrap();
    let told = [told, std::mem::take(&mut ends.host.notices)].concat();
    let cut = told
        .iter()
        .any(|n| matches!(n, Notice::Transferred(t) if t.cut && t.outward));
    assert!(cut, "{told:?}");
    assert_eq!(
        writer.write_all(&[0]).unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}

#[test]
fn a_guest_that_skips_the_greeting_is_refused() {
    let (near, far) = socket::pair().unwrap();
    let (mut host, _session) = Stream::new(far, Settings::default()).unwrap();
    let mut bytes = Vec::new();
    Frame::DropPool(1).write(&mut bytes);
    socket::send_some(&near, &bytes).unwrap();
    let refused = host.pump(true, &[PollFlags::IN]);
    assert!(matches!(refused, Err(ChannelError::Unexpected("first"))));
}

#[test]
fn a_guest_never_takes_pools_from_the_host() {
    let (near, far) = socket::pair().unwrap();
    let (mut guest, _session) = Stream::new(far, Settings::default()).unwrap();
    let mut bytes = Vec::new();
    Frame::Hello {
        clock_ns: 0,
        label: "",
    }
    .write(&mut bytes);
    Frame::Pool { id: 1, size: 4096 }.write(&mut bytes);
    socket::send_some(&near, &bytes).unwrap();
    let refused = guest.pump(true, &[PollFlags::IN]);
    assert!(matches!(refused, Err(ChannelError::Unexpected("pool"))));
}
