//! The REST API.
//!
//! `server` accepts connections and drains them (`stream`), `router` finds the handler
//! and counts, `auth` says who is asking, `admission` whether there is room,
//! `body` reads what they send within bounds (`encoding`), `submit` hands it to
//! the intake, where a key came with it once (`idempotency`, `evidence`).
//! `submissions` answers from the store, `pools` from the broker, `health`
//! tells whether this process can work, `docs` how to use all of it. `view` is
//! every answer, `problem` every error.
//!
//! Invariants:
//!
//! - 202 is answered only after [`posthaste_intake::Intake::submit`] returned.
//! - The same `Idempotency-Key` and body are accepted once, whatever dies when.
//! - Every error is an RFC 9457 problem with a stable `code`; none tells more
//!   of the inside than the operator would tell a stranger.
//! - Every wait for a client has a bound, and so has what all clients
//!   together can make this process hold: connections, bytes of bodies.
//! - A token sees the submissions that it made, or could have made.
//!
//! On failure of the broker the answer is 503 with `Retry-After`; of the
//! store, 503 for the questions and nothing for the submissions.

mod admission;
mod auth;
mod body;
mod config;
mod docs;
mod encoding;
mod evidence;
mod health;
mod idempotency;
mod metrics;
mod pools;
mod problem;
mod router;
mod server;
mod stream;
mod submissions;
mod submit;
mod view;

pub use admission::{Admission, AdmissionConfig};
pub use auth::{Auth, Secret, Token};
pub use config::{ApiConfig, ApiState};
pub use metrics::ApiMetrics;
pub use server::{ApiError, run};
