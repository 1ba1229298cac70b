//! What the tests of tables share: directories of one cluster on one server, and what they are asked.

use std::pin::Pin;

use tieline_core::directory::{Beside, Choice, Directory, Fellow};
use tieline_proto::{HubName, Incarnation, NodeId, UserId};
use xtask::Engine;

use super::*;
use crate::conformance::directory::{Directories, DirectoryEngine, Opened};
use crate::conformance::private::fresh_cluster;

#[cfg(all(feature = "redis", feature = "hazelcast"))]
mod costs;

/// How one is opened: on the server of this URL, for this cluster and this node, with a lease.
type Open = fn(&str, &str, Incarnation, Duration) -> Pin<Box<dyn Future<Output = TableDirectory> + Send>>;

/// Directories of one cluster on one server.
pub(crate) struct Shelf {
    pub(crate) url: String,
    pub(crate) cluster: String,
    open: Open,
}

impl Shelf {
    fn new(server: &Engine, open: Open) -> Self {
        Shelf { url: server.url().to_owned(), cluster: fresh_cluster(), open }
    }

    #[cfg(feature = "redis")]
    pub(crate) fn redis(server: &Engine) -> Self {
        use crate::{RedisAddress, RedisDirectorySettings};
        Shelf::new(server, |url, cluster, me, lease| {
            let settings = RedisDirectorySettings {
                lease,
                refresh: (lease / 5).min(Duration::from_secs(1)),
                ..RedisDirectorySettings::new(RedisAddress::parse(url).unwrap(), cluster)
            };
            Box::pin(async move { settings.open(me).await.unwrap() })
        })
    }

    #[cfg(feature = "hazelcast")]
    pub(crate) fn hazelcast(server: &Engine) -> Self {
        use crate::{HazelcastAddress, HazelcastDirectorySettings};
        Shelf::new(server, |url, cluster, me, lease| {
            let address = HazelcastAddress::parse(url).unwrap();
            let settings =
                HazelcastDirectorySettings { lease, ..HazelcastDirectorySettings::new(address, cluster) };
            Box::pin(async move {
                // Several members on a machine that stands still for a moment are slower than a start may be: it is begun anew, as
                // whoever runs a node does.
                for _ in 0..2 {
                    match settings.clone().open(me).await {
                        Ok(directory) => return directory,
                        Err(error) => eprintln!("A directory was not opened: {error}"),
                    }
                }
                settings.open(me).await.unwrap()
            })
        })
    }

    pub(crate) async fn open_one(&self, me: u64, lease: Duration) -> TableDirectory {
        (self.open)(&self.url, &self.cluster, Incarnation(me), lease).await
    }
}

impl DirectoryEngine for TableDirectory {
    fn close(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(TableDirectory::close(self))
    }
}

impl Directories for Shelf {
    fn open(&self, me: NodeId, lease: Duration) -> Pin<Box<dyn Future<Output = Opened> + Send + '_>> {
        Box::pin(async move {
            let engine = self.open_one(me.incarnation.0, lease).await;
            Opened { choice: Choice::Asked(Arc::clone(engine.asked())), engine: Some(Box::new(engine)) }
        })
    }
}

pub(crate) fn hub() -> HubName {
    HubName::new("hub").unwrap()
}

pub(crate) fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

/// Tells a node of others that have the same directory.
pub(crate) fn meet(node: &TableDirectory, others: &[u64]) {
    let directory = node.asked().name();
    let fellows: Vec<Fellow> = others
        .iter()
        .map(|other| Fellow {
            name: format!("n{other}").into(),
            node: Incarnation(*other),
            weight: 1,
            directory: Some(directory.clone()),
        })
        .collect();
    node.asked().meet(&fellows, 1, &mut |_| {});
}

/// Waits until something is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(Duration::from_secs(30), waiting).await.is_ok(), "it never came to be so: {what}");
}

/// The nodes that one knows to hold a user, once it knows that nobody else does.
pub(crate) async fn found(node: &TableDirectory, name: &str) -> Vec<u64> {
    let mut found = node.asked().find(&hub(), name);
    until("an answer", async || {
        found = node.asked().find(&hub(), name);
        found.beside == Beside::Nobody
    })
    .await;
    found.holders.iter().map(|holder| holder.node.0).collect()
}
