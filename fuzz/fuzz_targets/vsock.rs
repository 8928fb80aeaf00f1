//! Any packets on a guest's vsock queues, with one service on the host that answers and one that is not there.

#![no_main]

use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use device_vsock::Vsock;
use libfuzzer_sys::{arbitrary, fuzz_target};
use virtio::harness::{Harness, Ram};

thread_local! {
    static RAM: Ram = Ram::default();
    static PLACE: (PathBuf, UnixListener, UnixListener) = {
        let folder = std::env::temp_dir().join(format!("fuzz-vsock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listen = |name: &str| {
            // An earlier run with this number may have left it.
            let _gone = std::fs::remove_file(folder.join(name));
            let listener = UnixListener::bind(folder.join(name)).unwrap();
            listener.set_nonblocking(true).unwrap();
            listener
        };
        let (door, service) = (listen("vsock.sock"), listen("vsock.sock_5"));
        (folder, door, service)
    };
}

#[derive(arbitrary::Arbitrary, Debug)]
struct Packet {
    right_cids: bool,
    cids: (u64, u64),
    ports: (u8, u8),
    length: Option<u32>,
    kind: u8,
    operation: u16,
    flags: u32,
    credit: (u32, u32),
    data: Vec<u8>,
    cut: u8,
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let cids = if self.right_cids { (3, 2) } else { self.cids };
        let length = self.length.unwrap_or(self.data.len() as u32);
        [
            &cids.0.to_le_bytes()[..],
            &cids.1.to_le_bytes(),
            &u32::from(self.ports.0 % 4).to_le_bytes(),
            &u32::from(self.ports.1 % 8).to_le_bytes(),
            &length.to_le_bytes(),
            &u16::from(self.kind % 3).to_le_bytes(),
            &(self.operation % 9).to_le_bytes(),
            &self.flags.to_le_bytes(),
            &self.credit.0.to_le_bytes(),
            &self.credit.1.to_le_bytes(),
            &self.data,
        ]
        .concat()
    }
}

fuzz_target!(|input: (Vec<Packet>, Vec<u16>, bool)| {
    let (packets, rooms, reset) = input;
    PLACE.with(|(folder, door, service)| {
        RAM.with(|ram| {
            let device = Vsock::new(3, door.try_clone().unwrap(), folder.clone()).unwrap();
            let mut harness = Harness::new(ram, device, true);
            for room in rooms.iter().take(7) {
                harness.offer(0, &[], 0, u32::from(*room));
            }
            let mut taken = Vec::new();
            for packet in packets.iter().take(8) {
                harness.offer(1, &packet.bytes(), usize::from(packet.cut), 0);
                harness.kick(1);
                taken.extend(service.accept());
                harness.poll();
            }
            if reset {
                harness.reset(0);
            }
            harness.kick(0);
        });
        while service.accept().is_ok() {}
    });
});
