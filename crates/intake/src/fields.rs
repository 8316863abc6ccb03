//! The kinds of values that a submission is made of.

use std::{fmt, marker::PhantomData, str::FromStr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use posthaste_mail::Attachment;
use posthaste_model::Timestamp;
use serde::de::{MapAccess, SeqAccess};

use crate::{
    errors::code,
    json::{At, Fields, Path, Read, Seed, shortened},
};

/// Notes that a field is absent, or `null`, unless something else that is
/// wrong with it was noted: without an error the whole value would be dropped
/// in silence.
pub(crate) fn require(field: &'static str, at: At<'_>) {
    let path = Path::Key(at.path, field);
    if !at.errors.borrow().concerns(&path.to_string()) {
        at.below(&path).note(code::REQUIRED, "is required");
    }
}

/// Any text.
pub(crate) struct Text;

impl Read<'_> for Text {
    type Value = String;
    const EXPECTED: &'static str = "a string";

    fn string(self, text: &str, _at: At<'_>) -> Option<String> {
        Some(text.to_owned())
    }
}

/// A text with a form of its own: a tag, a pool's name, a bare address.
pub(crate) struct Parsed<T> {
    code: &'static str,
    kind: PhantomData<T>,
}

impl<T> Parsed<T> {
    pub(crate) const fn new(code: &'static str) -> Self {
        Self { code, kind: PhantomData }
    }
}

impl<T: FromStr<Err: fmt::Display>> Read<'_> for Parsed<T> {
    type Value = T;
    const EXPECTED: &'static str = "a string";

    fn string(self, text: &str, at: At<'_>) -> Option<T> {
        text.parse()
            .map_err(|error| {
                at.note(self.code, format_args!("{:?} {error}", shortened(text)));
            })
            .ok()
    }
}

/// Yes or no.
pub(crate) struct Flag;

impl Read<'_> for Flag {
    type Value = bool;
    const EXPECTED: &'static str = "true or false";

    fn boolean(self, value: bool, _at: At<'_>) -> Option<bool> {
        Some(value)
    }
}

/// Bytes in base64: the standard alphabet, padded, without white space
/// (RFC 4648 section 4), decoded at once, so that the text is never copied.
pub(crate) struct Base64;

impl Read<'_> for Base64 {
    type Value = Bytes;
    const EXPECTED: &'static str = "a string in base64";

    fn string(self, text: &str, at: At<'_>) -> Option<Bytes> {
        STANDARD
            .decode(text)
            .map(Bytes::from)
            .map_err(|error| {
                at.note(
                    code::BASE64_INVALID,
                    format_args!(
                        "is not base64 (standard alphabet, padded, no white space): {error}"
                    ),
                );
            })
            .ok()
    }
}

/// A whole number within bounds.
pub(crate) struct Integer {
    pub(crate) min: u64,
    pub(crate) max: u64,
}

impl Read<'_> for Integer {
    type Value = u64;
    const EXPECTED: &'static str = "an integer";

    fn integer(self, number: i128, at: At<'_>) -> Option<u64> {
        let within = u64::try_from(number).ok().filter(|n| (self.min..=self.max).contains(n));
        if within.is_none() {
            at.note(
                code::OUT_OF_RANGE,
                format_args!("is {number}, allowed are {} to {}", self.min, self.max),
            );
        }
        within
    }
}

/// A duration in whole seconds.
pub(crate) struct Seconds(pub(crate) Duration);

impl Read<'_> for Seconds {
    type Value = Duration;
    const EXPECTED: &'static str = "an integer, in seconds";

    fn integer(self, number: i128, at: At<'_>) -> Option<Duration> {
        Integer { min: 0, max: self.0.as_secs() }.integer(number, at).map(Duration::from_secs)
    }
}

/// A point in time: Unix seconds or RFC 3339.
pub(crate) struct Time;

impl Time {
    /// From the year 1 to the year 9999: what can be written as RFC 3339.
    const RANGE: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
}

impl Read<'_> for Time {
    type Value = Timestamp;
    const EXPECTED: &'static str = "a time: Unix seconds, or a string in RFC 3339";

    fn string(self, text: &str, at: At<'_>) -> Option<Timestamp> {
        // RFC 3339 has an offset; jiff knows more forms, which are not it.
        let parsed = text.parse::<jiff::Timestamp>().ok().filter(|_| !text.contains('['));
        if parsed.is_none() {
            at.note(
                code::TIME_INVALID,
                format_args!(
                    "{:?} is not a time in RFC 3339, such as 2026-11-24T16:00:00Z",
                    shortened(text)
                ),
            );
        }
        parsed.map(|time| Timestamp::from_millis(time.as_millisecond()))
    }

    fn integer(self, number: i128, at: At<'_>) -> Option<Timestamp> {
        let seconds = i64::try_from(number).ok().filter(|s| Self::RANGE.contains(s));
        if seconds.is_none() {
            at.note(code::OUT_OF_RANGE, format_args!("is {number}, not a Unix time in seconds"));
        }
        seconds.map(|s| Timestamp::from_millis(s.saturating_mul(1000)))
    }
}

/// Header fields: name to value, or to a list of values for a field that is
/// there more than once.
pub(crate) struct Headers;

impl<'de> Read<'de> for Headers {
    type Value = Vec<(String, String)>;
    const EXPECTED: &'static str = "an object of header fields";

    fn object<A: MapAccess<'de>>(
        self,
        mut entries: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        let mut headers: Vec<(String, String)> = Vec::new();
        let mut names = Vec::new();
        let mut count = 0_usize;
        while let Some(name) = entries.next_key::<String>()? {
            count += 1;
            if count > at.limits.headers {
                entries.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            let path = Path::Key(at.path, &name);
            let at = at.below(&path);
            // Names of header fields know no case (RFC 5322 section 1.2.2).
            if names.iter().any(|known: &String| known.eq_ignore_ascii_case(&name)) {
                at.note(
                    code::DUPLICATE_FIELD,
                    "is there more than once; for a repeated header field give a list of values",
                );
                entries.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            let seed = Seed { read: HeaderValues, at, nullable: false };
            let values = entries.next_value_seed(seed)?;
            headers.extend(values.into_iter().flatten().map(|value| (name.clone(), value)));
            names.push(name);
        }
        if count > at.limits.headers {
            at.note(
                code::TOO_MANY,
                format_args!("has {count} fields, allowed are {}", at.limits.headers),
            );
        }
        Ok(Some(headers))
    }
}

struct HeaderValues;

impl<'de> Read<'de> for HeaderValues {
    type Value = Vec<String>;
    const EXPECTED: &'static str = "a string or a list of strings";

    fn string(self, text: &str, _at: At<'_>) -> Option<Vec<String>> {
        Some(vec![text.to_owned()])
    }

    fn list<A: SeqAccess<'de>>(
        self,
        items: A,
        at: At<'_>,
    ) -> Result<Option<Self::Value>, A::Error> {
        crate::json::List::new(at.limits.headers, || Text).list(items, at)
    }
}

/// An attachment.
pub(crate) struct ReadAttachment;

impl ReadAttachment {
    const FIELDS: &'static [&'static str] = &["filename", "content", "content_type", "content_id"];
}

impl<'de> Read<'de> for ReadAttachment {
    type Value = Attachment;
    const EXPECTED: &'static str = "an object with \"content\" and \"filename\"";

    fn object<A: MapAccess<'de>>(
        self,
        entries: A,
        at: At<'_>,
    ) -> Result<Option<Attachment>, A::Error> {
        let mut fields = Fields::new(entries, Self::FIELDS, at);
        let (mut filename, mut content, mut content_type, mut content_id) =
            (None, None, None, None);
        while let Some(field) = fields.next()? {
            match field {
                "filename" => filename = fields.value(field, Text)?,
                "content" => {
                    content = fields.value(field, Base64)?;
                }
                "content_type" => content_type = fields.value(field, Text)?,
                _ => content_id = fields.value(field, Text)?,
            }
        }
        let Some(content) = content else {
            require("content", at);
            return Ok(None);
        };
        let content_type = content_type.unwrap_or_else(|| "application/octet-stream".to_owned());
        Ok(Some(Attachment { filename, content_type, content, content_id }))
    }
}
