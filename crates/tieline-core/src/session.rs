//! What a node knows of one connection beyond its socket.

use std::sync::Arc;

use smallvec::SmallVec;
use tieline_proto::filter::Subject;
use tieline_proto::presence::Details;
use tieline_proto::role::Roles;
use tieline_proto::{ConnectionId, UserId};

use crate::Subprotocol;
use crate::acks::AckWindow;
use crate::hub::{Group, Hub};
use crate::inbox::Inbox;
use crate::limits::Bucket;
use crate::logins::Login;
use crate::logs::Membership;
use crate::memberships::Memberships;
use crate::operator::Shown;
use crate::reading::Reading;
use crate::recovery::Progress;
use crate::store::LogKey;

/// One connection, kept in its slot of the switchboard. Names are shared with the hub's tables, so that an idle
/// session is small.
pub struct Session {
    /// Its address, which its client was told.
    pub(crate) id: ConnectionId,
    /// Its namespace.
    pub(crate) hub: Arc<Hub>,
    /// Its user, if it is anybody.
    pub(crate) user: Option<UserId>,
    /// What it may do.
    pub(crate) roles: Arc<Roles>,
    /// What it speaks.
    pub(crate) subprotocol: Subprotocol,
    /// The groups it is in, the hub's everybody not among them.
    pub(crate) groups: SmallVec<[Arc<Group>; 1]>,
    /// When its token expires, in Unix seconds; 0 for never.
    pub(crate) expires: u64,
    /// The number of its claim to its user in the cluster; 0 outside of one.
    pub(crate) claim: u64,
    /// Its claim to the one place that its user has, where that has no more.
    pub(crate) login: Option<Box<Login>>,
    /// Whether it was sent to another node.
    pub(crate) leaving: bool,
    /// Whether it was told that it is connected, and so stands in its hub's tables.
    pub(crate) greeted: bool,
    /// Whether the application approved of it, and so has to hear of its end whatever becomes of it.
    pub(crate) approved: bool,
    /// What the application wants to be reminded of with each event; shared with events that are under way.
    pub(crate) state: Option<Arc<String>>,
    /// Malformed frames in a row.
    pub(crate) faults: u8,
    /// Its message rate.
    pub(crate) bucket: Bucket,
    /// Requests that were carried out, by ackId.
    pub(crate) acks: AckWindow,
    /// Its place in its user's inbox, where users have one.
    pub(crate) inbox: Option<Box<Inbox>>,
    /// Its share in what its user is a stored member of, where groups have such members.
    pub(crate) memberships: Option<Box<Memberships>>,
    /// What others see of it where it is told who is present, and whether it is told itself; none where there is nothing of either.
    pub(crate) shown: Option<Box<Shown>>,
    /// Under which number another node is taking it over, 0 while none is; [`SETTLING`] where it comes from another node itself,
    /// [`GONE`] when it has gone to one.
    pub(crate) taking: u64,
    /// How far its client is, where that is kept in the store.
    pub(crate) progress: Option<Box<Progress>>,
}

/// A connection that has not all of what it had elsewhere: nobody may resume it, or take it on.
pub(crate) const SETTLING: u64 = u64::MAX;

/// A connection that another node has: its end here is not its end.
pub(crate) const GONE: u64 = u64::MAX - 1;

impl Session {
    /// Its id.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Its user.
    pub fn user(&self) -> Option<&UserId> {
        self.user.as_ref()
    }

    /// Which of its user's devices it is; none where users have no inboxes.
    pub(crate) fn device(&self) -> Option<&str> {
        self.inbox.as_ref()?.reader.device.as_deref()
    }

    /// The logs of which it is noted how far its client has read them: its user's inbox, and those of groups that the user is a
    /// stored member of.
    pub(crate) fn readings(&mut self) -> impl Iterator<Item = &mut Reading> {
        let inbox = self.inbox.as_mut().map(|inbox| &mut ***inbox);
        let groups = self.memberships.as_mut().map(|memberships| memberships.readings());
        inbox.into_iter().chain(groups.into_iter().flatten())
    }

    /// One of these.
    pub(crate) fn reading(&mut self, log: &LogKey) -> Option<&mut Reading> {
        match log {
            LogKey::Inbox(..) => self.inbox.as_mut().map(|inbox| &mut ***inbox),
            LogKey::Group(_, group) => self.memberships.as_mut()?.reading(group),
            LogKey::Events(..) => None,
        }
    }

    /// What others see of it where it is told who is present.
    pub(crate) fn details(&self) -> Option<&Details> {
        self.shown.as_ref()?.details.as_ref()
    }

    /// Its hub.
    pub fn hub(&self) -> &Arc<Hub> {
        &self.hub
    }

    /// Groups of its user that it is about to be in.
    pub(crate) fn coming(&self) -> impl Iterator<Item = &Membership> {
        self.memberships.iter().flat_map(|memberships| &memberships.coming)
    }

    /// The groups it is in.
    pub fn groups(&self) -> &[Arc<Group>] {
        &self.groups
    }

    /// The group of this name, if it is in it.
    pub(crate) fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.iter().find(|group| group.name().is_some_and(|known| known.as_str() == name))
    }
}

impl Subject for Session {
    fn user_id(&self) -> Option<&str> {
        self.user.as_deref()
    }

    fn connection_id(&self) -> ConnectionId {
        self.id
    }

    fn in_group(&self, name: &str) -> bool {
        self.group(name).is_some()
    }

    fn group_count(&self) -> usize {
        self.groups.len()
    }
}
