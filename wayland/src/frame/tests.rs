//! Frames survive the trip, and every way to lie about a length is refused.

use super::*;

fn round_trip(frame: &Frame<'_>) {
    let mut bytes = Vec::new();
    frame.write(&mut bytes);
    let (header, payload) = bytes.split_first_chunk().unwrap();
    let (len, kind) = parse_header(*header).unwrap();
    assert_eq!(len, payload.len());
    assert_eq!(&Frame::parse(kind, payload).unwrap(), frame);
}

#[test]
fn every_frame_comes_back_as_written() {
    let head = RowsHead {
        pool: 1,
        offset: 4096,
        stride: 400,
        row_len: 40,
        rows: 2,
        codec: 0,
    };
    for frame in [
        Frame::Hello {
            clock_ns: u64::MAX - 1,
            label: "foot",
        },
        Frame::Pool { id: 7, size: 4096 },
        Frame::DropPool(7),
        Frame::Discard {
            id: 7,
            offset: 4096,
            len: 8192,
        },
        Frame::Rows(head, &[9; 80]),
        Frame::Wayland(
            vec![
                FdDesc::Pool(7),
                FdDesc::Contents(b"keymap"),
                FdDesc::Pipe(2),
            ],
            &[1, 2, 3, 4],
        ),
        Frame::Pipe(3, b"text"),
        Frame::PipeEnd(3),
        Frame::PipeBroken(3),
        Frame::PipeCredit(3, 65536),
        Frame::CommitSent(9),
        Frame::CommitSeen {
            seq: 9,
            clock_ns: 1 << 40,
        },
        Frame::Goodbye,
    ] {
        round_trip(&frame);
    }
}

#[test]
fn a_declared_length_beyond_the_limit_is_refused() {
    let mut header = [0xff; HEADER_LEN];
    header[4] = 5;
    assert!(matches!(
        parse_header(header),
        Err(FrameError::TooLong { what: "frame", .. })
    ));
}

#[test]
fn rows_that_multiply_to_more_than_a_slice_are_refused() {
    let head = RowsHead {
        pool: 1,
        offset: 0,
        stride: 1,
        row_len: u32::MAX,
        rows: u32::MAX,
        codec: 0,
    };
    let mut bytes = Vec::new();
    Frame::Rows(head, &[]).write(&mut bytes);
    assert!(matches!(
        Frame::parse(4, &bytes[HEADER_LEN..]),
        Err(FrameError::TooLong { what: "rows", .. })
    ));
}

#[test]
fn a_flood_of_descriptors_is_refused() {
    let mut payload = 29u32.to_le_bytes().to_vec();
    payload.extend_from_slice(&[0; 29 * 8]);
    assert!(matches!(
        Frame::parse(5, &payload),
        Err(FrameError::TooLong { .. })
    ));
}

#[test]
fn contents_longer_than_their_frame_are_refused() {
    let mut payload = Vec::new();
    for word in [1u32, CONTENTS_TAG, 100] {
        payload.extend_from_slice(&word.to_le_bytes());
    }
    payload.extend_from_slice(b"short");
    assert!(matches!(
        Frame::parse(5, &payload),
        Err(FrameError::WrongLength(5))
    ));
}

#[test]
fn a_stranger_on_the_port_is_recognised() {
    assert!(matches!(
        Frame::parse(1, &[0; 16]),
        Err(FrameError::Greeting)
    ));
}

#[test]
fn trailing_bytes_are_refused() {
    assert!(matches!(
        Frame::parse(3, &[0; 5]),
        Err(FrameError::WrongLength(3))
    ));
}
