//! A store that answers when the scheduler says so, in any order, and that refuses and forgets to answer by the dice.

use std::sync::{Arc, Mutex, MutexGuard};

use tieline_core::logs::Engine;
use tieline_core::records::MemoryRecords;
use tieline_core::store::{
    Answer, Append, Appended, Cut, Head, LogKey, MemoryStore, Page, PageLimit, Refusal, Store, StoreError,
    StoreId,
};
use tieline_judge::Dice;
use tieline_proto::Position;
use tokio::sync::oneshot;

/// The store of all nodes of a run. A clone is the same.
#[derive(Clone)]
pub(super) struct SlowStore {
    store: MemoryStore,
    moods: Arc<Mutex<Moods>>,
}

struct Moods {
    dice: Dice,
    /// Answers in a hundred that are none.
    failures: usize,
    /// Answers that wait to be given.
    waiting: Vec<oneshot::Sender<()>>,
    is_well: bool,
}

impl SlowStore {
    pub(super) fn new(seed: u64, failures: usize) -> Self {
        let moods = Moods { dice: Dice::new(seed), failures, waiting: Vec::new(), is_well: false };
        SlowStore { store: MemoryStore::new(), moods: Arc::new(Mutex::new(moods)) }
    }

    pub(super) fn engine(&self) -> Engine {
        Engine { store: Arc::new(self.clone()), records: Arc::new(MemoryRecords::new()) }
    }

    fn moods(&self) -> MutexGuard<'_, Moods> {
        self.moods.lock().expect("no call to the store panics")
    }

    /// Some answer is given.
    pub(super) fn answer(&self, dice: &mut Dice) {
        let mut moods = self.moods();
        if !moods.waiting.is_empty() {
            let which = dice.below(moods.waiting.len());
            // Who asked may be gone.
            let _ = moods.waiting.swap_remove(which).send(());
        }
    }

    /// All answers are given, and from now on at once.
    pub(super) fn get_well(&self) {
        let mut moods = self.moods();
        moods.is_well = true;
        for waiting in std::mem::take(&mut moods.waiting) {
            let _ = waiting.send(());
        }
    }

    fn slowly<T: Send + 'static>(&self, ask: impl FnOnce(&MemoryStore) -> Answer<T>) -> Answer<T> {
        let mut moods = self.moods();
        if moods.is_well {
            return ask(&self.store);
        }
        let failures = moods.failures;
        let fate = if moods.dice.chance(failures) { moods.dice.below(3) } else { 3 };
        let answer: Answer<T> = match fate {
            0 => failed(Refusal::Failed("it is not in the mood".into()).into()),
            1 => failed(StoreError::Unknown("it was not done".into())),
            2 => {
                drop(ask(&self.store));
                failed(StoreError::Unknown("it was done".into()))
            }
            _ => ask(&self.store),
        };
        let (sender, given) = oneshot::channel();
        moods.waiting.push(sender);
        Box::pin(async move {
            // It is given, too, where nobody is left to say so.
            let _ = given.await;
            answer.await
        })
    }
}

fn failed<T: Send + 'static>(error: StoreError) -> Answer<T> {
    Box::pin(std::future::ready(Err(error)))
}

impl Store for SlowStore {
    fn id(&self) -> StoreId {
        self.store.id()
    }

    fn append(&self, append: Append) -> Answer<Appended> {
        self.slowly(|store| store.append(append))
    }

    fn read(&self, log: LogKey, after: Option<Position>, limit: PageLimit) -> Answer<Page> {
        self.slowly(|store| store.read(log, after, limit))
    }

    fn heads(&self, logs: Vec<LogKey>) -> Answer<Vec<Option<Head>>> {
        self.slowly(|store| store.heads(logs))
    }

    fn trim(&self, log: LogKey, cut: Cut) -> Answer<()> {
        self.slowly(|store| store.trim(log, cut))
    }

    fn renew(&self, log: LogKey, epoch: u64) -> Answer<Option<Head>> {
        self.slowly(|store| store.renew(log, epoch))
    }
}
