//! [`Replicated`]: the directory that every node has a whole copy of, made of the rosters that the nodes tell each other.
//! Tested in `cluster/copies/tests.rs`.

use std::sync::Arc;

use tieline_proto::envelope::Held;
use tieline_proto::{HubName, Incarnation, UserId};

use super::claims::Claims;
use super::{Claimed, Directory, Holders};
use crate::cluster::Statements;

/// The directory over any broker.
pub struct Replicated {
    me: Incarnation,
    claims: Claims<UserId>,
    statements: Arc<Statements>,
}

impl Replicated {
    pub(crate) fn new(me: Incarnation, statements: Arc<Statements>) -> Self {
        Replicated { me, claims: Claims::new(me), statements }
    }

    /// Another node states a claim, or with none that it holds the user no longer.
    pub(crate) fn stated(&self, hub: &HubName, user: &UserId, node: Incarnation, claim: Option<u64>) {
        self.claims.stated(hub, user, node, claim);
    }
}

impl Directory for Replicated {
    fn claim(&self, hub: &HubName, user: &UserId) -> Claimed {
        let number = |newest: Option<&super::Holder>| match newest {
            None => 1,
            // One that is the newest already needs no higher number: which of its connections is newer is its own business.
            Some(newest) if newest.node == self.me => newest.claim,
            Some(newest) => newest.claim.saturating_add(1),
        };
        let state = |number| self.statements.claim(hub, Held::User(user.clone()), number);
        let (number, stated) = self.claims.claim(hub, user, number, state);
        Claimed { number, stated }
    }

    fn release(&self, hub: &HubName, user: &UserId, number: u64) {
        self.claims.release(hub, user, number, |newest| {
            self.statements.restate(hub, Held::User(user.clone()), newest);
        });
    }

    fn holders(&self, hub: &HubName, user: &str) -> Holders {
        self.claims.holders(hub, user)
    }

    fn forget(&self, node: Incarnation) {
        self.claims.forget(node);
    }
}
