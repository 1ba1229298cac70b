//! The broker within one process: nodes that are started side by side, as tests do.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tieline_proto::Incarnation;

use super::{Broker, Inbound, NotTaken, To};

/// Envelopes that may wait for one node; more are not taken.
const QUEUE: usize = 65_536;

/// What a node's thread hands up.
enum News {
    Envelope(Arc<[u8]>),
    Reachable(Incarnation),
    Unreachable(Incarnation),
}

type Nodes = HashMap<Incarnation, SyncSender<News>>;

/// Joins the nodes of one process.
#[derive(Clone, Default)]
pub struct MemoryExchange(Arc<Mutex<Nodes>>);

impl MemoryExchange {
    fn lock(&self) -> MutexGuard<'_, Nodes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins a node: it and all others hear that they reach each other.
    pub fn join(&self, node: Incarnation, inbound: Arc<dyn Inbound>) -> MemoryBroker {
        let (news, heard) = sync_channel(QUEUE);
        let thread = std::thread::spawn(move || hand_up(&heard, &*inbound));
        let mut nodes = self.lock();
        for (id, other) in nodes.iter() {
            // A queue that is full of envelopes is one that nobody empties any more.
            let _ = other.send(News::Reachable(node));
            let _ = news.send(News::Reachable(*id));
        }
        nodes.insert(node, news);
        drop(nodes);
        MemoryBroker { exchange: self.clone(), node, thread: Mutex::new(Some(thread)) }
    }

    /// Cuts a node off: the others hear that it is gone, and it that they are.
    pub fn cut(&self, node: Incarnation) {
        let mut nodes = self.lock();
        let Some(gone) = nodes.remove(&node) else { return };
        for (id, other) in nodes.iter() {
            let _ = other.send(News::Unreachable(node));
            let _ = gone.send(News::Unreachable(*id));
        }
    }
}

fn hand_up(heard: &Receiver<News>, inbound: &dyn Inbound) {
    while let Ok(news) = heard.recv() {
        match news {
            News::Envelope(bytes) => inbound.envelope(&bytes),
            News::Reachable(node) => inbound.reachable(node),
            News::Unreachable(node) => inbound.unreachable(node),
        }
    }
}

/// One node's end of a [`MemoryExchange`].
pub struct MemoryBroker {
    exchange: MemoryExchange,
    node: Incarnation,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Broker for MemoryBroker {
    fn send(&self, to: To, envelope: &Arc<[u8]>) -> Result<(), NotTaken> {
        let nodes = self.exchange.lock();
        if !nodes.contains_key(&self.node) {
            return Err(NotTaken::Unreachable);
        }
        let give = |node: &SyncSender<News>| {
            node.try_send(News::Envelope(Arc::clone(envelope))).map_err(|_| NotTaken::Full)
        };
        match to {
            To::One(id) => give(nodes.get(&id).ok_or(NotTaken::Unreachable)?),
            To::All => {
                let others = nodes.iter().filter(|(id, _)| **id != self.node);
                others.map(|(_, node)| give(node)).fold(Ok(()), Result::and)
            }
        }
    }

    fn close(&self) {
        self.exchange.cut(self.node);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // It ends once it has handed up what was on its way; a panic in it was the application's.
            let _ = thread.join();
        }
    }
}
