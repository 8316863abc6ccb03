//! The resolver that the SMTP clients of a process share.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use posthaste_model::Domain;
use tokio::time::Instant;

use crate::{
    AddressPolicy, Route, RouteError,
    cache::{Cache, Kept},
    hickory::Hickory,
    lookup::Lookup,
    resolve::{self, Keep, Resolution},
};

/// Smart hosts are few.
const HOSTS_KEPT: usize = 256;

/// How to ask and what to keep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolverConfig {
    /// DNS servers, asked by UDP, then TCP; none: those of the system.
    pub servers: Vec<SocketAddr>,
    /// How long one question may take in all, its repetition included. A
    /// route takes two rounds of questions: MX, then addresses.
    pub timeout: Duration,
    /// A route is kept this long at least, whatever its TTL.
    pub min_ttl: Duration,
    /// And this long at most.
    pub max_ttl: Duration,
    /// How long a failure is kept: seconds, so that a domain that comes back
    /// is seen, and many messages to a dead one do not ask each.
    pub failure_ttl: Duration,
    /// Most routes that are kept.
    pub cache_size: usize,
    /// Which addresses may be used.
    pub addresses: AddressPolicy,
}

impl Default for ResolverConfig {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            timeout: Duration::from_secs(10),
            min_ttl: Duration::from_secs(10),
            max_ttl: Duration::from_secs(3600),
            failure_ttl: Duration::from_secs(5),
            cache_size: 100_000,
            addresses: AddressPolicy::default(),
        }
    }
}

/// Why there is no resolver. Completes "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolverError {
    /// The system's DNS servers.
    #[error("failed to read the system's DNS servers: {0}; name them in the configuration")]
    System(String),
    /// The library.
    #[error("failed to set up the resolver: {0}")]
    Build(String),
    /// Bounds that contradict each other.
    #[error("failed to set up the resolver: min_ttl is over max_ttl, or timeout is zero")]
    Bounds,
}

/// Finds routes and keeps them. A clone shares everything.
#[derive(Clone)]
pub struct Resolver {
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Box<dyn Lookup>,
    config: ResolverConfig,
    domains: Cache,
    hosts: Cache,
}

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Resolver").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver that asks the configured DNS servers. Sends nothing yet.
    ///
    /// # Errors
    /// The system's servers cannot be read, or bounds contradict each other.
    pub fn new(config: ResolverConfig) -> Result<Self, ResolverError> {
        if config.min_ttl > config.max_ttl || config.timeout.is_zero() {
            return Err(ResolverError::Bounds);
        }
        let lookup = Hickory::new(&config)?;
        Ok(Self::with(Box::new(lookup), config))
    }

    pub(crate) fn with(lookup: Box<dyn Lookup>, config: ResolverConfig) -> Self {
        let (domains, hosts) = (Cache::new(config.cache_size), Cache::new(HOSTS_KEPT));
        Self { shared: Arc::new(Shared { lookup, config, domains, hosts }) }
    }

    /// The next hops of a recipient's domain.
    ///
    /// # Errors
    /// There are none that may be used, or DNS did not answer in time.
    pub async fn route(&self, domain: &Domain) -> Result<Arc<Route>, RouteError> {
        let shared = &*self.shared;
        let ask = || async {
            let policy = &shared.config.addresses;
            shared.kept(resolve::domain(&*shared.lookup, policy, domain.as_str()).await)
        };
        shared.domains.get(domain.as_str(), ask).await
    }

    /// The addresses of one host that the operator has named (a smart host):
    /// no MX. An IP address is taken as it is. The policy on private and own
    /// addresses does not apply: it is there for what others choose.
    ///
    /// # Errors
    /// It has no address, or DNS did not answer in time.
    pub async fn host(&self, name: &str) -> Result<Arc<Route>, RouteError> {
        let shared = &*self.shared;
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let ask = || async {
            let policy = &shared.config.addresses;
            shared.kept(resolve::host(&*shared.lookup, policy, &name).await)
        };
        shared.hosts.get(&name, ask).await
    }
}

impl Shared {
    fn kept(&self, resolution: Resolution) -> Kept {
        let config = &self.config;
        let keep = match resolution.keep {
            Keep::Ttl(ttl) => ttl.clamp(config.min_ttl, config.max_ttl),
            Keep::Failure => config.failure_ttl,
        };
        Kept { result: resolution.result.map(Arc::new), until: Instant::now() + keep }
    }
}

#[cfg(test)]
#[path = "resolver_tests.rs"]
mod tests;
