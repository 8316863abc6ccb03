//! What a failure means, and for whom: the one place that decides it.
//!
//! Input is where it happened, how, and the reply's code and enhanced code;
//! output is a [`Verdict`]: what is done next and whom the trouble concerns.
//! The rules:
//!
//! - What happens to a session or a host before the content was handed over
//!   (no connection, a lost one, silence, a refusing greeting or EHLO, 421)
//!   leads to the next host of the route (RFC 5321 section 5.1).
//! - 4yz to MAIL, RCPT, DATA or the content is temporary, 5yz is permanent
//!   (section 4.2.1). The code decides; an enhanced code of another class does
//!   not change it.
//! - After the final dot no other host is tried in this attempt: whether the
//!   message was taken is unknown (RFC 1047).
//! - What is not SMTP is the host's trouble, not the message's.
//! - A server that offers TLS and refuses mail in clear, after TLS with it had
//!   failed, has not judged the message: the next host, later with TLS again.
//! - An extension that the message needs and no host offers is permanent.
//!
//! It knows no history: attempts that are used up are [`crate::retry`]'s.

use posthaste_dns::RouteError;
use posthaste_model::{EnhancedCode, Reason, SmtpReply};
use posthaste_smtp::{Failure, FailureKind, Requirement, Stage, TlsMode};

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: the server has taken the message.
    Delivered,
    /// The next host or address of the route is tried in this attempt. When
    /// there is none the message is deferred for this reason; or fails for
    /// it, if every host of the route failed for `permanent` reasons.
    NextHost {
        /// Why this host is no use.
        reason: Reason,
        /// Whether waiting does not help.
        permanent: bool,
    },
    /// The same host at once, without TLS.
    RetryInClear,
    /// Another attempt later.
    Defer(Reason),
    /// No further attempt.
    Fail(Reason),
}

/// Whom the trouble concerns: who else would meet it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// This connection.
    Session,
    /// Everything that goes to this site.
    Site,
    /// Everything of this sender.
    Sender,
    /// This recipient or this message alone.
    Recipient,
}

/// What a failure means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// What is done next.
    pub effect: Effect,
    /// Whom it concerns.
    pub scope: Scope,
}

impl Verdict {
    const fn new(effect: Effect, scope: Scope) -> Self {
        Self { effect, scope }
    }

    const fn next_host(reason: Reason, scope: Scope) -> Self {
        Self::new(Effect::NextHost { reason, permanent: false }, scope)
    }
}

/// Judges a route that could not be found.
#[must_use]
pub const fn route_error(error: &RouteError) -> Verdict {
    let effect = match error {
        // RFC 7505 section 4.
        RouteError::NullMx => Effect::Fail(Reason::NullMx),
        RouteError::NoRoute(_) => Effect::Defer(Reason::NoRoute),
        RouteError::Temporary(_) => Effect::Defer(Reason::DnsTemporary),
        // A wrong record, or one that is meant for another network, is mended.
        RouteError::Refused(_) => Effect::Defer(Reason::DestinationRefused),
    };
    Verdict::new(effect, Scope::Site)
}

/// A host that greets with our own name (RFC 5321 section 6.3).
#[must_use]
pub const fn own_greeting() -> Verdict {
    Verdict::new(Effect::NextHost { reason: Reason::Loop, permanent: true }, Scope::Site)
}

/// Whether a server refuses because there is no TLS: 530 (RFC 3207 section 4)
/// or x.7.10, "encryption needed" (RFC 5248's registry).
#[must_use]
pub fn demands_tls(failure: &Failure) -> bool {
    failure.reply().is_some_and(|reply| {
        let needed = |enhanced: EnhancedCode| (enhanced.subject, enhanced.detail) == (7, 10);
        reply.code == 530 || reply.enhanced.is_some_and(needed)
    })
}

/// Such a server, when TLS with it failed before.
#[must_use]
pub const fn tls_demanded() -> Verdict {
    Verdict::next_host(Reason::TlsFailed, Scope::Site)
}

/// Judges the failure of a session or a transaction.
#[must_use]
pub fn failure(failure: &Failure, tls: TlsMode) -> Verdict {
    let stage = failure.stage;
    if stage == Stage::StartTls && tls == TlsMode::Opportunistic {
        // RFC 7435 section 3: encryption that fails is no reason not to deliver.
        return Verdict::new(Effect::RetryInClear, Scope::Session);
    }
    match &failure.kind {
        FailureKind::Reply(reply) => by_reply(stage, reply),
        FailureKind::Connect(_) => Verdict::next_host(Reason::Unreachable, Scope::Site),
        FailureKind::Tls(_) => interrupted(stage, Reason::TlsFailed),
        FailureKind::Closed if stage == Stage::Connect => {
            Verdict::next_host(Reason::Unreachable, Scope::Site)
        }
        FailureKind::Timeout if stage == Stage::Connect => {
            Verdict::next_host(Reason::Unreachable, Scope::Site)
        }
        FailureKind::Closed => interrupted(stage, Reason::ConnectionLost),
        FailureKind::Timeout => interrupted(stage, Reason::Timeout),
        FailureKind::Protocol(_) => interrupted(stage, Reason::ProtocolError),
        FailureKind::Unsupported(requirement) => unsupported(*requirement),
    }
}

/// The session ended without an answer to the message.
fn interrupted(stage: Stage, reason: Reason) -> Verdict {
    if stage == Stage::DataEnd {
        Verdict::new(Effect::Defer(reason), Scope::Session)
    } else {
        Verdict::next_host(reason, Scope::Session)
    }
}

fn unsupported(requirement: Requirement) -> Verdict {
    let (reason, permanent) = match requirement {
        // The server may get its certificate back: waiting can help.
        Requirement::StartTls => (Reason::TlsFailed, false),
        Requirement::Smtputf8 => (Reason::Smtputf8Unsupported, true),
        Requirement::Size { .. } => (Reason::TooLarge, true),
    };
    let scope = if requirement == Requirement::StartTls { Scope::Site } else { Scope::Recipient };
    Verdict::new(Effect::NextHost { reason, permanent }, scope)
}

fn by_reply(stage: Stage, reply: &SmtpReply) -> Verdict {
    let reason = match reply.code {
        400..=499 => Reason::RemoteTemporary,
        500..=599 => Reason::RemotePermanent,
        _ => return interrupted(stage, Reason::ProtocolError),
    };
    // RFC 5321 section 3.8: the server closes the connection.
    if reply.code == 421 {
        return if stage == Stage::DataEnd {
            Verdict::new(Effect::Defer(reason), Scope::Site)
        } else {
            Verdict::next_host(reason, Scope::Site)
        };
    }
    let scope = match stage {
        Stage::MailFrom => Scope::Sender,
        Stage::RcptTo | Stage::Data | Stage::DataEnd => Scope::Recipient,
        Stage::StartTls => return Verdict::next_host(Reason::TlsFailed, Scope::Site),
        // A server that does not want to talk to us does not judge the
        // message: 5yz here is not permanent (RFC 5321 section 3.1: 554).
        Stage::Connect | Stage::Greeting | Stage::Ehlo | Stage::Reset | Stage::Quit => {
            return Verdict::next_host(reason, Scope::Site);
        }
    };
    if reason == Reason::RemotePermanent {
        return Verdict::new(Effect::Fail(reason), scope);
    }
    // RFC 3463 section 3.8: x.7.z is security and policy, mostly of the site.
    let policy = reply.enhanced.is_some_and(|enhanced| enhanced.subject == 7);
    Verdict::new(Effect::Defer(reason), if policy { Scope::Site } else { scope })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(code: u16, enhanced: &str) -> FailureKind {
        FailureKind::Reply(SmtpReply { code, enhanced: enhanced.parse().ok(), text: "t".into() })
    }

    fn next(reason: Reason) -> Effect {
        Effect::NextHost { reason, permanent: false }
    }

    fn never(reason: Reason) -> Effect {
        Effect::NextHost { reason, permanent: true }
    }

    #[test]
    fn routes() {
        for (error, effect) in [
            (RouteError::NullMx, Effect::Fail(Reason::NullMx)),
            (RouteError::NoRoute("d".into()), Effect::Defer(Reason::NoRoute)),
            (RouteError::Temporary("d".into()), Effect::Defer(Reason::DnsTemporary)),
            (RouteError::Refused("d".into()), Effect::Defer(Reason::DestinationRefused)),
        ] {
            assert_eq!(route_error(&error), Verdict::new(effect, Scope::Site), "{error:?}");
        }
        assert_eq!(own_greeting().effect, never(Reason::Loop));
    }

    #[test]
    #[rustfmt::skip]
    fn the_table() {
        use {FailureKind as K, Reason as R, Requirement as Q, Scope::*, Stage::*};
        let refused = || K::Connect("refused".into());
        let garbage = || K::Protocol("garbage".into());
        let handshake = || K::Tls("handshake".into());
        for (stage, kind, effect, scope) in [
            // No connection.
            (Connect, refused(), next(R::Unreachable), Site),
            (Connect, K::Timeout, next(R::Unreachable), Site),
            (Connect, K::Closed, next(R::Unreachable), Site),
            // The server does not want to talk.
            (Greeting, reply(421, ""), next(R::RemoteTemporary), Site),
            (Greeting, reply(450, ""), next(R::RemoteTemporary), Site),
            (Greeting, reply(554, "5.7.1"), next(R::RemotePermanent), Site),
            (Greeting, K::Closed, next(R::ConnectionLost), Session),
            (Greeting, K::Timeout, next(R::Timeout), Session),
            (Greeting, garbage(), next(R::ProtocolError), Session),
            (Greeting, reply(220, ""), next(R::ProtocolError), Session),
            (Ehlo, reply(550, ""), next(R::RemotePermanent), Site),
            (Ehlo, reply(451, ""), next(R::RemoteTemporary), Site),
            (Ehlo, K::Closed, next(R::ConnectionLost), Session),
            (Ehlo, K::Timeout, next(R::Timeout), Session),
            // The sender.
            (MailFrom, reply(421, "4.7.0"), next(R::RemoteTemporary), Site),
            (MailFrom, reply(451, "4.1.8"), Effect::Defer(R::RemoteTemporary), Sender),
            (MailFrom, reply(451, "4.7.1"), Effect::Defer(R::RemoteTemporary), Site),
            (MailFrom, reply(550, "5.7.1"), Effect::Fail(R::RemotePermanent), Sender),
            (MailFrom, reply(250, ""), next(R::ProtocolError), Session),
            (MailFrom, K::Closed, next(R::ConnectionLost), Session),
            (MailFrom, K::Unsupported(Q::Smtputf8), never(R::Smtputf8Unsupported), Recipient),
            (MailFrom, K::Unsupported(Q::Size { limit: 1 }), never(R::TooLarge), Recipient),
            // The recipient.
            (RcptTo, reply(450, "4.2.1"), Effect::Defer(R::RemoteTemporary), Recipient),
            (RcptTo, reply(450, ""), Effect::Defer(R::RemoteTemporary), Recipient),
            (RcptTo, reply(451, "4.7.1"), Effect::Defer(R::RemoteTemporary), Site),
            (RcptTo, reply(550, "5.1.1"), Effect::Fail(R::RemotePermanent), Recipient),
            (RcptTo, reply(550, "4.1.1"), Effect::Fail(R::RemotePermanent), Recipient),
            (RcptTo, reply(450, "5.1.1"), Effect::Defer(R::RemoteTemporary), Recipient),
            (RcptTo, reply(421, ""), next(R::RemoteTemporary), Site),
            (RcptTo, K::Timeout, next(R::Timeout), Session),
            (RcptTo, garbage(), next(R::ProtocolError), Session),
            // The content, before the dot.
            (Data, reply(354, ""), next(R::ProtocolError), Session),
            (Data, reply(451, ""), Effect::Defer(R::RemoteTemporary), Recipient),
            (Data, reply(554, ""), Effect::Fail(R::RemotePermanent), Recipient),
            (Data, reply(421, ""), next(R::RemoteTemporary), Site),
            (Data, K::Closed, next(R::ConnectionLost), Session),
            (Data, K::Timeout, next(R::Timeout), Session),
            // After it: never another host.
            (DataEnd, reply(421, ""), Effect::Defer(R::RemoteTemporary), Site),
            (DataEnd, reply(452, "4.3.1"), Effect::Defer(R::RemoteTemporary), Recipient),
            (DataEnd, reply(550, "5.7.26"), Effect::Fail(R::RemotePermanent), Recipient),
            (DataEnd, reply(354, ""), Effect::Defer(R::ProtocolError), Session),
            (DataEnd, K::Closed, Effect::Defer(R::ConnectionLost), Session),
            (DataEnd, K::Timeout, Effect::Defer(R::Timeout), Session),
            (DataEnd, garbage(), Effect::Defer(R::ProtocolError), Session),
            (DataEnd, handshake(), Effect::Defer(R::TlsFailed), Session),
        ] {
            let failed = Failure::new(stage, kind);
            let verdict = failure(&failed, TlsMode::Opportunistic);
            assert_eq!(verdict, Verdict::new(effect, scope), "{failed:?}");
            if stage == DataEnd {
                assert!(!matches!(verdict.effect, Effect::NextHost { .. } | Effect::RetryInClear));
            }
        }
    }

    #[test]
    fn refusals_for_want_of_tls() {
        for (code, enhanced, demanded) in [
            (530, "5.7.0", true),
            (530, "", true),
            (554, "5.7.10", true),
            (450, "4.7.10", true),
            (550, "5.7.1", false),
            (550, "5.1.10", false),
        ] {
            let failed = Failure::new(Stage::MailFrom, reply(code, enhanced));
            assert_eq!(demands_tls(&failed), demanded, "{failed}");
        }
        assert!(!demands_tls(&Failure::new(Stage::MailFrom, FailureKind::Closed)));
        assert_eq!(tls_demanded().effect, next(Reason::TlsFailed));
    }

    #[test]
    #[rustfmt::skip]
    fn tls() {
        use {FailureKind as K, Reason as R, Requirement as Q, Stage::*, TlsMode::*};
        let handshake = || K::Tls("handshake".into());
        for (mode, stage, kind, effect) in [
            (Opportunistic, StartTls, handshake(), Effect::RetryInClear),
            (Opportunistic, StartTls, K::Timeout, Effect::RetryInClear),
            (Opportunistic, StartTls, K::Closed, Effect::RetryInClear),
            (Opportunistic, StartTls, reply(454, "4.7.0"), Effect::RetryInClear),
            (Require, StartTls, handshake(), next(R::TlsFailed)),
            (Require, StartTls, reply(454, "4.7.0"), next(R::TlsFailed)),
            (Require, Ehlo, K::Unsupported(Q::StartTls), next(R::TlsFailed)),
            (Verify, StartTls, handshake(), next(R::TlsFailed)),
            (Verify, StartTls, K::Closed, next(R::ConnectionLost)),
        ] {
            assert_eq!(failure(&Failure::new(stage, kind), mode).effect, effect, "{mode:?} {stage}");
        }
    }
}
