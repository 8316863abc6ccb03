//! How rules are written.
//!
//! As one line, for a command's argument:
//!
//! ```text
//! STAGE[=PATTERN][ from=PATTERN]:ACTION[:TIMES]
//!
//! STAGE    connect, ehlo, starttls, mail, rcpt, data, end_of_data
//! PATTERN  text in which * is any number of characters: the EHLO name at
//!          ehlo, the sender at mail, the recipient at rcpt, any recipient at
//!          data and end_of_data; from= is the sender
//! ACTION   CODE [ENHANCED] [TEXT]   reply so; \n in TEXT begins another line
//!          accept                   accept in spite of the rules that follow
//!          delay TIME               wait (300ms, 2s), then see the other rules
//!          drop                     close without a reply
//!          silence                  never reply
//!          garbage                  reply with what is not SMTP
//!          accept_then_drop         at end_of_data: take the message, but close
//!                                   without a reply
//! TIMES    once, N times            the first N matches only
//!          once each, N times each  the same for each recipient (or sender)
//! ```
//!
//! For example `rcpt=slow*@*:450 4.2.1 busy:once each`, `connect:421 later`,
//! `end_of_data=*@lost.example:drop:3 times`, `mail from=news@*:delay 2s`.
//!
//! In a TOML or JSON file, a rule is a table of the same parts: `stage`,
//! `pattern`, `from`, `action`, `times` (a number) and `each` (true or false).

use std::{str::FromStr, time::Duration};

use posthaste_model::SmtpReply;
use serde::Deserialize;

use super::rule::{Action, Pattern, Rule, RuleStage};

/// Why a text is not a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// No colon.
    #[error("a rule is STAGE[=PATTERN]:ACTION[:TIMES]; {0:?} has no ':'")]
    NoAction(String),
    /// The stage is not known.
    #[error("{0:?} is not a stage: use connect, ehlo, starttls, mail, rcpt, data or end_of_data")]
    Stage(String),
    /// Something after the stage that is not `from=`.
    #[error("{0:?} is not understood: only from=PATTERN may follow the stage and its pattern")]
    Filter(String),
    /// A pattern where there is nothing to match.
    #[error("{0} has nothing that a pattern could match yet")]
    NoSubject(&'static str),
    /// The action is not known.
    #[error(
        "{0:?} is not an action: use CODE TEXT, accept, delay TIME, drop, silence, garbage or \
         accept_then_drop"
    )]
    Action(String),
    /// A reply code out of range.
    #[error("the reply code {0} is not between 200 and 599")]
    Code(u16),
    /// The enhanced code is of another class than the code.
    #[error("the enhanced code {0} contradicts the reply code {1}")]
    Enhanced(String, u16),
    /// `accept_then_drop` elsewhere.
    #[error("accept_then_drop is for end_of_data only")]
    AcceptThenDrop,
    /// A time that is not one.
    #[error("{0:?} is not a time: use 300ms or 2s")]
    Time(String),
    /// `each` without a number.
    #[error("'each' needs a number of times")]
    Each,
}

/// A rule as a file has it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFields {
    stage: RuleStage,
    pattern: Option<String>,
    from: Option<String>,
    action: String,
    times: Option<u32>,
    #[serde(default)]
    each: bool,
}

impl TryFrom<RuleFields> for Rule {
    type Error = RuleError;

    fn try_from(fields: RuleFields) -> Result<Self, RuleError> {
        let rule = Self {
            stage: fields.stage,
            pattern: fields.pattern.map(Pattern::new),
            sender: fields.from.map(Pattern::new),
            action: fields.action.parse()?,
            times: fields.times,
            each: fields.each,
        };
        check(rule)
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let no_action = || RuleError::NoAction(text.to_owned());
        let (target, rest) = text.split_once(':').ok_or_else(no_action)?;
        let mut words = target.split_ascii_whitespace();
        let first = words.next().unwrap_or_default();
        let (stage, pattern) = match first.split_once('=') {
            Some((stage, pattern)) => (stage, Some(Pattern::new(pattern))),
            None => (first, None),
        };
        let mut sender = None;
        for word in words {
            let pattern = word.strip_prefix("from=").filter(|_| sender.is_none());
            let pattern = pattern.ok_or_else(|| RuleError::Filter(word.to_owned()))?;
            sender = Some(Pattern::new(pattern));
        }
        // The text of a reply may hold colons: only what reads as times is.
        let (action, times, each) = match rest.rsplit_once(':') {
            Some((action, last)) => match parse_times(last.trim()) {
                Some((times, each)) => (action, Some(times), each),
                None => (rest, None, false),
            },
            None => (rest, None, false),
        };
        check(Self { stage: stage.parse()?, pattern, sender, action: action.parse()?, times, each })
    }
}

fn check(rule: Rule) -> Result<Rule, RuleError> {
    if rule.action == Action::AcceptThenDrop && rule.stage != RuleStage::EndOfData {
        return Err(RuleError::AcceptThenDrop);
    }
    if rule.each && rule.times.is_none() {
        return Err(RuleError::Each);
    }
    match rule.stage {
        RuleStage::Connect | RuleStage::Starttls if rule.pattern.is_some() => {
            Err(RuleError::NoSubject("this stage"))
        }
        RuleStage::Connect | RuleStage::Starttls | RuleStage::Ehlo if rule.sender.is_some() => {
            Err(RuleError::NoSubject("a stage before mail"))
        }
        _ => Ok(rule),
    }
}

impl FromStr for RuleStage {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        Ok(match text {
            "connect" => Self::Connect,
            "ehlo" => Self::Ehlo,
            "starttls" => Self::Starttls,
            "mail" => Self::Mail,
            "rcpt" => Self::Rcpt,
            "data" => Self::Data,
            "end_of_data" => Self::EndOfData,
            _ => return Err(RuleError::Stage(text.to_owned())),
        })
    }
}

impl FromStr for Action {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let text = text.trim();
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest.trim()) {
            ("accept", "") => Ok(Self::Accept),
            ("drop", "") => Ok(Self::Drop),
            ("silence", "") => Ok(Self::Silence),
            ("garbage", "") => Ok(Self::Garbage),
            ("accept_then_drop", "") => Ok(Self::AcceptThenDrop),
            ("delay", time) => parse_time(time).map(Self::Delay),
            (code, rest) if code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit()) => {
                let code = code.parse().map_err(|_| RuleError::Action(text.to_owned()))?;
                parse_reply(code, rest).map(Self::Reply)
            }
            _ => Err(RuleError::Action(text.to_owned())),
        }
    }
}

fn parse_reply(code: u16, rest: &str) -> Result<SmtpReply, RuleError> {
    if !(200..600).contains(&code) {
        return Err(RuleError::Code(code));
    }
    let (word, after) = rest.split_once(' ').unwrap_or((rest, ""));
    let (enhanced, text) = match word.parse::<posthaste_model::EnhancedCode>() {
        Ok(enhanced) if u16::from(enhanced.class) == code / 100 => (Some(enhanced), after),
        Ok(enhanced) => return Err(RuleError::Enhanced(enhanced.to_string(), code)),
        Err(_) => (None, rest),
    };
    Ok(SmtpReply { code, enhanced, text: text.trim().replace("\\n", "\n") })
}

fn parse_time(text: &str) -> Result<Duration, RuleError> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let error = || RuleError::Time(text.to_owned());
    let number: u64 = digits.parse().map_err(|_| error())?;
    match text.get(digits.len()..) {
        Some("" | "ms") => Ok(Duration::from_millis(number)),
        Some("s") => Ok(Duration::from_secs(number)),
        _ => Err(error()),
    }
}

/// `once`, `3 times`, and the same with `each`.
fn parse_times(text: &str) -> Option<(u32, bool)> {
    let (text, each) = match text.strip_suffix(" each") {
        Some(rest) => (rest.trim(), true),
        None => (text, false),
    };
    let times = match text {
        "once" => 1,
        other => other.strip_suffix("times").or(other.strip_suffix("time"))?.trim().parse().ok()?,
    };
    Some((times, each))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reply(code: u16, enhanced: &str, text: &str) -> Action {
        Action::Reply(SmtpReply { code, enhanced: enhanced.parse().ok(), text: text.into() })
    }

    #[test]
    fn lines() {
        let rule = Rule::new;
        let pattern = |text: &str| Some(Pattern::new(text));
        for (text, expected) in [
            ("connect:421 later", rule(RuleStage::Connect, reply(421, "", "later"))),
            ("connect:554", rule(RuleStage::Connect, reply(554, "", ""))),
            ("starttls:454 4.7.0 no", rule(RuleStage::Starttls, reply(454, "4.7.0", "no"))),
            (
                "ehlo=*.bad:drop",
                Rule { pattern: pattern("*.bad"), ..rule(RuleStage::Ehlo, Action::Drop) },
            ),
            (
                "rcpt=slow*@*:450 4.2.1 busy:once",
                Rule {
                    pattern: pattern("slow*@*"),
                    times: Some(1),
                    ..rule(RuleStage::Rcpt, reply(450, "4.2.1", "busy"))
                },
            ),
            (
                "rcpt=a@b:450 busy: see http://x:once each",
                Rule {
                    pattern: pattern("a@b"),
                    times: Some(1),
                    each: true,
                    ..rule(RuleStage::Rcpt, reply(450, "", "busy: see http://x"))
                },
            ),
            ("rcpt:550 a: b", rule(RuleStage::Rcpt, reply(550, "", "a: b"))),
            (
                "mail from=news@*: delay 2s : 12 times",
                Rule {
                    sender: pattern("news@*"),
                    times: Some(12),
                    ..rule(RuleStage::Mail, Action::Delay(Duration::from_secs(2)))
                },
            ),
            (
                "data=*@x from=a@b:delay 300ms",
                Rule {
                    pattern: pattern("*@x"),
                    sender: pattern("a@b"),
                    ..rule(RuleStage::Data, Action::Delay(Duration::from_millis(300)))
                },
            ),
            ("data:250 odd\\nodd", rule(RuleStage::Data, reply(250, "", "odd\nodd"))),
            (
                "end_of_data:accept_then_drop:1 time",
                Rule { times: Some(1), ..rule(RuleStage::EndOfData, Action::AcceptThenDrop) },
            ),
            ("end_of_data:garbage", rule(RuleStage::EndOfData, Action::Garbage)),
            ("end_of_data:silence", rule(RuleStage::EndOfData, Action::Silence)),
            (
                "end_of_data=a@b:accept",
                Rule { pattern: pattern("a@b"), ..rule(RuleStage::EndOfData, Action::Accept) },
            ),
        ] {
            assert_eq!(text.parse::<Rule>(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn errors() {
        for (text, part) in [
            ("rcpt", "has no ':'"),
            ("rctp:drop", "\"rctp\" is not a stage"),
            ("rcpt=a@b to=c:drop", "\"to=c\" is not understood"),
            ("rcpt:dorp", "\"dorp\" is not an action"),
            ("rcpt:drop now", "\"drop now\" is not an action"),
            ("rcpt:drop:twice", "\"drop:twice\" is not an action"),
            ("rcpt:", "is not an action"),
            ("rcpt:199 x", "199 is not between"),
            ("rcpt:600 x", "600 is not between"),
            ("rcpt:450 5.1.1 x", "contradicts"),
            ("rcpt:delay", "is not a time"),
            ("rcpt:delay 2m", "\"2m\" is not a time"),
            ("rcpt:delay -1s", "is not a time"),
            ("rcpt:accept_then_drop", "end_of_data only"),
            ("connect=a:drop", "nothing that a pattern could match"),
            ("ehlo from=a:drop", "nothing that a pattern could match"),
        ] {
            let error = text.parse::<Rule>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn files() {
        let json = r#"[
            {"stage": "rcpt", "pattern": "slow*@*", "action": "450 4.2.1 busy", "times": 1, "each": true},
            {"stage": "end_of_data", "from": "a@*", "action": "drop"}
        ]"#;
        let rules: Vec<Rule> = serde_json::from_str(json).unwrap();
        let lines = ["rcpt=slow*@*:450 4.2.1 busy:once each", "end_of_data from=a@*:drop"];
        assert_eq!(rules, lines.map(|line| line.parse().unwrap()));
        for bad in [
            r#"{"stage": "rcpt", "action": "dorp"}"#,
            r#"{"stage": "rctp", "action": "drop"}"#,
            r#"{"stage": "rcpt", "action": "drop", "each": true}"#,
            r#"{"stage": "rcpt", "action": "drop", "time": 1}"#,
        ] {
            assert!(serde_json::from_str::<Rule>(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read(text in "(rcpt|data|end_of_data)?[=: a-z0-9*@.]{0,40}(:once|:3 times)?") {
            if let Ok(rule) = text.parse::<Rule>() {
                prop_assert!(text.contains(':'));
                prop_assert!(!rule.each || rule.times.is_some());
            }
        }
    }
}
