//! Who submits, from where, and what they may.

use std::{fmt, net::IpAddr, str::FromStr};

use posthaste_model::{AddressError, Domain, PoolName};

/// Which sender domains are meant: one by its name (`example.com`), or all
/// below one (`*.example.com`, which does not mean `example.com` itself).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainPattern {
    /// The domain alone.
    Exact(Domain),
    /// Every domain below it.
    Below(Domain),
}

impl DomainPattern {
    /// Whether the domain is meant.
    #[must_use]
    pub fn matches(&self, domain: &Domain) -> bool {
        match self {
            Self::Exact(exact) => exact == domain,
            Self::Below(parent) => domain
                .as_str()
                .strip_suffix(parent.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
    }
}

impl FromStr for DomainPattern {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("*.") {
            Some(parent) => parent.parse().map(Self::Below),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl fmt::Display for DomainPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(domain) => write!(f, "{domain}"),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// Who submits.
#[derive(Debug, Clone, Default)]
pub struct Principal {
    /// Name of the token, where one was used; goes into the submission log.
    pub token: Option<String>,
    /// Domains of From and of the return path; `None`: any.
    pub sender_domains: Option<Vec<DomainPattern>>,
    /// Pools; `None`: any.
    pub pools: Option<Vec<PoolName>>,
}

impl Principal {
    /// Whether mail of this domain may be sent.
    #[must_use]
    pub fn may_send_as(&self, domain: &Domain) -> bool {
        self.sender_domains
            .as_ref()
            .is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(domain)))
    }

    /// Whether the pool may be used.
    #[must_use]
    pub fn may_use(&self, pool: &PoolName) -> bool {
        self.pools.as_ref().is_none_or(|pools| pools.contains(pool))
    }
}

/// Where a submission came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source {
    /// `http`.
    pub interface: &'static str,
    /// Address of the submitter.
    pub address: IpAddr,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, domain, matches) in [
            ("example.com", "example.com", true),
            ("Example.COM", "example.com", true),
            ("example.com", "a.example.com", false),
            ("example.com", "badexample.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "badexample.com", false),
        ] {
            let parsed: DomainPattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(&domain.parse().unwrap()), matches, "{pattern} {domain}");
        }
        assert!("*".parse::<DomainPattern>().is_err());
        assert!("*.".parse::<DomainPattern>().is_err());
        assert!("a.*.com".parse::<DomainPattern>().is_err());
    }
}
