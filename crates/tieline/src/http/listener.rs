//! The listening socket: how it is bound, and the loop that accepts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use super::Edge;
use super::endpoint::Endpoint;
use super::exchange;

/// How long accepting rests when the system has no descriptor left: a socket has to be closed first.
const REST: Duration = Duration::from_millis(100);

/// Binds a listener. `backlog` connections may wait to be accepted; the system may allow fewer.
///
/// # Errors
/// When the address is not this machine's, or taken.
pub fn bind(address: SocketAddr, backlog: u32) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // A restarted node must not wait for the sockets of its former self to be forgotten.
    socket.set_reuse_address(true)?;
    // Accepted sockets inherit it, which saves a system call for each.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    TcpListener::from_std(socket.into())
}

/// Accepts sockets for ever, each into a task of its own. Those above the limit wait in the kernel's queue.
pub(super) async fn accept<E: Endpoint>(
    edge: &Arc<Edge<E>>,
    listener: &TcpListener,
    handshakes: &Arc<Semaphore>,
    stopped: &watch::Receiver<bool>,
) {
    let mut failing = false;
    loop {
        let Ok(permit) = Arc::clone(handshakes).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                failing = false;
                edge.tally.accepted.fetch_add(1, Ordering::Relaxed);
                let (edge, stopped) = (Arc::clone(edge), stopped.clone());
                tokio::spawn(async move {
                    exchange::converse(edge, stream, peer, stopped).await;
                    drop(permit);
                });
            }
            // The client was gone before it was accepted.
            Err(error) if is_of_client(&error) => {}
            Err(error) => {
                if !failing {
                    tracing::error!(%error, "Connections cannot be accepted; is the limit of open files too low?");
                }
                failing = true;
                tokio::time::sleep(REST).await;
            }
        }
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}
