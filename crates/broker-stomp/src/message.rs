//! What is published, what is asked for, and what became of it.

use bytes::Bytes;
use posthaste_broker::Credit;

use crate::{
    codec::{Command, Frame, Headers, Limits},
    dialect::{Destination, Dialect},
    error::LinkError,
};

/// A message to publish (a SEND).
#[derive(Debug, Clone)]
pub struct Publication {
    /// Where to.
    pub destination: Destination,
    /// By which Artemis recognises a repetition (within one address, over the
    /// last 20,000). It gets its receipt all the same.
    pub duplicate_id: Option<String>,
    /// 0 to 9; higher goes first.
    pub priority: u8,
    /// Whether it survives a crash of the broker.
    pub persistent: bool,
    /// Headers of the application. Names of the protocol are refused.
    pub headers: Headers,
    /// Any bytes.
    pub body: Bytes,
}

/// Headers that mean something to the protocol or to a broker: a message that
/// sets them would be read, moved or dropped otherwise than it should.
const RESERVED: [&str; 14] = [
    "ack",
    "content-length",
    "content-type",
    "correlation-id",
    "destination",
    "destination-type",
    "expires",
    "message-id",
    "persistent",
    "priority",
    "receipt",
    "reply-to",
    "subscription",
    "transaction",
];

impl Publication {
    /// A durable message of middle priority.
    #[must_use]
    pub fn new(destination: Destination, body: Bytes) -> Self {
        Self {
            destination,
            duplicate_id: None,
            priority: 4,
            persistent: true,
            headers: Headers::new(),
            body,
        }
    }

    /// What a window counts it as.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.headers.bytes() + self.body.len()
    }

    /// Its frame, without receipt and transaction.
    ///
    /// # Errors
    /// [`LinkError::Invalid`] for what no broker would take as it is meant.
    pub(crate) fn frame(&self, dialect: Dialect, limits: &Limits) -> Result<Frame, LinkError> {
        self.check(limits)?;
        let mut headers = Headers::new();
        dialect.send_destination(&self.destination, &mut headers);
        if self.persistent {
            headers.push("persistent", "true");
        }
        headers.push("priority", &self.priority.to_string());
        if let (Dialect::Artemis, Some(id)) = (dialect, &self.duplicate_id) {
            headers.push("_AMQ_DUPL_ID", id);
        }
        for (name, value) in self.headers.iter() {
            headers.push(name, value);
        }
        Ok(Frame::new(Command::Send, headers).with_body(self.body.clone()))
    }

    fn check(&self, limits: &Limits) -> Result<(), LinkError> {
        if !self.destination.is_valid() {
            let name = self.destination.name();
            return Err(LinkError::invalid(format!("{name:?} is not a name of a queue or topic")));
        }
        if self.priority > 9 {
            return Err(LinkError::invalid(format!("priority {} is not 0 to 9", self.priority)));
        }
        if self.body.len() > limits.body || self.headers.bytes() > limits.head / 2 {
            return Err(LinkError::invalid("the message is larger than the connection takes"));
        }
        let duplicate_id = self.duplicate_id.as_deref().unwrap_or("");
        if duplicate_id.contains('\0') {
            return Err(LinkError::invalid("the duplicate id has a NUL"));
        }
        for (name, value) in self.headers.iter() {
            let reserved = RESERVED.contains(&name)
                || ["AMQ", "_AMQ", "JMS", "transformation"].iter().any(|p| name.starts_with(p));
            if reserved || name.is_empty() || name.contains('\0') || value.contains('\0') {
                return Err(LinkError::invalid(format!("the header {name:?} cannot be set")));
            }
        }
        Ok(())
    }
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    /// Its receipt came: it survives a crash, when it is persistent.
    Durable,
    /// It was not taken: what the broker said, or why it was not sent.
    Rejected(String),
    /// It may or may not have been taken: publish it again with the same id.
    Unknown(LinkError),
}

/// Who acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    /// Each message by itself, by its token.
    ClientIndividual,
    /// Handing over is enough: for what is broadcast.
    Auto,
}

/// What to receive, and how much at once.
#[derive(Debug, Clone)]
pub struct Receive {
    /// Where from. A queue that does not exist is made.
    pub destination: Destination,
    /// What may be handed over and not acknowledged. Artemis counts bytes
    /// alone, Classic messages alone.
    pub credit: Credit,
    /// Who acknowledges.
    pub settling: Settling,
    /// Classic: to be the only consumer. On Artemis that is a setting of the
    /// address (`default-exclusive-queue`) and this says nothing.
    pub exclusive: bool,
    /// Most messages that wait in memory to be taken; the connection is not
    /// read beyond it. The credit's bytes bound them too.
    pub buffer_messages: usize,
}

impl Receive {
    /// With acknowledgement of each message.
    #[must_use]
    pub const fn new(destination: Destination, credit: Credit) -> Self {
        Self {
            destination,
            credit,
            settling: Settling::ClientIndividual,
            exclusive: false,
            buffer_messages: 10_000,
        }
    }

    /// Most bytes that wait in memory. Twice the credit, so that a broker that
    /// keeps to it never stops the reader: it counts otherwise than we do.
    pub(crate) fn buffer_bytes(&self) -> usize {
        usize::try_from(self.credit.bytes.saturating_mul(2)).unwrap_or(usize::MAX).max(1 << 20)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send() -> Publication {
        Publication::new(Destination::Queue("q".into()), Bytes::from_static(b"x"))
    }

    #[test]
    fn frames() {
        let mut message = send();
        message.duplicate_id = Some("id-1".into());
        message.headers.push("ph-due", "17");
        let frame = message.frame(Dialect::Artemis, &Limits::default()).unwrap();
        assert_eq!(
            frame.headers.iter().collect::<Vec<_>>(),
            [
                ("destination", "q"),
                ("destination-type", "ANYCAST"),
                ("persistent", "true"),
                ("priority", "4"),
                ("_AMQ_DUPL_ID", "id-1"),
                ("ph-due", "17"),
            ]
        );
        message.persistent = false;
        let frame = message.frame(Dialect::Classic, &Limits::default()).unwrap();
        assert_eq!(
            frame.headers.iter().collect::<Vec<_>>(),
            [("destination", "/queue/q"), ("priority", "4"), ("ph-due", "17")]
        );
    }

    #[test]
    fn refuses() {
        let limits = Limits { body: 10, head: 20, ..Limits::default() };
        let with = |name: &str, value: &str| {
            let mut message = send();
            message.headers.push(name, value);
            message
        };
        for message in [
            Publication { priority: 10, ..send() },
            Publication { destination: Destination::Queue("a b".into()), ..send() },
            Publication { body: Bytes::from(vec![0; 11]), ..send() },
            Publication { duplicate_id: Some("\0".into()), ..send() },
            with("receipt", "1"),
            with("transaction", "1"),
            with("AMQ_SCHEDULED_DELAY", "1"),
            with("_AMQ_DUPL_ID", "1"),
            with("", "1"),
            with("a\0", "1"),
            with("a", "\0"),
            with("a", "longer than a half"),
        ] {
            let refused = message.frame(Dialect::Artemis, &limits);
            assert!(matches!(refused, Err(LinkError::Invalid(_))), "{message:?}");
        }
    }
}
