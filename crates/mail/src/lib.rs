//! RFC 5322: building and reading messages, and their compression. No
//! network, no clock.
//!
//! What goes over the wire is put together from two parts. The *content*
//! ([`build`]) is the same for all recipients of a submission and is made
//! once; it has every header field but To, Cc and the trace. The *fields* in
//! front of it ([`address_field`], [`received_field`]) differ by recipient.
//! Header fields have no order that matters (RFC 5322 section 3.6), trace
//! fields apart, which come first.
//!
//! Invariants: every line ends with CRLF and has at most 998 bytes besides
//! (RFC 5322 section 2.1.1); there is no bare CR or LF and no NUL; bodies are
//! 7-bit with lines of at most 76 bytes, message/* attachments apart; no
//! text that a submitter gives can begin a header field of its own. What
//! would break one of these is an error, never repaired silently. A message
//! that the submitter has built ([`read_raw`]) is checked against the rules
//! of lines and header fields and else kept as it is, 8-bit bodies included.

mod content_type;
mod disposition;
mod draft;
mod field;
mod header;
mod mailbox;
mod mime;
mod raw;
mod read;

pub mod compress;

pub use content_type::{ContentType, ContentTypeError};
pub use draft::{
    Attachment, AttachmentError, BuildError, Content, Draft, MAX_FILENAME_LEN, TextError, Varying,
    build, build_varying,
};
pub use field::{address_field, header_field, message_id_field, received_field, subject_field};
pub use header::{
    HeaderError, MAX_HEADER_NAME_LEN, MAX_HEADER_VALUE_LEN, check_fields, check_header_name,
    check_header_value, is_reserved_header,
};
pub use mailbox::{MAX_MAILBOX_LEN, MAX_NAME_LEN, Mailbox, MailboxError};
pub use raw::{MAX_RAW_FIELDS, MAX_RAW_HEADER_BYTES, Raw, RawError, read_raw};
pub use read::{count_received, header_json};
