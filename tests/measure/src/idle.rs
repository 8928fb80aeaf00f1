//! What an idle VM costs: processor time of the whole tree on the host, memory in the guest and here, and what the tools weigh.

use std::time::Duration;

use fixture::{Home, Running};

use crate::{Figures, say};

/// systemd in the container has settled by then, emulated or not.
const SETTLE: Duration = Duration::from_secs(60);

/// Long enough for a tick of one per cent to be a hundred.
const WATCH: Duration = Duration::from_secs(30);

const MIB: f64 = 1_048_576.0;

/// Clock ticks of /proc in a second (proc(5)); Linux shows users 100 on every architecture.
const TICKS: f64 = 100.0;

pub(crate) fn measure(home: &Home, figures: &mut Figures) {
    let _ = home.testudo(&["run", "--", "true"]).ok();
    say("idle: a minute and a half of nothing");
    std::thread::sleep(SETTLE);
    let before: f64 = Running::all().iter().map(Running::ticks).sum();
    std::thread::sleep(WATCH);
    let after: f64 = Running::all().iter().map(Running::ticks).sum();
    figures.idle_cpu_percent = (after - before) / TICKS / WATCH.as_secs_f64() * 100.0;
    let info = home.run("vmc", &["info", "--json", "termina"]).ok().json();
    figures.idle_guest_used_mib = info["figures"]["memory_used_bytes"]
        .as_f64()
        .unwrap_or_default()
        / MIB;
    figures.idle_host_mib = info["host_memory_bytes"].as_f64().unwrap_or_default() / MIB;
    for name in ["testudo", "concierge", "crosvm"] {
        let size = std::fs::metadata(home.programs().join(name)).map_or(0, |file| file.len());
        figures.tool_mib.insert(name.to_owned(), size as f64 / MIB);
    }
    let line = "stat -L -c '%n %s' /sbin/init /opt/testudo/bin/* 2>/dev/null || :";
    for line in home.vm_shell(line).ok().text().lines() {
        if let Some((path, size)) = line.rsplit_once(' ') {
            let name = path.rsplit('/').next().unwrap_or(path);
            figures
                .tool_mib
                .insert(format!("guest {name}"), size.parse().unwrap_or(0.0) / MIB);
        }
    }
}
