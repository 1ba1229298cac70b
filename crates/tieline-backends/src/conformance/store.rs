//! What every store must do, as functions that take any: the suite that all engines pass.
//!
//! A test gives a [`Shelf`] of its engine and awaits [`store`]. A failure is a panic that says what was wrong, and for a random
//! history its seed. Nothing sleeps: what takes time is asked for again, at most [`PATIENCE`]. What only a file or a
//! server can suffer (other processes, full disks, kill -9) is tested beside the engine.

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tieline_core::store::{
    Append, AppendKey, Appended, Cut, Gap, Head, LogKey, MAX_BODY, Page, PageLimit, Refusal, Retention,
    Store, StoreError, Stored,
};
use tieline_core::unix_ms;
use tieline_proto::{GroupName, HubName, MessageId, Position, UserId};

use super::PATIENCE;

mod histories;

/// A handle that is on its way.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Arc<dyn Store>> + Send + 'a>>;

/// One store, empty at first, of which any number of handles can be opened, also after others were dropped.
pub trait Shelf: Send + Sync {
    /// Another handle to the same store.
    fn open(&self) -> Opening<'_>;
}

/// The whole suite; `shelf` makes another, empty store with each call.
pub async fn store<S: Shelf>(shelf: impl Fn() -> S) {
    offsets_and_pages(&shelf()).await;
    names_and_bodies(&shelf()).await;
    the_same_append_again(&shelf()).await;
    gaps(&shelf()).await;
    cuts(&shelf()).await;
    renewal(&shelf()).await;
    retention(&shelf()).await;
    many_writers(&shelf()).await;
    unheard_answers(&shelf()).await;
    for seed in 0..6 {
        histories::run(&shelf(), seed).await;
    }
}

/// Draws what no other append of this process has.
fn fresh_key() -> AppendKey {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    AppendKey(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)) << 64 | 0xabcd)
}

fn group(name: &str) -> LogKey {
    LogKey::Group(HubName::new("hub").expect("a hub's name"), GroupName::new(name).expect("a group's name"))
}

/// An append of this body, with a key of its own.
fn append(log: &LogKey, body: &[u8]) -> Append {
    let key = fresh_key();
    let id = MessageId::new(unix_ms(), key.0 >> 64);
    Append { log: log.clone(), key, id, body: body.into(), retention: Retention::default() }
}

/// Appends what must be new.
async fn put(store: &dyn Store, append: Append) -> Position {
    let appended = store.append(append).await.expect("the append is taken");
    assert!(!appended.is_duplicate, "it was said for the first time");
    appended.position
}

async fn all(store: &dyn Store, log: &LogKey) -> Page {
    page(store, log, None, PageLimit { count: usize::MAX, bytes: usize::MAX }).await
}

async fn page(store: &dyn Store, log: &LogKey, after: Option<Position>, limit: PageLimit) -> Page {
    store.read(log.clone(), after, limit).await.expect("the log can be read")
}

async fn head(store: &dyn Store, log: &LogKey) -> Option<Head> {
    store.heads(vec![log.clone()]).await.expect("heads can be read")[0]
}

fn bodies(page: &Page) -> Vec<&[u8]> {
    page.messages.iter().map(|message| &message.body[..]).collect()
}

/// Offsets begin at 1, without holes; a page ends at its limits, and the next one goes on from there; another handle sees the same.
pub async fn offsets_and_pages(shelf: &dyn Shelf) {
    let store = shelf.open().await;
    let (a, b) = (group("a"), group("b"));
    assert_eq!(all(&*store, &a).await, Page { head: None, gap: None, messages: Vec::new() });
    let mut epoch = 0;
    for number in 1..=10_u8 {
        let said = append(&a, &[number; 100]);
        let id = said.id;
        let at = put(&*store, said).await;
        assert_eq!(at.offset, u64::from(number));
        assert!(at.epoch > 0 && (epoch == 0 || epoch == at.epoch), "one epoch");
        epoch = at.epoch;
        let after = Position { epoch, offset: at.offset - 1 };
        let found = page(&*store, &a, Some(after), PageLimit::default()).await;
        let stored = Stored { offset: at.offset, id, body: [number; 100].into() };
        assert_eq!(found.messages, [stored], "what is acknowledged is read");
    }
    let head_b = put(&*store, append(&b, b"b")).await;
    assert!(head_b.offset == 1 && head_b.epoch != epoch, "each log has its numbers and its epoch");

    let other = shelf.open().await;
    assert_eq!(other.id(), store.id());
    drop(store);
    let heads = other.heads(vec![b.clone(), group("none"), a.clone(), b]).await.expect("heads can be read");
    let of_b = Some(Head { epoch: head_b.epoch, first: 1, last: 1 });
    assert_eq!(heads, [of_b, None, Some(Head { epoch, first: 1, last: 10 }), of_b]);
    assert_eq!(other.heads(Vec::new()).await, Ok(Vec::new()));

    for limit in
        [(3, usize::MAX), (usize::MAX, 399), (1, 1), (0, 0), (7, 1000), (10, 1000), (usize::MAX, usize::MAX)]
    {
        let limit = PageLimit { count: limit.0, bytes: limit.1 };
        let size = limit.count.min(limit.bytes / 100).clamp(1, 10);
        let mut after = None;
        let mut read = Vec::new();
        while read.len() < 10 {
            let part = page(&*other, &a, after, limit).await;
            assert_eq!((part.head, part.gap), (heads[2], None));
            assert_eq!(part.messages.len(), size.min(10 - read.len()), "{limit:?}");
            read.extend(part.messages.iter().map(|message| message.offset));
            after = read.last().map(|offset| Position { epoch, offset: *offset });
        }
        assert!(read.iter().copied().eq(1..=10));
        assert_eq!(page(&*other, &a, after, limit).await.messages, [], "nothing is behind the end");
    }
}

/// Names of any kind tell logs apart, and bodies come back as they were.
pub async fn names_and_bodies(shelf: &dyn Shelf) {
    let store = shelf.open().await;
    let hubs = ["h", "H", "a[1].b,c`_"].map(|hub| HubName::new(hub).expect("a hub's name"));
    let long = "\u{10348}".repeat(1024);
    let mut logs = Vec::new();
    for hub in hubs {
        for name in ["g", "G", "g ", "g/u", "%", "_", "ü", "u\u{308}", "a\0b", "a\0c", "'", "\\", &long] {
            logs.push(LogKey::Group(hub.clone(), GroupName::new(name).expect("a group's name")));
            logs.push(LogKey::Inbox(hub.clone(), UserId::new(name).expect("a user's name")));
        }
    }
    let body = |index: usize| match index {
        0 => Vec::new(),
        1 => (0..=255).collect(),
        2 => vec![0; 3 << 20],
        _ => index.to_string().into_bytes(),
    };
    for (index, log) in logs.iter().enumerate() {
        assert_eq!(put(&*store, append(log, &body(index))).await.offset, 1, "{log:?} is a log of its own");
    }
    for (index, log) in logs.iter().enumerate() {
        assert!(bodies(&all(&*store, log).await) == [&body(index)[..]], "{log:?}");
    }
    let too_large = append(&logs[0], &vec![0; MAX_BODY + 1]);
    assert_eq!(store.append(too_large).await, Err(StoreError::Refused(Refusal::TooLarge)));
    assert_eq!(put(&*store, append(&logs[0], b"next")).await.offset, 2, "what is refused leaves no hole");
}

/// The same append, said again, gives the place of the first time: at once, a hundredfold, by another handle, after it was trimmed.
pub async fn the_same_append_again(shelf: &dyn Shelf) {
    let (store, other) = (shelf.open().await, shelf.open().await);
    let log = group("a");
    let said = append(&log, b"once");
    let answers: Vec<_> = (0..100).map(|turn| [&store, &other][turn % 2].append(said.clone())).collect();
    let mut given = Vec::new();
    for answer in answers {
        given.push(answer.await.expect("the append is taken"));
    }
    assert_eq!(given.iter().filter(|appended| !appended.is_duplicate).count(), 1);
    assert!(given.iter().all(|appended| appended.position == given[0].position));
    let again = Appended { position: given[0].position, is_duplicate: true };

    let changed =
        Append { body: b"other".as_slice().into(), id: MessageId::new(unix_ms(), 5), ..said.clone() };
    assert_eq!(store.append(changed).await, Ok(again), "the key alone counts");
    assert_eq!(bodies(&all(&*store, &log).await), [b"once"]);
    let elsewhere = Append { log: group("b"), ..said.clone() };
    assert_eq!(put(&*store, elsewhere).await.offset, 1, "another log has not seen the key");

    put(&*store, append(&log, b"next")).await;
    store.trim(log.clone(), Cut::Through(again.position)).await.expect("the log is trimmed");
    assert_eq!(store.append(said.clone()).await, Ok(again), "a key outlives its message");
    drop((store, other));
    let store = shelf.open().await;
    assert_eq!(store.append(said.clone()).await, Ok(again), "and the handle");

    store.trim(log.clone(), Cut::Whole).await.expect("the log is dropped");
    let anew = put(&*store, said).await;
    assert!(anew.offset == 1 && anew.epoch != again.position.epoch, "a log that is made anew knows no keys");
}

/// What cannot be given whole is not given in part.
pub async fn gaps(shelf: &dyn Shelf) {
    let store = shelf.open().await;
    let log = group("a");
    let gap = async |after| {
        let found = page(&*store, &log, Some(after), PageLimit::default()).await;
        assert!(found.gap.is_none() || found.messages.is_empty(), "a gap, and messages all the same");
        found.gap
    };
    assert_eq!(gap(Position { epoch: 1, offset: 0 }).await, Some(Gap::Epoch));
    let mut at = Position { epoch: 0, offset: 0 };
    for body in [b"1", b"2", b"3"] {
        at = put(&*store, append(&log, body)).await;
    }
    let position = |offset| Position { offset, ..at };
    let epoch = if at.epoch == 1 { 2 } else { at.epoch - 1 };
    assert_eq!(gap(Position { epoch, offset: 1 }).await, Some(Gap::Epoch));
    assert_eq!(gap(position(4)).await, Some(Gap::Ahead));
    assert_eq!(gap(position(3)).await, None);
    store.trim(log.clone(), Cut::Through(position(2))).await.expect("the log is trimmed");
    assert_eq!(gap(position(0)).await, Some(Gap::Trimmed));
    assert_eq!(gap(position(1)).await, Some(Gap::Trimmed));
    assert_eq!(gap(position(2)).await, None);
    assert_eq!(bodies(&all(&*store, &log).await), [b"3"]);
}

/// A cut takes away the old end, never more than there is, and never of another epoch.
pub async fn cuts(shelf: &dyn Shelf) {
    let store = shelf.open().await;
    let log = group("a");
    let cut = async |cut| store.trim(log.clone(), cut).await.expect("the log is trimmed");
    cut(Cut::Whole).await;
    cut(Cut::Through(Position { epoch: 1, offset: 1 })).await;
    assert_eq!(head(&*store, &log).await, None, "a cut makes no log");
    let answers: Vec<_> =
        (0..1000_u32).map(|number| store.append(append(&log, &number.to_be_bytes()))).collect();
    let mut epoch = 0;
    for answer in answers {
        epoch = answer.await.expect("the append is taken").position.epoch;
    }
    cut(Cut::Through(Position { epoch: epoch ^ 1, offset: 5 })).await;
    assert_eq!(head(&*store, &log).await, Some(Head { epoch, first: 1, last: 1000 }));
    cut(Cut::Through(Position { epoch, offset: 900 })).await;
    assert_eq!(head(&*store, &log).await, Some(Head { epoch, first: 901, last: 1000 }));
    cut(Cut::Through(Position { epoch, offset: 3 })).await;
    assert_eq!(all(&*store, &log).await.messages.len(), 100, "a cut brings nothing back");
    cut(Cut::Through(Position { epoch, offset: 5000 })).await;
    assert_eq!(head(&*store, &log).await, Some(Head { epoch, first: 1001, last: 1000 }));
    assert_eq!(all(&*store, &log).await.messages, []);
    assert_eq!(put(&*store, append(&log, b"next")).await, Position { epoch, offset: 1001 });
    cut(Cut::Whole).await;
    assert_eq!(head(&*store, &log).await, None);
    let at = put(&*store, append(&log, b"new")).await;
    assert!(at.offset == 1 && at.epoch != epoch, "a log that is made anew has a new epoch");
    assert_eq!(bodies(&all(&*store, &log).await), [b"new"]);
}

/// A renewal keeps the messages and ends the epoch, once for all who want to end the same.
pub async fn renewal(shelf: &dyn Shelf) {
    let (store, other) = (shelf.open().await, shelf.open().await);
    let log = group("a");
    assert_eq!(store.renew(log.clone(), 1).await, Ok(None), "no log is made");
    put(&*store, append(&log, b"1")).await;
    let at = put(&*store, append(&log, b"2")).await;
    let renewals: Vec<_> =
        (0..20).map(|turn| [&store, &other][turn % 2].renew(log.clone(), at.epoch)).collect();
    let mut heads = HashSet::new();
    for renewal in renewals {
        let head = renewal.await.expect("the log is renewed").expect("there is a log");
        assert!(head.epoch != at.epoch && (head.first, head.last) == (1, 2));
        heads.insert(head.epoch);
    }
    assert_eq!(heads.len(), 1, "one of them renewed, the others learnt of it");
    let epoch = *heads.iter().next().expect("one");
    let found = page(&*other, &log, Some(at), PageLimit::default()).await;
    assert_eq!((found.gap, found.messages.len()), (Some(Gap::Epoch), 0), "old positions are worthless");
    assert_eq!(bodies(&all(&*store, &log).await), [b"1", b"2"]);
    assert_eq!(put(&*other, append(&log, b"3")).await, Position { epoch, offset: 3 });
}

/// What is within its log's retention stays; what is past it goes soon, whichever bound it is.
pub async fn retention(shelf: &dyn Shelf) {
    let store = shelf.open().await;
    let whole = Retention::default();
    let keep = |log: &LogKey, retention: Retention| Append { retention, ..append(log, &[7; 100]) };
    // Of twenty messages this many stay.
    for (name, retention, stay) in [
        ("count", Retention { count: 5, ..whole }, 5),
        ("one", Retention { count: 0, ..whole }, 1),
        ("bytes", Retention { bytes: 799, ..whole }, 7),
        ("tiny", Retention { bytes: 1, ..whole }, 1),
        ("both", Retention { bytes: 300, count: 2, ..whole }, 2),
        ("all", whole, 20),
        ("ages", Retention { age: Duration::MAX, ..whole }, 20),
    ] {
        let log = group(name);
        for offset in 1..=20 {
            put(&*store, keep(&log, retention)).await;
            let kept = all(&*store, &log).await;
            let wanted = stay.min(offset);
            assert!(kept.messages.len() >= wanted, "{name}: {} of {offset} are left", kept.messages.len());
        }
        let first = 21 - stay as u64;
        until(name, async || head(&*store, &log).await.is_some_and(|head| head.first == first)).await;
        assert_eq!(all(&*store, &log).await.messages.len(), stay, "{name}");
    }
    // A new bound holds for what is there already.
    put(&*store, keep(&group("all"), Retention { count: 3, ..whole })).await;
    until("a lower bound", async || all(&*store, &group("all")).await.messages.len() == 3).await;

    // Age counts from the time in the id, and nobody has to append for it; what is young stays.
    let (old, young) = (group("old"), group("young"));
    let hour = Retention { age: Duration::from_secs(3600), ..whole };
    let aged = |log, ms| Append { id: MessageId::new(unix_ms() - ms, 1), ..keep(log, hour) };
    for _ in 0..5 {
        put(&*store, aged(&old, 3_700_000)).await;
        put(&*store, aged(&young, 3_500_000)).await;
    }
    until("age", async || all(&*store, &old).await.messages.is_empty()).await;
    assert_eq!(all(&*store, &young).await.messages.len(), 5);
    // The log itself is still known, until it has been empty for long.
    let last = head(&*store, &old).await.expect("the log is there").last;
    assert_eq!(put(&*store, aged(&old, 0)).await.offset, last + 1);
}

/// Asks again until it is so.
async fn until(wish: &str, is_met: impl AsyncFn() -> bool) {
    let since = Instant::now();
    while !is_met().await {
        assert!(since.elapsed() < PATIENCE, "waited in vain: {wish}");
        tokio::task::yield_now().await;
    }
}

/// Sixteen tasks on two handles, each with many appends on their way at once, to four logs: no hole, nothing twice, nothing lost,
/// and each task's messages in its order.
pub async fn many_writers(shelf: &dyn Shelf) {
    const TASKS: u32 = 16;
    const EACH: u32 = 200;
    let handles = [shelf.open().await, shelf.open().await];
    let logs: Vec<LogKey> = (0..4).map(|log| group(&format!("log {log}"))).collect();
    let retention = Retention { count: u64::from(TASKS * EACH), ..Retention::default() };
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let (store, logs) = (Arc::clone(&handles[task as usize % 2]), logs.clone());
            tokio::spawn(async move {
                let say = |turn: u32| {
                    let log = &logs[(task + turn) as usize % logs.len()];
                    let body = [task.to_be_bytes(), turn.to_be_bytes()].concat();
                    store.append(Append { retention, ..append(log, &body) })
                };
                let answers: Vec<_> = (0..EACH).map(say).collect();
                let mut places = Vec::new();
                for answer in answers {
                    places.push(answer.await.expect("the append is taken").position);
                }
                places
            })
        })
        .collect();
    let mut places = Vec::new();
    for task in tasks {
        places.push(task.await.expect("the task ends well"));
    }
    let mut found = Vec::new();
    for log in &logs {
        let page = all(&*handles[0], log).await;
        assert!(
            page.messages.iter().map(|message| message.offset).eq(1..=u64::from(TASKS * EACH / 4)),
            "a hole"
        );
        found.push(page);
    }
    for (task, places) in (0..TASKS).zip(&places) {
        for (turn, place) in (0..EACH).zip(places) {
            let page = &found[(task + turn) as usize % logs.len()];
            let message = &page.messages[place.offset as usize - 1];
            assert_eq!(page.head.map(|head| head.epoch), Some(place.epoch));
            assert_eq!(
                message.body[..],
                [task.to_be_bytes(), turn.to_be_bytes()].concat(),
                "not where it was said to be"
            );
            assert!(turn < 4 || places[turn as usize - 4] < *place, "one task's appends changed their order");
        }
    }
}

/// Whoever drops an answer drops nothing else: what was asked happens, also when the handle is dropped right after.
pub async fn unheard_answers(shelf: &dyn Shelf) {
    let store = shelf.open().await;
    let log = group("a");
    for number in 0..100_u8 {
        drop(store.append(append(&log, &[number])));
    }
    drop(store);
    let store = shelf.open().await;
    until("unheard appends", async || all(&*store, &log).await.messages.len() == 100).await;
    assert!(
        all(&*store, &log)
            .await
            .messages
            .iter()
            .zip(0..)
            .all(|(message, number): (_, u8)| *message.body == [number])
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_core::store::MemoryStore;

    impl Shelf for MemoryStore {
        fn open(&self) -> Opening<'_> {
            Box::pin(async {
                let store: Arc<dyn Store> = Arc::new(self.clone());
                store
            })
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_memory() {
        store(MemoryStore::new).await;
    }
}
