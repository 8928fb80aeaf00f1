//! Images of qemu-img's making: what it wrote is what is read, and what is written it finds right.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use device_block::{Format, Layer};
use fakes::driver::Driver;
use tempfile::TempDir;

use crate::disk::{DISCARD, FLUSH, IN, OK, OUT, WRITE_ZEROES, ask, open, pattern, range, try_open};

/// Of the disk: of some tables at the smallest clusters there are.
const BYTES: usize = 6 << 20;

/// Bytes of one request.
const PIECE: usize = 128 * 1024;

/// What `qemu-img convert` is told of images that are served.
const SERVED: &[&[&str]] = &[
    &["-o", "compat=1.1"],
    &["-o", "compat=0.10"],
    &["-o", "cluster_size=512"],
    &["-o", "cluster_size=2M"],
    &["-o", "preallocation=metadata"],
    &["-o", "preallocation=falloc"],
    &["-o", "preallocation=full"],
    &["-o", "lazy_refcounts=on"],
    &["-o", "refcount_bits=1"],
    &["-o", "refcount_bits=64"],
    &["-c"],
    &["-c", "-o", "cluster_size=4k"],
];

/// What qemu-img says when it could not measure how fast it makes keys, for LUKS: now and then, on virtual processors.
const CLOCK: &str = "Unable to get accurate CPU usage";

/// So often that is no reason to give up.
const TRIES: u32 = 20;

fn run(program: &str, arguments: &[&str]) {
    for attempt in 1.. {
        let output = Command::new(program).args(arguments).output();
        let output = output.expect("package qemu-utils is installed");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if said.contains(CLOCK) && attempt < TRIES {
            continue;
        }
        assert!(output.status.success(), "{program} {arguments:?}: {said}");
        return;
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a disk's bytes: some, none, and zeroes that were written.
struct Bench {
    folder: TempDir,
    bytes: Vec<u8>,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = pattern(11, BYTES as u32);
        bytes[1 << 20..3 << 20].fill(0);
        std::fs::write(folder.path().join("raw"), &bytes).unwrap();
        Self { folder, bytes }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes an image of the disk.
    fn image(&self, more: &[&str]) -> PathBuf {
        let (raw, image) = (self.path("raw"), self.path("image"));
        let ends = [text(&raw), text(&image)];
        run(
            "qemu-img",
            &[&["convert", "-f", "raw", "-O", "qcow2"], more, &ends].concat(),
        );
        image
    }

    /// Lets qemu-img say whether `image` is right, and compares what it reads there.
    fn check(&self, image: &Path, what: &str) {
        run("qemu-img", &["check", "-f", "qcow2", text(image)]);
        let out = self.path("out");
        run(
            "qemu-img",
            &[
                "convert",
                "-f",
                "qcow2",
                "-O",
                "raw",
                text(image),
                text(&out),
            ],
        );
        assert!(
            std::fs::read(&out).unwrap() == self.bytes,
            "{what}: qemu-img reads something else"
        );
    }
}

fn writable(path: &Path) -> File {
    File::options().read(true).write(true).open(path).unwrap()
}

fn compare(driver: &mut Driver, wanted: &[u8], what: &str) {
    for (number, piece) in wanted.chunks(PIECE).enumerate() {
        let sector = (number * PIECE / 512) as u64;
        let (status, bytes) = ask(driver, IN, sector, &[], piece.len() as u32);
        assert!(status == OK && bytes == piece, "{what}: piece {number}");
    }
}

/// Writes, discards and zeroes parts that cut clusters of any size, of the disk and of `bytes`.
fn change(driver: &mut Driver, bytes: &mut [u8]) {
    for (number, at) in [
        0,
        700 * 1024,
        (1 << 20) + 512,
        (2 << 20) - 1024,
        BYTES - PIECE,
    ]
    .into_iter()
    .enumerate()
    {
        let data = pattern(number as u8 + 40, PIECE as u32);
        assert_eq!(ask(driver, OUT, at as u64 / 512, &data, 0).0, OK);
        bytes[at..at + PIECE].copy_from_slice(&data);
    }
    for (kind, at, length, flags) in [
        (WRITE_ZEROES, 300 * 1024 + 512, 70 * 1024, 0),
        (WRITE_ZEROES, 3 << 20, 1 << 20, 1),
        (DISCARD, 4 << 20, 1 << 20, 0),
        (DISCARD, 512, 1024, 0),
    ] {
        let part = range(at as u64 / 512, length as u32 / 512, flags);
        assert_eq!(ask(driver, kind, 0, &part, 0).0, OK, "{kind} at {at}");
        if kind == WRITE_ZEROES {
            bytes[at..at + length].fill(0);
        } else {
            // What a discarded part reads as is the image's affair; it is asked for once, and must stay.
            let sector = at as u64 / 512;
            let step = PIECE.min(length);
            for (number, piece) in bytes[at..at + length].chunks_mut(step).enumerate() {
                let at = sector + (number * step / 512) as u64;
                piece.copy_from_slice(&ask(driver, IN, at, &[], piece.len() as u32).1);
            }
        }
    }
    assert_eq!(ask(driver, FLUSH, 0, &[], 0).0, OK);
}

#[test]
fn images_of_every_kind_are_read_and_written_as_qemu_img_does() {
    for kind in SERVED {
        let what = format!("{kind:?}");
        let mut bench = Bench::new();
        let image = bench.image(kind);
        let mut driver = open(&writable(&image), Vec::new());
        compare(&mut driver, &bench.bytes, &what);
        change(&mut driver, &mut bench.bytes);
        compare(&mut driver, &bench.bytes, &what);
        drop(driver);
        bench.check(&image, &what);
    }
}

#[test]
fn image_upon_another_is_read_and_written() {
    let mut bench = Bench::new();
    let (below, upper) = (bench.image(&[]), bench.path("upper"));
    run(
        "qemu-img",
        &[
            "create",
            "-f",
            "qcow2",
            "-F",
            "qcow2",
            "-b",
            text(&below),
            text(&upper),
        ],
    );
    run(
        "qemu-io",
        &["-f", "qcow2", "-c", "write -P 0xab 1M 200k", text(&upper)],
    );
    bench.bytes[1 << 20..(1 << 20) + 200 * 1024].fill(0xab);
    let before = std::fs::read(&below).unwrap();
    let layer = Layer {
        image: File::open(&below).unwrap(),
        format: Format::Qcow2,
    };
    let mut driver = open(&writable(&upper), vec![layer]);
    compare(&mut driver, &bench.bytes, "upper");
    change(&mut driver, &mut bench.bytes);
    compare(&mut driver, &bench.bytes, "upper");
    drop(driver);
    bench.check(&upper, "upper");
    assert!(
        std::fs::read(&below).unwrap() == before,
        "the image below was changed"
    );
}

#[test]
fn what_is_not_served_is_named() {
    for (option, word) in [
        ("extended_l2=on", "extended_l2"),
        ("compression_type=zstd", "zlib"),
        ("encrypt.format=luks,encrypt.key-secret=s", "encrypted"),
        ("data_file=DATA", "another file"),
    ] {
        let bench = Bench::new();
        let image = bench.path("image");
        let option = option.replace("DATA", text(&bench.path("data")));
        let secret = "secret,id=s,data=secret";
        run(
            "qemu-img",
            &[
                "create",
                "--object",
                secret,
                "-f",
                "qcow2",
                "-o",
                &option,
                text(&image),
                "6M",
            ],
        );
        let error = try_open(&writable(&image), Vec::new(), false).unwrap_err();
        assert!(error.to_string().contains(word), "{option}: {error}");
    }
    let bench = Bench::new();
    let image = bench.image(&[]);
    run("qemu-img", &["snapshot", "-c", "before", text(&image)]);
    let error = try_open(&writable(&image), Vec::new(), false).unwrap_err();
    assert!(error.to_string().contains("snapshots"), "{error}");
    // Cut in the middle of its data: refused or served, and what is there is read.
    let image = bench.image(&[]);
    let cut = writable(&image);
    cut.set_len(1 << 20).unwrap();
    let mut first = [0; 4];
    cut.read_exact_at(&mut first, 0).unwrap();
    if let Ok(device) = try_open(&cut, Vec::new(), true) {
        let mut driver = crate::disk::guest(device);
        assert_eq!(ask(&mut driver, IN, 0, &[], 512).0, OK);
    }
}
