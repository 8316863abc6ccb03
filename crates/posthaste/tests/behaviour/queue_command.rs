//! `posthaste queue` on a directory that a stopped process has left: what it
//! lists is what is there, what it removes is on record, and what it cannot do
//! without losing something it refuses.

use std::{
    path::Path,
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use posthaste_broker::{
    Body, Broker, Browsed, Credit, FlowKey, MessageState, Publish, QueueName, SubscribeOptions,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_delivery::{Journal, journal};
use posthaste_mail::compress;
use posthaste_model::{
    AttemptId, Codec, Disposition, LogBatch, LogEvent, MessageHead, MessageId, PoolName,
    RECORD_VERSION, Reason, SubmissionId, SystemClock, Timestamp,
};
use serde_json::Value;
use tempfile::TempDir;
use uuid::Uuid;

use crate::support::PROGRAM;

const CONTENT: &str = "Subject: greeting\r\n\r\nhello\r\n";
/// Far ahead, whenever this runs.
const LATER: Timestamp = Timestamp::from_millis(4_000_000_000_000);

/// A data directory whose queue holds what the test puts there.
struct Directory(TempDir);

impl Directory {
    async fn with(messages: Vec<Publish>) -> Result<Self> {
        let directory = Self(tempfile::tempdir()?);
        let queue = directory.open()?;
        queue.publish(messages).await?;
        queue.close(Duration::from_secs(10)).await?;
        Ok(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn open(&self) -> Result<Arc<EmbeddedQueue>> {
        let config = EmbeddedConfig::new(self.path().join("queue"));
        Ok(EmbeddedQueue::open(config, Arc::new(SystemClock))?)
    }

    /// All that a queue holds.
    async fn browse(&self, queue: &str) -> Result<Vec<Browsed>> {
        let open = self.open()?;
        let found = open.browse(&QueueName::new(queue)?, None, 1000).await?;
        open.close(Duration::from_secs(10)).await?;
        Ok(found)
    }

    /// Runs the command.
    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(PROGRAM);
        command.arg("queue").arg("--data-dir").arg(self.path()).args(args);
        Ok(command.output()?)
    }

    /// Runs the command with `--json`: whether it succeeded, and its document.
    fn json(&self, args: &[&str]) -> Result<(bool, Value)> {
        let output = self.run(&[&["--json"], args].concat())?;
        let document = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok((output.status.success(), document))
    }
}

fn head(recipient: &str) -> Result<MessageHead> {
    Ok(MessageHead {
        v: RECORD_VERSION,
        submission_id: SubmissionId::new(),
        message_id: MessageId::new(),
        return_path: Some("bounces@example.com".parse()?),
        recipient: recipient.parse()?,
        sender_domain: "example.com".parse()?,
        pool: PoolName::default(),
        priority: 5,
        tags: Vec::new(),
        accepted_at: Timestamp::from_millis(1_764_000_000_000),
        attempts: 0,
        first_attempt_at: None,
        expires_at: None,
        smtputf8: false,
        eight_bit: false,
        codec: Codec::Zstd,
        content_size: u32::try_from(CONTENT.len())?,
        fields: format!("To: {recipient}\r\n"),
    })
}

fn publish(queue: &str, head: &MessageHead) -> Result<Publish> {
    let body = compress::compress(Codec::Zstd, CONTENT.as_bytes(), compress::DEFAULT_LEVEL)?;
    Ok(Publish {
        queue: QueueName::new(queue)?,
        id: head.message_id.into(),
        priority: head.priority,
        due: None,
        flow_key: FlowKey::new(head.recipient.domain().as_str()),
        head: head.encode().into(),
        body: Body::Inline(body.into()),
    })
}

/// The recipients of a list.
fn recipients(list: &Value) -> Vec<&str> {
    let messages = list["messages"].as_array().map_or(&[][..], Vec::as_slice);
    messages.iter().filter_map(|message| message["recipient"].as_str()).collect()
}

#[tokio::test]
async fn lists_and_shows_what_is_there() -> Result<()> {
    let mut first = head("first@a.test")?;
    first.tags = vec!["w47".parse()?];
    let (second, third) = (head("second@b.test")?, head("third@a.test")?);
    let later = Publish { due: Some(LATER), ..publish("pool.default", &third)? };
    let directory = Directory::with(vec![
        publish("pool.default", &first)?,
        publish("pool.default", &second)?,
        later,
        publish("pool.bulk", &head("bulk@a.test")?)?,
    ])
    .await?;

    let (_, queues) = directory.json(&["list"])?;
    let queue = &queues["queues"][1];
    assert_eq!(queue["queue"], "pool.default", "{queues:#}");
    assert_eq!((&queue["ready"], &queue["delayed"]), (&2.into(), &1.into()), "{queues:#}");
    assert_eq!(queue["next_due"], LATER.as_millis(), "{queues:#}");
    assert_eq!(queue["oldest"], 1_764_000_000_000_i64, "{queues:#}");
    assert_eq!(queues["queues"].as_array().map(Vec::len), Some(2), "{queues:#}");

    for (args, expected) in [
        (&["list", "default"][..], &["first@a.test", "second@b.test", "third@a.test"][..]),
        (&["list", "pool.default", "--tag", "w47"], &["first@a.test"]),
        (&["list", "default", "--recipient", "*@A.test"], &["first@a.test", "third@a.test"]),
        (&["list", "default", "--due"], &["first@a.test", "second@b.test"]),
        (
            &["list", "default", "--after", &first.message_id.to_string(), "--limit", "1"],
            &["second@b.test"],
        ),
        (&["list", "none"], &[]),
    ] {
        let (success, list) = directory.json(args)?;
        assert!(success && recipients(&list) == expected, "{args:?}: {list:#}");
    }
    let (_, page) = directory.json(&["list", "default", "--limit", "2"])?;
    assert_eq!(page["next_after"], second.message_id.to_string());

    let id = first.message_id.to_string();
    let raw = directory.run(&["show", "default", &id, "--raw"])?;
    assert_eq!(String::from_utf8(raw.stdout)?, format!("To: first@a.test\r\n{CONTENT}"));
    let (_, shown) = directory.json(&["show", "default", &id])?;
    assert_eq!(shown["head"]["recipient"], "first@a.test", "{shown:#}");
    assert_eq!(shown["content"], CONTENT);
    let text = String::from_utf8(directory.run(&["show", "default", &id])?.stdout)?;
    assert!(text.contains("\"first@a.test\"") && text.contains("hello"), "{text}");
    assert!(!directory.run(&["show", "bulk", &id])?.status.success());
    Ok(())
}

#[tokio::test]
async fn a_purged_message_is_on_record() -> Result<()> {
    let (gone, stays) = (head("gone@a.test")?, head("stays@a.test")?);
    // Not due, and behind another one of its domain: it is found all the same.
    let later = Publish { due: Some(LATER), ..publish("pool.default", &gone)? };
    let directory = Directory::with(vec![publish("pool.default", &stays)?, later]).await?;
    let purge = ["purge", "default", "--recipient", "gone@*"];

    let (success, told) = directory.json(&purge)?;
    assert!(!success && told["would_purge"] == 1, "{told:#}");
    assert_eq!(directory.browse("pool.default").await?.len(), 2);
    let unknown =
        directory.run(&["purge", "default", "--yes", "--id", &Uuid::now_v7().to_string()])?;
    assert!(!unknown.status.success());
    assert!(!directory.run(&["purge", "default", "--yes"])?.status.success());
    assert_eq!(directory.browse("pool.default").await?.len(), 2);

    let (success, told) = directory.json(&[&purge[..], &["--yes"]].concat())?;
    assert!(success && told["purged"] == 1, "{told:#}");
    let left = directory.browse("pool.default").await?;
    assert_eq!(
        left.iter().map(|one| one.id.into()).collect::<Vec<MessageId>>(),
        [stays.message_id]
    );
    let events = logged(&directory).await?;
    let [LogEvent::Attempt(event)] = &events[..] else { panic!("{events:?}") };
    assert_eq!(event.message_id, gone.message_id);
    assert_eq!((event.disposition, event.reason), (Disposition::Undeliverable, Reason::Stopped));
    assert_eq!(event.detail.as_deref(), Some("purged by the operator"));
    assert!(event.headers.get().contains("greeting"), "{}", event.headers);

    // What is on its way to the logs cannot be purged.
    assert!(!directory.run(&["purge", "delivery-logs", "--all", "--yes"])?.status.success());
    assert_eq!(logged(&directory).await?.len(), 1);
    Ok(())
}

/// The events on their way to the logs.
async fn logged(directory: &Directory) -> Result<Vec<LogEvent>> {
    let queue = directory.open()?;
    let options = SubscribeOptions {
        credit: Credit { messages: 100, bytes: 1 << 20 },
        flow_messages: 100,
        exclusive: false,
    };
    let mut subscription = queue.subscribe(&QueueName::new("delivery-logs")?, options).await?;
    let handed = tokio::time::timeout(Duration::from_secs(10), subscription.next()).await??;
    let mut events = Vec::new();
    for delivery in handed {
        events.extend(LogBatch::decode(&delivery.body)?.0);
    }
    drop(subscription);
    queue.close(Duration::from_secs(10)).await?;
    Ok(events)
}

#[tokio::test]
async fn what_the_journal_has_to_settle_is_left_alone() -> Result<()> {
    let head = head("delivered@a.test")?;
    let directory = Directory::with(vec![publish("pool.default", &head)?]).await?;
    let (journal, _) = Journal::open(&directory.path().join("journal"))?;
    let (attempt_id, message_id) = (AttemptId::new(), head.message_id);
    let time = Timestamp::from_millis(1_764_000_000_000);
    journal.start(&journal::Start {
        attempt_id,
        message_id,
        submission_id: head.submission_id,
        recipient: head.recipient.clone(),
        pool: head.pool.clone(),
        smtp_client: "c1".into(),
        number: 1,
        time,
    })?;
    let (event, next) = ("{}\n".into(), journal::Next::Acknowledge);
    journal.finish(&journal::Final { attempt_id, message_id, number: 1, time, event, next })?;
    drop(journal);

    for args in [&["purge", "default", "--all", "--yes"][..], &["move", "default", "quarantine"]] {
        let (success, told) = directory.json(args)?;
        assert!(!success && told["kept_examples"][0]["id"] == message_id.to_string(), "{told:#}");
    }
    assert_eq!(directory.browse("pool.default").await?.len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_moved_message_is_the_same_one_elsewhere() -> Result<()> {
    let (ready, later) = (head("ready@a.test")?, head("later@a.test")?);
    let back = head("back@a.test")?;
    let garbage = Publish {
        id: Uuid::now_v7(),
        head: b"not a record".as_slice().into(),
        ..publish("quarantine", &head("x@a.test")?)?
    };
    let delayed = Publish { due: Some(LATER), ..publish("pool.default", &later)? };
    let messages =
        vec![publish("pool.default", &ready)?, delayed, publish("quarantine", &back)?, garbage];
    let directory = Directory::with(messages).await?;

    // A pool that nothing is known of may be a slip of the pen.
    assert!(!directory.run(&["move", "default", "slwo"])?.status.success());
    let (success, told) = directory.json(&["move", "default", "slow", "--create"])?;
    assert!(success && told["moved"] == 2, "{told:#}");
    assert!(directory.browse("pool.default").await?.is_empty());
    let moved = directory.browse("pool.slow").await?;
    for (one, before, due, state) in [
        (&moved[0], &ready, None, MessageState::Ready),
        (&moved[1], &later, Some(LATER), MessageState::Delayed),
    ] {
        assert_eq!((one.id, one.due, one.state), (before.message_id.into(), due, state));
        let pool = "slow".parse()?;
        assert_eq!(MessageHead::decode(&one.head)?, MessageHead { pool, ..before.clone() });
    }
    let raw = directory.run(&["show", "slow", &later.message_id.to_string(), "--raw"])?;
    assert_eq!(String::from_utf8(raw.stdout)?, format!("To: later@a.test\r\n{CONTENT}"));

    let (success, told) = directory.json(&["move", "quarantine", "slow"])?;
    assert!(!success && told["moved"] == 1 && told["kept"] == 1, "{told:#}");
    assert!(
        told["kept_examples"][0]["why"].as_str().is_some_and(|why| why.contains("head")),
        "{told:#}"
    );
    assert_eq!(directory.browse("quarantine").await?.len(), 1);
    let moved = directory.browse("pool.slow").await?;
    assert_eq!((moved[2].id, moved[2].state), (back.message_id.into(), MessageState::Ready));
    Ok(())
}

#[tokio::test]
async fn a_message_that_the_disk_has_damaged_is_kept_until_it_is_purged_from_quarantine()
-> Result<()> {
    let (damaged, whole) = (head("damaged@a.test")?, head("whole@a.test")?);
    let mark = b"the bytes to be damaged";
    let body = Body::Inline(mark.as_slice().into());
    let broken = Publish { body, ..publish("pool.default", &damaged)? };
    let directory = Directory::with(vec![broken, publish("pool.default", &whole)?]).await?;
    flip(&directory.path().join("queue"), mark)?;

    let (success, told) = directory.json(&["purge", "default", "--all", "--yes"])?;
    assert!(!success && told["purged"] == 1, "{told:#}");
    assert_eq!(told["kept_examples"][0]["id"], damaged.message_id.to_string(), "{told:#}");
    assert_eq!(directory.browse("quarantine").await?.len(), 1);
    let (success, told) = directory.json(&["move", "quarantine", "default", "--create"])?;
    assert!(!success && told["moved"] == 0, "{told:#}");

    let (success, told) = directory.json(&["purge", "quarantine", "--all", "--yes"])?;
    assert!(success && told["purged"] == 1, "{told:#}");
    assert!(directory.browse("quarantine").await?.is_empty());
    let events = logged(&directory).await?;
    let of = |event: &LogEvent| match event {
        LogEvent::Attempt(event) => event.message_id,
        LogEvent::Submission(_) => MessageId::from_bytes([0; 16]),
    };
    assert_eq!(events.iter().map(of).collect::<Vec<_>>(), [whole.message_id, damaged.message_id]);
    Ok(())
}

/// Flips a bit of the bytes that `mark` stands for, in the one segment that
/// has them.
fn flip(queue: &Path, mark: &[u8]) -> Result<(std::path::PathBuf, usize)> {
    for entry in std::fs::read_dir(queue)? {
        let path = entry?.path();
        let mut bytes = std::fs::read(&path)?;
        if let Some(at) = bytes.windows(mark.len()).position(|window| window == mark) {
            bytes[at] ^= 1;
            std::fs::write(&path, bytes)?;
            return Ok((path, at));
        }
    }
    anyhow::bail!("no segment has the mark")
}

#[tokio::test]
async fn a_queue_that_is_in_use_or_missing_is_left_alone() -> Result<()> {
    let directory = Directory::with(vec![publish("pool.default", &head("a@a.test")?)?]).await?;
    let open = directory.open()?;
    for args in [&["list"][..], &["verify"], &["purge", "default", "--all", "--yes"]] {
        let refused = directory.run(args)?;
        let said = String::from_utf8(refused.stderr)?;
        assert!(!refused.status.success() && said.contains("stop Posthaste first"), "{said}");
    }
    open.close(Duration::from_secs(10)).await?;

    let empty = Directory(tempfile::tempdir()?);
    let refused = empty.run(&["list"])?;
    assert!(String::from_utf8(refused.stderr)?.contains("no queue"));
    assert!(!refused.status.success() && !empty.path().join("queue").exists());
    Ok(())
}

#[tokio::test]
async fn damage_is_reported_with_its_place() -> Result<()> {
    let mark = b"the bytes to be damaged";
    let damaged = head("damaged@a.test")?;
    let body = Body::Inline(mark.as_slice().into());
    let broken = Publish { body, ..publish("pool.default", &damaged)? };
    let directory =
        Directory::with(vec![broken, publish("pool.default", &head("b@a.test")?)?]).await?;
    let (success, report) = directory.json(&["verify"])?;
    assert!(success && report["whole"] == true && report["messages"] == 2, "{report:#}");

    let (path, at) = flip(&directory.path().join("queue"), mark)?;
    let before = std::fs::read(&path)?;
    let (success, report) = directory.json(&["verify"])?;
    assert!(!success && report["whole"] == false, "{report:#}");
    assert_eq!(report["damaged_messages"], 1, "{report:#}");
    let problem = &report["problems"][0];
    assert_eq!(problem["file"], path.display().to_string(), "{report:#}");
    // The place of the body, or of the frame that it is in.
    let offset = problem["offset"].as_u64().context("no offset")?;
    assert!(offset <= at as u64, "{report:#}");
    let text = String::from_utf8(directory.run(&["verify"])?.stdout)?;
    assert!(text.contains(&format!("at byte {offset}")) && text.contains("DAMAGED"), "{text}");
    assert_eq!(std::fs::read(&path)?, before, "verification changed a file");
    Ok(())
}

#[tokio::test]
async fn compaction_gives_the_disk_back() -> Result<()> {
    let noise: Vec<u8> =
        (0..200_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let (mut messages, mut purge) = (Vec::new(), vec!["purge".to_owned(), "default".to_owned()]);
    for number in 0..200 {
        let head = head(&format!("r{number}@a.test"))?;
        if number % 10 != 0 {
            purge.extend(["--id".to_owned(), head.message_id.to_string()]);
        }
        let body = Body::Inline(noise.clone().into());
        messages.push(Publish { body, ..publish("pool.default", &head)? });
    }
    let directory = Directory::with(messages).await?;
    let config = directory.path().join("small.toml");
    let data_dir = directory.path().display();
    std::fs::write(
        &config,
        format!("data_dir = \"{data_dir}\"\n[queue]\nsegment_size = \"1MiB\"\n"),
    )?;
    purge.push("--yes".to_owned());
    let purge: Vec<&str> = purge.iter().map(String::as_str).collect();
    let (success, told) = directory.json(&purge)?;
    assert!(success && told["purged"] == 180, "{told:#}");

    let output = Command::new(PROGRAM)
        .args(["queue", "compact", "--json", "--config"])
        .arg(config)
        .output()?;
    let told: Value = serde_json::from_slice(&output.stdout)?;
    let bytes = |key: &str| told[key].as_u64().unwrap_or_default();
    assert!(output.status.success() && bytes("after") < 10 << 20, "{told:#}");
    assert!(bytes("before") > 30 << 20, "{told:#}");
    assert_eq!(directory.browse("pool.default").await?.len(), 20);
    Ok(())
}
