//! Whether the store has the evidence of every delivery.

use std::collections::HashSet;

use anyhow::{Context, Result};
use posthaste_model::{Disposition, MessageId};
use posthaste_show::node::Node;
use posthaste_store::{Period, Store, StoreConfig};

/// Those of `ids` for which the stopped node's store has no delivered event.
pub async fn missing(node: &Node, ids: HashSet<&str>) -> Result<Vec<String>> {
    let dir = node.data_dir().join("logs");
    let store = Store::open(StoreConfig { dir, period: Period::Monthly, retention: None }).await?;
    let mut missing = Vec::new();
    for id in ids {
        let message: MessageId = id.parse().with_context(|| format!("{id:?} is no message id"))?;
        let found = store.message(message).await?;
        if found.is_none_or(|(_, view)| view.disposition != Disposition::Delivered) {
            missing.push(id.to_owned());
        }
    }
    store.close().await?;
    Ok(missing)
}
