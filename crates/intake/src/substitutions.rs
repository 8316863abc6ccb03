//! Checks that every template can be read and has a value for everybody, and
//! that no value can begin a header field.

use std::collections::{HashMap, HashSet};

use crate::{
    errors::{Errors, code},
    individual::to_pointer,
    json::escaped,
    request::{SubmissionRequest, Substitutions},
    template::Template,
    validate::header_pointer,
};

/// Most different names in the templates of one submission.
const MAX_NAMES: usize = 200;

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
