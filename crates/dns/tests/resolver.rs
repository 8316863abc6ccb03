//! The resolver against a real DNS server on loopback. The rules of routing
//! and the times have tests of their own beside the code; here it is what
//! goes over the wire.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use posthaste_dns::{AddressPolicy, Resolver, ResolverConfig, Route, RouteError};
use posthaste_trial::dns::{RecordKind, TestDns, Zones};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn config(server: SocketAddr) -> ResolverConfig {
    ResolverConfig {
        servers: vec![server],
        timeout: Duration::from_secs(5),
        addresses: AddressPolicy { allow_private: true, ..AddressPolicy::default() },
        ..ResolverConfig::default()
    }
}

async fn start(zones: Zones) -> (TestDns, Resolver) {
    let dns = TestDns::start(ANY_PORT, zones).await.unwrap();
    let resolver = Resolver::new(config(dns.address())).unwrap();
    (dns, resolver)
}

async fn route(resolver: &Resolver, domain: &str) -> Result<Arc<Route>, RouteError> {
    resolver.route(&domain.parse().unwrap()).await
}

/// Hosts with their addresses; or the error's name and text.
async fn shown(resolver: &Resolver, domain: &str) -> String {
    match route(resolver, domain).await {
        Ok(route) => route
            .hosts
            .iter()
            .map(|host| format!("{} {} {:?}", host.preference, host.name, host.addresses))
            .collect::<Vec<_>>()
            .join("; "),
        Err(error) => format!("{error:?}"),
    }
}

#[tokio::test]
async fn answers_of_all_kinds() {
    let (dns, resolver) = start(
        Zones::new()
            .mx("order.test", 20, "b.test")
            .mx("order.test", 10, "A.Test.")
            .a("a.test", [127, 0, 0, 1])
            .a("b.test", [127, 0, 0, 2])
            .aaaa("b.test", [0, 0, 0, 0, 0, 0, 0, 1])
            .null_mx("null.test")
            .a("implicit.test", [127, 0, 0, 3])
            .empty("empty.test")
            .txt("text.test", "no mail here")
            .cname("alias.test", "b.test")
            .mx("to-alias.test", 10, "alias.test")
            .cname("dangling.test", "gone.test")
            .cname("domain-alias.test", "order.test")
            .servfail("servfail.test")
            .mx("host-servfail.test", 10, "servfail.test"),
    )
    .await;
    for (domain, expected) in [
        ("order.test", "10 a.test [127.0.0.1]; 20 b.test [::1, 127.0.0.2]"),
        ("null.test", "NullMx"),
        ("implicit.test", "0 implicit.test [127.0.0.3]"),
        ("empty.test", "NoRoute(\"empty.test has neither MX nor address records\")"),
        ("text.test", "NoRoute(\"text.test has neither MX nor address records\")"),
        ("gone.test", "NoRoute(\"the domain gone.test does not exist\")"),
        ("to-alias.test", "10 alias.test [::1, 127.0.0.2]"),
        ("dangling.test", "NoRoute(\"the domain dangling.test does not exist\")"),
        ("domain-alias.test", "10 a.test [127.0.0.1]; 20 b.test [::1, 127.0.0.2]"),
        (
            "servfail.test",
            "Temporary(\"the MX records of servfail.test are not known: the DNS server answered \
             SERVFAIL\")",
        ),
        (
            "host-servfail.test",
            "Temporary(\"the addresses of servfail.test are not known: the DNS server answered \
             SERVFAIL\")",
        ),
    ] {
        assert_eq!(shown(&resolver, domain).await, expected, "{domain}");
    }
    let smart = resolver.host("b.test").await.unwrap();
    assert_eq!(smart.hosts[0].addresses.len(), 2);
    assert_eq!(dns.queries("b.test", RecordKind::Mx), 0);
    dns.stop().await;
}

#[tokio::test]
async fn loopback_is_refused_unless_allowed() {
    let zones = Zones::new().mx("a.test", 10, "mx.test").a("mx.test", [127, 0, 0, 1]);
    let (dns, _) = start(zones).await;
    let config = ResolverConfig { addresses: AddressPolicy::default(), ..config(dns.address()) };
    let resolver = Resolver::new(config).unwrap();
    let error = route(&resolver, "a.test").await.unwrap_err();
    assert!(matches!(error, RouteError::Refused(_)), "{error:?}");
    for part in ["mx.test", "127.0.0.1", "loopback", "allow_private_destinations"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[tokio::test]
async fn a_wildcard_serves_any_domain() {
    let zones = Zones::new().wildcard("mx.test", [127, 0, 0, 1]).nxdomain("gone.test");
    let (dns, resolver) = start(zones).await;
    let first = route(&resolver, "one.example").await.unwrap();
    let second = route(&resolver, "two.example").await.unwrap();
    assert_eq!(first, second);
    assert_eq!(&*first.site, "mx.test");
    assert!(route(&resolver, "gone.test").await.is_err());
    // One site: its address is not asked for with each domain.
    assert_eq!(dns.queries("mx.test", RecordKind::A), 1);
}

#[tokio::test]
async fn kept_answers_are_not_asked_for_again() {
    let zones = Zones::new().mx("a.test", 10, "mx.test").a("mx.test", [127, 0, 0, 1]);
    let (dns, resolver) = start(zones).await;
    for _ in 0..10 {
        assert_eq!(shown(&resolver.clone(), "a.test").await, "10 mx.test [127.0.0.1]");
    }
    assert!(route(&resolver, "gone.test").await.is_err());
    assert!(route(&resolver, "gone.test").await.is_err());
    assert_eq!(dns.queries("a.test", RecordKind::Mx), 1);
    assert_eq!(dns.queries("mx.test", RecordKind::A), 1);
    assert_eq!(dns.queries("mx.test", RecordKind::Aaaa), 1);
    assert_eq!(dns.queries("gone.test", RecordKind::Mx), 1);
    assert_eq!(dns.total(), 4);
}

#[tokio::test]
async fn an_answer_without_ttl_is_asked_for_again() {
    let zones = Zones::new().ttl(0).mx("a.test", 10, "mx.test").a("mx.test", [127, 0, 0, 1]);
    let dns = TestDns::start(ANY_PORT, zones).await.unwrap();
    let config = ResolverConfig {
        min_ttl: Duration::ZERO,
        failure_ttl: Duration::ZERO,
        ..config(dns.address())
    };
    let resolver = Resolver::new(config).unwrap();
    assert_eq!(shown(&resolver, "a.test").await, "10 mx.test [127.0.0.1]");
    dns.update(|zones| zones.remove("mx.test").a("mx.test", [127, 0, 0, 9]));
    assert_eq!(shown(&resolver, "a.test").await, "10 mx.test [127.0.0.9]");
    assert_eq!(dns.queries("a.test", RecordKind::Mx), 2);

    // Neither is a "no": the library below must not keep it longer than we do.
    assert!(route(&resolver, "new.test").await.is_err());
    dns.update(|zones| zones.mx("new.test", 10, "mx.test"));
    assert_eq!(shown(&resolver, "new.test").await, "10 mx.test [127.0.0.9]");
    dns.update(|zones| zones.servfail("new.test"));
    assert!(matches!(route(&resolver, "new.test").await, Err(RouteError::Temporary(_))));
}

#[tokio::test]
async fn a_long_answer_comes_by_tcp() {
    let mut zones = Zones::new();
    for at in 0..16_u8 {
        let host = format!("mx{at:02}.{}.{}.test", "x".repeat(60), "y".repeat(60));
        zones = zones.mx("long.test", u16::from(at), &host).a(&host, [127, 0, 1, at]);
    }
    // Names are compressed within an answer: more of them, with other ends.
    for at in 0..16_u8 {
        zones = zones.mx("long.test", 100, &format!("mx.{}{at}.test", "z".repeat(60)));
    }
    let (dns, resolver) = start(zones).await;
    let route = route(&resolver, "long.test").await.unwrap();
    assert_eq!(route.hosts.len(), 16);
    assert!(route.hosts[15].name.starts_with("mx15."));
    assert!(dns.queries("long.test", RecordKind::Mx) >= 2, "by UDP, then by TCP");
}

#[tokio::test]
async fn silence_ends_with_the_timeout() {
    let (dns, _) = start(Zones::new().silent("silent.test")).await;
    let timeout = Duration::from_millis(300);
    let resolver = Resolver::new(ResolverConfig { timeout, ..config(dns.address()) }).unwrap();
    let begun = Instant::now();
    let asked: Vec<_> = (0..20)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { shown(&resolver, "silent.test").await })
        })
        .collect();
    for task in asked {
        assert_eq!(
            task.await.unwrap(),
            "Temporary(\"the MX records of silent.test are not known: no DNS server answered \
             within 300ms\")"
        );
    }
    assert!(begun.elapsed() >= timeout / 2);
    assert!(begun.elapsed() < timeout * 20, "{:?}", begun.elapsed());
    // 20 tasks, one question, with its repetitions.
    assert!((1..=4).contains(&dns.queries("silent.test", RecordKind::Mx)));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_temporary() {
    // A port that is taken for UDP by one who never answers, and free for TCP.
    let nobody = UdpSocket::bind(ANY_PORT).unwrap();
    let config = ResolverConfig {
        timeout: Duration::from_millis(300),
        ..config(nobody.local_addr().unwrap())
    };
    let resolver = Resolver::new(config).unwrap();
    assert!(matches!(route(&resolver, "a.test").await, Err(RouteError::Temporary(_))));
}
