//! The owner: the one task that holds the scheduling state of an SMTP client.
//!
//! It takes messages from the subscription, reports from the workers and the
//! ends of settlements, one at a time; it never waits for any of them in
//! particular. Whatever it starts is bounded: what it holds by the window of
//! the subscription, what runs by the limits, what is unsettled by
//! [`MOST_UNSETTLED`].
//!
//! On failure: a lost subscription clears what waits, since it comes again;
//! what runs goes on, and takes over the token of its message when that comes
//! again. A worker that panics costs its message an attempt. A journal that
//! cannot be written stops new attempts for a moment.

use std::{collections::HashMap, sync::Arc, time::Duration};

use posthaste_broker::{Credit, Delivery, FlowKey, SubscribeOptions, Token};
use posthaste_model::Reason;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    DeliveryError,
    client::Client,
    evidence::{self, End, Finding},
    job::{After, Job, Outcome},
    journal::Standing,
    schedule::{FlowChange, Schedule},
    settle::Settler,
    source::{Arrival, Source},
    worker::Report,
    workers::Workers,
};

/// Nothing is started while more outcomes are not settled.
const MOST_UNSETTLED: usize = 256;
/// Pause after the journal could not be written.
const JOURNAL_PAUSE: Duration = Duration::from_secs(1);
/// Most domains whose site is remembered.
const MOST_SITES: usize = 10_000;
/// Most reports that are taken at a time.
const REPORTS: usize = 64;

pub(crate) struct Owner {
    client: Arc<Client>,
    source: Source,
    schedule: Schedule<Arc<Job>>,
    workers: Workers,
    reports: mpsc::Receiver<Report>,
    settler: Settler,
    /// Messages whose attempt is running, with the newest token of each.
    running: HashMap<Uuid, Token>,
    /// Messages that another SMTP client of this process is attempting, or of
    /// which the journal cannot tell just now; asked again with each tick.
    parked: Vec<Delivery>,
    /// Sites of domains, as far as they are known: a hint.
    sites: HashMap<FlowKey, Arc<str>>,
    paused_until: Option<Instant>,
    rng: fastrand::Rng,
}

impl Owner {
    pub fn new(client: Arc<Client>) -> Self {
        let config = &client.config;
        let messages = config.window.messages.max(1);
        let options = SubscribeOptions {
            credit: Credit { messages, bytes: config.window.bytes },
            flow_messages: config.flow_messages(),
            exclusive: false,
        };
        let capacity = config.total_concurrency.max(1) as usize + REPORTS;
        let (sender, reports) = mpsc::channel(capacity);
        Self {
            source: Source::new(client.shared.broker.clone(), client.queue.clone(), options),
            schedule: Schedule::new(&config.limits()),
            workers: Workers::new(client.clone(), sender),
            reports,
            settler: Settler::new(client.clone()),
            running: HashMap::new(),
            parked: vec![],
            sites: HashMap::new(),
            paused_until: None,
            rng: fastrand::Rng::new(),
            client,
        }
    }

    /// Works until `shutdown`, then drains within the bound.
    pub async fn run(mut self, shutdown: &CancellationToken) -> Result<(), DeliveryError> {
        let served = self.serve(shutdown).await;
        self.drain().await;
        served
    }

    async fn serve(&mut self, shutdown: &CancellationToken) -> Result<(), DeliveryError> {
        let mut reports = Vec::with_capacity(REPORTS);
        let mut tick = interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let cancelled = shutdown.cancelled();
        tokio::pin!(cancelled);
        loop {
            self.advance();
            tokio::select! {
                () = &mut cancelled => return Ok(()),
                _ = self.reports.recv_many(&mut reports, REPORTS) => self.take(&mut reports),
                ended = self.settler.ended(), if self.settler.is_busy() => ended?,
                ended = self.workers.ended(), if self.workers.tasks() > 0 => {
                    if let Some((job, error)) = ended {
                        self.worker_failed(&job, &error);
                    }
                }
                arrival = self.source.next() => self.arrived(arrival?),
                _ = tick.tick() => self.tick(),
            }
        }
    }

    /// Starts whatever can be started now.
    fn advance(&mut self) {
        if self.may_start() {
            while let Some(job) = self.schedule.choose() {
                self.running.insert(job.delivery.id, job.delivery.token);
                let site = self.sites.get(&job.delivery.flow_key);
                self.workers.give(job, site);
            }
        }
        for change in self.schedule.take_flow_changes() {
            match change {
                FlowChange::Block(key) => self.source.block(&key),
                FlowChange::Unblock(key) => self.source.unblock(&key),
            }
        }
        self.settler.pump();
        self.gauge();
    }

    fn may_start(&mut self) -> bool {
        if self.paused_until.is_some_and(|until| until <= Instant::now()) {
            self.paused_until = None;
        }
        self.paused_until.is_none()
            && !self.settler.is_failing()
            && self.settler.unsettled() < MOST_UNSETTLED
    }

    fn gauge(&self) {
        let metrics = &self.client.metrics;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.waiting.set(number(self.schedule.waiting()));
        metrics.in_flight.set(i64::from(self.schedule.running()));
        metrics.unsettled.set(number(self.settler.unsettled()));
    }

    fn tick(&mut self) {
        for delivery in std::mem::take(&mut self.parked) {
            self.message_arrived(delivery);
        }
        let metrics = &self.client.metrics;
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        metrics.blocked_domains.set(number(self.schedule.blocked()));
        let bytes = self.client.shared.journal.bytes();
        metrics.journal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn arrived(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Messages(messages) => {
                for delivery in messages {
                    self.message_arrived(delivery);
                }
            }
            Arrival::Lost => {
                let waiting = self.schedule.clear().len() + self.parked.len();
                self.parked.clear();
                tracing::warn!(waiting, "waiting messages were let go: they come again");
            }
        }
    }

    fn message_arrived(&mut self, delivery: Delivery) {
        let job = match Job::new(delivery) {
            Ok(job) => job,
            Err((error, delivery)) => {
                tracing::error!(id = %delivery.id, %error, "a record goes to the quarantine queue");
                self.client.metrics.quarantined.inc();
                let after = After::Quarantine { head: delivery.head.clone() };
                return self.settler.push(Outcome::new(&delivery, after));
            }
        };
        if let Some(token) = self.running.get_mut(&job.delivery.id) {
            *token = job.delivery.token;
            return;
        }
        match self.client.shared.journal.standing(job.head.message_id, job.number()) {
            Ok(Standing::Unknown) => {}
            Ok(Standing::Running) => return self.parked.push(job.delivery),
            Ok(Standing::Ended(ended)) => {
                self.client.metrics.from_journal.inc();
                return self.settler.push(Outcome::journalled(&job.delivery, ended));
            }
            Err(error) if error.may_pass() => {
                self.client.metrics.journal_failures.inc();
                tracing::error!(%error, message_id = %job.head.message_id, "the journal cannot be read just now: the message waits, since it may have been delivered");
                return self.parked.push(job.delivery);
            }
            Err(error) => {
                tracing::error!(%error, message_id = %job.head.message_id, "the journal cannot tell how an attempt ended: the message is delivered, perhaps again");
            }
        }
        if evidence::is_expired(&self.client, &job.head) {
            let detail = "no attempt may begin any more".to_owned();
            let (reason, after) = (Reason::Expired, After::Acknowledge);
            let outcome = evidence::without_attempt(&self.client, &job, reason, detail, after);
            return self.settler.push(outcome);
        }
        self.add(Arc::new(job));
    }

    fn add(&mut self, job: Arc<Job>) {
        let (key, priority) = (job.delivery.flow_key.clone(), job.delivery.priority);
        self.schedule.add(&key, priority, job);
    }

    fn take(&mut self, reports: &mut Vec<Report>) {
        for report in reports.drain(..) {
            match report {
                Report::Ended { worker, outcome, site } => {
                    if let Some(job) = self.workers.freed(worker, site.clone()) {
                        self.remember(&job, site);
                        self.finished(&job, *outcome);
                    }
                }
                Report::NotBegun { worker, error } => {
                    self.client.metrics.journal_failures.inc();
                    tracing::error!(%error, "the journal cannot be written: no attempt is started");
                    self.paused_until = Some(Instant::now() + JOURNAL_PAUSE);
                    if let Some(job) = self.workers.freed(worker, None) {
                        self.not_begun(&job);
                    }
                }
                Report::SessionClosed { worker } => self.workers.session_closed(worker),
            }
        }
    }

    fn remember(&mut self, job: &Job, site: Option<Arc<str>>) {
        let Some(site) = site else { return };
        if self.sites.len() >= MOST_SITES {
            self.sites.clear();
        }
        if self.sites.get(&job.delivery.flow_key) != Some(&site) {
            self.sites.insert(job.delivery.flow_key.clone(), site);
        }
    }

    fn finished(&mut self, job: &Job, mut outcome: Outcome) {
        self.schedule.finish(&job.delivery.flow_key);
        if let Some(token) = self.running.remove(&job.delivery.id) {
            outcome.token = token;
        }
        self.settler.push(outcome);
    }

    /// Puts a message back that was not attempted.
    fn not_begun(&mut self, job: &Job) {
        self.schedule.finish(&job.delivery.flow_key);
        let newest = self.running.remove(&job.delivery.id);
        let token = newest.unwrap_or(job.delivery.token);
        self.add(Arc::new(Job {
            delivery: Delivery { token, ..job.delivery.clone() },
            head: job.head.clone(),
            attempt_id: job.attempt_id,
        }));
    }

    /// A worker ended without a report: its message is deferred, so that one
    /// that does this each time is undeliverable in the end.
    fn worker_failed(&mut self, job: &Job, error: &tokio::task::JoinError) {
        tracing::error!(message_id = %job.head.message_id, %error, "an attempt was ended by a fault of this program");
        let detail = "a fault of this program ended the attempt; the server may have the message";
        let finding = Finding::new(End::Defer(Reason::Interrupted), detail);
        let (ended, outcome) = evidence::record(&self.client, job, b"", finding, &mut self.rng);
        if let Err(error) = self.client.shared.journal.finish(&ended) {
            self.client.metrics.journal_failures.inc();
            tracing::error!(%error, "an outcome cannot be written to the journal");
        }
        self.finished(job, outcome);
    }

    /// Finishes what runs, settles it and closes the sessions, within the
    /// bound. The subscription lives until the end, and the tokens with it.
    async fn drain(&mut self) {
        let deadline = Instant::now() + self.client.config.drain_timeout;
        let mut reports = Vec::with_capacity(REPORTS);
        self.parked.clear();
        self.schedule.clear();
        loop {
            self.workers.close_idle();
            self.settler.pump();
            self.gauge();
            if self.workers.tasks() == 0 && self.reports.is_empty() && self.settler.unsettled() == 0
            {
                return;
            }
            tokio::select! {
                () = sleep_until(deadline) => break,
                _ = self.reports.recv_many(&mut reports, REPORTS) => self.take(&mut reports),
                ended = self.settler.ended(), if self.settler.is_busy() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a settlement was ended by a fault of this program");
                        break;
                    }
                }
                ended = self.workers.ended(), if self.workers.tasks() > 0 => {
                    if let Some((job, error)) = ended {
                        self.worker_failed(&job, &error);
                    }
                }
            }
        }
        tracing::warn!(
            running = self.schedule.running(),
            unsettled = self.settler.unsettled(),
            "the drain took too long: attempts are cut off, outcomes stay in the journal"
        );
        self.workers.abort().await;
    }
}
