//! Publishes, consumes and counts on a real broker, which it can kill.
//!
//! With `--run` it starts the broker itself, kills it (SIGKILL) in the middle of
//! publishing and again in the middle of consuming, starts it again, and
//! counts: each confirmed message must be handed over at least once, and none whose
//! acknowledgement was confirmed may come again. It fails when that is not so.
//!
//! ```text
//! real_broker --address 127.0.0.1:61613 --login mta --passcode S --run "DIR/bin/artemis run"
//! ```

use std::{
    collections::HashMap,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use clap::Parser;
use posthaste_broker::{Credit, Token};
use posthaste_broker_stomp::{
    Client, ClientConfig, Connection, Destination, LinkError, Login, Message, Node, Pool,
    PoolConfig, Publication, Receive, SendOutcome, client::Epochs,
};
use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    process::{Child, Command},
    sync::Mutex,
    time::{Instant, sleep, timeout},
};

#[derive(Parser)]
struct Arguments {
    /// Host and port of a node's STOMP acceptor; several for a fail-over list.
    #[arg(long, required = true)]
    address: Vec<String>,
    #[arg(long)]
    login: Option<String>,
    #[arg(long, default_value = "")]
    passcode: String,
    #[arg(long, default_value_t = 10_000)]
    messages: usize,
    #[arg(long, default_value_t = 5120)]
    body: usize,
    #[arg(long, default_value = "posthaste.real-broker")]
    queue: String,
    /// The command that starts the broker and becomes it.
    #[arg(long)]
    run: Option<String>,
    /// With `--run`: how often it is killed in either half.
    #[arg(long, default_value_t = 1)]
    kills: usize,
}

/// The header that names a message.
const ID: &str = "posthaste-id";
/// For a broker to come up and be usable.
const START: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let config = config(&arguments)?;
    let broker = Arc::new(Broker { command: arguments.run.clone(), child: Mutex::new(None) });
    broker.start().await?;
    let result = all(&arguments, &config, &broker).await;
    broker.kill().await?;
    result
}

async fn all(arguments: &Arguments, config: &ClientConfig, broker: &Arc<Broker>) -> Result<()> {
    let epochs = Epochs::default();
    let client = Client::start(config.clone(), epochs.clone())?;
    let connection = client.connection(START).await?;
    println!("broker: {}", connection.server().unwrap_or("(hidden)"));
    let mut run =
        Run { queue: arguments.queue.clone(), body: arguments.body, seen: HashMap::new() };
    run.drain(&client).await?;
    run.refusals(&client).await?;
    run.one_in_flight(&connection).await?;
    run.pipelined(&connection, arguments.messages).await?;
    run.consume(&client, arguments.messages, None).await?;
    if connection.dialect().prefers_transactions() {
        run.transactions(&connection, arguments.messages).await?;
        run.consume(&client, arguments.messages, None).await?;
    }
    drop(connection);
    run.pool(config, &epochs, arguments.messages, None).await?;
    run.consume(&client, arguments.messages, None).await?;
    run.cycles(&client).await?;
    if arguments.run.is_some() {
        for _ in 0..arguments.kills {
            run.pool(config, &epochs, arguments.messages, Some(broker)).await?;
            run.consume(&client, arguments.messages, Some(broker)).await?;
        }
        run.black_hole(&client, broker).await?;
    }
    client.close(Duration::from_secs(5)).await?;
    Ok(())
}

fn config(arguments: &Arguments) -> Result<ClientConfig> {
    let mut nodes = Vec::new();
    for address in &arguments.address {
        let (host, port) = address.rsplit_once(':').context("an address is host:port")?;
        nodes.push(Node { host: host.to_owned(), port: port.parse()? });
    }
    let mut config = ClientConfig::new(nodes);
    config.login = arguments
        .login
        .as_ref()
        .map(|login| Login { login: login.clone(), passcode: arguments.passcode.clone() });
    Ok(config)
}

/// The broker's process, where it is ours.
struct Broker {
    command: Option<String>,
    child: Mutex<Option<Child>>,
}

impl Broker {
    async fn start(&self) -> Result<()> {
        let Some(command) = &self.command else { return Ok(()) };
        let mut words = command.split_whitespace();
        let child = Command::new(words.next().context("the command is empty")?)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        *self.child.lock().await = Some(child);
        Ok(())
    }

    async fn kill(&self) -> Result<()> {
        if let Some(mut child) = self.child.lock().await.take() {
            child.kill().await?;
        }
        Ok(())
    }

    async fn signal(&self, signal: Signal) -> Result<()> {
        let child = self.child.lock().await;
        let id = child.as_ref().and_then(Child::id).context("no broker of ours")?;
        let pid = Pid::from_raw(id.try_into()?).context("no process")?;
        Ok(kill_process(pid, signal)?)
    }

    async fn kill_and_start(&self) -> Result<()> {
        self.kill().await?;
        println!("  broker killed");
        self.start().await
    }
}

struct Run {
    queue: String,
    body: usize,
    /// Confirmed, and how often handed over.
    seen: HashMap<String, usize>,
}

impl Run {
    fn message(&self, id: &str) -> Publication {
        let body = Bytes::from(vec![b'm'; self.body]);
        let mut message = Publication::new(Destination::Queue(self.queue.clone()), body);
        message.duplicate_id = Some(id.to_owned());
        message.headers.push(ID, id);
        message
    }

    fn ids(count: usize) -> Vec<String> {
        // The broker remembers ids of earlier runs.
        let run = fastrand::u64(..);
        (0..count).map(|n| format!("{run:016x}-{n}")).collect()
    }

    /// What an earlier run has left.
    async fn drain(&self, client: &Client) -> Result<()> {
        let connection = client.connection(START).await?;
        let mut subscription = connection.subscribe(&self.receive()).await?;
        let mut count = 0;
        while let Ok(messages) = timeout(Duration::from_secs(1), subscription.next()).await {
            let tokens: Vec<_> = messages?.iter().filter_map(|message| message.token).collect();
            connection.acknowledge_durably(&tokens).await?;
            count += tokens.len();
        }
        subscription.unsubscribe().await?;
        println!("drained: {count}");
        Ok(())
    }

    fn receive(&self) -> Receive {
        let credit = Credit { messages: 200, bytes: 1 << 20 };
        Receive::new(Destination::Queue(self.queue.clone()), credit)
    }

    /// What only a real broker can tell: headers and bodies come as they went.
    async fn refusals(&mut self, client: &Client) -> Result<()> {
        let connection = client.connection(START).await?;
        let mut subscription = connection.subscribe(&self.receive()).await?;
        let odd = "a:b\\c\r\nd ü";
        for body in [Vec::new(), (0..=255).collect::<Vec<u8>>(), vec![7; 5 << 20]] {
            let id = Self::ids(1).remove(0);
            let mut message = self.message(&id);
            message.body = body.clone().into();
            message.priority = 9;
            message.headers.push("odd", odd);
            ensure!(connection.send(&message).await.outcome().await == SendOutcome::Durable);
            let back = subscription.next().await?;
            let [back] = back.as_slice() else { bail!("one message, please") };
            ensure!(back.body == body, "a body of {} bytes came back otherwise", body.len());
            ensure!(back.headers.get("odd") == Some(odd), "headers: {:?}", back.headers);
            ensure!(back.priority() == 9);
            let token = back.token.context("no token")?;
            connection.acknowledge_durably(&[token]).await?;
        }
        subscription.unsubscribe().await?;
        println!("bodies and headers: as they were");
        Ok(())
    }

    async fn one_in_flight(&mut self, connection: &Connection) -> Result<()> {
        let start = Instant::now();
        let ids = Self::ids(200);
        for id in &ids {
            let outcome = connection.send(&self.message(id)).await.outcome().await;
            ensure!(outcome == SendOutcome::Durable, "{outcome:?}");
        }
        rate("published, one in flight", ids.len(), start);
        self.confirmed(ids);
        Ok(())
    }

    async fn pipelined(&mut self, connection: &Connection, count: usize) -> Result<()> {
        let start = Instant::now();
        let ids = Self::ids(count);
        let mut sent = Vec::with_capacity(count);
        for id in &ids {
            sent.push(connection.send(&self.message(id)).await);
        }
        for confirmation in sent {
            let outcome = confirmation.outcome().await;
            ensure!(outcome == SendOutcome::Durable, "{outcome:?}");
        }
        rate("published, one connection, pipelined", count, start);
        self.confirmed(ids);
        Ok(())
    }

    async fn transactions(&mut self, connection: &Connection, count: usize) -> Result<()> {
        let start = Instant::now();
        let ids = Self::ids(count);
        for ids in ids.chunks(100) {
            let messages: Vec<_> = ids.iter().map(|id| self.message(id)).collect();
            let outcome = connection.transaction(&messages).await;
            ensure!(outcome == SendOutcome::Durable, "{outcome:?}");
        }
        rate("published, one connection, transactions of 100", count, start);
        self.confirmed(ids);
        Ok(())
    }

    /// Subscriptions that end, in order or not, with messages unacknowledged.
    async fn cycles(&mut self, client: &Client) -> Result<()> {
        let connection = client.connection(START).await?;
        let ids = Self::ids(2000);
        let mut sent = Vec::new();
        for id in &ids {
            sent.push(connection.send(&self.message(id)).await);
        }
        for confirmation in sent {
            let outcome = confirmation.outcome().await;
            ensure!(outcome == SendOutcome::Durable, "{outcome:?}");
        }
        self.confirmed(ids);
        let (mut cycles, mut again) = (0, 0);
        loop {
            let mut subscription =
                connection.subscribe(&self.receive()).await.context("subscribing")?;
            let Ok(messages) = timeout(Duration::from_secs(3), subscription.next()).await else {
                break;
            };
            let messages = messages.context("receiving")?;
            // Half of them, but all of a single one.
            let half = messages.len().div_ceil(2);
            let mut tokens = Vec::new();
            for message in messages.iter().take(half) {
                tokens.extend(message.token);
                let id = message.headers.get(ID).unwrap_or_default();
                let times = self.seen.get_mut(id).context("an unknown message")?;
                again += *times;
                *times += 1;
            }
            connection.acknowledge(&tokens).await.context("acknowledging")?;
            cycles += 1;
            if cycles % 2 == 0 {
                subscription.unsubscribe().await.context("unsubscribing")?;
            }
        }
        println!("subscribed and ended {cycles} times: lost {}, again {again}", self.missing());
        ensure!(self.missing() == 0 && again == 0);
        self.seen.clear();
        Ok(())
    }

    /// A broker that hangs is noticed by its silence.
    async fn black_hole(&mut self, client: &Client, broker: &Broker) -> Result<()> {
        let connection = client.connection(START).await?;
        // Longer than any time to live, were it not for heart-beats.
        sleep(Duration::from_secs(65)).await;
        ensure!(connection.cause().is_none(), "{:?}", connection.cause());
        println!("idle for 65 s: alive");
        broker.signal(Signal::STOP).await?;
        let start = Instant::now();
        let cause = connection.ended().await;
        println!("broker stopped: \"{cause}\" after {:.1} s", start.elapsed().as_secs_f64());
        broker.signal(Signal::CONT).await?;
        let again = client.connection(START).await?;
        ensure!(again.epoch() > connection.epoch());
        Ok(())
    }

    /// Through the pool, from 20 tasks; what is unknown is sent again.
    async fn pool(
        &mut self,
        config: &ClientConfig,
        epochs: &Epochs,
        count: usize,
        kill: Option<&Arc<Broker>>,
    ) -> Result<()> {
        let pool_config = PoolConfig { connection_wait: START, ..PoolConfig::default() };
        let pool = Arc::new(Pool::start(config, pool_config, epochs)?);
        let start = Instant::now();
        let ids = Self::ids(count);
        let done = Arc::new(AtomicUsize::new(0));
        let unknown = Arc::new(AtomicUsize::new(0));
        let mut tasks = tokio::task::JoinSet::new();
        for ids in ids.chunks(count.div_ceil(20).max(1)) {
            let batches: Vec<Vec<Publication>> =
                ids.chunks(50).map(|ids| ids.iter().map(|id| self.message(id)).collect()).collect();
            let (pool, done, unknown) =
                (Arc::clone(&pool), Arc::clone(&done), Arc::clone(&unknown));
            tasks.spawn(async move {
                for batch in batches {
                    publish(&pool, batch, &done, &unknown).await?;
                }
                anyhow::Ok(())
            });
        }
        if let Some(broker) = kill {
            while done.load(Ordering::Relaxed) < count / 2 {
                sleep(Duration::from_millis(1)).await;
            }
            broker.kill_and_start().await?;
        }
        while let Some(result) = tasks.join_next().await {
            result??;
        }
        rate("published, pool of 4, 20 tasks", count, start);
        println!("  unknown and sent again: {}", unknown.load(Ordering::Relaxed));
        self.confirmed(ids);
        Ok(())
    }

    fn confirmed(&mut self, ids: Vec<String>) {
        self.seen.extend(ids.into_iter().map(|id| (id, 0)));
    }

    /// Until all that was confirmed has come and nothing more comes.
    async fn consume(
        &mut self,
        client: &Client,
        at_least: usize,
        mut kill: Option<&Arc<Broker>>,
    ) -> Result<()> {
        let (start, expected) = (Instant::now(), self.seen.len());
        ensure!(expected >= at_least);
        let mut settled: HashMap<String, usize> = HashMap::new();
        let mut killing = tokio::task::JoinSet::new();
        let (mut last, mut quiet, mut first_of_all) = (Instant::now(), false, true);
        while !quiet {
            let connection = client.connection(START).await?;
            let mut subscription = match connection.subscribe(&self.receive()).await {
                Ok(subscription) => subscription,
                Err(cause) => {
                    println!("  subscribe: {cause}");
                    continue;
                }
            };
            loop {
                // After a loss, redelivery takes the broker a moment.
                let wait = Duration::from_secs(if self.missing() == 0 { 3 } else { 60 });
                let messages = match timeout(wait, subscription.next()).await {
                    Err(_) => {
                        quiet = true;
                        break;
                    }
                    Ok(Ok(messages)) => messages,
                    Ok(Err(cause)) => {
                        println!("  link: {cause}");
                        break;
                    }
                };
                last = Instant::now();
                first_of_all = false;
                if let Err(cause) = self.settle(&connection, &messages, &mut settled).await {
                    println!("  acknowledgement unknown: {cause}");
                    break;
                }
                if settled.len() >= expected / 2
                    && let Some(broker) = kill.take().map(Arc::clone)
                {
                    // Beside it, so that acknowledgements are on the way.
                    killing.spawn(async move { broker.kill_and_start().await });
                }
            }
        }
        while let Some(result) = killing.join_next().await {
            result??;
        }
        ensure!(!first_of_all, "nothing came");
        let seconds = (last - start).as_secs_f64();
        println!(
            "consumed and acknowledged: {expected} in {seconds:.2} s, {:.0}/s",
            expected as f64 / seconds
        );
        let lost = self.missing();
        let again: usize = settled.values().map(|times| times - 1).sum();
        let copies: usize = self.seen.values().map(|times| times.saturating_sub(1)).sum();
        println!("  lost {lost}, handed over again {copies}, again after a confirmed ACK {again}");
        self.seen.clear();
        ensure!(lost == 0, "confirmed messages were lost");
        ensure!(again == 0, "messages came again after their acknowledgement was confirmed");
        Ok(())
    }

    fn missing(&self) -> usize {
        self.seen.values().filter(|times| **times == 0).count()
    }

    async fn settle(
        &mut self,
        connection: &Connection,
        messages: &[Message],
        settled: &mut HashMap<String, usize>,
    ) -> Result<(), LinkError> {
        let mut ids = Vec::with_capacity(messages.len());
        for message in messages {
            let id = message.headers.get(ID).unwrap_or_default();
            if let Some(times) = self.seen.get_mut(id) {
                *times += 1;
            }
            // By the broker's own id: one that was unknown and sent again is
            // two messages to Classic, and each is acknowledged.
            ids.push(message.headers.get("message-id").unwrap_or_default().to_owned());
        }
        let tokens: Vec<Token> = messages.iter().filter_map(|message| message.token).collect();
        let results = connection.acknowledge_durably(&tokens).await?;
        for (id, result) in ids.into_iter().zip(results) {
            if result.is_ok() {
                *settled.entry(id).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// Until each message of the batch is confirmed.
async fn publish(
    pool: &Pool,
    mut batch: Vec<Publication>,
    done: &AtomicUsize,
    unknown: &AtomicUsize,
) -> Result<()> {
    while !batch.is_empty() {
        let outcomes = pool.publish(batch.clone()).await;
        let mut again = Vec::new();
        for (message, outcome) in batch.into_iter().zip(outcomes) {
            match outcome {
                SendOutcome::Durable => {
                    done.fetch_add(1, Ordering::Relaxed);
                }
                SendOutcome::Rejected(text) => bail!("rejected: {text}"),
                SendOutcome::Unknown(_) => {
                    unknown.fetch_add(1, Ordering::Relaxed);
                    again.push(message);
                }
            }
        }
        batch = again;
    }
    Ok(())
}

fn rate(what: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.2} s, {:.0}/s", count as f64 / seconds);
}
