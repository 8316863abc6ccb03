//! Identifiers. All are UUIDv7 (RFC 9562 section 5.7): ordered by the time of
//! their making, so that inserts into an index append instead of scatter.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an id: expected a UUID such as 01928c5e-7d3a-7b2c-9f10-3c6f6f0a1b2c")]
pub struct IdError(String);

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id, later than every id this process made before.
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// The 16 bytes, big endian: sorts as the id does.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// An id from its 16 bytes, whatever they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// When the id was made, to the millisecond; `None` when the id
            /// is not of version 7.
            #[must_use]
            pub fn time(&self) -> Option<Timestamp> {
                let (secs, nanos) = self.0.get_timestamp()?.to_unix();
                let millis = i64::try_from(secs).ok()?.checked_mul(1000)?;
                Some(Timestamp::from_millis(millis + i64::from(nanos / 1_000_000)))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new()
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::try_parse(text)
                    .map(Self)
                    .map_err(|_| IdError(text.chars().take(64).collect()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Names one submission: one item of a request, with all its recipients.
    SubmissionId
);
id!(
    /// Names one message: one recipient of one submission.
    MessageId
);
id!(
    /// Names one attempt to deliver one message.
    AttemptId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_sort_by_the_time_of_their_making() {
        let ids: Vec<_> = (0..1000).map(|_| MessageId::new()).collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn an_id_knows_its_time() {
        let uuid = Uuid::try_parse("01928c5e-7d3a-7b2c-9f10-3c6f6f0a1b2c").unwrap();
        let time = SubmissionId::from(uuid).time().unwrap();
        assert_eq!(time.as_millis(), 0x0192_8c5e_7d3a);
    }

    #[test]
    fn a_text_that_is_no_id_is_named_in_the_error() {
        let error = SubmissionId::from_str("nonsense").unwrap_err();
        assert!(error.to_string().contains("nonsense"));
    }
}
