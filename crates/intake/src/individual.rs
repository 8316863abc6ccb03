//! One submission, a mail of its own for each recipient.
//!
//! When recipients have substitutions, each gets a message that is addressed
//! to that recipient alone, with a Message-ID of its own. Where no template
//! stands in the text or the HTML, the content is built and stored once, and
//! what differs (Subject, header fields, Message-ID) stands in the fields of
//! each head; else each recipient has a content of its own.
//!
//! Everything is checked before anything is built (`substitutions`), but for what
//! only the rendered text can show: then the error names the recipient.

use posthaste_broker::Body;
use posthaste_mail::{
    Content, Varying, address_field, check_fields, header_field, message_id_field, subject_field,
};
use posthaste_model::MessageId;

use crate::{
    config::Limits,
    content::{Version, build, compressed, too_large},
    errors::{Errors, Refusals, code},
    expand::ExpandError,
    records::Records,
    request::{SubmissionRequest, Substitutions},
    template::{Syntax, Template},
    validate::{Checked, Recipient, header_code},
};

/// Whether a submission is for each recipient apart.
pub(crate) fn is_individual(request: &SubmissionRequest) -> bool {
    request.substitutions.is_some() || request.to.iter().any(|to| to.substitutions.is_some())
}

/// The pointer of a recipient.
pub(crate) fn to_pointer(index: usize, is_single: bool) -> String {
    if is_single { "/to".to_owned() } else { format!("/to/{index}") }
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
    let body = records.common_body(bytes);
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
