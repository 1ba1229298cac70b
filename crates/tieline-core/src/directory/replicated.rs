//! [`Replicated`]: the directory that every node has a whole copy of, made of the rosters that the nodes tell each other.
//!
//! What a shard asks is one lookup in a table in memory. The table is written by the shards for this node's own claims and
//! by the cluster's task for the others'; both under the lock of one user's entry, so that a claim's number is higher than
//! all that the entry has. Tested in `cluster/copies/tests.rs`: three directories, with interleavings of claims, releases,
//! losses and deaths.

use std::sync::Arc;

use dashmap::DashMap;
use smallvec::SmallVec;
use tieline_proto::{HubName, Incarnation, UserId};

use super::{Claimed, Directory, Holder, Holders};
use crate::cluster::Statements;

/// Who holds one user.
#[derive(Debug, Default)]
struct Entry {
    /// Newest first.
    holders: Holders,
    /// The claims of this node, one for each connection; the highest is in `holders`.
    own: SmallVec<[u64; 1]>,
}

impl Entry {
    fn set(&mut self, node: Incarnation, claim: Option<u64>) {
        self.holders.retain(|holder| holder.node != node);
        if let Some(claim) = claim {
            let holder = Holder { node, claim };
            let place = self.holders.partition_point(|other| other.rank() < holder.rank());
            self.holders.insert(place, holder);
        }
    }

    fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }
}

/// The users of one hub.
type Users = DashMap<UserId, Entry>;

/// The directory over any broker.
pub struct Replicated {
    me: Incarnation,
    hubs: DashMap<HubName, Users>,
    statements: Arc<Statements>,
}

impl Replicated {
    pub(crate) fn new(me: Incarnation, statements: Arc<Statements>) -> Self {
        Replicated { me, hubs: DashMap::new(), statements }
    }

    /// Another node states a claim, or with none that it holds the user no longer.
    pub(crate) fn stated(&self, hub: &HubName, user: &UserId, node: Incarnation, claim: Option<u64>) {
        match claim {
            Some(_) => self.of(hub, |users| users.entry(user.clone()).or_default().set(node, claim)),
            None => {
                let Some(users) = self.hubs.get(hub) else { return };
                if let Some(mut entry) = users.get_mut(user) {
                    entry.set(node, None);
                }
                users.remove_if(user, |_, entry| entry.is_empty());
            }
        }
    }

    /// Does something with a hub's users. Hubs are few and stay.
    fn of<T>(&self, hub: &HubName, act: impl FnOnce(&Users) -> T) -> T {
        if let Some(users) = self.hubs.get(hub) {
            return act(&users);
        }
        act(&self.hubs.entry(hub.clone()).or_default().downgrade())
    }
}

impl Directory for Replicated {
    fn claim(&self, hub: &HubName, user: &UserId) -> Claimed {
        self.of(hub, |users| {
            let mut entry = users.entry(user.clone()).or_default();
            let number = match entry.holders.first() {
                None => 1,
                // One that is the newest already needs no higher number: which of its connections is newer is its own business.
                Some(newest) if newest.node == self.me => newest.claim,
                Some(newest) => newest.claim.saturating_add(1),
            };
            entry.own.push(number);
            entry.set(self.me, Some(number));
            // Under the entry's lock, so that what is stated has the order of what is entered.
            let stated = self.statements.claim(hub, user, number);
            Claimed { number, stated }
        })
    }

    fn release(&self, hub: &HubName, user: &UserId, number: u64) {
        let Some(users) = self.hubs.get(hub) else { return };
        if let Some(mut entry) = users.get_mut(user)
            && let Some(index) = entry.own.iter().position(|own| *own == number)
        {
            entry.own.swap_remove(index);
            let newest = entry.own.iter().copied().max();
            entry.set(self.me, newest);
            match newest {
                Some(newest) => {
                    self.statements.claim(hub, user, newest);
                }
                None => self.statements.unclaim(hub, user),
            }
        }
        users.remove_if(user, |_, entry| entry.is_empty());
    }

    fn holders(&self, hub: &HubName, user: &str) -> Holders {
        let find = |users: &Users| users.get(user).map(|entry| entry.holders.clone());
        self.hubs.get(hub).and_then(|users| find(&users)).unwrap_or_default()
    }

    fn forget(&self, node: Incarnation) {
        for users in &self.hubs {
            users.retain(|_, entry| {
                entry.set(node, None);
                !entry.is_empty()
            });
        }
    }
}
