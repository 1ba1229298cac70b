//! Upstream events: what an application hears of connections and is asked by their clients, over HTTP, in the form of Web
//! PubSub's event handlers.
//!
//! `handler.rs` is one endpoint, `cloud_event.rs` what it is sent, `permission.rs` how it is asked whether it wants that, `http.rs` the client. `connect.rs` and
//! `user_event.rs` are the events that somebody waits for: they have a time limit, and without an answer the answer is no.
//! `notice.rs`, `lane.rs` and `journal.rs` are those that nobody waits for: they are sent again until they are taken.
//!
//! [`Upstream`] is called on shards' threads and never waits; [`UpstreamTask`] owns all that does. Tested in
//! `tests/program/upstream`, against endpoints of all kinds, and by Microsoft's handler in `tests/sdk-js`.

mod cloud_event;
mod connect;
mod handler;
mod http;
mod journal;
mod lane;
mod notice;
mod permission;
mod tally;
mod template;
mod user_event;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use hyper::header::HeaderValue;
use serde::{Deserialize, Serialize};
use tieline_core::Node;
use tieline_core::events::{Appearance, EventSource, Events, Queued, TooManyEvents, UserEvent, fresh_id};
use tieline_core::records::Records;
use tieline_core::store::Store;
use tieline_core::token::Keys;
use tieline_proto::HubName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use self::cloud_event::{About, CloudEvent};
use self::handler::{CallError, Handler};
use self::journal::Journal;
use self::lane::Lane;
use self::notice::{Delivery, Notice};
use self::tally::{EventKind, Outcome};
use crate::config;
use crate::http::Refusal;

pub use self::http::ClientError;
pub(crate) use self::http::{Http, HttpError};
pub use connect::{ConnectRequest, Decision, Lists};
pub use tally::UpstreamTally;
pub use template::Template;

/// Memory of user events that are under way, in units of [`UNIT`]; one that does not fit is refused.
const ROOM: usize = 64 << 10;

/// Bytes that are counted as one.
const UNIT: usize = 1 << 10;

/// How long events may still be sent when the node stops.
const FAREWELL: Duration = Duration::from_secs(3);

/// How long an answer waits before it is offered again to a shard that has no room.
const SHARD_FULL: Duration = Duration::from_millis(10);

/// What there is beside the events of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SystemEvent {
    /// A client wants to connect.
    Connect,
    /// A client is connected.
    Connected,
    /// A connection has ended.
    Disconnected,
    /// A message was stored for a user who is offline.
    Queued,
    /// A user has come or gone where it is told who is present.
    Presence,
}

impl SystemEvent {
    /// All of them.
    const ALL: [SystemEvent; 5] = [
        SystemEvent::Connect,
        SystemEvent::Connected,
        SystemEvent::Disconnected,
        SystemEvent::Queued,
        SystemEvent::Presence,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            SystemEvent::Connect => "connect",
            SystemEvent::Connected => "connected",
            SystemEvent::Disconnected => "disconnected",
            SystemEvent::Queued => "queued",
            SystemEvent::Presence => "presence",
        }
    }

    /// The event of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|event| event.name() == name)
    }

    /// As it is counted.
    fn kind(self) -> EventKind {
        match self {
            SystemEvent::Connect => EventKind::Connect,
            SystemEvent::Connected => EventKind::Connected,
            SystemEvent::Disconnected => EventKind::Disconnected,
            SystemEvent::Queued => EventKind::Queued,
            SystemEvent::Presence => EventKind::Presence,
        }
    }
}

/// What upstream events need beside their endpoints.
pub struct Surroundings {
    /// The node whose events they are.
    pub node: Arc<Node>,
    /// What they are signed with.
    pub keys: Arc<Keys>,
    /// Host and port of this node as clients know it.
    pub origin: String,
    /// The largest answer to a user event, in bytes.
    pub max_message: usize,
    /// Where events are kept that nobody waits for; without it they are kept in memory.
    pub store: Option<(Arc<dyn Store>, Arc<dyn Records>)>,
    /// Where is counted what becomes of events.
    pub tally: Arc<UpstreamTally>,
}

/// Work for the task.
enum Work {
    /// A client waits for the answer.
    User(Box<UserEvent>, Arc<Handler>, OwnedSemaphorePermit),
    /// A hub has its first event.
    Lane(Arc<Lane>),
    /// An event that is no hub's alone. There are as many as endpoints, once.
    Notice(Box<Notice>),
}

/// The application as the node sees it.
pub struct Upstream {
    handlers: Vec<Arc<Handler>>,
    lanes: Mutex<HashMap<HubName, Arc<Lane>>>,
    /// Bounded by `room`, and by the number of hubs.
    work: mpsc::UnboundedSender<Work>,
    room: Arc<Semaphore>,
    tally: Arc<UpstreamTally>,
}

/// What carries events; to be stopped after the node's connections have ended.
pub struct UpstreamTask {
    task: JoinHandle<()>,
    stopping: watch::Sender<bool>,
}

impl Upstream {
    /// Starts what the configuration names, and has the node tell of its events. None when it names nothing.
    ///
    /// # Errors
    /// When an endpoint is reached by TLS and nothing can be verified.
    pub fn start(
        settings: &[config::Upstream],
        surroundings: Surroundings,
    ) -> Result<Option<(Arc<Upstream>, UpstreamTask)>, ClientError> {
        let Some(longest) = settings.iter().map(|upstream| upstream.timeout).max() else { return Ok(None) };
        let Surroundings { node, keys, origin, max_message, store, tally } = surroundings;
        let http = Arc::new(Http::new(settings.iter().any(|upstream| upstream.url.is_https()), longest)?);
        let handler = |settings: &config::Upstream| {
            let origin = settings.origin.as_ref().unwrap_or(&origin);
            let origin =
                HeaderValue::from_str(origin).expect("the configuration takes hosts that are ASCII alone");
            let (keys, http, tally) = (Arc::clone(&keys), Arc::clone(&http), Arc::clone(&tally));
            Arc::new(Handler::new(settings.clone(), origin, keys, http, tally))
        };
        let handlers: Vec<_> = settings.iter().map(handler).collect();
        let (work, todo) = mpsc::unbounded_channel();
        let upstream = Arc::new(Upstream {
            handlers: handlers.clone(),
            lanes: Mutex::default(),
            work,
            room: Arc::new(Semaphore::new(ROOM)),
            tally: Arc::clone(&tally),
        });
        let journal = store.map(|(store, records)| Arc::new(Journal::new(store, records, node.id())));
        let delivery = Arc::new(Delivery { handlers, tally });
        node.set_events(Arc::clone(&upstream) as Arc<dyn Events>);
        let (stopping, stopped) = watch::channel(false);
        let runner =
            Runner { node, upstream: Arc::clone(&upstream), delivery, journal, max_message, stopped };
        let task = tokio::spawn(runner.run(todo));
        Ok(Some((upstream, UpstreamTask { task, stopping })))
    }

    fn handler(&self, hub: &str, event: SystemEvent) -> Option<&Arc<Handler>> {
        self.handlers.iter().find(|handler| handler.hears_system(hub, event))
    }

    fn user_handler(&self, hub: &str, event: &str) -> Option<&Arc<Handler>> {
        self.handlers.iter().find(|handler| handler.hears_user(hub, event))
    }

    /// Whether somebody decides on new connections of a hub.
    pub fn decides(&self, hub: &HubName) -> bool {
        self.handler(hub, SystemEvent::Connect).is_some()
    }

    /// Asks the application whether a client may connect. The source is the connection as it would be.
    ///
    /// # Errors
    /// What the client is answered: the application's refusal, or that there is no answer.
    pub async fn connect(&self, source: EventSource, request: &ConnectRequest) -> Result<Decision, Refusal> {
        let Some(handler) = self.handler(&source.hub, SystemEvent::Connect) else {
            return Ok(Decision::default());
        };
        let (time_ms, id) = stamp();
        let event = CloudEvent {
            id,
            time_ms,
            kind: "sys",
            name: SystemEvent::Connect.name().to_owned(),
            about: About::Connection(source),
            content_type: "application/json; charset=utf-8",
            body: Bytes::from(serde_json::to_vec(request).expect("text is always JSON")),
        };
        let reply = handler.call(&event, EventKind::Connect, connect::MAX_ANSWER).await;
        let decision = reply.and_then(|reply| {
            connect::read(reply, &request.subprotocols).map_err(|reason| {
                tracing::warn!(reason, "The answer of the upstream endpoint cannot be carried out.");
                CallError::Failed(reason.to_owned())
            })
        });
        self.tally.count(EventKind::Connect, outcome(&decision));
        decision.map_err(|error| connect::refusal(&error))
    }

    fn tell(&self, hub: &HubName, notice: Notice) {
        let Some(handler) = self.handler(hub, notice.event()) else { return };
        self.lane(hub, handler.settings().queue).push(notice);
    }

    fn lane(&self, hub: &HubName, capacity: usize) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(hub.clone()).or_insert_with(|| {
            let lane = Arc::new(Lane::new(hub.clone(), capacity, Arc::clone(&self.tally)));
            // When the task has ended nothing is sent any more.
            let _ = self.work.send(Work::Lane(Arc::clone(&lane)));
            lane
        });
        Arc::clone(lane)
    }

    /// Makes sure that what a former start of the node left in its log of a hub is sent.
    fn remember(&self, hub: &HubName) {
        let mut told = SystemEvent::ALL.iter().filter(|event| **event != SystemEvent::Connect);
        if let Some(handler) = told.find_map(|event| self.handler(hub, *event)) {
            self.lane(hub, handler.settings().queue);
        }
    }
}

impl Events for Upstream {
    fn hears(&self, hub: &HubName, event: &str) -> bool {
        self.user_handler(hub, event).is_some()
    }

    fn user(&self, event: UserEvent) -> Result<(), TooManyEvents> {
        let handler = self.user_handler(&event.source.hub, &event.name).ok_or(TooManyEvents)?;
        let units = u32::try_from(1 + event.data.len() / UNIT).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.room).try_acquire_many_owned(units).map_err(|_| {
            self.tally.count(EventKind::User, Outcome::Dropped);
            TooManyEvents
        })?;
        let work = Work::User(Box::new(event), Arc::clone(handler), permit);
        self.work.send(work).map_err(|_| TooManyEvents)
    }

    fn connected(&self, source: EventSource) {
        let notice = Notice::connection(fresh_id(), SystemEvent::Connected, &source, None);
        self.tell(&source.hub, notice);
    }

    fn disconnected(&self, source: EventSource, reason: &str) {
        let notice = Notice::connection(fresh_id(), SystemEvent::Disconnected, &source, Some(reason));
        self.tell(&source.hub, notice);
    }

    fn queued(&self, message: Queued) {
        self.tell(&message.hub, Notice::queued(fresh_id(), &message));
    }

    fn hears_presence(&self, hub: &HubName) -> bool {
        self.handler(hub, SystemEvent::Presence).is_some()
    }

    fn appeared(&self, appearance: Appearance) {
        self.tell(&appearance.hub, Notice::presence(&appearance));
    }

    fn began(&self, since: u64) {
        for handler in &self.handlers {
            let hub = &handler.settings().hub;
            // Of several that would hear of the same hub the first one does, as of all else.
            if self.handler(hub, SystemEvent::Presence).is_some_and(|first| Arc::ptr_eq(first, handler)) {
                self.tally.enter();
                // When the task has ended nothing is sent any more.
                let _ = self.work.send(Work::Notice(Box::new(Notice::reset(fresh_id(), hub, since))));
            }
        }
    }
}

impl UpstreamTask {
    /// Sends what is left, for a while, and ends.
    pub async fn stop(self) {
        let _ = self.stopping.send(true);
        // It ends by itself, within the time of farewell.
        let _ = self.task.await;
    }
}

/// What the task works with.
struct Runner {
    node: Arc<Node>,
    upstream: Arc<Upstream>,
    delivery: Arc<Delivery>,
    journal: Option<Arc<Journal>>,
    max_message: usize,
    stopped: watch::Receiver<bool>,
}

impl Runner {
    async fn run(mut self, mut todo: mpsc::UnboundedReceiver<Work>) {
        let mut running = JoinSet::new();
        // What only a stop ends.
        let mut lasting = JoinSet::new();
        for handler in &self.upstream.handlers {
            let handler = Arc::clone(handler);
            lasting.spawn(async move { handler.greet().await });
        }
        if let Some(journal) = &self.journal {
            let (journal, delivery) = (Arc::clone(journal), Arc::clone(&self.delivery));
            let upstream = Arc::clone(&self.upstream);
            lasting.spawn(async move { journal.look(&delivery, |hub| upstream.remember(&hub)).await });
        }
        let mut stopped = self.stopped.clone();
        loop {
            tokio::select! {
                Some(work) = todo.recv() => self.begin(work, &mut running),
                Some(_) = running.join_next() => {}
                // An error means that the sender is gone, which is a stop as well.
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        lasting.shutdown().await;
        while let Ok(work) = todo.try_recv() {
            self.begin(work, &mut running);
        }
        let rest = async { while running.join_next().await.is_some() {} };
        if timeout(FAREWELL, rest).await.is_err() {
            running.shutdown().await;
        }
        let left = self.upstream.tally.waiting();
        if left > 0 {
            tracing::warn!(left, "Events were not sent before the end, and are lost.");
        }
    }

    fn begin(&mut self, work: Work, running: &mut JoinSet<()>) {
        match work {
            Work::User(event, handler, permit) => {
                let (node, tally) = (Arc::clone(&self.node), Arc::clone(&self.delivery.tally));
                let max = self.max_message;
                running.spawn(async move {
                    ask(&node, &handler, &tally, *event, max).await;
                    drop(permit);
                });
            }
            Work::Notice(notice) => {
                let delivery = Arc::clone(&self.delivery);
                running.spawn(async move {
                    delivery.deliver(vec![*notice]).await;
                    delivery.tally.leave();
                });
            }
            Work::Lane(lane) => {
                let (delivery, journal) = (Arc::clone(&self.delivery), self.journal.clone());
                let stopped = self.stopped.clone();
                running.spawn(async move { lane.run(&delivery, journal.as_ref(), stopped).await });
            }
        }
    }
}

/// Asks the application on a client's behalf, and gives the answer to the client's shard.
async fn ask(node: &Node, handler: &Handler, tally: &UpstreamTally, event: UserEvent, max: usize) {
    let UserEvent { source, name, data, reply_to } = event;
    let (time_ms, id) = stamp();
    let event = CloudEvent {
        id,
        time_ms,
        kind: "user",
        name: name.into_string(),
        about: About::Connection(source),
        content_type: user_event::content_type(data.as_data().data_type()),
        body: Bytes::from(data.as_data().to_bytes().into_owned()),
    };
    let result = handler.call(&event, EventKind::User, max).await;
    tally.count(EventKind::User, outcome(&result));
    let mut reply = (reply_to, Box::new(user_event::answer(result)));
    // The connection stands still until its shard has room for the answer.
    while let Err(back) = node.reply(reply.0, reply.1) {
        reply = back;
        sleep(SHARD_FULL).await;
    }
}

/// As an event is counted that is sent once.
fn outcome<T>(result: &Result<T, CallError>) -> Outcome {
    match result {
        Ok(_) => Outcome::Answered,
        Err(CallError::Refused { .. }) => Outcome::Refused,
        Err(CallError::Failed(_)) => Outcome::Failed,
    }
}

/// Time and id of an event.
fn stamp() -> (u64, String) {
    let id = fresh_id();
    (id.unix_ms(), id.to_string())
}
