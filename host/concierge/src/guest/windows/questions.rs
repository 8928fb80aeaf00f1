//! What the host ends of a VM ask about the clipboard, on the host: passed on to clients that listen. Nobody listens, nothing
//! crosses.

use std::io::Write;
use std::os::unix::net::UnixStream;

use spec::windows::{Direction, Order, Question};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::sync::broadcast;

use crate::log::clean;

/// The longest line of a host end: a type of 255 bytes, escaped, and the rest.
const LINE_MAX: u64 = 2_048;

/// A question, under a number that no other host end of the VM has.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Its number.
    pub(crate) id: u64,
    /// Which way data would go.
    pub(crate) direction: Direction,
    /// The data's type, without what a terminal would obey.
    pub(crate) mime: String,
}

/// Reads what the host end `number` asks until it ends; returns the number.
pub(super) async fn listen(
    number: u32,
    control: UnixStream,
    asked: broadcast::Sender<Asked>,
) -> u32 {
    let Ok(stream) = control
        .try_clone()
        .and_then(tokio::net::UnixStream::from_std)
    else {
        return number;
    };
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = Vec::new();
        let read = (&mut reader)
            .take(LINE_MAX)
            .read_until(b'\n', &mut line)
            .await;
        if read.is_err() || line.last() != Some(&b'\n') {
            return number;
        }
        let Ok(Question {
            ask,
            direction,
            mime,
        }) = serde_json::from_slice(&line)
        else {
            continue;
        };
        let question = Asked {
            id: joined(number, ask),
            direction,
            mime: clean(mime.as_bytes()),
        };
        if asked.send(question).is_err() {
            tell(&control, Order::Answer { ask, allow: false });
        }
    }
}

/// Tells a host end something; returns whether it can still be told anything.
pub(super) fn tell(mut control: &UnixStream, order: Order) -> bool {
    let line = serde_json::to_string(&order).map(|line| format!("{line}\n"));
    line.is_ok_and(|line| control.write_all(line.as_bytes()).is_ok())
}

/// Returns the number of question `ask` of the host end `number`.
fn joined(number: u32, ask: u64) -> u64 {
    u64::from(number) << 32 | ask & u64::from(u32::MAX)
}

/// Returns which host end and which of its questions `id` is.
pub(super) fn parted(id: u64) -> (u32, u64) {
    let low = id & u64::from(u32::MAX);
    (u32::try_from(id >> 32).unwrap_or(u32::MAX), low)
}
