//! [`Checkpoint`]: what the store keeps of a connection of the reliable protocol, so that it outlives its node. As a record of JSON,
//! which people can read and other versions of the program can tell from their own.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tieline_proto::presence::Details;
use tieline_proto::{ConnectionId, HubName, Incarnation, NodeId, NodeName, UserId};

use super::words::{Group, Place};
use crate::records::RecordKey;

/// The form of the record. One of another form belongs to a program that this one knows nothing of.
const FORM: u8 = 1;

/// How many times a connection may be taken over: numbers stay exact in JavaScript.
pub(super) const MOST_GENERATIONS: u32 = (1 << 21) - 1;

/// How long a record lives beyond the time in which a client comes back. It is renewed three times meanwhile, so one that lapses has a node
/// that is dead, or that the store has not heard for so long.
const SPARE: Duration = Duration::from_secs(900);

/// How long a record lives that nobody renews, where cut clients have so long to come back.
pub(super) fn life(window: Duration) -> Duration {
    window.saturating_add(SPARE)
}

/// What a connection was when it was last written down.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    form: u8,
    /// Its hub.
    pub(crate) hub: HubName,
    /// Its id.
    pub(crate) id: ConnectionId,
    /// The name of the node that holds it.
    name: NodeName,
    /// Which start of that node.
    incarnation: Incarnation,
    /// How often it was taken over. Whoever has a lower one holds it no longer.
    pub(crate) generation: u32,
    /// Whether its node has it whole. One that has only begun to take it may not have come to an end.
    pub(crate) is_settled: bool,
    /// Its user.
    pub(crate) user: Option<UserId>,
    /// The device that its place is for, where its user has one place for each.
    pub(crate) device: Option<String>,
    /// What others see of it where it is told who is present.
    #[serde(default)]
    pub(crate) details: Option<Details>,
    /// What it may do, as [`roles`](super::words::roles) writes it.
    pub(crate) roles: Vec<String>,
    /// Its groups, and up to where its client has their logs.
    pub(crate) groups: Vec<Group>,
    /// Up to where its client has its user's inbox.
    pub(crate) inbox: Option<Place>,
    /// The ackIds that were carried out, as intervals.
    pub(crate) acks: Vec<(u64, u64)>,
    /// What the application wants to be reminded of.
    pub(crate) state: Option<String>,
}

impl Checkpoint {
    /// That of a connection without user and groups.
    pub(crate) fn new(hub: HubName, id: ConnectionId, holder: &NodeId, generation: u32) -> Self {
        let NodeId { name, incarnation } = holder.clone();
        Checkpoint {
            form: FORM,
            hub,
            id,
            name,
            incarnation,
            generation,
            is_settled: true,
            user: None,
            device: None,
            details: None,
            roles: Vec::new(),
            groups: Vec::new(),
            inbox: None,
            acks: Vec::new(),
            state: None,
        }
    }

    /// Who holds the connection.
    pub(crate) fn holder(&self) -> NodeId {
        NodeId { name: self.name.clone(), incarnation: self.incarnation }
    }

    /// What it is when another node begins to take it.
    pub(super) fn raised(&self, holder: &NodeId) -> Self {
        let NodeId { name, incarnation } = holder.clone();
        Checkpoint { name, incarnation, generation: self.generation + 1, is_settled: false, ..self.clone() }
    }

    /// Whether who holds the connection by this generation has lost it to the one that this says.
    pub(crate) fn supersedes(&self, generation: u32, holder: Incarnation) -> bool {
        self.generation > generation || self.generation == generation && self.incarnation != holder
    }

    /// The record.
    pub(crate) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// What [`write`](Checkpoint::write) wrote; none where it is something else.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        #[derive(Deserialize)]
        struct Form {
            form: u8,
        }
        let form: Form = serde_json::from_slice(bytes).ok()?;
        if form.form != FORM { None } else { serde_json::from_slice(bytes).ok() }
    }
}

/// The number of the first frame of a generation.
pub(crate) fn first_number(generation: u32) -> u64 {
    u64::from(generation) << 32 | 1
}

/// Under which name the record of a connection is kept.
pub(crate) fn key(id: ConnectionId) -> RecordKey {
    RecordKey::new(&format!("connection/{id}")).expect("a prefix and an id are a key")
}

#[cfg(test)]
mod tests {
    use tieline_proto::id::MAX_EXACT;
    use tieline_proto::{GroupName, Position};

    use super::*;

    fn node(name: &str, incarnation: u64) -> NodeId {
        NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(incarnation) }
    }

    fn whole() -> Checkpoint {
        let at = Position { epoch: MAX_EXACT, offset: 1 };
        let id = ConnectionId::new(Incarnation(u64::MAX), 1, 2, 3, 4);
        let inbox = Place {
            at,
            has_given: true,
            is_open: true,
            device: Some("a \"phone\"".into()),
            marks: Vec::new(),
        };
        Checkpoint {
            user: Some(UserId::new("ü").unwrap()),
            device: Some("d".into()),
            details: Details::new(Some("d"), None).unwrap(),
            roles: vec!["webpubsub.sendToGroup".into(), "!tieline.sendToUser.x".into()],
            groups: vec![Group { name: GroupName::new("g").unwrap(), at: Some(at) }],
            inbox: Some(inbox),
            acks: vec![(0, 7), (u64::MAX, u64::MAX)],
            state: Some("{}".into()),
            ..Checkpoint::new(HubName::new("hub").unwrap(), id, &node("n", u64::MAX), 3)
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        let checkpoint = whole();
        assert_eq!(Checkpoint::read(&checkpoint.write()), Some(checkpoint));
    }

    #[test]
    fn what_another_program_wrote_is_not_read() {
        let text = String::from_utf8(whole().write()).unwrap();
        let cut = &text[..text.len() - 1];
        for other in ["", "null", "{}", cut, &text.replace("\"form\":1", "\"form\":2")] {
            assert_eq!(Checkpoint::read(other.as_bytes()), None, "{other}");
        }
        // A member that a later one of the same form adds is passed over.
        let more = text.replace("\"form\":1", "\"form\":1,\"more\":[]");
        assert_eq!(Checkpoint::read(more.as_bytes()), Some(whole()));
    }

    #[test]
    fn of_two_nodes_the_one_with_the_higher_generation_has_it() {
        let (one, two) = (node("a", 1), node("b", 2));
        let first = Checkpoint { generation: 1, ..whole() }.raised(&one);
        assert_eq!((first.generation, first.holder(), first.is_settled), (2, one.clone(), false));
        assert!(!first.supersedes(2, one.incarnation), "who holds it has not lost it to itself");
        assert!(first.supersedes(2, two.incarnation), "who was beaten by a moment has");
        assert!(first.supersedes(1, two.incarnation));
        assert!(!first.supersedes(3, two.incarnation), "who is later has not");
    }

    #[test]
    fn numbers_of_generations_do_not_overlap_and_are_exact() {
        assert_eq!([first_number(0), first_number(1)], [1, (1 << 32) + 1]);
        assert!(first_number(MOST_GENERATIONS) + u64::from(u32::MAX) - 1 <= MAX_EXACT);
    }
}
