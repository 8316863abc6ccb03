//! The rows of the idempotency keys.

use posthaste_model::Timestamp;
use sqlx::{Row, SqliteConnection, sqlite::SqliteRow};

use super::{Claim, ClaimRequest, Claimed, KeptAnswer};

/// Expired rows that one claim deletes at most.
const DELETED: i64 = 16;

/// See [`super::Control::claim`].
pub(super) async fn claim(
    connection: &mut SqliteConnection,
    request: &ClaimRequest,
) -> Result<Claimed, sqlx::Error> {
    delete_expired(connection, request.now).await?;
    let row = sqlx::query(
        "SELECT fingerprint, seed, claimed_at, lease_until, status, answer
         FROM idempotency_keys WHERE key = ? AND expires_at > ?",
    )
    .bind(request.key.as_slice())
    .bind(request.now.as_millis())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return insert(connection, request).await };
    let kept = Kept::read(&row)?;
    if kept.fingerprint != request.fingerprint {
        return Ok(Claimed::OtherRequest);
    }
    let claim =
        Claim { key: request.key, holder: request.holder, seed: kept.seed, time: kept.claimed_at };
    if let Some(answer) = kept.answer {
        return Ok(Claimed::Answered { claim, answer });
    }
    if kept.lease_until > request.now {
        return Ok(Claimed::InFlight { until: kept.lease_until });
    }
    sqlx::query("UPDATE idempotency_keys SET holder = ?, lease_until = ? WHERE key = ?")
        .bind(holder(claim.holder))
        .bind(request.now.plus(request.lease).as_millis())
        .bind(claim.key.as_slice())
        .execute(connection)
        .await?;
    Ok(Claimed::TakenOver(claim))
}

async fn insert(
    connection: &mut SqliteConnection,
    request: &ClaimRequest,
) -> Result<Claimed, sqlx::Error> {
    // In place of one that has expired and was not deleted yet.
    sqlx::query(
        "INSERT OR REPLACE INTO idempotency_keys
         (key, fingerprint, seed, holder, claimed_at, lease_until, expires_at)
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(request.key.as_slice())
    .bind(request.fingerprint.as_slice())
    .bind(request.seed.as_slice())
    .bind(holder(request.holder))
    .bind(request.now.as_millis())
    .bind(request.now.plus(request.lease).as_millis())
    .bind(request.now.plus(request.keep).as_millis())
    .execute(connection)
    .await?;
    let ClaimRequest { key, holder, seed, now, .. } = *request;
    Ok(Claimed::Fresh(Claim { key, holder, seed, time: now }))
}

async fn delete_expired(
    connection: &mut SqliteConnection,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM idempotency_keys WHERE rowid IN
         (SELECT rowid FROM idempotency_keys WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
    )
    .bind(now.as_millis())
    .bind(DELETED)
    .execute(connection)
    .await
    .map(drop)
}

/// See [`super::Control::renew`].
pub(super) async fn renew(
    connection: &mut SqliteConnection,
    claim: &Claim,
    until: Timestamp,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE idempotency_keys SET lease_until = ?
         WHERE key = ? AND holder = ? AND status IS NULL",
    )
    .bind(until.as_millis())
    .bind(claim.key.as_slice())
    .bind(holder(claim.holder))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// See [`super::Control::answer`].
pub(super) async fn answer(
    connection: &mut SqliteConnection,
    claim: &Claim,
    answer: &KeptAnswer,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "UPDATE idempotency_keys SET status = ?, answer = ?
         WHERE key = ? AND holder = ? AND status IS NULL",
    )
    .bind(i64::from(answer.status))
    .bind(answer.body.as_deref())
    .bind(claim.key.as_slice())
    .bind(holder(claim.holder))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// See [`super::Control::release`].
pub(super) async fn release(
    connection: &mut SqliteConnection,
    claim: &Claim,
) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("DELETE FROM idempotency_keys WHERE key = ? AND holder = ? AND status IS NULL")
            .bind(claim.key.as_slice())
            .bind(holder(claim.holder))
            .execute(connection)
            .await?;
    Ok(done.rows_affected() > 0)
}

/// SQL has no unsigned numbers; all bits are kept.
const fn holder(holder: u64) -> i64 {
    holder.cast_signed()
}

/// A row.
struct Kept {
    fingerprint: [u8; 32],
    seed: [u8; 16],
    claimed_at: Timestamp,
    lease_until: Timestamp,
    answer: Option<KeptAnswer>,
}

impl Kept {
    fn read(row: &SqliteRow) -> Result<Self, sqlx::Error> {
        let status: Option<i64> = row.try_get("status")?;
        let answer = match status {
            None => None,
            Some(status) => Some(KeptAnswer {
                status: u16::try_from(status).map_err(|error| sqlx::Error::Decode(error.into()))?,
                body: row.try_get("answer")?,
            }),
        };
        Ok(Self {
            fingerprint: bytes(row, "fingerprint")?,
            seed: bytes(row, "seed")?,
            claimed_at: Timestamp::from_millis(row.try_get("claimed_at")?),
            lease_until: Timestamp::from_millis(row.try_get("lease_until")?),
            answer,
        })
    }
}

fn bytes<const N: usize>(row: &SqliteRow, column: &str) -> Result<[u8; N], sqlx::Error> {
    let bytes: Vec<u8> = row.try_get(column)?;
    bytes.try_into().map_err(|_| sqlx::Error::Decode(format!("{column} is not {N} bytes").into()))
}
