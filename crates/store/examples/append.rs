//! Measures what a message costs in the store: its submission and one attempt,
//! in batches as the delivery logger writes them.
//!
//!     cargo run --release -p posthaste-store --example append -- [messages] [batch]

use std::{error::Error, fs, time::Instant};

use posthaste_model::{
    AttemptEvent, AttemptId, Clock, Disposition, EventKind, LogEvent, MessageId, PoolName, Reason,
    RecipientKind, SmtpReply, SubmissionEvent, SubmissionId, SubmittedMessage, SystemClock,
    TlsInfo,
};
use posthaste_store::{Period, Store, StoreConfig};
use serde_json::value::RawValue;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut numbers = std::env::args().skip(1).map(|text| text.parse::<usize>());
    let messages = numbers.next().transpose()?.unwrap_or(50_000);
    let batch = numbers.next().transpose()?.unwrap_or(500);
    let dir = tempfile::tempdir()?;
    let config =
        StoreConfig { dir: dir.path().to_owned(), period: Period::Monthly, retention: None };
    let store = Store::open(config).await?;
    let events = (0..messages).map(message).collect::<Result<Vec<_>, _>>()?.concat();

    let (started, cpu) = (Instant::now(), cpu_micros()?);
    for batch in events.chunks(batch) {
        store.append(batch).await?;
    }
    let (wall, cpu) = (started.elapsed(), cpu_micros()? - cpu);
    let per_message = |micros: f64| micros / messages as f64;
    println!("{messages} messages (2 events each), {batch} events a batch, synchronous=FULL");
    println!("cpu   {:6.1} us a message", per_message(cpu));
    println!("wall  {:6.1} us a message", per_message(wall.as_secs_f64() * 1e6));

    let started = Instant::now();
    for batch in events.chunks(batch) {
        store.append(batch).await?;
    }
    println!("again {:6.1} us a message", per_message(started.elapsed().as_secs_f64() * 1e6));

    let ids: Vec<_> = events.iter().filter_map(submission_id).step_by(50).collect();
    let started = Instant::now();
    for id in &ids {
        store.submission(*id).await?.ok_or("a submission is not there")?;
    }
    let wall = started.elapsed().as_secs_f64() * 1e6;
    println!("read  {:6.1} us a submission", wall / ids.len() as f64);

    store.close().await?;
    let sizes = fs::read_dir(dir.path())?.map(|entry| Ok(entry?.metadata()?.len()));
    let bytes: u64 = sizes.sum::<std::io::Result<u64>>()?;
    println!("disk  {:6.1} bytes a message", per_message(bytes as f64));
    Ok(())
}

fn submission_id(event: &LogEvent) -> Option<SubmissionId> {
    match event {
        LogEvent::Submission(event) => Some(event.submission_id),
        LogEvent::Attempt(_) => None,
    }
}

/// Both records of one message of ordinary size.
fn message(n: usize) -> Result<Vec<LogEvent>, Box<dyn Error>> {
    let (submission_id, message_id) = (SubmissionId::new(), MessageId::new());
    let recipient: posthaste_model::EmailAddress = format!("user{n}@example.net").parse()?;
    let now = SystemClock.now();
    let headers = format!(
        r#"[["Received","by mail.example.com (Posthaste) with HTTP id {message_id}; Tue, 24 Nov 2026 10:00:00 +0000"],["To","User <{recipient}>"],["Date","Tue, 24 Nov 2026 10:00:00 +0000"],["From","Example Shop <news@example.com>"],["Subject","Your order {n} has been sent"],["Message-ID","<{submission_id}@mail.example.com>"],["MIME-Version","1.0"],["Content-Type","multipart/alternative; boundary=\"{submission_id}\""]]"#
    );
    let client = r#"{"name":"client-1","pool":"default","ehlo":"mail.example.com","source":null,"connections":200,"per_domain":20,"retry":[300,900,3600,14400,86400],"tls":"opportunistic"}"#;
    let submission = SubmissionEvent {
        submission_id,
        time: now,
        interface: "http".into(),
        length_us: 80,
        source_address: "192.0.2.10".into(),
        token: Some("shop".into()),
        sender: "news@example.com".parse()?,
        subject: format!("Your order {n} has been sent"),
        tags: vec!["orders".parse()?],
        pool: PoolName::default(),
        priority: 5,
        size: 5120,
        due_at: None,
        messages: vec![SubmittedMessage {
            message_id,
            recipient: recipient.clone(),
            kind: RecipientKind::To,
        }],
    };
    let attempt = AttemptEvent {
        attempt_id: AttemptId::new(),
        message_id,
        submission_id,
        kind: EventKind::Attempt,
        disposition: Disposition::Delivered,
        reason: Reason::Accepted,
        detail: None,
        started_at: now,
        time: now,
        length_ms: 20,
        attempt: 1,
        reply: Some(SmtpReply {
            code: 250,
            enhanced: "2.0.0".parse().ok(),
            text: "Ok: queued as 4XyZ12ab".into(),
        }),
        recipient,
        pool: PoolName::default(),
        smtp_client: "client-1".into(),
        remote_host: Some("mx1.example.net".into()),
        remote_address: Some("192.0.2.1:25".into()),
        tls: Some(TlsInfo { version: "TLSv1.3".into(), cipher: "TLS13_AES_256_GCM_SHA384".into() }),
        next_attempt_at: None,
        headers: RawValue::from_string(headers)?,
        client: RawValue::from_string(client.into())?,
    };
    Ok(vec![LogEvent::Submission(submission), LogEvent::Attempt(attempt)])
}

/// CPU time of this process so far: fields 14 and 15 of `proc_pid_stat(5)`, in
/// hundredths of a second.
fn cpu_micros() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(')').ok_or("unexpected /proc/self/stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    Ok(ticks.sum::<Result<u64, _>>()? as f64 * 10_000.0)
}
