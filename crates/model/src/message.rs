//! The message record: what the broker holds for one recipient.
//!
//! A record is two parts. The *head* (this type) is small and is written anew
//! with every deferral; the *body* is the compressed content, shared by all
//! messages of a submission where the backend can share it. The head is JSON
//! with a version in front, so that a person can read a queue, and so that
//! unknown fields of the next version are skipped and absent ones of the
//! former get their defaults.
//!
//! What goes over the wire is `fields` followed by the content. `fields`
//! holds the header fields that differ between the recipients of one
//! submission (the trace field; To and Cc, which a BCC recipient sees
//! otherwise), so that nothing in the shared content is ever edited.

use serde::{Deserialize, Serialize};

use crate::{Domain, EmailAddress, MessageId, PoolName, SubmissionId, Tag, Timestamp};

/// The version that this program writes. It reads one back and one forward.
pub const RECORD_VERSION: u8 = 1;

/// How a body is compressed. The name stands in the record, so that every
/// reader knows without configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// As it is.
    None,
    /// Zstandard (RFC 8878).
    #[default]
    Zstd,
    /// LZ4 block with its size in front.
    Lz4,
    /// Gzip (RFC 1952).
    Gzip,
}

/// The head of a message record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageHead {
    /// See [`RECORD_VERSION`].
    pub v: u8,
    /// The submission it belongs to.
    pub submission_id: SubmissionId,
    /// Its own id, the same through all attempts.
    pub message_id: MessageId,
    /// Reverse-path; `None` is the null sender `<>` (RFC 5321 section 4.5.5).
    pub return_path: Option<EmailAddress>,
    /// The one recipient.
    pub recipient: EmailAddress,
    /// Domain of the From field: names the DKIM key.
    pub sender_domain: Domain,
    /// Where it waits and who may deliver it.
    pub pool: PoolName,
    /// 0 to 9, higher goes first (UC3).
    pub priority: u8,
    /// The submitter's labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Tag>,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// Attempts that count which are behind it; 0 before the first.
    #[serde(default)]
    pub attempts: u32,
    /// When the first attempt began: an age limit counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_attempt_at: Option<Timestamp>,
    /// After this no attempt begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Whether addresses or header fields are not ASCII, so that the next hop
    /// must offer SMTPUTF8 (RFC 6531).
    #[serde(default)]
    pub smtputf8: bool,
    /// Whether the content has bytes over 127: 8BITMIME (RFC 6152).
    #[serde(default)]
    pub eight_bit: bool,
    /// How the body is compressed.
    pub codec: Codec,
    /// Size of the content in bytes when it is decompressed; the reader
    /// refuses to produce more.
    pub content_size: u32,
    /// Header fields of this recipient alone, each ended by CRLF.
    pub fields: String,
}

/// Why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Not the JSON of a head.
    #[error("the record's head cannot be read: {0}")]
    Malformed(String),
    /// From a program that is more than one version away.
    #[error("the record has version {found}, this program reads up to {}: upgrade this host first", RECORD_VERSION + 1)]
    Version {
        /// The record's version.
        found: u8,
    },
}

impl MessageHead {
    /// The bytes for the broker.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // The type has no map with keys that are not text and no fallible
        // serializer: encoding to memory cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads a head.
    ///
    /// # Errors
    /// [`RecordError`], on which the record goes to the quarantine queue.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let head: Self = serde_json::from_slice(bytes).map_err(|error| {
            #[derive(Deserialize)]
            struct Version {
                v: u8,
            }
            match serde_json::from_slice(bytes) {
                Ok(Version { v }) if v > RECORD_VERSION + 1 => RecordError::Version { found: v },
                _ => RecordError::Malformed(error.to_string()),
            }
        })?;
        if head.v > RECORD_VERSION + 1 {
            return Err(RecordError::Version { found: head.v });
        }
        Ok(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head() -> MessageHead {
        MessageHead {
            v: RECORD_VERSION,
            submission_id: SubmissionId::new(),
            message_id: MessageId::new(),
            return_path: Some("bounces@example.com".parse().unwrap()),
            recipient: "b@example.net".parse().unwrap(),
            sender_domain: "example.com".parse().unwrap(),
            pool: PoolName::default(),
            priority: 5,
            tags: vec!["w47".parse().unwrap()],
            accepted_at: Timestamp::from_millis(1),
            attempts: 2,
            first_attempt_at: Some(Timestamp::from_millis(2)),
            expires_at: None,
            smtputf8: false,
            eight_bit: true,
            codec: Codec::Zstd,
            content_size: 5000,
            fields: "To: b@example.net\r\n".into(),
        }
    }

    #[test]
    fn reads_back() {
        let head = head();
        assert_eq!(MessageHead::decode(&head.encode()), Ok(head));
    }

    #[test]
    fn the_next_version_is_read_and_the_one_after_is_refused() {
        let mut value = serde_json::to_value(head()).unwrap();
        value["v"] = (RECORD_VERSION + 1).into();
        value["unheard_of"] = true.into();
        assert!(MessageHead::decode(&serde_json::to_vec(&value).unwrap()).is_ok());
        value["v"] = (RECORD_VERSION + 2).into();
        value.as_object_mut().unwrap().remove("codec");
        assert_eq!(
            MessageHead::decode(&serde_json::to_vec(&value).unwrap()),
            Err(RecordError::Version { found: RECORD_VERSION + 2 })
        );
    }

    #[test]
    fn garbage_is_malformed() {
        assert!(matches!(MessageHead::decode(b"\xff{"), Err(RecordError::Malformed(_))));
    }
}
