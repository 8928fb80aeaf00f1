//! What each control request does to the running machine, on the host.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use spec::control::{Reply, Request};
use spec::end::EngineEnd;
use spec::units::Mib;
use spec::vm::Device;
use thiserror::Error;

use crate::front_end::AttachError;
use crate::machine::{Machine, StartError};
use crate::pci::bus::lock;
use crate::power::{EVENT_BUS_CHANGED, EVENT_POWER_BUTTON};

/// Why a request came to nothing.
#[derive(Debug, Error)]
enum RequestError {
    #[error("no device is called {0}")]
    NoDevice(String),
    #[error("a device is already called {0}")]
    NameTaken(String),
    #[error("no socket came with the request")]
    NoSocket,
    #[error("no file came with the request")]
    NoFile,
    #[error("the machine has no balloon")]
    NoBalloon,
    #[error("the guest has not let go of device {0}")]
    InUse(String),
    #[error("the device contradicts itself")]
    Contradiction(#[source] spec::vm::VmSpecError),
    #[error("cannot attach the daemon")]
    Attach(#[source] AttachError),
    #[error("cannot plug the device in")]
    Plug(#[source] StartError),
    #[error("cannot save the machine")]
    Snapshot(#[source] StartError),
}

/// Returns the device that a request gives a new daemon.
pub(super) fn reattached(request: &Request) -> Option<&str> {
    match request {
        Request::Reattach { device } => Some(device),
        _ => None,
    }
}

/// Does what is asked.
pub(super) fn answer(request: Request, fd: Option<OwnedFd>, machine: &mut Machine) -> Reply {
    let done = match request {
        Request::Info {} => {
            return Reply::Info {
                info: machine.info(),
            };
        }
        Request::PowerButton {} => tell(machine, EVENT_POWER_BUTTON),
        Request::Kill {} => kill(machine),
        Request::Suspend {} => suspend(machine),
        Request::Resume {} => resume(machine),
        Request::Snapshot {} => snapshot(machine, fd),
        Request::Balloon { size } => balloon(machine, size),
        Request::ConfigChanged { device } => config_changed(machine, &device),
        Request::Reattach { device } => reattach(machine, &device, fd),
        Request::AddDevice { device } => add(machine, &device, fd),
        Request::RemoveDevice { device } => remove(machine, &device),
    };
    done.map_or_else(|error| failed(&error), |()| Reply::Done {})
}

fn tell(machine: &Machine, event: u8) -> Result<(), RequestError> {
    machine.board.power.tell(event);
    Ok(())
}

fn kill(machine: &Machine) -> Result<(), RequestError> {
    machine.yard.end(EngineEnd::PowerOff);
    Ok(())
}

fn suspend(machine: &Machine) -> Result<(), RequestError> {
    machine.suspend();
    Ok(())
}

fn resume(machine: &Machine) -> Result<(), RequestError> {
    machine.resume();
    Ok(())
}

fn snapshot(machine: &Machine, fd: Option<OwnedFd>) -> Result<(), RequestError> {
    let file = File::from(fd.ok_or(RequestError::NoFile)?);
    machine.save(&file).map_err(RequestError::Snapshot)
}

fn balloon(machine: &Machine, size: Mib) -> Result<(), RequestError> {
    let (gauge, plugged) = machine.balloon.as_ref().ok_or(RequestError::NoBalloon)?;
    gauge.want(size);
    lock(&plugged.function).config_changed();
    Ok(())
}

fn config_changed(machine: &Machine, name: &str) -> Result<(), RequestError> {
    let device = &machine.devices[find(machine, name)?];
    lock(&device.front)
        .refresh_config()
        .map_err(RequestError::Attach)?;
    lock(&device.plugged.function).config_changed();
    Ok(())
}

fn reattach(machine: &Machine, name: &str, fd: Option<OwnedFd>) -> Result<(), RequestError> {
    let device = &machine.devices[find(machine, name)?];
    let socket = UnixStream::from(fd.ok_or(RequestError::NoSocket)?);
    // The transport is locked first, so that no vCPU starts or resets the device meanwhile.
    let function = lock(&device.plugged.function);
    let mut front = lock(&device.front);
    front.reattach(socket).map_err(RequestError::Attach)?;
    front.reset_streams();
    drop((front, function));
    lock(&device.plugged.function).config_changed();
    Ok(())
}

fn add(machine: &mut Machine, device: &Device, fd: Option<OwnedFd>) -> Result<(), RequestError> {
    device.validate().map_err(RequestError::Contradiction)?;
    if find(machine, &device.name).is_ok() {
        return Err(RequestError::NameTaken(device.name.clone()));
    }
    let socket = UnixStream::from(fd.ok_or(RequestError::NoSocket)?);
    machine.add(device, socket).map_err(RequestError::Plug)?;
    tell(machine, EVENT_BUS_CHANGED)
}

fn remove(machine: &mut Machine, name: &str) -> Result<(), RequestError> {
    let index = find(machine, name)?;
    if machine.remove(index) {
        Ok(())
    } else {
        Err(RequestError::InUse(name.to_owned()))
    }
}

fn find(machine: &Machine, name: &str) -> Result<usize, RequestError> {
    let found = machine
        .devices
        .iter()
        .position(|device| device.plugged.name == name);
    found.ok_or_else(|| RequestError::NoDevice(name.to_owned()))
}

fn failed(error: &dyn std::error::Error) -> Reply {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    Reply::Failed {
        message: error.to_string(),
        causes: causes.map(ToString::to_string).collect(),
    }
}
