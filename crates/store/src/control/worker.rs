//! The task that writes to the control file.

use std::path::{Path, PathBuf};

use posthaste_model::Timestamp;
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tokio::sync::{mpsc, oneshot};

use super::{Claim, ClaimRequest, Claimed, KeptAnswer, keys};
use crate::{StoreError, sqlite::create};

/// Most requests of one transaction.
const BATCH: usize = 256;
/// How long a connection waits for another process's lock.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(5);

/// One step each, in order; never changed once released. `PRAGMA user_version`
/// counts those that a file has seen.
const MIGRATIONS: &[&str] = &["CREATE TABLE idempotency_keys (
        key BLOB NOT NULL UNIQUE,
        fingerprint BLOB NOT NULL,
        seed BLOB NOT NULL,
        holder INTEGER NOT NULL,
        claimed_at INTEGER NOT NULL,
        lease_until INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        -- NULL: in flight.
        status INTEGER,
        -- NULL with a status: too large to keep.
        answer BLOB
    );
    CREATE INDEX idempotency_keys_by_expiry ON idempotency_keys (expires_at);"];
const VERSION: i64 = MIGRATIONS.len() as i64;

pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What can be asked of the task.
#[derive(Debug)]
pub(super) enum Command {
    Claim(ClaimRequest, Reply<Claimed>),
    Renew(Claim, Timestamp, Reply<bool>),
    Answer(Claim, KeptAnswer, Reply<bool>),
    Release(Claim, Reply<bool>),
    Close(Reply<()>),
}

/// Whoever asked and has gone does not want to know.
fn tell<T>(reply: Reply<T>, result: Result<T, StoreError>) {
    reply.send(result).ok();
}

/// What came of a command.
enum Outcome {
    Claimed(Claimed),
    Changed(bool),
}

/// What was done and is told once it is durable.
enum Done {
    Claim(Reply<Claimed>, Claimed),
    Change(Reply<bool>, bool),
}

impl Command {
    fn fail(self, error: StoreError) {
        match self {
            Self::Claim(_, reply) => tell(reply, Err(error)),
            Self::Renew(_, _, reply) | Self::Answer(_, _, reply) | Self::Release(_, reply) => {
                tell(reply, Err(error));
            }
            Self::Close(reply) => tell(reply, Err(error)),
        }
    }
}

impl Done {
    fn new(command: Command, outcome: Outcome) -> Option<Self> {
        match (command, outcome) {
            (Command::Claim(_, reply), Outcome::Claimed(claimed)) => {
                Some(Self::Claim(reply, claimed))
            }
            (
                Command::Renew(_, _, reply)
                | Command::Answer(_, _, reply)
                | Command::Release(_, reply),
                Outcome::Changed(changed),
            ) => Some(Self::Change(reply, changed)),
            _ => None,
        }
    }

    fn fail(self, error: StoreError) {
        match self {
            Self::Claim(reply, _) => tell(reply, Err(error)),
            Self::Change(reply, _) => tell(reply, Err(error)),
        }
    }

    fn tell(self) {
        match self {
            Self::Claim(reply, claimed) => tell(reply, Ok(claimed)),
            Self::Change(reply, changed) => tell(reply, Ok(changed)),
        }
    }
}

pub(super) struct Worker {
    path: PathBuf,
    /// `None` after a failure: opened anew by the next.
    connection: Option<SqliteConnection>,
}

impl Worker {
    pub(super) async fn open(path: PathBuf) -> Result<Self, StoreError> {
        let connection = Some(connect(&path).await?);
        Ok(Self { path, connection })
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let mut batch = Vec::new();
        while commands.recv_many(&mut batch, BATCH).await > 0 {
            let mut closing = None;
            let mut work = Vec::with_capacity(batch.len());
            for command in batch.drain(..) {
                match command {
                    Command::Close(reply) => closing = Some(reply),
                    command => work.push(command),
                }
            }
            self.execute(work).await;
            if let Some(reply) = closing {
                commands.close();
                while let Some(command) = commands.recv().await {
                    command.fail(StoreError::Closed);
                }
                tell(reply, self.close().await);
                return;
            }
        }
        if let Err(error) = self.close().await {
            tracing::warn!(%error, "the control data were not closed in order");
        }
    }

    async fn execute(&mut self, commands: Vec<Command>) {
        if commands.is_empty() {
            return;
        }
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match connect(&self.path).await {
                Ok(connection) => connection,
                Err(error) => {
                    let text = error.to_string();
                    let path = &self.path;
                    for command in commands {
                        let (path, detail) = (path.clone(), text.clone());
                        command.fail(StoreError::Database { path, detail });
                    }
                    return;
                }
            },
        };
        let mut left = commands.into_iter();
        let (mut done, mut failing) = (Vec::new(), None);
        match transact(&mut connection, &mut left, &mut done, &mut failing).await {
            Ok(()) => {
                self.connection = Some(connection);
                done.into_iter().for_each(Done::tell);
            }
            Err(error) => {
                tracing::error!(%error, path = %self.path.display(), "failed to write control data");
                let failed = || StoreError::sqlite(&self.path, &error);
                done.into_iter().for_each(|one| one.fail(failed()));
                failing.into_iter().chain(left).for_each(|command| command.fail(failed()));
            }
        }
    }

    async fn close(&mut self) -> Result<(), StoreError> {
        let Some(mut connection) = self.connection.take() else { return Ok(()) };
        let failed = |error: sqlx::Error| StoreError::sqlite(&self.path, &error);
        let folded = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(&mut connection).await;
        folded.map_err(failed)?;
        connection.close().await.map_err(failed)
    }
}

/// Does what is asked in one transaction. The one in which it fails goes back
/// into `failing`.
async fn transact(
    connection: &mut SqliteConnection,
    commands: &mut impl Iterator<Item = Command>,
    done: &mut Vec<Done>,
    failing: &mut Option<Command>,
) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for command in commands {
        let command = failing.insert(command);
        let outcome = match command {
            Command::Claim(request, _) => {
                Outcome::Claimed(keys::claim(&mut transaction, request).await?)
            }
            Command::Renew(claim, until, _) => {
                Outcome::Changed(keys::renew(&mut transaction, claim, *until).await?)
            }
            Command::Answer(claim, answer, _) => {
                Outcome::Changed(keys::answer(&mut transaction, claim, answer).await?)
            }
            Command::Release(claim, _) => {
                Outcome::Changed(keys::release(&mut transaction, claim).await?)
            }
            Command::Close(_) => continue,
        };
        done.extend(failing.take().and_then(|command| Done::new(command, outcome)));
    }
    transaction.commit().await
}

async fn connect(path: &Path) -> Result<SqliteConnection, StoreError> {
    create(path).await.map_err(|source| StoreError::file("make", path, source))?;
    let failed = |error: sqlx::Error| StoreError::sqlite(path, &error);
    // As the logs: in WAL mode only FULL syncs the log at each commit.
    let mut connection = SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .statement_cache_capacity(16)
        .pragma("cache_size", "-4000")
        .pragma("journal_size_limit", "16777216")
        .disable_statement_logging()
        .connect()
        .await
        .map_err(failed)?;
    migrate(path, &mut connection).await?;
    Ok(connection)
}

async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let failed = |error: sqlx::Error| StoreError::sqlite(path, &error);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
    let found: i64 = sqlx::query_scalar("PRAGMA user_version")
        .fetch_one(&mut *transaction)
        .await
        .map_err(failed)?;
    if found > VERSION {
        return Err(StoreError::Newer { path: path.to_owned(), found, known: VERSION });
    }
    for step in MIGRATIONS.iter().skip(usize::try_from(found).unwrap_or(0)) {
        sqlx::raw_sql(*step).execute(&mut *transaction).await.map_err(failed)?;
    }
    let set_version = AssertSqlSafe(format!("PRAGMA user_version = {VERSION}"));
    sqlx::raw_sql(set_version).execute(&mut *transaction).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}
