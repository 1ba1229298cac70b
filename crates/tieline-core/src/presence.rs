//! [`Presence`]: who is in a group, or in a hub, on whichever node; and whoever is told when that changes.
//!
//! Every node states for each user how many connections of which details it holds in each *room* (a group, or a whole hub)
//! that the configuration names, in its roster, as it states everything else. So every node has the whole picture
//! (`presence/picture.rs`), answers for it by itself, and works out for its own subscribers who has come and gone: a user joins
//! with the first connection anywhere, and leaves when the last one has been gone for the time of grace. `presence/herald.rs` is the task that tells it: what happens
//! within a moment goes out in one frame for each room, so the death of a node is one frame and not one for each user. The application is told by one
//! node, which `presence/duties.rs` finds without asking anybody; and, by `presence/beginning.rs`, that all of it begins anew, when all nodes were
//! lost at once.
//!
//! The lock of the picture is held while a statement is entered, so that what is stated has the order of what is entered. Nobody waits
//! in it, and nothing that takes it is called with it held.
//!
//! Tested in `presence/picture/tests.rs`, `cluster/copies/tests.rs`, `tests/sessions/presence.rs`, and with real processes.

mod beginning;
mod counters;
mod duties;
mod herald;
mod picture;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tieline_proto::envelope::Held;
use tieline_proto::presence::{Details, Page, Present};
use tieline_proto::{GroupName, HubName, Incarnation, NodeId, UserId};
use tokio::sync::Notify;

use crate::cluster::Statements;
use crate::hub::Group;
use crate::logs::matches;
use crate::stamp::unix_ms;
pub use counters::PresenceCounters;
pub use herald::{Announcement, PresenceTask};
pub(crate) use picture::Room;
use picture::{News, Picture};

/// The most users of a page.
pub const MAX_PAGE: usize = 500;

/// The users of a page when nothing else is asked for.
pub const PAGE: usize = 100;

/// About how many bytes a page has at most; one user is given even if it is more.
const PAGE_BYTES: usize = 128 << 10;

/// Where it is told who is present. Of each list the first pattern that fits a name counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceRules {
    /// Patterns of hubs, and whether it is told of those as a whole.
    pub hubs: Vec<(String, bool)>,
    /// Patterns of groups, and whether it is told of those.
    pub groups: Vec<(String, bool)>,
    /// How long a user without a connection is waited for.
    pub grace: Duration,
}

impl Default for PresenceRules {
    fn default() -> Self {
        PresenceRules { hubs: Vec::new(), groups: Vec::new(), grace: Duration::from_secs(10) }
    }
}

impl PresenceRules {
    /// Whether it is told anywhere.
    pub fn tell_anything(&self) -> bool {
        self.hubs.iter().chain(&self.groups).any(|(_, is_told)| *is_told)
    }

    fn tells(&self, hub: &str, group: Option<&str>) -> bool {
        let (rules, name) = match group {
            Some(group) => (&self.groups, group),
            None => (&self.hubs, hub),
        };
        rules.iter().find(|(pattern, _)| matches(pattern, name)).is_some_and(|(_, is_told)| *is_told)
    }
}

/// It is not told who is present there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("presence is not switched on here: `presence = true` in the table of the group, or of the hub, does")]
pub struct NotTold;

/// Who is where.
pub struct Presence {
    rules: PresenceRules,
    /// Whether there is any rule that tells, so that nodes without one pay nothing.
    is_on: bool,
    picture: Mutex<Picture>,
    /// There is news, or the time of the next change is another.
    stirred: Notify,
    /// What the other nodes are told; none where there are no others.
    statements: OnceLock<Arc<Statements>>,
    counters: PresenceCounters,
}

impl Presence {
    pub(crate) fn new(me: NodeId, rules: PresenceRules) -> Self {
        Presence {
            is_on: rules.tell_anything(),
            picture: Mutex::new(Picture::new(me, rules.grace)),
            rules,
            stirred: Notify::new(),
            statements: OnceLock::new(),
            counters: PresenceCounters::default(),
        }
    }

    /// States to other nodes from now on.
    pub(crate) fn state_by(&self, statements: Arc<Statements>) {
        self.statements.set(statements).ok().expect("a node becomes a member once");
    }

    /// Whether it is told anywhere.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// What was counted.
    pub fn counters(&self) -> &PresenceCounters {
        &self.counters
    }

    /// Users that are present, each as often as there are groups and hubs that it is told of in.
    pub fn users(&self) -> usize {
        self.picture().users()
    }

    /// Who is in a group, or without one in the hub: those behind a user, `limit` of them at most and never more than
    /// [`MAX_PAGE`].
    ///
    /// # Errors
    /// [`NotTold`] where the configuration does not say that it is told.
    pub fn page(
        &self,
        hub: &HubName,
        group: Option<&GroupName>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page, NotTold> {
        let room = self.room(hub, group).ok_or(NotTold)?;
        Ok(self.picture().page(&room, after, limit.min(MAX_PAGE), PAGE_BYTES))
    }

    /// The room of a group or hub, where it is told who is in it.
    pub(crate) fn room(&self, hub: &HubName, group: Option<&GroupName>) -> Option<Room> {
        let is_told = self.is_on && self.rules.tells(hub, group.map(GroupName::as_str));
        is_told.then(|| Room { hub: hub.clone(), group: group.cloned() })
    }

    /// One more connection of this node is in a group, or with none in the hub.
    pub(crate) fn enter(
        &self,
        hub: &HubName,
        group: Option<&GroupName>,
        user: Option<&UserId>,
        details: Option<&Details>,
    ) {
        let Some(room) = self.room(hub, group) else { return };
        let mut picture = self.picture();
        let number = picture.enter(&room, user, details, unix_ms());
        self.state(&room, user, details, Some(number));
        self.stir(&picture);
    }

    /// One less is.
    pub(crate) fn exit(
        &self,
        hub: &HubName,
        group: Option<&GroupName>,
        user: Option<&UserId>,
        details: Option<&Details>,
    ) {
        let Some(room) = self.room(hub, group) else { return };
        let mut picture = self.picture();
        let number = picture.exit(&room, user, details, Instant::now());
        self.state(&room, user, details, number);
        self.stir(&picture);
    }

    fn state(&self, room: &Room, user: Option<&UserId>, details: Option<&Details>, number: Option<u64>) {
        if let Some(statements) = self.statements.get() {
            // Of those without a user nothing is told but their number.
            let details = user.and(details).cloned();
            let (group, user) = (room.group.clone(), user.cloned());
            statements.restate(&room.hub, Held::Present(Present { group, user, details }), number);
        }
    }

    /// Another node states how many connections it holds; with nothing, that it holds none any more. What this node's
    /// configuration does not name is left alone.
    pub(crate) fn stated(&self, hub: &HubName, what: &Present, node: Incarnation, number: Option<u64>) {
        let Some(room) = self.room(hub, what.group.as_ref()) else { return };
        let mut picture = self.picture();
        picture.stated(&room, what.user.as_ref(), what.details.as_ref(), node, number, Instant::now());
        self.stir(&picture);
    }

    /// Another node is there.
    pub(crate) fn meet(&self, node: &NodeId) {
        self.picture().meet(node);
    }

    /// It is gone, and all that it stated was taken back.
    pub(crate) fn part(&self, node: Incarnation) {
        self.picture().part(node);
    }

    /// One more connection of a shard is told of a room. `make` makes the group of those, where there is none.
    pub(crate) fn watch(&self, room: &Room, shard: u16, make: impl FnOnce() -> Arc<Group>) -> Arc<Group> {
        self.picture().watch(room, shard, make)
    }

    /// One less is.
    pub(crate) fn unwatch(&self, room: &Room, shard: u16) {
        self.picture().unwatch(room, shard);
    }

    /// What has changed, and when something changes by itself next.
    fn take_news(&self) -> (Vec<News>, Option<Instant>) {
        let mut picture = self.picture();
        picture.pass(Instant::now());
        (picture.drain(), picture.next())
    }

    /// What is to be told now, of each room.
    #[cfg(test)]
    pub(crate) fn told(&self) -> Vec<(Room, Vec<tieline_proto::presence::Event>)> {
        let (news, _) = self.take_news();
        let events = |news: News| (news.room, news.told.into_iter().map(|told| told.event).collect());
        news.into_iter().map(events).collect()
    }

    fn stir(&self, picture: &Picture) {
        if picture.has_news() || picture.next().is_some() {
            self.stirred.notify_one();
        }
    }

    fn picture(&self) -> MutexGuard<'_, Picture> {
        self.picture.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
