//! Guests made by hand: a few instructions in an ELF image, for what one exit or one register does.

use std::fs::File;

use crate::engine::file;

/// Where such a guest is loaded and entered.
pub const ENTRY: u64 = 0x100_0000;

/// Instructions of a 64-bit guest, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Program(Vec<u8>);

impl Program {
    /// Starts with nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Writes `value` to I/O port `port`.
    #[must_use]
    pub fn out(mut self, port: u16, value: u8) -> Self {
        self.0.extend([0x66, 0xba]);
        self.0.extend(port.to_le_bytes());
        self.0.extend([0xb0, value, 0xee]);
        self
    }

    /// Writes each byte of `text` to I/O port `port`.
    #[must_use]
    pub fn print(self, port: u16, text: &str) -> Self {
        text.bytes()
            .fold(self, |program, byte| program.out(port, byte))
    }

    /// Reads a byte from I/O port `from` and writes it to `to`.
    #[must_use]
    pub fn copy_port(mut self, from: u16, to: u16) -> Self {
        self.0.extend([0x66, 0xba]);
        self.0.extend(from.to_le_bytes());
        self.0.push(0xec);
        self.out_al(to)
    }

    /// Reads four bytes at `address` and writes them to I/O port `to`, lowest first.
    #[must_use]
    pub fn print_memory(mut self, address: u64, to: u16) -> Self {
        self = self.load_rbx(address);
        self.0.extend([0x8b, 0x0b]);
        for _ in 0..4 {
            self.0.extend([0x88, 0xc8]);
            self = self.out_al(to);
            self.0.extend([0xc1, 0xe9, 8]);
        }
        self
    }

    /// Writes four bytes at `address`.
    #[must_use]
    pub fn store(mut self, address: u64, value: u32) -> Self {
        self = self.load_rbx(address);
        self.0.extend([0xc7, 0x03]);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Writes two bytes at `address`.
    #[must_use]
    pub fn store_short(mut self, address: u64, value: u16) -> Self {
        self = self.load_rbx(address);
        self.0.extend([0x66, 0xc7, 0x03]);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Writes one byte at `address`.
    #[must_use]
    pub fn store_byte(mut self, address: u64, value: u8) -> Self {
        self = self.load_rbx(address);
        self.0.extend([0xc6, 0x03, value]);
        self
    }

    /// Does an instruction that does not exist, without a handler for the fault.
    #[must_use]
    pub fn crash(mut self) -> Self {
        self.0.extend([0x0f, 0x0b]);
        self
    }

    /// Counts in memory at `address` for ever.
    #[must_use]
    pub fn count_for_ever(mut self, address: u64) -> Self {
        self = self.load_rbx(address);
        self.0.extend([0x48, 0xff, 0x03, 0xeb, 0xfb]);
        self
    }

    /// Powers the machine off.
    #[must_use]
    pub fn power_off(self) -> Self {
        self.out(0x601, 0x34)
    }

    /// Returns the program as a kernel image. The page tables map only the first GiB, so the first instructions give
    /// themselves larger ones, in which the first 4 GiB are themselves.
    #[must_use]
    pub fn kernel(self) -> File {
        file(&self.image())
    }

    /// Returns the bytes of [`Program::kernel`].
    #[must_use]
    pub fn image(self) -> Vec<u8> {
        let mut code = identity_map();
        code.extend(self.0);
        code.extend([0xf4, 0xeb, 0xfd]);
        elf(ENTRY, &code)
    }

    fn load_rbx(mut self, value: u64) -> Self {
        self.0.extend([0x48, 0xbb]);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn out_al(mut self, port: u16) -> Self {
        self.0.extend([0x66, 0xba]);
        self.0.extend(port.to_le_bytes());
        self.0.push(0xee);
        self
    }
}

/// Code that maps the second to fourth GiB to themselves, in pages of 2 MiB, in tables at 2 MiB.
fn identity_map() -> Vec<u8> {
    const TABLES: u32 = 0x20_0000;
    /// The second table of the page tables the guest starts with.
    const MIDDLE: u32 = 0xa000;
    let mut code = Vec::new();
    for gib in 1..4_u32 {
        let table = TABLES + gib * 0x1000;
        // mov dword [MIDDLE + gib * 8], table | present | writable
        code.extend([0xc7, 0x04, 0x25]);
        code.extend((MIDDLE + gib * 8).to_le_bytes());
        code.extend((table | 3).to_le_bytes());
        // mov edi, table; mov eax, gib << 30 | present | writable | huge; mov ecx, 512
        code.push(0xbf);
        code.extend(table.to_le_bytes());
        code.push(0xb8);
        code.extend(((gib << 30) | 0x83).to_le_bytes());
        code.extend([0xb9, 0, 2, 0, 0]);
        // next: mov [rdi], rax; add rdi, 8; add rax, 2 MiB; dec ecx; jnz next
        code.extend([0x48, 0x89, 0x07, 0x48, 0x83, 0xc7, 8]);
        code.extend([0x48, 0x05, 0, 0, 0x20, 0]);
        code.extend([0xff, 0xc9, 0x75, 0xef]);
    }
    code
}

/// Returns an ELF image of one segment, loaded at [`ENTRY`].
#[must_use]
pub fn elf(entry: u64, segment: &[u8]) -> Vec<u8> {
    let mut image = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    image.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    image.extend(entry.to_le_bytes());
    image.extend(64_u64.to_le_bytes());
    image.extend(0_u64.to_le_bytes());
    image.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 64, 0, 0, 0, 0, 0]);
    image.extend([1, 0, 0, 0, 7, 0, 0, 0]);
    let length = segment.len() as u64;
    for word in [120, ENTRY, ENTRY, length, length, 0x1000] {
        image.extend(u64::to_le_bytes(word));
    }
    image.extend(segment);
    image
}
