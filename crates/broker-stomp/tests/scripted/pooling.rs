//! Many who publish share few connections.

use std::{sync::Arc, time::Duration};

use posthaste_broker_stomp::{
    LinkError, Pool, PoolConfig, Publication, SendOutcome,
    client::Epochs,
    codec::{Command, Frame},
};
use tokio::time::timeout;

use crate::peer::{ARTEMIS, Broker, SOON, config, nobody, send};

const CLASSIC: &str = "ActiveMQ/5.17.2";

fn pool(broker: &Broker, connections: usize) -> Pool {
    let bounds = PoolConfig { connections, connection_wait: SOON, ..PoolConfig::default() };
    Pool::start(&broker.config(), bounds, &Epochs::default()).unwrap()
}

#[tokio::test]
async fn requests_are_on_the_way_together() {
    let broker = Broker::start().await;
    let pool = Arc::new(pool(&broker, 1));
    let mut peer = broker.connected(ARTEMIS).await;
    let mut requests = tokio::task::JoinSet::new();
    for n in 0..20 {
        let pool = Arc::clone(&pool);
        requests.spawn(async move { pool.publish(vec![send(&n.to_string())]).await });
    }
    // All come before the first is confirmed.
    let mut frames = Vec::new();
    for _ in 0..20 {
        frames.push(peer.frame().await);
    }
    for frame in &frames {
        peer.confirm(frame).await;
    }
    while let Some(outcomes) = requests.join_next().await {
        assert_eq!(outcomes.unwrap(), [SendOutcome::Durable]);
    }
}

#[tokio::test]
async fn a_batch_keeps_its_order_and_its_outcomes() {
    let broker = Broker::start().await;
    let pool = pool(&broker, 2);
    let mut peers = [broker.connected(ARTEMIS).await, broker.connected(ARTEMIS).await];
    let mut batch: Vec<Publication> = (0..5).map(|n| send(&n.to_string())).collect();
    batch[2].priority = 99;
    let [one, two] = &mut peers;
    // Both close with the pool.
    let answering = async {
        let (mut frames, others) = tokio::join!(one.confirm_all(), two.confirm_all());
        frames.extend(others);
        frames
    };
    let publishing = async move {
        let outcomes = pool.publish(batch).await;
        drop(pool);
        outcomes
    };
    let (outcomes, frames) = tokio::join!(publishing, answering);
    let durable = outcomes.iter().filter(|outcome| **outcome == SendOutcome::Durable).count();
    assert_eq!(durable, 4);
    assert!(matches!(outcomes[2], SendOutcome::Rejected(_)), "{outcomes:?}");
    let bodies: Vec<_> = frames
        .iter()
        .filter(|frame| frame.command == Command::Send)
        .map(|frame| String::from_utf8_lossy(&frame.body).into_owned())
        .collect();
    assert_eq!(bodies, ["0", "1", "3", "4"]);
}

#[tokio::test]
async fn one_refused_message_fails_alone_on_classic() {
    let broker = Broker::start().await;
    let pool = Arc::new(pool(&broker, 1));
    let serving = tokio::spawn(serve_classic(broker));
    let batch = vec![send("a"), send("poison"), send("b")];
    let outcomes = timeout(SOON, pool.publish(batch)).await.unwrap();
    assert_eq!(
        outcomes,
        [
            SendOutcome::Durable,
            SendOutcome::Rejected("the broker reports: poison refused".into()),
            SendOutcome::Durable
        ]
    );
    drop(pool);
    serving.abort();
}

/// Refuses what says poison, and a transaction with it.
async fn serve_classic(broker: Broker) {
    loop {
        let mut peer = broker.connected(CLASSIC).await;
        let mut poisoned = false;
        while let Some(frame) = peer.next().await {
            let poison = frame.body == "poison";
            poisoned |= poison && frame.headers.get("transaction").is_some();
            let Some(receipt) = frame.headers.get("receipt") else { continue };
            let refused = poison || (poisoned && frame.command == Command::Commit);
            if refused {
                let text = format!("ERROR\nreceipt-id:{receipt}\nmessage:poison refused\n\n\0");
                peer.say(&text).await;
            } else {
                peer.confirm(&frame).await;
            }
        }
    }
}

#[tokio::test]
async fn what_gathers_on_classic_is_one_transaction() {
    let broker = Broker::start().await;
    let pool = Arc::new(pool(&broker, 1));
    let mut peer = broker.connected(CLASSIC).await;
    let publish = |batch: Vec<Publication>| {
        let pool = Arc::clone(&pool);
        tokio::spawn(async move { pool.publish(batch).await })
    };
    let first = publish(vec![send("first")]);
    let alone = peer.frame().await;
    assert_eq!(alone.command, Command::Send);
    // While it waits for its receipt, two more come: on this runtime of one
    // thread they are both there before anybody looks.
    let both = publish(vec![send("second"), send("third")]);
    tokio::task::yield_now().await;
    peer.confirm(&alone).await;
    let mut frames: Vec<Frame> = Vec::new();
    while frames.last().is_none_or(|frame| frame.command != Command::Commit) {
        frames.push(peer.frame().await);
    }
    peer.confirm(frames.last().unwrap()).await;
    let commands: Vec<_> = frames.iter().map(|frame| frame.command).collect();
    assert_eq!(commands, [Command::Begin, Command::Send, Command::Send, Command::Commit]);
    assert_eq!(first.await.unwrap(), [SendOutcome::Durable]);
    assert_eq!(both.await.unwrap(), [SendOutcome::Durable, SendOutcome::Durable]);
}

#[tokio::test]
async fn without_a_connection_all_is_unknown_in_time() {
    let (_socket, node) = nobody();
    let mut config = config(vec![node]);
    config.options.connect_timeout = Duration::from_millis(100);
    let bounds = PoolConfig {
        connections: 1,
        connection_wait: Duration::from_millis(50),
        ..PoolConfig::default()
    };
    let pool = Pool::start(&config, bounds, &Epochs::default()).unwrap();
    let outcomes = timeout(SOON, pool.publish(vec![send("a"), send("b")])).await.unwrap();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|outcome| matches!(outcome, SendOutcome::Unknown(_))));
}

#[tokio::test]
async fn bounds_are_checked() {
    let broker = Broker::start().await;
    let config = broker.config();
    for bounds in [
        PoolConfig { connections: 0, ..PoolConfig::default() },
        PoolConfig { connections: 65, ..PoolConfig::default() },
        PoolConfig { queue: 0, ..PoolConfig::default() },
        PoolConfig { batch: 0, ..PoolConfig::default() },
        PoolConfig { batch: 1001, ..PoolConfig::default() },
    ] {
        let error = Pool::start(&config, bounds, &Epochs::default()).unwrap_err();
        assert!(matches!(error, LinkError::Invalid(_)), "{bounds:?}: {error}");
    }
}
