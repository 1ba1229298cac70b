//! Judging a request for a WebSocket: what holds for each, whoever takes it.

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::Ordering;
use std::time::Instant;

use tieline_proto::ErrorCode;
use tieline_websocket::Upgrade;

use super::Edge;
use super::endpoint::Asked;
use super::head::{Found, Head};
use super::reception::{Judgement, Reception};
use super::refusal::Refusal;
use crate::admission;

/// Judges a request that the reception owns.
pub(super) fn judge<R: Reception>(
    edge: &Edge<R>,
    head: &Head<'_>,
    peer: SocketAddr,
) -> Result<Judgement<R::Granted>, Refusal> {
    let host = host(head)?;
    let upgrade = Upgrade::from_request(head.method, head.minor, head.headers())?;
    if head.has_body() {
        return Err(Refusal::new(
            ErrorCode::InvalidRequest,
            "a request for a WebSocket has no body: bytes before the answer are not frames",
        ));
    }
    if !edge.connect_rate.take(peer.ip(), Instant::now()) {
        return Err(Refusal::new(ErrorCode::TooManyConnections, "too many connections from this address"));
    }
    if edge.reception.connections() >= edge.settings.connections as u64 {
        let message = "the server has as many connections as it may have";
        return Err(Refusal::new(ErrorCode::TooManyConnections, message));
    }
    let is_forwarded = edge.settings.proxy_protocol;
    edge.reception.judge(&Asked { head, upgrade: &upgrade, host, peer, is_forwarded, listener: edge.address })
}

/// Gives the socket of a granted request away, with the bytes that were read behind the request. It does not block, and has
/// the settings of sockets that a listener of [`bind`](super::bind) accepted.
pub(super) fn hand_over<R: Reception>(
    edge: &Edge<R>,
    granted: R::Granted,
    stream: TcpStream,
    leftover: Vec<u8>,
) {
    match edge.reception.take(granted, stream, leftover) {
        Ok(()) => drop(edge.tally.upgraded.fetch_add(1, Ordering::Relaxed)),
        Err(error) => tracing::error!(%error, "A connection could not be given away."),
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
