//! Random histories of a store against a model: everything that can be asked, by two handles that come and go, over several logs.

use std::collections::HashMap;
use std::fmt::Write;

use tieline_core::store::{Append, AppendKey, Appended, Cut, Head, LogKey, PageLimit, Retention, Stored};
use tieline_proto::Position;

use super::{Shelf, append, group, page};
use crate::conformance::dice::Dice;

/// Steps of one history.
const STEPS: usize = 300;

/// What a log should be.
struct Model {
    epoch: u64,
    /// All messages there ever were.
    messages: Vec<Stored>,
    /// Where it was cut.
    first: u64,
    /// What it keeps, by count; at most so many have been lost to it.
    count: u64,
    /// What was lost to the retention is lost for good: the least count there was for each end.
    trimmed: u64,
    keys: HashMap<AppendKey, u64>,
}

impl Model {
    fn last(&self) -> u64 {
        self.messages.len() as u64
    }

    /// Checks a head: nothing is kept that was cut, nothing trimmed that was within retention.
    fn check(&self, head: Head) {
        assert_eq!((head.epoch, head.last), (self.epoch, self.last()));
        let most = self.first.max(self.trimmed);
        assert!(
            (self.first..=most).contains(&head.first),
            "first is {}, not in {}..={most}",
            head.first,
            self.first
        );
    }
}

/// Runs the history of this seed.
pub(super) async fn run(shelf: &dyn Shelf, seed: u64) {
    let mut told = Story { seed, text: String::new() };
    let mut dice = Dice(seed);
    let mut handles = [shelf.open().await, shelf.open().await];
    let logs: Vec<LogKey> = (0..3).map(|log| group(&format!("log {log}"))).collect();
    let mut models: HashMap<&LogKey, Model> = HashMap::new();
    for _ in 0..STEPS {
        let log = dice.of(&logs);
        let which = dice.below(2) as usize;
        let store = &handles[which];
        let model = models.get(log);
        let step = dice.below(100);
        let _ = write!(told.text, "{step} by {which} on {}; ", log.to_text());
        match step {
            0..45 => {
                let count = *dice.of(&[1, 5, 1000]);
                let body = dice.roll().to_be_bytes();
                let said =
                    Append { retention: Retention { count, ..Retention::default() }, ..append(log, &body) };
                let given = store.append(said.clone()).await.expect("the append is taken");
                let model = models.entry(log).or_insert_with(|| Model {
                    epoch: given.position.epoch,
                    messages: Vec::new(),
                    first: 1,
                    count,
                    trimmed: 1,
                    keys: HashMap::new(),
                });
                let offset = model.last() + 1;
                assert_eq!(given.position, Position { epoch: model.epoch, offset });
                assert!(!given.is_duplicate);
                model.messages.push(Stored { offset, id: said.id, body: said.body });
                model.keys.insert(said.key, offset);
                model.count = count;
                model.trimmed = model.trimmed.max((offset + 1).saturating_sub(count));
            }
            45..60 => {
                let Some(model) = model else { continue };
                let keys: Vec<_> = model.keys.iter().collect();
                let (key, offset) = *dice.of(&keys);
                let said = Append { key: *key, ..append(log, b"again") };
                let position = Position { epoch: model.epoch, offset: *offset };
                assert_eq!(store.append(said).await, Ok(Appended { position, is_duplicate: true }));
            }
            60..80 => {
                let limit =
                    PageLimit { count: 1 + dice.below(20) as usize, bytes: 1 + dice.below(100) as usize };
                let epoch = if dice.below(10) == 0 { 1 } else { model.map_or(1, |model| model.epoch) };
                let offset = dice.below(model.map_or(0, Model::last) + 3);
                let after = (dice.below(4) > 0).then_some(Position { epoch, offset });
                let found = page(&**store, log, after, limit).await;
                assert_eq!(found.head.is_some(), model.is_some());
                if let (Some(head), Some(model)) = (found.head, model) {
                    model.check(head);
                    match Head::start(Some(head), after) {
                        Err(gap) => assert_eq!((found.gap, found.messages.len()), (Some(gap), 0)),
                        Ok(start) => {
                            let most = limit
                                .count
                                .min((limit.bytes / 8).max(1))
                                .min((head.last + 1 - start) as usize);
                            assert_eq!(found.messages[..], model.messages[start as usize - 1..][..most]);
                        }
                    }
                }
            }
            80..88 => {
                let Some(model) = models.get_mut(log) else { continue };
                let offset = dice.below(model.last() + 3);
                let epoch = if dice.below(5) == 0 { 1 } else { model.epoch };
                store
                    .trim(log.clone(), Cut::Through(Position { epoch, offset }))
                    .await
                    .expect("it is trimmed");
                if epoch == model.epoch {
                    model.first = model.first.max(offset.min(model.last()) + 1);
                }
            }
            88..91 => {
                store.trim(log.clone(), Cut::Whole).await.expect("it is dropped");
                models.remove(log);
            }
            91..94 => {
                let epoch = if dice.below(3) == 0 { 1 } else { model.map_or(1, |model| model.epoch) };
                let head = store.renew(log.clone(), epoch).await.expect("it is renewed");
                assert_eq!(head.is_some(), model.is_some());
                if let (Some(head), Some(model)) = (head, models.get_mut(log)) {
                    assert_eq!(head.epoch == model.epoch, epoch != model.epoch);
                    model.epoch = head.epoch;
                    model.check(head);
                }
            }
            94..98 => {
                let heads = store.heads(logs.clone()).await.expect("heads can be read");
                for (log, head) in logs.iter().zip(heads) {
                    assert_eq!(head.is_some(), models.contains_key(log));
                    if let (Some(head), Some(model)) = (head, models.get(log)) {
                        model.check(head);
                    }
                }
            }
            _ => handles[which] = shelf.open().await,
        }
    }
    told.text.clear();
}

/// Tells of a history that failed when it is dropped before its end.
struct Story {
    seed: u64,
    text: String,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("history of seed {}: {}", self.seed, self.text);
        }
    }
}
