//! The client along its list of nodes.

use posthaste_broker::LinkState;
use posthaste_broker_stomp::{Client, LinkError, SettingsError, StaleToken, client::Epochs};
use tokio::time::timeout;

use crate::peer::{ARTEMIS, Broker, SOON, config, message, receive};

async fn wait_for(client: &Client, wanted: impl Fn(&LinkState) -> bool) -> LinkState {
    let mut state = client.link_state();
    timeout(SOON, state.wait_for(|state| wanted(state))).await.unwrap().unwrap().clone()
}

#[tokio::test]
async fn walks_the_list_and_tokens_die() {
    let (first, second) = (Broker::start().await, Broker::start().await);
    let (one, two) = (first.node(), second.node());
    let client = Client::start(config(vec![one, two]), Epochs::default()).unwrap();
    let mut peer = first.connected(ARTEMIS).await;
    let old = client.connection(SOON).await.unwrap();
    wait_for(&client, |state| *state == LinkState::Up).await;
    let request = receive();
    let (subscription, id) = tokio::join!(old.subscribe(&request), peer.subscribed());
    let mut subscription = subscription.unwrap();
    peer.say(&message(&id, 1, "x")).await;
    let token = subscription.next().await.unwrap()[0].token.unwrap();
    // The node dies: the next one in the list takes over.
    drop((peer, first));
    let mut peer = second.connected(ARTEMIS).await;
    let new = client.connection(SOON).await.unwrap();
    assert!(new.epoch() > old.epoch());
    assert_eq!(new.acknowledge_durably(&[token]).await, Ok(vec![Err(StaleToken)]));
    let gone = old.acknowledge(&[token]).await.unwrap_err();
    assert!(matches!(gone, LinkError::ClosedByPeer | LinkError::Io(_)), "{gone}");
    // The same number of another epoch is nothing either.
    let (subscription, id) = tokio::join!(new.subscribe(&request), peer.subscribed());
    let mut subscription = subscription.unwrap();
    peer.say(&message(&id, 1, "x")).await;
    let again = subscription.next().await.unwrap()[0].token.unwrap();
    assert_eq!(new.acknowledge(&[token]).await, Ok(vec![Err(StaleToken)]));
    assert_eq!(new.acknowledge(&[again]).await, Ok(vec![Ok(())]));
}

#[tokio::test]
async fn comes_back_when_the_broker_does() {
    let broker = Broker::start().await;
    let client = Client::start(broker.config(), Epochs::default()).unwrap();
    for _ in 0..3 {
        let peer = broker.connected(ARTEMIS).await;
        wait_for(&client, |state| *state == LinkState::Up).await;
        drop(peer);
        let down = wait_for(&client, |state| *state != LinkState::Up).await;
        assert!(matches!(&down, LinkState::Down(cause) if cause.contains("closed")), "{down:?}");
    }
}

#[tokio::test]
async fn a_wrong_setting_is_told_at_once_and_tried_again() {
    let broker = Broker::start().await;
    let client = Client::start(broker.config(), Epochs::default()).unwrap();
    let peer = broker.connected("RabbitMQ/4.0").await;
    let cause = client.connection(SOON).await.unwrap_err();
    assert_eq!(cause, LinkError::Settings(SettingsError::RabbitMq("RabbitMQ/4.0".into())));
    wait_for(&client, |state| matches!(state, LinkState::Down(c) if c.contains("AMQP"))).await;
    drop(peer);
    let _peer = broker.connected(ARTEMIS).await;
    wait_for(&client, |state| *state == LinkState::Up).await;
}

#[tokio::test]
async fn closes_in_order_and_stays_closed() {
    let broker = Broker::start().await;
    let client = Client::start(broker.config(), Epochs::default()).unwrap();
    let mut peer = broker.connected(ARTEMIS).await;
    client.connection(SOON).await.unwrap();
    let (closed, frames) = tokio::join!(client.close(SOON), peer.confirm_all());
    assert_eq!(closed, Ok(()));
    assert_eq!(frames.len(), 1, "{frames:?}");
    wait_for(&client, |state| *state == LinkState::Down("it is closed".to_owned())).await;
    assert_eq!(client.connection(SOON).await.unwrap_err(), LinkError::Closed);
}

#[tokio::test]
async fn needs_a_node() {
    let error = Client::start(config(vec![]), Epochs::default()).unwrap_err();
    assert!(matches!(error, LinkError::Invalid(_)), "{error}");
}
