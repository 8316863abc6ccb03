//! The Content-Disposition of a file (RFC 2183) with its name.
//!
//! A name that is not ASCII, or too long for a line, is written as RFC 2231
//! has it, which all clients of today read. mail-builder would fold a long
//! quoted name at its spaces; that is allowed, but readers exist that take
//! the line end as part of the name.

use std::fmt::Write;

/// What a quoted name may take so that no fold falls into it: behind
/// `Content-Disposition: attachment; filename=`, or on a line of its own
/// where there is no space to fold at.
const MAX_QUOTED: usize = 34;
const MAX_QUOTED_LINE: usize = 64;
/// Encoded bytes in one section of a name.
const MAX_SECTION: usize = 50;

/// The value of the field. No white space but where it can be folded, and
/// within short quoted names.
pub(crate) fn disposition(kind: &str, filename: Option<&str>) -> String {
    let Some(name) = filename else { return kind.to_owned() };
    let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
    let max = if name.contains(' ') { MAX_QUOTED } else { MAX_QUOTED_LINE };
    if quoted.len() <= max && name.bytes().all(|b| matches!(b, b' '..=b'~')) {
        return format!("{kind}; filename=\"{quoted}\"");
    }
    let sections = encode(name);
    let mut field = kind.to_owned();
    for (at, section) in sections.iter().enumerate() {
        // RFC 2231 section 4.1: the charset stands in the first section.
        let charset = if at == 0 { "UTF-8''" } else { "" };
        let number = if sections.len() == 1 { String::new() } else { format!("*{at}") };
        field.push_str("; filename");
        field.push_str(&number);
        field.push_str("*=");
        field.push_str(charset);
        field.push_str(section);
    }
    field
}

/// Percent-encoded, in sections that do not part a character.
fn encode(name: &str) -> Vec<String> {
    let mut sections = vec![String::new()];
    let mut encoded = String::with_capacity(12);
    for c in name.chars() {
        encoded.clear();
        if c.is_ascii_alphanumeric() || "!#$&+-.^_`|~".contains(c) {
            encoded.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                // Writing to memory cannot fail.
                write!(encoded, "%{byte:02X}").unwrap_or_default();
            }
        }
        match sections.last_mut() {
            Some(last) if last.len() + encoded.len() <= MAX_SECTION => last.push_str(&encoded),
            _ => sections.push(encoded.clone()),
        }
    }
    sections
}
