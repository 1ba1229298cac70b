//! What an application asks of a node about its connections, and what the node answers.
//!
//! An [`Ask`] holds nothing but names and ids, so it can travel to other nodes; each answers for the connections it holds
//! itself, and [`Answer::merge`] makes one answer of theirs. Messages go another way: see [`sending`]. Everything asked here can
//! be asked again without harm, which is what a caller does who was told [`Overloaded`]. `ask/carry.rs` carries asks out on the
//! shards, `ask/text.rs` is the form of filters and permissions between nodes. Tested in `tests/sessions/asks.rs` on real
//! sockets, and `ask/tests.rs` for what is pure.

mod carry;
pub mod sending;
#[cfg(test)]
mod tests;
mod text;

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tieline_proto::{ConnectionId, Filter, GroupName, Permission, UserId};

#[cfg(doc)]
use crate::Overloaded;

/// Members that one page has at most.
pub const MAX_PAGE: u32 = 200;

/// Something asked of every node, in one hub. A connection that was cut and may come back counts like any other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Ask {
    /// Whether there is such a connection. [`Answer::Found`].
    Exists(Who),
    /// Closes connections for good. [`Answer::Reached`].
    Close {
        /// Which.
        who: Who,
        /// Those among them that stay.
        excluded: Vec<ConnectionId>,
        /// What their clients are told.
        reason: String,
    },
    /// Makes connections members of groups, whatever their roles, and beyond the number of groups that a client may join by
    /// itself. [`Answer::Reached`].
    Join {
        /// Which.
        who: Who,
        /// The groups.
        groups: Vec<GroupName>,
    },
    /// Ends memberships. [`Answer::Reached`].
    Leave {
        /// Whose.
        who: Who,
        /// In which groups.
        groups: Vec<GroupName>,
    },
    /// Ends all memberships. [`Answer::Reached`].
    LeaveAll(Who),
    /// Lets a connection do something from now on. [`Answer::Reached`].
    Grant(Right),
    /// Takes that back. [`Answer::Reached`].
    Revoke(Right),
    /// Whether a connection may do it. [`Answer::Found`].
    Holds(Right),
    /// Some members of a group, in the order of their ids. [`Answer::Page`].
    Members {
        /// The group.
        group: GroupName,
        /// The last member that is known already.
        after: Option<ConnectionId>,
        /// How many are wanted at most; never more than [`MAX_PAGE`].
        limit: u32,
    },
}

/// Connections of a hub.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Who {
    /// This one.
    Connection(ConnectionId),
    /// All of this user.
    User(UserId),
    /// The members of this group.
    Group(GroupName),
    /// All.
    Everyone,
    /// Those for which a filter is true.
    Matching(#[serde(with = "text::filter")] Arc<Filter>),
}

/// One permission of one connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Right {
    /// Whose.
    pub connection: ConnectionId,
    /// To do what.
    #[serde(with = "text::permission")]
    pub permission: Permission,
    /// To whom: a group or a user, as the permission has it; without one, everything.
    pub target: Option<String>,
}

/// What became of an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Whether it is so.
    Found(bool),
    /// How many connections it was about; those that needed no change are among them.
    Reached(u64),
    /// Members of a group.
    Page(Page),
}

/// Some members of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// By id, each once, and as many as were wanted at most.
    pub members: Vec<Member>,
    /// Whether there are more behind the last one.
    pub more: bool,
    /// How many were wanted.
    pub limit: u32,
}

/// A member of a group. Ordered by the connection, which is there once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Member {
    /// The connection.
    pub connection: ConnectionId,
    /// Its user, if it is anybody.
    pub user: Option<UserId>,
}

impl Ask {
    /// The one connection that it is about, where it is about one.
    pub(crate) fn connection(&self) -> Option<ConnectionId> {
        let who = match self {
            Ask::Exists(who)
            | Ask::Close { who, .. }
            | Ask::Join { who, .. }
            | Ask::Leave { who, .. }
            | Ask::LeaveAll(who) => who,
            Ask::Grant(right) | Ask::Revoke(right) | Ask::Holds(right) => return Some(right.connection),
            Ask::Members { .. } => return None,
        };
        match who {
            Who::Connection(id) => Some(*id),
            Who::User(_) | Who::Group(_) | Who::Everyone | Who::Matching(_) => None,
        }
    }

    /// What is answered by a node that holds none of these connections.
    pub fn nobody(&self) -> Answer {
        match self {
            Ask::Exists(_) | Ask::Holds(_) => Answer::Found(false),
            Ask::Close { .. }
            | Ask::Join { .. }
            | Ask::Leave { .. }
            | Ask::LeaveAll(_)
            | Ask::Grant(_)
            | Ask::Revoke(_) => Answer::Reached(0),
            Ask::Members { limit, .. } => Answer::Page(Page::empty(*limit)),
        }
    }
}

impl Answer {
    /// One answer of two, given to the same ask by nodes (or shards) with different connections. The order does not matter. Of
    /// answers that do not belong together, which no node gives, the first one stands.
    #[must_use]
    pub fn merge(self, other: Answer) -> Answer {
        match (self, other) {
            (Answer::Found(one), Answer::Found(other)) => Answer::Found(one || other),
            (Answer::Reached(one), Answer::Reached(other)) => Answer::Reached(one.saturating_add(other)),
            (Answer::Page(one), Answer::Page(other)) => Answer::Page(one.merge(other)),
            (one, _) => one,
        }
    }

    /// Whether any connection was found or reached.
    pub fn is_any(&self) -> bool {
        match self {
            Answer::Found(found) => *found,
            Answer::Reached(count) => *count > 0,
            Answer::Page(page) => !page.members.is_empty(),
        }
    }
}

impl Page {
    fn empty(limit: u32) -> Self {
        Page { members: Vec::new(), more: false, limit: limit.min(MAX_PAGE) }
    }

    /// The first members of both. Each page has all that its node holds up to its last one, so these are the first of all.
    fn merge(mut self, other: Page) -> Page {
        self.limit = self.limit.min(other.limit);
        self.members.extend(other.members);
        self.members.sort_unstable();
        // A connection that moved while two nodes were asked is on both pages.
        self.members.dedup_by_key(|member| member.connection);
        let limit = self.limit as usize;
        self.more |= other.more || self.members.len() > limit;
        self.members.truncate(limit);
        self
    }
}
