//! The parts of `wayland-hostd`, the host end of a VM's windows; the program is put together in `main.rs`,
//! and the fuzz targets use the same parts.

pub mod ask;
pub mod client;
pub mod filter;
pub mod jail;
pub mod security_context;
pub mod serve;
pub mod vm;
