//! What a trial needs: a scriptable SMTP sink ([`sink`]) and a small DNS server
//! ([`dns`]). The binary's `sink` and `demo` use them, and so do tests.

pub mod dns;
pub mod sink;

pub use dns::{RecordKind, TestDns, Zones};
pub use sink::{Sink, SinkConfig};
