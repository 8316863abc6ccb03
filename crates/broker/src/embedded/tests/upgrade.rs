//! Directories of the former version, made by the former program.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use posthaste_model::SystemClock;

use super::{messages, name, segments};
use crate::{
    contract::Broker,
    embedded::{EmbeddedConfig, EmbeddedQueue, faulty::FaultyDisk, offline},
};

fn fixture(which: &str, to: &Path) -> Vec<String> {
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(which);
    fs::create_dir(to).unwrap();
    for file in segments(&from) {
        fs::copy(&file, to.join(file.file_name().unwrap())).unwrap();
    }
    fs::read_to_string(from.join("expected")).unwrap().lines().map(str::to_owned).collect()
}

fn open(disk: &FaultyDisk, dir: &Path) -> Arc<EmbeddedQueue> {
    let config = EmbeddedConfig { segment_bytes: 4096, ..EmbeddedConfig::new(dir) };
    EmbeddedQueue::open_on(Arc::new(disk.clone()), config, Arc::new(SystemClock)).unwrap()
}

/// All messages, a line each, as the fixture has them.
async fn lines(queue: &EmbeddedQueue) -> Vec<String> {
    let mut lines = Vec::new();
    for queue_name in ["pool.default", "delivery-logs"] {
        for found in queue.browse(&name(queue_name), None, 1000).await.unwrap() {
            let message = queue.message(found.id).await.unwrap().unwrap();
            let (head, body) = (message.head.unwrap(), message.body.unwrap());
            lines.push(format!(
                "{queue_name} {} {} {} {} {} {} {}",
                message.id,
                message.priority,
                message.due.map_or(0, |due| due.as_millis()),
                message.flow_key.as_str(),
                String::from_utf8_lossy(&head).replace(' ', "_"),
                body.len(),
                crc32c::crc32c(&body),
            ));
        }
    }
    lines
}

fn versions(dir: &Path) -> Vec<u8> {
    segments(dir).iter().map(|path| fs::read(path).unwrap()[8]).collect()
}

#[tokio::test]
async fn a_directory_of_the_former_version_is_upgraded() {
    for which in ["v1-closed", "v1-killed"] {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("queue");
        let expected = fixture(which, &dir);
        assert_eq!(versions(&dir), [1, 1, 1]);
        assert_eq!(offline::verify(&dir).unwrap().messages, expected.len() as u64);
        let disk = FaultyDisk::default();
        for _ in 0..3 {
            let queue = open(&disk, &dir);
            assert_eq!(lines(&queue).await, expected, "{which}");
            assert!(versions(&dir).iter().all(|version| *version == 2));
            let message = messages(&name("other"), ["more".into()]);
            queue.publish(message).await.unwrap();
            queue.compact().await.unwrap();
            assert_eq!(lines(&queue).await, expected, "{which}, compacted");
        }
        assert_eq!(offline::verify(&dir).unwrap().problems, []);
    }
}

/// Every mix of segments before, amid and after their upgrade is good.
#[tokio::test]
async fn an_upgrade_may_be_interrupted() {
    let root = tempfile::tempdir().unwrap();
    let (old, new) = (root.path().join("old"), root.path().join("new"));
    let expected = fixture("v1-killed", &old);
    fixture("v1-killed", &new);
    drop(open(&FaultyDisk::default(), &new));
    let files = segments(&old);
    let mut tried = 0;
    for done in 0..=files.len() {
        for amid in 0..3 {
            let mixed = root.path().join(format!("{done}.{amid}"));
            fs::create_dir(&mixed).unwrap();
            for (number, file) in files.iter().enumerate() {
                let name = file.file_name().unwrap();
                let (before, after) = (fs::read(file).unwrap(), fs::read(new.join(name)).unwrap());
                let mut bytes = if number < done { after.clone() } else { before.clone() };
                if number == done && amid > 0 {
                    // The end is written, the header is not; or only a part.
                    bytes.clone_from(&after);
                    bytes[..64].copy_from_slice(&before[..64]);
                    if amid == 1 {
                        bytes.truncate(bytes.len() - 48);
                    }
                }
                fs::write(mixed.join(name), bytes).unwrap();
            }
            let queue = open(&FaultyDisk::default(), &mixed);
            assert_eq!(lines(&queue).await, expected, "{done} {amid}");
            assert!(versions(&mixed).iter().all(|version| *version == 2));
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
}

/// A kill or a loss of power after every change of the disk.
#[tokio::test]
async fn an_upgrade_may_be_killed_anywhere() {
    for which in ["v1-closed", "v1-killed"] {
        let root = tempfile::tempdir().unwrap();
        let (dir, killed) = (root.path().join("queue"), root.path().join("killed"));
        let expected = fixture(which, &dir);
        fs::create_dir(&killed).unwrap();
        let disk = FaultyDisk::default();
        disk.watch(&dir, &killed);
        let queue = open(&disk, &dir);
        queue.publish(messages(&name("other"), ["more".into()])).await.unwrap();
        let kills = disk.watched();
        assert!(kills > 15, "{kills}");
        for kill in 0..kills {
            let queue = open(&FaultyDisk::default(), &killed.join(kill.to_string()));
            assert_eq!(lines(&queue).await, expected, "{which}, kill {kill} of {kills}");
        }
    }
}

#[tokio::test]
async fn a_newer_version_is_refused() {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().join("queue");
    fixture("v1-closed", &dir);
    drop(open(&FaultyDisk::default(), &dir));
    let file = segments(&dir).pop().unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[8] = 3;
    let crc = crc32c::crc32c(&bytes[..60]);
    bytes[60..64].copy_from_slice(&crc.to_le_bytes());
    fs::write(&file, &bytes).unwrap();
    let config = EmbeddedConfig::new(&dir);
    let error = EmbeddedQueue::open(config, Arc::new(SystemClock)).err().unwrap().to_string();
    assert!(error.contains("version is 3") && error.contains("newer program"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), bytes, "nothing was changed");
}
