//! The intake: what the REST API, and later the SMTP server, hand submissions to.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use posthaste_broker::{Broker, Publish};
use posthaste_model::{Clock, PoolName, SubmissionId, SubmittedMessage};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};

use crate::{
    config::IntakeConfig,
    errors::{Errors, IntakeError, Refusals, code},
    expand::{Context, ExpandError, Expanded, expand},
    individual::is_individual,
    options::{Ids, Mode, Outcome, SubmitOptions},
    principal::{Principal, Source},
    publish::{publish, unavailable},
    request::{Request, SubmissionRequest},
    validate::{Checked, check},
};

/// Content above this is built and compressed on a thread where that may take
/// long; below, the way to such a thread would cost more than the work.
const INLINE_BYTES: usize = 256 << 10;
/// The same for the number of messages.
const INLINE_MESSAGES: usize = 256;
/// Largest content whatever is configured: what cannot be compressed grows a
/// little, and the body of a message is bounded.
const MAX_CONTENT_BYTES: usize = Publish::MAX_BODY - (1 << 20);
/// Large requests that are built at once, whatever the number of cores.
const MAX_HEAVY: usize = 8;
/// Pools that may be created by using them; a bound, since each is a queue.
const MAX_CREATED_POOLS: usize = 1000;

/// A submission that is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Its id.
    pub submission_id: SubmissionId,
    /// One message a recipient, in the order to, cc, bcc.
    pub messages: Vec<SubmittedMessage>,
}

/// What goes to the broker at once, and the places of its items.
#[derive(Default)]
struct Batch {
    publishes: Vec<Publish>,
    items: Vec<usize>,
    bytes: usize,
}

/// How the batches of a request fared so far.
struct Sent {
    mode: Mode,
    failed: Option<IntakeError>,
    is_any_durable: bool,
}

/// Takes submissions. Cheap to clone.
#[derive(Clone)]
pub struct Intake {
    broker: Arc<dyn Broker>,
    clock: Arc<dyn Clock>,
    config: Arc<IntakeConfig>,
    created_pools: Arc<Mutex<HashSet<PoolName>>>,
    /// Bounds how many large requests are built at once, and with it the
    /// memory that they take.
    heavy: Arc<Semaphore>,
}

impl Intake {
    /// An intake that publishes to this broker. A limit above what a broker
    /// takes is lowered to that.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, clock: Arc<dyn Clock>, mut config: IntakeConfig) -> Self {
        config.limits.content_bytes = config.limits.content_bytes.min(MAX_CONTENT_BYTES);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            broker,
            clock,
            config: Arc::new(config),
            created_pools: Arc::default(),
            heavy: Arc::new(Semaphore::new(cores.clamp(2, MAX_HEAVY))),
        }
    }

    /// Its settings.
    #[must_use]
    pub fn config(&self) -> &IntakeConfig {
        &self.config
    }

    /// Accepts a request: returns when every message of every submission in it
    /// is durable. `started` is when the request came in.
    ///
    /// # Errors
    /// [`IntakeError`]. All but [`IntakeError::Unavailable`] leave nothing behind.
    pub async fn submit(
        &self,
        request: Request,
        principal: &Principal,
        source: &Source,
        started: Instant,
    ) -> Result<Vec<Accepted>, IntakeError> {
        let options = SubmitOptions::default();
        let outcomes = self.submit_with(request, principal, source, started, &options).await?;
        outcomes.into_iter().collect()
    }

    /// As [`Self::submit`], with options. One outcome an item, in their order;
    /// in [`Mode::Strict`] all of them are accepted, or there is an error.
    ///
    /// # Errors
    /// [`IntakeError`], when nothing was accepted: something is wrong with the
    /// request itself, with an item of a strict one, or with the broker.
    pub async fn submit_with(
        &self,
        request: Request,
        principal: &Principal,
        source: &Source,
        started: Instant,
        options: &SubmitOptions,
    ) -> Result<Vec<Outcome>, IntakeError> {
        self.submit_again(request, principal, source, started, options, &HashSet::new()).await
    }

    /// As [`Self::submit_with`], for a request that may have been accepted
    /// before with the same derived ids: the submissions that `durable` names
    /// are answered as accepted and not published again.
    ///
    /// # Errors
    /// As [`Self::submit_with`].
    pub async fn submit_again(
        &self,
        request: Request,
        principal: &Principal,
        source: &Source,
        started: Instant,
        options: &SubmitOptions,
        durable: &HashSet<SubmissionId>,
    ) -> Result<Vec<Outcome>, IntakeError> {
        if !is_large(&request) {
            let prepared = self.prepare(request, principal, *source, started, options)?;
            return self.publish_all(prepared, options.mode, durable).await;
        }
        let permit = self.heavy_permit().await?;
        let (intake, principal, source, of) = (self.clone(), principal.clone(), *source, *options);
        // The permit goes along: who stops waiting does not stop the work.
        let work = move || (intake.prepare(request, &principal, source, started, &of), permit);
        match tokio::task::spawn_blocking(work).await {
            Ok((prepared, permit)) => {
                let outcomes = self.publish_all(prepared?, options.mode, durable).await;
                drop(permit);
                outcomes
            }
            Err(error) => {
                tracing::error!(%error, "failed to build a submission");
                Err(unavailable("the submission could not be built"))
            }
        }
    }

    /// Waits for one of the places for large requests.
    async fn heavy_permit(&self) -> Result<OwnedSemaphorePermit, IntakeError> {
        let place = Arc::clone(&self.heavy).acquire_owned();
        match timeout(self.config.publish_timeout, place).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(unavailable("too many large requests are being built")),
        }
    }

    /// Publishes in batches, none of which splits a submission.
    async fn publish_all(
        &self,
        prepared: Vec<Result<Expanded, IntakeError>>,
        mode: Mode,
        durable: &HashSet<SubmissionId>,
    ) -> Result<Vec<Outcome>, IntakeError> {
        let mut outcomes: Vec<Outcome> = Vec::with_capacity(prepared.len());
        let mut batch = Batch::default();
        let mut sent = Sent { mode, failed: None, is_any_durable: false };
        for item in prepared {
            let submission = match item {
                Ok(submission) => submission,
                Err(error) => {
                    outcomes.push(Err(error));
                    continue;
                }
            };
            if durable.contains(&submission.accepted.submission_id) {
                sent.is_any_durable = true;
            } else {
                if batch.bytes + submission.bytes > self.config.batch_bytes {
                    self.send(std::mem::take(&mut batch), &mut outcomes, &mut sent).await?;
                }
                batch.bytes += submission.bytes;
                batch.items.push(outcomes.len());
                batch.publishes.extend(submission.publishes);
            }
            outcomes.push(Ok(submission.accepted));
        }
        self.send(batch, &mut outcomes, &mut sent).await?;
        match sent.failed {
            Some(error) if !sent.is_any_durable => Err(error),
            _ => Ok(outcomes),
        }
    }

    /// Publishes one batch; notes at its items when that fails. Once the
    /// broker fails the rest is not tried: each try may take as long as the
    /// submitter waits.
    async fn send(
        &self,
        batch: Batch,
        outcomes: &mut [Outcome],
        sent: &mut Sent,
    ) -> Result<(), IntakeError> {
        if batch.items.is_empty() {
            return Ok(());
        }
        let result = match sent.failed.take() {
            Some(error) => Err(error),
            None => publish(&*self.broker, batch.publishes, &self.config).await,
        };
        match result {
            Ok(()) => sent.is_any_durable = true,
            Err(error) if sent.mode == Mode::Strict => return Err(error),
            Err(error) => {
                for index in batch.items {
                    if let Some(outcome) = outcomes.get_mut(index) {
                        *outcome = Err(error.clone());
                    }
                }
                sent.failed = Some(error);
            }
        }
        Ok(())
    }

    /// Checks and expands all of a request; publishes nothing.
    fn prepare(
        &self,
        request: Request,
        principal: &Principal,
        source: Source,
        started: Instant,
        options: &SubmitOptions,
    ) -> Result<Vec<Result<Expanded, IntakeError>>, IntakeError> {
        let now = options.derived.map_or_else(|| self.clock.now(), |derived| derived.time);
        let limits = &self.config.limits;
        let elapsed = || started.elapsed();
        let context = Context {
            config: &self.config,
            principal,
            source,
            now,
            elapsed: &elapsed,
            address_bytes: limits.address_bytes,
            own_bytes: limits.individual_bytes,
            ids: Ids { derived: options.derived, item: 0 },
        };
        let is_list = request.is_list;
        let checked = self.check_all(request, &context, options.mode)?;
        self.expand_all(checked, context, is_list, options.mode)
    }

    /// In [`Mode::Strict`] all of it is good, or there is an error.
    fn check_all(
        &self,
        request: Request,
        context: &Context<'_>,
        mode: Mode,
    ) -> Result<Vec<Result<Checked, IntakeError>>, IntakeError> {
        let is_list = request.is_list;
        let mut refusals = Refusals { invalid: request.errors, ..Refusals::default() };
        if !refusals.invalid.concerns_all() {
            let recipients = request.items.iter().map(|item| item.submission.recipient_count());
            let (items, limits) = (request.items.len(), &self.config.limits);
            check_counts(items, recipients.sum(), limits, &mut refusals.invalid);
        }
        if mode == Mode::Permissive {
            std::mem::take(&mut refusals).into_result()?;
        }
        let mut checked = Vec::with_capacity(request.items.len());
        for (index, item) in request.items.into_iter().enumerate() {
            match check(item, context.principal, context.now, &self.config) {
                Ok(submission) => checked.push(Ok(submission)),
                Err(found) => match mode {
                    Mode::Strict => refusals.extend(&prefix(is_list, index), found),
                    Mode::Permissive => checked.push(Err(found.below(&prefix(is_list, index)))),
                },
            }
            if refusals.invalid.is_full() {
                break;
            }
        }
        refusals.into_result()?;
        Ok(checked)
    }

    fn expand_all(
        &self,
        checked: Vec<Result<Checked, IntakeError>>,
        mut context: Context<'_>,
        is_list: bool,
        mode: Mode,
    ) -> Result<Vec<Result<Expanded, IntakeError>>, IntakeError> {
        let mut expanded = Vec::with_capacity(checked.len());
        let mut refusals = Refusals::default();
        for (index, submission) in checked.into_iter().enumerate() {
            context.ids.item = index;
            let done = match submission {
                Ok(submission) => self.expand_one(&submission, &mut context),
                Err(error) => {
                    expanded.push(Err(error));
                    continue;
                }
            };
            match done {
                Ok(done) => expanded.push(Ok(done)),
                Err(ExpandError::Refused(found)) => match mode {
                    Mode::Strict => refusals.extend(&prefix(is_list, index), found),
                    Mode::Permissive => expanded.push(Err(found.below(&prefix(is_list, index)))),
                },
                Err(ExpandError::Internal(error)) => {
                    tracing::error!(%error, "failed to build a submission");
                    return Err(unavailable("the submission could not be built"));
                }
            }
        }
        refusals.into_result()?;
        Ok(expanded)
    }

    fn expand_one(
        &self,
        submission: &Checked,
        context: &mut Context<'_>,
    ) -> Result<Expanded, ExpandError> {
        self.notice_pool(&submission.pool)?;
        let done = expand(submission, context)?;
        context.address_bytes = context.address_bytes.saturating_sub(done.field_bytes);
        context.own_bytes = context.own_bytes.saturating_sub(done.own_bytes);
        Ok(done)
    }

    /// Says once that an undeclared pool is in use.
    fn notice_pool(&self, pool: &PoolName) -> Result<(), ExpandError> {
        if self.config.pools.is_known(pool) {
            return Ok(());
        }
        let mut created = self.created_pools.lock().unwrap_or_else(PoisonError::into_inner);
        if created.contains(pool) {
            return Ok(());
        }
        if created.len() >= MAX_CREATED_POOLS {
            let mut invalid = Errors::default();
            let detail = format_args!("too many pools were created already ({MAX_CREATED_POOLS})");
            invalid.add("/pool", code::POOL_UNKNOWN, detail);
            return Err(ExpandError::Refused(Refusals { invalid, ..Refusals::default() }));
        }
        created.insert(pool.clone());
        tracing::warn!(
            %pool,
            "a pool is used that the configuration does not declare: its messages wait until an SMTP client of this pool runs"
        );
        Ok(())
    }
}

fn check_counts(
    submissions: usize,
    recipients: usize,
    limits: &crate::Limits,
    errors: &mut Errors,
) {
    if submissions == 0 {
        errors.add("", code::REQUIRED, "the list has no submission");
    } else if submissions > limits.submissions {
        let max = limits.submissions;
        errors.add(
            "",
            code::TOO_MANY,
            format_args!("has {submissions} submissions, allowed are {max}"),
        );
    } else if recipients > limits.messages {
        let max = limits.messages;
        errors.add(
            "",
            code::TOO_MANY,
            format_args!("has {recipients} recipients in all, allowed are {max} a request"),
        );
    }
}

/// What stands before the pointers of one item.
fn prefix(is_list: bool, index: usize) -> String {
    if is_list { format!("/{index}") } else { String::new() }
}

fn is_large(request: &Request) -> bool {
    let items = || request.items.iter().map(|item| &item.submission);
    // Where recipients differ, the content may be built for each of them.
    let copies = |s: &SubmissionRequest| if is_individual(s) { s.recipient_count() } else { 1 };
    let bytes = |s: &SubmissionRequest| s.content_bytes().saturating_mul(copies(s));
    items().map(bytes).fold(0, usize::saturating_add) > INLINE_BYTES
        || items().map(SubmissionRequest::recipient_count).sum::<usize>() > INLINE_MESSAGES
}
