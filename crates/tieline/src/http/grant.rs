//! Judging a request for a WebSocket, and what comes of it when it is granted.

use std::net::{SocketAddr, TcpStream};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tieline_proto::ErrorCode;
use tieline_switchboard::{Adoption, Application, Format};
use tieline_websocket::{AcceptKey, DeflateParams, InflateMode, Role, Upgrade, response_head};

use super::Edge;
use super::endpoint::{Asked, Endpoint, Verdict, Welcome};
use super::head::{Found, Head};
use super::refusal::Refusal;
use crate::admission;

/// What an endpoint's application is told of a connection.
type Arrival<E> = <<E as Endpoint>::Application as Application>::Arrival;

/// A connection that is granted: what its client is answered, and what its shard is told. The socket has the edge's
/// settings: it was accepted by a listener that [`bind`](super::bind) made.
pub(super) struct Granted<E: Endpoint> {
    answer: String,
    shard: Option<u16>,
    format: Format,
    inflate: Option<InflateMode>,
    arrival: Arrival<E>,
}

/// What becomes of a request.
pub(super) enum Judgement<E: Endpoint> {
    Granted(Granted<E>),
    Pending(Pin<Box<dyn Future<Output = Result<Granted<E>, Refusal>> + Send>>),
}

/// The part of an answer that follows from the handshake alone.
struct Terms {
    accept_key: AcceptKey,
    deflate: Option<DeflateParams>,
}

impl Terms {
    fn grant<E: Endpoint>(self, welcome: Welcome<Arrival<E>>) -> Granted<E> {
        let Terms { accept_key, deflate } = self;
        let mut format = welcome.format;
        format.deflate = deflate.as_ref().map_or(0, |params| params.server_max_window_bits);
        Granted {
            answer: response_head(accept_key, welcome.protocol, deflate.as_ref()),
            shard: welcome.shard,
            format,
            inflate: deflate.map(|params| params.inflate_mode(Role::Server)),
            arrival: welcome.arrival,
        }
    }
}

impl<E: Endpoint> Granted<E> {
    /// Judges a request whose path the endpoint owns.
    pub(super) fn judge(edge: &Edge<E>, head: &Head<'_>, peer: SocketAddr) -> Result<Judgement<E>, Refusal> {
        let host = host(head)?;
        let upgrade = Upgrade::from_request(head.method, head.minor, head.headers())?;
        if head.has_body() {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "a request for a WebSocket has no body: bytes before the answer are not frames",
            ));
        }
        if !edge.connect_rate.take(peer.ip(), Instant::now()) {
            return Err(Refusal::new(
                ErrorCode::TooManyConnections,
                "too many connections from this address",
            ));
        }
        if edge.switchboard.counters().connections >= edge.settings.connections as u64 {
            let message = "the server has as many connections as it may have";
            return Err(Refusal::new(ErrorCode::TooManyConnections, message));
        }
        let is_forwarded = edge.settings.proxy_protocol;
        let asked = Asked { head, upgrade: &upgrade, host, peer, is_forwarded, listener: edge.address };
        let verdict = edge.endpoint.receive(&asked)?;
        let deflate = edge.settings.deflate.as_ref().and_then(|policy| upgrade.negotiate_deflate(policy));
        let terms = Terms { accept_key: upgrade.accept_key(), deflate };
        Ok(match verdict {
            Verdict::Granted(welcome) => Judgement::Granted(terms.grant(welcome)),
            Verdict::Pending(pending) => {
                Judgement::Pending(Box::pin(async move { Ok(terms.grant(pending.await?)) }))
            }
        })
    }

    /// Gives the client's socket to its shard, with the answer, which goes out together with the first frames, and the
    /// bytes that were read behind the request. The socket does not block.
    pub(super) fn hand_over(self, edge: &Edge<E>, stream: TcpStream, leftover: Vec<u8>) {
        let Granted { answer, shard, format, inflate, arrival } = self;
        let adoption = Adoption { stream, head: answer.into_bytes(), leftover, format, inflate, arrival };
        match edge.switchboard.adopt(shard, adoption) {
            Ok(()) => drop(edge.tally.upgraded.fetch_add(1, Ordering::Relaxed)),
            Err(error) => tracing::error!(%error, "A connection could not be given to its shard."),
        }
    }
}

/// The one `Host` header, which HTTP/1.1 demands (RFC 9112, 3.2). Older clients, such as the health checks of some load balancers,
/// may send none; they cannot ask for a WebSocket.
pub(super) fn host<'a>(head: &Head<'a>) -> Result<&'a str, Refusal> {
    let refusal = |message: &'static str| Err(Refusal::new(ErrorCode::InvalidRequest, message));
    match head.header("host") {
        Found::Once(Some(host)) if admission::is_authority(host) => Ok(host),
        Found::Once(_) => refusal("the Host header is malformed"),
        Found::Absent if head.minor == 0 => Ok(""),
        Found::Absent => refusal("the request has no Host header"),
        Found::Repeated => refusal("the request has more than one Host header"),
    }
}
