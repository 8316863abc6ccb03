//! `posthaste queue show`.

use std::{borrow::Cow, process::ExitCode};

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use posthaste_broker::embedded::StoredMessage;
use posthaste_mail::compress;
use posthaste_model::{MessageHead, MessageId};
use serde_json::{Value, json};

use super::{Opened, QueueArg, out, row};

/// Which message to show, and how.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The queue, or the name of a pool.
    queue: QueueArg,
    /// The message.
    id: MessageId,
    /// Write the message to standard output as it would go over the wire, and
    /// nothing else.
    #[arg(long, conflicts_with = "json")]
    raw: bool,
}

pub async fn execute(args: &ShowArgs, opened: &Opened, json: bool) -> anyhow::Result<ExitCode> {
    let QueueArg(queue) = &args.queue;
    let stored = opened.queue.message(args.id.into()).await?;
    let stored = stored.with_context(|| format!("{queue} does not hold {}", args.id))?;
    if stored.queue != *queue {
        bail!("{} is in {}, not in {queue}", args.id, stored.queue);
    }
    let content = content(&stored);
    if args.raw {
        let head = MessageHead::decode(stored.head.as_ref().map_err(|why| anyhow!("{why}"))?)?;
        out::bytes(&[head.fields.as_bytes(), &content?].concat())?;
        return Ok(ExitCode::SUCCESS);
    }
    let code = if content.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if json {
        out::json(&document(&stored, &content))?;
        return Ok(code);
    }
    out::lines([serde_json::to_string_pretty(&description(&stored))?, String::new()])?;
    match content {
        Ok(content) => out::bytes(printable(&String::from_utf8_lossy(&content)).as_bytes())?,
        Err(why) => out::lines([format!("({why:#})")])?,
    }
    Ok(code)
}

/// The content, decompressed; of a message for the logs its lines.
fn content(stored: &StoredMessage) -> anyhow::Result<Vec<u8>> {
    let body = stored.body.as_ref().map_err(|why| anyhow!("the content cannot be read: {why}"))?;
    let Ok(head) = MessageHead::decode(stored.head.as_deref().unwrap_or_default()) else {
        return Ok(body.to_vec());
    };
    Ok(compress::decompress(head.codec, body, usize::try_from(head.content_size)?)?)
}

/// Where it stands, and its record as it is.
fn description(stored: &StoredMessage) -> Value {
    let head = match &stored.head {
        Ok(head) => serde_json::from_slice(head)
            .unwrap_or_else(|_| String::from_utf8_lossy(head).into_owned().into()),
        Err(why) => json!({ "unreadable": why }),
    };
    json!({
        "id": stored.id.to_string(),
        "queue": stored.queue.as_str(),
        "state": row::state(stored.state),
        "due": row::due(stored.due),
        "flow_key": stored.flow_key.as_str(),
        "priority": stored.priority,
        "shared_body": stored.shared_body,
        "head": head,
    })
}

fn document(stored: &StoredMessage, content: &anyhow::Result<Vec<u8>>) -> Value {
    let mut value = description(stored);
    value["due"] = row::due_json(stored.due);
    match content {
        Ok(content) => value["content"] = String::from_utf8_lossy(content).into_owned().into(),
        Err(why) => value["unreadable"] = format!("{why:#}").into(),
    }
    value
}

/// Without what could steer a terminal: a mail is a stranger's text.
fn printable(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(is_plain) {
        return text.into();
    }
    let text = text.replace("\r\n", "\n");
    let escape = |c: char| {
        if is_plain(c) { c.to_string() } else { c.escape_default().to_string() }
    };
    text.chars().map(escape).collect::<String>().into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(super::printable("a\r\nb\x1b[2J\u{9b}\r"), "a\nb\\u{1b}[2J\\u{9b}\\r");
    }
}
