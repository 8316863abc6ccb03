//! A token names the sender domains and the pools that it may use.

use anyhow::Result;
use hyper::StatusCode;
use posthaste_show::http::Client;
use serde_json::{Value, json};

use crate::support::Stage;

const SECRET: &str = "correct-horse-battery";

#[tokio::test]
async fn tokens_scope() -> Result<()> {
    let sections = format!(
        "[[token]]\nname = \"shop\"\nsecret = \"{SECRET}\"\n\
         sender_domains = [\"shop.test\"]\npools = [\"default\"]\n"
    );
    let stage = Stage::start_with(&[], &sections).await?;
    let submission = |from: &str, pool: &str| json!({"from": from, "to": "b@a.test", "subject": "x", "text": "x", "pool": pool});
    let good = submission("a@shop.test", "default");
    for (token, submission, status, pointer) in [
        (None, &good, StatusCode::UNAUTHORIZED, None),
        (Some("correct-horse-batterx"), &good, StatusCode::UNAUTHORIZED, None),
        (
            Some(SECRET),
            &submission("a@other.test", "default"),
            StatusCode::FORBIDDEN,
            Some("/from"),
        ),
        (
            Some(SECRET),
            &submission("a@sub.shop.test", "default"),
            StatusCode::FORBIDDEN,
            Some("/from"),
        ),
        (Some(SECRET), &submission("a@shop.test", "bulk"), StatusCode::FORBIDDEN, Some("/pool")),
        (Some(SECRET), &good, StatusCode::ACCEPTED, None),
    ] {
        let mut client = Client::connect(stage.node.api()).await?;
        if let Some(token) = token {
            client = client.with_token(token)?;
        }
        let answer = client.post("/v1/submissions", submission.to_string()).await?;
        assert_eq!(answer.status, status, "{token:?} {submission}: {}", answer.text());
        let json: Value = answer.json()?;
        let pointed = json["errors"][0]["pointer"].as_str();
        assert!(pointed.unwrap_or("").starts_with(pointer.unwrap_or("")), "{json:#}");
    }
    // What is not known by a token is not told without one either.
    let mut client = Client::connect(stage.node.api()).await?;
    let answer = client.get("/v1/submissions/01890a5d-ac96-774b-bcce-b302099a8057").await?;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    Ok(())
}
