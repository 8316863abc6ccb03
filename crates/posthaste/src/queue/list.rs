//! `posthaste queue list`.

use std::{ops::ControlFlow, process::ExitCode};

use clap::Args;
use posthaste_broker::{Broker, Depth, MessageState, QueueName};
use posthaste_model::Timestamp;
use serde_json::{Value, json};

use super::{
    Opened, QueueArg, out,
    place::END_OF_TIME,
    progress::Progress,
    row::{self, Row},
    select::matches,
    walk::walk,
};
use crate::table;

/// What to list.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// The queue, or the name of a pool; without it all queues.
    queue: Option<QueueArg>,
    /// Begin behind this message: the last of the page before.
    #[arg(long, value_name = "ID", requires = "queue")]
    after: Option<posthaste_model::MessageId>,
    /// Most messages that are listed, up to 10000.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000), value_name = "N")]
    limit: u32,
    /// Only those with this tag.
    #[arg(long, requires = "queue")]
    tag: Option<String>,
    /// Only those to recipients like this: * stands for any text, case does
    /// not matter.
    #[arg(long, value_name = "PATTERN", requires = "queue")]
    recipient: Option<String>,
    /// Only those that are due.
    #[arg(long, requires = "queue")]
    due: bool,
}

pub async fn execute(args: &ListArgs, opened: &Opened, json: bool) -> anyhow::Result<ExitCode> {
    let broker: &dyn Broker = &*opened.queue;
    match &args.queue {
        Some(QueueArg(queue)) => list_messages(args, broker, queue, json).await?,
        None => list_queues(broker, json).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// What is told of a queue.
#[derive(Debug)]
struct Summary {
    queue: QueueName,
    depth: Depth,
    bytes: u64,
    oldest: Option<Timestamp>,
    next_due: Option<Timestamp>,
}

async fn summary(broker: &dyn Broker, queue: QueueName) -> anyhow::Result<Summary> {
    let depth = broker.depth(&queue).await?;
    let mut progress = Progress::new("looking at messages:", Some(depth.total()));
    let (mut bytes, mut oldest, mut next_due) = (0, None::<Timestamp>, None::<Timestamp>);
    walk(broker, &queue, None, &mut progress, |message| {
        let row = Row::new(message);
        bytes += row.bytes();
        oldest = earlier(oldest, row.accepted_at());
        if row.message.state == MessageState::Delayed {
            next_due = earlier(next_due, row.message.due.filter(|due| *due != END_OF_TIME));
        }
        ControlFlow::Continue(())
    })
    .await?;
    Ok(Summary { queue, depth, bytes, oldest, next_due })
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

impl Summary {
    fn cells(&self) -> Vec<String> {
        let time =
            |time: Option<Timestamp>| time.map_or_else(|| "-".to_owned(), |t| row::due(Some(t)));
        vec![
            self.queue.to_string(),
            self.depth.ready.to_string(),
            self.depth.delayed.to_string(),
            self.depth.unacknowledged.to_string(),
            out::size(self.bytes),
            time(self.oldest),
            time(self.next_due),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "queue": self.queue.as_str(),
            "ready": self.depth.ready,
            "delayed": self.depth.delayed,
            "unacknowledged": self.depth.unacknowledged,
            "bytes": self.bytes,
            "oldest": row::due_json(self.oldest),
            "next_due": row::due_json(self.next_due),
        })
    }
}

async fn list_queues(broker: &dyn Broker, json: bool) -> anyhow::Result<()> {
    let mut queues = broker.queues().await?;
    queues.sort();
    let mut summaries = Vec::with_capacity(queues.len());
    for queue in queues {
        summaries.push(summary(broker, queue).await?);
    }
    if json {
        let queues: Vec<Value> = summaries.iter().map(Summary::json).collect();
        return out::json(&json!({ "queues": queues }));
    }
    if summaries.is_empty() {
        return out::lines(["the queue is empty"]);
    }
    let headings = ["queue", "ready", "delayed", "unacknowledged", "bytes", "oldest", "next due"];
    let mut rows = vec![headings.map(str::to_owned).to_vec()];
    rows.extend(summaries.iter().map(Summary::cells));
    out::lines(table::lines(&rows))
}

async fn list_messages(
    args: &ListArgs,
    broker: &dyn Broker,
    queue: &QueueName,
    json: bool,
) -> anyhow::Result<()> {
    let limit = usize::try_from(args.limit)?;
    let mut rows = Vec::new();
    let mut is_more = false;
    let mut progress = Progress::new("looking at messages:", None);
    walk(broker, queue, args.after.map(Into::into), &mut progress, |message| {
        let row = Row::new(message);
        if !args.takes(&row) {
            return ControlFlow::Continue(());
        }
        if rows.len() == limit {
            is_more = true;
            return ControlFlow::Break(());
        }
        rows.push(row);
        ControlFlow::Continue(())
    })
    .await?;
    drop(progress);
    let next = rows.last().filter(|_| is_more).map(|row| row.message.id.to_string());
    if json {
        let messages: Vec<Value> = rows.iter().map(Row::json).collect();
        return out::json(&json!({ "messages": messages, "next_after": next }));
    }
    if rows.is_empty() {
        return out::lines([format!("no such messages in {queue}")]);
    }
    let mut cells = vec![Row::HEADINGS.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(Row::cells));
    let mut lines = table::lines(&cells);
    lines.extend(next.map(|id| format!("there are more: --after {id}")));
    out::lines(lines)
}

impl ListArgs {
    fn takes(&self, row: &Row) -> bool {
        let recipient = |pattern: &String| {
            row.head.as_ref().is_ok_and(|head| matches(pattern, head.recipient.as_str()))
        };
        self.tag.as_ref().is_none_or(|tag| row.has_tag(tag))
            && self.recipient.as_ref().is_none_or(recipient)
            && (!self.due || row.message.state == MessageState::Ready)
    }
}
