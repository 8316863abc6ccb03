//! The words of Posthaste: ids, times, addresses, the message record and the
//! events that say what happened to a message.
//!
//! Every other crate speaks in these types. Nothing here does I/O, reads a
//! clock by itself or knows a broker, a database or a network.

mod address;
mod disposition;
mod event;
mod ids;
mod message;
mod names;
mod time;

pub use address::{AddressError, Domain, EmailAddress, MAX_ADDRESS_LEN, MAX_LOCAL_LEN};
pub use disposition::{Disposition, EnhancedCode, Reason, SmtpReply};
pub use event::{
    AttemptEvent, EventDecodeError, EventKind, LogBatch, LogEvent, RecipientKind, SubmissionEvent,
    SubmittedMessage, TlsInfo,
};
pub use ids::{AttemptId, IdError, MessageId, SubmissionId};
pub use message::{Codec, MessageHead, RECORD_VERSION, RecordError};
pub use names::{
    DEFAULT_POOL, DELIVERY_LOGS, NameError, POOL_QUEUE_PREFIX, PoolName, QUARANTINE,
    SUBMISSION_LOGS, Tag, pool_queue,
};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
