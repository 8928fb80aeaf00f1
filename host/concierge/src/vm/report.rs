//! What a VM looks like to its user: state, sizes on disk and in memory, and the guest's own figures. Host side.

use wire::VmName;
use wire::proto::{Vm, VmState};

use super::state::State;
use super::{Running, Vms};
use wire::Fault;

/// Returns the report of VM `name`; the guest's figures are missing when it does not answer in time.
///
/// # Errors
/// When there is no such VM.
pub(crate) async fn of(vms: &Vms, name: &VmName) -> Result<Vm, Fault> {
    let view = vms.view(name)?;
    let folder = vms.world().folder(name);
    let (disk, on_host) = folder.sizes();
    let mut vm = Vm {
        name: name.to_string(),
        state: state(view.state, folder.has_saved()).into(),
        disk_bytes: disk.0,
        disk_host_bytes: on_host.0,
        last_end: view.last_end.unwrap_or_default(),
        ..Vm::default()
    };
    // A VM that is just being created has none yet.
    if let Ok(settings) = folder.settings() {
        vm.cpus = u32::from(settings.cpus);
        vm.memory_mib = settings.memory.0;
        vm.created_s = settings.created_s;
    }
    if let Some(running) = view.running {
        add_running(&mut vm, running).await;
    }
    Ok(vm)
}

async fn add_running(vm: &mut Vm, running: Running) {
    vm.engine = running.engine.to_owned();
    vm.engine_reason = running.engine_reason;
    vm.started_s = running.started_s;
    vm.pid = running.pids.first().copied().unwrap_or_default();
    vm.cid = running.cid;
    let pids = running.pids.iter().copied().chain(running.windows.pids());
    vm.host_memory_bytes = pids.map(resident_bytes).sum();
    vm.figures = running.agent.figures().await.ok();
}

fn state(state: State, saved: bool) -> VmState {
    match state {
        State::Stopped if saved => VmState::Saved,
        State::Absent | State::DiskBusy => VmState::DiskBusy,
        State::Stopped => VmState::Stopped,
        State::Starting => VmState::Starting,
        State::Running | State::Changing => VmState::Running,
        State::Stopping | State::Saving => VmState::Stopping,
    }
}

/// Returns a process's proportional share of resident memory. A jailed daemon does not let itself be measured so;
/// there it is the resident memory that is its own.
fn resident_bytes(pid: u32) -> u64 {
    let kib = |text: String, key: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.starts_with(key))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}"));
    read("smaps_rollup")
        .ok()
        .and_then(|text| kib(text, "Pss:"))
        .or_else(|| read("status").ok().and_then(|text| kib(text, "RssAnon:")))
        .unwrap_or_default()
        * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_measured() {
        let own = resident_bytes(std::process::id());
        assert!((1 << 16..1 << 32).contains(&own), "{own} bytes");
        assert_eq!(resident_bytes(u32::MAX), 0);
    }
}
