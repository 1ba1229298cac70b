//! The store within one process: for a node alone, for tests, and as the measure of all others. Nothing outlives the
//! process. Tested by the suite of the engines, which lives beside them; what only this store has is tested here.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{
    Answer, Append, AppendKey, Appended, Cut, DEDUP_WINDOW, Gap, Head, LogKey, MAX_BODY, Page, PageLimit,
    Refusal, Retention, Store, StoreError, StoreId, Stored, fresh_epoch,
};
use crate::unix_ms;
use tieline_proto::Position;

/// Bytes that all logs together may take, as [`MESSAGE_COST`] and [`LOG_COST`] count. Past it, what is past its age is
/// looked for in all logs; where that makes no room, appends are refused.
const ROOM: usize = 256 << 20;

/// Keys of appends that are remembered in one window. Past it the window turns early: then an append is known for less than
/// [`DEDUP_WINDOW`], but for so many others at least.
const MOST_KEYS: usize = 1 << 20;

/// What a message takes beside its body.
const MESSAGE_COST: usize = 192;

/// What a log takes beside its name and its messages.
const LOG_COST: usize = 256;

struct Log {
    epoch: u64,
    /// The offset of the first of `messages`, or of the next message.
    first: u64,
    messages: VecDeque<Stored>,
    /// Bytes of all bodies.
    bytes: u64,
    retention: Retention,
    /// The latest time in a message's id.
    newest_ms: u64,
    /// Never given twice, so that keys of a dropped log do not count for its successor.
    number: u64,
}

impl Log {
    fn head(&self) -> Head {
        Head { epoch: self.epoch, first: self.first, last: self.first + self.messages.len() as u64 - 1 }
    }

    /// Drops the oldest message.
    fn pop(&mut self) -> usize {
        let Some(oldest) = self.messages.pop_front() else { return 0 };
        self.first += 1;
        self.bytes -= oldest.body.len() as u64;
        oldest.body.len() + MESSAGE_COST
    }

    /// Drops what is past its retention, and gives the room that this makes.
    fn trim(&mut self, now_ms: u64) -> usize {
        let mut room = 0;
        while let Some(oldest) = self.messages.front() {
            let count = self.messages.len() as u64;
            let is_over = count > 1 && (count > self.retention.count || self.bytes > self.retention.bytes);
            if !is_over && oldest.id.unix_ms().saturating_add(self.retention.age_ms()) > now_ms {
                break;
            }
            room += self.pop();
        }
        room
    }

    fn is_forgotten(&self, now_ms: u64) -> bool {
        let until = self.newest_ms.saturating_add(self.retention.age_ms().saturating_mul(2));
        self.messages.is_empty() && until < now_ms
    }
}

/// The appends of the last window and of the one before.
struct Seen {
    current: HashMap<(u64, AppendKey), u64>,
    previous: HashMap<(u64, AppendKey), u64>,
    since: Instant,
}

struct State {
    logs: HashMap<LogKey, Log>,
    /// Of the next log that is made.
    number: u64,
    seen: Seen,
    /// What is taken of `room`.
    taken: usize,
    room: usize,
    window: Duration,
}

/// A store in memory. A clone is another handle to the same.
#[derive(Clone)]
pub struct MemoryStore {
    id: StoreId,
    state: Arc<Mutex<State>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        MemoryStore::bounded(ROOM, DEDUP_WINDOW)
    }

    fn bounded(room: usize, window: Duration) -> Self {
        let seen = Seen { current: HashMap::new(), previous: HashMap::new(), since: Instant::now() };
        let state = State { logs: HashMap::new(), number: 0, seen, taken: 0, room, window };
        MemoryStore { id: StoreId::fresh(), state: Arc::new(Mutex::new(state)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn append(&mut self, append: Append) -> Result<Appended, StoreError> {
        if append.body.len() > MAX_BODY {
            return Err(Refusal::TooLarge.into());
        }
        self.turn_window();
        if let Some(log) = self.logs.get(&append.log) {
            let known = (log.number, append.key);
            if let Some(offset) = self.seen.current.get(&known).or_else(|| self.seen.previous.get(&known)) {
                let position = Position { epoch: log.epoch, offset: *offset };
                return Ok(Appended { position, is_duplicate: true });
            }
        }
        let now_ms = unix_ms();
        let name = append.log.to_text().len() + LOG_COST;
        let is_new = !self.logs.contains_key(&append.log);
        let cost = append.body.len() + MESSAGE_COST + if is_new { name } else { 0 };
        if self.taken + cost > self.room {
            self.sweep(now_ms);
            if self.taken + cost > self.room {
                return Err(Refusal::NoRoom.into());
            }
            if !is_new && !self.logs.contains_key(&append.log) {
                self.taken += name;
            }
        }
        self.taken += cost;
        let number = &mut self.number;
        let log = self.logs.entry(append.log).or_insert_with(|| {
            *number += 1;
            Log {
                epoch: fresh_epoch(),
                first: 1,
                messages: VecDeque::new(),
                bytes: 0,
                retention: append.retention,
                newest_ms: 0,
                number: *number,
            }
        });
        let offset = log.head().last + 1;
        log.retention = append.retention;
        log.newest_ms = log.newest_ms.max(append.id.unix_ms());
        log.bytes += append.body.len() as u64;
        log.messages.push_back(Stored { offset, id: append.id, body: append.body });
        self.seen.current.insert((log.number, append.key), offset);
        let position = Position { epoch: log.epoch, offset };
        self.taken -= log.trim(now_ms);
        Ok(Appended { position, is_duplicate: false })
    }

    fn turn_window(&mut self) {
        if self.seen.since.elapsed() >= self.window || self.seen.current.len() >= MOST_KEYS {
            self.seen.previous = std::mem::take(&mut self.seen.current);
            self.seen.since = Instant::now();
        }
    }

    /// Trims every log, and forgets those that have been empty for long.
    fn sweep(&mut self, now_ms: u64) {
        let taken = &mut self.taken;
        self.logs.retain(|key, log| {
            *taken -= log.trim(now_ms);
            let is_kept = !log.is_forgotten(now_ms);
            *taken -= if is_kept { 0 } else { key.to_text().len() + LOG_COST };
            is_kept
        });
    }

    /// The log, trimmed.
    fn log(&mut self, key: &LogKey) -> Option<&mut Log> {
        let log = self.logs.get_mut(key)?;
        self.taken -= log.trim(unix_ms());
        Some(log)
    }

    fn read(&mut self, key: &LogKey, after: Option<Position>, limit: PageLimit) -> Page {
        let log = self.log(key);
        let head = log.as_ref().map(|log| log.head());
        let start = match Head::start(head, after) {
            Ok(start) => start,
            Err(gap) => return Page { head, gap: Some(gap), messages: Vec::new() },
        };
        let mut messages: Vec<Stored> = Vec::new();
        let mut bytes = 0;
        let from = log.as_ref().map_or(0, |log| (start - log.first) as usize);
        for message in log.into_iter().flat_map(|log| log.messages.iter().skip(from)) {
            bytes += message.body.len();
            if messages.len() >= limit.count.max(1) || (bytes > limit.bytes && !messages.is_empty()) {
                break;
            }
            messages.push(message.clone());
        }
        Page { head, gap: None::<Gap>, messages }
    }

    fn trim(&mut self, key: &LogKey, cut: Cut) {
        match cut {
            Cut::Whole => {
                if let Some(mut log) = self.logs.remove(key) {
                    self.taken -= key.to_text().len() + LOG_COST;
                    while !log.messages.is_empty() {
                        self.taken -= log.pop();
                    }
                }
            }
            Cut::Through(to) => {
                let Some(log) = self.logs.get_mut(key).filter(|log| log.epoch == to.epoch) else { return };
                while log.first <= to.offset && !log.messages.is_empty() {
                    self.taken -= log.pop();
                }
            }
        }
    }

    fn renew(&mut self, key: &LogKey, epoch: u64) -> Option<Head> {
        let log = self.log(key)?;
        if log.epoch == epoch {
            log.epoch = fresh_epoch();
        }
        Some(log.head())
    }
}

/// An answer that is there already.
fn ready<T: Send + 'static>(result: Result<T, StoreError>) -> Answer<T> {
    Box::pin(std::future::ready(result))
}

impl Store for MemoryStore {
    fn id(&self) -> StoreId {
        self.id
    }

    fn append(&self, append: Append) -> Answer<Appended> {
        ready(self.lock().append(append))
    }

    fn read(&self, log: LogKey, after: Option<Position>, limit: PageLimit) -> Answer<Page> {
        ready(Ok(self.lock().read(&log, after, limit)))
    }

    fn heads(&self, logs: Vec<LogKey>) -> Answer<Vec<Option<Head>>> {
        let mut state = self.lock();
        let head = |key| state.log(key).map(|log| log.head());
        ready(Ok(logs.iter().map(head).collect()))
    }

    fn trim(&self, log: LogKey, cut: Cut) -> Answer<()> {
        self.lock().trim(&log, cut);
        ready(Ok(()))
    }

    fn renew(&self, log: LogKey, epoch: u64) -> Answer<Option<Head>> {
        ready(Ok(self.lock().renew(&log, epoch)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_proto::{GroupName, HubName, MessageId};

    fn append(group: &str, key: u128, age: Duration, sent_ms: u64) -> Append {
        let log = LogKey::Group(HubName::new("h").unwrap(), GroupName::new(group).unwrap());
        let retention = Retention { age, ..Retention::default() };
        let id = MessageId::new(sent_ms, key);
        Append { log, key: AppendKey(key), id, body: Arc::from([0; 1000]), retention }
    }

    #[test]
    fn it_is_bounded_and_counts_what_it_gives_back() {
        let store = MemoryStore::bounded(10_000, DEDUP_WINDOW);
        let (now, hour) = (unix_ms(), Duration::from_secs(3600));
        let fill = |group: &str, sent_ms| {
            (0..).take_while(|key| store.lock().append(append(group, *key, hour, sent_ms)).is_ok()).count()
        };
        assert_eq!(fill("a", now), 8);
        assert_eq!(store.lock().append(append("a", 9, hour, now)), Err(Refusal::NoRoom.into()));
        assert!(store.lock().append(append("a", 1, hour, now)).is_ok_and(|appended| appended.is_duplicate));
        store.lock().trim(&append("a", 0, hour, now).log, Cut::Whole);
        assert_eq!(store.lock().taken, 0);
        // What is past its age makes room by itself, and so does a log that is forgotten.
        let two_minutes = Duration::from_secs(120);
        for key in 0..8 {
            store.lock().append(append("b", key, two_minutes, now - 100_000)).unwrap();
        }
        store.lock().logs.values_mut().for_each(|log| log.retention.age = Duration::from_secs(10));
        assert_eq!(fill("c", now), 8);
        assert_eq!(store.lock().logs.len(), 1);
        store.lock().trim(&append("c", 0, hour, now).log, Cut::Whole);
        assert_eq!(store.lock().taken, 0);
    }

    #[test]
    fn keys_are_forgotten_after_the_window_and_not_before() {
        let window = Duration::from_secs(3600);
        let store = MemoryStore::bounded(ROOM, window);
        let say = |key| store.lock().append(append("a", key, window, unix_ms())).unwrap();
        let turn = || store.lock().seen.since = Instant::now().checked_sub(window).unwrap();
        let first = say(1);
        turn();
        assert_eq!(say(1), Appended { is_duplicate: true, ..first });
        turn();
        assert!(!say(1).is_duplicate);
    }
}
