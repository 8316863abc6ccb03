//! Opening a session: connection, greeting, EHLO or HELO, STARTTLS.

use std::net::SocketAddr;

use posthaste_model::{SmtpReply, TlsInfo};
use tokio::{
    net::{TcpSocket, TcpStream},
    time::timeout,
};

use super::connection::{Connection, Stream};
use crate::{
    Capabilities, Failure, FailureKind, Requirement, SessionOptions, Stage, TlsClient, TlsMode,
    command, tls,
};

/// What the opening dialogue came to.
pub(super) struct Opened {
    pub(super) connection: Connection,
    pub(super) greeting_host: String,
    pub(super) capabilities: Capabilities,
    pub(super) tls: Option<TlsInfo>,
}

pub(super) async fn open(
    host: &str,
    address: SocketAddr,
    options: &SessionOptions,
    tls: &TlsClient,
) -> Result<Opened, Failure> {
    let mut connection = Connection::new(Stream::Plain(dial(address, options).await?));
    let greeting = connection.reply(Stage::Greeting, options.timeouts.greeting).await?;
    let greeting = expect(Stage::Greeting, greeting, |code| code == 220)?;
    let greeting_host = greeting.text.split_ascii_whitespace().next().unwrap_or_default();
    let greeting_host = greeting_host.to_owned();

    let capabilities = hello(&mut connection, options).await?;
    if options.tls == TlsMode::Off
        || (options.tls == TlsMode::Opportunistic && !capabilities.starttls)
    {
        return Ok(Opened { connection, greeting_host, capabilities, tls: None });
    }
    if !capabilities.starttls {
        let kind = FailureKind::Unsupported(Requirement::StartTls);
        return Err(Failure::new(Stage::StartTls, kind));
    }
    let (mut connection, info) = start_tls(connection, host, address, options, tls).await?;
    // What was said in clear may have been said by anyone: it is forgotten
    // (RFC 3207 section 4.2).
    let capabilities = hello(&mut connection, options).await?;
    Ok(Opened { connection, greeting_host, capabilities, tls: Some(info) })
}

async fn dial(address: SocketAddr, options: &SessionOptions) -> Result<TcpStream, Failure> {
    let failure = |error: std::io::Error| {
        Failure::new(Stage::Connect, FailureKind::Connect(error.to_string()))
    };
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failure)?;
    // Commands are written whole, so there is nothing to wait for.
    socket.set_nodelay(true).map_err(failure)?;
    if let Some(source) = options.source_for(address) {
        socket.bind(source).map_err(failure)?;
    }
    match timeout(options.timeouts.connect, socket.connect(address)).await {
        Ok(outcome) => outcome.map_err(failure),
        Err(_) => Err(Failure::new(Stage::Connect, FailureKind::Timeout)),
    }
}

/// EHLO; HELO where the server does not know it (RFC 5321 section 3.2).
async fn hello(
    connection: &mut Connection,
    options: &SessionOptions,
) -> Result<Capabilities, Failure> {
    let limit = options.timeouts.ehlo;
    command::ehlo(&mut connection.output, &options.ehlo_name);
    let reply = connection.exchange(Stage::Ehlo, limit).await?;
    let refused = match expect(Stage::Ehlo, reply, is_positive) {
        Ok(reply) => return Ok(Capabilities::parse(&reply.text)),
        Err(failure) => failure,
    };
    if refused.reply().is_none_or(|reply| reply.code < 500) {
        return Err(refused);
    }
    command::helo(&mut connection.output, &options.ehlo_name);
    match connection.exchange(Stage::Ehlo, limit).await {
        Ok(reply) => expect(Stage::Ehlo, reply, is_positive).map(|_| Capabilities::default()),
        // It hung up on the refusal; that says more than the lost connection.
        Err(Failure { kind: FailureKind::Closed, .. }) => Err(refused),
        Err(failure) => Err(failure),
    }
}

async fn start_tls(
    mut connection: Connection,
    host: &str,
    address: SocketAddr,
    options: &SessionOptions,
    tls: &TlsClient,
) -> Result<(Connection, TlsInfo), Failure> {
    let stage = Stage::StartTls;
    let limit = options.timeouts.starttls;
    command::plain(&mut connection.output, "STARTTLS");
    let reply = connection.exchange(stage, limit).await?;
    expect(stage, reply, |code| code == 220)?;

    // The connection's input is dropped with it: what came after the 220 in
    // clear must not be read as if it had come through TLS.
    let Stream::Plain(tcp) = connection.stream else {
        return Err(Failure::new(stage, FailureKind::Tls("TLS is in use already".into())));
    };
    let connector = tls.connector(options.tls == TlsMode::Verify);
    let handshake = connector.connect(tls::server_name(host, address), tcp);
    match timeout(limit, handshake).await {
        Ok(Ok(stream)) => {
            let info = tls::info(stream.get_ref().1);
            Ok((Connection::new(Stream::Tls(Box::new(stream))), info))
        }
        Ok(Err(error)) => Err(Failure::new(stage, FailureKind::Tls(error.to_string()))),
        Err(_) => Err(Failure::new(stage, FailureKind::Timeout)),
    }
}

/// 2yz.
pub(super) const fn is_positive(code: u16) -> bool {
    code / 100 == 2
}

/// The reply if its code is wanted; a refusal if it is 4yz or 5yz; else the
/// server is out of step.
pub(super) fn expect(
    stage: Stage,
    reply: SmtpReply,
    wanted: impl Fn(u16) -> bool,
) -> Result<SmtpReply, Failure> {
    if wanted(reply.code) {
        return Ok(reply);
    }
    let kind = if reply.code >= 400 {
        FailureKind::Reply(reply)
    } else {
        FailureKind::Protocol(format!("unexpected reply {reply}"))
    };
    Err(Failure::new(stage, kind))
}
