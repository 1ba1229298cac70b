//! [`Call`]: what a method and a path ask for.
//!
//! Paths are cut and compared as they were sent and only names are decoded, so `/users/a%2Fb` is one user, and
//! `/groups/:send` is the group `:send`.

use std::borrow::Cow;

use tieline_core::ask::Who;
use tieline_core::delivery::Target;
use tieline_proto::claims::decode_segment;
use tieline_proto::{ConnectionId, ErrorCode, GroupName, HubName, Permission, UserId};

use crate::http::Refusal;

/// The methods of the API; `HEAD` asks whether something exists.
const METHODS: [&str; 5] = ["DELETE", "GET", "HEAD", "POST", "PUT"];

/// What is asked for.
#[derive(Debug, PartialEq)]
pub(super) enum Call {
    /// Something of a hub.
    Hub(HubName, HubCall),
    /// The nodes of the cluster.
    Nodes,
    /// That a node of this name is emptied.
    Drain(String),
}

/// What is asked of a hub.
#[derive(Debug, PartialEq)]
pub(super) enum HubCall {
    Send(Target),
    /// To the targets in the body.
    SendToMany,
    Close(Who),
    Exists(Who),
    Join(Who, GroupName),
    Leave(Who, GroupName),
    LeaveAll(Who),
    /// The connections and groups are in the body.
    JoinByFilter,
    LeaveByFilter,
    Members(GroupName),
    /// A page of what is kept of the messages to a group or user.
    History(Target),
    /// The removal of what is kept.
    Forget(Target),
    /// Who is in a group, or without one in the hub.
    Presence(Option<GroupName>),
    Grant(Permission, ConnectionId),
    Revoke(Permission, ConnectionId),
    Holds(Permission, ConnectionId),
    GenerateToken,
}

/// Why there is no call.
#[derive(Debug)]
pub(super) enum NoCall {
    /// There is such a path, for these methods.
    Method(String),
    /// Anything else.
    Refused(Refusal),
}

impl From<Refusal> for NoCall {
    fn from(refusal: Refusal) -> Self {
        NoCall::Refused(refusal)
    }
}

impl Call {
    /// Reads a method, and a path as it was sent.
    pub(super) fn of(method: &str, path: &str) -> Result<Call, NoCall> {
        if let Some(call) = find(method, path)? {
            return Ok(call);
        }
        // A name that breaks its rule is of no account here: the path is one of ours.
        let exists = |method: &&&str| !matches!(find(method, path), Ok(None));
        let allowed: Vec<&str> = METHODS.iter().filter(exists).copied().collect();
        if allowed.is_empty() {
            Err(Refusal::from(ErrorCode::NotFound).into())
        } else {
            Err(NoCall::Method(allowed.join(", ")))
        }
    }

    /// Whether it says something in its body.
    pub(super) fn has_body(&self) -> bool {
        use HubCall::{JoinByFilter, LeaveByFilter, Send, SendToMany};
        matches!(self, Call::Hub(_, Send(_) | SendToMany | JoinByFilter | LeaveByFilter))
    }
}

/// The call of a method and a path, if there is one.
fn find(method: &str, path: &str) -> Result<Option<Call>, Refusal> {
    let Some(path) = path.strip_prefix("/api/") else { return Ok(None) };
    let segments: Vec<&str> = path.split('/').collect();
    match (method, &segments[..]) {
        ("GET", ["v1", "nodes"]) => Ok(Some(Call::Nodes)),
        ("POST", ["v1", "nodes", name, "drain"]) => Ok(Some(Call::Drain(decode(name)?.into_owned()))),
        ("POST", ["v1", "hubs", hub, ":send"]) => Ok(Some(Call::Hub(self::hub(hub)?, HubCall::SendToMany))),
        ("GET", ["v1", "hubs", hub, "presence"]) => {
            Ok(Some(Call::Hub(self::hub(hub)?, HubCall::Presence(None))))
        }
        ("GET", ["v1", "hubs", hub, "groups", group, "presence"]) => {
            Ok(Some(Call::Hub(self::hub(hub)?, HubCall::Presence(Some(self::group(group)?)))))
        }
        (_, ["v1", "hubs", hub, "groups", group, "history"]) => {
            in_log(method, hub, Target::Group(self::group(group)?))
        }
        (_, ["v1", "hubs", hub, "users", user, "inbox"]) => {
            in_log(method, hub, Target::User(self::user(user)?))
        }
        (_, ["hubs", hub, rest @ ..]) => match find_in_hub(method, rest)? {
            Some(call) => Ok(Some(Call::Hub(self::hub(hub)?, call))),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

/// What is asked of a target's log.
fn in_log(method: &str, hub: &str, target: Target) -> Result<Option<Call>, Refusal> {
    let call = match method {
        "GET" => HubCall::History(target),
        "DELETE" => HubCall::Forget(target),
        _ => return Ok(None),
    };
    Ok(Some(Call::Hub(self::hub(hub)?, call)))
}

fn find_in_hub(method: &str, segments: &[&str]) -> Result<Option<HubCall>, Refusal> {
    Ok(Some(match (method, segments) {
        ("POST", [":send"]) => HubCall::Send(Target::Everyone),
        ("POST", ["users", user, ":send"]) => HubCall::Send(Target::User(self::user(user)?)),
        ("POST", ["groups", group, ":send"]) => HubCall::Send(Target::Group(self::group(group)?)),
        ("POST", ["connections", id, ":send"]) => HubCall::Send(Target::Connection(connection(id)?)),

        ("POST", [":closeConnections"]) => HubCall::Close(Who::Everyone),
        ("POST", ["users", user, ":closeConnections"]) => HubCall::Close(Who::User(self::user(user)?)),
        ("POST", ["groups", group, ":closeConnections"]) => HubCall::Close(Who::Group(self::group(group)?)),
        ("DELETE", ["connections", id]) => HubCall::Close(Who::Connection(connection(id)?)),

        ("HEAD", ["users", user]) => HubCall::Exists(Who::User(self::user(user)?)),
        ("HEAD", ["groups", group]) => HubCall::Exists(Who::Group(self::group(group)?)),
        ("HEAD", ["connections", id]) => HubCall::Exists(Who::Connection(connection(id)?)),

        ("PUT", ["groups", group, "connections", id]) => {
            HubCall::Join(Who::Connection(connection(id)?), self::group(group)?)
        }
        ("DELETE", ["groups", group, "connections", id]) => {
            HubCall::Leave(Who::Connection(connection(id)?), self::group(group)?)
        }
        ("PUT", ["users", user, "groups", group]) => {
            HubCall::Join(Who::User(self::user(user)?), self::group(group)?)
        }
        ("DELETE", ["users", user, "groups", group]) => {
            HubCall::Leave(Who::User(self::user(user)?), self::group(group)?)
        }
        ("DELETE", ["users", user, "groups"]) => HubCall::LeaveAll(Who::User(self::user(user)?)),
        ("DELETE", ["connections", id, "groups"]) => HubCall::LeaveAll(Who::Connection(connection(id)?)),
        ("POST", [":addToGroups"]) => HubCall::JoinByFilter,
        ("POST", [":removeFromGroups"]) => HubCall::LeaveByFilter,
        ("GET", ["groups", group, "connections"]) => HubCall::Members(self::group(group)?),

        ("PUT", ["permissions", name, "connections", id]) => {
            HubCall::Grant(permission(name)?, connection(id)?)
        }
        ("DELETE", ["permissions", name, "connections", id]) => {
            HubCall::Revoke(permission(name)?, connection(id)?)
        }
        ("HEAD", ["permissions", name, "connections", id]) => {
            HubCall::Holds(permission(name)?, connection(id)?)
        }
        ("POST", [":generateToken"]) => HubCall::GenerateToken,
        _ => return Ok(None),
    }))
}

fn decode(segment: &str) -> Result<Cow<'_, str>, Refusal> {
    let malformed = || Refusal::new(ErrorCode::InvalidRequest, "the path is not percent-encoded UTF-8");
    decode_segment(segment).ok_or_else(malformed)
}

fn hub(segment: &str) -> Result<HubName, Refusal> {
    HubName::new(&decode(segment)?).map_err(|_| ErrorCode::InvalidHub.into())
}

fn user(segment: &str) -> Result<UserId, Refusal> {
    UserId::new(&decode(segment)?).map_err(|_| ErrorCode::InvalidUser.into())
}

fn group(segment: &str) -> Result<GroupName, Refusal> {
    GroupName::new(&decode(segment)?).map_err(|_| ErrorCode::InvalidGroup.into())
}

/// What is no connection's id is nobody's, and treated like one that was forgotten.
fn connection(segment: &str) -> Result<ConnectionId, Refusal> {
    let nobody = ConnectionId::from_bytes([0; ConnectionId::BYTES]);
    Ok(decode(segment)?.parse().unwrap_or(nobody))
}

fn permission(segment: &str) -> Result<Permission, Refusal> {
    let unknown = "the permissions are joinLeaveGroup, sendToGroup, sendToUser, sendToAll and presence";
    Permission::from_name(&decode(segment)?).ok_or_else(|| Refusal::new(ErrorCode::InvalidRequest, unknown))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, path: &str) -> Result<HubCall, String> {
        match Call::of(method, &format!("/api/hubs/h{path}")) {
            Ok(Call::Hub(_, call)) => Ok(call),
            Ok(Call::Nodes | Call::Drain(_)) => panic!("{path} is no hub's"),
            Err(NoCall::Method(allowed)) => Err(allowed),
            Err(NoCall::Refused(refusal)) => Err(refusal.code.to_string()),
        }
    }

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    #[test]
    fn actions_are_told_from_names_before_names_are_decoded() {
        for (path, name) in [
            ("/users/:send/:send", ":send"),
            ("/users/%3Asend/:send", ":send"),
            ("/users/a%2Fb/:send", "a/b"),
            ("/users/a%2F..%2Fb/:send", "a/../b"),
            ("/users/../:send", ".."),
            ("/users/a+b/:send", "a+b"),
            ("/users/%252F/:send", "%2F"),
            ("/users/a%2Fb%20%3F%23%25%C3%BC/:send", "a/b ?#%ü"),
        ] {
            assert_eq!(call("POST", path), Ok(HubCall::Send(Target::User(user(name)))), "{path}");
        }
        assert_eq!(call("HEAD", "/users/:send"), Ok(HubCall::Exists(Who::User(user(":send")))));
        assert_eq!(call("HEAD", "/users/groups"), Ok(HubCall::Exists(Who::User(user("groups")))));
        let group = GroupName::new("connections").unwrap();
        assert_eq!(call("GET", "/groups/connections/connections"), Ok(HubCall::Members(group)));
        assert_eq!(call("POST", "/users/a/%3Asend"), Err("NotFound".into()), "an action is not encoded");
    }

    #[test]
    fn a_known_path_names_its_methods() {
        for (method, path, allowed) in [
            ("GET", "/:send", "POST"),
            ("PATCH", "/users/a", "HEAD"),
            ("POST", "/users/:send", "HEAD"),
            ("GET", "/connections/x", "DELETE, HEAD"),
            ("POST", "/permissions/sendToGroup/connections/x", "DELETE, HEAD, PUT"),
            ("PUT", "/groups/g/connections", "GET"),
            ("GET", "/users//:send", "POST"),
            ("head", "/users/a", "HEAD"),
        ] {
            assert_eq!(call(method, path), Err(allowed.into()), "{method} {path}");
        }
        for path in
            ["", "/", "/:send/", "/users", "/users/a/b", "/nothing", "/groups/g/connections/x/y", "//:send"]
        {
            assert_eq!(call("POST", path), Err("NotFound".into()), "{path}");
        }
    }

    #[test]
    fn logs_are_found_by_their_targets() {
        let of = |method: &str, path: &str| match Call::of(method, &format!("/api/v1/hubs/h/{path}")) {
            Ok(Call::Hub(_, call)) => Ok(call),
            Ok(Call::Nodes | Call::Drain(_)) => panic!("{path} is no hub's"),
            Err(NoCall::Method(allowed)) => Err(allowed),
            Err(NoCall::Refused(refusal)) => Err(refusal.code.to_string()),
        };
        let group = || Target::Group(GroupName::new("a/b").unwrap());
        assert_eq!(of("GET", "groups/a%2Fb/history"), Ok(HubCall::History(group())));
        assert_eq!(of("DELETE", "groups/a%2Fb/history"), Ok(HubCall::Forget(group())));
        assert_eq!(of("GET", "users/inbox/inbox"), Ok(HubCall::History(Target::User(user("inbox")))));
        assert_eq!(of("PUT", "users/u/inbox"), Err("DELETE, GET".into()));
        assert_eq!(of("GET", "presence"), Ok(HubCall::Presence(None)));
        assert_eq!(
            of("GET", "groups/presence/presence"),
            Ok(HubCall::Presence(GroupName::new("presence").ok()))
        );
        assert_eq!(of("DELETE", "presence"), Err("GET".into()));
        assert_eq!(of("GET", "users/u/history"), Err("NotFound".into()));
        assert_eq!(of("GET", "groups//history"), Err("InvalidGroup".into()));
    }

    #[test]
    fn names_must_keep_their_rules() {
        let long = format!("/users/{}/:send", "x".repeat(1025));
        for (method, path, code) in [
            ("POST", "/users//:send", "InvalidUser"),
            ("POST", &*long, "InvalidUser"),
            ("POST", "/groups/%20/:send", "InvalidGroup"),
            ("POST", "/groups/%FF/:send", "InvalidRequest"),
            ("POST", "/groups/%2/:send", "InvalidRequest"),
            ("PUT", "/permissions/fly/connections/x", "InvalidRequest"),
        ] {
            assert_eq!(call(method, path), Err(code.into()), "{path}");
        }
        let bad = Call::of("POST", "/api/hubs/1h/:send");
        assert!(matches!(bad, Err(NoCall::Refused(refusal)) if refusal.code == ErrorCode::InvalidHub));
        assert_eq!(Call::of("GET", "/api/v1/nodes").unwrap(), Call::Nodes);
        assert_eq!(Call::of("POST", "/api/v1/nodes/a%2Fb/drain").unwrap(), Call::Drain("a/b".into()));
        assert!(matches!(Call::of("GET", "/api"), Err(NoCall::Refused(_))));
    }
}
