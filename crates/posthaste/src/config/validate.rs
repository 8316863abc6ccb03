//! What the types alone cannot say about a configuration.

use std::{collections::HashSet, net::IpAddr};

use posthaste_model::Domain;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use super::Config;

/// Everything that is wrong, each with the key and the mend.
pub fn problems(config: &Config) -> Vec<String> {
    let mut found = Vec::new();
    let mut check = |ok: bool, problem: String| {
        if !ok {
            found.push(problem);
        }
    };

    check(
        config.hostname.parse::<Domain>().is_ok(),
        format!("hostname: {:?} is not a host name", config.hostname),
    );
    check(
        (1..=1024).contains(&(config.queue.segment_size.0 >> 20)),
        "queue.segment_size: must be from 1MiB to 1GiB".into(),
    );
    check(
        is_filter(&config.log.level),
        format!(
            "log.level: {:?} is none of error, warn, info, debug, trace or module=level,…",
            config.log.level
        ),
    );
    check(
        config.resolver.min_ttl.0 <= config.resolver.max_ttl.0,
        "resolver.min_ttl: must not be over resolver.max_ttl".into(),
    );
    check(!config.resolver.timeout.0.is_zero(), "resolver.timeout: must be over zero".into());
    for (index, logger) in config.delivery_logger.iter().enumerate() {
        let key = format!("delivery_logger[{index}].batch_events");
        check(logger.batch_events > 0, format!("{key}: must be at least 1"));
    }
    for (index, api) in config.api.iter().enumerate() {
        let loopback = api.listen.ip().is_loopback();
        check(
            loopback || !config.token.is_empty(),
            format!(
                "api[{index}].listen: {} can be reached from other hosts, so submitters need a \
                 [[token]]; or listen on 127.0.0.1",
                api.listen
            ),
        );
        check(
            loopback || api.behind_proxy,
            format!(
                "api[{index}].listen: {} would take tokens in clear text; put a proxy with TLS \
                 before it and say behind_proxy = true, or listen on 127.0.0.1",
                api.listen
            ),
        );
        check(
            !(api.behind_proxy && config.token.is_empty()),
            format!(
                "api[{index}].behind_proxy: a proxy lets other hosts in, so submitters need a \
                 [[token]]"
            ),
        );
        check(
            !api.read_timeout.0.is_zero(),
            format!("api[{index}].read_timeout: must be over zero"),
        );
        check(api.max_connections > 0, format!("api[{index}].max_connections: must be at least 1"));
    }
    let mut names = HashSet::new();
    for token in &config.token {
        check(!token.name.is_empty(), "token.name: must not be empty".into());
        check(
            names.insert(("token", token.name.as_str())),
            format!("token.name: {:?} is there twice", token.name),
        );
    }
    for client in &config.smtp_client {
        let name = &client.name;
        check(
            names.insert(("smtp_client", name.as_str())),
            format!("smtp_client.name: {name:?} is there twice"),
        );
        check(
            client.ehlo_name.parse::<Domain>().is_ok(),
            format!("smtp_client {name}: ehlo_name {:?} is not a host name", client.ehlo_name),
        );
        for (key, value) in [
            ("concurrency", client.concurrency),
            ("domain_concurrency", client.domain_concurrency),
            ("messages_per_connection", client.messages_per_connection),
            ("window_messages", client.window_messages),
            ("retry.max_attempts", client.retry.max_attempts),
            ("retry.no_route_attempts", client.retry.no_route_attempts),
            ("port", u32::from(client.port)),
        ] {
            check(value > 0, format!("smtp_client {name}: {key} must be at least 1"));
        }
        let timeouts = &client.timeouts;
        for (key, span) in [
            ("attempt_timeout", client.attempt_timeout),
            ("timeouts.connect", timeouts.connect),
            ("timeouts.greeting", timeouts.greeting),
            ("timeouts.ehlo", timeouts.ehlo),
            ("timeouts.starttls", timeouts.starttls),
            ("timeouts.mail", timeouts.mail),
            ("timeouts.rcpt", timeouts.rcpt),
            ("timeouts.data", timeouts.data),
            ("timeouts.data_block", timeouts.data_block),
            ("timeouts.data_end", timeouts.data_end),
        ] {
            check(!span.0.is_zero(), format!("smtp_client {name}: {key} must be over zero"));
        }
        if let Some(host) = &client.smart_host {
            check(
                is_host(host),
                format!(
                    "smtp_client {name}: smart_host {host:?} is neither a host name nor an IP address; the port is a key of its own"
                ),
            );
        }
        for (domain, policy) in &client.domains {
            check(
                policy.concurrency > 0,
                format!("smtp_client {name}: domains.{domain}.concurrency must be at least 1"),
            );
        }
        check(
            !client.retry.delays.is_empty(),
            format!("smtp_client {name}: retry.delays needs at least one delay"),
        );
        check(
            (0.0..=0.5).contains(&client.retry.jitter),
            format!("smtp_client {name}: retry.jitter must be from 0 to 0.5"),
        );
    }
    found
}

/// Levels, alone or for a module. The library takes any word for a module.
fn is_filter(text: &str) -> bool {
    text.split(',').all(|part| part.contains('=') || part.trim().parse::<LevelFilter>().is_ok())
        && EnvFilter::try_new(text).is_ok()
}

/// A name or an address, as the resolver takes it.
fn is_host(text: &str) -> bool {
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_ok() || text.trim_end_matches('.').parse::<Domain>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems_of(adjust: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        config.complete();
        adjust(&mut config);
        problems(&config).join("; ")
    }

    #[test]
    fn what_cannot_be_meant_is_named_with_its_key() {
        let smart = |config: &mut Config, host: &str| {
            config.smtp_client[0].smart_host = Some(host.into());
        };
        for (problems, key) in [
            (problems_of(|c| c.log.level = "inof".into()), "log.level"),
            (problems_of(|c| c.log.level = "posthaste_api=loud".into()), "log.level"),
            (problems_of(|c| c.log.level = "warn,posthaste_api=debug".into()), ""),
            (problems_of(|c| c.resolver.min_ttl = c.resolver.failure_ttl), ""),
            (problems_of(|c| c.resolver.max_ttl = c.resolver.failure_ttl), "resolver.min_ttl"),
            (problems_of(|c| c.delivery_logger[0].batch_events = 0), "batch_events"),
            (problems_of(|c| c.api[0].behind_proxy = true), "behind_proxy"),
            (problems_of(|c| smart(c, "relay.example.com:587")), "smart_host"),
            (problems_of(|c| smart(c, "relay.example.com")), ""),
            (problems_of(|c| smart(c, "192.0.2.1")), ""),
            (problems_of(|c| smart(c, "[2001:db8::1]")), ""),
            (problems_of(|c| c.api[0].listen = ([0, 0, 0, 0], 8025).into()), "[[token]]"),
        ] {
            assert!(problems.contains(key) && problems.is_empty() == key.is_empty(), "{problems}");
        }
    }
}
