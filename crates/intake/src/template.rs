//! Texts with `{{name}}` in them.
//!
//! `{{name}}` stands for a value, in HTML with `& < > " '` written as
//! references. `{{{name}}}` stands for the value as it is, for HTML that the
//! submitter has made; elsewhere the two are the same. White space inside the
//! braces is allowed. Values are not looked into: what looks like a template
//! in one is text. Everything else that begins with `{{` is an error, so that
//! no half of a template ever reaches a recipient.

/// Most templates in one text.
pub(crate) const MAX_TEMPLATES: usize = 1000;
/// Longest name in bytes.
const MAX_NAME_LEN: usize = 64;

/// Whether a value is escaped where it is put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syntax {
    Plain,
    Html,
}

/// What is wrong with a template. Completes the words "the text …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("has a \"{{{{\" that is not closed, at {0:?}")]
    Open(String),
    #[error(
        "has {0:?}, which is not a name: up to {MAX_NAME_LEN} letters, digits, '_', '-' and '.', a letter or '_' first"
    )]
    Name(String),
    #[error("has more than {MAX_TEMPLATES} templates")]
    TooMany,
}

/// A text taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template<'a>(Vec<Piece<'a>>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Value { name: &'a str, is_raw: bool },
}

impl<'a> Template<'a> {
    pub(crate) fn parse(text: &'a str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        let mut count = 0;
        while let Some(at) = rest.find("{{") {
            if at > 0 {
                pieces.push(Piece::Text(&rest[..at]));
            }
            count += 1;
            if count > MAX_TEMPLATES {
                return Err(TemplateError::TooMany);
            }
            let found = &rest[at..];
            let is_raw = found.starts_with("{{{");
            let (open, close) = if is_raw { (3, "}}}") } else { (2, "}}") };
            let inner = &found[open..];
            let Some(end) = inner.find(close) else {
                return Err(TemplateError::Open(start(found)));
            };
            let name = inner[..end].trim_ascii();
            if !is_name(name) {
                return Err(TemplateError::Name(start(name)));
            }
            pieces.push(Piece::Value { name, is_raw });
            rest = &inner[end + close.len()..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest));
        }
        Ok(Self(pieces))
    }

    /// Whether it is the same for everybody.
    pub(crate) fn is_constant(&self) -> bool {
        self.names().next().is_none()
    }

    /// The names in it, as often as they are there.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Value { name, .. } => Some(*name),
        })
    }

    /// The text with its values; `None` when it has more than `max` bytes. A
    /// name without a value, which was refused before, gives nothing.
    pub(crate) fn render<'v>(
        &self,
        syntax: Syntax,
        max: usize,
        value: impl Fn(&str) -> Option<&'v str>,
    ) -> Option<String> {
        let mut out = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Value { name, is_raw } => {
                    let value = value(name).unwrap_or_default();
                    if syntax == Syntax::Plain || *is_raw {
                        out.push_str(value);
                    } else {
                        escape(value, &mut out);
                    }
                }
            }
            if out.len() > max {
                return None;
            }
        }
        Some(out)
    }
}

/// Letters, digits, `_`, `-` and `.`, a letter or `_` first.
pub(crate) fn is_name(name: &str) -> bool {
    name.len() <= MAX_NAME_LEN
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
}

/// Safe in text and in quoted attributes.
fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
}

fn start(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn render(text: &str, syntax: Syntax) -> Result<String, TemplateError> {
        let template = Template::parse(text)?;
        Ok(template
            .render(syntax, 1000, |name| match name {
                "a" => Some("<&\"'>"),
                "b.c-d_1" => Some("{{a}}"),
                _ => None,
            })
            .unwrap())
    }

    #[test]
    fn rendered() {
        for (text, plain, html) in [
            ("", "", ""),
            ("no { template } }} here", "no { template } }} here", "no { template } }} here"),
            ("x{{a}}y", "x<&\"'>y", "x&lt;&amp;&quot;&#39;&gt;y"),
            ("x{{{ a }}}y", "x<&\"'>y", "x<&\"'>y"),
            ("{{ a\n}}{{b.c-d_1}}", "<&\"'>{{a}}", "&lt;&amp;&quot;&#39;&gt;{{a}}"),
            ("{ {{a}} }", "{ <&\"'> }", "{ &lt;&amp;&quot;&#39;&gt; }"),
            ("ä{{a}}}", "ä<&\"'>}", "ä&lt;&amp;&quot;&#39;&gt;}"),
        ] {
            assert_eq!(render(text, Syntax::Plain).as_deref(), Ok(plain), "{text}");
            assert_eq!(render(text, Syntax::Html).as_deref(), Ok(html), "{text}");
        }
    }

    #[test]
    fn refused() {
        use TemplateError as E;
        for (text, error) in [
            ("{{", E::Open("{{".into())),
            ("a {{name", E::Open("{{name".into())),
            ("{{{name}}", E::Open("{{{name}}".into())),
            ("{{}}", E::Name(String::new())),
            ("{{ }}", E::Name(String::new())),
            ("{{1a}}", E::Name("1a".into())),
            ("{{a b}}", E::Name("a b".into())),
            ("{{#if a}}", E::Name("#if a".into())),
            ("{{a{{b}}}}", E::Name("a{{b".into())),
            ("{{ä}}", E::Name("ä".into())),
        ] {
            assert_eq!(render(text, Syntax::Plain), Err(error), "{text}");
        }
        assert_eq!(Template::parse(&"{{a}}".repeat(MAX_TEMPLATES + 1)), Err(E::TooMany));
    }

    #[test]
    fn bounded() {
        let text = "{{a}}".repeat(100);
        let template = Template::parse(&text).unwrap();
        assert_eq!(template.render(Syntax::Plain, 999, |_| Some("0123456789")), None);
        assert!(template.render(Syntax::Plain, 1000, |_| Some("0123456789")).is_some());
    }

    proptest! {
        #[test]
        fn html_values_open_nothing(value in ".{0,40}", around in "[^{<>\"'&]{0,10}") {
            let text = format!("{around}{{{{v}}}}{around}");
            let template = Template::parse(&text).unwrap();
            let html = template.render(Syntax::Html, 10_000, |_| Some(&value)).unwrap();
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[{}a ä.]{0,40}") {
            if let Ok(template) = Template::parse(&text) {
                // With each name for itself, nothing but white space is lost.
                let names: Vec<&str> = template.names().collect();
                prop_assert!(names.iter().all(|name| is_name(name)));
                prop_assert_eq!(names.is_empty(), !text.contains("{{"));
            }
        }
    }
}
