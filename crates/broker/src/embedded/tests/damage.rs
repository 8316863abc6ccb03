//! What recovery makes of files that were cut or changed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use posthaste_model::SystemClock;

use super::{
    super::{
        frame::{FRAME_HEADER, FrameHeader},
        segment::{SEGMENT_HEADER, sequence},
    },
    all,
    bench::snapshot,
    messages, name, open, segments,
};
use crate::{
    contract::{Broker, BrokerError, Settlement},
    embedded::{EmbeddedConfig, EmbeddedQueue, faulty::FaultyDisk},
    suite::{self, AMPLE, PATIENCE, tokens},
};

/// The frames of a segment file: offset and header.
fn frames(path: &Path) -> Vec<(usize, FrameHeader)> {
    let bytes = fs::read(path).unwrap();
    let number = u64::from(sequence(path).unwrap());
    let mut at = usize::try_from(SEGMENT_HEADER).unwrap();
    let mut frames = Vec::new();
    while let Some(header) = bytes.get(at..).and_then(|rest| FrameHeader::read(rest, number)) {
        frames.push((at, header));
        at += usize::try_from(header.size()).unwrap();
    }
    frames
}

fn copy_of(from: &Path, to: &Path, file: &Path, bytes: &[u8]) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    snapshot(from, to);
    fs::write(to.join(file.file_name().unwrap()), bytes).unwrap();
}

#[tokio::test]
async fn a_torn_tail_is_cut_at_every_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crash, torn) = ("live", "crash", "torn").map_each(|name| dir.path().join(name));
    let (pool, log) = (name("pool"), name("log"));
    let queue = open(&live).unwrap();
    queue.publish(messages(&pool, ["a".into(), "b".into()])).await.unwrap();
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let taken = suite::take(&mut *subscription, 2).await;
    let mut publishes = messages(&log, ["event".into()]);
    publishes.push(suite::deferral(&pool, &taken[1], None));
    let settlement = Settlement { tokens: tokens(&taken), publishes };
    queue.settle(settlement).await.unwrap();
    snapshot(&live, &crash);
    let file = segments(&crash).pop().unwrap();
    let (last, header) = *frames(&file).last().unwrap();
    let whole = fs::read(&file).unwrap();
    let end =
        last + FRAME_HEADER + header.ops_len as usize + usize::try_from(header.body_bytes).unwrap();
    for cut in last..=end {
        let short = whole[..cut].to_vec();
        let mut zeros = short.clone();
        zeros.resize(whole.len(), 0);
        let mut garbage = short.clone();
        garbage.extend(whole[..whole.len() - cut].iter().rev().map(|byte| byte ^ 0x55));
        for bytes in [short, zeros, garbage] {
            copy_of(&crash, &torn, &file, &bytes);
            let queue = open(&torn).unwrap();
            let texts = (suite::texts(&all(&queue, &pool).await), all(&queue, &log).await.len());
            // A frame whose last bytes are zeros anyway is whole.
            let whole_anyway = bytes.starts_with(&whole[..end]);
            let expected: &[&str] = if whole_anyway { &["b"] } else { &["a", "b"] };
            assert_eq!(texts.0, expected, "cut at {cut} of {end}");
            assert_eq!(texts.1, usize::from(whole_anyway));
            if cut % 16 > 0 {
                continue;
            }
            // It goes on, and what was cut is not found again.
            queue.publish(messages(&pool, ["c".into()])).await.unwrap();
            drop(queue);
            let queue = open(&torn).unwrap();
            assert_eq!(all(&queue, &pool).await.len(), expected.len() + 1);
        }
    }
}

trait MapEach {
    fn map_each(self, map: impl Fn(&str) -> PathBuf) -> (PathBuf, PathBuf, PathBuf);
}

impl MapEach for (&str, &str, &str) {
    fn map_each(self, map: impl Fn(&str) -> PathBuf) -> (PathBuf, PathBuf, PathBuf) {
        (map(self.0), map(self.1), map(self.2))
    }
}

/// The disk may write the parts of a commit in any order.
#[tokio::test]
async fn a_commit_may_be_torn_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    let (live, crash, torn) = ("live", "crash", "torn").map_each(|name| dir.path().join(name));
    let pool = name("pool");
    let disk = FaultyDisk::default();
    let config = EmbeddedConfig { segment_bytes: 64 << 10, ..EmbeddedConfig::new(&live) };
    let queue =
        EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock)).unwrap();
    queue.publish(messages(&pool, ["confirmed".into()])).await.unwrap();
    disk.set(|faults| faults.hold = true);
    let mut publishers = tokio::task::JoinSet::new();
    for text in ["confirmed too", "x", "y", "z"] {
        let (publisher, batch) = (Arc::clone(&queue), messages(&pool, [text.to_owned()]));
        publishers.spawn(async move { publisher.publish(batch).await.unwrap() });
        tokio::task::yield_now().await;
        if text == "confirmed too" {
            // The commit thread has taken it alone when nothing waits.
            while queue.core.handoff.waiting_bytes() > 0 {
                tokio::task::yield_now().await;
            }
        }
    }
    disk.set(|faults| faults.hold = false);
    while let Some(published) = publishers.join_next().await {
        published.unwrap();
    }
    snapshot(&live, &crash);
    let file = segments(&crash).pop().unwrap();
    let frames = frames(&file);
    let commits: Vec<_> = frames.iter().map(|(_, header)| header.place.commit).collect();
    assert_eq!(commits, [1, 2, 3, 3, 3]);
    let whole = fs::read(&file).unwrap();
    for (number, (at, header)) in frames.iter().enumerate() {
        let end = at + FRAME_HEADER + header.ops_len as usize;
        // The header, the operations, the body.
        for hole in [*at, at + FRAME_HEADER, end] {
            let mut bytes = whole.clone();
            bytes[hole] ^= 0xff;
            copy_of(&crash, &torn, &file, &bytes);
            let opened = open(&torn);
            if number < 2 && hole < end {
                let Err(BrokerError::Storage(why)) = opened else { panic!("{number} opened") };
                assert!(why.contains(&format!("byte {at}")), "{why}");
                continue;
            }
            let queue = opened.unwrap();
            let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
            let good = if number < 2 { 4 } else { number };
            let texts = suite::texts(&suite::take(&mut *subscription, good).await);
            assert_eq!(texts.contains(&"confirmed".to_owned()), number != 0);
            assert_eq!(texts.contains(&"confirmed too".to_owned()), number != 1);
        }
    }
}

fn forget_indexes(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "idx") {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Reads all, until every message is there or known to be damaged.
async fn readable(queue: &EmbeddedQueue, total: usize) -> Vec<String> {
    let mut subscription = queue.subscribe(&name("pool"), AMPLE).await.unwrap();
    let mut texts = Vec::new();
    let started = tokio::time::Instant::now();
    while texts.len() + usize::try_from(queue.damaged()).unwrap() < total {
        assert!(started.elapsed() < PATIENCE, "only {} of {total}", texts.len());
        let next = tokio::time::timeout(Duration::from_millis(5), subscription.next()).await;
        if let Ok(next) = next {
            texts.extend(suite::texts(&next.unwrap()));
        }
    }
    texts
}

#[tokio::test]
async fn a_flipped_bit_is_never_silent() {
    let dir = tempfile::tempdir().unwrap();
    let (live, flipped) = (dir.path().join("live"), dir.path().join("flipped"));
    let pool = name("pool");
    let config = |dir: &Path| EmbeddedConfig { segment_bytes: 4096, ..EmbeddedConfig::new(dir) };
    let open = |dir: &Path| EmbeddedQueue::open(config(dir), Arc::new(SystemClock));
    let queue = open(&live).unwrap();
    let mut expected: Vec<String> = (0..9).map(|n| n.to_string().repeat(500)).collect();
    for text in &expected {
        queue.publish(messages(&pool, [text.clone()])).await.unwrap();
    }
    let mut subscription = queue.subscribe(&pool, AMPLE).await.unwrap();
    let taken = suite::take(&mut *subscription, 9).await;
    super::acknowledge(&queue, &taken[1..2]).await;
    expected.remove(1);
    queue.close(PATIENCE).await.unwrap();
    let (mut refused, mut quarantined, mut harmless) = (0, 0, 0);
    for file in segments(&live) {
        let whole = fs::read(&file).unwrap();
        for at in (0..whole.len()).step_by(7) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            copy_of(&live, &flipped, &file, &bytes);
            if at % 2 == 0 {
                // Without the indexes, every frame is read.
                forget_indexes(&flipped);
            }
            match open(&flipped) {
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains(file.file_name().unwrap().to_str().unwrap()), "{error}");
                    refused += 1;
                }
                Ok(queue) => {
                    let texts = readable(&queue, expected.len()).await;
                    assert!(texts.iter().all(|text| expected.contains(text)), "byte {at}");
                    quarantined += queue.damaged();
                    harmless += usize::from(queue.damaged() == 0);
                }
            }
        }
    }
    assert!(refused > 20 && quarantined > 200, "{refused} {quarantined} {harmless}");
    // The dead message, padding, the zeros of the headers, what is behind an
    // end; and what an index says in the place of a frame.
    assert!(harmless > 0 && harmless < 450, "{refused} {quarantined} {harmless}");
}

#[tokio::test]
async fn a_damaged_body_goes_to_quarantine() {
    let dir = tempfile::tempdir().unwrap();
    let (pool, quarantine) = (name("pool"), name(posthaste_model::QUARANTINE));
    let queue = open(dir.path()).unwrap();
    queue.publish(messages(&pool, ["good".into(), "damaged".into()])).await.unwrap();
    queue.close(PATIENCE).await.unwrap();
    drop(queue);
    let file = segments(dir.path()).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let at = bytes.windows(11).position(|window| window == b"gooddamaged").unwrap();
    bytes[at + 6] ^= 1;
    fs::write(&file, bytes).unwrap();
    for round in 0..2 {
        let queue = open(dir.path()).unwrap();
        if round == 0 {
            assert_eq!(readable(&queue, 2).await, ["good"]);
            while queue.depth(&quarantine).await.unwrap().total() == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        assert_eq!(queue.depth(&pool).await.unwrap().total(), 1);
        let found = queue.browse(&quarantine, None, 10).await.unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].head, "head of damaged");
        // Nobody is handed it again, but it can be removed.
        let mut subscription = queue.subscribe(&quarantine, AMPLE).await.unwrap();
        suite::nothing(&mut *subscription).await;
        if round == 1 {
            assert_eq!(queue.purge(&quarantine).await.unwrap(), 1);
        }
    }
}

#[tokio::test]
async fn a_sealed_segment_that_lost_its_end_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let (live, cut) = (dir.path().join("live"), dir.path().join("cut"));
    let queue = open(&live).unwrap();
    for n in 0..20 {
        queue.publish(messages(&name("pool"), [n.to_string().repeat(10_000)])).await.unwrap();
    }
    drop(queue);
    let file = &segments(&live)[0];
    let frames = frames(file);
    assert!(frames[frames.len() - 1].1.is_end());
    let last = frames[frames.len() - 2].0;
    let bytes = fs::read(file).unwrap();
    for (len, bytes) in [(last, &bytes[..last]), (last, &bytes[..last + 8])] {
        copy_of(&live, &cut, file, bytes);
        let error = open(&cut).err().unwrap().to_string();
        assert!(error.contains(file.file_name().unwrap().to_str().unwrap()), "{len}: {error}");
    }
}

#[tokio::test]
async fn foreign_and_unfinished_segments() {
    let dir = tempfile::tempdir().unwrap();
    let (live, other, torn) = ("live", "other", "torn").map_each(|name| dir.path().join(name));
    for dir in [&live, &other] {
        let queue = open(dir).unwrap();
        queue.publish(messages(&name("pool"), ["x".into()])).await.unwrap();
    }
    let first = segments(&live).pop().unwrap();
    let second = first.with_file_name("00000000000000000002.seg");
    // The making of a segment was interrupted: zeros, or a part of its header.
    for len in [0, 10, 64, 4096] {
        copy_of(&live, &torn, &second, &vec![0; len]);
        let queue = open(&torn).unwrap();
        assert_eq!(all(&queue, &name("pool")).await.len(), 1);
        assert_eq!(segments(&torn).len(), 1);
    }
    let refuse = |bytes: &[u8], word: &str| {
        copy_of(&live, &torn, &second, bytes);
        let error = open(&torn).err().unwrap().to_string();
        assert!(error.contains(word), "{error}");
    };
    refuse(&fs::read(&first).unwrap(), "renamed");
    let mut foreign = fs::read(segments(&other).pop().unwrap()).unwrap();
    let number_and_crc = |bytes: &mut Vec<u8>| {
        bytes[16] = 2;
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    };
    number_and_crc(&mut foreign);
    refuse(&foreign, "another queue");
    foreign[8] = 9;
    number_and_crc(&mut foreign);
    refuse(&foreign, "version");
    foreign[0] ^= 1;
    refuse(&foreign, "damaged");
}
