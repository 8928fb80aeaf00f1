//! The resolver against servers on the loopback interface.

use tokio::net::TcpListener;

use super::*;

/// A query for `example.` of type A.
fn query(id: [u8; 2]) -> Vec<u8> {
    let mut query = id.to_vec();
    query.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.extend(b"\x07example\0\0\x01\0\x01");
    query
}

fn response(query: &[u8], truncated: bool, tail: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80 | if truncated { 2 } else { 0 };
    answer.extend(tail);
    answer
}

struct Guest {
    stream: UnixStream,
    folder: tempfile::TempDir,
}

impl Guest {
    fn new(resolv_conf: &str, port: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, resolv_conf).unwrap();
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(serve_with(theirs, path.into(), port));
        Self {
            stream: ours,
            folder,
        }
    }

    async fn ask(&mut self, query: &[u8]) {
        self.stream.write_all(&framed(query)).await.unwrap();
    }

    async fn answer(&mut self) -> Vec<u8> {
        let length = self.stream.read_u16().await.unwrap();
        let mut answer = vec![0; usize::from(length)];
        self.stream.read_exact(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn a_query_is_answered_with_its_own_identifier() {
    let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let mut guest = Guest::new(
        "nameserver 127.0.0.1\n",
        server.local_addr().unwrap().port(),
    );
    guest.ask(&query(*b"ab")).await;
    let mut buffer = [0; 512];
    let (count, peer) = server.recv_from(&mut buffer).await.unwrap();
    assert_eq!(buffer[2..count], query(*b"ab")[2..]);
    let forged = response(&query([buffer[0] ^ 1, buffer[1]]), false, b"forged");
    server.send_to(&forged, peer).await.unwrap();
    let answer = response(&buffer[..count], false, b"right");
    server.send_to(&answer, peer).await.unwrap();
    assert_eq!(
        guest.answer().await,
        response(&query(*b"ab"), false, b"right")
    );
}

#[tokio::test]
async fn a_truncated_answer_is_asked_again_by_tcp() {
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = tcp.local_addr().unwrap().port();
    let udp = UdpSocket::bind(("127.0.0.1", port)).await.unwrap();
    let mut guest = Guest::new("nameserver 127.0.0.1\n", port);
    guest.ask(&query(*b"cd")).await;
    let mut buffer = [0; 512];
    let (count, peer) = udp.recv_from(&mut buffer).await.unwrap();
    udp.send_to(&response(&buffer[..count], true, b""), peer)
        .await
        .unwrap();
    let (mut stream, _) = tcp.accept().await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut asked = vec![0; usize::from(length)];
    stream.read_exact(&mut asked).await.unwrap();
    let long = vec![b'x'; 3000];
    stream
        .write_all(&framed(&response(&asked, false, &long)))
        .await
        .unwrap();
    assert_eq!(guest.answer().await.len(), query(*b"cd").len() + 3000);
}

#[tokio::test]
async fn a_changed_resolv_conf_is_followed_on_the_same_connection() {
    let (one, two) = (
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        UdpSocket::bind("127.0.0.2:0").await.unwrap(),
    );
    // Both have to have one port, so the second takes the first's.
    drop(two);
    let port = one.local_addr().unwrap().port();
    let two = UdpSocket::bind(("127.0.0.2", port)).await.unwrap();
    let mut guest = Guest::new("nameserver 127.0.0.1\n", port);
    let mut buffer = [0; 512];
    guest.ask(&query(*b"01")).await;
    let (count, peer) = one.recv_from(&mut buffer).await.unwrap();
    one.send_to(&response(&buffer[..count], false, b"one"), peer)
        .await
        .unwrap();
    assert!(guest.answer().await.ends_with(b"one"));
    std::fs::write(
        guest.folder.path().join("resolv.conf"),
        "nameserver 127.0.0.2\n",
    )
    .unwrap();
    guest.ask(&query(*b"02")).await;
    let (count, peer) = two.recv_from(&mut buffer).await.unwrap();
    two.send_to(&response(&buffer[..count], false, b"two"), peer)
        .await
        .unwrap();
    assert!(guest.answer().await.ends_with(b"two"));
}

#[tokio::test]
async fn no_server_at_all_is_a_server_failure() {
    // Nothing listens on the discard port, so both rounds are refused at once.
    let mut guest = Guest::new("nameserver 127.0.0.1\n", 9);
    guest.ask(&query(*b"ef")).await;
    let answer = guest.answer().await;
    assert_eq!(answer[..2], *b"ef");
    assert!(is_server_failure(&answer));
}

#[tokio::test]
async fn what_is_no_query_ends_the_connection() {
    for bytes in [&[0, 3, 1, 2, 3][..], &[255, 255]] {
        let mut guest = Guest::new("nameserver 127.0.0.1\n", 9);
        guest.stream.write_all(bytes).await.unwrap();
        let mut rest = Vec::new();
        // Closed or reset, but not answered.
        let _reset = guest.stream.read_to_end(&mut rest).await;
        assert_eq!(rest, b"");
    }
}

#[test]
fn servers_are_read_as_glibc_reads_them() {
    let text = "# nameserver 9.9.9.9\nsearch a b\nnameserver 10.0.0.1\n nameserver ::1 # x\nnameserver\n\
                nameserver nonsense\nnameserver fe80::1%7\nnameserver 10.0.0.4\n";
    let found: Vec<String> = servers(text, 53).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["10.0.0.1:53", "[::1]:53", "[fe80::1%7]:53"]);
    assert_eq!(servers("", 53), [(Ipv4Addr::LOCALHOST, 53).into()]);
}
