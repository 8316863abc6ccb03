//! What is found: a route, or why there is none.

use std::{net::IpAddr, sync::Arc};

/// Most MX hosts of a route; those of worse preference are left out.
pub const MAX_HOSTS: usize = 16;
/// Most addresses of a host.
pub const MAX_ADDRESSES: usize = 8;

/// The next hops of a domain. Has one host at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Names of all MX hosts, sorted, joined by commas. Domains with the same
    /// set are one site: they share sessions and limits. It does not change
    /// when a host is left out because it has no usable address just now.
    pub site: Arc<str>,
    /// Best preference first, by name within one; see [`Route::order`].
    pub hosts: Vec<Host>,
    /// Whether no MX led here: the domain's own addresses stand in (RFC 5321
    /// section 5.1), or the host was named by the operator.
    pub implicit: bool,
}

/// One next hop. Has one address at least.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name as the MX says it, lower case, without a trailing dot.
    pub name: String,
    /// Lower is tried first.
    pub preference: u16,
    /// IPv6 and IPv4 in turns, so that a host without one of them is found
    /// out with the first two.
    pub addresses: Vec<IpAddr>,
}

impl Route {
    /// The hosts in the order to try: by preference, in random order where
    /// it is equal (RFC 5321 section 5.1 wants the load spread).
    #[must_use]
    pub fn order(&self, rng: &mut fastrand::Rng) -> Vec<&Host> {
        let mut hosts: Vec<_> = self.hosts.iter().map(|host| (rng.u32(..), host)).collect();
        hosts.sort_by_key(|(random, host)| (host.preference, *random));
        hosts.into_iter().map(|(_, host)| host).collect()
    }
}

impl Host {
    /// The addresses in the order to try: IPv6 first, the families in turns
    /// (RFC 8305 section 4), in random order within each, since a kept answer
    /// does not rotate as the DNS server would have it.
    #[must_use]
    pub fn order(&self, rng: &mut fastrand::Rng) -> Vec<IpAddr> {
        let mut addresses = self.addresses.clone();
        rng.shuffle(&mut addresses);
        in_turns(addresses)
    }
}

/// IPv6 and IPv4 in turns, each in its order.
pub(crate) fn in_turns(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    let count = addresses.len();
    let (six, four): (Vec<_>, Vec<_>) = addresses.into_iter().partition(IpAddr::is_ipv6);
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    let mut turns = Vec::with_capacity(count);
    while turns.len() < count {
        turns.extend(six.next());
        turns.extend(four.next());
    }
    turns
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// The domain says that it takes no mail (RFC 7505): permanent.
    #[error("the domain takes no mail: it has a null MX (RFC 7505)")]
    NullMx,
    /// No such domain, or neither MX nor addresses. The domain may be about
    /// to be set up: worth a few tries.
    #[error("{0}")]
    NoRoute(String),
    /// DNS did not answer: worth all tries.
    #[error("{0}")]
    Temporary(String),
    /// Every address is one that policy refuses.
    #[error("{0}")]
    Refused(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str, preference: u16) -> Host {
        Host { name: name.into(), preference, addresses: vec![[192, 0, 2, 1].into()] }
    }

    #[test]
    fn equal_preferences_take_turns() {
        let route = Route {
            site: "a,b,c,d".into(),
            hosts: vec![host("d", 5), host("a", 10), host("b", 10), host("c", 20)],
            implicit: false,
        };
        let mut rng = fastrand::Rng::with_seed(7);
        let mut first = [0, 0];
        for _ in 0..1000 {
            let names: Vec<_> = route.order(&mut rng).iter().map(|h| h.name.as_str()).collect();
            match names.as_slice() {
                ["d", "a", "b", "c"] => first[0] += 1,
                ["d", "b", "a", "c"] => first[1] += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(first.iter().all(|count| (400..600).contains(count)), "{first:?}");
    }

    #[test]
    fn families_take_turns() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let given: Vec<_> =
            ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"].map(address).to_vec();
        let expected = ["2001:db8::1", "192.0.2.1", "192.0.2.2", "192.0.2.3"].map(address);
        assert_eq!(in_turns(given.clone()), expected);

        let host = Host { name: "a".into(), preference: 0, addresses: given };
        let mut rng = fastrand::Rng::with_seed(7);
        let mut seconds = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let order = host.order(&mut rng);
            assert_eq!(order[0], address("2001:db8::1"));
            assert_eq!(order.len(), 4);
            seconds.insert(order[1]);
        }
        assert_eq!(seconds.len(), 3);
    }
}
