//! A load generator: submissions of 5 KiB over kept-open connections.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hyper::{StatusCode, body::Bytes};
use serde::Deserialize;
use tokio::task::JoinSet;

use crate::http::Client;

/// Bytes of text in each submission.
const TEXT: usize = 5 * 1024;
/// Recipient domains, which all have the same MX.
pub const DOMAINS: [&str; 4] = ["a.test", "b.test", "c.test", "d.test"];

/// What to do when the server is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFailure {
    /// End with an error.
    End,
    /// Connect again; the submission without an answer is not repeated.
    Reconnect,
}

/// A message that was answered with 202.
#[derive(Debug, Clone)]
pub struct Confirmed {
    /// The message id.
    pub id: String,
    /// From the request to the answer.
    pub took: Duration,
}

/// What a load run came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every confirmed message.
    pub confirmed: Vec<Confirmed>,
    /// Submissions that got no answer, or an answer other than 202.
    pub unconfirmed: u64,
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    tasks: JoinSet<Result<Outcome>>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    api: SocketAddr,
    texts: Vec<String>,
    limit: u64,
    next: AtomicU64,
    ended: AtomicBool,
    on_failure: OnFailure,
}

impl Load {
    /// Starts `connections` connections that submit `limit` messages in all.
    #[must_use]
    pub fn start(api: SocketAddr, connections: usize, limit: u64, on_failure: OnFailure) -> Self {
        let (next, ended) = (AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { api, texts: texts(), limit, next, ended, on_failure });
        let mut tasks = JoinSet::new();
        for _ in 0..connections {
            tasks.spawn(submit_all(Arc::clone(&shared)));
        }
        Self { tasks, shared }
    }

    /// Lets each connection finish what it has begun.
    pub fn end(&self) {
        self.shared.ended.store(true, Ordering::Relaxed);
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When a connection ended with an error.
    pub async fn finish(mut self) -> Result<Outcome> {
        let mut all = Outcome::default();
        while let Some(outcome) = self.tasks.join_next().await {
            let outcome = outcome??;
            all.confirmed.extend(outcome.confirmed);
            all.unconfirmed += outcome.unconfirmed;
        }
        Ok(all)
    }
}

async fn submit_all(shared: Arc<Shared>) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let mut client = None;
    while !shared.ended.load(Ordering::Relaxed) {
        let mut connected = match client.take() {
            Some(connected) => connected,
            None => match Client::connect(shared.api).await {
                Ok(connected) => connected,
                Err(error) if shared.on_failure == OnFailure::End => return Err(error),
                Err(_) => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    continue;
                }
            },
        };
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        if number >= shared.limit {
            break;
        }
        match submit(&mut connected, shared.body(number)).await {
            Ok(confirmed) => {
                outcome.confirmed.push(confirmed);
                client = Some(connected);
            }
            Err(error) if shared.on_failure == OnFailure::End => return Err(error),
            Err(_) => outcome.unconfirmed += 1,
        }
    }
    Ok(outcome)
}

#[derive(Deserialize)]
struct Answer {
    messages: Vec<AnswerMessage>,
}

#[derive(Deserialize)]
struct AnswerMessage {
    id: String,
}

async fn submit(client: &mut Client, body: Bytes) -> Result<Confirmed> {
    let begin = Instant::now();
    let answer = client.post("/v1/submissions", body).await?;
    let took = begin.elapsed();
    if answer.status != StatusCode::ACCEPTED {
        bail!("a submission was answered with {}: {}", answer.status, answer.text());
    }
    let answer: Answer = serde_json::from_slice(&answer.body)?;
    let message = answer.messages.into_iter().next().context("an answer without a message")?;
    Ok(Confirmed { id: message.id, took })
}

impl Shared {
    fn body(&self, number: u64) -> Bytes {
        let domain = DOMAINS[number as usize % DOMAINS.len()];
        let text = &self.texts[number as usize % self.texts.len()];
        format!(
            "{{\"from\":\"sender@example.com\",\"to\":\"r{number}@{domain}\",\
             \"subject\":\"Message {number}\",\"text\":\"{text}\"}}"
        )
        .into()
    }
}

/// Texts that compress about as well as prose: words of a small vocabulary in
/// an order that differs.
fn texts() -> Vec<String> {
    const WORDS: &str = "order number thank you for your parcel will arrive on Monday the \
        invoice is attached please reply within fourteen days our shop has new offers every \
        week account customer service delivery address changed confirm by following this link";
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut next = || {
        // xorshift64: any spread will do here, the same in every run.
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    let mut text = || {
        let mut text = String::with_capacity(TEXT);
        while text.len() < TEXT {
            let number = next();
            text.push_str(words[number as usize % words.len()]);
            text.push_str(if number >> 60 == 0 { ".\\n" } else { " " });
        }
        text.truncate(TEXT);
        // Not in the middle of an escape.
        text.truncate(text.trim_end_matches('\\').len());
        text
    };
    (0..64).map(|_| text()).collect()
}

/// The value below which `share` (0 to 1) of the confirmations took.
#[must_use]
pub fn quantile(confirmed: &[Confirmed], share: f64) -> Duration {
    let mut all: Vec<Duration> = confirmed.iter().map(|one| one.took).collect();
    all.sort_unstable();
    let last = all.len().saturating_sub(1);
    all.get((last as f64 * share) as usize).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_of_the_right_size() {
        let shared = Shared {
            api: ([127, 0, 0, 1], 1).into(),
            texts: texts(),
            limit: 1,
            next: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            on_failure: OnFailure::End,
        };
        for number in 0..100 {
            let body: serde_json::Value = serde_json::from_slice(&shared.body(number)).unwrap();
            let size = body["text"].as_str().unwrap().len();
            assert!((4900..=TEXT).contains(&size), "{size}");
        }
    }
}
