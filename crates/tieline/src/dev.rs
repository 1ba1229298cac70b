//! `tieline dev`: a whole cluster on one machine, in one process, to try things on.
//!
//! The nodes are those of `serve`, each with listeners, shards and a broker of its own; nothing is shared but the
//! process, and the file in which messages are kept. They listen on loopback, so clients need no token. Tested in
//! `tests/program/dev.rs`.

use std::convert::Infallible;
use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, value_parser};
use tieline_core::store::Retention;
use tieline_proto::NodeName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::Failure;
use crate::broker::BrokerUrl;
use crate::config::{GroupTable, History, Inbox, Members, Settings, Size, SlowConsumer};
use crate::serve::{self, Addresses};
use crate::store::{StoreUrl, StoreUrlError};

/// What the pages of the demo tell each other, every few seconds: of no use a moment later.
const LIVE: &str = "demo:*";

/// What is kept of each group and each user: an hour of trying things, and no more.
const KEPT: Retention = Retention { count: 1000, bytes: 1 << 20, age: Duration::from_secs(3600) };

/// What `tieline dev` is told.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Nodes to run
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Port of the first node's clients; the others take the ports behind it. 0 for any free ones
    #[arg(long, value_name = "PORT", default_value_t = 7800)]
    pub port: u16,
    /// Where messages are kept. Without it in a file that is gone when the program ends
    // A wrong one is refused by the command: clap would repeat it, with its password.
    #[arg(long, value_name = "URL", value_parser = |text: &str| Ok::<_, Infallible>(text.parse::<StoreUrl>()))]
    pub store: Option<Result<StoreUrl, StoreUrlError>>,
}

/// A folder that is gone when this is dropped, with everything in it.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    /// Makes one that nobody else of this machine may look into.
    fn make() -> io::Result<Folder> {
        let path = std::env::temp_dir().join(format!("tieline-dev-{}", std::process::id()));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), %error, "A folder stays behind.");
        }
    }
}

/// Runs the nodes until `stop` is ready, or one of them fails. `ready` is told the addresses of each when all of
/// them can be reached.
///
/// # Errors
/// The first failure of a node.
pub async fn run(
    args: &DevArgs,
    ready: impl FnOnce(&[(NodeName, Addresses)]) -> std::io::Result<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    // Held until every node has closed the file.
    let mut folder = None;
    let store = match args.store.clone() {
        Some(url) => url.map_err(Failure::DevStore)?,
        None => {
            let made = folder.insert(Folder::make().map_err(Failure::Folder)?);
            StoreUrl::Sqlite(made.0.join("store.db"))
        }
    };
    let (stopping, stopped) = watch::channel(false);
    let mut running = JoinSet::new();
    let mut nodes: Vec<(NodeName, Addresses)> = Vec::new();
    let mut failed = Ok(());
    for number in 0..args.nodes {
        let name =
            NodeName::new(&format!("node-{}", number + 1)).expect("letters, a dash and digits are a name");
        let seeds = nodes.iter().filter_map(|(_, node)| node.peers).map(|peers| peers.to_string()).collect();
        let (started, mut starting) = mpsc::channel(1);
        let mut stopped = stopped.clone();
        let settings = settings(args, number, name.clone(), seeds, store.clone());
        running.spawn(async move {
            let told = move |addresses| {
                // Nobody waits for it only when the program stops already.
                let _ = started.try_send(addresses);
                Ok(())
            };
            let stop = async {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            serve::serve(settings, None, told, stop, std::future::ready(())).await
        });
        match starting.recv().await {
            Some(addresses) => nodes.push((name, addresses)),
            None => {
                failed = joined(running.join_next().await);
                break;
            }
        }
    }
    if failed.is_ok() {
        failed = ready(&nodes).map_err(Failure::Output);
    }
    if failed.is_ok() {
        tokio::select! {
            () = stop => {}
            ended = running.join_next() => failed = joined(ended),
        }
    }
    let _ = stopping.send(true);
    while let Some(ended) = running.join_next().await {
        failed = failed.and(joined(Some(ended)));
    }
    failed
}

fn settings(args: &DevArgs, number: u16, name: NodeName, seeds: Vec<String>, store: StoreUrl) -> Settings {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut settings = Settings::default();
    let server = &mut settings.server;
    server.listen = loopback(if args.port == 0 { 0 } else { args.port.saturating_add(number) });
    server.peer_listen = Some(loopback(0));
    server.node = Some(name);
    server.broker = BrokerUrl::Mesh(seeds);
    server.store = Some(store);
    // Several nodes share this machine's processors.
    server.shards = 1;
    settings.inbox = Inbox { count: KEPT.count as usize, age: KEPT.age, bytes: Size(KEPT.bytes as usize) };
    let rule = |pattern: &str, history| GroupTable {
        r#match: pattern.to_owned(),
        history,
        presence: false,
        slow_consumer: SlowConsumer::Close,
        members: Members::Connected,
    };
    settings.groups = vec![rule(LIVE, None), rule("*", Some(History(KEPT)))];
    settings
}

fn joined(ended: Option<Result<Result<(), Failure>, tokio::task::JoinError>>) -> Result<(), Failure> {
    match ended {
        Some(Ok(result)) => result,
        Some(Err(_)) => Err(Failure::Switchboard(tieline_switchboard::Error::Panicked)),
        None => Ok(()),
    }
}

/// What a person reads who wants to try the cluster.
pub fn describe(nodes: &[(NodeName, Addresses)]) -> String {
    let mut text = String::from("A cluster to try things on; Ctrl-C stops it.\n");
    for (name, Addresses { clients, peers, .. }) in nodes {
        let peers = peers.map(|peers| format!("  (peers on {peers})")).unwrap_or_default();
        text.push_str(&format!("{name}: listening on http://{clients}{peers}\n"));
    }
    if let Some((_, first)) = nodes.first() {
        text.push_str(&format!(
            "Open http://{}/ in a browser, and another node's page in a second one.\n",
            first.clients
        ));
        text.push_str(&format!(
            "Connect WebSocket clients to ws://{}/client/hubs/demo?user=alice with subprotocol tieline.v1.\n",
            first.clients
        ));
    }
    text
}
