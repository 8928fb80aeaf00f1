//! The command line against a fake daemon: what the user sees, exit statuses, and sessions with real processes
//! on pipes and ptys. No VM, no network.

#[cfg(test)]
mod completion;
#[cfg(test)]
mod containers;
#[cfg(test)]
mod crosh;
#[cfg(test)]
mod defaults;
#[cfg(test)]
mod desk;
#[cfg(test)]
mod doctor;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod json;
#[cfg(test)]
mod manual;
#[cfg(test)]
mod pipes;
#[cfg(test)]
mod start;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod vms;
