//! The rules of routing: from the answers of DNS to a route (RFC 5321
//! section 5.1, RFC 7505).
//!
//! No state and no clock. Each outcome says how long it is worth keeping.

use std::{net::IpAddr, sync::Arc, time::Duration};

use futures_util::future::join_all;

use crate::{
    AddressPolicy, Host, MAX_ADDRESSES, MAX_HOSTS, Route, RouteError,
    lookup::{Answer, Lookup, LookupError, Mx},
    route::in_turns,
};

/// An outcome and how long to keep it.
#[derive(Debug)]
pub(crate) struct Resolution {
    pub(crate) result: Result<Route, RouteError>,
    pub(crate) keep: Keep,
}

/// How long an outcome is worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// As DNS says, within the configured bounds.
    Ttl(Duration),
    /// As a failure.
    Failure,
}

impl Resolution {
    fn failed(error: RouteError) -> Self {
        Self { result: Err(error), keep: Keep::Failure }
    }
}

/// What was found out about the addresses of one host.
#[derive(Debug)]
struct Candidate {
    name: String,
    preference: u16,
    addresses: Vec<IpAddr>,
    ttl: Duration,
    /// A question that got no answer.
    failure: Option<String>,
}

/// The route of a domain.
pub(crate) async fn domain(lookup: &dyn Lookup, policy: &AddressPolicy, name: &str) -> Resolution {
    match lookup.mx(name).await {
        Ok(answer) => by_mx(lookup, policy, name, answer).await,
        // RFC 5321 section 5.1: the domain is its own MX with preference 0.
        Err(LookupError::NoData) => implicit(lookup, policy, name).await,
        Err(LookupError::NoName) => {
            Resolution::failed(RouteError::NoRoute(format!("the domain {name} does not exist")))
        }
        Err(LookupError::Failed(why)) => Resolution::failed(RouteError::Temporary(format!(
            "the MX records of {name} are not known: {why}"
        ))),
    }
}

/// The addresses of a host that the operator names. As it is his own choice,
/// a private address is as good as any other.
pub(crate) async fn host(lookup: &dyn Lookup, policy: &AddressPolicy, name: &str) -> Resolution {
    let policy =
        AddressPolicy { allow_private: true, own_addresses: Vec::new(), ipv6: policy.ipv6 };
    let candidate = match name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => Candidate {
            name: name.to_owned(),
            preference: 0,
            addresses: vec![address],
            ttl: Duration::MAX,
            failure: None,
        },
        Err(_) => candidate(lookup, &policy, name.to_owned(), 0).await,
    };
    choose(&policy, Question { name, site: name.into(), kind: Kind::Host }, vec![candidate])
}

async fn by_mx(
    lookup: &dyn Lookup,
    policy: &AddressPolicy,
    name: &str,
    answer: Answer<Mx>,
) -> Resolution {
    let records = usable(answer.records);
    if records.is_empty() {
        // RFC 7505 section 3: the root alone. Where it stands beside real
        // hosts it is not a null MX, and `usable` has dropped it.
        return Resolution { result: Err(RouteError::NullMx), keep: Keep::Ttl(answer.ttl) };
    }
    let mut names: Vec<_> = records.iter().map(|mx| mx.host.as_str()).collect();
    names.sort_unstable();
    let site = names.join(",").into();
    let candidates =
        join_all(records.into_iter().map(|mx| candidate(lookup, policy, mx.host, mx.preference)))
            .await;
    let mut resolution = choose(policy, Question { name, site, kind: Kind::Mx }, candidates);
    if let Keep::Ttl(ttl) = resolution.keep {
        resolution.keep = Keep::Ttl(ttl.min(answer.ttl));
    }
    resolution
}

async fn implicit(lookup: &dyn Lookup, policy: &AddressPolicy, name: &str) -> Resolution {
    let candidate = candidate(lookup, policy, name.to_owned(), 0).await;
    choose(policy, Question { name, site: name.into(), kind: Kind::Implicit }, vec![candidate])
}

/// Without the root and without a host's second record, best first, bounded.
fn usable(mut records: Vec<Mx>) -> Vec<Mx> {
    records.retain(|mx| !mx.host.is_empty());
    records.sort_by(|a, b| (a.preference, &a.host).cmp(&(b.preference, &b.host)));
    let mut kept: Vec<Mx> = Vec::with_capacity(records.len().min(MAX_HOSTS));
    for mx in records {
        if kept.len() < MAX_HOSTS && kept.iter().all(|other| other.host != mx.host) {
            kept.push(mx);
        }
    }
    kept
}

async fn candidate(
    lookup: &dyn Lookup,
    policy: &AddressPolicy,
    name: String,
    preference: u16,
) -> Candidate {
    let (four, six) = if name.parse::<IpAddr>().is_ok() {
        // RFC 5321 section 5.1 wants a name; an address has none to ask for.
        (Err(LookupError::NoData), Err(LookupError::NoData))
    } else if policy.ipv6 {
        tokio::join!(lookup.ipv4(&name), lookup.ipv6(&name))
    } else {
        (lookup.ipv4(&name).await, Err(LookupError::NoData))
    };
    let mut candidate =
        Candidate { name, preference, addresses: Vec::new(), ttl: Duration::MAX, failure: None };
    for answer in [six, four] {
        match answer {
            Ok(answer) => {
                candidate.ttl = candidate.ttl.min(answer.ttl);
                candidate.addresses.extend(answer.records);
            }
            Err(LookupError::Failed(why)) => candidate.failure = Some(why),
            Err(LookupError::NoName | LookupError::NoData) => {}
        }
    }
    candidate
}

/// What was asked, for the route and for the texts.
struct Question<'a> {
    name: &'a str,
    site: Arc<str>,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mx,
    Implicit,
    Host,
}

/// Takes out what policy refuses and makes the route of the rest, or the
/// error that says most: a failure of DNS hides whether there is a way at
/// all, a refused address shows that there is one.
fn choose(
    policy: &AddressPolicy,
    question: Question<'_>,
    mut candidates: Vec<Candidate>,
) -> Resolution {
    let name = question.name;
    let ttl = candidates.iter().map(|candidate| candidate.ttl).min().unwrap_or_default();
    let own = drop_own(policy, &mut candidates);
    let asked: Vec<_> = candidates.iter().map(|candidate| candidate.name.clone()).collect();
    let (mut failure, mut refusal) = (None, None);
    let mut hosts = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        if let Some(why) = candidate.failure {
            failure = Some(format!("the addresses of {} are not known: {why}", candidate.name));
        }
        let mut addresses = candidate.addresses;
        addresses.retain(|address| match policy.refusal(*address) {
            Some(why) => {
                refusal.get_or_insert(format!("{}: {why}", candidate.name));
                false
            }
            None => policy.ipv6 || address.is_ipv4(),
        });
        if !addresses.is_empty() {
            addresses = in_turns(addresses);
            addresses.truncate(MAX_ADDRESSES);
            let (name, preference) = (candidate.name, candidate.preference);
            hosts.push(Host { name, preference, addresses });
        }
    }
    if !hosts.is_empty() {
        // Incomplete: asked again as soon as the bounds allow.
        let keep = Keep::Ttl(if failure.is_some() { Duration::ZERO } else { ttl });
        let route = Route { site: question.site, hosts, implicit: question.kind != Kind::Mx };
        return Resolution { result: Ok(route), keep };
    }
    if let Some(failure) = failure {
        return Resolution::failed(RouteError::Temporary(failure));
    }
    let refused = refusal.map(|why| format!("the mail of {name} goes to {why}")).or(own);
    match refused {
        Some(text) => Resolution { result: Err(RouteError::Refused(text)), keep: Keep::Ttl(ttl) },
        None => Resolution::failed(RouteError::NoRoute(nowhere(&question, &asked))),
    }
}

/// RFC 5321 section 5.1: where one of the hosts is ourselves, it and all of
/// its preference or worse are dropped, since they would send the mail back.
/// Returns what to say when nothing is left.
fn drop_own(policy: &AddressPolicy, candidates: &mut Vec<Candidate>) -> Option<String> {
    let ours = |candidate: &Candidate| {
        candidate.addresses.iter().copied().find(|address| policy.is_own(*address))
    };
    let (preference, text) = candidates
        .iter()
        .filter_map(|candidate| {
            let address = ours(candidate)?;
            let text = format!(
                "the mail would loop: {} is {address}, an address of this server (own_addresses)",
                candidate.name
            );
            Some((candidate.preference, text))
        })
        .min_by_key(|(preference, _)| *preference)?;
    candidates.retain(|candidate| candidate.preference < preference);
    Some(text)
}

fn nowhere(question: &Question<'_>, asked: &[String]) -> String {
    let name = question.name;
    match question.kind {
        Kind::Implicit => format!("{name} has neither MX nor address records"),
        Kind::Host => format!("{name} has no address"),
        Kind::Mx => {
            let hosts: Vec<_> = asked.iter().take(4).map(String::as_str).collect();
            format!("no MX host of {name} has an address ({})", hosts.join(", "))
        }
    }
}
