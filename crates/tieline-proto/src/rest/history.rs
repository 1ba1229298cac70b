//! [`HistoryPage`]: a page of what is kept of the messages to a group or a user.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::{
    civil,
    id::{MessageId, Position},
    payload::Data,
};

/// A page of a log.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryPage<'a> {
    /// Which life of the log; 0 where there is none.
    pub epoch: u64,
    /// The oldest offset that is kept; `last + 1` when none is.
    pub first: u64,
    /// The newest offset there ever was; 0 before the first.
    pub last: u64,
    /// By their offsets.
    pub messages: Vec<HistoryItem<'a>>,
    /// Where the next page is: an absolute URL. None on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_link: Option<String>,
}

/// One message of a page: its members are those of a message of `tieline.v1`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryItem<'a> {
    id: String,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from_user_id: Option<&'a str>,
    position: Position,
    data_type: &'static str,
    data: &'a RawValue,
}

impl<'a> HistoryItem<'a> {
    /// An item, `time_ms` in Unix milliseconds.
    #[must_use]
    pub fn new(
        id: MessageId,
        time_ms: u64,
        from_user_id: Option<&'a str>,
        position: Position,
        data: Data<'a>,
    ) -> Self {
        let mut time = Vec::with_capacity(24);
        civil::push_rfc3339(&mut time, time_ms);
        let data_type = data.data_type().as_str();
        let data = serde_json::from_str(data.json()).expect("a payload is JSON text");
        let time = String::from_utf8(time).expect("a time is ASCII");
        HistoryItem { id: id.to_string(), time, from_user_id, position, data_type, data }
    }
}
