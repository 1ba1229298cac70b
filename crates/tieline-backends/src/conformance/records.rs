//! What all records must do, as functions that take any engine: the suite that all engines pass.
//!
//! A test gives a [`Cabinet`] of its engine and awaits [`records`]. A failure is a panic that says what was wrong. Nothing sleeps:
//! what takes time is asked for again, at most [`PATIENCE`].

use std::collections::{BTreeMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tieline_core::records::{
    Change, Expect, MAX_KEY, MAX_LIST, MAX_VALUE, Outcome, Record, RecordKey, Records, Value, Version,
};
use tieline_core::store::{Refusal, StoreError};

use super::PATIENCE;
use super::dice::Dice;

/// A handle that is on its way.
pub type Opening<'a> = Pin<Box<dyn Future<Output = Arc<dyn Records>> + Send + 'a>>;

/// Records, none at first, of which any number of handles can be opened, also after others were dropped.
pub trait Cabinet: Send + Sync {
    /// Another handle to the same records.
    fn open(&self) -> Opening<'_>;
}

/// The whole suite; `cabinet` makes another, empty one with each call.
pub async fn records<C: Cabinet>(cabinet: impl Fn() -> C) {
    changes(&cabinet()).await;
    races(&cabinet()).await;
    lives(&cabinet()).await;
    lists(&cabinet()).await;
    for seed in 0..8 {
        history(&cabinet(), seed).await;
    }
}

fn key(text: &str) -> RecordKey {
    RecordKey::new(text).expect("a key")
}

fn value(bytes: &[u8]) -> Option<Value> {
    Some(Value { bytes: bytes.into(), lives: None })
}

async fn change(records: &dyn Records, key: &RecordKey, expect: Expect, to: Option<Value>) -> Outcome {
    records.compare_and_set(Change { key: key.clone(), expect, to }).await.expect("the change is looked at")
}

/// Makes a change that must be made.
async fn set(records: &dyn Records, key: &RecordKey, expect: Expect, to: Option<Value>) -> Option<Version> {
    match change(records, key, expect, to).await {
        Outcome::Done(version) => version,
        Outcome::Differs(found) => panic!("{key}: found {found:?}"),
    }
}

async fn get(records: &dyn Records, key: &RecordKey) -> Option<Record> {
    records.get(key.clone()).await.expect("the record can be read")
}

/// A change is made when it finds what it expects, and else tells what there is.
pub async fn changes(cabinet: &dyn Cabinet) {
    let records = cabinet.open().await;
    let a = key("a");
    assert_eq!(get(&*records, &a).await, None);
    let stale = Version(7);
    assert_eq!(change(&*records, &a, Expect::Version(stale), value(b"x")).await, Outcome::Differs(None));
    assert_eq!(set(&*records, &a, Expect::Nothing, None).await, None, "nothing is removed as nothing");
    let first = set(&*records, &a, Expect::Nothing, value(b"1")).await.expect("it has a version");
    let record = Record { version: first, value: b"1".as_slice().into() };
    assert_eq!(get(&*records, &a).await, Some(record.clone()));
    for expect in [Expect::Nothing, Expect::Version(stale)] {
        for to in [value(b"x"), None] {
            assert_eq!(change(&*records, &a, expect, to).await, Outcome::Differs(Some(record.clone())));
        }
    }
    let second = set(&*records, &a, Expect::Version(first), value(b"")).await.expect("it has a version");
    let third =
        set(&*records, &a, Expect::Anything, value(&vec![9; MAX_VALUE])).await.expect("it has a version");
    assert!(first != second && second != third);
    let other = cabinet.open().await;
    drop(records);
    assert!(
        get(&*other, &a)
            .await
            .is_some_and(|record| record.version == third && record.value.len() == MAX_VALUE)
    );
    set(&*other, &a, Expect::Version(third), None).await;
    assert_eq!(get(&*other, &a).await, None);
    let again = set(&*other, &a, Expect::Nothing, value(&vec![9; MAX_VALUE])).await;
    assert!(again.is_some_and(|again| again != third), "made again it is another one");

    let too_large = Change { key: a.clone(), expect: Expect::Anything, to: value(&vec![0; MAX_VALUE + 1]) };
    assert_eq!(other.compare_and_set(too_large).await, Err(StoreError::Refused(Refusal::TooLarge)));
    let long = key(&"k".repeat(MAX_KEY));
    set(&*other, &long, Expect::Nothing, value(b"long")).await;
    assert!(get(&*other, &long).await.is_some());
}

/// Of many that expect the same one wins; a counter that all raise misses nobody.
pub async fn races(cabinet: &dyn Cabinet) {
    const TASKS: u64 = 8;
    const EACH: u64 = 20;
    let handles = [cabinet.open().await, cabinet.open().await];
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let records = Arc::clone(&handles[task as usize % 2]);
            tokio::spawn(async move {
                let counter = key("counter");
                let (mut won, mut found) = (0, get(&*records, &counter).await);
                while won < EACH {
                    let count = found.as_ref().map_or(0, |record| {
                        u64::from_be_bytes(record.value[..].try_into().expect("a counter has 8 bytes"))
                    });
                    let expect = found.map_or(Expect::Nothing, |record| Expect::Version(record.version));
                    found = match change(&*records, &counter, expect, value(&(count + 1).to_be_bytes())).await
                    {
                        Outcome::Done(_) => {
                            won += 1;
                            get(&*records, &counter).await
                        }
                        Outcome::Differs(found) => found,
                    };
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the task ends well");
    }
    let counter = get(&*handles[0], &key("counter")).await.expect("there is a counter");
    assert_eq!(counter.value[..], (TASKS * EACH).to_be_bytes());

    let claims: Vec<_> = (0..20_u8)
        .map(|turn| {
            let claim = Change { key: key("claim"), expect: Expect::Nothing, to: value(&[turn]) };
            handles[turn as usize % 2].compare_and_set(claim)
        })
        .collect();
    let mut winners = 0;
    let mut seen = HashSet::new();
    for claim in claims {
        match claim.await.expect("the change is looked at") {
            Outcome::Done(version) => {
                winners += 1;
                seen.insert(version);
            }
            Outcome::Differs(found) => {
                seen.insert(found.map(|record| record.version));
            }
        }
    }
    assert_eq!((winners, seen.len()), (1, 1), "one won, and all the others saw who");
}

/// A record whose life is over is not there: not to be read, listed or expected.
pub async fn lives(cabinet: &dyn Cabinet) {
    let records = cabinet.open().await;
    let lives = |lives| Some(Value { bytes: b"x".as_slice().into(), lives: Some(lives) });
    let (over, short, long, endless) = (key("r/over"), key("r/short"), key("r/long"), key("r/endless"));
    let version =
        set(&*records, &over, Expect::Nothing, lives(Duration::ZERO)).await.expect("it has a version");
    assert_eq!(get(&*records, &over).await, None);
    assert_eq!(change(&*records, &over, Expect::Version(version), None).await, Outcome::Differs(None));
    set(&*records, &over, Expect::Nothing, lives(Duration::ZERO)).await;

    set(&*records, &long, Expect::Nothing, lives(Duration::from_secs(3600))).await;
    set(&*records, &endless, Expect::Nothing, lives(Duration::MAX)).await;
    set(&*records, &short, Expect::Nothing, lives(Duration::from_millis(50))).await;
    let since = Instant::now();
    while get(&*records, &short).await.is_some() {
        assert!(since.elapsed() < PATIENCE, "a life does not end");
        tokio::task::yield_now().await;
    }
    assert!(since.elapsed() > Duration::from_millis(20), "a life ended early");
    let left = records.list("r/".to_owned(), None, 10).await.expect("they can be listed");
    assert_eq!(left.into_iter().map(|(key, _)| key).collect::<Vec<_>>(), [endless, long.clone()]);
    // A change without an end takes the end away, and makes a new life.
    set(&*records, &short, Expect::Nothing, value(b"again")).await;
    set(&*records, &long, Expect::Anything, lives(Duration::ZERO)).await;
    assert!(get(&*records, &short).await.is_some() && get(&*records, &long).await.is_none());
}

/// A list has what begins with the prefix and nothing else, in the order of bytes, in pages that fit together.
pub async fn lists(cabinet: &dyn Cabinet) {
    let records = cabinet.open().await;
    let mut texts = [
        "a",
        "a/",
        "a/1",
        "a/10",
        "a/2",
        "a/B",
        "a/a",
        "a/ü",
        "a/\u{10ffff}",
        "a/\u{10ffff}x",
        "a0",
        "A/1",
        "a%b",
        "a_b",
        "a\\",
        "b",
    ]
    .map(str::to_owned)
    .to_vec();
    for text in &texts {
        set(&*records, &key(text), Expect::Nothing, value(text.as_bytes())).await;
    }
    texts.sort();
    for prefix in ["", "a", "a/", "a/1", "a/\u{10ffff}", "a%", "a_", "a\\", "b", "c", "A"] {
        let wanted: Vec<&String> = texts.iter().filter(|text| text.starts_with(prefix)).collect();
        for count in [1, 3, 100, usize::MAX] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = records.list(prefix.to_owned(), after, count).await.expect("they can be listed");
                assert!(page.iter().all(|(key, record)| *record.value == *key.as_str().as_bytes()));
                let is_last = page.len() < count;
                after = page.last().map(|(key, _)| key.clone());
                found.extend(page.into_iter().map(|(key, _)| key.as_str().to_owned()));
                if is_last || after.is_none() {
                    break;
                }
            }
            assert_eq!(found.iter().collect::<Vec<_>>(), wanted, "{prefix} by {count}");
        }
    }
    let behind =
        async |after| records.list("a/".to_owned(), Some(key(after)), 1).await.expect("they can be listed");
    assert_eq!(behind("A").await[0].0, key("a/"), "from before the prefix on it begins at the prefix");
    assert_eq!(behind("b").await, []);
    for number in 0..=MAX_LIST {
        drop(records.compare_and_set(Change {
            key: key(&format!("n/{number}")),
            expect: Expect::Anything,
            to: value(b""),
        }));
    }
    set(&*records, &key("n/last"), Expect::Nothing, value(b"")).await;
    let most = records.list("n/".to_owned(), None, usize::MAX).await.expect("they can be listed");
    assert_eq!(most.len(), MAX_LIST, "a list is bounded");
}

/// A random history against a model, by two handles that come and go.
async fn history(cabinet: &dyn Cabinet, seed: u64) {
    let mut dice = Dice(seed);
    let mut handles = [cabinet.open().await, cabinet.open().await];
    let keys: Vec<RecordKey> = (0..5).map(|number| key(&format!("k{number}"))).collect();
    let mut model: BTreeMap<RecordKey, Record> = BTreeMap::new();
    for step in 0..300 {
        let which = dice.below(2) as usize;
        let records = &handles[which];
        let key = dice.of(&keys);
        let found = model.get(key).cloned();
        match dice.below(20) {
            0..14 => {
                let versions: Vec<Version> = model.values().map(|record| record.version).collect();
                let expect = match dice.below(4) {
                    0 => Expect::Anything,
                    1 => Expect::Nothing,
                    2 => found.as_ref().map_or(Expect::Nothing, |record| Expect::Version(record.version)),
                    _ if versions.is_empty() => Expect::Version(Version(1)),
                    _ => Expect::Version(*dice.of(&versions)),
                };
                let bytes: Arc<[u8]> = dice.roll().to_be_bytes().into();
                let to = (dice.below(3) > 0).then(|| Value { bytes: Arc::clone(&bytes), lives: None });
                let is_expected = match expect {
                    Expect::Anything => true,
                    Expect::Nothing => found.is_none(),
                    Expect::Version(version) => {
                        found.as_ref().is_some_and(|record| record.version == version)
                    }
                };
                let is_removal = to.is_none();
                match change(&**records, key, expect, to).await {
                    Outcome::Differs(differs) => {
                        assert!(!is_expected && differs == found, "seed {seed}, step {step}")
                    }
                    Outcome::Done(version) => {
                        assert!(is_expected && version.is_none() == is_removal, "seed {seed}, step {step}");
                        match version {
                            None => drop(model.remove(key)),
                            Some(version) => {
                                drop(model.insert(key.clone(), Record { version, value: bytes }))
                            }
                        }
                    }
                }
            }
            14..17 => assert_eq!(get(&**records, key).await, found, "seed {seed}, step {step}"),
            17..19 => {
                let all = records.list("k".to_owned(), None, 100).await.expect("they can be listed");
                assert!(all.into_iter().eq(model.clone()), "seed {seed}, step {step}");
            }
            _ => handles[which] = cabinet.open().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tieline_core::records::MemoryRecords;

    impl Cabinet for MemoryRecords {
        fn open(&self) -> Opening<'_> {
            Box::pin(async {
                let records: Arc<dyn Records> = Arc::new(self.clone());
                records
            })
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn in_memory() {
        records(MemoryRecords::new).await;
    }
}
