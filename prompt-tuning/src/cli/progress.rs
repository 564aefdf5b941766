//! Progress on stderr: a bar on a terminal, plain lines now and then otherwise, nothing with `--json`.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How long plain output stays silent between two lines.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

/// Progress of one long job.
#[derive(Debug)]
pub(super) struct Progress {
    bar: ProgressBar,
    plain: bool,
    last_line: Option<Instant>,
}

impl Progress {
    /// A job of `total` parts called `name`; `quiet` shows nothing.
    pub(super) fn new(name: &str, total: u64, quiet: bool) -> Progress {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal && !quiet { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(total), target);
        let template = "{prefix} [{bar:30}] {pos}/{len}  {msg}  {elapsed} elapsed, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(name.to_string());
        Progress { bar, plain: !terminal && !quiet, last_line: None }
    }

    /// `done` parts are done; `message` says how it goes.
    pub(super) fn at(&mut self, done: u64, message: impl Into<String>) {
        let message = message.into();
        let total = self.bar.length().unwrap_or(0);
        let due = self.last_line.is_none_or(|t| t.elapsed() >= BETWEEN_LINES) || done == total;
        if self.plain && due {
            eprintln!("{} {done}/{total}  {message}", self.bar.prefix());
            self.last_line = Some(Instant::now());
        }
        self.bar.set_position(done);
        self.bar.set_message(message);
    }

    /// A line that stays, above the bar.
    pub(super) fn note(&self, line: impl AsRef<str>) {
        if self.plain {
            eprintln!("{}", line.as_ref());
        } else {
            self.bar.println(line);
        }
    }

    /// Takes the bar away.
    pub(super) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
