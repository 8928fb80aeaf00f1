//! Real compositors and real programs for the tests of windows: a headless screen, the host end in its jail, and a container
//! side that share one machine. Everything is killed and removed when its owner is dropped.
//!
//! sway refuses to run as root, and so does the product's own rule; as root, all programs run as nobody.

mod clock;
mod pointer;
mod probe;
mod programs;
mod screen;
mod stage;
mod usage;

pub use clock::{eventually, soon};
pub use pointer::Button;
pub use probe::{Drawn, Load, Probe};
pub use programs::{Program, Running};
pub use screen::{Screen, WESTON, give_away};
pub use stage::{Link, Options, Stage};
pub use usage::{Usage, usage};
