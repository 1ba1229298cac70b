//! Reading one member: a string, a number, a flag, a list, a small object. Each error names the member.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    filter::Filter,
    id::{self, ConnectionId, MAX_EXACT, Position},
    json_text::{self, StringText},
    payload::{Data, DataType},
};

use super::{
    MAX_CLIENT_ID_BYTES, MAX_STATE_ENTRIES, MAX_TARGETS, StreamFault, Targets,
    fault::{Fault, Problem},
    frame::{Field, Frame},
};

/// What is expected of a number.
const WHOLE: &str = "a whole number from 0 to 18446744073709551615";
const WHOLE_EXACT: &str = "a whole number from 0 to 9007199254740991";
const POSITION: &str = "{\"epoch\": number, \"offset\": number}";

/// A JSON value as text.
pub(crate) fn text<'a>(field: &'static str, json: &'a str) -> Result<Cow<'a, str>, Fault> {
    match json_text::read_string(json) {
        StringText::Whole(text) => Ok(text),
        // Two different halves would become the same name.
        StringText::Repaired(_) => Err(Fault::expected(field, "a string without half a surrogate pair")),
        StringText::NotString => Err(Fault::expected(field, "a string")),
    }
}

/// A JSON value as a whole number: no sign, no fraction, no exponent, no quotes.
fn whole(field: &'static str, json: &str) -> Result<u64, Fault> {
    // `parse` takes a plus sign, which JSON does not have, so the text holds digits alone when it succeeds.
    json.parse().map_err(|_| Fault::expected(field, WHOLE))
}

/// A JSON value as a whole number that JavaScript holds exactly.
fn whole_exact(field: &'static str, json: &str) -> Result<u64, Fault> {
    let fault = || Fault::expected(field, WHOLE_EXACT);
    json.parse().ok().filter(|number| *number <= MAX_EXACT).ok_or_else(fault)
}

/// A JSON value as a flag; absent is false.
fn flag(field: &'static str, json: Option<&str>) -> Result<bool, Fault> {
    match json {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(_) => Err(Fault::expected(field, "true or false")),
    }
}

/// A short text the client chose: not empty, bounded.
fn client_id<'a>(field: &'static str, json: &'a str) -> Result<Cow<'a, str>, Fault> {
    let text = text(field, json)?;
    if text.is_empty() || text.len() > MAX_CLIENT_ID_BYTES {
        return Err(Fault::expected(field, "a string of 1 to 256 bytes"));
    }
    Ok(text)
}

/// A small object, read by its derived reader. Arrays, which serde would take for one, are refused.
fn object<'a, T: Deserialize<'a>>(
    field: &'static str,
    json: &'a str,
    expected: &'static str,
) -> Result<T, Fault> {
    let fault = || Fault::expected(field, expected);
    if !json.starts_with('{') {
        return Err(fault());
    }
    serde_json::from_str(json).map_err(|_| fault())
}

/// A list with a bound, which is checked while it is read.
fn list<'a>(field: &'static str, json: &'a str, room: &mut usize) -> Result<Vec<&'a RawValue>, Fault> {
    if !json.starts_with('[') {
        return Err(Fault::expected(field, "an array of strings"));
    }
    let mut found = Vec::new();
    let limit = *room;
    let mut entries = Entries { found: &mut found, limit };
    let fits =
        serde::de::DeserializeSeed::deserialize(&mut entries, &mut serde_json::Deserializer::from_str(json));
    if fits.is_err() {
        return Err(Fault::at(field, Problem::TooMany { limit: MAX_TARGETS }));
    }
    *room -= found.len();
    Ok(found)
}

/// Collects at most `limit` raw values; one more is an error.
struct Entries<'v, 'a> {
    found: &'v mut Vec<&'a RawValue>,
    limit: usize,
}

impl<'a> serde::de::DeserializeSeed<'a> for &mut Entries<'_, 'a> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'a>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> serde::de::Visitor<'a> for &mut Entries<'_, 'a> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: serde::de::SeqAccess<'a>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element()? {
            if self.found.len() == self.limit {
                return Err(serde::de::Error::custom("too many entries"));
            }
            self.found.push(value);
        }
        Ok(())
    }
}

/// A list of users or groups, each checked.
fn names<'a>(
    field: &'static str,
    json: Option<&'a str>,
    room: &mut usize,
    check: fn(&str) -> Result<(), id::NameError>,
) -> Result<Vec<Cow<'a, str>>, Fault> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let checked = |raw: &'a RawValue| {
        let name = text(field, raw.get())?;
        check(&name).map_err(|error| Fault::at(field, Problem::Name(error)))?;
        Ok(name)
    };
    list(field, json, room)?.into_iter().map(checked).collect()
}

/// A list of connection ids.
fn connections(
    field: &'static str,
    json: Option<&str>,
    room: &mut usize,
) -> Result<Vec<ConnectionId>, Fault> {
    let Some(json) = json else { return Ok(Vec::new()) };
    let read = |raw: &RawValue| {
        text(field, raw.get())?.parse().map_err(|_| Fault::expected(field, "connection ids of 27 characters"))
    };
    list(field, json, room)?.into_iter().map(read).collect()
}

/// The `stream` of a `sendToGroup`.
pub(crate) struct StreamStart<'a> {
    /// The client's name for the stream.
    pub(crate) stream_id: Cow<'a, str>,
    /// How long it may be silent, in milliseconds.
    pub(crate) idle_timeout_ms: Option<u64>,
}

impl<'a> Frame<'a> {
    /// A string, if there is one.
    pub(crate) fn text(&self, field: Field) -> Result<Option<Cow<'a, str>>, Fault> {
        self.get(field).map(|json| text(field.name(), json)).transpose()
    }

    /// A short text the client chose, if there is one.
    pub(crate) fn client_id(&self, field: Field) -> Result<Option<Cow<'a, str>>, Fault> {
        self.get(field).map(|json| client_id(field.name(), json)).transpose()
    }

    /// A short text the client chose, which must be there.
    pub(crate) fn needed_client_id(&self, field: Field) -> Result<Cow<'a, str>, Fault> {
        self.client_id(field)?.ok_or_else(|| Fault::missing(field.name(), "a string"))
    }

    /// A whole number, if there is one.
    pub(crate) fn whole(&self, field: Field) -> Result<Option<u64>, Fault> {
        self.get(field).map(|json| whole(field.name(), json)).transpose()
    }

    /// A whole number, which must be there.
    pub(crate) fn needed_whole(&self, field: Field) -> Result<u64, Fault> {
        self.whole(field)?.ok_or_else(|| Fault::missing(field.name(), WHOLE))
    }

    /// An offset, which must be there.
    pub(crate) fn needed_offset(&self, field: Field) -> Result<u64, Fault> {
        match self.get(field) {
            Some(json) => whole_exact(field.name(), json),
            None => Err(Fault::missing(field.name(), WHOLE_EXACT)),
        }
    }

    /// A flag; absent is false.
    pub(crate) fn flag(&self, field: Field) -> Result<bool, Fault> {
        flag(field.name(), self.get(field))
    }

    /// A flag, or none where it is absent.
    pub(crate) fn optional_flag(&self, field: Field) -> Result<Option<bool>, Fault> {
        self.get(field).map(|json| flag(field.name(), Some(json))).transpose()
    }

    /// A group, which must be there.
    pub(crate) fn group(&self) -> Result<Cow<'a, str>, Fault> {
        self.optional_group()?.ok_or_else(|| Fault::missing("group", "a group's name"))
    }

    /// A group, if there is one.
    pub(crate) fn optional_group(&self) -> Result<Option<Cow<'a, str>>, Fault> {
        let Some(group) = self.text(Field::Group)? else { return Ok(None) };
        id::check_group(&group).map_err(|error| Fault::at("group", Problem::Name(error)))?;
        Ok(Some(group))
    }

    /// A user, which must be there.
    pub(crate) fn user(&self) -> Result<Cow<'a, str>, Fault> {
        let user = self.text(Field::User)?.ok_or_else(|| Fault::missing("user", "a user's id"))?;
        id::check_user(&user).map_err(|error| Fault::at("user", Problem::Name(error)))?;
        Ok(user)
    }

    /// The `users` beside a group.
    pub(crate) fn users(&self) -> Result<Vec<Cow<'a, str>>, Fault> {
        names("users", self.get(Field::Users), &mut { MAX_TARGETS }, id::check_user)
    }

    /// The `to` of a send to many. Unknown members are refused here: an exclusion that is misspelt must not
    /// be ignored.
    pub(crate) fn targets(&self) -> Result<Targets<'a>, Fault> {
        let (targets, all) = self.targets_or_all()?;
        if all {
            return Err(Fault::expected("to.all", "no such member; the frame for everybody is sendToAll"));
        }
        Ok(targets)
    }

    /// The `to` of a REST send, and whether it asks for everybody.
    pub(crate) fn targets_or_all(&self) -> Result<(Targets<'a>, bool), Fault> {
        /// The members of `to`, still raw.
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct To<'a> {
            #[serde(borrow)]
            users: Option<&'a RawValue>,
            #[serde(borrow)]
            groups: Option<&'a RawValue>,
            #[serde(borrow)]
            connections: Option<&'a RawValue>,
            #[serde(borrow)]
            excluded: Option<&'a RawValue>,
            #[serde(borrow)]
            all: Option<&'a RawValue>,
        }
        const EXPECTED: &str = "an object of users, groups, connections and excluded, none twice";
        let json = self.get(Field::To).ok_or_else(|| Fault::missing("to", EXPECTED))?;
        let to: To<'a> = object("to", json, EXPECTED)?;
        let mut room = MAX_TARGETS;
        let targets = Targets {
            users: names("to.users", to.users.map(RawValue::get), &mut room, id::check_user)?,
            groups: names("to.groups", to.groups.map(RawValue::get), &mut room, id::check_group)?,
            connections: connections("to.connections", to.connections.map(RawValue::get), &mut room)?,
            excluded: connections("to.excluded", to.excluded.map(RawValue::get), &mut room)?,
        };
        let all = flag("to.all", to.all.map(RawValue::get))?;
        if targets.is_empty() && !all {
            return Err(Fault::expected("to", "at least one user, group or connection"));
        }
        Ok((targets, all))
    }

    /// A position, if there is one.
    pub(crate) fn position(&self, field: Field) -> Result<Option<Position>, Fault> {
        self.get(field).map(|json| object(field.name(), json, POSITION)).transpose()
    }

    /// The payload, if there is one. Without a `dataType` it is JSON, as in the public reference of the Azure
    /// protocols.
    pub(crate) fn optional_data(&self) -> Result<Option<Data<'a>>, Fault> {
        let data_type = match self.text(Field::DataType)? {
            None => DataType::Json,
            Some(name) => DataType::from_name(&name)
                .ok_or_else(|| Fault::expected("dataType", "one of json, text, binary, protobuf"))?,
        };
        let Some(raw) = self.raw(Field::Data) else { return Ok(None) };
        Data::checked(data_type, raw).map(Some).map_err(|error| Fault::at("data", Problem::Data(error)))
    }

    /// The payload, which must be there; `null` is one.
    pub(crate) fn data(&self) -> Result<Data<'a>, Fault> {
        self.optional_data()?.ok_or_else(|| Fault::missing("data", "the payload"))
    }

    /// The `stream` in place of data, if there is one.
    pub(crate) fn stream_start(&self) -> Result<Option<StreamStart<'a>>, Fault> {
        /// The members of `stream`, still raw.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Stream<'a> {
            #[serde(borrow)]
            stream_id: &'a RawValue,
            #[serde(borrow)]
            idle_timeout_ms: Option<&'a RawValue>,
        }
        let Some(json) = self.get(Field::Stream) else { return Ok(None) };
        let stream: Stream<'a> =
            object("stream", json, "{\"streamId\": string, \"idleTimeoutMs\"?: number}")?;
        let stream_id = client_id("stream.streamId", stream.stream_id.get())?;
        let idle_timeout_ms =
            stream.idle_timeout_ms.map(|raw| whole("stream.idleTimeoutMs", raw.get())).transpose()?;
        Ok(Some(StreamStart { stream_id, idle_timeout_ms }))
    }

    /// The `error` a stream ends with, if there is one.
    pub(crate) fn stream_fault(&self) -> Result<Option<StreamFault<'a>>, Fault> {
        /// The members of `error`, still raw.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Error<'a> {
            #[serde(borrow)]
            message: Option<&'a RawValue>,
            #[serde(borrow)]
            user_error_code: Option<&'a RawValue>,
        }
        let Some(json) = self.get(Field::Error) else { return Ok(None) };
        let error: Error<'a> =
            object("error", json, "{\"message\"?: string, \"userErrorCode\"?: string or number}")?;
        let message =
            error.message.map(|raw| text("error.message", raw.get())).transpose()?.unwrap_or_default();
        let user_error_code = error.user_error_code.map(RawValue::get);
        if user_error_code.is_some_and(|json| json.starts_with(['{', '[', 't', 'f'])) {
            return Err(Fault::expected("error.userErrorCode", "a string or a number"));
        }
        Ok(Some(StreamFault { message, user_error_code }))
    }

    /// The `filter` of a send, compiled, if there is one.
    pub(crate) fn filter(&self) -> Result<Option<Filter>, Fault> {
        let Some(text) = self.text(Field::Filter)? else { return Ok(None) };
        Filter::parse(&text).map(Some).map_err(|error| Fault::at("filter", Problem::Filter(error)))
    }

    /// The `state` of a group member: an object of strings, kept as it was written.
    pub(crate) fn group_state(&self) -> Result<Option<&'a str>, Fault> {
        let Some(json) = self.get(Field::State) else { return Ok(None) };
        let StateShape = object("state", json, "an object of at most 64 strings, no name twice")?;
        Ok(Some(json))
    }
}

/// Reads through an object of strings, keeping nothing but the answer that it is one.
struct StateShape;

impl<'a> Deserialize<'a> for StateShape {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        /// Counts entries and refuses doubles.
        struct Visitor;
        impl<'a> serde::de::Visitor<'a> for Visitor {
            type Value = StateShape;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object of strings")
            }

            fn visit_map<A: serde::de::MapAccess<'a>>(self, mut map: A) -> Result<StateShape, A::Error> {
                let mut seen = std::collections::HashSet::new();
                while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
                    if seen.len() == MAX_STATE_ENTRIES || !value.get().starts_with('"') || !seen.insert(key) {
                        return Err(serde::de::Error::custom("not a state"));
                    }
                }
                Ok(StateShape)
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}
