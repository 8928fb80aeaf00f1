//! The command line on the host: one binary that is `testudo`, `vmc`, `vsh` or `crosh` by the name it is called
//! by. A client of concierge; it holds no state.
//!
//! A call is parsed ([`invocation`]), run ([`testudo`], [`vmc`], [`vsh`], [`crosh`]) and ends in an [`end::End`]:
//! nothing more, an exit status, or a [`session`] that takes over the terminal. Only [`ui`] prints.

mod boot;
mod client;
mod completion;
mod create;
mod crosh;
mod defaults;
mod desktop;
mod doctor;
mod end;
mod invocation;
mod json;
mod man;
mod options;
mod person;
mod session;
mod settings;
mod suggest;
mod testudo;
mod transfer;
mod ui;
mod vmc;
mod vsh;

use std::process::ExitCode;

fn main() -> ExitCode {
    session::terminal::restore_on_panic();
    let invocation = match invocation::Invocation::parse(std::env::args_os().collect()) {
        Ok(Some(invocation)) => invocation,
        Ok(None) => return ExitCode::SUCCESS,
        Err(usage) => return ui::usage(&usage),
    };
    end::run(invocation)
}
