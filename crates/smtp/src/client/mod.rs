//! The client session: opened once, then used for one transaction after the
//! other, to one recipient each.
//!
//! Invariants: a session is used by one task at a time; every reply is read
//! before the next command that depends on it; a transaction that is dropped
//! in the middle leaves the session dead, since replies to it are still due.

mod connection;
mod open;
mod transact;

use std::{fmt, net::SocketAddr};

use posthaste_model::{SmtpReply, TlsInfo};
use tokio::time::timeout;

use self::connection::Connection;
use crate::{
    Capabilities, Failure, FailureKind, SessionOptions, Stage, Timeouts, TlsClient, command,
};

/// One message to one recipient, as it goes over the wire.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    /// The reverse path; `None` is the null path `<>` (RFC 5321 section 4.5.5).
    pub return_path: Option<&'a str>,
    /// The forward path.
    pub recipient: &'a str,
    /// Whether the message needs SMTPUTF8 (RFC 6531). An international address
    /// needs it in any case.
    pub smtputf8: bool,
    /// Whether the content holds bytes over 127 (RFC 6152).
    pub eight_bit: bool,
    /// The message in order, header fields first; not dot-stuffed.
    pub parts: &'a [&'a [u8]],
}

/// What can be done with a session next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// A transaction.
    Ready,
    /// A transaction after RSET.
    NeedsReset,
    /// Nothing.
    Dead,
}

/// A session with one server.
pub struct Session {
    connection: Connection,
    address: SocketAddr,
    greeting_host: String,
    capabilities: Capabilities,
    tls: Option<TlsInfo>,
    timeouts: Timeouts,
    standing: Standing,
}

impl Session {
    /// Connects to the server at `address`, which is known by the name `host`,
    /// and does all that comes before the first transaction.
    ///
    /// # Errors
    /// A [`Failure`] at any stage up to STARTTLS. With
    /// [`crate::TlsMode::Opportunistic`], one at [`Stage::StartTls`] may be
    /// followed by another try without TLS.
    pub async fn connect(
        host: &str,
        address: SocketAddr,
        options: &SessionOptions,
        tls: &TlsClient,
    ) -> Result<Self, Failure> {
        let opened = open::open(host, address, options, tls).await?;
        Ok(Self {
            connection: opened.connection,
            address,
            greeting_host: opened.greeting_host,
            capabilities: opened.capabilities,
            tls: opened.tls,
            timeouts: options.timeouts.clone(),
            standing: Standing::Ready,
        })
    }

    /// The name by which the server greeted; empty when it gave none.
    #[must_use]
    pub fn greeting_host(&self) -> &str {
        &self.greeting_host
    }

    /// What the server offers.
    #[must_use]
    pub const fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// The TLS in use, if any.
    #[must_use]
    pub const fn tls(&self) -> Option<&TlsInfo> {
        self.tls.as_ref()
    }

    /// Address and port of the server.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whether another transaction can be tried: the last one left the session
    /// in order, and the server has neither spoken (421, say) nor hung up
    /// since. Does not wait.
    #[must_use]
    pub fn is_usable(&self) -> bool {
        self.standing != Standing::Dead && self.connection.is_quiet()
    }

    /// Runs one transaction. The reply to the content is the outcome: 2yz
    /// means that the server has taken responsibility for the message.
    ///
    /// # Errors
    /// A [`Failure`]. Where [`Failure::is_outcome_unknown`], the server may
    /// have taken the message.
    pub async fn transact(&mut self, t: &Transaction<'_>) -> Result<SmtpReply, Failure> {
        let parameters = self.check(t)?;
        // Dead unless the end is reached: the future may be dropped anywhere.
        let standing = std::mem::replace(&mut self.standing, Standing::Dead);
        if standing == Standing::Dead {
            return Err(Failure::new(Stage::MailFrom, FailureKind::Closed));
        }
        let reset = standing == Standing::NeedsReset;
        let outcome = match self.envelope(t, parameters, reset).await {
            Ok(()) => self.content(t).await,
            Err(failure) => Err(failure),
        };
        self.connection.trim();
        // The server closes after 421 (RFC 5321 section 3.8).
        if outcome.as_ref().is_err_and(|f| f.reply().is_some_and(|reply| reply.code == 421)) {
            self.standing = Standing::Dead;
        }
        outcome
    }

    /// Ends the session. Nothing depends on how that goes, so it waits little
    /// and reports nothing.
    pub async fn quit(mut self) {
        if self.standing == Standing::Dead {
            return;
        }
        let limit = self.timeouts.quit;
        command::plain(&mut self.connection.output, "QUIT");
        let farewell = async {
            let reply = self.connection.exchange(Stage::Quit, limit).await;
            let closed = self.connection.close().await;
            (reply, closed)
        };
        match timeout(limit, farewell).await {
            Ok((Ok(_), Ok(()))) => {}
            Ok((reply, _)) => tracing::trace!(address = %self.address, ?reply, "QUIT"),
            Err(_) => tracing::trace!(address = %self.address, "no reply to QUIT"),
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("address", &self.address)
            .field("greeting_host", &self.greeting_host)
            .field("tls", &self.tls)
            .field("standing", &self.standing)
            .finish_non_exhaustive()
    }
}
