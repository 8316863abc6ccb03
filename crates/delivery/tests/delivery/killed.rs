//! A process that is killed in the midst of deliveries, again and again: no
//! message is lost, and one is delivered twice only if its outcome was not in
//! the journal when the process was killed.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    process::{Child, Command},
    time::Duration,
};

use posthaste_delivery::journal;
use posthaste_model::MessageId;
use posthaste_trial::sink::{Received, RuleStage};

use crate::stage::{Stage, delay, one_host};

const DIR: &str = "POSTHASTE_TEST_DELIVERY";
const PORT: &str = "POSTHASTE_TEST_PORT";
const MESSAGES: u128 = 400;
const KILLS: usize = 6;

fn id_of(n: u128) -> MessageId {
    MessageId::from_bytes((0x77 << 64 | n).to_be_bytes())
}

fn number_of(received: &Received) -> u128 {
    received.recipients[0].split('@').next().unwrap().parse().unwrap()
}

/// Not a test of its own: the process that is killed. It ends when the queue
/// is empty.
#[tokio::test]
async fn delivering_process() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let dir = Path::new(&dir);
    let first = !dir.join("queue").exists();
    let mut stage = Stage::within(dir, one_host("a.test")).await;
    stage.config.port = std::env::var(PORT).unwrap().parse().unwrap();
    if first {
        for n in 0..MESSAGES {
            let mut head = stage.head(&format!("{n}@a.test"));
            head.message_id = id_of(n);
            stage.send_head(&head).await;
        }
    }
    let running = stage.start();
    while stage.depth().await.total() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stage.stop(running).await;
}

fn spawn(dir: &Path, port: u16) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::delivering_process"])
        .env(DIR, dir)
        .env(PORT, port.to_string())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn nothing_is_lost_and_only_what_was_not_journalled_is_delivered_twice() {
    let dir = tempfile::tempdir().unwrap();
    let mut stage = Stage::new(one_host("a.test")).await;
    let mut sink = stage.sink("127.0.0.1", vec![delay(RuleStage::EndOfData, 5)]).await;
    let mut copies: HashMap<MessageId, u32> = HashMap::new();
    let mut excused = HashSet::new();
    for _ in 0..KILLS {
        let mut child = spawn(dir.path(), sink.sink.address().port());
        for _ in 0..50 {
            *copies.entry(id_of(number_of(&sink.next().await))).or_default() += 1;
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let left = journal::read(&dir.path().join("journal")).unwrap();
        excused.extend(left.iter().filter(|a| !a.has_final).map(|attempt| attempt.message_id));
    }
    let mut child = spawn(dir.path(), sink.sink.address().port());
    let ended = tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap();
    assert!(ended.success());
    while let Ok(received) = sink.received.try_recv() {
        *copies.entry(id_of(number_of(&received))).or_default() += 1;
    }
    assert_eq!(sink.sink.stats().unobserved, 0);
    assert_eq!(copies.len() as u128, MESSAGES, "some were lost");
    let twice: Vec<_> = copies.iter().filter(|(_, count)| **count > 1).collect();
    for (id, count) in &twice {
        assert!(excused.contains(id), "{id} came {count} times, and its outcome was journalled");
    }
    println!("{} of {MESSAGES} came again after {KILLS} kills", twice.len());
}
