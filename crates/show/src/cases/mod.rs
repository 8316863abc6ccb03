//! The cases, one a file.

mod bad_http;
pub mod bad_input;
pub mod crash_loop;
pub mod deferral;
mod evidence;
pub mod load;
pub mod openapi;
pub mod queue;
pub mod queue_child;
pub mod queue_faults;
