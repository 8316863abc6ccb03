//! Idempotency keys: claimed by one, answered once, kept for their time.

#![allow(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test may, as the test")]

use std::{os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use posthaste_model::Timestamp;
use posthaste_store::{Claim, ClaimRequest, Claimed, Control, KeptAnswer, StoreError};
use tempfile::tempdir;

const LEASE: Duration = Duration::from_secs(30);
const KEEP: Duration = Duration::from_secs(86_400);

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_millis(1_764_000_000_000 + seconds * 1000)
}

/// A request by `holder` for `key` of a body that hashes to `body`.
fn request(key: u8, body: u8, holder: u64, now: Timestamp) -> ClaimRequest {
    let seed = [holder.to_le_bytes()[0]; 16];
    let (key, fingerprint) = ([key; 32], [body; 32]);
    ClaimRequest { key, fingerprint, seed, holder, now, lease: LEASE, keep: KEEP }
}

async fn open(dir: &Path) -> Control {
    Control::open(dir.join("control")).await.unwrap()
}

async fn claim(control: &Control, key: u8, body: u8, holder: u64, now: Timestamp) -> Claimed {
    control.claim(request(key, body, holder, now)).await.unwrap()
}

fn fresh(claimed: Claimed) -> Claim {
    let Claimed::Fresh(claim) = claimed else { panic!("{claimed:?}") };
    claim
}

#[tokio::test]
async fn the_life_of_a_key() {
    let dir = tempdir().unwrap();
    let control = open(dir.path()).await;
    let first = fresh(claim(&control, 1, 1, 7, at(0)).await);
    assert_eq!((first.seed, first.time), ([7; 16], at(0)));
    // While it is worked on.
    assert_eq!(claim(&control, 1, 1, 8, at(29)).await, Claimed::InFlight { until: at(30) });
    assert_eq!(claim(&control, 1, 2, 8, at(29)).await, Claimed::OtherRequest);
    assert!(control.renew(&first, at(59)).await.unwrap());
    assert_eq!(claim(&control, 1, 1, 8, at(30)).await, Claimed::InFlight { until: at(59) });
    // Another key is nobody's.
    fresh(claim(&control, 2, 1, 8, at(30)).await);
    let answer = KeptAnswer { status: 202, body: Some(b"{}".to_vec()) };
    assert!(control.answer(&first, answer.clone()).await.unwrap());
    // Answered once: nothing changes it any more.
    let other = KeptAnswer { status: 500, body: None };
    assert!(!control.answer(&first, other).await.unwrap());
    assert!(!control.renew(&first, at(0)).await.unwrap());
    assert!(!control.release(&first).await.unwrap());
    for now in [31, 100, 86_399] {
        let again = claim(&control, 1, 1, 9, at(now)).await;
        let Claimed::Answered { claim, answer: kept } = again else { panic!("{again:?}") };
        assert_eq!((claim.seed, claim.time, &kept), (first.seed, first.time, &answer));
    }
    assert_eq!(claim(&control, 1, 2, 9, at(86_399)).await, Claimed::OtherRequest);
    // A day later it is a new key, for whatever request.
    fresh(claim(&control, 1, 2, 9, at(86_400)).await);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_taken_over_with_seed_and_time() {
    let dir = tempdir().unwrap();
    let control = open(dir.path()).await;
    let first = fresh(claim(&control, 1, 1, 7, at(0)).await);
    // As a process that is killed: nothing is told, nothing is closed.
    drop(control);
    let control = open(dir.path()).await;
    assert_eq!(claim(&control, 1, 1, 8, at(10)).await, Claimed::InFlight { until: at(30) });
    assert_eq!(claim(&control, 1, 2, 8, at(40)).await, Claimed::OtherRequest);
    let second = claim(&control, 1, 1, 8, at(30)).await;
    let Claimed::TakenOver(second) = second else { panic!("{second:?}") };
    assert_eq!((second.seed, second.time), (first.seed, first.time));
    // It has a lease of its own, and the first holder has nothing to say.
    assert_eq!(claim(&control, 1, 1, 9, at(59)).await, Claimed::InFlight { until: at(60) });
    let answer = KeptAnswer { status: 202, body: None };
    assert!(!control.renew(&first, at(99)).await.unwrap());
    assert!(!control.release(&first).await.unwrap());
    assert!(!control.answer(&first, answer.clone()).await.unwrap());
    assert!(control.answer(&second, answer.clone()).await.unwrap());
    drop(control);
    let control = open(dir.path()).await;
    let again = claim(&control, 1, 1, 9, at(61)).await;
    assert!(matches!(&again, Claimed::Answered { answer: kept, .. } if *kept == answer));
}

#[tokio::test]
async fn a_key_given_back_is_new() {
    let dir = tempdir().unwrap();
    let control = open(dir.path()).await;
    let first = fresh(claim(&control, 1, 1, 7, at(0)).await);
    assert!(control.release(&first).await.unwrap());
    assert!(!control.release(&first).await.unwrap());
    let second = fresh(claim(&control, 1, 2, 8, at(1)).await);
    assert_eq!(second.seed, [8; 16]);
    // A lease that is ended is not given back: its seed is kept.
    assert!(control.renew(&second, at(1)).await.unwrap());
    let third = claim(&control, 1, 2, 9, at(1)).await;
    assert!(matches!(&third, Claimed::TakenOver(claim) if claim.seed == [8; 16]), "{third:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_at_once_one_gets_it() {
    let dir = tempdir().unwrap();
    let control = Arc::new(open(dir.path()).await);
    for key in 0..20 {
        let tasks: Vec<_> = (0..16)
            .map(|holder| {
                let control = Arc::clone(&control);
                tokio::spawn(async move { claim(&control, key, 1, holder, at(0)).await })
            })
            .collect();
        let mut got = 0;
        for task in tasks {
            match task.await.unwrap() {
                Claimed::Fresh(_) => got += 1,
                other => assert_eq!(other, Claimed::InFlight { until: at(30) }),
            }
        }
        assert_eq!(got, 1);
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_is_done_all_the_same_or_not() {
    let dir = tempdir().unwrap();
    let control = open(dir.path()).await;
    for key in 0..50 {
        let calling = control.claim(request(key, 1, 7, at(0)));
        // Given up after a while that differs.
        let given_up = tokio::time::timeout(Duration::from_micros(u64::from(key) * 40), calling);
        let was_given_up = given_up.await.is_err();
        match claim(&control, key, 1, 8, at(1)).await {
            Claimed::InFlight { .. } => {}
            // It was never sent; its reply was not given either.
            Claimed::Fresh(_) => assert!(was_given_up),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn expired_keys_go() {
    let dir = tempdir().unwrap();
    let control = open(dir.path()).await;
    for key in 0..100 {
        fresh(claim(&control, key, 1, 7, at(0)).await);
    }
    for key in 100..120 {
        fresh(claim(&control, key, 1, 7, at(86_400)).await);
    }
    control.close().await.unwrap();
    use sqlx::Connection;
    let path = dir.path().join("control/control.db");
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o077, 0, "others may read it: {mode:o}");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let count = "SELECT count(*) FROM idempotency_keys";
    let left: i64 = sqlx::query_scalar(count).fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 20, "16 go with each claim");
}

#[tokio::test]
async fn its_end_and_its_errors() {
    let dir = tempdir().unwrap();
    let control = open(dir.path()).await;
    let held = fresh(claim(&control, 1, 1, 7, at(0)).await);
    control.close().await.unwrap();
    control.close().await.unwrap();
    let error = control.claim(request(2, 1, 7, at(0))).await.unwrap_err();
    assert!(matches!(error, StoreError::Closed), "{error}");
    assert!(matches!(control.renew(&held, at(1)).await, Err(StoreError::Closed)));

    let path = dir.path().join("control/control.db");
    use sqlx::Connection;
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 99").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    let error = Control::open(dir.path().join("control")).await.unwrap_err();
    assert!(matches!(error, StoreError::Newer { found: 99, .. }), "{error}");
    std::fs::write(&path, "a text that somebody put there".repeat(1000)).unwrap();
    let error = Control::open(dir.path().join("control")).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error}");
}

#[tokio::test]
async fn it_goes_on_after_a_failure() {
    use sqlx::Connection;
    let dir = tempdir().unwrap();
    let control = open(dir.path()).await;
    let options =
        sqlx::sqlite::SqliteConnectOptions::new().filename(dir.path().join("control/control.db"));
    let mut other = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    let rename = "ALTER TABLE idempotency_keys RENAME TO away";
    sqlx::raw_sql(rename).execute(&mut other).await.unwrap();
    let error = control.claim(request(1, 1, 7, at(0))).await.unwrap_err();
    assert!(error.to_string().contains("control.db: "), "{error}");
    let rename = "ALTER TABLE away RENAME TO idempotency_keys";
    sqlx::raw_sql(rename).execute(&mut other).await.unwrap();
    fresh(claim(&control, 1, 1, 7, at(0)).await);
}
