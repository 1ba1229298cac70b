//! Requests that ask for no WebSocket: given on to a node, and the answer given back.
//!
//! A request without a body, or with a small one, goes to another node where the first could not be connected to or takes
//! nobody now; a larger one is passed on as it comes, and has one try. A node that was given a request and then fails may have
//! carried it out, so that request is not said again unless it only asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Extension, Request, State};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tieline_proto::ErrorCode;
use tokio::time::timeout;

use super::forwarding::Header;
use super::nodes::Node;
use super::{Gateway, nobody};
use crate::http::{Caller, Found, Head, Refusal};

/// Bodies up to so many bytes are kept until a node has answered.
const SMALL: u64 = 64 * 1024;

/// How long a small body may take, as at a node.
const BODY_TIME: Duration = Duration::from_secs(30);

/// How long an answer may take.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How long a connection to a node is kept that carries nothing. Nodes keep theirs for longer.
const KEEP_IDLE: Duration = Duration::from_secs(4);

/// What an answer has of its own connection.
const HOP_BY_HOP: [&str; 5] =
    ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// The client for requests that are given on, and for checks.
pub(super) type NodeClient = Client<HttpConnector, Body>;

/// A client whose connections are made within a time.
pub(super) fn client(connect: Duration) -> NodeClient {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(connect));
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(KEEP_IDLE)
        .build(connector)
}

/// The body of a request.
enum Content {
    /// Here as a whole, to be said as often as needed.
    Small(Bytes),
    /// On its way, once.
    Stream(Option<Body>),
}

impl Content {
    async fn of(body: Body) -> Result<Content, Refusal> {
        let size = body.size_hint().exact();
        if size.is_none_or(|size| size > SMALL) {
            return Ok(Content::Stream(Some(body)));
        }
        let whole = timeout(BODY_TIME, body.collect()).await.map_err(|_| ErrorCode::RequestTimeout)?;
        let message = "the body ended before its announced length";
        let whole = whole.map_err(|_| Refusal::new(ErrorCode::InvalidRequest, message))?;
        Ok(Content::Small(whole.to_bytes()))
    }

    /// Whether it came as a whole. Where it did not, a request that fails may have failed for its client's sake.
    fn is_small(&self) -> bool {
        matches!(self, Content::Small(_))
    }

    fn take(&mut self) -> Option<Body> {
        match self {
            Content::Small(bytes) => Some(Body::from(bytes.clone())),
            Content::Stream(body) => body.take(),
        }
    }
}

/// Gives a request on.
pub(super) async fn relay(
    State(gateway): State<Arc<Gateway>>,
    Extension(caller): Extension<Caller>,
    request: Request,
) -> Result<Response, Refusal> {
    if request.method() == Method::CONNECT {
        return Err(ErrorCode::MethodNotAllowed.into());
    }
    let (parts, body) = request.into_parts();
    let asked = Request::from_parts(parts, ());
    let head = Head::of(&asked);
    let target = gateway.forwarding.prefix.apply(head.target()).ok_or(ErrorCode::NotFound)?;
    let host = match head.header("host") {
        Found::Once(Some(host)) => host,
        _ => "",
    };
    let headers = gateway.forwarding.headers(&head, caller.peer.ip(), host)?;
    let nodes = gateway.choose(&gateway.wish(&head, &target, caller.peer.ip()));
    let only_asks = matches!(*asked.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let mut content = Content::of(body).await?;
    let mut busy = None;
    for (attempt, node) in nodes.iter().enumerate() {
        let Some(body) = content.take() else { break };
        if attempt > 0 {
            gateway.tally.retries.fetch_add(1, Ordering::Relaxed);
        }
        let request = request_to(node, &target, asked.method(), &headers, body)?;
        match timeout(ANSWER_TIME, gateway.client.request(request)).await {
            Ok(Ok(response)) => {
                node.answered();
                if response.status().is_informational() {
                    return Err(Refusal { status: 502, ..ErrorCode::InternalServerError.into() });
                }
                let response = given_back(response.map(Body::new));
                if !is_busy(&response) {
                    gateway.tally.relayed.fetch_add(1, Ordering::Relaxed);
                    return Ok(response);
                }
                busy = Some(response);
            }
            Ok(Err(error)) => {
                let was_reached = !error.is_connect();
                if !was_reached || content.is_small() {
                    gateway.failed(node, &error);
                }
                if was_reached && !only_asks {
                    return Err(unknown());
                }
            }
            Err(elapsed) => {
                if content.is_small() {
                    gateway.failed(node, &elapsed);
                }
                return Err(unknown());
            }
        }
    }
    busy.ok_or_else(nobody)
}

/// The request as a node gets it.
fn request_to(
    node: &Node,
    target: &str,
    method: &Method,
    headers: &[Header<'_>],
    body: Body,
) -> Result<Request, Refusal> {
    let uri = format!("http://{}{target}", node.authority).parse::<Uri>();
    let unreadable = |_| Refusal::new(ErrorCode::InvalidRequest, "the request's address cannot be read");
    let mut request = Request::new(body);
    *request.method_mut() = method.clone();
    *request.uri_mut() = uri.map_err(unreadable)?;
    for (name, value) in headers {
        let header = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_bytes(value));
        // They were read as headers, or made of such; `Host` alone may be empty.
        if let (Ok(name), Ok(value)) = header
            && !value.is_empty()
        {
            request.headers_mut().append(name, value);
        }
    }
    Ok(request)
}

/// Whether a node takes nothing now, so that another should be asked. It has carried nothing out.
fn is_busy(response: &Response) -> bool {
    let code = response.headers().get("x-ms-error-code");
    response.status() == StatusCode::SERVICE_UNAVAILABLE
        && code.is_none_or(|code| code == "ServiceUnavailable")
}

/// An answer without what concerns the node's connection alone.
fn given_back(mut response: Response) -> Response {
    for name in HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    response
}

/// A node was given the request, and nobody knows what became of it.
fn unknown() -> Refusal {
    let message = "a node was given the request and did not answer: nobody knows whether it was carried out";
    Refusal { status: 504, ..Refusal::new(ErrorCode::InternalServerError, message) }
}
