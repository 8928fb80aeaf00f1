//! Queued pixels arrive in order and whole, whatever their shape and however slow the link is.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use rustix::fs::{MemfdFlags, memfd_create};

use super::*;
use crate::inbox::Inbox;
use crate::rows::Grid;
use crate::socket::Read;

fn file_of(bytes: &[u8]) -> Rc<OwnedFd> {
    let file = memfd_create("pixels", MemfdFlags::CLOEXEC).unwrap();
    assert_eq!(rustix::io::pwrite(&file, bytes, 0).unwrap(), bytes.len());
    Rc::new(file)
}

/// Sends `rows` between a pool of `size` zero bytes and returns what the pool holds afterwards.
fn sent(codec: Codec, rows: Vec<Rows>, size: usize) -> (Vec<u8>, Option<u32>) {
    let (near, far) = socket::pair().unwrap();
    let mut outbox = Outbox::new(codec);
    for each in rows {
        outbox.rows(each);
    }
    outbox.frame(&Frame::CommitSent(1));
    let (mut inbox, mut pool, mut done) = (Inbox::default(), vec![0; size], false);
    let mut scratch = Vec::new();
    for _ in 0..10_000 {
        outbox.flush(&near).unwrap();
        if inbox.fill(&far).unwrap() == Read::Empty && outbox.is_empty() {
            break;
        }
        while let Some((kind, payload)) = inbox.next_frame().unwrap() {
            match Frame::parse(kind, payload).unwrap() {
                Frame::Rows(head, packed) => {
                    let len = head.row_len as usize * head.rows as usize;
                    let codec = Codec::from_number(head.codec).unwrap();
                    let raw = codec.unpack(packed, len, &mut scratch).unwrap();
                    for (row, bytes) in raw.chunks(head.row_len as usize).enumerate() {
                        let at = head.offset as usize + row * head.stride as usize;
                        pool[at..at + bytes.len()].copy_from_slice(bytes);
                    }
                }
                Frame::CommitSent(1) => done = true,
                other => panic!("unexpected {other:?}"),
            }
        }
    }
    assert!(done, "the commit must come after its pixels");
    (pool, outbox.take_truncated())
}

#[test]
fn a_whole_picture_larger_than_the_socket_arrives() {
    let picture: Vec<u8> = (0..3_000_000u32).map(|n| (n * 7 / 5) as u8).collect();
    let grid = Grid {
        offset: 0,
        stride: 4000,
        row_len: 4000,
        rows: 750,
    };
    for codec in [Codec::None, Codec::Lz4] {
        let rows = Rows::new(file_of(&picture), 1, grid);
        let (pool, truncated) = sent(codec, vec![rows], picture.len());
        assert!(pool == picture, "{codec:?} changed the pixels");
        assert_eq!(truncated, None);
    }
}

#[test]
fn a_narrow_rectangle_leaves_its_surroundings_alone() {
    let picture = vec![9u8; 100 * 50];
    let grid = Grid {
        offset: 1020,
        stride: 100,
        row_len: 8,
        rows: 5,
    };
    let (pool, _) = sent(
        Codec::None,
        vec![Rows::new(file_of(&picture), 1, grid)],
        picture.len(),
    );
    let changed: Vec<usize> = (0..pool.len()).filter(|at| pool[*at] == 9).collect();
    let expected: Vec<usize> = (0..5)
        .flat_map(|row| (0..8).map(move |col| 1020 + row * 100 + col))
        .collect();
    assert_eq!(changed, expected);
}

#[test]
fn the_last_row_of_a_wide_rectangle_stays_inside_the_pool() {
    let picture = vec![9u8; 1000 - 20];
    let grid = Grid {
        offset: 0,
        stride: 100,
        row_len: 80,
        rows: 10,
    };
    let (_, truncated) = sent(
        Codec::None,
        vec![Rows::new(file_of(&picture), 1, grid)],
        980,
    );
    assert_eq!(truncated, None);
}

#[test]
fn a_truncated_file_is_reported_and_not_fatal() {
    let grid = Grid {
        offset: 0,
        stride: 100,
        row_len: 100,
        rows: 10,
    };
    let (_, truncated) = sent(
        Codec::None,
        vec![Rows::new(file_of(&[1; 500]), 77, grid)],
        1000,
    );
    assert_eq!(truncated, Some(77));
}
