//! Resuming from the store: the connection of a dead node comes to this one as its record says, and is given what its logs have behind
//! the places that its client has acknowledged.
//!
//! Who raises the record's generation by compare-and-set has the connection; everybody else finds that out by its own
//! record, at the latest when it is renewed. Numbers begin anew above all that there were, so acknowledgements of earlier
//! ones mean nothing. Tested in `tests/sessions/resuming.rs`, and with real processes.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tieline_proto::{ConnectionId, HubName, Incarnation};
use tieline_switchboard::Address;

use super::checkpoint::{Checkpoint, MOST_GENERATIONS, first_number, key};
use super::checkpoints::Checkpoints;
use super::counters::CheckpointCounters;
use super::progress::{Known, Places};
use super::taking::{Lost, PATIENCE, Stands};
use super::words::{Head, Page, Rest};
use crate::directory::Standing;
use crate::logins::Login;
use crate::node::Node;
use crate::operator::Holding;
use crate::records::{Change, Expect, Outcome, Record, Version};

/// Connections that are being resumed, so that two sockets of one do not do it side by side.
#[derive(Default)]
pub(crate) struct Underway(Mutex<HashSet<ConnectionId>>);

impl Underway {
    /// Begins; none when it has begun already.
    fn begin(&self, id: ConnectionId) -> Option<Begun<'_>> {
        let is_first = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        is_first.then_some(Begun(self, id))
    }
}

/// One of them, until it is dropped.
struct Begun<'a>(&'a Underway, ConnectionId);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

impl Checkpoints {
    /// The record of a connection.
    async fn find(&self, id: ConnectionId) -> Result<Option<Record>, Lost> {
        match tokio::time::timeout(PATIENCE, self.records().get(key(id))).await {
            Ok(Ok(record)) => Ok(record),
            Ok(Err(_)) | Err(_) => Err(Lost::ForNow),
        }
    }

    /// Has the record say that this node takes the connection. Returns the record's version then.
    async fn raise(&self, raised: &Checkpoint, version: Version) -> Result<Version, Lost> {
        let to = Some(self.value(raised.write()));
        let change = Change { key: key(raised.id), expect: Expect::Version(version), to };
        match tokio::time::timeout(PATIENCE, self.records().compare_and_set(change)).await {
            Ok(Ok(Outcome::Done(Some(version)))) => Ok(version),
            // Another node was quicker, and has it when the client comes again; or nobody knows.
            _ => Err(Lost::ForNow),
        }
    }

    /// Removes the record of a connection that cannot be resumed by anybody.
    async fn give_up(&self, id: ConnectionId, version: Version) {
        let change = Change { key: key(id), expect: Expect::Version(version), to: None };
        // One that stays lapses by itself.
        let _ = tokio::time::timeout(PATIENCE, self.records().compare_and_set(change)).await;
    }

    fn count(&self, which: fn(&CheckpointCounters) -> &AtomicU64) {
        which(self.counters()).fetch_add(1, Ordering::Relaxed);
    }
}

impl Node {
    /// Whether a connection that stood here is to be sought elsewhere: it is gone, or another node has it, as its record says, because
    /// this one may have stood still for so long that it was taken for dead. Then it is ended here. While the store does not answer,
    /// what stands here counts.
    pub(super) async fn has_lost(&self, id: ConnectionId, address: Address, token: &str) -> bool {
        let Some(checkpoints) = self.checkpoints() else { return false };
        if !self.reconnection().verify(id, token) {
            // Its shard refuses it.
            return false;
        }
        let holding = self.ask(address.shard, move |operator, shard| operator.holding(shard, address)).await;
        let generation = match holding {
            Ok(Holding::Stored(generation)) => generation,
            Ok(Holding::Gone) => return true,
            Ok(Holding::Unstored) | Err(_) => return false,
        };
        let Ok(Some(record)) = checkpoints.find(id).await else { return false };
        let me = self.id().incarnation;
        if !Checkpoint::read(&record.value).is_some_and(|found| found.supersedes(generation, me)) {
            return false;
        }
        checkpoints.count(|counters| &counters.fenced);
        let fenced = self.ask(address.shard, move |operator, shard| operator.fenced(shard, address)).await;
        // Behind this it is closed, and gone from the tables.
        fenced.is_ok() && self.ask(address.shard, |_, _| ()).await.is_ok()
    }

    /// Resumes a connection from the store, or takes it from whom the store names. `asked` is a node that was asked for it and does not
    /// have it.
    pub(super) async fn resume(
        self: &Arc<Self>,
        hub: &HubName,
        id: ConnectionId,
        token: &str,
        asked: Option<Incarnation>,
    ) -> Result<Address, Lost> {
        let seat = self.cluster().map(|cluster| self.standing(cluster.seat_of(id)));
        let absent = if seat == Some(Stands::Unknown) { Lost::ForNow } else { Lost::ForGood };
        let Some(checkpoints) = self.checkpoints() else { return Err(absent) };
        if !self.reconnection().verify_shared(id, token) {
            return Err(absent);
        }
        let Some(_begun) = self.underway().begin(id) else { return Err(Lost::ForNow) };
        let Some(record) = checkpoints.find(id).await? else { return Err(absent) };
        let checkpoint = Checkpoint::read(&record.value).filter(|checkpoint| checkpoint.hub == *hub);
        let Some(checkpoint) = checkpoint else { return Err(Lost::ForGood) };
        let holder = checkpoint.holder();
        let lacks = match self.standing(holder.incarnation) {
            // It ended here a moment ago; or it is on its way here, or was.
            _ if holder.incarnation == self.id().incarnation => Lost::ForGood,
            Stands::Reached if asked == Some(holder.incarnation) => Lost::ForGood,
            Stands::Reached => match self.take_over(hub, id, token, holder.incarnation).await {
                Err(lost) => lost,
                taken => return taken,
            },
            Stands::Lost => return Err(Lost::ForNow),
            // Of two starts of one node the earlier one is dead.
            _ if holder.name == self.id().name && holder < *self.id() => {
                return self.restore(checkpoints, checkpoint, record.version).await;
            }
            Stands::Unknown => return Err(Lost::ForNow),
            Stands::Nowhere if self.cluster().is_some_and(|cluster| cluster.is_new_here()) => {
                return Err(Lost::ForNow);
            }
            // Without a cluster a node knows nothing of others.
            Stands::Nowhere if self.cluster().is_none() => return Err(Lost::ForGood),
            Stands::Nowhere => return self.restore(checkpoints, checkpoint, record.version).await,
        };
        // Its holder lives and does not have it. One that has only begun to take it did not come to an end; else it has ended there.
        if lacks == Lost::ForNow || checkpoint.is_settled {
            return Err(lacks);
        }
        self.restore(checkpoints, checkpoint, record.version).await
    }

    async fn restore(
        self: &Arc<Self>,
        checkpoints: &Checkpoints,
        checkpoint: Checkpoint,
        version: Version,
    ) -> Result<Address, Lost> {
        let restored = self.try_to_restore(checkpoints, checkpoint, version).await;
        checkpoints.count(match restored {
            Ok(_) => |counters| &counters.resumed,
            Err(_) => |counters| &counters.unresumed,
        });
        restored
    }

    async fn try_to_restore(
        self: &Arc<Self>,
        checkpoints: &Checkpoints,
        checkpoint: Checkpoint,
        version: Version,
    ) -> Result<Address, Lost> {
        let turn = tokio::time::timeout(PATIENCE, self.moves().acquire()).await;
        let _turn = turn.map_err(|_| Lost::ForNow)?.map_err(|_| Lost::ForNow)?;
        let is_kept = checkpoint.groups.iter().all(|group| self.keeps_group(&group.name))
            && (checkpoint.user.is_none() || checkpoint.inbox.is_some() && self.keeps_inboxes());
        // Who has connected anew since then has taken the place.
        let place = checkpoint
            .user
            .as_ref()
            .and_then(|user| self.logins().place(&checkpoint.hub, user, checkpoint.device.as_deref()));
        let is_displaced = place.is_some_and(|place| {
            let nobody = Login { place, number: 0 };
            self.logins().standing(&checkpoint.hub, &nobody) == Standing::Outranked
        });
        if is_displaced || !is_kept || checkpoint.generation >= MOST_GENERATIONS {
            return Err(Lost::ForGood);
        }
        let raised = checkpoint.raised(self.id());
        let version = checkpoints.raise(&raised, version).await?;
        let (hub, id, base) = (raised.hub.clone(), raised.id, first_number(raised.generation));
        let known = Known {
            generation: raised.generation,
            acknowledged: base - 1,
            covered: Places {
                groups: raised
                    .groups
                    .iter()
                    .filter_map(|group| Some((group.name.clone(), group.at?)))
                    .collect(),
                inbox: raised.inbox.as_ref().map(|place| place.at),
            },
            mark: None,
        };
        let rest = Rest {
            page: Page::default(),
            roles: raised.roles.clone(),
            groups: raised.groups.iter().map(|group| group.name.clone()).collect(),
            acks: raised.acks,
            state: raised.state,
            known: Some(known),
        };
        let head = Head {
            taking: 0,
            user: raised.user,
            device: raised.device,
            details: raised.details,
            roles: raised.roles,
            groups: raised.groups,
            inbox: raised.inbox,
            base,
            end: base,
        };
        let address = self.settle_down(&hub, id, &head).await?;
        let whole = async {
            self.enter_all(&hub, address, &head).await?;
            if let Some(cluster) = self.cluster() {
                cluster.all_read().await;
            }
            if self.fill(address, &head, Vec::new(), rest).await? { Ok(()) } else { Err(Lost::ForGood) }
        };
        if let Err(lost) = whole.await {
            self.evict(address).await;
            if lost == Lost::ForGood {
                checkpoints.give_up(id, version).await;
            }
            return Err(lost);
        }
        Ok(address)
    }
}
