//! The intake: what the REST API, and later the SMTP server, hand submissions to.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use posthaste_broker::{Broker, Publish};
use posthaste_model::{Clock, PoolName, SubmissionId, SubmittedMessage};
use tokio::{sync::Semaphore, time::Instant};

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
        let prepared = if is_large(&request) {
            let permit = Arc::clone(&self.heavy).acquire_owned().await;
            let (intake, principal, source, options) =
                (self.clone(), principal.clone(), *source, *options);
            let work = move || intake.prepare(request, &principal, source, started, &options);
            let built = tokio::task::spawn_blocking(work).await;
            drop(permit);
            match built {
                Ok(result) => result?,
                Err(error) => {
                    tracing::error!(%error, "failed to build a submission");
                    return Err(unavailable("the submission could not be built"));
                }
            }
        } else {
            self.prepare(request, principal, *source, started, options)?
        };
        self.publish_all(prepared, options.mode, durable).await
    }

    /// Publishes in batches, none of which splits a submission.
    async fn publish_all(
        &self,
        prepared: Vec<Result<Expanded, IntakeError>>,
        mode: Mode,
        durable: &HashSet<SubmissionId>,
    ) -> Result<Vec<Outcome>, IntakeError> {
        let mut outcomes = Vec::with_capacity(prepared.len());
        let mut items = prepared.into_iter().peekable();
        let mut failed: Option<IntakeError> = None;
        let mut is_any_durable = false;
        while items.peek().is_some() {
            let first = outcomes.len();
            let mut batch: Vec<Publish> = Vec::new();
            let mut bytes = 0;
            while let Some(item) = items.next_if(|item| {
                let more = item.as_ref().map_or(0, |submission| submission.bytes);
                batch.is_empty() || bytes + more <= self.config.batch_bytes
            }) {
                outcomes.push(item.map(|submission| {
                    if !durable.contains(&submission.accepted.submission_id) {
                        bytes += submission.bytes;
                        batch.extend(submission.publishes);
                    }
                    submission.accepted
                }));
            }
            if batch.is_empty() {
                continue;
            }
            // Once the broker fails the rest is not tried: each try may take
            // as long as the submitter waits.
            let result = match failed.take() {
                Some(error) => Err(error),
                None => publish(&*self.broker, batch, &self.config).await,
            };
            match result {
                Ok(()) => is_any_durable = true,
                Err(error) if mode == Mode::Strict => return Err(error),
                Err(error) => {
                    for outcome in outcomes.iter_mut().skip(first).filter(|o| o.is_ok()) {
                        *outcome = Err(error.clone());
                    }
                    failed = Some(error);
                }
            }
        }
        match failed {
            Some(error) if !is_any_durable => Err(error),
            _ => Ok(outcomes),
        }
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
        let is_list = request.is_list;
        let limits = &self.config.limits;
        let mut refusals = Refusals { invalid: request.errors, ..Refusals::default() };
        if !refusals.invalid.concerns_all() {
            let recipients = request.items.iter().map(|item| item.submission.recipient_count());
            check_counts(request.items.len(), recipients.sum(), limits, &mut refusals.invalid);
        }
        if options.mode == Mode::Permissive {
            std::mem::take(&mut refusals).into_result()?;
        }
        let mut checked: Vec<Result<Checked, IntakeError>> =
            Vec::with_capacity(request.items.len());
        for (index, item) in request.items.into_iter().enumerate() {
            let found = match check(item, principal, now, &self.config) {
                Ok(submission) => {
                    checked.push(Ok(submission));
                    continue;
                }
                Err(found) => found,
            };
            match options.mode {
                Mode::Strict => refusals.extend(&prefix(is_list, index), found),
                Mode::Permissive => checked.push(Err(found.below(&prefix(is_list, index)))),
            }
            if refusals.invalid.is_full() {
                break;
            }
        }
        refusals.into_result()?;

        let elapsed = || started.elapsed();
        let mut context = Context {
            config: &self.config,
            principal,
            source,
            now,
            elapsed: &elapsed,
            address_bytes: limits.address_bytes,
            own_bytes: limits.individual_bytes,
            ids: Ids { derived: options.derived, item: 0 },
        };
        let mut expanded = Vec::with_capacity(checked.len());
        let mut refusals = Refusals::default();
        for (index, submission) in checked.into_iter().enumerate() {
            let submission = match submission {
                Ok(submission) => submission,
                Err(error) => {
                    expanded.push(Err(error));
                    continue;
                }
            };
            context.ids.item = index;
            match self.expand_one(&submission, &mut context) {
                Ok(done) => expanded.push(Ok(done)),
                Err(ExpandError::Refused(found)) => match options.mode {
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
