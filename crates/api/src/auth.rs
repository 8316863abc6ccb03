//! Who is asking.
//!
//! A token's secret is kept as its SHA-256 alone, and compared in constant
//! time: neither memory nor timing tells it. Secrets are random and long, so
//! that no slow hash is needed (a guess costs a request).

use std::{fmt, net::IpAddr, sync::Arc};

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::{
    HeaderMap,
    header::{AUTHORIZATION, HOST},
};
use posthaste_intake::{DomainPattern, Principal};
use posthaste_model::PoolName;
use subtle::ConstantTimeEq;

use crate::problem::Problem;

/// A secret, kept as its hash.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Hashes the secret, which need not be kept.
    #[must_use]
    pub fn new(secret: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        Self(hash)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A token of the configuration.
#[derive(Debug, Clone)]
pub struct Token {
    secret: Secret,
    principal: Arc<Principal>,
}

impl Token {
    /// A token with its name, and what it may; `None`: anything.
    #[must_use]
    pub fn new(
        name: impl Into<String>,
        secret: Secret,
        sender_domains: Option<Vec<DomainPattern>>,
        pools: Option<Vec<PoolName>>,
    ) -> Self {
        let token = Some(name.into());
        Self { secret, principal: Arc::new(Principal { token, sender_domains, pools }) }
    }
}

/// Who may ask.
#[derive(Debug, Clone, Default)]
pub enum Auth {
    /// Anybody on this machine. For loopback listeners; a peer from elsewhere
    /// is refused all the same.
    #[default]
    Open,
    /// Whoever has one of these.
    Tokens(Vec<Token>),
}

impl Auth {
    /// Finds out who asks.
    ///
    /// # Errors
    /// 401 without a token that is known, 403 from elsewhere without tokens.
    pub(crate) fn principal(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
    ) -> Result<Arc<Principal>, Problem> {
        let tokens = match self {
            Self::Open if !client.to_canonical().is_loopback() => {
                return Err(Problem::forbidden(
                    "loopback_only",
                    "no tokens are configured: only this machine may ask",
                ));
            }
            // A page in a browser of this machine can make a name of its own
            // lead here (DNS rebinding); the browser then sends that name.
            Self::Open if !names_this_machine(headers) => {
                return Err(Problem::forbidden(
                    "loopback_only",
                    "no tokens are configured: ask for localhost, 127.0.0.1 or [::1] by name",
                ));
            }
            Self::Open => return Ok(Arc::default()),
            Self::Tokens(tokens) => tokens,
        };
        let given = bearer(headers).ok_or_else(|| {
            Problem::unauthorized("a token is required: Authorization: Bearer <token>")
        })?;
        let given = Secret::new(given);
        // All are compared, so that the time does not tell which one is near.
        let mut found = None;
        for token in tokens {
            if bool::from(token.secret.0.ct_eq(&given.0)) {
                found = Some(&token.principal);
            }
        }
        found.cloned().ok_or_else(|| Problem::unauthorized("the token is not known"))
    }
}

/// Whether the Host field, if there is one, is a name of the loopback.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let literal = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || literal.parse().is_ok_and(|ip: IpAddr| ip.to_canonical().is_loopback())
}

/// The credentials of RFC 6750 section 2.1.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(values: &[&str]) -> HeaderMap {
        values.iter().map(|value| (AUTHORIZATION, value.parse().unwrap())).collect()
    }

    #[test]
    fn open_is_not_for_pages_from_elsewhere() {
        for (host, allowed) in [
            ("localhost", true),
            ("LocalHost:8025", true),
            ("127.0.0.1:8025", true),
            ("127.0.0.2", true),
            ("[::1]:8025", true),
            ("[::1]", true),
            ("rebound.example:8025", false),
            ("localhost.example", false),
            ("192.0.2.1:8025", false),
            ("", false),
        ] {
            let headers = [(HOST, host.parse().unwrap())].into_iter().collect();
            let principal = Auth::Open.principal(&headers, "127.0.0.1".parse().unwrap());
            assert_eq!(principal.is_ok(), allowed, "{host}");
        }
    }

    #[test]
    fn open_is_for_this_machine() {
        for (client, allowed) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("192.0.2.1", false),
            ("10.0.0.1", false),
            ("::ffff:192.0.2.1", false),
            ("0.0.0.0", false),
        ] {
            let principal = Auth::Open.principal(&HeaderMap::new(), client.parse().unwrap());
            assert_eq!(principal.is_ok(), allowed, "{client}");
        }
    }

    #[test]
    fn tokens() {
        let token = |name, secret| Token::new(name, Secret::new(secret), None, None);
        let auth = Auth::Tokens(vec![token("one", "s3cret"), token("two", "other")]);
        let client = "192.0.2.1".parse().unwrap();
        let name = |values: &[&str]| {
            auth.principal(&headers(values), client).ok().and_then(|p| p.token.clone())
        };
        assert_eq!(name(&["Bearer s3cret"]).as_deref(), Some("one"));
        assert_eq!(name(&["bearer  other "]).as_deref(), Some("two"));
        for bad in [
            &[][..],
            &[""],
            &["Bearer"],
            &["Bearer "],
            &["Bearer s3cre"],
            &["Bearer s3crett"],
            &["Basic s3cret"],
            &["s3cret"],
            &["Bearer s3cret", "Bearer other"],
        ] {
            assert_eq!(name(bad), None, "{bad:?}");
        }
        assert!(!format!("{auth:?}").contains("s3cret"));
    }
}
