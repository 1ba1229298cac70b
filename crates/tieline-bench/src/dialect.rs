//! What is said on the wire to each kind of server, and what an incoming text means before the load begins.
//! No sockets and no state: text in, text out. The load itself is recognised by its stamp, not here. Tested here.

use crate::endpoint::Endpoint;
use crate::error::BenchError;
use crate::stamp::{LENGTH, MARKER, Stamp, write_hex};
use crate::token;
use clap::ValueEnum;
use serde::Serialize;
use std::fmt::Write;

/// The protocol that connections speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub(crate) enum Dialect {
    /// Azure Web PubSub's plain JSON protocol.
    #[value(name = "json.webpubsub.azure.v1")]
    #[serde(rename = "json.webpubsub.azure.v1")]
    Json,
    /// Azure Web PubSub's reliable JSON protocol.
    #[value(name = "json.reliable.webpubsub.azure.v1")]
    #[serde(rename = "json.reliable.webpubsub.azure.v1")]
    Reliable,
    /// tieline's own superset of the plain protocol.
    #[value(name = "tieline.v1")]
    #[serde(rename = "tieline.v1")]
    Tieline,
    /// socket.io 4 over engine.io's WebSocket transport, with the events of this crate's `socketio/server.js`.
    #[value(name = "socket.io")]
    #[serde(rename = "socket.io")]
    SocketIo,
    /// The floor server's binary frames.
    #[value(name = "floor", hide = true)]
    #[serde(rename = "floor")]
    Floor,
}

/// One connection's part in a load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seat {
    /// Its number as a user; the name is `u` and the number.
    pub(crate) user: u32,
    /// The groups it joins before the load begins; their names are `g` and the number.
    pub(crate) groups: Vec<u32>,
    /// Whether it connects to the other node, where there is one.
    pub(crate) is_far: bool,
}

/// Where one message goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Destination {
    /// All members of a group except the sender.
    Group(u32),
    /// All connections of a user.
    User(u32),
}

/// What an incoming text means while a connection is set up.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// The server is ready for joins.
    Greeted,
    /// One join has been done.
    Joined,
    /// The server asked for this answer.
    Answer(&'static str),
    /// A text that needs no reaction.
    Nothing,
    /// The server refused something.
    Refused(String),
}

impl Dialect {
    /// The subprotocol asked for.
    pub(crate) fn subprotocol(self) -> Option<&'static str> {
        match self {
            Self::Json => Some("json.webpubsub.azure.v1"),
            Self::Reliable => Some("json.reliable.webpubsub.azure.v1"),
            Self::Tieline => Some("tieline.v1"),
            Self::SocketIo | Self::Floor => None,
        }
    }

    /// Its name on the command line.
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Whether the connection has to wait for a word from the server after the upgrade.
    pub(crate) fn greets(self) -> bool {
        self != Self::Floor
    }

    /// The request's target: path and query. With `key` the connection brings a token of its own.
    pub(crate) fn target(
        self,
        endpoint: &Endpoint,
        seat: &Seat,
        key: Option<&str>,
    ) -> Result<String, BenchError> {
        let user = format!("u{}", seat.user);
        let own = match (self, key) {
            (Self::Floor, _) => {
                let groups: Vec<String> = seat.groups.iter().map(u32::to_string).collect();
                format!("user={}&groups={}", seat.user, groups.join(","))
            }
            (Self::SocketIo, _) => format!("EIO=4&transport=websocket&user={user}"),
            (_, None) => format!("user={user}"),
            (_, Some(key)) => {
                let token = token::client(endpoint, Some(&user), key)
                    .map_err(|error| BenchError::arguments(format!("cannot sign a token: {error}")))?;
                format!("access_token={token}")
            }
        };
        let and = if endpoint.query.is_empty() { "" } else { "&" };
        Ok(format!("{}?{}{and}{own}", endpoint.path, endpoint.query))
    }

    /// The text that joins a group, if it is not done by the URL.
    pub(crate) fn join(self, group: u32, ack: u64) -> Option<String> {
        match self {
            Self::Json | Self::Reliable | Self::Tieline => {
                Some(format!(r#"{{"type":"joinGroup","group":"g{group}","ackId":{ack}}}"#))
            }
            Self::SocketIo => Some(format!(r#"42["join","g{group}"]"#)),
            Self::Floor => None,
        }
    }

    /// Writes the message's payload over `out`. `filler` is [`filler`]'s text, so that its length is made once.
    /// For the floor, `filler` is whatever makes its payload as long as the real server's.
    pub(crate) fn publish(self, out: &mut String, to: Destination, stamp: Stamp, filler: &str) {
        out.clear();
        let stamp = stamp.encode();
        let stamp = std::str::from_utf8(&stamp).expect("a stamp is ASCII");
        // Writing to a String cannot fail.
        let _ = match (self, to) {
            (Self::Floor, Destination::Group(target) | Destination::User(target)) => {
                let mut digits = [0; TARGET_DIGITS];
                write_hex(&mut digits, u64::from(target));
                let digits = std::str::from_utf8(&digits).expect("hexadecimal digits are ASCII");
                write!(out, "{digits}{stamp}{filler}")
            }
            (Self::SocketIo, Destination::Group(group)) => {
                write!(out, r#"42["group","g{group}",{{"stamp":"{stamp}","fill":"{filler}"}}]"#)
            }
            (Self::SocketIo, Destination::User(user)) => {
                write!(out, r#"42["user","u{user}",{{"stamp":"{stamp}","fill":"{filler}"}}]"#)
            }
            (_, Destination::Group(group)) => write!(
                out,
                r#"{{"type":"sendToGroup","group":"g{group}","noEcho":true,"dataType":"json","data":{{"stamp":"{stamp}","fill":"{filler}"}}}}"#
            ),
            (_, Destination::User(user)) => write!(
                out,
                r#"{{"type":"sendToUser","user":"u{user}","dataType":"json","data":{{"stamp":"{stamp}","fill":"{filler}"}}}}"#
            ),
        };
    }

    /// The meaning of an incoming text that carries no stamp.
    pub(crate) fn understand(self, text: &[u8]) -> Word {
        match self {
            Self::Floor => Word::Nothing,
            Self::SocketIo => match text {
                [b'0', ..] => Word::Answer("40"),
                [b'2'] => Word::Answer("3"),
                [b'4', b'0', ..] => Word::Greeted,
                [b'4', b'4', reason @ ..] => Word::Refused(String::from_utf8_lossy(reason).into_owned()),
                _ if text.starts_with(br#"42["joined""#) => Word::Joined,
                _ => Word::Nothing,
            },
            _ => understand_json(text),
        }
    }

    /// Whether a load to users can be spoken.
    pub(crate) fn has_users(self) -> bool {
        matches!(self, Self::Tieline | Self::SocketIo | Self::Floor)
    }
}

/// The meaning of a text of the three JSON protocols.
fn understand_json(text: &[u8]) -> Word {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(text) else {
        return Word::Refused(format!("a text that is not JSON: {}", String::from_utf8_lossy(text)));
    };
    match (value["type"].as_str(), value["event"].as_str()) {
        (Some("system"), Some("connected")) => Word::Greeted,
        (Some("system"), Some("disconnected")) => {
            Word::Refused(format!("disconnected: {}", value["message"]))
        }
        (Some("ack"), _) if value["success"] == true => Word::Joined,
        (Some("ack"), _) => Word::Refused(format!("a negative ack: {}", value["error"])),
        _ => Word::Nothing,
    }
}

/// Digits of the target in a frame to the floor.
pub(crate) const TARGET_DIGITS: usize = 8;
/// The least `--payload`: the JSON around a stamp.
pub(crate) const LEAST_PAYLOAD: usize = r#"{"stamp":"","fill":""}"#.len() + LENGTH;

/// What fills a JSON payload up to `payload` bytes.
pub(crate) fn filler(payload: usize) -> String {
    "x".repeat(payload.saturating_sub(LEAST_PAYLOAD))
}

/// What fills a frame to the floor up to `payload` bytes.
pub(crate) fn floor_filler(payload: usize) -> String {
    "x".repeat(payload.saturating_sub(TARGET_DIGITS + LENGTH))
}

// The floor finds the stamp behind the target's digits.
const _: () = assert!(MARKER.len() < LENGTH);

#[cfg(test)]
mod tests {
    use super::*;

    const STAMP: Stamp = Stamp { number: 5, due_ns: 6 };

    #[test]
    fn the_json_payload_has_exactly_the_length_asked_for() {
        let mut text = String::new();
        for payload in [LEAST_PAYLOAD, 128, 1000] {
            Dialect::Json.publish(&mut text, Destination::Group(3), STAMP, &filler(payload));
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (&value["type"], &value["group"], &value["noEcho"]),
                (&"sendToGroup".into(), &"g3".into(), &true.into())
            );
            let start = text.find(r#""data":"#).unwrap() + 7;
            assert_eq!(text.len() - 1 - start, payload);
            assert_eq!(Stamp::find(text.as_bytes(), &mut 0), Some(STAMP));
        }
    }

    #[test]
    fn users_are_addressed_by_name() {
        let mut text = String::new();
        Dialect::Tieline.publish(&mut text, Destination::User(17), STAMP, "");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&value["type"], &value["user"]), (&"sendToUser".into(), &"u17".into()));
        Dialect::SocketIo.publish(&mut text, Destination::User(17), STAMP, "");
        let value: serde_json::Value = serde_json::from_str(text.strip_prefix("42").unwrap()).unwrap();
        assert_eq!((&value[0], &value[1]), (&"user".into(), &"u17".into()));
    }

    #[test]
    fn the_floors_frame_begins_with_target_and_stamp() {
        let mut text = String::new();
        Dialect::Floor.publish(&mut text, Destination::User(0x1f), STAMP, &floor_filler(100));
        assert_eq!(text.len(), 100);
        assert!(text.starts_with("0000001f"));
        assert_eq!(Stamp::decode(&text.as_bytes()[TARGET_DIGITS..]), Some(STAMP));
    }

    #[test]
    fn answers_of_the_server_are_understood() {
        let json = |text: &str| Dialect::Json.understand(text.as_bytes());
        assert_eq!(json(r#"{"type":"system","event":"connected","connectionId":"c"}"#), Word::Greeted);
        assert_eq!(json(r#"{"type":"ack","ackId":1,"success":true}"#), Word::Joined);
        assert!(matches!(json(r#"{"type":"ack","ackId":1,"success":false,"error":{"name":"Forbidden"}}"#),
                         Word::Refused(reason) if reason.contains("Forbidden")));
        assert_eq!(json(r#"{"type":"pong"}"#), Word::Nothing);
        assert!(matches!(json("hello"), Word::Refused(_)));
        assert_eq!(Dialect::SocketIo.understand(b"0{\"sid\":1}"), Word::Answer("40"));
        assert_eq!(Dialect::SocketIo.understand(b"2"), Word::Answer("3"));
        assert_eq!(Dialect::SocketIo.understand(b"40{\"sid\":2}"), Word::Greeted);
        assert_eq!(Dialect::SocketIo.understand(b"42[\"joined\",\"g1\"]"), Word::Joined);
    }

    #[test]
    fn the_target_keeps_the_urls_query_and_names_the_user_or_brings_a_token() {
        let seat = Seat { user: 4, groups: vec![1, 2], is_far: false };
        let endpoint = Endpoint::parse("ws://127.0.0.1:1/client/hubs/bench?a=b").unwrap();
        assert_eq!(Dialect::Json.target(&endpoint, &seat, None).unwrap(), "/client/hubs/bench?a=b&user=u4");
        let with_token = Dialect::Json.target(&endpoint, &seat, Some("key")).unwrap();
        assert!(
            with_token.starts_with("/client/hubs/bench?a=b&access_token=ey") && !with_token.contains("user=")
        );
        let floor = Endpoint::parse("ws://127.0.0.1:1").unwrap();
        assert_eq!(Dialect::Floor.target(&floor, &seat, None).unwrap(), "/?user=4&groups=1,2");
    }
}
