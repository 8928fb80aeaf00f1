//! Vsock ports, the same numbers that ChromeOS uses (system_api/constants/vm_tools.h).

/// maitred's gRPC in the guest; the host connects.
pub const MAITRED: u32 = 8888;
/// vshd in the guest; the host connects.
pub const VSHD: u32 = 9001;
/// The guest announces that it is up; concierge listens.
pub const READY: u32 = 7777;
/// The guest's resolver asks the host's (DNS over TCP framing, RFC 1035 §4.2.2); concierge listens.
pub const RESOLVER: u32 = 7778;
/// The guest fetches an extra image by name; concierge listens.
pub const EXTRAS: u32 = 7779;
/// Wayland connections of the guest; the VM's Wayland host end listens.
pub const WAYLAND: u32 = 7781;
/// The host's vsock address (virtio 1.3 §5.10.4).
pub const HOST_CID: u32 = 2;
