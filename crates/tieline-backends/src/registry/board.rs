//! [`Board`]: where a registry's task and those who ask meet: what the node says of itself, and what is shown of the others.
//! Not a way to a server. Tested with the registries.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tieline_core::registry::words::{self, Strange};
use tieline_core::registry::{Done, Keeping, Member, Registration, SharedView};
use tieline_proto::NodeId;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::life::Life;

/// How long taking a node out may take.
const LEAVING: Duration = Duration::from_secs(2);

/// What a node says, and what it is shown.
pub(super) struct Board {
    /// The server's name, for the log.
    server: &'static str,
    /// Whose entries are looked for.
    cluster: String,
    /// Who looks; none where that is no node.
    me: Option<NodeId>,
    /// What the node says of itself, once it has.
    said: watch::Sender<Option<Registration>>,
    /// What is believed of the server's lists.
    keeping: Mutex<Keeping>,
    /// What is shown of that.
    shown: watch::Sender<SharedView>,
    /// How far the registry has come to its end.
    pub(super) life: Life,
}

impl Board {
    /// Nothing is said and nobody is shown. `hold` is how long nobody is dropped after an outage.
    pub(super) fn new(server: &'static str, cluster: &str, me: Option<NodeId>, hold: Duration) -> Arc<Self> {
        Arc::new(Board {
            server,
            cluster: cluster.to_owned(),
            keeping: Mutex::new(Keeping::new(me.clone(), hold)),
            me,
            said: watch::Sender::new(None),
            shown: watch::Sender::default(),
            life: Life::new(),
        })
    }

    /// Who looks; none where that is no node.
    pub(super) fn me(&self) -> Option<&NodeId> {
        self.me.as_ref()
    }

    /// The node says this of itself from now on.
    pub(super) fn say(&self, registration: Registration) {
        self.said.send_if_modified(|said| {
            let is_new = said.as_ref() != Some(&registration);
            *said = Some(registration);
            is_new
        });
    }

    /// What the node says of itself, now and at each change.
    pub(super) fn said(&self) -> watch::Receiver<Option<Registration>> {
        self.said.subscribe()
    }

    /// What a node writes of this; none while there is nothing, or nobody, to say it of.
    pub(super) fn words(&self, registration: &Option<Registration>) -> Option<String> {
        Some(words::write(&self.cluster, self.me.as_ref()?, registration.as_ref()?))
    }

    /// Reads what some node wrote.
    pub(super) fn read(&self, bytes: &[u8]) -> Result<Member, Strange> {
        words::read(&self.cluster, bytes)
    }

    /// What is shown, now and at each change.
    pub(super) fn view(&self) -> watch::Receiver<SharedView> {
        self.shown.subscribe()
    }

    /// The server showed this list.
    pub(super) fn listed(&self, list: Vec<Result<Member, Strange>>) {
        if self.change(|keeping| keeping.listed(list, Instant::now())) {
            tracing::info!("{} is in reach again.", self.server);
        }
    }

    /// The server is out of reach.
    pub(super) fn away(&self, trouble: &dyn fmt::Display) {
        if self.change(Keeping::away) {
            tracing::warn!(%trouble, "{} is out of reach: the nodes that it showed last are kept.", self.server);
        }
    }

    /// Time has passed.
    pub(super) fn tick(&self) {
        self.change(|keeping| keeping.tick(Instant::now()));
    }

    /// Whether the server was in reach before and is not now, or the other way round.
    fn change(&self, change: impl FnOnce(&mut Keeping)) -> bool {
        // Held until the view is shown, so that views are shown in their order.
        let mut keeping = self.keeping.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut keeping);
        let view = keeping.view();
        let has_turned = self.shown.borrow().is_degraded != view.is_degraded;
        self.shown.send_if_modified(|shown: &mut SharedView| {
            let is_new = **shown != view;
            if is_new {
                *shown = Arc::new(view);
            }
            is_new
        });
        has_turned
    }

    /// Begins the end, and waits for it for a while.
    pub(super) fn leave(self: &Arc<Self>) -> Done {
        self.life.stop();
        let board = Arc::clone(self);
        Box::pin(async move {
            if timeout(LEAVING, board.life.stopped()).await.is_err() {
                tracing::warn!(
                    "{} was not told in time that this node leaves: its lease will tell.",
                    board.server
                );
            }
        })
    }
}
