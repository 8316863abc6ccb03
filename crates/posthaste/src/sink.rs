//! `posthaste sink`: a receiving SMTP server for trials.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use posthaste_trial::sink::{Received, Rule, Sink, SinkConfig};
use tokio::sync::mpsc;

use crate::run::runtime;

const RULES: &str = "\
Rules, the first that matches counts:
  STAGE[=PATTERN][ from=PATTERN]:ACTION[:TIMES]

  STAGE    connect, ehlo, starttls, mail, rcpt, data, end_of_data
  PATTERN  text in which * is any number of characters: the EHLO name at ehlo,
           the sender at mail, the recipient at rcpt, data and end_of_data
  ACTION   CODE [ENHANCED] [TEXT], accept, delay TIME, drop, silence, garbage,
           accept_then_drop
  TIMES    once, N times, once each, N times each

  --rule 'rcpt=slow*@*:450 4.2.1 busy:once each'
  --rule 'end_of_data=*@lost.example:drop:3 times'
  --rule 'mail from=news@*:delay 2s'";

/// How the receiving server behaves.
#[derive(Debug, Args)]
#[command(after_help = RULES)]
pub struct SinkArgs {
    /// Where to listen; port 0 for a free one.
    #[arg(long, default_value = "127.0.0.1:2525", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// What the server calls itself.
    #[arg(long, default_value = "sink.test", value_name = "NAME")]
    hostname: String,
    /// What to do instead of accepting; can be given several times.
    #[arg(long, value_name = "RULE")]
    rule: Vec<Rule>,
    /// Append a line for each accepted message and recipient: Unix time in
    /// milliseconds, message id, recipient.
    #[arg(long, value_name = "FILE")]
    accept_log: Option<PathBuf>,
    /// Do not offer STARTTLS.
    #[arg(long)]
    no_starttls: bool,
    /// Do not offer PIPELINING.
    #[arg(long)]
    no_pipelining: bool,
    /// Do not offer SMTPUTF8.
    #[arg(long)]
    no_smtputf8: bool,
    /// Largest message in bytes.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    max_size: usize,
    /// Print a line for each message.
    #[arg(long)]
    verbose: bool,
}

pub fn execute(args: SinkArgs) -> anyhow::Result<ExitCode> {
    let verbose = args.verbose;
    let mut config = SinkConfig::new(args.listen);
    config.server.hostname = args.hostname;
    config.server.starttls = !args.no_starttls;
    config.server.pipelining = !args.no_pipelining;
    config.server.smtputf8 = !args.no_smtputf8;
    config.server.max_content = args.max_size;
    config.rules = args.rule;
    config.log = args.accept_log;
    runtime()?.block_on(async {
        let (observer, received) = mpsc::channel(1000);
        if verbose {
            config.observer = Some(observer);
            tokio::spawn(print(received));
        }
        let sink = Sink::start(config).await.context("failed to start the sink")?;
        eprintln!("sink listens on {}", sink.address());
        let mut stop = crate::run::StopSignals::new()?;
        stop.next().await;
        let stats = sink.stats();
        sink.stop().await;
        eprintln!(
            "{} messages accepted for {} recipients, {} refusals, {} connections",
            stats.accepted, stats.recipients, stats.refused, stats.connections
        );
        Ok(ExitCode::SUCCESS)
    })
}

async fn print(mut received: mpsc::Receiver<Received>) {
    while let Some(message) = received.recv().await {
        let sender = message.sender.as_deref().unwrap_or("<>");
        let tls = if message.tls { ", TLS" } else { "" };
        println!(
            "{} {sender} -> {} ({} bytes{tls})",
            message.time,
            message.recipients.join(", "),
            message.size
        );
    }
}
