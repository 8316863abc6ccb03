use std::{io::BufRead, process};

use bytes::Bytes;
use posthaste_model::{ManualClock, PoolName, SubmissionId};

use super::*;

fn start(number: u32) -> Start {
    Start {
        attempt_id: AttemptId::new(),
        message_id: MessageId::new(),
        submission_id: SubmissionId::new(),
        recipient: "b@example.net".parse().unwrap(),
        pool: PoolName::default(),
        smtp_client: "c1".into(),
        number,
        time: Timestamp::from_millis(1000),
    }
}

fn ended(start: &Start) -> Final {
    Final {
        attempt_id: start.attempt_id,
        message_id: start.message_id,
        number: start.number,
        time: Timestamp::from_millis(2000),
        event: Bytes::from_static(b"{\"event\":1}\n"),
        next: Next::Defer {
            due: Timestamp::from_millis(9000),
            head: Bytes::from_static(b"{\"head\":1}"),
        },
    }
}

fn options(now: i64) -> JournalOptions {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(now)));
    JournalOptions { clock, ..JournalOptions::default() }
}

fn open(dir: &Path) -> (Journal, Recovered) {
    Journal::open_with(dir, options(3000)).unwrap()
}

fn standing(journal: &Journal, start: &Start) -> Standing {
    journal.standing(start.message_id, start.number).unwrap()
}

#[test]
fn an_outcome_survives_and_is_settled_once() {
    let dir = tempfile::tempdir().unwrap();
    let (kept, interrupted, settled) = (start(1), start(2), start(3));
    let (journal, recovered) = open(dir.path());
    assert_eq!(recovered, Recovered::default());
    for start in [&kept, &interrupted, &settled] {
        assert_eq!(standing(&journal, start), Standing::Unknown);
        journal.start(start).unwrap();
        assert_eq!(standing(&journal, start), Standing::Running);
    }
    journal.finish(&ended(&kept)).unwrap();
    journal.finish(&ended(&settled)).unwrap();
    journal.settled(&[settled.attempt_id]).unwrap();
    assert_eq!(standing(&journal, &settled), Standing::Unknown);
    drop(journal);
    // Twice: opening rewrites the files.
    for _ in 0..2 {
        let (journal, recovered) = open(dir.path());
        assert_eq!(recovered, Recovered { outcomes: 1, interrupted: 1, damaged: 0 });
        assert_eq!(standing(&journal, &kept), Standing::Ended(ended(&kept)));
        assert_eq!(standing(&journal, &settled), Standing::Unknown);
        assert_eq!(standing(&journal, &interrupted), Standing::Unknown);
        assert_eq!(journal.interrupted(), std::slice::from_ref(&interrupted));
    }
    let (journal, _) = open(dir.path());
    journal.settled(&[kept.attempt_id, interrupted.attempt_id, AttemptId::new()]).unwrap();
    assert_eq!(journal.interrupted(), []);
    drop(journal);
    assert_eq!(open(dir.path()).1, Recovered::default());
}

#[test]
fn an_abandoned_attempt_is_interrupted_unless_it_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let (given_up, done, late) = (start(1), start(1), start(1));
    for start in [&given_up, &done, &late] {
        journal.start(start).unwrap();
    }
    journal.finish(&ended(&done)).unwrap();
    for start in [&given_up, &done, &late] {
        journal.abandon(start.clone());
    }
    journal.finish(&ended(&late)).unwrap();
    assert_eq!(journal.interrupted(), std::slice::from_ref(&given_up));
    assert_eq!(standing(&journal, &given_up), Standing::Unknown);
    assert_eq!(standing(&journal, &done), Standing::Ended(ended(&done)));
    assert_eq!(standing(&journal, &late), Standing::Ended(ended(&late)));
}

#[test]
fn what_cannot_be_written_is_an_error_and_leaves_no_trace() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let (before, refused, after) = (start(1), start(2), start(3));
    journal.finish(&ended(&before)).unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let good = std::mem::replace(&mut journal.inner.lock().writer, full);
    assert!(matches!(journal.start(&refused), Err(JournalError::File { .. })));
    assert!(journal.finish(&ended(&refused)).is_err());
    journal.inner.lock().writer = good;
    let end = fs::metadata(file::path(dir.path(), 1)).unwrap().len();
    journal.inner.lock().len = end;
    journal.finish(&ended(&after)).unwrap();
    assert_eq!(standing(&journal, &refused), Standing::Unknown);
    assert_eq!(standing(&journal, &after), Standing::Ended(ended(&after)));
    drop(journal);
    assert_eq!(open(dir.path()).1, Recovered { outcomes: 2, interrupted: 0, damaged: 0 });
}

#[test]
fn a_second_process_is_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let (_journal, _) = open(dir.path());
    assert!(matches!(Journal::open(dir.path()), Err(JournalError::InUse(_))));
}

#[test]
fn torn_at_every_byte_loses_only_what_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let starts: Vec<_> = (1..=2).map(start).collect();
    let mut ends = vec![];
    for start in &starts {
        journal.start(start).unwrap();
        journal.finish(&ended(start)).unwrap();
        ends.push(journal.inner.lock().len);
    }
    let (file, len) = (journal.inner.lock().file, ends[1]);
    drop(journal);
    let whole = fs::read(file::path(dir.path(), file)).unwrap();
    assert_eq!(whole.len() as u64, len);
    for cut in 0..=whole.len() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(file::path(dir.path(), file), &whole[..cut]).unwrap();
        let (journal, recovered) = open(dir.path());
        let kept = ends.iter().filter(|end| **end <= cut as u64).count();
        assert_eq!(recovered.outcomes, kept, "cut at {cut}");
        assert_eq!(recovered.damaged, 0);
        assert!(recovered.interrupted <= 1);
        for start in &starts[..kept] {
            assert_eq!(standing(&journal, start), Standing::Ended(ended(start)));
        }
    }
}

#[test]
fn damage_costs_only_what_it_hit() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let starts: Vec<_> = (1..=3).map(start).collect();
    let mut ends = vec![MAGIC.len() as u64];
    for start in &starts {
        journal.finish(&ended(start)).unwrap();
        ends.push(journal.inner.lock().len);
    }
    let path = file::path(dir.path(), journal.inner.lock().file);
    drop(journal);
    let whole = fs::read(&path).unwrap();
    for at in ends[1]..ends[2] {
        let mut bytes = whole.clone();
        bytes[at as usize] ^= 0x55;
        fs::write(&path, &bytes).unwrap();
        let other = tempfile::tempdir().unwrap();
        fs::copy(&path, other.path().join(path.file_name().unwrap())).unwrap();
        let (journal, recovered) = open(other.path());
        assert_eq!(recovered.outcomes, 2, "damage at {at}");
        assert_eq!(recovered.damaged, ends[2] - ends[1]);
        assert_eq!(standing(&journal, &starts[2]), Standing::Ended(ended(&starts[2])));
    }
    fs::write(&path, b"another format").unwrap();
    assert!(matches!(
        Journal::open(dir.path()),
        Err(JournalError::File { path: named, .. }) if named == path
    ));
}

#[test]
fn files_are_deleted_and_what_hinders_them_is_carried_along() {
    let dir = tempfile::tempdir().unwrap();
    let small = |now| JournalOptions { file_bytes: 2000, files: 3, ..options(now) };
    let (journal, _) = Journal::open_with(dir.path(), small(3000)).unwrap();
    let (running, waiting, given_up) = (start(1), start(7), start(1));
    journal.start(&running).unwrap();
    journal.start(&given_up).unwrap();
    journal.abandon(given_up.clone());
    journal.finish(&ended(&waiting)).unwrap();
    for number in 1..500 {
        let start = start(number);
        journal.start(&start).unwrap();
        journal.finish(&ended(&start)).unwrap();
        journal.settled(&[start.attempt_id]).unwrap();
        assert!(file::list(dir.path()).unwrap().len() <= 3);
    }
    assert!(journal.bytes() <= 3 * 2000 + 500);
    assert_eq!(standing(&journal, &running), Standing::Running);
    assert_eq!(standing(&journal, &given_up), Standing::Unknown);
    assert_eq!(standing(&journal, &waiting), Standing::Ended(ended(&waiting)));
    journal.finish(&ended(&running)).unwrap();
    drop(journal);
    let (journal, recovered) = Journal::open_with(dir.path(), small(3000)).unwrap();
    assert_eq!(recovered, Recovered { outcomes: 2, interrupted: 1, damaged: 0 });
    assert_eq!(standing(&journal, &running), Standing::Ended(ended(&running)));
    assert_eq!(file::list(dir.path()).unwrap().len(), 1);
}

#[test]
fn outcomes_that_nobody_asks_for_are_dropped_in_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let starts: Vec<_> = (1..=3).map(start).collect();
    for (age, start) in (0i64..).zip(&starts) {
        let time = Timestamp::from_millis(2000 - age);
        journal.finish(&Final { time, ..ended(start) }).unwrap();
    }
    drop(journal);
    let few = JournalOptions { outcomes: 2, ..options(3000) };
    let (journal, recovered) = Journal::open_with(dir.path(), few).unwrap();
    assert_eq!(recovered.outcomes, 2);
    assert_eq!(standing(&journal, &starts[2]), Standing::Unknown);
    drop(journal);
    let week = 7 * 86_400_000;
    for (now, outcomes) in [(2000 + week - 1, 2), (2000 + week, 1), (2001 + week, 0)] {
        let (_, recovered) = Journal::open_with(dir.path(), options(now)).unwrap();
        assert_eq!(recovered.outcomes, outcomes, "at {now}");
    }
}

#[test]
fn a_reader_sees_what_stands_there() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let (running, done, settled) = (start(1), start(2), start(3));
    for start in [&running, &done, &settled] {
        journal.start(start).unwrap();
    }
    journal.finish(&ended(&done)).unwrap();
    journal.finish(&ended(&settled)).unwrap();
    journal.settled(&[settled.attempt_id]).unwrap();
    let seen: Vec<_> = read(dir.path())
        .unwrap()
        .into_iter()
        .map(|attempt| (attempt.message_id, attempt.has_final, attempt.is_settled))
        .collect();
    assert_eq!(
        seen,
        [
            (running.message_id, false, false),
            (done.message_id, true, false),
            (settled.message_id, true, true)
        ]
    );
}

/// Not a test of its own: the process that the next one kills.
#[test]
fn writer_process() {
    let Some(dir) = std::env::var_os("POSTHASTE_TEST_JOURNAL") else { return };
    let (journal, _) = Journal::open(Path::new(&dir)).unwrap();
    loop {
        let start = Start { time: SystemClock.now(), ..start(1) };
        journal.start(&start).unwrap();
        journal.finish(&Final { time: SystemClock.now(), ..ended(&start) }).unwrap();
        println!("\nfinal {}", start.message_id);
    }
}

#[test]
fn a_killed_process_keeps_what_it_appended() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "journal::tests::writer_process", "--nocapture"])
        .env("POSTHASTE_TEST_JOURNAL", dir.path())
        .stdout(process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = io::BufReader::new(child.stdout.take().unwrap()).lines();
    let mut told = vec![];
    for line in lines {
        let Ok(line) = line else { break };
        told.extend(line.strip_prefix("final ").and_then(|id| id.parse::<MessageId>().ok()));
        if told.len() == 500 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    assert!(told.len() >= 500);
    let (journal, recovered) = Journal::open(dir.path()).unwrap();
    assert!(recovered.interrupted <= 1 && recovered.damaged == 0, "{recovered:?}");
    for id in told {
        assert!(matches!(journal.standing(id, 1).unwrap(), Standing::Ended(_)));
    }
}

#[test]
fn an_outcome_that_cannot_be_written_is_known_until_it_is_settled() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = open(dir.path());
    let (start, abandoned) = (start(1), start(2));
    journal.start(&start).unwrap();
    journal.start(&abandoned).unwrap();
    journal.abandon(abandoned.clone());
    // As a full disk does: writes fail, all else works.
    let path = file::path(dir.path(), journal.inner.lock().file);
    let healthy =
        std::mem::replace(&mut journal.inner.lock().writer, fs::File::open(&path).unwrap());
    for start in [&start, &abandoned] {
        journal.finish(&ended(start)).unwrap_err();
        assert_eq!(standing(&journal, start), Standing::Ended(ended(start)));
    }
    assert_eq!(journal.interrupted(), vec![]);
    journal.settled(&[start.attempt_id]).unwrap_err();
    assert_eq!(standing(&journal, &start), Standing::Unknown);
    // The next one that can be written stands where it should.
    journal.inner.lock().writer = healthy;
    journal.settled(&[abandoned.attempt_id]).unwrap();
    assert_eq!(standing(&journal, &abandoned), Standing::Unknown);
    assert!(journal.inner.lock().unwritten.is_empty());
}
