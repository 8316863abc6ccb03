//! A return path for each recipient, so that a bounce names the address that
//! bounced (variable envelope return path).
//!
//! `bounces@example.com` and `ann@example.net` give
//! `bounces+ann=example.net@example.com`. To read one, take what stands behind
//! the first `+` after the known local part; the last `=` in it stands for the
//! `@`. Bytes of the recipient's local part that are not a letter, a digit or
//! one of `. _ - +` are written `=XX`, in hexadecimal, so that quotes, `%`,
//! `!` and UTF-8 harm nobody.
//!
//! Where that has more than 64 bytes (RFC 5321 section 4.5.3.1.1), or a
//! message id stands for the address: `bounces+<32 hexadecimal digits>@…`,
//! without `=`.

use std::fmt::Write;

use posthaste_model::{EmailAddress, MAX_ADDRESS_LEN, MAX_LOCAL_LEN, MessageId};

/// Longest local part that an id can be added to.
const MAX_BASE_LEN: usize = MAX_LOCAL_LEN - 1 - 32;

/// Why no return path can be made from an address.
pub(crate) fn objection(base: &EmailAddress) -> Option<String> {
    if base.local().starts_with('"') {
        return Some("needs a return path without quotes".to_owned());
    }
    if base.local().len() > MAX_BASE_LEN {
        return Some(format!(
            "needs a return path with at most {MAX_BASE_LEN} bytes before the '@', not {}",
            base.local().len()
        ));
    }
    if base.as_str().len() + 1 + 32 > MAX_ADDRESS_LEN {
        return Some(format!("needs a return path of at most {} bytes", MAX_ADDRESS_LEN - 33));
    }
    None
}

/// The return path of one message; that of `base` has no [`objection`].
pub(crate) fn return_path(
    base: &EmailAddress,
    recipient: &EmailAddress,
    message_id: MessageId,
) -> EmailAddress {
    let by_address =
        format!("{}+{}={}", base.local(), encoded(recipient.local()), recipient.domain());
    [by_address, format!("{}+{}", base.local(), hex(message_id))]
        .into_iter()
        .find_map(|local| format!("{local}@{}", base.domain()).parse().ok())
        // The second always fits: see `objection`.
        .unwrap_or_else(|| base.clone())
}

fn encoded(local: &str) -> String {
    let is_quoted = local.starts_with('"');
    let mut out = String::with_capacity(local.len() + 8);
    for byte in local.bytes() {
        // In quotes dots may stand where they may not outside.
        let is_plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'_' | b'-' | b'+')
            || (byte == b'.' && !is_quoted);
        if is_plain {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            write!(out, "={byte:02X}").unwrap_or_default();
        }
    }
    out
}

fn hex(id: MessageId) -> String {
    id.as_bytes().iter().fold(String::with_capacity(32), |mut out, byte| {
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As the documentation tells a reader to do it.
    fn decoded(return_path: &str, base: &str) -> Option<String> {
        let token = return_path.strip_prefix(base)?.strip_prefix('+')?.rsplit_once('@')?.0;
        let (local, domain) = token.rsplit_once('=')?;
        let mut bytes = Vec::new();
        let mut rest = local;
        while let Some((plain, encoded)) = rest.split_once('=') {
            bytes.extend_from_slice(plain.as_bytes());
            bytes.push(u8::from_str_radix(encoded.get(..2)?, 16).ok()?);
            rest = &encoded[2..];
        }
        bytes.extend_from_slice(rest.as_bytes());
        Some(format!("{}@{domain}", String::from_utf8(bytes).ok()?))
    }

    #[test]
    fn table() {
        let id = MessageId::from_bytes([0x1f; 16]);
        for (base, recipient, expected) in [
            ("b@example.com", "ann@example.net", "b+ann=example.net@example.com"),
            ("b+x@example.com", "a.b-c+d_e@example.net", "b+x+a.b-c+d_e=example.net@example.com"),
            ("b@example.com", "a=b@example.net", "b+a=3Db=example.net@example.com"),
            ("b@example.com", "a%x!y@example.net", "b+a=25x=21y=example.net@example.com"),
            ("b@example.com", "\"a..b\"@example.net", "b+=22a=2E=2Eb=22=example.net@example.com"),
            ("b@example.com", "jörg@example.net", "b+j=C3=B6rg=example.net@example.com"),
            ("b@example.com", "j@bücher.example", "b+j=xn--bcher-kva.example@example.com"),
            (
                "b@example.com",
                "a.much.longer.name@subsidiary.of.a.company.with.a.long.name.example",
                "b+1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f@example.com",
            ),
        ] {
            let made = return_path(&base.parse().unwrap(), &recipient.parse().unwrap(), id);
            assert_eq!(made.as_str(), expected);
            assert!(!made.needs_smtputf8());
        }
    }

    #[test]
    fn objections() {
        for (base, objects) in [
            ("b@example.com", false),
            ("\"b\"@example.com", true),
            (&format!("{}@example.com", "b".repeat(31)), false),
            (&format!("{}@example.com", "b".repeat(32)), true),
            (&format!("b@{}com", "yyyyy.".repeat(36)), false),
            (&format!("b@{}com", "yyyyy.".repeat(37)), true),
        ] {
            assert_eq!(objection(&base.parse().unwrap()).is_some(), objects, "{base}");
        }
    }

    proptest! {
        #[test]
        fn reads_back_or_is_an_id(local in "\\PC{1,30}", quoted in "\"[ -!#-\\[\\]-~]{0,20}\"") {
            for local in [local, quoted] {
                let Ok(recipient) = format!("{local}@example.net").parse::<EmailAddress>() else {
                    continue;
                };
                let id = MessageId::from_bytes([0xab; 16]);
                let made = return_path(&"b@example.com".parse().unwrap(), &recipient, id);
                let is_id = made.as_str() == format!("b+{}@example.com", "ab".repeat(16));
                let read = decoded(made.as_str(), "b");
                prop_assert!(is_id || read.as_deref() == Some(recipient.as_str()), "{}", made);
            }
        }
    }
}
