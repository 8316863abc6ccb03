//! From a submission request to durable messages.
//!
//! The way of a request, file by file: [`Request::from_json`] reads it
//! (`json`, `fields`, `request`), `validate` (with `times`, `substitutions`)
//! checks it against limits, clock and [`Principal`], `expand` makes one
//! message a recipient (`content` builds what they share, `individual` what
//! they do not, `records` keeps count), `publish` hands all of it to the
//! broker, and [`Intake::submit`] ties them together.
//!
//! Invariants:
//!
//! - [`Intake::submit`] returns `Ok` only when every message and the
//!   submission log are durable.
//! - A request that is refused leaves nothing behind: nothing is published
//!   before the last item of it has been checked and built.
//! - An address of `bcc` is in no byte that another recipient gets.
//! - The same request with the same [`Derived`] makes the same ids and the
//!   same messages.
//! - What is wrong with a request is said as a list, each entry with the JSON
//!   pointer of the field; up to [`MAX_ERRORS`].
//!
//! On failure of the broker the answer is [`IntakeError::Unavailable`]. Parts
//! may have been taken then (with a network broker, or when a request is larger
//! than [`IntakeConfig::batch_bytes`]); the submitter repeats it.
//!
//! Knows nothing of HTTP.

mod addresses;
#[cfg(feature = "cases")]
pub mod bad_input;
mod config;
mod content;
mod errors;
mod expand;
mod fields;
mod individual;
mod intake;
mod json;
mod options;
mod principal;
mod publish;
mod records;
mod request;
mod substitutions;
mod template;
mod times;
mod validate;
mod verp;

pub use config::{IntakeConfig, Limits, Pools, UnknownPool};
pub use errors::{FieldError, IntakeError, MAX_ERRORS, MAX_ITEM_ERRORS, code};
pub use intake::{Accepted, Intake};
pub use options::{Derived, Mode, Outcome, SubmitOptions};
pub use posthaste_mail::{Attachment, Mailbox};
pub use principal::{DomainPattern, Principal, Source};
pub use request::{Addressee, Item, JsonError, Request, SubmissionRequest, Substitutions};
