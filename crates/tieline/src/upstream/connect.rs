//! The `connect` event: what an application is told of a client that wants to connect, and what it may decide. Tested here, and
//! with clients in `tests/program/upstream`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tieline_proto::presence::Details;
use tieline_proto::role::Roles;
use tieline_proto::{Dialect, ErrorCode, GroupName, UserId};

use super::handler::{CallError, Reply};
use crate::http::Refusal;

/// The largest answer that is read, in bytes.
pub(super) const MAX_ANSWER: usize = 1 << 20;

/// Names with the values that each has.
pub type Lists = BTreeMap<String, Vec<String>>;

/// What a client's request says, as the application is told.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectRequest {
    /// The claims of its token.
    pub claims: Lists,
    /// The parameters of its address, without its token.
    pub query: Lists,
    /// Its headers, without its token; names in lower case.
    pub headers: Lists,
    /// The subprotocols that it offers.
    pub subprotocols: Vec<String>,
    /// Always empty: TLS ends before the node.
    pub client_certificates: [(); 0],
}

/// What the application may say of a connection.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Answer {
    groups: Option<Vec<String>>,
    user_id: Option<String>,
    roles: Option<Vec<String>>,
    subprotocol: Option<String>,
    presence: Option<serde_json::Value>,
}

/// What the application decided.
#[derive(Debug, Default, PartialEq)]
pub struct Decision {
    /// The user, where it names one.
    pub user: Option<UserId>,
    /// Groups to be joined beside those of the token.
    pub groups: Vec<GroupName>,
    /// What the connection may do, in place of what its token says.
    pub roles: Option<Roles>,
    /// The subprotocol, where it chose one of those offered.
    pub dialect: Option<Dialect>,
    /// What others see of the connection where it is told who is present, in place of what its token says.
    pub presence: Option<serde_json::Value>,
    /// What it wants to be reminded of.
    pub state: Option<Arc<String>>,
}

/// Reads the answer to a request that offered these subprotocols.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(reply: Reply, offered: &[String]) -> Result<Decision, &'static str> {
    if reply.body.is_empty() {
        return Ok(Decision { state: reply.state, ..Decision::default() });
    }
    if reply.media.as_deref() != Some("application/json") {
        return Err("its answer to connect is not application/json");
    }
    // What reads an object would take a list for one.
    let is_object = reply.body.trim_ascii_start().starts_with(b"{");
    let answer = is_object.then(|| serde_json::from_slice::<Answer>(&reply.body).ok()).flatten();
    let answer = answer.ok_or("its answer to connect is not what was expected")?;
    let user = answer.user_id.filter(|user| !user.is_empty());
    let user = user.as_deref().map(UserId::new).transpose();
    let groups = answer.groups.unwrap_or_default();
    let groups: Result<_, _> = groups.iter().map(|group| GroupName::new(group)).collect();
    let dialect = answer
        .subprotocol
        .filter(|name| !name.is_empty())
        .map(|name| Dialect::from_subprotocol(&name).filter(|_| offered.contains(&name)));
    Details::new(None, answer.presence.as_ref())
        .map_err(|_| "its answer to connect has more than 1024 bytes of `presence`")?;
    Ok(Decision {
        presence: answer.presence,
        user: user.map_err(|_| "its answer to connect names no proper user")?,
        groups: groups.map_err(|_| "its answer to connect names no proper group")?,
        roles: answer.roles.map(Roles::parse),
        dialect: dialect
            .map(|dialect| dialect.ok_or("it chose a subprotocol that was not offered"))
            .transpose()?,
        state: reply.state,
    })
}

/// What a client is told that cannot connect.
pub(super) fn refusal(error: &CallError) -> Refusal {
    match error {
        CallError::Refused { status, message } => {
            let code = ErrorCode::RefusedByHandler;
            let message = message.clone().unwrap_or_else(|| code.text().to_owned());
            Refusal { status: *status, ..Refusal::new(code, message) }
        }
        CallError::Failed(_) => ErrorCode::HandlerFailed.into(),
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::*;

    /// More than others may see of a connection.
    static LARGE: std::sync::OnceLock<String> = std::sync::OnceLock::new();

    fn decide(media: Option<&str>, body: &'static str) -> Result<Decision, &'static str> {
        let reply =
            Reply { media: media.map(str::to_owned), state: None, body: Bytes::from_static(body.as_bytes()) };
        read(reply, &["other".to_owned(), "tieline.v1".to_owned()])
    }

    #[test]
    fn what_is_not_said_is_left_as_it_is() {
        for body in ["", "{}", "{\"groups\":null,\"userId\":\"\",\"subprotocol\":\"\"}", "{\"more\":[1]}"] {
            assert_eq!(decide(Some("application/json"), body), Ok(Decision::default()), "{body}");
        }
        assert_eq!(decide(None, ""), Ok(Decision::default()));
        let seen = decide(Some("application/json"), "{\"presence\":{\"name\":\"U\"}}").unwrap();
        assert_eq!(seen.presence, Some(serde_json::json!({"name": "U"})));
        let all = "{\"groups\":[\"g\"],\"userId\":\"u\",\"roles\":[],\"subprotocol\":\"tieline.v1\"}";
        let decision = decide(Some("application/json"), all).unwrap();
        assert_eq!((decision.user.as_deref(), decision.groups.len()), (Some("u"), 1));
        assert_eq!((decision.roles, decision.dialect), (Some(Roles::default()), Some(Dialect::Tieline)));
    }

    #[test]
    fn an_answer_that_cannot_be_carried_out_is_none() {
        let large = LARGE.get_or_init(|| format!("{{\"presence\":\"{}\"}}", "x".repeat(1023)));
        for (media, body) in [
            (Some("text/html"), "{}"),
            (None, "{}"),
            (Some("application/json"), "{"),
            (Some("application/json"), "[]"),
            (Some("application/json"), "{\"groups\":\"g\"}"),
            (Some("application/json"), "{\"groups\":[\" \"]}"),
            (Some("application/json"), large.as_str()),
            (Some("application/json"), "{\"subprotocol\":\"json.webpubsub.azure.v1\"}"),
            (Some("application/json"), "{\"subprotocol\":\"other\"}"),
        ] {
            assert!(decide(media, body).is_err(), "{body}");
        }
    }
}
