//! What is told of one message in a list.

use posthaste_broker::{Browsed, MessageState};
use posthaste_model::{MessageHead, MessageId, Tag, Timestamp};
use serde_json::{Value, json};

use super::place::END_OF_TIME;

/// A message in a list.
#[derive(Debug)]
pub struct Row {
    pub message: Browsed,
    /// Its record, or why that cannot be read.
    pub head: Result<MessageHead, String>,
}

impl Row {
    pub fn new(message: Browsed) -> Self {
        let head = match message.head.as_ref() {
            b"" => Err("the head is damaged on the disk".to_owned()),
            b"{}" => Err("records for the logs".to_owned()),
            bytes => MessageHead::decode(bytes).map_err(|error| noted(bytes, &error.to_string())),
        };
        Self { message, head }
    }

    pub fn has_tag(&self, tag: &str) -> bool {
        self.head.as_ref().is_ok_and(|head| head.tags.iter().any(|other| other.as_str() == tag))
    }

    /// When it was accepted, as far as one can tell.
    pub fn accepted_at(&self) -> Option<Timestamp> {
        match &self.head {
            Ok(head) => Some(head.accepted_at),
            Err(_) => MessageId::from(self.message.id).time(),
        }
    }

    pub fn bytes(&self) -> u64 {
        self.message.head.len() as u64 + self.message.body_len
    }

    pub const HEADINGS: [&str; 8] =
        ["id", "submission", "recipient", "priority", "attempts", "due", "state", "size"];

    pub fn cells(&self) -> Vec<String> {
        let (submission, recipient, attempts) = match &self.head {
            Ok(head) => (
                head.submission_id.to_string(),
                head.recipient.as_str().to_owned(),
                head.attempts.to_string(),
            ),
            Err(why) => ("-".to_owned(), format!("({why})"), "-".to_owned()),
        };
        vec![
            self.message.id.to_string(),
            submission,
            recipient,
            self.message.priority.to_string(),
            attempts,
            due(self.message.due),
            state(self.message.state).to_owned(),
            super::out::size(self.bytes()),
        ]
    }

    pub fn json(&self) -> Value {
        let mut value = json!({
            "id": self.message.id.to_string(),
            "priority": self.message.priority,
            "due": due_json(self.message.due),
            "state": state(self.message.state),
            "flow_key": self.message.flow_key.as_str(),
            "bytes": self.bytes(),
        });
        match &self.head {
            Ok(head) => {
                value["submission_id"] = head.submission_id.to_string().into();
                value["recipient"] = head.recipient.as_str().into();
                value["attempts"] = head.attempts.into();
                value["tags"] = head.tags.iter().map(Tag::as_str).collect();
            }
            Err(why) => value["note"] = why.as_str().into(),
        }
        value
    }
}

/// What a logger notes of a batch that it sent to quarantine; else the error.
fn noted(bytes: &[u8], error: &str) -> String {
    let note: Value = serde_json::from_slice(bytes).unwrap_or_default();
    match (note["queue"].as_str(), note["reason"].as_str()) {
        (Some(queue), Some(reason)) => format!("from {queue}: {reason}"),
        _ => error.to_owned(),
    }
}

pub const fn state(state: MessageState) -> &'static str {
    match state {
        MessageState::Ready => "ready",
        MessageState::Delayed => "delayed",
        MessageState::Unacknowledged => "unacknowledged",
    }
}

/// For people: "now" without a due time, "never" at the end of time.
pub fn due(due: Option<Timestamp>) -> String {
    match due {
        None => "now".to_owned(),
        Some(END_OF_TIME) => "never".to_owned(),
        Some(due) => due.to_string(),
    }
}

/// In milliseconds; null without a due time.
pub fn due_json(due: Option<Timestamp>) -> Value {
    due.map_or(Value::Null, |due| due.as_millis().into())
}
