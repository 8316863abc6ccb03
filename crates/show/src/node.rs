//! A running Posthaste: the real binary with a configuration, a data directory
//! and ports of its own.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use serde_json::Value;
use tempfile::TempDir;

use crate::{http::Client, port, process::Process};

/// What differs between the nodes of the trials.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The `posthaste` binary.
    pub program: PathBuf,
    /// The name server.
    pub dns: SocketAddr,
    /// The port of all remote servers.
    pub smtp_port: u16,
    /// The retry list.
    pub delays: &'static [&'static str],
    /// More keys for the SMTP client's section, in TOML.
    pub client: String,
    /// More sections, in TOML.
    pub sections: String,
}

impl Settings {
    /// A node that delivers to `smtp_port` and retries after a second.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, dns: SocketAddr, smtp_port: u16) -> Self {
        let program = program.into();
        let (client, sections) = (String::new(), String::new());
        Self { program, dns, smtp_port, delays: &["1s"], client, sections }
    }

    fn toml(&self, data_dir: &Path, api: SocketAddr) -> String {
        format!(
            "data_dir = \"{data}\"\n\
             hostname = \"mta.test\"\n\
             drain_timeout = \"10s\"\n\
             [resolver]\n\
             servers = [\"{dns}\"]\n\
             timeout = \"1s\"\n\
             allow_private_destinations = true\n\
             ipv6 = false\n\
             {sections}\n\
             [[api]]\n\
             listen = \"{api}\"\n\
             [[smtp_client]]\n\
             name = \"c1\"\n\
             port = {port}\n\
             {client}\n\
             [smtp_client.retry]\n\
             delays = {delays:?}\n\
             jitter = 0.0\n\
             max_attempts = 5\n\
             no_route_attempts = 2\n\
             [[delivery_logger]]\n\
             linger = \"10ms\"\n",
            data = data_dir.display(),
            dns = self.dns,
            port = self.smtp_port,
            client = self.client,
            delays = self.delays,
            sections = self.sections,
        )
    }
}

/// A node; dropping it kills its process and removes its directory.
#[derive(Debug)]
pub struct Node {
    process: Process,
    program: PathBuf,
    dir: TempDir,
    api: SocketAddr,
}

impl Node {
    /// Starts a node with an empty data directory and waits until it is ready.
    ///
    /// # Errors
    /// When it does not become ready; the text has its last words.
    pub async fn start(settings: &Settings) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("posthaste-node-").tempdir()?;
        let api = port::free()?;
        fs::write(dir.path().join("posthaste.toml"), settings.toml(&dir.path().join("data"), api))?;
        let program = settings.program.clone();
        let process = spawn(&program, dir.path())?;
        let mut node = Self { process, program, dir, api };
        node.wait_until_ready().await?;
        Ok(node)
    }

    /// Starts the process again, after [`Node::kill`] or [`Node::stop`].
    ///
    /// # Errors
    /// As [`Node::start`].
    pub async fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.program, self.dir.path())?;
        self.wait_until_ready().await
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// SIGTERM, and waits until it has drained.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.process.terminate()?;
        self.process.wait(Duration::from_secs(20)).await
    }

    /// Its process.
    #[must_use]
    pub const fn process(&self) -> &Process {
        &self.process
    }

    /// Where its API listens.
    #[must_use]
    pub const fn api(&self) -> SocketAddr {
        self.api
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("posthaste.toml")
    }

    /// Its data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A connection to its API.
    ///
    /// # Errors
    /// When it does not listen.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(self.api).await
    }

    /// Submits what must be accepted; gives the id of the submission.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn submit(&self, submission: &Value) -> Result<String> {
        let mut client = self.client().await?;
        let answer = client.post("/v1/submissions", submission.to_string()).await?;
        if answer.status != StatusCode::ACCEPTED {
            bail!("{submission} was answered with {}: {}", answer.status, answer.text());
        }
        let json = answer.json()?;
        Ok(json["id"].as_str().with_context(|| format!("no id in {json}"))?.to_owned())
    }

    /// What the node says about a submission; `None` while it knows nothing.
    ///
    /// # Errors
    /// When the API answers with anything but 200 and 404.
    pub async fn submission(&self, id: &str) -> Result<Option<Value>> {
        let answer = self.client().await?.get(&format!("/v1/submissions/{id}")).await?;
        match answer.status {
            StatusCode::OK => answer.json().map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("asked for {id}, got {status}: {}", answer.text()),
        }
    }

    /// Waits until `enough` says that the submission is as expected; gives it.
    ///
    /// # Errors
    /// When that takes more than twenty seconds; the text has the last state.
    pub async fn follow(&self, id: &str, enough: impl Fn(&Value) -> bool) -> Result<Value> {
        let end = Instant::now() + Duration::from_secs(20);
        loop {
            let state = self.submission(id).await?;
            if let Some(state) = state.as_ref().filter(|state| enough(state)) {
                return Ok(state.clone());
            }
            if Instant::now() > end {
                bail!("{id} remained {state:#?}; {}", self.process.last_words());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until every message of the submission has a final disposition.
    ///
    /// # Errors
    /// As [`Node::follow`].
    pub async fn follow_to_the_end(&self, id: &str) -> Result<Value> {
        self.follow(id, |state| {
            let messages = state["messages"].as_array();
            messages.is_some_and(|messages| messages.iter().all(is_final))
        })
        .await
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let end = Instant::now() + Duration::from_secs(20);
        while !self.is_ready().await {
            if !self.process.is_running() || Instant::now() > end {
                bail!("the node does not become ready; {}", self.process.last_words());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> bool {
        let Ok(mut client) = self.client().await else { return false };
        client.get("/readyz").await.is_ok_and(|answer| answer.status == StatusCode::OK)
    }
}

/// Whether no further attempt follows for a message of a submission.
#[must_use]
pub fn is_final(message: &Value) -> bool {
    matches!(message["disposition"].as_str(), Some("delivered" | "undeliverable"))
}

fn spawn(program: &Path, dir: &Path) -> Result<Process> {
    let mut command = Command::new(program);
    command.arg("run").arg("--config").arg(dir.join("posthaste.toml"));
    Process::start("posthaste", command, &dir.join("posthaste.log"))
}
