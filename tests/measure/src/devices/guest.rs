//! PID 1 of the guest that measures devices: does the one job that the kernel's command line names, and powers off.
//!
//! The host holds the clock: it sees each stream's bytes, or for a disk each line on the console.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use rustix::fs::OFlags;
use rustix::mount::{MountFlags, mount};
use rustix::system::RebootCommand;
use vsock::{VMADDR_CID_HOST, VsockStream};

#[path = "job.rs"]
mod job;

use job::{BLOCK, DISK_BYTES, JOBS, LOAD, PORT, ROUND_TRIPS, SERVER};

fn main() {
    if let Err(error) = work() {
        say(&format!("failed: {error:#}"));
    }
    let _nothing_to_go_back_to = rustix::system::reboot(RebootCommand::Restart);
}

fn work() -> Result<()> {
    for (kind, place) in [("proc", "/proc"), ("sysfs", "/sys")] {
        mount(kind, place, kind, MountFlags::empty(), None)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    let line = fs::read_to_string("/proc/cmdline").context("cannot read the command line")?;
    let mut words = line.split_whitespace();
    let word = words.find_map(|word| word.strip_prefix("bench.job="));
    match word.context("no job on the command line")? {
        "block" => block(),
        "vsock" => JOBS.iter().try_for_each(|letter| {
            let stream = VsockStream::connect_with_cid_port(VMADDR_CID_HOST, u32::from(PORT))?;
            stream_job(*letter, stream)
        }),
        "net" => {
            network()?;
            JOBS.iter().try_for_each(|letter| {
                let stream = TcpStream::connect((SERVER, PORT)).context("cannot connect")?;
                stream.set_nodelay(true)?;
                stream_job(*letter, stream)
            })
        }
        other => bail!("unknown job {other}"),
    }
}

/// Sets the card up as maitred does.
fn network() -> Result<()> {
    for line in [
        "link set eth0 mtu 65520 up",
        "addr add 100.115.92.2/24 dev eth0",
        "route add default via 100.115.92.1",
    ] {
        let done = Command::new("/busybox")
            .arg("ip")
            .args(line.split(' '))
            .status();
        if !done.is_ok_and(|status| status.success()) {
            bail!("cannot do: ip {line}");
        }
    }
    Ok(())
}

/// Does one job on a stream: the letter says which, to both sides.
fn stream_job<S: Read + Write>(letter: u8, mut stream: S) -> Result<()> {
    stream.write_all(&[letter])?;
    let mut byte = [0];
    match letter {
        b'u' => {
            job::send(&mut stream)?;
            // The host has everything.
            stream.read_exact(&mut byte)?;
        }
        b'd' => {
            job::receive(&mut stream)?;
            stream.write_all(b".")?;
        }
        _ => {
            for _ in 0..ROUND_TRIPS {
                stream.read_exact(&mut byte)?;
                stream.write_all(&byte)?;
            }
        }
    }
    Ok(())
}

/// Loads the disk that has the right size, in each way.
fn block() -> Result<()> {
    let disk = disk()?;
    for (name, bytes, threads, write, flush) in BLOCK {
        say(&format!("start {name}"));
        let start = Instant::now();
        let load = |number: u64| -> Result<u64> {
            let file = File::options()
                .read(true)
                .write(true)
                .custom_flags(OFlags::DIRECT.bits().cast_signed())
                .open(&disk)?;
            let mut room = vec![0x5a; bytes + 4096];
            let align = room.as_ptr().align_offset(4096);
            let buffer = &mut room[align..align + bytes];
            let blocks = DISK_BYTES / bytes as u64;
            let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
            let mut done = 0;
            while start.elapsed() < LOAD {
                // xorshift64: any order that is not a pattern.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let offset = state % blocks * bytes as u64;
                if write {
                    rustix::io::pwrite(&file, buffer, offset)?;
                } else {
                    rustix::io::pread(&file, &mut *buffer, offset)?;
                }
                if flush {
                    rustix::fs::fdatasync(&file)?;
                }
                done += 1;
            }
            Ok(done)
        };
        let total: Result<u64> = std::thread::scope(|scope| {
            let running: Vec<_> = (1..=threads)
                .map(|number| scope.spawn(move || load(number)))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().expect("no thread panics"))
                .sum()
        });
        say(&format!("stop {name} {}", total?));
    }
    Ok(())
}

fn disk() -> Result<PathBuf> {
    let sectors = (DISK_BYTES / 512).to_string();
    for entry in fs::read_dir("/sys/block")? {
        let entry = entry?;
        let size = fs::read_to_string(entry.path().join("size"))?;
        if size.trim() == sectors {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    bail!("there is no disk of {DISK_BYTES} bytes")
}

fn say(line: &str) {
    // Without a console nobody waits.
    let _ = writeln!(std::io::stdout(), "bench: {line}");
}
