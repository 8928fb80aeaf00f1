//! A program in the guest of a test: takes connections on a vsock port one after the other, sends back what comes, and
//! says on the console how each ends.

use std::io::{Read as _, Write as _};
use std::process::ExitCode;

use vsock::{VMADDR_CID_ANY, VsockListener, VsockStream};

/// Where the tests look for it.
const PORT: u32 = 7777;

fn main() -> ExitCode {
    let listener = match VsockListener::bind_with_cid_port(VMADDR_CID_ANY, PORT) {
        Ok(listener) => listener,
        Err(error) => {
            say(&format!("PEER FAILED {error}"));
            return ExitCode::FAILURE;
        }
    };
    say("PEER LISTENS");
    for connection in listener.incoming() {
        match connection.and_then(|stream| serve(&stream)) {
            Ok(()) => say("PEER CLOSED"),
            Err(error) => say(&format!("PEER LOST {:?}", error.kind())),
        }
    }
    ExitCode::SUCCESS
}

fn serve(mut stream: &VsockStream) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        stream.write_all(&bytes[..count])?;
    }
}

/// The console is all there is.
fn say(line: &str) {
    let _nobody_to_tell = writeln!(std::io::stdout(), "{line}");
}
