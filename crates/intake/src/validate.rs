//! Checks a submission against limits, clock and token.
//!
//! What a field's form can tell was checked when it was read; here is what
//! takes more than the field: counts, what is required, what is allowed.

use std::collections::HashSet;

use posthaste_mail::{
    Attachment, HeaderError, Mailbox, Raw, check_header_name, check_header_value, read_raw,
};
use posthaste_model::{Domain, EmailAddress, PoolName, RecipientKind, Timestamp};

use crate::{
    config::{IntakeConfig, Limits, UnknownPool},
    errors::{Errors, Refusals, code},
    individual::is_individual,
    json::escaped,
    principal::Principal,
    request::{Item, SubmissionRequest},
    substitutions,
    times::{check_expiry, due},
    verp,
};

/// The priority of a submission that names none: the middle, so that there is
/// room above and below (UC3).
pub(crate) const DEFAULT_PRIORITY: u8 = 5;

/// A recipient, each address once.
#[derive(Debug, Clone)]
pub(crate) struct Recipient {
    pub(crate) mailbox: Mailbox,
    pub(crate) kind: RecipientKind,
    /// Where it stands in the list of its kind.
    pub(crate) place: usize,
}

/// A submission in which nothing is wrong.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) from: Mailbox,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) pool: PoolName,
    pub(crate) priority: u8,
    pub(crate) due: Option<Timestamp>,
    pub(crate) return_path: EmailAddress,
    /// The message where the submitter has built it.
    pub(crate) raw: Option<Raw>,
    /// Whether each recipient gets a mail of its own.
    pub(crate) is_individual: bool,
    pub(crate) is_single_to: bool,
    /// The rest, as it was given.
    pub(crate) request: SubmissionRequest,
}

impl Checked {
    /// For the log; with templates in it as they are.
    pub(crate) fn subject(&self) -> &str {
        match &self.raw {
            Some(raw) => &raw.subject,
            None => self.request.subject.as_deref().unwrap_or_default(),
        }
    }
}

/// Checks one item.
///
/// # Errors
/// Everything that is wrong with it, with pointers below the item.
pub(crate) fn check(
    item: Item,
    principal: &Principal,
    now: Timestamp,
    config: &IntakeConfig,
) -> Result<Checked, Refusals> {
    let Item { submission: mut request, is_single_to, errors } = item;
    let mut refusals = Refusals { invalid: errors, ..Refusals::default() };
    if refusals.invalid.concerns_all() {
        return Err(refusals);
    }
    let limits = &config.limits;
    let errors = &mut refusals.invalid;

    check_size(&request, limits, &mut refusals.too_large);
    let is_raw = request.raw.is_some() || errors.concerns("/raw");
    let is_individual = !is_raw && is_individual(&request);
    // It holds as many bytes again: the given form goes when it is read.
    let given = request.raw.take().filter(|_| refusals.too_large.is_empty());
    let raw = given.and_then(|bytes| {
        read_raw(&bytes).map_err(|error| errors.add("/raw", code::RAW_INVALID, error)).ok()
    });
    if is_raw {
        check_no_content(&request, errors);
    } else {
        check_content(&request, limits, errors);
    }
    check_counts(&request, limits, errors);
    if is_individual {
        substitutions::check(&request, is_single_to, errors);
    }
    let recipients = recipients(&request, limits, errors);
    let due = due(request.delay, request.schedule, now, limits, errors);
    check_expiry(request.expires_at, due, now, errors);
    let pool = request.pool.clone().unwrap_or_default();
    check_pool(&pool, principal, config, &mut refusals);

    let from = raw.as_ref().map(|raw| raw.from.clone()).or_else(|| request.from.clone());
    let Some(from) = from else {
        if !is_raw && !refusals.invalid.concerns("/from") {
            refusals.invalid.add("/from", code::REQUIRED, "is required: exactly one address");
        }
        return Err(refusals);
    };
    let return_path = request.return_path.clone().unwrap_or_else(|| from.address.clone());
    if request.verp
        && let Some(objection) = verp::objection(&return_path)
    {
        refusals.invalid.add("/verp", code::VERP_IMPOSSIBLE, objection);
    }
    check_senders(&from, raw.as_ref(), &request, principal, &mut refusals.forbidden);
    if !refusals.is_empty() {
        return Err(refusals);
    }
    let priority = request.priority.unwrap_or(DEFAULT_PRIORITY);
    Ok(Checked {
        from,
        recipients,
        pool,
        priority,
        due,
        return_path,
        raw,
        is_individual,
        is_single_to,
        request,
    })
}

fn check_content(request: &SubmissionRequest, limits: &Limits, errors: &mut Errors) {
    check_body(request, errors);
    check_texts(request, limits, errors);
    check_content_ids(&request.attachments, errors);
    check_headers(&request.headers, limits, errors);
}

fn check_body(request: &SubmissionRequest, errors: &mut Errors) {
    let is_missing = request.text.is_none() && request.html.is_none();
    if is_missing && !errors.concerns("/text") && !errors.concerns("/html") {
        let detail = "one of \"text\", \"html\" and \"raw\" is required; a text may be empty";
        errors.add("", code::REQUIRED, detail);
    }
}

/// `raw` is the whole content: what would have to be put into it, or left
/// out, is refused and not ignored.
fn check_no_content(request: &SubmissionRequest, errors: &mut Errors) {
    let has_own = request.to.iter().any(|to| to.substitutions.is_some());
    for (pointer, is_given) in [
        ("/from", request.from.is_some()),
        ("/reply_to", !request.reply_to.is_empty()),
        ("/subject", request.subject.is_some()),
        ("/text", request.text.is_some()),
        ("/html", request.html.is_some()),
        ("/headers", !request.headers.is_empty()),
        ("/attachments", !request.attachments.is_empty()),
        ("/substitutions", request.substitutions.is_some()),
        ("/to", has_own),
    ] {
        if is_given {
            let what = if pointer == "/to" { "its substitutions" } else { "it" };
            let detail =
                format_args!("{what} cannot be used with \"raw\", which is the whole message");
            errors.add(pointer, code::NOT_WITH_RAW, detail);
        }
    }
}

/// Two parts with one Content-ID: which of them the HTML means, each reader
/// decides otherwise (RFC 2045 section 7: unique).
fn check_content_ids(attachments: &[Attachment], errors: &mut Errors) {
    let mut seen = HashSet::new();
    for (index, attachment) in attachments.iter().enumerate() {
        if let Some(id) = &attachment.content_id
            && !seen.insert(id)
        {
            let pointer = format_args!("/attachments/{index}/content_id");
            errors.add(pointer, code::ATTACHMENT_INVALID, "is there before, and must be unique");
        }
    }
}

/// The recipients in the order to, cc, bcc. An address that is there twice is
/// one message, of the first kind; local parts that differ in case differ
/// (RFC 5321 section 2.4).
fn recipients(request: &SubmissionRequest, limits: &Limits, errors: &mut Errors) -> Vec<Recipient> {
    let given = request.to.len() + request.cc.len() + request.bcc.len();
    if given == 0 {
        if !["/to", "/cc", "/bcc"].iter().any(|pointer| errors.concerns(pointer)) {
            errors.add("/to", code::REQUIRED, "at least one of to, cc and bcc is required");
        }
        return Vec::new();
    }
    if given > limits.recipients {
        let detail = format_args!(
            "to, cc and bcc have {given} addresses, allowed are {}",
            limits.recipients
        );
        errors.add("/to", code::TOO_MANY, detail);
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(given);
    let mut recipients = Vec::with_capacity(given);
    let to = request.to.iter().map(|to| &to.mailbox).enumerate();
    let all = to
        .map(|(place, mailbox)| (RecipientKind::To, place, mailbox))
        .chain(request.cc.iter().enumerate().map(|(n, m)| (RecipientKind::Cc, n, m)))
        .chain(request.bcc.iter().enumerate().map(|(n, m)| (RecipientKind::Bcc, n, m)));
    for (kind, place, mailbox) in all {
        if seen.insert(&mailbox.address) {
            recipients.push(Recipient { mailbox: mailbox.clone(), kind, place });
        }
    }
    recipients
}

fn check_texts(request: &SubmissionRequest, limits: &Limits, errors: &mut Errors) {
    if let Some(subject) = &request.subject {
        if subject.len() > limits.subject_bytes {
            errors.add(
                "/subject",
                code::TOO_LONG,
                format_args!("has {} bytes, allowed are {}", subject.len(), limits.subject_bytes),
            );
        }
        if let Some(found) = subject.chars().find(|c| c.is_control()) {
            errors.add(
                "/subject",
                code::CONTROL_CHARACTER,
                format_args!("may not hold the control character {found:?}"),
            );
        }
    }
    for (pointer, text) in [("/text", &request.text), ("/html", &request.html)] {
        // RFC 5322 section 3.5: no NUL anywhere in a message.
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            errors.add(pointer, code::CONTROL_CHARACTER, "may not hold a NUL");
        }
    }
}

fn check_counts(request: &SubmissionRequest, limits: &Limits, errors: &mut Errors) {
    // These lists are bounded when they come from JSON; a request may also be
    // made in the program.
    for (pointer, len, max) in [
        ("/attachments", request.attachments.len(), limits.attachments),
        ("/tags", request.tags.len(), limits.tags),
        ("/reply_to", request.reply_to.len(), limits.reply_to),
        ("/headers", request.headers.len(), limits.headers),
    ] {
        if len > max && !errors.concerns(pointer) {
            errors.add(
                pointer,
                code::TOO_MANY,
                format_args!("has {len} entries, allowed are {max}"),
            );
        }
    }
}

fn check_headers(headers: &[(String, String)], limits: &Limits, errors: &mut Errors) {
    let bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes > limits.header_bytes {
        errors.add(
            "/headers",
            code::TOO_LONG,
            format_args!("have {bytes} bytes, allowed are {}", limits.header_bytes),
        );
        return;
    }
    for (index, (name, value)) in headers.iter().enumerate() {
        let pointer = || header_pointer(headers, index);
        match check_header_name(name).and_then(|()| check_header_value(value)) {
            Ok(()) => {}
            Err(error @ HeaderError::Reserved) => {
                let detail = format_args!("{name} {error}{}", instead(name));
                errors.add(pointer(), code::HEADER_RESERVED, detail);
            }
            Err(error) => errors.add(pointer(), header_code(&error), error),
        }
    }
}

/// The code of what is wrong with a header field.
pub(crate) const fn header_code(error: &HeaderError) -> &'static str {
    match error {
        HeaderError::Reserved => code::HEADER_RESERVED,
        HeaderError::Control(_) => code::CONTROL_CHARACTER,
        HeaderError::NameTooLong | HeaderError::ValueTooLong => code::TOO_LONG,
        _ => code::HEADER_INVALID,
    }
}

/// What to use in place of a reserved header field.
fn instead(name: &str) -> &'static str {
    match name.to_ascii_lowercase().as_str() {
        "from" => "; use the field \"from\"",
        "to" | "cc" | "bcc" => "; use the fields \"to\", \"cc\" and \"bcc\"",
        "reply-to" => "; use the field \"reply_to\"",
        "subject" => "; use the field \"subject\"",
        "return-path" => "; use the field \"return_path\"",
        _ => "",
    }
}

/// The pointer of a header field: its name, and its place among the values
/// when it was given as a list.
pub(crate) fn header_pointer(headers: &[(String, String)], index: usize) -> String {
    let Some((name, _)) = headers.get(index) else { return "/headers".to_owned() };
    let same = |range: &[(String, String)]| range.iter().filter(|(n, _)| n == name).count();
    let name = escaped(name);
    if same(headers) == 1 {
        return format!("/headers/{name}");
    }
    format!("/headers/{name}/{}", headers.get(..index).map_or(0, same))
}

fn check_pool(
    pool: &PoolName,
    principal: &Principal,
    config: &IntakeConfig,
    refusals: &mut Refusals,
) {
    if !principal.may_use(pool) {
        let detail = format_args!("this token may not use the pool {pool:?}", pool = pool.as_str());
        refusals.forbidden.add("/pool", code::POOL_NOT_ALLOWED, detail);
    } else if config.pools.unknown == UnknownPool::Refuse && !config.pools.is_known(pool) {
        let detail = format_args!("there is no pool {pool:?}", pool = pool.as_str());
        refusals.invalid.add("/pool", code::POOL_UNKNOWN, detail);
    }
}

/// Every domain that the mail claims to come from: of From, of Sender
/// (RFC 5322 section 3.6.2), of the return path.
fn check_senders(
    from: &Mailbox,
    raw: Option<&Raw>,
    request: &SubmissionRequest,
    principal: &Principal,
    forbidden: &mut Errors,
) {
    let mut check = |pointer: &str, domain: &Domain| {
        if !principal.may_send_as(domain) {
            let detail = format_args!("this token may not send mail of {domain}");
            forbidden.add(pointer, code::SENDER_NOT_ALLOWED, detail);
        }
    };
    check(if raw.is_some() { "/raw" } else { "/from" }, from.address.domain());
    if let Some(sender) = raw.and_then(|raw| raw.sender.as_ref()) {
        check("/raw", sender.address.domain());
    }
    if let Some(return_path) = &request.return_path {
        check("/return_path", return_path.domain());
    }
    for (index, (name, value)) in request.headers.iter().enumerate() {
        // One that is no mailbox is refused when the content is built.
        if name.eq_ignore_ascii_case("Sender")
            && let Ok(sender) = value.parse::<Mailbox>()
        {
            check(&header_pointer(&request.headers, index), sender.address.domain());
        }
    }
}

/// A bound before anything is built; what is built is measured again.
fn check_size(request: &SubmissionRequest, limits: &Limits, too_large: &mut Errors) {
    let size = request.content_bytes();
    if size > limits.content_bytes {
        too_large.add(
            "",
            code::CONTENT_TOO_LARGE,
            format_args!(
                "the message would have more than {size} bytes, allowed are {}",
                limits.content_bytes
            ),
        );
    }
}
