//! Pools: declared or made by their first use, and what waits in them.

use posthaste_api::{ApiConfig, Auth, Secret, Token};
use posthaste_intake::{IntakeConfig, Pools, UnknownPool};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    node::{Node, Settings},
    server::mail,
};

fn intake(unknown: UnknownPool) -> IntakeConfig {
    let known = ["bulk".parse().unwrap(), "news".parse().unwrap()].into();
    IntakeConfig { pools: Pools { known, unknown }, ..IntakeConfig::new("mta.example.com") }
}

fn to_pool(pool: &str, delay: u32) -> Value {
    let mut mail = mail();
    mail["pool"] = json!(pool);
    mail["delay"] = json!(delay);
    mail
}

fn pool(name: &str, declared: bool, ready: u32, delayed: u32) -> Value {
    let depth = json!({"ready": ready, "delayed": delayed, "unacknowledged": 0});
    json!({"name": name, "declared": declared, "depth": depth})
}

#[tokio::test]
async fn all_pools_and_their_depths() {
    let dir = TempDir::new().unwrap();
    let settings = Settings { intake: intake(UnknownPool::Create), ..Settings::default() };
    let node = Node::start(dir.path(), settings).await;
    for (pool, delay) in [("bulk", 0), ("bulk", 60), ("bulk", 60), ("first-use", 0)] {
        assert_eq!(node.post(&to_pool(pool, delay)).await.status, 202);
    }
    let answer = node.get("/v1/pools").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"));
    let expected = json!({"pools": [
        pool("bulk", true, 1, 2),
        pool("default", true, 0, 0),
        pool("first-use", false, 1, 0),
        pool("news", true, 0, 0),
    ]});
    assert_eq!(answer.json(), expected);
}

#[tokio::test]
async fn a_pool_that_nobody_declared_is_refused_where_that_is_wanted() {
    let dir = TempDir::new().unwrap();
    let settings = Settings { intake: intake(UnknownPool::Refuse), ..Settings::default() };
    let node = Node::start(dir.path(), settings).await;
    let refused = node.post(&json!([to_pool("bulk", 0), to_pool("bulkk", 0)])).await;
    assert_eq!(refused.status, 422);
    assert_eq!(refused.errors(), [("/1/pool".to_owned(), "pool_unknown".to_owned())]);
    assert_eq!(node.post(&to_pool("default", 0)).await.status, 202);
    let pools = node.get("/v1/pools").await.json();
    let names: Vec<_> = pools["pools"].as_array().unwrap().iter().map(|p| &p["name"]).collect();
    assert_eq!(names, ["bulk", "default", "news"]);
}

#[tokio::test]
async fn a_token_sees_its_pools() {
    let dir = TempDir::new().unwrap();
    let pools = Some(vec!["news".parse().unwrap()]);
    let auth = Auth::Tokens(vec![Token::new("shop", Secret::new("s3cret"), None, pools)]);
    let api = ApiConfig { auth, ..ApiConfig::default() };
    let settings = Settings { api, intake: intake(UnknownPool::Create), ..Settings::default() };
    let node = Node::start(dir.path(), settings).await;
    assert_eq!(node.get("/v1/pools").await.status, 401);
    let answer = node.ask("GET", "/v1/pools", &[("Authorization", "Bearer s3cret")], b"").await;
    assert_eq!(answer.json(), json!({"pools": [pool("news", true, 0, 0)]}));
}
