//! The conversation on one socket, from accept to upgrade or end.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    CONNECTION, HOST, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use hyper::service::Service;
use hyper::{Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tieline_proto::ErrorCode;
use tieline_switchboard::{Adoption, Application, Format};
use tieline_websocket::{InflateMode, Role, Upgrade};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service as _;

use super::Edge;
use super::endpoint::{Asked, Endpoint};
use super::refusal::Refusal;
use crate::admission;

/// What is still read from a client after it was refused, so that it can read the refusal: a socket that is closed with
/// unread bytes is reset, and takes the answer with it.
const LINGER_BYTES: usize = 256 * 1024;

/// How long that is done.
const LINGER_TIME: Duration = Duration::from_secs(1);

/// The answer to a head that does not come. The client may not even speak HTTP, so it is short.
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\nx-ms-error-code: RequestTimeout\r\ncontent-length: 0\r\n\r\n";

/// What the router's handlers may want to know of a request beside the request: an extension of it.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// The other end of the socket.
    pub peer: SocketAddr,
    /// The address the listener was bound to.
    pub listener: SocketAddr,
}

/// A connection whose answer is on its way.
struct Granted<T> {
    shard: Option<u16>,
    format: Format,
    inflate: Option<InflateMode>,
    arrival: T,
}

type Arrival<E> = <<E as Endpoint>::Application as Application>::Arrival;

/// Answers the requests of one socket.
struct Exchange<E: Endpoint> {
    edge: Arc<Edge<E>>,
    peer: SocketAddr,
    /// Set by the request that was granted, which is the last one.
    granted: RefCell<Option<Granted<Arrival<E>>>>,
}

/// Nothing in it is ever pinned.
impl<E: Endpoint> Unpin for Exchange<E> {}

/// An answer, at once for an upgrade and later from the router.
enum Answer {
    Now(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Answer::Now(response) => Poll::Ready(Ok(response.take().expect("an answer is polled once"))),
            Answer::Later(response) => response.as_mut().poll(cx),
        }
    }
}

impl<E: Endpoint> Service<Request<Incoming>> for Exchange<E> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let result = match host(&request) {
            Ok(host) if self.edge.endpoint.owns(request.uri().path()) => self.upgrade(&request, host),
            Ok(_) => {
                request.extensions_mut().insert(Caller { peer: self.peer, listener: self.edge.address });
                let response = self.edge.router.clone().call(request.map(Body::new));
                return Answer::Later(Box::pin(response));
            }
            Err(refusal) => Err(refusal),
        };
        Answer::Now(Some(result.unwrap_or_else(|refusal| {
            self.edge.tally.count_refused(refusal.code);
            tracing::debug!(peer = %self.peer, code = %refusal.code, "A request for a WebSocket was refused.");
            refusal.response()
        })))
    }
}

impl<E: Endpoint> Exchange<E> {
    /// Judges a request for a WebSocket, and keeps what the shard will be told.
    fn upgrade(&self, request: &Request<Incoming>, host: &str) -> Result<Response<Body>, Refusal> {
        let edge = &*self.edge;
        let headers = request.headers();
        let minor = u8::from(request.version() == Version::HTTP_11);
        let upgrade = Upgrade::from_request(request.method().as_str(), minor, pairs(headers))?;
        if !request.body().is_end_stream() {
            return Err(Refusal::new(
                ErrorCode::InvalidRequest,
                "a request for a WebSocket has no body: bytes before the answer are not frames",
            ));
        }
        if !edge.connect_rate.take(self.peer.ip(), Instant::now()) {
            return Err(Refusal::new(
                ErrorCode::TooManyConnections,
                "too many connections from this address",
            ));
        }
        if edge.switchboard.counters().connections >= edge.settings.connections as u64 {
            return Err(Refusal::new(
                ErrorCode::TooManyConnections,
                "the server has as many connections as it may have",
            ));
        }
        let asked = Asked {
            uri: request.uri(),
            headers,
            upgrade: &upgrade,
            host,
            peer: self.peer,
            listener: edge.address,
        };
        let welcome = edge.endpoint.receive(&asked)?;
        let deflate = edge.settings.deflate.as_ref().and_then(|policy| upgrade.negotiate_deflate(policy));

        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let answer = response.headers_mut();
        answer.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        answer.insert(UPGRADE, HeaderValue::from_static("websocket"));
        let accept =
            HeaderValue::from_str(upgrade.accept_key().as_str()).expect("base64 is a header's value");
        answer.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(protocol) = welcome.protocol {
            answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
        }
        let mut format = welcome.format;
        if let Some(params) = &deflate {
            format.deflate = params.server_max_window_bits;
            let value =
                HeaderValue::try_from(params.header_value()).expect("parameters are tokens and numbers");
            answer.insert(SEC_WEBSOCKET_EXTENSIONS, value);
        }
        let granted = Granted {
            shard: welcome.shard,
            format,
            inflate: deflate.map(|params| params.inflate_mode(Role::Server)),
            arrival: welcome.arrival,
        };
        *self.granted.borrow_mut() = Some(granted);
        Ok(response)
    }
}

/// The headers as the handshake reads them.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &[u8])> {
    headers.iter().map(|(name, value): (&HeaderName, &HeaderValue)| (name.as_str(), value.as_bytes()))
}

/// The one `Host` header, which HTTP/1.1 demands (RFC 9112, 3.2). Older clients, such as the health checks of some load balancers,
/// may send none; they cannot ask for a WebSocket.
fn host(request: &Request<Incoming>) -> Result<&str, Refusal> {
    let mut values = request.headers().get_all(HOST).iter();
    let refusal = |message: &'static str| Refusal::new(ErrorCode::InvalidRequest, message);
    match (values.next(), values.next()) {
        (Some(value), None) => {
            let host = value.to_str().ok().filter(|host| admission::is_authority(host));
            host.ok_or_else(|| refusal("the Host header is malformed"))
        }
        (None, _) if request.version() < Version::HTTP_11 => Ok(""),
        (None, _) => Err(refusal("the request has no Host header")),
        (Some(_), Some(_)) => Err(refusal("the request has more than one Host header")),
    }
}

/// Speaks HTTP on a socket until it becomes a WebSocket, which goes to its shard, or ends.
pub(super) async fn converse<E: Endpoint>(
    edge: Arc<Edge<E>>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stopped: watch::Receiver<bool>,
) {
    let exchange = Exchange { edge: Arc::clone(&edge), peer, granted: RefCell::new(None) };
    let mut connection = edge.http.serve_connection(TokioIo::new(stream), exchange);
    let mut result = {
        let served = poll_fn(|cx| connection.poll_without_shutdown(cx));
        tokio::select! {
            biased;
            result = served => Some(result),
            // The sender outlives all sockets but for a stop, so an error means the same.
            _ = stopped.wait_for(|stopped| *stopped) => None,
        }
    };
    if result.is_none() {
        // The request that is being answered is the last one.
        Pin::new(&mut connection).graceful_shutdown();
        result = Some(poll_fn(|cx| connection.poll_without_shutdown(cx)).await);
    }
    let parts = connection.into_parts();
    let stream = parts.io.into_inner();
    match (result.unwrap_or(Ok(())), parts.service.granted.into_inner()) {
        (Ok(()), Some(granted)) => hand_over(&edge, stream, &parts.read_buf, granted),
        (Ok(()), None) => {}
        (Err(error), _) => {
            edge.tally.malformed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, %error, "A socket spoke no proper HTTP.");
            let answer: &[u8] = if error.is_timeout() && !parts.read_buf.is_empty() { TOO_SLOW } else { b"" };
            linger(stream, answer).await;
        }
    }
}

/// Takes a socket from the runtime and gives it to its shard.
fn hand_over<E: Endpoint>(edge: &Edge<E>, stream: TcpStream, leftover: &Bytes, granted: Granted<Arrival<E>>) {
    let adopted = stream.into_std().and_then(|stream| {
        let Granted { shard, format, inflate, arrival } = granted;
        let adoption = Adoption { stream, leftover: leftover.to_vec(), format, inflate, arrival };
        edge.switchboard.adopt(shard, adoption)
    });
    match adopted {
        Ok(()) => drop(edge.tally.upgraded.fetch_add(1, Ordering::Relaxed)),
        Err(error) => tracing::error!(%error, "A connection could not be given to its shard."),
    }
}

/// Sends a last answer, and reads on for a while so that it arrives.
async fn linger(mut stream: TcpStream, answer: &[u8]) {
    let farewell = async {
        if stream.write_all(answer).await.is_err() || stream.shutdown().await.is_err() {
            return;
        }
        let mut scratch = [0; 4096];
        let mut left = LINGER_BYTES;
        while left > 0 {
            match stream.read(&mut scratch).await {
                Ok(0) | Err(_) => return,
                Ok(read) => left = left.saturating_sub(read),
            }
        }
    };
    let _ = tokio::time::timeout(LINGER_TIME, farewell).await;
}
