//! The desktop that this command was typed on, as far as windows of a VM are concerned.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use wire::proto::ShowWindows;
use wire::{Fault, VmName};

use crate::client::{Client, answer};

/// Has windows of programs in `vm`, which runs, shown on this desktop from now on. Without a desktop nothing changes: a
/// command typed elsewhere, over SSH for example, takes no windows away.
pub(crate) async fn offer(client: &Client, vm: &VmName) -> Result<(), Fault> {
    let Some(compositor) = compositor(|name| std::env::var_os(name)) else {
        return Ok(());
    };
    let show = ShowWindows {
        vm: vm.to_string(),
        compositor,
    };
    answer(client.vms().show_windows(show)).await?;
    Ok(())
}

/// Returns the socket that programs of this session would connect to (wl_display_connect(3)), but never the one that those
/// guess when nothing is set.
fn compositor(variable: impl Fn(&str) -> Option<OsString>) -> Option<String> {
    let display = variable("WAYLAND_DISPLAY").filter(|name| !name.is_empty())?;
    let path = if Path::new(&display).is_absolute() {
        PathBuf::from(display)
    } else {
        PathBuf::from(variable("XDG_RUNTIME_DIR")?).join(display)
    };
    // The wire carries text.
    path.into_os_string().into_string().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(variables: &'static [(&str, &str)]) -> Option<String> {
        compositor(|name| {
            let set = variables.iter().find(|(key, _)| *key == name);
            set.map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn a_display_is_a_path_or_a_name_in_the_runtime_folder() {
        let run = ("XDG_RUNTIME_DIR", "/run/user/7");
        let named = Box::leak(Box::new([run, ("WAYLAND_DISPLAY", "wayland-1")]));
        assert_eq!(found(named).as_deref(), Some("/run/user/7/wayland-1"));
        assert_eq!(
            found(&[("WAYLAND_DISPLAY", "/mnt/w")]).as_deref(),
            Some("/mnt/w")
        );
    }

    #[test]
    fn nothing_is_guessed() {
        assert_eq!(found(&[("XDG_RUNTIME_DIR", "/run/user/7")]), None);
        assert_eq!(found(&[("WAYLAND_DISPLAY", "wayland-1")]), None);
    }
}
