//! The new node's side of a move, while the old one lives.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tieline_proto::reply::Recovered;
use tieline_proto::{CloseCode, ConnectionId, GroupName, HubName, Incarnation, Position};
use tieline_switchboard::{Address, Numbered, Shard};
use tokio::sync::oneshot;

use super::words::{Given, Head, Page, Rest, Wish, read_roles};
use crate::arrival::Arrival;
use crate::cluster::Cluster;
use crate::command::Then;
use crate::delivery::Target;
use crate::logs::{Entering, Since};
use crate::node::{Node, Overloaded};
use crate::operator::Operator;
use crate::store::LogKey;

/// How long a node, or the store, may take for one answer. One that takes longer is asked again when the client comes again.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Connections that come at once. Clients beyond that wait for their turn, for as long as for an answer.
pub(crate) const MOVES: usize = 256;

/// How often the old node may have more frames than one answer carries when it is to let go.
const ENDS: usize = 64;

/// Why a connection is not here: what its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lost {
    /// It is nowhere.
    ForGood,
    /// It is not known where it is, or it cannot be had now.
    ForNow,
}

/// How another node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    /// There is a way to it.
    Reached,
    /// There is none, and it is believed to live.
    Lost,
    /// It is no member.
    Nowhere,
    /// Whether it is one is not known yet.
    Unknown,
}

impl From<Overloaded> for Lost {
    fn from(_: Overloaded) -> Self {
        Lost::ForNow
    }
}

impl Node {
    /// Has the connection of a client come to this node, if another one holds it. Returns what a shard is to be told about the
    /// client, and which: 1008 where its connection cannot be recovered anywhere, and a code after which it comes again where
    /// that is not known yet.
    pub async fn bring(
        self: &Arc<Self>,
        hub: HubName,
        id: ConnectionId,
        token: String,
    ) -> (Option<u16>, Arrival) {
        if let Some(address) = self.address(id)
            && !self.has_lost(id, address, &token).await
        {
            return (Some(address.shard), Arrival::Recovery { hub, id, token });
        }
        // A client that goes away meanwhile must not leave its connection between two nodes: a move is done to its end, which comes
        // within seconds.
        let (node, of) = (Arc::clone(self), hub.clone());
        let taking = tokio::spawn(async move { node.take(&of, id, &token).await });
        match taking.await.unwrap_or(Err(Lost::ForNow)) {
            Ok(address) => {
                // Its old node has seen the proof; here it is this node's.
                let token = self.reconnection().token(id);
                (Some(address.shard), Arrival::Recovery { hub, id, token })
            }
            Err(Lost::ForGood) => (None, Arrival::Refused(CloseCode::PolicyViolation)),
            Err(Lost::ForNow) => (None, Arrival::Refused(CloseCode::TryAgainLater)),
        }
    }

    async fn take(self: &Arc<Self>, hub: &HubName, id: ConnectionId, token: &str) -> Result<Address, Lost> {
        let seat = self.cluster().map(|cluster| cluster.seat_of(id));
        match seat.map(|seat| self.standing(seat)) {
            Some(Stands::Reached) => {}
            // It may come back.
            Some(Stands::Lost) => return Err(Lost::ForNow),
            Some(Stands::Nowhere | Stands::Unknown) | None => {
                return self.resume(hub, id, token, None).await;
            }
        }
        let from = seat.ok_or(Lost::ForGood)?;
        match self.take_over(hub, id, token, from).await {
            // The node that its id names may have lost it before.
            Err(Lost::ForGood) => self.resume(hub, id, token, Some(from)).await,
            taken => taken,
        }
    }

    /// How another node stands, as far as it is known here.
    pub(super) fn standing(&self, node: Incarnation) -> Stands {
        let Some(cluster) = self.cluster() else { return Stands::Nowhere };
        let peers = cluster.peers();
        match peers.iter().find(|peer| peer.id.incarnation == node) {
            Some(peer) if peer.is_reached() => Stands::Reached,
            Some(_) => Stands::Lost,
            // A node that has just come does not know the others yet.
            None if peers.iter().any(|peer| !peer.complete) || !cluster.is_broker_up() => Stands::Unknown,
            None => Stands::Nowhere,
        }
    }

    /// Takes a connection from a node that lives.
    pub(super) async fn take_over(
        self: &Arc<Self>,
        hub: &HubName,
        id: ConnectionId,
        token: &str,
        from: Incarnation,
    ) -> Result<Address, Lost> {
        let cluster = self.cluster().ok_or(Lost::ForGood)?;
        let turn = tokio::time::timeout(PATIENCE, self.moves().acquire()).await;
        let _turn = turn.map_err(|_| Lost::ForNow)?.map_err(|_| Lost::ForNow)?;
        let taking = Taking { cluster, from, id };
        let wish = Wish::Begin { hub: hub.clone(), id, token: token.to_owned() };
        let Given::Head(head) = taking.wish(&wish).await? else { return Err(Lost::ForGood) };
        let address = self.settle_down(hub, id, &head).await?;
        let result = self.complete(hub, &taking, address, &head).await;
        if result.is_err() {
            self.evict(address).await;
        }
        result.map(|()| address)
    }

    /// Ends a connection that could not be brought whole, and so must not be found here.
    pub(super) async fn evict(&self, address: Address) {
        let _ = self.ask(address.shard, move |operator, shard| operator.evict(shard, address)).await;
    }

    /// Puts the connection in place.
    pub(super) async fn settle_down(
        &self,
        hub: &HubName,
        id: ConnectionId,
        head: &Head,
    ) -> Result<Address, Lost> {
        let hub = self.hubs().get_or_make(hub);
        let shards = self.handle().shards();
        let shard = (usize::from(id.shard()) + id.random() as usize) % shards;
        let keeps = |group: &GroupName| self.keeps(&Target::Group(group.clone()));
        let live = head.groups.iter().map(|group| group.name.clone()).filter(|name| !keeps(name)).collect();
        let roles = self.share_roles(read_roles(&head.roles));
        let (user, inbox, device) = (head.user.clone(), head.inbox.clone(), head.device.clone());
        let details = head.details.clone();
        let settle = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            operator.settle_down(shard, id, &hub, user, roles, live, inbox, device, details)
        };
        self.ask(shard as u16, settle).await?.ok_or(Lost::ForNow)
    }

    /// Lets it into its logs, waits until all nodes know of it, and gives it what it had.
    async fn complete(
        self: &Arc<Self>,
        hub: &HubName,
        taking: &Taking<'_>,
        address: Address,
        head: &Head,
    ) -> Result<(), Lost> {
        self.enter_all(hub, address, head).await?;
        taking.cluster.all_read().await;
        let (frames, mut rest) = taking.fetch(head).await?;
        // What other nodes have sent to both nodes is here too, so that it is known twice.
        taking.cluster.hear_all().await;
        if let Some(known) = &mut rest.known {
            known.generation += 1;
        }
        let (id, has_record) = (taking.id, rest.known.is_some());
        if !self.fill(address, head, frames, rest).await? {
            return Err(Lost::ForGood);
        }
        match self.checkpoints().filter(|_| has_record) {
            // Before its client is told anything: from now on it could not be had from the old node.
            Some(checkpoints) if !checkpoints.claim(id, address).await => Err(Lost::ForNow),
            _ => Ok(()),
        }
    }

    /// Lets it into all its logs, where it was in them.
    pub(super) async fn enter_all(&self, hub: &HubName, address: Address, head: &Head) -> Result<(), Lost> {
        for group in &head.groups {
            if self.keeps(&Target::Group(group.name.clone())) {
                self.enter_again(hub, address, Some(group.name.clone()), group.at).await?;
            }
        }
        if let Some(place) = head.inbox.as_ref().filter(|place| place.is_open && self.keeps_inboxes()) {
            self.enter_again(hub, address, None, Some(place.at)).await?;
        }
        Ok(())
    }

    /// Gives it what it had. Returns whether it is there.
    pub(super) async fn fill(
        &self,
        address: Address,
        head: &Head,
        frames: Vec<Numbered>,
        rest: Rest,
    ) -> Result<bool, Lost> {
        let known: HashSet<u128> = frames.iter().map(|frame| frame.mark).collect();
        let marks = head.inbox.as_ref().map(|place| place.marks.clone()).unwrap_or_default();
        let base = head.base;
        let roles = self.share_roles(read_roles(&rest.roles));
        let fill = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            operator.fill(shard, address, base, &frames, &known, roles, marks, &rest)
        };
        Ok(self.ask(address.shard, fill).await?)
    }

    /// Enters one log where the connection was in it.
    async fn enter_again(
        &self,
        hub: &HubName,
        address: Address,
        group: Option<GroupName>,
        at: Option<Position>,
    ) -> Result<(), Lost> {
        let (done, entered) = oneshot::channel();
        let hub = hub.clone();
        let enter = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            let Some(slot) = shard.find(address) else { return };
            let Some(session) = shard.session(slot) else { return };
            let log = match (&group, &session.inbox) {
                (Some(group), _) => LogKey::Group(hub.clone(), group.clone()),
                (None, Some(inbox)) => inbox.reader.log.clone(),
                (None, None) => return,
            };
            if let Some(group) = &group {
                operator.state_group(&hub, group);
            }
            let then = Then::Return { hub, group, done };
            let since = at.map_or(Since::Now, Since::After);
            let logs = SmallVec::from_iter([log]);
            operator.begin_entering(shard, slot, Entering { address, then, logs, since, enrolment: None });
        };
        self.ask(address.shard, enter).await?;
        match entered.await.map_err(|_| Lost::ForGood)? {
            Ok(None | Some(Recovered::Whole)) => Ok(()),
            // A part of the log is not to be had any more.
            Ok(Some(_)) => Err(Lost::ForGood),
            Err(_) => Err(Lost::ForNow),
        }
    }
}

/// A connection that is being taken from another node.
struct Taking<'a> {
    cluster: &'a Arc<Cluster>,
    from: Incarnation,
    id: ConnectionId,
}

impl Taking<'_> {
    async fn wish(&self, wish: &Wish) -> Result<Given, Lost> {
        let wish = serde_json::to_string(wish).map_err(|_| Lost::ForGood)?;
        let given = self.cluster.wish(self.from, wish, PATIENCE).await.ok_or(Lost::ForNow)?;
        match serde_json::from_str(&given).map_err(|_| Lost::ForGood)? {
            // Somebody else has it, or its client has come back there.
            Given::Nothing => Err(Lost::ForGood),
            Given::Later => Err(Lost::ForNow),
            given => Ok(given),
        }
    }

    /// All frames that the old node has for the connection but those of logs that came since the beginning, which are read from
    /// the logs here; after that it holds the connection no longer.
    async fn fetch(&self, head: &Head) -> Result<(Vec<Numbered>, Rest), Lost> {
        let (id, taking) = (self.id, head.taking);
        let mut frames = Vec::new();
        let mut from = head.base;
        let mut add = |from: &mut u64, page: &Page| {
            for frame in &page.frames {
                let frame = frame.read().ok_or(Lost::ForGood)?;
                if *from < head.end || frame.mark != 0 {
                    frames.push(frame);
                }
                *from += 1;
            }
            Ok::<_, Lost>(())
        };
        loop {
            let Given::Page(page) = self.wish(&Wish::More { id, taking, from }).await? else {
                return Err(Lost::ForGood);
            };
            add(&mut from, &page)?;
            if page.is_all {
                break;
            }
        }
        for _ in 0..ENDS {
            match self.wish(&Wish::End { id, taking, from }).await? {
                Given::Page(page) => add(&mut from, &page)?,
                Given::Rest(rest) => {
                    add(&mut from, &rest.page)?;
                    return Ok((frames, rest));
                }
                Given::Nothing | Given::Later | Given::Head(_) => return Err(Lost::ForGood),
            }
        }
        Err(Lost::ForNow)
    }
}
