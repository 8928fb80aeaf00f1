//! Guest memory in another file, on the host: written and read by the stretches that hold something. A page of zeros is
//! a hole in both files, so that a machine that uses little of its memory takes little room.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{SeekFrom, seek};
use vm_memory::{Bytes as _, GuestAddress};

use super::Memory;

const PAGE: usize = 4096;
/// What is read at once.
const CHUNK: usize = 256 << 10;

impl Memory {
    /// Writes all of guest memory into `file`, which has nothing there yet, from offset `at`.
    ///
    /// # Errors
    /// There is no room, or the file cannot be written.
    pub(crate) fn save(&self, file: &File, at: u64) -> io::Result<()> {
        for ram in self.regions.iter() {
            for_each_chunk(
                &self.file,
                ram.file_offset..ram.file_offset + ram.size,
                |chunk| {
                    let mut bytes = vec![0; length(&chunk)];
                    let guest = GuestAddress(ram.start + (chunk.start - ram.file_offset));
                    self.guest
                        .read_slice(&mut bytes, guest)
                        .map_err(io::Error::other)?;
                    for run in runs(&bytes) {
                        let offset = at + chunk.start + run.start as u64;
                        file.write_all_at(&bytes[run], offset)?;
                    }
                    Ok(())
                },
            )?;
        }
        Ok(())
    }

    /// Reads all of guest memory, in which there is nothing yet, from `file`, where it begins at offset `at`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(crate) fn load(&self, file: &File, at: u64) -> io::Result<()> {
        let end = file.metadata()?.len();
        for ram in self.regions.iter() {
            let start = at + ram.file_offset;
            let range = start..(start + ram.size).min(end.max(start));
            for_each_chunk(file, range, |chunk| {
                let mut bytes = vec![0; length(&chunk)];
                file.read_exact_at(&mut bytes, chunk.start)?;
                let guest = ram.start + (chunk.start - start);
                for run in runs(&bytes) {
                    let guest = GuestAddress(guest + run.start as u64);
                    let written = self.guest.write_slice(&bytes[run], guest);
                    written.map_err(io::Error::other)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

fn length(chunk: &Range<u64>) -> usize {
    usize::try_from(chunk.end - chunk.start).expect("a chunk is small")
}

/// Calls `act` with each stretch of `range` in which `file` has data, at most [`CHUNK`] bytes a time.
fn for_each_chunk(
    file: &File,
    range: Range<u64>,
    mut act: impl FnMut(Range<u64>) -> io::Result<()>,
) -> io::Result<()> {
    let mut next = range.start;
    while next < range.end {
        let data = match seek(file, SeekFrom::Data(next)) {
            // Nothing but a hole up to the end.
            Err(rustix::io::Errno::NXIO) => return Ok(()),
            data => data?,
        };
        let data_end = seek(file, SeekFrom::Hole(data))?.min(range.end);
        let mut start = data.max(next);
        while start < data_end {
            let end = (start + CHUNK as u64).min(data_end);
            act(start..end)?;
            start = end;
        }
        next = data_end.max(data);
    }
    Ok(())
}

/// Returns the stretches of `bytes` whose pages are not all zeros.
fn runs(bytes: &[u8]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, page) in bytes.chunks(PAGE).enumerate() {
        if page.iter().all(|byte| *byte == 0) {
            continue;
        }
        let start = index * PAGE;
        let end = start + page.len();
        match runs.last_mut().filter(|run| run.end == start) {
            Some(run) => run.end = end,
            None => runs.push(start..end),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use spec::units::Mib;

    use super::*;

    const AT: u64 = 16 << 20;

    #[test]
    fn what_was_written_is_there_again_on_both_sides_of_the_hole() {
        let size = Mib(3 * 1024 + 64);
        let (from, to) = (Memory::for_tests(size), Memory::for_tests(size));
        let places = [0, 0x1234, (3 << 30) - 4096, (4 << 30) + (63 << 20)];
        for (place, text) in places.into_iter().zip(["a", "bc", "def", "ghij"]) {
            from.guest()
                .write_slice(text.as_bytes(), GuestAddress(place))
                .unwrap();
        }
        let file = tempfile::tempfile().unwrap();
        from.save(&file, AT).unwrap();
        to.load(&file, AT).unwrap();
        for (place, text) in places.into_iter().zip(["a", "bc", "def", "ghij"]) {
            let mut bytes = vec![0; text.len()];
            to.guest()
                .read_slice(&mut bytes, GuestAddress(place))
                .unwrap();
            assert_eq!(bytes, text.as_bytes());
        }
    }

    #[test]
    fn empty_memory_takes_no_room() {
        let memory = Memory::for_tests(Mib(256));
        let zeros = vec![0; 8 << 20];
        memory.guest().write_slice(&zeros, GuestAddress(0)).unwrap();
        let file = tempfile::tempfile().unwrap();
        memory.save(&file, AT).unwrap();
        assert_eq!(file.metadata().unwrap().blocks(), 0);
    }

    #[test]
    fn pages_that_hold_something_are_one_run() {
        let mut bytes = vec![0; 5 * PAGE + 10];
        (bytes[PAGE], bytes[3 * PAGE - 1], bytes[5 * PAGE + 9]) = (1, 1, 1);
        assert_eq!(runs(&bytes), [PAGE..3 * PAGE, 5 * PAGE..5 * PAGE + 10]);
    }
}
