//! How a virtio device presents itself in configuration space (virtio 1.3 §4.1.2 to §4.1.4), on the host side.

use super::{COMMON, DEVICE, NOTIFY, NOTIFY_STRIDE, PENDING, STATUS, TABLE};
use crate::pci::bus::BAR_BYTES;
use crate::pci::config::{ConfigSpace, Identity};
use crate::pci::msix::{self, Msix};

/// Red Hat, who lent virtio its vendor number.
const VENDOR: u16 = 0x1af4;
/// Modern devices are numbered from here.
const FIRST_DEVICE: u16 = 0x1040;
/// The lowest revision of a device that is modern only.
const REVISION: u8 = 1;

/// A vendor-specific capability (PCI 3.0 appendix H).
const VENDOR_CAPABILITY: u8 = 0x09;
/// `VIRTIO_PCI_CAP_*`.
const COMMON_CFG: u8 = 1;
const NOTIFY_CFG: u8 = 2;
const ISR_CFG: u8 = 3;
const DEVICE_CFG: u8 = 4;

/// Returns the configuration space of a device of `kind`, and where its MSI-X message control word is.
pub(super) fn config_space(kind: u16, queues: usize, bar: u64) -> (ConfigSpace, usize) {
    let mut space = ConfigSpace::new(Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + kind,
        subsystem_vendor: VENDOR,
        subsystem: FIRST_DEVICE + kind,
        revision: REVISION,
        class: class(kind),
    });
    space.set_bar(bar, BAR_BYTES);
    let stride = u32::try_from(NOTIFY_STRIDE).expect("a few bytes");
    let structures = [
        (COMMON_CFG, COMMON, 0x40, None),
        (ISR_CFG, STATUS, 1, None),
        (DEVICE_CFG, DEVICE, low(TABLE - DEVICE), None),
        (NOTIFY_CFG, NOTIFY, BAR_BYTES - low(NOTIFY), Some(stride)),
    ];
    for (structure, offset, length, multiplier) in structures {
        // struct virtio_pci_cap from its third byte: length, type, BAR, id, padding, offset, length.
        let total = if multiplier.is_some() { 20 } else { 16 };
        let mut body = vec![total, structure, 0, 0, 0, 0];
        body.extend(low(offset).to_le_bytes());
        body.extend(length.to_le_bytes());
        body.extend(multiplier.map(u32::to_le_bytes).into_iter().flatten());
        space.add_capability(VENDOR_CAPABILITY, &body, &[]);
    }
    let (body, writable) = Msix::capability(queues + 1, low(TABLE), low(PENDING));
    let control = space.add_capability(msix::CAPABILITY, &body, &writable);
    (space, control)
}

/// Returns the class code that tells people, not drivers, what this is.
fn class(kind: u16) -> u32 {
    match kind {
        1 => 0x02_00_00,
        2 => 0x01_80_00,
        3 => 0x07_80_00,
        16 => 0x03_80_00,
        18 => 0x09_80_00,
        25 => 0x04_01_00,
        _ => 0x08_80_00,
    }
}

fn low(offset: u64) -> u32 {
    u32::try_from(offset).expect("offsets into a BAR are small")
}
