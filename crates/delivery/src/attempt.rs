//! One attempt: the hosts of the route in order of preference, and the
//! addresses of each, until one of them decides (RFC 5321 section 5.1).
//!
//! A session that is kept from the transaction before is used first. When it
//! turns out to have been closed meanwhile, before anything of this
//! transaction was accepted, the attempt goes on as if there had been none.
//!
//! Bounded by [`MAX_ADDRESSES`] and by the attempt timeout; what is running
//! then is cut off, and since the final dot may have been sent, the message is
//! deferred without trying another host.

use std::{net::SocketAddr, sync::Arc};

use posthaste_dns::Route;
use posthaste_mail::count_received;
use posthaste_model::{Reason, SmtpReply};
use posthaste_smtp::{Failure, FailureKind, Session, Stage, TlsMode, Transaction};
use tokio::time::timeout;

use crate::{
    SmtpClientConfig,
    classify::{self, Effect, Verdict},
    client::Client,
    evidence::{End, Finding, Remote},
    job::Job,
    session::{Kept, SessionSlot},
};

/// Most addresses that one attempt connects to.
const MAX_ADDRESSES: usize = 10;
/// Most of them of one host, so that the next host has its turn.
const MAX_OF_HOST: usize = 4;

/// What the hosts tried so far have said.
#[derive(Debug, Default)]
pub(crate) struct Trail {
    /// The server that is being dealt with.
    current: Option<Remote>,
    /// The last failure that may pass.
    temporary: Option<Finding>,
    /// The last one that will not.
    permanent: Option<Finding>,
    /// Why TLS was given up.
    in_clear: Option<String>,
}

/// What one step of an attempt led to.
enum Step {
    Decided(Finding),
    NextHost,
    /// The kept session had been closed before.
    Stale,
}

impl Trail {
    fn delivered(self, reply: SmtpReply) -> Finding {
        let detail = self.in_clear.map(|cause| format!("sent in clear: {cause}"));
        Finding { end: End::Delivered, reply: Some(reply), detail, remote: self.current }
    }

    /// Notes a failure; the finding if it decides.
    fn failed(&mut self, failure: &Failure, verdict: Verdict) -> Option<Finding> {
        let detail = match failure.reply() {
            Some(_) => format!("reply to {}", failure.stage),
            None => failure.to_string(),
        };
        self.judged(failure.reply().cloned(), detail, verdict)
    }

    fn judged(
        &mut self,
        reply: Option<SmtpReply>,
        detail: String,
        verdict: Verdict,
    ) -> Option<Finding> {
        let remote = self.current.clone();
        let finding = |end| Finding { end, reply, detail: Some(detail), remote };
        match verdict.effect {
            Effect::NextHost { reason, permanent: false } => {
                self.temporary = Some(finding(End::Defer(reason)));
                None
            }
            Effect::NextHost { reason, permanent: true } => {
                self.permanent = Some(finding(End::Fail(reason)));
                None
            }
            Effect::Defer(reason) => Some(finding(End::Defer(reason))),
            Effect::Fail(reason) => Some(finding(End::Fail(reason))),
            // The classifier does not say these of a transaction; if it did,
            // nothing would be known to be delivered.
            Effect::Delivered | Effect::RetryInClear => {
                Some(finding(End::Defer(Reason::ProtocolError)))
            }
        }
    }

    /// No host is left: permanent only if that is what all of them said.
    fn exhausted(self) -> Finding {
        self.temporary.or(self.permanent).unwrap_or_else(|| {
            let detail = "the route has no address that this SMTP client may connect to";
            Finding::new(End::Defer(Reason::Unreachable), detail)
        })
    }

    fn cut_off(self) -> Finding {
        let detail = "the attempt took too long and was cut off; the server may have the message";
        let finding = Finding::new(End::Defer(Reason::Timeout), detail);
        Finding { remote: self.current, ..finding }
    }
}

/// Makes the attempt. The session that served it is left in `slot` when it can
/// serve another.
pub(crate) async fn attempt(
    client: &Client,
    job: &Job,
    content: &[u8],
    slot: &mut SessionSlot,
    rng: &mut fastrand::Rng,
) -> Finding {
    let hops = count_received(&job.head.fields, content);
    if hops > client.config.max_hops {
        let detail = format!("it has {hops} Received fields");
        return Finding::new(End::Fail(Reason::Loop), detail);
    }
    let mut attempt = Attempt { client, job, content, slot, rng, trail: Trail::default() };
    match timeout(client.config.attempt_timeout, attempt.run()).await {
        Ok(finding) => finding,
        Err(_) => attempt.trail.cut_off(),
    }
}

struct Attempt<'a> {
    client: &'a Client,
    job: &'a Job,
    content: &'a [u8],
    slot: &'a mut SessionSlot,
    rng: &'a mut fastrand::Rng,
    trail: Trail,
}

impl Attempt<'_> {
    async fn run(&mut self) -> Finding {
        let route = match self.client.route(self.job.head.recipient.domain()).await {
            Ok(route) => route,
            Err(error) => return route_finding(&error),
        };
        let mut skipped = None;
        if let Some(kept) = self.slot.take_for(&route.site, self.client) {
            let address = kept.session.address();
            match self.transact(kept, true).await {
                Step::Decided(finding) => return finding,
                Step::NextHost => skipped = Some(address),
                Step::Stale => {}
            }
        }
        for (host, address) in addresses(&route, &self.client.config, skipped, self.rng) {
            match self.try_address(host, address, &route.site).await {
                Step::Decided(finding) => return finding,
                Step::NextHost | Step::Stale => {}
            }
        }
        std::mem::take(&mut self.trail).exhausted()
    }

    async fn try_address(&mut self, host: &str, address: SocketAddr, site: &Arc<str>) -> Step {
        let session = match self.connect(host, address).await {
            Ok(session) => session,
            Err(step) => return step,
        };
        if self.client.config.is_own_name(session.greeting_host()) {
            let detail = format!("{host} greets with our own name: the route leads back to us");
            let judged = self.trail.judged(None, detail, classify::own_greeting());
            return judged.map_or(Step::NextHost, Step::Decided);
        }
        let kept = Kept::new(session, host, site.clone(), self.client);
        self.transact(kept, false).await
    }

    /// Connects; in clear if TLS is wanted but not to be had.
    async fn connect(&mut self, host: &str, address: SocketAddr) -> Result<Session, Step> {
        let shared = &self.client.shared;
        let wanted = self.client.config.tls;
        let opportunistic = wanted == TlsMode::Opportunistic;
        let mut tls = wanted;
        if opportunistic && shared.clear_hosts.contains(host) {
            self.trail.in_clear = Some("TLS with this host failed a while ago".to_owned());
            tls = TlsMode::Off;
        }
        loop {
            self.trail.current =
                Some(Remote { host: host.to_owned(), address: address.to_string(), tls: None });
            let options = self.client.session_options(tls);
            let failure = match Session::connect(host, address, options, &shared.tls).await {
                Ok(session) => return Ok(session),
                Err(failure) => failure,
            };
            let verdict = classify::failure(&failure, tls);
            if verdict.effect == Effect::RetryInClear && tls != TlsMode::Off {
                shared.clear_hosts.remember(host);
                self.trail.in_clear = Some(failure.to_string());
                tls = TlsMode::Off;
                continue;
            }
            return Err(self.trail.failed(&failure, verdict).map_or(Step::NextHost, Step::Decided));
        }
    }

    async fn transact(&mut self, mut kept: Kept, reused: bool) -> Step {
        let head = &self.job.head;
        let transaction = Transaction {
            return_path: head.return_path.as_ref().map(posthaste_model::EmailAddress::as_str),
            recipient: head.recipient.as_str(),
            smtputf8: head.smtputf8,
            eight_bit: head.eight_bit,
            parts: &[head.fields.as_bytes(), self.content],
        };
        self.trail.current = Some(kept.remote());
        let result = kept.session.transact(&transaction).await;
        kept.used = kept.used.saturating_add(1);
        match result {
            Ok(reply) => {
                if reused {
                    self.client.metrics.sessions_reused.inc();
                }
                self.slot.put(kept, self.client);
                Step::Decided(std::mem::take(&mut self.trail).delivered(reply))
            }
            Err(failure) if reused && was_closed_before(&failure) => Step::Stale,
            Err(failure) if self.wants_tls(&kept, &failure) => {
                self.client.shared.clear_hosts.forget(&kept.host);
                kept.leave();
                if reused {
                    return Step::Stale;
                }
                let cause = self.trail.in_clear.take().unwrap_or_default();
                let detail = format!("the server takes no mail in clear; TLS failed: {cause}");
                let reply = failure.reply().cloned();
                let judged = self.trail.judged(reply, detail, classify::tls_demanded());
                judged.map_or(Step::NextHost, Step::Decided)
            }
            Err(failure) => {
                let verdict = classify::failure(&failure, self.client.config.tls);
                self.slot.put(kept, self.client);
                self.trail.failed(&failure, verdict).map_or(Step::NextHost, Step::Decided)
            }
        }
    }

    /// Whether a session went on in clear because TLS failed, and the server
    /// refuses that.
    fn wants_tls(&self, kept: &Kept, failure: &Failure) -> bool {
        self.client.config.tls == TlsMode::Opportunistic
            && kept.session.tls().is_none()
            && kept.session.capabilities().starttls
            && classify::demands_tls(failure)
    }
}

/// What an attempt connects to, in order.
fn addresses<'a>(
    route: &'a Route,
    config: &SmtpClientConfig,
    skipped: Option<SocketAddr>,
    rng: &mut fastrand::Rng,
) -> Vec<(&'a str, SocketAddr)> {
    let mut found = Vec::with_capacity(4);
    for host in route.order(rng) {
        let usable = host.order(rng).into_iter().filter(|ip| config.may_use(*ip));
        for ip in usable.take(MAX_OF_HOST) {
            let address = SocketAddr::new(ip, config.port);
            if Some(address) != skipped && found.len() < MAX_ADDRESSES {
                found.push((host.name.as_str(), address));
            }
        }
    }
    found
}

/// Whether the server had ended the session before this transaction: nothing
/// of it was accepted.
fn was_closed_before(failure: &Failure) -> bool {
    let at_the_start = matches!(failure.stage, Stage::Reset | Stage::MailFrom);
    let closed = match &failure.kind {
        FailureKind::Closed | FailureKind::Tls(_) => true,
        FailureKind::Reply(reply) => reply.code == 421,
        _ => false,
    };
    at_the_start && closed
}

fn route_finding(error: &posthaste_dns::RouteError) -> Finding {
    let end = match classify::route_error(error).effect {
        Effect::Fail(reason) => End::Fail(reason),
        Effect::Defer(reason) | Effect::NextHost { reason, .. } => End::Defer(reason),
        Effect::Delivered | Effect::RetryInClear => End::Defer(Reason::DnsTemporary),
    };
    Finding::new(end, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(stage: Stage, kind: FailureKind) -> Failure {
        Failure::new(stage, kind)
    }

    fn end_of(failures: &[Failure]) -> End {
        let mut trail = Trail::default();
        for failure in failures {
            let verdict = classify::failure(failure, TlsMode::Opportunistic);
            if let Some(finding) = trail.failed(failure, verdict) {
                return finding.end;
            }
        }
        trail.exhausted().end
    }

    #[test]
    fn permanent_only_when_all_hosts_say_so() {
        let size = || {
            let requirement = posthaste_smtp::Requirement::Size { limit: 1 };
            failure(Stage::MailFrom, FailureKind::Unsupported(requirement))
        };
        let down = || failure(Stage::Connect, FailureKind::Connect("refused".into()));
        for (failures, end) in [
            (vec![], End::Defer(Reason::Unreachable)),
            (vec![down()], End::Defer(Reason::Unreachable)),
            (vec![size(), size()], End::Fail(Reason::TooLarge)),
            (vec![size(), down()], End::Defer(Reason::Unreachable)),
            (vec![down(), size()], End::Defer(Reason::Unreachable)),
        ] {
            assert_eq!(end_of(&failures), end, "{failures:?}");
        }
    }

    #[test]
    fn a_kept_session_that_was_closed() {
        let reply =
            |code| FailureKind::Reply(SmtpReply { code, enhanced: None, text: String::new() });
        for (stage, kind, stale) in [
            (Stage::MailFrom, FailureKind::Closed, true),
            (Stage::Reset, FailureKind::Closed, true),
            (Stage::MailFrom, reply(421), true),
            (Stage::MailFrom, reply(451), false),
            (Stage::MailFrom, FailureKind::Timeout, false),
            (Stage::RcptTo, FailureKind::Closed, false),
            (Stage::DataEnd, FailureKind::Closed, false),
            (Stage::DataEnd, reply(421), false),
        ] {
            let failure = failure(stage, kind);
            assert_eq!(was_closed_before(&failure), stale, "{failure}");
        }
    }
}
