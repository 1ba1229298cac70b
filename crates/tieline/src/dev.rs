//! `tieline dev`: a whole cluster on one machine, in one process, to try things on.
//!
//! The nodes are those of `serve`, each with listeners, shards and a broker of its own; nothing is shared but the
//! process. They listen on loopback, so clients need no token.

use std::net::{Ipv4Addr, SocketAddr};

use clap::{Args, value_parser};
use tieline_proto::NodeName;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::Failure;
use crate::config::{Broker, Settings};
use crate::serve::{self, Addresses};

/// What `tieline dev` is told.
#[derive(Clone, Debug, Args)]
pub struct DevArgs {
    /// Nodes to run
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(1..=16))]
    pub nodes: u16,
    /// Port of the first node's clients; the others take the ports behind it. 0 for any free ones
    #[arg(long, value_name = "PORT", default_value_t = 7800)]
    pub port: u16,
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
        let settings = settings(args, number, name.clone(), seeds);
        running.spawn(async move {
            let told = move |addresses| {
                // Nobody waits for it only when the program stops already.
                let _ = started.try_send(addresses);
                Ok(())
            };
            let stop = async {
                let _ = stopped.wait_for(|stopped| *stopped).await;
            };
            serve::serve(settings, told, stop).await
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

fn settings(args: &DevArgs, number: u16, name: NodeName, seeds: Vec<String>) -> Settings {
    let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut settings = Settings::default();
    let server = &mut settings.server;
    server.listen = loopback(if args.port == 0 { 0 } else { args.port.saturating_add(number) });
    server.peer_listen = Some(loopback(0));
    server.node = Some(name);
    server.broker = Broker::Mesh(seeds);
    // Several nodes share this machine's processors.
    server.shards = 1;
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
