//! [`Reception`]: who decides on requests for a WebSocket, and takes their sockets.

use std::io;
use std::net::TcpStream;
use std::pin::Pin;

use super::endpoint::Asked;
use super::head::Head;
use super::refusal::Refusal;

/// A decision that takes its time.
pub type Deciding<T> = Pin<Box<dyn Future<Output = Result<T, Refusal>> + Send>>;

/// What becomes of a request that is not refused at once.
pub enum Judgement<T> {
    /// It is granted.
    Granted(T),
    /// It is decided on elsewhere, within a limited time.
    Pending(Deciding<T>),
}

/// Who decides on requests for a WebSocket, and takes their sockets.
pub trait Reception: Send + Sync + 'static {
    /// What is kept of a request that is granted, until its socket can be taken.
    type Granted: Send + 'static;

    /// Whether a request is for a WebSocket. Others go to the router.
    fn owns(&self, head: &Head<'_>) -> bool;

    /// Connections that are open, for the limit of their number.
    fn connections(&self) -> u64;

    /// Decides on a request. Called on the runtime's threads for every connection: it must not wait.
    ///
    /// # Errors
    /// The refusal is sent as the answer.
    fn judge(&self, asked: &Asked<'_>) -> Result<Judgement<Self::Granted>, Refusal>;

    /// Takes a socket, with the bytes that were read behind the request. Nothing was answered yet.
    ///
    /// # Errors
    /// When there is nobody to give it to; it is closed.
    fn take(&self, granted: Self::Granted, stream: TcpStream, leftover: Vec<u8>) -> io::Result<()>;
}
