//! Tells the developer what a chore is doing and about how long it takes: a spinner on a terminal,
//! plain lines elsewhere. Everything goes to stderr, so that stdout stays the chore's result.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// How often the spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// One step of a chore, from its announcement to its end; dropped without [`Step::done`], it failed.
pub(crate) struct Step {
    what: String,
    started: Instant,
    bar: Option<ProgressBar>,
}

impl Step {
    /// Announces `what` ("building the kernel") and about how long it takes.
    pub(crate) fn start(what: &str, about: Duration) -> Self {
        let bar = std::io::stderr()
            .is_terminal()
            .then(|| spinner(what, about));
        if bar.is_none() {
            line(&format!("{what} (about {})", spoken(about)));
        }
        Self {
            what: what.to_owned(),
            started: Instant::now(),
            bar,
        }
    }

    /// Shows the newest line of what is going on; only a terminal shows it.
    pub(crate) fn detail(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.trim().to_owned());
        }
    }

    /// Ends the step well.
    pub(crate) fn done(mut self) {
        let text = format!("{}: done in {}", self.what, spoken(self.started.elapsed()));
        match self.bar.take() {
            Some(bar) => {
                bar.finish_and_clear();
                line(&text);
            }
            None => line(&text),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}

/// Prints one line about the chore.
pub(crate) fn line(text: &str) {
    // A closed stderr takes the news, not the work.
    let _ = writeln!(std::io::stderr(), "xtask: {text}");
}

fn spinner(what: &str, about: Duration) -> ProgressBar {
    let style = ProgressStyle::with_template("{spinner} {prefix} [{elapsed}] {wide_msg:.dim}")
        .expect("the template is a constant");
    let bar = ProgressBar::new_spinner().with_style(style);
    bar.set_prefix(format!("{what} (about {})", spoken(about)));
    bar.enable_steady_tick(TICK);
    bar
}

/// Returns a duration as people say it: `0.4 s`, `12 s`, `5 min 31 s`.
pub(crate) fn spoken(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        _ if seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        _ => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_spoken_in_one_or_two_units() {
        let said = [400, 12_000, 120_000, 331_000].map(|ms| spoken(Duration::from_millis(ms)));
        assert_eq!(said, ["0.4 s", "12 s", "2 min", "5 min 31 s"]);
    }
}
