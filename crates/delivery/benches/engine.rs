//! What the engine costs: CPU time a message of a process that delivers a
//! backlog from the embedded queue to a sink in another process.
//!
//! `cargo bench -p posthaste-delivery` prints a line; `MESSAGES` sets how many.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use posthaste_broker::{
    Body, Broker, FlowKey, Publish, QueueName,
    embedded::{EmbeddedConfig, EmbeddedQueue},
};
use posthaste_delivery::{Journal, Metrics, Shared, SmtpClientConfig, metrics::AttemptLabels};
use posthaste_dns::{AddressPolicy, Resolver, ResolverConfig};
use posthaste_mail::compress;
use posthaste_model::{
    Codec, MessageHead, MessageId, PoolName, RECORD_VERSION, SubmissionId, SystemClock, Timestamp,
};
use posthaste_smtp::TlsClient;
use posthaste_trial::{
    dns::{TestDns, Zones},
    sink::{Keep, Sink, SinkConfig},
};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

type Failure = Box<dyn std::error::Error>;

const BATCH: usize = 200;
const DOMAINS: usize = 20;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    if std::env::var_os("ENGINE_BENCH_SINK").is_some() {
        return sink().await;
    }
    let messages: usize = match std::env::var("MESSAGES") {
        Ok(text) => text.parse()?,
        Err(_) => 20_000,
    };
    let (mut child, port) = spawn_sink()?;
    let measured = measure(messages, port).await;
    child.kill()?;
    child.wait()?;
    let (wall, cpu) = measured?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / messages as f64;
    println!(
        "{messages} messages of 5 KiB: {:.0}/s, {:.0} us of CPU a message",
        1e6 / each(wall),
        each(cpu)
    );
    Ok(())
}

async fn sink() -> Result<(), Failure> {
    let mut config = SinkConfig::new("127.0.0.1:0".parse()?);
    config.keep = Keep::Nothing;
    let sink = Sink::start(config).await?;
    println!("{}", sink.address().port());
    std::future::pending().await
}

fn spawn_sink() -> Result<(Child, u16), Failure> {
    let mut child = Command::new(std::env::current_exe()?)
        .env("ENGINE_BENCH_SINK", "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    Ok((child, line.trim().parse()?))
}

async fn measure(messages: usize, port: u16) -> Result<(Duration, Duration), Failure> {
    let dir = tempfile::tempdir()?;
    let clock = Arc::new(SystemClock);
    let queue = EmbeddedQueue::open(EmbeddedConfig::new(dir.path().join("queue")), clock.clone())?;
    let pool = QueueName::new("pool.default")?;
    fill(&queue, &pool, messages).await?;

    let zones = Zones::new().wildcard("mx.test", [127, 0, 0, 1]);
    let dns = TestDns::start("127.0.0.1:0".parse()?, zones).await?;
    let resolver = Resolver::new(ResolverConfig {
        servers: vec![dns.address()],
        addresses: AddressPolicy { allow_private: true, ..AddressPolicy::default() },
        ..ResolverConfig::default()
    })?;
    let (journal, _) = Journal::open(&dir.path().join("journal"))?;
    let metrics = Metrics::register(&mut Registry::default());
    let shared = Shared::new(
        queue.clone(),
        resolver,
        TlsClient::new()?,
        Arc::new(journal),
        clock,
        metrics.clone(),
    );
    let mut config = SmtpClientConfig::new("bench", PoolName::default(), "client.test");
    config.port = port;
    let shutdown = CancellationToken::new();
    let (started, cpu) = (Instant::now(), cpu_time()?);
    let running = tokio::spawn(posthaste_delivery::run(config, Arc::new(shared), shutdown.clone()));
    while queue.depth(&pool).await?.total() > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let measured = (started.elapsed(), cpu_time()? - cpu);
    shutdown.cancel();
    running.await??;
    let delivered = metrics.attempts.get_or_create(&AttemptLabels {
        smtp_client: "bench".into(),
        disposition: "delivered",
        reason: "accepted",
    });
    if delivered.get() != messages as u64 {
        return Err(format!("only {} were delivered", delivered.get()).into());
    }
    Ok(measured)
}

async fn fill(queue: &EmbeddedQueue, pool: &QueueName, messages: usize) -> Result<(), Failure> {
    let mut content = String::from("Subject: bench\r\nFrom: a@sender.test\r\n\r\n");
    let mut rng = fastrand::Rng::with_seed(1);
    while content.len() < 5 << 10 {
        content.extend((0..70).map(|_| rng.alphanumeric()));
        content.push_str("\r\n");
    }
    let body = compress::compress(Codec::Zstd, content.as_bytes(), compress::DEFAULT_LEVEL)?;
    let body = Bytes::from(body);
    let mut number = 0;
    while number < messages {
        let count = BATCH.min(messages - number);
        let batch = (0..count).map(|n| {
            let domain = format!("d{}.test", (number + n) % DOMAINS);
            let head = head(&format!("b@{domain}"), content.len())?;
            Ok(Publish {
                queue: pool.clone(),
                id: head.message_id.into(),
                priority: 5,
                due: None,
                flow_key: FlowKey::new(&domain),
                head: head.encode().into(),
                // Bodies of their own, as single submissions have.
                body: Body::Inline(body.clone()),
            })
        });
        queue.publish(batch.collect::<Result<_, Failure>>()?).await?;
        number += count;
    }
    Ok(())
}

fn head(recipient: &str, size: usize) -> Result<MessageHead, Failure> {
    Ok(MessageHead {
        v: RECORD_VERSION,
        submission_id: SubmissionId::new(),
        message_id: MessageId::new(),
        return_path: Some("a@sender.test".parse()?),
        recipient: recipient.parse()?,
        sender_domain: "sender.test".parse()?,
        pool: PoolName::default(),
        priority: 5,
        tags: vec![],
        accepted_at: Timestamp::from_millis(0),
        attempts: 0,
        first_attempt_at: None,
        expires_at: None,
        smtputf8: false,
        eight_bit: false,
        codec: Codec::Zstd,
        content_size: u32::try_from(size)?,
        fields: format!(
            "Received: by client.test (Posthaste) with HTTP id x;\r\n\tTue, 24 Nov 2026 08:00:00 \
             +0000\r\nTo: {recipient}\r\n"
        ),
    })
}

/// User and system time of this process.
fn cpu_time() -> Result<Duration, Failure> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks = |index: usize| -> Result<u64, Failure> {
        Ok(fields.get(index).ok_or("short /proc/self/stat")?.parse()?)
    };
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    Ok(Duration::from_millis((ticks(11)? + ticks(12)?) * 10))
}
