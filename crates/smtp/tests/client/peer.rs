//! A scripted server on a real socket: each test says what it does, step by step.

use std::{sync::Arc, time::Duration};

use posthaste_smtp::{SessionOptions, Timeouts, TlsClient};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;

/// One step of a script.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads one line, which must begin so.
    Expect(&'static str),
    /// Reads content up to and with its final dot.
    Content,
    /// Sends.
    Send(Vec<u8>),
    /// Sends one byte after the other, slowly, for ever.
    Drip(&'static [u8]),
    /// Closes the connection; with a reset when something is unread.
    Close,
    /// Reads something, whatever it is.
    Read,
    /// Does nothing until the client hangs up.
    Stall,
    /// The server's side of a TLS handshake.
    Tls,
    /// Waits for the client to hang up; anything else that it says is an error.
    End,
}

pub fn send(text: &str) -> Step {
    Step::Send(text.as_bytes().to_vec())
}

pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

/// A server that plays its script to one client. What the client did not do
/// as expected is the error.
pub struct Peer {
    pub address: std::net::SocketAddr,
    pub certificate: CertificateDer<'static>,
    pub task: JoinHandle<Result<Vec<u8>, String>>,
}

impl Peer {
    pub async fn play(script: Vec<Step>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
        let certificate = made.cert.der().clone();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let task = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.map_err(|error| error.to_string())?;
            stream.set_nodelay(true).map_err(|error| error.to_string())?;
            run(stream, acceptor, script).await
        });
        Self { address, certificate, task }
    }

    /// The content that the client sent, once the script has ended.
    pub async fn content(self) -> Vec<u8> {
        self.task.await.unwrap().unwrap()
    }
}

async fn run(tcp: TcpStream, acceptor: TlsAcceptor, script: Vec<Step>) -> Result<Vec<u8>, String> {
    let mut content = Vec::new();
    let mut input = Vec::new();
    let steps = script.split(|step| matches!(step, Step::Tls)).collect::<Vec<_>>();
    let mut tcp = tcp;
    if !play(&mut tcp, steps[0], &mut input, &mut content).await? {
        return Ok(content);
    }
    if let Some(rest) = steps.get(1) {
        let mut tls = acceptor.accept(tcp).await.map_err(|error| format!("handshake: {error}"))?;
        input.clear();
        play(&mut tls, rest, &mut input, &mut content).await?;
    }
    Ok(content)
}

/// `false` when the connection is to be closed.
async fn play<S: Stream>(
    stream: &mut S,
    steps: &[Step],
    input: &mut Vec<u8>,
    content: &mut Vec<u8>,
) -> Result<bool, String> {
    for step in steps {
        match step {
            Step::Expect(start) => {
                let line = until(stream, input, b"\r\n").await?;
                if !line.starts_with(start.as_bytes()) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    return Err(format!("expected {start:?}, got {line:?}"));
                }
            }
            Step::Content => {
                let lone = input.starts_with(b".\r\n");
                let end: &[u8] = if lone { b".\r\n" } else { b"\r\n.\r\n" };
                content.extend(until(stream, input, end).await?);
            }
            // The client may have gone, as a good one does after nonsense.
            Step::Send(bytes) => drop(stream.write_all(bytes).await),
            Step::Drip(bytes) => {
                for byte in bytes.iter().cycle() {
                    if stream.write_all(&[*byte]).await.is_err() {
                        return Ok(false);
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Step::Close => return Ok(false),
            Step::Read => {
                let mut chunk = [0; 4096];
                if stream.read(&mut chunk).await.is_ok_and(|n| n == 0) {
                    return Err("closed instead of saying anything".into());
                }
            }
            Step::Stall => {
                let mut sink = Vec::new();
                drop(stream.read_to_end(&mut sink).await);
            }
            Step::End => {
                let mut rest = std::mem::take(input);
                drop(stream.read_to_end(&mut rest).await);
                if !rest.is_empty() {
                    let rest = String::from_utf8_lossy(&rest).into_owned();
                    return Err(format!("expected the end, got {rest:?}"));
                }
            }
            Step::Tls => unreachable!("the script is split there"),
        }
    }
    Ok(true)
}

async fn until<S: Stream>(
    stream: &mut S,
    input: &mut Vec<u8>,
    end: &[u8],
) -> Result<Vec<u8>, String> {
    let mut from = 0;
    loop {
        let unseen = input.get(from..).unwrap_or_default();
        if let Some(at) = memchr::memmem::find(unseen, end) {
            return Ok(input.drain(..from + at + end.len()).collect());
        }
        from = input.len().saturating_sub(end.len());
        let mut chunk = [0; 64 * 1024];
        match stream.read(&mut chunk).await {
            Ok(0) => return Err(format!("closed; unread: {:?}", String::from_utf8_lossy(input))),
            Ok(n) => input.extend_from_slice(&chunk[..n]),
            Err(error) => return Err(error.to_string()),
        }
    }
}

/// Options whose time limits are never reached by a peer that answers.
pub fn options() -> SessionOptions {
    let long = Duration::from_secs(20);
    SessionOptions {
        timeouts: Timeouts {
            connect: long,
            greeting: long,
            ehlo: long,
            starttls: long,
            mail: long,
            rcpt: long,
            data: long,
            data_block: long,
            data_end: long,
            quit: long,
        },
        ..SessionOptions::new("client.test")
    }
}

pub fn tls() -> TlsClient {
    TlsClient::new().unwrap()
}
