//! Durations, sizes and secrets as people write them.

use std::{fmt, path::Path, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

/// A duration: `"500ms"`, `"10s"`, `"5m"`, `"1h 30m"`, `"2d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse_span(&text).map(Span).ok_or_else(|| {
            D::Error::custom(format!("{text:?} is not a duration such as \"500ms\", \"10s\", \"5m\", \"1h 30m\" or \"2d\""))
        })
    }
}

fn parse_span(text: &str) -> Option<Duration> {
    // jiff's durations end at hours; a day of a retry list has 24 of them.
    if let Some(days) = text.trim().strip_suffix('d') {
        let days: u64 = days.trim().parse().ok()?;
        return days.checked_mul(86_400).map(Duration::from_secs);
    }
    let parsed: jiff::SignedDuration = text.parse().ok()?;
    Duration::try_from(parsed).ok()
}

/// A size in bytes: a number, or `"64KiB"`, `"25MiB"`, `"1GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of bytes, or a size such as \"64KiB\", \"25MiB\" or \"1GiB\"")
            }

            fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Size, E> {
                u64::try_from(value).map(Size).map_err(|_| E::custom("a size cannot be negative"))
            }

            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Size, E> {
                Ok(Size(value))
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text).map(Size).ok_or_else(|| {
                    E::custom(format!(
                        "{text:?} is not a size such as \"64KiB\", \"25MiB\" or \"1GiB\""
                    ))
                })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

fn parse_size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic() || c == ' ');
    let number: u64 = digits.parse().ok()?;
    let factor = match text[digits.len()..].trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(factor)
}

/// A secret: in the file itself, or `"file:PATH"` to read it from a file of
/// its own (the last line end is dropped). Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let secret = match text.strip_prefix("file:") {
            None => text,
            Some(path) => std::fs::read_to_string(Path::new(path))
                .map(|content| content.trim_end_matches(['\r', '\n']).to_owned())
                .map_err(|error| D::Error::custom(format!("cannot read {path}: {error}")))?,
        };
        if secret.len() < 16 {
            return Err(D::Error::custom("a secret needs at least 16 characters"));
        }
        Ok(Self(secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        for (text, millis) in [
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(parse_span(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "10", "-5s", "ten seconds", "1x", "d"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("10", 10), ("64KiB", 65_536), ("25 MiB", 26_214_400), ("1GiB", 1 << 30)]
        {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1MB", "1.5GiB", "-1", "99999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
