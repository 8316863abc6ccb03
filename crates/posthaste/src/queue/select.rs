//! Which messages of a queue are meant.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use clap::Args;
use posthaste_broker::{Broker, FlowKey, QueueName};
use posthaste_delivery::journal;
use posthaste_model::{MessageHead, MessageId, Timestamp};
use uuid::Uuid;

use super::{
    place::{END_OF_TIME, Opened},
    progress::Progress,
    walk::walk,
};

/// How messages are named.
#[derive(Debug, Args)]
#[group(id = "which", multiple = false)]
pub struct SelectArgs {
    /// This message; can be given several times.
    #[arg(long, value_name = "ID")]
    id: Vec<MessageId>,
    /// The messages to recipients like this: * stands for any text, case does
    /// not matter.
    #[arg(long, value_name = "PATTERN")]
    recipient: Option<String>,
    /// All messages of the queue.
    #[arg(long)]
    all: bool,
}

/// The messages that are meant, and what is needed to be handed them.
#[derive(Debug, Default)]
pub struct Selection {
    /// Their due times.
    pub wanted: HashMap<Uuid, Option<Timestamp>>,
    /// How many others the queue holds.
    pub others: u64,
    /// Flows in which none of them is.
    pub other_flows: HashSet<FlowKey>,
    /// Not to be handed over, because the disk has damaged their bodies: they
    /// wait in quarantine for the end of time. With their heads.
    pub parked: Vec<(Uuid, Bytes)>,
    /// Left alone: the journal holds what became of their last attempt.
    pub unsettled: Vec<Uuid>,
}

impl SelectArgs {
    fn takes(&self, id: Uuid, head: &[u8]) -> bool {
        if let Some(pattern) = &self.recipient {
            return MessageHead::decode(head)
                .is_ok_and(|head| matches(pattern, head.recipient.as_str()));
        }
        self.id.is_empty() || self.id.contains(&id.into())
    }

    /// Looks for them.
    pub async fn find(&self, opened: &Opened, queue: &QueueName) -> anyhow::Result<Selection> {
        let unsettled = unsettled(opened)?;
        let broker: &dyn Broker = &*opened.queue;
        let mut progress = Progress::new("looking at messages:", None);
        let mut selection = Selection::default();
        let mut flows = HashSet::new();
        walk(broker, queue, None, &mut progress, |message| {
            let id = message.id;
            selection.others += 1;
            if !self.takes(id, &message.head) {
                selection.other_flows.insert(message.flow_key);
            } else if unsettled.contains(&id) {
                selection.other_flows.insert(message.flow_key);
                selection.unsettled.push(id);
            } else if message.due == Some(END_OF_TIME) {
                selection.other_flows.insert(message.flow_key);
                selection.parked.push((id, message.head));
            } else {
                selection.others -= 1;
                selection.wanted.insert(id, message.due);
                flows.insert(message.flow_key);
            }
            ControlFlow::Continue(())
        })
        .await?;
        selection.other_flows.retain(|flow| !flows.contains(flow));
        let found = |id: &&MessageId| {
            let id = Uuid::from(**id);
            selection.wanted.contains_key(&id)
                || selection.unsettled.contains(&id)
                || selection.parked.iter().any(|(parked, _)| *parked == id)
        };
        let missing: Vec<_> =
            self.id.iter().filter(|id| !found(id)).map(ToString::to_string).collect();
        if !missing.is_empty() {
            bail!("{queue} does not hold {}; nothing was done", missing.join(", "));
        }
        Ok(selection)
    }
}

/// Messages whose last attempt has ended as the journal says, and which the
/// process has still to settle: it may be that they are delivered.
fn unsettled(opened: &Opened) -> anyhow::Result<HashSet<Uuid>> {
    if !opened.journal.exists() {
        return Ok(HashSet::new());
    }
    let attempts = journal::read(&opened.journal).with_context(|| {
        format!("failed to read {}, which knows what is delivered", opened.journal.display())
    })?;
    let open = attempts.into_iter().filter(|attempt| attempt.has_final && !attempt.is_settled);
    Ok(open.map(|attempt| attempt.message_id.into()).collect())
}

/// Whether the text is like the pattern, in which `*` stands for any text.
/// Case of ASCII letters does not matter.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or("");
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, like) in [
            ("a@b.test", "A@B.test", true),
            ("a@b.test", "aa@b.test", false),
            ("*@b.test", "x@b.test", true),
            ("*@b.test", "x@bb.test", false),
            ("*", "", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("ab*ba", "aba", false),
            ("x*", "y", false),
        ] {
            assert_eq!(matches(pattern, text), like, "{pattern} {text}");
        }
    }
}
