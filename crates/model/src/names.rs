//! Names that users choose (pools, tags) and the names of queues.

use std::{borrow::Borrow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The pool of a submission and of an SMTP client that name none (UC8).
pub const DEFAULT_POOL: &str = "default";
/// Queue of [`crate::LogBatch`]es of delivery events.
pub const DELIVERY_LOGS: &str = "delivery-logs";
/// Queue of [`crate::LogBatch`]es of submission events.
pub const SUBMISSION_LOGS: &str = "submission-logs";
/// Queue of what could not be read: nothing consumes it but an operator.
pub const QUARANTINE: &str = "quarantine";
/// Every pool's queue begins with it.
pub const POOL_QUEUE_PREFIX: &str = "pool.";

/// The queue of a pool.
#[must_use]
pub fn pool_queue(pool: &PoolName) -> String {
    format!("{POOL_QUEUE_PREFIX}{pool}")
}

/// A name that is not allowed, with the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// More than the allowed number of characters.
    #[error("must have at most {0} characters")]
    TooLong(usize),
    /// A character outside the allowed ones.
    #[error("may hold {allowed}, not {found:?}")]
    Character {
        /// What is allowed, in words.
        allowed: &'static str,
        /// What was found.
        found: char,
    },
}

fn check(
    text: &str,
    max: usize,
    allowed: &'static str,
    is_allowed: impl Fn(char) -> bool,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(found) = text.chars().find(|c| !is_allowed(*c)) {
        return Err(NameError::Character { allowed, found });
    }
    if text.len() > max {
        return Err(NameError::TooLong(max));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:expr, $allowed:expr, $is_allowed:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// The longest that is allowed, in characters.
            pub const MAX_LEN: usize = $max;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                check(text, $max, $allowed, $is_allowed)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, Self::Error> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.into()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A named group of SMTP clients with one logical queue.
    PoolName,
    64,
    "ASCII letters, digits, '-' and '_'",
    |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
);
name!(
    /// A label of the submitter: letters and digits (UC1), and `-_.:` for the
    /// campaign names that people really have.
    Tag,
    128,
    "letters, digits, '-', '_', '.' and ':'",
    |c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')
);

impl Default for PoolName {
    fn default() -> Self {
        Self(DEFAULT_POOL.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!("default".parse::<PoolName>().is_ok());
        assert_eq!("".parse::<PoolName>(), Err(NameError::Empty));
        assert!("a.b".parse::<PoolName>().is_err());
        assert!("a/../b".parse::<PoolName>().is_err());
        assert!("x".repeat(65).parse::<PoolName>().is_err());
        assert!("news-2026.w47:é".parse::<Tag>().is_ok());
        assert!("two words".parse::<Tag>().is_err());
        assert!("a\r\nb".parse::<Tag>().is_err());
    }
}
