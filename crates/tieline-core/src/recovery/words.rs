//! What the two nodes of a move say to each other, as JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use tieline_proto::presence::Details;
use tieline_proto::role::Roles;
use tieline_proto::{ConnectionId, GroupName, HubName, Permission, Position, UserId};
use tieline_switchboard::Numbered;

use super::progress::Known;

/// What the new node wishes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Wish {
    /// The connection is to be without a socket from now on, and to be described. Answered by [`Given::Head`].
    Begin {
        /// The hub that its client asked for.
        hub: HubName,
        /// The connection.
        id: ConnectionId,
        /// Its client's proof.
        token: String,
    },
    /// Frames, from a number on. Answered by [`Given::Page`].
    More {
        /// The connection.
        id: ConnectionId,
        /// The number that [`Head::taking`] gave.
        taking: u64,
        /// The first frame.
        from: u64,
    },
    /// The last frames: the connection is to be let go. Answered by [`Given::Rest`], or by [`Given::Page`] where they are too many.
    End {
        /// The connection.
        id: ConnectionId,
        /// The number that [`Head::taking`] gave.
        taking: u64,
        /// The first frame.
        from: u64,
    },
}

/// What the old node makes of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Given {
    /// It holds no such connection, the proof is none, or somebody else is taking it.
    Nothing,
    /// It is coming to that node itself, and is not whole yet.
    Later,
    /// What the connection is.
    Head(Head),
    /// Some of its frames.
    Page(Page),
    /// The last of them; it is gone.
    Rest(Rest),
}

/// What a connection is.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Head {
    /// Under which number it is being taken. A later one makes it void, and so does its client's return.
    pub(crate) taking: u64,
    /// Its user.
    pub(crate) user: Option<UserId>,
    /// The device that its place is for, where its user has one place for each.
    #[serde(default)]
    pub(crate) device: Option<String>,
    /// What others see of it where it is told who is present.
    #[serde(default)]
    pub(crate) details: Option<Details>,
    /// What it may do, as [`roles`] writes it.
    pub(crate) roles: Vec<String>,
    /// Its groups.
    pub(crate) groups: Vec<Group>,
    /// Where it is in its user's inbox, if it has one.
    pub(crate) inbox: Option<Place>,
    /// Number of the first frame that it holds.
    pub(crate) base: u64,
    /// Number behind the last frame that came before this; what comes later of logs is read from these.
    pub(crate) end: u64,
}

/// Where a connection is in its user's inbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// What it was given last, or what it begins behind.
    pub(crate) at: Position,
    /// Whether it was given anything.
    pub(crate) has_given: bool,
    /// Whether it is given what comes.
    pub(crate) is_open: bool,
    /// Which of the user's devices it is.
    pub(crate) device: Option<String>,
    /// The numbers that are not acknowledged, each with the place that is read when it is.
    pub(crate) marks: Vec<(u64, Position)>,
}

/// A group that a connection is in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Group {
    /// Its name.
    pub(crate) name: GroupName,
    /// Where the connection is in its log, if it has one.
    pub(crate) at: Option<Position>,
}

/// Frames in the order of their numbers.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Page {
    /// Without their numbers.
    pub(crate) frames: Vec<Frame>,
    /// Whether there are no more now.
    pub(crate) is_all: bool,
}

/// One frame: its body in base64, and its mark in hexadecimal digits.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Frame(String, String);

/// The end of a move.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Rest {
    /// The last frames.
    pub(crate) page: Page,
    /// What it may do now.
    pub(crate) roles: Vec<String>,
    /// Its groups now.
    pub(crate) groups: Vec<GroupName>,
    /// The ackIds that were carried out, as intervals.
    pub(crate) acks: Vec<(u64, u64)>,
    /// What the application wants to be reminded of.
    pub(crate) state: Option<String>,
    /// How far its client is, where the old node keeps that in the store.
    #[serde(default)]
    pub(crate) known: Option<Known>,
}

impl From<&Numbered> for Frame {
    fn from(frame: &Numbered) -> Self {
        Frame(STANDARD_NO_PAD.encode(&frame.body), format!("{:x}", frame.mark))
    }
}

impl Frame {
    /// The frame, unless it is malformed.
    pub(crate) fn read(&self) -> Option<Numbered> {
        let body = STANDARD_NO_PAD.decode(&self.0).ok()?;
        Some(Numbered { body, mark: u128::from_str_radix(&self.1, 16).ok()? })
    }
}

/// Roles as texts: a permission for everything by its role, one that was taken back for a target with `!` before it.
pub(crate) fn roles(of: &Roles) -> Vec<String> {
    let mut texts = Vec::new();
    for permission in Permission::ALL {
        let role = permission.role();
        let (is_wide, names) = of.scope(permission);
        if is_wide {
            texts.push(role.to_owned());
        }
        let sign = if is_wide { "!" } else { "" };
        texts.extend(names.map(|name| format!("{sign}{role}.{name}")));
    }
    texts
}

/// What [`roles`] wrote.
pub(crate) fn read_roles(texts: &[String]) -> Roles {
    let mut roles = Roles::nothing();
    for text in texts {
        match text.strip_prefix('!') {
            None => drop(roles.add(text)),
            Some(taken) => {
                for permission in Permission::ALL {
                    let name = taken.strip_prefix(permission.role()).and_then(|rest| rest.strip_prefix('.'));
                    if let Some(name) = name {
                        roles.revoke(permission, Some(name));
                    }
                }
            }
        }
    }
    roles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_travel_whole() {
        let mut some =
            Roles::parse(["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup.a.b", "tieline.sendToUser.ü"]);
        some.revoke(Permission::JoinLeaveGroup, Some("not.this"));
        for of in [Roles::nothing(), Roles::everything(), some] {
            assert_eq!(read_roles(&roles(&of)), of);
        }
    }

    #[test]
    fn frames_travel_whole() {
        let frame = Numbered { body: b"\"a\":\"\\u0000\"}".to_vec(), mark: u128::MAX - 1 };
        let text = serde_json::to_string(&Frame::from(&frame)).unwrap();
        assert_eq!(serde_json::from_str::<Frame>(&text).unwrap().read(), Some(frame));
        assert_eq!(Frame("?".into(), "0".into()).read(), None);
    }
}
