//! The configuration: one file, TOML or JSON by its extension.
//!
//! Strict: an unknown key, a value out of range or a combination that would
//! be unsafe is an error that says where it stands and how to mend it, before
//! anything is started. No file at all is a working set-up of one machine,
//! bound to loopback. `${NAME}` is replaced by the environment's value before
//! the file is read (`$${` stands for a plain `${`).

mod file;
mod units;
mod validate;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
pub use file::{
    ApiSection, Config, LogFormat, LogPeriod, SmtpClientSection, TlsChoice, TokenSection,
};

/// Reads, checks and completes a configuration.
pub fn load(path: Option<&Path>) -> anyhow::Result<Config> {
    let mut config = match path {
        None => Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("failed to read the configuration {}", path.display()))?;
            parse(&text, Format::of(path)?)
                .with_context(|| format!("failed to read the configuration {}", path.display()))?
        }
    };
    config.complete();
    let problems = validate::problems(&config);
    if problems.is_empty() {
        return Ok(config);
    }
    let name = path.map_or_else(|| PathBuf::from("(defaults)"), Path::to_path_buf);
    bail!("the configuration {} cannot be used:\n  - {}", name.display(), problems.join("\n  - "))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Toml,
    Json,
}

impl Format {
    fn of(path: &Path) -> anyhow::Result<Self> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("toml") => Ok(Self::Toml),
            Some("json") => Ok(Self::Json),
            _ => bail!("{} must end in .toml or .json", path.display()),
        }
    }
}

fn parse(text: &str, format: Format) -> anyhow::Result<Config> {
    let text = interpolate(text, format, |name| std::env::var(name).ok())?;
    let parsed = match format {
        Format::Toml => toml::from_str(&text).map_err(|error| error.to_string()),
        Format::Json => serde_json::from_str(&text).map_err(|error| error.to_string()),
    };
    parsed.map_err(|message| match nearest_key(&message) {
        Some(near) => anyhow::anyhow!("{}\nDid you mean `{near}`?", message.trim_end()),
        None => anyhow::anyhow!("{}", message.trim_end()),
    })
}

/// The known key that is nearest to the unknown one that serde complains of.
fn nearest_key(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (unknown, known) = rest.split_once('`')?;
    known
        .split('`')
        .skip(1)
        .step_by(2)
        .map(|key| (strsim::jaro_winkler(unknown, key), key))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= 0.75)
        .map(|(_, key)| key)
}

/// Replaces `${NAME}` outside comments, escaped for a string of the format.
fn interpolate(
    text: &str,
    format: Format,
    lookup: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<String> {
    let mut result = String::with_capacity(text.len());
    for (number, line) in text.lines().enumerate() {
        let is_comment = format == Format::Toml && line.trim_start().starts_with('#');
        let mut rest = line;
        while let Some(at) = rest.find("${").filter(|_| !is_comment) {
            if let Some(plain) = rest[..at].strip_suffix('$') {
                result.push_str(plain);
                result.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            let (name, after) = rest[at + 2..]
                .split_once('}')
                .with_context(|| format!("line {}: `${{` without its `}}`", number + 1))?;
            let value = lookup(name).with_context(|| {
                format!("line {}: the environment has no variable {name}", number + 1)
            })?;
            result.push_str(&rest[..at]);
            result.push_str(&value.replace('\\', "\\\\").replace('"', "\\\""));
            rest = after;
        }
        result.push_str(rest);
        result.push('\n');
    }
    Ok(result)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_a_working_configuration() {
        let config = load(None).unwrap();
        assert_eq!(config.api.len(), 1);
        assert!(config.api[0].listen.ip().is_loopback());
        assert_eq!(config.smtp_client.len(), 1);
        assert_eq!(config.delivery_logger.len(), 1);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        let error = parse("hostnam = \"x\"", Format::Toml).unwrap_err().to_string();
        assert!(error.contains("hostnam") && error.contains("`hostname`?"), "{error}");
        let error = parse("[[smtp_client]]\nehlo = \"x\"\n", Format::Toml).unwrap_err().to_string();
        assert!(error.contains("`ehlo_name`?"), "{error}");
        let error = parse("{\"hostnam\": \"x\"}", Format::Json).unwrap_err().to_string();
        assert!(error.contains("`hostname`?"), "{error}");
    }

    #[test]
    fn the_environment_is_put_in() {
        let lookup = |name: &str| (name == "HOST").then(|| "a\"b".to_owned());
        let text = interpolate("# ${NONE}\nx = \"${HOST}\" # $${y}", Format::Toml, lookup).unwrap();
        assert_eq!(text, "# ${NONE}\nx = \"a\\\"b\" # ${y}\n");
        let error = interpolate("a = 1\nb = \"${NONE}\"", Format::Toml, lookup).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
    }

    #[test]
    fn the_shipped_file_is_valid_and_is_the_default() {
        let shipped = include_str!("../../../../config/posthaste.toml");
        let mut parsed = parse(shipped, Format::Toml).unwrap();
        parsed.complete();
        assert_eq!(validate::problems(&parsed), Vec::<String>::new());
        let mut default = Config::default();
        default.complete();
        assert_eq!(format!("{parsed:#?}"), format!("{default:#?}"));
    }
}
