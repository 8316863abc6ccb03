//! What hostile servers do, as a table: a script, and the failure to expect.

use posthaste_smtp::{Stage, TlsMode};

use crate::peer::{Step, send};

/// What a failure must be.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Reply(u16),
    Closed,
    Timeout,
    Protocol,
    Tls,
    Unsupported,
    /// No failure at all: delivered.
    Delivered,
}

pub struct Case {
    pub name: &'static str,
    pub script: Vec<Step>,
    pub stage: Stage,
    pub kind: Kind,
    /// Whether the session can be used after it; `None` when there is none.
    pub usable: Option<bool>,
    pub mode: TlsMode,
    /// The time limit of the stage is made short: the peer is too slow.
    pub slow: bool,
}

fn case(name: &'static str, stage: Stage, kind: Kind, script: Vec<Step>) -> Case {
    let mode = TlsMode::Opportunistic;
    Case { name, script, stage, kind, usable: None, mode, slow: false }
}

impl Case {
    fn usable(self, usable: bool) -> Self {
        Self { usable: Some(usable), ..self }
    }

    fn mode(self, mode: TlsMode) -> Self {
        Self { mode, ..self }
    }

    fn slow(self) -> Self {
        Self { slow: true, ..self }
    }
}

const EHLO: &str = "EHLO client.test\r\n";

/// A session up to its first transaction.
fn opened(keywords: &str) -> Vec<Step> {
    vec![
        send("220 mx.test\r\n"),
        Step::Expect(EHLO),
        send(&format!("250-mx.test\r\n{keywords}250 HELP\r\n")),
    ]
}

/// Without PIPELINING, then `rest`.
fn stepwise(rest: Vec<Step>) -> Vec<Step> {
    [opened(""), rest].concat()
}

/// With PIPELINING: the three commands, then `rest`.
fn pipelined(rest: Vec<Step>) -> Vec<Step> {
    let commands = vec![
        Step::Expect("MAIL FROM:<a@a.test>\r\n"),
        Step::Expect("RCPT TO:<b@b.test>\r\n"),
        Step::Expect("DATA\r\n"),
    ];
    [opened("250-PIPELINING\r\n"), commands, rest].concat()
}

/// Up to the final dot, then `rest`.
fn after_dot(rest: Vec<Step>) -> Vec<Step> {
    pipelined([vec![send("250 a\r\n250 b\r\n354 go\r\n"), Step::Content], rest].concat())
}

fn starttls(rest: Vec<Step>) -> Vec<Step> {
    [opened("250-STARTTLS\r\n"), vec![Step::Expect("STARTTLS\r\n")], rest].concat()
}

pub fn opening() -> Vec<Case> {
    use Kind::*;
    use Stage::{Ehlo, Greeting};
    vec![
        case("554 greeting", Greeting, Reply(554), vec![send("554 no\r\n"), Step::End]),
        case("421 greeting", Greeting, Reply(421), vec![send("421 busy\r\n"), Step::End]),
        case(
            "421 greeting and close",
            Greeting,
            Reply(421),
            vec![send("421 busy\r\n"), Step::Close],
        ),
        case("closes at once", Greeting, Closed, vec![Step::Close]),
        case("closes amid the greeting", Greeting, Closed, vec![send("220 mx"), Step::Close]),
        case("no greeting", Greeting, Timeout, vec![Step::Stall]).slow(),
        case("drips a greeting", Greeting, Timeout, vec![Step::Drip(b"220-x\r\n")]).slow(),
        case("greets with 250", Greeting, Protocol, vec![send("250 hello\r\n"), Step::End]),
        case("greets with 354", Greeting, Protocol, vec![send("354 hello\r\n"), Step::End]),
        case("another protocol", Greeting, Protocol, vec![send("+OK POP3 ready\r\n"), Step::End]),
        case("HTTP", Greeting, Protocol, vec![send("HTTP/1.1 400 Bad Request\r\n\r\n"), Step::End]),
        case("binary garbage", Greeting, Protocol, vec![Step::Send(vec![0xff, 0, 10]), Step::End]),
        case("endless line", Greeting, Protocol, vec![Step::Send(vec![b'x'; 1 << 20])]),
        case("endless spaces", Greeting, Protocol, vec![Step::Send(vec![b'\n'; 100]), Step::End]),
        case("10,000 lines", Greeting, Protocol, vec![send(&"220-x\r\n".repeat(10_000))]),
        case("codes that differ", Greeting, Protocol, vec![send("220-x\r\n221 x\r\n")]),
        case(
            "speaks before EHLO",
            Ehlo,
            Protocol,
            vec![send("220 mx\r\n250 too early\r\n"), Step::End],
        ),
        case("421 before EHLO", Ehlo, Reply(421), vec![send("220 mx\r\n421 bye\r\n"), Step::End]),
        case("closes after the greeting", Ehlo, Closed, vec![send("220 mx\r\n"), Step::Close]),
        case("450 to EHLO", Ehlo, Reply(450), ehlo("450 wait\r\n")),
        case("421 to EHLO", Ehlo, Reply(421), ehlo("421 later\r\n")),
        case("220 to EHLO with garbage", Ehlo, Protocol, ehlo("250-a\r\nPIPELINING\r\n")),
        case("354 to EHLO", Ehlo, Protocol, ehlo("354 go\r\n")),
        case(
            "silence after EHLO",
            Ehlo,
            Timeout,
            vec![send("220 mx\r\n"), Step::Expect(EHLO), Step::Stall],
        )
        .slow(),
        case(
            "closes at EHLO",
            Ehlo,
            Closed,
            vec![send("220 mx\r\n"), Step::Expect(EHLO), Step::Close],
        ),
        case("refuses EHLO and HELO", Ehlo, Reply(550), helo(vec![send("550 no\r\n"), Step::End])),
        case("421 to HELO", Ehlo, Reply(421), helo(vec![send("421 no\r\n"), Step::End])),
        case("closes at HELO", Ehlo, Reply(502), helo(vec![Step::Close])),
    ]
}

fn ehlo(reply: &str) -> Vec<Step> {
    vec![send("220 mx.test\r\n"), Step::Expect(EHLO), send(reply), Step::End]
}

fn helo(rest: Vec<Step>) -> Vec<Step> {
    let mut script = ehlo("502 what?\r\n");
    script.pop();
    script.push(Step::Expect("HELO client.test\r\n"));
    [script, rest].concat()
}

pub fn tls_cases() -> Vec<Case> {
    use Kind::*;
    use Stage::{Ehlo, StartTls};
    let again = || vec![Step::Tls, Step::Expect(EHLO)];
    let go = || send("220 go\r\n");
    vec![
        case(
            "not offered, required",
            StartTls,
            Unsupported,
            [opened(""), vec![Step::End]].concat(),
        )
        .mode(TlsMode::Require),
        case(
            "not offered, to be verified",
            StartTls,
            Unsupported,
            [opened(""), vec![Step::End]].concat(),
        )
        .mode(TlsMode::Verify),
        case(
            "HELO only, required",
            StartTls,
            Unsupported,
            helo(vec![send("250 mx\r\n"), Step::End]),
        )
        .mode(TlsMode::Require),
        case("refused", StartTls, Reply(454), starttls(vec![send("454 no\r\n"), Step::End])),
        case(
            "refused for good",
            StartTls,
            Reply(502),
            starttls(vec![send("502 no\r\n"), Step::End]),
        ),
        case("250 to STARTTLS", StartTls, Protocol, starttls(vec![send("250 ok\r\n"), Step::End])),
        case("closes at STARTTLS", StartTls, Closed, starttls(vec![Step::Close])),
        case("closes before the handshake", StartTls, Tls, starttls(vec![go(), Step::Close])),
        case(
            "garbage for a handshake",
            StartTls,
            Tls,
            starttls(vec![go(), Step::Read, send("hello?\r\n"), Step::Stall]),
        ),
        case("silence for a handshake", StartTls, Timeout, starttls(vec![go(), Step::Stall]))
            .slow(),
        case("a certificate of nobody", StartTls, Tls, starttls(vec![go(), Step::Tls]))
            .mode(TlsMode::Verify),
        case(
            "EHLO refused under TLS",
            Ehlo,
            Reply(421),
            starttls([vec![go()], again(), vec![send("421 no\r\n")]].concat()),
        ),
        case(
            "closes under TLS",
            Ehlo,
            Closed,
            starttls([vec![go()], again(), vec![Step::Close]].concat()),
        ),
    ]
}

pub fn stepwise_cases() -> Vec<Case> {
    use Kind::*;
    use Stage::{Data, MailFrom, RcptTo};
    let mail = || Step::Expect("MAIL FROM:<a@a.test>\r\n");
    let rcpt = || Step::Expect("RCPT TO:<b@b.test>\r\n");
    let ok = || send("250 ok\r\n");
    let data = |rest: Vec<Step>| {
        stepwise([vec![mail(), ok(), rcpt(), ok(), Step::Expect("DATA\r\n")], rest].concat())
    };
    vec![
        case(
            "MAIL 550",
            MailFrom,
            Reply(550),
            stepwise(vec![mail(), send("550 no\r\n"), Step::End]),
        )
        .usable(true),
        case(
            "MAIL 421",
            MailFrom,
            Reply(421),
            stepwise(vec![mail(), send("421 no\r\n"), Step::End]),
        )
        .usable(false),
        case("MAIL 354", MailFrom, Protocol, stepwise(vec![mail(), send("354 go\r\n"), Step::End]))
            .usable(false),
        case("MAIL closes", MailFrom, Closed, stepwise(vec![mail(), Step::Close])).usable(false),
        case("MAIL silence", MailFrom, Timeout, stepwise(vec![mail(), Step::Stall]))
            .usable(false)
            .slow(),
        case(
            "MAIL two replies",
            RcptTo,
            Protocol,
            stepwise(vec![mail(), send("250 a\r\n250 b\r\n"), Step::End]),
        )
        .usable(false),
        case(
            "MAIL then 421",
            RcptTo,
            Reply(421),
            stepwise(vec![mail(), send("250 a\r\n421 b\r\n"), Step::End]),
        )
        .usable(false),
        case(
            "RCPT 450",
            RcptTo,
            Reply(450),
            stepwise(vec![mail(), ok(), rcpt(), send("450 no\r\n"), Step::End]),
        )
        .usable(true),
        case(
            "RCPT 421",
            RcptTo,
            Reply(421),
            stepwise(vec![mail(), ok(), rcpt(), send("421 no\r\n"), Step::End]),
        )
        .usable(false),
        case("RCPT closes", RcptTo, Closed, stepwise(vec![mail(), ok(), rcpt(), Step::Close]))
            .usable(false),
        case(
            "RCPT refused, then closes",
            RcptTo,
            Reply(550),
            stepwise(vec![mail(), ok(), rcpt(), send("550 no\r\n"), Step::Close]),
        ),
        case("DATA 451", Data, Reply(451), data(vec![send("451 no\r\n"), Step::End])).usable(true),
        case("DATA 250", Data, Protocol, data(vec![send("250 ok\r\n"), Step::End])).usable(false),
        case("DATA closes", Data, Closed, data(vec![Step::Close])).usable(false),
        case("DATA silence", Data, Timeout, data(vec![Step::Stall])).usable(false).slow(),
        case(
            "354 and a reply that nothing was sent for",
            Data,
            Protocol,
            data(vec![send("354 go\r\n250 taken\r\n"), Step::End]),
        )
        .usable(false),
    ]
}

pub fn pipelined_cases() -> Vec<Case> {
    use Kind::*;
    use Stage::{Data, MailFrom, RcptTo};
    let end = |text: &str| pipelined(vec![send(text), Step::End]);
    let dot = |text: &str, reply: &str| {
        pipelined(vec![send(text), Step::Expect(".\r\n"), send(reply), Step::End])
    };
    vec![
        case("all refused", MailFrom, Reply(550), end("550 no\r\n503 no\r\n503 no\r\n"))
            .usable(true),
        case(
            "MAIL refused alone",
            MailFrom,
            Reply(451),
            dot("451 no\r\n250 b\r\n354 go\r\n", "554 none\r\n"),
        )
        .usable(true),
        case(
            "MAIL and RCPT refused, 354",
            MailFrom,
            Reply(550),
            dot("550 no\r\n503 no\r\n354 go\r\n", "554 none\r\n"),
        )
        .usable(true),
        case(
            "RCPT refused, DATA refused",
            RcptTo,
            Reply(550),
            end("250 a\r\n550 no\r\n554 none\r\n"),
        )
        .usable(true),
        case(
            "RCPT refused, 354, dot refused",
            RcptTo,
            Reply(450),
            dot("250 a\r\n450 no\r\n354 go\r\n", "554 none\r\n"),
        )
        .usable(true),
        case(
            "RCPT refused, 354, dot accepted",
            RcptTo,
            Reply(450),
            dot("250 a\r\n450 no\r\n354 go\r\n", "250 taken\r\n"),
        )
        .usable(true),
        case(
            "RCPT refused, 354, 421 to the dot",
            RcptTo,
            Reply(450),
            dot("250 a\r\n450 no\r\n354 go\r\n", "421 bye\r\n"),
        )
        .usable(false),
        case(
            "RCPT refused, 354, dot lost",
            RcptTo,
            Reply(450),
            pipelined(vec![
                send("250 a\r\n450 no\r\n354 go\r\n"),
                Step::Expect(".\r\n"),
                Step::Close,
            ]),
        )
        .usable(false),
        case("DATA refused alone", Data, Reply(452), end("250 a\r\n250 b\r\n452 full\r\n"))
            .usable(true),
        case("DATA 250", Data, Protocol, end("250 a\r\n250 b\r\n250 c\r\n")).usable(false),
        case(
            "MAIL refused, then closes",
            MailFrom,
            Reply(550),
            pipelined(vec![send("550 no\r\n"), Step::Close]),
        )
        .usable(false),
        case("MAIL refused, then garbage", MailFrom, Reply(550), end("550 no\r\nwhat\r\n"))
            .usable(false),
        case(
            "RCPT refused, then closes",
            RcptTo,
            Reply(550),
            pipelined(vec![send("250 a\r\n550 no\r\n"), Step::Close]),
        )
        .usable(false),
        case("421 to MAIL", MailFrom, Reply(421), end("421 bye\r\n")).usable(false),
        case("421 to RCPT", RcptTo, Reply(421), end("250 a\r\n421 bye\r\n")).usable(false),
        case("421 to DATA", Data, Reply(421), end("250 a\r\n250 b\r\n421 bye\r\n")).usable(false),
        case("a reply too many", Data, Protocol, end("250 a\r\n250 b\r\n354 go\r\n250 taken\r\n"))
            .usable(false),
        case("silence to RCPT", RcptTo, Timeout, pipelined(vec![send("250 a\r\n"), Step::Stall]))
            .usable(false)
            .slow(),
        case(
            "drips to RCPT",
            RcptTo,
            Timeout,
            pipelined(vec![send("250 a\r\n"), Step::Drip(b"250-x\r\n")]),
        )
        .usable(false)
        .slow(),
        case(
            "replies in pieces",
            Stage::DataEnd,
            Delivered,
            pipelined(vec![
                send("25"),
                send("0 a\r"),
                send("\n250-b\r\n25"),
                send("0 b\r\n354"),
                send(" go\r\n"),
                Step::Content,
                send("250 ta"),
                send("ken\r\n"),
                Step::End,
            ]),
        )
        .usable(true),
    ]
}

pub fn content_cases() -> Vec<Case> {
    use Kind::*;
    use Stage::DataEnd;
    vec![
        case("taken", DataEnd, Delivered, after_dot(vec![send("250 ok\r\n"), Step::End]))
            .usable(true),
        case(
            "taken with another 2yz",
            DataEnd,
            Delivered,
            after_dot(vec![send("251 ok\r\n"), Step::End]),
        )
        .usable(true),
        case(
            "taken, then closes",
            DataEnd,
            Delivered,
            after_dot(vec![send("250 ok\r\n"), Step::Close]),
        ),
        case(
            "taken, and 421 with it",
            DataEnd,
            Delivered,
            after_dot(vec![send("250 ok\r\n421 bye\r\n"), Step::End]),
        )
        .usable(false),
        case(
            "taken, and garbage with it",
            DataEnd,
            Delivered,
            after_dot(vec![send("250 ok\r\nxx"), Step::End]),
        )
        .usable(false),
        case(
            "451 after the dot",
            DataEnd,
            Reply(451),
            after_dot(vec![send("451 no\r\n"), Step::End]),
        )
        .usable(true),
        case(
            "554 after the dot",
            DataEnd,
            Reply(554),
            after_dot(vec![send("554 5.7.1 spam\r\n"), Step::End]),
        )
        .usable(true),
        case(
            "421 after the dot",
            DataEnd,
            Reply(421),
            after_dot(vec![send("421 bye\r\n"), Step::End]),
        )
        .usable(false),
        case(
            "354 after the dot",
            DataEnd,
            Protocol,
            after_dot(vec![send("354 more\r\n"), Step::End]),
        )
        .usable(false),
        case(
            "garbage after the dot",
            DataEnd,
            Protocol,
            after_dot(vec![send("thanks!\r\n"), Step::End]),
        )
        .usable(false),
        case("closes after the dot", DataEnd, Closed, after_dot(vec![Step::Close])).usable(false),
        case("closes amid the reply", DataEnd, Closed, after_dot(vec![send("250-o"), Step::Close]))
            .usable(false),
        case("silence after the dot", DataEnd, Timeout, after_dot(vec![Step::Stall]))
            .usable(false)
            .slow(),
        case("drips after the dot", DataEnd, Timeout, after_dot(vec![Step::Drip(b"250-x\r\n")]))
            .usable(false)
            .slow(),
    ]
}
