//! The rules of routing and keeping, on a DNS made of a table and on a clock
//! that stands still.

use std::{collections::HashMap, net::IpAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;

use super::*;
use crate::lookup::{Answer, LookupError, Mx};

/// What the DNS of a test knows. A name that it does not know does not exist.
#[derive(Clone, Default)]
struct Table {
    shared: Arc<Mutex<Records>>,
}

#[derive(Default)]
struct Records {
    mx: HashMap<String, Vec<Mx>>,
    addresses: HashMap<String, Vec<IpAddr>>,
    failing: Vec<String>,
    ttl: HashMap<String, u64>,
    asked: Vec<String>,
}

impl Table {
    fn mx(self, name: &str, records: &[(u16, &str)]) -> Self {
        let records = records
            .iter()
            .map(|(preference, host)| Mx { preference: *preference, host: (*host).into() })
            .collect();
        self.shared.lock().mx.insert(name.into(), records);
        self
    }

    fn host(self, name: &str, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        self.shared.lock().addresses.insert(name.into(), addresses);
        self
    }

    /// "MX name", "A name" or "AAAA name" has no answer.
    fn failing(self, question: &str) -> Self {
        self.shared.lock().failing.push(question.into());
        self
    }

    fn ttl(self, question: &str, seconds: u64) -> Self {
        self.shared.lock().ttl.insert(question.into(), seconds);
        self
    }

    fn recover(&self) {
        self.shared.lock().failing.clear();
    }

    fn count(&self, question: &str) -> usize {
        self.shared.lock().asked.iter().filter(|asked| *asked == question).count()
    }

    async fn answer<T: Clone>(
        &self,
        kind: &str,
        name: &str,
        records: impl Fn(&Records) -> Option<Vec<T>>,
    ) -> Result<Answer<T>, LookupError> {
        let question = format!("{kind} {name}");
        self.shared.lock().asked.push(question.clone());
        // Others get their turn, as with a real question.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let table = self.shared.lock();
        if table.failing.contains(&question) {
            return Err(LookupError::Failed("the DNS server answered SERVFAIL".into()));
        }
        let known = table.mx.contains_key(name) || table.addresses.contains_key(name);
        let ttl = Duration::from_secs(table.ttl.get(&question).copied().unwrap_or(300));
        match records(&table) {
            Some(records) if !records.is_empty() => Ok(Answer { records, ttl }),
            _ if known => Err(LookupError::NoData),
            _ => Err(LookupError::NoName),
        }
    }

    fn resolver(&self, change: impl FnOnce(&mut ResolverConfig)) -> Resolver {
        let mut config = ResolverConfig::default();
        change(&mut config);
        Resolver::with(Box::new(self.clone()), config)
    }
}

#[async_trait]
impl Lookup for Table {
    async fn mx(&self, name: &str) -> Result<Answer<Mx>, LookupError> {
        self.answer("MX", name, |records| records.mx.get(name).cloned()).await
    }

    async fn ipv4(&self, name: &str) -> Result<Answer<IpAddr>, LookupError> {
        let four = |records: &Records| Some(family(records.addresses.get(name)?, false));
        self.answer("A", name, four).await
    }

    async fn ipv6(&self, name: &str) -> Result<Answer<IpAddr>, LookupError> {
        let six = |records: &Records| Some(family(records.addresses.get(name)?, true));
        self.answer("AAAA", name, six).await
    }
}

fn family(addresses: &[IpAddr], six: bool) -> Vec<IpAddr> {
    addresses.iter().copied().filter(|address| address.is_ipv6() == six).collect()
}

fn domain(name: &str) -> Domain {
    name.parse().unwrap()
}

/// A route as "preference host address,address; …", an error as its text.
async fn shown(resolver: &Resolver, name: &str) -> String {
    show(resolver.route(&domain(name)).await)
}

fn show(result: Result<Arc<Route>, RouteError>) -> String {
    let route = match result {
        Ok(route) => route,
        Err(RouteError::NullMx) => return "null MX".into(),
        Err(RouteError::NoRoute(text)) => return format!("none: {text}"),
        Err(RouteError::Temporary(text)) => return format!("temporary: {text}"),
        Err(RouteError::Refused(text)) => return format!("refused: {text}"),
    };
    let hosts: Vec<_> = route
        .hosts
        .iter()
        .map(|host| {
            let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
            format!("{} {} {}", host.preference, host.name, addresses.join(","))
        })
        .collect();
    let implicit = if route.implicit { "implicit " } else { "" };
    format!("{implicit}[{}] {}", route.site, hosts.join("; "))
}

fn public() -> Table {
    Table::default()
        .host("mx1.test", &["192.0.2.1"])
        .host("mx2.test", &["192.0.2.2", "2001:db8::2"])
        .host("private.test", &["10.0.0.1"])
        .host("loop.test", &["198.51.100.7"])
        .mx("nohost.test", &[])
}

#[tokio::test(start_paused = true)]
async fn routes() {
    let many: Vec<_> = (0..20_u16).map(|at| (at, format!("mx{at:02}.many"))).collect();
    let many: Vec<_> = many.iter().map(|(at, name)| (*at, name.as_str())).collect();
    let mut table = public()
        .mx("best-first", &[(20, "mx1.test"), (10, "mx2.test")])
        .mx("twice", &[(20, "mx1.test"), (10, "mx1.test")])
        .mx("null", &[(0, "")])
        .mx("null-beside", &[(0, ""), (10, "mx1.test")])
        .host("implicit", &["192.0.2.9"])
        .mx("nothing", &[])
        .mx("dangling", &[(10, "gone.test"), (20, "nohost.test")])
        .mx("half-dangling", &[(10, "gone.test"), (20, "mx1.test")])
        .mx("literal", &[(10, "192.0.2.1")])
        .mx("private", &[(10, "private.test")])
        .mx("private-first", &[(10, "private.test"), (20, "mx1.test")])
        .host("localhost.example", &["127.0.0.1", "::1"])
        .mx("unknown", &[(10, "mx1.test")])
        .failing("MX unknown")
        .host("broken.test", &["192.0.2.5"])
        .failing("A broken.test")
        .failing("AAAA broken.test")
        .mx("all-broken", &[(10, "broken.test"), (20, "gone.test")])
        .mx("broken-and-private", &[(10, "private.test"), (20, "broken.test")])
        .mx("one-broken", &[(10, "broken.test"), (20, "mx1.test")])
        .host("half.test", &["192.0.2.6", "2001:db8::6"])
        .failing("AAAA half.test")
        .mx("half-broken", &[(10, "half.test")])
        .mx("wide", &[(10, "wide.test")])
        .host(
            "wide.test",
            &[
                "192.0.2.1",
                "192.0.2.2",
                "192.0.2.3",
                "192.0.2.4",
                "192.0.2.5",
                "192.0.2.6",
                "192.0.2.7",
                "192.0.2.8",
                "192.0.2.9",
                "2001:db8::1",
            ],
        )
        .mx("many", &many)
        .host("mx00.many", &["192.0.2.1"])
        .host("mx19.many", &["192.0.2.1"]);
    table = table
        .mx("looping", &[(10, "mx1.test"), (20, "loop.test"), (20, "mx2.test"), (30, "mx3.test")])
        .mx("ourselves", &[(10, "loop.test"), (20, "mx1.test")])
        .host("loop.example", &["198.51.100.7"]);
    let own = "198.51.100.7".parse().unwrap();
    let resolver = table.resolver(|config| config.addresses.own_addresses = vec![own]);
    let many_site: Vec<_> = (0..16).map(|at| format!("mx{at:02}.many")).collect();
    let many_route = format!("[{}] 0 mx00.many 192.0.2.1", many_site.join(","));
    for (name, expected) in [
        (
            "best-first",
            "[mx1.test,mx2.test] 10 mx2.test 2001:db8::2,192.0.2.2; 20 mx1.test 192.0.2.1",
        ),
        ("twice", "[mx1.test] 10 mx1.test 192.0.2.1"),
        ("null", "null MX"),
        ("null-beside", "[mx1.test] 10 mx1.test 192.0.2.1"),
        ("implicit", "implicit [implicit] 0 implicit 192.0.2.9"),
        ("nothing", "none: nothing has neither MX nor address records"),
        ("gone", "none: the domain gone does not exist"),
        ("dangling", "none: no MX host of dangling has an address (gone.test, nohost.test)"),
        ("half-dangling", "[gone.test,mx1.test] 20 mx1.test 192.0.2.1"),
        ("literal", "none: no MX host of literal has an address (192.0.2.1)"),
        (
            "private",
            "refused: the mail of private goes to private.test: 10.0.0.1 is a private address, \
             which only allow_private_destinations = true would allow",
        ),
        ("private-first", "[mx1.test,private.test] 20 mx1.test 192.0.2.1"),
        (
            "localhost.example",
            "refused: the mail of localhost.example goes to localhost.example: ::1 is a loopback \
             address, which only allow_private_destinations = true would allow",
        ),
        (
            "unknown",
            "temporary: the MX records of unknown are not known: the DNS server answered SERVFAIL",
        ),
        (
            "all-broken",
            "temporary: the addresses of broken.test are not known: the DNS server answered \
             SERVFAIL",
        ),
        (
            "broken-and-private",
            "temporary: the addresses of broken.test are not known: the DNS server answered \
             SERVFAIL",
        ),
        ("one-broken", "[broken.test,mx1.test] 20 mx1.test 192.0.2.1"),
        ("half-broken", "[half.test] 10 half.test 192.0.2.6"),
        (
            "wide",
            "[wide.test] 10 wide.test 2001:db8::1,192.0.2.1,192.0.2.2,192.0.2.3,192.0.2.4,\
             192.0.2.5,192.0.2.6,192.0.2.7",
        ),
        ("many", &many_route),
        ("looping", "[loop.test,mx1.test,mx2.test,mx3.test] 10 mx1.test 192.0.2.1"),
        (
            "ourselves",
            "refused: the mail would loop: loop.test is 198.51.100.7, an address of this server \
             (own_addresses)",
        ),
        (
            "loop.example",
            "refused: the mail would loop: loop.example is 198.51.100.7, an address of this \
             server (own_addresses)",
        ),
    ] {
        assert_eq!(shown(&resolver, name).await, expected, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn private_addresses_when_allowed() {
    let table = public().mx("private", &[(10, "private.test")]).host("zero", &["0.0.0.0"]);
    let resolver = table.resolver(|config| config.addresses.allow_private = true);
    assert_eq!(shown(&resolver, "private").await, "[private.test] 10 private.test 10.0.0.1");
    assert_eq!(
        shown(&resolver, "zero").await,
        "refused: the mail of zero goes to zero: 0.0.0.0 is an unspecified address"
    );
}

#[tokio::test(start_paused = true)]
async fn without_ipv6_nobody_asks_for_it() {
    let table = public().mx("a.test", &[(10, "mx2.test")]);
    let resolver = table.resolver(|config| config.addresses.ipv6 = false);
    assert_eq!(shown(&resolver, "a.test").await, "[mx2.test] 10 mx2.test 192.0.2.2");
    assert_eq!(table.count("AAAA mx2.test"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_smart_host_is_the_operators_choice() {
    let table = public().host("loopback.test", &["127.0.0.1"]);
    let resolver = table.resolver(|_| {});
    for (name, expected) in [
        ("MX1.test.", "implicit [mx1.test] 0 mx1.test 192.0.2.1"),
        ("loopback.test", "implicit [loopback.test] 0 loopback.test 127.0.0.1"),
        ("127.0.0.1", "implicit [127.0.0.1] 0 127.0.0.1 127.0.0.1"),
        ("[::1]", "implicit [[::1]] 0 [::1] ::1"),
        ("gone.test", "none: gone.test has no address"),
        (
            "224.0.0.1",
            "refused: the mail of 224.0.0.1 goes to 224.0.0.1: 224.0.0.1 is a multicast address",
        ),
    ] {
        assert_eq!(show(resolver.host(name).await), expected);
    }
    assert_eq!(table.count("MX mx1.test"), 0);
}

/// Seconds until a route is asked for anew, by the number of questions.
async fn kept_for(table: &Table, resolver: &Resolver, name: &str) -> u64 {
    let question = format!("MX {name}");
    shown(resolver, name).await;
    for second in 1..10_000 {
        tokio::time::advance(Duration::from_secs(1)).await;
        shown(resolver, name).await;
        if table.count(&question) > 1 {
            return second;
        }
    }
    panic!("{name} is kept for ever");
}

#[tokio::test(start_paused = true)]
async fn kept_by_ttl_within_bounds() {
    let table = public()
        .mx("by-mx", &[(10, "mx1.test")])
        .ttl("MX by-mx", 60)
        .mx("by-address", &[(10, "short.test")])
        .host("short.test", &["192.0.2.1"])
        .ttl("A short.test", 40)
        .mx("too-short", &[(10, "mx1.test")])
        .ttl("MX too-short", 1)
        .mx("too-long", &[(10, "long.test")])
        .ttl("MX too-long", 86_400)
        .host("long.test", &["192.0.2.1"])
        .ttl("A long.test", 86_400)
        .mx("null", &[(0, "")])
        .ttl("MX null", 50)
        .mx("private", &[(10, "private.test")])
        .ttl("MX private", 45)
        .mx("broken", &[(10, "mx1.test")])
        .failing("MX broken")
        .host("half.test", &["192.0.2.1"])
        .failing("AAAA half.test")
        .mx("incomplete", &[(10, "half.test")]);
    let resolver = table.resolver(|config| {
        config.min_ttl = Duration::from_secs(20);
        config.max_ttl = Duration::from_secs(120);
        config.failure_ttl = Duration::from_secs(5);
    });
    for (name, seconds) in [
        ("by-mx", 60),
        ("by-address", 40),
        ("too-short", 20),
        ("too-long", 120),
        ("null", 50),
        ("private", 45),
        ("broken", 5),
        ("gone", 5),
        ("incomplete", 20),
    ] {
        assert_eq!(kept_for(&table, &resolver, name).await, seconds, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_cause_one_question() {
    let table = public().mx("a.test", &[(10, "mx1.test")]);
    let resolver = table.resolver(|_| {});
    let tasks: Vec<_> = (0..100)
        .map(|_| {
            let resolver = resolver.clone();
            tokio::spawn(async move { shown(&resolver, "a.test").await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap(), "[mx1.test] 10 mx1.test 192.0.2.1");
    }
    for question in ["MX a.test", "A mx1.test", "AAAA mx1.test"] {
        assert_eq!(table.count(question), 1, "{question}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_domain_that_comes_back_is_seen() {
    let table = public().mx("a.test", &[(10, "mx1.test")]).failing("MX a.test");
    let resolver = table.resolver(|_| {});
    assert!(matches!(resolver.route(&domain("a.test")).await, Err(RouteError::Temporary(_))));
    table.recover();
    tokio::time::advance(Duration::from_secs(4)).await;
    assert!(resolver.route(&domain("a.test")).await.is_err());
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(resolver.route(&domain("a.test")).await.is_ok());
}

#[test]
fn contradicting_bounds_are_refused() {
    let config = ResolverConfig { max_ttl: Duration::ZERO, ..ResolverConfig::default() };
    assert_eq!(Resolver::new(config).err(), Some(ResolverError::Bounds));
    let config = ResolverConfig { timeout: Duration::ZERO, ..ResolverConfig::default() };
    assert_eq!(Resolver::new(config).err(), Some(ResolverError::Bounds));
}
