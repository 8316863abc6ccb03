//! The cases, one a file.

mod bad_http;
pub mod bad_input;
pub mod crash_loop;
mod evidence;
pub mod load;
pub mod openapi;
