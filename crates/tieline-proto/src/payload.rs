//! [`Data`] and [`Payload`]: what a message carries, kept as the JSON text that stands behind `"data":`.
//!
//! A payload that came in a JSON frame leaves in JSON frames byte for byte; nothing is decoded on the way.
//! Decoding happens only where bytes are wanted (REST bodies out, raw sockets). Frames borrow a [`Data`];
//! whoever keeps a message owns a [`Payload`].

use std::{borrow::Cow, fmt, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::value::RawValue;

use crate::json_text::{self, StringText};

#[cfg(test)]
mod tests;

/// What the payload is, as the wire's `dataType` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DataType {
    /// Any JSON value.
    Json,
    /// A string.
    Text,
    /// Bytes, in base64 on JSON wires.
    Binary,
    /// Bytes of a protobuf message, in base64 on JSON wires. The official clients send it, though the public
    /// reference leaves it out.
    Protobuf,
}

impl DataType {
    /// The name on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            DataType::Json => "json",
            DataType::Text => "text",
            DataType::Binary => "binary",
            DataType::Protobuf => "protobuf",
        }
    }

    /// Reads the name on the wire; it is told by case.
    #[must_use]
    pub fn from_name(name: &str) -> Option<DataType> {
        match name {
            "json" => Some(DataType::Json),
            "text" => Some(DataType::Text),
            "binary" => Some(DataType::Binary),
            "protobuf" => Some(DataType::Protobuf),
            _ => None,
        }
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why bytes or text are no payload of the type they claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// The body is not UTF-8.
    #[error("the body is not UTF-8 text")]
    NotUtf8,
    /// The body is not one JSON value.
    #[error("the body is not valid JSON")]
    NotJson,
    /// `text` data must be a string.
    #[error("data of type text must be a string")]
    NotString,
    /// `binary` and `protobuf` data must be a string of base64 with padding.
    #[error("data of type binary or protobuf must be a base64 string (RFC 4648, with padding)")]
    NotBase64,
    /// Arrays and objects nest too deep.
    #[error("data nests deeper than 128 levels")]
    TooDeep,
}

/// A payload, borrowed from the frame or body it came in. What `json` holds was checked against `data_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Data<'a> {
    /// What the payload is.
    data_type: DataType,
    /// The JSON text behind `"data":`: any value for `json`, else a string.
    json: &'a str,
}

impl<'a> Data<'a> {
    /// Checks a valid JSON value against its type.
    ///
    /// # Errors
    /// When the value does not fit the type, or nests too deep.
    pub fn from_raw(data_type: DataType, raw: &'a RawValue) -> Result<Self, DataError> {
        Data::checked(data_type, raw.get())
    }

    /// Checks JSON, which the caller knows to be JSON, against its type.
    pub(crate) fn checked(data_type: DataType, json: &'a str) -> Result<Self, DataError> {
        match data_type {
            DataType::Json if json_text::too_deep(json) => return Err(DataError::TooDeep),
            DataType::Json => {}
            DataType::Text if json.starts_with('"') => {}
            DataType::Text => return Err(DataError::NotString),
            DataType::Binary | DataType::Protobuf => match json_text::read_string(json) {
                StringText::Whole(text) if is_base64(text.as_bytes()) => {}
                _ => return Err(DataError::NotBase64),
            },
        }
        Ok(Data { data_type, json })
    }

    /// What the payload is.
    #[must_use]
    pub const fn data_type(self) -> DataType {
        self.data_type
    }

    /// The JSON text behind `"data":`, ready to be written into a frame.
    #[must_use]
    pub const fn json(self) -> &'a str {
        self.json
    }

    /// Keeps the payload beyond its frame.
    #[must_use]
    pub fn to_payload(self) -> Payload {
        Payload { data_type: self.data_type, json: self.json.into() }
    }

    /// The payload itself: the JSON text, the string, or the decoded bytes. Half of a surrogate pair in a
    /// string, which UTF-8 cannot hold, becomes U+FFFD.
    #[must_use]
    pub fn to_bytes(self) -> Cow<'a, [u8]> {
        if self.data_type == DataType::Json {
            return Cow::Borrowed(self.json.as_bytes());
        }
        let text = match json_text::read_string(self.json) {
            StringText::Whole(text) => text,
            StringText::Repaired(text) => Cow::Owned(text),
            StringText::NotString => Cow::Borrowed(self.json),
        };
        match (self.data_type, text) {
            (DataType::Binary | DataType::Protobuf, text) => {
                Cow::Owned(STANDARD.decode(text.as_bytes()).expect("base64 was checked on the way in"))
            }
            (_, Cow::Borrowed(text)) => Cow::Borrowed(text.as_bytes()),
            (_, Cow::Owned(text)) => Cow::Owned(text.into_bytes()),
        }
    }
}

/// A payload that is kept: in a log, an inbox, an envelope. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// What the payload is.
    data_type: DataType,
    /// The JSON text behind `"data":`, shared by all clones.
    json: Arc<str>,
}

impl Payload {
    /// A text payload: the string is escaped once, here.
    #[must_use]
    pub fn from_text(text: &str) -> Payload {
        let mut json = Vec::new();
        json_text::push_string(&mut json, text);
        Payload { data_type: DataType::Text, json: into_text(json) }
    }

    /// A JSON payload: one valid JSON value, kept as it was written, without the blanks around it.
    ///
    /// # Errors
    /// When the text is not JSON or nests too deep.
    pub fn from_json(text: &str) -> Result<Payload, DataError> {
        let raw: &RawValue = serde_json::from_str(text).map_err(|_| DataError::NotJson)?;
        Ok(Data::from_raw(DataType::Json, raw)?.to_payload())
    }

    /// A binary (or protobuf) payload: the bytes are encoded once, here.
    #[must_use]
    pub fn from_bytes(data_type: DataType, bytes: &[u8]) -> Payload {
        debug_assert!(matches!(data_type, DataType::Binary | DataType::Protobuf));
        let mut json = String::with_capacity(bytes.len().div_ceil(3) * 4 + 2);
        json.push('"');
        STANDARD.encode_string(bytes, &mut json);
        json.push('"');
        Payload { data_type, json: json.into() }
    }

    /// The body of a REST send, by the type its `Content-Type` named.
    ///
    /// # Errors
    /// When the body is not of that type.
    pub fn from_body(data_type: DataType, body: &[u8]) -> Result<Payload, DataError> {
        let text = || std::str::from_utf8(body).map_err(|_| DataError::NotUtf8);
        match data_type {
            DataType::Json => Payload::from_json(text()?),
            DataType::Text => Ok(Payload::from_text(text()?)),
            DataType::Binary | DataType::Protobuf => Ok(Payload::from_bytes(data_type, body)),
        }
    }

    /// Takes back what [`Data::json`] gave, for instance from a store or another node, and checks it anew.
    ///
    /// # Errors
    /// When the text is not JSON of that type.
    pub fn from_parts(data_type: DataType, json: &str) -> Result<Payload, DataError> {
        let raw: &RawValue = serde_json::from_str(json).map_err(|_| DataError::NotJson)?;
        Ok(Data::from_raw(data_type, raw)?.to_payload())
    }

    /// The payload, borrowed.
    #[must_use]
    pub fn as_data(&self) -> Data<'_> {
        Data { data_type: self.data_type, json: &self.json }
    }

    /// How much memory the text takes, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.json.len()
    }

    /// Never: even the smallest JSON value has a byte. Here because `len` is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.json.is_empty()
    }
}

/// Makes shared text of bytes that this crate wrote.
fn into_text(json: Vec<u8>) -> Arc<str> {
    String::from_utf8(json).expect("escaped text stays UTF-8").into()
}

/// Whether the bytes are base64 of the standard alphabet with padding, in its one canonical form, without
/// decoding them to memory.
fn is_base64(bytes: &[u8]) -> bool {
    let [body @ .., third, fourth] = bytes else { return bytes.is_empty() };
    if !bytes.len().is_multiple_of(4) {
        return false;
    }
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() | (*byte == b'+') | (*byte == b'/');
    // A fold instead of `all`: without an early exit the compiler makes vectors of it.
    if !body.iter().fold(true, |good, byte| good & letter(byte)) {
        return false;
    }
    // Bits of the last letter that fall beyond the last byte must be zero: `b"A"` is `QQ==`, never `QR==`.
    match (third, fourth) {
        (b'=', b'=') => matches!(body.last(), Some(b'A' | b'Q' | b'g' | b'w')),
        (third, b'=') => b"AEIMQUYcgkosw048".contains(third),
        (third, fourth) => letter(third) && letter(fourth),
    }
}
