//! [`Endpoint`]: what a program makes of requests for a WebSocket.

use std::net::SocketAddr;
use std::pin::Pin;

use tieline_switchboard::{Application, Format};
use tieline_websocket::Upgrade;

use super::head::Head;
use super::refusal::Refusal;

/// A request for a WebSocket whose form was found valid: method, version, `Host` and the headers of RFC 6455.
pub struct Asked<'a> {
    /// The request itself.
    pub head: &'a Head<'a>,
    /// What the handshake itself says.
    pub upgrade: &'a Upgrade<'a>,
    /// The `Host` header.
    pub host: &'a str,
    /// The other end of the socket, or whom the balancer at that end connects for.
    pub peer: SocketAddr,
    /// Whether a balancer stands between; then nothing that is known of the socket makes the client local.
    pub is_forwarded: bool,
    /// The address the listener was bound to.
    pub listener: SocketAddr,
}

/// The answer to a request that is granted.
#[derive(Debug)]
pub struct Welcome<T> {
    /// The subprotocol, one of those offered.
    pub protocol: Option<&'static str>,
    /// The shard that must have the connection; any when it is none.
    pub shard: Option<u16>,
    /// What frames to the client look like, without compression: the edge adds what is agreed on.
    pub format: Format,
    /// What the application is told.
    pub arrival: T,
}

/// A welcome that somebody has yet to decide on.
pub type Pending<T> = Pin<Box<dyn Future<Output = Result<Welcome<T>, Refusal>> + Send>>;

/// What becomes of a request that is not refused at once.
pub enum Verdict<T> {
    /// It is granted.
    Granted(Welcome<T>),
    /// It is decided on elsewhere, within a limited time.
    Pending(Pending<T>),
}

/// What a program makes of requests for a WebSocket.
pub trait Endpoint: Send + Sync + 'static {
    /// Who gets the connections.
    type Application: Application;

    /// Whether requests for a path are for a WebSocket. Others go to the router.
    fn owns(&self, path: &str) -> bool;

    /// Decides on a request. Called on the runtime's threads for every connection: it must not wait.
    ///
    /// # Errors
    /// The refusal is sent as the answer, and no upgrade takes place.
    fn receive(
        &self,
        asked: &Asked<'_>,
    ) -> Result<Verdict<<Self::Application as Application>::Arrival>, Refusal>;
}
