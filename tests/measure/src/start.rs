//! The main path: from nothing to the end of a command in the container, stage by stage, on the host's clock.

use std::collections::BTreeMap;

use fixture::{Done, Home};

use crate::{Figures, ROUNDS, median, say};

const MICROS: f64 = 1e6;

pub(crate) fn measure(home: &Home, figures: &mut Figures) {
    say("the first start: disk and container are made");
    figures.first_s = run(home).elapsed.as_secs_f64();
    let mut cold = Vec::new();
    let mut warm = Vec::new();
    let (mut kernel, mut ready) = (Vec::new(), Vec::new());
    let mut stages: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for round in 1..=ROUNDS {
        say(&format!("cold and warm start {round} of {ROUNDS}"));
        let _ = home.testudo(&["shutdown"]).ok();
        let done = run(home);
        cold.push(done.elapsed.as_secs_f64());
        for (name, seconds) in stages_of(&done) {
            stages.entry(name).or_default().push(seconds);
        }
        warm.push(run(home).elapsed.as_secs_f64());
        let info = home.run("vmc", &["info", "--json", "termina"]).ok().json();
        let micros = |key: &str| info["figures"][key].as_f64().unwrap_or_default() / MICROS;
        kernel.push(micros("kernel_to_init_us"));
        ready.push(micros("init_to_ready_us"));
        figures.engine = info["engine"].as_str().unwrap_or_default().to_owned();
    }
    figures.cold_s = median(cold);
    figures.warm_s = median(warm);
    figures.kernel_to_init_s = median(kernel);
    figures.init_to_ready_s = median(ready);
    figures.stages_s = stages
        .into_iter()
        .map(|(name, seconds)| (name, median(seconds)))
        .collect();
}

fn run(home: &Home) -> Done {
    home.testudo(&["run", "--json", "--", "true"]).ok()
}

/// Reads the ended stages from the client's report.
fn stages_of(done: &Done) -> Vec<(String, f64)> {
    let ended = |line: &str| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        Some((
            line["name"].as_str()?.to_owned(),
            line["elapsed_us"].as_f64()? / MICROS,
        ))
    };
    done.errors().lines().filter_map(ended).collect()
}
