//! `posthaste queue move`: messages go to another pool, or come back from
//! quarantine.

use std::process::ExitCode;

use anyhow::bail;
use bytes::Bytes;
use clap::Args;
use posthaste_broker::{
    Body, Broker, BrokerError, Delivery, FlowKey, Publish, QueueName, Settlement,
};
use posthaste_model::{LogBatch, MessageHead, PoolName, QUARANTINE};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    Opened, QueueArg, SelectArgs,
    name::{holds_evidence, pool_of},
    out,
    progress::Progress,
    select::Selection,
    take::{Chosen, take},
};

/// What to move.
#[derive(Debug, Args)]
pub struct MoveArgs {
    /// The queue, or the name of a pool.
    from: QueueArg,
    /// Where to: the name of a pool, or a queue.
    to: QueueArg,
    #[command(flatten)]
    select: SelectArgs,
    /// Move to a queue that does not exist yet. A pool without an SMTP client
    /// holds its messages until there is one.
    #[arg(long)]
    create: bool,
}

/// How many of the messages that were left alone are named.
const EXAMPLES: usize = 20;

/// Messages that were left where they are: how many, and why the first ones.
#[derive(Debug, Default)]
pub struct Kept {
    count: u64,
    examples: Vec<(Uuid, String)>,
}

impl Kept {
    /// Those that the process has to settle first.
    pub fn of(selection: &Selection) -> Self {
        let why = "the journal knows how its last attempt ended, and that is not settled yet: \
                   let Posthaste run for a moment first";
        let mut kept = Self::default();
        selection.unsettled.iter().for_each(|id| kept.add(*id, why));
        kept
    }

    pub fn add(&mut self, id: Uuid, why: impl ToString) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push((id, why.to_string()));
        }
    }

    /// Those that were never handed over.
    pub fn unread(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        let why = "it cannot be read from the disk: see posthaste queue verify";
        ids.into_iter().for_each(|id| self.add(id, why));
    }

    /// How many were settled; the others are kept.
    pub fn settled(&mut self, ids: &[Uuid], results: Vec<Result<(), BrokerError>>) -> u64 {
        let mut settled = 0;
        for (id, result) in ids.iter().zip(results) {
            match result {
                Ok(()) => settled += 1,
                Err(error) => self.add(*id, error),
            }
        }
        settled
    }

    pub fn print(&self) -> anyhow::Result<()> {
        if self.count == 0 {
            return Ok(());
        }
        out::lines([format!("{} kept:", out::messages(self.count))])?;
        out::lines(self.examples.iter().map(|(id, why)| format!("  {id}: {why}")))?;
        let more = self.count - self.examples.len() as u64;
        out::lines((more > 0).then(|| format!("  and {more} more")))
    }

    /// Adds what was kept to a document.
    pub fn put_into(&self, document: &mut Value) {
        let example = |(id, why): &(Uuid, String)| json!({ "id": id.to_string(), "why": why });
        document["kept"] = self.count.into();
        document["kept_examples"] = self.examples.iter().map(example).collect();
    }

    pub fn code(&self) -> ExitCode {
        if self.count == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

pub async fn execute(args: &MoveArgs, opened: &Opened, json: bool) -> anyhow::Result<ExitCode> {
    let (QueueArg(from), QueueArg(to)) = (&args.from, &args.to);
    let broker: &dyn Broker = &*opened.queue;
    check(args, broker, from, to).await?;
    let mut selection = args.select.find(opened, from).await?;
    let mut kept = Kept::of(&selection);
    let mut progress = Progress::new("moving messages:", Some(selection.wanted.len() as u64));
    let mut moved = 0;
    take(broker, from, &mut selection, &mut progress, async |chosen| {
        moved += relocate(broker, from, to, chosen, &mut kept).await?;
        Ok(())
    })
    .await?;
    drop(progress);
    kept.unread(selection.wanted.into_keys());
    kept.unread(selection.parked.into_iter().map(|(id, _)| id));
    if json {
        let mut document = json!({ "moved": moved });
        kept.put_into(&mut document);
        out::json(&document)?;
    } else {
        out::lines([format!("{} moved from {from} to {to}", out::messages(moved))])?;
        kept.print()?;
    }
    Ok(kept.code())
}

async fn check(
    args: &MoveArgs,
    broker: &dyn Broker,
    from: &QueueName,
    to: &QueueName,
) -> anyhow::Result<()> {
    if from == to {
        bail!("{from} is where they are");
    }
    if holds_evidence(from) {
        bail!("{from} holds evidence on its way to the logs, which is not moved");
    }
    if holds_evidence(to) && from.as_str() != QUARANTINE {
        bail!("{to} takes records for the logs, not mail");
    }
    let exists = broker.queues().await?.contains(to) || to.as_str() == QUARANTINE;
    if !exists && !args.create && !holds_evidence(to) {
        bail!(
            "{to} holds nothing now, so its name may be mistyped: move to it all the same with \
             --create"
        );
    }
    Ok(())
}

/// Moves some messages, in one settlement.
async fn relocate(
    broker: &dyn Broker,
    from: &QueueName,
    to: &QueueName,
    chosen: Vec<Chosen>,
    kept: &mut Kept,
) -> anyhow::Result<u64> {
    let mut settlement = Settlement::default();
    let mut ids = Vec::new();
    for (delivery, due) in chosen {
        let placed = match pool_of(to) {
            Some(pool) => for_pool(&delivery, pool),
            None if holds_evidence(to) => for_the_logs(&delivery),
            None => Ok((delivery.head.clone(), delivery.flow_key.clone())),
        };
        let (head, flow_key) = match placed {
            Ok(placed) => placed,
            Err(why) => {
                kept.add(delivery.id, why);
                continue;
            }
        };
        settlement.tokens.push(delivery.token);
        ids.push(delivery.id);
        settlement.publishes.push(Publish {
            queue: to.clone(),
            id: delivery.id,
            priority: delivery.priority,
            // In quarantine a due time means nothing.
            due: due.filter(|_| from.as_str() != QUARANTINE),
            flow_key,
            head,
            body: Body::Kept(delivery.token),
        });
    }
    if ids.is_empty() {
        return Ok(0);
    }
    let results = broker.settle(settlement).await?;
    Ok(kept.settled(&ids, results))
}

fn for_pool(delivery: &Delivery, pool: PoolName) -> Result<(Bytes, FlowKey), String> {
    let head = MessageHead::decode(&delivery.head).map_err(|error| error.to_string())?;
    let flow_key = FlowKey::new(head.recipient.domain().as_str());
    Ok((MessageHead { pool, ..head }.encode().into(), flow_key))
}

fn for_the_logs(delivery: &Delivery) -> Result<(Bytes, FlowKey), String> {
    LogBatch::decode(&delivery.body).map_err(|error| error.to_string())?;
    Ok((Bytes::from_static(b"{}"), FlowKey::default()))
}
