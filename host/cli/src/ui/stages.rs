//! Shows work as named stages with their times, on stderr: a list that is redrawn on a terminal, plain lines
//! elsewhere, JSON Lines where that was asked for, nothing with `-q`.
//!
//! What is over before [`PATIENCE`] is never drawn, so a warm start prints nothing at all. A drawn list is
//! replaced by one line when the work has succeeded, and left standing above the error when not.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::{Duration, Instant};

use tonic::{Response, Status, Streaming};
use wire::proto::progress::Event;
use wire::proto::{Chunk, Fraction, Progress, Stage};
use wire::{Bytes, Fault};

use super::{Form, Ui, clean, dumb};
use crate::json;
use crate::transfer::{Target, Written};

/// Work shorter than this needs no picture.
const PATIENCE: Duration = Duration::from_millis(300);
/// Work shorter than this needs no lines where nothing can be redrawn, and no summary where it can.
const WORTH_A_LINE: Duration = Duration::from_secs(1);
/// Time between two pictures; the eye needs no more.
const REDRAW: Duration = Duration::from_millis(100);
/// Most stages kept for the list and the summary; a start has fewer than ten.
const STAGES_MAX: usize = 40;
/// Columns of a terminal that does not say its width.
const COLUMNS: usize = 80;
/// One character a picture.
const SPINNER: [char; 4] = ['|', '/', '-', '\\'];

/// The stages of one piece of work.
#[derive(Debug)]
pub(crate) struct Stages<'a> {
    ui: &'a Ui,
    picture: Picture,
    begun: Instant,
    stages: Vec<Shown>,
    fraction: Option<Fraction>,
}

#[derive(Debug)]
enum Picture {
    /// Lines that stand on the terminal, and how often they were drawn.
    List {
        lines: usize,
        count: usize,
    },
    /// How many ended stages have been printed.
    Plain {
        printed: usize,
    },
    Json,
    Nothing,
}

#[derive(Debug)]
struct Shown {
    name: String,
    begun: Instant,
    took: Option<Duration>,
}

impl<'a> Stages<'a> {
    /// Begins to show work.
    pub(crate) fn new(ui: &'a Ui) -> Self {
        let picture = match ui.form {
            Form::Json | Form::Command { json: true } => Picture::Json,
            _ if ui.quiet => Picture::Nothing,
            _ if io::stderr().is_terminal() && !dumb() => Picture::List { lines: 0, count: 0 },
            _ => Picture::Plain { printed: 0 },
        };
        Self {
            ui,
            picture,
            begun: Instant::now(),
            stages: Vec::new(),
            fraction: None,
        }
    }

    /// Follows the report that the daemon answers `call` with to its end.
    pub(crate) async fn follow(
        &mut self,
        call: impl Future<Output = Result<Response<Streaming<Progress>>, Status>>,
    ) -> Result<(), Fault> {
        let mut report = call.await?.into_inner();
        let mut redraw = tokio::time::interval(REDRAW);
        loop {
            tokio::select! {
                progress = report.message() => match progress? {
                    Some(Progress { event: Some(event) }) => self.event(event)?,
                    Some(Progress { event: None }) => {}
                    None => return Ok(()),
                },
                _ = redraw.tick() => self.draw(),
            }
        }
    }

    /// Shows `work` of our own as one stage.
    pub(crate) async fn stage<T>(
        &mut self,
        name: &str,
        work: impl Future<Output = Result<T, Fault>>,
    ) -> Result<T, Fault> {
        self.event(Event::Stage(Stage {
            name: name.to_owned(),
            elapsed_us: None,
        }))?;
        let begun = Instant::now();
        let mut redraw = tokio::time::interval(REDRAW);
        let mut work = pin!(work);
        let result = loop {
            tokio::select! {
                result = &mut work => break result?,
                _ = redraw.tick() => self.draw(),
            }
        };
        self.ended(name, begun)?;
        Ok(result)
    }

    fn ended(&mut self, name: &str, begun: Instant) -> Result<(), Fault> {
        let elapsed_us = u64::try_from(begun.elapsed().as_micros()).ok();
        self.event(Event::Stage(Stage {
            name: name.to_owned(),
            elapsed_us,
        }))
    }

    /// Writes `stream` to `target` as one stage that shows how much has come.
    pub(crate) async fn transfer(
        &mut self,
        name: &str,
        target: Target,
        stream: Streaming<Chunk>,
    ) -> Result<Written, Fault> {
        self.event(Event::Stage(Stage {
            name: name.to_owned(),
            elapsed_us: None,
        }))?;
        let begun = Instant::now();
        let done = Cell::new(0);
        let mut redraw = tokio::time::interval(REDRAW);
        let mut work = pin!(target.write(stream, |bytes| done.set(bytes)));
        let written = loop {
            tokio::select! {
                written = &mut work => break written?,
                _ = redraw.tick() => {
                    self.fraction = Some(Fraction { done: done.get(), total: 0 });
                    self.draw();
                }
            }
        };
        self.ended(name, begun)?;
        Ok(written)
    }

    /// Takes the picture away and says in one line how long it took, if that was long.
    pub(crate) fn finish(mut self, what: &str) {
        self.ui.under_way("");
        let total = self.begun.elapsed();
        if let Picture::List { lines, .. } = &mut self.picture {
            if *lines > 0 {
                write!(io::stderr(), "\x1b[{lines}A\r\x1b[J").ok();
                *lines = 0;
            }
            if total >= WORTH_A_LINE {
                let parts: Vec<_> = self
                    .stages
                    .iter()
                    .filter_map(|stage| Some(format!("{} {}", stage.name, time(stage.took?))))
                    .collect();
                self.ui
                    .note(&format!("{what} in {}: {}", time(total), parts.join(", ")));
            }
        }
    }

    fn event(&mut self, event: Event) -> Result<(), Fault> {
        if let Picture::Json = self.picture {
            let line = json::progress(&event);
            return self.ui.object(line.kind, &line.body);
        }
        match event {
            Event::Stage(stage) => self.stage_event(&stage),
            Event::Fraction(fraction) => self.fraction = Some(fraction),
            Event::Note(text) => self.note(&text),
        }
        self.draw();
        Ok(())
    }

    fn stage_event(&mut self, stage: &Stage) {
        self.fraction = None;
        let took = stage.elapsed_us.map(Duration::from_micros);
        let open = self
            .stages
            .iter_mut()
            .find(|s| s.name == stage.name && s.took.is_none());
        if let Some(open) = open {
            open.took = took;
        } else if self.stages.len() < STAGES_MAX {
            let name = clean(&stage.name).into_owned();
            self.stages.push(Shown {
                name,
                begun: Instant::now(),
                took,
            });
        }
    }

    /// Says what goes on when the call is interrupted from now on.
    pub(crate) fn under_way(&self, what: impl Into<String>) {
        self.ui.under_way(what);
    }

    /// Prints a note above the list.
    pub(crate) fn note(&mut self, text: &str) {
        if let Picture::List { lines, .. } = &mut self.picture
            && *lines > 0
        {
            write!(io::stderr(), "\x1b[{lines}A\r\x1b[J").ok();
            *lines = 0;
        }
        self.ui.note(text);
    }

    fn draw(&mut self) {
        let elapsed = self.begun.elapsed();
        match &mut self.picture {
            Picture::List { lines, count } if elapsed >= PATIENCE => {
                *count += 1;
                let mut out = match *lines {
                    0 => String::new(),
                    lines => format!("\x1b[{lines}A\r\x1b[J"),
                };
                let width = columns();
                let spinner = SPINNER[*count % SPINNER.len()];
                for stage in &self.stages {
                    let line = describe(stage, spinner, self.fraction.as_ref());
                    out.extend(line.chars().take(width.saturating_sub(1)));
                    out.push('\n');
                }
                *lines = self.stages.len();
                io::stderr().write_all(out.as_bytes()).ok();
            }
            Picture::Plain { printed } if elapsed >= WORTH_A_LINE => {
                while let Some(Shown {
                    name,
                    took: Some(took),
                    ..
                }) = self.stages.get(*printed)
                {
                    self.ui.note(&format!("{name}: {}", time(*took)));
                    *printed += 1;
                }
            }
            Picture::List { .. } | Picture::Plain { .. } | Picture::Json | Picture::Nothing => {}
        }
    }
}

fn describe(stage: &Shown, spinner: char, fraction: Option<&Fraction>) -> String {
    let Shown { name, begun, took } = stage;
    match (took, fraction) {
        (Some(took), _) => format!("  {name:<12} {}", time(*took)),
        (None, None) => format!("{spinner} {name:<12} {}", time(begun.elapsed())),
        (None, Some(fraction)) => format!("{spinner} {name:<12} {}", amount(fraction)),
    }
}

fn amount(fraction: &Fraction) -> String {
    let Fraction { done, total } = *fraction;
    let mut text = String::new();
    if let Some(percent) = (done.min(total) * 100).checked_div(total) {
        write!(text, "{percent:>3} %  {} of {}", Bytes(done), Bytes(total))
    } else {
        write!(text, "{}", Bytes(done))
    }
    .expect("a String takes everything");
    text
}

fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

fn columns() -> usize {
    rustix::termios::tcgetwinsize(io::stderr()).map_or(COLUMNS, |size| {
        if size.ws_col == 0 {
            COLUMNS
        } else {
            size.ws_col.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_amounts_are_short() {
        assert_eq!(time(Duration::from_micros(52_900)), "52 ms");
        assert_eq!(time(Duration::from_millis(2_140)), "2.1 s");
        assert_eq!(
            amount(&Fraction {
                done: 1 << 20,
                total: 4 << 20
            }),
            " 25 %  1M of 4M"
        );
        assert_eq!(
            amount(&Fraction {
                done: 1 << 20,
                total: 0
            }),
            "1M"
        );
    }
}
