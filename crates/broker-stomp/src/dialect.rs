//! What Artemis and Classic want said differently. Pure.
//!
//! The dialect comes from the `server` header of CONNECTED, or from the
//! configuration where an acceptor hides it. RabbitMQ is refused: its STOMP
//! plugin has neither the credit nor the durability that is needed.
//!
//! Invariants, all measured on Artemis 2.44, where the opposite gets its receipt
//! and the message is gone:
//!
//! - A SEND always names its routing type. Without it an unknown address becomes
//!   a multicast one.
//! - A name is that of a queue or of a topic, never both: a multicast SEND to the
//!   address of a queue reaches nobody. Who names them keeps them apart.
//! - A SEND in a transaction has no receipt: it comes before the COMMIT, also
//!   when nobody ever began the transaction.

use crate::{
    codec::Headers,
    error::SettingsError,
    message::{Receive, Settling},
};

/// Whose words are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// ActiveMQ Artemis (Apache Artemis since 2.50).
    Artemis,
    /// ActiveMQ Classic.
    Classic,
}

impl Dialect {
    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Artemis => "artemis",
            Self::Classic => "classic",
        }
    }

    /// The oldest version that this client was tested with.
    #[must_use]
    pub const fn floor(self) -> &'static str {
        match self {
            Self::Artemis => "2.44",
            Self::Classic => "5.17",
        }
    }

    /// Whether several SENDs are best made durable in one transaction. Classic
    /// syncs for each receipt, Artemis once for all that are on the way.
    #[must_use]
    pub const fn prefers_transactions(self) -> bool {
        matches!(self, Self::Classic)
    }

    /// Finds the dialect from CONNECTED's `server` header.
    ///
    /// # Errors
    /// See [`SettingsError`]: an unknown or refused server, one too old, or one
    /// that contradicts what was `set`.
    pub fn detect(
        server: Option<&str>,
        set: Option<Self>,
        allow_untested: bool,
    ) -> Result<Self, SettingsError> {
        let Some(server) = server else { return set.ok_or(SettingsError::HiddenServer) };
        let product = server.split_whitespace().next().unwrap_or("");
        let (name, version) = product.split_once('/').unwrap_or((product, ""));
        let found = match name {
            "ActiveMQ-Artemis" => Some(Self::Artemis),
            "ActiveMQ" => Some(Self::Classic),
            "RabbitMQ" => return Err(SettingsError::RabbitMq(server.into())),
            _ => None,
        };
        let dialect = match (found, set) {
            (Some(found), Some(set)) if found != set => {
                return Err(SettingsError::OtherDialect {
                    set: set.as_str(),
                    found: server.into(),
                });
            }
            (Some(dialect), _) | (None, Some(dialect)) => dialect,
            (None, None) => return Err(SettingsError::UnknownServer(server.into())),
        };
        let floor = dialect.floor();
        let old = found.is_some() && numbers(version) < numbers(floor);
        if old && !allow_untested {
            return Err(SettingsError::TooOld { found: product.into(), floor });
        }
        Ok(dialect)
    }

    /// Adds the headers that name a destination to publish to.
    pub fn send_destination(self, destination: &Destination, headers: &mut Headers) {
        match (self, destination) {
            (Self::Artemis, Destination::Queue(name)) => {
                headers.push("destination", name);
                headers.push("destination-type", "ANYCAST");
            }
            (Self::Artemis, Destination::Topic(name)) => {
                headers.push("destination", name);
                headers.push("destination-type", "MULTICAST");
            }
            (Self::Classic, destination) => {
                headers.push("destination", &classic_name(destination));
            }
        }
    }

    /// The headers of a SUBSCRIBE, without its id and receipt.
    #[must_use]
    pub fn subscribe_headers(self, request: &Receive) -> Headers {
        let mut headers = Headers::new();
        match self {
            Self::Artemis => {
                let (name, routing) = match &request.destination {
                    Destination::Queue(name) => (name, "ANYCAST"),
                    Destination::Topic(name) => (name, "MULTICAST"),
                };
                headers.push("destination", name);
                headers.push("subscription-type", routing);
                // -1 would be no bound at all; 0 is one message at a time.
                let window = i32::try_from(request.credit.bytes).unwrap_or(i32::MAX);
                headers.push("consumer-window-size", &window.to_string());
            }
            Self::Classic => {
                let mut name = classic_name(&request.destination);
                if request.exclusive {
                    name.push_str("?consumer.exclusive=true");
                }
                headers.push("destination", &name);
                let prefetch = classic_prefetch(request.credit.messages);
                headers.push("activemq.prefetchSize", &prefetch.to_string());
            }
        }
        headers.push(
            "ack",
            match request.settling {
                Settling::ClientIndividual => "client-individual",
                Settling::Auto => "auto",
            },
        );
        headers
    }
}

/// Where messages go to and come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Destination {
    /// One consumer gets each message.
    Queue(String),
    /// All that are subscribed get each message.
    Topic(String),
}

impl Destination {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Queue(name) | Self::Topic(name) => name,
        }
    }

    /// Whether the name means the same on each broker: 1 to 200 of letters,
    /// digits, '.', '_' and '-'. Both brokers read options or wildcards in others.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let name = self.name();
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        (1..=200).contains(&name.len()) && name.bytes().all(allowed)
    }
}

fn classic_name(destination: &Destination) -> String {
    match destination {
        Destination::Queue(name) => format!("/queue/{name}"),
        Destination::Topic(name) => format!("/topic/{name}"),
    }
}

/// Exactly 1000 is Classic's default, and the broker's policy would override it;
/// 0 would turn the hand-over into polling, which STOMP cannot do.
fn classic_prefetch(messages: u32) -> u32 {
    match messages {
        0 => 1,
        1000 => 999,
        n => n.min(32_766),
    }
}

/// Major and minor number; what is no number counts as zero.
fn numbers(version: &str) -> (u32, u32) {
    let mut parts = version.split(['.', '-']).map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use posthaste_broker::Credit;

    use super::*;

    #[test]
    fn detects() {
        use Dialect::{Artemis, Classic};
        let artemis = "ActiveMQ-Artemis/2.44.0 ActiveMQ Artemis Messaging Engine";
        for (server, set, untested, expected) in [
            (Some(artemis), None, false, Ok(Artemis)),
            (Some(artemis), Some(Artemis), false, Ok(Artemis)),
            (Some("ActiveMQ-Artemis/2.100.0"), None, false, Ok(Artemis)),
            (Some("ActiveMQ-Artemis/3.0.0-SNAPSHOT"), None, false, Ok(Artemis)),
            (Some("ActiveMQ/5.17.2"), None, false, Ok(Classic)),
            (Some("ActiveMQ/6.3.1"), None, false, Ok(Classic)),
            (Some("ActiveMQ/5.2"), None, true, Ok(Classic)),
            (None, Some(Classic), false, Ok(Classic)),
            (Some("Other/1"), Some(Artemis), false, Ok(Artemis)),
            (None, None, false, Err(SettingsError::HiddenServer)),
            (Some("Other/1"), None, true, Err(SettingsError::UnknownServer("Other/1".into()))),
            (
                Some("RabbitMQ/3.10.8"),
                Some(Artemis),
                true,
                Err(SettingsError::RabbitMq("RabbitMQ/3.10.8".into())),
            ),
            (
                Some("ActiveMQ/5.2"),
                None,
                false,
                Err(SettingsError::TooOld { found: "ActiveMQ/5.2".into(), floor: "5.17" }),
            ),
            (
                Some("ActiveMQ"),
                None,
                false,
                Err(SettingsError::TooOld { found: "ActiveMQ".into(), floor: "5.17" }),
            ),
            (
                Some("ActiveMQ/5.18"),
                Some(Artemis),
                true,
                Err(SettingsError::OtherDialect { set: "artemis", found: "ActiveMQ/5.18".into() }),
            ),
        ] {
            assert_eq!(Dialect::detect(server, set, untested), expected, "{server:?} {set:?}");
        }
    }

    #[test]
    fn destinations() {
        let queue = Destination::Queue("pool.default".into());
        let topic = Destination::Topic("control".into());
        for (dialect, destination, expected) in [
            (
                Dialect::Artemis,
                &queue,
                &[("destination", "pool.default"), ("destination-type", "ANYCAST")][..],
            ),
            (
                Dialect::Artemis,
                &topic,
                &[("destination", "control"), ("destination-type", "MULTICAST")],
            ),
            (Dialect::Classic, &queue, &[("destination", "/queue/pool.default")]),
            (Dialect::Classic, &topic, &[("destination", "/topic/control")]),
        ] {
            let mut headers = Headers::new();
            dialect.send_destination(destination, &mut headers);
            assert_eq!(headers.iter().collect::<Vec<_>>(), expected);
        }
    }

    #[test]
    fn subscriptions() {
        let request = |messages, bytes| Receive {
            exclusive: true,
            ..Receive::new(Destination::Queue("q".into()), Credit { messages, bytes })
        };
        for (messages, expected) in
            [(0, "1"), (1, "1"), (999, "999"), (1000, "999"), (1001, "1001"), (u32::MAX, "32766")]
        {
            let headers = Dialect::Classic.subscribe_headers(&request(messages, 1));
            assert_eq!(headers.get("activemq.prefetchSize"), Some(expected));
            assert_eq!(headers.get("destination"), Some("/queue/q?consumer.exclusive=true"));
            assert_eq!(headers.get("ack"), Some("client-individual"));
        }
        for (bytes, expected) in [(0, "0"), (51_200, "51200"), (u64::MAX, "2147483647")] {
            let headers = Dialect::Artemis.subscribe_headers(&request(10, bytes));
            assert_eq!(headers.get("consumer-window-size"), Some(expected));
            assert_eq!(headers.get("subscription-type"), Some("ANYCAST"));
        }
    }

    #[test]
    fn names() {
        for (name, valid) in [
            ("pool.default-1_x", true),
            ("", false),
            ("a b", false),
            ("a?consumer.exclusive=true", false),
            ("a>", false),
            ("a::b", false),
            ("a\nb", false),
        ] {
            assert_eq!(Destination::Queue(name.into()).is_valid(), valid, "{name:?}");
        }
        assert!(!Destination::Topic("x".repeat(201)).is_valid());
    }
}
