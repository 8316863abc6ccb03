//! A frame: command, headers, body.

use std::{fmt, ops::Range};

use bytes::Bytes;

/// The commands of STOMP 1.2 that this client speaks or understands. The
/// negative acknowledgement is left out on purpose: see the crate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "they are the words of the protocol")]
pub enum Command {
    Connect,
    Connected,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Begin,
    Commit,
    Abort,
    Disconnect,
    Message,
    Receipt,
    Error,
}

impl Command {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Connect,
        Self::Connected,
        Self::Send,
        Self::Subscribe,
        Self::Unsubscribe,
        Self::Ack,
        Self::Begin,
        Self::Commit,
        Self::Abort,
        Self::Disconnect,
        Self::Message,
        Self::Receipt,
        Self::Error,
    ];

    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::Connected => "CONNECTED",
            Self::Send => "SEND",
            Self::Subscribe => "SUBSCRIBE",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::Ack => "ACK",
            Self::Begin => "BEGIN",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
            Self::Disconnect => "DISCONNECT",
            Self::Message => "MESSAGE",
            Self::Receipt => "RECEIPT",
            Self::Error => "ERROR",
        }
    }

    /// The command of a word.
    #[must_use]
    pub fn parse(word: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.as_str().as_bytes() == word)
    }

    /// Whether header names and values are escaped. Those of CONNECT and
    /// CONNECTED are not, so that a 1.0 peer can read them ("Value Encoding").
    #[must_use]
    pub const fn escapes(self) -> bool {
        !matches!(self, Self::Connect | Self::Connected)
    }

    /// Whether a body is allowed ("Frames and Headers: Body").
    #[must_use]
    pub const fn has_body(self) -> bool {
        matches!(self, Self::Send | Self::Message | Self::Error)
    }
}

/// Headers in their order. Of a repeated one the first counts ("Repeated
/// Header Entries").
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers {
    // One text for all of them: a MESSAGE of Artemis has some twenty.
    text: String,
    entries: Vec<(Range<u32>, Range<u32>)>,
}

impl Headers {
    /// None yet.
    #[must_use]
    pub const fn new() -> Self {
        Self { text: String::new(), entries: Vec::new() }
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: &str, value: &str) {
        let name = self.append(name);
        let value = self.append(value);
        self.entries.push((name, value));
    }

    /// Adds one at the end and returns the whole.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.push(name, value);
        self
    }

    /// The first value under a name. Names are compared as they are.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(entry, _)| *entry == name).map(|(_, value)| value)
    }

    /// All of them in order, repeated ones too.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().map(|(name, value)| (self.slice(name), self.slice(value)))
    }

    /// How many.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of all names and values.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.text.len()
    }

    fn append(&mut self, text: &str) -> Range<u32> {
        // A head is bounded far below 4 GiB; beyond it the entry comes out
        // empty instead of wrong.
        let start = u32::try_from(self.text.len()).unwrap_or(u32::MAX);
        self.text.push_str(text);
        start..u32::try_from(self.text.len()).unwrap_or(u32::MAX)
    }

    fn slice(&self, range: &Range<u32>) -> &str {
        self.text.get(range.start as usize..range.end as usize).unwrap_or("")
    }
}

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Frames end in logs and test output, a passcode must not.
        f.debug_map()
            .entries(self.iter().map(|(n, v)| (n, if n == "passcode" { "(hidden)" } else { v })))
            .finish()
    }
}

impl<'a> FromIterator<(&'a str, &'a str)> for Headers {
    fn from_iter<I: IntoIterator<Item = (&'a str, &'a str)>>(iter: I) -> Self {
        let mut headers = Self::new();
        for (name, value) in iter {
            headers.push(name, value);
        }
        headers
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub command: Command,
    /// Its headers, without `content-length` when it is to be written.
    pub headers: Headers,
    /// Its body; empty for commands that have none.
    pub body: Bytes,
}

impl Frame {
    /// A frame without a body.
    #[must_use]
    pub const fn new(command: Command, headers: Headers) -> Self {
        Self { command, headers, body: Bytes::new() }
    }

    /// The same with a body.
    #[must_use]
    pub fn with_body(self, body: Bytes) -> Self {
        Self { body, ..self }
    }
}
