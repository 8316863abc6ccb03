//! `delay` and `schedule`: the first attempt is not before the submitted time,
//! and soon after it; with both, `delay` counts.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use serde_json::json;

use crate::support::Stage;

#[tokio::test]
async fn scheduled_is_not_early() -> Result<()> {
    let mut stage = Stage::start(&[]).await?;
    let (begin, begin_wall) = (Instant::now(), SystemTime::now());
    // Seconds are cut off: this is from two to three seconds away.
    let schedule = begin_wall.duration_since(UNIX_EPOCH)?.as_secs() + 3;
    let far = schedule + 86_400;
    for (to, options) in [
        ("now@a.test", json!({})),
        ("delay@a.test", json!({"delay": 2})),
        ("schedule@a.test", json!({"schedule": schedule})),
        ("both@a.test", json!({"delay": 2, "schedule": far})),
    ] {
        let mut submission =
            json!({"from": "a@example.com", "to": to, "subject": "Later", "text": "hello"});
        for (key, value) in options.as_object().into_iter().flatten() {
            submission[key] = value.clone();
        }
        stage.node.submit(&submission).await?;
    }
    let first = stage.received(1).await?;
    assert_eq!(first[0].recipient, "now@a.test");
    let schedule = UNIX_EPOCH + Duration::from_secs(schedule);
    for _ in 0..3 {
        let mails = stage.received(1).await?;
        match mails[0].recipient.as_str() {
            "delay@a.test" | "both@a.test" => {
                assert!(begin.elapsed() >= Duration::from_secs(2), "too early");
            }
            "schedule@a.test" => assert!(SystemTime::now() >= schedule, "too early"),
            other => panic!("mail for {other}"),
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "too late: {:?}", begin.elapsed());
    Ok(())
}
