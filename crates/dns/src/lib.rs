//! The way to a recipient: which hosts take the mail of a domain, and at
//! which addresses.
//!
//! [`Resolver::route`] asks for MX, then A and AAAA, as RFC 5321 section 5.1
//! wants it, takes out the addresses that policy refuses, and keeps the
//! answer for all who ask, by its TTL within bounds. Many tasks that ask for
//! one domain cause one question.
//!
//! Invariants: a [`Route`] has a host and every host an address; numbers of
//! hosts, of addresses and of kept routes are bounded; no answer of a DNS
//! server leads to a loopback, private or own address unless the operator
//! allows it. What fails says whether another try can help: [`RouteError`].
//!
//! `/etc/hosts` and search domains are not used: mail routing is a matter of
//! DNS alone, and a short name must not become another one.

mod cache;
mod hickory;
mod lookup;
mod policy;
mod resolve;
mod resolver;
mod route;

pub use policy::AddressPolicy;
pub use resolver::{Resolver, ResolverConfig, ResolverError};
pub use route::{Host, MAX_ADDRESSES, MAX_HOSTS, Route, RouteError};
