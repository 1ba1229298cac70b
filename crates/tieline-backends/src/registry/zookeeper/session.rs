//! [`Session`]: one session with the ensemble, from its beginning until it is of no use any more.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tieline_core::registry::words::Strange;
use tieline_core::registry::{MAX_MEMBERS, Member, Registration};
use tieline_proto::NodeId;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use zookeeper_client::{Acls, Client, CreateMode, Error, SessionState, StateWatcher, WatchedEvent};

use super::{ZooKeeperAddress, ZooKeeperSettings};
use crate::registry::board::Board;

/// How long the library may take to have a broken connection back. Then there is a new session: it would wait ever longer.
const BACK_WITHIN: Duration = Duration::from_secs(3);

/// How often it is looked whether those who were held back can be dropped.
const TICK: Duration = Duration::from_secs(1);

/// So many nodes are read in one [`ZooKeeperSettings::refresh`], only to know their numbers of connections.
const READ_PER_REFRESH: usize = 50;

/// The most entries that are read. Further ones are only counted.
const MAX_READ: usize = 2 * MAX_MEMBERS;

/// How long the node's entry may take to be taken out when the registry ends.
const LEAVE_WITHIN: Duration = Duration::from_millis(1500);

/// What stands in a path as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_');

/// A watch that is set, and tells once.
type Watch = Pin<Box<dyn Future<Output = WatchedEvent> + Send>>;

/// Where the nodes of a cluster are.
pub(super) struct Folder {
    path: String,
    /// Who may do what with the nodes: everybody all, or one user all.
    acls: Acls<'static>,
}

impl Folder {
    pub(super) fn new(address: &ZooKeeperAddress, cluster: &str) -> Self {
        let path = format!("{}/{}", address.path, utf8_percent_encode(cluster, PLAIN));
        let acls = if address.login.is_some() { Acls::creator_all() } else { Acls::anyone_all() };
        Folder { path, acls }
    }

    fn path_of(&self, entry: &str) -> String {
        format!("{}/{entry}", self.path)
    }
}

/// The name of a node's entry, which no other start of it has.
fn name_of(id: &NodeId) -> String {
    format!("{}-{}", utf8_percent_encode(id.name.as_str(), PLAIN), id.incarnation)
}

/// One session.
pub(super) struct Session {
    client: Client,
    board: Arc<Board>,
    settings: ZooKeeperSettings,
    folder: Arc<Folder>,
    /// The name of this node's entry, where there is a node.
    own: Option<String>,
    /// What this session wrote into it: an entry that is there without that is of a session before.
    written: Option<Registration>,
    /// What was read, by the names of the entries.
    read: BTreeMap<String, Result<Member, Strange>>,
}

impl Session {
    /// Connects, and looks whether the cluster's folder is there and can be read; it is made where it is missing.
    pub(super) async fn open(
        settings: &ZooKeeperSettings,
        folder: &Arc<Folder>,
        board: &Arc<Board>,
    ) -> Result<Session, Error> {
        let mut connector = Client::connector()
            .with_session_timeout(settings.lease)
            // A session outlives its client: who dies is dead after his lease, and who leaves says so.
            .with_detached()
            .with_fail_eagerly();
        if let Some(login) = &settings.address.login {
            connector = connector.with_auth("digest", login.as_bytes());
        }
        let servers = settings.address.servers();
        let client = limited(settings.limit, connector.connect(&servers)).await?;
        let options = CreateMode::Persistent.with_acls(folder.acls);
        let looking = async {
            client.mkdir(&folder.path, &options).await?;
            client.list_children(&folder.path).await
        };
        limited(settings.limit, looking).await?;
        Ok(Session {
            client,
            board: Arc::clone(board),
            settings: settings.clone(),
            folder: Arc::clone(folder),
            own: board.me().map(name_of),
            written: None,
            read: BTreeMap::new(),
        })
    }

    /// Keeps this node's entry and shows the others, until that can no longer be done.
    pub(super) async fn serve(&mut self) -> Error {
        let mut states = self.client.state_watcher();
        let mut lost = states.clone();
        loop {
            let trouble = tokio::select! {
                Err(trouble) = self.work() => trouble,
                state = until(&mut lost, |state| state != SessionState::SyncConnected) => trouble_of(state),
            };
            self.board.away(&trouble);
            let is_over = |state: SessionState| state == SessionState::SyncConnected || state.is_terminated();
            let back = timeout(BACK_WITHIN, until(&mut states, is_over)).await;
            if trouble != Error::ConnectionLoss || back != Ok(SessionState::SyncConnected) {
                return trouble;
            }
        }
    }

    /// Takes this node's entry out.
    pub(super) async fn leave(&self) {
        let Some(own) = self.own.as_ref().filter(|_| self.written.is_some()) else { return };
        let path = self.folder.path_of(own);
        match limited(LEAVE_WITHIN, self.client.delete(&path, None)).await {
            Ok(()) | Err(Error::NoNode) => {}
            Err(trouble) => {
                tracing::warn!(%trouble, "ZooKeeper was not told that this node leaves: its lease will tell.");
            }
        }
    }

    /// Writes and reads for as long as the connection is there.
    async fn work(&mut self) -> Result<Infallible, Error> {
        let limit = self.settings.limit;
        let mut said = self.board.said();
        let mut refresh = interval(self.settings.refresh);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tick = interval(TICK);
        let (mut changes, mut comings): (Option<Watch>, Option<Watch>) = (None, None);
        let mut entries = BTreeSet::new();
        let mut is_due = true;
        let mut read_all = Instant::now();
        loop {
            // Watches are set before what they watch is read, so that they tell of all that comes after.
            let is_changed = changes.is_none();
            if is_changed {
                let asked = self.client.get_and_watch_data(&self.folder.path);
                let (_, _, watcher) = limited(limit, asked).await?;
                changes = Some(Box::pin(watcher.changed()));
            }
            let is_listed = comings.is_none();
            if is_listed {
                let asked = self.client.list_and_watch_children(&self.folder.path);
                let (names, watcher) = limited(limit, asked).await?;
                comings = Some(Box::pin(watcher.changed()));
                entries = names.into_iter().collect();
            }
            let registration = said.borrow_and_update().clone();
            self.write(registration, &mut entries, is_due).await?;
            let is_all = is_changed || is_due && Instant::now() >= read_all;
            if is_all {
                let share = u32::try_from(entries.len() / READ_PER_REFRESH).unwrap_or(u32::MAX);
                read_all = Instant::now() + self.settings.refresh * share;
                self.read.clear();
            }
            if is_all || is_listed {
                limited(limit, self.read(&entries)).await?;
            }
            is_due = false;
            tokio::select! {
                _ = wait(&mut changes) => changes = None,
                _ = wait(&mut comings) => comings = None,
                _ = refresh.tick() => is_due = true,
                _ = tick.tick() => self.board.tick(),
                // The board outlives its sessions.
                Ok(()) = said.changed() => {}
            }
        }
    }

    /// Makes this node's entry what the node says, where it is not that. Numbers of connections wait until they are due.
    async fn write(
        &mut self,
        registration: Option<Registration>,
        entries: &mut BTreeSet<String>,
        is_due: bool,
    ) -> Result<(), Error> {
        let (Some(own), Some(words)) = (&self.own, self.board.words(&registration)) else { return Ok(()) };
        let Some(registration) = registration else { return Ok(()) };
        let path = self.folder.path_of(own);
        let is_there = entries.contains(own);
        let Some(written) = self.written.as_ref().filter(|_| is_there) else {
            limited(self.settings.limit, self.create(&path, &words, is_there)).await?;
            entries.insert(own.clone());
            self.written = Some(registration);
            return Ok(());
        };
        let counted = Registration { connections: registration.connections, ..written.clone() };
        let is_only_counted = counted == registration;
        if *written == registration || is_only_counted && !is_due {
            return Ok(());
        }
        limited(self.settings.limit, self.client.set_data(&path, words.as_bytes(), None)).await?;
        if !is_only_counted {
            // Whoever watches the folder's data reads everybody's words anew.
            limited(self.settings.limit, self.client.set_data(&self.folder.path, b"", None)).await?;
        }
        self.written = Some(registration);
        Ok(())
    }

    /// Makes this node's entry one of this session: that of a session before would go with that.
    async fn create(&self, path: &str, words: &str, is_there: bool) -> Result<(), Error> {
        let options = CreateMode::Ephemeral.with_acls(self.folder.acls);
        if is_there {
            let mut both = self.client.new_multi_writer();
            both.add_delete(path, None)?;
            both.add_create(path, words.as_bytes(), &options)?;
            if both.commit().await.is_ok() {
                return Ok(());
            }
            // It may have gone by itself meanwhile.
        }
        match self.client.create(path, words.as_bytes(), &options).await {
            Ok(_) => Ok(()),
            Err(Error::NodeExists) if !is_there => Box::pin(self.create(path, words, true)).await,
            Err(trouble) => Err(trouble),
        }
    }

    /// Reads the entries that were not, and shows all.
    async fn read(&mut self, entries: &BTreeSet<String>) -> Result<(), Error> {
        self.read.retain(|entry, _| entries.contains(entry));
        let new =
            entries.iter().filter(|entry| !self.read.contains_key(*entry)).take(MAX_READ - self.read.len());
        // Each is asked for when its future is made: the answers come one behind the other.
        let asked: Vec<_> =
            new.map(|entry| (entry.clone(), self.client.get_data(&self.folder.path_of(entry)))).collect();
        for (entry, answer) in asked {
            match answer.await {
                Ok((bytes, _)) => {
                    let member = self.board.read(&bytes).and_then(|member| {
                        // Nobody takes another's place by what it says.
                        let is_own = name_of(&member.id) == entry;
                        if is_own { Ok(member) } else { Err(Strange::Value("name")) }
                    });
                    self.read.insert(entry, member);
                }
                // Gone meanwhile; its watch tells.
                Err(Error::NoNode) => {}
                Err(trouble) => return Err(trouble),
            }
        }
        // So many that nobody reads them all.
        let unread = std::iter::repeat_n(Err(Strange::TooLong), entries.len().saturating_sub(MAX_READ));
        self.board.listed(self.read.values().cloned().chain(unread).collect());
        Ok(())
    }
}

/// Waits for a watch that is set.
async fn wait(watch: &mut Option<Watch>) {
    match watch {
        Some(watch) => drop(watch.await),
        None => std::future::pending().await,
    }
}

/// Waits until the session is in a state like that.
async fn until(states: &mut StateWatcher, is_met: impl Fn(SessionState) -> bool) -> SessionState {
    loop {
        let state = states.state();
        if is_met(state) {
            return state;
        }
        states.changed().await;
    }
}

/// What is wrong in such a state.
fn trouble_of(state: SessionState) -> Error {
    match state {
        SessionState::Expired => Error::SessionExpired,
        SessionState::AuthFailed => Error::AuthFailed,
        SessionState::Closed => Error::ClientClosed,
        _ => Error::ConnectionLoss,
    }
}

/// A request that has to be answered in time.
async fn limited<T>(limit: Duration, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(limit, request).await.unwrap_or(Err(Error::Timeout))
}
