//! Accepting peers: strangers are few at a time, and have little time and little room.
//!
//! Tested by the mesh's tests with strangers of many kinds.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tieline_websocket::Role;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::handshake::{Failure, shake};
use super::proof::Side;
use super::refusal::Refusal;
use super::wire::Wire;
use super::{Mesh, link, upgrade};

/// The most sockets that wait to be authenticated. Above it a new one is closed at once: peers come back by themselves.
pub(super) const MAX_STRANGERS: usize = 64;

/// The pause after the system could not accept, which is usually a lack of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is aborted.
pub(super) async fn listen(mesh: Arc<Mesh>, listener: TcpListener) {
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    loop {
        match listener.accept().await {
            Ok((stream, from)) => {
                let Ok(permit) = Arc::clone(&strangers).try_acquire_owned() else {
                    mesh.refused(Refusal::Crowded, &from.to_string());
                    continue;
                };
                mesh.tasks.seek(admit(Arc::clone(&mesh), stream, from, permit));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept peers now");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Whether a peer at this address may be talked to.
pub(super) fn may_link(has_secret: bool, peer: IpAddr) -> bool {
    has_secret || peer.to_canonical().is_loopback()
}

/// Finds out who connected, and runs the link if it is a peer.
async fn admit(mesh: Arc<Mesh>, stream: TcpStream, from: SocketAddr, permit: OwnedSemaphorePermit) {
    // Without it batches are only later, not wrong.
    drop(stream.set_nodelay(true));
    let mut wire = Wire::new(stream, Role::Server);
    let mut met = None;
    let shaken = timeout(mesh.settings.handshake, async {
        upgrade::answer(&mut wire).await?;
        if !may_link(mesh.settings.secret.is_some(), from.ip()) {
            return Err(Failure::Refuse(Refusal::NotLoopback));
        }
        shake(&mesh, &mut wire, Side::Acceptor, &mut met).await
    });
    match shaken.await.unwrap_or(Err(Failure::Refuse(Refusal::Slow))) {
        Ok(shaken) => {
            drop(permit);
            mesh.tasks.link(link::run(Arc::clone(&mesh), shaken, wire));
        }
        Err(Failure::Refuse(refusal)) => {
            mesh.refused(refusal, &from.to_string());
            wire.refuse(refusal).await;
        }
        Err(Failure::Refused(Some(refusal))) => mesh.refused(refusal, &from.to_string()),
        Err(Failure::Refused(None) | Failure::Io(_)) => mesh.refused(Refusal::NotAPeer, &from.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_secret_only_this_machine_is_trusted() {
        for (address, is_local) in [
            ("127.0.0.1", true),
            ("127.8.9.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("0.0.0.0", false),
            ("::ffff:10.0.0.1", false),
            ("fe80::1", false),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(may_link(false, address), is_local, "{address}");
            assert!(may_link(true, address));
        }
    }
}
