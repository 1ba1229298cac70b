//! Presence: connections that come and go in rooms where that is told, and those that ask. Who is where, the node knows in
//! [`Presence`](crate::presence::Presence).

use std::sync::Arc;

use tieline_proto::presence::Details;
use tieline_proto::reply::{self, Extra};
use tieline_proto::{ErrorCode, GroupName};
use tieline_switchboard::{Publication, Recipients, Shard, Slot, WhenLagging};
use tieline_websocket::Kind;

use super::Operator;
use super::answer::Refusal;
use crate::hub::{Group, Hub};
use crate::presence::{Announcement, MAX_PAGE, NotTold, PAGE, Room};
use crate::session::Session;

/// What presence has to do with one connection.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    /// What others see of it.
    pub(crate) details: Option<Details>,
    /// The rooms that it is told of.
    watches: Vec<Watch>,
}

impl Shown {
    /// Of a connection with these details.
    pub(crate) fn new(details: Option<Details>) -> Option<Box<Self>> {
        details.is_some().then(|| Box::new(Shown { details, watches: Vec::new() }))
    }
}

/// A room that a connection is told of.
#[derive(Debug)]
struct Watch {
    /// Which.
    room: Room,
    /// All that are told of it on this node.
    audience: Arc<Group>,
}

/// What a client wants to know.
pub(super) struct Question<'a> {
    /// Of which group; without one, of the hub.
    pub(super) group: Option<&'a str>,
    /// Whether to be told from now on, or no longer.
    pub(super) subscribe: Option<bool>,
    /// The last user that is known already.
    pub(super) after: Option<&'a str>,
    /// How many at most.
    pub(super) limit: Option<u64>,
    pub(super) ack_id: Option<u64>,
}

fn watches(session: &Session) -> &[Watch] {
    session.shown.as_ref().map_or(&[], |shown| &shown.watches)
}

/// Whether a connection may know who is there: its roles say so, or it is a member of the group.
fn may_see(session: &Session, group: Option<&str>) -> bool {
    session.roles.may_see_presence(group) || group.is_some_and(|group| session.group(group).is_some())
}

impl Operator {
    /// A connection is in a group, or with none in its hub, from now on.
    pub(super) fn appear(&self, session: &Session, group: Option<&GroupName>) {
        let (hub, user) = (session.hub.name(), session.user.as_ref());
        self.node.presence().enter(hub, group, user, session.details());
    }

    /// It is no longer.
    pub(super) fn disappear(&self, session: &Session, group: Option<&GroupName>) {
        let (hub, user) = (session.hub.name(), session.user.as_ref());
        self.node.presence().exit(hub, group, user, session.details());
    }

    /// A client asks who is there, or to be told of who comes and goes.
    pub(super) fn tell_presence(&mut self, shard: &mut Shard<Self>, slot: Slot, question: &Question<'_>) {
        let Question { group, subscribe, after, limit, ack_id } = *question;
        let Some(session) = shard.session(slot) else { return };
        if !may_see(session, group) {
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::Forbidden));
        }
        let Ok(name) = group.map(GroupName::new).transpose() else {
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::InvalidGroup));
        };
        let limit = limit.unwrap_or(PAGE as u64);
        if limit > MAX_PAGE as u64 {
            let message = format!("`limit`: expected a whole number from 0 to {MAX_PAGE}");
            let refusal = Refusal::new(ack_id, ErrorCode::InvalidRequest).because(&message);
            return self.refuse(shard, slot, &Refusal { field: Some("limit"), ..refusal });
        }
        let hub = Arc::clone(&session.hub);
        let Some(room) = self.node.presence().room(hub.name(), name.as_ref()) else {
            let message = NotTold.to_string();
            return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::NotFound).because(&message));
        };
        match subscribe {
            Some(false) => {
                self.unwatch(shard, slot, |watched| *watched == room);
                return self.ack(shard, slot, ack_id, Extra::None);
            }
            Some(true) => {
                let watches = shard.session(slot).map_or(0, |session| watches(session).len());
                if watches >= self.node.limits().groups_per_connection {
                    return self.refuse(shard, slot, &Refusal::new(ack_id, ErrorCode::TooManyGroups));
                }
                self.watch(shard, slot, &hub, room);
            }
            None => {}
        }
        // What happens behind this page is told behind it; what is told behind it may be in it already.
        let Ok(page) = self.node.presence_page(hub.name(), name.as_ref(), after, limit as usize) else {
            return;
        };
        shard.send(slot, Kind::Text, |out| reply::presence_page(out, group, ack_id, &page));
        self.ack(shard, slot, ack_id, Extra::None);
    }

    /// Tells the subscribers on this shard who has come and gone.
    pub(super) fn announce(&mut self, shard: &mut Shard<Self>, announcement: &Announcement) {
        let to = [Recipients::Group(announcement.audience.id())];
        let when_lagging = WhenLagging::End;
        shard.publish(&Publication { message: announcement, to: &to, except: &[], only: None, when_lagging });
    }

    fn watch(&mut self, shard: &mut Shard<Self>, slot: Slot, hub: &Arc<Hub>, room: Room) {
        let index = self.shard;
        let Some(session) = shard.session_mut(slot) else { return };
        let watches = &mut session.shown.get_or_insert_default().watches;
        if watches.iter().any(|watch| watch.room == room) {
            return;
        }
        let audience = self.node.presence().watch(&room, index, || hub.audience());
        let id = audience.id();
        watches.push(Watch { room, audience });
        shard.join(slot, id);
    }

    fn unwatch(&mut self, shard: &mut Shard<Self>, slot: Slot, which: impl Fn(&Room) -> bool) {
        let Some(shown) = shard.session_mut(slot).and_then(|session| session.shown.as_mut()) else { return };
        let ended: Vec<Watch> = shown.watches.extract_if(.., |watch| which(&watch.room)).collect();
        for watch in ended {
            shard.leave(slot, watch.audience.id());
            self.node.presence().unwatch(&watch.room, self.shard);
        }
    }

    /// A connection is in fewer groups, or has other roles: it is told no longer of what it may not know any more.
    pub(crate) fn review_watches(&mut self, shard: &mut Shard<Self>, slot: Slot) {
        let Some(session) = shard.session(slot) else { return };
        let is_lost = |watch: &&Watch| !may_see(session, watch.room.group.as_deref());
        let lost: Vec<Room> =
            watches(session).iter().filter(is_lost).map(|watch| watch.room.clone()).collect();
        if !lost.is_empty() {
            self.unwatch(shard, slot, |room| lost.contains(room));
        }
    }

    /// A connection has ended: the shard has taken it out of everything already.
    pub(super) fn end_watches(&self, session: &Session) {
        for watch in watches(session) {
            self.node.presence().unwatch(&watch.room, self.shard);
        }
    }
}
