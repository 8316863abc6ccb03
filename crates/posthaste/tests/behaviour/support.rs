//! A stage for a behaviour: name server, sink and node, and what is done with
//! them again and again.

use std::{net::Ipv4Addr, time::Duration};

use anyhow::{Context, Result};
use posthaste_show::{
    names,
    node::{Node, Settings},
};
use posthaste_trial::{
    dns::TestDns,
    sink::{Keep, Received, Sink, SinkConfig},
};
use tokio::sync::mpsc;

/// The binary under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_posthaste");

/// Mails that the stage keeps until a test asks for them.
const MAILS: usize = 50_000;
/// A mail that has not come by then does not come.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node whose mail to `a.test`, `b.test`, `c.test` and `d.test` goes to a
/// sink; `nomail.test` has a null MX.
pub struct Stage {
    pub node: Node,
    mails: mpsc::Receiver<Received>,
    sink: Sink,
    _dns: TestDns,
}

/// A mail that came to the sink.
#[derive(Debug)]
pub struct Mail {
    pub recipient: String,
    text: String,
}

impl Stage {
    /// A stage whose sink follows `rules`, written as for `posthaste sink`.
    pub async fn start(rules: &[&str]) -> Result<Self> {
        Self::start_with(rules, "").await
    }

    /// The same with more sections in the node's configuration.
    pub async fn start_with(rules: &[&str], sections: &str) -> Result<Self> {
        let dns = names::all_to_loopback(&["a.test", "b.test", "c.test", "d.test"]).await?;
        let (observer, mails) = mpsc::channel(MAILS);
        let mut config = SinkConfig::new((Ipv4Addr::LOCALHOST, 0).into());
        config.rules = rules.iter().map(|rule| rule.parse()).collect::<Result<_, _>>()?;
        config.keep = Keep::All;
        config.observer = Some(observer);
        let sink = Sink::start(config).await?;
        let mut settings = Settings::new(PROGRAM, dns.address(), sink.address().port());
        sections.clone_into(&mut settings.sections);
        let node = Node::start(&settings).await?;
        Ok(Self { node, mails, sink, _dns: dns })
    }

    /// The next `count` mails.
    pub async fn received(&mut self, count: usize) -> Result<Vec<Mail>> {
        let mut all = Vec::new();
        while all.len() < count {
            let next = tokio::time::timeout(PATIENCE, self.mails.recv()).await;
            let next = next.with_context(|| format!("{} of {count} mails came", all.len()))?;
            all.push(Mail::from(next.context("the sink has ended")?));
        }
        Ok(all)
    }

    /// The mails that have come and were not asked for yet.
    pub fn received_now(&mut self) -> Vec<Mail> {
        let mut all = Vec::new();
        while let Ok(mail) = self.mails.try_recv() {
            all.push(mail.into());
        }
        assert_eq!(self.sink.stats().unobserved, 0, "more mails than the stage can keep");
        all
    }
}

impl From<Received> for Mail {
    fn from(received: Received) -> Self {
        let content = received.content.unwrap_or_default();
        let text = String::from_utf8_lossy(&content).into_owned();
        Self { recipient: received.recipients.join(" "), text }
    }
}

impl Mail {
    /// All of it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The value of a header field, unfolded.
    pub fn field(&self, name: &str) -> Option<String> {
        let (header, _) = self.text.split_once("\r\n\r\n")?;
        let unfolded = header.replace("\r\n ", " ").replace("\r\n\t", " ");
        let mut fields = unfolded.split("\r\n").filter_map(|field| field.split_once(':'));
        let (_, value) = fields.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(value.trim().to_owned())
    }

    /// The message id that Posthaste put into its trace field.
    pub fn message_id(&self) -> String {
        let trace = self.field("Received").unwrap_or_default();
        let mut words = trace.split_whitespace().skip_while(|word| *word != "id");
        words.nth(1).unwrap_or_default().trim_end_matches(';').to_owned()
    }
}
