//! [`Plan`]: whose connections a node sends elsewhere when the ring has changed.
//!
//! Old owner against new owner, and never current node against owner: a user who is elsewhere for whatever reason, and whose owner
//! is still the same, stays. It knows nothing of connections, of time and of how they are sent; that is for whoever carries it out.
//! Tested by properties in `plan/tests.rs`.

#[cfg(test)]
mod tests;

use super::Ring;

/// What a change of the ring comes to for one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    me: Box<str>,
    from: Ring,
    to: Ring,
}

impl Plan {
    /// The plan of the node `me` for the change from one ring to another.
    pub fn new(me: &str, from: Ring, to: Ring) -> Self {
        Plan { me: me.into(), from, to }
    }

    /// The ring has changed once more before the plan was carried out: it still begins with the ring that it began with. So who
    /// was to go and belongs here again stays, and nobody goes twice who can go once.
    #[must_use]
    pub fn followed_by(self, to: Ring) -> Self {
        Plan { to, ..self }
    }

    /// Where the connections of a user go; none where they stay: the user was not this node's, or still is.
    pub fn destination(&self, user: &str) -> Option<&str> {
        let to = self.to.owner(user)?;
        (to != &*self.me && self.from.owner(user) == Some(&*self.me)).then_some(to)
    }

    /// The ring that it leads to.
    pub fn target(&self) -> &Ring {
        &self.to
    }
}
