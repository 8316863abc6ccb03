//! How far long work has come: one line on standard error, when that is a
//! terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

const FIRST_AFTER: Duration = Duration::from_millis(500);
const EVERY: Duration = Duration::from_millis(200);

/// One line that is written anew. Dropping it wipes the line.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: Option<u64>,
    done: u64,
    begun: Instant,
    shown: Option<Instant>,
    is_terminal: bool,
}

impl Progress {
    pub fn new(what: &'static str, total: Option<u64>) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        Self { what, total, done: 0, begun: Instant::now(), shown: None, is_terminal }
    }

    /// Counts, and shows where it stands now and then.
    pub fn add(&mut self, count: u64) {
        self.done += count;
        let now = Instant::now();
        let is_due = match self.shown {
            None => now - self.begun > FIRST_AFTER,
            Some(shown) => now - shown > EVERY,
        };
        if self.is_terminal && is_due {
            self.shown = Some(now);
            let of = self.total.map(|total| format!(" of {total}")).unwrap_or_default();
            let seconds = self.begun.elapsed().as_secs();
            let count = if self.done == 0 { String::new() } else { format!(" {}{of}", self.done) };
            write(&format!("\r{}{count}, {seconds} s\x1b[K", self.what));
        }
    }

    /// Shows the time that passes while `work` cannot tell how far it is.
    pub async fn during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut tick = tokio::time::interval(EVERY);
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = tick.tick() => self.add(0),
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.is_some() {
            write("\r\x1b[K");
        }
    }
}

/// A terminal that has gone away is no reason to stop the work.
fn write(text: &str) {
    let mut err = std::io::stderr().lock();
    drop(err.write_all(text.as_bytes()).and_then(|()| err.flush()));
}
