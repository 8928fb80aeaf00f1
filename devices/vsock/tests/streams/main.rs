//! The socket device driven as a guest drives it, with real sockets on the host's side.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

mod guest;

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use guest::{
    CREDIT_REQUEST, CREDIT_UPDATE, DATA, Guest, Packet, REQUEST, RESET, RESPONSE, SHUTDOWN,
};

/// What the device lets a guest have under way.
const CREDIT: u32 = 256 * 1024;

fn data(bytes: &[u8]) -> Packet {
    Packet {
        data: bytes.to_vec(),
        ..Packet::new(1000, 5, DATA)
    }
}

fn read_exactly(stream: &mut UnixStream, bytes: usize) -> Vec<u8> {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    let mut out = vec![0; bytes];
    stream.read_exact(&mut out).unwrap();
    out
}

fn reads_end(stream: &mut UnixStream) -> bool {
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_))
}

#[test]
fn config_holds_the_cid() {
    let mut guest = Guest::new(1);
    assert_eq!(guest.driver.config(8), 3_u64.to_le_bytes());
}

#[test]
fn bytes_go_both_ways_on_a_guests_connection() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect_out();
    guest.send(&data(b"question"));
    assert_eq!(read_exactly(&mut host, 8), b"question");
    host.write_all(b"answer").unwrap();
    let packet = guest.receive();
    assert_eq!((packet.operation, packet.data), (DATA, b"answer".to_vec()));
    assert_eq!(packet.forwarded, 8);
}

#[test]
fn bytes_go_both_ways_on_a_hosts_connection() {
    let mut guest = Guest::new(8);
    let mut host = UnixStream::connect(guest.path("vsock.sock")).unwrap();
    // What is sent before the answer must not be lost.
    host.write_all(b"CONNECT 8888\nearly").unwrap();
    let request = guest.receive();
    assert_eq!((request.operation, request.guest_port), (REQUEST, 8888));
    assert_eq!(request.allocated, CREDIT);
    guest.send(&Packet::new(8888, request.host_port, RESPONSE));
    let ok = format!("OK {}\n", request.host_port);
    assert_eq!(read_exactly(&mut host, ok.len()), ok.as_bytes());
    assert_eq!(guest.receive().data, b"early");
    let reply = Packet {
        data: b"late".to_vec(),
        ..Packet::new(8888, request.host_port, DATA)
    };
    guest.send(&reply);
    assert_eq!(read_exactly(&mut host, 4), b"late");
}

#[test]
fn refused_host_connection_is_closed_without_ok() {
    let mut guest = Guest::new(8);
    let mut host = UnixStream::connect(guest.path("vsock.sock")).unwrap();
    host.write_all(b"CONNECT 1\n").unwrap();
    let request = guest.receive();
    guest.send(&Packet::new(1, request.host_port, RESET));
    assert!(reads_end(&mut host));
}

#[test]
fn nonsense_at_the_door_is_sent_away() {
    let guest = Guest::new(8);
    for nonsense in [&b"GET / HTTP/1.1\r\n"[..], b"CONNECT\n", &[b'x'; 100]] {
        let mut host = UnixStream::connect(guest.path("vsock.sock")).unwrap();
        host.write_all(nonsense).unwrap();
        assert!(reads_end(&mut host), "{nonsense:?}");
    }
}

#[test]
fn host_that_gives_up_resets_its_request() {
    let mut guest = Guest::new(8);
    let mut host = UnixStream::connect(guest.path("vsock.sock")).unwrap();
    host.write_all(b"CONNECT 7\n").unwrap();
    assert_eq!(guest.receive().operation, REQUEST);
    drop(host);
    assert_eq!(guest.receive().operation, RESET);
}

#[test]
fn port_nobody_listens_on_is_reset() {
    let mut guest = Guest::new(8);
    guest.send(&Packet::new(1000, 6, REQUEST));
    let answer = guest.receive();
    assert_eq!(
        (answer.operation, answer.guest_port, answer.host_port),
        (RESET, 1000, 6)
    );
}

#[test]
fn packet_to_no_connection_is_reset_but_a_reset_is_not() {
    let mut guest = Guest::new(8);
    guest.send(&data(b"who is there?"));
    assert_eq!(guest.receive().operation, RESET);
    guest.send(&Packet::new(1000, 5, RESET));
    assert!(guest.hears_nothing());
}

#[test]
fn garbage_is_reset_or_ignored() {
    let mut guest = Guest::new(8);
    guest.send_raw(&[0xff; 20]);
    guest.send_raw(&[0xff; 44]);
    assert!(guest.hears_nothing());
    // A header that promises more than there is.
    let mut bytes = data(b"").bytes();
    bytes[24] = 200;
    guest.send_raw(&bytes);
    assert_eq!(guest.receive().operation, RESET);
    // An operation and a type that do not exist.
    guest.send(&Packet::new(1000, 5, 99));
    assert_eq!(guest.receive().operation, RESET);
    let mut bytes = Packet::new(1000, 5, REQUEST).bytes();
    bytes[28] = 2;
    guest.send_raw(&bytes);
    assert_eq!(guest.receive().operation, RESET);
    // And the device still works.
    guest.connect_out();
}

#[test]
fn large_stream_arrives_whole_in_both_directions() {
    const BYTES: usize = 8 << 20;
    let pattern: Vec<u8> = (0..BYTES).map(|at| (at * 7 + at / 251) as u8).collect();
    let mut guest = Guest::new(32);
    let mut host = guest.connect_out();
    let (mut reader, sent) = (host.try_clone().unwrap(), pattern.clone());
    let writer = std::thread::spawn(move || host.write_all(&sent).unwrap());
    let mut got = Vec::new();
    while got.len() < BYTES {
        let packet = guest.receive();
        got.extend(packet.data);
        // Credit is given as it is used up.
        let forwarded = got.len() as u32;
        guest.send(&Packet {
            forwarded,
            ..Packet::new(1000, 5, CREDIT_UPDATE)
        });
    }
    writer.join().unwrap();
    assert!(got == pattern, "bytes differ on the way to the guest");

    let echo = std::thread::spawn(move || read_exactly(&mut reader, BYTES));
    let (mut forwarded, mut at) = (0_u32, 0);
    while at < BYTES {
        let credit = CREDIT - (at as u32).wrapping_sub(forwarded);
        let length = 65_536.min(BYTES - at).min(credit as usize);
        if length == 0 {
            forwarded = guest.receive().forwarded;
            continue;
        }
        guest.send(&data(&pattern[at..at + length]));
        at += length;
    }
    assert!(
        echo.join().unwrap() == pattern,
        "bytes differ on the way to the host"
    );
}

#[test]
fn guests_credit_is_kept() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect_out();
    guest.send(&Packet {
        allocated: 10,
        ..Packet::new(1000, 5, CREDIT_UPDATE)
    });
    host.write_all(&[7; 100]).unwrap();
    assert_eq!(guest.receive().data, [7; 10]);
    assert!(guest.hears_nothing());
    guest.send(&Packet {
        allocated: 10,
        forwarded: 4,
        ..Packet::new(1000, 5, CREDIT_UPDATE)
    });
    assert_eq!(guest.receive().data, [7; 4]);
    // A guest that claims to have taken more than it got has no credit at all.
    guest.send(&Packet {
        allocated: 10,
        forwarded: 900,
        ..Packet::new(1000, 5, CREDIT_UPDATE)
    });
    assert!(guest.hears_nothing());
}

#[test]
fn guest_that_overruns_the_buffer_is_reset() {
    let mut guest = Guest::new(8);
    let host = guest.connect_out();
    let mut sent = 0;
    // The socket's own buffer takes some before ours fills; nothing is read.
    let packet = loop {
        guest.send(&data(&[0; 65_000]));
        sent += 65_000;
        assert!(sent < 4 << 20, "the device took without limit");
        if let Some(packet) = guest.receive_within(Duration::from_millis(20))
            && packet.operation == RESET
        {
            break packet;
        }
    };
    assert_eq!(packet.guest_port, 1000);
    drop(host);
}

#[test]
fn credit_request_is_answered() {
    let mut guest = Guest::new(8);
    let _host = guest.connect_out();
    guest.send(&Packet::new(1000, 5, CREDIT_REQUEST));
    let answer = guest.receive();
    assert_eq!(
        (answer.operation, answer.allocated, answer.forwarded),
        (CREDIT_UPDATE, CREDIT, 0)
    );
}

#[test]
fn guest_closes_its_sending_half() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect_out();
    guest.send(&data(b"all"));
    guest.send(&Packet {
        flags: 2,
        ..Packet::new(1000, 5, SHUTDOWN)
    });
    assert_eq!(read_exactly(&mut host, 3), b"all");
    assert!(reads_end(&mut host));
    host.write_all(b"still here").unwrap();
    assert_eq!(guest.receive().data, b"still here");
    drop(host);
    assert_eq!(guest.receive().operation, SHUTDOWN);
    assert_eq!(guest.receive().operation, RESET);
}

#[test]
fn host_closes_its_sending_half() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect_out();
    host.write_all(b"all").unwrap();
    host.shutdown(Shutdown::Write).unwrap();
    assert_eq!(guest.receive().data, b"all");
    let packet = guest.receive();
    assert_eq!((packet.operation, packet.flags), (SHUTDOWN, 2));
    guest.send(&data(b"reply"));
    assert_eq!(read_exactly(&mut host, 5), b"reply");
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(1000, 5, SHUTDOWN)
    });
    assert_eq!(guest.receive().operation, RESET);
    assert!(reads_end(&mut host));
}

#[test]
fn closed_guest_leaves_its_bytes_to_a_slow_host() {
    const BYTES: usize = 400_000;
    let mut guest = Guest::new(8);
    let mut host = guest.connect_out();
    for _ in 0..BYTES / 50_000 {
        guest.send(&data(&[9; 50_000]));
    }
    guest.send(&Packet {
        flags: 3,
        ..Packet::new(1000, 5, SHUTDOWN)
    });
    while guest.receive().operation != RESET {}
    assert_eq!(read_exactly(&mut host, BYTES), vec![9; BYTES]);
    assert!(reads_end(&mut host));
}

#[test]
fn host_that_goes_away_shuts_the_guest_down() {
    let mut guest = Guest::new(8);
    drop(guest.connect_out());
    let packet = guest.receive();
    assert_eq!((packet.operation, packet.flags), (SHUTDOWN, 2));
    guest.send(&data(b"into the void"));
    let packet = guest.receive();
    assert_eq!((packet.operation, packet.flags), (SHUTDOWN, 3));
    assert_eq!(guest.receive().operation, RESET);
}

#[test]
fn busy_connection_does_not_hold_up_another() {
    let mut guest = Guest::new(4);
    let mut busy = guest.connect_out();
    let quiet = UnixListener::bind(guest.path("vsock.sock_6")).unwrap();
    guest.send(&Packet::new(2000, 6, REQUEST));
    assert_eq!(guest.receive().operation, RESPONSE);
    let mut quiet = quiet.accept().unwrap().0;
    busy.set_nonblocking(true).unwrap();
    while busy
        .write(&[1; 65_536])
        .map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock))
        .is_ok()
    {}
    guest.receive();
    quiet.write_all(b"me too").unwrap();
    // The quiet one waits at most one turn, which is 64 KiB in buffers of 4 KiB, and what is queued already.
    let waited = (0..40).position(|_| guest.receive().guest_port == 2000);
    assert!(
        waited.is_some(),
        "the quiet connection was not served in 40 packets"
    );
}

#[test]
fn device_without_buffers_waits_for_them() {
    let mut guest = Guest::new(0);
    let listener = UnixListener::bind(guest.path("vsock.sock_5")).unwrap();
    guest.send(&Packet::new(1000, 5, REQUEST));
    let mut host = listener.accept().unwrap().0;
    host.write_all(b"waiting").unwrap();
    let small = guest.driver.rings[0].room(20);
    guest.give(small);
    assert_eq!(
        guest.driver.rings[0].wait().1,
        0,
        "a buffer without room for a header comes back empty"
    );
    for _ in 0..2 {
        let room = guest.driver.rings[0].room(64);
        guest.give(room);
    }
    assert_eq!(guest.receive().operation, RESPONSE);
    assert_eq!(guest.receive().data, b"waiting");
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let mut guest = Guest::new(32);
    let listener = UnixListener::bind(guest.path("vsock.sock_5")).unwrap();
    let mut kept = Vec::new();
    let refused = (0..1100).find(|port| {
        guest.send(&Packet::new(10_000 + port, 5, REQUEST));
        let operation = guest.receive().operation;
        kept.extend(listener.accept());
        operation == RESET
    });
    // The daemon's own limit, or that of the machine's descriptors in this test.
    assert!(refused.is_some_and(|count| count >= 900), "{refused:?}");
}

#[test]
fn restarted_driver_finds_no_old_connection() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect_out();
    guest.driver.stop_ring(0);
    guest.driver.stop_ring(1);
    for ring in 0..2 {
        guest.driver.rings[ring].reset();
        guest.driver.start_ring(ring, 0);
    }
    assert!(reads_end(&mut host));
}

#[test]
fn daemon_ends_with_its_front_end_and_closes_all() {
    let mut guest = Guest::new(8);
    let mut host = guest.connect_out();
    drop(guest.driver);
    guest.daemon.join().unwrap().unwrap();
    assert!(reads_end(&mut host));
}
