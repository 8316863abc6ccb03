//! The codec: what is written is read back, and no bytes make it panic.

use bytes::Bytes;
use proptest::prelude::*;
use uuid::Uuid;

use super::super::{
    frame::{FRAME_HEADER, FrameHeader, Place},
    record::{BodyKey, FrameBuilder, Meta, Op, Ops, PutBody, check},
};

#[derive(Debug, Clone)]
enum Kind {
    Inline(Vec<u8>),
    Ref(u128, u32, u32),
    Body(u128, Vec<u8>),
    Rehead,
    Ack,
}

type Spec = (u128, String, u8, i64, String, Vec<u8>, Kind);

fn specs() -> impl Strategy<Value = Vec<Spec>> {
    let bytes = |max| proptest::collection::vec(any::<u8>(), 0..max);
    let kind = prop_oneof![
        bytes(300).prop_map(Kind::Inline),
        (any::<u128>(), any::<u32>(), any::<u32>()).prop_map(|(a, b, c)| Kind::Ref(a, b, c)),
        (any::<u128>(), bytes(300)).prop_map(|(id, bytes)| Kind::Body(id, bytes)),
        Just(Kind::Rehead),
        Just(Kind::Ack),
    ];
    let text = "[a-z0-9._-]{1,200}";
    let one = (any::<u128>(), text, 0..10u8, any::<i64>(), text, bytes(200), kind);
    proptest::collection::vec(one, 0..12)
}

fn meta(spec: &Spec) -> Meta<'_> {
    Meta {
        id: Uuid::from_u128(spec.0),
        queue: &spec.1,
        priority: spec.2,
        due: spec.3,
        flow_key: &spec.4,
        head: &spec.5,
        head_at: 0,
        sum: None,
    }
}

fn build(specs: &[Spec], place: &Place) -> Vec<u8> {
    let mut builder = FrameBuilder::default();
    for spec in specs {
        match &spec.6 {
            Kind::Inline(body) => builder.put_inline(&meta(spec), Bytes::from(body.clone())),
            Kind::Ref(id, len, crc) => {
                let key = BodyKey { id: Uuid::from_u128(*id), len: *len, crc: *crc };
                builder.put_ref(&meta(spec), &key);
            }
            Kind::Body(id, body) => builder.body(&key(*id, body), Bytes::from(body.clone())),
            Kind::Rehead => builder.rehead(&meta(spec)),
            Kind::Ack => builder.ack(Uuid::from_u128(spec.0)),
        }
    }
    let mut frame = builder.finish();
    frame.seal();
    frame.place(place);
    let mut bytes = frame.buf.clone();
    frame.bodies.iter().for_each(|body| bytes.extend_from_slice(body));
    bytes.resize(bytes.len() + frame.padding(), 0);
    assert_eq!(bytes.len() as u64, frame.size());
    bytes
}

fn key(id: u128, body: &[u8]) -> BodyKey {
    BodyKey {
        id: Uuid::from_u128(id),
        len: u32::try_from(body.len()).unwrap(),
        crc: crc32c::crc32c(body),
    }
}

const PLACE: Place = Place { segment: 7, commit: 9, commit_start: 64, commit_left: 3 };

/// Reads all that the queue would read of these bytes.
fn read_all(bytes: &[u8]) {
    if let Some(header) = FrameHeader::read(bytes, PLACE.segment) {
        let end = FRAME_HEADER.saturating_add(header.ops_len as usize).min(bytes.len());
        let ops = &bytes[FRAME_HEADER..end];
        let readable = Ops::new(ops).all(|op| op.is_ok());
        assert!(readable || check(ops, header.body_bytes).is_err());
    }
    for op in Ops::new(bytes) {
        if op.is_err() {
            break;
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(specs in specs()) {
        let bytes = build(&specs, &PLACE);
        let header = FrameHeader::read(&bytes, 7).unwrap();
        prop_assert_eq!(header.place, PLACE);
        prop_assert_eq!(header.size(), bytes.len() as u64);
        prop_assert!(FrameHeader::read(&bytes, 8).is_none(), "of another segment");
        let ops = &bytes[FRAME_HEADER..FRAME_HEADER + header.ops_len as usize];
        prop_assert_eq!(crc32c::crc32c(ops), header.ops_crc);
        check(ops, header.body_bytes).unwrap();
        let bodies = &bytes[FRAME_HEADER + ops.len()..];
        let mut read = Ops::new(ops);
        for spec in &specs {
            let (op, at) = read.next().unwrap().unwrap();
            let body_at = |body: &[u8]| bodies[usize::try_from(at).unwrap()..].starts_with(body);
            let meta_same = |found: Meta<'_>| {
                let head_at = found.head_at as usize;
                ops[head_at..].starts_with(found.head) && Meta { head_at: 0, ..found } == meta(spec)
            };
            let same = match (op, &spec.6) {
                (Op::Put(m, PutBody::Inline { len, crc }), Kind::Inline(body)) =>
                    meta_same(m) && body_at(body) && (len, crc) == (key(0, body).len, key(0, body).crc),
                (Op::Put(m, PutBody::Ref(k)), Kind::Ref(id, len, crc)) =>
                    meta_same(m) && k == BodyKey { id: Uuid::from_u128(*id), len: *len, crc: *crc },
                (Op::Body(k), Kind::Body(id, body)) => body_at(body) && k == key(*id, body),
                (Op::Rehead(m), Kind::Rehead) => meta_same(m),
                (Op::Ack(id), Kind::Ack) => id == Uuid::from_u128(spec.0),
                _ => false,
            };
            prop_assert!(same, "{op:?}");
        }
        prop_assert!(read.next().is_none());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        read_all(&bytes);
    }

    #[test]
    fn changed_bytes_are_noticed(
        specs in specs(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let whole = build(&specs, &PLACE);
        let header = FrameHeader::read(&whole, 7).unwrap();
        let mut bytes = whole.clone();
        for (at, change) in changes {
            let at = at.index(FRAME_HEADER);
            bytes[at] ^= change;
        }
        if bytes != whole {
            prop_assert!(FrameHeader::read(&bytes, 7).is_none());
        }
        read_all(&bytes);
        read_all(&whole[..cut.index(whole.len())]);
        let ops = &whole[FRAME_HEADER..FRAME_HEADER + header.ops_len as usize];
        if let Some(cut) = ops.get(..cut.index(ops.len().max(1))) {
            read_all(cut);
        }
    }
}
