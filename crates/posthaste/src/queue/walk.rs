//! A walk over all messages of a queue, a page at a time.

use std::ops::ControlFlow;

use posthaste_broker::{Broker, Browsed, QueueName};
use uuid::Uuid;

use super::progress::Progress;

/// Messages of one look: bounds the memory of their heads. As many as a broker
/// gives, since each look may go over the whole queue.
const PAGE: usize = 10_000;

/// Shows every message after `after` to `each`, in the order of ids, until it
/// breaks.
pub async fn walk(
    broker: &dyn Broker,
    queue: &QueueName,
    mut after: Option<Uuid>,
    progress: &mut Progress,
    mut each: impl FnMut(Browsed) -> ControlFlow<()>,
) -> anyhow::Result<()> {
    loop {
        let page = broker.browse(queue, after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.id);
        progress.add(page.len() as u64);
        for message in page {
            if each(message).is_break() {
                return Ok(());
            }
        }
    }
}
