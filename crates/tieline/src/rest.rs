//! The REST API: what a back end asks of the connections of a hub, and sends to them.
//!
//! `/api/hubs/{hub}/…` is the data plane of Web PubSub, as its official libraries speak it, with exactly the success codes that
//! they expect; `/api/v1/…` is ours. Nobody is told anything, not even which paths there are, before the request is found to be
//! allowed. What a path asks for is decided in `rest/call.rs`, its parameters and body are read in `rest/parameters.rs` and
//! `rest/body.rs`, and carried out in `rest/carry.rs`, which knows of nothing but [`Node::answer`](tieline_core::Node::answer) and
//! [`Node::send`](tieline_core::Node::send), in `rest/history.rs` and in `rest/presence.rs`. `rest/repetition.rs` tells
//! a request that is said again. Tested in `tests/program/rest.rs` by requests as bytes, and by the official libraries.

mod body;
mod call;
mod carry;
mod history;
mod parameters;
mod presence;
mod repetition;
mod tally;

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use hyper::StatusCode;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use serde::Serialize;
use tieline_core::ask::sending::SendError;
use tieline_core::logs::KeepError;
use tieline_core::registry::{self, Member};
use tieline_core::token::TokenError;
use tieline_core::{Overloaded, unix_ms};
use tieline_proto::rest::{NodeItem, NodeState, NodesPage};
use tieline_proto::{ErrorCode, NodeId};

use crate::client::bearer;
use crate::http::{Caller, Head, Refusal};
use crate::routes::{self, Station};
use body::Content;
use call::{Call, NoCall};
use parameters::Parameters;
use tally::CallKind;
pub use tally::RestTally;

/// The header by which a library finds its request again in a log; it gets it back.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");

/// What the handlers share.
pub struct Rest {
    /// The node that is asked, and what is counted.
    station: Arc<Station>,
    /// Largest body, in bytes.
    max_body: usize,
}

impl Rest {
    /// The API of a node, with bodies of at most so many bytes.
    pub fn new(station: Arc<Station>, max_body: usize) -> Self {
        Rest { station, max_body }
    }

    /// The routes, to be merged with others.
    pub fn router(self) -> Router {
        Router::new().route("/api/{*path}", any(answer)).with_state(Arc::new(self))
    }
}

/// Answers any request.
async fn answer(
    State(rest): State<Arc<Rest>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Response {
    let (parts, mut body) = request.into_parts();
    let request = Request::from_parts(parts, ());
    let since = Instant::now();
    let mut kind = CallKind::None;
    let request_id = request.headers().get(REQUEST_ID).cloned();
    let mut response = match respond(&rest, &caller, &request, &mut body, &mut kind).await {
        Ok(response) => {
            rest.station.rest.record(kind, response.status(), since.elapsed());
            response
        }
        Err(no) => {
            let (refusal, allowed) = match no {
                NoCall::Refused(refusal) => (refusal, None),
                NoCall::Method(allowed) => (ErrorCode::MethodNotAllowed.into(), Some(allowed)),
            };
            rest.station.http.count_refused(refusal.code);
            let mut response = refusal.response();
            rest.station.rest.record(kind, response.status(), since.elapsed());
            body::drain(&request, body).await;
            if let Some(allowed) = allowed.and_then(|allowed| HeaderValue::try_from(allowed).ok()) {
                response.headers_mut().insert(ALLOW, allowed);
            }
            response
        }
    };
    if let Some(id) = request_id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// Carries a request out, and tells its kind as soon as it is known to be a call.
async fn respond(
    rest: &Rest,
    caller: &Caller,
    request: &Request<()>,
    body: &mut axum::body::Body,
    kind: &mut CallKind,
) -> Result<Response, NoCall> {
    let head = Head::of(request);
    permit(&rest.station, caller, &head)?;
    let call = Call::of(head.method, head.path())?;
    *kind = CallKind::of(&call);
    let parameters = Parameters::new(head.query());
    let body =
        if call.has_body() { body::read(&head, body, rest.max_body).await? } else { Content::default() };
    match call {
        Call::Nodes => Ok(nodes(&rest.station)),
        Call::Drain(name) => Ok(drain(&rest.station, &name)?),
        Call::Hub(hub, call) => {
            Ok(carry::out(&rest.station.node, &head, hub, call, &parameters, &body).await?)
        }
    }
}

/// Whether a request may be carried out: it has a token for its own address, or it comes from this machine to a node without a key.
/// That clients may connect without a token elsewhere says nothing of this API, which can do more than they.
fn permit(station: &Station, caller: &Caller, head: &Head<'_>) -> Result<(), Refusal> {
    let keys = station.node.keys();
    if let Some(token) = bearer(head.header("authorization"))? {
        let verify = |target: &str| keys.verify_rest(token, target, unix_ms() / 1000);
        let verified = verify(head.target()).or_else(|error| match head.stripped_prefix() {
            Some(prefix) if error == TokenError::Audience => verify(&format!("{prefix}{}", head.target())),
            _ => Err(error),
        });
        return Ok(verified?);
    }
    if keys.is_empty() && routes::is_local(caller, head, &station.members) {
        return Ok(());
    }
    Err(Refusal::new(ErrorCode::Unauthorized, "this request needs a token in its Authorization header"))
}

/// The nodes of the cluster, as this one sees them.
pub(crate) fn nodes(station: &Station) -> Response {
    let node = &station.node;
    let id = node.id();
    let own = node.registration();
    let this = NodeItem {
        name: id.name.clone(),
        incarnation: id.incarnation,
        state: if own.state == registry::NodeState::Draining {
            NodeState::Draining
        } else {
            NodeState::Alive
        },
        is_self: true,
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        client_url: station.client_url.clone(),
        connections: Some(node.counters().connections),
        weight: Some(own.weight),
        capacity: Some(own.capacity).filter(|capacity| *capacity > 0),
        enabled: None,
        silent_ms: 0,
    };
    let mut nodes = vec![this];
    let view = station.view();
    let mut placed: Vec<&Member> = view.iter().flat_map(|view| &view.members).collect();
    for peer in node.cluster().map(|cluster| cluster.peers()).unwrap_or_default() {
        // A node that was written down is known by its name alone.
        let is_it = |member: &&Member| {
            member.id == peer.id || member.id.incarnation.0 == 0 && member.id.name == peer.id.name
        };
        let member = placed.iter().position(is_it).map(|index| placed.swap_remove(index));
        let state = match member {
            _ if peer.lost.is_some() => NodeState::Unreachable,
            Some(member) if member.registration.state == registry::NodeState::Draining => NodeState::Draining,
            _ => NodeState::Alive,
        };
        nodes.push(NodeItem {
            state,
            connections: Some(peer.connections),
            client_url: Some(peer.client_url).filter(|url| !url.is_empty()),
            silent_ms: peer.lost.map_or(0, |lost| lost.elapsed().as_millis() as u64),
            ..registered(peer.id, member)
        });
    }
    // Who is registered and not heard of: no message reaches it from here.
    nodes.extend(placed.into_iter().map(|member| registered(member.id.clone(), Some(member))));
    nodes.sort_by(|one, other| one.name.cmp(&other.name));
    json(&NodesPage { nodes })
}

/// What the registry shows of another node, as of one that is not reached.
fn registered(id: NodeId, member: Option<&Member>) -> NodeItem {
    let said = member.map(|member| &member.registration);
    NodeItem {
        name: id.name,
        incarnation: id.incarnation,
        state: NodeState::Unreachable,
        is_self: false,
        version: said.map(|said| said.version.clone()).filter(|version| !version.is_empty()),
        client_url: said.map(|said| said.client_url.clone()).filter(|url| !url.is_empty()),
        connections: said.map(|said| said.connections),
        weight: said.map(|said| said.weight),
        capacity: said.map(|said| said.capacity).filter(|capacity| *capacity > 0),
        enabled: member.map(|member| member.is_enabled),
        silent_ms: 0,
    }
}

/// Has a node emptied, this one or another. It is begun when this is answered.
pub(crate) fn drain(station: &Station, name: &str) -> Result<Response, Refusal> {
    let node = &station.node;
    if node.id().name.as_str() == name {
        node.request_drain();
    } else if !node.cluster().is_some_and(|cluster| cluster.request_drain(name)) {
        return Err(Refusal::new(ErrorCode::NotFound, "no node of this name is reached from here"));
    }
    Ok(empty(StatusCode::ACCEPTED))
}

/// A success with a body.
fn json(body: &impl Serialize) -> Response {
    let body = serde_json::to_vec(body).expect("names and numbers are always JSON");
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

/// A success without one.
fn empty(status: StatusCode) -> Response {
    status.into_response()
}

impl From<SendError> for Refusal {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Overloaded(overloaded) => overloaded.into(),
            SendError::NotKept(error) => error.into(),
        }
    }
}

impl From<KeepError> for Refusal {
    fn from(error: KeepError) -> Self {
        Refusal::new(error.code(), error.to_string())
    }
}

impl From<Overloaded> for Refusal {
    fn from(_: Overloaded) -> Self {
        Refusal::new(ErrorCode::RateLimited, "the node has too much waiting; try again in a moment")
    }
}

#[cfg(test)]
mod tests {
    use tieline_core::store::{Refusal as StoreRefusal, StoreError};

    use super::*;

    #[test]
    fn a_store_that_does_not_take_a_message_is_told_by_status_and_code() {
        for (error, status, code, retry) in [
            (KeepError::Store(StoreError::Unknown("x".into())), 503, "StoreUnknown", Some("1")),
            (KeepError::Store(StoreRefusal::NoRoom.into()), 503, "StoreUnavailable", Some("1")),
            (KeepError::Store(StoreRefusal::TooLarge.into()), 413, "MessageTooLarge", None),
            (KeepError::TooManyGroups, 403, "TooManyGroups", None),
            (KeepError::TooManyMembers, 403, "TooManyMembers", None),
            (KeepError::NoStore, 501, "StoreMissing", None),
            (KeepError::OtherStores, 501, "StoreMissing", None),
        ] {
            let response = Refusal::from(SendError::NotKept(error)).response();
            let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(response.status(), status);
            assert_eq!((header("x-ms-error-code"), header("retry-after")), (Some(code), retry));
        }
    }

    #[test]
    fn overload_says_when_to_come_back() {
        let response = Refusal::from(Overloaded).response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()["retry-after"], "1");
        assert_eq!(response.headers()["x-ms-error-code"], "RateLimited");
    }
}
