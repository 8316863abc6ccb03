//! Substitutions, templates, and return paths by recipient.

use serde_json::{Map, Value, json};

use super::{Case, case, long, with};
use crate::code;

/// A request with these substitutions for its one recipient and this subject.
fn merged(substitutions: &Value, subject: &str) -> Value {
    let mut request =
        with("to", json!([{"email": "b@example.net", "substitutions": substitutions}]));
    if let Some(fields) = request.as_object_mut() {
        fields.insert("subject".to_owned(), json!(subject));
    }
    request
}

/// [`merged`] with one field set.
fn merged_with(field: &str, value: Value) -> Value {
    let mut request = merged(&json!({"a": "1"}), "{{a}}");
    if let Some(fields) = request.as_object_mut() {
        fields.insert(field.to_owned(), value);
    }
    request
}

pub(super) fn cases() -> Vec<Case> {
    let own = "/to/0/substitutions";
    let mut all = vec![
        // Shape.
        case(&merged(&json!([1]), "x"), own, code::TYPE_MISMATCH),
        case(&merged(&json!("a"), "x"), own, code::TYPE_MISMATCH),
        case(&with("substitutions", json!(5)), "/substitutions", code::TYPE_MISMATCH),
        case(&with("substitutions", json!({"a": [1]})), "/substitutions/a", code::TYPE_MISMATCH),
        case(&with("substitutions", json!({"a": null})), "/substitutions/a", code::TYPE_MISMATCH),
        case(
            &with("substitutions", json!({"a": 1_u64 << 53})),
            "/substitutions/a",
            code::OUT_OF_RANGE,
        ),
        case(
            &with("substitutions", json!({"a": i64::MIN})),
            "/substitutions/a",
            code::OUT_OF_RANGE,
        ),
        case(&with("substitutions", json!({"a": 0.5})), "/substitutions/a", code::TYPE_MISMATCH),
        case(&with("substitutions", json!({"a": true})), "/substitutions/a", code::TYPE_MISMATCH),
        case(
            &with("substitutions", json!({"a b": "x"})),
            "/substitutions/a b",
            code::SUBSTITUTION_INVALID,
        ),
        case(
            &with("substitutions", json!({"": "x"})),
            "/substitutions/",
            code::SUBSTITUTION_INVALID,
        ),
        case(
            &with("substitutions", json!({"1/2": "x"})),
            "/substitutions/1~12",
            code::SUBSTITUTION_INVALID,
        ),
        case(&with("substitutions", json!(many(101))), "/substitutions", code::TOO_MANY),
        case(&merged(&json!(many(101)), "x"), own, code::TOO_MANY),
        case(
            &with("cc", json!([{"email": "b@example.net", "substitutions": {}}])),
            "/cc/0/substitutions",
            code::UNKNOWN_FIELD,
        ),
        case(
            &with("from", json!({"email": "a@example.com", "substitutions": {}})),
            "/from/substitutions",
            code::UNKNOWN_FIELD,
        ),
        // What does not go together.
        case(&merged_with("cc", json!("c@example.net")), "/cc", code::NOT_WITH_SUBSTITUTIONS),
        case(&merged_with("bcc", json!("c@example.net")), "/bcc", code::NOT_WITH_SUBSTITUTIONS),
        case(
            &merged_with(
                "to",
                json!([
                    {"email": "b@example.net", "substitutions": {"a": "1"}},
                    {"email": "b@example.net", "substitutions": {"a": "2"}},
                ]),
            ),
            "/to/1",
            code::RECIPIENT_REPEATED,
        ),
        // Templates.
        case(&merged_with("subject", json!("{{")), "/subject", code::TEMPLATE_INVALID),
        case(&merged_with("subject", json!("{{a")), "/subject", code::TEMPLATE_INVALID),
        case(&merged_with("text", json!("{{}}")), "/text", code::TEMPLATE_INVALID),
        case(&merged_with("html", json!("{{#each a}}")), "/html", code::TEMPLATE_INVALID),
        case(&merged_with("html", json!("{{{a}}")), "/html", code::TEMPLATE_INVALID),
        case(&merged_with("text", json!("{{a}}".repeat(1001))), "/text", code::TEMPLATE_INVALID),
        case(
            &merged_with("headers", json!({"X-A": ["1", "{{a b}}"]})),
            "/headers/X-A/1",
            code::TEMPLATE_INVALID,
        ),
        case(
            &merged_with("headers", json!({"Sender": "\"{{a}}\" <a@example.com>"})),
            "/headers/Sender",
            code::TEMPLATE_INVALID,
        ),
        // Names.
        case(&merged_with("subject", json!("{{b}}")), "/subject", code::SUBSTITUTION_UNKNOWN),
        case(&merged_with("text", json!("{{A}}")), "/text", code::SUBSTITUTION_UNKNOWN),
        case(&merged_with("html", json!("{{{b}}}")), "/html", code::SUBSTITUTION_UNKNOWN),
        case(
            &merged_with("headers", json!({"X-A": "{{b}}"})),
            "/headers/X-A",
            code::SUBSTITUTION_UNKNOWN,
        ),
        case(
            &merged_with(
                "to",
                json!([{"email": "b@example.net", "substitutions": {"a": "1"}}, "c@example.net"]),
            ),
            "/to/1/substitutions",
            code::SUBSTITUTION_UNKNOWN,
        ),
        // What becomes of values.
        case(&merged(&json!({"a": long(999)}), "{{a}}"), "/to/0", code::TOO_LONG),
        case(
            &merged_with("headers", json!({"References": ["{{a}}", "<b@c>"]})),
            "/to/0",
            code::HEADER_INVALID,
        ),
        // Return paths.
        case(&with("verp", json!("yes")), "/verp", code::TYPE_MISMATCH),
        case(&with("verp", json!(1)), "/verp", code::TYPE_MISMATCH),
    ];
    let mut verp = with("verp", json!(true));
    for base in [format!("{}@example.com", long(32)), "\"a b\"@example.com".to_owned()] {
        if let Some(fields) = verp.as_object_mut() {
            fields.insert("return_path".to_owned(), json!(base));
        }
        all.push(case(&verp, "/verp", code::VERP_IMPOSSIBLE));
    }
    for evil in ["x\r\nBcc: evil@example.net", "x\ny", "x\ry", "x\0y", "x\u{85}y"] {
        let body = merged(&json!({"a": evil}), "Dear {{a}}");
        all.push(case(&body, "/to/0/substitutions/a", code::CONTROL_CHARACTER));
        let mut body = with("substitutions", json!({"a": evil}));
        if let Some(fields) = body.as_object_mut() {
            fields.insert("headers".to_owned(), json!({"X-A": "{{ a }}"}));
        }
        all.push(case(&body, "/substitutions/a", code::CONTROL_CHARACTER));
    }
    all
}

fn many(count: usize) -> Map<String, Value> {
    (0..count).map(|n| (format!("n{n}"), json!("v"))).collect()
}
