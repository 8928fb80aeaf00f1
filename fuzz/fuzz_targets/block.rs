//! Any requests to a disk: each is answered with one of the three statuses, and the image keeps its size.

#![no_main]

use std::cell::RefCell;
use std::fs::File;

use device_block::{Block, Format, Options};
use libfuzzer_sys::fuzz_target;
use virtio::harness::{Harness, Ram};

const BYTES: u64 = 1 << 20;

fn guest(image: &File, read_only: bool) -> RefCell<Harness<'static, Block>> {
    let options = Options {
        format: Format::Raw,
        read_only,
        serial: "fuzz".to_owned(),
        queues: 1,
    };
    let ram: &Ram = Box::leak(Box::default());
    let device = Block::new(image.try_clone().unwrap(), Vec::new(), &options).unwrap();
    RefCell::new(Harness::new(ram, device, false))
}

thread_local! {
    static IMAGE: File = {
        let memfd = rustix::fs::memfd_create("image", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::fs::ftruncate(&memfd, BYTES).unwrap();
        memfd.into()
    };
    static WRITABLE: RefCell<Harness<'static, Block>> = IMAGE.with(|image| guest(image, false));
    static READ_ONLY: RefCell<Harness<'static, Block>> = IMAGE.with(|image| guest(image, true));
}

fuzz_target!(|input: (bool, Vec<(u8, u32, Vec<u8>, u8, u16)>)| {
    let (read_only, requests) = input;
    let guest = if read_only { &READ_ONLY } else { &WRITABLE };
    guest.with_borrow_mut(|guest| {
        guest.restart(false);
        for (kind, sector, data, cut, room) in requests.iter().take(8) {
            let header = [&u32::from(*kind).to_le_bytes()[..], &[0; 4], &u64::from(*sector).to_le_bytes()];
            let request = [&header.concat(), data.as_slice()].concat();
            let place = guest.offer(0, &request, usize::from(*cut), u32::from(*room));
            let status = place + u64::from(*room).saturating_sub(1);
            guest.write(status, &[0xee]);
            guest.kick(0);
            let mut byte = [0];
            guest.read(status, &mut byte);
            assert!(*room == 0 || byte[0] <= 2, "status {}", byte[0]);
        }
    });
    IMAGE.with(|image| assert_eq!(image.metadata().unwrap().len(), BYTES));
});
