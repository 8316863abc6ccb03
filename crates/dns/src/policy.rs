//! Which addresses may be delivered to.
//!
//! Whoever writes a DNS zone decides where its mail goes. Without a policy he
//! could point it at a service inside the operator's network, or at the
//! program itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses may be delivered to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Setting `allow_private_destinations`: loopback, private and link-local
    /// addresses too.
    pub allow_private: bool,
    /// Addresses at which the program itself takes mail: a domain that names
    /// one of them would loop.
    pub own_addresses: Vec<IpAddr>,
    /// Whether to ask for IPv6 addresses at all.
    pub ipv6: bool,
}

impl Default for AddressPolicy {
    fn default() -> Self {
        Self { allow_private: false, own_addresses: Vec::new(), ipv6: true }
    }
}

/// What an address is, when it is not an ordinary one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Special {
    /// Reachable from here only; the operator may allow it.
    Private(&'static str),
    /// No host has it.
    Never(&'static str),
}

impl AddressPolicy {
    /// The part of a sentence that says why the address is refused; `None`
    /// when it may be used.
    pub(crate) fn refusal(&self, address: IpAddr) -> Option<String> {
        match special(address) {
            None => None,
            Some(Special::Private(_)) if self.allow_private => None,
            Some(Special::Private(kind)) => Some(format!(
                "{address} is {kind}, which only allow_private_destinations = true would allow"
            )),
            Some(Special::Never(kind)) => Some(format!("{address} is {kind}")),
        }
    }

    pub(crate) fn is_own(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.own_addresses.iter().any(|own| own.to_canonical() == address)
    }
}

/// RFC 6890 and its registries, as far as they matter here.
pub(crate) fn special(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(four) => special_v4(four),
        IpAddr::V6(six) => special_v6(six),
    }
}

fn special_v4(address: Ipv4Addr) -> Option<Special> {
    let [a, b, c, _] = address.octets();
    Some(match (a, b, c) {
        (0, ..) => Special::Never("an unspecified address"),
        (127, ..) => Special::Private("a loopback address"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Special::Private("a private address"),
        (169, 254, _) => Special::Private("a link-local address"),
        (100, 64..=127, _) => Special::Private("a carrier's private address (RFC 6598)"),
        (192, 0, 0) | (198, 18..=19, _) => Special::Private("an address of special use (RFC 6890)"),
        (224..=239, ..) => Special::Never("a multicast address"),
        (240.., ..) => Special::Never("a reserved address"),
        _ => return None,
    })
}

fn special_v6(address: Ipv6Addr) -> Option<Special> {
    let segments = address.segments();
    if address.is_unspecified() {
        return Some(Special::Never("an unspecified address"));
    }
    if address.is_loopback() {
        return Some(Special::Private("a loopback address"));
    }
    if let Some(four) = embedded_v4(segments) {
        // Whoever is refused by IPv4 must not come in this way.
        let mapped = Special::Private("an IPv4 address within IPv6");
        return match (segments[0], special_v4(four)) {
            (_, Some(special)) => Some(special),
            // NAT64 and 6to4 are routed; the others are not.
            (0x64 | 0x2002, None) => None,
            (_, None) => Some(mapped),
        };
    }
    if segments[..3] == [0x64, 0xff9b, 1] {
        return Some(Special::Private("an IPv4 address within IPv6 (RFC 8215)"));
    }
    Some(match segments[0] {
        0xfc00..=0xfdff => Special::Private("a private address (RFC 4193)"),
        0xfe80..=0xfebf => Special::Private("a link-local address"),
        0xfec0..=0xfeff => Special::Private("a site-local address"),
        0xff00.. => Special::Never("a multicast address"),
        _ => return None,
    })
}

/// IPv4-mapped and -compatible (RFC 4291 section 2.5.5), NAT64 (RFC 6052),
/// 6to4 (RFC 3056).
fn embedded_v4(segments: [u16; 8]) -> Option<Ipv4Addr> {
    let (high, low) = match segments {
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] => (high, low),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => (high, low),
        [0x2002, high, low, ..] => (high, low),
        _ => return None,
    };
    let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let public = [
            "8.8.8.8",
            "192.0.2.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "169.253.0.1",
            "223.255.255.255",
            "2001:db8::1",
            "2a00::1",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ];
        let private = [
            "127.0.0.1",
            "127.255.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.127.255.255",
            "192.0.0.8",
            "198.18.0.1",
            "::1",
            "fd00::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "::ffff:8.8.8.8",
            "::ffff:10.0.0.1",
            "::8.8.8.8",
            "64:ff9b::a00:1",
            "64:ff9b:1::a00:1",
            "2002:7f00:1::1",
        ];
        let never = [
            "0.0.0.0",
            "0.1.2.3",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "ff02::1",
            "::ffff:0.0.0.0",
            "::ffff:224.0.0.1",
        ];
        let (strict, open) = (
            AddressPolicy::default(),
            AddressPolicy { allow_private: true, ..AddressPolicy::default() },
        );
        for (list, refused_by_strict, refused_by_open) in
            [(&public[..], false, false), (&private[..], true, false), (&never[..], true, true)]
        {
            for text in list {
                let address: IpAddr = text.parse().unwrap();
                assert_eq!(strict.refusal(address).is_some(), refused_by_strict, "{text}");
                assert_eq!(open.refusal(address).is_some(), refused_by_open, "{text}");
            }
        }
    }

    #[test]
    fn own_addresses_in_both_forms() {
        let policy = AddressPolicy {
            own_addresses: vec!["198.51.100.1".parse().unwrap()],
            ..AddressPolicy::default()
        };
        assert!(policy.is_own("198.51.100.1".parse().unwrap()));
        assert!(policy.is_own("::ffff:198.51.100.1".parse().unwrap()));
        assert!(!policy.is_own("198.51.100.2".parse().unwrap()));
    }

    #[test]
    fn a_refusal_names_the_setting() {
        let refusal = AddressPolicy::default().refusal([10, 0, 0, 1].into()).unwrap();
        assert_eq!(
            refusal,
            "10.0.0.1 is a private address, which only allow_private_destinations = true would allow"
        );
    }
}
