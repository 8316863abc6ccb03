//! Nothing is accepted when there is no room for it.

use std::{sync::atomic::Ordering, time::Duration};

use posthaste_api::AdmissionConfig;
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::{
    client::Answer,
    node::{Node, Settings},
    server::mail,
};

async fn start(dir: &TempDir, admission: AdmissionConfig) -> Node {
    Node::start(dir.path(), Settings { admission, ..Settings::default() }).await
}

/// Posts until the answer is `status`: what was seen counts for a second.
async fn post_until(node: &Node, status: u16) -> Answer {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = node.post(&mail()).await;
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < end, "still {answer:?}");
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_full_queue_refuses_until_it_is_emptied() {
    let dir = TempDir::new().unwrap();
    let config =
        AdmissionConfig { queue_messages: 4, disk_reserve: 0, ..AdmissionConfig::default() };
    let node = start(&dir, config).await;
    // A message and a log each.
    for _ in 0..2 {
        assert_eq!(node.post(&mail()).await.status, 202);
    }
    let refused = post_until(&node, 503).await;
    assert_eq!(refused.problem(), "queue_full");
    assert_eq!(refused.header("retry-after"), "10");
    let ready = node.get("/readyz").await;
    assert_eq!((ready.status, ready.errors()), (503, vec![(String::new(), "queue_full".into())]));
    let metrics = node.get("/metrics").await.body;
    for line in ["api_refusing 1", "api_refused_total{code=\"queue_full\"}"] {
        assert!(metrics.contains(line), "{line} in {metrics}");
    }
    assert!(!metrics.contains("\nqueue_messages 0"), "{metrics}");
    node.consume("pool.default").await;
    node.consume("submission-logs").await;
    post_until(&node, 202).await;
    assert!(node.get("/metrics").await.body.contains("api_refusing 0"));
}

#[tokio::test]
async fn a_disk_at_its_reserve_refuses() {
    let dir = TempDir::new().unwrap();
    let disk = Some(dir.path().to_owned());
    let reserve = |disk_reserve| AdmissionConfig {
        disk_reserve,
        disk: disk.clone(),
        ..AdmissionConfig::default()
    };
    let node = start(&dir, reserve(u64::MAX)).await;
    let refused = node.post(&mail()).await;
    assert_eq!((refused.status, refused.problem().as_str()), (503, "disk_reserve"));
    assert_eq!(node.get("/readyz").await.errors(), [(String::new(), "disk_reserve".to_owned())]);
    assert_eq!(node.depth("pool.default").await, 0);
    node.kill().await;
    let node = start(&dir, reserve(1)).await;
    assert_eq!(node.post(&mail()).await.status, 202);
    let metrics = node.get("/metrics").await.body;
    assert!(metrics.contains("\ndisk_free_bytes ") && !metrics.contains("\ndisk_free_bytes 0\n"));
}

#[tokio::test]
async fn a_disk_that_cannot_be_asked_refuses_nothing() {
    let dir = TempDir::new().unwrap();
    let disk = Some(dir.path().join("not there"));
    let config = AdmissionConfig { disk_reserve: u64::MAX, disk, ..AdmissionConfig::default() };
    assert_eq!(start(&dir, config).await.post(&mail()).await.status, 202);
}

#[tokio::test]
async fn it_looks_once_a_second_however_many_ask() {
    let dir = TempDir::new().unwrap();
    let node = start(&dir, AdmissionConfig::default()).await;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(node.get("/readyz").await.status, 200);
    }
    let looks = u64::from(node.broker.looks.load(Ordering::Relaxed));
    assert!((1..=began.elapsed().as_secs() + 1).contains(&looks), "{looks} looks");
}
