//! Rules: what a sink says and does instead of accepting.
//!
//! At each stage the rules are looked through in their order. The first one
//! that matches and is not spent decides; a delay is carried out and the search
//! goes on. Where no rule decides, the sink accepts.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use posthaste_model::SmtpReply;
use serde::Deserialize;

/// So many recipients are told apart by one rule with `each`. A trial that
/// has more finds the rule spent for the others.
const MAX_EACH: usize = 1_000_000;

/// The step of a session at which a rule applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RuleStage {
    /// A client has connected; instead of the greeting.
    Connect,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS.
    Starttls,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA.
    Data,
    /// The final dot.
    EndOfData,
}

/// What a rule does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Replies. 2yz (354 at DATA) accepts in these words, 421 closes, anything
    /// else refuses.
    Reply(SmtpReply),
    /// Accepts: an exception to the rules that follow.
    Accept,
    /// Waits, then looks at the rules that follow.
    Delay(Duration),
    /// Closes the connection without a reply.
    Drop,
    /// Never replies and keeps the connection open.
    Silence,
    /// Sends what is no SMTP reply.
    Garbage,
    /// At the final dot: takes the message, then closes without a reply. The
    /// client cannot know (RFC 1047).
    AcceptThenDrop,
}

/// Text with `*` for any number of characters; ASCII case does not matter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether it matches the whole of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let (pattern, text) = (self.0.as_bytes(), text.as_bytes());
        let (mut p, mut t) = (0, 0);
        // Where to go on when the star must take one byte more.
        let mut star: Option<(usize, usize)> = None;
        while t < text.len() {
            match (pattern.get(p), text.get(t)) {
                (Some(b'*'), _) => {
                    star = Some((p + 1, t));
                    p += 1;
                }
                (Some(a), Some(b)) if a.eq_ignore_ascii_case(b) => {
                    p += 1;
                    t += 1;
                }
                _ => match star {
                    Some((after, from)) => {
                        star = Some((after, from + 1));
                        (p, t) = (after, from + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
    }
}

/// One rule. [`super::syntax`] describes how it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "super::syntax::RuleFields")]
pub struct Rule {
    /// Where it applies.
    pub stage: RuleStage,
    /// Whom it applies to: the name at EHLO, the sender at MAIL, the recipient
    /// at RCPT, any recipient at DATA and the final dot. `None`: all.
    pub pattern: Option<Pattern>,
    /// The sender that it applies to, from MAIL on. `None`: all.
    pub sender: Option<Pattern>,
    /// What it does.
    pub action: Action,
    /// After so many matches it is spent. `None`: never.
    pub times: Option<u32>,
    /// Whether `times` counts for each recipient (each sender at MAIL) alone.
    pub each: bool,
}

impl Rule {
    /// A rule that always applies at a stage.
    #[must_use]
    pub const fn new(stage: RuleStage, action: Action) -> Self {
        Self { stage, pattern: None, sender: None, action, times: None, each: false }
    }
}

/// What the rules are matched with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Occasion<'a> {
    pub(super) stage: RuleStage,
    pub(super) sender: &'a str,
    /// The name, the sender, the recipient, or all recipients.
    pub(super) subjects: &'a [&'a str],
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Decision<'a> {
    pub(super) delay: Duration,
    pub(super) action: &'a Action,
}

/// The rules of a running sink with their counts.
#[derive(Debug)]
pub(super) struct Rules(Vec<ActiveRule>);

#[derive(Debug)]
struct ActiveRule {
    rule: Rule,
    /// Matches so far, by subject with `each` and under the empty text else.
    used: Mutex<HashMap<String, u32>>,
}

impl Rules {
    pub(super) fn new(rules: Vec<Rule>) -> Self {
        let active = |rule| ActiveRule { rule, used: Mutex::default() };
        Self(rules.into_iter().map(active).collect())
    }

    /// Whether any rule is for `stage`: lets the usual case skip the rest.
    pub(super) fn concern(&self, stage: RuleStage) -> bool {
        self.0.iter().any(|active| active.rule.stage == stage)
    }

    pub(super) fn decide(&self, occasion: Occasion<'_>) -> Decision<'_> {
        let mut delay = Duration::ZERO;
        for active in &self.0 {
            if active.applies(occasion) {
                match &active.rule.action {
                    Action::Delay(more) => delay = delay.saturating_add(*more),
                    action => return Decision { delay, action },
                }
            }
        }
        Decision { delay, action: &Action::Accept }
    }
}

impl ActiveRule {
    fn applies(&self, occasion: Occasion<'_>) -> bool {
        let rule = &self.rule;
        if rule.stage != occasion.stage
            || rule.sender.as_ref().is_some_and(|sender| !sender.matches(occasion.sender))
        {
            return false;
        }
        match &rule.pattern {
            None => self.take(occasion.subjects.first().copied().unwrap_or_default()),
            Some(pattern) => occasion
                .subjects
                .iter()
                .any(|subject| pattern.matches(subject) && self.take(subject)),
        }
    }

    /// Counts one match; `false` when the rule is spent.
    fn take(&self, subject: &str) -> bool {
        let Some(times) = self.rule.times else { return true };
        let key = if self.rule.each { subject } else { "" };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = used.get_mut(key) {
            let left = *count < times;
            *count = count.saturating_add(1);
            return left;
        }
        if times == 0 || used.len() >= MAX_EACH {
            return false;
        }
        used.insert(key.to_owned(), 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "a@b", true),
            ("", "", true),
            ("", "a", false),
            ("a@b", "A@B", true),
            ("a@b", "a@bc", false),
            ("slow*@*", "slow1@example.com", true),
            ("slow*@*", "slow@", true),
            ("slow*@*", "fast@example.com", false),
            ("*@example.com", "a@example.com", true),
            ("*@example.com", "a@example.com.net", false),
            ("*a*b*c", "xaxbxbxc", true),
            ("*a*b*c", "xaxbxbx", false),
            ("**", "x", true),
            ("*é", "josé", true),
        ] {
            assert_eq!(Pattern::new(pattern).matches(text), expected, "{pattern} {text}");
        }
    }

    fn at<'a>(stage: RuleStage, sender: &'a str, subjects: &'a [&'a str]) -> Occasion<'a> {
        Occasion { stage, sender, subjects }
    }

    #[test]
    fn the_first_rule_that_is_not_spent_decides() {
        let rules = [
            "rcpt=a@*:delay 10ms",
            "rcpt=a@*:drop:2 times",
            "rcpt=*:delay 5ms",
            "rcpt=a@*:silence",
        ];
        let rules = Rules::new(rules.iter().map(|text| text.parse().unwrap()).collect());
        let a = at(RuleStage::Rcpt, "", &["a@b"]);
        let ms = Duration::from_millis;
        for expected in [
            Decision { delay: ms(10), action: &Action::Drop },
            Decision { delay: ms(10), action: &Action::Drop },
            Decision { delay: ms(15), action: &Action::Silence },
        ] {
            assert_eq!(rules.decide(a), expected);
        }
        let other = at(RuleStage::Rcpt, "", &["b@b"]);
        assert_eq!(rules.decide(other), Decision { delay: ms(5), action: &Action::Accept });
        let data = at(RuleStage::Data, "", &["a@b"]);
        assert_eq!(rules.decide(data), Decision { delay: ms(0), action: &Action::Accept });
    }

    #[test]
    fn each_recipient_counts_alone() {
        let rules = Rules::new(vec!["end_of_data=*@x:drop:once each".parse().unwrap()]);
        for (subjects, expected) in [
            (&["a@x"][..], &Action::Drop),
            (&["a@x"], &Action::Accept),
            (&["b@x"], &Action::Drop),
            (&["a@x", "c@x"], &Action::Drop),
            (&["a@x", "b@x", "c@x"], &Action::Accept),
            (&["a@y"], &Action::Accept),
        ] {
            let occasion = at(RuleStage::EndOfData, "", subjects);
            assert_eq!(rules.decide(occasion).action, expected, "{subjects:?}");
        }
    }

    #[test]
    fn the_sender_narrows_a_rule() {
        let rules = Rules::new(vec!["rcpt=a@x from=news@*:drop".parse().unwrap()]);
        let decide = |sender| rules.decide(at(RuleStage::Rcpt, sender, &["a@x"])).action.clone();
        assert_eq!(decide("news@y"), Action::Drop);
        assert_eq!(decide("other@y"), Action::Accept);
    }
}
