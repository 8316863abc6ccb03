//! The test DNS as any client sees it.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::net::{Ipv4Addr, SocketAddr};

use hickory_proto::{
    op::{Message, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use posthaste_trial::dns::{RecordKind, TestDns, Zones};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};

const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn query(name: &str, kind: RecordType) -> Message {
    let mut message = Message::query();
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

async fn by_udp(dns: &TestDns, message: &Message) -> Message {
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    socket.send_to(&message.to_vec().unwrap(), dns.address()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(reply.metadata.id, message.metadata.id);
    assert_eq!(reply.queries, message.queries);
    reply
}

async fn by_tcp(stream: &mut TcpStream, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let mut reply = vec![0; usize::from(stream.read_u16().await.unwrap())];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

#[tokio::test]
async fn records_faults_and_counts() {
    let zones = Zones::new()
        .ttl(77)
        .mx("a.test", 10, "mx.test")
        .txt("a.test", &"t".repeat(300))
        .servfail("servfail.test")
        .a("mx.test", [127, 0, 0, 1]);
    let dns = TestDns::start(ANY_PORT, zones).await.unwrap();

    let reply = by_udp(&dns, &query("A.Test.", RecordType::MX)).await;
    assert_eq!(reply.answers.len(), 1);
    assert_eq!(reply.answers[0].ttl, 77);
    let RData::MX(mx) = &reply.answers[0].data else { panic!("{reply}") };
    assert_eq!((mx.preference, mx.exchange.to_ascii()), (10, "mx.test.".to_owned()));

    let reply = by_udp(&dns, &query("a.test.", RecordType::TXT)).await;
    let RData::TXT(txt) = &reply.answers[0].data else { panic!("{reply}") };
    assert_eq!(txt.txt_data.iter().map(|piece| piece.len()).collect::<Vec<_>>(), [255, 45]);

    for (name, code) in [
        ("servfail.test.", ResponseCode::ServFail),
        ("gone.test.", ResponseCode::NXDomain),
        ("mx.test.", ResponseCode::NoError),
    ] {
        let reply = by_udp(&dns, &query(name, RecordType::MX)).await;
        assert_eq!(reply.metadata.response_code, code, "{name}");
        assert!(reply.answers.is_empty());
    }
    dns.update(|zones| zones.remove("servfail.test").mx("servfail.test", 5, "mx.test"));
    assert_eq!(by_udp(&dns, &query("servfail.test.", RecordType::MX)).await.answers.len(), 1);

    assert_eq!(dns.queries("a.test", RecordKind::Mx), 1);
    assert_eq!(dns.queries("SERVFAIL.test.", RecordKind::Mx), 2);
    assert_eq!(dns.queries("a.test", RecordKind::A), 0);
    assert_eq!(dns.total(), 6);
}

#[tokio::test]
async fn a_long_answer_is_cut_by_udp_and_whole_by_tcp() {
    let mut zones = Zones::new();
    for at in 0..40 {
        zones = zones.mx("a.test", at, &format!("{}{at}.test", "x".repeat(30)));
    }
    let dns = TestDns::start(ANY_PORT, zones).await.unwrap();
    let message = query("a.test.", RecordType::MX);
    let cut = by_udp(&dns, &message).await;
    assert!(cut.metadata.truncation && cut.answers.is_empty());

    let mut stream = TcpStream::connect(dns.address()).await.unwrap();
    for _ in 0..2 {
        let whole = by_tcp(&mut stream, &message).await;
        assert!(!whole.metadata.truncation);
        assert_eq!(whole.answers.len(), 40);
    }
}

#[tokio::test]
async fn garbage_and_silence_do_not_end_it() {
    let zones = Zones::new().silent("silent.test").wildcard("mx.test", [127, 0, 0, 1]);
    let dns = TestDns::start(ANY_PORT, zones).await.unwrap();
    let socket = UdpSocket::bind(ANY_PORT).await.unwrap();
    let silent = query("silent.test.", RecordType::MX).to_vec().unwrap();
    for bytes in [&b""[..], b"x", &[0xff; 600], &silent] {
        socket.send_to(bytes, dns.address()).await.unwrap();
    }
    // Answers come in the order of questions: the first is for the last.
    let last = query("any.test.", RecordType::MX);
    socket.send_to(&last.to_vec().unwrap(), dns.address()).await.unwrap();
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).await.unwrap();
    let reply = Message::from_vec(&buffer[..length]).unwrap();
    assert_eq!(reply.metadata.id, last.metadata.id);
    assert_eq!(dns.queries("silent.test", RecordKind::Mx), 1);
}

#[tokio::test]
async fn aliases_are_followed_and_a_ring_of_them_ends() {
    let zones = Zones::new()
        .cname("one.test", "two.test")
        .cname("two.test", "one.test")
        .cname("alias.test", "mx.test")
        .a("mx.test", [127, 0, 0, 1]);
    let dns = TestDns::start(ANY_PORT, zones).await.unwrap();
    let reply = by_udp(&dns, &query("alias.test.", RecordType::A)).await;
    assert_eq!(reply.answers.len(), 2);
    assert!(!by_udp(&dns, &query("one.test.", RecordType::A)).await.answers.is_empty());
}

#[tokio::test]
async fn stopping_closes_its_connections() {
    let dns = TestDns::start(ANY_PORT, Zones::new()).await.unwrap();
    let mut stream = TcpStream::connect(dns.address()).await.unwrap();
    by_tcp(&mut stream, &query("a.test.", RecordType::MX)).await;
    dns.stop().await;
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap_or(0), 0);
}
