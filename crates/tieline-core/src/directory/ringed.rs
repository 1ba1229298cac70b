//! [`Ringed`]: the directory without a table, for clusters whose gateways place users by the ring.
//!
//! A user's *home* is the node that the [`Ring`] of the members gives. A message for a user goes to its home, where most users are, and to
//! the nodes that have told everybody that they hold it: those where it is away from home. So nobody is told of a user at its home,
//! and no node has memory of users elsewhere that are where they should be. Nothing is promised of a user that nobody tells of:
//! it may be at home or nowhere.
//!
//! What nodes tell depends on who they think is there, so each says by the [name](Directory::name) of its directory which ring it goes by,
//! and only after it has told of all users that are not at home on it. As long as another node goes by another ring, messages for users go
//! to that one too, and users are told of wherever they are. A user that several nodes hold is told of by all of them, its home
//! among them, so that they have one order.
//!
//! Tested in the conformance suite of directories, and with views that change under seeds in `directory/ringed/tests.rs`.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use tieline_proto::envelope::Held;
use tieline_proto::{HubName, Incarnation, NodeId, UserId};

use super::claims::{Claim, Claims};
use super::replicated::number;
use super::{Beside, Claimed, Directory, Fellow, Holder, Until, Whereabouts};
use crate::cluster::Statements;
use crate::ring::{MAX_WEIGHT, Ring, RingHash};

/// The number of a silent claim: what a node that does not know of it claims is newer.
const SILENT: u64 = 1;

/// The members as this node knows them.
struct View {
    ring: Ring,
    /// This start of each, this node among them.
    nodes: HashMap<Box<str>, Incarnation>,
    /// What the ring is called.
    name: Box<str>,
    /// Whether all others go by the same.
    is_agreed: bool,
}

impl View {
    fn home(&self, user: &str) -> Option<Incarnation> {
        self.ring.owner(user).and_then(|name| self.nodes.get(name).copied())
    }
}

/// The directory without a table.
pub struct Ringed {
    me: NodeId,
    hash: RingHash,
    /// This node's claims, and those that others state.
    claims: Claims<UserId>,
    statements: Arc<Statements>,
    /// Read with the lock of a claim held, so that a claim made by an old one is found by who has put the new one here.
    view: RwLock<Arc<View>>,
}

impl Ringed {
    pub(crate) fn new(me: NodeId, hash: RingHash, statements: Arc<Statements>) -> Self {
        let view = view(&me, hash, &[], 1);
        Ringed {
            claims: Claims::new(me.incarnation),
            me,
            hash,
            statements,
            view: RwLock::new(Arc::new(view)),
        }
    }

    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether others are to be told that this node claims a user, of whom they state these claims.
    fn is_told(&self, user: &UserId, holders: &[Holder]) -> bool {
        let view = self.view();
        let others = holders.iter().any(|holder| holder.node != self.me.incarnation);
        others || !view.is_agreed || view.home(user) != Some(self.me.incarnation)
    }

    /// Tells of this node's claim to a user, or no longer, as it should be now.
    fn tell_as_due(&self, hub: &HubName, user: &UserId) {
        self.claims.revise(hub, user, |newest, holders| {
            let is_told = self.is_told(user, holders);
            self.statements.restate(hub, Held::User(user.clone()), newest.filter(|_| is_told));
            newest.filter(|newest| !is_told && *newest > SILENT).map(|_| SILENT)
        });
    }
}

fn view(me: &NodeId, hash: RingHash, fellows: &[Fellow], own_weight: u32) -> View {
    let mut nodes: Vec<(&str, Incarnation, u32)> =
        fellows.iter().map(|fellow| (&*fellow.name, fellow.node, fellow.weight)).collect();
    nodes.push((me.name.as_str(), me.incarnation, own_weight.clamp(1, MAX_WEIGHT)));
    nodes.sort_unstable();
    let text = nodes
        .iter()
        .fold(hash.to_string(), |text, (name, node, weight)| format!("{text} {name} {} {weight}", node.0));
    let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |digest, byte| {
        (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let name = format!("ring:{hash} {digest:016x}").into_boxed_str();
    View {
        ring: Ring::new(hash, nodes.iter().map(|(name, _, weight)| (*name, *weight))),
        nodes: nodes.iter().map(|(name, node, _)| ((*name).into(), *node)).collect(),
        is_agreed: fellows.iter().all(|fellow| fellow.directory.as_ref() == Some(&name)),
        name,
    }
}

impl Directory for Ringed {
    fn name(&self) -> Box<str> {
        self.view().name.clone()
    }

    fn claim(&self, hub: &HubName, user: &UserId) -> Claimed {
        let me = self.me.incarnation;
        let number = |newest: Option<&Holder>| match newest {
            // Its home may hold it silently.
            None if self.view().home(user) != Some(me) => SILENT + 1,
            newest => number(me, newest),
        };
        let state = |number, claim: Claim<'_>| match self.is_told(user, claim.holders) {
            true => self.statements.claim(hub, Held::User(user.clone()), number),
            false => 0,
        };
        let (number, read) = self.claims.claim(hub, user, number, state);
        Claimed { number, until: Until { read, settled: 0 } }
    }

    fn release(&self, hub: &HubName, user: &UserId, number: u64) {
        self.claims.release(hub, user, number, |newest, holders| {
            let told = newest.filter(|_| self.is_told(user, holders));
            self.statements.restate(hub, Held::User(user.clone()), told);
        });
    }

    fn find(&self, hub: &HubName, user: &str) -> Whereabouts {
        let holders = self.claims.holders(hub, user);
        let home = self.view().home(user).filter(|home| *home != self.me.incarnation);
        let is_known = |home: &Incarnation| holders.iter().any(|holder| holder.node == *home);
        let beside = home.filter(|home| !is_known(home)).map_or(Beside::Nobody, Beside::One);
        Whereabouts { holders, beside }
    }

    fn is_claimed(&self, hub: &HubName, user: &str) -> bool {
        self.claims.is_own(hub, user)
    }

    fn stated(&self, hub: &HubName, user: &UserId, node: Incarnation, claim: Option<u64>) {
        self.claims.stated(hub, user, node, claim);
        if self.claims.is_own(hub, user.as_str()) {
            self.tell_as_due(hub, user);
        }
    }

    fn forget(&self, node: Incarnation) {
        self.claims.forget(node);
        for (hub, user) in self.claims.all_own() {
            self.tell_as_due(&hub, &user);
        }
    }

    fn goes_by_members(&self) -> bool {
        true
    }

    fn meet(&self, fellows: &[Fellow], own_weight: u32, show: &mut dyn FnMut(&str)) -> bool {
        let fresh = view(&self.me, self.hash, fellows, own_weight);
        show(&fresh.name);
        let before = self.view();
        if before.name == fresh.name && before.is_agreed == fresh.is_agreed {
            return false;
        }
        let is_renamed = before.name != fresh.name;
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
        for (hub, user) in self.claims.all_own() {
            self.tell_as_due(&hub, &user);
        }
        is_renamed
    }
}

#[cfg(test)]
mod tests;
