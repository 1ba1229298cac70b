//! Nacos as the registry: each node is an ephemeral instance of two services.
//!
//! - `SERVICE` is for everybody: the instance's address is where the node's clients connect, so that gateways and programs of
//!   other makes find our nodes, and operators disable one there. A node that drains takes itself out of it.
//! - `SERVICE.members` is for nodes and gateways of our own: its instances carry their words as metadata. A server does not show
//!   disabled instances to anybody who looks for a service, and who is disabled has to stay a member all the same.
//!
//! The server says who has died: it takes out whose connection broke, and who was silent for some 20 s. What it pushes is only
//! the reason to look again: looking is a question with an answer, or none, and then the server is out of reach.
//!
//! What the library leaves to us: calls hang for as long as the server is away, so each has a limit. After an outage it waits for up
//! to a minute, so a link that is of no use when the server answers again is given up for a new one; and as the old one would
//! register the node again some day, it is kept until it has taken the node out. A wrong password is told by nothing but what is
//! asked with it, so the first look is the check of it.
//!
//! Tested against a real server by the suite of registries and by `tests.rs`.

mod address;
mod document;
mod enabled;
mod http;
mod link;
mod login;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tieline_core::registry::words::Strange;
use tieline_core::registry::{Done, HOLD, NodeState, Registration, Registry, SharedView};
use tieline_proto::NodeId;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

pub use address::NacosAddress;
pub use document::{DocumentError, NacosDocument};
pub use link::Trouble;

use super::board::Board;
use crate::pause::pause;
use enabled::Enabled;
use link::{Link, Shown};

/// How often it is looked whether those who were held back can be dropped.
const TICK: Duration = Duration::from_secs(1);

/// The shortest time between two looks: what is pushed in one burst is one reason to look.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// So many nodes tell their numbers of connections in one [`NacosSettings::refresh`]: each time, the server tells everybody.
const TOLD_PER_REFRESH: usize = 50;

/// The bounds of the pauses between two looks whether a server is back.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// How long the beginning may take. The library does several things before it can be asked anything.
const START_WITHIN: Duration = Duration::from_secs(10);

/// How often it is tried to take a node out of a server that is away: for longer than the library waits between two attempts to
/// connect.
const LEAVE_ATTEMPTS: u32 = 30;

/// The most links that wait to take the node out. With so many there is no further one.
const MAX_RETIRED: usize = 4;

/// Why a registry on Nacos does not start.
#[derive(Debug, thiserror::Error)]
pub enum NacosError {
    /// The URL is none of a server. It is not repeated, because there may be a password in it.
    #[error(
        "the address of a Nacos server is `nacos://[USER:PASSWORD@]HOST[:PORT],…[/NAMESPACE][?group=GROUP&service=SERVICE]`: {0}"
    )]
    Url(&'static str),
    /// The folder for what the library keeps cannot be made.
    #[error("cannot make a folder of our own in {}: {source}", folder.display())]
    Folder {
        /// Where.
        folder: std::path::PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No server is there, or it refuses this node.
    #[error("cannot use Nacos at {servers}: {trouble}")]
    Server {
        /// All that were tried.
        servers: String,
        /// What is wrong.
        trouble: Trouble,
    },
}

/// How a node uses Nacos.
#[derive(Clone, Debug)]
pub struct NacosSettings {
    /// The cluster's name: entries of others are passed over.
    pub cluster: String,
    /// Where the servers are.
    pub address: NacosAddress,
    /// How often it is looked, whatever is pushed, and connections are counted anew.
    pub refresh: Duration,
    /// How long nobody is dropped after an outage.
    pub hold: Duration,
    /// How long each call may take.
    pub limit: Duration,
}

impl NacosSettings {
    /// The defaults.
    pub fn new(cluster: &str, address: NacosAddress) -> Self {
        NacosSettings {
            cluster: cluster.to_owned(),
            address,
            refresh: Duration::from_secs(5),
            hold: HOLD,
            limit: Duration::from_secs(3),
        }
    }
}

/// A registry on Nacos. When it is dropped it takes its node out: the library would go on to keep it.
pub struct NacosRegistry(Arc<Board>);

impl NacosRegistry {
    /// Connects and looks. `me` is the node that is going to register, none for one that only looks.
    ///
    /// # Errors
    /// When no server is there or serves this user, at the latest after 10 s.
    pub async fn start(settings: NacosSettings, me: Option<NodeId>) -> Result<Self, NacosError> {
        let servers = settings.address.servers();
        let starting = timeout(START_WITHIN, Task::begin(settings, me)).await;
        let Ok(begun) = starting else {
            return Err(NacosError::Server { servers, trouble: Trouble::Silent });
        };
        let task = begun?;
        let board = Arc::clone(&task.board);
        tokio::spawn(task.run());
        Ok(NacosRegistry(board))
    }
}

impl Registry for NacosRegistry {
    fn register(&self, registration: Registration) {
        self.0.say(registration);
    }

    fn deregister(&self) -> Done {
        self.0.leave()
    }

    fn view(&self) -> watch::Receiver<SharedView> {
        self.0.view()
    }
}

impl Drop for NacosRegistry {
    fn drop(&mut self) {
        self.0.life.stop();
    }
}

/// The one task behind a registry.
struct Task {
    board: Arc<Board>,
    settings: NacosSettings,
    link: Link,
    /// Links that are of no use any more, until they have taken the node out.
    retired: JoinSet<()>,
    enabled: Enabled,
    /// Wakes when the server says that something has changed.
    told: Arc<Notify>,
    /// What the server was told of this node, as far as it is not known to have forgotten it.
    written: Option<Registration>,
    /// When it was told last.
    written_at: Instant,
    /// How many nodes were shown last.
    members: usize,
}

impl Task {
    /// Connects and looks for the first time.
    async fn begin(settings: NacosSettings, me: Option<NodeId>) -> Result<Self, NacosError> {
        let told = Arc::new(Notify::new());
        let link = Link::open(&settings.address, settings.limit, &told).await?;
        let mut task = Task {
            board: Board::new("Nacos", &settings.cluster, me, settings.hold),
            link,
            retired: JoinSet::new(),
            enabled: Enabled::new(settings.refresh),
            told,
            written: None,
            written_at: Instant::now(),
            members: 0,
            settings,
        };
        if let Err(trouble) = task.look().await {
            let servers = task.settings.address.servers();
            task.link.close(1).await;
            return Err(NacosError::Server { servers, trouble });
        }
        Ok(task)
    }

    async fn run(mut self) {
        let board = Arc::clone(&self.board);
        tokio::select! {
            () = self.keep() => {}
            () = board.life.stopping() => {}
        }
        self.link.close(LEAVE_ATTEMPTS).await;
        board.life.end();
    }

    /// Says and looks, for ever.
    async fn keep(&mut self) {
        let mut said = self.board.said();
        let mut refresh = interval(self.settings.refresh);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(TICK);
        // When numbers of connections may be told again.
        let mut counts_from = Instant::now();
        let mut is_due = true;
        let mut look_at = Some(Instant::now());
        loop {
            let now = Instant::now();
            let is_count_due = is_due && now >= counts_from;
            if is_count_due {
                let share = u32::try_from(self.members / TOLD_PER_REFRESH).unwrap_or(u32::MAX);
                counts_from = now + self.settings.refresh.saturating_mul(share);
            }
            let registration = said.borrow_and_update().clone();
            let mut done = self.say(registration, is_count_due).await;
            if done.is_ok() && look_at.is_some_and(|at| now >= at) {
                look_at = None;
                done = self.look().await;
            }
            is_due = false;
            if let Err(trouble) = done {
                self.board.away(&trouble);
                self.recover().await;
                // What was said meanwhile, or to another link, is said now.
                continue;
            }
            let look = async {
                match look_at {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = look => {}
                () = self.told.notified() => look_at = look_at.or(Some(now + LOOK_EVERY)),
                _ = refresh.tick() => (is_due, look_at) = (true, Some(now)),
                _ = tick.tick() => self.board.tick(),
                // The board outlives its task.
                Ok(()) = said.changed() => {}
            }
        }
    }

    /// Waits until the server is back.
    async fn recover(&mut self) {
        let mut failures = 0;
        loop {
            sleep(pause(RETRY.0, RETRY.1, failures)).await;
            while self.retired.try_join_next().is_some() {}
            if http::living(&self.settings.address.servers).await.is_empty() {
                continue;
            }
            let trouble = match self.look().await {
                Ok(()) => return,
                Err(trouble) => trouble,
            };
            failures += 1;
            // Another link would be of no more use to a wrong user.
            if matches!(trouble, Trouble::Silent | Trouble::Refused(_)) && self.retired.len() < MAX_RETIRED {
                match Link::open(&self.settings.address, self.settings.limit, &self.told).await {
                    Ok(link) => {
                        let old = std::mem::replace(&mut self.link, link);
                        self.retired.spawn(old.close(LEAVE_ATTEMPTS));
                        self.written = None;
                    }
                    Err(error) => tracing::debug!(%error, "No new way to Nacos."),
                }
            }
        }
    }

    /// Tells the server what the node says, where that is not what it was told. Numbers of connections wait until they are due.
    async fn say(&mut self, registration: Option<Registration>, is_due: bool) -> Result<(), Trouble> {
        let (Some(me), Some(words)) = (self.board.me(), self.board.words(&registration)) else {
            return Ok(());
        };
        let Some(registration) = registration else { return Ok(()) };
        let written = self.written.as_ref();
        let is_told = written.is_some_and(|written| {
            let counted = Registration { connections: registration.connections, ..written.clone() };
            *written == registration || counted == registration && !is_due
        });
        if is_told {
            return Ok(());
        }
        let telling = async {
            // Whoever sees the node among the members sees whether it is enabled.
            if registration.state == NodeState::Up {
                self.link.offer(me, &registration).await?;
            } else {
                self.link.take_back().await?;
            }
            self.link.join(&registration, words).await
        };
        match telling.await {
            Err(trouble @ (Trouble::NoAddress | Trouble::TooLong)) => {
                tracing::error!(%trouble, "This node cannot be registered with Nacos.");
            }
            done => done?,
        }
        self.written = Some(registration);
        self.written_at = Instant::now();
        Ok(())
    }

    /// Asks who is there, and shows it.
    async fn look(&mut self) -> Result<(), Trouble> {
        let Shown { members, offered } = self.link.look().await?;
        let now = Instant::now().into_std();
        let mut list = Vec::new();
        let mut has_me = false;
        for words in &members {
            let mut member = self.board.read(words.as_bytes());
            if let Ok(member) = &mut member {
                has_me |= Some(&member.id) == self.board.me();
                let is_offered = offered.contains(&member.id.to_string());
                let wants = member.registration.state == NodeState::Up;
                member.is_enabled = self.enabled.note(&member.id, is_offered || !wants, now);
            }
            // Clusters may share a service.
            if member != Err(Strange::Cluster) {
                list.push(member);
            }
        }
        self.enabled.forget_all_but(|id| list.iter().flatten().any(|member| member.id == *id));
        self.members = list.len();
        if !has_me && self.written_at.elapsed() >= self.settings.refresh {
            // A server that was just started: it is told anew. What was told a moment ago may not be in its lists yet.
            self.written = None;
            self.link.forgotten();
        }
        self.board.listed(list);
        Ok(())
    }
}
