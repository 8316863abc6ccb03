//! From a node's name to a connection that is known to be what is needed:
//! TCP, TLS, CONNECT and CONNECTED, within one bound of time.

use std::time::Duration;

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    codec::{Command, Decoder, Frame, Headers, encode},
    config::{ClientConfig, Node},
    dialect::Dialect,
    error::{LinkError, SettingsError},
};

pub(super) type Read = Box<dyn AsyncRead + Send + Unpin>;
pub(super) type Write = Box<dyn AsyncWrite + Send + Unpin>;

/// What CONNECTED said.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) name: Option<String>,
    pub(super) dialect: Dialect,
}

/// What was agreed on heart-beats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct HeartBeat {
    /// The broker wants something at least this often.
    pub(super) send_every: Option<Duration>,
    /// The broker sends something at least this often.
    pub(super) expect_within: Duration,
}

pub(super) struct Opened {
    pub(super) read: Read,
    pub(super) write: Write,
    pub(super) decoder: Decoder,
    /// What was read beyond CONNECTED.
    pub(super) rest: BytesMut,
    pub(super) server: Server,
    pub(super) heart_beat: HeartBeat,
}

pub(super) async fn open(node: &Node, config: &ClientConfig) -> Result<Opened, LinkError> {
    let within = config.options.connect_timeout;
    match timeout(within, connect(node, config)).await {
        Ok(result) => result,
        Err(_) => Err(LinkError::Connect {
            node: node.to_string().into(),
            detail: format!("no answer to CONNECT within {} s", within.as_secs_f32()).into(),
        }),
    }
}

async fn connect(node: &Node, config: &ClientConfig) -> Result<Opened, LinkError> {
    let connect_frame = connect_frame(node, config)?;
    let name = || node.to_string().into();
    let tcp = TcpStream::connect((node.host.as_str(), node.port))
        .await
        .map_err(|e| LinkError::Connect { node: name(), detail: e.to_string().into() })?;
    // Frames are gathered before they are written; the last ones must not wait.
    tcp.set_nodelay(true)?;
    let (mut read, mut write): (Read, Write) = match &config.tls {
        None => {
            let (read, write) = tcp.into_split();
            (Box::new(read), Box::new(write))
        }
        Some(tls) => {
            let stream = tls
                .connect(node, tcp)
                .await
                .map_err(|e| LinkError::Tls { node: name(), detail: e.to_string().into() })?;
            let (read, write) = tokio::io::split(stream);
            (Box::new(read), Box::new(write))
        }
    };
    write.write_all(&connect_frame).await?;
    write.flush().await?;
    let mut decoder = Decoder::new(config.options.limits);
    let mut rest = BytesMut::new();
    let frame = loop {
        if let Some(frame) = decoder.decode(&mut rest)? {
            break frame;
        }
        if read.read_buf(&mut rest).await? == 0 {
            return Err(LinkError::ClosedByPeer);
        }
    };
    let (server, heart_beat) = check(&frame, config)?;
    Ok(Opened { read, write, decoder, rest, server, heart_beat })
}

fn connect_frame(node: &Node, config: &ClientConfig) -> Result<BytesMut, LinkError> {
    let beat = config.options.heart_beat.as_millis();
    if beat == 0 {
        return Err(LinkError::invalid("the heart-beat must be at least a millisecond"));
    }
    let mut headers = Headers::new()
        .with("accept-version", "1.2")
        .with("host", config.virtual_host.as_deref().unwrap_or(&node.host))
        .with("heart-beat", &format!("{beat},{beat}"));
    if let Some(login) = &config.login {
        headers.push("login", &login.login);
        headers.push("passcode", &login.passcode);
    }
    let mut bytes = BytesMut::new();
    encode(&Frame::new(Command::Connect, headers), &mut bytes, false)?;
    Ok(bytes)
}

/// Whether the answer to CONNECT shows the broker that is needed.
fn check(frame: &Frame, config: &ClientConfig) -> Result<(Server, HeartBeat), LinkError> {
    match frame.command {
        Command::Connected => {}
        Command::Error => return Err(SettingsError::Refused(error_text(frame).into()).into()),
        other => {
            return Err(LinkError::protocol(format!("{} before CONNECTED", other.as_str())));
        }
    }
    let headers = &frame.headers;
    // A 1.0 server sends no version ("Protocol Negotiation").
    let version = headers.get("version").unwrap_or("1.0");
    if version != "1.2" {
        return Err(SettingsError::Version(version.into()).into());
    }
    let name = headers.get("server").filter(|name| !name.is_empty());
    let dialect = Dialect::detect(name, config.server.dialect, config.server.allow_untested)?;
    let heart_beat = negotiate(headers.get("heart-beat"), config)?;
    Ok((Server { name: name.map(str::to_owned), dialect }, heart_beat))
}

/// "Heart-beating": each direction runs at the larger of what one side can
/// and the other one wants; zero on either side means none.
fn negotiate(theirs: Option<&str>, config: &ClientConfig) -> Result<HeartBeat, LinkError> {
    let text = theirs.unwrap_or("0,0");
    let (can, wants) = text
        .split_once(',')
        .and_then(|(can, wants)| Some((can.trim().parse().ok()?, wants.trim().parse().ok()?)))
        .map(|(can, wants)| (Duration::from_millis(can), Duration::from_millis(wants)))
        .ok_or_else(|| LinkError::protocol(format!("the heart-beat {text:?}")))?;
    if can.is_zero() {
        return Err(SettingsError::NoHeartBeat.into());
    }
    let ours = config.options.heart_beat;
    let found = ours.max(can);
    let most = config.options.max_heart_beat.max(ours);
    if found > most {
        return Err(SettingsError::SlowHeartBeat { found, most }.into());
    }
    let send_every = (!wants.is_zero()).then(|| ours.max(wants));
    Ok(HeartBeat { send_every, expect_within: found })
}

/// What an ERROR says, shortened.
pub(super) fn error_text(frame: &Frame) -> String {
    let message = frame.headers.get("message").unwrap_or("").trim();
    let body = String::from_utf8_lossy(&frame.body);
    // The body of the ActiveMQ brokers is a stack trace: its first line is enough.
    let body = body.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    let text = match (message, body) {
        ("", "") => "an error without a text".to_owned(),
        ("", text) | (text, "") => text.to_owned(),
        (message, body) if body.contains(message) => body.to_owned(),
        (message, body) => format!("{message}: {body}"),
    };
    text.chars().take(500).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ClientConfig {
        ClientConfig::new(Vec::new())
    }

    #[test]
    fn negotiates_heart_beats() {
        let s = Duration::from_secs;
        for (theirs, expected) in [
            ("10000,10000", Ok((Some(s(10)), s(10)))),
            ("1,1", Ok((Some(s(10)), s(10)))),
            ("20000,15000", Ok((Some(s(15)), s(20)))),
            ("10000,0", Ok((None, s(10)))),
            ("0,10000", Err(LinkError::Settings(SettingsError::NoHeartBeat))),
            ("0,0", Err(LinkError::Settings(SettingsError::NoHeartBeat))),
            (
                "60000,1",
                Err(LinkError::Settings(SettingsError::SlowHeartBeat {
                    found: s(60),
                    most: s(30),
                })),
            ),
            ("x", Err(LinkError::protocol("the heart-beat \"x\""))),
            ("-1,5", Err(LinkError::protocol("the heart-beat \"-1,5\""))),
        ] {
            let found = negotiate(Some(theirs), &config()).map(|h| (h.send_every, h.expect_within));
            assert_eq!(found, expected, "{theirs}");
        }
        assert_eq!(
            negotiate(None, &config()),
            Err(LinkError::Settings(SettingsError::NoHeartBeat))
        );
    }

    #[test]
    fn texts_of_errors() {
        for (message, body, expected) in [
            ("", "", "an error without a text"),
            ("a", "", "a"),
            ("", "\n b \nat x", "b"),
            ("a", "b", "a: b"),
            ("a", "the a\nat x", "the a"),
        ] {
            let headers = Headers::new().with("message", message);
            let frame = Frame::new(Command::Error, headers).with_body(body.to_owned().into());
            assert_eq!(error_text(&frame), expected);
        }
        let long = Frame::new(Command::Error, Headers::new()).with_body(vec![b'x'; 9999].into());
        assert_eq!(error_text(&long).len(), 500);
    }

    #[test]
    fn a_login_cannot_add_headers() {
        let node = Node { host: "h".into(), port: 1 };
        let mut config = config();
        config.login =
            Some(crate::config::Login { login: "a:b".into(), passcode: "c\nhost:d".into() });
        assert!(matches!(connect_frame(&node, &config), Err(LinkError::Invalid(_))));
    }
}
