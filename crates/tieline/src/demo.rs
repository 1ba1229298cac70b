//! The demo page: something to look at in a browser, at `/` of any node.
//!
//! Three files of plain HTML, style and script that are part of the program, and `/demo/nodes`, by which the page learns the other
//! nodes, so that it can move to one of them when its own is gone. The page is a client like any other: it speaks `tieline.v1` on
//! `/client/hubs/demo`, and who is on is what the pages tell each other in a group of that hub; the server keeps no list for it.
//!
//! By default it is shown to browsers of this machine alone, as anonymous access is. Tested in `tests/program/demo.rs` over HTTP, and
//! in a real browser by `tests/browser`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::extract::{Extension, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::StatusCode;
use hyper::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use serde::Serialize;
use tieline_proto::{ErrorCode, Incarnation, NodeName};

use crate::admission;
use crate::config::Demo;
use crate::http::{Caller, Head, Refusal};
use crate::routes::{self, Station};

/// What the page may load and do: its own script and style, WebSockets to any node, and nothing else. Text that somebody sent can
/// become no markup and no script, whatever the page's own script did with it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' ws: wss:; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
     trusted-types 'none'",
);

/// One file of the page.
struct Asset {
    path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 4] = [
    Asset { path: "/", content_type: "text/html; charset=utf-8", text: include_str!("demo/page.html") },
    Asset {
        path: "/demo/page.css",
        content_type: "text/css; charset=utf-8",
        text: include_str!("demo/page.css"),
    },
    Asset {
        path: "/demo/page.js",
        content_type: "text/javascript; charset=utf-8",
        text: include_str!("demo/page.js"),
    },
    Asset { path: "/demo/icon.svg", content_type: "image/svg+xml", text: include_str!("demo/icon.svg") },
];

/// One tag for all files: they change together, with the program.
static TAG: LazyLock<HeaderValue> = LazyLock::new(|| {
    let mut hasher = DefaultHasher::new();
    ASSETS.iter().for_each(|asset| asset.text.hash(&mut hasher));
    HeaderValue::try_from(format!("\"{:016x}\"", hasher.finish())).expect("digits and quotes are a value")
});

/// What the page asks its node.
#[derive(Serialize)]
struct NodesAnswer<'a> {
    /// Whether this browser may connect without a token.
    anonymous: bool,
    nodes: Vec<NodeAnswer<'a>>,
}

/// A node as the page knows it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeAnswer<'a> {
    name: &'a NodeName,
    /// The beginning of each of its connections' ids.
    incarnation: Incarnation,
    /// Where its clients connect; none for the one that answers, which is where the page comes from, and for one that nobody
    /// knows the address of.
    #[serde(skip_serializing_if = "Option::is_none")]
    client_url: Option<&'a str>,
    #[serde(rename = "self")]
    is_self: bool,
}

/// The routes of the page.
pub fn routes(demo: Demo) -> Router<Arc<Station>> {
    let mut router = Router::new();
    if demo == Demo::Off {
        return router;
    }
    for asset in &ASSETS {
        let answer = async |State(station): State<Arc<Station>>, Extension(caller), request: Request| {
            show(&station, &caller, &request).map(|()| file(asset, &request))
        };
        router = router.route(asset.path, get(answer));
    }
    router.route("/demo/nodes", get(nodes))
}

/// Whether the caller is shown the page.
fn show(station: &Station, caller: &Caller, request: &Request) -> Result<(), Refusal> {
    let is_shown = match station.demo {
        Demo::All => true,
        Demo::Local => routes::is_local(caller, &Head::of(request), &station.members),
        Demo::Off => false,
    };
    if is_shown { Ok(()) } else { Err(ErrorCode::NotFound.into()) }
}

fn file(asset: &Asset, request: &Request) -> Response {
    let fixed: [(HeaderName, HeaderValue); 5] = [
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (CONTENT_SECURITY_POLICY, POLICY),
        // A newer program has a newer page: it is asked for each time, and answered without a body if it is the same.
        (CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (ETAG, TAG.clone()),
    ];
    let is_known = request.headers().get_all(IF_NONE_MATCH).iter().any(|tag| tag == *TAG);
    if is_known {
        return (StatusCode::NOT_MODIFIED, fixed).into_response();
    }
    (fixed, [(CONTENT_TYPE, asset.content_type)], asset.text).into_response()
}

async fn nodes(
    State(station): State<Arc<Station>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    show(&station, &caller, &request)?;
    let facts = routes::facts(&caller, &Head::of(&request), &station.members)
        .map(|facts| admission::Facts { allow_anonymous: station.openness.allows_anonymous(), ..facts });
    let peers = station.node.cluster().map(|cluster| cluster.peers()).unwrap_or_default();
    let id = station.node.id();
    let this = NodeAnswer { name: &id.name, incarnation: id.incarnation, client_url: None, is_self: true };
    let others = peers.iter().map(|peer| NodeAnswer {
        name: &peer.id.name,
        incarnation: peer.id.incarnation,
        client_url: Some(&*peer.client_url).filter(|url| !url.is_empty()),
        is_self: false,
    });
    let answer = NodesAnswer {
        anonymous: facts.is_some_and(|facts| {
            let has_keys = !station.node.keys().is_empty();
            admission::admits_anonymous(&admission::Facts { has_keys, ..facts })
        }),
        nodes: std::iter::once(this).chain(others).collect(),
    };
    let body = serde_json::to_vec(&answer).expect("names and numbers are always JSON");
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    Ok((headers, body).into_response())
}
