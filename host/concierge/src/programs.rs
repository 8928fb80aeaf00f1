//! Finds the programs that concierge starts, on the host.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// Searched after `PATH`: a daemon started by a service manager often has a short one.
const USUAL: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];

/// Returns the executable `name` in `PATH` or a usual folder.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .filter(|folder| folder.is_absolute())
        .chain(USUAL.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .find(|file| {
            std::fs::metadata(file)
                .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
        })
}
