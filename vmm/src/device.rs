//! `crosvm device <kind>`: one device daemon, told by a message what it is and jailed before it meets its guest.
//!
//! The unjailed part of each device's life is its arm in [`start`]: take the descriptors, make the device, and
//! [`virtio::launch::run`] does the rest.

use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use device_block::{Block, Format, Layer, Options};
use device_net::{Backend, Net};
use device_rng::Rng;
use device_vsock::Vsock;
use spec::device::{BlockFormat, DeviceMessage, DeviceSpec, NetBackend};
use spec::fd::InheritedFd;
use sys::inherited::Kind;
use virtio::launch::{self, Frontend, LaunchError};

/// The exit status for a message that is wrong, before there is a device that could fail.
const WRONG_MESSAGE: u8 = 2;

/// Serve one virtio device over vhost-user.
#[derive(Debug, Args)]
pub(crate) struct DeviceArgs {
    /// What kind of device: rng, vsock, block or net.
    kind: String,
    /// The inherited descriptor from which the specification is read.
    #[arg(long, value_name = "N")]
    spec_fd: i32,
}

/// Runs the daemon until its front end has gone; prints why it could not.
pub(crate) fn run(args: &DeviceArgs) -> ExitCode {
    let outcome = read_message(args)
        .map_err(|error| (WRONG_MESSAGE, error))
        .and_then(|message| {
            start(message).map_err(|error| (error.exit_code(), anyhow::Error::new(error)))
        });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, error)) => {
            tracing::error!("{error:#}");
            ExitCode::from(code)
        }
    }
}

/// Reads the message and closes what it does not name.
fn read_message(args: &DeviceArgs) -> anyhow::Result<DeviceMessage> {
    let source = launch::take(InheritedFd(args.spec_fd), Kind::Message)
        .context("cannot use the descriptor of the device specification")?;
    let message = DeviceMessage::read(File::from(source))?;
    if message.device.kind() != args.kind {
        bail!(
            "the specification is for device {}, not {}",
            message.device.kind(),
            args.kind
        );
    }
    let named: Vec<i32> = message.descriptors().iter().map(|fd| fd.0).collect();
    sys::inherited::close_all_but(&named).context("cannot close descriptors that are not named")?;
    Ok(message)
}

/// Makes the device and serves it.
fn start(message: DeviceMessage) -> Result<(), LaunchError> {
    let frontend = Frontend::take(message.vhost)?;
    match message.device {
        DeviceSpec::Rng => launch::run(frontend, device_rng::policy(), Rng),
        DeviceSpec::Vsock(vsock) => {
            let listener = launch::take(vsock.listener, Kind::Listening)?;
            let directory = launch::take(vsock.directory, Kind::Directory)?;
            // The jail makes the directory the root and the current directory.
            let device = Vsock::new(vsock.guest_cid, listener.into(), PathBuf::new());
            let device = device.map_err(|error| LaunchError::Device(error.into()))?;
            launch::run(frontend, device_vsock::policy(directory), device)
        }
        DeviceSpec::Net(net) => {
            let backend = match net.backend {
                NetBackend::Stream(socket) => {
                    Backend::Stream(launch::take(socket, Kind::Connected)?.into())
                }
                NetBackend::Tap(device) => Backend::Tap(launch::take(device, Kind::Device)?.into()),
            };
            let policy = device_net::policy(&backend);
            let device = Net::new(backend, net.mac.0, net.mtu);
            let device = device.map_err(|error| LaunchError::Device(error.into()))?;
            launch::run(frontend, policy, device)
        }
        DeviceSpec::Block(block) => {
            let access = if block.read_only {
                Kind::Readable
            } else {
                Kind::Writable
            };
            let image = File::from(launch::take(block.image, access)?);
            let mut below = Vec::new();
            for layer in block.backing {
                below.push(Layer {
                    image: File::from(launch::take(layer.image, Kind::Readable)?),
                    format: format(layer.format),
                });
            }
            let options = Options {
                format: format(block.format),
                read_only: block.read_only,
                serial: block.serial,
                queues: block.queues,
            };
            let device = Block::new(image, below, &options);
            let device = device.map_err(|error| LaunchError::Device(error.into()))?;
            launch::run(frontend, device_block::policy(), device)
        }
    }
}

fn format(format: BlockFormat) -> Format {
    match format {
        BlockFormat::Raw => Format::Raw,
        BlockFormat::Qcow2 => Format::Qcow2,
    }
}
