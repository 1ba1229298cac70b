//! What `tieline serve` makes of requests for a WebSocket: which hub, who, on which wire, and whether at all.
//!
//! The paths are those of the Web PubSub wire, `/client/hubs/{hub}` and `/client/?hub=`, and ours, `/client/{user}`, for a browser
//! that brings nothing but a socket. Everything here runs for each connection, on the runtime's threads, and waits for nothing; only
//! where the application decides on connections it is asked at the end, by a future (`client/application.rs`).
//! Tested by `tests/serve.rs` over real sockets; the rules for clients without a token in `admission.rs`.

mod application;

use std::borrow::Cow;
use std::sync::Arc;

use tieline_core::{Arrival, Client, Node, Operator, Subprotocol, unix_ms};
use tieline_proto::claims::decode_segment;
use tieline_proto::presence::Details;
use tieline_proto::request::is_device;
use tieline_proto::role::Roles;
use tieline_proto::{CloseCode, ConnectionId, Dialect, ErrorCode, HubName, UserId};
use tieline_websocket::Upgrade;

use crate::admission::{self, Facts, MemberOrigins, Openness, Standing};
use crate::http::{Asked, Endpoint, Found, Query, Refusal, Verdict, Welcome};
use crate::upstream::{Lists, Upstream};

/// What a new client is told by a node that takes none.
const DRAINING: &str = "this node is being emptied; connect again to reach another one";

/// The hub of a client that names none.
const DEFAULT_HUB: &str = "default";

/// Lets clients in.
pub struct ClientEndpoint {
    /// The node they come to.
    node: Arc<Node>,
    /// What clients without a token may do.
    every_role: Arc<Roles>,
    /// Who may come without a token, and from which pages.
    openness: Arc<Openness>,
    /// Origins of pages that nodes of the cluster have served.
    members: Arc<MemberOrigins>,
    /// The application, if it is to be asked.
    upstream: Option<Arc<Upstream>>,
}

impl ClientEndpoint {
    /// The endpoint of a node.
    pub fn new(
        node: Arc<Node>,
        openness: Arc<Openness>,
        members: Arc<MemberOrigins>,
        upstream: Option<Arc<Upstream>>,
    ) -> Self {
        let every_role = node.share_roles(Roles::everything());
        ClientEndpoint { node, every_role, openness, members, upstream }
    }
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Door<'a> {
    /// The hub of this name.
    Hub(Cow<'a, str>),
    /// The hub that the query names.
    AnyHub,
    /// To be this user, on the plain wire.
    User(Cow<'a, str>),
}

impl<'a> Door<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix("/client")?;
        let Some(rest) = rest.strip_prefix('/') else { return rest.is_empty().then_some(Door::AnyHub) };
        if rest.is_empty() {
            return Some(Door::AnyHub);
        }
        match rest.strip_prefix("hubs/") {
            Some(hub) => decode_segment(hub).map(Door::Hub),
            None => decode_segment(rest).map(Door::User),
        }
    }
}

impl Endpoint for ClientEndpoint {
    type Application = Operator;

    fn owns(&self, path: &str) -> bool {
        path.strip_prefix("/client").is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    fn receive(&self, asked: &Asked<'_>) -> Result<Verdict<Arrival>, Refusal> {
        if self.node.is_draining() {
            return Err(Refusal::new(ErrorCode::ServiceUnavailable, DRAINING));
        }
        let door = Door::of(asked.head.path()).ok_or(ErrorCode::NotFound)?;
        let dialect = choose_dialect(asked.upgrade)?;
        let query = Query::parse(asked.head.query())
            .map_err(|error| Refusal::new(ErrorCode::InvalidRequest, error.to_string()))?;
        let standing = self.standing(asked);
        // Clients that are no page of somewhere else are many, and of them the rule needs no facts.
        let is_elsewhere = matches!(standing, Standing::Member | Standing::Foreign);
        if is_elsewhere && !admission::admits_page(&self.facts(asked, standing)) {
            return Err(ErrorCode::OriginRefused.into());
        }
        let subprotocol = match (dialect, &door) {
            (Some(dialect), _) => Subprotocol::from(dialect),
            (None, Door::User(_)) => Subprotocol::Plain,
            (None, _) => return Err(no_subprotocol("the client offers no subprotocol")),
        };
        if subprotocol == Subprotocol::AzureReliable
            && let (Some(id), Some(token)) = (&query.connection_id, &query.reconnection_token)
        {
            return Ok(self.recover(dialect, &door, &query, id, token));
        }
        let (client, claims) = self.client(asked, standing, subprotocol, door, &query)?;
        match &self.upstream {
            Some(upstream) if upstream.decides(&client.hub) => {
                let request = application::request(asked, claims);
                let deciding =
                    application::decide(Arc::clone(&self.node), Arc::clone(upstream), client, request);
                Ok(Verdict::Pending(Box::pin(deciding)))
            }
            _ => Ok(Verdict::Granted(welcome(subprotocol, dialect, Arrival::Client(Box::new(client))))),
        }
    }
}

impl ClientEndpoint {
    fn standing(&self, asked: &Asked<'_>) -> Standing {
        match asked.head.header("origin") {
            Found::Absent => Standing::Absent,
            Found::Once(Some(origin)) => {
                admission::standing(Some(origin), asked.host, &self.openness.origins(), &self.members)
            }
            // No browser sends two, or one that is no text.
            Found::Once(None) | Found::Repeated => Standing::Foreign,
        }
    }

    /// A client that wants its connection back is always upgraded; whether it gets it back, the connection's shard decides, and
    /// where it is on another node, it comes here first. An id that cannot be read is nobody's, and is refused like one that
    /// was forgotten.
    fn recover(
        &self,
        dialect: Option<Dialect>,
        door: &Door<'_>,
        query: &Query<'_>,
        id: &str,
        token: &str,
    ) -> Verdict<Arrival> {
        let hub = match door {
            Door::Hub(hub) => hub,
            Door::AnyHub | Door::User(_) => query.hub.as_deref().unwrap_or(DEFAULT_HUB),
        };
        let refused = Arrival::Refused(CloseCode::PolicyViolation);
        let welcome = welcome(Subprotocol::AzureReliable, dialect, refused);
        let (Ok(hub), Ok(id)) = (HubName::new(hub), id.parse::<ConnectionId>()) else {
            return Verdict::Granted(welcome);
        };
        let (node, token) = (Arc::clone(&self.node), token.to_owned());
        if let Some(address) = node.address(id) {
            let arrival = Arrival::Recovery { hub, id, token };
            return Verdict::Granted(Welcome { shard: Some(address.shard), arrival, ..welcome });
        }
        Verdict::Pending(Box::pin(async move {
            let (shard, arrival) = node.bring(hub, id, token).await;
            Ok(Welcome { shard, arrival, ..welcome })
        }))
    }

    /// Who a new connection is and what it may do, with the claims of its token where the application is to be told.
    fn client(
        &self,
        asked: &Asked<'_>,
        standing: Standing,
        subprotocol: Subprotocol,
        door: Door<'_>,
        query: &Query<'_>,
    ) -> Result<(Client, Lists), Refusal> {
        let (hub, claimed) = match &door {
            Door::Hub(hub) => (&**hub, query.user.as_deref()),
            Door::AnyHub => (query.hub.as_deref().unwrap_or(DEFAULT_HUB), query.user.as_deref()),
            Door::User(user) => (query.hub.as_deref().unwrap_or(DEFAULT_HUB), Some(&**user)),
        };
        let hub = HubName::new(hub).map_err(|_| ErrorCode::InvalidHub)?;
        let not_an_id = |_| Refusal::new(ErrorCode::InvalidRequest, "`replaces` is no connection's id");
        let replaces = query.replaces.as_deref().map(str::parse).transpose().map_err(not_an_id)?;
        let token = match &query.access_token {
            Some(token) => Some(&**token),
            None => bearer(asked.head.header("authorization"))?,
        };
        // The door of plain users belongs to those without a token; a token, when one is given, is checked all the same.
        let needs_anonymous = token.is_none() || matches!(door, Door::User(_));
        if needs_anonymous && !admission::admits_anonymous(&self.facts(asked, standing)) {
            return Err(Refusal::new(
                ErrorCode::Unauthorized,
                "this server wants an access token from this client",
            ));
        }
        let Some(token) = token else {
            let user = claimed.map(UserId::new).transpose().map_err(|_| ErrorCode::InvalidUser)?;
            let roles = Arc::clone(&self.every_role);
            let device = query.device.as_deref();
            if device.is_some_and(|device| !is_device(device)) {
                return Err(Refusal::new(ErrorCode::InvalidRequest, "`device` is a name of 1 to 256 bytes"));
            }
            let details = Details::new(device, None).expect("there is no data to be too large");
            let device = device.map(Box::from);
            let groups = Vec::new();
            let (expires, place) = (None, None);
            let client =
                Client { hub, user, roles, groups, subprotocol, expires, place, device, details, replaces };
            return Ok((client, Lists::default()));
        };
        let text = token;
        let prefix = asked.head.stripped_prefix().unwrap_or_default();
        let token = self.node.keys().verify_client_behind(prefix, token, hub.as_str(), unix_ms() / 1000)?;
        if let Door::User(user) = &door
            && token.user.as_deref() != Some(&**user)
        {
            return Err(Refusal::new(ErrorCode::Forbidden, "the token is not this user's"));
        }
        let is_asked = self.upstream.as_ref().is_some_and(|upstream| upstream.decides(&hub));
        let claims = if is_asked { application::claims(text) } else { Lists::default() };
        let client = Client {
            hub,
            user: token.user,
            roles: self.node.share_roles(token.roles),
            groups: token.groups,
            subprotocol,
            expires: Some(token.expires),
            place: None,
            device: token.device,
            details: token.details,
            replaces,
        };
        Ok((client, claims))
    }

    fn facts<'a>(&self, asked: &Asked<'a>, standing: Standing) -> Facts<'a> {
        Facts {
            allow_anonymous: self.openness.allows_anonymous(),
            has_keys: !self.node.keys().is_empty(),
            listener: asked.listener.ip(),
            peer: asked.peer.ip(),
            host: asked.host,
            is_forwarded: asked.is_forwarded
                || admission::is_forwarded(asked.head.headers().map(|(name, _)| name)),
            standing,
        }
    }
}

fn welcome(subprotocol: Subprotocol, dialect: Option<Dialect>, arrival: Arrival) -> Welcome<Arrival> {
    let protocol = dialect.map(Dialect::subprotocol);
    Welcome { protocol, shard: None, format: subprotocol.format(0), arrival }
}

/// The first of the offered subprotocols that is spoken here; none when none is offered.
fn choose_dialect(upgrade: &Upgrade<'_>) -> Result<Option<Dialect>, Refusal> {
    let mut offers_any = false;
    for name in upgrade.protocols() {
        if let Some(dialect) = Dialect::from_subprotocol(name) {
            return Ok(Some(dialect));
        }
        offers_any = true;
    }
    if offers_any {
        Err(no_subprotocol("no subprotocol that the client offers is spoken here"))
    } else {
        Ok(None)
    }
}

fn no_subprotocol(what: &str) -> Refusal {
    let known = Dialect::ALL.map(Dialect::subprotocol).join(", ");
    Refusal::new(ErrorCode::InvalidRequest, format!("{what}; the server speaks {known}"))
}

/// The token of an Authorization header. Other schemes are a proxy's business.
pub(crate) fn bearer(header: Found<'_>) -> Result<Option<&str>, Refusal> {
    let malformed = || Refusal::new(ErrorCode::Unauthorized, "the Authorization header is malformed");
    match header {
        Found::Absent => Ok(None),
        Found::Once(Some(value)) => {
            let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
            Ok(scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()))
        }
        Found::Once(None) | Found::Repeated => Err(malformed()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_doors() {
        let user = |text: &'static str| Some(Door::User(text.into()));
        let hub = |text: &'static str| Some(Door::Hub(text.into()));
        for (path, door) in [
            ("/client", Some(Door::AnyHub)),
            ("/client/", Some(Door::AnyHub)),
            ("/client/hubs/chat", hub("chat")),
            ("/client/hubs/a%2Cb", hub("a,b")),
            ("/client/hubs/", hub("")),
            ("/client/hubs/chat/", None),
            ("/client/hubs/chat/x", None),
            ("/client/hubs/%FF", None),
            ("/client/alice", user("alice")),
            ("/client/a%2Fb%20%C3%BC", user("a/b ü")),
            ("/client/hubs", user("hubs")),
            ("/client/alice/", None),
            ("/client//", None),
            ("/clients", None),
            ("/", None),
        ] {
            assert_eq!(Door::of(path), door, "{path}");
        }
    }
}
