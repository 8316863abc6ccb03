//! One mail transaction (RFC 5321 section 3.3), pipelined where the server
//! offers it (RFC 2920): commands in one write, the content in another.
//!
//! The first refusal decides the outcome. The session stays usable after a
//! refusal when every reply that is due has been read; `standing` is set at
//! those places, and is [`Standing::Dead`] everywhere between.

use std::time::Duration;

use posthaste_model::SmtpReply;

use super::{
    Session, Standing, Transaction,
    open::{expect, is_positive},
};
use crate::{
    Failure, FailureKind, Requirement, Stage,
    command::{self, MailParameters},
    content::{MAX_PIECE, WireContent},
};

/// A piece from this size is sent as it lies; smaller ones are gathered.
const DIRECT: usize = 32 * 1024;
/// Room for the final dot and some stuffed ones.
const STUFFING: usize = 256;

impl Session {
    /// What keeps the message from being sent at all.
    pub(super) fn check(&self, t: &Transaction<'_>) -> Result<MailParameters, Failure> {
        let fail = |stage, kind| Err(Failure::new(stage, kind));
        for (stage, path) in [(Stage::MailFrom, t.return_path), (Stage::RcptTo, Some(t.recipient))]
        {
            if let Some(Err(error)) = path.map(command::check_path) {
                return fail(stage, FailureKind::Protocol(error.to_string()));
            }
        }
        let international =
            t.smtputf8 || !t.recipient.is_ascii() || !t.return_path.is_none_or(str::is_ascii);
        if international && !self.capabilities.smtputf8 {
            return fail(Stage::MailFrom, FailureKind::Unsupported(Requirement::Smtputf8));
        }
        let size = t.parts.iter().map(|part| part.len() as u64).sum();
        if let Some(limit) = self.capabilities.size_limit.filter(|limit| size > *limit) {
            let requirement = Requirement::Size { limit };
            return fail(Stage::MailFrom, FailureKind::Unsupported(requirement));
        }
        Ok(MailParameters {
            size: self.capabilities.size.then_some(size),
            // Without 8BITMIME the bytes are sent as they are: servers that
            // would spoil them are gone, while converting spoils signatures.
            eight_bit: t.eight_bit && self.capabilities.eight_bit_mime,
            smtputf8: international,
        })
    }

    /// The envelope, up to the 354.
    pub(super) async fn envelope(
        &mut self,
        t: &Transaction<'_>,
        parameters: MailParameters,
        reset: bool,
    ) -> Result<(), Failure> {
        if self.capabilities.pipelining {
            self.envelope_at_once(t, parameters, reset).await
        } else {
            self.envelope_by_steps(t, parameters, reset).await
        }
    }

    async fn envelope_by_steps(
        &mut self,
        t: &Transaction<'_>,
        parameters: MailParameters,
        reset: bool,
    ) -> Result<(), Failure> {
        if reset {
            command::plain(&mut self.connection.output, "RSET");
            let reply = self.connection.exchange(Stage::Reset, self.timeouts.mail).await?;
            expect(Stage::Reset, reply, is_positive)?;
        }
        command::mail_from(&mut self.connection.output, t.return_path, parameters);
        self.step(Stage::MailFrom, self.timeouts.mail).await?;
        command::rcpt_to(&mut self.connection.output, t.recipient);
        self.step(Stage::RcptTo, self.timeouts.rcpt).await?;
        command::plain(&mut self.connection.output, "DATA");
        self.step(Stage::Data, self.timeouts.data).await
    }

    async fn step(&mut self, stage: Stage, limit: Duration) -> Result<(), Failure> {
        let reply = self.connection.exchange(stage, limit).await?;
        match verdict(stage, reply)? {
            None => Ok(()),
            Some(refused) => {
                self.standing = Standing::NeedsReset;
                Err(refused)
            }
        }
    }

    async fn envelope_at_once(
        &mut self,
        t: &Transaction<'_>,
        parameters: MailParameters,
        reset: bool,
    ) -> Result<(), Failure> {
        let stage = if reset { Stage::Reset } else { Stage::MailFrom };
        self.connection.check_turn(stage).await?;
        let output = &mut self.connection.output;
        if reset {
            command::plain(output, "RSET");
        }
        command::mail_from(output, t.return_path, parameters);
        command::rcpt_to(output, t.recipient);
        command::plain(output, "DATA");
        self.connection.send(stage, self.timeouts.mail).await?;

        if reset {
            let reply = self.connection.reply(Stage::Reset, self.timeouts.mail).await?;
            expect(Stage::Reset, reply, is_positive)?;
        }
        let mut refused = self.answer(Stage::MailFrom, self.timeouts.mail).await?;
        let rcpt = self.answer(Stage::RcptTo, self.timeouts.rcpt).await;
        refused = first(refused, rcpt)?;
        let data = self.answer(Stage::Data, self.timeouts.data).await;
        let taken = matches!(data, Ok(None));
        let Some(refused) = first(refused, data)? else { return Ok(()) };
        if taken {
            self.send_nothing().await.map_err(|_| refused.clone())?;
        }
        self.standing = Standing::NeedsReset;
        Err(refused)
    }

    async fn answer(&mut self, stage: Stage, limit: Duration) -> Result<Option<Failure>, Failure> {
        let reply = self.connection.reply(stage, limit).await?;
        verdict(stage, reply)
    }

    /// The server wants content although it refused the envelope: a lone dot
    /// ends it (RFC 2920 section 3.1). Whatever it replies, the message counts
    /// as refused: nobody was named to take it.
    async fn send_nothing(&mut self) -> Result<(), Failure> {
        let limit = self.timeouts.data;
        self.connection.output.extend_from_slice(b".\r\n");
        let reply = self.connection.exchange(Stage::DataEnd, limit).await?;
        if reply.code == 421 {
            return Err(Failure::new(Stage::DataEnd, FailureKind::Reply(reply)));
        }
        Ok(())
    }

    /// The content and the reply to it.
    pub(super) async fn content(&mut self, t: &Transaction<'_>) -> Result<SmtpReply, Failure> {
        // A reply that came before the content is no reply to the content.
        self.connection.check_turn(Stage::Data).await?;
        let limit = self.timeouts.data_block;
        let size: usize = t.parts.iter().map(|part| part.len()).sum();
        let room = size.saturating_add(STUFFING).min(MAX_PIECE);
        // Whatever fits into one write goes in one write.
        let direct = if room < MAX_PIECE { usize::MAX } else { DIRECT };
        self.connection.output.reserve(room);
        for piece in WireContent::new(t.parts) {
            let held = self.connection.output.len();
            if held > 0 && (piece.len() >= direct || held + piece.len() > MAX_PIECE) {
                self.connection.send(Stage::Data, limit).await?;
            }
            if piece.len() >= direct {
                self.connection.write(piece, Stage::Data, limit).await?;
            } else {
                self.connection.output.extend_from_slice(piece);
            }
        }
        // The dot is in this write. A plain write that fails has not handed it
        // over; of a record that TLS took, nobody can say.
        let stage = if self.connection.is_tls() { Stage::DataEnd } else { Stage::Data };
        self.connection.send(stage, limit).await?;
        let reply = self.connection.reply(Stage::DataEnd, self.timeouts.data_end).await?;
        let outcome = expect(Stage::DataEnd, reply, is_positive);
        // Either way the transaction is over at the server as well
        // (RFC 5321 section 4.1.1.4).
        if outcome.as_ref().err().is_none_or(|failure| failure.reply().is_some()) {
            self.standing = Standing::Ready;
        }
        outcome
    }
}

/// `Ok(Some)`: refused, and the dialogue goes on. `Err`: it does not.
fn verdict(stage: Stage, reply: SmtpReply) -> Result<Option<Failure>, Failure> {
    let outcome = match stage {
        Stage::Data => expect(stage, reply, |code| code == 354),
        _ => expect(stage, reply, is_positive),
    };
    match outcome {
        Ok(_) => Ok(None),
        Err(failure) if failure.reply().is_some_and(|reply| reply.code != 421) => Ok(Some(failure)),
        Err(failure) => Err(failure),
    }
}

/// The earlier of two refusals. A refusal outweighs a connection that was lost
/// after it.
fn first(
    refused: Option<Failure>,
    next: Result<Option<Failure>, Failure>,
) -> Result<Option<Failure>, Failure> {
    match (refused, next) {
        (Some(refused), Ok(_)) => Ok(Some(refused)),
        (Some(refused), Err(_)) => Err(refused),
        (None, next) => next,
    }
}
