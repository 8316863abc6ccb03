//! The table that a test DNS answers from.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hickory_proto::rr::RecordType;

/// Seconds, where a table says nothing else.
const DEFAULT_TTL: u32 = 300;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    /// Mail exchangers.
    Mx,
    /// IPv4 addresses.
    A,
    /// IPv6 addresses.
    Aaaa,
    /// Text.
    Txt,
    /// Anything else.
    Other,
}

impl RecordKind {
    pub(super) fn of(kind: RecordType) -> Self {
        match kind {
            RecordType::MX => Self::Mx,
            RecordType::A => Self::A,
            RecordType::AAAA => Self::Aaaa,
            RecordType::TXT => Self::Txt,
            _ => Self::Other,
        }
    }
}

/// Names and what is answered for them. Made by chaining, also by chaining on
/// one that is in use ([`super::TestDns::update`]).
#[derive(Debug, Clone)]
pub struct Zones {
    names: HashMap<String, Vec<Record>>,
    faults: HashMap<String, Fault>,
    /// For every name that is not in the table.
    wildcard: Vec<Record>,
    ttl: u32,
}

/// One record of a name.
#[derive(Debug, Clone)]
pub(super) struct Record {
    pub(super) ttl: u32,
    pub(super) data: Data,
}

#[derive(Debug, Clone)]
pub(super) enum Data {
    Mx { preference: u16, host: String },
    Address(IpAddr),
    Txt(String),
    Cname(String),
}

/// What is answered instead of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    NxDomain,
    ServFail,
    Silent,
}

/// What the table has for a name.
pub(super) enum Found<'a> {
    Records(&'a [Record]),
    Fault(Fault),
}

impl Default for Zones {
    fn default() -> Self {
        Self::new()
    }
}

impl Zones {
    /// An empty table: no name exists.
    #[must_use]
    pub fn new() -> Self {
        let (names, faults) = (HashMap::new(), HashMap::new());
        Self { names, faults, wildcard: Vec::new(), ttl: DEFAULT_TTL }
    }

    /// The TTL in seconds of all records that are added after this.
    #[must_use]
    pub fn ttl(mut self, seconds: u32) -> Self {
        self.ttl = seconds;
        self
    }

    /// An MX record.
    #[must_use]
    pub fn mx(self, domain: &str, preference: u16, host: &str) -> Self {
        self.add(domain, Data::Mx { preference, host: key(host) })
    }

    /// A null MX: the domain takes no mail (RFC 7505).
    #[must_use]
    pub fn null_mx(self, domain: &str) -> Self {
        self.add(domain, Data::Mx { preference: 0, host: String::new() })
    }

    /// An IPv4 address.
    #[must_use]
    pub fn a(self, host: &str, address: impl Into<Ipv4Addr>) -> Self {
        self.add(host, Data::Address(IpAddr::V4(address.into())))
    }

    /// An IPv6 address.
    #[must_use]
    pub fn aaaa(self, host: &str, address: impl Into<Ipv6Addr>) -> Self {
        self.add(host, Data::Address(IpAddr::V6(address.into())))
    }

    /// A text of at most 255 bytes a piece; a longer one is parted.
    #[must_use]
    pub fn txt(self, name: &str, text: &str) -> Self {
        self.add(name, Data::Txt(text.to_owned()))
    }

    /// An alias.
    #[must_use]
    pub fn cname(self, name: &str, target: &str) -> Self {
        self.add(name, Data::Cname(key(target)))
    }

    /// The name exists and has no records.
    #[must_use]
    pub fn empty(mut self, name: &str) -> Self {
        self.names.entry(key(name)).or_default();
        self
    }

    /// The name does not exist, whatever the wildcard says.
    #[must_use]
    pub fn nxdomain(self, name: &str) -> Self {
        self.fault(name, Fault::NxDomain)
    }

    /// Asking for the name fails.
    #[must_use]
    pub fn servfail(self, name: &str) -> Self {
        self.fault(name, Fault::ServFail)
    }

    /// Asking for the name gets no answer at all.
    #[must_use]
    pub fn silent(self, name: &str) -> Self {
        self.fault(name, Fault::Silent)
    }

    /// Every name that is not in the table has one MX, `host`, which has
    /// `address`.
    #[must_use]
    pub fn wildcard(mut self, host: &str, address: impl Into<IpAddr>) -> Self {
        let data = Data::Mx { preference: 10, host: key(host) };
        self.wildcard = vec![Record { ttl: self.ttl, data }];
        self.names.remove(&key(host));
        self.add(host, Data::Address(address.into()))
    }

    /// Forgets all about a name.
    #[must_use]
    pub fn remove(mut self, name: &str) -> Self {
        self.names.remove(&key(name));
        self.faults.remove(&key(name));
        self
    }

    fn add(mut self, name: &str, data: Data) -> Self {
        let record = Record { ttl: self.ttl, data };
        self.names.entry(key(name)).or_default().push(record);
        self
    }

    fn fault(mut self, name: &str, fault: Fault) -> Self {
        self.faults.insert(key(name), fault);
        self
    }

    pub(super) fn find(&self, name: &str) -> Found<'_> {
        let name = key(name);
        if let Some(fault) = self.faults.get(&name) {
            return Found::Fault(*fault);
        }
        match self.names.get(&name) {
            Some(records) => Found::Records(records),
            None if self.wildcard.is_empty() => Found::Fault(Fault::NxDomain),
            None => Found::Records(&self.wildcard),
        }
    }
}

/// One form for a name: lower case, no trailing dot.
pub(super) fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}
