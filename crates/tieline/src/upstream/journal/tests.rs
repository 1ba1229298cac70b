//! Journals in memory, and an endpoint that can be away: what was kept is sent, by this start of the node, the next one, or
//! another node.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Request;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use tieline_core::Subprotocol;
use tieline_core::events::{EventSource, fresh_id};
use tieline_core::records::MemoryRecords;
use tieline_core::store::{Answer, Appended, Head, MemoryStore, Page, Refusal, StoreId};
use tieline_core::token::Keys;
use tieline_proto::{ConnectionId, Incarnation};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::{Layers, Settings};
use crate::upstream::SystemEvent;
use crate::upstream::handler::Handler;
use crate::upstream::http::Http;
use crate::upstream::lane::Lane;
use crate::upstream::tally::UpstreamTally;

const QUICK: Times = Times {
    lease: Duration::from_millis(300),
    renew: Duration::from_millis(50),
    look: Duration::from_millis(50),
    read: Duration::from_millis(50),
};

/// An endpoint, and what all nodes of the test share.
struct World {
    store: Arc<Shaky>,
    records: Arc<MemoryRecords>,
    delivery: Arc<Delivery>,
    /// The number of the connection and the name of each event that was taken.
    taken: Mutex<mpsc::UnboundedReceiver<(u8, String)>>,
    is_up: Arc<AtomicBool>,
}

impl World {
    async fn new() -> World {
        let (sender, taken) = mpsc::unbounded_channel();
        let is_up = Arc::new(AtomicBool::new(true));
        let up = Arc::clone(&is_up);
        let answer = move |request: Request| {
            let (sender, is_up) = (sender.clone(), up.load(Ordering::Relaxed));
            async move {
                let header =
                    |name: &str| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
                let Some(event) = header("ce-eventname") else {
                    return (StatusCode::OK, [("webhook-allowed-origin", "*")]);
                };
                if !is_up {
                    return (StatusCode::SERVICE_UNAVAILABLE, [("x", "")]);
                }
                let id: ConnectionId = header("ce-connectionid").unwrap().parse().unwrap();
                sender.send((id.to_bytes()[0], event)).unwrap();
                (StatusCode::OK, [("x", "")])
            }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        let mut layers = Layers::default();
        let table =
            format!("[[upstream]]\nurl = {url:?}\nsystem_events = [\"connected\", \"disconnected\"]\n");
        assert!(layers.add_file(std::path::Path::new("t.toml"), &table).is_empty());
        let settings = Settings::read(&layers).unwrap().upstream.remove(0);
        let tally = Arc::new(UpstreamTally::default());
        let http = Arc::new(Http::new(false, settings.timeout).unwrap());
        let origin = HeaderValue::from_static("h");
        let handler = Handler::new(settings, origin, Arc::new(Keys::default()), http, Arc::clone(&tally));
        World {
            store: Arc::new(Shaky { store: MemoryStore::new(), refuses: AtomicUsize::new(0) }),
            records: Arc::new(MemoryRecords::new()),
            delivery: Arc::new(Delivery { handlers: vec![Arc::new(handler)], tally }),
            taken: Mutex::new(taken),
            is_up,
        }
    }

    /// A start of the node of this name.
    fn start(&self, name: &str, start: u64) -> Start {
        let id = NodeId { name: NodeName::new(name).unwrap(), incarnation: Incarnation(start) };
        let store: Arc<dyn Store> = Arc::clone(&self.store) as _;
        let mut journal = Journal::new(store, Arc::clone(&self.records) as _, &id);
        journal.times = QUICK;
        let journal = Arc::new(journal);
        let hub = HubName::new("h").unwrap();
        let lane = Arc::new(Lane::new(hub, 1000, Arc::clone(&self.delivery.tally)));
        let (stop, stopping) = watch::channel(false);
        let (of, delivery, kept) = (Arc::clone(&lane), Arc::clone(&self.delivery), Arc::clone(&journal));
        let run = tokio::spawn(async move { of.run(&delivery, Some(&kept), stopping).await });
        let delivery = Arc::clone(&self.delivery);
        let look = tokio::spawn(async move { journal.look(&delivery, |_| {}).await });
        Start { lane, stop, run, look }
    }

    /// The events that come, until so many are there.
    #[expect(clippy::await_holding_lock, reason = "a test has one task that asks")]
    async fn taken(&self, count: usize) -> Vec<(u8, String)> {
        let mut taken = self.taken.lock().unwrap();
        let mut events = Vec::new();
        while events.len() < count {
            let event = timeout(Duration::from_secs(10), taken.recv()).await;
            events.push(event.expect("an event does not come").unwrap());
        }
        events
    }

    /// Whether nothing comes for longer than everything takes.
    async fn is_quiet(&self) -> bool {
        sleep(QUICK.lease * 2).await;
        self.taken.lock().unwrap().try_recv().is_err()
    }

    /// Waits until the log of a node has so many events.
    async fn kept(&self, name: &str, count: u64) {
        let key = LogKey::Events(NodeName::new(name).unwrap(), HubName::new("h").unwrap());
        let all = async {
            while self.store.heads(vec![key.clone()]).await.unwrap()[0].is_none_or(|head| head.last < count) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), all).await.expect("the events are not kept");
    }
}

/// A node that runs.
struct Start {
    lane: Arc<Lane>,
    stop: watch::Sender<bool>,
    run: JoinHandle<()>,
    look: JoinHandle<()>,
}

impl Start {
    fn tell(&self, number: u8, event: SystemEvent) {
        let source = EventSource {
            hub: HubName::new("h").unwrap(),
            connection: ConnectionId::from_bytes([number; ConnectionId::BYTES]),
            user: None,
            subprotocol: Subprotocol::Azure,
            state: Some(Arc::new("s".to_owned())),
        };
        self.lane.push(Notice::connection(fresh_id(), event, &source, Some("r")));
    }

    /// As a node stops that is told to.
    async fn stop(self) {
        self.look.abort();
        self.stop.send(true).unwrap();
        self.run.await.unwrap();
    }

    /// As a node stops that is killed.
    async fn kill(self) {
        self.look.abort();
        self.run.abort();
        drop(self.run.await);
    }
}

/// A store that refuses so many appends.
struct Shaky {
    store: MemoryStore,
    refuses: AtomicUsize,
}

impl Store for Shaky {
    fn id(&self) -> StoreId {
        self.store.id()
    }

    fn append(&self, append: Append) -> Answer<Appended> {
        let less = |left: usize| left.checked_sub(1);
        match self.refuses.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Box::pin(async { Err(Refusal::Busy.into()) }),
            Err(_) => self.store.append(append),
        }
    }

    fn read(&self, log: LogKey, after: Option<Position>, limit: PageLimit) -> Answer<Page> {
        self.store.read(log, after, limit)
    }

    fn heads(&self, logs: Vec<LogKey>) -> Answer<Vec<Option<Head>>> {
        self.store.heads(logs)
    }

    fn trim(&self, log: LogKey, cut: Cut) -> Answer<()> {
        self.store.trim(log, cut)
    }

    fn renew(&self, log: LogKey, epoch: u64) -> Answer<Option<Head>> {
        self.store.renew(log, epoch)
    }
}

fn event(number: u8, name: &str) -> (u8, String) {
    (number, name.to_owned())
}

#[tokio::test]
async fn events_are_kept_while_the_endpoint_is_away_and_sent_by_the_next_start_once() {
    let world = World::new().await;
    let first = world.start("n", 1);
    first.tell(1, SystemEvent::Connected);
    assert_eq!(world.taken(1).await, [event(1, "connected")]);
    world.is_up.store(false, Ordering::Relaxed);
    first.tell(1, SystemEvent::Disconnected);
    first.tell(2, SystemEvent::Connected);
    first.tell(2, SystemEvent::Disconnected);
    world.kept("n", 4).await;
    first.stop().await;
    assert!(world.is_quiet().await);
    world.is_up.store(true, Ordering::Relaxed);
    let second = world.start("n", 2);
    let mut taken = world.taken(3).await;
    // Those of one connection keep their order.
    taken.sort_by_key(|(number, _)| *number);
    assert_eq!(taken, [event(1, "disconnected"), event(2, "connected"), event(2, "disconnected")]);
    second.stop().await;
    let third = world.start("n", 3);
    assert!(world.is_quiet().await, "nothing is sent twice");
    third.stop().await;
}

#[tokio::test]
async fn another_node_sends_what_a_killed_one_left_and_nothing_of_one_that_lives() {
    let world = World::new().await;
    world.is_up.store(false, Ordering::Relaxed);
    let (first, other) = (world.start("n", 1), world.start("m", 1));
    first.tell(1, SystemEvent::Connected);
    world.kept("n", 1).await;
    // Long enough for its record and lease to be there.
    sleep(QUICK.renew * 2).await;
    first.kill().await;
    world.is_up.store(true, Ordering::Relaxed);
    assert_eq!(world.taken(1).await, [event(1, "connected")]);
    // The node comes back, goes on, and both live side by side.
    let second = world.start("n", 2);
    second.tell(2, SystemEvent::Connected);
    other.tell(3, SystemEvent::Connected);
    let mut taken = world.taken(2).await;
    taken.sort();
    assert_eq!(taken, [event(2, "connected"), event(3, "connected")]);
    assert!(world.is_quiet().await, "nothing is sent twice");
    second.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_store_that_refuses_is_asked_again() {
    let world = World::new().await;
    world.store.refuses.store(5, Ordering::Relaxed);
    let node = world.start("n", 1);
    node.tell(1, SystemEvent::Connected);
    assert_eq!(world.taken(1).await, [event(1, "connected")]);
    node.stop().await;
}

#[tokio::test]
async fn a_log_that_begins_anew_is_sent_from_its_beginning() {
    let world = World::new().await;
    let first = world.start("n", 1);
    first.tell(1, SystemEvent::Connected);
    world.taken(1).await;
    first.stop().await;
    let key = LogKey::Events(NodeName::new("n").unwrap(), HubName::new("h").unwrap());
    world.store.trim(key, Cut::Whole).await.unwrap();
    let second = world.start("n", 2);
    second.tell(2, SystemEvent::Connected);
    assert_eq!(world.taken(1).await, [event(2, "connected")]);
    second.stop().await;
}

#[test]
fn records_name_their_log() {
    let log = Log { node: NodeName::new("a:1").unwrap(), hub: HubName::new("h").unwrap() };
    assert_eq!(log.record("sent").as_str(), "events/a:1/h/sent");
    assert_eq!(Log::of_record("events/a:1/h/sent"), Some((log, "sent")));
    for other in ["events/", "events/a", "events/a/h", "other/a/h/sent", "events/a/1/sent"] {
        assert_eq!(Log::of_record(other), None, "{other}");
    }
}
