//! What one kind of device looks like to the guest and to its daemon (virtio 1.3 §5), on the host side.

use spec::vm::{Device, Function};

use super::AttachError;
use crate::virtio_device::{F_EVENT_IDX, F_INDIRECT, F_VERSION_1};

/// Feature bits 0 to 23 belong to the kind of device.
const DEVICE_FEATURES: u64 = (1 << 24) - 1;
/// Transport features a daemon may offer through us; packed rings, ring reset and the like need more.
const TRANSPORT_FEATURES: u64 = F_INDIRECT | F_EVENT_IDX | F_VERSION_1;

/// `VIRTIO_NET_F_MAC` and `VIRTIO_NET_F_STATUS`: the front end's own, as with every other front end.
const NET_OWN: u64 = (1 << 5) | (1 << 16);
/// Features that need a control queue, which daemons leave to the front end and this one does not serve.
const NET_CONTROL: u64 = (1 << 2) | (0b111_1111 << 17);
const NET_LINK_UP: u16 = 1;

/// A kind of device.
#[derive(Clone, Debug)]
pub(crate) struct Shape {
    /// Device type.
    pub(crate) kind: u16,
    /// The largest size of each queue the guest sees.
    pub(crate) queue_sizes: Vec<u16>,
    /// How many of them, from the first, the daemon serves.
    pub(crate) daemon_queues: usize,
    /// The queue on which the front end has something to say, if there is one.
    pub(crate) event_queue: Option<u16>,
    /// Bytes of configuration space.
    pub(crate) config_bytes: u32,
    /// Whether the daemon answers for configuration; otherwise `config_start` is all of it.
    pub(crate) config_is_daemons: bool,
    /// Bytes that the front end puts over the configuration, with where.
    pub(crate) config_own: Vec<(usize, Vec<u8>)>,
    own_features: u64,
    hidden_features: u64,
}

impl Shape {
    /// Returns the shape of `device`.
    ///
    /// # Errors
    /// This engine cannot serve the device as specified.
    pub(crate) fn of(device: &Device) -> Result<Self, AttachError> {
        let shape = match &device.function {
            Function::Block { queues } => {
                let mut shape = Self::plain(2, usize::from(*queues), 60);
                // The guest must not look for more queues than there are (`num_queues`).
                shape.config_own.push((34, queues.to_le_bytes().to_vec()));
                shape
            }
            Function::Net { queue_pairs, mac } => {
                if *queue_pairs != 1 {
                    let problem = "this engine serves one pair of network queues";
                    return Err(AttachError::Unsupported {
                        device: device.name.clone(),
                        problem,
                    });
                }
                let mut shape = Self::plain(1, 2, 12);
                shape.own_features = NET_OWN;
                shape.hidden_features = NET_CONTROL;
                shape.config_own.push((0, mac.0.to_vec()));
                shape
                    .config_own
                    .push((6, NET_LINK_UP.to_le_bytes().to_vec()));
                shape
            }
            // The event queue only carries what an engine has to say after a restore, so it stays here.
            Function::Vsock {} => Self {
                daemon_queues: 2,
                event_queue: Some(2),
                ..Self::plain(19, 3, 8)
            },
            Function::Fs { tag, queues } => {
                let mut shape = Self::plain(26, 1 + usize::from(*queues), 40);
                let mut name = tag.clone().into_bytes();
                name.resize(36, 0);
                shape.config_is_daemons = false;
                shape.config_own.push((0, name));
                shape
                    .config_own
                    .push((36, u32::from(*queues).to_le_bytes().to_vec()));
                shape
            }
            Function::Rng {} => Self::plain(4, 1, 0),
            Function::Sound {} => Self::plain(25, 4, 12),
            Function::Gpu {} => Self::plain(16, 2, 16),
            Function::Input {} => Self::plain(18, 2, 136),
        };
        let queue_sizes = vec![device.queue_size; shape.queue_sizes.len()];
        Ok(Self {
            queue_sizes,
            ..shape
        })
    }

    fn plain(kind: u16, queues: usize, config_bytes: u32) -> Self {
        Self {
            kind,
            queue_sizes: vec![0; queues],
            daemon_queues: queues,
            event_queue: None,
            config_bytes,
            config_is_daemons: config_bytes > 0,
            config_own: Vec::new(),
            own_features: 0,
            hidden_features: 0,
        }
    }

    /// Returns what the guest is offered when the daemon offers `daemon`.
    pub(crate) fn offer(&self, daemon: u64) -> u64 {
        let passed = (DEVICE_FEATURES & !self.hidden_features) | TRANSPORT_FEATURES;
        (daemon & passed) | self.own_features
    }

    /// Returns what to agree on with the daemon when guest and front end agreed on `agreed`.
    pub(crate) fn ask(&self, agreed: u64) -> u64 {
        agreed & !self.own_features
    }

    /// Puts the front end's own bytes over the daemon's configuration.
    pub(crate) fn overlay(&self, config: &mut [u8]) {
        for (at, bytes) in &self.config_own {
            config[*at..at + bytes.len()].copy_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use spec::device::MacAddress;
    use spec::fd::InheritedFd;

    use super::*;

    fn shape(function: Function) -> Result<Shape, AttachError> {
        let name = "it".to_owned();
        Shape::of(&Device {
            name,
            socket: InheritedFd(3),
            function,
            queue_size: 128,
        })
    }

    #[test]
    fn a_card_has_its_address_and_no_control_queue() {
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        let net = shape(Function::Net {
            queue_pairs: 1,
            mac,
        })
        .unwrap();
        let mut config = vec![0; 12];
        net.overlay(&mut config);
        assert_eq!(config, [2, 0, 0, 0, 0, 9, 1, 0, 0, 0, 0, 0]);
        assert_eq!(net.offer(NET_CONTROL | F_EVENT_IDX), NET_OWN | F_EVENT_IDX);
        assert_eq!(net.ask(NET_OWN | F_EVENT_IDX), F_EVENT_IDX);
    }

    #[test]
    fn more_pairs_than_can_be_served_are_refused() {
        let mac = MacAddress([2, 0, 0, 0, 0, 9]);
        let error = shape(Function::Net {
            queue_pairs: 2,
            mac,
        })
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "device it: this engine serves one pair of network queues"
        );
    }

    #[test]
    fn a_folder_is_described_without_its_daemon() {
        let fs = shape(Function::Fs {
            tag: "home".to_owned(),
            queues: 3,
        })
        .unwrap();
        let mut config = vec![0; 40];
        fs.overlay(&mut config);
        assert_eq!(&config[..5], b"home\0");
        assert_eq!(config[36..], [3, 0, 0, 0]);
        assert_eq!(fs.queue_sizes, [128; 4]);
        assert!(!fs.config_is_daemons);
    }

    #[test]
    fn what_the_transport_cannot_carry_is_not_offered() {
        let rng = shape(Function::Rng {}).unwrap();
        assert_eq!(
            rng.offer(u64::MAX) & !(DEVICE_FEATURES | TRANSPORT_FEATURES),
            0
        );
    }
}
