//! Reading the header of a message that is about to be sent.
//!
//! The header stands in two places: the fields of this recipient and the
//! start of the content. Nothing here fails: a line that is not a field is
//! skipped, bytes that are not UTF-8 are replaced.

use std::borrow::Cow;

use memchr::{memchr, memchr2};
use serde_json::value::RawValue;

/// All header fields as a JSON array of `[name, value]`, in their order,
/// values unfolded (RFC 5322 section 2.2.3) and otherwise as they stand. At
/// most `max` bytes of header are read: the field at that place is cut, the
/// rest left out.
#[must_use]
pub fn header_json(fields: &str, content: &[u8], max: usize) -> Box<RawValue> {
    let fields = fields.as_bytes();
    let fields = &fields[..fields.len().min(max)];
    let content = &content[..content.len().min(max - fields.len())];
    let all: Vec<(Cow<'_, str>, Cow<'_, str>)> = Fields(fields)
        .chain(Fields(content))
        .map(|(name, value)| (String::from_utf8_lossy(name), unfold(value)))
        .collect();
    serde_json::value::to_raw_value(&all).unwrap_or_default()
}

/// How many hosts have handled the message: RFC 5321 section 6.3 finds loops
/// by counting the Received fields.
#[must_use]
pub fn count_received(fields: &str, content: &[u8]) -> usize {
    Fields(fields.as_bytes())
        .chain(Fields(content))
        .filter(|(name, _)| name.eq_ignore_ascii_case(b"received"))
        .count()
}

/// The fields up to the empty line: name, and value with its folds.
struct Fields<'a>(&'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.0.is_empty() || self.0.starts_with(b"\r\n") || self.0.starts_with(b"\n") {
                return None;
            }
            let (field, rest) = self.0.split_at(field_end(self.0));
            self.0 = rest;
            if let Some(colon) = memchr(b':', field) {
                return Some((field[..colon].trim_ascii_end(), field[colon + 1..].trim_ascii()));
            }
        }
    }
}

/// Behind the line end that no white space follows.
fn field_end(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(at) = memchr(b'\n', &bytes[end..]) {
        end += at + 1;
        if !matches!(bytes.get(end), Some(b' ' | b'\t')) {
            return end;
        }
    }
    bytes.len()
}

fn unfold(value: &[u8]) -> Cow<'_, str> {
    if memchr2(b'\r', b'\n', value).is_none() {
        return String::from_utf8_lossy(value);
    }
    let kept: Vec<u8> = value.iter().copied().filter(|b| !matches!(b, b'\r' | b'\n')).collect();
    Cow::Owned(String::from_utf8_lossy(&kept).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FIELDS: &str = "Received: by a (Posthaste)\r\n with HTTP id 1;\r\n now\r\nTo: <b@c>\r\n";
    const CONTENT: &[u8] =
        b"From: <a@b>\r\nnot a field\r\nX-Empty:\r\nSubject : \xff \"q\"\r\nreceived: x\r\n\r\nReceived: body\r\n";

    #[test]
    fn json() {
        assert_eq!(
            header_json(FIELDS, CONTENT, 10_000).get(),
            r#"[["Received","by a (Posthaste) with HTTP id 1; now"],["To","<b@c>"],["From","<a@b>"],["X-Empty",""],["Subject","� \"q\""],["received","x"]]"#
        );
    }

    #[test]
    fn json_is_bounded() {
        for (max, expected) in [
            (0, "[]"),
            (3, "[]"),
            (14, r#"[["Received","by a"]]"#),
            (
                FIELDS.len() + 9,
                r#"[["Received","by a (Posthaste) with HTTP id 1; now"],["To","<b@c>"],["From","<a@"]]"#,
            ),
        ] {
            assert_eq!(header_json(FIELDS, CONTENT, max).get(), expected);
        }
    }

    #[test]
    fn received_fields_of_both_parts_count_those_of_the_body_do_not() {
        assert_eq!(count_received(FIELDS, CONTENT), 2);
        assert_eq!(count_received("", b"\r\nReceived: x\r\n"), 0);
        assert_eq!(count_received("", b"Received-SPF: x\nReceived: a\n b\nRECEIVED: c"), 2);
    }

    proptest! {
        #[test]
        fn never_panics(fields in "[a:\\r\\n \\t]{0,40}", content in proptest::collection::vec(
            prop_oneof![Just(b':'), Just(b'\r'), Just(b'\n'), Just(b' '), any::<u8>()], 0..80),
            max in 0_usize..200,
        ) {
            let json = header_json(&fields, &content, max);
            let read: Vec<(String, String)> = serde_json::from_str(json.get()).unwrap();
            prop_assert!(read.iter().all(|(_, value)| !value.contains(['\r', '\n'])));
            prop_assert!(count_received(&fields, &content) <= fields.len() + content.len());
        }
    }
}
