//! Tells programs of the container that they can't have windows, in the words of their own protocol, so that the reason
//! is on their terminal and they end at once.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, Shutdown, SocketFlags, accept_with, recv, shutdown};
use wayland::session::error_event;
use wayland::socket::send_some;
use wl_proxy::protocols::wayland::wl_display::WlDisplayError;

/// How long an X program may take to say in which byte order it wants its answer.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a Wayland program that was refused may take to leave.
const FAREWELL: Duration = Duration::from_secs(2);

/// The most programs that are refused at once.
const BATCH: usize = 16;

/// Tells the Wayland client on `socket` why it can't be served, and waits until it has heard: one that finds the connection
/// closed while it still writes may not look for a reason.
pub(crate) fn wayland(socket: &OwnedFd, why: &anyhow::Error) {
    let event = error_event(1, WlDisplayError::IMPLEMENTATION.0, &format!("{why:#}"));
    // Whoever has left already needs no reason.
    let _ = send_some(socket, &event).and_then(|_| Ok(shutdown(socket, Shutdown::Write)?));
    let end = Instant::now() + FAREWELL;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        let left = Timespec::try_from(left).unwrap_or_default();
        let heard = poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left));
        if !matches!(heard, Ok(1))
            || !matches!(
                recv(socket, &mut [0; 4096][..], RecvFlags::DONTWAIT),
                Ok((1.., _))
            )
        {
            break;
        }
    }
}

/// Takes the X programs that wait on `listeners` and tells them why they can't be served.
pub(crate) fn x(listeners: &[OwnedFd], why: &anyhow::Error) {
    for listener in listeners {
        for _ in 0..BATCH {
            let waiting = PollFd::new(listener, PollFlags::IN);
            if !matches!(poll(&mut [waiting], Some(&Timespec::default())), Ok(1)) {
                break;
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            if let Ok(program) = accept_with(listener, flags) {
                let _ = send_some(
                    &program,
                    &failure(order_of(&program), &format!("{why:#}\n")),
                );
            }
        }
    }
}

/// Returns the first byte of a program's greeting: `B` if it speaks big endian.
fn order_of(program: &OwnedFd) -> u8 {
    let patience = Timespec::try_from(PATIENCE).unwrap_or_default();
    let _ = poll(&mut [PollFd::new(program, PollFlags::IN)], Some(&patience));
    let mut greeting = [0; 64];
    match recv(program, &mut greeting[..], RecvFlags::empty()) {
        Ok((1.., _)) => greeting[0],
        _ => b'l',
    }
}

/// Returns the answer that refuses a connection (X protocol, "Connection Setup": Failed).
fn failure(order: u8, why: &str) -> Vec<u8> {
    let mut end = why.len().min(usize::from(u8::MAX));
    while !why.is_char_boundary(end) {
        end -= 1;
    }
    let reason = &why.as_bytes()[..end];
    let length = u8::try_from(reason.len()).expect("the reason was cut");
    let words = u16::from(length).div_ceil(4);
    let mut answer = vec![0, length];
    for number in [11, 0, words] {
        answer.extend(if order == b'B' {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        });
    }
    answer.extend(reason);
    answer.resize(8 + usize::from(words) * 4, 0);
    answer
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_wayland_program_that_writes_first_still_hears_why() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&[7; 8192]).unwrap();
        let refusing = std::thread::spawn(move || {
            wayland(&ours.into(), &anyhow::anyhow!("no host"));
        });
        let mut heard = Vec::new();
        theirs.write_all(&[7; 8192]).unwrap();
        theirs.read_to_end(&mut heard).unwrap();
        drop(theirs);
        refusing.join().unwrap();
        assert!(heard.windows(7).any(|part| part == b"no host"));
    }

    #[test]
    fn a_refusal_has_its_reason_in_the_asker_s_byte_order() {
        let answer = failure(b'l', "no host");
        assert_eq!(answer[..8], [0, 7, 11, 0, 0, 0, 2, 0]);
        assert_eq!(&answer[8..], b"no host\0");
        assert_eq!(failure(b'B', "x")[2..8], [0, 11, 0, 0, 0, 1]);
    }

    #[test]
    fn a_long_reason_is_cut_between_letters() {
        let answer = failure(b'l', &"ä".repeat(200));
        assert_eq!(answer[1], 254);
        assert_eq!(answer.len() % 4, 0);
    }
}
