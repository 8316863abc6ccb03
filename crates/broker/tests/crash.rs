//! `kill -9` of a process that publishes and settles, again and again: what it
//! was told is durable is there, and nothing else.
//!
//! The test starts itself as the process to be killed. That one says on its
//! output what it is about to do and what was confirmed:
//!
//! ```text
//! p ID    about to publish          P ID    published
//! a ID    about to acknowledge      A ID    acknowledged
//!                                   D ID    deferred
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test, though without the harness"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use posthaste_broker::{
    Body, Broker, BrokerError, Credit, Delivery, FlowKey, Publish, QueueName, Settlement,
    SubscribeOptions,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_model::{Clock, SystemClock};
use uuid::Uuid;

const DIR: &str = "POSTHASTE_CRASH_TEST_DIR";
const ROUNDS: u64 = 20;
const CREDIT: SubscribeOptions = SubscribeOptions {
    credit: Credit { messages: 100, bytes: 1 << 20 },
    flow_messages: 100,
    exclusive: false,
};

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var_os(DIR) {
        Some(dir) => runtime.block_on(child(Path::new(&dir))),
        None => runtime.block_on(parent()),
    }
}

fn open(dir: &Path) -> Result<Arc<EmbeddedQueue>, BrokerError> {
    let config = EmbeddedConfig {
        // Small, so that the kills meet new and removed segments too.
        segment_bytes: 32 << 10,
        cache_bytes: 64 << 10,
        ..EmbeddedConfig::new(dir)
    };
    EmbeddedQueue::open(config, Arc::new(SystemClock))
}

fn pool() -> QueueName {
    QueueName::new("pool").unwrap()
}

fn body(id: Uuid) -> Bytes {
    let len = usize::from(id.as_bytes()[15]) * 8;
    Bytes::from(id.as_bytes().repeat(1 + len / 16))
}

fn message(id: Uuid) -> Publish {
    Publish {
        queue: pool(),
        id,
        priority: id.as_bytes()[13] % 10,
        due: None,
        flow_key: FlowKey::new(["a.test", "b.test"][usize::from(id.as_bytes()[12] % 2)]),
        head: Bytes::from_static(b"head"),
        body: Body::Inline(body(id)),
    }
}

/// Each line whole or not at all: a pipe takes so few bytes at once.
fn say<'a>(what: char, ids: impl IntoIterator<Item = &'a Uuid>) {
    let mut out = std::io::stdout().lock();
    for id in ids {
        out.write_all(format!("{what} {id}\n").as_bytes()).unwrap();
        out.flush().unwrap();
    }
}

async fn child(dir: &Path) {
    let queue = open(dir).unwrap();
    for worker in 0..3 {
        let queue = Arc::clone(&queue);
        tokio::spawn(async move {
            for round in worker.. {
                let ids: Vec<_> = (0..round % 5 + 1).map(|_| Uuid::now_v7()).collect();
                say('p', &ids);
                queue.publish(ids.iter().map(|id| message(*id)).collect()).await.unwrap();
                say('P', &ids);
            }
        });
    }
    let mut subscription = queue.subscribe(&pool(), CREDIT).await.unwrap();
    loop {
        for some in subscription.next().await.unwrap().chunks(7) {
            settle(&queue, some).await;
        }
    }
}

async fn settle(queue: &EmbeddedQueue, some: &[Delivery]) {
    let (deferred, done): (Vec<_>, Vec<_>) =
        some.iter().partition(|delivery| delivery.id.as_bytes()[14] % 3 == 0);
    let copies = deferred.iter().map(|delivery| Publish {
        due: Some(SystemClock.now().plus(Duration::from_millis(20))),
        head: Bytes::from_static(b"deferred"),
        body: Body::Kept(delivery.token),
        ..message(delivery.id)
    });
    let settlement = Settlement {
        tokens: some.iter().map(|delivery| delivery.token).collect(),
        publishes: copies.collect(),
    };
    say('a', done.iter().map(|delivery| &delivery.id));
    for result in queue.settle(settlement).await.unwrap() {
        result.unwrap();
    }
    say('D', deferred.iter().map(|delivery| &delivery.id));
    say('A', done.iter().map(|delivery| &delivery.id));
}

/// What is known of the messages. The lines of one message may come in any
/// order, since who publishes and who settles do not wait for each other.
#[derive(Default)]
struct Books {
    publishing: BTreeSet<Uuid>,
    published: BTreeSet<Uuid>,
    acknowledging: BTreeSet<Uuid>,
    acknowledged: BTreeSet<Uuid>,
    deferred: BTreeSet<Uuid>,
    confirmed: u64,
}

impl Books {
    fn read(&mut self, line: &str) {
        let Some((what, id)) = line.split_once(' ') else { return };
        let Ok(id) = id.parse::<Uuid>() else { return };
        let book = match what {
            "p" => &mut self.publishing,
            "P" => &mut self.published,
            "a" => &mut self.acknowledging,
            "A" => &mut self.acknowledged,
            "D" => &mut self.deferred,
            _ => panic!("{line}"),
        };
        book.insert(id);
        self.confirmed += u64::from(what.chars().all(char::is_uppercase));
    }

    fn check(&mut self, found: BTreeMap<Uuid, Bytes>) {
        for id in self.published.difference(&self.acknowledging) {
            assert!(found.contains_key(id), "{id} is lost");
        }
        for (id, head) in &found {
            assert!(self.publishing.contains(id), "{id} is invented");
            assert!(!self.acknowledged.contains(id), "{id} was acknowledged");
            assert!(!self.deferred.contains(id) || head == "deferred", "a deferral is lost");
        }
        // From here on it is known.
        self.publishing = found.into_keys().collect();
        self.published = self.publishing.clone();
        self.acknowledging.clear();
    }
}

async fn parent() {
    let dir = tempfile::tempdir().unwrap();
    let mut books = Books::default();
    for round in 0..ROUNDS {
        kill_one(dir.path(), round, &mut books);
        let found = all(dir.path()).await;
        books.check(found);
    }
    assert!(books.confirmed > 1000, "hardly anything was done");
    assert!(!books.deferred.is_empty() && !books.acknowledged.is_empty());
    println!("crash: {ROUNDS} kills, {} confirmed, lost 0, invented 0", books.confirmed);
}

fn kill_one(dir: &Path, round: u64, books: &mut Books) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    books.read(&lines.next().unwrap().unwrap());
    let refused = open(dir).err().expect("two processes have the queue open");
    assert!(matches!(refused, BrokerError::InUse(_)), "{refused}");
    let reader = std::thread::spawn(move || lines.map_while(Result::ok).collect::<Vec<_>>());
    // Anywhere in what it does; the place differs from run to run.
    std::thread::sleep(Duration::from_micros(20_000 + round * 12_347 % 150_000));
    child.kill().unwrap();
    child.wait().unwrap();
    for line in reader.join().unwrap() {
        books.read(&line);
    }
}

/// All that is there, with its head.
async fn all(dir: &Path) -> BTreeMap<Uuid, Bytes> {
    let queue = open(dir).unwrap();
    let total = queue.depth(&pool()).await.unwrap().total();
    let ample = SubscribeOptions {
        credit: Credit { messages: u32::MAX, bytes: u64::MAX },
        flow_messages: u32::MAX,
        exclusive: false,
    };
    let mut subscription = queue.subscribe(&pool(), ample).await.unwrap();
    let mut found = BTreeMap::new();
    while (found.len() as u64) < total {
        let next = tokio::time::timeout(Duration::from_secs(30), subscription.next()).await;
        for delivery in next.expect("what is there comes").unwrap() {
            assert_eq!(delivery.body, body(delivery.id), "the body of another message");
            assert!(delivery.redelivered);
            let twice = found.insert(delivery.id, delivery.head);
            assert!(twice.is_none(), "{} is there twice", delivery.id);
        }
    }
    found
}
