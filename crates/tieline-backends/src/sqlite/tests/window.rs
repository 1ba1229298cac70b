//! How long an append is known by its key, whatever the clock does.

use std::time::{Duration, Instant};

use tieline_core::store::{Append, AppendKey};

use super::{Folder, append};
use crate::sqlite::logs::Logs;
use crate::sqlite::open;

const WINDOW: Duration = Duration::from_secs(300);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR_MS: i64 = 3_600_000;

/// When a test began, by both clocks.
#[derive(Clone, Copy)]
struct Begin(Instant, u64);

/// The logs of a file whose time is the test's.
struct World<'c> {
    logs: Logs<'c>,
    connection: &'c rusqlite::Connection,
    begin: Begin,
    /// By how much the wall clock is wrong, in milliseconds.
    leap: i64,
}

impl<'c> World<'c> {
    fn new(connection: &'c rusqlite::Connection, begin: Begin) -> Self {
        World { logs: Logs::new(connection, WINDOW).unwrap(), connection, begin, leap: 0 }
    }

    /// Says the append after this time, and tells whether it was known.
    fn is_known(&mut self, said: &Append, passed: Duration) -> bool {
        let Begin(now, now_ms) = self.begin;
        let now_ms = (now_ms + passed.as_millis() as u64).checked_add_signed(self.leap).unwrap();
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.logs.begin(now + passed, now_ms).unwrap();
        let is_known = self.logs.append(said).unwrap().is_duplicate;
        self.logs.finish(now_ms).unwrap();
        self.connection.execute_batch("COMMIT").unwrap();
        is_known
    }

    fn remembered(&self) -> i64 {
        self.connection.query_row("SELECT count(*) FROM appends", [], |row| row.get(0)).unwrap()
    }
}

/// Two processes of one file.
fn worlds(test: impl FnOnce(World<'_>, World<'_>)) {
    let folder = Folder::new();
    let [one, other] = [0; 2].map(|_| open::writer(&folder.file()).unwrap().0);
    let begin = Begin(Instant::now(), tieline_core::unix_ms());
    test(World::new(&one, begin), World::new(&other, begin));
}

fn world(test: impl FnOnce(World<'_>)) {
    worlds(|world, _| test(world));
}

#[test]
fn a_key_is_known_for_a_window_and_forgotten_after_two() {
    world(|mut world| {
        let said = append("a", b"x");
        for round in 0..60 {
            let fresh = append("a", b"y");
            let passed = 6 * round * MINUTE;
            assert!(!world.is_known(&fresh, passed));
            // A window later to the millisecond.
            assert!(world.is_known(&fresh, passed + WINDOW - Duration::from_millis(1)), "round {round}");
        }
        assert!(!world.is_known(&said, 360 * MINUTE));
        world.is_known(&append("a", b"z"), 366 * MINUTE);
        world.is_known(&append("a", b"z"), 372 * MINUTE);
        assert!(!world.is_known(&said, 372 * MINUTE));
        assert!(world.remembered() < 10, "{} are remembered", world.remembered());
    });
}

/// Most keys come in the order of time, and some do not.
#[test]
fn a_slot_that_is_over_knows_its_keys_in_any_order() {
    world(|mut world| {
        let with = |key| Append { key: AppendKey(key), ..append("a", b"x") };
        for key in [5, 9, 2] {
            assert!(!world.is_known(&with(key), Duration::ZERO));
        }
        let known = [1, 2, 5, 7, 9, 10].map(|key| world.is_known(&with(key), WINDOW));
        assert_eq!(known, [false, true, true, false, true, false]);
        assert!([1, 7, 10].into_iter().all(|key| world.is_known(&with(key), WINDOW)));
    });
}

#[test]
fn a_clock_that_leaps_an_hour_forgets_nothing_early() {
    for leap in [-HOUR_MS, HOUR_MS] {
        world(|mut world| {
            let said = append("a", b"x");
            assert!(!world.is_known(&said, Duration::ZERO));
            for minute in 0..5 {
                world.leap = if minute % 2 == 0 { leap } else { 0 };
                assert!(world.is_known(&said, minute * MINUTE), "minute {minute}");
            }
        });
    }
}

#[test]
fn clocks_that_differ_by_an_hour_forget_nothing_early() {
    worlds(|mut one, mut other| {
        one.leap = HOUR_MS;
        for round in 0..20 {
            let said = append("a", b"x");
            let passed = 5 * round * MINUTE;
            assert!(!one.is_known(&said, passed));
            for minute in 0..5 {
                assert!(other.is_known(&said, passed + minute * MINUTE), "round {round}, minute {minute}");
                assert!(one.is_known(&said, passed + minute * MINUTE), "round {round}, minute {minute}");
            }
        }
        assert!(one.remembered() < 10, "{} are remembered", one.remembered());
    });
}
