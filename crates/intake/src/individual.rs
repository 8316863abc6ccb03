//! One submission, a mail of its own for each recipient.
//!
//! When recipients have substitutions, each gets a message that is addressed
//! to that recipient alone, with a Message-ID of its own. Where no template
//! stands in the text or the HTML, the content is built and stored once, and
//! what differs (Subject, header fields, Message-ID) stands in the fields of
//! each head; else each recipient has a content of its own.
//!
//! Everything is checked before anything is built ([`check`]), but for what
//! only the rendered text can show: then the error names the recipient.

use std::collections::{HashMap, HashSet};

use posthaste_broker::{Body, SharedBody};
use posthaste_mail::{
    Content, Varying, address_field, check_fields, header_field, message_id_field, subject_field,
};
use posthaste_model::MessageId;

use crate::{
    config::Limits,
    content::{Version, build, compressed, too_large},
    errors::{Errors, Refusals, code},
    expand::{ExpandError, Records},
    json::escaped,
    request::{SubmissionRequest, Substitutions},
    template::{Syntax, Template},
    validate::{Checked, Recipient, header_code, header_pointer},
};

/// Most different names in the templates of one submission.
const MAX_NAMES: usize = 200;

/// Whether a submission is for each recipient apart.
pub(crate) fn is_individual(request: &SubmissionRequest) -> bool {
    request.substitutions.is_some() || request.to.iter().any(|to| to.substitutions.is_some())
}

/// The pointer of a recipient.
pub(crate) fn to_pointer(index: usize, is_single: bool) -> String {
    if is_single { "/to".to_owned() } else { format!("/to/{index}") }
}

/// A name as the templates use it.
struct Use {
    /// Where it was met first.
    pointer: String,
    in_header: bool,
}

/// Checks templates and values of a submission that is individual.
pub(crate) fn check(request: &SubmissionRequest, is_single_to: bool, errors: &mut Errors) {
    for (pointer, mailboxes) in [("/cc", &request.cc), ("/bcc", &request.bcc)] {
        if !mailboxes.is_empty() {
            let detail = "cannot be used with substitutions: each recipient of \"to\" gets a mail \
                          of its own, which nobody else sees";
            errors.add(pointer, code::NOT_WITH_SUBSTITUTIONS, detail);
        }
    }
    check_repeated(request, is_single_to, errors);
    let Some(uses) = uses(request, errors) else { return };
    for (name, found) in &uses {
        check_name(name, found, request, is_single_to, errors);
    }
    let defaults = request.substitutions.iter().flat_map(Substitutions::iter);
    check_values(defaults, "/substitutions", &uses, errors);
    for (index, to) in request.to.iter().enumerate() {
        let own = to.substitutions.iter().flat_map(Substitutions::iter);
        let pointer = to_pointer(index, is_single_to);
        check_values(own, &format!("{pointer}/substitutions"), &uses, errors);
    }
}

/// The same address twice is one message (as always), so that it must have
/// the same values.
fn check_repeated(request: &SubmissionRequest, is_single_to: bool, errors: &mut Errors) {
    let mut seen = HashMap::with_capacity(request.to.len());
    for (index, to) in request.to.iter().enumerate() {
        let first = seen.entry(&to.mailbox.address).or_insert(&to.substitutions);
        if *first != &to.substitutions {
            let detail = "is there before with other substitutions; an address gets one message";
            errors.add(to_pointer(index, is_single_to), code::RECIPIENT_REPEATED, detail);
        }
    }
}

/// All names; `None` when a template cannot be read.
fn uses(request: &SubmissionRequest, errors: &mut Errors) -> Option<Vec<(String, Use)>> {
    let mut all: Vec<(String, Use)> = Vec::new();
    let mut known = HashMap::new();
    let mut is_readable = true;
    for (pointer, text, in_header) in templates(request) {
        let template = match Template::parse(text) {
            Ok(template) => template,
            Err(error) => {
                errors.add(pointer, code::TEMPLATE_INVALID, error);
                is_readable = false;
                continue;
            }
        };
        for name in template.names() {
            let index = *known.entry(name).or_insert(all.len());
            match all.get_mut(index) {
                Some((_, found)) => found.in_header |= in_header,
                None => all.push((name.to_owned(), Use { pointer: pointer.clone(), in_header })),
            }
        }
        if all.len() > MAX_NAMES {
            let detail = format_args!("has more than {MAX_NAMES} different names in its templates");
            errors.add("", code::TOO_MANY, detail);
            return None;
        }
        if is_sender(&pointer) && !template.is_constant() {
            errors.add(pointer, code::TEMPLATE_INVALID, "may not differ between recipients");
            is_readable = false;
        }
    }
    is_readable.then_some(all)
}

fn is_sender(pointer: &str) -> bool {
    pointer.strip_prefix("/headers/").is_some_and(|name| name.eq_ignore_ascii_case("sender"))
}

/// Every text that may hold templates: its pointer, and whether it goes into
/// a header field.
fn templates(request: &SubmissionRequest) -> Vec<(String, &str, bool)> {
    let mut all = Vec::new();
    for (pointer, text, in_header) in [
        ("/subject", &request.subject, true),
        ("/text", &request.text, false),
        ("/html", &request.html, false),
    ] {
        all.extend(text.as_deref().map(|text| (pointer.to_owned(), text, in_header)));
    }
    for (index, (_, value)) in request.headers.iter().enumerate() {
        if value.contains("{{") {
            all.push((header_pointer(&request.headers, index), value, true));
        }
    }
    all
}

fn check_name(
    name: &str,
    found: &Use,
    request: &SubmissionRequest,
    is_single_to: bool,
    errors: &mut Errors,
) {
    let has =
        |values: &Option<Substitutions>| values.as_ref().is_some_and(|v| v.get(name).is_some());
    if has(&request.substitutions) {
        return;
    }
    if !request.to.iter().any(|to| has(&to.substitutions)) {
        let detail = format_args!("has {{{{{name}}}}}, for which there is no substitution");
        errors.add(&found.pointer, code::SUBSTITUTION_UNKNOWN, detail);
        return;
    }
    for (index, to) in request.to.iter().enumerate() {
        if !has(&to.substitutions) && !errors.is_full() {
            let pointer = format!("{}/substitutions", to_pointer(index, is_single_to));
            let detail = format_args!(
                "has no {name:?}, which {} uses and which has no default",
                found.pointer
            );
            errors.add(pointer, code::SUBSTITUTION_UNKNOWN, detail);
        }
    }
}

/// No line ends where they would begin a header field, no NUL anywhere.
fn check_values<'a>(
    values: impl Iterator<Item = (&'a str, &'a str)>,
    pointer: &str,
    uses: &[(String, Use)],
    errors: &mut Errors,
) {
    let in_header: HashSet<&str> =
        uses.iter().filter(|(_, found)| found.in_header).map(|(name, _)| name.as_str()).collect();
    for (name, value) in values {
        let is_refused = |c: &char| *c == '\0' || (c.is_control() && in_header.contains(name));
        if let Some(found) = value.chars().find(is_refused) {
            errors.add(
                format_args!("{pointer}/{}", escaped(name)),
                code::CONTROL_CHARACTER,
                format_args!("may not hold the control character {found:?}"),
            );
        }
    }
}

/// The texts of a submission, taken apart.
struct Templates<'a> {
    subject: Option<Template<'a>>,
    text: Option<Template<'a>>,
    html: Option<Template<'a>>,
    /// Fields of which one value at least differs, and the others.
    varying_headers: Vec<(&'a str, Template<'a>)>,
    constant_headers: Vec<(String, String)>,
}

impl<'a> Templates<'a> {
    fn new(request: &'a SubmissionRequest) -> Result<Self, ExpandError> {
        let parse = |text: &'a str| {
            // Checked before.
            Template::parse(text).map_err(|error| ExpandError::Internal(error.to_string()))
        };
        let parse_some = |text: &'a Option<String>| text.as_deref().map(parse).transpose();
        let (mut varying_headers, mut constant_headers) = (Vec::new(), Vec::new());
        // Values of one name stay together, in their order.
        let varies = |name: &str| {
            let same = |other: &str| other.eq_ignore_ascii_case(name);
            request.headers.iter().any(|(other, value)| same(other) && value.contains("{{"))
        };
        for (name, value) in &request.headers {
            if varies(name) {
                varying_headers.push((name.as_str(), parse(value)?));
            } else {
                constant_headers.push((name.clone(), value.clone()));
            }
        }
        Ok(Self {
            subject: parse_some(&request.subject)?,
            text: parse_some(&request.text)?,
            html: parse_some(&request.html)?,
            varying_headers,
            constant_headers,
        })
    }

    fn is_body_constant(&self) -> bool {
        [&self.text, &self.html].into_iter().flatten().all(Template::is_constant)
    }

    fn is_subject_constant(&self) -> bool {
        self.subject.as_ref().is_none_or(Template::is_constant)
    }
}

/// The values of one recipient.
struct Values<'a> {
    own: Option<&'a Substitutions>,
    defaults: Option<&'a Substitutions>,
}

impl<'a> Values<'a> {
    fn of(recipient: &Recipient, request: &'a SubmissionRequest) -> Self {
        let own = request.to.get(recipient.place).and_then(|to| to.substitutions.as_ref());
        Self { own, defaults: request.substitutions.as_ref() }
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        let of = |values: Option<&'a Substitutions>| values.and_then(|values| values.get(name));
        of(self.own).or_else(|| of(self.defaults))
    }

    fn render(&self, template: &Template<'_>, syntax: Syntax, max: usize) -> Option<String> {
        template.render(syntax, max, |name| self.get(name))
    }
}

/// Expands a submission that is individual.
pub(crate) fn expand(checked: &Checked, records: &mut Records<'_>) -> Result<(), ExpandError> {
    let templates = Templates::new(&checked.request)?;
    if templates.is_body_constant() {
        expand_shared(checked, &templates, records)
    } else {
        expand_own(checked, &templates, records)
    }
}

/// One content, stored once; what differs stands in the heads.
fn expand_shared(
    checked: &Checked,
    templates: &Templates<'_>,
    records: &mut Records<'_>,
) -> Result<(), ExpandError> {
    let context = records.context;
    let varying = Varying { subject: !templates.is_subject_constant(), message_id: true };
    let headers = Some(templates.constant_headers.as_slice());
    let version = Version { varying, headers, ..Version::default() };
    let id = records.submission_id.to_string();
    let content = build(checked, &id, &version, context)?;
    let bytes = compressed(&content, context)?;
    records.count_body(bytes.len())?;
    let body = Body::Shared(SharedBody { id: records.submission_id.into(), bytes });
    for (place, recipient) in checked.recipients.iter().enumerate() {
        let message_id = context.ids.message(place);
        let rendered = Rendered::new(checked, recipient, templates, &context.config.limits)?;
        let mut fields = own_fields(recipient, message_id, &context.config.hostname);
        if varying.subject {
            fields.push_str(&subject_field(rendered.subject.as_deref().unwrap_or_default()));
        }
        for (name, value) in &rendered.headers {
            fields.push_str(&header_field(name, value));
        }
        records.add(recipient, message_id, &content, &fields, body.clone())?;
    }
    Ok(())
}

/// To and Message-ID, which are always of one recipient.
fn own_fields(recipient: &Recipient, message_id: MessageId, hostname: &str) -> String {
    let mut fields = address_field("To", std::slice::from_ref(&recipient.mailbox));
    fields.push_str(&message_id_field(&format!("{message_id}@{hostname}")));
    fields
}

/// A content for each recipient.
fn expand_own(
    checked: &Checked,
    templates: &Templates<'_>,
    records: &mut Records<'_>,
) -> Result<(), ExpandError> {
    let context = records.context;
    // Before any work: what each would have at least, apart from values.
    records.check_own(checked.request.content_bytes(), checked.recipients.len())?;
    for (place, recipient) in checked.recipients.iter().enumerate() {
        let message_id = context.ids.message(place);
        let limits = &context.config.limits;
        let values = Values::of(recipient, &checked.request);
        let rendered = Rendered::new(checked, recipient, templates, limits)?;
        let render = |template: &Option<Template<'_>>, syntax| {
            template
                .as_ref()
                .map(|one| {
                    values
                        .render(one, syntax, limits.content_bytes)
                        .ok_or_else(|| rendered_too_large(checked, recipient, limits))
                })
                .transpose()
        };
        let text = render(&templates.text, Syntax::Plain)?;
        let html = render(&templates.html, Syntax::Html)?;
        let mut headers = templates.constant_headers.clone();
        headers.extend(rendered.headers);
        let version = Version {
            varying: Varying::default(),
            subject: rendered.subject.as_deref(),
            text: text.as_deref(),
            html: html.as_deref(),
            headers: Some(&headers),
        };
        let content: Content = build(checked, &message_id.to_string(), &version, context)?;
        records.count_own(content.bytes.len())?;
        let bytes = compressed(&content, context)?;
        records.count_body(bytes.len())?;
        let to = address_field("To", std::slice::from_ref(&recipient.mailbox));
        records.add(recipient, message_id, &content, &to, Body::Inline(bytes))?;
    }
    Ok(())
}

fn rendered_too_large(checked: &Checked, recipient: &Recipient, limits: &Limits) -> ExpandError {
    let detail = format_args!(
        "would get a message of more than {} bytes, which is not allowed",
        limits.content_bytes
    );
    too_large(&to_pointer(recipient.place, checked.is_single_to), detail)
}

/// Subject and varying header fields of one recipient, checked.
struct Rendered {
    subject: Option<String>,
    headers: Vec<(String, String)>,
}

impl Rendered {
    fn new(
        checked: &Checked,
        recipient: &Recipient,
        templates: &Templates<'_>,
        limits: &Limits,
    ) -> Result<Self, ExpandError> {
        let values = Values::of(recipient, &checked.request);
        let refuse = |code, detail: String| {
            let mut invalid = Errors::default();
            invalid.add(to_pointer(recipient.place, checked.is_single_to), code, detail);
            ExpandError::Refused(Refusals { invalid, ..Refusals::default() })
        };
        let subject = match &templates.subject {
            None => None,
            Some(template) => {
                let max = limits.subject_bytes;
                let rendered = values.render(template, Syntax::Plain, max).ok_or_else(|| {
                    refuse(code::TOO_LONG, format!("would get a subject of more than {max} bytes"))
                })?;
                Some(rendered)
            }
        };
        let mut headers = Vec::with_capacity(templates.varying_headers.len());
        for (name, template) in &templates.varying_headers {
            let max = limits.header_bytes;
            let value = values.render(template, Syntax::Plain, max).ok_or_else(|| {
                refuse(code::TOO_LONG, format!("would get a {name} of more than {max} bytes"))
            })?;
            headers.push(((*name).to_owned(), value));
        }
        check_fields(&headers).map_err(|(index, error)| {
            let name = headers.get(index).map_or("", |(name, _)| name.as_str());
            refuse(header_code(&error), format!("would get a {name} that is refused: it {error}"))
        })?;
        Ok(Self { subject, headers })
    }
}
