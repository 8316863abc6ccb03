//! From the first packet to CONNECTED, and what is refused.

use std::{sync::Arc, time::Duration};

use posthaste_broker_stomp::{
    Connection, Dialect, LinkError, Login, Node, SettingsError, TlsClient, codec::DecodeError,
    error::LinkError::Settings,
};
use tokio::{net::TcpListener, time::Instant};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer},
    },
};

use crate::peer::{ARTEMIS, Broker, Peer, SOON, config, nobody};

#[tokio::test]
async fn says_who_it_is() {
    let broker = Broker::start().await;
    let mut config = broker.config();
    config.login = Some(Login { login: "mta".into(), passcode: "a:b\\c".into() });
    config.virtual_host = Some("vhost".into());
    let node = broker.node();
    let (connection, frame) = tokio::join!(Connection::open(&node, &config, 3), async {
        let mut peer = broker.accept().await;
        (peer.connect(ARTEMIS).await, peer)
    });
    let headers: Vec<_> = frame.0.headers.iter().collect();
    assert_eq!(
        headers,
        [
            ("accept-version", "1.2"),
            ("host", "vhost"),
            ("heart-beat", "10000,10000"),
            ("login", "mta"),
            ("passcode", "a:b\\c"),
        ]
    );
    let connection = connection.unwrap();
    assert_eq!(connection.epoch(), 3);
    assert_eq!(connection.dialect(), Dialect::Artemis);
    assert_eq!(connection.server(), Some(ARTEMIS));
}

#[tokio::test]
async fn refused_by_the_system() {
    let (_socket, node) = nobody();
    let error = Connection::open(&node, &config(vec![]), 1).await.unwrap_err();
    assert!(matches!(error, LinkError::Connect { .. }), "{error}");
    assert!(!error.needs_change());
}

#[tokio::test]
async fn refused_for_what_it_answers() {
    let connected = |headers: &str| format!("CONNECTED\n{headers}\n\n\0");
    let text = |text: &str| text.to_owned();
    let cases = [
        (
            text("ERROR\nmessage:Security Error occurred\n\n\0"),
            Settings(SettingsError::Refused("Security Error occurred".into())),
        ),
        (
            connected("version:1.1\nserver:ActiveMQ/6.0\nheart-beat:1,1"),
            Settings(SettingsError::Version("1.1".into())),
        ),
        (
            connected("server:ActiveMQ/6.0\nheart-beat:1,1"),
            Settings(SettingsError::Version("1.0".into())),
        ),
        (
            connected("version:1.2\nserver:RabbitMQ/3.10.8\nheart-beat:1,1"),
            Settings(SettingsError::RabbitMq("RabbitMQ/3.10.8".into())),
        ),
        (connected("version:1.2\nheart-beat:1,1"), Settings(SettingsError::HiddenServer)),
        (
            connected("version:1.2\nserver:ActiveMQ-Artemis/2.10.0 x\nheart-beat:1,1"),
            Settings(SettingsError::TooOld {
                found: "ActiveMQ-Artemis/2.10.0".into(),
                floor: "2.44",
            }),
        ),
        (
            connected("version:1.2\nserver:ActiveMQ/6.0\nheart-beat:0,0"),
            Settings(SettingsError::NoHeartBeat),
        ),
        (text("RECEIPT\n\n\0"), LinkError::Protocol("RECEIPT before CONNECTED".into())),
        (
            text("HTTP/1.1 400 Bad Request\n\n"),
            LinkError::Decode(DecodeError::Command("HTTP/1.1 400 Bad Request".into())),
        ),
        (text("CONNECTED\nversion:1.2"), LinkError::ClosedByPeer),
        (text(""), LinkError::ClosedByPeer),
    ];
    for (answer, expected) in cases {
        let broker = Broker::start().await;
        let (node, config) = (broker.node(), broker.config());
        let (error, ()) = tokio::join!(Connection::open(&node, &config, 1), async {
            let mut peer = broker.accept().await;
            peer.frame().await;
            peer.say(&answer).await;
        });
        assert_eq!(error.unwrap_err(), expected, "{answer:?}");
    }
}

#[tokio::test]
async fn silent() {
    let broker = Broker::start().await;
    let mut config = broker.config();
    config.options.connect_timeout = Duration::from_millis(100);
    let (node, start) = (broker.node(), Instant::now());
    let (error, _peer) = tokio::join!(Connection::open(&node, &config, 1), broker.accept());
    let error = error.unwrap_err();
    assert!(error.to_string().contains("no answer to CONNECT within 0.1 s"), "{error}");
    assert!(start.elapsed() >= Duration::from_millis(100) && start.elapsed() < SOON);
}

#[tokio::test]
async fn endless_headers() {
    let broker = Broker::start().await;
    let mut config = broker.config();
    config.options.limits.head = 10_000;
    let node = broker.node();
    let (error, ()) = tokio::join!(Connection::open(&node, &config, 1), async {
        let mut peer = broker.accept().await;
        peer.frame().await;
        peer.say("CONNECTED\n").await;
        for _ in 0..1001 {
            peer.say("name:value\n").await;
        }
        assert!(peer.next().await.is_none(), "the client closes");
    });
    assert_eq!(error.unwrap_err(), LinkError::Decode(DecodeError::HeadTooLong(10_000)));
}

#[tokio::test]
async fn over_tls_with_a_private_authority() {
    let issued = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let certificate = CertificateDer::from(issued.cert.der().to_vec());
    let key = PrivateKeyDer::try_from(issued.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust us ends the handshake.
            if let Ok(stream) = acceptor.accept(stream).await {
                let mut peer = Peer::new(stream);
                peer.connect(ARTEMIS).await;
                peer.confirm_all().await;
            }
        }
    });
    let mut config = config(vec![]);
    let node = |host: &str| Node { host: host.into(), port };
    config.tls = Some(TlsClient::private(issued.cert.pem().as_bytes()).unwrap());
    let connection = Connection::open(&node("localhost"), &config, 1).await.unwrap();
    assert_eq!(connection.close(SOON).await, Ok(()));
    // Another name than its certificate's, and an authority that did not issue it.
    let other_name = Connection::open(&node("127.0.0.1"), &config, 2).await.unwrap_err();
    assert!(matches!(other_name, LinkError::Tls { .. }), "{other_name}");
    config.tls = Some(TlsClient::public().unwrap());
    let unknown = Connection::open(&node("localhost"), &config, 3).await.unwrap_err();
    assert!(matches!(unknown, LinkError::Tls { .. }), "{unknown}");
}
