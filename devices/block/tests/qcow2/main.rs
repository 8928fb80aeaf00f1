//! A qcow2 image driven as a guest drives it: data, layers, what is refused, and what is left after a power cut.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot be set up fails where it stands"
)]

mod disk;
mod qemu;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::unix::fs::FileExt;

use device_block::{Format, Layer};
use fakes::qcow2::empty;

use self::disk::{
    BYTES, DISCARD, FLUSH, IN, IOERR, OK, OUT, WRITE_ZEROES, ask, file, guest, open, pattern,
    range, try_open,
};

/// A copy of the file as the disk has it now.
fn copy(image: &File) -> File {
    let mut bytes = Vec::new();
    let mut image = image.try_clone().unwrap();
    image.rewind().unwrap();
    image.read_to_end(&mut bytes).unwrap();
    file(&bytes)
}

#[test]
fn disk_has_the_size_that_the_image_says() {
    let image = file(&empty(BYTES, None));
    assert_eq!(
        open(&image, Vec::new()).config(8),
        (BYTES / 512).to_le_bytes()
    );
}

#[test]
fn every_request_does_what_it_says_and_lasts() {
    let image = file(&empty(BYTES, None));
    let mut driver = open(&image, Vec::new());
    // Over the boundary of two clusters, and into the last sectors.
    let (data, tail) = (pattern(3, 200_192), pattern(7, 1024));
    assert_eq!(ask(&mut driver, OUT, 100, &data, 0).0, OK);
    assert_eq!(ask(&mut driver, OUT, BYTES / 512 - 2, &tail, 0).0, OK);
    assert_eq!(ask(&mut driver, IN, 100, &[], 200_192), (OK, data.clone()));
    assert_eq!(ask(&mut driver, IN, 90, &[], 512), (OK, vec![0; 512]));
    assert_eq!(
        ask(&mut driver, WRITE_ZEROES, 0, &range(101, 3, 0), 0).0,
        OK
    );
    assert_eq!(ask(&mut driver, DISCARD, 0, &range(256, 128, 0), 0).0, OK);
    assert_eq!(ask(&mut driver, OUT, BYTES / 512 - 1, &tail, 0).0, IOERR);
    assert_eq!(ask(&mut driver, FLUSH, 0, &[], 0).0, OK);
    drop(driver);
    let mut again = open(&image, Vec::new());
    let mut wanted = data;
    wanted[512..2048].fill(0);
    let (status, bytes) = ask(&mut again, IN, 100, &[], 4096);
    assert!(status == OK && bytes == wanted[..4096]);
    let (status, bytes) = ask(&mut again, IN, 384, &[], 512);
    assert!(status == OK && bytes == wanted[284 * 512..285 * 512]);
    assert_eq!(ask(&mut again, IN, BYTES / 512 - 2, &[], 1024), (OK, tail));
}

#[test]
fn layers_are_read_through_and_never_written() {
    let base = file(&pattern(5, 1 << 20));
    let before = pattern(5, 1 << 20);
    let middle = file(&empty(BYTES, Some("/etc/passwd")));
    let image = file(&empty(BYTES, Some("no/such/file")));
    let below = || {
        let layer = |file: &File, format| Layer {
            image: file.try_clone().unwrap(),
            format,
        };
        vec![layer(&middle, Format::Qcow2), layer(&base, Format::Raw)]
    };
    let mut driver = open(&image, below());
    assert_eq!(
        ask(&mut driver, IN, 8, &[], 4096),
        (OK, before[4096..8192].to_vec())
    );
    assert_eq!(ask(&mut driver, IN, 4096, &[], 512), (OK, vec![0; 512]));
    assert_eq!(ask(&mut driver, OUT, 9, &[0xee; 512], 0).0, OK);
    assert_eq!(ask(&mut driver, DISCARD, 0, &range(128, 128, 0), 0).0, OK);
    assert_eq!(ask(&mut driver, FLUSH, 0, &[], 0).0, OK);
    let mut wanted = before[4096..8192].to_vec();
    wanted[512..1024].fill(0xee);
    assert_eq!(ask(&mut driver, IN, 8, &[], 4096), (OK, wanted));
    drop(driver);
    let mut after = vec![0; 1 << 20];
    base.read_exact_at(&mut after, 0).unwrap();
    assert!(after == before, "the image below was changed");
}

#[test]
fn files_that_an_image_names_are_not_opened() {
    let image = file(&empty(BYTES, Some("/etc/passwd")));
    let error = try_open(&image, Vec::new(), false).unwrap_err();
    assert!(error.to_string().contains("was not handed over"), "{error}");
    let alone = file(&empty(BYTES, None));
    let below = vec![Layer {
        image: file(&[0; 512]),
        format: Format::Raw,
    }];
    try_open(&alone, below, false).unwrap_err();
}

#[test]
fn what_is_no_image_is_refused() {
    for bytes in [
        Vec::new(),
        vec![0; 4096],
        pattern(1, 1 << 17),
        empty(BYTES, None)[..90].to_vec(),
    ] {
        try_open(&file(&bytes), Vec::new(), true).unwrap_err();
    }
}

/// Found by fuzzing: imago made a block of counts where the header is, again and again until its stack ended.
#[test]
fn image_whose_counts_lead_nowhere_is_only_read() {
    let spoil = |changes: &[(usize, &[u8])]| {
        let mut bytes = empty(BYTES, None);
        for (at, change) in changes {
            bytes[*at..*at + change.len()].copy_from_slice(change);
        }
        file(&bytes)
    };
    let (table, block) = (1 << 16, 2 << 16);
    let place = u64::to_be_bytes;
    for image in [
        spoil(&[(table, &[0; 8])]),
        spoil(&[(block, &[0; 2])]),
        spoil(&[(table + 8, &place(block as u64))]),
        spoil(&[(table + 8, &place(1 << 40))]),
        spoil(&[(48, &place(1 << 40))]),
    ] {
        let error = try_open(&image, Vec::new(), false).unwrap_err();
        assert!(error.to_string().contains("count"), "{error}");
        let mut driver = guest(try_open(&image, Vec::new(), true).unwrap());
        assert_eq!(ask(&mut driver, IN, 0, &[], 512), (OK, vec![0; 512]));
    }
}

#[test]
fn read_only_image_is_not_touched() {
    let image = file(&empty(BYTES, None));
    let mut driver = guest(try_open(&image, Vec::new(), true).unwrap());
    assert_eq!(ask(&mut driver, OUT, 0, &[1; 512], 0).0, IOERR);
    assert_eq!(ask(&mut driver, IN, 0, &[], 512), (OK, vec![0; 512]));
    drop(driver);
    let mut bytes = Vec::new();
    let mut image = image;
    image.rewind().unwrap();
    image.read_to_end(&mut bytes).unwrap();
    assert!(bytes == empty(BYTES, None));
}

#[test]
fn what_was_flushed_survives_a_power_cut_at_any_time() {
    let image = file(&empty(BYTES, None));
    let mut driver = open(&image, Vec::new());
    for round in 1..8_u8 {
        let place = u64::from(round) * 1000;
        let data = pattern(round, 131_072);
        assert_eq!(ask(&mut driver, OUT, place, &data, 0).0, OK);
        assert_eq!(ask(&mut driver, FLUSH, 0, &[], 0).0, OK);
        let flushed = copy(&image);
        // Not flushed: may be lost, but must not take anything else with it.
        assert_eq!(ask(&mut driver, OUT, place + 20_000, &data, 0).0, OK);
        for cut in [flushed, copy(&image)] {
            let mut after = open(&cut, Vec::new());
            for earlier in 1..=round {
                let got = ask(&mut after, IN, u64::from(earlier) * 1000, &[], 131_072);
                assert!(
                    got == (OK, pattern(earlier, 131_072)),
                    "round {round}, data of {earlier}"
                );
            }
        }
    }
}

#[test]
fn storage_that_fails_is_an_error_to_the_guest_and_no_end() {
    use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let mut full = File::from(memfd_create("full", flags).unwrap());
    full.write_all(&empty(BYTES, None)).unwrap();
    // Nothing can be added, as on a full disk.
    fcntl_add_seals(&full, SealFlags::GROW).unwrap();
    let mut driver = open(&full, Vec::new());
    for _ in 0..3 {
        assert_eq!(ask(&mut driver, OUT, 0, &[1; 512], 0).0, IOERR);
        assert_eq!(ask(&mut driver, IN, 8, &[], 512), (OK, vec![0; 512]));
    }
}
