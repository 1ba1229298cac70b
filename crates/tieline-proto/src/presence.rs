//! Who is present, as it is told: [`Details`] of connections, [`Page`]s of a snapshot, [`Event`]s.
//!
//! Only types: who is present is worked out elsewhere, and `reply/presence.rs` writes frames and bodies of them. Tested here,
//! and with the frames in `reply/tests.rs`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::id::{GroupName, NodeName, UserId};
use crate::json_text;

/// The most that the data of a connection may have, as JSON without blanks, in bytes.
pub const MAX_DATA: usize = 1024;

/// What others see of a connection beside its user: the device, and data that its token or the application gave it. Kept as the
/// members of a JSON object, as they are written into every frame, and shared by all who tell of it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Details(Arc<str>);

/// The data of a connection is not such as may be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the data for presence has more than {MAX_DATA} bytes")]
pub struct DataTooLarge;

/// What [`Details`] have in them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Members<'a> {
    #[serde(borrow)]
    #[expect(dead_code, reason = "only its type is looked at")]
    device: Option<std::borrow::Cow<'a, str>>,
    #[serde(borrow)]
    #[expect(dead_code, reason = "that it is JSON is all there is to know")]
    data: Option<&'a RawValue>,
}

impl Details {
    /// The details of a connection that is this device, and has this JSON text for data; none where it has neither.
    ///
    /// # Errors
    /// When the data is larger than [`MAX_DATA`].
    pub fn new(
        device: Option<&str>,
        data: Option<&serde_json::Value>,
    ) -> Result<Option<Details>, DataTooLarge> {
        let data = data.filter(|data| !data.is_null()).map(serde_json::Value::to_string);
        if data.as_ref().is_some_and(|data| data.len() > MAX_DATA) {
            return Err(DataTooLarge);
        }
        let mut members = Vec::new();
        if let Some(device) = device {
            members.extend_from_slice(b"\"device\":");
            json_text::push_string(&mut members, device);
        }
        if let Some(data) = data {
            members.extend_from_slice(if members.is_empty() { b"" } else { b"," });
            members.extend_from_slice(b"\"data\":");
            members.extend_from_slice(data.as_bytes());
        }
        let text = String::from_utf8(members).expect("JSON is text");
        Ok((!text.is_empty()).then(|| Details(text.into())))
    }

    /// The members of the object, without its braces.
    #[must_use]
    pub fn members(&self) -> &str {
        &self.0
    }

    /// Reads what [`Details::members`] gave.
    fn of_members(text: &str) -> Option<Details> {
        let object = format!("{{{text}}}");
        let is_it = !text.is_empty() && serde_json::from_str::<Members<'_>>(&object).is_ok();
        is_it.then(|| Details(text.into()))
    }
}

impl fmt::Debug for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.0)
    }
}

impl Serialize for Details {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Details {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        Details::of_members(&text).ok_or_else(|| serde::de::Error::custom("not the details of a connection"))
    }
}

/// What one node states of one user in one place: it holds connections of that user there, with these details. Without a
/// user, those of nobody.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Present {
    /// The group; none for the whole hub.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupName>,
    /// Who.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserId>,
    /// What is told of these connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

/// What a node states of connections with equal details, in one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stay {
    /// When the user came, in Unix milliseconds, by the clock of the node that it came to. All nodes that the user has connections
    /// on state the smallest that they know, so it names this visit of the user.
    pub visit: u64,
    /// How many connections there are, as far as [`Stay::MOST`].
    pub connections: u64,
}

impl Stay {
    /// The most connections that are told apart.
    pub const MOST: u64 = (1 << Stay::BITS) - 1;

    const BITS: u32 = 16;

    /// As it is stated. The time lasts until the year 10889.
    #[must_use]
    pub fn number(self) -> u64 {
        self.visit << Stay::BITS | self.connections.min(Stay::MOST)
    }

    /// What was stated.
    #[must_use]
    pub fn of(number: u64) -> Stay {
        Stay { visit: number >> Stay::BITS, connections: number & Stay::MOST }
    }
}

/// Connections of one user on one node that have the same details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeName,
    /// How many they are.
    pub connections: u64,
    /// Their details.
    pub details: Option<Details>,
}

/// One user in a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// Who.
    pub user: UserId,
    /// Its connections, on all nodes; 0 while it is waited for to come back.
    pub connections: u64,
    /// Where they are; of very many only some.
    pub places: Vec<Place>,
}

/// How many are present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Users, those that are waited for to come back among them.
    pub users: u64,
    /// Connections, those without a user among them.
    pub connections: u64,
    /// Connections without a user.
    pub anonymous: u64,
}

/// A page of a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Sorted by the bytes of their names.
    pub users: Vec<Person>,
    /// How many there are in all.
    pub totals: Totals,
    /// The last user of this page, if others follow.
    pub next: Option<UserId>,
    /// Whether all nodes that live have told whom they hold.
    pub is_complete: bool,
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Turn {
    /// A user has come.
    Join,
    /// A user's last connection is gone, and it did not come back in time.
    Leave,
}

impl Turn {
    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Turn::Join => "join",
            Turn::Leave => "leave",
        }
    }
}

/// A user that has come or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Which of the two.
    pub turn: Turn,
    /// Who.
    pub user: UserId,
    /// The node that its first connection came to, or that had its last.
    pub node: NodeName,
    /// The details of that connection.
    pub details: Option<Details>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn data(value: serde_json::Value) -> Option<Details> {
        Details::new(None, Some(&value)).unwrap()
    }

    #[test]
    fn details_are_members_of_an_object_whatever_is_in_them() {
        for (device, value) in [
            (Some("phone"), json!({"name": "Ä \"quoted\" \\ \u{0} </script>"})),
            (Some("\"},{\"device\":\"x"), json!(["}", {"device": 1}])),
            (None, json!("text")),
            (Some("tab\t"), json!(null)),
        ] {
            let details = Details::new(device, Some(&value)).unwrap().unwrap();
            let object: serde_json::Value =
                serde_json::from_str(&format!("{{{}}}", details.members())).unwrap();
            assert_eq!(object.get("device").and_then(|device| device.as_str()), device);
            assert_eq!(object.get("data"), Some(&value).filter(|value| !value.is_null()));
            let text = serde_json::to_string(&details).unwrap();
            assert_eq!(serde_json::from_str::<Details>(&text).unwrap(), details);
        }
        assert_eq!(Details::new(None, None), Ok(None));
        assert_eq!(data(json!(null)), None);
    }

    #[test]
    fn data_has_a_bound() {
        let text = |length: usize| json!("x".repeat(length));
        assert!(Details::new(None, Some(&text(MAX_DATA - 2))).is_ok());
        assert_eq!(Details::new(None, Some(&text(MAX_DATA - 1))), Err(DataTooLarge));
    }

    #[test]
    fn what_another_node_says_is_not_believed_to_be_details() {
        for text in
            ["", "1", "\"data\":", "\"data\":1}", "\"other\":1", "\"data\":1},{\"a\":1", "\"device\":1"]
        {
            let said = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<Details>(&said).is_err(), "{text}");
        }
    }
}
