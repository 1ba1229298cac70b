//! [`Desk`]: what is to be asked of a table, what of it is not settled yet, and whom this has to be told. Without I/O and without
//! locks of its own. Tested in `directory/asked/tests.rs`.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tieline_proto::{HubName, Incarnation, UserId};

use super::PATIENCE;

/// How long those who are told may take, before the table is asked again who has to be.
const AGAIN: Duration = Duration::from_secs(1);

/// How long after an answer that did not say all the table is asked again.
const LATER: Duration = Duration::from_millis(200);

type Key = (HubName, UserId);

/// What the engine is to ask.
pub(super) enum Wish {
    /// Where a user is.
    Look(HubName, UserId),
    /// That nothing is remembered of a user any more.
    Forget(HubName, UserId),
    /// That this node claims a user, or does no longer, as it is then; whether the number of the claim is to stay.
    Settle(HubName, UserId, bool),
}

/// A user of this node of whom not all know who have to.
struct Unsettled {
    /// What those wait for who wait for it.
    number: u64,
    since: Instant,
    /// Whether it is stated to all nodes.
    is_stated: bool,
    /// Whether the engine has been given it and has not answered.
    is_asked: bool,
    /// Whether it waits in the queue.
    is_queued: bool,
    /// Whether it has changed since the engine was given it.
    has_changed: bool,
    /// Whether the claim keeps its number.
    is_exact: bool,
    /// Under what the nodes were told that have to answer, and when; 0 where none has to.
    round: u64,
    told: Option<Instant>,
    /// Those that have not answered.
    missing: SmallVec<[Incarnation; 2]>,
}

/// The table's business that is not done.
#[derive(Default)]
pub(super) struct Desk {
    wishes: VecDeque<Wish>,
    unsettled: HashMap<Key, Unsettled>,
    /// What is waited for: the number, and the version of this node's statements by which all know of it as well.
    waited: BTreeMap<u64, Option<u64>>,
    /// Of which user a round is.
    rounds: HashMap<u64, Key>,
    /// Which nodes are to be told that what they remember is old; under 0 where they need not answer.
    words: HashMap<Incarnation, Vec<(u64, HubName, UserId)>>,
    /// Whether all nodes are to be told that all that they remember may be old.
    everything: bool,
    /// Users to be looked up again, and since when.
    later: Vec<(Instant, Key)>,
    /// The last number that was given to a round, or to who waits.
    last: u64,
}

impl Desk {
    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    pub(super) fn last(&self) -> u64 {
        self.last
    }

    pub(super) fn has_wishes(&self) -> bool {
        !self.wishes.is_empty()
    }

    /// The next wish, which counts as asked from now on.
    pub(super) fn next(&mut self) -> Option<Wish> {
        loop {
            match self.wishes.pop_front()? {
                Wish::Settle(hub, user, _) => {
                    let key = (hub, user);
                    let Some(record) = self.unsettled.get_mut(&key) else { continue };
                    (record.is_queued, record.is_asked, record.has_changed) = (false, true, false);
                    return Some(Wish::Settle(key.0, key.1, record.is_exact));
                }
                wish => return Some(wish),
            }
        }
    }

    pub(super) fn look(&mut self, hub: &HubName, user: &UserId) {
        self.wishes.push_back(Wish::Look(hub.clone(), user.clone()));
    }

    pub(super) fn look_later(&mut self, hub: &HubName, user: &UserId) {
        self.later.push((Instant::now(), (hub.clone(), user.clone())));
    }

    pub(super) fn forget(&mut self, hub: HubName, user: UserId) {
        self.wishes.push_back(Wish::Forget(hub, user));
    }

    /// A claim was made. Returns what its connection has to wait for; 0 where all know already.
    pub(super) fn claim(&mut self, hub: &HubName, user: &UserId, is_first: bool, now: Instant) -> u64 {
        let was_settled = !is_first && !self.unsettled.contains_key(&(hub.clone(), user.clone()));
        let record = self.open(hub, user, now);
        record.is_exact = false;
        if was_settled { 0 } else { record.number }
    }

    /// The claims of this node to a user have changed, and nobody waits for it.
    pub(super) fn change(&mut self, hub: &HubName, user: &UserId, now: Instant) {
        self.open(hub, user, now).is_exact = true;
    }

    fn open(&mut self, hub: &HubName, user: &UserId, now: Instant) -> &mut Unsettled {
        let key = (hub.clone(), user.clone());
        if !self.unsettled.contains_key(&key) {
            let number = self.number();
            self.waited.insert(number, None);
            let record = Unsettled {
                number,
                since: now,
                is_stated: false,
                is_asked: false,
                is_queued: false,
                has_changed: false,
                is_exact: true,
                round: 0,
                told: None,
                missing: SmallVec::new(),
            };
            self.unsettled.insert(key.clone(), record);
        }
        let record = self.unsettled.get_mut(&key).expect("it is there now");
        if record.is_asked {
            record.has_changed = true;
        } else if !record.is_queued {
            record.is_queued = true;
            // Who was told of it before is told again.
            self.rounds.remove(&std::mem::take(&mut record.round));
            self.wishes.push_back(Wish::Settle(hub.clone(), user.clone(), false));
        }
        record
    }

    /// The table has a claim, and these nodes have to be told. Returns whether it is done.
    pub(super) fn claimed(
        &mut self,
        hub: &HubName,
        user: &UserId,
        to_tell: &[Incarnation],
        now: Instant,
    ) -> bool {
        let key = (hub.clone(), user.clone());
        let round = self.number();
        let Some(record) = self.answered(&key) else { return false };
        // What the table has made of the number stays.
        record.is_exact = true;
        let before = std::mem::replace(&mut record.round, if to_tell.is_empty() { 0 } else { round });
        record.told = Some(now);
        record.missing = to_tell.iter().copied().collect();
        self.rounds.remove(&before);
        if to_tell.is_empty() {
            return true;
        }
        self.rounds.insert(round, key);
        for node in to_tell {
            self.words.entry(*node).or_default().push((round, hub.clone(), user.clone()));
        }
        false
    }

    /// The table has no claim of this node any more, and these nodes are to know. Returns whether that is so still.
    pub(super) fn released(&mut self, hub: &HubName, user: &UserId, to_tell: &[Incarnation]) -> bool {
        let key = (hub.clone(), user.clone());
        for node in to_tell {
            self.words.entry(*node).or_default().push((0, hub.clone(), user.clone()));
        }
        let Some(record) = self.answered(&key) else { return false };
        record.missing.clear();
        true
    }

    /// The engine has answered. Nothing where it has to be asked again.
    fn answered(&mut self, key: &Key) -> Option<&mut Unsettled> {
        let record = self.unsettled.get_mut(key)?;
        record.is_asked = false;
        if record.has_changed {
            record.is_queued = true;
            self.wishes.push_back(Wish::Settle(key.0.clone(), key.1.clone(), false));
            return None;
        }
        Some(record)
    }

    /// Nodes have answered what they were told under these numbers. Returns what is done.
    pub(super) fn heard(&mut self, node: Incarnation, rounds: &[u64]) -> Vec<Key> {
        let mut done = Vec::new();
        for round in rounds {
            let Some(key) = self.rounds.get(round) else { continue };
            let Some(record) = self.unsettled.get_mut(key).filter(|record| record.round == *round) else {
                continue;
            };
            record.missing.retain(|missing| *missing != node);
            if record.missing.is_empty() {
                done.push(key.clone());
            }
        }
        done
    }

    /// A node is dead: it need not answer. Returns what is done.
    pub(super) fn forget_node(&mut self, node: Incarnation) -> Vec<Key> {
        self.words.remove(&node);
        let mut done = Vec::new();
        for (key, record) in &mut self.unsettled {
            if record.missing.contains(&node) {
                record.missing.retain(|missing| *missing != node);
                if record.missing.is_empty() {
                    done.push(key.clone());
                }
            }
        }
        done
    }

    /// Takes out what is done, unless there is more to do. Returns whether it was stated to all nodes.
    pub(super) fn settle(&mut self, hub: &HubName, user: &UserId) -> bool {
        let key = (hub.clone(), user.clone());
        let Some(record) = self.unsettled.get(&key) else { return false };
        if record.is_asked || record.is_queued || !record.missing.is_empty() {
            return false;
        }
        let (number, round, is_stated) = (record.number, record.round, record.is_stated);
        self.waited.remove(&number);
        self.rounds.remove(&round);
        self.unsettled.remove(&key);
        is_stated
    }

    pub(super) fn is_settled(&self, number: u64, read: u64) -> bool {
        self.waited.get(&number).is_none_or(|version| version.is_some_and(|version| version <= read))
    }

    pub(super) fn are_settled(&self, number: u64, read: u64) -> bool {
        self.waited.range(..=number).all(|(_, version)| version.is_some_and(|version| version <= read))
    }

    /// Claims that are to be stated to all nodes: they wait for too long, or for a table that is away.
    pub(super) fn late(&self, now: Instant, is_up: bool) -> Vec<Key> {
        let is_late = |record: &Unsettled| {
            !record.is_stated && (!is_up || now.saturating_duration_since(record.since) >= PATIENCE)
        };
        let late = self.unsettled.iter().filter(|(_, record)| is_late(record));
        late.map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn is_stated(&self, hub: &HubName, user: &UserId) -> bool {
        self.unsettled.get(&(hub.clone(), user.clone())).is_some_and(|record| record.is_stated)
    }

    /// Whether it is neither settled nor stated.
    pub(super) fn is_to_be_stated(&self, hub: &HubName, user: &UserId) -> bool {
        self.unsettled.get(&(hub.clone(), user.clone())).is_some_and(|record| !record.is_stated)
    }

    /// It is stated to all nodes, who know when they have read this version.
    pub(super) fn stated(&mut self, hub: &HubName, user: &UserId, version: u64) {
        if let Some(record) = self.unsettled.get_mut(&(hub.clone(), user.clone())) {
            record.is_stated = true;
            self.waited.insert(record.number, Some(version));
        }
    }

    /// Asks again what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        let is_due = |since: Instant, after: Duration| now.saturating_duration_since(since) >= after;
        let (due, later) = self.later.drain(..).partition(|(since, _)| is_due(*since, LATER));
        self.later = later;
        let due: Vec<(Instant, Key)> = due;
        self.wishes.extend(due.into_iter().map(|(_, (hub, user))| Wish::Look(hub, user)));
        for ((hub, user), record) in &mut self.unsettled {
            let is_waiting = !record.is_asked && !record.is_queued;
            if is_waiting && record.told.is_some_and(|told| is_due(told, AGAIN)) {
                record.is_queued = true;
                self.wishes.push_back(Wish::Settle(hub.clone(), user.clone(), true));
            }
        }
    }

    /// The table is there, and has what is settled: the rest is asked.
    pub(super) fn enter(&mut self) {
        self.everything = true;
        for ((hub, user), record) in &mut self.unsettled {
            if !record.is_queued {
                record.is_queued = true;
                self.wishes.push_back(Wish::Settle(hub.clone(), user.clone(), true));
            }
        }
    }

    /// The table is away: nothing is asked, and nothing was that was not answered.
    pub(super) fn leave(&mut self) {
        self.wishes.clear();
        self.later.clear();
        for record in self.unsettled.values_mut() {
            (record.is_asked, record.is_queued) = (false, false);
        }
    }

    /// Whether nothing is left to be done or waited for.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        self.wishes.is_empty()
            && self.unsettled.is_empty()
            && self.waited.is_empty()
            && self.rounds.is_empty()
    }

    pub(super) fn take_everything(&mut self) -> bool {
        std::mem::take(&mut self.everything)
    }

    pub(super) fn take_words(&mut self) -> HashMap<Incarnation, Vec<(u64, HubName, UserId)>> {
        std::mem::take(&mut self.words)
    }
}
