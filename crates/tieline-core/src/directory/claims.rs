//! [`Claims`]: the claims of all nodes to something of a hub, each with its number: to users ([`Replicated`](super::Replicated)),
//! and to the one place of a user who may have no more ([`Logins`](crate::logins::Logins)).
//!
//! What a shard asks is one lookup in a table in memory. The table is written by the shards for this node's own claims and
//! by the cluster's task for the others'; both under the lock of one entry, so that a claim's number is higher than all that
//! the entry has. Tested in `cluster/copies/tests.rs`: three nodes, with interleavings of claims, releases, losses and deaths.

use std::borrow::Borrow;
use std::hash::Hash;

use dashmap::DashMap;
use smallvec::SmallVec;
use tieline_proto::{HubName, Incarnation};

use super::{Holder, Holders, place};

/// What is claimed of one thing.
#[derive(Debug, Default)]
struct Entry {
    /// Newest first.
    holders: Holders,
    /// The claims of this node, one for each connection; the highest is in `holders`.
    own: SmallVec<[Own; 1]>,
}

/// A claim of this node.
#[derive(Clone, Copy, Debug)]
struct Own {
    /// The number that its release names.
    name: u64,
    /// Its number among all claims, which is another where somebody who knew of more claims has raised it.
    number: u64,
}

impl Entry {
    fn set(&mut self, node: Incarnation, claim: Option<u64>) {
        place(&mut self.holders, node, claim);
    }

    fn newest_own(&self) -> Option<u64> {
        self.own.iter().map(|own| own.number).max()
    }

    fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

/// The claims in one hub.
type Hub<K> = DashMap<K, Entry>;

/// The claims to things named by `K`.
pub(crate) struct Claims<K> {
    me: Incarnation,
    hubs: DashMap<HubName, Hub<K>>,
}

impl<K: Clone + Eq + Hash> Claims<K> {
    pub(crate) fn new(me: Incarnation) -> Self {
        Claims { me, hubs: DashMap::new() }
    }

    /// A claim of this node, of a number that `number` gives for the newest that is known. `state` is called with it and with
    /// the claims that are known now under the entry's lock, so that what is stated has the order of what is entered.
    pub(crate) fn claim<T>(
        &self,
        hub: &HubName,
        key: &K,
        number: impl FnOnce(Option<&Holder>) -> u64,
        state: impl FnOnce(u64, Claim<'_>) -> T,
    ) -> (u64, T) {
        self.of(hub, |claims| {
            let mut entry = claims.entry(key.clone()).or_default();
            let number = number(entry.holders.first());
            entry.own.push(Own { name: number, number });
            entry.set(self.me, Some(number));
            let is_first = entry.own.len() == 1;
            (number, state(number, Claim { is_first, holders: &entry.holders }))
        })
    }

    /// Somebody who knows more gives the claims of this node that have a number another one.
    pub(crate) fn renumber(&self, hub: &HubName, key: &K, from: u64, to: u64) {
        if let Some(claims) = self.hubs.get(hub)
            && let Some(mut entry) = claims.get_mut(key)
        {
            entry.own.iter_mut().filter(|own| own.number == from).for_each(|own| own.number = to);
            let newest = entry.newest_own();
            entry.set(self.me, newest);
        }
    }

    /// Looks at the claims to something with its lock held: at the newest of this node, and at all. Gives all of this node's the
    /// number that `look` returns, if it does.
    pub(crate) fn revise(
        &self,
        hub: &HubName,
        key: &K,
        look: impl FnOnce(Option<u64>, &[Holder]) -> Option<u64>,
    ) {
        if let Some(claims) = self.hubs.get(hub)
            && let Some(mut entry) = claims.get_mut(key)
        {
            if let Some(number) = look(entry.newest_own(), &entry.holders)
                && !entry.own.is_empty()
            {
                entry.own.iter_mut().for_each(|own| own.number = number);
                entry.set(self.me, Some(number));
            }
        } else {
            look(None, &[]);
        }
    }

    /// Whether this node claims it.
    pub(crate) fn is_own<Q: Eq + Hash + ?Sized>(&self, hub: &HubName, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        let is_own = |claims: &Hub<K>| claims.get(key).is_some_and(|entry| !entry.own.is_empty());
        self.hubs.get(hub).is_some_and(|claims| is_own(&claims))
    }

    /// All that this node claims.
    pub(crate) fn all_own(&self) -> Vec<(HubName, K)> {
        let mut all = Vec::new();
        for claims in &self.hubs {
            let own = claims.iter().filter(|entry| !entry.own.is_empty());
            all.extend(own.map(|entry| (claims.key().clone(), entry.key().clone())));
        }
        all
    }

    /// Takes back a claim of this node, by the number that it was given when it was made. `state` is called, under the entry's lock,
    /// with the newest of this node that is left and all that are; not at all where the claim is not this node's.
    pub(crate) fn release(
        &self,
        hub: &HubName,
        key: &K,
        name: u64,
        state: impl FnOnce(Option<u64>, &[Holder]),
    ) {
        let Some(claims) = self.hubs.get(hub) else { return };
        if let Some(mut entry) = claims.get_mut(key)
            && let Some(index) = entry.own.iter().position(|own| own.name == name)
        {
            entry.own.swap_remove(index);
            let newest = entry.newest_own();
            entry.set(self.me, newest);
            state(newest, &entry.holders);
        }
        claims.remove_if(key, |_, entry| entry.is_empty());
    }

    /// Another node states a claim, or with none that it has none any more. Returns whether this node has claims that are not
    /// the newest.
    pub(crate) fn stated(&self, hub: &HubName, key: &K, node: Incarnation, claim: Option<u64>) -> bool {
        if claim.is_some() {
            return self.of(hub, |claims| {
                let mut entry = claims.entry(key.clone()).or_default();
                entry.set(node, claim);
                let newest = entry.holders.first().map(|holder| holder.node);
                !entry.own.is_empty() && newest != Some(self.me)
            });
        }
        let Some(claims) = self.hubs.get(hub) else { return false };
        if let Some(mut entry) = claims.get_mut(key) {
            entry.set(node, None);
        }
        claims.remove_if(key, |_, entry| entry.is_empty());
        false
    }

    /// Who claims it, newest first.
    pub(crate) fn holders<Q: Eq + Hash + ?Sized>(&self, hub: &HubName, key: &Q) -> Holders
    where
        K: Borrow<Q>,
    {
        let find = |claims: &Hub<K>| claims.get(key).map(|entry| entry.holders.clone());
        self.hubs.get(hub).and_then(|claims| find(&claims)).unwrap_or_default()
    }

    /// How a claim of this node stands.
    pub(crate) fn standing(&self, hub: &HubName, key: &K, number: u64) -> Standing {
        let Some(claims) = self.hubs.get(hub) else { return Standing::Alone };
        let Some(entry) = claims.get(key) else { return Standing::Alone };
        let own = Holder { node: self.me, claim: number };
        match entry.holders.first() {
            Some(newest) if newest.rank() < own.rank() => Standing::Outranked,
            _ if entry.own.len() > 1 => Standing::Newest,
            _ => Standing::Alone,
        }
    }

    /// A node is dead: it claims nothing any more.
    pub(crate) fn forget(&self, node: Incarnation) {
        for claims in &self.hubs {
            claims.retain(|_, entry| {
                entry.set(node, None);
                !entry.is_empty()
            });
        }
    }

    /// Does something with a hub's claims. Hubs are few and stay.
    fn of<T>(&self, hub: &HubName, act: impl FnOnce(&Hub<K>) -> T) -> T {
        if let Some(claims) = self.hubs.get(hub) {
            return act(&claims);
        }
        act(&self.hubs.entry(hub.clone()).or_default().downgrade())
    }
}

/// A claim as it was made.
pub(crate) struct Claim<'a> {
    /// Whether it is the only one of this node.
    pub(crate) is_first: bool,
    /// All nodes that claim, newest first.
    pub(crate) holders: &'a [Holder],
}

/// How a claim of this node stands among all to the same thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// There is a newer one.
    Outranked,
    /// It is the newest, and this node has older ones.
    Newest,
    /// It is the newest, and this node has no other.
    Alone,
}
