//! [`Logins`]: the one place that a user, or each of its devices, has in a hub where it may have no more.
//!
//! Every connection claims that place as it opens, with a number above all that are known, and the nodes tell each other of
//! their claims as they do of users. The newest claim holds the place: of equal numbers, given by nodes that did not know of each other, that of
//! the later incarnation. Whoever holds connections with an older one closes them, as soon as it hears of the newer. So of any
//! number of logins, at any nodes, exactly one is left, the same on all nodes that know the same. The end of an older connection
//! releases its own claim, never a newer one.
//!
//! Tested in `cluster/copies/tests.rs` (three nodes, interleavings), `tests/sessions/logins.rs`, and with real processes.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tieline_proto::envelope::Held;
use tieline_proto::{HubName, Incarnation, UserId};

use crate::cluster::Statements;
use crate::directory::{Claim, Claimed, Claims, Standing, Until};
use crate::logs::matches;

/// How many connections a user may have in a hub, in the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PerUser {
    /// Any number; how many on one node, its limits say.
    #[default]
    Many,
    /// One: a newer takes the place of an older one.
    One,
    /// One for each of its devices. Those that name no device count as one.
    OnePerDevice,
}

/// What holds for the hubs of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubRule {
    /// The names it is for; `*` stands for any text, the empty one too.
    pub pattern: String,
    /// How many connections a user may have.
    pub per_user: PerUser,
}

/// A place.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Whose it is.
    pub(crate) user: UserId,
    /// Which of the user's devices it is for; empty where the user has one place, or names no device.
    pub(crate) device: Box<str>,
}

impl Place {
    fn held(&self) -> Held {
        Held::Login(self.user.clone(), self.device.to_string())
    }
}

/// A connection's claim to a place.
#[derive(Clone, Debug)]
pub struct Login {
    /// What it claims.
    pub(crate) place: Place,
    /// Above the numbers of all claims to it that were known then.
    pub(crate) number: u64,
}

/// The places of all users that may have no more than one.
pub(crate) struct Logins {
    /// The first one that matches a hub's name counts.
    rules: Vec<HubRule>,
    claims: Claims<Place>,
    /// What the other nodes are told; none where there are no others.
    statements: OnceLock<Arc<Statements>>,
    /// Places that connections of this node have lost and not yet left. At most one entry for each such connection and claim.
    lost: Mutex<Vec<(HubName, Place)>>,
}

impl Logins {
    pub(crate) fn new(me: Incarnation, rules: Vec<HubRule>) -> Self {
        Logins { rules, claims: Claims::new(me), statements: OnceLock::new(), lost: Mutex::default() }
    }

    /// Tells other nodes of claims from now on.
    pub(crate) fn state_by(&self, statements: Arc<Statements>) {
        self.statements.set(statements).ok().expect("a node becomes a member once");
    }

    /// How many connections a user may have in a hub.
    pub(crate) fn per_user(&self, hub: &HubName) -> PerUser {
        let rule = self.rules.iter().find(|rule| matches(&rule.pattern, hub.as_str()));
        rule.map_or(PerUser::Many, |rule| rule.per_user)
    }

    /// The place of a connection of a user, where there is only one.
    pub(crate) fn place(&self, hub: &HubName, user: &UserId, device: Option<&str>) -> Option<Place> {
        let device = match self.per_user(hub) {
            PerUser::Many => return None,
            PerUser::One => "",
            PerUser::OnePerDevice => device.unwrap_or_default(),
        };
        Some(Place { user: user.clone(), device: device.into() })
    }

    /// A connection of this node claims a place.
    pub(crate) fn claim(&self, hub: &HubName, place: &Place) -> Claimed {
        let number = |newest: Option<&crate::directory::Holder>| {
            newest.map_or(1, |newest| newest.claim.saturating_add(1))
        };
        let state = |number, _: Claim<'_>| match self.statements.get() {
            Some(statements) => statements.claim(hub, place.held(), number),
            None => 0,
        };
        let (number, read) = self.claims.claim(hub, place, number, state);
        Claimed { number, until: Until { read, settled: 0 } }
    }

    /// It has ended.
    pub(crate) fn release(&self, hub: &HubName, login: &Login) {
        self.claims.release(hub, &login.place, login.number, |newest, _| {
            if let Some(statements) = self.statements.get() {
                statements.restate(hub, login.place.held(), newest);
            }
        });
    }

    /// How a connection's claim stands.
    pub(crate) fn standing(&self, hub: &HubName, login: &Login) -> Standing {
        self.claims.standing(hub, &login.place, login.number)
    }

    /// Another node states a claim, or with none that it has none any more.
    pub(crate) fn stated(
        &self,
        hub: &HubName,
        user: &UserId,
        device: &str,
        node: Incarnation,
        claim: Option<u64>,
    ) {
        let place = Place { user: user.clone(), device: device.into() };
        if self.claims.stated(hub, &place, node, claim) {
            self.lose(hub, place);
        }
    }

    /// A node is dead.
    pub(crate) fn forget(&self, node: Incarnation) {
        self.claims.forget(node);
    }

    /// Connections of this node have lost a place to a newer one.
    pub(crate) fn lose(&self, hub: &HubName, place: Place) {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner).push((hub.clone(), place));
    }

    /// The places that were lost since this was asked last.
    pub(crate) fn take_lost(&self) -> Vec<(HubName, Place)> {
        std::mem::take(&mut self.lost.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The newest claim to a place: on which node, and its number.
    #[cfg(test)]
    pub(crate) fn newest(&self, hub: &HubName, user: &UserId) -> Option<crate::directory::Holder> {
        let place = Place { user: user.clone(), device: Box::default() };
        self.claims.holders(hub, &place).first().copied()
    }
}
