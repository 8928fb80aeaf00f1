//! The manual: one page for each command, made from the same grammar that parses it.

use std::path::Path;

use wire::Fault;

use crate::invocation::Program;
use crate::transfer;

/// Writes all pages into `folder`.
pub(crate) fn write(folder: &Path) -> Result<(), Fault> {
    std::fs::create_dir_all(folder).map_err(|error| transfer::unwritable(folder, &error))?;
    for program in Program::ALL {
        clap_mangen::generate_to(program.grammar(), folder)
            .map_err(|error| transfer::unwritable(folder, &error))?;
    }
    Ok(())
}
