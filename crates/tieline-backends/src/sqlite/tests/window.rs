//! How long an append is known by its key, whatever the clock does.

use std::time::Duration;

use tieline_core::store::{Append, AppendKey};

use super::{Folder, append};
use crate::sqlite::logs::Logs;
use crate::sqlite::open;

const WINDOW: Duration = Duration::from_secs(300);
const MINUTE: u64 = 60_000;

/// The logs of a file whose time is the test's.
struct World<'c> {
    logs: Logs<'c>,
    connection: &'c rusqlite::Connection,
}

impl World<'_> {
    /// Says the append at this time, and tells whether it was known.
    fn is_known(&mut self, said: &Append, now_ms: u64) -> bool {
        self.connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        self.logs.begin(now_ms).unwrap();
        let is_known = self.logs.append(said).unwrap().is_duplicate;
        self.logs.finish(now_ms).unwrap();
        self.connection.execute_batch("COMMIT").unwrap();
        is_known
    }

    fn remembered(&self) -> i64 {
        self.connection.query_row("SELECT count(*) FROM appends", [], |row| row.get(0)).unwrap()
    }
}

fn world(test: impl FnOnce(World<'_>, u64)) {
    let folder = Folder::new();
    let (connection, _) = open::writer(&folder.file()).unwrap();
    let now_ms = tieline_core::unix_ms();
    test(World { logs: Logs::new(&connection, WINDOW).unwrap(), connection: &connection }, now_ms);
}

#[test]
fn a_key_is_known_for_a_window_and_forgotten_after_two() {
    world(|mut world, start| {
        let said = append("a", b"x");
        for minute in 0..60 {
            let fresh = append("a", b"y");
            let now_ms = start + minute * MINUTE;
            assert!(!world.is_known(&fresh, now_ms));
            // A window later to the millisecond.
            assert!(world.is_known(&fresh, now_ms + WINDOW.as_millis() as u64 - 1), "minute {minute}");
        }
        assert!(!world.is_known(&said, start + 60 * MINUTE));
        world.is_known(&append("a", b"z"), start + 66 * MINUTE);
        world.is_known(&append("a", b"z"), start + 72 * MINUTE);
        assert!(!world.is_known(&said, start + 72 * MINUTE));
        assert!(world.remembered() < 10, "{} are remembered", world.remembered());
    });
}

/// Most keys come in the order of time, and some do not.
#[test]
fn a_slot_that_is_over_knows_its_keys_in_any_order() {
    world(|mut world, start| {
        let with = |key| Append { key: AppendKey(key), ..append("a", b"x") };
        for key in [5, 9, 2] {
            assert!(!world.is_known(&with(key), start));
        }
        let later = start + WINDOW.as_millis() as u64 + 1;
        let known = [1, 2, 5, 7, 9, 10].map(|key| world.is_known(&with(key), later));
        assert_eq!(known, [false, true, true, false, true, false]);
        assert!([1, 7, 10].into_iter().all(|key| world.is_known(&with(key), later)));
    });
}

#[test]
fn a_clock_that_leaps_an_hour_forgets_nothing_early() {
    for leap in [-60, 60] {
        world(|mut world, start| {
            let said = append("a", b"x");
            let start = start + 120 * MINUTE;
            assert!(!world.is_known(&said, start));
            let leapt = start.checked_add_signed(leap * MINUTE as i64).unwrap();
            assert!(world.is_known(&said, leapt));
            assert!(world.is_known(&said, leapt + 4 * MINUTE));
        });
    }
}
