//! What the types alone cannot say about a configuration.

use std::collections::HashSet;

use posthaste_model::Domain;

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
