//! The content of a submission: built, or as the submitter has built it.

use bytes::Bytes;
use posthaste_mail::{
    AttachmentError, BuildError, Content, Draft, Varying, build_varying, compress,
};
use posthaste_model::SubmissionId;

use crate::{
    errors::{Errors, Refusals, code},
    expand::{Context, ExpandError},
    validate::{Checked, header_code, header_pointer},
};

/// What a recipient's version of a draft has in place of the submission's.
#[derive(Default)]
pub(crate) struct Version<'a> {
    pub(crate) varying: Varying,
    pub(crate) subject: Option<&'a str>,
    pub(crate) text: Option<&'a str>,
    pub(crate) html: Option<&'a str>,
    pub(crate) headers: Option<&'a [(String, String)]>,
}

/// Builds the content that a submission gives to all or, in a version, to one.
pub(crate) fn build(
    checked: &Checked,
    id: &str,
    version: &Version<'_>,
    context: &Context<'_>,
) -> Result<Content, ExpandError> {
    let request = &checked.request;
    let message_id = format!("{id}@{}", context.config.hostname);
    let content = match &checked.raw {
        Some(raw) => raw.content(&message_id, context.now),
        None => {
            let headers = version.headers.unwrap_or(&request.headers);
            let draft = Draft {
                from: &checked.from,
                reply_to: &request.reply_to,
                subject: version.subject.or(request.subject.as_deref()).unwrap_or_default(),
                text: version.text.or(request.text.as_deref()),
                html: version.html.or(request.html.as_deref()),
                attachments: &request.attachments,
                headers,
                message_id: &message_id,
                date: context.now,
            };
            build_varying(&draft, version.varying).map_err(|error| refused(&error, headers))?
        }
    };
    let (size, max) = (content.bytes.len(), context.config.limits.content_bytes);
    if size > max {
        return Err(too_large("", format_args!("the message has {size} bytes, allowed are {max}")));
    }
    Ok(content)
}

/// As [`build`], for all recipients alike.
pub(crate) fn build_shared(
    checked: &Checked,
    submission_id: SubmissionId,
    context: &Context<'_>,
) -> Result<Content, ExpandError> {
    build(checked, &submission_id.to_string(), &Version::default(), context)
}

/// The body for the broker.
pub(crate) fn compressed(content: &Content, context: &Context<'_>) -> Result<Bytes, ExpandError> {
    let config = context.config;
    compress::compress(config.codec, &content.bytes, config.level)
        .map(Bytes::from)
        .map_err(|error| ExpandError::Internal(error.to_string()))
}

pub(crate) fn too_large(pointer: &str, detail: impl std::fmt::Display) -> ExpandError {
    let mut too_large = Errors::default();
    too_large.add(pointer, code::CONTENT_TOO_LARGE, detail);
    ExpandError::Refused(Refusals { too_large, ..Refusals::default() })
}

/// Puts what the builder refused where the submitter can find it.
fn refused(error: &BuildError, headers: &[(String, String)]) -> ExpandError {
    let mut invalid = Errors::default();
    match error {
        BuildError::From(error) => invalid.add("/from", code::ADDRESS_INVALID, error),
        BuildError::ReplyTo { index, error } => {
            invalid.add(format_args!("/reply_to/{index}"), code::ADDRESS_INVALID, error);
        }
        BuildError::Subject(error) => invalid.add("/subject", code::HEADER_INVALID, error),
        BuildError::Text(error) => invalid.add("/text", code::CONTROL_CHARACTER, error),
        BuildError::Html(error) => invalid.add("/html", code::CONTROL_CHARACTER, error),
        BuildError::Header { index, error } => {
            invalid.add(header_pointer(headers, *index), header_code(error), error);
        }
        BuildError::Attachment { index, error } => {
            let part = match error {
                AttachmentError::Filename => "filename",
                AttachmentError::ContentType(_) => "content_type",
                AttachmentError::ContentId => "content_id",
                AttachmentError::NotSevenBit => "content",
            };
            let pointer = format_args!("/attachments/{index}/{part}");
            invalid.add(pointer, code::ATTACHMENT_INVALID, error);
        }
        // The only part of it that is not ours is the configured host name.
        BuildError::MessageId => return ExpandError::Internal(error.to_string()),
    }
    ExpandError::Refused(Refusals { invalid, ..Refusals::default() })
}
