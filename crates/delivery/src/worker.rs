//! A worker: a task that owns at most one session and makes one attempt at a
//! time for the owner.
//!
//! It writes the start of an attempt to the journal before it touches the
//! network, and the outcome before it tells anybody. When it ends in between
//! (a panic, or cut off at the end of a drain), the attempt is given back to
//! the journal as interrupted.

use std::sync::Arc;

use posthaste_mail::compress::{self, CompressError};
use posthaste_model::Reason;
use tokio::{sync::mpsc, time::timeout};

use crate::{
    attempt::attempt,
    client::Client,
    evidence,
    job::{After, Job, Outcome},
    journal::{Journal, JournalError, Start},
    session::SessionSlot,
};

/// Contents larger than this are decompressed on a thread of their own.
const SMALL: usize = 1 << 20;

/// Names a worker of one SMTP client.
pub(crate) type WorkerId = u64;

/// What a worker tells the owner.
pub(crate) enum Report {
    /// Its attempt has ended. `site`: of the session that it keeps.
    Ended { worker: WorkerId, outcome: Box<Outcome>, site: Option<Arc<str>> },
    /// The attempt was not begun since the journal could not be written.
    NotBegun { worker: WorkerId, error: JournalError },
    /// It has no session any more.
    SessionClosed { worker: WorkerId },
}

pub(crate) struct Worker {
    pub id: WorkerId,
    pub client: Arc<Client>,
    pub jobs: mpsc::Receiver<Arc<Job>>,
    pub reports: mpsc::Sender<Report>,
}

impl Worker {
    /// Works until the owner drops the sender of its jobs.
    pub async fn run(mut self) {
        let mut slot = SessionSlot::default();
        let mut rng = fastrand::Rng::new();
        loop {
            let job = if slot.site().is_some() {
                let Ok(job) = timeout(self.client.config.session_idle, self.jobs.recv()).await
                else {
                    slot.close().await;
                    if self.reports.send(Report::SessionClosed { worker: self.id }).await.is_err() {
                        return;
                    }
                    continue;
                };
                job
            } else {
                self.jobs.recv().await
            };
            let Some(job) = job else { break };
            let report = self.work(job, &mut slot, &mut rng).await;
            if self.reports.send(report).await.is_err() {
                break;
            }
        }
        slot.close().await;
    }

    async fn work(&self, job: Arc<Job>, slot: &mut SessionSlot, rng: &mut fastrand::Rng) -> Report {
        let (worker, client) = (self.id, &*self.client);
        let _room = client.shared.room(job.head.content_size).await;
        let content = match content(&job).await {
            Ok(content) => content,
            Err(error) => {
                tracing::error!(message_id = %job.head.message_id, %error, "a message cannot be read and goes to the quarantine queue");
                client.metrics.quarantined.inc();
                let after = After::Quarantine { head: job.delivery.head.clone() };
                let detail = error.to_string();
                let outcome =
                    evidence::without_attempt(client, &job, Reason::Unreadable, detail, after);
                return Report::Ended { worker, outcome: Box::new(outcome), site: slot.site() };
            }
        };
        let running = match Running::begin(client, &job) {
            Ok(running) => running,
            Err(error) => return Report::NotBegun { worker, error },
        };
        let finding = attempt(client, &job, &content, slot, rng).await;
        let (ended, outcome) = evidence::record(client, &job, &content, finding, rng);
        if let Err(error) = client.shared.journal.finish(&ended) {
            client.metrics.journal_failures.inc();
            tracing::error!(%error, message_id = %job.head.message_id, "an outcome cannot be written to the journal; it is settled at once");
        }
        running.ended();
        Report::Ended { worker, outcome: Box::new(outcome), site: slot.site() }
    }
}

async fn content(job: &Arc<Job>) -> Result<Vec<u8>, CompressError> {
    let max = usize::try_from(job.head.content_size).unwrap_or(usize::MAX);
    let decompress = move |job: &Job| compress::decompress(job.head.codec, &job.delivery.body, max);
    if max <= SMALL {
        return decompress(job);
    }
    let job = job.clone();
    let done = tokio::task::spawn_blocking(move || decompress(&job)).await;
    done.unwrap_or_else(|error| Err(CompressError::Damaged(error.to_string())))
}

/// An attempt that the journal knows as begun.
struct Running<'a> {
    journal: &'a Journal,
    start: Option<Start>,
}

impl<'a> Running<'a> {
    fn begin(client: &'a Client, job: &Job) -> Result<Self, JournalError> {
        let start = evidence::start(client, job);
        let journal = &*client.shared.journal;
        journal.start(&start)?;
        Ok(Self { journal, start: Some(start) })
    }

    fn ended(mut self) {
        self.start = None;
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(start) = self.start.take() {
            self.journal.abandon(start);
        }
    }
}
