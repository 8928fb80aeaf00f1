//! A function's message interrupts, MSI-X (PCI 3.0 §6.8.2): a table the guest writes, one [`Line`] an entry.

use crate::interrupt::{Line, Message};

/// The capability's identity.
pub(crate) const CAPABILITY: u8 = 0x11;
/// Bytes of one table entry.
const ENTRY_BYTES: usize = 16;
/// Vector control, bit 0.
const ENTRY_MASKED: u32 = 1;
/// Message control, bits 15 and 14.
const ENABLE: u16 = 1 << 15;
const MASK_ALL: u16 = 1 << 14;

/// The table, its lines, and the two bits that rule them all.
pub(crate) struct Msix {
    table: Vec<[u8; ENTRY_BYTES]>,
    lines: Vec<Line>,
    enabled: bool,
    all_masked: bool,
}

impl Msix {
    /// Makes a table with one entry for each line, all masked.
    pub(crate) fn new(lines: Vec<Line>) -> Self {
        let mut masked = [0; ENTRY_BYTES];
        masked[12..].copy_from_slice(&ENTRY_MASKED.to_le_bytes());
        Self {
            table: vec![masked; lines.len()],
            lines,
            enabled: false,
            all_masked: false,
        }
    }

    /// Returns the capability's body and its writable bits for a table at `table` and pending bits at `pending`,
    /// both offsets into BAR 0 and multiples of 8.
    pub(crate) fn capability(vectors: usize, table: u32, pending: u32) -> ([u8; 10], [u8; 10]) {
        let size = u16::try_from(vectors - 1).expect("a table has at most 2048 entries");
        let mut body = [0; 10];
        body[..2].copy_from_slice(&size.to_le_bytes());
        body[2..6].copy_from_slice(&table.to_le_bytes());
        body[6..].copy_from_slice(&pending.to_le_bytes());
        let mut writable = [0; 10];
        writable[..2].copy_from_slice(&(ENABLE | MASK_ALL).to_le_bytes());
        (body, writable)
    }

    /// Returns the table's entries.
    pub(crate) fn table(&self) -> &[[u8; ENTRY_BYTES]] {
        &self.table
    }

    /// Takes over the entries of another table; returns false, and changes nothing, if there are not as many.
    pub(crate) fn set_table(&mut self, table: &[[u8; ENTRY_BYTES]]) -> bool {
        let fits = table.len() == self.table.len();
        if fits {
            self.table.copy_from_slice(table);
            (0..table.len()).for_each(|vector| self.route(vector));
        }
        fits
    }

    /// Returns the line of `vector`, if there is one.
    pub(crate) fn line(&self, vector: u16) -> Option<&Line> {
        self.lines.get(usize::from(vector))
    }

    /// Takes the message control word after the guest wrote it.
    pub(crate) fn set_control(&mut self, control: u16) {
        self.enabled = control & ENABLE != 0;
        self.all_masked = control & MASK_ALL != 0;
        (0..self.table.len()).for_each(|vector| self.route(vector));
    }

    /// Answers a read of the table.
    pub(crate) fn read_table(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let Some((vector, within)) = self.place(offset, data.len()) else {
            return;
        };
        data.copy_from_slice(&self.table[vector][within..within + data.len()]);
    }

    /// Takes a write to the table.
    pub(crate) fn write_table(&mut self, offset: u64, data: &[u8]) {
        let Some((vector, within)) = self.place(offset, data.len()) else {
            return;
        };
        self.table[vector][within..within + data.len()].copy_from_slice(data);
        self.route(vector);
    }

    /// Answers a read of the pending bits.
    pub(crate) fn read_pending(&self, offset: u64, data: &mut [u8]) {
        for (byte, to) in (offset..).zip(data.iter_mut()) {
            let first = usize::try_from(byte).map_or(usize::MAX, |byte| byte.saturating_mul(8));
            let bit = |index: usize| {
                let line = first
                    .checked_add(index)
                    .and_then(|vector| self.lines.get(vector));
                u8::from(line.is_some_and(Line::is_pending)) << index
            };
            *to = (0..8).map(bit).sum();
        }
    }

    /// Gives the lines back when the function is unplugged.
    pub(crate) fn take_lines(&mut self) -> Vec<Line> {
        self.table.clear();
        std::mem::take(&mut self.lines)
    }

    /// Returns the vector and the offset within its entry, for an access inside one entry.
    fn place(&self, offset: u64, length: usize) -> Option<(usize, usize)> {
        let offset = usize::try_from(offset).ok()?;
        let (vector, within) = (offset / ENTRY_BYTES, offset % ENTRY_BYTES);
        (vector < self.table.len() && within + length <= ENTRY_BYTES).then_some((vector, within))
    }

    fn route(&mut self, vector: usize) {
        let entry = &self.table[vector];
        let word = |at: usize| {
            u32::from_le_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
        };
        let open = self.enabled && !self.all_masked && word(12) & ENTRY_MASKED == 0;
        let message = Message {
            address: u64::from(word(0)) | (u64::from(word(4)) << 32),
            data: word(8),
        };
        self.lines[vector].set(open.then_some(message));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::interrupt::recorder::Recorder;

    fn msix(vectors: usize) -> (Arc<Recorder>, Msix) {
        let (recorder, lines) = Recorder::with_lines();
        (recorder, Msix::new(lines.make(vectors).unwrap()))
    }

    fn write_entry(msix: &mut Msix, vector: u64, address: u32, data: u32, control: u32) {
        for (word, value) in [address, 0, data, control].into_iter().enumerate() {
            msix.write_table(vector * 16 + word as u64 * 4, &value.to_le_bytes());
        }
    }

    #[test]
    fn a_vector_is_open_when_everything_lets_it() {
        let (recorder, mut msix) = msix(2);
        write_entry(&mut msix, 1, 0xfee0_0000, 0x21, 0);
        assert!(recorder.connected.lock().unwrap().is_empty());
        msix.set_control(ENABLE | MASK_ALL);
        assert!(recorder.connected.lock().unwrap().is_empty());
        msix.set_control(ENABLE);
        let expected = Message {
            address: 0xfee0_0000,
            data: 0x21,
        };
        assert_eq!(recorder.connected.lock().unwrap().get(&1), Some(&expected));
        msix.write_table(16 + 12, &1_u32.to_le_bytes());
        assert!(recorder.connected.lock().unwrap().is_empty());
    }

    #[test]
    fn a_masked_vector_is_pending() {
        let (_recorder, msix) = msix(9);
        msix.line(8).unwrap().event().write(1).unwrap();
        let mut pending = [0; 8];
        msix.read_pending(0, &mut pending);
        assert_eq!(pending, [0, 1, 0, 0, 0, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn no_access_reaches_outside_the_table(
            accesses in prop::collection::vec((any::<u64>(), any::<u64>(), 1_usize..=8, any::<bool>()), 0..64),
            near in prop::collection::vec((0_u64..64, any::<u64>(), 1_usize..=8), 0..64),
            control: u16,
        ) {
            let (recorder, mut msix) = msix(3);
            for (offset, value, width, pending) in accesses {
                msix.write_table(offset, &value.to_le_bytes()[..width]);
                let mut data = [0; 8];
                if pending {
                    msix.read_pending(offset, &mut data[..width]);
                } else {
                    msix.read_table(offset, &mut data[..width]);
                }
            }
            for (offset, value, width) in near {
                msix.write_table(offset, &value.to_le_bytes()[..width]);
                msix.set_control(control);
            }
            let open = recorder.connected.lock().unwrap().len();
            prop_assert!(open <= 3 && (open == 0 || control & (ENABLE | MASK_ALL) == ENABLE));
        }
    }
}
