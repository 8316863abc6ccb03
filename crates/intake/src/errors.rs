//! What is wrong with a request, field by field.

use std::{fmt, time::Duration};

/// Most errors that one answer names. A request with more gets the first ones.
pub const MAX_ERRORS: usize = 50;

/// The same for each item of a permissive request, of which there are many.
pub const MAX_ITEM_ERRORS: usize = 10;

/// The codes of [`FieldError`]: one word for each cause, stable, for programs.
pub mod code {
    /// A field that must be there is not.
    pub const REQUIRED: &str = "required";
    /// A field that this program does not know.
    pub const UNKNOWN_FIELD: &str = "unknown_field";
    /// The same field twice in one object.
    pub const DUPLICATE_FIELD: &str = "duplicate_field";
    /// A number where a text belongs, and the like.
    pub const TYPE_MISMATCH: &str = "type_mismatch";
    /// More entries than allowed.
    pub const TOO_MANY: &str = "too_many";
    /// More bytes than allowed.
    pub const TOO_LONG: &str = "too_long";
    /// A number outside its range.
    pub const OUT_OF_RANGE: &str = "out_of_range";
    /// CR, LF, NUL or another control character where none may be.
    pub const CONTROL_CHARACTER: &str = "control_character";
    /// Not an address that mail can be sent to.
    pub const ADDRESS_INVALID: &str = "address_invalid";
    /// A name or a value that no header field may have.
    pub const HEADER_INVALID: &str = "header_invalid";
    /// A header field that Posthaste writes itself.
    pub const HEADER_RESERVED: &str = "header_reserved";
    /// Not base64 (RFC 4648 section 4).
    pub const BASE64_INVALID: &str = "base64_invalid";
    /// A file name, content type or content id that cannot be used.
    pub const ATTACHMENT_INVALID: &str = "attachment_invalid";
    /// Not a tag.
    pub const TAG_INVALID: &str = "tag_invalid";
    /// Not a pool's name.
    pub const POOL_INVALID: &str = "pool_invalid";
    /// A pool that does not exist and is not created on first use.
    pub const POOL_UNKNOWN: &str = "pool_unknown";
    /// Neither a Unix time nor RFC 3339.
    pub const TIME_INVALID: &str = "time_invalid";
    /// `schedule` is long past.
    pub const SCHEDULE_IN_PAST: &str = "schedule_in_past";
    /// `schedule` is too far ahead.
    pub const SCHEDULE_TOO_FAR: &str = "schedule_too_far";
    /// `expires_at` has passed.
    pub const EXPIRES_IN_PAST: &str = "expires_in_past";
    /// `expires_at` is not after the time that `delay` or `schedule` names.
    pub const EXPIRES_BEFORE_DUE: &str = "expires_before_due";
    /// The token may not send for this domain.
    pub const SENDER_NOT_ALLOWED: &str = "sender_not_allowed";
    /// The token may not use this pool.
    pub const POOL_NOT_ALLOWED: &str = "pool_not_allowed";
    /// The message would be larger than allowed.
    pub const CONTENT_TOO_LARGE: &str = "content_too_large";
    /// `raw` is not a message that can be sent.
    pub const RAW_INVALID: &str = "raw_invalid";
    /// A field of the content together with `raw`, which is all of it.
    pub const NOT_WITH_RAW: &str = "not_with_raw";
    /// `cc` or `bcc` where each recipient gets a mail of its own.
    pub const NOT_WITH_SUBSTITUTIONS: &str = "not_with_substitutions";
    /// A `{{` that is not closed, or what is in it is no name.
    pub const TEMPLATE_INVALID: &str = "template_invalid";
    /// A name for which there is no value.
    pub const SUBSTITUTION_UNKNOWN: &str = "substitution_unknown";
    /// Not a name that a template can have.
    pub const SUBSTITUTION_INVALID: &str = "substitution_invalid";
    /// The same address again, with other substitutions.
    pub const RECIPIENT_REPEATED: &str = "recipient_repeated";
    /// No return path can be made for each recipient from this one.
    pub const VERP_IMPOSSIBLE: &str = "verp_impossible";
    /// The addresses that each recipient sees, times the recipients.
    pub const ADDRESSES_TOO_LARGE: &str = "addresses_too_large";
}

/// One thing that is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// JSON pointer into the request (RFC 6901); empty for the whole of it.
    pub pointer: String,
    /// One of [`code`].
    pub code: &'static str,
    /// In words, for a person.
    pub detail: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.detail)
    }
}

/// Why nothing was accepted. Completes "failed to accept the submission: ".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntakeError {
    /// The request is wrong; repeating it will not help.
    #[error("{}", join(.0))]
    Invalid(Vec<FieldError>),
    /// The token does not allow it.
    #[error("{}", join(.0))]
    Forbidden(Vec<FieldError>),
    /// Larger than allowed.
    #[error("{}", join(.0))]
    TooLarge(Vec<FieldError>),
    /// The broker does not confirm. Whether something was taken is unknown.
    #[error("{detail}")]
    Unavailable {
        /// For the log and, in general words, for the submitter.
        detail: String,
        /// When to try again.
        retry_after: Duration,
    },
}

fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

/// Errors as they are found, at most [`MAX_ERRORS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Errors(Vec<FieldError>);

impl Errors {
    /// Notes one error.
    pub(crate) fn add(
        &mut self,
        pointer: impl fmt::Display,
        code: &'static str,
        detail: impl fmt::Display,
    ) {
        if !self.is_full() {
            self.0.push(FieldError {
                pointer: pointer.to_string(),
                code,
                detail: detail.to_string(),
            });
        }
    }

    /// Takes over errors, their pointers put below `prefix`.
    pub(crate) fn extend(&mut self, prefix: &str, other: Self) {
        for mut error in other.0 {
            if self.is_full() {
                return;
            }
            if !prefix.is_empty() {
                error.pointer.insert_str(0, prefix);
            }
            self.0.push(error);
        }
    }

    /// Whether an error lies at `pointer` or below it: then the field was
    /// given, and not as it should be.
    pub(crate) fn concerns(&self, pointer: &str) -> bool {
        self.0.iter().any(|error| {
            error
                .pointer
                .strip_prefix(pointer)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }

    /// Whether an error concerns the whole item: then there are no fields.
    pub(crate) fn concerns_all(&self) -> bool {
        self.0.iter().any(|error| error.pointer.is_empty())
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MAX_ERRORS
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn into_vec(self) -> Vec<FieldError> {
        self.0
    }
}

/// What keeps a request from being accepted, by the kind of answer.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    pub(crate) invalid: Errors,
    pub(crate) forbidden: Errors,
    pub(crate) too_large: Errors,
}

impl Refusals {
    pub(crate) fn extend(&mut self, prefix: &str, other: Self) {
        self.invalid.extend(prefix, other.invalid);
        self.forbidden.extend(prefix, other.forbidden);
        self.too_large.extend(prefix, other.too_large);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.invalid.is_empty() && self.forbidden.is_empty() && self.too_large.is_empty()
    }

    /// As the error of one item, whose pointers are put below `prefix`.
    pub(crate) fn below(mut self, prefix: &str) -> IntakeError {
        for errors in [&mut self.invalid, &mut self.forbidden, &mut self.too_large] {
            errors.0.truncate(MAX_ITEM_ERRORS);
        }
        let mut all = Self::default();
        all.extend(prefix, self);
        match all.into_result() {
            Err(error) => error,
            Ok(()) => IntakeError::Invalid(Vec::new()),
        }
    }

    /// Nothing when there is none. What is wrong in itself is said before what
    /// is not allowed: only then is it known what would have to be allowed.
    pub(crate) fn into_result(self) -> Result<(), IntakeError> {
        if !self.invalid.is_empty() {
            return Err(IntakeError::Invalid(self.invalid.into_vec()));
        }
        if !self.forbidden.is_empty() {
            return Err(IntakeError::Forbidden(self.forbidden.into_vec()));
        }
        if !self.too_large.is_empty() {
            return Err(IntakeError::TooLarge(self.too_large.into_vec()));
        }
        Ok(())
    }
}
