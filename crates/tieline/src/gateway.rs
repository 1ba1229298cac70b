//! `tieline gateway`: an edge in front of nodes, which picks one for each connection.
//!
//! Requests are read by the same [edge](crate::http) as a node's. One for a WebSocket is asked of nodes until one answers; then
//! the two sockets are joined and leave for the threads of [`Pipes`], where a connection that is silent costs an entry of a
//! table. All else is given on by HTTP. The gateway checks no token and knows no frames: a node does, and its word is
//! final. It keeps nothing, so any number of gateways may stand side by side; on the ring all send a user to the same node.
//!
//! `nodes.rs` is who there is, `policy.rs` the choice, `user.rs` of whom a request is, `forwarding.rs` and `prefix.rs` what a
//! node gets of it; `usher.rs` with `dialer.rs` carries WebSockets out, `relay.rs` other requests. Tested there, and with real
//! nodes in `tests/program/gateway` and `tests/cluster/gateway.rs`.

mod asked;
mod checks;
mod dialer;
mod forwarding;
mod nodes;
mod policy;
mod prefix;
mod relay;
mod routes;
mod settings;
mod tally;
mod user;
mod usher;

use std::convert::Infallible;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tieline_core::registry::{Registry, SharedView, View};
use tieline_core::ring::Placement;
use tieline_proto::ErrorCode;
use tieline_switchboard::{PipeSettings, Pipes};
use tokio::sync::{Notify, watch};

pub use asked::AskedError;
pub use forwarding::{Network, NoNetwork};
pub use policy::{Policy, UnknownPolicy};
pub use prefix::NoPrefix;
pub use settings::GatewaySettings;

use crate::Failure;
use crate::admission::Access;
use crate::cli::ServerUrl;
use crate::config::{self, Limits};
use crate::http::{Asked, Edge, EdgeSettings, Head, HttpTally, Judgement, Reception, Refusal};
use crate::registry::{RegistryOpenError, RegistryUrl, RegistryUrlError};
use crate::serve::{listen, raise_descriptors, wait};
use asked::AskedNodes;
use dialer::Dialer;
use forwarding::Forwarding;
use nodes::{Lease, Node, Nodes, Said, Table};
use policy::{Chooser, Wish};
use relay::NodeClient;
use routes::Desk;
use tally::GatewayTally;
use user::Finder;
use usher::Usher;

/// How often the threads are looked after.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// Why a gateway cannot learn of the nodes.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The registry's address has a mistake.
    #[error("`--registry`: {0}")]
    Url(#[from] RegistryUrlError),
    /// The nodes are known to each other alone.
    #[error(
        "`--registry heartbeat` is heard by nodes alone: have some of them asked by `http://HOST:PORT,…`, name them by \
         `static://NAME=ws://HOST:PORT,…`, or give nodes and gateway a registry on a server, such as `redis://HOST`"
    )]
    Heartbeat,
    /// The nodes that are to be asked have a mistake in their addresses.
    #[error("`--registry`: nodes that are asked are named by `http://HOST:PORT,HOST:PORT,…`, or `https://…`")]
    Servers,
    /// The nodes that are to be asked tell nothing.
    #[error(transparent)]
    Asked(#[from] AskedError),
    /// The registry cannot be used.
    #[error(transparent)]
    Open(#[from] RegistryOpenError),
}

impl GatewayError {
    /// Whether the gateway was asked for something that it cannot do; otherwise a server failed.
    pub fn is_mistake(&self) -> bool {
        !matches!(self, GatewayError::Open(_) | GatewayError::Asked(_))
    }
}

/// Where a gateway learns of the nodes.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// From a registry.
    Registry(RegistryUrl),
    /// From the first of these nodes that answers, each `http://HOST:PORT`.
    Nodes(Vec<String>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Registry(url) => url.fmt(f),
            Source::Nodes(servers) => f.write_str(&servers.join(",")),
        }
    }
}

/// Reads what `--registry` takes.
///
/// # Errors
/// With what is taken, when it is none.
pub fn source(text: &str) -> Result<Source, GatewayError> {
    if let Some((scheme @ ("http" | "https"), hosts)) = text.split_once("://") {
        let server = |host: &str| {
            let named = if host.contains("://") { host.to_owned() } else { format!("{scheme}://{host}") };
            named.parse::<ServerUrl>().map(|ServerUrl(url)| url).map_err(|_| GatewayError::Servers)
        };
        return hosts.split(',').map(server).collect::<Result<_, _>>().map(Source::Nodes);
    }
    match text.parse()? {
        RegistryUrl::Heartbeat => Err(GatewayError::Heartbeat),
        url => Ok(Source::Registry(url)),
    }
}

/// Looks where the nodes are. What is shown is followed as long as this is kept. Nodes are asked with the access key.
///
/// # Errors
/// When the registry's server cannot be used, or no node answers.
pub async fn open(
    source: Source,
    cluster: &str,
    access_key: Option<String>,
) -> Result<Arc<dyn Registry>, GatewayError> {
    match source {
        Source::Registry(url) => url.open(cluster, None).await?.ok_or(GatewayError::Heartbeat),
        Source::Nodes(servers) => Ok(Arc::new(AskedNodes::open(servers, access_key).await?)),
    }
}

/// What all parts of a gateway share.
struct Gateway {
    nodes: Nodes,
    chooser: Chooser,
    /// Where it places users: on a ring, or elsewhere.
    placement: Placement,
    has_warned_of_placement: AtomicBool,
    finder: Finder,
    forwarding: Forwarding,
    dialer: Dialer,
    client: NodeClient,
    tally: GatewayTally,
    /// Told when the registry shows others than before, which are then checked at once.
    followed: Notify,
    /// Set when it no longer accepts connections.
    is_stopping: AtomicBool,
}

impl Gateway {
    fn new(settings: &GatewaySettings) -> Self {
        // Two gateways that start at the same time differ in it.
        let seed = RandomState::new().hash_one(std::process::id());
        Gateway {
            nodes: Nodes::new(settings.ring_hash),
            placement: match settings.policy {
                Policy::Ring => Placement::Ring(settings.ring_hash),
                _ => Placement::None,
            },
            has_warned_of_placement: AtomicBool::new(false),
            chooser: Chooser::new(settings.policy, settings.bound, settings.tries.get(), seed)
                .guarded(settings.is_guarded()),
            finder: Finder { paths: settings.user_path.clone(), parameters: settings.user_parameter.clone() },
            forwarding: Forwarding {
                trusted: settings.trusted_proxy.clone(),
                id: format!("tieline-gateway-{seed:016x}"),
                prefix: settings.prefix(),
            },
            dialer: Dialer { connect: settings.connect_timeout, answer: settings.answer_timeout },
            client: relay::client(settings.connect_timeout),
            tally: GatewayTally::default(),
            followed: Notify::new(),
            is_stopping: AtomicBool::new(false),
        }
    }

    /// Takes over what the registry shows.
    fn follow(&self, view: &View) {
        if self.nodes.follow(view) {
            self.followed.notify_one();
        }
        let own = self.placement.name();
        let is_elsewhere =
            |theirs: &&str| !theirs.is_empty() && *theirs != Placement::None.name() && *theirs != own;
        let mut theirs = view.members.iter().map(|member| member.registration.placement.as_str());
        if let Some(theirs) = theirs.find(is_elsewhere)
            && !self.has_warned_of_placement.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                placement = theirs,
                "The nodes send clients to where their ring has them, and this gateway brings them elsewhere: give it that ring by `--policy ring` and `--ring-hash`."
            );
        }
    }

    /// What is known of a request whose target, as the node will see it, is `target`.
    fn wish(&self, head: &Head<'_>, target: &str, source: IpAddr) -> Wish {
        let path = target.split('?').next().unwrap_or(target);
        Wish { user: self.finder.user(path, head), source, holder: None }
    }

    /// The nodes to try, in order.
    fn choose(&self, wish: &Wish) -> Vec<Arc<Node>> {
        self.chooser.choose(&self.nodes.table(), wish, Instant::now())
    }

    /// A node did not answer.
    fn failed(&self, node: &Node, error: &dyn std::error::Error) {
        node.failed(Instant::now());
        self.tally.failures.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(node = %node.name(), %error, "A node did not answer a request.");
    }

    /// Those that take clients and are given some.
    fn served<'a>(&self, table: &'a Table) -> impl Iterator<Item = &'a Arc<Node>> {
        table.takers.iter().map(|(node, _)| node).filter(|node| self.chooser.admits(node))
    }

    /// How many of those seem well.
    fn well(&self, table: &Table) -> usize {
        let now = Instant::now();
        self.served(table).filter(|node| node.is_well(now)).count()
    }

    /// What clients of this gateway meet at the least; none where that is not known.
    fn access(&self, table: &Table) -> Option<Access> {
        if self.chooser.is_guarded() {
            return Some(Access::Token);
        }
        let said = table.takers.iter().map(|(node, _)| match node.access() {
            Said::Access(access) => Some(access),
            Said::Unasked | Said::Nothing => None,
        });
        said.collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

/// No node answers, or there is none.
fn nobody() -> Refusal {
    Refusal::new(ErrorCode::ServiceUnavailable, "no node of the cluster answers now")
}

/// Where a gateway listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayAddresses {
    /// For clients.
    pub clients: SocketAddr,
    /// For operators.
    pub admin: Option<SocketAddr>,
}

impl GatewayAddresses {
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
        out.flush()
    }
}

/// Runs a gateway until `stop` is ready, in front of the nodes that `view` shows. `ready` is told the addresses that were
/// bound, when clients can connect.
///
/// # Errors
/// When an address cannot be bound, or a thread cannot be started or fails.
pub async fn serve(
    settings: GatewaySettings,
    view: watch::Receiver<SharedView>,
    ready: impl FnOnce(GatewayAddresses) -> io::Result<()>,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let backlog = Limits::default().backlog;
    let (listener, address) = listen(settings.listen, backlog)?;
    let admin = settings.admin_listen.map(|at| listen(at, backlog)).transpose()?;
    // Each connection has a socket to its node.
    raise_descriptors(2 * settings.connections.get() as u64);
    let threads = match settings.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let pipe_settings = PipeSettings { idle: settings.idle, ..PipeSettings::default() };
    let pipes: Pipes<Lease> = Pipes::start(threads, pipe_settings)?;
    let gateway = Arc::new(Gateway::new(&settings));
    gateway.follow(&view.borrow());
    tracing::info!(%address, policy = %settings.policy, "The gateway has started.");
    if settings.is_guarded() {
        // Nobody is brought to a node that has not said that it wants tokens.
        checks::all(&gateway).await;
    } else if settings.is_exposed() {
        tracing::warn!(
            "Everybody who can reach this address may connect at nodes that want no token, as any user."
        );
    }

    let tasks = [
        tokio::spawn(follow(Arc::clone(&gateway), view)),
        tokio::spawn(checks::run(Arc::clone(&gateway), settings.check_every)),
    ];
    let tally = Arc::new(HttpTally::default());
    let handle = pipes.handle().clone();
    let usher = Usher { gateway: Arc::clone(&gateway), pipes: handle.clone() };
    let edge_settings = edge_settings(&settings);
    let public = routes::public(&gateway);
    let edge = Edge::with(usher, public, address, edge_settings.clone(), Arc::clone(&tally));
    let addresses = GatewayAddresses { clients: address, admin: admin.as_ref().map(|(_, address)| *address) };

    let (stopping, stopped) = watch::channel(false);
    let serving = edge.serve(listener, wait(stopped.clone()));
    let operating = async {
        if let Some((listener, address)) = admin {
            let desk = Desk { gateway: Arc::clone(&gateway), pipes: handle, http: Arc::clone(&tally) };
            let edge_settings = EdgeSettings { proxy_protocol: false, ..edge_settings };
            let edge = Edge::with(NoWebSockets, routes::admin(desk), address, edge_settings, Arc::default());
            edge.serve(listener, wait(stopped)).await?;
        }
        Ok(())
    };
    ready(addresses).map_err(Failure::Output)?;
    let ending = async {
        tokio::select! {
            () = stop => {}
            () = failure(&pipes) => tracing::error!("A thread has failed; the gateway stops."),
        }
        gateway.is_stopping.store(true, Ordering::Relaxed);
        let _ = stopping.send(true);
    };
    let (served, operated, ()) = tokio::join!(serving, operating, ending);
    for task in tasks {
        task.abort();
        // It ends by being aborted, which is what its handle says.
        let _ = task.await;
    }
    let grace = settings.grace;
    match tokio::task::spawn_blocking(move || pipes.stop(grace)).await {
        Ok(result) => result?,
        Err(_) => return Err(tieline_switchboard::Error::Panicked.into()),
    }
    served.and(operated).map_err(Failure::Runtime)
}

/// What the edge is told.
fn edge_settings(settings: &GatewaySettings) -> EdgeSettings {
    EdgeSettings {
        connections: settings.connections.get(),
        connect_rate: (settings.connect_rate, settings.connect_burst.get()),
        proxy_protocol: settings.proxy_protocol,
        ..EdgeSettings::of(&config::Settings::default())
    }
}

/// Takes over what the registry shows, whenever it changes. When nobody tells any more the last word stands.
async fn follow(gateway: Arc<Gateway>, mut view: watch::Receiver<SharedView>) {
    while view.changed().await.is_ok() {
        let shown = Arc::clone(&view.borrow_and_update());
        gateway.follow(&shown);
    }
}

/// Returns when a thread has ended, which it never should.
async fn failure(pipes: &Pipes<Lease>) {
    let mut watch = tokio::time::interval(WATCH_EVERY);
    while !pipes.has_failed() {
        watch.tick().await;
    }
}

/// The listener for operators takes no WebSocket.
struct NoWebSockets;

impl Reception for NoWebSockets {
    type Granted = Infallible;

    fn owns(&self, _: &Head<'_>) -> bool {
        false
    }

    fn connections(&self) -> u64 {
        0
    }

    fn judge(&self, _: &Asked<'_>) -> Result<Judgement<Infallible>, Refusal> {
        Err(ErrorCode::NotFound.into())
    }

    fn take(&self, granted: Infallible, _: TcpStream, _: Vec<u8>) -> io::Result<()> {
        match granted {}
    }
}
