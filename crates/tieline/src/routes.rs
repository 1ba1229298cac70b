//! What the node answers over plain HTTP: is it alive, is it ready, and what has it counted. Everything else is a 404.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use serde::Serialize;
use tieline_core::registry::{Registry, SharedView};
use tieline_core::{Node, unix_ms};
use tieline_proto::ErrorCode;

use crate::admission::{self, Access, Facts, MemberOrigins, Openness, Standing};
use crate::broker::BrokerUrl;
use crate::client::bearer;
use crate::config::Demo;
use crate::http::{Caller, Found, Head, HttpTally, Refusal};
use crate::rebalance::RebalanceTally;
use crate::reload::ReloadTally;
use crate::rest::RestTally;
use crate::upstream::UpstreamTally;
use crate::{demo, metrics, rest};

/// The type of Prometheus' text.
pub(crate) const METRICS_TYPE: HeaderValue =
    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// What the handlers share.
pub struct Station {
    /// The node they tell of.
    pub node: Arc<Node>,
    /// What the edge counted.
    pub http: Arc<HttpTally>,
    /// What the REST API counted.
    pub rest: RestTally,
    /// What was counted of events for the application.
    pub upstream: Arc<UpstreamTally>,
    /// What was counted of clients that were sent to where they belong.
    pub rebalance: Arc<RebalanceTally>,
    /// Who is shown the demo page.
    pub demo: Demo,
    /// Who may connect without a token, and from which pages.
    pub openness: Arc<Openness>,
    /// What became of changes of the configuration.
    pub reloads: Arc<ReloadTally>,
    /// What joins the node to others.
    pub broker: BrokerUrl,
    /// What places connections, once the node is a member of something.
    pub registry: OnceLock<Arc<dyn Registry>>,
    /// Its kind.
    pub registry_name: &'static str,
    /// Where clients reach the node, if that is known.
    pub client_url: Option<String>,
    /// Origins of pages that nodes of the cluster have served.
    pub members: Arc<MemberOrigins>,
    /// Whether there is a listener for operators, where `/metrics` then is.
    pub has_admin: bool,
    /// Set when the node no longer accepts connections.
    pub is_stopping: AtomicBool,
}

impl Station {
    /// What the registry shows; none where the node is alone.
    pub fn view(&self) -> Option<SharedView> {
        self.registry.get().map(|registry| Arc::clone(&registry.view().borrow()))
    }
}

/// How the node is, in one word.
#[derive(Serialize)]
struct Health {
    status: &'static str,
    node: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    broker: Option<&'static str>,
    /// Whether the broker carries anything now.
    #[serde(skip_serializing_if = "Option::is_none")]
    broker_up: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    registry: Option<&'static str>,
    /// Whether the registry can be reached now.
    #[serde(skip_serializing_if = "Option::is_none")]
    registry_up: Option<bool>,
    /// Whether the server of the directory can be reached, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory_up: Option<bool>,
    /// There when another member has another directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    directory_differs: Option<bool>,
    /// There when another node that lives has this one's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    name_taken: Option<bool>,
    /// Other nodes that there is no way to, though they may live.
    #[serde(skip_serializing_if = "Option::is_none")]
    peers_lost: Option<usize>,
    /// Whether the store does what it is asked, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    store_up: Option<bool>,
    /// What it asks of strangers, for a gateway.
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<Access>,
}

/// The routes of the listener for clients.
pub fn public(station: &Arc<Station>) -> Router {
    let metrics =
        if station.has_admin { Router::new() } else { Router::new().route("/metrics", get(guarded_metrics)) };
    finish(health().merge(metrics).merge(demo::routes(station.demo)), station)
}

/// The routes of the listener for operators, which only they can reach.
pub fn admin(station: &Arc<Station>) -> Router {
    let nodes = async |State(station): State<Arc<Station>>| rest::nodes(&station);
    finish(
        health().route("/metrics", get(all_metrics)).route("/api/v1/nodes", get(nodes)).route(
            "/api/v1/nodes/{name}/drain",
            post(async |State(station): State<Arc<Station>>, path: axum::extract::Path<String>| {
                rest::drain(&station, &path).into_response()
            }),
        ),
        station,
    )
}

fn health() -> Router<Arc<Station>> {
    Router::new().route("/healthz", get(is_alive)).route("/readyz", get(is_ready))
}

fn finish(routes: Router<Arc<Station>>, station: &Arc<Station>) -> Router {
    routes
        .fallback(async || Refusal::from(ErrorCode::NotFound))
        .method_not_allowed_fallback(async || Refusal::from(ErrorCode::MethodNotAllowed))
        .with_state(Arc::clone(station))
}

async fn is_alive(State(station): State<Arc<Station>>) -> Response {
    health_response(
        StatusCode::OK,
        Health {
            status: "ok",
            node: station.node.id().to_string(),
            broker: None,
            broker_up: None,
            registry: None,
            registry_up: None,
            directory_up: None,
            directory_differs: None,
            name_taken: None,
            peers_lost: None,
            store_up: None,
            access: None,
        },
    )
}

async fn is_ready(State(station): State<Arc<Station>>) -> Response {
    let cluster = station.node.cluster();
    let peers_lost = cluster.map(|cluster| cluster.peers().iter().filter(|peer| !peer.is_reached()).count());
    let broker_up = cluster.map(|cluster| cluster.is_broker_up());
    let registry_up = station.view().map(|view| !view.is_degraded);
    let name_taken = cluster.is_some_and(|cluster| cluster.has_namesake()).then_some(true);
    let directory_up = cluster.and_then(|cluster| cluster.asked()).map(|asked| asked.is_up());
    let directory_differs = cluster.is_some_and(|cluster| cluster.has_other_directories()).then_some(true);
    let store_up = station.node.logs().and_then(|logs| logs.is_store_up());
    let is_degraded = peers_lost.is_some_and(|lost| lost > 0)
        || broker_up == Some(false)
        || registry_up == Some(false)
        || store_up == Some(false)
        || directory_up == Some(false)
        || directory_differs.is_some()
        || name_taken.is_some();
    let (status, word) = if station.is_stopping.load(Ordering::Relaxed) {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping")
    } else if station.node.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else if is_degraded {
        // It serves its own clients, and those of the nodes it reaches; without its store, what is live.
        (StatusCode::OK, "degraded")
    } else {
        (StatusCode::OK, "ok")
    };
    let node = station.node.id().to_string();
    let broker = Some(station.broker.name());
    let registry = registry_up.map(|_| station.registry_name);
    let access = Access::of(!station.node.keys().is_empty(), station.openness.allows_anonymous());
    let health = Health {
        status: word,
        node,
        broker,
        broker_up,
        registry,
        registry_up,
        directory_up,
        directory_differs,
        name_taken,
        peers_lost,
        store_up,
        access: Some(access),
    };
    health_response(status, health)
}

fn health_response(status: StatusCode, health: Health) -> Response {
    let body = serde_json::to_string(&health).expect("text is always JSON");
    (status, [(CACHE_CONTROL, "no-store"), (CONTENT_TYPE, "application/json")], body).into_response()
}

async fn all_metrics(State(station): State<Arc<Station>>) -> Response {
    ([(CONTENT_TYPE, METRICS_TYPE)], metrics::render(&station)).into_response()
}

/// For programs of this machine, and for whoever holds an access key.
async fn guarded_metrics(
    state: State<Arc<Station>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    let head = Head::of(&request);
    if let Some(token) = bearer(head.header("authorization"))? {
        state.node.keys().verify_rest(token, head.target(), unix_ms() / 1000)?;
    } else if !is_local(&caller, &head, &state.members) {
        let message = "metrics are for this machine, or for a token of the REST API";
        return Err(Refusal::new(ErrorCode::Unauthorized, message));
    }
    Ok(all_metrics(state).await)
}

/// Whether a request comes from this machine.
pub(crate) fn is_local(caller: &Caller, head: &Head<'_>, members: &MemberOrigins) -> bool {
    facts(caller, head, members).is_some_and(|facts| admission::is_local(&facts))
}

/// What the rules for callers without a token look at; none without a proper `Host`. Nobody is let in by the configuration or for
/// want of keys.
pub(crate) fn facts<'a>(caller: &Caller, head: &Head<'a>, members: &MemberOrigins) -> Option<Facts<'a>> {
    let Found::Once(Some(host)) = head.header("host") else { return None };
    let standing = match head.header("origin") {
        Found::Absent => Standing::Absent,
        Found::Once(Some(origin)) => admission::standing(Some(origin), host, &[], members),
        Found::Once(None) | Found::Repeated => Standing::Foreign,
    };
    Some(Facts {
        allow_anonymous: false,
        has_keys: true,
        listener: caller.listener.ip(),
        peer: caller.peer.ip(),
        host,
        is_forwarded: caller.is_forwarded || admission::is_forwarded(head.headers().map(|(name, _)| name)),
        standing,
    })
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        self.response()
    }
}
