//! `testudo doctor`: what on this machine is missing or in the way, and the command that mends it. It looks and
//! tries, and changes nothing; the daemon is not started for it.

mod cgroup;
mod engine;
mod image;
mod isolation;
mod packages;
mod resources;
mod state;
mod tools;

use clap::Args;
use link::config::Config;
use link::places::Places;
use serde::Serialize;
use wire::Fault;

use crate::end::End;
use crate::ui::Ui;
use packages::System;

/// Exit status when a check failed.
const FAILED: u8 = 1;

/// Check this machine, and print the command that mends what is missing
///
/// Nothing is changed and nothing is started. Exit status 0 when no check failed; warnings do not count.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also read the guest image and compare its hashes
    #[arg(long)]
    deep: bool,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// As it should be.
    Ok,
    /// Testudo works, but less well than it could.
    Warn,
    /// Testudo does not work.
    Fail,
}

/// What one check found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// The check; stable, for scripts.
    check: &'static str,
    /// How bad it is.
    pub(crate) status: Status,
    /// What was found.
    pub(crate) found: String,
    /// The command that mends it, or what to do where no command can.
    mend: Option<String>,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Ok,
            found: found.into(),
            mend: None,
        }
    }

    fn warn(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Warn,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn fail(check: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Fail,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }
}

/// What the checks look at.
#[derive(Debug)]
struct Patient<'a> {
    places: &'a Places,
    config: Config,
    system: System,
}

impl Doctor {
    /// Runs all checks and prints what they found.
    pub(crate) fn carry_out(self, ui: &Ui, places: &Places) -> Result<End, Fault> {
        let findings = examine(places, self.deep);
        let failed = findings
            .iter()
            .any(|finding| finding.status == Status::Fail);
        if ui.json() {
            ui.object(
                "doctor",
                &serde_json::json!({ "ok": !failed, "checks": findings }),
            )?;
        } else {
            for finding in &findings {
                if !ui.quiet() || finding.status != Status::Ok {
                    ui.finding(
                        finding.status,
                        finding.check,
                        &finding.found,
                        finding.mend.as_deref(),
                    )?;
                }
            }
        }
        Ok(if failed {
            End::Status(FAILED)
        } else {
            End::Done
        })
    }
}

fn examine(places: &Places, deep: bool) -> Vec<Finding> {
    let system = System::of_this_machine();
    let (config, configuration) = match Config::load(places) {
        Ok(config) => (config, Finding::ok("configuration", "valid or not there")),
        Err(fault) => {
            let found = std::iter::once(fault.to_string()).chain(fault.parts().causes.clone());
            let found = found.collect::<Vec<_>>().join(": ");
            (
                Config::default(),
                Finding::fail("configuration", found, "correct the file"),
            )
        }
    };
    let patient = Patient {
        places,
        config,
        system,
    };
    let mut findings = vec![configuration];
    findings.extend(engine::check(&patient));
    findings.extend(tools::check(&patient));
    findings.extend(isolation::check(&patient));
    findings.push(cgroup::check());
    findings.extend(resources::check(&patient));
    findings.extend(image::check(&patient, deep));
    findings.extend(state::check(&patient));
    findings
}
