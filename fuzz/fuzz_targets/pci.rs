//! Any accesses of a guest's to PCI configuration space, MSI-X tables and virtio registers: the device is told only what is
//! right, and nothing stays attached when it is unplugged.

#![no_main]

use crosvm::harness::{BAR, CONFIG, Ground, Pci};
use libfuzzer_sys::{arbitrary, fuzz_target};

#[derive(arbitrary::Arbitrary, Debug)]
enum Step {
    Write(Place, u64, Width),
    Read(Place, Width),
    /// Steps of a driver that does it right.
    Status(Status),
    Features(u8),
    Queue { index: u8, page: u8, size: u8 },
    Vector { vector: u8, open: bool },
    Changed,
    Pause,
    Snapshot,
}

#[derive(arbitrary::Arbitrary, Clone, Copy, Debug)]
enum Place {
    Register(u16),
    Configuration(u8),
    Anywhere(u32),
}

#[derive(arbitrary::Arbitrary, Clone, Copy, Debug)]
enum Status {
    Reset = 0,
    Driver = 3,
    FeaturesOk = 11,
    DriverOk = 15,
}

#[derive(arbitrary::Arbitrary, Clone, Copy, Debug)]
enum Width {
    One,
    Two,
    Four,
    Eight,
    Odd(u8),
}

impl Width {
    fn bytes(self) -> usize {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Four => 4,
            Self::Eight => 8,
            Self::Odd(width) => usize::from(width % 8) + 1,
        }
    }
}

impl Place {
    fn address(self) -> u64 {
        match self {
            Self::Register(at) => BAR + u64::from(at),
            Self::Configuration(at) => CONFIG + u64::from(at),
            Self::Anywhere(at) => u64::from(at) | 3 << 30,
        }
    }
}

thread_local!(static GROUND: Ground = Ground::default());

fn take(step: &Step, pci: &mut Pci, ground: &Ground) {
    match *step {
        Step::Write(place, value, width) => {
            pci.write(place.address(), &value.to_le_bytes()[..width.bytes()]);
        }
        Step::Read(place, width) => pci.read(place.address(), &mut [0; 8][..width.bytes()]),
        Step::Status(status) => pci.write(BAR + 20, &[status as u8]),
        Step::Features(own) => {
            for (select, features) in [(0, u32::from(own) | 1 << 29), (1, 1)] {
                pci.write(BAR + 8, &u32::to_le_bytes(select));
                pci.write(BAR + 12, &features.to_le_bytes());
            }
        }
        Step::Queue { index, page, size } => {
            pci.write(BAR + 22, &u16::from(index % 3).to_le_bytes());
            pci.write(BAR + 24, &(1_u16 << (size % 8)).to_le_bytes());
            pci.write(BAR + 26, &u16::from(index % 4).to_le_bytes());
            for (part, register) in [32, 40, 48].into_iter().enumerate() {
                // Every fourth page is where no memory is.
                let at = u64::from(page) << 18 | (part as u64) << 12 | u64::from(page / 192) << 30;
                pci.write(BAR + register, &at.to_le_bytes());
            }
            pci.write(BAR + 28, &[1, 0]);
        }
        Step::Vector { vector, open } => {
            let at = BAR + 0x3000 + 16 * u64::from(vector % 4);
            for (word, value) in [0xfee0_0000, 0, u32::from(vector), u32::from(!open)].into_iter().enumerate() {
                pci.write(at + 4 * word as u64, &value.to_le_bytes());
            }
        }
        Step::Changed => pci.config_changed(),
        Step::Pause => pci.pause_and_resume(),
        Step::Snapshot => pci.save_and_restore(ground),
    }
}

fuzz_target!(|input: (u8, Vec<Step>)| {
    let (ahead, steps) = input;
    GROUND.with(|ground| {
        let mut pci = Pci::new(ground);
        // Memory space and bus mastering, as firmware leaves them.
        pci.write(CONFIG + 4, &[6, 0]);
        let begun = [
            Step::Status(Status::Driver),
            Step::Features(0),
            Step::Status(Status::FeaturesOk),
            Step::Queue { index: 0, page: 1, size: 3 },
            Step::Status(Status::DriverOk),
        ];
        begun.iter().take(usize::from(ahead % 8)).for_each(|step| take(step, &mut pci, ground));
        steps.iter().take(64).for_each(|step| take(step, &mut pci, ground));
        pci.unplug();
    });
});
