//! Carrying asks out on this node's shards.
//!
//! First the connections are found, then each is dealt with, in slices: a shard that closes everybody still reads and writes in
//! between. A connection that ends meanwhile is passed over.

use std::collections::BinaryHeap;
use std::sync::Arc;

use tieline_proto::role::Roles;
use tieline_proto::{CloseCode, ConnectionId, Filter, GroupName, HubName};
use tieline_switchboard::{Address, GroupId, Shard, Slot};

use super::{Answer, Ask, MAX_PAGE, Member, Page, Right, Who};
use crate::delivery::Target;
use crate::hub::{Group, Hub};
use crate::node::{Node, Overloaded};
use crate::operator::Operator;
use crate::store::LogKey;

/// Changes (a connection closed, a membership begun or ended) that are made in one turn of a shard: well below a millisecond.
const SLICE: usize = 512;

/// What is done with one connection.
type Deed = dyn Fn(&mut Operator, &mut Shard<Operator>, Slot) + Send + Sync;

impl Node {
    /// Carries out what is asked wherever the connections are, and answers when it is done.
    ///
    /// # Errors
    /// As [`Node::answer`], and when another node of the cluster did not answer in time.
    pub async fn answer_everywhere(&self, hub: &HubName, ask: Ask) -> Result<Answer, Overloaded> {
        match self.cluster() {
            Some(cluster) => {
                let own = self.answer(hub, ask.clone()).await?;
                cluster.ask(hub, &ask, own).await
            }
            None => self.answer(hub, ask).await,
        }
    }

    /// Carries out what is asked on the connections of this node alone, and answers when it is done: whoever asks next, by
    /// whatever way, finds it so.
    ///
    /// # Errors
    /// [`Overloaded`] when a shard has too much waiting. Some connections may have been dealt with; asking again is harmless.
    /// Dropping the future does not undo anything.
    pub async fn answer(&self, hub: &HubName, ask: Ask) -> Result<Answer, Overloaded> {
        let Some(hub) = self.hubs().get(hub) else { return Ok(ask.nobody()) };
        match ask {
            Ask::Exists(who) => self.exists(&hub, who).await,
            Ask::Close { who, excluded, reason } => self.close(&hub, who, excluded, reason).await,
            Ask::Join { who, groups } => {
                // Who is a member gets what is stored from then on: the logs have to be followed before.
                if let Some(logs) = self.logs() {
                    let target = |group: &GroupName| logs.log(hub.name(), &Target::Group(group.clone()));
                    let kept: Vec<LogKey> = groups.iter().filter_map(target).collect();
                    if !kept.is_empty() {
                        logs.follow(kept).await.map_err(|_| Overloaded)?;
                    }
                }
                let weight = groups.len();
                let deed = move |operator: &mut Operator, shard: &mut Shard<Operator>, slot| {
                    for group in &groups {
                        operator.enter(shard, slot, group);
                    }
                };
                let answer = self.deal(&hub, who, weight, Arc::new(deed)).await?;
                // Who is answered may send from any node: all of them have to know.
                if let Some(cluster) = self.cluster() {
                    cluster.all_read().await;
                }
                Ok(answer)
            }
            Ask::Leave { who, groups } => {
                let weight = groups.len();
                let deed = move |operator: &mut Operator, shard: &mut Shard<Operator>, slot| {
                    for group in &groups {
                        operator.exit(shard, slot, group);
                    }
                };
                self.deal(&hub, who, weight, Arc::new(deed)).await
            }
            Ask::LeaveAll(who) => self.deal(&hub, who, 8, Arc::new(leave_all)).await,
            Ask::Grant(right) => self.change_roles(&hub, right, Roles::grant).await,
            Ask::Revoke(right) => self.change_roles(&hub, right, Roles::revoke).await,
            Ask::Holds(right) => self.holds(&hub, right).await,
            Ask::Members { group, after, limit } => match hub.group(&group) {
                Some(group) => self.members(group, after, limit.min(MAX_PAGE)).await,
                None => Ok(Answer::Page(Page::empty(limit))),
            },
        }
    }

    async fn exists(&self, hub: &Arc<Hub>, who: Who) -> Result<Answer, Overloaded> {
        let found = match who {
            Who::User(user) => hub.user_connections(&user) > 0,
            Who::Group(group) => hub.group(&group).is_some_and(|group| group.members() > 0),
            Who::Everyone => hub.connections() > 0,
            Who::Connection(_) | Who::Matching(_) => !self.select(hub, who).await?.is_empty(),
        };
        Ok(Answer::Found(found))
    }

    async fn close(
        &self,
        hub: &Arc<Hub>,
        who: Who,
        excluded: Vec<ConnectionId>,
        reason: String,
    ) -> Result<Answer, Overloaded> {
        let deed = move |operator: &mut Operator, shard: &mut Shard<Operator>, slot| {
            let stays = |id| excluded.contains(&id);
            if shard.session(slot).is_some_and(|session| !stays(session.id())) {
                operator.hang_up(shard, slot, CloseCode::Removed, &reason);
            }
        };
        self.deal(hub, who, 1, Arc::new(deed)).await
    }

    async fn change_roles(
        &self,
        hub: &Arc<Hub>,
        right: Right,
        change: fn(&mut Roles, tieline_proto::Permission, Option<&str>) -> bool,
    ) -> Result<Answer, Overloaded> {
        let Right { connection, permission, target } = right;
        let deed = move |operator: &mut Operator, shard: &mut Shard<Operator>, slot| {
            let Some(session) = shard.session_mut(slot) else { return };
            let mut roles = (*session.roles).clone();
            change(&mut roles, permission, target.as_deref());
            session.roles = operator.node().share_roles(roles);
            operator.changed(shard, slot);
            operator.review_watches(shard, slot);
        };
        self.deal(hub, Who::Connection(connection), 1, Arc::new(deed)).await
    }

    async fn holds(&self, hub: &Arc<Hub>, right: Right) -> Result<Answer, Overloaded> {
        let Right { connection, permission, target } = right;
        let Some(at) = self.address(connection) else { return Ok(Answer::Found(false)) };
        let hub = Arc::clone(hub);
        let holds = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            let slot = operator.find(shard, connection);
            let session = slot.and_then(|slot| shard.session(slot));
            session.is_some_and(|session| {
                Arc::ptr_eq(&session.hub, &hub) && session.roles.may(permission, target.as_deref())
            })
        };
        self.ask(at.shard, holds).await.map(Answer::Found)
    }

    async fn members(
        &self,
        group: Arc<Group>,
        after: Option<ConnectionId>,
        limit: u32,
    ) -> Result<Answer, Overloaded> {
        let mut answer = Answer::Page(Page::empty(limit));
        for index in group.shards() {
            let group = Arc::clone(&group);
            let page = self.ask(index, move |_, shard| page(shard, group.id(), after, limit)).await?;
            answer = answer.merge(Answer::Page(page));
        }
        Ok(answer)
    }

    /// Does something with each connection, `weight` changes to one.
    async fn deal(
        &self,
        hub: &Arc<Hub>,
        who: Who,
        weight: usize,
        deed: Arc<Deed>,
    ) -> Result<Answer, Overloaded> {
        let mut reached = 0;
        let mut last = None;
        let slice = (SLICE / weight.max(1)).max(1);
        let addresses = self.select(hub, who).await?;
        for on_one_shard in addresses.chunk_by(|one, other| one.shard == other.shard) {
            for addresses in on_one_shard.chunks(slice) {
                let (index, addresses) = (addresses[0].shard, addresses.to_vec());
                let deed = Arc::clone(&deed);
                let dealt = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
                    let mut reached = 0;
                    for address in addresses {
                        if let Some(slot) = shard.find(address) {
                            deed(operator, shard, slot);
                            reached += 1;
                        }
                    }
                    reached
                };
                // The shard lets go of what was closed when a command is over, so the next one, if only an empty one, tells
                // that the tables of users and groups are true again.
                if last.is_some_and(|last| last != index) {
                    self.fence(last).await?;
                }
                reached += self.ask(index, dealt).await?;
                last = Some(index);
            }
        }
        self.fence(last).await?;
        Ok(Answer::Reached(reached))
    }

    /// Waits until a shard has finished what it was asked before.
    async fn fence(&self, shard: Option<u16>) -> Result<(), Overloaded> {
        match shard {
            Some(shard) => self.ask(shard, |_, _| ()).await,
            None => Ok(()),
        }
    }

    /// Where these connections are on this node, those of one shard together.
    async fn select(&self, hub: &Arc<Hub>, who: Who) -> Result<Vec<Address>, Overloaded> {
        let (group, filter) = match who {
            Who::User(user) => {
                let mut addresses = hub.user(&user).to_vec();
                addresses.sort_unstable_by_key(|address| address.shard);
                return Ok(addresses);
            }
            Who::Connection(id) => return self.find(hub, id).await,
            Who::Group(group) => (hub.group(&group), None),
            Who::Everyone => (Some(Arc::clone(hub.everyone())), None),
            Who::Matching(filter) => (Some(Arc::clone(hub.everyone())), Some(filter)),
        };
        let Some(group) = group else { return Ok(Vec::new()) };
        let mut addresses = Vec::new();
        for index in group.shards() {
            let (group, filter) = (Arc::clone(&group), filter.clone());
            let found = self.ask(index, move |_, shard| matching(shard, group.id(), filter.as_deref()));
            addresses.extend(found.await?);
        }
        Ok(addresses)
    }

    async fn find(&self, hub: &Arc<Hub>, id: ConnectionId) -> Result<Vec<Address>, Overloaded> {
        let Some(at) = self.address(id) else { return Ok(Vec::new()) };
        let hub = Arc::clone(hub);
        let find = move |operator: &mut Operator, shard: &mut Shard<Operator>| {
            let session = operator.find(shard, id).and_then(|slot| shard.session(slot));
            session.is_some_and(|session| Arc::ptr_eq(&session.hub, &hub))
        };
        Ok(if self.ask(at.shard, find).await? { vec![at] } else { Vec::new() })
    }
}

/// The members on one shard for which the filter is true.
fn matching(shard: &Shard<Operator>, group: GroupId, filter: Option<&Filter>) -> Vec<Address> {
    let chosen = |slot: &Slot| {
        let matches = |filter: &Filter| shard.session(*slot).is_some_and(|session| filter.matches(session));
        filter.is_none_or(matches)
    };
    shard.members(group).filter(chosen).map(|slot| shard.address(slot)).collect()
}

/// The first members on one shard behind `after`. Only as many as are wanted are kept at any time.
fn page(shard: &Shard<Operator>, group: GroupId, after: Option<ConnectionId>, limit: u32) -> Page {
    let mut first = BinaryHeap::with_capacity(limit as usize + 1);
    let mut page = Page::empty(limit);
    for session in shard.members(group).filter_map(|slot| shard.session(slot)) {
        if after.is_some_and(|after| session.id <= after) {
            continue;
        }
        first.push(Member { connection: session.id, user: session.user.clone() });
        if first.len() > limit as usize {
            first.pop();
            page.more = true;
        }
    }
    page.members = first.into_sorted_vec();
    page
}

fn leave_all(operator: &mut Operator, shard: &mut Shard<Operator>, slot: Slot) {
    let Some(session) = shard.session(slot) else { return };
    let mut groups: Vec<GroupName> =
        session.groups().iter().filter_map(|group| group.name().cloned()).collect();
    groups.extend(session.coming().map(|membership| membership.group.clone()));
    for group in groups {
        operator.exit(shard, slot, &group);
    }
}
