//! The new node's side of a move.

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

/// How long a node may take for one answer. One that takes longer is asked again when the client comes again.
const PATIENCE: Duration = Duration::from_secs(2);

/// Connections that come at once. Clients beyond that wait for their turn, for as long as for an answer.
pub(crate) const MOVES: usize = 256;

/// How often the old node may have more frames than one answer carries when it is to let go.
const ENDS: usize = 64;

/// Why a connection is not here: what its client is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lost {
    /// It is nowhere.
    ForGood,
    /// It is not known where it is, or it cannot be had now.
    ForNow,
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
        if let Some(address) = self.address(id) {
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
        let cluster = self.cluster().ok_or(Lost::ForGood)?;
        let from = cluster.seat_of(id);
        let peers = cluster.peers();
        match peers.iter().find(|peer| peer.id.incarnation == from) {
            Some(peer) if peer.is_reached() => {}
            // It may come back.
            Some(_) => return Err(Lost::ForNow),
            // A node that has just come does not know the others yet.
            None if peers.iter().any(|peer| !peer.complete) || !cluster.is_broker_up() => {
                return Err(Lost::ForNow);
            }
            None => return Err(Lost::ForGood),
        }
        let turn = tokio::time::timeout(PATIENCE, self.moves().acquire()).await;
        let _turn = turn.map_err(|_| Lost::ForNow)?.map_err(|_| Lost::ForNow)?;
        let taking = Taking { cluster, from, id };
        let wish = Wish::Begin { hub: hub.clone(), id, token: token.to_owned() };
        let Given::Head(head) = taking.wish(&wish).await? else { return Err(Lost::ForGood) };
        let address = self.settle_down(hub, id, &head).await?;
        let result = self.complete(hub, &taking, address, &head).await;
        if result.is_err() {
            // Who could not be brought whole must not be found here.
            let _ = self.ask(address.shard, move |operator, shard| operator.evict(shard, address)).await;
        }
        result.map(|()| address)
    }

    /// Puts the connection in place.
    async fn settle_down(&self, hub: &HubName, id: ConnectionId, head: &Head) -> Result<Address, Lost> {
        let hub = self.hubs().get_or_make(hub);
        let shards = self.handle().shards();
        let shard = (usize::from(id.shard()) + id.random() as usize) % shards;
        let keeps = |group: &GroupName| self.keeps(&Target::Group(group.clone()));
        let live = head.groups.iter().map(|group| group.name.clone()).filter(|name| !keeps(name)).collect();
        let roles = self.share_roles(read_roles(&head.roles));
        let (user, inbox, device) = (head.user.clone(), head.inbox.clone(), head.device.clone());
        let settle = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            operator.settle_down(shard, id, &hub, user, roles, live, inbox, device)
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
        for group in &head.groups {
            if self.keeps(&Target::Group(group.name.clone())) {
                self.enter_again(hub, address, Some(group.name.clone()), group.at).await?;
            }
        }
        if let Some(place) = head.inbox.as_ref().filter(|place| place.is_open && self.keeps_inboxes()) {
            self.enter_again(hub, address, None, Some(place.at)).await?;
        }
        taking.cluster.all_read().await;
        let (frames, rest) = taking.fetch(head).await?;
        let known: HashSet<u128> = frames.iter().map(|frame| frame.mark).collect();
        let marks = head.inbox.as_ref().map(|place| place.marks.clone()).unwrap_or_default();
        let base = head.base;
        let roles = self.share_roles(read_roles(&rest.roles));
        let is_here = self
            .ask(address.shard, move |operator, shard| {
                operator.fill(shard, address, base, &frames, &known, roles, marks, &rest)
            })
            .await?;
        if is_here { Ok(()) } else { Err(Lost::ForGood) }
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
