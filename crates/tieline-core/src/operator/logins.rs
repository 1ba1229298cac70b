//! The one place of a user that may have no more: connections claim it as they open, and leave it to a newer one. The order of
//! claims is in [`Logins`](crate::logins::Logins).

use std::sync::Arc;

use tieline_proto::{CloseCode, HubName, UserId, reply};
use tieline_switchboard::{Shard, Slot};
use tieline_websocket::Kind;

use super::Operator;
use crate::cluster::Known;
use crate::command::Command;
use crate::directory::{Claimed, Standing};
use crate::hub::Hub;
use crate::logins::{Login, Place};
use crate::node::Node;
use crate::subprotocol::Subprotocol;

impl Operator {
    /// Claims its user's place for a connection, where the user has one. Returns when the other nodes know.
    pub(super) fn log_in(
        &self,
        hub: &HubName,
        user: Option<&UserId>,
        device: Option<&str>,
    ) -> (Known, Option<Box<Login>>) {
        let logins = self.node.logins();
        let Some(place) = user.and_then(|user| logins.place(hub, user, device)) else {
            return (Known::Yes, None);
        };
        let Claimed { number, until } = logins.claim(hub, &place);
        let known = self.node.cluster().map_or(Known::Yes, |cluster| cluster.known_at(until));
        (known, Some(Box::new(Login { place, number })))
    }

    /// Takes that back.
    pub(super) fn log_out(&self, hub: &HubName, login: Option<&Login>) {
        if let Some(login) = login {
            self.node.logins().release(hub, login);
        }
    }

    /// A connection stands in its hub's tables now: it ends older ones, or is ended by a newer one.
    pub(super) fn take_place(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let Some(session) = shard.session(slot) else { return };
        let Some(login) = &session.login else { return };
        match self.node.logins().standing(session.hub.name(), login) {
            Standing::Alone => {}
            Standing::Outranked => self.end_displaced(shard, slot),
            Standing::Newest => {
                self.node.logins().lose(session.hub.name(), login.place.clone());
                self.node.end_displaced();
            }
        }
    }

    /// Ends the connections of this shard that have lost a place.
    pub(super) fn leave_place(&mut self, shard: &mut Shard<Self>, hub: &Hub, place: &Place) {
        for address in hub.user(&place.user) {
            if address.shard != self.shard {
                continue;
            }
            let Some(slot) = shard.find(address) else { continue };
            // One that is on its way to another node claims the place anew there.
            let is_lost = |login: &Login| {
                login.place == *place && self.node.logins().standing(hub.name(), login) == Standing::Outranked
            };
            let session = shard.session(slot).filter(|session| session.taking == 0);
            if session.is_some_and(|session| session.login.as_deref().is_some_and(is_lost)) {
                self.end_displaced(shard, slot);
            }
        }
    }

    fn end_displaced(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        if shard.session(slot).is_some_and(|session| session.leaving) {
            // Its client has done as it was told.
            return self.hang_up(shard, slot, CloseCode::Draining, CloseCode::Draining.text());
        }
        self.tally.displaced += 1;
        if shard.session(slot).is_some_and(|session| session.subprotocol == Subprotocol::Tieline) {
            shard.send(slot, Kind::Text, reply::displaced);
        }
        self.hang_up(shard, slot, CloseCode::Displaced, CloseCode::Displaced.text());
    }
}

impl Node {
    /// Has the connections end that have lost their places. Those whose shard has no room for more work now are tried again at the
    /// next call.
    pub(crate) fn end_displaced(&self) {
        for (name, place) in self.logins().take_lost() {
            let Some(hub) = self.hubs().get(&name) else { continue };
            let mut shards: Vec<u16> = hub.user(&place.user).iter().map(|address| address.shard).collect();
            shards.sort_unstable();
            shards.dedup();
            for shard in shards {
                let (of, lost) = (Arc::clone(&hub), place.clone());
                let leave = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
                    operator.leave_place(shard, &of, &lost);
                };
                if self.post(shard, Command::Run(Box::new(leave))).is_err() {
                    self.logins().lose(&name, place.clone());
                }
            }
        }
    }
}
