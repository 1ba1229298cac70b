//! ZooKeeper as the registry: each node is an ephemeral node of the server's tree, `PATH/CLUSTER/NAME-INCARNATION`, with its
//! words as data.
//!
//! The server ends a node with its session, one lease after its last sign of life. Who comes and who goes is told by a one-shot
//! watch of the folder's children; that somebody's words have changed, by one of the folder's own data, which whoever changes
//! his words writes anew. So each reader has two watches, however many nodes there are. Numbers of connections are no reason to
//! wake everybody: they are read once in a while.
//!
//! The library connects again, keeps the session meanwhile, and sets one-shot watches again (persistent ones it loses). What it
//! leaves to us: an expired session is over, so there is a new one, in which the node registers again as itself; after an outage
//! it waits ever longer, so a connection that is not back soon is given up for a new one; and nothing has a limit of time.
//!
//! Tested against a real server by the suite of registries and by `tests.rs`.

mod address;
mod session;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tieline_core::registry::{Done, HOLD, Registration, Registry, SharedView};
use tieline_proto::NodeId;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

pub use address::ZooKeeperAddress;

use super::board::Board;
use crate::pause::pause;
use session::{Folder, Session};

/// The most bytes of a cluster's name.
const MAX_CLUSTER: usize = 256;

/// The bounds of the pauses before connecting again.
const RETRY: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// Why a registry on ZooKeeper does not start.
#[derive(Debug, thiserror::Error)]
pub enum ZooKeeperError {
    /// The URL is none of an ensemble. It is not repeated, because there may be a password in it.
    #[error("the address of a ZooKeeper ensemble is `zookeeper://[USER:PASSWORD@]HOST[:PORT],…[/PATH]`: {0}")]
    Url(&'static str),
    /// The cluster's name is empty, or too long.
    #[error("a cluster's name has 1 to {MAX_CLUSTER} bytes")]
    Cluster,
    /// No server is there, or it refuses this node.
    #[error("cannot use ZooKeeper at {servers}: {trouble}")]
    Server {
        /// All that were tried.
        servers: String,
        /// What the library said.
        trouble: zookeeper_client::Error,
    },
}

/// How a node uses ZooKeeper.
#[derive(Clone, Debug)]
pub struct ZooKeeperSettings {
    /// The cluster's name, which is in the path of its nodes.
    pub cluster: String,
    /// Where the servers are.
    pub address: ZooKeeperAddress,
    /// How long a node that says nothing is believed to live. The servers may allow only a longer or a shorter time.
    pub lease: Duration,
    /// How often connections are counted anew, and read. A third of the lease at most.
    pub refresh: Duration,
    /// How long nobody is dropped after an outage.
    pub hold: Duration,
    /// How long connecting, or one request, may take.
    pub limit: Duration,
}

impl ZooKeeperSettings {
    /// The defaults.
    pub fn new(cluster: &str, address: ZooKeeperAddress) -> Self {
        ZooKeeperSettings {
            cluster: cluster.to_owned(),
            address,
            lease: Duration::from_secs(15),
            refresh: Duration::from_secs(5),
            hold: HOLD,
            limit: Duration::from_secs(5),
        }
    }
}

/// A registry on ZooKeeper. It ends when it is dropped, and its node with its lease.
pub struct ZooKeeperRegistry {
    board: Arc<Board>,
    task: JoinHandle<()>,
}

impl ZooKeeperRegistry {
    /// Connects and looks. `me` is the node that is going to register, none for one that only looks.
    ///
    /// # Errors
    /// When the settings are wrong, or no server is there or serves this node, at the latest after twice
    /// [`ZooKeeperSettings::limit`].
    pub async fn start(settings: ZooKeeperSettings, me: Option<NodeId>) -> Result<Self, ZooKeeperError> {
        if settings.cluster.is_empty() || settings.cluster.len() > MAX_CLUSTER {
            return Err(ZooKeeperError::Cluster);
        }
        let board = Board::new("ZooKeeper", &settings.cluster, me, settings.hold);
        let folder = Arc::new(Folder::new(&settings.address, &settings.cluster));
        let first = Session::open(&settings, &folder, &board).await;
        let first = first
            .map_err(|trouble| ZooKeeperError::Server { servers: settings.address.servers(), trouble })?;
        let task = tokio::spawn(keep(Arc::clone(&board), settings, folder, first));
        Ok(ZooKeeperRegistry { board, task })
    }
}

impl Registry for ZooKeeperRegistry {
    fn register(&self, registration: Registration) {
        self.board.say(registration);
    }

    fn deregister(&self) -> Done {
        self.board.leave()
    }

    fn view(&self) -> watch::Receiver<SharedView> {
        self.board.view()
    }
}

impl Drop for ZooKeeperRegistry {
    fn drop(&mut self) {
        // Who has begun to leave is let go in peace.
        if self.board.life.is_running() {
            self.task.abort();
        }
    }
}

/// Keeps sessions, one after the other, until the registry ends.
async fn keep(board: Arc<Board>, settings: ZooKeeperSettings, folder: Arc<Folder>, first: Session) {
    let mut first = Some(first);
    let mut failures = 0;
    while board.life.is_running() {
        let opened = match first.take() {
            Some(session) => Ok(session),
            None => Session::open(&settings, &folder, &board).await,
        };
        let trouble = match opened {
            Ok(mut session) => {
                let trouble = tokio::select! {
                    trouble = session.serve() => trouble,
                    () = board.life.stopping() => {
                        session.leave().await;
                        break;
                    }
                };
                failures = 0;
                trouble
            }
            Err(trouble) => trouble,
        };
        board.away(&trouble);
        tokio::select! {
            () = sleep(pause(RETRY.0, RETRY.1, failures)) => {}
            () = board.life.stopping() => {}
        }
        failures += 1;
    }
    board.life.end();
}
