//! The listening socket: how it is bound, and the loop that accepts.
//!
//! Most sockets are done with right here. The kernel hands them over with their first bytes, so a request for a WebSocket is read
//! at once, judged, answered, and the socket given to its shard, without a task, a timer or a registration with the runtime.
//! Only where the request is not whole, or is another one, does hyper get the socket, and the bytes that were read.

use std::io::{self, ErrorKind, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::Edge;
use super::exchange;
use super::grant;
use super::head::Head;
use super::preface::Preface;
use super::proxy_protocol::{self, HeaderError};
use super::reception::{Judgement, Reception};
use super::refusal::Refusal;

/// How long accepting rests when the system has no descriptor left: a socket has to be closed first.
const REST: Duration = Duration::from_millis(100);

/// How long the kernel keeps a silent socket back. The time for its request begins after that.
#[cfg(target_os = "linux")]
const DEFER_SECONDS: libc::c_int = 1;

/// Sockets that are accepted in a row before other tasks of the runtime get their turn.
const TURN: u32 = 64;

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
    defer_accept(&socket);
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Accepts sockets for ever. Those above the limit wait in the kernel's queue.
pub(super) async fn accept<R: Reception>(
    edge: &Arc<Edge<R>>,
    listener: &AsyncFd<mio::net::TcpListener>,
    handshakes: &Arc<Semaphore>,
    stopped: &watch::Receiver<bool>,
) {
    let mut buffer = vec![0; edge.settings.max_header];
    let (mut failing, mut turn) = (false, 0);
    loop {
        let Ok(permit) = Arc::clone(handshakes).acquire_owned().await else { return };
        match accept_one(listener).await {
            Ok((stream, peer)) => {
                failing = false;
                edge.tally.accepted.fetch_add(1, Ordering::Relaxed);
                greet(edge, stream, peer, &mut buffer, permit, stopped);
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
        turn += 1;
        if turn % TURN == 0 {
            tokio::task::yield_now().await;
        }
    }
}

/// Accepts a socket that does not block, which mio asks for in the same system call.
async fn accept_one(listener: &AsyncFd<mio::net::TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    loop {
        let mut ready = listener.readable().await?;
        // Not ready after all means that somebody else's readiness was seen, or the client left.
        if let Ok(result) = ready.try_io(|listener| listener.get_ref().accept()) {
            return result.map(|(stream, peer)| (TcpStream::from(OwnedFd::from(stream)), peer));
        }
    }
}

/// Reads what a new socket has sent already, and grants it if that is a request for a WebSocket. Everything else is for a task of
/// its own, which holds the permit.
fn greet<R: Reception>(
    edge: &Arc<Edge<R>>,
    mut stream: TcpStream,
    mut peer: SocketAddr,
    buffer: &mut [u8],
    permit: OwnedSemaphorePermit,
    stopped: &watch::Receiver<bool>,
) {
    let mut early = match stream.read(buffer) {
        Ok(0) => return,
        Ok(read) => &buffer[..read],
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => &[],
        Err(_) => return,
    };
    if edge.settings.proxy_protocol {
        match proxy_protocol::parse(early) {
            Ok(Some(header)) => {
                peer = header.source.unwrap_or(peer);
                early = &early[header.length..];
            }
            Ok(None) => return await_header(edge, stream, peer, early.to_vec(), permit, stopped.clone()),
            Err(error) => return refuse_header(edge, peer, error),
        }
    }
    let request = Head::parse(early).filter(|(head, _)| edge.reception.owns(head));
    let refusal = match request {
        Some((head, length)) => match grant::judge(edge, &head, peer) {
            Ok(Judgement::Granted(granted)) => {
                return grant::hand_over(edge, granted, stream, early[length..].to_vec());
            }
            Ok(Judgement::Pending(pending)) => {
                let (edge, early) = (Arc::clone(edge), early[length..].to_vec());
                tokio::spawn(async move {
                    match pending.await {
                        Ok(granted) => grant::hand_over(&edge, granted, stream, early),
                        Err(refusal) => refuse(&edge, stream, peer, &refusal).await,
                    }
                    drop(permit);
                });
                return;
            }
            Err(refusal) => Some(refusal),
        },
        None => None,
    };
    if let Some(refusal) = refusal {
        let edge = Arc::clone(edge);
        tokio::spawn(async move {
            refuse(&edge, stream, peer, &refusal).await;
            drop(permit);
        });
        return;
    }
    let stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::error!(%error, "A socket could not be given to the runtime."),
    };
    let (edge, early, stopped) = (Arc::clone(edge), early.to_vec(), stopped.clone());
    tokio::spawn(async move {
        exchange::converse(edge, stream, early, peer, stopped).await;
        drop(permit);
    });
}

/// Answers a request that is refused.
async fn refuse<R: Reception>(
    edge: &Edge<R>,
    stream: std::net::TcpStream,
    peer: SocketAddr,
    refusal: &Refusal,
) {
    exchange::note(edge, peer, refusal);
    match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => exchange::linger(stream, &refusal.to_bytes()).await,
        Err(error) => tracing::error!(%error, "A socket could not be given to the runtime."),
    }
}

/// Waits for the rest of a balancer's header, and for what the client then asks. The header has as much time as a request's head.
fn await_header<R: Reception>(
    edge: &Arc<Edge<R>>,
    stream: TcpStream,
    peer: SocketAddr,
    early: Vec<u8>,
    permit: OwnedSemaphorePermit,
    mut stopped: watch::Receiver<bool>,
) {
    let mut stream = match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::error!(%error, "A socket could not be given to the runtime."),
    };
    let edge = Arc::clone(edge);
    tokio::spawn(async move {
        let preface = tokio::select! {
            preface = Preface::read(&mut stream, early, edge.settings.handshake) => preface,
            // Nobody has asked for anything yet.
            _ = stopped.wait_for(|stopped| *stopped) => return,
        };
        match preface {
            Ok(Some(Preface { source, early })) => {
                exchange::converse(edge, stream, early, source.unwrap_or(peer), stopped).await;
            }
            Ok(None) => {}
            Err(error) => refuse_header(&edge, peer, error),
        }
        drop(permit);
    });
}

/// Counts a connection that is closed at its first bytes. The first one for each reason is told to the operator, whose balancer
/// may be set up otherwise than the node; its address is the socket's own.
fn refuse_header<R: Reception>(edge: &Edge<R>, peer: SocketAddr, error: HeaderError) {
    if edge.tally.count_header(error) {
        tracing::warn!(%peer, "A connection was closed: {error}. Others like it are counted, and not logged.");
    }
}

fn is_of_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
    )
}

/// Asks the kernel to keep a socket back until its first bytes are there. Without it the accepting thread is faster than most
/// clients: their requests come a moment too late, and each costs a registration, a task and a wake-up. A client that says
/// nothing is handed over all the same, when the time is up.
///
/// Measured over loopback, processor time for connect, upgrade and verified token: 44 µs with it, 64 µs without it (the plain
/// epoll loop of `tieline bench connect --floor`: 25 µs).
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "no crate of ours sets this option; what it saves stands above")]
fn defer_accept(socket: &Socket) {
    let seconds: libc::c_int = DEFER_SECONDS;
    let length = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` lives, and the kernel reads `length` bytes of `seconds` before it returns.
    let result = unsafe {
        let value = (&raw const seconds).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length)
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        tracing::debug!(%error, "Connections are accepted before their requests are there.");
    }
}

/// Other systems know no such option.
#[cfg(not(target_os = "linux"))]
fn defer_accept(_: &Socket) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shards rely on it.
    #[tokio::test]
    async fn an_accepted_socket_neither_blocks_nor_waits_for_acknowledgements() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)), 16).unwrap();
        let client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        std::io::Write::write_all(&mut &client, b"GET").unwrap();
        #[expect(deprecated, reason = "as in the edge")]
        let listener = AsyncFd::new(mio::net::TcpListener::from_std(listener)).unwrap();
        let (mut stream, peer) = accept_one(&listener).await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        assert!(stream.nodelay().unwrap());
        let mut bytes = [0; 4];
        assert_eq!(stream.read(&mut bytes).unwrap(), 3);
        assert_eq!(stream.read(&mut bytes).unwrap_err().kind(), ErrorKind::WouldBlock);
    }
}
