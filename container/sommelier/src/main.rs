//! `sommelier`: the Wayland proxy of a container. Programs connect to its sockets; each of them gets
//! a connection of its own to the host end, which shows the windows and decides what is allowed.

mod client;
mod control;
mod damage;
mod globals;
mod link;
mod listen;
mod presentation;
mod refuse;
mod shm;
mod stats;
mod surface;
mod xwayland;
mod xwm;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use wayland::codec::Codec;

use crate::client::Shop;
use crate::link::Address;
use crate::stats::Registry;
use crate::xwayland::Display;

/// What is written once the sockets are there.
const READY: &[u8] = b"ready\n";

#[derive(Debug, Parser)]
#[command(version, about = "Shows the windows of this container on the host")]
struct Arguments {
    /// Where the host end listens: vsock:PORT, unix:PATH or direct:PATH.
    #[arg(long, default_value_t = format!("vsock:{}", wayland::PORT))]
    host: String,

    /// The socket to listen on; a name is taken in the runtime directory.
    #[arg(long, default_value = "wayland-0")]
    socket: PathBuf,

    /// The number of the X display to serve.
    #[arg(long, default_value_t = 0)]
    display: u32,

    /// Where the X display has the socket that its public path leads to: by default, the runtime directory.
    #[arg(long)]
    x_directory: Option<PathBuf>,

    /// The X server to start when the first X program connects.
    #[arg(long, default_value = "Xwayland")]
    xwayland: String,

    /// X pixels for each unit of the host's screen; without it, as many as its sharpest screen has. One is for
    /// programs that know nothing of DPI.
    #[arg(long, env = "SOMMELIER_SCALE")]
    scale: Option<f64>,

    /// Packs pixels with LZ4, for hosts that are not this machine.
    #[arg(long)]
    compress: bool,
}

fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_env("TESTUDO_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    // One binary, two names, as every program of ours.
    let name = std::env::args_os()
        .next()
        .map(PathBuf::from)
        .unwrap_or_default();
    let outcome = if name.file_name().is_some_and(|name| name == "sommelierctl") {
        control::run()
    } else {
        run(&Arguments::parse())
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let host: Address = arguments.host.parse()?;
    let codec = if arguments.compress {
        Codec::Lz4
    } else {
        Codec::None
    };
    let shop = Arc::new(Shop {
        host,
        codec,
        clients: Registry::default(),
    });
    let wayland = listen::Display::new(&arguments.socket)?;
    let sockets = listen::x_sockets(arguments.display, arguments.x_directory.as_deref())?;
    announce()?;
    let program = arguments.xwayland.clone();
    let scale = arguments.scale;
    let display = Display {
        scale,
        number: arguments.display,
        sockets,
        program,
    };
    let x_shop = shop.clone();
    std::thread::Builder::new()
        .name("x".into())
        .spawn(move || {
            if let Err(error) = xwayland::serve(&x_shop, &display) {
                tracing::error!("{error:#}");
            }
        })?;
    let clients = shop.clients.clone();
    std::thread::Builder::new()
        .name("control".into())
        .spawn(move || {
            if let Err(error) = control::serve(&clients) {
                tracing::warn!("no counters for sommelierctl: {error:#}");
            }
        })?;
    loop {
        let socket = wayland.accept()?;
        let shop = shop.clone();
        std::thread::Builder::new()
            .name("client".into())
            .spawn(move || {
                if let Err(error) = client::serve(&shop, socket.into()) {
                    tracing::warn!("{error:#}");
                }
            })?;
    }
}

/// Says on standard output, once, that programs may connect, and closes it.
fn announce() -> anyhow::Result<()> {
    std::io::stdout().write_all(READY)?;
    let nothing = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdout(nothing)?;
    Ok(())
}
