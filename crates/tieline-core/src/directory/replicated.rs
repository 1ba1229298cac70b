//! [`Replicated`]: the directory that every node has a whole copy of, made of the rosters that the nodes tell each other.
//! Tested in `cluster/copies/tests.rs`.

use std::sync::Arc;

use tieline_proto::envelope::Held;
use tieline_proto::{HubName, Incarnation, UserId};

use super::claims::Claims;
use super::{Beside, Claimed, Directory, Fellow, Holder, Until, Whereabouts};
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
}

/// The number of a claim of a node, given the newest that it knows.
pub(super) fn number(me: Incarnation, newest: Option<&Holder>) -> u64 {
    match newest {
        None => 1,
        // One that is the newest already needs no higher number: which of its connections is newer is its own business.
        Some(newest) if newest.node == me => newest.claim,
        Some(newest) => newest.claim.saturating_add(1),
    }
}

impl Directory for Replicated {
    fn name(&self) -> Box<str> {
        "replicated".into()
    }

    fn claim(&self, hub: &HubName, user: &UserId) -> Claimed {
        let state =
            |number, _: super::Claim<'_>| self.statements.claim(hub, Held::User(user.clone()), number);
        let (number, read) = self.claims.claim(hub, user, |newest| number(self.me, newest), state);
        Claimed { number, until: Until { read, settled: 0 } }
    }

    fn release(&self, hub: &HubName, user: &UserId, number: u64) {
        self.claims.release(hub, user, number, |newest, _| {
            self.statements.restate(hub, Held::User(user.clone()), newest);
        });
    }

    fn find(&self, hub: &HubName, user: &str) -> Whereabouts {
        Whereabouts { holders: self.claims.holders(hub, user), beside: Beside::Nobody }
    }

    fn is_claimed(&self, hub: &HubName, user: &str) -> bool {
        self.claims.is_own(hub, user)
    }

    fn stated(&self, hub: &HubName, user: &UserId, node: Incarnation, claim: Option<u64>) {
        self.claims.stated(hub, user, node, claim);
    }

    fn forget(&self, node: Incarnation) {
        self.claims.forget(node);
    }

    fn meet(&self, _: &[Fellow], _: u32, show: &mut dyn FnMut(&str)) -> bool {
        show(&self.name());
        false
    }
}
