//! `tieline serve`: one node, from its configuration to its end.

use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tieline_core::logs::{Engine, Logs, LogsTask};
use tieline_core::presence::PresenceTask;
use tieline_core::token::Keys;
use tieline_core::{Node, NodeSettings, Operator};
use tieline_proto::{ErrorCode, NodeName};
use tieline_switchboard::Switchboard;
use tieline_websocket::Limits as InboundLimits;
use tokio::sync::watch;

use crate::Failure;
use crate::admission::{MemberOrigins, Openness};
use crate::broker::BrokerUrl;
use crate::client::ClientEndpoint;
use crate::config::Settings;
use crate::drain;
use crate::http::{self, Asked, Edge, EdgeSettings, Endpoint, HttpTally, Refusal, Verdict};
use crate::membership::{self, Expelled, Membership};
use crate::rebalance::RebalanceTally;
use crate::reload::{Live, Reload, ReloadTally};
use crate::rest::{Rest, RestTally};
use crate::routes::{self, Station};
use crate::stop;
use crate::upstream::{Surroundings, Upstream, UpstreamTally};

/// Descriptors that the program needs beside those of connections.
const OTHER_DESCRIPTORS: u64 = 256;

/// How often the shards are looked after.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Where a node listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For clients.
    pub clients: SocketAddr,
    /// For operators.
    pub admin: Option<SocketAddr>,
    /// For other nodes.
    pub peers: Option<SocketAddr>,
}

impl Addresses {
    /// Tells whoever started the program where it listens.
    ///
    /// # Errors
    /// When the standard output is closed.
    pub fn announce(self) -> io::Result<()> {
        let mut out = io::stdout().lock();
        writeln!(out, "listening on http://{}", self.clients)?;
        if let Some(admin) = self.admin {
            writeln!(out, "operators on http://{admin}")?;
        }
        if let Some(peers) = self.peers {
            writeln!(out, "peers on {peers}")?;
        }
        out.flush()
    }
}

/// Runs a node until `stop` is ready, or somebody asks for the node to be emptied. Its settings change as `reload` reads them anew.
/// `ready` is told the addresses that were bound, when
/// clients can connect. A member of a cluster is emptied first, until `hurry` is ready.
///
/// # Errors
/// When an address cannot be bound, a key cannot be read, or a shard cannot be started or fails.
pub async fn serve(
    settings: Settings,
    reload: Option<Reload>,
    ready: impl FnOnce(Addresses) -> io::Result<()>,
    stop: impl Future<Output = ()>,
    hurry: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let keys = Arc::new(settings.keys()?);
    let (listener, address) = listen(settings.server.listen, settings.limits.backlog)?;
    let admin = settings.server.admin_listen.map(|at| listen(at, settings.limits.backlog)).transpose()?;
    raise_descriptors(settings.limits.connections as u64);

    let engine = match &settings.server.store {
        Some(url) => Some(url.open().await?),
        None => None,
    };
    let name = settings.server.node.clone().unwrap_or_else(|| default_name(address.port()));
    let (node, switchboard) = Node::start(node_settings(&settings, name, Arc::clone(&keys)))?;
    tracing::info!(node = %node.id(), %address, shards = switchboard.handle().shards(), "The node has started.");
    warn_of_exposure(&settings, &keys, address);

    let tally = Arc::new(HttpTally::default());
    let openness = Arc::new(Openness::new(&settings.server));
    let reloads: Arc<ReloadTally> = Arc::default();
    let client_url = membership::client_url(&settings.server, address);
    let members = Arc::new(MemberOrigins::new(client_url.as_deref()));
    let upstream_tally: Arc<UpstreamTally> = Arc::default();
    let station = Arc::new(Station {
        node: Arc::clone(&node),
        http: Arc::clone(&tally),
        rest: RestTally::default(),
        upstream: Arc::clone(&upstream_tally),
        rebalance: Arc::new(RebalanceTally::default()),
        demo: settings.server.demo,
        openness: Arc::clone(&openness),
        reloads: Arc::clone(&reloads),
        broker: settings.server.broker.clone(),
        client_url: client_url.clone(),
        members: Arc::clone(&members),
        registry: OnceLock::new(),
        registry_name: settings.server.registry.name(),
        has_admin: admin.is_some(),
        is_stopping: AtomicBool::new(false),
    });
    let surroundings = Surroundings {
        node: Arc::clone(&node),
        keys: Arc::clone(&keys),
        origin: membership::authority(client_url.as_deref(), address),
        max_message: settings.limits.max_message.0,
        store: engine.as_ref().map(|engine| (Arc::clone(&engine.store), Arc::clone(&engine.records))),
        tally: upstream_tally,
    };
    let logs = keep(&settings, &node, engine);
    node.share_secret().await;
    let membership = Membership::begin(&settings, &node, client_url, &members).await;
    let mut membership = match membership {
        Ok(membership) => membership,
        Err(error) => {
            end(None, logs, switchboard).await?;
            return Err(error.into());
        }
    };
    let (upstream, upstream_task) = match Upstream::start(&settings.upstream, surroundings) {
        Ok(started) => started.unzip(),
        Err(error) => {
            end(membership, logs, switchboard).await?;
            return Err(error.into());
        }
    };
    let presence = PresenceTask::start(&node);
    let addresses = Addresses {
        clients: address,
        admin: admin.as_ref().map(|(_, address)| *address),
        peers: membership.as_ref().and_then(|membership| membership.peers),
    };
    let endpoint = ClientEndpoint::new(Arc::clone(&node), Arc::clone(&openness), members, upstream);
    let edge_settings = EdgeSettings::of(&settings);
    let handle = node.handle();
    let rest = Rest::new(Arc::clone(&station), settings.limits.max_message.0);
    let public = routes::public(&station).merge(rest.router());
    let edge =
        Edge::new(endpoint, public, handle.clone(), address, edge_settings.clone(), Arc::clone(&tally));

    let live = Live {
        node: Arc::clone(&node),
        openness,
        connect_rate: Arc::clone(edge.connect_rate()),
        drain: Mutex::new(settings.times.drain),
        tally: reloads,
    };
    let (stopping, stopped) = watch::channel(false);
    let ended = wait(stopped.clone());
    let reloading = async {
        if let Some(reload) = reload {
            tokio::select! {
                () = reload.run(&live) => {}
                () = ended => {}
            }
        }
    };
    let serving = edge.serve(listener, wait(stopped.clone()));
    let operating = async {
        if let Some((listener, address)) = admin {
            let admin = routes::admin(&station);
            // Operators come by themselves.
            let edge_settings = EdgeSettings { proxy_protocol: false, ..edge_settings };
            let edge = Edge::new(NoClients, admin, handle.clone(), address, edge_settings, tally);
            edge.serve(listener, wait(stopped)).await?;
        }
        Ok(())
    };
    if let Some(membership) = &mut membership {
        station.registry.set(Arc::clone(membership.registry())).ok().expect("a node joins once");
        membership.announce(&station.rebalance);
    }
    ready(addresses).map_err(Failure::Output)?;
    let asked = async {
        tokio::select! {
            () = stop => {}
            () = node.drain_requested() => {}
        }
    };
    let ending = async {
        let lost = tokio::select! {
            () = asked => {
                drain::run(&node, live.drain(), hurry).await;
                Ok(())
            }
            () = failure(&switchboard) => {
                tracing::error!("A shard has failed; the node stops.");
                Ok(())
            }
            lost = expelled(membership.as_ref()) => {
                tracing::error!("{lost}.");
                Err(lost)
            }
        };
        station.is_stopping.store(true, Ordering::Relaxed);
        node.set_draining();
        let _ = stopping.send(true);
        lost
    };
    let (served, operated, lost, ()) = tokio::join!(serving, operating, ending, reloading);
    if let Some(presence) = presence {
        presence.stop().await;
    }
    end(membership, logs, switchboard).await?;
    if let Some(upstream) = upstream_task {
        // Now that every connection has ended, so that the application hears of it.
        upstream.stop().await;
    }
    served.and(operated).map_err(Failure::Runtime)?;
    Ok(lost?)
}

/// Leaves the cluster and closes all connections.
async fn end(
    membership: Option<Membership>,
    logs: LogsTask,
    switchboard: Switchboard<Operator>,
) -> Result<(), Failure> {
    if let Some(membership) = membership {
        membership.end().await;
    }
    logs.stop().await;
    stop::switchboard(switchboard).await
}

pub(crate) fn listen(address: SocketAddr, backlog: u32) -> Result<(TcpListener, SocketAddr), Failure> {
    let bound = http::bind(address, backlog).and_then(|listener| {
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    });
    bound.map_err(|source| Failure::Bind { address, source })
}

pub(crate) async fn wait(mut stopped: watch::Receiver<bool>) {
    // An error means that the sender is gone, which is a stop as well.
    let _ = stopped.wait_for(|stopped| *stopped).await;
}

/// Returns when a member has to give way to another node.
async fn expelled(membership: Option<&Membership>) -> Expelled {
    match membership {
        Some(membership) => membership.expelled().await,
        None => std::future::pending().await,
    }
}

/// Returns when a shard's thread has ended, which it never should.
async fn failure(switchboard: &Switchboard<Operator>) {
    let mut watch = tokio::time::interval(WATCH_EVERY);
    while !switchboard.has_failed() {
        watch.tick().await;
    }
}

/// The parts of the configuration that the node itself works with.
fn node_settings(settings: &Settings, name: NodeName, keys: Arc<Keys>) -> NodeSettings {
    let (limits, times) = (&settings.limits, &settings.times);
    let available = std::thread::available_parallelism().map_or(1, usize::from);
    let defaults = tieline_switchboard::Settings::default();
    NodeSettings {
        name,
        shards: if settings.server.shards == 0 { available } else { settings.server.shards },
        limits: settings.session_limits(),
        switchboard: tieline_switchboard::Settings {
            inbound: InboundLimits {
                max_frame: limits.max_frame.0,
                max_message: limits.max_message.0,
                max_fragments: limits.max_fragments,
            },
            max_lag: limits.slow_consumer.0,
            max_copied: limits.lag_memory.0,
            max_log: limits.log_memory.0,
            max_mailbox: limits.mailbox.0,
            ping_every: times.ping_interval,
            ping_misses: times.ping_misses,
            idle: times.idle,
            close_timeout: times.close,
            resume_window: times.recovery,
            ..defaults
        },
        keys,
        hubs: settings.hub_rules(),
        presence: settings.presence_rules(),
    }
}

/// The host's name and the port. What a node's name may not have becomes a dash.
fn default_name(port: u16) -> NodeName {
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let allowed = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let host: String = host.chars().take(100).map(allowed).collect();
    let host = if host.is_empty() { "node" } else { &host };
    NodeName::new(&format!("{host}:{port}")).expect("every character is allowed, and there are few")
}

/// Asks for as many descriptors as connections may be open, and tells when the system allows fewer.
pub(crate) fn raise_descriptors(connections: u64) {
    let wanted = connections.saturating_add(OTHER_DESCRIPTORS);
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    if soft >= wanted {
        return;
    }
    let granted = wanted.min(hard);
    match setrlimit(Resource::RLIMIT_NOFILE, granted, hard) {
        Ok(()) if granted == wanted => {}
        Ok(()) => tracing::info!(
            descriptors = granted,
            connections,
            "The system allows fewer open files than `limits.connections` would need."
        ),
        Err(error) => {
            tracing::warn!(%error, descriptors = soft, "The limit of open files could not be raised.")
        }
    }
}

/// Starts what a node needs for messages that are kept.
fn keep(settings: &Settings, node: &Arc<Node>, engine: Option<Engine>) -> LogsTask {
    let rules = settings.log_rules();
    if rules.keep_anything() && engine.is_none() {
        tracing::warn!("Messages are to be kept, and there is no `store`: they will be refused.");
    }
    Logs::start(node, rules, engine)
}

/// Tells an operator what a configuration means that may not be meant.
fn warn_of_exposure(settings: &Settings, keys: &Keys, address: SocketAddr) {
    if settings.server.allow_anonymous && !address.ip().is_loopback() {
        tracing::warn!("Everybody who can reach this address may connect without a token, as any user.");
    }
    if keys.is_empty() && !settings.server.allow_anonymous {
        if settings.server.proxy_protocol {
            tracing::warn!(
                "Nobody can connect: there is no access key, and behind a balancer nobody is local."
            );
        } else if !address.ip().is_loopback() {
            tracing::warn!(
                "Nobody can connect: there is no access key, and the address is not this machine's alone."
            );
        }
    }
    if settings.server.peer_listen.is_some() && !matches!(settings.server.broker, BrokerUrl::Mesh(_)) {
        tracing::warn!("No node will connect to `peer_listen`: the broker does not join nodes directly.");
    }
}

/// The listener for operators takes no WebSocket.
struct NoClients;

impl Endpoint for NoClients {
    type Application = Operator;

    fn owns(&self, _: &str) -> bool {
        false
    }

    fn receive(&self, _: &Asked<'_>) -> Result<Verdict<tieline_core::Arrival>, Refusal> {
        Err(ErrorCode::NotFound.into())
    }
}
