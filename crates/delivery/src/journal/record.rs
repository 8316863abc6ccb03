//! Records of the journal and their bytes.
//!
//! A frame is: length of the payload (u32), CRC-32C of the payload (u32), the
//! payload; numbers are little endian. A payload is a kind byte and fields in
//! a fixed order; texts and byte strings have their length (u32) in front.

use bytes::Bytes;
use posthaste_model::{AttemptId, EmailAddress, MessageId, PoolName, SubmissionId, Timestamp};

/// Bytes of a frame before its payload.
pub(super) const FRAME_HEAD: usize = 8;
/// Longest payload. An event holds at most 32 KiB of header fields and a
/// reply, a head at most what a broker takes (1 MiB).
pub(super) const MAX_PAYLOAD: usize = 4 << 20;

const START: u8 = 1;
const FINAL: u8 = 2;
const SETTLED: u8 = 3;

/// An attempt begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Its id.
    pub attempt_id: AttemptId,
    /// The message.
    pub message_id: MessageId,
    /// Its submission.
    pub submission_id: SubmissionId,
    /// The recipient.
    pub recipient: EmailAddress,
    /// The pool.
    pub pool: PoolName,
    /// Name of the SMTP client.
    pub smtp_client: String,
    /// Which attempt of the message, from 1.
    pub number: u32,
    /// When.
    pub time: Timestamp,
}

/// What settlement does with the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is acknowledged.
    Acknowledge,
    /// It is acknowledged and published again.
    Defer {
        /// When it is due.
        due: Timestamp,
        /// Its new head.
        head: Bytes,
    },
}

/// An attempt has ended: all that settling it needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Final {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The message.
    pub message_id: MessageId,
    /// Which attempt of the message, from 1.
    pub number: u32,
    /// When.
    pub time: Timestamp,
    /// The event for the delivery log: one line of a [`posthaste_model::LogBatch`].
    pub event: Bytes,
    /// What becomes of the message.
    pub next: Next,
}

/// A record that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    Start(Start),
    Final(Final),
    Settled(Vec<AttemptId>),
}

/// Appends the frame of a start.
pub(super) fn put_start(to: &mut Vec<u8>, start: &Start) {
    frame(to, |out| {
        out.push(START);
        out.extend_from_slice(start.attempt_id.as_bytes());
        out.extend_from_slice(start.message_id.as_bytes());
        out.extend_from_slice(start.submission_id.as_bytes());
        out.extend_from_slice(&start.number.to_le_bytes());
        out.extend_from_slice(&start.time.as_millis().to_le_bytes());
        put_bytes(out, start.recipient.as_str().as_bytes());
        put_bytes(out, start.pool.as_str().as_bytes());
        put_bytes(out, start.smtp_client.as_bytes());
    });
}

/// Appends the frame of a final outcome.
pub(super) fn put_final(to: &mut Vec<u8>, outcome: &Final) {
    frame(to, |out| {
        out.push(FINAL);
        out.extend_from_slice(outcome.attempt_id.as_bytes());
        out.extend_from_slice(outcome.message_id.as_bytes());
        out.extend_from_slice(&outcome.number.to_le_bytes());
        out.extend_from_slice(&outcome.time.as_millis().to_le_bytes());
        put_bytes(out, &outcome.event);
        match &outcome.next {
            Next::Acknowledge => out.push(0),
            Next::Defer { due, head } => {
                out.push(1);
                out.extend_from_slice(&due.as_millis().to_le_bytes());
                put_bytes(out, head);
            }
        }
    });
}

/// Appends the frame of a settlement.
pub(super) fn put_settled(to: &mut Vec<u8>, attempts: &[AttemptId]) {
    frame(to, |out| {
        out.push(SETTLED);
        attempts.iter().for_each(|id| out.extend_from_slice(id.as_bytes()));
    });
}

fn frame(to: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let at = to.len();
    to.extend_from_slice(&[0; FRAME_HEAD]);
    payload(to);
    let body = at + FRAME_HEAD;
    // Callers keep payloads under MAX_PAYLOAD, far below 4 GiB.
    let len = u32::try_from(to.len() - body).unwrap_or(u32::MAX);
    let crc = crc32c::crc32c(&to[body..]);
    to[at..at + 4].copy_from_slice(&len.to_le_bytes());
    to[at + 4..body].copy_from_slice(&crc.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(bytes);
}

/// The payload of the frame at the front of `bytes`, if a whole and sound one
/// is there.
pub(super) fn frame_at(bytes: &[u8]) -> Option<&[u8]> {
    let len = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let crc = u32::from_le_bytes(bytes.get(4..FRAME_HEAD)?.try_into().ok()?);
    if len == 0 || len > MAX_PAYLOAD {
        return None;
    }
    let payload = bytes.get(FRAME_HEAD..FRAME_HEAD + len)?;
    (crc32c::crc32c(payload) == crc).then_some(payload)
}

/// Reads a payload; `None` when it is not one of ours.
pub(super) fn decode(payload: &[u8]) -> Option<Record> {
    let mut input = Input(payload);
    let record = match input.array::<1>()?[0] {
        START => Record::Start(input.start()?),
        FINAL => Record::Final(input.outcome()?),
        SETTLED => {
            let mut attempts = Vec::with_capacity(input.0.len() / 16);
            while !input.0.is_empty() {
                attempts.push(AttemptId::from_bytes(input.array()?));
            }
            Record::Settled(attempts)
        }
        _ => return None,
    };
    input.0.is_empty().then_some(record)
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (front, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*front)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.array().map(i64::from_le_bytes).map(Timestamp::from_millis)
    }

    fn bytes(&mut self) -> Option<&[u8]> {
        let len = self.u32()? as usize;
        let (front, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(front)
    }

    fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }

    fn start(&mut self) -> Option<Start> {
        Some(Start {
            attempt_id: AttemptId::from_bytes(self.array()?),
            message_id: MessageId::from_bytes(self.array()?),
            submission_id: SubmissionId::from_bytes(self.array()?),
            number: self.u32()?,
            time: self.time()?,
            recipient: self.text()?.parse().ok()?,
            pool: self.text()?.parse().ok()?,
            smtp_client: self.text()?,
        })
    }

    fn outcome(&mut self) -> Option<Final> {
        Some(Final {
            attempt_id: AttemptId::from_bytes(self.array()?),
            message_id: MessageId::from_bytes(self.array()?),
            number: self.u32()?,
            time: self.time()?,
            event: Bytes::copy_from_slice(self.bytes()?),
            next: match self.array::<1>()?[0] {
                0 => Next::Acknowledge,
                1 => Next::Defer { due: self.time()?, head: Bytes::copy_from_slice(self.bytes()?) },
                _ => return None,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outcome(event: Vec<u8>, next: Next) -> Final {
        Final {
            attempt_id: AttemptId::new(),
            message_id: MessageId::new(),
            number: 3,
            time: Timestamp::from_millis(-5),
            event: event.into(),
            next,
        }
    }

    proptest! {
        #[test]
        fn a_final_reads_back(event: Vec<u8>, head: Option<Vec<u8>>, due: i64) {
            let next = head.map_or(Next::Acknowledge, |head| Next::Defer {
                due: Timestamp::from_millis(due),
                head: head.into(),
            });
            let outcome = outcome(event, next);
            let mut bytes = vec![];
            put_final(&mut bytes, &outcome);
            let payload = frame_at(&bytes).unwrap();
            prop_assert_eq!(payload.len() + FRAME_HEAD, bytes.len());
            prop_assert_eq!(decode(payload), Some(Record::Final(outcome)));
        }

        #[test]
        fn any_bytes_are_read_without_harm(bytes: Vec<u8>) {
            // Most are no record; none ends the process.
            let record = decode(&bytes);
            prop_assert!(record.is_none() || bytes[0] <= SETTLED);
            prop_assert!(frame_at(&bytes).is_none_or(|payload| payload.len() < bytes.len()));
        }

        #[test]
        fn a_changed_byte_is_noticed(at: prop::sample::Index, change in 1u8..) {
            let mut bytes = vec![];
            put_final(&mut bytes, &outcome(b"{}".to_vec(), Next::Acknowledge));
            let at = at.index(bytes.len());
            bytes[at] ^= change;
            prop_assert!(frame_at(&bytes).is_none());
        }
    }
}
