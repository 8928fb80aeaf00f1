//! The command line against a fake daemon: what the user sees, exit statuses, and sessions with real processes
//! on pipes and ptys. No VM, no network.

mod completion;
mod containers;
mod crosh;
mod defaults;
mod desk;
mod doctor;
mod errors;
mod json;
mod manual;
mod pipes;
mod start;
mod terminal;
mod vms;
