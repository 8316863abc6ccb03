//! The readers of segments and indexes, fed with changed bytes of real ones: a
//! fixed number of mutations, for where there is no fuzzer. The targets for one
//! are in `fuzz`.

use std::fs;

use super::{acknowledge, messages, name, open, segments};
use crate::{
    contract::{Broker, Settlement},
    embedded::{faulty::mix, fuzz},
    suite::{self, AMPLE},
};

const MUTATIONS: u64 = 30_000;

/// Changes a few bytes, cuts, repeats or moves a part.
fn mutate(bytes: &mut Vec<u8>, seed: u64) {
    let mut chance = seed;
    let mut next = |below: usize| {
        chance = mix(chance);
        usize::try_from(chance).unwrap() % below.max(1)
    };
    for _ in 0..=next(4) {
        let (at, len) = (next(bytes.len()), next(64));
        let end = (at + len).min(bytes.len());
        match next(6) {
            0 => bytes.truncate(at),
            1 => bytes[at..end].fill([0, 0xff][len % 2]),
            2 => {
                let part = bytes[at..end].to_vec();
                let to = next(bytes.len());
                bytes.splice(to..to, part);
            }
            3 => drop(bytes.drain(at..end)),
            _ if at < bytes.len() => bytes[at] ^= 1 << next(8),
            _ => bytes.push(0),
        }
    }
}

#[tokio::test]
async fn no_mutation_makes_a_reader_panic() {
    let (dir, pool) = (tempfile::tempdir().unwrap(), name("pool"));
    let queue = open(dir.path()).unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    for n in 0..12 {
        let texts = (0..8).map(|m| format!("{n}.{m} ").repeat(20));
        queue.publish(messages(&pool, texts)).await.unwrap();
        let taken = suite::take(&mut *subscription, 8).await;
        acknowledge(&queue, &taken[..5]).await;
        let publishes = taken[5..].iter().map(|one| suite::deferral(&pool, one, None)).collect();
        let tokens = suite::tokens(&taken[5..]);
        queue.settle(Settlement { tokens, publishes }).await.unwrap();
        drop(suite::take(&mut *subscription, 3).await);
    }
    queue.compact().await.unwrap();
    drop((subscription, queue));
    let mut seeds: Vec<Vec<u8>> = segments(dir.path())
        .iter()
        .flat_map(|path| [fs::read(path).unwrap(), fuzz::sidecar_of(&fs::read(path).unwrap())])
        .collect();
    seeds.retain(|seed| seed.len() > 100);
    assert!(seeds.len() >= 2);
    let mut read = 0;
    for number in 0..MUTATIONS {
        let mut bytes = seeds[usize::try_from(number).unwrap() % seeds.len()].clone();
        bytes.truncate(4096);
        if number > 10 {
            mutate(&mut bytes, number);
        }
        read += fuzz::segment(&bytes);
        read += fuzz::sidecar(&bytes);
        fuzz::record(&bytes);
    }
    assert!(read > MUTATIONS / 4, "hardly anything was readable: {read}");
}

#[test]
fn every_fault_of_the_disk() {
    let report = crate::embedded::faults::run(1, 12);
    assert_eq!(report.len(), 11);
    for (kind, count) in &report {
        assert!(count.tried >= 12, "{kind}: {report:#?}");
        assert_eq!((count.lost, count.invented), (0, 0), "{kind}: {report:#?}");
    }
    let refused = |kind| report[kind].refused_with_error;
    assert!(refused("failed fsync") > 0 && refused("no space in a write") > 0, "{report:#?}");
    assert!(refused("bit flip") > 0, "{report:#?}");
    assert_eq!(refused("short write"), 0, "{report:#?}");
}
