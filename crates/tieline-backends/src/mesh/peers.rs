//! The table of links: at most one per peer, and the rule by which two links between the same nodes become one.
//!
//! **One link per pair**, not one per direction: half the sockets and tasks, and a peer that can be heard can be
//! answered, so `reachable` is the same statement on both sides. The price is that two nodes that dial each other at the same moment
//! must agree on one link. If each side decided by itself, envelopes would be lost that one of them had taken on the link
//! that the other dropped. So only one decides, the node with the smaller incarnation: it claims the first link that
//! is authenticated, says so by the link word, and refuses any other; nothing but the handshake has been sent on those.
//! Neither side sends an envelope before that word.
//!
//! A link that broke may still look alive at the node that decides. It numbers its links, and the other tells it the number
//! of the last one it has lost: that link, and no newer one whose word may be on its way, gives way to the new one.
//!
//! Tested by the mesh's tests, which dial both ways at once many times and count envelopes.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tieline_proto::Incarnation;
use tokio::sync::watch;

use super::link::Link;

/// For how many dead incarnations the last link's number is kept. Past it all are forgotten, which costs a peer that comes
/// back the wait until its old link is found silent.
const MAX_LOST: usize = 4096;

/// Why a link is not the one.
#[derive(Debug)]
pub(super) enum NotClaimed {
    /// There is another.
    Duplicate,
    /// The mesh stops.
    Stopping,
}

#[derive(Default)]
struct Table {
    /// The one link to each peer, from its claim until its end was told.
    links: HashMap<Incarnation, Arc<Link>>,
    /// The numbers of links that are over.
    lost: HashMap<Incarnation, u64>,
    /// Nothing is claimed any more.
    closed: bool,
}

/// All links.
pub(super) struct Peers {
    table: RwLock<Table>,
    /// Changes whenever a link came or went.
    changed: watch::Sender<()>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Peers { table: RwLock::default(), changed: watch::Sender::new(()) }
    }

    fn read(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this the link to its peer. Another one with a number up to `replaces` is stopped first, and its end waited
    /// for: whoever listens hears the end of the old link before the beginning of the new one.
    pub(super) async fn claim(&self, link: &Arc<Link>, replaces: u64) -> Result<(), NotClaimed> {
        let mut changed = self.changed.subscribe();
        loop {
            {
                let mut table = self.write();
                if table.closed {
                    return Err(NotClaimed::Stopping);
                }
                match table.links.get(&link.node.incarnation) {
                    None => {
                        let before =
                            |old: &&Arc<Link>| old.address == link.address && old.node.name == link.node.name;
                        // The same node at the same place, started again.
                        table.links.values().filter(before).for_each(|old| old.stop());
                        table.links.insert(link.node.incarnation, Arc::clone(link));
                        break;
                    }
                    Some(old) if old.number > replaces => return Err(NotClaimed::Duplicate),
                    Some(old) => old.stop(),
                }
            }
            if changed.changed().await.is_err() {
                return Err(NotClaimed::Stopping);
            }
        }
        self.changed.send_replace(());
        Ok(())
    }

    /// Forgets a link whose end was told.
    pub(super) fn release(&self, link: &Link) {
        {
            let mut table = self.write();
            table.links.remove(&link.node.incarnation);
            if table.lost.len() >= MAX_LOST {
                table.lost.clear();
            }
            table.lost.insert(link.node.incarnation, link.number);
        }
        self.changed.send_replace(());
    }

    /// The number of the last link to this peer that is over.
    pub(super) fn lost(&self, peer: Incarnation) -> u64 {
        self.read().lost.get(&peer).copied().unwrap_or(0)
    }

    /// The link to this peer.
    pub(super) fn get(&self, peer: Incarnation) -> Option<Arc<Link>> {
        self.read().links.get(&peer).cloned()
    }

    /// Does something with each link. The table is read meanwhile, so it must be quick.
    pub(super) fn each(&self, mut visit: impl FnMut(&Arc<Link>)) {
        self.read().links.values().for_each(&mut visit);
    }

    /// Claims nothing more.
    pub(super) fn close(&self) {
        self.write().closed = true;
        self.changed.send_replace(());
    }

    /// Waits until there is no link to this peer, and says whether there was one.
    pub(super) async fn gone(&self, peer: Incarnation) -> bool {
        let mut changed = self.changed.subscribe();
        let mut waited = false;
        while self.read().links.contains_key(&peer) {
            waited = true;
            if changed.changed().await.is_err() {
                break;
            }
        }
        waited
    }

    /// Waits until there is no link at all.
    pub(super) async fn all_gone(&self) {
        let mut changed = self.changed.subscribe();
        while !self.read().links.is_empty() {
            if changed.changed().await.is_err() {
                break;
            }
        }
    }
}
