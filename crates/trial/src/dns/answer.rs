//! From a query to its reply. No I/O.

use hickory_proto::{
    ProtoError,
    op::{Edns, Message, Query, ResponseCode},
    rr::{
        Name, RData, Record as WireRecord, RecordType,
        rdata::{A, AAAA, CNAME, MX, SOA, TXT},
    },
};

use super::zones::{Data, Fault, Found, Record, Zones};

/// What a client without EDNS takes by UDP (RFC 1035 section 4.2.1).
const PLAIN_UDP: u16 = 512;
/// Aliases in a row.
const MAX_ALIASES: usize = 8;
/// How long a "no" may be kept (RFC 2308 section 5).
const NEGATIVE_TTL: u32 = 60;

/// The reply; `None` when the table wants silence.
pub(super) fn answer(zones: &Zones, query: &Message) -> Option<Message> {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.authoritative = true;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        reply.set_edns(edns);
    }
    let [question] = query.queries.as_slice() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return Some(reply);
    };
    reply.add_query(question.clone());
    match collect(zones, question, &mut reply) {
        Ok(Outcome::Silence) => return None,
        Ok(Outcome::Reply) => {}
        // The table holds what is no DNS name.
        Err(_) => reply.metadata.response_code = ResponseCode::ServFail,
    }
    Some(reply)
}

enum Outcome {
    Reply,
    Silence,
}

fn collect(zones: &Zones, question: &Query, reply: &mut Message) -> Result<Outcome, ProtoError> {
    let mut name = question.name().clone();
    for _ in 0..MAX_ALIASES {
        let records = match zones.find(&name.to_ascii()) {
            Found::Records(records) => records,
            Found::Fault(Fault::Silent) => return Ok(Outcome::Silence),
            Found::Fault(Fault::ServFail) => {
                reply.metadata.response_code = ResponseCode::ServFail;
                return Ok(Outcome::Reply);
            }
            Found::Fault(Fault::NxDomain) => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                reply.add_authority(start_of_authority());
                return Ok(Outcome::Reply);
            }
        };
        let mut alias = None;
        for record in records {
            let data = wire_data(&record.data)?;
            if let RData::CNAME(target) = &data {
                alias = Some(target.0.clone());
            } else if data.record_type() != question.query_type() {
                continue;
            }
            reply.add_answer(wire_record(&name, record, data));
        }
        match alias {
            Some(target) if question.query_type() != RecordType::CNAME => name = target,
            _ => break,
        }
    }
    if reply.answers.is_empty() {
        reply.add_authority(start_of_authority());
    }
    Ok(Outcome::Reply)
}

fn wire_record(name: &Name, record: &Record, data: RData) -> WireRecord {
    WireRecord::from_rdata(name.clone(), record.ttl, data)
}

fn wire_data(data: &Data) -> Result<RData, ProtoError> {
    Ok(match data {
        Data::Mx { preference, host } => RData::MX(MX::new(*preference, absolute(host)?)),
        Data::Address(std::net::IpAddr::V4(address)) => RData::A(A(*address)),
        Data::Address(std::net::IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
        Data::Txt(text) => {
            let pieces = text.as_bytes().chunks(255);
            RData::TXT(TXT::new(
                pieces.map(|piece| String::from_utf8_lossy(piece).into_owned()).collect(),
            ))
        }
        Data::Cname(target) => RData::CNAME(CNAME(absolute(target)?)),
    })
}

fn absolute(name: &str) -> Result<Name, ProtoError> {
    let mut name = Name::from_ascii(name)?;
    name.set_fqdn(true);
    Ok(name)
}

/// With a "no": how long it may be kept.
fn start_of_authority() -> WireRecord {
    let soa = SOA::new(Name::root(), Name::root(), 1, 3600, 600, 86_400, NEGATIVE_TTL);
    WireRecord::from_rdata(Name::root(), NEGATIVE_TTL, RData::SOA(soa))
}

/// What the client takes by UDP.
pub(super) fn max_udp(query: &Message) -> usize {
    usize::from(query.edns.as_ref().map_or(PLAIN_UDP, |edns| edns.max_payload().max(PLAIN_UDP)))
}

/// The reply's bytes; cut when they are more than `max`, so that the client
/// asks again by TCP.
pub(super) fn encode(reply: &Message, max: Option<usize>) -> Option<Vec<u8>> {
    let bytes = reply.to_vec().ok()?;
    if max.is_some_and(|max| bytes.len() > max) {
        reply.truncate().to_vec().ok()
    } else {
        Some(bytes)
    }
}
