//! [`Frame`]: a frame cut into its members, each still raw JSON.
//!
//! One flat record for all types of frame. It knows names and nothing of their meaning.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::{error::Category, value::RawValue};

use super::fault::{Fault, Problem};

/// Declares the members that some frame has, with their names on the wire.
macro_rules! fields {
    ($($field:ident $name:literal,)*) => {
        /// A member that some frame has.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Field { $($field,)* }

        impl Field {
            /// How many there are.
            const COUNT: usize = [$($name,)*].len();

            /// The name on the wire.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Field::$field => $name,)* }
            }

            /// Finds a member by its name, which is told by case.
            fn from_name(name: &str) -> Option<Field> {
                match name { $($name => Some(Field::$field),)* _ => None }
            }
        }
    };
}

fields! {
    Type "type",
    Group "group",
    Data "data",
    DataType "dataType",
    AckId "ackId",
    NoEcho "noEcho",
    User "user",
    Users "users",
    To "to",
    MessageId "messageId",
    Since "since",
    Event "event",
    SequenceId "sequenceId",
    Stream "stream",
    StreamId "streamId",
    StreamSequenceId "streamSequenceId",
    Error "error",
    InvocationId "invocationId",
    Target "target",
    State "state",
    Inbox "inbox",
    Device "device",
    Offset "offset",
    After "after",
    Limit "limit",
    Token "token",
    Filter "filter",
}

/// The members of one frame.
pub(crate) struct Frame<'a> {
    /// What stands behind each member; `null` is kept, because only `data` may mean it.
    values: [Option<&'a RawValue>; Field::COUNT],
    /// The first member that came twice. Reading goes on, so that the ackId is still found.
    twice: Option<Field>,
}

impl<'a> Frame<'a> {
    /// Cuts the text.
    pub(crate) fn cut(text: &'a str) -> Result<Frame<'a>, Fault> {
        serde_json::from_str(text).map_err(|error| Fault {
            field: None,
            problem: match error.classify() {
                // The only type error there can be: every member is taken as it is.
                Category::Data => Problem::NotObject,
                _ => Problem::NotJson { at: byte_of(text, &error) },
            },
        })
    }

    /// The member, or none where it is absent.
    pub(crate) fn raw(&self, field: Field) -> Option<&'a RawValue> {
        self.values[field as usize]
    }

    /// The member, or none where it is absent or `null`.
    pub(crate) fn get(&self, field: Field) -> Option<&'a str> {
        self.raw(field).map(RawValue::get).filter(|json| *json != "null")
    }

    /// The first member that came twice.
    pub(crate) fn twice(&self) -> Option<Field> {
        self.twice
    }
}

/// Where in the text an error lies, counted from 1: serde counts lines and columns.
fn byte_of(text: &str, error: &serde_json::Error) -> usize {
    let lines_before = error.line().saturating_sub(1);
    let before: usize = text.split_inclusive('\n').take(lines_before).map(str::len).sum();
    before + error.column()
}

impl<'de> Deserialize<'de> for Frame<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FrameVisitor)
    }
}

struct FrameVisitor;

impl<'de> Visitor<'de> for FrameVisitor {
    type Value = Frame<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Frame<'de>, A::Error> {
        let mut frame = Frame { values: [None; Field::COUNT], twice: None };
        while let Some(Key(field)) = map.next_key()? {
            match field {
                // Skipped without recursion, however deep it nests.
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(field) => {
                    let value = map.next_value()?;
                    if frame.values[field as usize].replace(value).is_some() {
                        frame.twice.get_or_insert(field);
                    }
                }
            }
        }
        Ok(frame)
    }
}

/// A member's name; none for those that no frame has.
struct Key(Option<Field>);

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

struct KeyVisitor;

impl Visitor<'_> for KeyVisitor {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, name: &str) -> Result<Key, E> {
        Ok(Key(Field::from_name(name)))
    }
}
