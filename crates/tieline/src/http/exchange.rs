//! The conversation on one socket whose first request is not one for a WebSocket, or was not there yet when the socket was
//! accepted: hyper's.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper::{Request, Response};
use tieline_proto::ErrorCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::Service as _;

use super::Edge;
use super::grant::{self, host};
use super::head::Head;
use super::reception::{Judgement, Reception};
use super::refusal::Refusal;
use super::rewound::Rewound;

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
    /// The other end of the socket, or whom the balancer at that end connects for.
    pub peer: SocketAddr,
    /// Whether a balancer stands between.
    pub is_forwarded: bool,
    /// The address the listener was bound to.
    pub listener: SocketAddr,
}

/// Answers the requests of one socket.
struct Exchange<R: Reception> {
    edge: Arc<Edge<R>>,
    peer: SocketAddr,
    granted: Outcome<R::Granted>,
}

/// Set by the request that is granted, which is the last one.
struct Outcome<G>(Arc<Mutex<Option<G>>>);

impl<G> Outcome<G> {
    fn lock(&self) -> MutexGuard<'_, Option<G>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

impl<R: Reception> Service<Request<Incoming>> for Exchange<R> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let head = Head::of(&request);
        let result = match host(&head) {
            Ok(_) if self.edge.reception.owns(&head) => grant::judge(&self.edge, &head, self.peer),
            Ok(_) => {
                request.extensions_mut().insert(Caller {
                    peer: self.peer,
                    is_forwarded: self.edge.settings.proxy_protocol,
                    listener: self.edge.address,
                });
                return Box::pin(self.edge.router.clone().call(request.map(Body::new)));
            }
            Err(refusal) => Err(refusal),
        };
        match result {
            Ok(Judgement::Granted(granted)) => {
                *self.granted.lock() = Some(granted);
                // The answer is not hyper's to write any more.
                Box::pin(pending())
            }
            Ok(Judgement::Pending(deciding)) => {
                let (edge, peer) = (Arc::clone(&self.edge), self.peer);
                let outcome = Outcome(Arc::clone(&self.granted.0));
                // A task of its own, which is not ended when the client leaves meanwhile: whoever decides is to hear what
                // became of a connection that it granted. It ends within the time that deciding may take.
                let deciding = tokio::spawn(deciding);
                Box::pin(async move {
                    let decided = deciding.await;
                    match decided.unwrap_or_else(|_| Err(ErrorCode::InternalServerError.into())) {
                        Ok(granted) => {
                            *outcome.lock() = Some(granted);
                            pending().await
                        }
                        Err(refusal) => {
                            note(&edge, peer, &refusal);
                            Ok(refusal.response())
                        }
                    }
                })
            }
            Err(refusal) => {
                note(&self.edge, self.peer, &refusal);
                Box::pin(std::future::ready(Ok(refusal.response())))
            }
        }
    }
}

/// Counts a refusal. Nothing that the client sent is logged.
pub(super) fn note<R: Reception>(edge: &Edge<R>, peer: SocketAddr, refusal: &Refusal) {
    edge.tally.count_refused(refusal.code);
    tracing::debug!(%peer, code = %refusal.code, "A request for a WebSocket was refused.");
}

/// Speaks HTTP on a socket, of which `early` was read already, until it becomes a WebSocket, which goes to its shard, or ends.
pub(super) async fn converse<R: Reception>(
    edge: Arc<Edge<R>>,
    stream: TcpStream,
    early: Vec<u8>,
    peer: SocketAddr,
    mut stopped: watch::Receiver<bool>,
) {
    let granted = Outcome(Arc::default());
    // hyper gives up on a malformed request without waiting until its answer is written, which at first the runtime does not
    // know to be possible.
    if stream.writable().await.is_err() {
        return;
    }
    let exchange = Exchange { edge: Arc::clone(&edge), peer, granted: Outcome(Arc::clone(&granted.0)) };
    let mut connection = edge.http.serve_connection(Rewound::new(early, stream), exchange);
    let mut serve = |cx: &mut Context<'_>, graceful: bool| {
        if graceful {
            // The request that is being answered is the last one.
            Pin::new(&mut connection).graceful_shutdown();
        }
        let served = connection.poll_without_shutdown(cx);
        if granted.lock().is_some() { Poll::Ready(Ok(())) } else { served }
    };
    let served = tokio::select! {
        biased;
        result = poll_fn(|cx| serve(cx, false)) => Some(result),
        // The sender outlives all sockets but for a stop, so an error means the same.
        _ = stopped.wait_for(|stopped| *stopped) => None,
    };
    let served = match served {
        Some(result) => result,
        None => poll_fn(|cx| serve(cx, true)).await,
    };
    let parts = connection.into_parts();
    let (stream, unread) = parts.io.into_parts();
    let granted = granted.lock().take();
    match (served, granted) {
        (Ok(()), Some(granted)) => {
            let mut leftover = parts.read_buf.to_vec();
            leftover.extend_from_slice(&unread);
            match stream.into_std() {
                Ok(stream) => grant::hand_over(&edge, granted, stream, leftover),
                Err(error) => tracing::error!(%error, "A socket could not be taken from the runtime."),
            }
        }
        (Ok(()), None) => {}
        (Err(error), _) => {
            edge.tally.malformed.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, %error, "A socket spoke no proper HTTP.");
            let answer: &[u8] = if error.is_timeout() && !parts.read_buf.is_empty() { TOO_SLOW } else { b"" };
            linger(stream, answer).await;
        }
    }
}

/// Sends a last answer, and reads on for a while so that it arrives.
pub(crate) async fn linger(mut stream: TcpStream, answer: &[u8]) {
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
