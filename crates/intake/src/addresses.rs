//! Reading addresses, and the substitutions of a recipient.

use posthaste_mail::{Mailbox, MailboxError};
use posthaste_model::EmailAddress;
use serde::de::MapAccess;

use crate::{
    errors::code,
    fields::{Parsed, Text, require},
    json::{At, Fields, Path, Read, Seed, shortened},
    request::{Addressee, Substitutions},
    template::is_name,
};

/// An address: `"a@b"`, `"Name <a@b>"` or `{"email": "a@b", "name": "Name"}`.
pub(crate) struct ReadMailbox;

impl<'de> Read<'de> for ReadMailbox {
    type Value = Mailbox;
    const EXPECTED: &'static str = "an address: a string or {\"email\", \"name\"}";

    fn string(self, text: &str, at: At<'_>) -> Option<Mailbox> {
        let plain = text.trim_matches(' ');
        plain.parse().map_err(|error: MailboxError| note_mailbox(text, &error, at)).ok()
    }

    fn object<A: MapAccess<'de>>(
        self,
        entries: A,
        at: At<'_>,
    ) -> Result<Option<Mailbox>, A::Error> {
        let (mailbox, _) = read_mailbox(entries, &["email", "name"], at)?;
        Ok(mailbox)
    }
}

/// An address of `to`: as [`ReadMailbox`], the object with `"substitutions"`.
pub(crate) struct ReadAddressee;

impl<'de> Read<'de> for ReadAddressee {
    type Value = Addressee;
    const EXPECTED: &'static str =
        "an address: a string or {\"email\", \"name\", \"substitutions\"}";

    fn string(self, text: &str, at: At<'_>) -> Option<Addressee> {
        ReadMailbox.string(text, at).map(Addressee::from)
    }

    fn object<A: MapAccess<'de>>(
        self,
        entries: A,
        at: At<'_>,
    ) -> Result<Option<Addressee>, A::Error> {
        let known = &["email", "name", "substitutions"];
        let (mailbox, substitutions) = read_mailbox(entries, known, at)?;
        Ok(mailbox.map(|mailbox| Addressee { mailbox, substitutions }))
    }
}

fn read_mailbox<'de, A: MapAccess<'de>>(
    entries: A,
    known: &'static [&'static str],
    at: At<'_>,
) -> Result<(Option<Mailbox>, Option<Substitutions>), A::Error> {
    let mut fields = Fields::new(entries, known, at);
    let (mut email, mut name, mut substitutions) = (None, None, None);
    while let Some(field) = fields.next()? {
        match field {
            "email" => {
                email = fields.value(field, Parsed::<EmailAddress>::new(code::ADDRESS_INVALID))?;
            }
            "name" => name = fields.value(field, Text)?,
            _ => substitutions = fields.value(field, ReadSubstitutions)?,
        }
    }
    let Some(email) = email else {
        require("email", at);
        return Ok((None, None));
    };
    let named = Mailbox::new(name, email);
    let path = Path::Key(at.path, "name");
    let mailbox = named.map_err(|error| at.below(&path).note(code::ADDRESS_INVALID, error)).ok();
    Ok((mailbox, substitutions))
}

/// Names and values; a whole number is its digits.
pub(crate) struct ReadSubstitutions;

impl<'de> Read<'de> for ReadSubstitutions {
    type Value = Substitutions;
    const EXPECTED: &'static str = "an object of names and values";

    fn object<A: MapAccess<'de>>(
        self,
        mut entries: A,
        at: At<'_>,
    ) -> Result<Option<Substitutions>, A::Error> {
        let mut values = Substitutions::default();
        let (mut count, mut left) = (0_usize, at.values.get());
        while let Some(name) = entries.next_key::<String>()? {
            count += 1;
            if count > at.limits.substitutions || left == 0 {
                entries.next_value::<serde::de::IgnoredAny>()?;
                continue;
            }
            left -= 1;
            let path = Path::Key(at.path, &name);
            let below = at.below(&path);
            let value =
                entries.next_value_seed(Seed { read: Value, at: below, nullable: false })?;
            if !is_name(&name) {
                below.note(
                    code::SUBSTITUTION_INVALID,
                    "is not a name: up to 64 letters, digits, '_', '-' and '.', a letter or '_' first",
                );
            } else if values.get(&name).is_some() {
                below.note(code::DUPLICATE_FIELD, "is there more than once");
            } else if let Some(value) = value {
                values.insert(name, value);
            }
        }
        let max = at.limits.substitutions;
        if count > max {
            at.note(code::TOO_MANY, format_args!("has {count} entries, allowed are {max}"));
        } else if left == 0 && at.values.get() < count {
            let max = at.limits.substitution_values;
            let detail = format_args!("is beyond the {max} substitutions that a request may have");
            at.note(code::TOO_MANY, detail);
        }
        at.values.set(left);
        Ok(Some(values))
    }
}

struct Value;

impl Read<'_> for Value {
    type Value = String;
    const EXPECTED: &'static str = "a string or an integer";

    fn string(self, text: &str, _at: At<'_>) -> Option<String> {
        Some(text.to_owned())
    }

    /// A number that writers and readers of JSON may have rounded (RFC 8259
    /// section 6) is refused: its digits would be put into a mail.
    fn integer(self, number: i128, at: At<'_>) -> Option<String> {
        if number.unsigned_abs() >= 1 << 53 {
            at.note(
                code::OUT_OF_RANGE,
                format_args!("is {number}; give a number of more than 53 bits as a string"),
            );
            return None;
        }
        Some(number.to_string())
    }
}

fn note_mailbox(text: &str, error: &MailboxError, at: At<'_>) {
    let given = shortened(text);
    if text.matches('@').count() > 1 && text.contains([',', ';']) {
        at.note(
            code::ADDRESS_INVALID,
            format_args!("{given:?} {error}; for more than one address give a list"),
        );
    } else {
        at.note(code::ADDRESS_INVALID, format_args!("{given:?} {error}"));
    }
}
