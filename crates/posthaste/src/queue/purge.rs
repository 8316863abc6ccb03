//! `posthaste queue purge`: messages end here, each with a record of it.

use std::process::ExitCode;

use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use posthaste_broker::{Body, Broker, FlowKey, Publish, PublishOutcome, QueueName, Settlement};
use posthaste_mail::{compress, header_json};
use posthaste_model::{
    AttemptEvent, AttemptId, Clock as _, DELIVERY_LOGS, Disposition, EventKind, LogBatch, LogEvent,
    MessageHead, Reason, SystemClock,
};
use serde_json::json;
use uuid::Uuid;

use super::{
    Opened, QueueArg, SelectArgs,
    moving::Kept,
    name::holds_evidence,
    out,
    progress::Progress,
    take::{Chosen, take},
};

/// Names the command in the evidence, in the place of an SMTP client.
const WHO: &str = "posthaste queue";
/// Most bytes of header fields that go into the record.
const MAX_HEADERS: usize = 32 << 10;

/// What to purge.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("some").args(["id", "recipient", "all"]).required(true)))]
pub struct PurgeArgs {
    /// The queue, or the name of a pool.
    queue: QueueArg,
    #[command(flatten)]
    select: SelectArgs,
    /// Do it. Without it nothing is changed.
    #[arg(long)]
    yes: bool,
}

pub async fn execute(args: &PurgeArgs, opened: &Opened, json: bool) -> anyhow::Result<ExitCode> {
    let QueueArg(queue) = &args.queue;
    if holds_evidence(queue) {
        bail!("{queue} holds evidence on its way to the logs, which is not purged");
    }
    let mut selection = args.select.find(opened, queue).await?;
    let count = (selection.wanted.len() + selection.parked.len()) as u64;
    let mut kept = Kept::of(&selection);
    if !args.yes && count > 0 {
        if json {
            let mut document = json!({ "would_purge": count });
            kept.put_into(&mut document);
            out::json(&document)?;
        } else {
            let what = out::messages(count);
            out::lines([format!("this removes {what} of {queue} for good; do it with --yes")])?;
            kept.print()?;
        }
        return Ok(ExitCode::FAILURE);
    }
    let broker: &dyn Broker = &*opened.queue;
    let mut progress = Progress::new("purging messages:", Some(count));
    let mut purged = 0;
    take(broker, queue, &mut selection, &mut progress, async |chosen| {
        purged += purge(broker, chosen, &mut kept).await?;
        Ok(())
    })
    .await?;
    for (id, head) in std::mem::take(&mut selection.parked) {
        purged += purge_parked(opened, queue, id, &head, &mut kept).await?;
        progress.add(1);
    }
    drop(progress);
    kept.unread(selection.wanted.into_keys());
    if json {
        let mut document = json!({ "purged": purged });
        kept.put_into(&mut document);
        out::json(&document)?;
    } else {
        out::lines([format!("{} of {queue} purged", out::messages(purged))])?;
        kept.print()?;
    }
    Ok(kept.code())
}

/// Records and removes some messages, in one settlement.
async fn purge(broker: &dyn Broker, chosen: Vec<Chosen>, kept: &mut Kept) -> anyhow::Result<u64> {
    let mut batch = LogBatch::default();
    let (mut tokens, mut ids) = (Vec::new(), Vec::new());
    for (delivery, _) in &chosen {
        match MessageHead::decode(&delivery.head) {
            Ok(head) => {
                batch.0.push(LogEvent::Attempt(event(&head, &delivery.body)));
                tokens.push(delivery.token);
                ids.push(delivery.id);
            }
            Err(error) => kept.add(delivery.id, error),
        }
    }
    if tokens.is_empty() {
        return Ok(0);
    }
    let publishes = vec![log_message(batch.encode())?];
    let results = broker.settle(Settlement { tokens, publishes }).await?;
    Ok(kept.settled(&ids, results))
}

/// What nobody is handed has no token, so that this takes two steps: the
/// record, then the removal. Between them the message is still in quarantine.
async fn purge_parked(
    opened: &Opened,
    queue: &QueueName,
    id: Uuid,
    head: &[u8],
    kept: &mut Kept,
) -> anyhow::Result<u64> {
    let head = match MessageHead::decode(head) {
        Ok(head) => head,
        Err(error) => {
            kept.add(id, error);
            return Ok(0);
        }
    };
    let batch = LogBatch(vec![LogEvent::Attempt(event(&head, b""))]);
    for outcome in opened.queue.publish(vec![log_message(batch.encode())?]).await? {
        if outcome != PublishOutcome::Durable {
            bail!("the record of {id} was not written: {outcome:?}");
        }
    }
    Ok(opened.queue.remove(queue, &[id]).await?)
}

fn event(head: &MessageHead, body: &[u8]) -> AttemptEvent {
    let now = SystemClock.now();
    let max = usize::try_from(head.content_size).unwrap_or(usize::MAX);
    // What cannot be decompressed is purged all the same: the recipient and
    // the fields of this message are in the head.
    let content = compress::decompress(head.codec, body, max).unwrap_or_default();
    AttemptEvent {
        attempt_id: AttemptId::new(),
        message_id: head.message_id,
        submission_id: head.submission_id,
        kind: EventKind::Attempt,
        disposition: Disposition::Undeliverable,
        reason: Reason::Stopped,
        detail: Some("purged by the operator".to_owned()),
        started_at: now,
        time: now,
        length_ms: 0,
        attempt: 0,
        reply: None,
        recipient: head.recipient.clone(),
        pool: head.pool.clone(),
        smtp_client: WHO.to_owned(),
        remote_host: None,
        remote_address: None,
        tls: None,
        next_attempt_at: None,
        headers: header_json(&head.fields, &content, MAX_HEADERS),
        client: serde_json::value::to_raw_value(&json!({ "name": WHO })).unwrap_or_default(),
    }
}

fn log_message(body: Vec<u8>) -> anyhow::Result<Publish> {
    Ok(Publish {
        queue: QueueName::new(DELIVERY_LOGS)?,
        id: Uuid::now_v7(),
        priority: 5,
        due: None,
        flow_key: FlowKey::default(),
        head: Bytes::from_static(b"{}"),
        body: Body::Inline(body.into()),
    })
}
