//! The wire as a client has it: what it asks for, written in its dialect, and what it hears.

use serde::Deserialize;
use tieline_core::Subprotocol;
use tieline_websocket::{Opcode, encode_masked};

/// Names are numbers in the model.
pub(crate) const HUBS: [&str; 2] = ["here", "there"];
pub(crate) const USERS: [&str; 3] = ["alice", "bob", "carol"];
pub(crate) const GROUPS: [&str; 3] = ["red", "green", "blue"];

/// A connection, by its place among all that there ever were.
pub(crate) type Who = usize;

/// Whom a message is for.
#[derive(Clone, Debug)]
pub(crate) enum Target {
    Group(usize),
    User(usize),
    All,
    Many { groups: Vec<usize>, users: Vec<usize>, connections: Vec<Who>, excluded: Vec<Who> },
}

/// What a client asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    Join(usize),
    Leave(usize),
    /// To carry this message.
    Send(usize),
    /// To forget what was numbered up to here.
    Acknowledge(u64),
    Ping,
    Event,
    /// No JSON.
    Nonsense,
    /// A frame of no known type.
    Strange,
    /// A binary message.
    Bytes,
}

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) ask: Ask,
    pub(crate) ack_id: Option<u64>,
}

/// What a client says of a message.
pub(crate) struct Draft<'a> {
    pub(crate) number: usize,
    pub(crate) pad: usize,
    pub(crate) target: &'a Target,
    pub(crate) no_echo: bool,
    pub(crate) users: &'a [usize],
}

/// What stands in a message beside its number.
pub(crate) fn padding(pad: usize) -> &'static str {
    const PAD: &str = concat!(
        "................................................................................................",
        "................................................................................................",
        "................................................................................................",
    );
    &PAD[..pad.min(PAD.len())]
}

/// Appends a request's frame. `draft` is the message that it wants carried; `name` tells a connection's id.
pub(crate) fn write(
    out: &mut Vec<u8>,
    dialect: Subprotocol,
    request: &Request,
    draft: Option<Draft<'_>>,
    name: impl Fn(Who) -> String,
) {
    let text =
        if dialect == Subprotocol::Plain { plain(request, draft) } else { frame(request, draft, name) };
    let opcode = if matches!(request.ask, Ask::Bytes) { Opcode::Binary } else { Opcode::Text };
    encode_masked(out, opcode, text.as_bytes(), [7, 1, 255, 0]);
}

fn data(draft: &Draft<'_>) -> String {
    format!(r#"{{"n":{},"pad":"{}"}}"#, draft.number, padding(draft.pad))
}

fn plain(request: &Request, draft: Option<Draft<'_>>) -> String {
    match (&request.ask, draft) {
        (Ask::Join(group), _) => format!(r#"{{"join":"{}"}}"#, GROUPS[*group]),
        (Ask::Leave(group), _) => format!(r#"{{"leave":"{}"}}"#, GROUPS[*group]),
        (Ask::Send(_), Some(draft)) => match draft.target {
            Target::Group(group) => format!(r#"{{"group":"{}","msg":{}}}"#, GROUPS[*group], data(&draft)),
            Target::User(user) => format!(r#"{{"receiver":"{}","msg":{}}}"#, USERS[*user], data(&draft)),
            _ => unreachable!("plain clients have no such target"),
        },
        (Ask::Strange, _) => r#"{"fly":"high"}"#.to_owned(),
        _ => "{nonsense".to_owned(),
    }
}

fn frame(request: &Request, draft: Option<Draft<'_>>, name: impl Fn(Who) -> String) -> String {
    let ack = request.ack_id.map(|id| format!(r#","ackId":{id}"#)).unwrap_or_default();
    match (&request.ask, draft) {
        (Ask::Join(group), _) => format!(r#"{{"type":"joinGroup","group":"{}"{ack}}}"#, GROUPS[*group]),
        (Ask::Leave(group), _) => format!(r#"{{"type":"leaveGroup","group":"{}"{ack}}}"#, GROUPS[*group]),
        (Ask::Send(_), Some(draft)) => {
            let users = if draft.users.is_empty() {
                String::new()
            } else {
                format!(r#","users":[{}]"#, list(draft.users.iter().map(|user| USERS[*user])))
            };
            let to = match draft.target {
                Target::Group(group) => format!(r#""sendToGroup","group":"{}"{users}"#, GROUPS[*group]),
                Target::User(user) => format!(r#""sendToUser","user":"{}""#, USERS[*user]),
                Target::All => r#""sendToAll""#.to_owned(),
                Target::Many { groups, users, connections, excluded } => format!(
                    r#""send","to":{{"groups":[{}],"users":[{}],"connections":[{}],"excluded":[{}]}}"#,
                    list(groups.iter().map(|group| GROUPS[*group])),
                    list(users.iter().map(|user| USERS[*user])),
                    list(connections.iter().map(|who| name(*who))),
                    list(excluded.iter().map(|who| name(*who))),
                ),
            };
            let (no_echo, data) = (draft.no_echo, data(&draft));
            format!(r#"{{"type":{to},"noEcho":{no_echo},"dataType":"json","data":{data}{ack}}}"#)
        }
        (Ask::Acknowledge(number), _) => format!(r#"{{"type":"sequenceAck","sequenceId":{number}}}"#),
        (Ask::Ping, _) => r#"{"type":"ping"}"#.to_owned(),
        (Ask::Event, _) => format!(r#"{{"type":"event","event":"e","dataType":"text","data":""{ack}}}"#),
        (Ask::Strange, _) => r#"{"type":"fly"}"#.to_owned(),
        _ => "{nonsense".to_owned(),
    }
}

fn list(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    names.map(|name| format!(r#""{}""#, name.as_ref())).collect::<Vec<_>>().join(",")
}

/// Every frame that a server sends, in one. Members that are not looked at are left out.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Frame<'a> {
    #[serde(rename = "type")]
    pub(crate) kind: Option<&'a str>,
    pub(crate) event: Option<&'a str>,
    pub(crate) from: Option<&'a str>,
    pub(crate) group: Option<&'a str>,
    pub(crate) user_id: Option<&'a str>,
    pub(crate) from_user_id: Option<&'a str>,
    pub(crate) to_user_id: Option<&'a str>,
    pub(crate) connection_id: Option<&'a str>,
    pub(crate) reconnection_token: Option<&'a str>,
    pub(crate) sequence_id: Option<u64>,
    pub(crate) ack_id: Option<u64>,
    pub(crate) success: Option<bool>,
    pub(crate) delivered: Option<u64>,
    pub(crate) unknown: Option<u64>,
    #[serde(borrow)]
    pub(crate) error: Option<Fault<'a>>,
    pub(crate) data: Option<Data<'a>>,
    pub(crate) sender: Option<&'a str>,
    pub(crate) receiver: Option<&'a str>,
    pub(crate) msg: Option<Data<'a>>,
    pub(crate) create_time: Option<&'a str>,
}

/// An error's name: plain JSON has it as it is.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Fault<'a> {
    Plain(&'a str),
    Named {
        #[serde(borrow)]
        name: &'a str,
    },
}

impl<'a> Fault<'a> {
    pub(crate) fn name(&self) -> &'a str {
        match self {
            Fault::Plain(name) | Fault::Named { name } => name,
        }
    }
}

/// What every message carries.
#[derive(Debug, Deserialize)]
pub(crate) struct Data<'a> {
    pub(crate) n: usize,
    pub(crate) pad: &'a str,
}
