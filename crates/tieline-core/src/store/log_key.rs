//! [`LogKey`]: whose messages a log keeps. Tested here.

use tieline_proto::{GroupName, HubName, NodeName, UserId};

/// Names a log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogKey {
    /// The history of a group.
    Group(HubName, GroupName),
    /// The inbox of a user.
    Inbox(HubName, UserId),
    /// Events of a hub that a node has to tell the application.
    Events(NodeName, HubName),
}

impl LogKey {
    /// The one text that engines know the log by: `g/hub/group`, `u/hub/user` or `e/node/hub`. At most about 4.2 KiB; names of hubs and nodes have
    /// no slash, so no two logs have the same.
    #[must_use]
    pub fn to_text(&self) -> String {
        match self {
            LogKey::Group(hub, group) => format!("g/{hub}/{group}"),
            LogKey::Inbox(hub, user) => format!("u/{hub}/{user}"),
            LogKey::Events(node, hub) => format!("e/{node}/{hub}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_users_and_hubs_do_not_share_logs() {
        let [h, i] = ["h", "i"].map(|hub| HubName::new(hub).unwrap());
        let keys = [
            LogKey::Group(h.clone(), GroupName::new("a/b").unwrap()),
            LogKey::Group(i.clone(), GroupName::new("a/b").unwrap()),
            LogKey::Inbox(h, UserId::new("a/b").unwrap()),
            LogKey::Inbox(i, UserId::new("a/b").unwrap()),
        ];
        assert_eq!(keys.map(|key| key.to_text()), ["g/h/a/b", "g/i/a/b", "u/h/a/b", "u/i/a/b"]);
    }
}
