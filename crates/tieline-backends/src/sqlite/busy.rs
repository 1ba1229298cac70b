//! How a thread waits for a lock that another process holds: often at first, at most [`LIMIT`] in all. SQLite's own
//! handler sleeps up to 100 ms, in which a busy neighbour takes the lock again and again. Tested in
//! `sqlite/tests/frozen.rs`.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How long a transaction waits for another process. A process that stands still with the lock costs the others a
/// refusal after this time, not their own standing still.
pub const LIMIT: Duration = Duration::from_secs(2);

/// Between two attempts at first; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(100);

/// Between two attempts at most.
const LONGEST_PAUSE: Duration = Duration::from_millis(5);

thread_local! {
    /// When this thread began to wait: the handler is a plain function, and SQLite gives it nothing but a number.
    static SINCE: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Called by SQLite each time that the lock was not to be had; `attempt` begins at 0 with each wait. Whether to go on.
pub(super) fn wait(attempt: i32) -> bool {
    if attempt == 0 {
        SINCE.set(Some(Instant::now()));
    }
    let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2u32.pow(attempt.clamp(0, 16) as u32));
    let is_over = SINCE.get().is_none_or(|since| since.elapsed() + pause > LIMIT);
    if !is_over {
        std::thread::sleep(pause);
    }
    !is_over
}
