//! The line before the commit thread, in all interleavings of its users.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p posthaste-broker --test loom --release
//! ```
//!
//! Empty without that flag.

#![cfg(loom)]
#![allow(clippy::unwrap_used, missing_docs, dead_code, reason = "a test")]

#[path = "../src/embedded/line.rs"]
mod line;

use line::{Line, Weigh, Work};
use loom::{sync::Arc, thread};

#[derive(Debug, PartialEq, Eq)]
struct Item(u8);

impl Weigh for Item {
    fn weight(&self) -> u64 {
        1
    }
}

type Tested = Arc<Line<Item, &'static str>>;

/// Takes until the line is closed; what came, in its order.
fn take_all(line: &Tested, max: u64) -> (Vec<u8>, usize) {
    let (mut items, mut asked) = (Vec::new(), 0);
    loop {
        match line.take(max, false) {
            Work::Items(some) => {
                assert!(!some.is_empty() && some.len() as u64 <= max.max(1));
                items.extend(some.into_iter().map(|item| item.0));
            }
            Work::Asked(_) => asked += 1,
            Work::Nothing => unreachable!("it is not busy"),
            Work::Closed => return (items, asked),
        }
    }
}

#[test]
fn what_is_let_in_is_taken_once_and_in_order() {
    loom::model(|| {
        let line: Tested = Arc::default();
        let push = |items: &'static [u8]| {
            let line = Arc::clone(&line);
            thread::spawn(move || items.iter().all(|item| line.push(Item(*item)).is_ok()))
        };
        let (two, one) = (push(&[10, 11]), push(&[20]));
        let taking = {
            let line = Arc::clone(&line);
            thread::spawn(move || take_all(&line, 2).0)
        };
        assert!(two.join().unwrap() && one.join().unwrap());
        line.close();
        let taken = taking.join().unwrap();
        let places = [10, 11, 20].map(|item| taken.iter().position(|taken| *taken == item));
        assert!(taken.len() == 3 && places.iter().all(Option::is_some), "{taken:?}");
        assert!(places[0] < places[1], "{taken:?}");
    });
}

#[test]
fn a_close_beside_pushes_loses_nothing_that_was_let_in() {
    loom::model(|| {
        let line: Tested = Arc::default();
        let pushing = {
            let line = Arc::clone(&line);
            thread::spawn(move || [1, 2].map(|item| line.push(Item(item)).is_ok()))
        };
        let closing = {
            let line = Arc::clone(&line);
            thread::spawn(move || line.close())
        };
        let taken = take_all(&line, 8).0;
        let let_in = pushing.join().unwrap();
        closing.join().unwrap();
        let expected: Vec<u8> =
            [1, 2].into_iter().zip(let_in).filter(|(_, ok)| *ok).map(|(item, _)| item).collect();
        assert_eq!(taken, expected);
        assert!(line.push(Item(3)).is_err());
        assert!(line.abandon().is_empty());
    });
}

#[test]
fn a_request_wakes_who_waits() {
    loom::model(|| {
        let line: Tested = Arc::default();
        let asking = {
            let line = Arc::clone(&line);
            thread::spawn(move || {
                assert!(line.ask("compact").is_ok());
                assert!(line.push(Item(1)).is_ok());
                line.close();
            })
        };
        let (items, asked) = take_all(&line, 8);
        asking.join().unwrap();
        // A request that is not taken before the close is dropped.
        assert!(items == [1] && asked <= 1);
    });
}
