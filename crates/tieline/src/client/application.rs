//! Asking the application whether a client may connect, and carrying out what it says. Tested in `tests/program/upstream`.

use std::sync::Arc;

use serde_json::Value;
use tieline_core::events::EventSource;
use tieline_core::{Arrival, Client, Node, Subprotocol, token};
use tieline_proto::ErrorCode;
use tieline_proto::presence::Details;

use super::welcome;
use crate::http::{Asked, Refusal, Welcome, decode_form};
use crate::upstream::{ConnectRequest, Decision, Lists, Upstream};

/// Parameters that are the client's secrets, or the server's own business.
const HIDDEN: [&str; 3] = ["access_token", "awps_connection_id", "awps_reconnection_token"];

/// The claims of a token whose signature was found good: each a list, numbers and objects as their JSON.
pub(super) fn claims(token: &str) -> Lists {
    let Some(Value::Object(claims)) = token::payload(token) else { return Lists::default() };
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let list = |value| match value {
        Value::Array(values) => values.into_iter().map(text).collect(),
        value => vec![text(value)],
    };
    claims.into_iter().map(|(name, value)| (name, list(value))).collect()
}

/// What the application is told of a request. Tokens are left out: their claims say all there is to know.
pub(super) fn request(asked: &Asked<'_>, claims: Lists) -> ConnectRequest {
    let mut query = Lists::new();
    for pair in asked.head.query().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        if let (Some(name), Some(value)) = (decode_form(name), decode_form(value))
            && !HIDDEN.contains(&&*name)
        {
            query.entry(name.into_owned()).or_default().push(value.into_owned());
        }
    }
    let mut headers = Lists::new();
    for (name, value) in asked.head.headers() {
        let name = name.to_ascii_lowercase();
        let value = String::from_utf8_lossy(value);
        let is_token = name == "authorization" && value.to_ascii_lowercase().starts_with("bearer ");
        if !is_token {
            headers.entry(name).or_default().push(value.into_owned());
        }
    }
    let subprotocols = asked.upgrade.protocols().map(str::to_owned).collect();
    ConnectRequest { claims, query, headers, subprotocols, client_certificates: [] }
}

/// Keeps a place for the connection, so that the application knows its id, and asks.
pub(super) async fn decide(
    node: Arc<Node>,
    upstream: Arc<Upstream>,
    mut client: Client,
    request: ConnectRequest,
) -> Result<Welcome<Arrival>, Refusal> {
    let mut place = node.reserve().await.map_err(|_| Refusal::from(ErrorCode::ServiceUnavailable))?;
    let mut source = EventSource {
        hub: client.hub.clone(),
        connection: place.id(),
        user: client.user.clone(),
        // It is not settled yet what the connection will speak.
        subprotocol: Subprotocol::Plain,
        state: None,
    };
    let Decision { user, groups, roles, dialect, presence, state } =
        upstream.connect(source.clone(), &request).await?;
    client.user = user.or(client.user);
    client.groups.extend(groups);
    if let Some(roles) = roles {
        client.roles = node.share_roles(roles);
    }
    if let Some(dialect) = dialect {
        client.subprotocol = Subprotocol::from(dialect);
    }
    if presence.is_some() {
        client.details = Details::new(client.device.as_deref(), presence.as_ref())
            .expect("an answer with more than may be seen is none");
    }
    source.user.clone_from(&client.user);
    source.subprotocol = client.subprotocol;
    source.state = state;
    place.approve(source);
    let (subprotocol, shard) = (client.subprotocol, place.id().shard());
    client.place = Some(place);
    let arrival = Arrival::Client(Box::new(client));
    let shard = Some(shard.into());
    Ok(Welcome { shard, ..welcome(subprotocol, subprotocol.dialect(), arrival) })
}
