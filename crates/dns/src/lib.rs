//! stub, being written
mod api_stub;
pub use api_stub::*;
