//! What a logger counts.

use prometheus_client::registry::Registry;

/// The logger's metrics; shared by the loggers of a process.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// Makes them known to `registry`.
    pub fn register(_registry: &mut Registry) -> Self {
        Self {}
    }
}
