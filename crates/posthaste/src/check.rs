//! `posthaste check`: can this configuration be used, and what is it?

use std::process::ExitCode;

use crate::{
    cli::ConfigArgs,
    config::{self, Config},
    run, table,
};

pub fn execute(args: &ConfigArgs) -> anyhow::Result<ExitCode> {
    let config = config::load(args.config.as_deref())?;
    for token in &config.token {
        run::token_patterns(token)?;
    }
    println!("the configuration can be used\n");
    for line in table::lines(&summary(&config)) {
        println!("{line}");
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(config: &Config) -> Vec<Vec<String>> {
    let mut rows = vec![
        vec!["host".into(), config.hostname.clone()],
        vec!["files".into(), config.data_dir.display().to_string()],
    ];
    for api in &config.api {
        let who = match config.token.len() {
            0 => "without tokens, loopback only".to_owned(),
            count => format!("{count} tokens"),
        };
        rows.push(vec!["api".into(), format!("http://{}, {who}", api.listen)]);
    }
    for client in &config.smtp_client {
        let way = client.smart_host.as_deref().unwrap_or("the recipients' MX");
        rows.push(vec![
            "smtp-client".into(),
            format!(
                "{}: pool {}, EHLO {}, to {way} port {}, {} sessions, {} a domain, TLS {:?}",
                client.name,
                client.pool,
                client.ehlo_name,
                client.port,
                client.concurrency,
                client.domain_concurrency,
                client.tls
            ),
        ]);
    }
    for logger in &config.delivery_logger {
        let text = format!("{} events a batch, {:?} logs", logger.batch_events, config.logs.period);
        rows.push(vec!["delivery-logger".into(), text]);
    }
    if config.resolver.allow_private_destinations {
        rows.push(vec!["note".into(), "private and loopback destinations are allowed".into()]);
    }
    rows
}
