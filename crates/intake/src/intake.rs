//! The intake: what the REST API, and later the SMTP server, hand submissions to.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use posthaste_broker::{Broker, Publish};
use posthaste_model::{Clock, PoolName, SubmissionId, SubmittedMessage};
use tokio::time::Instant;

use crate::{
    config::IntakeConfig,
    errors::{Errors, IntakeError, Refusals, code},
    expand::{Context, ExpandError, Expanded, expand},
    principal::{Principal, Source},
    publish::{publish, unavailable},
    request::Request,
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
}

impl Intake {
    /// An intake that publishes to this broker. A limit above what a broker
    /// takes is lowered to that.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, clock: Arc<dyn Clock>, mut config: IntakeConfig) -> Self {
        config.limits.content_bytes = config.limits.content_bytes.min(MAX_CONTENT_BYTES);
        Self { broker, clock, config: Arc::new(config), created_pools: Arc::default() }
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
        let expanded = if is_large(&request) {
            let (intake, principal, source) = (self.clone(), principal.clone(), *source);
            let work = move || intake.prepare(request, &principal, source, started);
            match tokio::task::spawn_blocking(work).await {
                Ok(result) => result?,
                Err(error) => {
                    tracing::error!(%error, "failed to build a submission");
                    return Err(unavailable("the submission could not be built"));
                }
            }
        } else {
            self.prepare(request, principal, *source, started)?
        };
        let mut accepted = Vec::with_capacity(expanded.len());
        let mut batch: Vec<Publish> = Vec::new();
        let mut bytes = 0;
        for submission in expanded {
            if !batch.is_empty() && bytes + submission.bytes > self.config.batch_bytes {
                publish(&*self.broker, std::mem::take(&mut batch), &self.config).await?;
                bytes = 0;
            }
            bytes += submission.bytes;
            batch.extend(submission.publishes);
            accepted.push(submission.accepted);
        }
        publish(&*self.broker, batch, &self.config).await?;
        Ok(accepted)
    }

    /// Checks and expands all of a request; publishes nothing.
    fn prepare(
        &self,
        request: Request,
        principal: &Principal,
        source: Source,
        started: Instant,
    ) -> Result<Vec<Expanded>, IntakeError> {
        let now = self.clock.now();
        let is_list = request.is_list;
        let mut refusals = Refusals { invalid: request.errors, ..Refusals::default() };
        let limits = &self.config.limits;
        if !refusals.invalid.concerns_all() {
            let recipients = request.items.iter().map(|item| item.submission.recipient_count());
            check_counts(request.items.len(), recipients.sum(), limits, &mut refusals.invalid);
        }
        let mut checked: Vec<Checked> = Vec::with_capacity(request.items.len());
        for (index, item) in request.items.into_iter().enumerate() {
            match check(item, principal, now, &self.config) {
                Ok(submission) => checked.push(submission),
                Err(found) => refusals.extend(&prefix(is_list, index), found),
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
        };
        let mut expanded = Vec::with_capacity(checked.len());
        let mut refusals = Refusals::default();
        for (index, submission) in checked.iter().enumerate() {
            self.notice_pool(&submission.pool, &prefix(is_list, index), &mut refusals);
            match expand(submission, &context) {
                Ok(done) => {
                    context.address_bytes =
                        context.address_bytes.saturating_sub(done.address_bytes);
                    expanded.push(done);
                }
                Err(ExpandError::Refused(found)) => {
                    refusals.extend(&prefix(is_list, index), found);
                }
                Err(ExpandError::Internal(error)) => {
                    tracing::error!(%error, "failed to build a submission");
                    return Err(unavailable("the submission could not be built"));
                }
            }
        }
        refusals.into_result()?;
        Ok(expanded)
    }

    /// Says once that an undeclared pool is in use.
    fn notice_pool(&self, pool: &PoolName, prefix: &str, refusals: &mut Refusals) {
        if self.config.pools.is_known(pool) {
            return;
        }
        let mut created = self.created_pools.lock().unwrap_or_else(PoisonError::into_inner);
        if created.contains(pool) {
            return;
        }
        if created.len() >= MAX_CREATED_POOLS {
            refusals.invalid.add(
                format_args!("{prefix}/pool"),
                code::POOL_UNKNOWN,
                format_args!("too many pools were created already ({MAX_CREATED_POOLS})"),
            );
            return;
        }
        created.insert(pool.clone());
        tracing::warn!(
            %pool,
            "a pool is used that the configuration does not declare: its messages wait until an SMTP client of this pool runs"
        );
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
    items().map(|s| s.content_bytes()).sum::<usize>() > INLINE_BYTES
        || items().map(|s| s.recipient_count()).sum::<usize>() > INLINE_MESSAGES
}
