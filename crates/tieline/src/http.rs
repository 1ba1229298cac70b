//! The HTTP edge: accepts sockets, reads requests, turns those for a WebSocket into connections of the switchboard, and
//! gives the others to a router.
//!
//! What becomes of a request for a WebSocket is the business of a [`Reception`]. That of a node is [`Shards`]: an [`Endpoint`]
//! decides what the request is worth, nearly always at once; then the socket leaves for its shard, with the bytes that were read
//! behind the handshake. `tieline serve` and `tieline echo` differ in their endpoint alone. Tested against real listeners, in `tests/` of this crate.

mod connect_rate;
mod endpoint;
mod exchange;
mod grant;
mod head;
mod listener;
mod preface;
mod proxy_protocol;
mod query;
mod reception;
mod refusal;
mod rewound;
mod shards;
mod tally;

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioTimer;
use tieline_switchboard::Handle;
use tieline_websocket::DeflatePolicy;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, watch};

pub use connect_rate::ConnectRate;
pub use endpoint::{Asked, Endpoint, Pending, Verdict, Welcome};
pub use exchange::Caller;
pub(crate) use exchange::linger;
pub use head::{Found, Head};
pub use listener::bind;
pub use proxy_protocol::HeaderError;
pub(crate) use query::decode_form;
pub use query::{Query, QueryError};
pub use reception::{Deciding, Judgement, Reception};
pub use refusal::Refusal;
pub use shards::Shards;
pub use tally::HttpTally;

use crate::config::{Deflate, Limits, Settings};

/// How long sockets that are in the middle of a request get to finish it when the server stops.
const GRACE: Duration = Duration::from_secs(3);

/// What the edge needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct EdgeSettings {
    /// Largest head of a request, in bytes.
    pub max_header: usize,
    /// How long the head may take.
    pub handshake: Duration,
    /// Sockets that may speak HTTP at once.
    pub handshakes: usize,
    /// Connections that may be open at once.
    pub connections: usize,
    /// Connections a second from one address, and at once; 0 a second for any number.
    pub connect_rate: (u32, u32),
    /// Whether every connection begins with a header of the PROXY protocol, whose source is then its other end.
    pub proxy_protocol: bool,
    /// What is agreed to when a client offers permessage-deflate; `None` to decline.
    pub deflate: Option<DeflatePolicy>,
}

impl EdgeSettings {
    /// The parts of a node's configuration.
    pub fn of(settings: &Settings) -> Self {
        let Limits { max_header, handshakes, connections, connect_rate, connect_burst, .. } = settings.limits;
        let Deflate { enabled, window } = settings.deflate;
        let policy = DeflatePolicy { server_max_window_bits: window, ..DeflatePolicy::default() };
        EdgeSettings {
            max_header: max_header.0,
            handshake: settings.times.handshake,
            handshakes,
            connections,
            connect_rate: (connect_rate, connect_burst),
            proxy_protocol: settings.server.proxy_protocol,
            deflate: enabled.then_some(policy),
        }
    }
}

/// The edge of one listener.
pub struct Edge<R: Reception> {
    reception: R,
    /// Takes what asks for no WebSocket.
    router: Router,
    /// Reads requests; its limits are set once.
    http: http1::Builder,
    /// The address that was bound.
    address: SocketAddr,
    connect_rate: Arc<ConnectRate>,
    tally: Arc<HttpTally>,
    settings: EdgeSettings,
}

impl<E: Endpoint> Edge<Shards<E>> {
    /// The edge of a node, for a listener that is bound to `address`.
    pub fn new(
        endpoint: E,
        router: Router,
        switchboard: Handle<E::Application>,
        address: SocketAddr,
        settings: EdgeSettings,
        tally: Arc<HttpTally>,
    ) -> Self {
        let shards = Shards { endpoint, switchboard, deflate: settings.deflate };
        Edge::with(shards, router, address, settings, tally)
    }
}

impl<R: Reception> Edge<R> {
    /// An edge for a listener that is bound to `address`.
    pub fn with(
        reception: R,
        router: Router,
        address: SocketAddr,
        settings: EdgeSettings,
        tally: Arc<HttpTally>,
    ) -> Self {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(settings.handshake)
            .max_headers(head::MAX_HEADERS)
            .max_header_size(settings.max_header)
            .max_buf_size(settings.max_header.max(8 << 10));
        let connect_rate = Arc::new(ConnectRate::new(settings.connect_rate.0, settings.connect_rate.1));
        Edge { reception, router, http, address, connect_rate, tally, settings }
    }

    /// How fast one address may connect, which may change while it serves.
    pub fn connect_rate(&self) -> &Arc<ConnectRate> {
        &self.connect_rate
    }

    /// Serves until `stop` is ready; then accepts nothing more, and returns when the last request is answered or its
    /// grace is over. Connections that were given away are not its business.
    ///
    /// # Errors
    /// When the runtime cannot watch the listener.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) -> io::Result<()> {
        #[expect(
            deprecated,
            reason = "its replacement is unsafe for the sake of types that change their descriptor, which a listener does not"
        )]
        let listener = AsyncFd::new(mio::net::TcpListener::from_std(listener))?;
        let (stopping, stopped) = watch::channel(false);
        let handshakes = Arc::new(Semaphore::new(self.settings.handshakes));
        let all = u32::try_from(self.settings.handshakes).unwrap_or(u32::MAX);
        let edge = Arc::new(self);
        tokio::select! {
            () = stop => {}
            () = listener::accept(&edge, &listener, &handshakes, &stopped) => {}
        }
        drop(listener);
        // Nobody listens any more when the last socket is gone.
        let _ = stopping.send(true);
        let _ = tokio::time::timeout(GRACE, handshakes.acquire_many(all)).await;
        Ok(())
    }
}
