//! What a virtio function is to the guest, kept while the function is paused on the host and given to its successor in
//! another process.

use std::io;

use serde::{Deserialize, Serialize};

use super::configuration::Common;
use super::{STATUS_CONFIG_CHANGED, VirtioPci, raise};
use crate::pci::bus::Function as _;
use crate::pci::config::FIRST_EXTENDED;

/// Everything the guest wrote, and where the queues stand.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    /// Configuration space up to the extended one, in which the guest can write nothing.
    config: Vec<u8>,
    interrupts: Vec<[u8; 16]>,
    common: Common,
    status: u8,
    /// The next entry that each queue takes; nothing for a device that did not work.
    positions: Option<Vec<(u16, u16)>>,
}

impl VirtioPci {
    /// Stops the device until [`VirtioPci::resume`]; the guest sees nothing of it.
    ///
    /// # Errors
    /// The device does not say where its queues stand.
    pub(crate) fn pause(&mut self) -> io::Result<()> {
        if self.active && self.paused.is_none() {
            self.paused = Some(self.device.pause()?);
        }
        Ok(())
    }

    /// Lets the device go on where it stopped.
    pub(crate) fn resume(&mut self) {
        if let Some(positions) = self.paused.take() {
            self.activate_or_give_up(&positions);
        }
    }

    /// Returns the state of a paused function.
    pub(crate) fn save(&self) -> State {
        State {
            config: self.config.bytes()[..FIRST_EXTENDED].to_vec(),
            interrupts: self.msix.table().to_vec(),
            common: self.common.clone(),
            status: self.status,
            positions: self.paused.clone(),
        }
    }

    /// Goes on as the function that `state` is of, whose guest is in memory already. Returns what does not fit, if
    /// anything does not.
    pub(crate) fn restore(&mut self, state: State) -> Option<&'static str> {
        if !self.common.could_be(&state.common) {
            return Some("it offers other features or queues");
        }
        if state.config.len() != FIRST_EXTENDED || !self.msix.set_table(&state.interrupts) {
            return Some("it has other registers");
        }
        self.common = state.common;
        self.status = state.status;
        self.write_config(0, &state.config);
        if let Some(positions) = state.positions {
            if let Err(error) = self.activate(&positions) {
                tracing::warn!(%error, "a virtio device cannot go on");
                return Some("it does not take its queues");
            }
            self.attach_notifications();
            self.repeat_bells();
        }
        None
    }

    /// A kick or an interrupt may have been on its way when the process before this one ended. One too many is
    /// harmless to both sides.
    fn repeat_bells(&mut self) {
        for (kick, queue) in self.kicks.iter().zip(self.common.queues()) {
            if !queue.enabled {
                continue;
            }
            let _full_counter_is_a_kick_too = kick.write(1);
            if let Some(line) = self.msix.line(queue.vector) {
                raise(line);
            }
        }
        let vector = self.common.config_vector();
        let changed = self.status & STATUS_CONFIG_CHANGED != 0;
        if let Some(line) = self.msix.line(vector).filter(|_| changed) {
            raise(line);
        }
    }
}
