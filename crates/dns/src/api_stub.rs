//! stub, being written
#![allow(missing_docs, clippy::all, reason = "stub")]
use std::{net::{IpAddr, SocketAddr}, sync::Arc, time::Duration};
use posthaste_model::Domain;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route { pub site: Arc<str>, pub hosts: Vec<Host>, pub implicit: bool }
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host { pub name: String, pub preference: u16, pub addresses: Vec<IpAddr> }
impl Route { pub fn order(&self, _rng: &mut fastrand::Rng) -> Vec<&Host> { self.hosts.iter().collect() } }
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("null")] NullMx,
    #[error("{0}")] NoRoute(String),
    #[error("{0}")] Temporary(String),
    #[error("{0}")] Refused(String),
}
#[derive(Debug, Clone)]
pub struct ResolverConfig { pub servers: Vec<SocketAddr>, pub timeout: Duration, pub min_ttl: Duration, pub max_ttl: Duration,
    pub failure_ttl: Duration, pub cache_size: usize, pub addresses: AddressPolicy }
impl Default for ResolverConfig { fn default() -> Self { Self { servers: vec![], timeout: Duration::from_secs(5), min_ttl: Duration::from_secs(10),
    max_ttl: Duration::from_secs(3600), failure_ttl: Duration::from_secs(5), cache_size: 50_000, addresses: AddressPolicy::default() } } }
#[derive(Debug, Clone)]
pub struct AddressPolicy { pub allow_private: bool, pub own_addresses: Vec<IpAddr>, pub ipv6: bool }
impl Default for AddressPolicy { fn default() -> Self { Self { allow_private: false, own_addresses: vec![], ipv6: true } } }
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ResolverError(String);
#[derive(Debug, Clone)]
pub struct Resolver {}
impl Resolver {
    pub fn new(_config: ResolverConfig) -> Result<Self, ResolverError> { Ok(Self {}) }
    pub async fn route(&self, _domain: &Domain) -> Result<Arc<Route>, RouteError> { Err(RouteError::Temporary("stub".into())) }
    pub async fn host(&self, _name: &str) -> Result<Arc<Route>, RouteError> { Err(RouteError::Temporary("stub".into())) }
}
