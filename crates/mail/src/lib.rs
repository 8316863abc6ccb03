//! stub, being written
mod api_stub;
pub mod compress;
pub use api_stub::*;
