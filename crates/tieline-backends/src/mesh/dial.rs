//! Dialling: one task per address, seeds for ever, members that others told of until they were out of reach for a while.
//!
//! A task that knows who lives at its address rests while there is a link to that node, whoever dialled it. Pauses grow
//! by doubling, with full jitter, so that nodes that lost each other at the same moment do not meet at the same moment for
//! ever. Tested by the mesh's tests.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tieline_proto::Incarnation;
use tieline_websocket::Role;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

use super::handshake::{Failure, shake};
use super::listener::may_link;
use super::proof::Side;
use super::refusal::Refusal;
use super::wire::Wire;
use super::{Mesh, link, upgrade};
use crate::pause::pause;

/// The most addresses that are dialled. More members than this are dialled by others, or not at all.
const MAX_TARGETS: usize = 1024;

/// Where an address is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// From the settings: dialled for ever.
    Seed,
    /// From a peer: dialled until it was unreachable for a while.
    Learned(Incarnation),
}

/// The addresses that have a task.
#[derive(Default)]
pub(super) struct Targets(Mutex<HashSet<String>>);

impl Targets {
    fn with<T>(&self, change: impl FnOnce(&mut HashSet<String>) -> T) -> T {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether this address is dialled.
    #[cfg(test)]
    pub(super) fn has(&self, address: &str) -> bool {
        self.with(|targets| targets.contains(address))
    }
}

/// Dials `address` from now on, unless it is dialled already.
pub(super) fn want(mesh: &Arc<Mesh>, address: &str, wish: Wish) {
    let is_new = mesh.targets.with(|targets| {
        (wish == Wish::Seed || targets.len() < MAX_TARGETS) && targets.insert(address.to_owned())
    });
    if is_new {
        let mesh = Arc::clone(mesh);
        let address = address.to_owned();
        mesh.clone().tasks.seek(async move {
            pursue(&mesh, &address, wish).await;
            mesh.targets.with(|targets| targets.remove(&address));
        });
    }
}

/// Dials until there is no reason to.
async fn pursue(mesh: &Arc<Mesh>, address: &str, wish: Wish) {
    let mut lives_there = match wish {
        Wish::Seed => None,
        Wish::Learned(incarnation) => Some(incarnation),
    };
    let mut itself = Vec::new();
    let mut failures = 0;
    let mut is_first = true;
    let mut unreached = Instant::now();
    loop {
        if let Some(node) = lives_there
            && mesh.peers.gone(node).await
        {
            failures = 0;
            unreached = Instant::now();
        }
        if !std::mem::take(&mut is_first) {
            sleep(pause(mesh.settings.redial_min, mesh.settings.redial_max, failures)).await;
        }
        if let Some(node) = lives_there
            && mesh.peers.get(node).is_some()
        {
            // It dialled us meanwhile.
            continue;
        }
        failures += 1;
        let Some(socket) = resolve(address, &itself, failures).await else {
            if itself.iter().any(|own: &SocketAddr| own.to_string() == address) {
                return;
            }
            continue;
        };
        let mut met = None;
        match dial(mesh, address, socket, &mut met).await {
            Ok(())
            | Err(Failure::Refuse(Refusal::Duplicate) | Failure::Refused(Some(Refusal::Duplicate))) => {}
            Err(Failure::Refuse(Refusal::Itself) | Failure::Refused(Some(Refusal::Itself))) => {
                itself.push(socket);
                met = None;
            }
            Err(error) => {
                tracing::debug!(address, %error, "peer is not reached");
                met = None;
            }
        }
        if let Some(node) = met {
            lives_there = Some(node);
        }
        if wish != Wish::Seed && unreached.elapsed() >= mesh.settings.forget {
            tracing::info!(address, "a member was out of reach for too long and is dialled no more");
            return;
        }
    }
}

/// One of the addresses behind a name that are not this node itself, another one at each attempt.
async fn resolve(address: &str, itself: &[SocketAddr], attempt: u32) -> Option<SocketAddr> {
    let found: Vec<_> = lookup_host(address).await.ok()?.filter(|found| !itself.contains(found)).collect();
    found.get(attempt as usize % found.len().max(1)).copied()
}

/// Connects, shakes hands, and leaves the link to its own task.
async fn dial(
    mesh: &Arc<Mesh>,
    address: &str,
    socket: SocketAddr,
    met: &mut Option<Incarnation>,
) -> Result<(), Failure> {
    if !may_link(mesh.settings.secret.is_some(), socket.ip()) {
        mesh.refused(Refusal::NotLoopback, address);
        return Err(Failure::Refuse(Refusal::NotLoopback));
    }
    let deadline = Instant::now() + mesh.settings.handshake;
    let Ok(stream) = timeout(mesh.settings.handshake, TcpStream::connect(socket)).await else {
        return Err(Failure::Io(std::io::ErrorKind::TimedOut.into()));
    };
    let stream = stream?;
    // Without it batches are only later, not wrong.
    drop(stream.set_nodelay(true));
    let mut wire = Wire::new(stream, Role::Client);
    let mut node = None;
    let shaken = tokio::time::timeout_at(deadline, async {
        upgrade::ask(&mut wire, address).await?;
        shake(mesh, &mut wire, Side::Dialler, &mut node).await
    });
    let shaken = shaken.await.unwrap_or(Err(Failure::Refuse(Refusal::Slow)));
    *met = node.map(|node| node.incarnation);
    match shaken {
        Ok(shaken) => {
            mesh.tasks.link(link::run(Arc::clone(mesh), shaken, wire));
            Ok(())
        }
        Err(Failure::Refuse(refusal)) => {
            mesh.refused(refusal, address);
            wire.refuse(refusal).await;
            Err(Failure::Refuse(refusal))
        }
        Err(Failure::Refused(Some(refusal))) => {
            mesh.refused(refusal, address);
            Err(Failure::Refused(Some(refusal)))
        }
        Err(other) => Err(other),
    }
}
